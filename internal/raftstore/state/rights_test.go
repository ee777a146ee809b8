package state

import (
	"fmt"
	"testing"
	"time"

	"incusd/api"
)

func TestRightsFollowAProject(t *testing.T) {
	w := newCluster(t)
	for _, name := range []string{"web", "mail"} {
		w.must(KindProjectCreate, ProjectCreate{Project: Project{Name: name, Config: map[string]string{"features.profiles": "false"}}})
	}
	cert := certBody("ab")
	cert.Certificate.Restricted, cert.Certificate.Projects = true, []string{"web", "mail", "web"}
	w.must(KindCertificateAdd, cert)
	token := func(hash string, projects ...string) TokenInvite {
		return TokenInvite{Token: Token{
			Hash: hash, Secret: "secret", Name: "laptop", Operation: "op-" + hash, Issuer: "id1", Fingerprint: "f", Addresses: []string{"a"},
			CreatedAt: w.now, ExpiresAt: w.now.Add(time.Hour), Client: &ClientGrant{Restricted: true, Projects: projects},
		}}
	}
	w.must(KindTokenInvite, token("t", "mail", "web"))
	requireProjects := func(cert, token string) {
		t.Helper()
		c, _ := w.s.View().Certificate("ab")
		if got := fmt.Sprint(c.Projects); got != cert {
			t.Errorf("the certificate has %s, want %s", got, cert)
		}
		if got := fmt.Sprint(w.token("t").Client.Projects); got != token {
			t.Errorf("the token has %s, want %s", got, token)
		}
	}
	requireProjects("[web mail]", "[mail web]")
	before := w.s.View()
	w.must(KindProjectRename, ProjectRename{Name: "web", NewName: "shop"})
	requireProjects("[shop mail]", "[mail shop]")
	if !closed(before.WatchMembers()) {
		t.Error("nobody looks at open connections again")
	}
	c, _ := before.Certificate("ab")
	tok, _ := before.Token("t")
	if fmt.Sprint(c.Projects, tok.Client.Projects) != "[web mail] [mail web]" {
		t.Error("a record that a reader holds was changed")
	}
	w.must(KindProjectDelete, ProjectDelete{Name: "mail"})
	requireProjects("[shop]", "[shop]")

	// Another project of a former name is none of theirs.
	w.must(KindProjectCreate, ProjectCreate{Project: Project{Name: "web"}})
	requireProjects("[shop]", "[shop]")
	w.must(KindTokenRedeem, TokenRedeem{Hash: "t", Certificate: Certificate{Fingerprint: "cd", PEM: "pem"}})
	if c, _ := w.s.View().Certificate("cd"); fmt.Sprint(c.Projects) != "[shop]" {
		t.Errorf("redeemed for %v", c.Projects)
	}
}

func TestNoRightsInProjectsThatAreNotThere(t *testing.T) {
	w := newCluster(t)
	cert := certBody("ab")
	cert.Certificate.Projects = []string{"default", "web"}
	w.says(api.NotFound, `Project "web" not found`, KindCertificateAdd, cert)
	w.says(api.NotFound, `Project "web" not found`, KindTokenInvite, TokenInvite{Token: Token{
		Hash: "t", Secret: "s", Name: "laptop", Operation: "op", Issuer: "id1", Fingerprint: "f", Addresses: []string{"a"}, CreatedAt: w.now,
		Client: &ClientGrant{Projects: []string{"web"}},
	}})
	w.must(KindCertificateAdd, certBody("ab"))
	next := certBody("ab").Certificate
	next.Projects = []string{"web"}
	w.says(api.NotFound, `Project "web" not found`, KindCertificateUpdate, CertificateUpdate{Fingerprint: "ab", Certificate: next})
	if c, _ := w.s.View().Certificate("ab"); len(c.Projects) != 0 {
		t.Errorf("projects %v", c.Projects)
	}
}

// A change is judged by what the client may do when it is applied, not by what a member knew before.
func TestClientChangesWhatIsInItsProjectsByNow(t *testing.T) {
	w := newCluster(t)
	own := map[string]string{FeatureProfiles: "true", FeatureVolumes: "true"}
	for _, name := range []string{"web", "shop"} {
		w.must(KindProjectCreate, ProjectCreate{Project: Project{Name: name, Config: own}})
	}
	w.must(KindEntityCreate, EntityCreate{ID: "pool", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id1"})
	for _, name := range []string{"web", "shop"} {
		w.must(KindProfileCreate, ProfileCreate{Profile: Profile{Project: name, Name: "p"}})
		w.must(KindEntityCreate, EntityCreate{ID: name, Kind: EntityVolume, Project: name, Pool: "local", Name: "v", Type: "filesystem", MemberID: "id1"})
	}
	cert := certBody("ab")
	cert.Certificate.Restricted, cert.Certificate.Projects = true, []string{"web"}
	w.must(KindCertificateAdd, cert)

	changes := func(project string) map[string]any {
		profile, _ := w.s.View().Profile(project, "p")
		volume, _ := w.s.View().Volume("local", project, "v")
		return map[string]any{
			KindProfileCreate: ProfileCreate{Profile: Profile{Project: project, Name: "new"}},
			KindProfileUpdate: ProfileUpdate{Profile: *profile, Expect: profile.Hash()},
			KindProfileRename: ProfileRename{Project: project, Name: "p", NewName: "q"},
			KindProfileDelete: ProfileDelete{Project: project, Name: "p"},
			KindEntityCreate:  EntityCreate{ID: "new", Kind: EntityVolume, Project: project, Pool: "local", Name: "new", Type: "filesystem", MemberID: "id1"},
			KindEntityUpdate:  EntityUpdate{ID: project, Expect: volume.Hash()},
			KindEntityRename:  EntityRename{ID: project, Name: "w"},
			KindEntityDelete:  EntityDelete{ID: project},
		}
	}
	refusedTo := func(text, project string) {
		t.Helper()
		bodies := changes(project)
		bodies[KindEntityDefine] = EntityDefine{ID: "net", Kind: EntityNetwork, Project: project, Name: "br0", Type: "bridge", MemberID: "id1"}
		for kind, body := range bodies {
			w.by = &api.EventRequestor{Username: "ab", Protocol: "tls"}
			w.says(api.NotAuthorized, text, kind, body)
			w.by = nil
		}
	}
	refusedTo(`User does not have permission for project "shop"`, "shop")
	w.by = &api.EventRequestor{Username: "ab", Protocol: "tls"}
	pool, _ := w.s.View().Pool("local")
	w.refused(api.NotAuthorized, KindEntityUpdate, EntityUpdate{ID: pool.ID, Expect: pool.Hash()})
	w.refused(api.NotAuthorized, KindEntityDelete, EntityDelete{ID: pool.ID})
	for _, kind := range []string{KindProfileCreate, KindProfileUpdate, KindProfileRename, KindEntityCreate, KindEntityUpdate, KindEntityRename, KindEntityDelete} {
		w.must(kind, changes("web")[kind])
		switch kind {
		case KindProfileRename:
			w.must(kind, ProfileRename{Project: "web", Name: "q", NewName: "p"})
		case KindEntityRename:
			w.must(kind, EntityRename{ID: "web", Name: "v"})
		}
	}
	w.must(KindProfileDelete, ProfileDelete{Project: "web", Name: "p"})
	w.by = nil
	w.must(KindCertificateRemove, CertificateRemove{Fingerprint: "ab"})
	refusedTo("not authorized any more", "shop")
}

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

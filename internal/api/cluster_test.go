package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"incusd/api"
	"incusd/internal/operations"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// put sends PUT /1.0/cluster and returns the operation that came of it.
func (b *bed) put(body any) *operations.Op {
	b.t.Helper()
	started := metadata[api.Operation](b.t, b.do(request{method: "PUT", path: "/1.0/cluster", body: body}), http.StatusAccepted)
	op, ok := b.server.cfg.Operations.Get(started.ID)
	if !ok {
		b.t.Fatalf("operation %s is not there", started.ID)
	}
	return op
}

func TestBootstrap(t *testing.T) {
	b := newBed(t)
	body := `{"server_name":"node1","enabled":true,"member_config":null,"cluster_address":"","cluster_certificate":"","server_address":"","cluster_token":""}`
	refused := func(status int, reason api.Reason, text string) {
		t.Helper()
		wantRefusal(t, b.do(request{method: "PUT", path: "/1.0/cluster", body: body}), status, reason, text)
	}
	refused(400, api.NoAddress, "No cluster.https_address config is set on this member")
	b.settings.values["core.https_address"] = "[::]:8443"
	refused(400, api.AddressInvalid, `Cannot use wildcard core.https_address "[::]:8443" for cluster.https_address`)
	b.settings.values["core.https_address"] = "10.0.0.1:8443"

	op := b.put(body)
	if err := op.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := op.API()
	if seen.Description != "Creating bootstrap node" || seen.Metadata["certificate"] != string(b.pair.CertPEM) || seen.MayCancel || seen.Location != "node1" {
		t.Errorf("operation %+v", seen)
	}
	if cluster := get[api.Cluster](b, "/1.0/cluster"); !cluster.Enabled || cluster.ServerName != "node1" {
		t.Errorf("cluster %+v", cluster)
	}
	refused(400, api.AlreadyClustered, "This server is already clustered")
}

func TestOnlyOneBootstrapRunsAtATime(t *testing.T) {
	b := newBed(t)
	b.settings.values["core.https_address"] = "10.0.0.1:8443"
	goOn := make(chan struct{})
	b.server.cfg.Bootstrap = func(_ context.Context, name string, _ *api.EventRequestor, progress func(string)) error {
		progress("Waiting")
		<-goOn
		return b.enable(name)
	}
	body := `{"server_name":"node1","enabled":true}`
	op := b.put(body)
	wantRefusal(t, b.do(request{method: "PUT", path: "/1.0/cluster", body: body}), 409, api.JoinRunning, "Another bootstrap or join is running")
	close(goOn)
	if err := op.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestFailedBootstrapCanBeRepeated(t *testing.T) {
	b := newBed(t)
	b.settings.values["core.https_address"] = "10.0.0.1:8443"
	works := b.server.cfg.Bootstrap
	b.server.cfg.Bootstrap = func(context.Context, string, *api.EventRequestor, func(string)) error {
		return api.Errorf(api.AddressInUse, "Cannot listen on 10.0.0.1:8443")
	}
	body := `{"server_name":"node1","enabled":true}`
	op := b.put(body)
	if err := op.Wait(t.Context()); err == nil || op.API().Metadata["reason"] != "address_in_use" {
		t.Fatalf("got %v, %v", err, op.API().Metadata)
	}
	b.server.cfg.Bootstrap = works
	if err := b.put(body).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsWrongWithAClusterRequestIsSaidAtOnce(t *testing.T) {
	issuer := newCluster(t, "node1")
	token := tokens.Text(issuer.issue("node2")).String()
	cert := string(newPair(t, trust.Server).CertPEM)
	tests := map[string]struct {
		body   map[string]any
		status int
		reason api.Reason
		text   string
	}{
		"no name":           {map[string]any{"enabled": true}, 400, api.BadRequest, "ServerName is required when enabling clustering"},
		"group as name":     {map[string]any{"enabled": true, "server_name": "@a"}, 400, api.NameInvalid, `ServerName may not start with "@"`},
		"name for no URL":   {map[string]any{"enabled": true, "server_name": "a/b"}, 400, api.NameInvalid, "Invalid cluster member name"},
		"disabled, named":   {map[string]any{"enabled": false, "server_name": "a"}, 400, api.BadRequest, "ServerName must be empty when disabling clustering"},
		"disabled":          {map[string]any{"enabled": false}, 400, api.NotClustered, "This server is not clustered"},
		"no certificate":    {map[string]any{"enabled": true, "server_name": "node2", "cluster_address": "10.0.0.1"}, 400, api.BadRequest, "No target cluster member certificate provided"},
		"odd certificate":   {map[string]any{"enabled": true, "server_name": "node2", "cluster_address": "10.0.0.1", "cluster_certificate": "x"}, 400, api.CertInvalid, ""},
		"no address":        {map[string]any{"enabled": true, "server_name": "node2", "cluster_address": "10.0.0.1", "cluster_certificate": cert}, 400, api.BadRequest, "No server address provided for this member"},
		"wildcard address":  {map[string]any{"enabled": true, "server_name": "node2", "cluster_token": token, "server_address": "0.0.0.0"}, 400, api.AddressInvalid, `Invalid server address "0.0.0.0": Wildcard addresses aren't allowed`},
		"address elsewhere": {map[string]any{"enabled": true, "server_name": "node2", "cluster_token": token, "server_address": "10.0.0.3"}, 400, api.AddressInvalid, `Server address "10.0.0.3" is not covered by "10.0.0.2:8443" from "cluster.https_address"`},
		"broken token":      {map[string]any{"enabled": true, "server_name": "node2", "cluster_token": "x", "server_address": "10.0.0.2"}, 400, api.TokenMalformed, "Invalid join token"},
		"token of another":  {map[string]any{"enabled": true, "server_name": "node3", "cluster_token": token, "server_address": "10.0.0.2"}, 403, api.TokenWrongName, `for the member name "node2", not for "node3"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.settings.values["core.https_address"] = "10.0.0.2:8443"
			b.settings.values["cluster.https_address"] = "10.0.0.2:8443"
			b.server.cfg.Join = func(context.Context, api.ClusterPut, func(string)) error {
				t.Error("the join was begun")
				return nil
			}
			wantRefusal(t, b.do(request{method: "PUT", path: "/1.0/cluster", body: test.body}), test.status, test.reason, test.text)
		})
	}
}

func TestJoinTellsItsProgressAndItsReason(t *testing.T) {
	issuer := newCluster(t, "node1")
	token := tokens.Text(issuer.issue("node2")).String()
	b := newBed(t)
	var got api.ClusterPut
	step, goOn := make(chan struct{}), make(chan struct{})
	b.server.cfg.Join = func(_ context.Context, req api.ClusterPut, progress func(string)) error {
		got = req
		progress("Asking for admission")
		close(step)
		<-goOn
		return api.Errorf(api.NameTaken, "The cluster already has a member with name: node2")
	}
	// The token alone says enough: it has the name and the addresses.
	op := b.put(map[string]any{"enabled": true, "cluster_token": token, "server_address": "10.0.0.2"})
	<-step
	if seen := op.API(); seen.Description != "Joining cluster" || seen.Metadata["join_progress"] != "Asking for admission" {
		t.Errorf("operation %+v", seen)
	}
	close(goOn)
	if err := op.Wait(t.Context()); err == nil || op.API().Metadata["reason"] != "name_taken" {
		t.Errorf("got %v, %v", err, op.API().Metadata)
	}
	if got.ServerName != "node2" || got.ClusterToken != token {
		t.Errorf("the joiner was told %+v", got)
	}
}

func TestMembers(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	if got := get[[]api.ClusterMember](b, "/1.0/cluster/members?recursion=1&filter="); len(got) != 3 || got[0].ServerName != "node1" {
		t.Errorf("got %+v", got)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/cluster/members/nope"}), 404, api.MemberNotFound, "Cluster member not found")

	t.Run("joining ones are not shown", func(t *testing.T) {
		b.admit("node4", "10.0.0.4:8443")
		if got := get[[]string](b, "/1.0/cluster/members"); len(got) != 3 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("put goes back what get gave", func(t *testing.T) {
		w := b.do(request{method: "GET", path: "/1.0/cluster/members/node2"})
		member := metadata[api.ClusterMember](t, w, 200)
		member.Config = api.ConfigMap{"user.x": "1"}
		header := map[string]string{"If-Match": w.Header().Get("ETag")}
		put := request{method: "PUT", path: "/1.0/cluster/members/node2", body: member.ClusterMemberPut, header: header}
		if w := b.do(put); w.Code != http.StatusOK {
			t.Fatalf("got %s", w.Body)
		}
		if got := get[api.ClusterMember](b, "/1.0/cluster/members/node2"); got.Config["user.x"] != "1" {
			t.Errorf("got %+v", got)
		}
		now := strings.Trim(b.do(request{method: "GET", path: put.path}).Header().Get("ETag"), `"`)
		text := "ETag doesn't match: " + now + " vs " + strings.Trim(header["If-Match"], `"`)
		wantRefusal(t, b.do(put), 412, api.PreconditionFail, text)
		put.method = "PATCH"
		wantRefusal(t, b.do(put), 412, api.PreconditionFail, text)
	})
	t.Run("patch leaves alone what it does not name", func(t *testing.T) {
		patch := request{method: "PATCH", path: "/1.0/cluster/members/node2", body: `{"config":{"user.y":2},"description":"blue"}`}
		if w := b.do(patch); w.Code != http.StatusOK {
			t.Fatalf("got %s", w.Body)
		}
		got := get[api.ClusterMember](b, "/1.0/cluster/members/node2")
		if got.Config["user.x"] != "1" || got.Config["user.y"] != "2" || got.Description != "blue" || got.FailureDomain != "default" || len(got.Groups) != 1 {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("groups follow from members", func(t *testing.T) {
		got := get[[]api.ClusterGroup](b, "/1.0/cluster/groups?recursion=1")
		if len(got) != 1 || got[0].Name != "default" || got[0].Description != "Default cluster group" || strings.Join(got[0].Members, " ") != "node1 node2 node3" {
			t.Errorf("got %+v", got)
		}
		wantRefusal(t, b.do(request{method: "GET", path: "/1.0/cluster/groups/blue"}), 404, api.NotFound, "Cluster_group not found")
	})
}

func TestNamesInPathsAreDecoded(t *testing.T) {
	b := newCluster(t, "node#1", "node2")
	if got := get[api.ClusterMember](b, "/1.0/cluster/members/node%231"); got.ServerName != "node#1" {
		t.Errorf("got %+v", got)
	}
	if got := get[[]string](b, "/1.0/cluster/members"); got[0] != "/1.0/cluster/members/node%231" {
		t.Errorf("got %v", got)
	}
}

func TestJoinTokenIsIssuedAsAnOperation(t *testing.T) {
	b := newCluster(t, "node1")
	w := b.do(request{method: "POST", path: "/1.0/cluster/members", body: `{"server_name":"node2"}`})
	op := metadata[api.Operation](t, w, http.StatusAccepted)
	text, err := op.JoinToken()
	if err != nil || text.ServerName != "node2" || text.Fingerprint != b.pair.Fingerprint() {
		t.Errorf("got %+v, %v", text, err)
	}
	if w.Header().Get("Location") != "/1.0/operations/"+op.ID || envelope(t, w).Operation != "/1.0/operations/"+op.ID {
		t.Error("the operation is not named")
	}
	for body, want := range map[string]api.Reason{`{"server_name":"bad name"}`: api.NameInvalid, `{"server_name":""}`: api.NameInvalid} {
		wantRefusal(t, b.do(request{method: "POST", path: "/1.0/cluster/members", body: body}), 400, want, "Invalid cluster member name: ")
	}
	wantRefusal(t, newBed(t).do(request{method: "POST", path: "/1.0/cluster/members", body: `{"server_name":"a"}`}), 400, api.NotClustered, "This server is not clustered")
}

func TestBuiltInEntities(t *testing.T) {
	b := newBed(t)
	for _, path := range []string{"storage-pools", "instances", "images", "warnings"} {
		if w := b.do(request{method: "GET", path: "/1.0/" + path + "?recursion=1"}); !strings.Contains(w.Body.String(), `"metadata":[]`) {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/storage-pools/local"}), 404, api.NotFound, "Storage pool not found")
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/networks/incusbr0"}), 404, api.NotFound, "Network not found")
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/profiles/x"}), 404, api.NotFound, "Fetch profile: Profile not found")
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/projects/x"}), 404, api.NotFound, "Project not found")
	wantRefusal(t, b.do(request{method: "POST", path: "/1.0/instances", body: `{}`}), 501, api.NotImplemented, "runs no instances")

	var profile map[string]json.RawMessage = get[map[string]json.RawMessage](b, "/1.0/profiles/default?project=default")
	if string(profile["config"]) != "{}" || string(profile["devices"]) != "{}" || string(profile["description"]) != `"Default Incus profile"` {
		t.Errorf("profile %s", profile)
	}
	if projects := get[[]api.Project](b, "/1.0/projects?recursion=1"); len(projects) != 1 || projects[0].Config["features.storage.buckets"] != "true" {
		t.Errorf("projects %+v", projects)
	}
	if profiles := get[[]string](b, "/1.0/profiles?all-projects=true"); len(profiles) != 1 || profiles[0] != "/1.0/profiles/default" {
		t.Errorf("profiles %v", profiles)
	}
}

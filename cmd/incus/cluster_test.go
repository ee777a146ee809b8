package main

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/client/clienttest"
)

func staleAnswer(metadata any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Incus-Stale", "no_quorum; index=7; since=2026-11-22T08:57:28Z; voters=3; missing=node2,node3")
		clienttest.Sync(w, metadata)
	}
}

func TestClusterListAsksWithAFilter(t *testing.T) {
	for args, filter := range map[string]string{
		"":                          "",
		"node1":                     "server_name eq (^node1$|^node1.*)",
		"node1 user.x=1":            "server_name eq (^node1$|^node1.*) and config.user.x eq 1",
		"status=online":             "status eq online",
		"node1 node2":               "server_name eq (^node1$|^node1.*|^node2$|^node2.*)",
		"failure_domain=a message=": `failure_domain eq a and message eq ""`,
	} {
		if got := memberFilter(strings.Fields(args)); got != filter {
			t.Errorf("%q: got %q, want %q", args, got, filter)
		}
	}
	s := clustered(t)
	s.mustRun(t, "", "cluster", "list", "local:", "status=online")
	s.mustAsk(t, "GET /1.0/cluster", "GET /1.0/cluster/members?filter=status+eq+online&recursion=1")
}

func TestCommandsForClustersNeedOne(t *testing.T) {
	s := standalone(t, nil)
	for _, args := range []string{
		"cluster list", "cluster info x", "cluster get x y", "cluster set x y=z", "cluster unset x y", "cluster list-tokens", "cluster revoke-token x",
	} {
		s.mustFail(t, "Error: Server isn't part of a cluster\nHint: form a cluster first: incus admin init, or incus cluster enable NAME\n",
			"", strings.Fields(args)...)
	}
	s.unchanged(t)
}

func TestClusterGetPrintsKeysAndProperties(t *testing.T) {
	s := clustered(t)
	member := load[[]api.ClusterMember](t, "cluster-list.json.out")[0]
	member.Config = api.ConfigMap{"user.x": "1"}
	s.Reply("GET /1.0/cluster/members/node1", member)
	if got := s.mustRun(t, "", "cluster", "get", "node1", "user.x"); got != golden(t, "cluster-get.user.out") {
		t.Errorf("got %q", got)
	}
	if got := s.mustRun(t, "", "cluster", "get", "node1", "roles", "-p"); got != "[database-leader database]\n" {
		t.Errorf("got %q", got)
	}
	s.mustFail(t, "Error: The property \"color\" does not exist on the cluster member \"node1\"\nHint: properties are description, failure_domain, groups and roles\n",
		"", "cluster", "get", "node1", "color", "-p")
}

func TestClusterSetWritesTheWholeMember(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"set node1 user.y=2 user.z=a=b", `"config":{"user.x":"1","user.y":"2","user.z":"a=b"}`},
		{"unset node1 user.x", `"config":{}`},
		{"set node1 -p failure_domain=rack1 description=old", `"failure_domain":"rack1","description":"old"`},
		{"set node1 -p roles=database,event-hub", `"roles":["database","event-hub"]`},
		{"unset node1 -p description", `"description":""`},
	} {
		s := clustered(t)
		member := load[[]api.ClusterMember](t, "cluster-list.json.out")[0]
		member.Config = api.ConfigMap{"user.x": "1"}
		member.Description = "here"
		s.Handle("GET /1.0/cluster/members/node1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"e1"`)
			clienttest.Sync(w, member)
		})
		tries := 0
		s.Handle("PUT /1.0/cluster/members/node1", func(w http.ResponseWriter, _ *http.Request) {
			if tries++; tries == 1 { // somebody else was faster
				clienttest.Error(w, 412, "ETag doesn't match", nil)
				return
			}
			clienttest.Sync(w, struct{}{})
		})
		s.mustRun(t, "", append([]string{"cluster"}, strings.Fields(tt.args)...)...)
		if body := s.body(t, "PUT /1.0/cluster/members/node1"); !strings.Contains(body, tt.want) {
			t.Errorf("%s: sent %s", tt.args, body)
		}
		if got := s.Requests()[2].IfMatch; got != `"e1"` || tries != 2 {
			t.Errorf("%s: If-Match %s, %d tries", tt.args, got, tries)
		}
	}
}

func TestClusterEditTakesWhatClusterShowPrints(t *testing.T) {
	s := clustered(t)
	s.Reply("PUT /1.0/cluster/members/node1", struct{}{})
	text := strings.Replace(golden(t, "cluster-show.node1.out"), "failure_domain: default", "failure_domain: rack1", 1)
	s.mustRun(t, text, "cluster", "edit", "node1")
	want := `{"roles":["database-leader","database"],"failure_domain":"rack1","description":"","config":{},"groups":["default"]}`
	if diff := cmp.Diff(want, s.body(t, "PUT /1.0/cluster/members/node1")); diff != "" {
		t.Error(diff)
	}
	s.mustFail(t, "Error: line 1: unknown key \"failure_domian\"\n", "failure_domian: rack1\n", "cluster", "edit", "node1")
}

func TestEditorOpensAgainAfterARefusal(t *testing.T) {
	s := clustered(t)
	s.world.stdinTerminal = true
	var seen []string
	answers := []string{"rolls: []\n", "roles: []\n", "roles: [database]\n"}
	s.world.edit = func(_ context.Context, text []byte) ([]byte, error) {
		seen = append(seen, string(text))
		answer := answers[0]
		answers = answers[1:]
		return []byte(answer), nil
	}
	s.Handle("PUT /1.0/cluster/members/node1", func(w http.ResponseWriter, r *http.Request) {
		if len(answers) > 0 {
			clienttest.Error(w, 400, "no role", nil)
			return
		}
		clienttest.Sync(w, struct{}{})
	})
	if !s.run("\n\n", "cluster", "edit", "node1") {
		t.Fatal(&s.stderr)
	}
	if want := "Error: line 1: unknown key \"rolls\"\nError: no role\n"; s.stderr.String() != want {
		t.Errorf("got %q", &s.stderr)
	}
	if len(seen) != 3 || !strings.Contains(seen[0], "### This is the writable part") || !strings.Contains(seen[0], "\nroles:\n  - database-leader\n") || seen[1] != "rolls: []\n" {
		t.Errorf("the editor showed %q", seen)
	}
}

func TestClusterEnable(t *testing.T) {
	s := standalone(t, api.ConfigMap{"core.https_address": "10.0.0.1:8443"})
	if got := s.mustRun(t, "", "cluster", "enable", "node1"); got != "Clustering enabled\n" {
		t.Errorf("got %q", got)
	}
	s.mustAsk(t, "GET /1.0", "GET /1.0/cluster", "PUT /1.0/cluster", "GET /1.0/operations/9e871762")
	want := `{"server_name":"node1","enabled":true,"member_config":null,"cluster_address":"","cluster_certificate":"","server_address":"","cluster_token":""}`
	if diff := cmp.Diff(want, s.body(t, "PUT /1.0/cluster")); diff != "" {
		t.Error(diff)
	}
	standalone(t, nil).mustFail(t, "Error: This server is not available on the network\n"+
		"Hint: set one: incus config set core.https_address=ADDRESS:8443\n", "", "cluster", "enable", "node1")
}

package main

import (
	"net/http"
	"strings"
	"testing"

	"incusd/api"
	"incusd/client/clienttest"
)

func TestClusterRemoveSendsOneRequest(t *testing.T) {
	s := newShell(t)
	s.Reply("DELETE /1.0/cluster/members/node2", nil)
	for args, want := range map[string]string{
		"cluster remove node2":                   "DELETE /1.0/cluster/members/node2",
		"cluster rm local:node2":                 "DELETE /1.0/cluster/members/node2",
		"cluster delete node2 --force --yes":     "DELETE /1.0/cluster/members/node2?force=1",
		"cluster remove node2 -f --yes --quiet ": "DELETE /1.0/cluster/members/node2?force=1",
	} {
		before := len(s.Lines())
		got := s.mustRun(t, "", strings.Fields(args)...)
		if strings.Contains(args, "--quiet") != (got == "") || got != "" && got != "Member node2 removed\n" {
			t.Errorf("incus %s prints %q", args, got)
		}
		if sent := strings.Join(s.Lines()[before:], ", "); sent != want {
			t.Errorf("incus %s sends %s, want %s", args, sent, want)
		}
	}
}

func TestClusterRemoveByForceAsksForALiteralYes(t *testing.T) {
	s := newShell(t)
	s.Reply("DELETE /1.0/cluster/members/node2", nil)
	for _, answer := range []string{"y\n", "no\n", "\n"} {
		s.mustFail(t, "Error: User aborted delete operation\n", answer, "cluster", "remove", "node2", "--force")
	}
	if len(s.Lines()) > 0 {
		t.Fatalf("it sent %q", s.Lines())
	}
	got := s.mustRun(t, "yes\n", "cluster", "remove", "node2", "--force")
	if !strings.HasPrefix(got, "Forcefully removing a server from the cluster should only be done as a last\nresort.\n") ||
		!strings.HasSuffix(got, "Are you really sure you want to force removing node2? (yes/no): Member node2 removed\n") {
		t.Errorf("prints %q", got)
	}
}

func TestClusterRemoveShowsATerminalWhatItWaitsFor(t *testing.T) {
	s := clustered(t)
	s.world.stderrTerminal = true
	shown := make(chan struct{})
	s.Handle("GET /1.0/cluster/members/node2", func(w http.ResponseWriter, _ *http.Request) {
		clienttest.Sync(w, api.ClusterMember{ServerName: "node2", Message: "Being removed: waiting for it to leave"})
		close(shown)
	})
	s.Handle("DELETE /1.0/cluster/members/node2", func(w http.ResponseWriter, _ *http.Request) {
		<-shown
		clienttest.Sync(w, nil)
	})
	if !s.run("", "cluster", "remove", "node2") || !strings.Contains(s.stderr.String(), "node2: Being removed: waiting for it to leave") {
		t.Errorf("exit code %d, stderr %q", s.exitCode, &s.stderr)
	}
}

func TestClusterReplacePrintsTheToken(t *testing.T) {
	s := clustered(t)
	op := load[map[string][]api.Operation](t, "query-operations.out")["cancelled"][0]
	s.ReplyAsync("POST /1.0/cluster/members", op)
	token, err := op.JoinToken()
	if err != nil {
		t.Fatal(err)
	}
	got := s.mustRun(t, "", "cluster", "replace", "node3")
	if want := "Member node3 join token, for a server in its place:\n" + token.String() + "\n"; got != want {
		t.Errorf("prints %q, want %q", got, want)
	}
	if body := s.body(t, "POST /1.0/cluster/members"); body != `{"server_name":"node3","replace":true}` {
		t.Errorf("sends %s", body)
	}
}

func TestAdminClusterAsksBeforeItTakesAnythingAway(t *testing.T) {
	s := clustered(t)
	s.Reply("PUT /1.0/cluster", map[string]any{})
	s.Reply("POST /internal/cluster/reset", nil)
	for command, done := range map[string]string{"disable": "Clustering disabled\n", "reset": "This server is a standalone server now\n"} {
		s.mustFail(t, "Error: User aborted operation\n", "no\n", "admin", "cluster", command)
		if got := s.mustRun(t, "yes\n", "admin", "cluster", command); !strings.HasSuffix(got, "? (yes/no): "+done) {
			t.Errorf("%s prints %q", command, got)
		}
		if got := s.mustRun(t, "", "admin", "cluster", command, "--yes"); got != done {
			t.Errorf("%s prints %q", command, got)
		}
	}
}

func TestAdminClusterDisableSaysThatOneMemberOfManyLosesAll(t *testing.T) {
	s := clustered(t)
	s.Reply("PUT /1.0/cluster", map[string]any{})
	const question = "Are you sure you want to turn clustering off on node1? (yes/no): "
	if got := s.mustRun(t, "yes\n", "admin", "cluster", "disable"); got != "node1 is not the only member: it leaves the cluster and becomes an empty standalone server.\n"+question+"Clustering disabled\n" {
		t.Errorf("prints %q", got)
	}
	s.Reply("GET /1.0/cluster/members", []api.ClusterMember{{ServerName: "node1"}})
	if got := s.mustRun(t, "yes\n", "admin", "cluster", "disable"); got != question+"Clustering disabled\n" {
		t.Errorf("prints %q", got)
	}
}

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
)

func TestClusterAddPrintsTheToken(t *testing.T) {
	s := clustered(t)
	for _, op := range load[map[string][]api.Operation](t, "query-operations.out")["cancelled"] {
		s.ReplyAsync("POST /1.0/cluster/members", op) // the first token of the examples, revoked later
	}
	want := golden(t, "cluster-add.out")
	if diff := cmp.Diff(want, s.mustRun(t, "", "cluster", "add", "goldA")); diff != "" {
		t.Error(diff)
	}
	s.mustAsk(t, "POST /1.0/cluster/members")
	if body := s.body(t, "POST /1.0/cluster/members"); body != `{"server_name":"goldA"}` {
		t.Errorf("sent %s", body)
	}
	_, token, _ := strings.Cut(want, "\n")
	for _, args := range []string{"cluster add goldA --quiet", "cluster add --name goldA -q", "cluster add local: --name goldA -q"} {
		if got := s.mustRun(t, "", strings.Fields(args)...); got != token {
			t.Errorf("%s: got %q", args, got)
		}
	}
	s.mustFail(t, "Error: No name for the new member\nHint: usage: incus cluster add [<remote>:]<name> [flags]\n", "", "cluster", "add")
}

func TestListTokens(t *testing.T) {
	s := clustered(t)
	s.Reply("GET /1.0/operations", map[string]any{})
	if diff := cmp.Diff(golden(t, "cluster-list-tokens.empty.out"), s.mustRun(t, "", "cluster", "list-tokens")); diff != "" {
		t.Error(diff)
	}
	s.mustAsk(t, "GET /1.0/cluster", "GET /1.0/operations?project=default&recursion=1")
	if got := s.mustRun(t, "", "cluster", "list-tokens", "-f", "json"); got != "[]\n" {
		t.Errorf("got %q", got)
	}
	// The example's order is that of a server which lists its operations in no order.
	operations := load[map[string][]api.Operation](t, "query-operations.out")["running"]
	operations[0].CreatedAt, operations[1].CreatedAt = operations[1].CreatedAt, operations[0].CreatedAt
	s.Reply("GET /1.0/operations", map[string]any{"running": operations})
	if diff := cmp.Diff(golden(t, "cluster-list-tokens.yaml.out"), s.mustRun(t, "", "cluster", "list-tokens", "-f", "yaml")); diff != "" {
		t.Error(diff)
	}
}

func TestRevokeTokenDeletesItsOperation(t *testing.T) {
	s := clustered(t)
	s.Reply("DELETE /1.0/operations/0560092f-d83c-439d-a9ae-61b652c6e64a", struct{}{})
	if got := s.mustRun(t, "", "cluster", "revoke-token", "goldA"); got != golden(t, "cluster-revoke-token.out") {
		t.Errorf("got %q", got)
	}
	s.mustAsk(t, "GET /1.0/cluster", "GET /1.0/operations?project=default&recursion=1",
		"DELETE /1.0/operations/0560092f-d83c-439d-a9ae-61b652c6e64a")
	s.Reply("GET /1.0/operations", map[string]any{})
	s.mustFail(t, golden(t, "cluster-revoke-token.again.err"), "", "cluster", "revoke-token", "goldA")
}

func TestTokenThatAStaleListLacksMayExist(t *testing.T) {
	s := clustered(t)
	s.Handle("GET /1.0/operations", staleAnswer(map[string]any{}))
	for _, command := range []string{"cluster revoke-token goldA", "config trust revoke-token goldA"} {
		if s.run("", strings.Fields(command)...) {
			t.Fatalf("%s succeeded", command)
		}
		if got := s.stderr.String(); !strings.Contains(got, "Error: No quorum: this member does not know whether it exists (No c") ||
			!strings.Contains(got, "Hint: "+api.NoQuorum.Hint()) {
			t.Errorf("%s: %s", command, got)
		}
	}
}

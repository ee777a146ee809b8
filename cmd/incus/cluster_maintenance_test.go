package main

import (
	"strings"
	"testing"

	"incusd/api"
)

func TestEvacuateAsksFirst(t *testing.T) {
	s := clustered(t)
	const question = `Are you sure you want to evacuate cluster member "node1"? (yes/no) [default=no]: `
	for _, answer := range []string{"no\n", "\n"} {
		if got := s.mustRun(t, answer, "cluster", "evacuate", "node1"); got != question {
			t.Errorf("it printed %q", got)
		}
	}
	s.unchanged(t)
	s.Refuse("POST /1.0/cluster/members/node1/state", 400, "Cluster member is already restored", nil)
	if s.run("yes\n", "cluster", "restore", "node1") || !strings.Contains(s.stderr.String(), "Error: Cluster member is already restored") {
		t.Errorf("it printed %q", &s.stderr)
	}
	if !strings.Contains(s.stdout.String(), `restore cluster member "node1"?`) {
		t.Errorf("it asked %q", &s.stdout)
	}
}

func TestRoleExplainShowsOneOrAll(t *testing.T) {
	s := clustered(t)
	s.Reply("GET /internal/cluster/roles", []api.ClusterMemberRole{
		{ServerName: "node1", Role: "database", Leader: true, Message: "votes: one of 1 wanted voter; leads"},
		{ServerName: "node2", Role: "database-standby", Message: "stand-by: 1 of 2; next to vote if a voter fails"},
	})
	all := "node1,database,votes: one of 1 wanted voter; leads\nnode2,database-standby,stand-by: 1 of 2; next to vote if a voter fails\n"
	if got := s.mustRun(t, "", "cluster", "role", "explain", "--format", "csv"); got != all {
		t.Errorf("got %q", got)
	}
	if got := s.mustRun(t, "", "cluster", "role", "explain", "node2", "-f", "csv", "-c", "nl"); got != "node2,NO\n" {
		t.Errorf("got %q", got)
	}
	s.mustFail(t, "Error: Cluster member not found\nHint: see incus cluster list for the names\n", "", "cluster", "role", "explain", "node9")
}

func TestTransferLeaderSaysWhoLeads(t *testing.T) {
	s := clustered(t)
	s.Reply("POST /internal/cluster/transfer-leader", api.ClusterLeader{Member: "node2"})
	for _, args := range [][]string{{"node2"}, nil} {
		if got := s.mustRun(t, "", append([]string{"admin", "cluster", "transfer-leader"}, args...)...); got != "Member node2 leads now\n" {
			t.Errorf("got %q", got)
		}
	}
	s.Refuse("POST /internal/cluster/transfer-leader", 400, `Cluster member "node3" cannot lead: it has no vote`, nil)
	if s.run("", "admin", "cluster", "transfer-leader", "node3") || !strings.Contains(s.stderr.String(), `"node3" cannot lead: it has no vote`) {
		t.Errorf("it printed %q", &s.stderr)
	}
}

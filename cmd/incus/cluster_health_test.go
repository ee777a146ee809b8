package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/client/clienttest"
)

// withHealth lets the fake daemon know of its members what a leader knows.
func withHealth(t *testing.T) *shell {
	t.Helper()
	s := clustered(t)
	number := func(n uint64) *uint64 { return &n }
	contact := func(n int64) *int64 { return &n }
	s.Reply("GET /internal/cluster/health", api.ClusterHealth{
		From: "node1", Leader: "node1", Term: 7, LastIndex: 120,
		Members: []api.MemberHealth{
			{Name: "node1", Role: "leader", MatchIndex: number(120), Lag: number(0), LastContactMS: contact(0)},
			{Name: "node2", Role: "voter", MatchIndex: number(117), Lag: number(3), LastContactMS: contact(120)},
			{Name: "node3", Role: "voter", LastContactMS: contact(65_400), OfflineSince: time.Date(2026, 11, 28, 1, 2, 3, 0, time.UTC)},
		},
	})
	return s
}

func TestClusterListShowsHealthWhenAsked(t *testing.T) {
	s := withHealth(t)
	got := s.mustRun(t, "", "cluster", "list", "-f", "csv,header", "-c", "nlco")
	want := "NAME,LAG,LAST CONTACT,OFFLINE SINCE\nnode1,0,0ms,\nnode2,3,120ms,\nnode3,-,1m5s,2026/11/28 01:02 UTC\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s.mustAsk(t, "GET /1.0/cluster", "GET /1.0/cluster/members?filter=&recursion=1", "GET /internal/cluster/health")
}

func TestClusterListAsksForHealthOnlyWhenItIsShown(t *testing.T) {
	for _, args := range []string{"cluster list", "cluster list -c nurafdsm", "cluster list -f json -c nl", "cluster list -f yaml -c o"} {
		s := withHealth(t)
		s.mustRun(t, "", strings.Fields(args)...)
		s.mustAsk(t, "GET /1.0/cluster", "GET /1.0/cluster/members?filter=&recursion=1")
	}
}

func TestClusterInfoAddsRaft(t *testing.T) {
	s := withHealth(t)
	got := s.mustRun(t, "", "cluster", "info", "node1", "--raft")
	raft, found := strings.CutPrefix(got, golden(t, "cluster-info.node1.out"))
	want := "raft:\n  role: leader\n  from: node1\n  leader: node1\n  term: 7\n  last_index: 120\n  match_index: 120\n  lag: 0\n  last_contact: 0ms\n"
	if diff := cmp.Diff(want, raft); !found || diff != "" {
		t.Errorf("%s\n%s", got, diff)
	}
	s.mustFail(t, "Error: Cluster member not found\nHint: see incus cluster list for the names\n", "", "cluster", "info", "nope", "--raft")
}

func TestClusterInfoShowsRaftOfAMemberThatIsOffline(t *testing.T) {
	s := withHealth(t)
	s.Refuse("GET /1.0/cluster/members/node3/state", 503, `Cluster member "node3" is offline`, api.ErrorMetadata{Reason: api.MemberOffline})
	if !s.run("", "cluster", "info", "node3", "--raft") {
		t.Fatal(&s.stderr)
	}
	want := "raft:\n  role: voter\n  from: node1\n  leader: node1\n  term: 7\n  last_index: 120\n  match_index: null\n  lag: null\n" +
		"  last_contact: 1m5s\n  offline_since: 2026-11-28T01:02:03Z\n"
	if diff := cmp.Diff(want, s.stdout.String()); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(s.stderr.String(), "Warning: the machine of node3 cannot be asked: ") {
		t.Errorf("stderr %q", &s.stderr)
	}
}

func withDiagnosis(t *testing.T, findings ...api.Finding) *shell {
	t.Helper()
	s := clustered(t)
	s.Handle("GET /internal/cluster/doctor", func(w http.ResponseWriter, _ *http.Request) {
		clienttest.Sync(w, api.Diagnosis{
			By: "node1", Findings: append([]api.Finding{}, findings...), Checked: []string{"quorum", "clocks"},
			Members: []api.DiagnosedMember{{Name: "node1", Report: &api.MemberReport{}}, {Name: "node2", Problem: api.ReachRefused}},
		})
	})
	return s
}

func TestDoctorPrintsFindingsWithTheirNextSteps(t *testing.T) {
	down := api.Finding{Severity: api.SeverityError, Code: "member_offline", Members: []string{"node2"}, Cause: "node2 is down", NextStep: "start incusd on node2"}
	slack := api.Finding{Severity: api.SeverityNotice, Code: "no_slack", Members: []string{}, Cause: "One votes", NextStep: "add a third member"}
	for _, tt := range []struct {
		findings []api.Finding
		code     int
		want     string
	}{
		{nil, 0, "Nothing wrong was found: 1 of 2 members answered node1.\nChecked: quorum, clocks.\n"},
		{
			[]api.Finding{slack}, 0, "[NOTICE] no_slack: One votes.\n  -> add a third member.\n\n" +
				"Errors: 0, warnings: 0, notices: 1. 1 of 2 members answered node1.\n",
		},
		{
			[]api.Finding{down, slack}, 1, "[ERROR] member_offline: node2 is down.\n  -> start incusd on node2.\n[NOTICE] no_slack: One votes.\n  -> add a third member.\n\n" +
				"Errors: 1, warnings: 0, notices: 1. 1 of 2 members answered node1.\n",
		},
	} {
		s := withDiagnosis(t, tt.findings...)
		s.run("", "cluster", "doctor")
		if diff := cmp.Diff(tt.want, s.stdout.String()); diff != "" || s.exitCode != tt.code || s.stderr.Len() > 0 {
			t.Errorf("exit code %d, want %d; stderr %q\n%s", s.exitCode, tt.code, &s.stderr, diff)
		}
		s.mustAsk(t, "GET /internal/cluster/doctor")
	}
}

func TestDoctorPrintsJSONAndYAML(t *testing.T) {
	s := withDiagnosis(t, api.Finding{Severity: api.SeverityError, Code: "no_quorum", Members: []string{}, Cause: "why", NextStep: "what"})
	for format, part := range map[string]string{
		"json": `"findings":[{"severity":"error","code":"no_quorum","members":[],"cause":"why","next_step":"what"}]`,
		"yaml": "\nfindings:\n  - severity: error\n    code: no_quorum\n    members: []\n    cause: why\n    next_step: what\n",
	} {
		s.run("", "cluster", "doctor", "local:", "--format", format)
		if !strings.Contains(s.stdout.String(), part) || s.exitCode != 1 {
			t.Errorf("%s: exit code %d, %s", format, s.exitCode, &s.stdout)
		}
	}
	s.mustFail(t, "Error: Invalid format \"csv\": use one of table, json, yaml\n", "", "cluster", "doctor", "-f", "csv")
}

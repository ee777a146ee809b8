package main

import (
	"strings"
	"testing"
	"time"

	"incusd/api"
)

// warned is a shell of a cluster's member, or of a server that is alone, with a warning of each status.
func warned(t *testing.T, inCluster bool) *shell {
	t.Helper()
	s := newShell(t)
	server := api.Server{}
	server.Environment.ServerClustered = inCluster
	s.Reply("GET /1.0", server)
	var all []api.Warning
	for i, status := range []string{api.WarningNew, api.WarningAcknowledged, api.WarningResolved} {
		all = append(all, api.Warning{
			WarningPut: api.WarningPut{Status: status}, UUID: "w" + string(rune('1'+i)), Location: "node2", Type: "Offline cluster member", Count: 3, Severity: "low",
			FirstSeenAt: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), LastSeenAt: time.Date(2026, 1, 3, 3, 4, 0, 0, time.UTC), LastMessage: "no answer",
			EntityURL: "/1.0/cluster/members/node2",
		})
	}
	s.Reply("GET /1.0/warnings", all)
	s.Reply("GET /1.0/warnings/w1", all[0])
	return s
}

func TestWarningList(t *testing.T) {
	for _, test := range []struct {
		inCluster  bool
		args, want string
	}{
		{true, "-f csv,header", "UUID,TYPE,STATE,SEVERITY,COUNT,PROJECT,LOCATION,LAST SEEN\nw1,Offline cluster member,NEW,LOW,3,,node2,2026/01/03 03:04 UTC\n"},
		{false, "-f csv,header", "UUID,TYPE,STATE,SEVERITY,COUNT,PROJECT,LAST SEEN\nw1,Offline cluster member,NEW,LOW,3,,2026/01/03 03:04 UTC\n"},
		{true, "-f csv -a -c uSf", "w1,NEW,2026/01/02 03:04 UTC\nw2,ACKNOWLEDGED,2026/01/02 03:04 UTC\nw3,RESOLVED,2026/01/02 03:04 UTC\n"},
		{true, "-f csv -c u,L", "w1,node2\n"},
		{false, "-f csv --columns u --all", "w1\nw2\nw3\n"},
	} {
		s := warned(t, test.inCluster)
		if got := s.mustRun(t, "", append([]string{"warning", "list"}, strings.Fields(test.args)...)...); got != test.want {
			t.Errorf("%s: got\n%s", test.args, got)
		}
	}
	s := warned(t, false)
	s.mustFail(t, "Error: Can't specify column L when not clustered\n", "", "warning", "list", "-c", "uL")
	s.mustFail(t, "Error: Unknown column shorthand char 'x' in 'ux'\n", "", "warning", "list", "-c", "ux")
	s.Reply("GET /1.0/warnings", []api.Warning{})
	if got := s.mustRun(t, "", "warning", "ls", "-f", "json"); got != "[]\n" {
		t.Errorf("got %q", got)
	}
}

func TestWarningShow(t *testing.T) {
	const want = `status: new
uuid: w1
location: node2
project: ""
type: Offline cluster member
count: 3
first_seen_at: 2026-01-02T03:04:00Z
last_seen_at: 2026-01-03T03:04:00Z
last_message: no answer
severity: low
entity_url: /1.0/cluster/members/node2
`
	if got := warned(t, true).mustRun(t, "", "warning", "show", "w1"); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestWarningAcknowledge(t *testing.T) {
	s := warned(t, true)
	s.Reply("PUT /1.0/warnings/w1", struct{}{})
	if got := s.mustRun(t, "", "warning", "ack", "w1"); got != "" {
		t.Errorf("said %q", got)
	}
	if got := s.body(t, "PUT /1.0/warnings/w1"); got != `{"status":"acknowledged"}` {
		t.Errorf("sent %s", got)
	}
	s.mustFail(t, "Error: Missing warning UUID\nHint: usage: incus warning acknowledge [<remote>:]<UUID> [flags]\n", "", "warning", "acknowledge", "local:")
}

func TestWarningDelete(t *testing.T) {
	s := warned(t, true)
	for _, uuid := range []string{"w1", "w3"} {
		s.Reply("DELETE /1.0/warnings/"+uuid, struct{}{})
	}
	s.Refuse("DELETE /1.0/warnings/w2", 404, "Warning not found", api.ErrorMetadata{Reason: api.NotFound})
	// The others are deleted all the same.
	s.mustFail(t, "Error: Warning not found\n", "", "warning", "rm", "w2", "w1")
	s.mustAsk(t, "DELETE /1.0/warnings/w2", "DELETE /1.0/warnings/w1")
	// What another has deleted meanwhile is no failure of --all.
	s.mustRun(t, "", "warning", "delete", "--all")
	s.mustFail(t, "Error: --all cannot be used together with other arguments\n", "", "warning", "delete", "--all", "w1")
	if s.run("", "warning", "delete") || !strings.Contains(s.stderr.String(), "Invalid number of arguments") {
		t.Errorf("said %s", &s.stderr)
	}
}

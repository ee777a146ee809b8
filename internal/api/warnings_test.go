package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// newWarnings is a cluster with a warning about node2, "w1", and one of a network in the project web, "w2".
func newWarnings(t *testing.T) *bed {
	b := newCluster(t, "node1", "node2")
	b.mustPropose(state.KindWarningReport, state.WarningReport{Raise: []state.WarningRaise{
		{UUID: "w1", Sighting: state.Sighting{Type: state.WarnOffline, Member: b.member("node2").ID, Severity: api.WarningLow, Message: "no answer"}},
		{UUID: "w2", Sighting: state.Sighting{Type: state.WarnNetwork, Project: "web", Entity: "e1", Severity: api.WarningHigh}},
	}})
	return b
}

func TestWarningsAreListedAndShown(t *testing.T) {
	b := newWarnings(t)
	for query, want := range map[string]string{
		"": "/1.0/warnings/w1 /1.0/warnings/w2", "?project=web": "/1.0/warnings/w2", "?project=other": "", "?filter=severity+eq+low": "/1.0/warnings/w1",
	} {
		if got := strings.Join(get[[]string](b, "/1.0/warnings"+query), " "); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	want := api.Warning{
		WarningPut: api.WarningPut{Status: "new"}, UUID: "w1", Location: "node2", Type: "Offline cluster member", Count: 1,
		FirstSeenAt: b.clock.UTC(), LastSeenAt: b.clock.UTC(), LastMessage: "no answer", Severity: "low", EntityURL: "/1.0/cluster/members/node2",
	}
	if diff := cmp.Diff(want, get[api.Warning](b, "/1.0/warnings/w1")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]api.Warning{want}, get[[]api.Warning](b, "/1.0/warnings?recursion=1")[:1]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if w := b.do(request{method: "GET", path: "/1.0/metrics"}); !strings.Contains(w.Body.String(), "\nincus_warnings_total 2\n") {
		t.Errorf("metrics: %s", w.Body)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/warnings/w3"}), 404, api.NotFound, "Warning not found")
}

func TestWarningsAreAcknowledgedAndDeleted(t *testing.T) {
	b := newWarnings(t)
	status := func() string { return get[api.Warning](b, "/1.0/warnings/w1").Status }
	for i, method := range []string{http.MethodPut, http.MethodPatch} {
		want := []string{"acknowledged", "new"}[i]
		b.must(request{method: method, path: "/1.0/warnings/w1", body: api.WarningPut{Status: want}})
		if got := status(); got != want {
			t.Errorf("%s: %s", method, got)
		}
	}
	for body, want := range map[string]struct {
		code   int
		reason api.Reason
		text   string
	}{
		`{"status":"odd"}`:      {400, api.BadRequest, `Invalid warning type "odd"`},
		`{}`:                    {400, api.BadRequest, `Invalid warning type ""`},
		`{"status":"resolved"}`: {403, api.NotAuthorized, `Status may only be set to "acknowledge" or "new"`},
		`{`:                     {400, api.BadRequest, "Invalid JSON"},
	} {
		wantRefusal(t, b.do(request{method: "PUT", path: "/1.0/warnings/w1", body: body}), want.code, want.reason, want.text)
	}
	b.must(request{method: "DELETE", path: "/1.0/warnings/w1"})
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/warnings/w1"}), 404, api.NotFound, "Warning not found")
	wantRefusal(t, b.do(request{method: "PUT", path: "/1.0/warnings/w1", body: `{"status":"new"}`}), 404, api.NotFound, "Warning not found")
}

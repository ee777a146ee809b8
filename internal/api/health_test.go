package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// fakeHealth is that of a member that is well.
type fakeHealth struct {
	bed      *bed
	contacts raftstore.Contacts

	mu     sync.Mutex
	askers []string
}

func (f *fakeHealth) Report(_ context.Context, asker string) api.MemberReport {
	f.mu.Lock()
	f.askers = append(f.askers, asker)
	f.mu.Unlock()
	view := f.bed.store.Local()
	report := api.MemberReport{ID: f.bed.store.id, Version: api.Version, CommandVersion: 1, Time: f.bed.now(), Peers: []api.PeerReach{}}
	if m, ok := view.Member(f.bed.store.id); ok {
		report.Name = m.Name
	}
	for _, m := range view.Members() {
		if f.bed.peers[m.Name] != nil { // else it is not tried
			report.Peers = append(report.Peers, api.PeerReach{Name: m.Name, ID: m.ID, Reached: true})
		}
	}
	return report
}

func (f *fakeHealth) Contacts(context.Context) (raftstore.Contacts, error) { return f.contacts, nil }

func (b *bed) health() *fakeHealth { return b.server.cfg.Health.(*fakeHealth) }

func codes(d api.Diagnosis) []string {
	var out []string
	for _, f := range d.Findings {
		out = append(out, f.Code+" "+strings.Join(f.Members, " "))
	}
	return out
}

func TestDoctorAsksEveryMember(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	other := b.secondServer("node2")
	b.secondServer("node3").clock = b.clock.Add(7 * time.Second)
	d := get[api.Diagnosis](b, "/internal/cluster/doctor")
	if d.By != "node1" || d.Stale || len(d.Members) != 3 || !d.CheckedAt.Equal(b.clock) || len(d.Checked) == 0 {
		t.Errorf("diagnosis %+v", d)
	}
	for _, m := range d.Members {
		if m.Report == nil || m.ClockOffsetMS == nil || m.Problem != "" {
			t.Errorf("%s: %+v", m.Name, m)
		}
	}
	if got := *d.Members[2].ClockOffsetMS; got != 7000 {
		t.Errorf("node3's clock is %v ms ahead, want 7000", got)
	}
	if want := []string{"clock_skew node3"}; !slices.Equal(codes(d)[:1], want) {
		t.Errorf("found %q, want %q first", codes(d), want)
	}
	if want := []string{b.store.id}; !slices.Equal(other.health().askers, want) {
		t.Errorf("node2 was asked by %q, want %q", other.health().askers, want)
	}
}

func TestDoctorAnswersWithoutAQuorum(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	b.store.down = true
	w := b.do(request{method: "GET", path: "/internal/cluster/doctor"})
	d := metadata[api.Diagnosis](t, w, http.StatusOK)
	if !d.Stale || codes(d)[0] != "no_quorum node2 node3" {
		t.Errorf("stale %t, found %q", d.Stale, codes(d))
	}
	if d.Members[1].Report != nil || d.Members[1].Problem != api.ReachFailed || d.Members[1].Detail != "connection refused" {
		t.Errorf("node2: %+v", d.Members[1])
	}
}

func TestDoctorSeesWhoAnswersInAnothersPlace(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	b.secondServer("node3")
	b.peers["node2"] = b.peers["node3"] // all members show the same certificate
	d := get[api.Diagnosis](b, "/internal/cluster/doctor")
	if m := d.Members[1]; m.Problem != api.ReachWrongServer || !strings.Contains(m.Detail, "node3") {
		t.Errorf("node2: %+v", m)
	}
}

// refusing is a member that takes nobody for one.
type refusing struct{ date string }

func (r refusing) RoundTrip(*http.Request) (*http.Response, error) {
	body := `{"type":"error","error":"not authorized","error_code":403,"metadata":null}`
	return &http.Response{
		StatusCode: http.StatusForbidden, Header: http.Header{"Date": {r.date}}, Body: io.NopCloser(bytes.NewReader([]byte(body))),
	}, nil
}

func TestDoctorTellsAWrongClockFromTheRefusalThatItCauses(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	b.secondServer("node3")
	b.peers["node2"] = refusing{b.clock.Add(-time.Hour).UTC().Format(http.TimeFormat)}
	d := get[api.Diagnosis](b, "/internal/cluster/doctor")
	got := codes(d)
	if !slices.Contains(got, "member_refuses node2 node1") || !slices.Contains(got, "clock_skew node2") {
		t.Errorf("found %q", got)
	}
}

func TestDoctorNeedsACluster(t *testing.T) {
	b := newBed(t)
	for _, path := range []string{"/internal/cluster/doctor", "/internal/cluster/health"} {
		wantRefusal(t, b.do(request{method: "GET", path: path}), 400, api.NotClustered, "This server is not clustered")
	}
}

func TestReportIsGivenWhileTheDaemonStarts(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	b.daemon.started = make(chan struct{})
	req := request{
		method: "GET", path: "/internal/cluster/report", cert: b.certificate("node2"), header: map[string]string{"User-Agent": agentNotifier},
	}
	if r := metadata[api.MemberReport](t, b.do(req), http.StatusOK); r.Name != "node1" {
		t.Errorf("report %+v", r)
	}
	if want := []string{b.member("node2").ID}; !slices.Equal(b.health().askers, want) {
		t.Errorf("asked by %q, want %q", b.health().askers, want)
	}
}

func TestClockOffsetLeavesOutTheTimeOfTheWork(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(1_000_000 + int64(ms)) }
	ms := time.Millisecond
	for _, tt := range []struct {
		what                     string
		sent, received, answered int
		took, offset, uncertain  time.Duration
	}{
		{"the same clock", 0, 720, 710, 700 * ms, 0, 10 * ms},
		{"ahead by a second", 0, 20, 1010, 0, time.Second, 10 * ms},
		{"behind by a second, working long", 0, 820, -190, 800 * ms, -time.Second, 10 * ms},
		{"a slow way there", 0, 100, 100, 0, 50 * ms, 50 * ms},
	} {
		offset, uncertain := clockOffset(at(tt.sent), at(tt.received), at(tt.answered), tt.took)
		if offset != tt.offset || uncertain != tt.uncertain {
			t.Errorf("%s: %s ± %s, want %s ± %s", tt.what, offset, uncertain, tt.offset, tt.uncertain)
		}
	}
}

func TestHealthIsWhatTheLeaderKnows(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3", "node4")
	since := b.clock.Add(-time.Minute).UTC()
	b.mustPropose(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{
		{ID: b.member("node3").ID, Offline: true, Since: since, Reason: "silent"},
	}})
	b.health().contacts = raftstore.Contacts{
		From: b.member("node2").ID, Leads: true, Term: 3, LastIndex: 100,
		Members: []raftstore.Contact{
			{ID: b.store.id, Match: 98, Ago: 120 * time.Millisecond, Heard: true},
			{ID: b.member("node3").ID, Match: 40, Ago: time.Minute, Heard: true},
			{ID: b.member("node4").ID},
		},
	}
	h := get[api.ClusterHealth](b, "/internal/cluster/health")
	if h.Leader != "node2" || h.From != "node2" || h.Term != 3 || h.LastIndex != 100 || len(h.Members) != 4 {
		t.Fatalf("health %+v", h)
	}
	lag := func(i int) uint64 { return *h.Members[i].Lag }
	if lag(0) != 2 || lag(1) != 0 || lag(2) != 60 || *h.Members[0].LastContactMS != 120 || *h.Members[1].LastContactMS != 0 {
		t.Errorf("members %+v", h.Members)
	}
	if h.Members[1].Role != "leader" || h.Members[0].Role != "voter" || !h.Members[2].OfflineSince.Equal(since) || !h.Members[0].OfflineSince.IsZero() {
		t.Errorf("members %+v", h.Members)
	}
	if m := h.Members[3]; m.Lag != nil || m.LastContactMS != nil || m.MatchIndex != nil {
		t.Errorf("node4, of which nothing is known: %+v", m)
	}
}

func TestHealthWithoutALeaderIsMarkedAndDoesNotGuess(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	b.store.down = true
	b.health().contacts = raftstore.Contacts{
		From: b.store.id, Term: 3, LastIndex: 100,
		Members: []raftstore.Contact{{ID: b.member("node2").ID, Match: 90, Ago: time.Minute, Heard: true}},
	}
	w := b.do(request{method: "GET", path: "/internal/cluster/health"})
	h := metadata[api.ClusterHealth](t, w, http.StatusOK)
	if !strings.HasPrefix(w.Header().Get("X-Incus-Stale"), "no_quorum") || h.Leader != "" || h.From != "node1" {
		t.Errorf("%v, %+v", w.Header(), h)
	}
	if m := h.Members[1]; m.Lag != nil || *m.LastContactMS != 60000 {
		t.Errorf("node2: %+v", m)
	}
	if h.Members[0].LastContactMS != nil {
		t.Errorf("node1: %+v", h.Members[0])
	}
}

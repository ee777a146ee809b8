package membership

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// seen writes what is to be warned of at a time, each as "type location severity".
func (b *bed) seen(at time.Time) []string {
	var out []string
	for _, s := range sightings(b.tables.View(), certificateEnds{}, at) {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", s.Type, s.Member, s.Severity)))
	}
	return out
}

func TestCertificatesAreWorthAWarningTwoMonthsBeforeTheirEnd(t *testing.T) {
	b := newBed(t)
	now := time.Now()
	pair, err := trust.GenerateAt(now.AddDate(-1, 0, 0), trust.Client)
	if err != nil {
		t.Fatal(err)
	}
	b.apply(state.KindCertificateAdd, state.CertificateAdd{Certificate: state.Certificate{
		Fingerprint: pair.Fingerprint(), Name: "laptop", Type: api.CertificateClient, PEM: string(pair.CertPEM)}})
	b.apply(state.KindCertificateAdd, state.CertificateAdd{Certificate: state.Certificate{
		Fingerprint: "fp", Name: "unreadable", Type: api.CertificateClient, PEM: "x"}})
	client, cluster := pair.Cert.NotAfter, b.pair.Cert.NotAfter
	for _, test := range []struct {
		name string
		at   time.Time
		want []string
	}{
		{"now", now, nil},
		{"two months before the client's ends", client.Add(-warnBefore), nil},
		{"a moment later", client.Add(-warnBefore + time.Second), []string{"Client certificate expires  moderate"}},
		{"before its end", client.Add(-time.Second), []string{"Client certificate expires  moderate"}},
		{"at its end", client, []string{"Client certificate expires  high"}},
		{"before that of the cluster ends", cluster.Add(-time.Hour), []string{
			"Cluster certificate expires  moderate", "Member certificate expires id-1 moderate", "Client certificate expires  high"}},
		{"much later", cluster.AddDate(1, 0, 0), []string{
			"Cluster certificate expires  high", "Member certificate expires id-1 high", "Client certificate expires  high"}},
	} {
		if diff := cmp.Diff(test.want, b.seen(test.at)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// warnings writes the replicated ones, each as "type location status count url".
func (b *bed) warnings() []string {
	var out []string
	for _, w := range Warnings(b.Local()) {
		out = append(out, fmt.Sprintf("%s, %s: %s %d %s", w.Type, w.Location, w.Status, w.Count, w.EntityURL))
	}
	slices.Sort(out)
	return out
}

func (b *bed) requireWarnings(want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.warnings()); diff != "" {
		b.t.Fatalf("warnings (-want +got):\n%s", diff)
	}
}

func TestWarningsFollowWhatIsSeen(t *testing.T) {
	b := newBed(t)
	b.join(2)
	now := time.Now()
	offline := func(is bool) {
		b.apply(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: "id-2", Offline: is, Since: now, Reason: "no answer"}}})
	}
	step := func(at time.Time) bool {
		report := compareWarnings(b.tables.View(), sightings(b.tables.View(), certificateEnds{}, now), at)
		if report != nil {
			b.apply(state.KindWarningReport, report)
		}
		return report != nil
	}
	const of, at = "Offline cluster member, node2: ", " /1.0/cluster/members/node2"
	if step(now) {
		t.Fatal("something was written where nothing is wrong")
	}
	offline(true)
	if !step(now) || step(now.Add(seenAgain/2)) {
		t.Fatal("not raised, or raised twice")
	}
	b.requireWarnings(of + "new 1" + at)
	b.apply(state.KindMemberRename, state.MemberRename{ID: "id-2", Expect: "node2", Name: "node9"})
	b.requireWarnings("Offline cluster member, node9: new 1 /1.0/cluster/members/node9")
	b.apply(state.KindMemberRename, state.MemberRename{ID: "id-2", Expect: "node9", Name: "node2"})
	w := b.tables.View().Warnings()[0]
	b.apply(state.KindWarningStatus, state.WarningStatus{UUID: w.UUID, Status: api.WarningAcknowledged})
	if step(now) {
		t.Fatal("raised again although it is acknowledged")
	}
	if !step(now.Add(seenAgain + time.Minute)) {
		t.Fatal("not counted a day later")
	}
	b.requireWarnings(of + "acknowledged 2" + at)
	offline(false)
	if !step(now) || step(now) {
		t.Fatal("not resolved, or twice")
	}
	b.requireWarnings(of + "resolved 2" + at)
	offline(true)
	step(now)
	b.requireWarnings(of + "new 3" + at)
}

func TestWarningsBeyondTheLimitAreLeftOut(t *testing.T) {
	b := newBed(t)
	var seen []state.Sighting
	for i := range state.MaxWarnings + 2 {
		seen = append(seen, state.Sighting{Type: state.WarnClientCertificate, Entity: fmt.Sprint("fp", i), Severity: api.WarningHigh})
	}
	b.apply(state.KindWarningReport, compareWarnings(b.tables.View(), seen, time.Now()))
	if report := compareWarnings(b.tables.View(), seen, time.Now()); report != nil {
		t.Fatalf("%d more and %d less are written again and again", len(report.Raise), len(report.Resolve))
	}
	if n := len(b.tables.View().Warnings()); n != state.MaxWarnings {
		t.Errorf("%d warnings", n)
	}
	b.apply(state.KindWarningReport, compareWarnings(b.tables.View(), seen[1:], time.Now())) // one made room
	if _, ok := b.tables.View().WarningOf(seen[state.MaxWarnings]); !ok {
		t.Error("the next one was not raised")
	}
}

func TestPoolsAndNetworksThatFailAreWarnedOf(t *testing.T) {
	b := newBed(t)
	for _, e := range []state.EntityCreate{
		{ID: "e1", Kind: state.EntityPool, Name: "local", Type: "dir"},
		{ID: "e2", Kind: state.EntityNetwork, Project: "default", Name: "br0", Type: "bridge"},
	} {
		e.MemberID = "id-1"
		b.apply(state.KindEntityCreate, e)
		b.apply(state.KindEntityReport, state.EntityReport{ID: e.ID, MemberID: "id-1", Revision: 1, Status: state.EntityCreated})
	}
	if got := b.seen(time.Now()); got != nil {
		t.Fatalf("warned of %q", got)
	}
	b.apply(state.KindEntityReport, state.EntityReport{ID: "e1", MemberID: "id-1", Revision: 1, Status: state.EntityUnavailable, Reason: "not mounted"})
	b.apply(state.KindEntityReport, state.EntityReport{ID: "e2", MemberID: "id-1", Revision: 1, Status: state.EntityErrored, Reason: "in use"})
	b.apply(state.KindWarningReport, compareWarnings(b.tables.View(), sightings(b.tables.View(), certificateEnds{}, time.Now()), time.Now()))
	b.requireWarnings("Network unavailable, node1: new 1 /1.0/networks/br0", "Storage pool unavailable, node1: new 1 /1.0/storage-pools/local")
	for _, w := range Warnings(b.Local()) {
		if w.Severity != api.WarningHigh || w.LastMessage != "local on node1: not mounted" && w.LastMessage != "br0 on node1: in use" {
			t.Errorf("%s: %s, %s", w.Type, w.Severity, w.LastMessage)
		}
	}
}

func TestTheLeaderRaisesAndResolvesWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.lead()()
		b.join(2)
		within(t, 22*time.Second, "a warning", func() bool { return len(b.warnings()) == 1 })
		b.requireWarnings("Offline cluster member, node2: new 1 /1.0/cluster/members/node2")
		b.answer(2)
		defer b.keepAnswering(2)()
		within(t, time.Second, "resolved", func() bool { return strings.Contains(b.warnings()[0], "resolved") })
	})
}

func TestAResolvedWarningIsSweptADayLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.apply(state.KindWarningReport, state.WarningReport{Raise: []state.WarningRaise{{UUID: "w1", Sighting: state.Sighting{Type: state.WarnOffline, Member: "id-1"}}}})
		inspect := func() (due bool, next time.Time) {
			sweep, next := (&term{Leader: NewLeader(b, b, Settings{}, nil, nil)}).inspect(b.Local(), make(acquaintances))
			return sweep != nil, next
		}
		if due, next := inspect(); due || !next.IsZero() {
			t.Fatal("one that is not resolved is to be forgotten")
		}
		b.apply(state.KindWarningReport, state.WarningReport{Resolve: []string{"w1"}})
		end := time.Now().Add(state.ResolvedTime)
		if due, next := inspect(); due || !next.Equal(end) {
			t.Fatalf("due %t, next at %s, want %s", due, next, end)
		}
		<-time.After(state.ResolvedTime)
		if due, _ := inspect(); !due {
			t.Fatal("not due a day later")
		}
		b.apply(state.KindLeaderSweep, state.LeaderSweep{})
		b.requireWarnings()
	})
}

func TestWarningsAreSetByTheirStatus(t *testing.T) {
	b := newBed(t)
	b.apply(state.KindWarningReport, state.WarningReport{Raise: []state.WarningRaise{{UUID: "w1", Sighting: state.Sighting{Type: state.WarnOffline, Member: "id-1"}}}})
	s := NewAdmissions(b, nil, nil, nil, Settings{}, nil, nil)
	for _, test := range []struct {
		id, status string
		want       api.Reason
	}{
		{"w1", api.WarningAcknowledged, ""},
		{"w1", api.WarningNew, ""},
		{"w1", api.WarningResolved, api.NotAuthorized},
		{"w1", "odd", api.BadRequest},
		{"w2", api.WarningNew, api.NotFound},
	} {
		err := s.SetWarning(t.Context(), test.id, test.status, nil)
		if test.want != "" {
			requireReason(t, err, test.want)
		} else if w, ok := b.tables.View().Warning(test.id); err != nil || !ok || w.Status != test.status {
			t.Errorf("%s: %v", test.status, err)
		}
	}
	if err := s.DeleteWarning(t.Context(), "w1", nil); err != nil {
		t.Error(err)
	}
	requireReason(t, s.DeleteWarning(t.Context(), "w1", nil), api.NotFound)
}

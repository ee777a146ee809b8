package state

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"incusd/api"
)

func sighting(kind, member string) Sighting {
	return Sighting{Type: kind, Member: member, Severity: api.WarningLow, Message: "no answer"}
}

// raise raises one warning, as "uuid".
func (w *world) raise(uuid string, s Sighting) {
	w.t.Helper()
	w.must(KindWarningReport, WarningReport{Raise: []WarningRaise{{UUID: uuid, Sighting: s}}})
	w.happened()
}

// warned checks the warnings, each as "uuid status count".
func (w *world) warned(want ...string) {
	w.t.Helper()
	var got []string
	for _, x := range w.s.View().Warnings() {
		got = append(got, fmt.Sprintf("%s %s %d", x.UUID, x.Status, x.Count))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Fatalf("warnings %q, want %q", got, want)
	}
}

func TestAWarningIsRaisedOnceForEachThing(t *testing.T) {
	w := newCluster(t)
	w.join("id2", "node2", "fp2")
	w.raise("w1", sighting(WarnOffline, "id1"))
	first := w.now
	w.now = w.now.Add(time.Hour)
	w.raise("w2", sighting(WarnOffline, "id1")) // the same again, from another leader
	w.raise("w3", sighting(WarnOffline, "id2"))
	w.raise("w4", sighting(WarnMemberCertificate, "id2"))
	w.raise("w5", Sighting{Type: WarnNetwork, Member: "id2", Project: "web", Entity: "e1", Severity: api.WarningHigh})
	w.raise("w6", Sighting{Type: WarnNetwork, Member: "id2", Project: "shop", Entity: "e1", Severity: api.WarningHigh})
	w.warned("w1 new 2", "w3 new 1", "w4 new 1", "w5 new 1", "w6 new 1")
	if x, ok := w.s.View().WarningOf(sighting(WarnOffline, "id1")); !ok || !x.FirstSeen.Equal(first) || !x.LastSeen.Equal(w.now) || x.Message != "no answer" {
		t.Errorf("got %+v", x)
	}
}

func TestAWarningIsAcknowledgedResolvedAndForgotten(t *testing.T) {
	w := newCluster(t)
	s := sighting(WarnOffline, "id1")
	resolve := WarningReport{Resolve: []string{"w1", "other"}}
	w.raise("w1", s)
	w.must(KindWarningStatus, WarningStatus{UUID: "w1", Status: api.WarningAcknowledged})
	w.happened("warning-acknowledged /1.0/warnings/w1")
	w.raise("w2", s)
	w.warned("w1 acknowledged 2") // as long as it lasts
	s.Severity = api.WarningHigh
	w.raise("w2", s)
	w.warned("w1 new 3") // but not when it gets worse
	w.must(KindWarningStatus, WarningStatus{UUID: "w1", Status: api.WarningAcknowledged})
	w.must(KindWarningReport, resolve)
	w.happened()
	w.warned("w1 resolved 3")
	w.raise("w2", s)
	w.warned("w1 new 4")
	w.must(KindWarningStatus, WarningStatus{UUID: "w1", Status: api.WarningNew})
	w.happened("warning-reset /1.0/warnings/w1")

	w.must(KindWarningReport, resolve)
	w.now = w.now.Add(ResolvedTime - time.Second)
	w.must(KindWarningReport, resolve) // once more does not make it younger
	w.must(KindLeaderSweep, LeaderSweep{})
	w.warned("w1 resolved 4")
	w.now = w.now.Add(time.Second)
	w.must(KindLeaderSweep, LeaderSweep{})
	w.warned()
}

func TestWarningsThatAreNotThere(t *testing.T) {
	w := newCluster(t)
	w.says(api.NotFound, "Warning not found", KindWarningStatus, WarningStatus{UUID: "w1", Status: api.WarningNew})
	w.says(api.NotFound, "Warning not found", KindWarningDelete, WarningDelete{UUID: "w1"})
	w.raise("w1", sighting(WarnOffline, "gone"))
	w.warned()
	w.raise("w1", sighting(WarnOffline, "id1"))
	w.refused(api.BadRequest, KindWarningStatus, WarningStatus{UUID: "w1", Status: api.WarningResolved})
	w.refused(api.BadRequest, KindWarningReport, WarningReport{Raise: []WarningRaise{{UUID: "w1", Sighting: sighting(WarnMemberCertificate, "id1")}}})
	w.must(KindWarningDelete, WarningDelete{UUID: "w1"})
	w.happened("warning-deleted /1.0/warnings/w1")
	w.warned()
}

func TestWarningsAboutAMemberGoWithIt(t *testing.T) {
	w := newCluster(t)
	w.join("id2", "node2", "fp2")
	w.raise("w1", sighting(WarnOffline, "id1"))
	w.raise("w2", sighting(WarnOffline, "id2"))
	w.must(KindMemberRemove, MemberRemove{ID: "id2"})
	w.must(KindMemberLeave, MemberLeave{ID: "id2"})
	w.warned("w1 new 1")
}

func TestWarningsAreBounded(t *testing.T) {
	w := newCluster(t)
	report := WarningReport{}
	for i := range MaxWarnings {
		report.Raise = append(report.Raise, WarningRaise{UUID: fmt.Sprintf("w%04d", i), Sighting: Sighting{Type: WarnClientCertificate, Entity: fmt.Sprint("fp", i)}})
	}
	w.must(KindWarningReport, report)
	w.raise("more", sighting(WarnOffline, "id1"))
	if n := len(w.s.View().Warnings()); n != MaxWarnings || w.s.View().counts.warnings != n {
		t.Fatalf("%d warnings, %d counted", n, w.s.View().counts.warnings)
	}
	w.must(KindWarningReport, WarningReport{Resolve: []string{"w0007"}})
	w.now = w.now.Add(time.Second)
	w.must(KindWarningReport, WarningReport{Resolve: []string{"w0003"}})
	w.raise("more", sighting(WarnOffline, "id1"))
	v := w.s.View()
	_, oldest := v.Warning("w0007")
	_, younger := v.Warning("w0003")
	if _, ok := v.Warning("more"); !ok || oldest || !younger || v.counts.warnings != MaxWarnings {
		t.Errorf("raised %t, the oldest resolved one is there %t, the other %t", ok, oldest, younger)
	}
}

func TestWarningsSurviveASnapshot(t *testing.T) {
	w := newCluster(t)
	w.raise("w1", sighting(WarnOffline, "id1"))
	w.raise("w2", Sighting{Type: WarnPool, Member: "id1", Entity: "e1", Severity: api.WarningHigh, Message: "disk"})
	w.must(KindWarningStatus, WarningStatus{UUID: "w2", Status: api.WarningAcknowledged})
	data := persist(t, w.s.View())
	s := New()
	if err := s.Restore(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if got := persist(t, s.View()); !bytes.Equal(got, data) || s.View().counts != w.s.View().counts {
		t.Errorf("restored\n%s\nwas\n%s", got, data)
	}
}

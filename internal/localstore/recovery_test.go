package localstore

import (
	"reflect"
	"testing"
	"time"
)

func TestSwitchReplicaForgetsWhatTheOldOneWasAbout(t *testing.T) {
	s := mustOpen(t, newPath(t))
	must(t, s.SetCurrent(first))
	must(t, s.SetConfig(map[string]string{"a": "1", "b": "2"}))
	must(t, s.SetPeers(join.Peers))
	must(t, s.SetShutOut(ShutOut{Reason: "member_fenced", Message: "why", Since: time.Unix(1, 0).UTC(), Final: true}))
	s = reopened(t, s)
	if out, ok := s.ShutOut(); !ok || out.Message != "why" || !out.Final {
		t.Errorf("shut out %+v, %v", out, ok)
	}
	must(t, s.SetRemoval(Removal{Replica: "r1", Name: "n1"}))
	next, due := Replica{ID: "r1", Dir: "r1.2", ClusterID: "c1", Incarnation: 2}, Readmission{Incarnation: 2, Recovery: "r1", Index: 7, Term: 3}
	must(t, s.SwitchReplica(Switch{Replica: next, Readmit: &due, Config: map[string]string{"a": "", "c": "3"}}))
	s = reopened(t, s)
	if r, _ := s.Current(); r != next {
		t.Errorf("current %+v", r)
	}
	if _, ok := s.ShutOut(); ok {
		t.Error("still shut out")
	}
	if _, ok := s.Removal(); ok {
		t.Error("still removed")
	}
	if at, ok := s.Readmission(); !ok || at != due {
		t.Errorf("readmission %+v", at)
	}
	if got := s.Config(); !reflect.DeepEqual(got, map[string]string{"b": "2", "c": "3"}) {
		t.Errorf("config %v", got)
	}
	if len(s.Peers()) != 1 {
		t.Error("the peers are gone")
	}
	must(t, s.ClearReadmission())
	must(t, s.SwitchReplica(Switch{Replica: second, Peers: []Peer{}}))
	s = reopened(t, s)
	if _, ok := s.Readmission(); ok || len(s.Peers()) != 0 {
		t.Error("something of the former cluster is left")
	}
}

func TestJoinForgetsWhatShutTheServerOut(t *testing.T) {
	s := mustOpen(t, newPath(t))
	must(t, s.SetCurrent(first))
	must(t, s.SetShutOut(ShutOut{Reason: "member_fenced"}))
	must(t, s.SetJoin(&join))
	if _, err := s.FinishJoin(); err != nil {
		t.Fatal(err)
	}
	if _, ok := reopened(t, s).ShutOut(); ok {
		t.Error("still shut out")
	}
}

func TestMovedAddressesAndTheIncarnationAreKept(t *testing.T) {
	s := mustOpen(t, newPath(t))
	must(t, s.SetCurrent(first))
	moved := map[string]Move{"p1": {From: "a:1", To: "b:1"}}
	must(t, s.SetMoved(moved, map[string]string{"k": "v"}))
	must(t, s.NoteIncarnation(3))
	s = reopened(t, s)
	if r, _ := s.Current(); r.Incarnation != 3 || r.ID != first.ID {
		t.Errorf("current %+v", r)
	}
	if !reflect.DeepEqual(s.Moved(), moved) || s.Config()["k"] != "v" {
		t.Errorf("moved %v, config %v", s.Moved(), s.Config())
	}
	must(t, s.SetMoved(nil, nil))
	if len(reopened(t, s).Moved()) != 0 {
		t.Error("an empty list is kept")
	}
}

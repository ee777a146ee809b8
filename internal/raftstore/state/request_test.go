package state

import (
	"bytes"
	"fmt"
	"testing"
)

func TestRequestTakesEffectOnce(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	first := w.ask("same", KindMemberAdmit, admitBody("id2", "node2", "fp2"))
	w.must(KindMemberAbort, MemberAbort{ID: "id2", Fingerprint: "fp2"})
	before := content(t, w.s.View())
	again := w.ask("same", KindMemberAdmit, admitBody("id2", "node2", "fp2"))
	if again.Err != nil || !bytes.Equal(first.Value, again.Value) {
		t.Errorf("the second answer is %s %v, the first was %s", again.Value, again.Err, first.Value)
	}
	if content(t, w.s.View()) != before {
		t.Error("the request took effect twice")
	}
}

func TestRequestTakesEffectOnceInOneEntry(t *testing.T) {
	w := newCluster(t)
	cmd, err := NewCommand(KindConfigSet, "same", w.now, nil, ConfigSet{Set: map[string]string{"a": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	unset, err := NewCommand(KindConfigSet, "other", w.now, nil, ConfigSet{Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	w.entry(cmd, unset, cmd)
	if got := w.s.View().Config(); len(got) != 0 {
		t.Errorf("config %v", got)
	}
	if len(w.events) != 2 {
		t.Errorf("%d events, want those of two commands", len(w.events))
	}
}

func TestRequestIsRememberedOverASnapshot(t *testing.T) {
	w := newCluster(t)
	first := w.ask("same", KindClusterEnable, enableBody()) // refused
	w2 := newWorld(t)
	if err := w2.s.Restore(bytes.NewReader(persist(t, w.s.View()))); err != nil {
		t.Fatal(err)
	}
	w2.index = w.index
	again := w2.ask("same", KindMemberActivate, MemberActivate{ID: "id1"})
	if first.Err == nil || again.Err == nil || *again.Err != *first.Err {
		t.Errorf("answers %v and %v", first.Err, again.Err)
	}
}

func TestRequestsAreBoundedByNumber(t *testing.T) {
	w := newCluster(t)
	set := func(request, value string) {
		w.ask(request, KindConfigSet, ConfigSet{Set: map[string]string{"a": value}})
	}
	set("first", "1")
	for i := range MaxRequests - 1 {
		set(fmt.Sprintf("x%d", i), "2")
	}
	set("first", "3")
	if got := w.s.View().Config()["a"]; got != "2" {
		t.Errorf("a=%s: the oldest remembered request was forgotten", got)
	}
	set("one more", "2")
	set("first", "4")
	if got := w.s.View().Config()["a"]; got != "4" {
		t.Errorf("a=%s: more than %d requests are remembered", got, MaxRequests)
	}
	if n := w.s.View().counts.requests; n != MaxRequests {
		t.Errorf("%d requests", n)
	}
}

func TestCommandWithoutRequestIsNotRemembered(t *testing.T) {
	w := newCluster(t)
	n := w.s.View().counts.requests
	for _, value := range []string{"1", "2"} {
		w.ask("", KindConfigSet, ConfigSet{Set: map[string]string{"a": value}})
	}
	if got := w.s.View().Config()["a"]; got != "2" {
		t.Errorf("a=%s", got)
	}
	if got := w.s.View().counts.requests; got != n {
		t.Errorf("%d requests, want %d", got, n)
	}
}

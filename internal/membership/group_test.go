package membership

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

func TestUpdateGroupBeginsAnewWhenTheGroupWasChanged(t *testing.T) {
	b := newBed(t)
	b.join(2)
	a := NewAdmissions(b, prober{}, b.tokens, noInventory{}, Settings{}, nil, nil)
	first := b.member(1).Name
	post := api.ClusterGroupsPost{Name: "gpu", ClusterGroupPut: api.ClusterGroupPut{Members: []string{first}}}
	if err := a.CreateGroup(t.Context(), post, nil); err != nil {
		t.Fatal(err)
	}
	calls := 0
	change := func(g api.ClusterGroup) (api.ClusterGroupPut, error) {
		if calls++; calls == 1 { // somebody else is faster
			b.apply(state.KindGroupUpdate, state.GroupUpdate{Group: state.Group{Name: "gpu", Description: "theirs"}, Members: []string{b.member(1).ID}})
		}
		put := g.ClusterGroupPut
		put.Config = api.ConfigMap{"user.x": "1"}
		return put, nil
	}
	if err := a.UpdateGroup(t.Context(), "gpu", change, false, nil); err != nil {
		t.Fatal(err)
	}
	want := api.ClusterGroupPut{Description: "theirs", Members: []string{first}, Config: api.ConfigMap{"user.x": "1"}}
	got, err := Group(b.Local(), "gpu")
	if err != nil || calls != 2 {
		t.Fatalf("%d calls, %v", calls, err)
	}
	if diff := cmp.Diff(want, got.ClusterGroupPut); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	// Somebody who is always faster does not make it wait for ever.
	calls = 0
	rival := func(g api.ClusterGroup) (api.ClusterGroupPut, error) {
		calls++
		b.apply(state.KindGroupUpdate, state.GroupUpdate{Group: state.Group{Name: "gpu", Config: map[string]string{"user.n": string(rune('a' + calls))}}})
		return g.ClusterGroupPut, nil
	}
	requireReason(t, a.UpdateGroup(t.Context(), "gpu", rival, false, nil), api.PreconditionFail)
	if calls != groupTries {
		t.Errorf("%d calls", calls)
	}
}

func TestRenameMember(t *testing.T) {
	b := newBed(t)
	b.join(2)
	a := NewAdmissions(b, prober{}, b.tokens, noInventory{}, Settings{}, nil, nil)
	old, fingerprint := b.member(2).Name, b.member(2).Fingerprint
	if err := a.RenameMember(t.Context(), old, "other", nil); err != nil {
		t.Fatal(err)
	}
	if m := b.member(2); m.Name != "other" || m.Fingerprint != fingerprint {
		t.Errorf("the row is %+v", m)
	}
	requireReason(t, a.RenameMember(t.Context(), old, "third", nil), api.MemberNotFound)
	requireReason(t, a.RenameMember(t.Context(), "other", b.member(1).Name, nil), api.NameTaken)
}

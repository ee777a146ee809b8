package state

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"incusd/api"
)

// newThree is a world with the members node1 (which leads), node2 and node3, all voters.
func newThree(t testing.TB) *world {
	w := newCluster(t)
	w.join("id2", "node2", "fp2")
	w.join("id3", "node3", "fp3")
	w.must(KindLeaderElected, LeaderElected{ID: "id1", Term: 3})
	w.must(KindMemberRole, MemberRole{Changes: []RoleChange{{ID: "id2", Role: RoleVoter}, {ID: "id3", Role: RoleVoter}}})
	return w
}

func (w *world) offline(ids ...string) {
	w.t.Helper()
	var changes []LivenessChange
	for _, id := range ids {
		changes = append(changes, LivenessChange{ID: id, Offline: true, Since: w.now, Reason: "no answer"})
	}
	w.must(KindMemberLiveness, MemberLiveness{Changes: changes})
}

func (w *world) online(id string) {
	w.t.Helper()
	w.must(KindMemberLiveness, MemberLiveness{Changes: []LivenessChange{{ID: id, Since: w.now}}})
}

func (w *world) remove(id string, force bool) {
	w.t.Helper()
	w.must(KindMemberRemove, MemberRemove{ID: id, Force: force})
}

// drop removes a member by force, from its beginning to its end.
func (w *world) drop(id string) {
	w.t.Helper()
	w.remove(id, true)
	w.must(KindMemberLeave, MemberLeave{ID: id})
}

func (w *world) requireGone(id string, graceful bool) {
	w.t.Helper()
	v := w.s.View()
	if _, ok := v.Member(id); ok {
		w.t.Fatalf("%s is still a member", id)
	}
	r, ok := v.Removed(id)
	if !ok || r.Graceful != graceful || !r.At.Equal(w.now) || r.Requestor == nil || r.Requestor.Username != "root" {
		w.t.Fatalf("tombstone of %s: %+v", id, r)
	}
	if got, ok := v.RemovedByFingerprint(r.Fingerprint); !ok || got.ID != id {
		w.t.Fatalf("the tombstone of %s is not found by its certificate", id)
	}
}

func TestRemovalBeginsOrSaysWhyNot(t *testing.T) {
	volume := func(w *world) {
		w.must(KindEntityDefine, EntityDefine{ID: "p", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id1"})
		w.must(KindEntityDefine, EntityDefine{ID: "p", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id2"})
		w.must(KindEntityDefine, EntityDefine{ID: "p", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id3"})
		w.must(KindEntityCreate, EntityCreate{ID: "p", Kind: EntityPool, Name: "local", Type: "dir"})
		for _, name := range []string{"b", "a"} {
			w.must(KindEntityCreate, EntityCreate{ID: "v" + name, Kind: EntityVolume, Project: "default", Pool: "local", Name: name, Type: "filesystem", MemberID: "id2"})
		}
	}
	client := func(w *world, ids ...string) {
		for _, id := range ids {
			w.must(KindMemberUpdate, MemberUpdate{ID: id, Roles: []string{api.RoleDatabaseClient}, FailureDomain: "default", Groups: []string{"default"}})
		}
	}
	spare := func(w *world, ids ...string) {
		for _, id := range ids {
			w.must(KindMemberRole, MemberRole{Changes: []RoleChange{{ID: id, Role: RoleSpare}}})
		}
	}
	tests := []struct {
		name    string
		prepare func(*world)
		id      string
		force   bool
		reason  api.Reason // "" if it begins
		text    string
	}{
		{"a follower", nil, "id2", false, "", ""},
		{"the leader", nil, "id1", false, "", ""},
		{"nobody", nil, "id9", false, api.MemberNotFound, "Cluster member not found"},
		{"one that is offline", func(w *world) { w.offline("id2") }, "id2", false, api.MemberOffline, `Member "node2" is offline: it cannot hand over what it has`},
		{"one with volumes", volume, "id2", false, api.InUse, "Node still has the following custom volumes: a, b"},
		{"one with volumes, by force", volume, "id2", true, "", ""},
		{"one of which the others are offline", func(w *world) { w.offline("id2", "id3") }, "id1", false, api.QuorumNeeded,
			`Without member "node1" the cluster would have no quorum: node2 is offline, node3 is offline`},
		{"the same by force", func(w *world) { w.offline("id2", "id3") }, "id1", true, api.QuorumNeeded, ""},
		{"one of which the others are clients", func(w *world) { client(w, "id2", "id3"); spare(w, "id2", "id3") }, "id1", true, api.QuorumNeeded,
			`Without member "node1" the cluster would have no quorum: node2 has the role database-client, node3 has the role database-client`},
		{"one of which another is a client", func(w *world) { client(w, "id2"); spare(w, "id2") }, "id1", false, "", ""},
		{"one that is dead, beside a voter that shall be a client", func(w *world) { w.offline("id2", "id3"); client(w, "id1") }, "id2", true, "", ""},
		{"the last of three", func(w *world) { w.remove("id2", false); w.remove("id3", false) }, "id1", true, api.QuorumNeeded,
			`Without member "node1" the cluster would have no quorum: node2 is being removed, node3 is being removed`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newThree(t)
			if tt.prepare != nil {
				tt.prepare(w)
			}
			err := w.refused(tt.reason, KindMemberRemove, MemberRemove{ID: tt.id, Force: tt.force})
			if tt.text != "" && err.Message != tt.text {
				t.Errorf("says %q, want %q", err.Message, tt.text)
			}
			m, ok := w.s.View().Member(tt.id)
			if begun := ok && m.Removal != nil; begun != (tt.reason == "") {
				t.Errorf("removal begun: %v", begun)
			}
		})
	}
}

func TestOnlyMemberIsNotRemoved(t *testing.T) {
	w := newCluster(t)
	for _, force := range []bool{false, true} {
		w.says(api.LastMember, "Member is the only member in the cluster", KindMemberRemove, MemberRemove{ID: "id1", Force: force})
	}
}

func TestMemberLeavesOnceAndLeavesNothing(t *testing.T) {
	w := newThree(t)
	w.must(KindEntityDefine, EntityDefine{ID: "n", Kind: EntityNetwork, Project: "default", Name: "br0", Type: "bridge", MemberID: "id2"})
	body := w.tokenBody("lost", "node4")
	body.Token.Addresses = []string{"node2:8443"}
	w.must(KindTokenIssue, body)
	w.issue("kept", "node5")

	w.refused(api.Conflict, KindMemberLeave, MemberLeave{ID: "id2"}) // not asked to
	w.remove("id2", false)
	w.happened()
	w.remove("id2", false)
	w.must(KindMemberLeave, MemberLeave{ID: "id2"})
	w.happened("operation-cancelled /1.0/operations/op-lost +lost", "cluster-member-removed /1.0/cluster/members/node2")
	w.requireGone("id2", true)
	if e, ok := w.s.View().Entity("n"); ok && len(e.Members) > 0 {
		t.Errorf("it still has a part of %+v", e)
	}
	if tok, _ := w.s.View().Token("kept"); tok.Ended != "" {
		t.Error("a token that still finds the cluster was ended")
	}
	before := content(t, w.s.View())
	w.must(KindMemberLeave, MemberLeave{ID: "id2"})
	w.must(KindMemberRemove, MemberRemove{ID: "id2"})
	if content(t, w.s.View()) != before {
		t.Error("the same again changed something")
	}
	// Its key may join again, under a new ID only.
	w.issue("t2", "node2")
	w.claim("t2", "node2", "fp2")
	w.refused(api.Conflict, KindMemberAdmit, admitBody("id2", "node2", "fp2"))
	w.must(KindMemberAdmit, admitBody("id22", "node2", "fp2"))
	w.must(KindMemberActivate, MemberActivate{ID: "id22"})
}

func TestLeaderDoesNotLeaveBeforeAnotherLeads(t *testing.T) {
	w := newThree(t)
	w.remove("id1", false)
	w.refused(api.Conflict, KindMemberLeave, MemberLeave{ID: "id1"})
	w.must(KindLeaderElected, LeaderElected{ID: "id2", Term: 4})
	w.must(KindMemberLeave, MemberLeave{ID: "id1"})
	w.requireGone("id1", true)
}

func TestSomebodyMustVoteWhenAMemberLeaves(t *testing.T) {
	w := newCluster(t)
	w.join("id2", "node2", "fp2")
	w.must(KindLeaderElected, LeaderElected{ID: "id2", Term: 3})
	w.remove("id1", false)
	w.refused(api.QuorumNeeded, KindMemberLeave, MemberLeave{ID: "id1"})
	w.must(KindMemberRole, MemberRole{Changes: []RoleChange{{ID: "id2", Role: RoleVoter}}})
	w.must(KindMemberLeave, MemberLeave{ID: "id1"})
	w.requireGone("id1", true)
}

func TestForcedRemovalKeepsWhatTheServerHas(t *testing.T) {
	w := newThree(t)
	w.offline("id3")
	w.drop("id3")
	w.happened("cluster-member-removed /1.0/cluster/members/node3")
	w.requireGone("id3", false)
}

func TestForceIsAddedToARemovalUnderWay(t *testing.T) {
	w := newThree(t)
	w.remove("id3", false)
	w.offline("id3")
	w.remove("id3", false) // the same again: not refused for being offline
	w.drop("id3")
	w.requireGone("id3", false)
}

func TestRemovalIsCalledOff(t *testing.T) {
	w := newThree(t)
	w.remove("id3", false)
	w.must(KindMemberRemove, MemberRemove{ID: "id3", Cancel: true})
	w.must(KindMemberRemove, MemberRemove{ID: "id3", Cancel: true})
	if m, _ := w.s.View().Member("id3"); m.Removal != nil {
		t.Errorf("removal %+v", m.Removal)
	}
	w.refused(api.Conflict, KindMemberLeave, MemberLeave{ID: "id3"})
}

func TestMemoryOfRemovedMembersIsBounded(t *testing.T) {
	w := newThree(t)
	tx := (&batch{db: w.s.db, counts: w.s.View().counts}).begin(&Command{Time: w.now})
	for i := range MaxRemoved + 5 {
		id := fmt.Sprintf("x%d", i)
		memberTable.put(tx, &Member{ID: id, Number: 1000 + i, Name: id, Address: id, Fingerprint: "same", State: MemberActive})
		m, _ := activeMember(tx.Txn, id)
		tx.leave(m)
	}
	all := removedTable.list(tx.Txn, primary)
	if len(all) != MaxRemoved || all[0].ID != "x5" {
		t.Errorf("%d tombstones, the oldest is of %s", len(all), all[0].ID)
	}
	tx.Abort()
}

func TestTombstonesAreInSnapshots(t *testing.T) {
	w := newThree(t)
	w.offline("id3")
	w.drop("id3")
	s := New()
	if err := s.Restore(bytes.NewReader(persist(t, w.s.View()))); err != nil {
		t.Fatal(err)
	}
	if r, ok := s.View().Removed("id3"); !ok || r.Name != "node3" {
		t.Errorf("tombstone %+v", r)
	}
	if !bytes.Equal(persist(t, s.View()), persist(t, w.s.View())) {
		t.Error("restored differs")
	}
}

// replacing is a world in which node3 is dead and its successor has been admitted.
func replacing(t *testing.T) *world {
	w := newThree(t)
	w.must(KindMemberUpdate, MemberUpdate{ID: "id3", FailureDomain: "rack1", Description: "the third", Groups: []string{"default"},
		Roles: []string{"event-hub"}, Config: map[string]string{"user.a": "1"}})
	body := w.tokenBody("t4", "node3")
	body.Token.Replaces = "id3"
	w.says(api.MemberOnline, `Member "node3" is online: only a member that is offline can be replaced`, KindTokenIssue, body)
	w.offline("id3")
	w.must(KindTokenIssue, body)
	w.claim("t4", "node3", "fp4")
	w.admit("id4", "node3", "fp4")
	return w
}

func TestReplacementTakesThePlaceInOneEntry(t *testing.T) {
	w := replacing(t)
	if m, ok := w.s.View().MemberByName("node3"); !ok || m.ID != "id3" {
		t.Fatalf("node3 is %+v", m)
	}
	w.must(KindMemberActivate, MemberActivate{ID: "id4"})
	w.happened("cluster-member-removed /1.0/cluster/members/node3", "cluster-member-added /1.0/cluster/members/node3 +t4")
	w.requireGone("id3", false)
	m, ok := w.s.View().MemberByName("node3")
	if !ok || m.ID != "id4" || m.Address != "node3:8443" || m.Replacing != "" {
		t.Fatalf("node3 is %+v", m)
	}
	if m.FailureDomain != "rack1" || m.Description != "the third" || m.Config["user.a"] != "1" || !slices.Equal(m.Roles, []string{"event-hub"}) {
		t.Errorf("it has not taken over what was said of its predecessor: %+v", m)
	}
	w.must(KindMemberActivate, MemberActivate{ID: "id4"})
}

func TestReplacementIsRefusedWhenTheMemberIsBack(t *testing.T) {
	w := replacing(t)
	w.online("id3")
	w.refused(api.MemberOnline, KindMemberActivate, MemberActivate{ID: "id4"})
	w.must(KindMemberAbort, MemberAbort{ID: "id4", Fingerprint: "fp4"})
	if tok, _ := w.s.View().Token("t4"); tok.Ended != "" || tok.ClaimedBy != "" {
		t.Fatalf("the token cannot be used again: %+v", tok)
	}
	w.refused(api.MemberOnline, KindTokenClaim, claimBody("t4", "node3", "fp4"))
	w.offline("id3")
	w.claim("t4", "node3", "fp4")
	w.online("id3")
	w.refused(api.MemberOnline, KindMemberAdmit, admitBody("id5", "node3", "fp4"))
	w.offline("id3")
	w.claim("t4", "node3", "fp4")
	w.admit("id6", "node3", "fp4")
	w.must(KindMemberActivate, MemberActivate{ID: "id6"})
	w.requireGone("id3", false)
}

func TestReplacementMayFindItsPredecessorGone(t *testing.T) {
	w := replacing(t)
	w.drop("id3")
	w.must(KindMemberActivate, MemberActivate{ID: "id4"})
	if m, ok := w.s.View().MemberByName("node3"); !ok || m.ID != "id4" {
		t.Fatalf("node3 is %+v", m)
	}
}

func TestReplacementFindsItsAddressTaken(t *testing.T) {
	w := replacing(t)
	w.issue("t5", "node5")
	w.claim("t5", "node5", "fp5")
	body := admitBody("id5", "node5", "fp5")
	body.Address = "node3:8443"
	w.refused(api.AddressTaken, KindMemberAdmit, body)
	w.drop("id3")
	w.claim("t5", "node5", "fp5")
	w.refused(api.AddressTaken, KindMemberAdmit, body) // the successor has it, though not yet in the index
}

func TestClusterIsDisabledByItsLastMember(t *testing.T) {
	w := newCluster(t)
	w.join("id2", "node2", "fp2")
	w.refused(api.Conflict, KindClusterDisable, ClusterDisable{MemberID: "id1"})
	w.offline("id2")
	w.drop("id2")
	w.must(KindEntityCreate, EntityCreate{ID: "p", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id1"})
	w.issue("t3", "node3")
	w.claim("t3", "node3", "fp3")
	w.admit("id3", "node3", "fp3")
	w.must(KindClusterDisable, ClusterDisable{MemberID: "id1"})
	w.happened("operation-cancelled /1.0/operations/op-t3 +t3", "cluster-disabled /1.0/cluster")
	v := w.s.View()
	c, m := v.Cluster(), v.Members()[0]
	if c.Enabled || c.Certificate != "" || c.Key != "" || m.Name != Standalone || m.Address != "" || len(v.Joining()) > 0 {
		t.Errorf("cluster %+v, member %+v", c, m)
	}
	if _, ok := v.Pool("local"); !ok {
		t.Error("the pool is gone")
	}
	w.refused(api.NotClustered, KindClusterDisable, ClusterDisable{MemberID: "id1"})
	w.must(KindClusterEnable, enableBody()) // and back again
}

// A member that is removed in the middle of a renewal may come back with either certificate.
func TestTombstoneKnowsTheFormerCertificate(t *testing.T) {
	w := newCluster(t)
	w.join("id2", "node2", "fp2")
	w.must(KindMemberCert, MemberCertificate{ID: "id2", Expect: "fp2", Certificate: "c", Fingerprint: "fp3", Endorsement: "e", Until: w.now.AddDate(1, 0, 0)})
	w.drop("id2")
	for _, fp := range []string{"fp2", "fp3"} {
		if r, ok := w.s.View().RemovedByFingerprint(fp); !ok || r.ID != "id2" {
			t.Errorf("by %s: %+v", fp, r)
		}
	}
}

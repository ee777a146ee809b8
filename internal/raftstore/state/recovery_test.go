package state

import (
	"slices"
	"strings"
	"testing"

	"incusd/api"
)

// trio is a cluster of node1 to node3, and a joiner node4 under the token t4.
func trio(t *testing.T) *world {
	t.Helper()
	w := newCluster(t)
	for _, name := range []string{"node2", "node3"} {
		id, fp := "id"+name[4:], "fp"+name[4:]
		w.join(id, name, fp)
	}
	w.issue("t4", "node4")
	w.claim("t4", "node4", "fp4")
	w.admit("id4", "node4", "fp4")
	return w
}

func recoverBody() ClusterRecover {
	return ClusterRecover{
		ID: "r1", MemberID: "id2", Incarnation: 2, Voters: []string{"id1"},
		Copy: LogExtent{Compacted: 10, Terms: []TermStart{{Term: 2, Index: 11}, {Term: 4, Index: 15}}, Last: 20},
	}
}

func TestARecoveryFencesEverybodyElse(t *testing.T) {
	w := trio(t)
	w.issue("t5", "node5")
	w.must(KindMemberRole, MemberRole{Changes: []RoleChange{{ID: "id3", Role: RoleStandby}}})
	w.must(KindClusterRecover, recoverBody())
	v := w.s.View()
	if got := v.Cluster().Incarnation; got != 2 {
		t.Errorf("incarnation %d", got)
	}
	if self := w.member("id2"); self.Fenced != 0 || self.Role != RoleVoter || self.Offline {
		t.Errorf("the survivor: %+v", self)
	}
	for _, id := range []string{"id1", "id3"} {
		m := w.member(id)
		if m.Fenced != 2 || !m.Offline || m.Role != RoleSpare || m.Reason != "Fenced by the recovery on node2: remove or replace it" || !m.Since.Equal(w.now) {
			t.Errorf("%s: %+v", id, m)
		}
	}
	err := checkHeirs(w.member("id2"), []*Member{w.member("id1"), w.member("id3")})
	if hint := api.AsError(err).Hint; !strings.Contains(hint, "incus cluster remove --force node1 node3") {
		t.Errorf("who is to leave last is told %q", hint)
	}
	w.noMember("id4")
	w.ended("t4", TokenRevoked)
	w.ended("t5", TokenRevoked)
	if used := w.token("t-node2"); used.Ended != TokenUsed {
		t.Errorf("a token that was used is %s", used.Ended)
	}
	r, ok := v.Recovery()
	if !ok || r.Name != "node2" || r.Member != "id2" || !r.At.Equal(w.now) || !slices.Equal(r.Voters, []string{"id1"}) {
		t.Errorf("recovery %+v", r)
	}
}

func TestARecoveryIsRepeatedAndRefused(t *testing.T) {
	w := trio(t)
	w.must(KindClusterRecover, recoverBody())
	before := content(t, w.s.View())
	w.must(KindClusterRecover, recoverBody())
	other := recoverBody()
	other.ID = "r2"
	w.refused(api.Conflict, KindClusterRecover, other)
	for _, tt := range []struct {
		want   api.Reason
		change func(*ClusterRecover)
	}{
		{api.MemberNotFound, func(b *ClusterRecover) { b.MemberID = "id9" }},
		{api.BadRequest, func(b *ClusterRecover) { b.ID = "" }},
		{api.Conflict, func(b *ClusterRecover) { b.ID, b.Incarnation = "r3", 4 }},
	} {
		b := recoverBody()
		tt.change(&b)
		w.refused(tt.want, KindClusterRecover, b)
	}
	if content(t, w.s.View()) != before {
		t.Error("a refusal changed the state")
	}
}

func TestAStandaloneServerIsNotRecovered(t *testing.T) {
	w := newWorld(t)
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
	b := recoverBody()
	b.MemberID = "id1"
	w.refused(api.NotClustered, KindClusterRecover, b)
}

func TestLogExtentHolds(t *testing.T) {
	e := LogExtent{Compacted: 10, Terms: []TermStart{{Term: 2, Index: 11}, {Term: 4, Index: 15}}, Last: 20}
	tests := []struct {
		index, term uint64
		want        bool
	}{
		{0, 0, true}, {5, 1, true}, {10, 2, true},
		{11, 2, true}, {14, 2, true}, {14, 3, false},
		{15, 4, true}, {15, 2, false}, {20, 4, true}, {20, 5, false},
		{21, 4, false},
	}
	for _, tt := range tests {
		if got := e.Holds(tt.index, tt.term); got != tt.want {
			t.Errorf("entry %d of term %d: %v", tt.index, tt.term, got)
		}
	}
	if (LogExtent{Compacted: 3, Last: 3}).Holds(4, 1) {
		t.Error("a log without entries holds one")
	}
}

func TestReadmission(t *testing.T) {
	ask := func(change func(*MemberReadmit)) MemberReadmit {
		b := MemberReadmit{ID: "id3", Incarnation: 1, Index: 16, Term: 4}
		change(&b)
		return b
	}
	refused := []struct {
		name string
		b    MemberReadmit
		want api.Reason
		says string
	}{
		{"a former voter", ask(func(b *MemberReadmit) { b.ID = "id1" }), api.MemberFenced, "had a vote"},
		{"ahead of the copy", ask(func(b *MemberReadmit) { b.Index = 21 }), api.MemberFenced, "entries up to 21 of term 4"},
		{"another history", ask(func(b *MemberReadmit) { b.Term = 3 }), api.MemberFenced, "lacks"},
		{"an unknown past", ask(func(b *MemberReadmit) { b.Incarnation = 2 }), api.MemberFenced, "does not know how it ended"},
		{"a rival past", ask(func(b *MemberReadmit) { b.Recovery = "q1" }), api.MemberFenced, "another recovery"},
		{"no member", ask(func(b *MemberReadmit) { b.ID = "id9" }), api.MemberRemoved, ""},
	}
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			w := trio(t)
			w.must(KindClusterRecover, recoverBody())
			if err := w.refused(tt.want, KindMemberReadmit, tt.b); !strings.Contains(err.Error(), tt.says) {
				t.Errorf("says %q", err)
			}
			if err := w.s.View().Readmissible(tt.b); api.AsError(err).Reason != tt.want {
				t.Errorf("foretold %v", err)
			}
		})
	}
	w := trio(t)
	w.must(KindClusterRecover, recoverBody())
	b := ask(func(*MemberReadmit) {})
	if err := w.s.View().Readmissible(b); err != nil {
		t.Errorf("foretold %v", err)
	}
	w.must(KindMemberReadmit, b)
	w.happened("cluster-member-updated /1.0/cluster/members/node3")
	if m := w.member("id3"); m.Fenced != 0 || !m.Offline {
		t.Errorf("readmitted: %+v", m)
	}
	w.must(KindMemberReadmit, b)
	w.happened()
}

// A member that slept through two recoveries comes back if it fits the first of them.
func TestReadmissionAfterTwoRecoveries(t *testing.T) {
	w := trio(t)
	w.must(KindClusterRecover, recoverBody())
	second := ClusterRecover{ID: "r2", MemberID: "id2", Incarnation: 3, Copy: LogExtent{Compacted: 30, Last: 30}}
	w.must(KindClusterRecover, second)
	if m := w.member("id3"); m.Fenced != 3 {
		t.Errorf("fenced %d", m.Fenced)
	}
	w.refused(api.MemberFenced, KindMemberReadmit, MemberReadmit{ID: "id3", Incarnation: 1, Index: 25, Term: 5})
	w.must(KindMemberReadmit, MemberReadmit{ID: "id3", Incarnation: 1, Index: 16, Term: 4})
}

// What counts is the recovery, not how often there was one.
func TestReadmissionFromARivalIncarnation(t *testing.T) {
	w := trio(t)
	w.must(KindClusterRecover, recoverBody())
	w.must(KindClusterRecover, ClusterRecover{ID: "r2", MemberID: "id2", Incarnation: 3, Copy: LogExtent{Compacted: 30, Last: 30}})
	b := MemberReadmit{ID: "id3", Incarnation: 2, Index: 16, Term: 4}
	for _, rival := range []string{"", "q1", "r2"} {
		b.Recovery = rival
		if err := w.refused(api.MemberFenced, KindMemberReadmit, b); !strings.Contains(err.Error(), "another recovery") {
			t.Errorf("from recovery %q: %v", rival, err)
		}
	}
	b.Recovery = "r1"
	w.must(KindMemberReadmit, b)
}

func TestOldRecoveriesAreForgotten(t *testing.T) {
	w := newCluster(t)
	for i := range MaxRecoveries + 3 {
		w.must(KindClusterRecover, ClusterRecover{ID: "r" + string(rune('a'+i)), MemberID: "id1", Incarnation: i + 2})
	}
	if list := w.s.View().Recoveries(); len(list) != MaxRecoveries || list[0].Incarnation != 5 {
		t.Errorf("%d recoveries from incarnation %d", len(list), list[0].Incarnation)
	}
}

func restoreBody(name string) ClusterRestore {
	m := Member{ID: "idR", Certificate: "certR", Fingerprint: "fpR", Architecture: "x86_64", CommandVersion: 1}
	return ClusterRestore{ClusterID: "c2", Member: m, Name: name, Address: "10.0.0.9:8443"}
}

// withPool has a pool on all members, with a key of each, and a volume on node1 and on node2.
func withPool(w *world) {
	w.must(KindEntityDefine, EntityDefine{ID: "e1", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id1", Config: map[string]string{"source": "/one"}})
	for _, id := range []string{"id2", "id3"} {
		w.must(KindEntityDefine, EntityDefine{ID: "e1", Kind: EntityPool, Name: "local", Type: "dir", MemberID: id, Config: map[string]string{"source": "/" + id}})
	}
	w.must(KindEntityCreate, EntityCreate{ID: "e1", Kind: EntityPool, Name: "local", Type: "dir"})
	for _, m := range []string{"1", "2"} {
		w.must(KindEntityCreate, EntityCreate{ID: "v" + m, Kind: EntityVolume, Project: "default", Pool: "local", Name: "v" + m, Type: "filesystem", MemberID: "id" + m})
	}
	w.must(KindEntityReport, EntityReport{ID: "e1", MemberID: "id1", Revision: 1, Status: EntityCreated})
}

func TestARestoreIsAClusterOfOne(t *testing.T) {
	w := trio(t)
	w.issue("t5", "node5")
	withPool(w)
	w.must(KindConfigSet, ConfigSet{Set: map[string]string{"user.a": "1"}})
	w.must(KindMemberUpdate, MemberUpdate{ID: "id1", Description: "the first", FailureDomain: "rack1", Groups: []string{"default"}})
	w.must(KindClusterRestore, restoreBody("node1"))
	v := w.s.View()
	c := v.Cluster()
	if c.ID != "c2" || c.Incarnation != 1 || !c.Enabled || c.Certificate != "cluster-cert" || c.Key != "cluster-key" {
		t.Errorf("cluster %v", c)
	}
	members := v.Members()
	if len(members) != 1 || len(v.Joining()) != 0 {
		t.Fatalf("%d members, %d joining", len(members), len(v.Joining()))
	}
	m := members[0]
	if m.ID != "idR" || m.Name != "node1" || m.Address != "10.0.0.9:8443" || m.Fingerprint != "fpR" || m.Description != "the first" || m.FailureDomain != "rack1" || m.Role != RoleVoter {
		t.Errorf("member %+v", m)
	}
	pool, ok := v.Pool("local")
	if !ok || len(pool.Members) != 1 || pool.Members["idR"].Config["source"] != "/one" || pool.Members["idR"].Status != EntityPending {
		t.Errorf("pool %+v", pool)
	}
	if _, ok := v.Volume("local", "default", "v1"); !ok {
		t.Error("the volume of the member is gone")
	}
	if _, ok := v.Volume("local", "default", "v2"); ok {
		t.Error("the volume of another member is still there")
	}
	if v.Config()["user.a"] != "1" {
		t.Error("the configuration is gone")
	}
	w.ended("t4", TokenRevoked)
	w.ended("t5", TokenRevoked)
	w.refused(api.Conflict, KindClusterRestore, restoreBody("node1"))
}

func TestARestoreUnderANewName(t *testing.T) {
	w := trio(t)
	withPool(w)
	w.must(KindClusterRestore, restoreBody("fresh"))
	v := w.s.View()
	m, ok := v.MemberByName("fresh")
	if !ok || m.Number >= v.Cluster().NextNumber || len(v.Members()) != 1 {
		t.Errorf("member %+v", m)
	}
	pool, _ := v.Pool("local")
	if len(pool.Members) != 1 || pool.Members["idR"].Status != EntityPending {
		t.Errorf("pool %+v", pool)
	}
	if len(v.Entities(EntityVolume)) != 0 {
		t.Error("volumes of former members are still there")
	}
}

func TestRestoreRefusals(t *testing.T) {
	tests := []struct {
		name   string
		change func(*ClusterRestore)
		want   api.Reason
	}{
		{"no cluster ID", func(b *ClusterRestore) { b.ClusterID = "" }, api.BadRequest},
		{"no member ID", func(b *ClusterRestore) { b.Member.ID = "" }, api.BadRequest},
		{"no key", func(b *ClusterRestore) { b.Member.Fingerprint = "" }, api.BadRequest},
		{"the same cluster", func(b *ClusterRestore) { b.ClusterID = "c1" }, api.Conflict},
		{"no name", func(b *ClusterRestore) { b.Name = "" }, api.NameInvalid},
		{"no address", func(b *ClusterRestore) { b.Address = "" }, api.AddressInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := trio(t)
			b := restoreBody("node1")
			tt.change(&b)
			w.refused(tt.want, KindClusterRestore, b)
		})
	}
}

func TestAStandaloneServerIsRestoredAsOne(t *testing.T) {
	w := newWorld(t)
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
	b := restoreBody("")
	b.Address = ""
	w.must(KindClusterRestore, b)
	v := w.s.View()
	if m := v.Members(); len(m) != 1 || m[0].Name != Standalone || m[0].Number != 1 || v.Cluster().Enabled {
		t.Errorf("%d members, enabled %v", len(m), v.Cluster().Enabled)
	}
}

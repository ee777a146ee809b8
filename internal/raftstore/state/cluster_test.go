package state

import (
	"reflect"
	"strings"
	"testing"

	"incusd/api"
)

func TestClusterInit(t *testing.T) {
	w := newWorld(t)
	if c := w.s.View().Cluster(); !reflect.DeepEqual(c, Cluster{}) {
		t.Errorf("an empty store has %v", c.ID)
	}
	forged := firstBody()
	forged.State, forged.Number, forged.Token, forged.Role, forged.Offline = MemberJoining, 7, "t", RoleSpare, true
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: forged})
	w.happened()
	if c := w.s.View().Cluster(); !reflect.DeepEqual(c, Cluster{ID: "c1", Incarnation: 1, NextNumber: 2}) {
		t.Errorf("cluster %+v", c)
	}
	want := &Member{
		ID: "id1", Number: 1, Name: "none", Certificate: "cert1", Fingerprint: "fp1", Architecture: "x86_64", CommandVersion: 1,
		State: MemberActive, JoinedAt: start, Since: start, Role: RoleVoter, FailureDomain: "default", Groups: []string{"default"},
	}
	if got := w.member("id1"); !reflect.DeepEqual(got, want) {
		t.Errorf("first member %+v\nwant %+v", got, want)
	}

	before := content(t, w.s.View())
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: Member{ID: "id9", Fingerprint: "fp9"}})
	w.refused(api.Conflict, KindClusterInit, ClusterInit{ClusterID: "c2", Member: firstBody()})
	if content(t, w.s.View()) != before {
		t.Error("a second start changed the state")
	}
}

func TestClusterInitRefusals(t *testing.T) {
	w := newWorld(t)
	for _, b := range []ClusterInit{
		{Member: firstBody()},
		{ClusterID: "c1", Member: Member{Fingerprint: "fp1"}},
		{ClusterID: "c1", Member: Member{ID: "id1"}},
		{ClusterID: strings.Repeat("c", 300), Member: firstBody()},
	} {
		w.refused(api.BadRequest, KindClusterInit, b)
	}
	if w.s.View().Cluster().ID != "" {
		t.Error("a refused start left a cluster")
	}
}

func TestClusterEnable(t *testing.T) {
	w := newWorld(t)
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
	w.must(KindClusterEnable, enableBody())
	w.happened("cluster-enabled /1.0/cluster/node1")
	c := w.s.View().Cluster()
	if !c.Enabled || c.Certificate != "cluster-cert" || c.Key != "cluster-key" || c.ID != "c1" {
		t.Errorf("cluster %v, enabled %v", c, c.Enabled)
	}
	if m, ok := w.s.View().MemberByName("node1"); !ok || m.Address != "10.0.0.1:8443" || m.ID != "id1" {
		t.Errorf("member %+v", m)
	}
	w.says(api.AlreadyClustered, "The member is already part of a cluster", KindClusterEnable, enableBody())
}

func TestClusterEnableRefusals(t *testing.T) {
	tests := []struct {
		name   string
		change func(*ClusterEnable)
		want   api.Reason
	}{
		{"unknown member", func(b *ClusterEnable) { b.MemberID = "id9" }, api.MemberNotFound},
		{"no name", func(b *ClusterEnable) { b.Name = "" }, api.NameInvalid},
		{"the name of no cluster", func(b *ClusterEnable) { b.Name = Standalone }, api.NameInvalid},
		{"no address", func(b *ClusterEnable) { b.Address = "" }, api.AddressInvalid},
		{"no certificate", func(b *ClusterEnable) { b.Certificate = "" }, api.BadRequest},
		{"no key", func(b *ClusterEnable) { b.Key = "" }, api.BadRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
			b := enableBody()
			tt.change(&b)
			w.refused(tt.want, KindClusterEnable, b)
			if w.s.View().Cluster().Enabled {
				t.Error("the refusal enabled the cluster")
			}
		})
	}
}

func TestLeaderElected(t *testing.T) {
	w := newWorld(t)
	w.must(KindLeaderElected, LeaderElected{ID: "id1", Term: 2}) // before the store has a cluster
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
	if c := w.s.View().Cluster(); c.Leader != "id1" || c.Term != 2 || c.ID != "c1" {
		t.Errorf("cluster %v led by %q in term %d", c, c.Leader, c.Term)
	}
	w.must(KindLeaderElected, LeaderElected{ID: "id1", Term: 2})
	w.refused(api.Conflict, KindLeaderElected, LeaderElected{ID: "id2", Term: 2})
	w.refused(api.Conflict, KindLeaderElected, LeaderElected{ID: "id2", Term: 1})
	w.refused(api.BadRequest, KindLeaderElected, LeaderElected{ID: "id2"})
	w.refused(api.BadRequest, KindLeaderElected, LeaderElected{Term: 3})
	w.must(KindLeaderElected, LeaderElected{ID: "id2", Term: 5})
	if c := w.s.View().Cluster(); c.Leader != "id2" || c.Term != 5 {
		t.Errorf("led by %q in term %d", c.Leader, c.Term)
	}
}

// Before the first entry every other command is refused, and none stops the member.
func TestEmptyStoreRefusesTheRest(t *testing.T) {
	for _, c := range samples() {
		if c.kind == KindClusterInit || c.kind == KindLeaderElected {
			continue
		}
		w := newWorld(t)
		w.do(c.kind, c.body)
		if got := w.s.View().Members(); len(got) != 0 {
			t.Errorf("%s made a member", c.kind)
		}
		if got := w.s.View().Tokens(); len(got) != 0 {
			t.Errorf("%s made a token", c.kind)
		}
	}
}

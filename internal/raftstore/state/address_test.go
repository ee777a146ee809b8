package state

import (
	"testing"

	"incusd/api"
)

func TestMemberAddressTruthTable(t *testing.T) {
	tests := []struct {
		name  string
		given func(w *world)
		body  MemberAddress
		want  api.Reason
	}{
		{name: "a free address", body: MemberAddress{"id1", "10.0.0.9:8443"}},
		{name: "the address that it has", body: MemberAddress{"id1", "10.0.0.1:8443"}},
		{name: "another member's", body: MemberAddress{"id1", "node2:8443"}, want: api.AddressTaken},
		{name: "a joining member's", given: func(w *world) {
			w.issue("t3", "node3")
			w.claim("t3", "node3", "fp3")
			w.admit("id3", "node3", "fp3")
		}, body: MemberAddress{"id1", "node3:8443"}, want: api.AddressTaken},
		{name: "one that another member has left", given: func(w *world) {
			w.must(KindMemberAddress, MemberAddress{"id2", "node2:9443"})
		}, body: MemberAddress{"id1", "node2:8443"}},
		{name: "none", body: MemberAddress{"id1", ""}, want: api.AddressInvalid},
		{name: "a strange one", body: MemberAddress{"id1", "a b"}, want: api.AddressInvalid},
		{name: "of nobody", body: MemberAddress{"id9", "10.0.0.9:8443"}, want: api.MemberNotFound},
		{name: "of a joining member", given: func(w *world) {
			w.issue("t3", "node3")
			w.claim("t3", "node3", "fp3")
			w.admit("id3", "node3", "fp3")
		}, body: MemberAddress{"id3", "10.0.0.9:8443"}, want: api.MemberNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newCluster(t)
			w.join("id2", "node2", "fp2")
			if tt.given != nil {
				tt.given(w)
			}
			before := content(t, w.s.View())
			w.refused(tt.want, KindMemberAddress, tt.body)
			if tt.want != "" {
				if after := content(t, w.s.View()); after != before {
					t.Errorf("a refusal changed the state:\n%s\n%s", before, after)
				}
				return
			}
			if got := w.member(tt.body.ID).Address; got != tt.body.Address {
				t.Errorf("the address is %s", got)
			}
		})
	}
}

func TestMemberAddressIsToldOnce(t *testing.T) {
	w := newCluster(t)
	w.must(KindMemberAddress, MemberAddress{"id1", "10.0.0.9:8443"})
	w.happened("cluster-member-updated /1.0/cluster/members/node1")
	w.must(KindMemberAddress, MemberAddress{"id1", "10.0.0.9:8443"})
	w.happened()
}

func TestStandaloneServerHasNoAddressToMove(t *testing.T) {
	w := newWorld(t)
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
	w.refused(api.NotClustered, KindMemberAddress, MemberAddress{"id1", "10.0.0.9:8443"})
}

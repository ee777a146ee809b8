package state

import (
	"reflect"
	"testing"
	"time"

	"incusd/api"
)

func TestMemberRename(t *testing.T) {
	w := newCluster(t)
	w.join("id2", "node2", "fp2")
	w.must(KindMemberLiveness, MemberLiveness{Changes: []LivenessChange{{ID: "id2", Offline: true, Since: w.now, Reason: "no answer"}}})
	before := w.member("id2")

	w.must(KindMemberRename, MemberRename{ID: "id2", Expect: "node2", Name: "rack1.left"})
	w.happened("cluster-member-renamed /1.0/cluster/members/rack1.left")
	if got := w.events[0].Context; !reflect.DeepEqual(got, map[string]any{"old_name": "node2"}) {
		t.Errorf("context %v", got)
	}
	want := before.Clone()
	want.Name = "rack1.left"
	if got := w.member("id2"); !reflect.DeepEqual(got, want) {
		t.Errorf("row %+v, want %+v", got, want)
	}
	if before.Name != "node2" {
		t.Error("a record that a reader holds was changed")
	}
	if _, ok := w.s.View().MemberByName("node2"); ok {
		t.Error("the old name still finds it")
	}
	if m, ok := w.s.View().MemberByFingerprint("fp2"); !ok || m.ID != "id2" {
		t.Error("its certificate does not find it")
	}
	// Its token is found by its old name and used; the name is free for another server.
	w.issue("t9", "node2")
	w.claim("t9", "node2", "fp9")
	admit := admitBody("id9", "node2", "fp9")
	admit.Address = "10.0.0.9:8443"
	w.must(KindMemberAdmit, admit)
}

func TestMemberRenameRefusals(t *testing.T) {
	tests := []struct {
		name   string
		body   MemberRename
		reason api.Reason
		text   string
	}{
		{"to its own name", MemberRename{"id1", "node1", "node1"}, "", ""},
		{"to the name of a used token", MemberRename{"id2", "node2", "node9"}, "", ""},
		{"to the name of an expired token", MemberRename{"id2", "node2", "late"}, "", ""},
		{"to the name of a revoked token", MemberRename{"id2", "node2", "revoked"}, "", ""},
		{"unknown member", MemberRename{"id7", "node7", "new"}, api.MemberNotFound, "Cluster member not found"},
		{"joining member", MemberRename{"id4", "node4", "new"}, api.MemberNotFound, "Cluster member not found"},
		{"renamed meanwhile", MemberRename{"id2", "node9", "new"}, api.MemberNotFound, "Cluster member not found"},
		{"to an active member's", MemberRename{"id2", "node2", "node1"}, api.NameTaken, "The cluster already has a member with name: node1"},
		{"to a joining member's", MemberRename{"id2", "node2", "node4"}, api.NameTaken, `A server is joining the cluster under the name "node4"`},
		{"to that of a live token", MemberRename{"id2", "node2", "node5"}, api.NameTaken, `There is a join token for the name "node5"`},
		{"to that of a claimed token", MemberRename{"id2", "node2", "node6"}, api.NameTaken, `There is a join token for the name "node6"`},
		{"to a bad name", MemberRename{"id2", "node2", "a b"}, api.NameInvalid, "Invalid cluster member name: Name cannot contain white space"},
		{"to a reserved name", MemberRename{"id2", "node2", "none"}, api.NameInvalid, `Invalid cluster member name: "none" is reserved`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newCluster(t)
			w.join("id2", "node9", "fp2")
			w.must(KindMemberRename, MemberRename{"id2", "node9", "node2"})
			w.issue("late", "late")
			w.now = w.now.Add(3 * time.Hour)
			w.issue("t4", "node4")
			w.claim("t4", "node4", "fp4")
			w.admit("id4", "node4", "fp4")
			w.issue("t5", "node5")
			w.issue("t6", "node6")
			w.claim("t6", "node6", "fp6")
			w.issue("gone", "revoked")
			w.must(KindTokenRevoke, TokenRevoke{Operation: "op-gone"})
			before := content(t, w.s.View())
			if tt.reason == "" {
				w.must(KindMemberRename, tt.body)
				return
			}
			w.says(tt.reason, tt.text, KindMemberRename, tt.body)
			w.happened()
			if content(t, w.s.View()) != before {
				t.Error("the refusal changed the state")
			}
		})
	}
}

// Whichever comes first, a name is never that of a member and of a token that would bring another.
func TestRenameAndTokenForOneName(t *testing.T) {
	w := newCluster(t)
	w.must(KindMemberRename, MemberRename{"id1", "node1", "node2"})
	w.says(api.NameTaken, "The cluster already has a member with name: node2", KindTokenIssue, w.tokenBody("t", "node2"))
	w.issue("t", "node1")
	w.refused(api.NameTaken, KindMemberRename, MemberRename{"id1", "node2", "node1"})
	w.must(KindTokenRevoke, TokenRevoke{Operation: "op-t"})
	w.must(KindMemberRename, MemberRename{"id1", "node2", "node1"})
}

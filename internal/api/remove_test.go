package api

import (
	"net/http"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// removed removes a member, as its server and the leader would.
func (b *bed) removed(name string, force bool) {
	b.t.Helper()
	id := b.member(name).ID
	b.mustPropose(state.KindMemberRole, state.MemberRole{Changes: []state.RoleChange{{ID: b.member("node1").ID, Role: state.RoleVoter}}})
	b.mustPropose(state.KindMemberRemove, state.MemberRemove{ID: id, Force: force})
	b.mustPropose(state.KindMemberLeave, state.MemberLeave{ID: id})
}

func TestRemovedServerIsToldSoWhereverItsKeyIsRefused(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	cert := b.certificate("node3")
	b.wantKind("a member", cert, Member)
	b.removed("node3", true)
	b.wantKind("a removed member", cert, Stranger)
	for _, req := range []request{
		{method: "GET", path: "/1.0/cluster/members", cert: cert},
		{method: "PUT", path: "/1.0", cert: cert, body: map[string]any{"config": map[string]string{"user.x": "1"}}},
		{method: "POST", path: "/internal/cluster/join/admit", cert: cert, body: map[string]any{}},
	} {
		wantRefusal(t, b.do(req), http.StatusForbidden, api.MemberRemoved, `This server, member "node3", was removed from the cluster at `)
	}
	if w := b.do(request{method: "GET", path: "/1.0", cert: cert}); w.Code != http.StatusOK {
		t.Errorf("what strangers may do it may do: %d", w.Code)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/cluster/members", cert: newPair(t, 0).Cert}), http.StatusForbidden, api.NotAuthorized, "not authorized")
}

func TestRequestToRemoveAnswersWhenTheMemberIsGone(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/cluster/members/node9"}), http.StatusNotFound, api.MemberNotFound,
		`Failed to get member "node9": Cluster member not found`)
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/cluster/members/node2?force=x"}), http.StatusBadRequest, api.BadRequest, "force")
	b.mustPropose(state.KindMemberRole, state.MemberRole{Changes: []state.RoleChange{{ID: b.member("node1").ID, Role: state.RoleVoter}}})
	id := b.member("node2").ID
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			view := b.store.Local() // what is watched is what was looked at
			if m, ok := view.Member(id); ok && m.Removal != nil {
				b.mustPropose(state.KindMemberLeave, state.MemberLeave{ID: id})
				return
			}
			select {
			case <-view.WatchMembers():
			case <-time.After(5 * time.Second):
				t.Error("the removal has not begun")
				return
			}
		}
	}()
	w := b.do(request{method: "DELETE", path: "/1.0/cluster/members/node2"})
	<-ended
	if w.Code != http.StatusOK {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if _, ok := b.store.Local().Member(id); ok {
		t.Error("it was answered too early")
	}
}

func TestPendingMemberIsAborted(t *testing.T) {
	b := newCluster(t, "node1")
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/cluster/members/node2?pending=1&force=1"}), http.StatusNotFound, api.MemberNotFound,
		`Failed to get member "node2": Cluster member not found`)
	b.admit("node2", "10.0.0.2:8443")
	if w := b.do(request{method: "DELETE", path: "/1.0/cluster/members/node2?pending=1&force=1"}); w.Code != http.StatusOK {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if left := b.store.Local().Joining(); len(left) > 0 {
		t.Errorf("%d are joining still", len(left))
	}
	if m := b.member("node1"); m.State != state.MemberActive {
		t.Error("the wrong member is gone")
	}
}

func TestTokenForASuccessorNeedsADeadMember(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	post := request{method: "POST", path: "/1.0/cluster/members", body: map[string]any{"server_name": "node2", "replace": true}}
	wantRefusal(t, b.do(post), http.StatusConflict, api.MemberOnline, `Member "node2" is online: only a member that is offline can be replaced`)
	b.mustPropose(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: b.member("node2").ID, Offline: true, Since: b.now()}}})
	if w := b.do(post); w.Code != http.StatusAccepted {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	post.body = map[string]any{"server_name": "node9", "replace": true}
	wantRefusal(t, b.do(post), http.StatusNotFound, api.MemberNotFound, `Failed to get member "node9"`)
}

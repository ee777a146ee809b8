package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// stateOf sends a change of a member's state and waits for its operation.
func stateOf(b *bed, name, action, mode string) api.Operation {
	b.t.Helper()
	w := b.do(request{method: "POST", path: "/1.0/cluster/members/" + name + "/state", body: api.ClusterMemberStatePost{Action: action, Mode: mode}})
	op := metadata[api.Operation](b.t, w, http.StatusAccepted)
	return get[api.Operation](b, "/1.0/operations/"+op.ID+"/wait")
}

func TestMembersAreEvacuatedAndRestored(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	b.mustPropose(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: b.member("node3").ID, Offline: true, Since: b.clock}}})
	for _, name := range []string{"node2", "node3"} { // one of them is offline
		for _, step := range []struct{ action, err, status string }{
			{"restore", "Cluster member is already restored", ""},
			{"evacuate", "", "Evacuated"},
			{"evacuate", "Cluster member is already evacuated", "Evacuated"},
			{"restore", "", ""},
		} {
			op := stateOf(b, name, step.action, "")
			if op.Err != step.err || (op.StatusCode == api.Success) != (step.err == "") {
				t.Errorf("%s %s: %s %q, expected %q", step.action, name, op.Status, op.Err, step.err)
			}
			if _, ok := op.Metadata["evacuation_progress"].(string); step.err == "" && !ok {
				t.Errorf("%s %s tells no progress: %v", step.action, name, op.Metadata)
			}
			if m := get[api.ClusterMember](b, "/1.0/cluster/members/"+name); step.status != "" && m.Status != step.status {
				t.Errorf("after %s %s is %s", step.action, name, m.Status)
			}
		}
	}
}

func TestChangesOfAMembersStateAreChecked(t *testing.T) {
	several, single := newCluster(t, "node1", "node2"), newCluster(t, "node1")
	for _, tt := range []struct {
		b                  *bed
		name, action, mode string
		status             int
		reason             api.Reason
		text               string
	}{
		{several, "node2", "sleep", "", 400, api.BadRequest, `Unknown action "sleep"`},
		{several, "node2", "evacuate", "heal", 400, api.BadRequest, `Invalid evacuation mode "heal"`},
		{several, "node2", "restore", "stop", 400, api.BadRequest, `Invalid restore mode "stop"`},
		{several, "node9", "evacuate", "", 404, api.MemberNotFound, "Cluster member not found"},
		{single, "node1", "evacuate", "migrate", 400, api.BadRequest, `Can't perform "migrate" evacuation on a single node cluster`},
		{newBed(t), "node1", "evacuate", "", 400, api.NotClustered, "not clustered"},
	} {
		w := tt.b.do(request{method: "POST", path: "/1.0/cluster/members/" + tt.name + "/state", body: api.ClusterMemberStatePost{Action: tt.action, Mode: tt.mode}})
		wantRefusal(t, w, tt.status, tt.reason, tt.text)
	}
	for _, mode := range []string{"auto", "migrate", "live-migrate", "refresh-migrate", "stop", "stateful-stop", "force-stop"} {
		if op := stateOf(several, "node2", "evacuate", mode); op.StatusCode != api.Success {
			t.Errorf("mode %s: %s", mode, op.Err)
		}
		if op := stateOf(several, "node2", "restore", "skip"); op.StatusCode != api.Success {
			t.Errorf("after mode %s: %s", mode, op.Err)
		}
	}
}

func TestRolesAreExplained(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	b.mustPropose(state.KindMemberMaintenance, state.MemberMaintenance{ID: b.member("node3").ID, To: state.MaintenanceEvacuating})
	b.store.down = true // it is answered all the same
	roles := get[[]api.ClusterMemberRole](b, "/internal/cluster/roles")
	i := slices.IndexFunc(roles, func(r api.ClusterMemberRole) bool { return r.ServerName == "node3" })
	if len(roles) != 3 || !strings.Contains(roles[i].Message, "evacuated") {
		t.Errorf("roles are %+v", roles)
	}
	wantRefusal(t, newBed(t).do(request{method: "GET", path: "/internal/cluster/roles"}), 400, api.NotClustered, "not clustered")
}

func TestLeadershipIsTransferred(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	ask := func(name string) request {
		return request{method: "POST", path: "/internal/cluster/transfer-leader", body: api.ClusterLeader{Member: name}}
	}
	for _, name := range []string{"node2", ""} {
		want := name
		if name == "" {
			want = "node1"
		}
		if got := metadata[api.ClusterLeader](t, b.do(ask(name)), http.StatusOK); got.Member != want {
			t.Errorf("asked for %q, %s leads", name, got.Member)
		}
	}
	wantRefusal(t, b.do(ask("node9")), 404, api.MemberNotFound, "not found")
	b.mustPropose(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: b.member("node2").ID, Offline: true, Since: b.clock}}})
	wantRefusal(t, b.do(ask("node2")), 503, api.MemberOffline, "offline")
}

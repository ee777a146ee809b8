package state

import (
	"errors"
	"testing"
	"time"

	"incusd/api"
)

func TestMemberMaintenanceTruthTable(t *testing.T) {
	const evacuating, evacuated, restoring = MaintenanceEvacuating, MaintenanceEvacuated, MaintenanceRestoring
	tests := []struct {
		is, from, to string
		heal         bool
		want         api.Reason
		says, event  string
	}{
		{is: "", from: "", to: evacuating},
		{is: evacuating, from: evacuating, to: evacuated, event: "cluster-member-evacuated"},
		{is: evacuating, from: evacuating, to: ""},
		{is: evacuated, from: evacuated, to: restoring},
		{is: restoring, from: restoring, to: "", event: "cluster-member-restored"},
		{is: restoring, from: restoring, to: evacuated},
		// Ended twice.
		{is: evacuated, from: evacuating, to: evacuated},
		{is: "", from: restoring, to: ""},
		// Begun twice, or by two.
		{is: evacuating, from: "", to: evacuating, want: api.Conflict, says: "Cluster member is already in requested state"},
		{is: evacuated, from: "", to: evacuating, want: api.Conflict, says: "Cluster member is already evacuated"},
		{is: restoring, from: "", to: evacuating, want: api.Conflict, says: "Cluster member is being restored"},
		{is: restoring, from: evacuated, to: restoring, want: api.Conflict, says: "Cluster member is already in requested state"},
		{is: "", from: evacuated, to: restoring, want: api.Conflict, says: "Cluster member is already restored"},
		{is: evacuating, from: evacuated, to: restoring, want: api.Conflict, says: "Cluster member is being evacuated"},
		// An end that comes when all has changed meanwhile.
		{is: "", from: evacuating, to: evacuated, want: api.Conflict, says: "Cluster member is already restored"},
		{is: restoring, from: evacuating, to: evacuated, want: api.Conflict, says: "Cluster member is being restored"},
		{is: evacuated, from: restoring, to: "", want: api.Conflict, says: "Cluster member is already evacuated"},
		{is: evacuating, from: restoring, to: "", want: api.Conflict, says: "Cluster member is being evacuated"},
		// Moves that nobody makes.
		{is: "", from: "", to: evacuated, want: api.BadRequest, says: `a member does not go from maintenance "" to "evacuated"`},
		{is: "", from: "", to: "", want: api.BadRequest, says: `a member does not go from maintenance "" to ""`},
		{is: evacuated, from: evacuated, to: "", want: api.BadRequest, says: `a member does not go from maintenance "evacuated" to ""`},
		{is: "", from: "", to: "asleep", want: api.BadRequest, says: `a member does not go from maintenance "" to "asleep"`},
		// Healing.
		{is: "", from: "", to: evacuated, heal: true, event: "cluster-member-healed"},
		{is: evacuated, from: "", to: evacuated, heal: true},
		{is: evacuating, from: "", to: evacuated, heal: true, want: api.Conflict, says: "Cluster member is being evacuated"},
		{is: "", from: "", to: evacuating, heal: true, want: api.BadRequest, says: `a member does not go from maintenance "" to "evacuating"`},
	}
	for _, tt := range tests {
		t.Run(tt.is+":"+tt.from+"-"+tt.to, func(t *testing.T) {
			w := newCluster(t)
			w.join("id2", "node2", "fp2")
			w.must(KindMemberLiveness, MemberLiveness{Changes: []LivenessChange{{ID: "id2", Offline: true, Since: w.now}}})
			w.maintain("id2", tt.is)
			since := w.member("id2").MaintenanceSince
			w.now = w.now.Add(time.Minute)
			body := MemberMaintenance{ID: "id2", From: tt.from, To: tt.to, Heal: tt.heal}
			if tt.want != "" {
				w.says(tt.want, tt.says, KindMemberMaintenance, body)
				if m := w.member("id2"); m.Maintenance != tt.is || !m.MaintenanceSince.Equal(since) {
					t.Errorf("the refusal made it %q since %v", m.Maintenance, m.MaintenanceSince)
				}
				return
			}
			w.must(KindMemberMaintenance, body)
			if tt.event != "" {
				w.happened(tt.event + " /1.0/cluster/members/node2")
			} else {
				w.happened()
			}
			m := w.member("id2")
			if changed := tt.is != tt.to; m.Maintenance != tt.to || m.MaintenanceSince.Equal(w.now) != changed {
				t.Errorf("it is %q since %v", m.Maintenance, m.MaintenanceSince)
			}
		})
	}
}

// maintain takes a member to a state of maintenance, by legal moves.
func (w *world) maintain(id, state string) {
	w.t.Helper()
	path := []string{"", MaintenanceEvacuating, MaintenanceEvacuated, MaintenanceRestoring}
	for i := 0; path[i] != state; i++ {
		w.must(KindMemberMaintenance, MemberMaintenance{ID: id, From: path[i], To: path[i+1]})
	}
}

func TestOnlyActiveMembersAreEvacuatedOrStop(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	w.admit("id2", "node2", "fp2")
	evacuate := MemberMaintenance{ID: "id2", To: MaintenanceEvacuating}
	w.says(api.Conflict, "Cannot evacuate or restore a pending cluster member", KindMemberMaintenance, evacuate)
	w.refused(api.MemberNotFound, KindMemberMaintenance, MemberMaintenance{ID: "id9", To: MaintenanceEvacuating})
	for _, id := range []string{"id2", "id9"} {
		w.refused(api.MemberNotFound, KindMemberStopping, MemberStopping{ID: id, Stopping: true})
	}
}

func TestMemberThatIsBackIsNotHealed(t *testing.T) {
	w := newCluster(t)
	res := w.do(KindMemberMaintenance, MemberMaintenance{ID: "id1", To: MaintenanceEvacuated, Heal: true})
	if !errors.Is(res.Err, api.Conflict) || w.member("id1").Maintenance != "" {
		t.Errorf("error %v, it is %q", res.Err, w.member("id1").Maintenance)
	}
}

func TestMemberStoppingIsTakenBack(t *testing.T) {
	w := newCluster(t)
	for _, stopping := range []bool{false, true, true, false} {
		before := w.s.View()
		was := w.member("id1").Stopping
		w.must(KindMemberStopping, MemberStopping{ID: "id1", Stopping: stopping})
		w.happened()
		if got := w.member("id1").Stopping; got != stopping {
			t.Errorf("stopping is %v, expected %v", got, stopping)
		}
		if woken := closed(before.WatchMembers()); woken != (was != stopping) {
			t.Errorf("from %v to %v: watchers woken: %v", was, stopping, woken)
		}
	}
}

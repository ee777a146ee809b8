package membership

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

func TestMemberHasUpstreamsShape(t *testing.T) {
	b := newBed(t)
	got, err := json.Marshal(Members(b.Local(), time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"roles":["database-leader","database"],"failure_domain":"default","description":"","config":{},"groups":["default"],` +
		`"server_name":"node1","url":"https://10.1.0.1:8443","database":true,"status":"Online","message":"Fully operational","architecture":"x86_64"}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}

// What is stored goes before what is seen: an evacuated member that is offline shows Evacuated.
func TestMembersShowMaintenance(t *testing.T) {
	b := newBed(t)
	b.join(2)
	b.apply(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: "id-2", Offline: true, Since: time.Now()}}})
	for _, step := range []struct{ from, to, status string }{
		{"", state.MaintenanceEvacuating, "Evacuating"},
		{state.MaintenanceEvacuating, state.MaintenanceEvacuated, "Evacuated"},
		{state.MaintenanceEvacuated, state.MaintenanceRestoring, "Restoring"},
		{state.MaintenanceRestoring, "", "Offline"},
	} {
		b.apply(state.KindMemberMaintenance, state.MemberMaintenance{ID: "id-2", From: step.from, To: step.to})
		m := Member(b.Local(), b.member(2), time.Now())
		if m.Status != step.status {
			t.Errorf("%q is shown as %s, expected %s", step.to, m.Status, step.status)
		}
		if step.to != "" && m.Message != "Unavailable due to maintenance" {
			t.Errorf("the message is %q", m.Message)
		}
	}
}

func TestMembersShowRolesAndLiveness(t *testing.T) {
	b := newBed(t)
	for n := 2; n <= 5; n++ {
		b.join(n)
	}
	b.admit(6)
	b.setServer("id-2", true)
	b.apply(state.KindMemberRole, state.MemberRole{Changes: []state.RoleChange{{ID: "id-2", Role: state.RoleVoter}, {ID: "id-3", Role: state.RoleVoter}, {ID: "id-4", Role: state.RoleStandby}}})
	b.apply(state.KindMemberUpdate, state.MemberUpdate{ID: "id-5", Roles: []string{api.RoleDatabaseClient, api.RoleEventHub}, FailureDomain: "rack1", Description: "a box", Config: map[string]string{"user.a": "b"}, Groups: []string{"default"}})
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	b.apply(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: "id-4", Offline: true, Since: now.Add(-35*time.Second - 300*time.Millisecond)}}})

	type row struct {
		Roles           []string
		Database        bool
		Status, Message string
	}
	got := make(map[string]row)
	for _, m := range Members(b.Local(), now) {
		got[m.ServerName] = row{m.Roles, m.Database, m.Status, m.Message}
	}
	const fine = "Fully operational"
	want := map[string]row{
		"node1": {[]string{"database-leader", "database"}, true, "Online", fine},
		"node2": {[]string{"database"}, true, "Online", fine},
		"node3": {[]string{}, false, "Online", fine}, // wanted as a voter, without a vote yet
		"node4": {[]string{"database-standby"}, true, "Offline", "No heartbeat for 35s (2026-11-22 11:59:24 +0000)"},
		"node5": {[]string{"event-hub", "database-client"}, false, "Online", fine},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if put := Member(b.Local(), b.member(5), now).ClusterMemberPut; put.FailureDomain != "rack1" || put.Description != "a box" || put.Config["user.a"] != "b" {
		t.Errorf("writable part is %+v", put)
	}
}

func TestStaleMembersSaySo(t *testing.T) {
	b := newBed(t)
	since := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	view := &raftstore.View{View: b.tables.View(), Stale: &raftstore.Stale{Reason: api.NoQuorum, Index: 7, Since: since}}
	m := Members(view, since)[0]
	if want := "No quorum since 2026-11-22 12:00:00 +0000; last known: Fully operational"; m.Message != want {
		t.Errorf("message is %q, expected %q", m.Message, want)
	}
	if diff := cmp.Diff([]string{"database"}, m.Roles); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
	view.Stale.Silent = map[string]bool{b.member(1).ID: true}
	m = Members(view, since)[0]
	if want := "No quorum since 2026-11-22 12:00:00 +0000; does not answer this member"; m.Status != StatusOffline || m.Message != want {
		t.Errorf("a silent member is %s: %q, expected %q", m.Status, m.Message, want)
	}
	view.Stale = &raftstore.Stale{Reason: api.MemberFenced, Message: "This member was shut out when the cluster was recovered on member \"b\"; and so on"}
	if want := "The member that answers was shut out when the cluster was recovered on member \"b\"; last known: Fully operational"; Members(view, since)[0].Message != want {
		t.Errorf("message is %q, expected %q", Members(view, since)[0].Message, want)
	}
}

func TestUpdateMember(t *testing.T) {
	b := newBed(t)
	b.join(2)
	a := NewAdmissions(b, prober{}, b.tokens, noInventory{}, Settings{}, nil, nil)
	update := func(n int, change func(*api.ClusterMemberPut), expect string) error {
		put := Member(b.Local(), b.member(n), time.Now()).ClusterMemberPut
		change(&put)
		return a.UpdateMember(t.Context(), b.member(n).ID, put, expect, nil)
	}
	before := b.member(1).WritableHash()
	// What was read is sent back with one more role, as the command line does it.
	if err := update(1, func(p *api.ClusterMemberPut) { p.Roles = append(p.Roles, api.RoleEventHub) }, before); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{api.RoleEventHub}, b.member(1).Roles); diff != "" {
		t.Errorf("stored roles (-want +got):\n%s", diff)
	}
	requireReason(t, update(1, func(*api.ClusterMemberPut) {}, before), api.PreconditionFail)

	for _, tt := range []struct {
		name    string
		member  int
		change  func(*api.ClusterMemberPut)
		message string
	}{
		{"drop the vote", 1, func(p *api.ClusterMemberPut) { p.Roles = nil }, `The "database" role cannot be dropped at this time`},
		{"take a vote", 2, func(p *api.ClusterMemberPut) { p.Roles = []string{"database"} }, `The "database" role cannot be added at this time`},
		{"unknown role", 2, func(p *api.ClusterMemberPut) { p.Roles = []string{"king"} }, `Update roles: Invalid cluster role "king"`},
		{"no group", 2, func(p *api.ClusterMemberPut) { p.Groups = nil }, "Cluster members need to belong to at least one group"},
		{"no failure domain", 2, func(p *api.ClusterMemberPut) { p.FailureDomain = "" }, "Update failure domain: Failure domain name can't be empty"},
		{"unknown key", 2, func(p *api.ClusterMemberPut) { p.Config["a.b"] = "c" }, `Invalid cluster configuration key "a.b"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := update(tt.member, tt.change, "")
			if err == nil || api.AsError(err).Status() != 400 {
				t.Fatalf("error is %v, expected one of the caller's", err)
			}
			var refusal *api.Error
			if !errors.As(err, &refusal) || refusal.Message != tt.message {
				t.Errorf("error is %q, expected %q", err, tt.message)
			}
		})
	}
	requireReason(t, a.UpdateMember(t.Context(), "nobody", api.ClusterMemberPut{}, "", nil), api.MemberNotFound)
	if err := update(1, func(p *api.ClusterMemberPut) { p.Roles = append(p.Roles, api.RoleDatabaseClient) }, ""); err != nil {
		t.Fatal(err)
	}
	requireReason(t, update(2, func(p *api.ClusterMemberPut) { p.Roles = append(p.Roles, api.RoleDatabaseClient) }, ""), api.BadRequest)
}

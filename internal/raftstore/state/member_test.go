package state

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"incusd/api"
)

func TestMemberAdmitTruthTable(t *testing.T) {
	with := func(change func(*MemberAdmit)) MemberAdmit {
		b := admitBody("id2", "node2", "fp2")
		change(&b)
		return b
	}
	tests := []struct {
		name  string
		given func(w *world) // fp2 claims the token "t" for node2; node3 is a member with id3
		admit MemberAdmit
		want  api.Reason
		free  bool // the refusal releases the token
	}{
		{name: "claimed", admit: admitBody("id2", "node2", "fp2")},
		{name: "nothing claimed", admit: admitBody("id2", "node2", "fp9"), want: api.TokenNotClaimed},
		{name: "a member's key", admit: admitBody("id2", "node2", "fp1"), want: api.TokenNotClaimed},
		{name: "a member's key whose token was used", admit: admitBody("id2", "node2", "fp3"), want: api.TokenUsed},
		{name: "without ID", admit: admitBody("", "node2", "fp2"), want: api.BadRequest},
		{name: "without fingerprint", admit: admitBody("id2", "node2", ""), want: api.BadRequest},
		{name: "an active member's ID", admit: admitBody("id3", "node2", "fp2"), want: api.Conflict},
		{name: "the claim ran out", given: func(w *world) { w.now = w.now.Add(ClaimTime) },
			admit: admitBody("id2", "node2", "fp2"), want: api.TokenNotClaimed},
		{name: "the token was revoked", given: func(w *world) { w.must(KindTokenRevoke, TokenRevoke{Operation: "op-t"}) },
			admit: admitBody("id2", "node2", "fp2"), want: api.TokenRevoked},
		{name: "the token expired", given: func(w *world) {
			w.now = start.Add(3*time.Hour - time.Minute)
			w.claim("t", "node2", "fp2")
			w.now = w.now.Add(time.Minute)
		}, admit: admitBody("id2", "node2", "fp2"), want: api.TokenExpired},
		{name: "the token expired and was swept", given: func(w *world) {
			w.now = start.Add(3*time.Hour - time.Minute)
			w.claim("t", "node2", "fp2")
			w.now = w.now.Add(time.Minute)
			w.must(KindLeaderSweep, LeaderSweep{})
		}, admit: admitBody("id2", "node2", "fp2"), want: api.TokenExpired},
		{name: "another name", admit: admitBody("id2", "node9", "fp2"), want: api.TokenWrongName, free: true},
		{name: "an address that is taken", admit: with(func(b *MemberAdmit) { b.Address = "node3:8443" }), want: api.AddressTaken, free: true},
		{name: "an address that joins", given: func(w *world) {
			w.issue("t4", "node4")
			w.claim("t4", "node4", "fp4")
			w.admit("id4", "node4", "fp4")
		}, admit: with(func(b *MemberAdmit) { b.Address = "node4:8443" }), want: api.AddressTaken, free: true},
		{name: "no address", admit: with(func(b *MemberAdmit) { b.Address = "" }), want: api.AddressInvalid, free: true},
		{name: "a strange address", admit: with(func(b *MemberAdmit) { b.Address = "a b" }), want: api.AddressInvalid, free: true},
		{name: "too old", admit: with(func(b *MemberAdmit) { b.CommandVersion = 0 }), want: api.VersionTooOld, free: true},
		{name: "newer", admit: with(func(b *MemberAdmit) { b.CommandVersion = 7 })},
		{name: "again with the same ID", given: func(w *world) { w.admit("id2", "node2", "fp2") }, admit: admitBody("id2", "node2", "fp2")},
		{name: "again after the token's expiry", given: func(w *world) {
			w.admit("idA", "node2", "fp2")
			w.now = start.Add(3 * time.Hour)
		}, admit: admitBody("id2", "node2", "fp2")},
		{name: "an ID that a join gave up", given: func(w *world) {
			w.admit("id2", "node2", "fp2")
			w.must(KindMemberAbort, MemberAbort{ID: "id2", Fingerprint: "fp2"})
			w.claim("t", "node2", "fp2")
		}, admit: admitBody("id2", "node2", "fp2"), want: api.Conflict},
		{name: "an ID that was given up before it came", given: func(w *world) {
			w.must(KindMemberAbort, MemberAbort{ID: "id2", Fingerprint: "fp2"})
			w.claim("t", "node2", "fp2")
		}, admit: admitBody("id2", "node2", "fp2"), want: api.Conflict},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newCluster(t)
			w.join("id3", "node3", "fp3")
			w.issue("t", "node2")
			w.claim("t", "node2", "fp2")
			if tt.given != nil {
				tt.given(w)
			}
			before := content(t, w.s.View())
			if w.refused(tt.want, KindMemberAdmit, tt.admit) == nil {
				w.requireJoining(tt.admit, "t")
				return
			}
			w.noMember("id2")
			if tt.free {
				w.free("t")
				w.refused(api.TokenNotClaimed, KindMemberAdmit, tt.admit)
				w.claim("t", "node2", "fp5") // usable at once, by whoever has the secret
			} else if after := content(t, w.s.View()); after != before {
				t.Errorf("the refusal changed the state:\n%s\n%s", before, after)
			}
		})
	}
}

func (w *world) requireJoining(b MemberAdmit, hash string) {
	w.t.Helper()
	w.happened()
	want := &Member{
		ID: b.ID, Number: 3, Name: b.Name, Address: b.Address, Certificate: "cert-" + b.Fingerprint, Fingerprint: b.Fingerprint,
		Architecture: "aarch64", CommandVersion: b.CommandVersion, State: MemberJoining, Token: hash, JoinDeadline: w.now.Add(JoinTime),
		Since: w.now, Role: RoleSpare, FailureDomain: "default", Groups: []string{"default"},
	}
	if got := w.member(b.ID); !reflect.DeepEqual(got, want) {
		w.t.Errorf("joining row %+v\nwant %+v", got, want)
	}
	if got := w.token(hash); !got.Admitted() || got.ClaimedBy != b.Fingerprint {
		w.t.Errorf("token is claimed by %q until %v", got.ClaimedBy, got.ClaimUntil)
	}
	if n := len(w.s.View().Joining()); n != 1 {
		w.t.Errorf("%d joining members", n)
	}
}

// A rename refuses the name of a live token; whoever joins checks it all the same.
func TestNameOfARenamedMemberIsTaken(t *testing.T) {
	w := newCluster(t)
	w.join("id3", "node3", "fp3")
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	b := &batch{db: w.s.db, counts: w.s.View().counts}
	tx := b.begin(&Command{Time: w.now})
	m := w.member("id3").Clone()
	m.Name = "node2"
	memberTable.put(tx, m)
	b.commit(tx)

	w.says(api.NameTaken, "The cluster already has a member with name: node2", KindTokenClaim, claimBody("t", "node2", "fp2"))
	w.says(api.NameTaken, "The cluster already has a member with name: node2", KindMemberAdmit, admitBody("id2", "node2", "fp2"))
	w.noMember("id2")
	w.free("t")
}

func TestMemberAdmitNeedsACluster(t *testing.T) {
	w := newWorld(t)
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
	w.refused(api.NotClustered, KindMemberAdmit, admitBody("id2", "node2", "fp2"))
}

func TestMemberAdmitAnswersTheMember(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	var got Member
	if err := json.Unmarshal(w.must(KindMemberAdmit, admitBody("id2", "node2", "fp2")), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, w.member("id2")) {
		t.Errorf("answer %+v, row %+v", got, w.member("id2"))
	}
}

func TestMemberAdmitReplacesTheServersEarlierAttempt(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	w.admit("idA", "node2", "fp2")
	number := w.member("idA").Number
	w.admit("idB", "node2", "fp2")
	w.noMember("idA")
	if got := w.member("idB").Number; got != number {
		t.Errorf("number %d, want that of the earlier attempt, %d", got, number)
	}
	w.refused(api.JoinAborted, KindMemberActivate, MemberActivate{ID: "idA"})
	w.refused(api.Conflict, KindMemberAdmit, admitBody("idA", "node2", "fp2"))
	w.must(KindMemberActivate, MemberActivate{ID: "idB"})
}

func TestMemberAdmitRefusalEndsTheServersEarlierAttempt(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	w.admit("idA", "node2", "fp2")
	b := admitBody("idB", "node2", "fp2")
	b.Address = "10.0.0.1:8443"
	w.refused(api.AddressTaken, KindMemberAdmit, b)
	w.noMember("idA")
	w.noMember("idB")
	w.free("t")
}

func TestMemberAdmitRefusalIsRememberedWithItsEffect(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	first := w.ask("same", KindMemberAdmit, admitBody("id2", "node9", "fp2"))
	w.claim("t", "node2", "fp2")
	again := w.ask("same", KindMemberAdmit, admitBody("id2", "node9", "fp2"))
	if first.Err == nil || again.Err == nil || *first.Err != *again.Err {
		t.Errorf("answers differ: %v and %v", first.Err, again.Err)
	}
	if w.token("t").ClaimedBy != "fp2" {
		t.Error("the effect came twice")
	}
}

func TestMemberActivate(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	w.admit("id2", "node2", "fp2")
	if _, ok := w.s.View().MemberByName("node2"); ok {
		t.Error("a joining member is shown by its name")
	}
	w.now = w.now.Add(4 * time.Hour) // past the token's expiry, which does not matter now
	w.must(KindMemberActivate, MemberActivate{ID: "id2"})
	w.happened("cluster-member-added /1.0/cluster/members/node2 +t")
	w.ended("t", TokenUsed)
	if got := w.token("t").UsedBy; got != "id2" {
		t.Errorf("used by %q", got)
	}
	m, ok := w.s.View().MemberByName("node2")
	if !ok || m.State != MemberActive || !m.JoinedAt.Equal(w.now) || !m.JoinDeadline.IsZero() || fmt.Sprint(m.Groups) != "[default]" {
		t.Errorf("member %+v", m)
	}

	before := content(t, w.s.View())
	w.must(KindMemberActivate, MemberActivate{ID: "id2"})
	w.happened()
	if after := content(t, w.s.View()); after != before {
		t.Error("a repeat changed the state")
	}
	w.refused(api.JoinAborted, KindMemberActivate, MemberActivate{ID: "id9"})
	w.refused(api.JoinAborted, KindMemberActivate, MemberActivate{})
}

func TestMemberAbortTruthTable(t *testing.T) {
	claimed := func(w *world) {
		w.issue("t", "node2")
		w.claim("t", "node2", "fp2")
	}
	joining := func(w *world) {
		claimed(w)
		w.admit("id2", "node2", "fp2")
	}
	active := func(w *world) {
		joining(w)
		w.must(KindMemberActivate, MemberActivate{ID: "id2"})
	}
	tests := []struct {
		name  string
		given func(*world)
		abort MemberAbort
		want  api.Reason
		res   AbortResult
		then  func(*world)
	}{
		{name: "nothing there", abort: MemberAbort{ID: "id2", Fingerprint: "fp2"}},
		{name: "nothing there, no ID", abort: MemberAbort{Fingerprint: "fp2"}},
		{name: "without fingerprint", abort: MemberAbort{ID: "id2"}, want: api.BadRequest},
		{name: "claim alone", given: claimed, abort: MemberAbort{Fingerprint: "fp2"}, then: func(w *world) { w.free("t") }},
		{name: "claim alone, with the ID of an admission that never came", given: claimed,
			abort: MemberAbort{ID: "id2", Fingerprint: "fp2"}, then: func(w *world) { w.free("t") }},
		{name: "another server's claim", given: claimed, abort: MemberAbort{Fingerprint: "fp9"},
			then: func(w *world) { w.admit("id2", "node2", "fp2") }},
		{name: "joining", given: joining, abort: MemberAbort{ID: "id2", Fingerprint: "fp2"}, then: func(w *world) {
			w.noMember("id2")
			w.free("t")
			w.refused(api.JoinAborted, KindMemberActivate, MemberActivate{ID: "id2"})
		}},
		{name: "joining, no ID", given: joining, abort: MemberAbort{Fingerprint: "fp2"}, then: func(w *world) {
			w.noMember("id2")
			w.free("t")
		}},
		{name: "an earlier attempt", given: joining, abort: MemberAbort{ID: "idA", Fingerprint: "fp2"}, then: func(w *world) {
			w.must(KindMemberActivate, MemberActivate{ID: "id2"})
		}},
		{name: "another server's row", given: joining, abort: MemberAbort{ID: "id2", Fingerprint: "fp9"}, want: api.Conflict,
			then: func(w *world) { w.member("id2") }},
		{name: "active", given: active, abort: MemberAbort{ID: "id2", Fingerprint: "fp2"}, res: AbortResult{Active: true},
			then: func(w *world) { w.member("id2") }},
		{name: "active, no ID", given: active, abort: MemberAbort{Fingerprint: "fp2"}, res: AbortResult{Active: true}},
		{name: "active under another ID", given: active, abort: MemberAbort{ID: "idA", Fingerprint: "fp2"},
			then: func(w *world) { w.member("id2") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newCluster(t)
			if tt.given != nil {
				tt.given(w)
			}
			res := w.do(KindMemberAbort, tt.abort)
			if tt.want != "" {
				if res.Err == nil || res.Err.Reason != tt.want {
					t.Fatalf("refused with %v, want %s", res.Err, tt.want)
				}
			} else {
				var got AbortResult
				if err := json.Unmarshal(res.Value, &got); err != nil || got != tt.res {
					t.Fatalf("result %+v %v, want %+v", got, err, tt.res)
				}
			}
			w.happened()
			if tt.then != nil {
				tt.then(w)
			}
		})
	}
}

func updateBody(change func(*MemberUpdate)) MemberUpdate {
	b := MemberUpdate{ID: "id1", FailureDomain: "default", Groups: []string{"default"}}
	if change != nil {
		change(&b)
	}
	return b
}

func TestMemberUpdate(t *testing.T) {
	w := newCluster(t)
	w.join("id2", "node2", "fp2")
	before := w.member("id1")
	w.must(KindMemberUpdate, MemberUpdate{
		ID: "id1", Expect: before.WritableHash(), Roles: []string{"database-client", "event-hub", "event-hub"}, FailureDomain: "rack1", Description: "text",
		Config: map[string]string{"user.a": "b", "user.c": "", "scheduler.instance": "manual"}, Groups: []string{"default", "default"},
	})
	w.happened("cluster-member-updated /1.0/cluster/members/node1")
	m := w.member("id1")
	want := before.Clone()
	want.Roles, want.FailureDomain, want.Description = []string{"event-hub", "database-client"}, "rack1", "text"
	want.Config = map[string]string{"user.a": "b", "scheduler.instance": "manual"}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("member %+v\nwant %+v", m, want)
	}
	if m.WritableHash() == before.WritableHash() {
		t.Error("the hash did not change with the member")
	}
	w.refused(api.PreconditionFail, KindMemberUpdate, updateBody(func(b *MemberUpdate) { b.Expect = before.WritableHash() }))
	w.must(KindMemberUpdate, updateBody(func(b *MemberUpdate) { b.Expect = m.WritableHash() }))
}

func TestMemberUpdateRefusals(t *testing.T) {
	tests := []struct {
		name   string
		change func(*MemberUpdate)
		reason api.Reason
		text   string
	}{
		{"unknown member", func(b *MemberUpdate) { b.ID = "id9" }, api.MemberNotFound, "Cluster member not found"},
		{"joining member", func(b *MemberUpdate) { b.ID = "id2" }, api.MemberNotFound, "Cluster member not found"},
		{"unknown role", func(b *MemberUpdate) { b.Roles = []string{"event-hub", "x"} }, api.BadRequest, `Update roles: Invalid cluster role "x"`},
		{"database role", func(b *MemberUpdate) { b.Roles = []string{"database"} }, api.BadRequest, `Update roles: Invalid cluster role "database"`},
		{"all are clients", func(b *MemberUpdate) { b.Roles = []string{"database-client"} }, api.BadRequest,
			"Assigning the 'database-client' role to all nodes is not allowed"},
		{"no failure domain", func(b *MemberUpdate) { b.FailureDomain = "" }, api.BadRequest,
			"Update failure domain: Failure domain name can't be empty"},
		{"no group", func(b *MemberUpdate) { b.Groups = nil }, api.BadRequest, "Cluster members need to belong to at least one group"},
		{"unknown group", func(b *MemberUpdate) { b.Groups = []string{"default", "gpu"} }, api.NotFound,
			"Update cluster groups: Failed to add member to cluster group: Failed to get cluster group ID: Cluster group not found"},
		{"unknown key", func(b *MemberUpdate) { b.Config = map[string]string{"z": "1", "x": "1"} }, api.ConfigInvalid,
			`Invalid cluster configuration key "x"`},
		{"bad value", func(b *MemberUpdate) { b.Config = map[string]string{"scheduler.instance": "x"} }, api.ConfigInvalid,
			`Invalid cluster configuration key "scheduler.instance" value`},
		{"large value", func(b *MemberUpdate) { b.Config = map[string]string{"user.x": string(make([]byte, MaxConfigValue+1))} }, api.TooLarge,
			`The value of "user.x" has 65537 bytes, the limit is 65536`},
		{"large description", func(b *MemberUpdate) { b.Description = string(make([]byte, MaxConfigValue)) }, api.TooLarge,
			"Description and failure domain have 65543 bytes, the limit is 65536"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newCluster(t)
			w.issue("t", "node2")
			w.claim("t", "node2", "fp2")
			w.admit("id2", "node2", "fp2")
			before := content(t, w.s.View())
			w.says(tt.reason, tt.text, KindMemberUpdate, updateBody(tt.change))
			w.happened()
			if content(t, w.s.View()) != before {
				t.Error("the refusal changed the state")
			}
		})
	}
}

func TestWritableHashDoesNotTellNilFromEmpty(t *testing.T) {
	a := &Member{FailureDomain: "default"}
	b := &Member{FailureDomain: "default", Roles: []string{}, Groups: []string{}, Config: map[string]string{"x": ""}}
	if a.WritableHash() != b.WritableHash() {
		t.Error("equal members have different hashes")
	}
}

func TestMemberLiveness(t *testing.T) {
	w := newCluster(t)
	v := w.s.View()
	w.now = w.now.Add(time.Minute)
	w.must(KindMemberLiveness, MemberLiveness{Changes: []LivenessChange{
		{ID: "id9", Offline: true}, // gone meanwhile
		{ID: "id1", Offline: true, Since: w.now, Reason: "no answer"},
	}})
	w.happened()
	if m := w.member("id1"); !m.Offline || !m.Since.Equal(w.now) || m.Reason != "no answer" {
		t.Errorf("member %+v", m)
	}
	if !closed(v.WatchMembers()) {
		t.Error("nobody was told")
	}
	v = w.s.View()
	w.must(KindMemberLiveness, MemberLiveness{Changes: []LivenessChange{{ID: "id1", Offline: true, Since: w.now, Reason: "no answer"}}})
	if closed(v.Watch()) {
		t.Error("a repeat woke the watchers")
	}
}

func TestMemberRole(t *testing.T) {
	w := newCluster(t)
	w.join("id2", "node2", "fp2")
	if got := w.member("id1").Role; got != RoleVoter {
		t.Errorf("the first member is %s", got)
	}
	w.must(KindMemberRole, MemberRole{Changes: []RoleChange{{ID: "id1", Role: RoleSpare}, {ID: "id2", Role: RoleVoter}}})
	if a, b := w.member("id1").Role, w.member("id2").Role; a != RoleSpare || b != RoleVoter {
		t.Errorf("roles %s and %s", a, b)
	}
	w.refused(api.Conflict, KindMemberRole, MemberRole{Changes: []RoleChange{{ID: "id2", Role: RoleStandby}}})
	w.refused(api.BadRequest, KindMemberRole, MemberRole{Changes: []RoleChange{{ID: "id2", Role: "king"}}})
	w.refused(api.MemberNotFound, KindMemberRole, MemberRole{Changes: []RoleChange{{ID: "id1", Role: RoleVoter}, {ID: "id9", Role: RoleVoter}}})
	if a, b := w.member("id1").Role, w.member("id2").Role; a != RoleSpare || b != RoleVoter {
		t.Errorf("a refused plan changed roles to %s and %s", a, b)
	}
}

func TestNeededVersionIsWhatAllMembersKnow(t *testing.T) {
	w := newCluster(t)
	if got := w.s.View().CommandVersion(); got != 1 {
		t.Errorf("version %d", got)
	}
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	b := admitBody("id2", "node2", "fp2")
	b.CommandVersion = 9
	w.must(KindMemberAdmit, b)
	if got := w.s.View().CommandVersion(); got != 1 {
		t.Errorf("version %d with a newer member", got)
	}
}

func TestMembersAreListedByNumber(t *testing.T) {
	w := newCluster(t)
	for i := 2; i <= 12; i++ {
		w.join(fmt.Sprintf("id%d", 30-i), fmt.Sprintf("node%d", i), fmt.Sprintf("fp%d", i))
	}
	for i, m := range w.s.View().Members() {
		if m.Number != i+1 || m.Name != fmt.Sprintf("node%d", i+1) {
			t.Errorf("place %d has %s with number %d", i, m.Name, m.Number)
		}
	}
}

func TestRetiredIDsAreBounded(t *testing.T) {
	w := newCluster(t)
	for i := range MaxRetired + 10 {
		w.must(KindMemberAbort, MemberAbort{ID: fmt.Sprintf("x%d", i), Fingerprint: "fp2"})
	}
	if n := w.s.View().counts.retired; n != MaxRetired {
		t.Errorf("%d IDs are remembered, want %d", n, MaxRetired)
	}
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	w.refused(api.Conflict, KindMemberAdmit, admitBody("x10", "node2", "fp2"))
}

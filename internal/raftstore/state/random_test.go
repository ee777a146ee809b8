package state

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"incusd/api"
)

// A chaos draws commands from small sets, so that they meet.
type chaos struct {
	pick func(n int) int
	now  time.Time
	n    int // of commands so far
}

func (c *chaos) one(from ...string) string { return from[c.pick(len(from))] }
func (c *chaos) id() string                { return fmt.Sprintf("id%d", 1+c.pick(12)) }
func (c *chaos) name() string              { return fmt.Sprintf("node%d", 1+c.pick(6)) }
func (c *chaos) fp() string                { return fmt.Sprintf("fp%d", 1+c.pick(8)) }
func (c *chaos) hash() string              { return fmt.Sprintf("t%d", c.pick(16)) }

// command draws the next command. It is often one that the state v has a use for.
func (c *chaos) command(t testing.TB, v *View) Command {
	c.n++
	if c.pick(6) == 0 {
		c.now = c.now.Add([]time.Duration{time.Second, time.Minute, ClaimTime, 2 * time.Hour, 24 * time.Hour}[c.pick(5)])
	}
	kind, body := c.draw(v)
	request := fmt.Sprintf("r%d", c.n)
	if c.pick(8) == 0 {
		request = fmt.Sprintf("r%d", 1+c.pick(c.n))
	}
	cmd, err := NewCommand(kind, request, c.now, nil, body)
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

func (c *chaos) draw(v *View) (string, any) {
	switch c.pick(24) {
	case 0, 1, 2:
		hash := c.one(c.hash(), fmt.Sprintf("t%d", c.n))
		token := Token{
			Hash: hash, Secret: "secret", Name: c.name(), Operation: "op-" + hash, Issuer: "id1", Fingerprint: "f",
			Addresses: []string{"a"}, CreatedAt: c.now, ExpiresAt: c.now.Add(3 * time.Hour),
		}
		if m, ok := v.MemberByName(token.Name); ok && c.pick(2) == 0 {
			token.Replaces = m.ID
		}
		return KindTokenIssue, TokenIssue{Token: token}
	case 22, 23:
		return c.drawRemoval(v)
	case 3, 4, 5:
		b := TokenClaim{Hash: c.hash(), Name: c.name(), Fingerprint: c.fp(), Certificate: "cert", Proved: c.pick(2) == 0}
		if list := tokenTable.list(v.txn, "name"); len(list) > 0 && c.pick(4) != 0 {
			t := list[c.pick(len(list))]
			b.Hash, b.Name = t.Hash, t.Name
		}
		return KindTokenClaim, b
	case 6, 7, 8:
		b := MemberAdmit{ID: fmt.Sprintf("id%d", 2+c.n), Fingerprint: c.fp(), Name: c.name(), Address: c.name(), CommandVersion: c.pick(8)}
		for _, t := range tokenTable.list(v.txn, "name") {
			if t.ClaimedBy != "" && c.pick(2) == 0 {
				b.Fingerprint = t.ClaimedBy
			}
		}
		if c.pick(5) == 0 {
			b.ID = c.id()
		}
		if t, ok := v.TokenByClaim(b.Fingerprint); ok && c.pick(4) != 0 {
			b.Name, b.Address, b.CommandVersion = t.Name, t.Name, 1
		}
		return KindMemberAdmit, b
	case 9, 10:
		b := MemberActivate{ID: c.id()}
		if list := v.Joining(); len(list) > 0 {
			b.ID = list[c.pick(len(list))].ID
		}
		return KindMemberActivate, b
	case 11:
		b := MemberAbort{Fingerprint: c.fp(), ID: c.one("", c.id())}
		if m, ok := v.MemberByFingerprint(b.Fingerprint); ok && c.pick(2) == 0 {
			b.ID = m.ID
		}
		return KindMemberAbort, b
	case 12:
		return KindTokenRevoke, TokenRevoke{Operation: "op-" + c.hash()}
	case 13:
		b := LeaderSweep{}
		for _, m := range v.Joining() {
			if c.pick(2) == 0 {
				b.Lost = append(b.Lost, m.ID)
			}
		}
		return KindLeaderSweep, b
	case 14:
		return KindConfigSet, ConfigSet{Set: map[string]string{c.one("a", "b", "c"): c.one("", "1", "2")}, Replace: c.pick(4) == 0}
	case 15:
		if c.pick(3) == 0 {
			return KindMemberAddress, MemberAddress{ID: c.id(), Address: c.one(c.name(), c.name()+":9443", "")}
		}
		return KindMemberUpdate, MemberUpdate{ID: c.id(), FailureDomain: c.one("default", "", "r1"), Groups: []string{c.one("default", c.group()), c.group()}[:c.pick(3)],
			Roles: []string{c.one("event-hub", "database-client")}, Config: map[string]string{c.one("user.x", "y"): "1"}}
	case 20:
		if c.pick(3) == 0 {
			return KindMemberStopping, MemberStopping{ID: c.id(), Stopping: c.pick(2) == 0}
		}
		states := []string{"", MaintenanceEvacuating, MaintenanceEvacuated, MaintenanceRestoring}
		return KindMemberMaintenance, MemberMaintenance{ID: c.id(), From: c.one(states...), To: c.one(states...), Heal: c.pick(4) == 0}
	case 16:
		if c.pick(2) == 0 {
			return KindMemberLiveness, MemberLiveness{Changes: []LivenessChange{{ID: c.id(), Offline: c.pick(2) == 0, Since: c.now, Reason: "r"}}}
		}
		return KindMemberRole, MemberRole{Changes: []RoleChange{{ID: c.id(), Role: c.one(RoleVoter, RoleStandby, RoleSpare)}}}
	case 17:
		b := MemberRename{ID: c.id(), Expect: c.name(), Name: c.one(c.name(), "other", "none")}
		if list := v.Members(); c.pick(4) != 0 {
			m := list[c.pick(len(list))]
			b.ID, b.Expect = m.ID, m.Name
		}
		return KindMemberRename, b
	case 18, 19:
		return c.drawGroup(v)
	default:
		switch c.pick(6) {
		case 0:
			return KindCertificateAdd, CertificateAdd{Certificate: Certificate{Fingerprint: c.fp(), Type: "client"}}
		case 1:
			return KindCertificateRemove, CertificateRemove{Fingerprint: c.fp()}
		case 2:
			fp := c.fp()
			return KindCertificateUpdate, CertificateUpdate{Fingerprint: fp, Expect: c.one("", v.CertificateHash(fp), "other"),
				Certificate: Certificate{Fingerprint: c.one(fp, c.fp()), Type: c.one("client", "metrics"), Name: c.name()}}
		case 3:
			hash := c.one(c.hash(), fmt.Sprintf("t%d", c.n))
			return KindTokenInvite, TokenInvite{Token: Token{Hash: hash, Secret: "secret", Name: c.name(), Operation: "op-" + hash, Issuer: "id1",
				Addresses: []string{"a"}, CreatedAt: c.now, ExpiresAt: c.now.Add(3 * time.Hour), Client: &ClientGrant{Restricted: c.pick(2) == 0}}}
		case 4:
			return KindTokenRedeem, TokenRedeem{Hash: c.hash(), Certificate: Certificate{Fingerprint: c.fp(), PEM: "pem"}}
		}
		if c.pick(2) == 0 {
			return c.drawWarning(v)
		}
		return KindLeaderElected, LeaderElected{ID: c.id(), Term: uint64(c.pick(9))}
	}
}

func (c *chaos) group() string { return c.one("default", "gpu", "fast", "old") }

func (c *chaos) drawGroup(v *View) (string, any) {
	var members []string
	for _, m := range v.Members() {
		if c.pick(3) == 0 {
			members = append(members, m.ID)
		}
	}
	if c.pick(8) == 0 {
		members = append(members, c.id())
	}
	g := Group{Name: c.group(), Config: map[string]string{c.one("user.x", "y", "user.z"): "1"}}
	switch c.pick(6) {
	case 0, 1:
		return KindGroupCreate, GroupCreate{Group: g, Members: members}
	case 2, 3:
		return KindGroupUpdate, GroupUpdate{Group: g, Members: members, Expect: c.one("", v.GroupHash(c.group())), Strict: c.pick(2) == 0}
	case 4:
		return KindGroupRename, GroupRename{Name: g.Name, NewName: c.group()}
	}
	return KindGroupDelete, GroupDelete{Name: g.Name}
}

func (c *chaos) drawWarning(v *View) (string, any) {
	uuid := fmt.Sprintf("w%d", c.pick(8))
	switch c.pick(5) {
	case 0:
		return KindWarningStatus, WarningStatus{UUID: uuid, Status: c.one(api.WarningNew, api.WarningAcknowledged, api.WarningResolved)}
	case 1:
		return KindWarningDelete, WarningDelete{UUID: uuid}
	}
	b := WarningReport{Raise: []WarningRaise{{UUID: uuid, Sighting: Sighting{
		Type: c.one(WarnOffline, WarnPool), Member: c.one("", c.id()), Entity: c.one("", "e1"), Severity: c.one("low", "high"), Message: "text"}}}}
	for _, w := range v.Warnings() {
		if c.pick(3) == 0 {
			b.Resolve = append(b.Resolve, w.UUID)
		}
	}
	return KindWarningReport, b
}

// drawRemoval draws a step of the removal of a member.
func (c *chaos) drawRemoval(v *View) (string, any) {
	members := v.Members()
	if len(members) == 0 || c.pick(20) == 0 {
		return KindMemberLeave, MemberLeave{ID: c.id()}
	}
	id := members[c.pick(len(members))].ID
	switch c.pick(8) {
	case 0:
		return KindMemberLiveness, MemberLiveness{Changes: []LivenessChange{{ID: id, Offline: true, Since: c.now, Reason: "r"}}}
	case 1:
		return KindMemberRole, MemberRole{Changes: []RoleChange{{ID: id, Role: RoleVoter}}}
	case 2, 3:
		return KindMemberRemove, MemberRemove{ID: id, Force: c.pick(2) == 0, Cancel: c.pick(6) == 0}
	case 4:
		if c.pick(4) == 0 {
			return KindClusterDisable, ClusterDisable{MemberID: id}
		}
	}
	return KindMemberLeave, MemberLeave{ID: id}
}

// history is what must not change any more.
type history struct {
	usedBy map[string]string // of tokens
	gone   map[string]bool   // IDs of members
	active map[string]bool
}

func (h *history) check(t testing.TB, before, after *View) {
	t.Helper()
	unique := map[string]string{}
	only := func(what, key, owner string) {
		t.Helper()
		if other, ok := unique[what+key]; ok {
			t.Fatalf("%s %q is that of %s and %s", what, key, other, owner)
		}
		unique[what+key] = owner
	}
	joiners := map[string]bool{} // by token
	for _, m := range append(after.Members(), after.Joining()...) {
		only("ID", m.ID, m.ID)
		only("number", fmt.Sprint(m.Number), m.ID)
		if m.Replacing == "" {
			only("name", m.Name, m.ID)
			only("address", m.Address, m.ID)
		} else if m.State == MemberActive {
			t.Fatalf("active member %s still replaces %s", m.ID, m.Replacing)
		}
		only("fingerprint", m.Fingerprint, m.ID)
		if len(m.Groups) == 0 || !slices.Equal(m.Groups, sortedGroups(m.Groups)) {
			t.Fatalf("member %s is in the groups %q", m.ID, m.Groups)
		}
		for _, g := range m.Groups {
			if _, ok := after.Group(g); !ok {
				t.Fatalf("member %s is in the group %q, which is not there", m.ID, g)
			}
		}
		if m.Number >= after.Cluster().NextNumber {
			t.Fatalf("member %s has number %d, the next is %d", m.ID, m.Number, after.Cluster().NextNumber)
		}
		if h.gone[m.ID] {
			t.Fatalf("member ID %s came back", m.ID)
		}
		tok, ok := after.Token(m.Token)
		switch {
		case m.State == MemberActive:
			h.active[m.ID] = true
			if ok && (tok.Ended != TokenUsed || tok.UsedBy != m.ID) {
				t.Fatalf("token %s of active member %s: ended %q, used by %q", m.Token, m.ID, tok.Ended, tok.UsedBy)
			}
		case !ok || tok.Ended != "" || tok.ClaimedBy != m.Fingerprint || tok.Name != m.Name || !tok.Admitted():
			t.Fatalf("member %s (%s) joins under %+v", m.ID, m.Fingerprint, tok)
		default:
			joiners[tok.Hash] = true
		}
		if got, ok := after.MemberByFingerprint(m.Fingerprint); !ok || got != m {
			t.Fatalf("member %s is not found by its fingerprint", m.ID)
		}
	}
	for _, tok := range after.Tokens() {
		switch {
		case tok.Ended == "" && tok.Client != nil:
			if tok.ClaimedBy != "" || tok.Secret == "" {
				t.Fatalf("certificate add token %s: %+v", tok.Hash, tok)
			}
		case tok.Ended == "":
			only("token for", tok.Name, tok.Hash)
			if tok.ClaimedBy != "" {
				only("claim of", tok.ClaimedBy, tok.Hash)
			}
			if tok.Admitted() != joiners[tok.Hash] {
				t.Fatalf("token %s: admitted %v, joining row %v", tok.Hash, tok.Admitted(), joiners[tok.Hash])
			}
			if got, ok := after.TokenByName(tok.Name); !ok || got != tok {
				t.Fatalf("token %s is not found by its name", tok.Hash)
			}
		case tok.Secret != "" || tok.ClaimedCert != "" || tok.EndedAt.IsZero():
			t.Fatalf("token %s ended and kept its secret", tok.Hash)
		}
		if by, ok := h.usedBy[tok.Hash]; ok && by != tok.UsedBy {
			t.Fatalf("token %s was used by %s and then by %s", tok.Hash, by, tok.UsedBy)
		}
		if tok.Ended == TokenUsed {
			h.usedBy[tok.Hash] = tok.UsedBy
		}
	}
	for _, m := range append(before.Members(), before.Joining()...) {
		if _, ok := after.Member(m.ID); !ok {
			if _, removed := after.Removed(m.ID); removed != (m.State == MemberActive) {
				t.Fatalf("member %s, which was %s, is gone; tombstone: %v", m.ID, m.State, removed)
			}
			h.gone[m.ID] = true
		}
	}
	if len(before.Members()) > 0 && len(after.Members()) == 0 {
		t.Fatal("no member is left")
	}
	for _, kind := range []string{EntityPool, EntityNetwork, EntityVolume} {
		for _, e := range after.Entities(kind) {
			for id := range e.Members {
				if _, ok := after.Member(id); !ok {
					t.Fatalf("%s %s has a part of %s, which is no member", kind, e.Name, id)
				}
			}
		}
	}
	if got := recount(after); got != after.counts {
		t.Fatalf("counts %+v, there are %+v", after.counts, got)
	}
}

func recount(v *View) (c counts) {
	for _, t := range v.Tokens() {
		if t.Ended == "" {
			c.tokens++
		} else {
			c.tombstones++
		}
	}
	c.requests = len(requestTable.list(v.txn, primary))
	c.removed = len(removedTable.list(v.txn, primary))
	c.entities = len(entitiesOf(v.txn, EntityPool)) + len(entitiesOf(v.txn, EntityNetwork))
	c.volumes = len(entitiesOf(v.txn, EntityVolume))
	c.retired = len(retiredTable.list(v.txn, primary))
	c.config = len(v.Config())
	c.certificates = len(v.Certificates())
	c.groups = len(groupTable.list(v.txn, primary))
	c.warnings = len(v.Warnings())
	return c
}

// No sequence of commands breaks what the package promises, a refusal changes nothing
// (an admission's may free its token), and records that a reader holds never change.
func TestNothingBreaksTheInvariants(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newCluster(t)
		c := &chaos{now: w.now, pick: func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "pick") }}
		h := &history{usedBy: map[string]string{}, gone: map[string]bool{}, active: map[string]bool{}}
		defer func() {
			if t.Failed() {
				rt.Fatal("see above")
			}
		}()
		for range rapid.IntRange(1, 60).Draw(rt, "commands") {
			before := w.s.View()
			bytesBefore, contentBefore := persist(t, before), content(t, before)
			cmd := c.command(t, before)
			res := w.entry(cmd)[0]
			after := w.s.View()
			h.check(t, before, after)
			if !bytes.Equal(bytesBefore, persist(t, before)) {
				t.Fatalf("%s changed records that a reader holds", cmd.Kind)
			}
			if res.Err != nil && cmd.Kind != KindMemberAdmit && content(t, after) != contentBefore {
				t.Fatalf("%s was refused (%v) and changed the state", cmd.Kind, res.Err)
			}
			if res.Err != nil && res.Err.Reason == api.Internal {
				t.Fatalf("%s: %v", cmd.Kind, res.Err)
			}
		}
	})
}

// recordedLog is a random log that really goes through joins: the first of its kind.
func recordedLog(t testing.TB, entries int) [][]byte {
	t.Helper()
	for seed := range uint64(50) {
		if log, members, removed := randomLog(t, entries, seed); members >= 3 && removed > 0 {
			return log
		}
	}
	t.Fatal("no random log has three members in the end and has lost one")
	return nil
}

// randomLog is a log, and how many members there are, and were removed, in its end.
func randomLog(t testing.TB, entries int, seed uint64) (log [][]byte, members, removed int) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, seed))
	w := newWorld(t)
	first, err := NewCommand(KindClusterInit, "init", w.now, nil, ClusterInit{ClusterID: "c1", Member: firstBody()})
	if err != nil {
		t.Fatal(err)
	}
	enable, err := NewCommand(KindClusterEnable, "enable", w.now, nil, enableBody())
	if err != nil {
		t.Fatal(err)
	}
	c := &chaos{now: w.now, pick: r.IntN}
	log = make([][]byte, entries)
	for i := range log {
		cmds := []Command{first, enable}
		if i > 0 {
			cmds = nil
			for range 1 + r.IntN(3) {
				cmds = append(cmds, c.command(t, w.s.View()))
			}
		}
		if log[i], err = EncodeEntry(cmds); err != nil {
			t.Fatal(err)
		}
		w.entry(cmds...)
	}
	v := w.s.View()
	return log, len(v.Members()), len(removedTable.list(v.txn, primary))
}

func applyLog(t testing.TB, s *Store, log [][]byte) {
	t.Helper()
	for _, entry := range log {
		index := s.View().Index() + 1
		if index%7 == 0 { // Raft tells its configuration between entries
			s.SetServers([]Server{{ID: "id2"}, {ID: "id1", Voter: true}})
		}
		if _, _, err := s.Apply(index, index/10, entry); err != nil {
			t.Fatal(err)
		}
	}
}

// The same log makes the same bytes, whether it is applied at once or a snapshot is
// taken and restored on the way, at any point.
func TestApplyIsDeterministic(t *testing.T) {
	log := recordedLog(t, 250)
	one := New()
	applyLog(t, one, log)
	want := persist(t, one.View())

	prefix := New()
	for i := range log {
		if i%20 == 0 || i < 20 {
			applyFrom := New()
			if err := applyFrom.Restore(bytes.NewReader(persist(t, prefix.View()))); err != nil {
				t.Fatal(err)
			}
			applyLog(t, applyFrom, log[i:])
			if got := persist(t, applyFrom.View()); !bytes.Equal(got, want) {
				t.Fatalf("restored at entry %d the store differs:\n%s\n%s", i, got, want)
			}
		}
		applyLog(t, prefix, log[i:i+1])
	}
	if !bytes.Equal(persist(t, prefix.View()), want) {
		t.Error("the same log applied twice differs")
	}
}

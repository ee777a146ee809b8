package state

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"incusd/api"
)

// update writes golden files that are not there yet. It never changes one: what once
// was in a log or snapshot must be readable for ever, so add a version instead.
var update = flag.Bool("update", false, "write missing golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	want, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		want, err = got, os.WriteFile(path, got, 0o644)
	}
	if err != nil {
		t.Fatalf("%v (go test -update writes what is missing)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s has\n%s\nthis build writes\n%s\nadd a version, do not change the one that is there", path, want, got)
	}
}

type sample struct {
	kind    string
	version int
	body    any
}

// samples has every kind and version of command, with every field set.
func samples() []sample {
	day := start.AddDate(0, 0, 1)
	member := Member{
		ID: "id1", Number: 1, Name: "none", Address: "10.0.0.1:8443", Certificate: "cert", Fingerprint: "fp1", Architecture: "x86_64",
		CommandVersion: 1, State: MemberActive, Token: "t", JoinDeadline: day, JoinedAt: start, Role: RoleVoter, Offline: true, Since: start,
		Reason: "none", Roles: []string{"event-hub"}, FailureDomain: "default", Description: "text",
		Config: map[string]string{"user.b": "<2>", "user.a": "1"}, Groups: []string{"default"},
	}
	token := Token{
		Hash: "t", Secret: "s", Name: "node2", Operation: "op", Issuer: "id1", Fingerprint: "fp", Addresses: []string{"10.0.0.1:8443"},
		CreatedAt: start, ExpiresAt: day, ClaimedBy: "fp2", ClaimedCert: "cert", ClaimUntil: day, Ended: TokenUsed, EndedAt: day, UsedBy: "id2",
		Replaces: "id3",
	}
	options := map[string]string{"user.b": "2", "user.a": "1"}
	profile := Profile{Project: "web", Name: "p1", Description: "text", Config: options, Devices: map[string]map[string]string{"root": {"type": "disk", "path": "/"}}}
	project := Project{Name: "web", Description: "text", Config: map[string]string{"features.profiles": "true"}}
	group := Group{Name: "gpu", Description: "text", Config: map[string]string{"user.a": "1"}}
	invitation := token
	invitation.Client = &ClientGrant{Restricted: true, Projects: []string{"default"}, Description: "text"}
	return []sample{
		{KindClusterInit, 1, ClusterInit{ClusterID: "c1", Member: member}},
		{KindClusterEnable, 1, ClusterEnable{MemberID: "id1", Name: "node1", Address: "10.0.0.1:8443", Certificate: "cert", Key: "key"}},
		{KindConfigSet, 1, ConfigSet{Set: map[string]string{"b": "", "a": "1"}, Replace: true, Expect: "hash"}},
		{KindMemberAddress, 1, MemberAddress{ID: "id1", Address: "10.0.0.9:8443"}},
		{KindMemberUpdate, 1, MemberUpdate{ID: "id1", Expect: "hash", Roles: []string{"event-hub"}, FailureDomain: "default", Description: "text",
			Config: map[string]string{"user.a": "1"}, Groups: []string{"default"}}},
		{KindMemberCert, 1, MemberCertificate{ID: "id1", Expect: "fp1", Certificate: "cert", Fingerprint: "fp2", Endorsement: "cert", Until: day, Shown: true}},
		{KindMemberRename, 1, MemberRename{ID: "id1", Expect: "node1", Name: "node9"}},
		{KindMemberLiveness, 1, MemberLiveness{Changes: []LivenessChange{{ID: "id1", Offline: true, Since: start, Reason: "no answer"}}}},
		{KindMemberRole, 1, MemberRole{Changes: []RoleChange{{ID: "id1", Role: RoleVoter}}}},
		{KindMemberStopping, 1, MemberStopping{ID: "id1", Stopping: true}},
		{KindMemberMaintenance, 1, MemberMaintenance{ID: "id1", From: MaintenanceEvacuating, To: MaintenanceEvacuated, Heal: true}},
		{KindMemberAdmit, 1, MemberAdmit{ID: "id2", Fingerprint: "fp2", Name: "node2", Address: "10.0.0.2:8443", Architecture: "x86_64", CommandVersion: 1}},
		{KindMemberActivate, 1, MemberActivate{ID: "id2", Entities: map[string]EntityMember{
			"e1": {Config: options, Status: EntityCreated, Reason: "text", Revision: 2}}}},
		{KindMemberAbort, 1, MemberAbort{ID: "id2", Fingerprint: "fp2"}},
		{KindMemberRemove, 1, MemberRemove{ID: "id2", Force: true, Cancel: true, RotateKey: true}},
		{KindMemberLeave, 1, MemberLeave{ID: "id2"}},
		{KindClusterDisable, 1, ClusterDisable{MemberID: "id1"}},
		{KindClusterCert, 1, ClusterCertificate{Expect: "hash", Certificate: "cert", Key: "key", Fingerprint: "fp", Supplied: true, Endorsement: "cert",
			Until: day, Reissue: []TokenReissue{{Hash: "t", NewHash: "t2", NewSecret: "s2", NewOperation: "op2"}}}},
		{KindClusterRecover, 1, ClusterRecover{ID: "r1", MemberID: "id1", Incarnation: 2, Copy: LogExtent{Compacted: 5, Terms: []TermStart{{Term: 2, Index: 6}}, Last: 9},
			Voters: []string{"id2"}}},
		{KindClusterRestore, 1, ClusterRestore{ClusterID: "c2", Member: member, Name: "node1", Address: "10.0.0.1:8443"}},
		{KindMemberReadmit, 1, MemberReadmit{ID: "id2", Incarnation: 2, Recovery: "r1", Index: 8, Term: 2}},
		{KindTokenIssue, 1, TokenIssue{Token: token}},
		{KindTokenClaim, 1, TokenClaim{Hash: "t", Name: "node2", Fingerprint: "fp2", Certificate: "cert", Proved: true}},
		{KindTokenRevoke, 1, TokenRevoke{Operation: "op"}},
		{KindLeaderElected, 1, LeaderElected{ID: "id1", Term: 7}},
		{KindLeaderSweep, 1, LeaderSweep{Lost: []string{"id2"}}},
		{KindCertificateAdd, 1, CertificateAdd{Certificate: Certificate{Fingerprint: "fp3", Name: "laptop", Type: "client", Restricted: true,
			Projects: []string{"default"}, PEM: "pem", Description: "text", AddedAt: start}}},
		{KindCertificateUpdate, 1, CertificateUpdate{Fingerprint: "fp3", Expect: "hash", Certificate: Certificate{Fingerprint: "fp4", Name: "laptop",
			Type: "client", Restricted: true, Projects: []string{"default"}, PEM: "pem", Description: "text", AddedAt: start}}},
		{KindTokenInvite, 1, TokenInvite{Token: invitation}},
		{KindTokenRedeem, 1, TokenRedeem{Hash: "t", Certificate: Certificate{Fingerprint: "fp3", Name: "laptop", Type: "client", Restricted: true,
			Projects: []string{"default"}, PEM: "pem", Description: "text", AddedAt: start}}},
		{KindCertificateRemove, 1, CertificateRemove{Fingerprint: "fp3"}},
		{KindEntityDefine, 1, EntityDefine{ID: "e1", Kind: EntityNetwork, Project: "web", Name: "br0", Type: "bridge", MemberID: "id1", Config: options}},
		{KindEntityCreate, 1, EntityCreate{ID: "e1", Kind: EntityVolume, Project: "web", Pool: "local", Name: "v1", Type: "filesystem", Description: "text",
			Config: options, MemberID: "id1", MemberConfig: options}},
		{KindEntityUpdate, 1, EntityUpdate{ID: "e1", Expect: "hash", Description: "text", Config: options, Members: map[string]map[string]string{"id1": options}}},
		{KindEntityRename, 1, EntityRename{ID: "e1", Name: "br1"}},
		{KindEntityDelete, 1, EntityDelete{ID: "e1"}},
		{KindEntityReport, 1, EntityReport{ID: "e1", MemberID: "id1", Revision: 3, Status: EntityErrored, Reason: "disk full", Config: options, Gone: true}},
		{KindProfileCreate, 1, ProfileCreate{Profile: profile}},
		{KindProfileUpdate, 1, ProfileUpdate{Profile: profile, Expect: "hash"}},
		{KindProfileRename, 1, ProfileRename{Project: "web", Name: "p1", NewName: "p2"}},
		{KindProfileDelete, 1, ProfileDelete{Project: "web", Name: "p1"}},
		{KindProjectCreate, 1, ProjectCreate{Project: project}},
		{KindProjectUpdate, 1, ProjectUpdate{Project: project, Expect: "hash"}},
		{KindProjectRename, 1, ProjectRename{Name: "web", NewName: "net"}},
		{KindProjectDelete, 1, ProjectDelete{Name: "web"}},
		{KindPasswordAttempt, 1, PasswordAttempt{Source: "192.0.2.1", Refund: true}},
		{KindGroupCreate, 1, GroupCreate{Group: group, Members: []string{"id1"}}},
		{KindGroupUpdate, 1, GroupUpdate{Group: group, Members: []string{"id1"}, Expect: "hash", Strict: true}},
		{KindGroupRename, 1, GroupRename{Name: "gpu", NewName: "fast"}},
		{KindGroupDelete, 1, GroupDelete{Name: "gpu"}},
		{KindWarningReport, 1, WarningReport{Raise: []WarningRaise{{UUID: "w1", Sighting: Sighting{Type: WarnNetwork, Member: "id1", Project: "web",
			Entity: "e1", Severity: "high", Message: "text"}}}, Resolve: []string{"w2"}}},
		{KindWarningStatus, 1, WarningStatus{UUID: "w1", Status: "acknowledged"}},
		{KindWarningDelete, 1, WarningDelete{UUID: "w1"}},
		{KindTokenGrant, 1, TokenGrant{Token: token, Fingerprint: "fp2", Certificate: "cert", Proved: true}},
	}
}

// additions name the newest golden file of kinds that got a field without a version of
// its own; the files from before stay.
var additions = map[string]string{KindTokenClaim: "-proved", KindMemberActivate: "-entities",
	KindTokenIssue: "-replaces", KindTokenGrant: "-replaces", KindMemberRemove: "-rotate", KindMemberReadmit: "-recovery"}

func sampleCommand(t testing.TB, s sample) Command {
	t.Helper()
	cmd, err := NewCommand(s.kind, "request-1", start, &api.EventRequestor{Username: "root", Protocol: "unix", Address: "@"}, s.body)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Version = s.version
	return cmd
}

// rowOnly are fields of a member's row that no command carries: "cluster.init" has a whole
// Member, of which these came later.
var rowOnly = []string{"Maintenance", "MaintenanceSince", "Stopping", "Removal", "Fenced", "Replacing", "Former", "Endorsements"}

// invited is the field of a token that those of members do not have.
const invited = "Client"

// requireFilled fails for fields that are zero: a golden file must show every field.
func requireFilled(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	switch {
	case slices.Contains(rowOnly, path[strings.LastIndex(path, ".")+1:]):
	case strings.HasSuffix(path, ".Token."+invited) && !strings.HasPrefix(path, KindTokenInvite):
	case v.IsZero():
		t.Errorf("the sample leaves %s empty", path)
	case v.Type() == reflect.TypeFor[time.Time]():
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			requireFilled(t, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			requireFilled(t, path, v.Index(i))
		}
	}
}

func TestCommandsHaveGoldenFiles(t *testing.T) {
	seen := map[string]int{}
	for _, s := range samples() {
		requireFilled(t, s.kind, reflect.ValueOf(s.body))
		data, err := EncodeEntry([]Command{sampleCommand(t, s)})
		if err != nil {
			t.Fatal(err)
		}
		golden(t, filepath.Join("command", fmt.Sprintf("%s.v%d%s.json", s.kind, s.version, additions[s.kind])), data)
		if _, err := decodeSteps(data); err != nil {
			t.Errorf("%s: %v", s.kind, err)
		}
		seen[s.kind] = max(seen[s.kind], s.version)
	}
	for kind, versions := range kinds {
		if seen[kind] != len(versions) {
			t.Errorf("%s has samples up to version %d, and is at version %d", kind, seen[kind], len(versions))
		}
	}
}

// Every golden file ever written must still be understood, whatever the samples say.
func TestOldCommandsAreUnderstood(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "command", "*.json"))
	if err != nil || len(files) < len(kinds) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := New().Apply(1, 1, data); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestEntryRoundTrip(t *testing.T) {
	var cmds []Command
	for _, s := range samples() {
		cmds = append(cmds, sampleCommand(t, s))
	}
	data, err := EncodeEntry(cmds)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeEntry(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, cmds) {
		t.Error("decode(encode(x)) differs from x")
	}
}

func TestNewCommandRefusesWhatDoesNotFit(t *testing.T) {
	if _, err := NewCommand("token.eat", "r", start, nil, TokenClaim{}); err == nil {
		t.Error("an unknown kind was taken")
	}
	if _, err := NewCommand(KindTokenClaim, "r", start, nil, TokenRevoke{}); err == nil {
		t.Error("another kind's body was taken")
	}
	if _, err := NewCommand(KindTokenClaim, "r", start, nil, &TokenClaim{}); err != nil {
		t.Errorf("a pointer to the body was refused: %v", err)
	}
	if _, err := EncodeEntry(nil); err == nil {
		t.Error("an empty entry was taken")
	}
}

func TestApplyStopsAndChangesNothing(t *testing.T) {
	good := sampleCommand(t, sample{KindConfigSet, 1, ConfigSet{Set: map[string]string{"a": "1"}}})
	bad := func(change func(*Command)) []byte {
		c := good
		change(&c)
		data, err := EncodeEntry([]Command{good, c})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	whole, err := EncodeEntry([]Command{good})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		entry []byte
		want  api.Reason
		says  string
	}{
		{"empty", nil, api.StoreDamaged, "cannot be read"},
		{"no command", []byte("[]"), api.StoreDamaged, "no command"},
		{"null", []byte("null"), api.StoreDamaged, "no command"},
		{"cut", whole[:len(whole)-2], api.StoreDamaged, "cannot be read"},
		{"followed", append(bytes.Clone(whole), '1'), api.StoreDamaged, "follows"},
		{"unknown field", bytes.Replace(whole, []byte(`"kind"`), []byte(`"more":1,"kind"`), 1), api.StoreDamaged, "more"},
		{"unknown kind", bad(func(c *Command) { c.Kind = "token.eat" }), api.StoreTooNew, `"token.eat" version 1`},
		{"newer version", bad(func(c *Command) { c.Version = 2 }), api.StoreTooNew, `"config.set" version 2, this build knows none newer than 1`},
		{"version 0", bad(func(c *Command) { c.Version = 0 }), api.StoreDamaged, "version 0"},
		{"unknown field of the body", bad(func(c *Command) { c.Body = []byte(`{"colour":1}`) }), api.StoreDamaged, "colour"},
		{"another type in the body", bad(func(c *Command) { c.Body = []byte(`{"set":[]}`) }), api.StoreDamaged, "config.set"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newCluster(t)
			before, v := persist(t, w.s.View()), w.s.View()
			_, _, err := w.s.Apply(w.index+1, 1, tt.entry)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %s with %q", err, tt.want, tt.says)
			}
			if !bytes.Equal(before, persist(t, w.s.View())) || closed(v.Watch()) {
				t.Error("something was changed")
			}
			w.must(KindConfigSet, ConfigSet{Set: map[string]string{"b": "1"}}) // the lock is free
		})
	}
}

func TestApplyTakesEntriesInOrderOnly(t *testing.T) {
	w := newCluster(t)
	data, err := EncodeEntry([]Command{sampleCommand(t, samples()[0])})
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []uint64{0, 1, w.index} {
		if _, _, err := w.s.Apply(index, 1, data); err == nil {
			t.Errorf("entry %d was applied after %d", index, w.index)
		}
	}
	if _, _, err := w.s.Apply(w.index+5, 3, data); err != nil {
		t.Error(err) // indexes have gaps: Raft's own entries
	}
	if v := w.s.View(); v.Index() != w.index+5 || v.Term() != 3 {
		t.Errorf("index %d term %d", v.Index(), v.Term())
	}
}

func TestRefusedCommandCountsItsIndex(t *testing.T) {
	w := newCluster(t)
	w.refused(api.MemberNotFound, KindMemberUpdate, MemberUpdate{ID: "x"})
	if got := w.s.View().Index(); got != w.index {
		t.Errorf("index %d, want %d", got, w.index)
	}
}

func TestEntryOfSeveralCommandsKeepsWhatIsNotRefused(t *testing.T) {
	w := newCluster(t)
	v := w.s.View()
	var cmds []Command
	for i, body := range []any{
		ConfigSet{Set: map[string]string{"a": "1"}},
		ConfigSet{Set: map[string]string{"b": "1", "": "x"}},
		ConfigSet{Set: map[string]string{"c": "1"}},
	} {
		cmd, err := NewCommand(KindConfigSet, string(rune('a'+i)), w.now, nil, body)
		if err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	results := w.entry(cmds...)
	if results[0].Err != nil || results[1].Err == nil || results[2].Err != nil {
		t.Errorf("results %v", results)
	}
	if got := w.s.View().Config(); len(got) != 2 || got["a"] != "1" || got["c"] != "1" {
		t.Errorf("config %v", got)
	}
	if len(v.Config()) != 0 {
		t.Error("the earlier view changed")
	}
	if len(w.events) != 2 {
		t.Errorf("%d events", len(w.events))
	}
}

func TestCommandOfAnImpossibleTimeIsRefused(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	for _, now := range []time.Time{time.Date(9999, 12, 31, 23, 59, 0, 0, time.UTC), time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)} {
		w.now = now
		w.refused(api.BadRequest, KindTokenClaim, claimBody("t", "node2", "fp2"))
		persist(t, w.s.View())
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, s := range samples() {
		data, err := EncodeEntry([]Command{sampleCommand(f, s)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`[{"kind":"config.set","version":1,"request":"","time":"0001-01-01T00:00:00Z","body":{}}]`))
	f.Add([]byte(`[null]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cmds, err := DecodeEntry(data)
		if err != nil {
			if !errors.Is(err, api.StoreDamaged) {
				t.Fatalf("error without a reason: %v", err)
			}
			return
		}
		again, err := EncodeEntry(cmds)
		if err != nil {
			t.Skip() // a body that is missing; no proposer writes it
		}
		back, err := DecodeEntry(again)
		if err != nil {
			t.Fatalf("decode(encode(x)): %v", err)
		}
		third, err := EncodeEntry(back)
		if err != nil || !bytes.Equal(third, again) {
			t.Fatalf("encoding is not stable: %v\n%s\n%s", err, again, third)
		}
		w := newCluster(t)
		if _, _, err := w.s.Apply(w.index+1, 1, data); err != nil {
			return
		}
		var out bytes.Buffer
		if err := w.s.View().Persist(&out); err != nil {
			t.Fatalf("an entry that was applied cannot be persisted: %v", err)
		}
		if err := New().Restore(&out); err != nil {
			t.Fatalf("an entry that was applied cannot be restored: %v", err)
		}
	})
}

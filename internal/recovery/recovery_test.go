package recovery

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

var now = time.Date(2026, 11, 28, 3, 0, 0, 0, time.UTC)

func member(name string, change func(*Survivor)) Survivor {
	f := Survivor{Name: name, ID: "id-" + name}
	change(&f)
	return f
}

func TestJudge(t *testing.T) {
	self := func(f *Survivor) { f.Self, f.Reached, f.Voter, f.Last = true, true, true, Position{4, 20} }
	spare := func(f *Survivor) { f.Self, f.Reached, f.Last = true, true, Position{4, 20} }
	dead := func(f *Survivor) { f.Voter, f.Problem = true, "no answer" }
	alive := func(term, index uint64) func(*Survivor) {
		return func(f *Survivor) { f.Reached, f.Voter, f.Last = true, true, Position{term, index} }
	}
	standby := func(term, index uint64) func(*Survivor) {
		return func(f *Survivor) { f.Reached, f.Last = true, Position{term, index} }
	}
	tests := []struct {
		name             string
		found            []Survivor
		refusal, warning string
	}{
		{"one of three", []Survivor{member("a", self), member("b", dead), member("c", dead)}, "", ""},
		{"a spare, all voters dead", []Survivor{member("a", spare), member("b", dead), member("c", dead), member("d", dead)}, "", ""},
		{"two of three", []Survivor{member("a", self), member("b", alive(4, 20)), member("c", dead)}, "2 of 3 voters are there (a, b)", ""},
		{"one of one", []Survivor{member("a", self)}, "this server is the only voter", ""},
		{"one of two voters", []Survivor{member("a", self), member("b", dead)}, "", ""},
		{"somebody follows a leader", []Survivor{member("a", self), member("b", func(f *Survivor) { f.Leader = "id-c" }), member("c", dead)},
			`member "b" follows the leader "c"`, ""},
		{"a stand-by has more of the same term", []Survivor{member("a", self), member("b", dead), member("c", dead), member("d", standby(4, 21))},
			"", `Member "d" holds a fresher copy (entry 21 of term 4) than this server (entry 20 of term 4)`},
		{"a later term counts more than a longer log", []Survivor{member("a", self), member("b", dead), member("c", dead), member("d", standby(5, 3))}, "", `Member "d"`},
		{"an earlier term does not", []Survivor{member("a", self), member("b", dead), member("c", dead), member("d", standby(3, 99))}, "", ""},
		{"an equal copy does not", []Survivor{member("b", standby(4, 20)), member("a", self), member("c", dead), member("d", dead)}, "", ""},
		{"removed, by its own note", []Survivor{member("a", func(f *Survivor) { self(f); f.Removed = true }), member("b", dead), member("c", dead)},
			"", `removed this server, and gone on`},
		{"removed, by the word of a member", []Survivor{member("a", self), member("b", dead), member("c", func(f *Survivor) { dead(f); f.Removed = true })},
			`removed this server, as member "c" says`, ""},
		{"recovered already", []Survivor{member("a", self), member("b", func(f *Survivor) { f.Newer, f.Voter, f.Problem = true, true, "why" }), member("c", dead)},
			`recovered already, and member "b" is of it: why`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			refusal, warning := Judge(tt.found)
			for _, got := range []struct {
				err  *api.Error
				want string
			}{{refusal, tt.refusal}, {warning, tt.warning}} {
				if got.want == "" != (got.err == nil) || got.err != nil && !strings.Contains(got.err.Message, got.want) {
					t.Errorf("got %v, want %q", got.err, got.want)
				}
			}
		})
	}
}

func TestHearsayIsALeaderThatDoesNotAnswer(t *testing.T) {
	self := member("a", func(f *Survivor) { f.Self, f.Reached = true, true })
	follower := member("b", func(f *Survivor) { f.Reached, f.Leader = true, "id-c" })
	for _, tt := range []struct {
		found []Survivor
		want  bool
	}{
		{[]Survivor{self, member("b", func(f *Survivor) { f.Reached = true }), member("c", func(*Survivor) {})}, false},
		{[]Survivor{self, follower, member("c", func(f *Survivor) { f.Problem = "refused" })}, true},
		{[]Survivor{self, follower, member("c", func(f *Survivor) { f.Reached, f.Leader = true, "id-c" })}, false},
		{[]Survivor{self, follower}, true},
	} {
		if got := hearsay(tt.found); got != tt.want {
			t.Errorf("%+v: %v", tt.found, got)
		}
	}
}

func TestLossNamesWhoIsSilent(t *testing.T) {
	found := []Survivor{
		member("a", func(f *Survivor) { f.Self, f.Reached, f.Last = true, true, Position{4, 20} }),
		member("b", func(f *Survivor) { f.Voter = true }),
		member("c", func(*Survivor) {}),
	}
	if got := Loss(found); got != "The cluster goes on from entry 20 of term 4. Changes after that one, which b may have acknowledged, are lost." {
		t.Error(got)
	}
	found[2].Reached, found[2].Last = true, Position{4, 21}
	if got := Loss(found); !strings.Contains(got, "term 4. What c has after that one is lost. Changes") {
		t.Error(got)
	}
}

// One that runs while it is removed by force may have the end of its row in its own copy.
func TestSurveyOfARemovedServer(t *testing.T) {
	s := &Server{copy: &raftstore.Copy{Tables: clusterTables(t)}, replica: localstore.Replica{ID: "gone"}}
	if _, err := s.Survey(t.Context(), nil); !errors.Is(err, api.MemberRemoved) {
		t.Errorf("got %v", err)
	}
}

func TestCheckEdit(t *testing.T) {
	list := func(change func([]api.ClusterDatabaseMember) []api.ClusterDatabaseMember) []api.ClusterDatabaseMember {
		return change([]api.ClusterDatabaseMember{
			{ID: 1, Name: "a", Address: "10.0.0.1:8443", Role: "voter"}, {ID: 2, Name: "b", Address: "10.0.0.2:8443", Role: "voter"},
			{ID: 3, Name: "c", Address: "10.0.0.3:8443", Role: "spare"},
		})
	}
	same := func(m []api.ClusterDatabaseMember) []api.ClusterDatabaseMember { return m }
	edit := func(i int, f func(*api.ClusterDatabaseMember)) func([]api.ClusterDatabaseMember) []api.ClusterDatabaseMember {
		return func(m []api.ClusterDatabaseMember) []api.ClusterDatabaseMember { f(&m[i]); return m }
	}
	tests := map[string]func([]api.ClusterDatabaseMember) []api.ClusterDatabaseMember{
		"Removing cluster members is not supported": func(m []api.ClusterDatabaseMember) []api.ClusterDatabaseMember { return m[:2] },
		"Adding cluster members is not supported": func(m []api.ClusterDatabaseMember) []api.ClusterDatabaseMember {
			return append(m, m[0])
		},
		"Changing cluster member ID is not supported":                           edit(1, func(m *api.ClusterDatabaseMember) { m.ID = 7 }),
		"Changing cluster member name is not supported":                         edit(1, func(m *api.ClusterDatabaseMember) { m.Name = "x" }),
		`A "spare" cluster member cannot become a "voter"`:                      edit(2, func(m *api.ClusterDatabaseMember) { m.Role = "voter" }),
		`unknown raft role: "boss"`:                                             edit(2, func(m *api.ClusterDatabaseMember) { m.Role = "boss" }),
		`Number of "voter" must be 2 or more`:                                   edit(1, func(m *api.ClusterDatabaseMember) { m.Role = "spare" }),
		"Roles cannot be edited":                                                edit(2, func(m *api.ClusterDatabaseMember) { m.Role = "stand-by" }),
		`Member "b" needs an address`:                                           edit(1, func(m *api.ClusterDatabaseMember) { m.Address = "" }),
		"have the same address 10.0.0.1:8443":                                   edit(1, func(m *api.ClusterDatabaseMember) { m.Address = "10.0.0.1" }),
		`Member "a" needs an address that others can reach, not "0.0.0.0:8443"`: edit(0, func(m *api.ClusterDatabaseMember) { m.Address = "0.0.0.0:8443" }),
		"": edit(1, func(m *api.ClusterDatabaseMember) { m.Address = "10.9.0.2:8443" }),
	}
	for want, change := range tests {
		err := CheckEdit(list(same), list(change))
		if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	none := []api.ClusterDatabaseMember{{ID: 1, Name: "a", Role: "voter"}}
	if err := CheckEdit(none, []api.ClusterDatabaseMember{{ID: 1, Name: "a", Role: "stand-by"}}); err == nil || err.Error() != `At least one member must be a "voter"` {
		t.Error(err)
	}
}

// clusterTables has the cluster of one member a, with a key of its own.
func clusterTables(t *testing.T) *state.Store {
	t.Helper()
	tables := state.New()
	for i, c := range []struct {
		kind string
		body any
	}{
		{state.KindClusterInit, state.ClusterInit{ClusterID: "c1", Member: state.Member{ID: "id-a", Certificate: "cert", Fingerprint: "fp", CommandVersion: 1}}},
		{state.KindClusterEnable, state.ClusterEnable{MemberID: "id-a", Name: "a", Address: "10.0.0.1:8443", Certificate: "cluster", Key: "key"}},
		{state.KindConfigSet, state.ConfigSet{Set: map[string]string{"user.x": "1"}}},
	} {
		if err := apply(tables, uint64(i+1), 1, now, c.kind, c.body); err != nil {
			t.Fatal(err)
		}
	}
	return tables
}

func backupOf(t *testing.T, tables *state.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteBackup(&b, tables.View(), now); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBackupHoldsTheState(t *testing.T) {
	tables := clusterTables(t)
	h, got, err := ReadBackup(bytes.NewReader(backupOf(t, tables)))
	if err != nil {
		t.Fatal(err)
	}
	if h.Index != 3 || h.ClusterID != "c1" || !h.CreatedAt.Equal(now) || len(h.Members) != 1 || h.Members[0] != "a" {
		t.Errorf("header %+v", h)
	}
	var want, have bytes.Buffer
	if err := errors.Join(tables.View().Persist(&want), got.View().Persist(&have)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want.Bytes(), have.Bytes()) {
		t.Error("the state differs")
	}
}

func TestDamagedBackupsAreRefused(t *testing.T) {
	good := backupOf(t, clusterTables(t))
	for cut := range len(good) {
		if _, _, err := ReadBackup(bytes.NewReader(good[:cut])); !errors.Is(err, api.StoreDamaged) {
			t.Fatalf("cut off after %d of %d bytes: %v", cut, len(good), err)
		}
	}
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 0x20
		if _, _, err := ReadBackup(bytes.NewReader(bad)); !errors.Is(err, api.StoreDamaged) {
			t.Fatalf("byte %d changed: %v", at, err)
		}
	}
	newer := bytes.Replace(good, []byte(`"format":1`), []byte(`"format":2`), 1)
	if _, _, err := ReadBackup(bytes.NewReader(newer)); !errors.Is(err, api.StoreTooNew) {
		t.Errorf("a later format: %v", err)
	}
}

func TestPlaceInTheRestoredCluster(t *testing.T) {
	own := state.Member{ID: "id-r", Certificate: "cert", Fingerprint: "fp-r", CommandVersion: 1}
	tests := []struct {
		name          string
		place         Place
		wantName      string
		wantAddress   string
		wantForgotten int
	}{
		{"the only member", Place{}, "a", "10.0.0.1:8443", 0},
		{"its own address first", Place{Addresses: []string{"10.0.0.7:8443"}}, "a", "10.0.0.7:8443", 0},
		{"as asked", Place{Name: "b", Address: "10.0.0.9:8443", Addresses: []string{"10.0.0.7:8443"}}, "b", "10.0.0.9:8443", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.place.Own = own
			got, err := Restored(clusterTables(t), tt.place, now)
			if err != nil {
				t.Fatal(err)
			}
			m, view := got.View.Members()[0], got.View
			if m.Name != tt.wantName || m.Address != tt.wantAddress || len(got.Forgotten) != tt.wantForgotten || len(got.Revoked) != 0 || !view.IsVoter("id-r") || view.Config()["user.x"] != "1" {
				t.Errorf("member %+v, restored %+v", m, got)
			}
		})
	}
	if _, err := Restored(clusterTables(t), Place{Name: "b", Own: own}, now); !errors.Is(err, api.NoAddress) {
		t.Errorf("a new name without an address: %v", err)
	}
}

func TestARestoreRevokesTheTokensOfTheBackup(t *testing.T) {
	tables := clusterTables(t)
	for i, name := range []string{"b", "c", "d"} {
		token := state.Token{Hash: "h-" + name, Secret: "s", Name: name, Operation: "op-" + name, Issuer: "id-a", CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
		if err := apply(tables, uint64(10+i), 1, now, state.KindTokenIssue, state.TokenIssue{Token: token}); err != nil {
			t.Fatal(err)
		}
	}
	if err := apply(tables, 20, 1, now, state.KindTokenRevoke, state.TokenRevoke{Operation: "op-c"}); err != nil {
		t.Fatal(err)
	}
	got, err := Restored(tables, Place{Own: state.Member{ID: "id-r", Certificate: "cert", Fingerprint: "fp-r", CommandVersion: 1}}, now)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Revoked, []string{"b", "d"}) {
		t.Errorf("revoked %q", got.Revoked)
	}
	for _, token := range got.View.Tokens() {
		if token.Ended != state.TokenRevoked {
			t.Errorf("the token for %s is %q", token.Name, token.Ended)
		}
	}
}

func TestAddressesAreNotGivenInACircle(t *testing.T) {
	members := []*state.Member{{Name: "a", Address: "10.0.0.1:1"}, {Name: "b", Address: "10.0.0.2:1"}, {Name: "c", Address: "10.0.0.3:1"}, {Name: "d", Address: "10.0.0.4:1"}}
	tests := []struct{ a, b, c, d, want string }{
		{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1", ""},
		{"10.0.0.2:1", "10.0.0.1:1", "10.0.0.3:1", "10.0.0.4:1", "Members a, b exchange"},
		{"10.0.0.2:1", "10.0.0.3:1", "10.0.0.1:1", "10.0.0.4:1", "Members a, b, c exchange"},
		{"10.0.0.1:1", "10.0.0.4:1", "10.0.0.9:1", "10.0.0.2:1", "Members b, d exchange"},
		{"10.0.0.2:1", "10.0.0.4:1", "10.0.0.9:1", "10.0.0.2:2", ""}, // d first, then b, then a
	}
	for _, tt := range tests {
		var edited []api.ClusterDatabaseMember
		for i, address := range []string{tt.a, tt.b, tt.c, tt.d} {
			edited = append(edited, api.ClusterDatabaseMember{Name: members[i].Name, Address: address})
		}
		err := checkCircle(members, edited)
		if tt.want == "" != (err == nil) || err != nil && (!errors.Is(err, api.AddressTaken) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// A copy that fails, here for a name that is too long for where it goes, leaves nothing behind, and
// what an earlier one left goes too.
func TestABackupThatFailsTakesNoRoom(t *testing.T) {
	dir := t.TempDir()
	s := &Server{files: Files{Dir: dir, Database: filepath.Join(dir, "database")}}
	deep := s.files.Database
	for len(deep) < 4000 {
		deep = filepath.Join(deep, strings.Repeat("d", min(200, 4085-len(deep))))
	}
	deep = filepath.Join(deep, strings.Repeat("d", 4090-len(deep)))
	half := filepath.Join(dir, copyPrefix+"20260101T000000Z"+copyPart)
	if err := errors.Join(os.MkdirAll(deep, 0o700), os.MkdirAll(half, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.backUp(now); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, copyPrefix+"*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

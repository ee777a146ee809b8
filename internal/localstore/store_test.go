package localstore

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"incusd/api"
)

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "local.db") }

func mustOpen(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// reopened closes s and opens its file again.
func reopened(t *testing.T, s *Store) *Store {
	t.Helper()
	must(t, s.Close())
	return mustOpen(t, s.Path())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	first  = Replica{ID: "r1", Dir: "d1", ClusterID: "c1"}
	second = Replica{ID: "r2", Dir: "d2", ClusterID: "c2"}
	join   = JoinRecord{
		Replica: second, Name: "node2", Address: "10.0.0.2:8443", ClusterCert: "PEM",
		Peers:   []Peer{{ID: "p1", Name: "node1", Address: "10.0.0.1:8443", Certificate: "PEM1", Voter: true}},
		Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
)

func TestANewStoreIsEmptyAndPrivate(t *testing.T) {
	s := mustOpen(t, newPath(t))
	if r, ok := s.Current(); ok || r != (Replica{}) {
		t.Errorf("current %v", r)
	}
	if j, ok := s.Join(); ok || j != nil {
		t.Errorf("join %v", j)
	}
	if len(s.Peers()) != 0 || s.CommitHint("r1") != 0 || s.Config() == nil || len(s.Config()) != 0 {
		t.Error("not empty")
	}
	entries, err := os.ReadDir(filepath.Dir(s.Path()))
	must(t, err)
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
		if strings.Contains(e.Name(), ".new") {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestEverythingSurvivesClosing(t *testing.T) {
	s := mustOpen(t, newPath(t))
	must(t, s.SetCurrent(first))
	must(t, s.SetJoin(&join))
	must(t, s.SetPeers(join.Peers))
	must(t, s.SetConfig(map[string]string{"core.https_address": ":8443", "user.x": "<ü>&"}))
	must(t, s.SetCommitHint(first.ID, 7))
	for range 2 {
		if r, ok := s.Current(); !ok || r != first {
			t.Errorf("current %v", r)
		}
		if j, ok := s.Join(); !ok || !reflect.DeepEqual(*j, join) {
			t.Errorf("join %v", j)
		}
		if p := s.Peers(); !reflect.DeepEqual(p, join.Peers) {
			t.Errorf("peers %v", p)
		}
		if c := s.Config(); !maps.Equal(c, map[string]string{"core.https_address": ":8443", "user.x": "<ü>&"}) {
			t.Errorf("config %v", c)
		}
		if h := s.CommitHint(first.ID); h != 7 {
			t.Errorf("hint %d", h)
		}
		s = reopened(t, s)
	}
}

func TestWhatIsReturnedMayBeChanged(t *testing.T) {
	s := mustOpen(t, newPath(t))
	mine := join
	mine.Peers = append([]Peer(nil), join.Peers...)
	must(t, s.SetJoin(&mine))
	must(t, s.SetPeers(mine.Peers))
	must(t, s.SetConfig(map[string]string{"a": "1"}))
	mine.Peers[0].Name, mine.Name = "changed", "changed"

	j, _ := s.Join()
	if !reflect.DeepEqual(*j, join) {
		t.Error("the caller's record is shared")
	}
	j.Name, j.Peers[0].Name = "changed", "changed"
	s.Peers()[0].Name = "changed"
	s.Config()["a"] = "changed"
	if j, _ := s.Join(); !reflect.DeepEqual(*j, join) || s.Peers()[0].Name != "node1" || s.Config()["a"] != "1" {
		t.Error("what was returned is shared")
	}
}

func TestFinishJoinSwitchesTheReplicaAndForgetsTheJoin(t *testing.T) {
	s := mustOpen(t, newPath(t))
	if _, err := s.FinishJoin(); err == nil {
		t.Error("no join, and yet it finished")
	}
	must(t, s.SetCurrent(first))
	must(t, s.SetCommitHint(first.ID, 5))
	must(t, s.SetJoin(&join))
	must(t, s.SetCommitHint(second.ID, 9))
	if s.CommitHint(first.ID) != 5 || s.CommitHint(second.ID) != 9 {
		t.Error("two replicas, but not two hints")
	}
	old, err := s.FinishJoin()
	if err != nil || old != first {
		t.Fatalf("old replica %v, %v", old, err)
	}
	for range 2 {
		if r, ok := s.Current(); !ok || r != second {
			t.Errorf("current %v", r)
		}
		if _, ok := s.Join(); ok {
			t.Error("the join is still there")
		}
		if s.CommitHint(second.ID) != 9 {
			t.Error("the hint is gone")
		}
		s = reopened(t, s)
	}
	must(t, s.SetCommitHint(second.ID, 10))
	if s = reopened(t, s); s.CommitHint(first.ID) != 0 {
		t.Error("the old replica's hint is still there")
	}
}

func TestFinishJoinOfAServerWithoutReplicaReturnsNone(t *testing.T) {
	s := mustOpen(t, newPath(t))
	must(t, s.SetJoin(&join))
	if old, err := s.FinishJoin(); err != nil || old != (Replica{}) {
		t.Errorf("%v, %v", old, err)
	}
}

func TestClearJoinIsHarmlessWhenRepeated(t *testing.T) {
	s := mustOpen(t, newPath(t))
	must(t, s.SetCurrent(first))
	must(t, s.SetJoin(&join))
	for range 2 {
		must(t, s.ClearJoin())
	}
	s = reopened(t, s)
	if _, ok := s.Join(); ok {
		t.Error("the join is still there")
	}
	if r, _ := s.Current(); r != first {
		t.Errorf("current %v", r)
	}
	if s.SetJoin(nil) == nil {
		t.Error("a nil join was recorded")
	}
}

func TestSetConfigMergesAndUnsets(t *testing.T) {
	s := mustOpen(t, newPath(t))
	must(t, s.SetConfig(map[string]string{"a": "1", "b": "2", "c": ""}))
	must(t, s.SetConfig(map[string]string{"a": "", "d": "4"}))
	must(t, s.SetConfig(nil))
	want := map[string]string{"b": "2", "d": "4"}
	if got := s.Config(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := reopened(t, s).Config(); !maps.Equal(got, want) {
		t.Errorf("got %v after opening again, want %v", got, want)
	}
	// All or none: bbolt refuses the empty key.
	if s.SetConfig(map[string]string{"a": "1", "": "x"}) == nil {
		t.Error("an empty key was set")
	}
	if got := s.Config(); !maps.Equal(got, want) {
		t.Errorf("got %v after a failed change, want %v", got, want)
	}
}

func TestCommitHintOnlyRises(t *testing.T) {
	s := mustOpen(t, newPath(t))
	must(t, s.SetCurrent(first))
	for _, index := range []uint64{1 << 40, 3, 1<<40 + 1, 0} {
		must(t, s.SetCommitHint(first.ID, index))
	}
	if got := reopened(t, s).CommitHint(first.ID); got != 1<<40+1 {
		t.Errorf("got %d", got)
	}
}

func TestADamagedHintIsNoHint(t *testing.T) {
	s := mustOpen(t, newPath(t))
	must(t, s.SetCommitHint(first.ID, 1234567))
	must(t, s.SetCommitHint(second.ID, 1))
	must(t, s.Close())
	hint := s.Path() + ".hint"
	good, err := os.ReadFile(hint)
	must(t, err)
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x04
		must(t, os.WriteFile(hint, bad, 0o600))
		s := mustOpen(t, s.Path())
		if got := s.CommitHint(first.ID); got != 0 && got != 1234567 {
			t.Errorf("byte %d changed: hint %d", i, got)
		}
		must(t, s.Close())
	}
	must(t, os.WriteFile(hint, good[:len(good)/2], 0o600))
	s = mustOpen(t, s.Path())
	if got := s.CommitHint(first.ID); got != 0 {
		t.Errorf("cut off: hint %d", got)
	}
	// A line that is shorter than what stood there before ends where it ends.
	must(t, s.SetCommitHint("x", 1))
	if got := reopened(t, s).CommitHint("x"); got != 1 {
		t.Errorf("hint %d after damage", got)
	}
}

func TestManyMayUseAStoreAtOnce(t *testing.T) {
	s := mustOpen(t, newPath(t))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 10 {
				must(t, s.SetConfig(map[string]string{fmt.Sprintf("k%d", i): strconv.Itoa(n)}))
				must(t, s.SetCommitHint(first.ID, uint64(n)))
				_, _, _, _ = s.Peers(), s.Config(), s.Path(), s.CommitHint(first.ID)
			}
		})
	}
	wg.Wait()
	if got := s.Config(); len(got) != 4 || got["k3"] != "9" {
		t.Errorf("got %v", got)
	}
}

func TestASecondDaemonIsTurnedAway(t *testing.T) {
	s := mustOpen(t, newPath(t))
	_, err := Open(s.Path())
	want := "The local store " + s.Path() + " is in use by another process (is incusd already running with this INCUS_DIR?)"
	if !errors.Is(err, api.Conflict) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	must(t, s.SetCurrent(first)) // the one that has the lock is not disturbed
}

func TestClosedStoreChangesNothing(t *testing.T) {
	s := mustOpen(t, newPath(t))
	must(t, s.Close())
	if s.SetCurrent(first) == nil || s.SetCommitHint(first.ID, 1) == nil {
		t.Error("a closed store took a change")
	}
	if _, ok := s.Current(); ok {
		t.Error("a change that failed is seen")
	}
}

func TestErrorsHaveTheirReasonAndNameTheFile(t *testing.T) {
	for _, test := range []struct {
		err  error
		want api.Reason
	}{
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, api.DiskFull},
		{syscall.EDQUOT, api.DiskFull},
		{damageError{"x"}, api.StoreDamaged},
		{fs.ErrPermission, api.Internal},
	} {
		err := explain("/var/lib/x/local.db", fmt.Errorf("act: %w", test.err))
		if got := api.AsError(err).Reason; got != test.want || !strings.Contains(err.Error(), "/var/lib/x/local.db") {
			t.Errorf("%v: got %s: %v", test.err, got, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none", "local.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
}

func TestAFullDiskIsNamed(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	s := mustOpen(t, newPath(t))
	must(t, s.hint.file.Close())
	s.hint.file = full
	if err := s.SetCommitHint(first.ID, 1); !errors.Is(err, api.DiskFull) {
		t.Errorf("got %v", err)
	}
}

func TestANewerFormatIsRefusedAndLeftAlone(t *testing.T) {
	s := mustOpen(t, newPath(t))
	must(t, s.db.Update(func(tx *bolt.Tx) error { return put(tx, bucketMeta, keyFormat, Format+1) }))
	must(t, s.Close())
	before, err := os.ReadFile(s.Path())
	must(t, err)
	_, err = Open(s.Path())
	if !errors.Is(err, api.StoreTooNew) || !strings.Contains(err.Error(), "has format 2, written by a newer version") {
		t.Errorf("got %v", err)
	}
	if after, _ := os.ReadFile(s.Path()); string(after) != string(before) {
		t.Error("the file was changed")
	}
}

// filled is the bytes of a store with something in every place.
func filled(t testing.TB) []byte {
	s := mustOpen(t, newPath(t))
	must(t, s.SetCurrent(first))
	must(t, s.SetJoin(&join))
	must(t, s.SetPeers(join.Peers))
	must(t, s.SetConfig(map[string]string{"core.https_address": ":8443"}))
	must(t, s.Close())
	data, err := os.ReadFile(s.Path())
	must(t, err)
	return data
}

// openDamaged opens a file of the given bytes. It must open with the right contents or
// be refused by name; it must not crash, and not be reset.
func openDamaged(t *testing.T, path, what string, data []byte) {
	t.Helper()
	must(t, os.WriteFile(path, data, 0o600))
	s, err := Open(path)
	if err != nil {
		if !errors.Is(err, api.StoreDamaged) && !errors.Is(err, api.StoreTooNew) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: refused with %v", what, err)
		}
		return
	}
	// A flip may bring back the meta page before the last change: still one of ours.
	if r, ok := s.Current(); ok && r != first {
		t.Errorf("%s: opened with the replica %v", what, r)
	}
	if j, ok := s.Join(); ok && !reflect.DeepEqual(*j, join) {
		t.Errorf("%s: opened with the join %v", what, j)
	}
	must(t, s.Close())
}

func TestADamagedFileIsRefusedAndNeverReset(t *testing.T) {
	good := filled(t)
	path := newPath(t)
	zeroed := make([]byte, len(good))
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"empty", nil},
		{"words", []byte("this is not a database")},
		{"zeros", zeroed},
		{"one page", good[:4096]},
		{"cut at four pages", good[:4*4096]},
		{"data zeroed", append(append([]byte(nil), good[:2*4096]...), zeroed[2*4096:]...)},
	} {
		must(t, os.WriteFile(path, test.data, 0o600))
		_, err := Open(path)
		if !errors.Is(err, api.StoreDamaged) || !strings.HasPrefix(err.Error(), "The local store "+path+" is damaged: ") {
			t.Errorf("%s: got %v", test.name, err)
		}
		if after, _ := os.ReadFile(path); string(after) != string(test.data) {
			t.Errorf("%s: the file was changed", test.name)
		}
	}
	for n := 0; n < len(good); n += 509 {
		openDamaged(t, path, fmt.Sprintf("cut at %d", n), good[:n])
	}
}

// childEnv makes the test binary a daemon that joins for ever; see below.
const childEnv = "LOCALSTORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		joinForEver(path)
	}
	os.Exit(m.Run())
}

// joinForEver joins again and again, and says so when each join is finished.
func joinForEver(path string) {
	s, err := Open(path)
	for n := 0; err == nil; n++ {
		id := strconv.Itoa(n)
		err = errors.Join(
			s.SetJoin(&JoinRecord{Replica: Replica{ID: id, Dir: "d" + id}, Name: "n" + id}),
			s.SetCommitHint(id, uint64(n+1)),
			s.SetConfig(map[string]string{"a": id, "b": id}),
		)
		if err == nil {
			_, err = s.FinishJoin()
			fmt.Println(id)
		}
	}
	fmt.Println(err)
	os.Exit(1)
}

func TestKillingTheDaemonLeavesOneOfTheCleanStates(t *testing.T) {
	for kill := 1; kill <= 12; kill++ {
		path := newPath(t)
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childEnv+"="+path)
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		lines := bufio.NewScanner(out)
		done := -1
		for range kill {
			if !lines.Scan() {
				t.Fatal("the child ended by itself")
			}
			done, err = strconv.Atoi(lines.Text())
			must(t, err)
		}
		must(t, child.Process.Kill())
		_ = child.Wait()

		s := mustOpen(t, path)
		current, ok := s.Current()
		number, err := strconv.Atoi(current.ID)
		if !ok || err != nil || number < done || current.Dir != "d"+current.ID {
			t.Errorf("said that %d was finished, and has %v", done, current)
		}
		if j, ok := s.Join(); ok && j.Replica.ID != strconv.Itoa(number+1) {
			t.Errorf("current is %d, joining is %v", number, j)
		}
		if c := s.Config(); c["a"] != c["b"] {
			t.Errorf("half a change: %v", c)
		}
		if hint := s.CommitHint(current.ID); hint != uint64(number+1) {
			t.Errorf("the hint is %d, want %d: it is in the page cache, not lost", hint, number+1)
		}
	}
}

func TestStartingOverForgetsTheClusterInOneStep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "local.db")
	s := mustOpen(t, path)
	if err := errors.Join(
		s.SetCurrent(Replica{ID: "old", Dir: "old", ClusterID: "c1"}),
		s.SetPeers([]Peer{{ID: "p", Name: "n2"}}),
		s.SetConfig(map[string]string{"core.https_address": "10.0.0.1"}),
		s.SetMade(Made{ID: "e1", Owner: "old"}),
		s.SetCommitHint("old", 7),
		s.SetRemoval(Removal{Replica: "old", Name: "n1"}),
	); err != nil {
		t.Fatal(err)
	}
	if r, ok := s.Removal(); !ok || r.Name != "n1" {
		t.Errorf("removal %+v", r)
	}
	if err := s.SetJoin(&JoinRecord{Replica: Replica{ID: "j"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.StartOver(Replica{ID: "new"}); err == nil {
		t.Fatal("it was done while a join is recorded")
	}
	if err := errors.Join(s.ClearJoin(), s.StartOver(Replica{ID: "new", Dir: "new", ClusterID: "c2"}), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path)
	if now, _ := s.Current(); now.ID != "new" {
		t.Errorf("current %+v", now)
	}
	if _, ok := s.Removal(); ok || len(s.Peers()) > 0 || s.CommitHint("old") != 0 {
		t.Error("the former cluster is remembered")
	}
	if s.Config()["core.https_address"] == "" || len(s.Made()) != 1 {
		t.Error("more was forgotten")
	}
}

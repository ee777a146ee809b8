package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"incusd/api"
)

// fullStore has records in every table.
func fullStore(t testing.TB) *world {
	w := newCluster(t)
	w.must(KindLeaderElected, LeaderElected{ID: "id1", Term: 3})
	w.must(KindConfigSet, ConfigSet{Set: map[string]string{"core.https_address": "<&>", "user.ü": "ö\u2028"}})
	w.must(KindCertificateAdd, certBody("fp9"))
	w.join("id2", "node2", "fp2")
	w.issue("t3", "node3")
	w.claim("t3", "node3", "fp3")
	w.admit("id3", "node3", "fp3")
	w.admit("id4", "node3", "fp3")
	w.issue("t5", "node5")
	w.must(KindMemberUpdate, updateBody(func(b *MemberUpdate) { b.Config = map[string]string{"user.b": "1", "user.a": "2"} }))
	w.refused(api.AlreadyClustered, KindClusterEnable, enableBody())
	w.s.SetServers([]Server{{ID: "id2"}, {ID: "id1", Voter: true}})
	return w
}

func TestSnapshotHasAGoldenFile(t *testing.T) {
	golden(t, "snapshot/v1.jsonl", persist(t, fullStore(t).s.View()))
}

// Every format ever written must open, and go on.
func TestOldSnapshotsOpen(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "snapshot", "v*.jsonl"))
	if err != nil || len(files) < snapshotFormat {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t)
		if err := w.s.Restore(bytes.NewReader(data)); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		w.index = w.s.View().Index()
		w.asked = 1000
		w.must(KindMemberActivate, MemberActivate{ID: "id4"})
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	w := fullStore(t)
	data := persist(t, w.s.View())
	for _, name := range []string{"server", "cluster", "member", "token", "config", "certificate", "retired", "request"} {
		if !bytes.Contains(data, []byte(`{"table":"`+name+`"`)) {
			t.Errorf("the snapshot has no %s", name)
		}
	}
	s := New()
	if err := s.Restore(iotest.OneByteReader(bytes.NewReader(data))); err != nil {
		t.Fatal(err)
	}
	if got := persist(t, s.View()); !bytes.Equal(got, data) {
		t.Errorf("restored\n%s\nwas\n%s", got, data)
	}
	if a, b := w.s.View(), s.View(); a.Index() != b.Index() || a.Term() != b.Term() || a.counts != b.counts {
		t.Errorf("index %d term %d %+v, want %d, %d, %+v", b.Index(), b.Term(), b.counts, a.Index(), a.Term(), a.counts)
	}
	if v := s.View(); !v.IsVoter("id1") || v.IsVoter("id2") || len(v.Servers()) != 2 {
		t.Errorf("servers %v", v.Servers())
	}
}

func TestEmptySnapshotRoundTrip(t *testing.T) {
	w := newCluster(t)
	if err := w.s.Restore(bytes.NewReader(persist(t, New().View()))); err != nil {
		t.Fatal(err)
	}
	if v := w.s.View(); v.Index() != 0 || v.Cluster().ID != "" || len(v.Members()) != 0 {
		t.Errorf("index %d, cluster %v", v.Index(), v.Cluster())
	}
}

// seal ends lines with the checksum that makes them a snapshot.
func seal(lines string) []byte {
	sum := sha256.Sum256([]byte(lines))
	return []byte(lines + `{"sha256":"` + hex.EncodeToString(sum[:]) + "\"}\n")
}

const headerV1 = `{"magic":"incusd-state","format":1,"index":5,"term":2}` + "\n"

func TestRestoreRefusesWhatIsDamaged(t *testing.T) {
	data := persist(t, fullStore(t).s.View())
	lines := bytes.SplitAfter(data, []byte("\n"))
	without := func(i int) []byte { return bytes.Join(append(append([][]byte{}, lines[:i]...), lines[i+1:]...), nil) }
	tests := map[string][]byte{
		"empty":               nil,
		"no snapshot":         []byte("hello\n"),
		"another JSON":        []byte("{}\n"),
		"format 0":            seal(`{"magic":"incusd-state","format":0}` + "\n"),
		"header alone":        lines[0],
		"without header":      without(0),
		"without a record":    without(3),
		"without trailer":     bytes.Join(lines[:len(lines)-2], nil),
		"without last byte":   data[:len(data)-1],
		"trailing byte":       append(bytes.Clone(data), '\n'),
		"twice":               append(bytes.Clone(data), data...),
		"swapped records":     bytes.Join(append([][]byte{lines[0], lines[2], lines[1]}, lines[3:]...), nil),
		"unknown table":       seal(headerV1 + `{"table":"x","record":{}}` + "\n"),
		"unknown field":       seal(headerV1 + `{"table":"config","record":{"key":"a","value":"b","more":1}}` + "\n"),
		"no record":           seal(headerV1 + `{"table":"config"}` + "\n"),
		"same key twice":      seal(headerV1 + strings.Repeat(`{"table":"config","record":{"key":"a","value":"b"}}`+"\n", 2)),
		"same operation":      seal(headerV1 + `{"table":"token","record":{"hash":"a","operation":"o"}}` + "\n" + `{"table":"token","record":{"hash":"b","operation":"o"}}` + "\n"),
		"line without end":    append([]byte(headerV1), bytes.Repeat([]byte("x"), maxLine+(1<<20))...),
		"trailer with record": bytes.Replace(data, []byte(`{"sha256"`), []byte(`{"table":"config","sha256"`), 1),
	}
	for name, bad := range tests {
		t.Run(name, func(t *testing.T) {
			w := newCluster(t)
			before, v := persist(t, w.s.View()), w.s.View()
			if err := w.s.Restore(bytes.NewReader(bad)); !errors.Is(err, api.StoreDamaged) {
				t.Errorf("error %v, want %s", err, api.StoreDamaged)
			}
			if !bytes.Equal(before, persist(t, w.s.View())) || closed(v.Watch()) {
				t.Error("a refused snapshot changed the store")
			}
		})
	}
}

func TestRestoreNoticesFlippedBytes(t *testing.T) {
	data := persist(t, fullStore(t).s.View())
	s := New()
	for i := 0; i < len(data); i += 5 {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if err := s.Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d was flipped in %q", i, data[max(0, i-20):min(len(data), i+20)])
		}
		if i%50 == 0 {
			if err := s.Restore(bytes.NewReader(data[:i])); !errors.Is(err, api.StoreDamaged) {
				t.Fatalf("cut at %d: %v", i, err)
			}
		}
	}
}

func TestRestoreNamesANewerFormat(t *testing.T) {
	err := New().Restore(strings.NewReader(`{"magic":"incusd-state","format":2,"index":1,"term":1,"codec":"zstd"}` + "\n\x00\x01"))
	if !errors.Is(err, api.StoreTooNew) || !strings.Contains(err.Error(), "format 2, this build reads up to 1") {
		t.Errorf("error %v", err)
	}
}

func TestRestorePassesOnErrorsOfTheReader(t *testing.T) {
	broken := errors.New("disk on fire")
	if err := New().Restore(iotest.ErrReader(broken)); !errors.Is(err, broken) || errors.Is(err, api.StoreDamaged) {
		t.Errorf("error %v", err)
	}
}

func TestPersistPassesOnErrorsOfTheWriter(t *testing.T) {
	broken := errors.New("disk full")
	if err := fullStore(t).s.View().Persist(failingWriter{broken}); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestRestoreWakesWatchersAndLeavesViews(t *testing.T) {
	w := fullStore(t)
	old := w.s.View()
	before := persist(t, old)
	if err := w.s.Restore(bytes.NewReader(persist(t, New().View()))); err != nil {
		t.Fatal(err)
	}
	if !closed(old.Watch()) || !closed(old.WatchMembers()) {
		t.Error("watchers sleep on")
	}
	if closed(w.s.View().Watch()) {
		t.Error("the new view is outdated at once")
	}
	if !bytes.Equal(persist(t, old), before) {
		t.Error("the earlier view changed")
	}
}

func TestWatchTellsTopics(t *testing.T) {
	tests := []struct {
		name         string
		do           func(w *world)
		any, members bool
	}{
		{"nothing", func(w *world) { w.must(KindLeaderSweep, LeaderSweep{}) }, false, false},
		{"refusal", func(w *world) { w.refused(api.MemberNotFound, KindMemberUpdate, MemberUpdate{ID: "x"}) }, false, false},
		{"config", func(w *world) { w.must(KindConfigSet, ConfigSet{Set: map[string]string{"a": "1"}}) }, true, false},
		{"token", func(w *world) { w.issue("t", "node2") }, true, false},
		{"member", func(w *world) { w.must(KindMemberUpdate, updateBody(nil)) }, true, true},
		{"cluster", func(w *world) { w.must(KindLeaderElected, LeaderElected{ID: "id1", Term: 3}) }, true, true},
		{"certificate", func(w *world) { w.must(KindCertificateAdd, certBody("fp9")) }, true, true},
		{"servers", func(w *world) { w.s.SetServers([]Server{{ID: "id1", Voter: true}}) }, true, true},
		{"the same servers", func(w *world) { w.s.SetServers(nil) }, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newCluster(t)
			v := w.s.View()
			tt.do(w)
			if got := closed(v.Watch()); got != tt.any {
				t.Errorf("Watch: %v", got)
			}
			if got := closed(v.WatchMembers()); got != tt.members {
				t.Errorf("WatchMembers: %v", got)
			}
			if closed(w.s.View().Watch()) {
				t.Error("the current view is outdated")
			}
		})
	}
}

// Readers use views while entries are applied; the race detector watches.
func TestReadersAndWriterDoNotMeet(t *testing.T) {
	log := recordedLog(t, 250)
	s := New()
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for !closed(done) {
				v := s.View()
				persist(t, v)
				v.MemberByName("node2")
				v.TokenByClaim("fp2")
				v.Tokens()
				v.Members()
				select {
				case <-v.Watch():
				case <-done:
				}
			}
		})
	}
	applyLog(t, s, log)
	if err := s.Restore(bytes.NewReader(persist(t, s.View()))); err != nil {
		t.Error(err)
	}
	close(done)
	readers.Wait()
}

func FuzzRestore(f *testing.F) {
	f.Add(persist(f, New().View()))
	// Small inputs, sealed below, so that mutations get past the checksum.
	for _, record := range []string{
		`{"table":"server","record":{"id":"id1","voter":true}}`,
		`{"table":"cluster","record":{"id":"c1","enabled":true,"next_number":2}}`,
		`{"table":"member","record":{"id":"id2","number":-1,"name":"node2","fingerprint":"fp2","state":"joining","token":"t"}}`,
		`{"table":"token","record":{"hash":"t","name":"node2","operation":"op","claimed_by":"fp2","claim_until":"2026-01-02T03:14:05Z"}}`,
		`{"table":"token","record":{"hash":"t","name":"node2","ended":"used","ended_at":"2026-01-02T03:04:05Z"}}`,
		`{"table":"config","record":{"key":"a","value":"<&>"}}`,
		`{"table":"certificate","record":{"fingerprint":"fp3","projects":null}}`,
		`{"table":"retired","record":{"seq":1,"id":"id3"}}`,
		`{"table":"request","record":{"seq":18446744073709551615,"id":"r1","result":{"error":{"reason":"x","message":"y"}}}}`,
	} {
		f.Add([]byte(headerV1 + record + "\n"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, in := range [][]byte{data, seal(string(data))} {
			s := New()
			if err := s.Restore(bytes.NewReader(in)); err != nil {
				if !errors.Is(err, api.StoreDamaged) && !errors.Is(err, api.StoreTooNew) {
					t.Fatalf("error without a reason: %v", err)
				}
				continue
			}
			once := persist(t, s.View())
			again := New()
			if err := again.Restore(bytes.NewReader(once)); err != nil {
				t.Fatalf("what was restored and persisted cannot be restored: %v", err)
			}
			if twice := persist(t, again.View()); !bytes.Equal(once, twice) {
				t.Fatalf("not stable:\n%s\n%s", once, twice)
			}
			use(t, s)
		}
	})
}

// use applies a few commands to whatever is there: they may be refused, not panic.
func use(t *testing.T, s *Store) {
	w := &world{t: t, s: s, now: start, index: s.View().Index()}
	if w.index > 1<<60 {
		return
	}
	for i, c := range samples() {
		w.ask(fmt.Sprintf("use%d", i), c.kind, c.body)
	}
	persist(t, s.View())
}

package raftstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

func TestWriteOnAnyMemberIsSeenOnAllAtOnce(t *testing.T) {
	c := newCluster(t, 3)
	for i, writer := range c.nodes {
		value := fmt.Sprint(i)
		must(t, c.set(writer, "user.x", value))
		for _, reader := range c.nodes {
			if got := c.get(reader, "user.x"); got != value {
				t.Errorf("%s reads %q after %s wrote %q", reader.host, got, writer.host, value)
			}
		}
	}
}

func TestRequestTakesEffectOnce(t *testing.T) {
	c := newCluster(t, 3)
	cmd := command(t, state.KindConfigSet, state.ConfigSet{Set: map[string]string{"user.x": "1"}})
	_, err := c.follower().store.Propose(c.ctx(), cmd)
	must(t, err)
	must(t, c.set(c.nodes[0], "user.x", "2"))
	_, err = c.leader().store.Propose(c.ctx(), cmd)
	must(t, err)
	if got := c.get(c.nodes[1], "user.x"); got != "2" {
		t.Errorf("a repeated request took effect again: %q", got)
	}
}

// What fences or forgets members is for servers that are stopped. A member that proposes it, be it
// the leader, is refused, or one whose key was stolen could end the cluster with one call.
func TestOfflineCommandsAreNotProposed(t *testing.T) {
	c := newCluster(t, 3)
	must(t, c.set(c.leader(), "user.x", "1"))
	before := c.leader().store.Local().Cluster()
	for _, n := range []*node{c.leader(), c.follower()} {
		for kind, body := range map[string]any{
			state.KindClusterRecover: state.ClusterRecover{ID: "r1", MemberID: n.id, Incarnation: before.Incarnation + 1},
			state.KindClusterRestore: state.ClusterRestore{ClusterID: "other", Member: state.Member{ID: "x", Fingerprint: "fp"}, Name: "x", Address: "x:1"},
		} {
			_, err := n.store.Propose(c.ctx(), command(t, kind, body))
			wantReason(t, err, api.NotAuthorized)
		}
	}
	must(t, c.set(c.follower(), "user.x", "2"))
	view := c.leader().store.Local()
	if got := view.Cluster(); got.ID != before.ID || got.Incarnation != before.Incarnation || len(view.Members()) != 3 {
		t.Errorf("the cluster is %s, %d, with %d members", got.ID, got.Incarnation, len(view.Members()))
	}
}

func TestConcurrentWritesShareEntries(t *testing.T) {
	c := newCluster(t, 3)
	l := c.leader()
	before := l.store.Local().Index()
	const writers, each = 32, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := c.set(c.nodes[w%3], fmt.Sprintf("user.k%d", w), fmt.Sprint(i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for w := range writers {
		if got := c.get(c.nodes[0], fmt.Sprintf("user.k%d", w)); got != fmt.Sprint(each-1) {
			t.Errorf("writer %d's last write is %q", w, got)
		}
	}
	if entries := l.store.Local().Index() - before; entries >= writers*each {
		t.Errorf("%d writes took %d entries", writers*each, entries)
	}
}

func TestKilledLeaderLosesNothingAcknowledged(t *testing.T) {
	c := newCluster(t, 3)
	for i := range 3 {
		must(t, c.set(c.nodes[i], "user.x", fmt.Sprint(i)))
	}
	old := c.leader()
	old.kill()
	for _, n := range c.nodes {
		if n.store != nil {
			if got := c.get(n, "user.x"); got != "2" {
				t.Errorf("%s lost a write: %q", n.host, got)
			}
			must(t, c.set(n, "user.y", n.host))
		}
	}
	want := c.get(c.leader(), "user.y")
	must(t, old.open(false, false))
	if got := c.get(old, "user.y"); got != want {
		t.Errorf("the old leader came back with %q, want %q", got, want)
	}
}

func TestLeaderCutOffRefusesAndTheOthersGoOn(t *testing.T) {
	c := newCluster(t, 3)
	must(t, c.set(c.nodes[0], "user.x", "before"))
	old := c.leader()
	c.net.Isolate(old.host, "m1", "m2", "m3")

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := old.store.Propose(ctx, command(t, state.KindConfigSet, state.ConfigSet{Set: map[string]string{"user.x": "lost"}}))
	if !errors.Is(err, api.OutcomeUnknown) && !errors.Is(err, api.NoQuorum) {
		t.Fatalf("a write without quorum: %v", err)
	}
	short, cancel2 := context.WithTimeout(t.Context(), time.Second)
	defer cancel2()
	_, err = old.store.Read(short)
	wantReason(t, err, api.NoQuorum)
	v, err := old.store.ReadOrStale(t.Context())
	must(t, err)
	if v.Stale == nil || v.Stale.Reason != api.NoQuorum || v.Config()["user.x"] != "before" {
		t.Errorf("stale view: %+v, %q", v.Stale, v.Config()["user.x"])
	}

	for _, n := range c.nodes {
		if n != old {
			must(t, c.set(n, "user.x", "after"))
		}
	}
	c.net.Heal()
	for ctx := c.ctx(); ctx.Err() == nil; { // until it has found the new leader
		if _, err := old.store.Read(ctx); err == nil {
			break
		}
	}
	if got := c.get(old, "user.x"); got != "after" && got != "lost" {
		t.Errorf("after healing: %q", got)
	}
	for _, n := range c.nodes {
		if a, b := c.get(n, "user.x"), c.get(old, "user.x"); a != b {
			t.Errorf("%s reads %q, %s reads %q", n.host, a, old.host, b)
		}
	}
}

func TestMemberWithoutQuorumShowsWhatItKnewAfterRestart(t *testing.T) {
	c := newCluster(t, 3)
	must(t, c.set(c.nodes[0], "user.x", "known"))
	for _, n := range c.nodes {
		if got := c.get(n, "user.x"); got != "known" {
			t.Fatal(got)
		}
	}
	for _, n := range c.nodes {
		n.kill()
	}
	n := c.nodes[1]
	must(t, n.open(false, false))
	if got := n.store.Local().Config()["user.x"]; got != "known" {
		t.Errorf("the local view lost %q", got)
	}
	if got := len(n.store.Local().Members()); got != 3 {
		t.Errorf("the local view has %d members", got)
	}
	start := time.Now()
	v, err := n.store.ReadOrStale(t.Context())
	must(t, err)
	if v.Stale == nil {
		t.Error("a lone member of three claims to be current")
	}
	t.Logf("stale view after %v", time.Since(start))
	for _, o := range c.nodes {
		if o.store == nil {
			must(t, o.open(false, false))
		}
	}
	must(t, c.set(n, "user.x", "again"))
}

func TestCompactedClusterTakesANewMemberAndRestarts(t *testing.T) {
	c := newCluster(t, 1)
	first := c.nodes[0]
	for i := range 50 {
		must(t, c.set(first, "user.x", fmt.Sprint(i)))
	}
	must(t, first.store.Snapshot())
	n := c.add()
	if got := c.get(n, "user.x"); got != "49" {
		t.Errorf("the new member reads %q", got)
	}
	// An entry behind the promotion, which Raft wants applied before a snapshot.
	must(t, c.set(first, "user.y", "1"))
	if got := c.get(n, "user.y"); got != "1" {
		t.Errorf("the new member reads %q", got)
	}
	must(t, n.store.Snapshot())
	for _, n := range c.nodes {
		n.close()
	}
	for _, n := range c.nodes {
		must(t, n.open(false, false))
	}
	if got := c.get(n, "user.x"); got != "49" {
		t.Errorf("after the restart it reads %q", got)
	}
}

func TestSnapshotsOfAllMembersAreEqual(t *testing.T) {
	c := newCluster(t, 3)
	for i := range 20 {
		must(t, c.set(c.nodes[i%3], fmt.Sprintf("user.%d", i), "x"))
	}
	var first []byte
	for _, n := range c.nodes {
		v, err := n.store.Read(c.ctx())
		must(t, err)
		var buf sliceWriter
		must(t, v.Persist(&buf))
		if first == nil {
			first = buf
		} else if !slices.Equal(first, buf) {
			t.Errorf("%s has another snapshot", n.host)
		}
	}
}

type sliceWriter []byte

func (w *sliceWriter) Write(p []byte) (int, error) { *w = append(*w, p...); return len(p), nil }

func TestStrangersAndFormerKeysAreRefused(t *testing.T) {
	c := newCluster(t, 2)
	stranger := newCluster(t, 1).nodes[0]
	// The same network, another key: it says that it is m2.
	impostor := &node{t: t, c: c, host: "m9", id: c.nodes[1].id, pair: stranger.pair, peers: c.peers(), dir: filepath.Join(t.TempDir(), "r")}
	must(t, impostor.open(true, false))
	t.Cleanup(impostor.close)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := impostor.store.Ready(ctx); err == nil {
		t.Fatal("a key that is no member's was let in")
	}
}

func TestHandoverMovesLeadership(t *testing.T) {
	c := newCluster(t, 3)
	old := c.leader()
	must(t, old.store.Handover(c.ctx()))
	if l := c.leader(); l == old {
		t.Error("leadership stayed")
	}
}

func TestMissingOrDamagedFilesAreRefusedAndNeverReset(t *testing.T) {
	damage := map[string]func(t *testing.T, n *node){
		"log missing": func(t *testing.T, n *node) { must(t, os.Remove(filepath.Join(n.dir, "raft.db"))) },
		"log cut off": func(t *testing.T, n *node) { must(t, os.Truncate(filepath.Join(n.dir, "raft.db"), 100)) },
		"log with a damaged page": func(t *testing.T, n *node) {
			f, err := os.OpenFile(filepath.Join(n.dir, "raft.db"), os.O_WRONLY, 0)
			must(t, err)
			defer f.Close()
			for page := int64(2); page < 8; page++ {
				_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, 4096), page*4096)
				must(t, err)
			}
		},
		"log cut in the middle": func(t *testing.T, n *node) {
			must(t, os.Truncate(filepath.Join(n.dir, "raft.db"), 3*4096))
		},
		"log overwritten": func(t *testing.T, n *node) {
			must(t, os.WriteFile(filepath.Join(n.dir, "raft.db"), make([]byte, 64<<10), 0o600))
		},
		"snapshot changed": func(t *testing.T, n *node) {
			for _, f := range snapshotFiles(t, n, "state.bin") {
				data, err := os.ReadFile(f)
				must(t, err)
				data[len(data)/2] ^= 1
				must(t, os.WriteFile(f, data, 0o600))
			}
		},
		"snapshot's list unreadable": func(t *testing.T, n *node) {
			for _, f := range snapshotFiles(t, n, "meta.json") {
				must(t, os.WriteFile(f, []byte("{"), 0o600))
			}
		},
	}
	for name, break_ := range damage {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1)
			n := c.nodes[0]
			must(t, c.set(n, "user.x", "1"))
			must(t, n.store.Snapshot())
			n.close()
			break_(t, n)
			err := n.open(false, false)
			wantReason(t, err, api.StoreDamaged)
			t.Log(err)
		})
	}
}

func snapshotFiles(t *testing.T, n *node, name string) []string {
	files, err := filepath.Glob(filepath.Join(n.dir, "snapshots", "*", name))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no snapshot")
	}
	return files
}

// badDisk fails writes while told to.
type badDisk struct {
	raft.LogStore
	full atomic.Bool
	slow atomic.Pointer[chan struct{}]
}

func (d *badDisk) StoreLogs(l []*raft.Log) error {
	if ch := d.slow.Load(); ch != nil {
		<-*ch
	}
	if d.full.Load() {
		return &os.PathError{Op: "write", Path: "raft.db", Err: syscall.ENOSPC}
	}
	return d.LogStore.StoreLogs(l)
}

func TestFullDiskStopsTheMemberWithTheReason(t *testing.T) {
	c := newCluster(t, 0)
	disk := &badDisk{}
	n := c.addWith(func(n *node) {
		n.wrap = func(l raft.LogStore) raft.LogStore { disk.LogStore = l; return disk }
	})
	disk.full.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := n.store.Propose(ctx, command(t, state.KindConfigSet, state.ConfigSet{Set: map[string]string{"user.x": "1"}}))
	wantReason(t, err, api.OutcomeUnknown)
	if refusal := api.AsError(err); !strings.Contains(refusal.Message, "no space left on device") || !strings.HasPrefix(refusal.Hint, "free space on the disk") {
		t.Errorf("the writer is told %q, %q", refusal.Message, refusal.Hint)
	}
	wantReason(t, <-n.store.Failed(), api.DiskFull)
}

func TestLeaderWithHungDiskIsReplaced(t *testing.T) {
	c := newCluster(t, 0)
	disks := map[string]*badDisk{}
	for range 3 {
		c.addWith(func(n *node) {
			d := &badDisk{}
			disks[n.host] = d
			n.wrap = func(l raft.LogStore) raft.LogStore { d.LogStore = l; return d }
		})
	}
	old := c.leader()
	release := make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	disks[old.host].slow.Store(&release)
	go c.set(old, "user.hang", "1")
	for _, n := range c.nodes {
		if n != old {
			must(t, c.set(n, "user.x", n.host))
		}
	}
}

func TestLogIsCompactedByItself(t *testing.T) {
	c := newCluster(t, 0)
	n := c.addWith(func(n *node) { n.every = 20 })
	for i := range 50 {
		must(t, c.set(n, "user.x", fmt.Sprint(i)))
	}
	for len(snapshotFolders(t, n)) == 0 {
		must(t, c.set(n, "user.y", "1"))
	}
	n.kill()
	must(t, n.open(false, false))
	if got := c.get(n, "user.x"); got != "49" {
		t.Errorf("after the restart: %q", got)
	}
}

func snapshotFolders(t *testing.T, n *node) []string {
	files, err := filepath.Glob(filepath.Join(n.dir, "snapshots", "*", "state.bin"))
	must(t, err)
	return files
}

func TestMemberThatIsNoneAnyMoreLosesItsOpenConnections(t *testing.T) {
	c := newCluster(t, 1)
	first := c.nodes[0]
	pair, err := trust.Generate(trust.Server)
	must(t, err)
	n := &node{t: t, c: c, host: "m2", id: uuid.NewString(), pair: pair, dir: filepath.Join(t.TempDir(), "r"), peers: c.peers()}
	c.nodes = append(c.nodes, n)
	t.Cleanup(n.close)
	c.admit(n)
	must(t, n.open(true, false))
	must(t, n.store.Ready(c.ctx()))
	if _, err := n.store.Read(c.ctx()); err != nil {
		t.Fatal(err)
	}
	wantReason(t, c.set(n, "user.x", "joining"), api.NotAuthorized)
	other := command(t, state.KindMemberActivate, state.MemberActivate{ID: first.id})
	_, err = n.store.Propose(c.ctx(), other)
	wantReason(t, err, api.NotAuthorized)

	c.must(first, state.KindTokenRevoke, state.TokenRevoke{Operation: "op-m2"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = n.store.Propose(ctx, command(t, state.KindConfigSet, state.ConfigSet{Set: map[string]string{"user.x": "revoked"}}))
	if err == nil {
		t.Fatal("a revoked server changed the cluster")
	}
	if got := c.get(first, "user.x"); got != "" {
		t.Errorf("the change was made: %q", got)
	}
}

func TestReturningMemberFindsALeaderThatJoinedMeanwhile(t *testing.T) {
	c := newCluster(t, 3)
	away := c.nodes[2]
	away.kill()
	d := c.add()
	for c.leader() != d {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := c.leader().store.TransferLeadership(ctx, d.id); err != nil {
			t.Log(err)
		}
		cancel()
	}
	must(t, c.set(d, "user.x", "news"))
	must(t, away.open(false, false))
	if got := c.get(away, "user.x"); got != "news" {
		t.Errorf("the returning member reads %q", got)
	}
}

func TestMemberThatMissedAnEntryTakesNoSnapshot(t *testing.T) {
	c := newCluster(t, 1)
	n := c.nodes[0]
	bad := command(t, state.KindConfigSet, state.ConfigSet{Set: map[string]string{"user.x": "1"}})
	bad.Version = 99
	_, err := n.store.Propose(c.ctx(), bad)
	wantReason(t, err, api.StoreTooNew) // refused before it reaches the log
	must(t, c.set(n, "user.x", "2"))
}

func TestHurriedCallersLeaveTheConnectionAlone(t *testing.T) {
	c := newCluster(t, 3)
	l, f := c.leader(), c.follower()
	c.net.Delay(l.host, f.host, 15*time.Millisecond)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			_, _ = f.store.Propose(ctx, command(t, state.KindConfigSet, state.ConfigSet{Set: map[string]string{"user.h": "1"}}))
			cancel()
		}
	})
	for i := range 10 {
		if err := c.set(f, "user.patient", fmt.Sprint(i)); err != nil {
			t.Errorf("a patient writer: %v", err)
		}
	}
	close(stop)
	wg.Wait()
}

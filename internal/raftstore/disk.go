package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"incusd/api"
)

// storeFormat is the version of the replica's folder as a whole.
const storeFormat = 1

var keyFormat = []byte("incus.format")

// lockTime bounds the wait for the lock on the log file.
const lockTime = 2 * time.Second

// disk is one replica's folder: log, stable store and snapshots.
type disk struct {
	dir       string
	db        *raftboltdb.BoltStore
	snapshots *raft.FileSnapshotStore
}

func logFile(dir string) string { return filepath.Join(dir, "raft.db") }

// openDisk opens the folder, or makes it. It never makes one where a replica is
// expected: an empty log in its place would look like a member that forgot its votes.
func openDisk(cfg *Config) (*disk, error) {
	_, err := os.Stat(logFile(cfg.Dir))
	switch {
	case err == nil:
	case !errors.Is(err, os.ErrNotExist):
		return nil, diskError("open the log", err)
	case !cfg.Create:
		return nil, api.Errorf(api.StoreDamaged, "The replicated store is damaged: %s is missing", logFile(cfg.Dir))
	default:
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, diskError("make the folder of the store", err)
		}
	}
	d := &disk{dir: cfg.Dir}
	if err := d.openLog(); err != nil {
		return nil, err
	}
	d.snapshots, err = raft.NewFileSnapshotStoreWithLogger(cfg.Dir, 2, newRaftLog(cfg.Logger))
	if err != nil {
		d.close()
		return nil, diskError("open the snapshots", err)
	}
	return d, nil
}

func (d *disk) openLog() error {
	path := logFile(d.dir)
	if err := verifyLog(path); err != nil {
		return logError(path, err)
	}
	var err error
	d.db, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		Timeout:        lockTime,
	}})
	if err != nil {
		return logError(path, err)
	}
	if err := d.checkFormat(); err != nil {
		d.close()
		return err
	}
	return nil
}

// logError tells damage from what the machine lacks.
func logError(path string, err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return api.Errorf(api.Conflict, "%s is in use by another process", path).
			WithHint("stop the other incusd that runs with this INCUS_DIR")
	case errors.As(err, &errno):
		return diskError("open the log", err)
	default:
		return api.Errorf(api.StoreDamaged, "The replicated store is damaged: %s: %v", path, err)
	}
}

// verifyLog walks through the file once before it is opened for work. bbolt, told not to
// keep its free list (which halves the cost of a commit), looks for free pages in a
// goroutine of its own, where a damaged page would end the process.
func verifyLog(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil // a new one
	}
	if err != nil {
		return err
	}
	return guard(func() error {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTime})
		if err != nil {
			return err
		}
		defer db.Close()
		return db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				return b.ForEach(func(_, _ []byte) error { return nil })
			})
		})
	})
}

// guard turns what bbolt does about a damaged file, a panic or a wild pointer into its
// mapping, into an error.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return f()
}

func (d *disk) checkFormat() error {
	v, err := d.db.Get(keyFormat)
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound):
		if last, err := d.db.LastIndex(); err != nil || last > 0 {
			return api.Errorf(api.StoreDamaged, "The replicated store is damaged: %s has entries but no format", logFile(d.dir))
		}
		return diskError("write the log", d.db.Set(keyFormat, binary.BigEndian.AppendUint64(nil, storeFormat)))
	case err != nil:
		return diskError("read the log", err)
	case len(v) != 8:
		return api.Errorf(api.StoreDamaged, "The replicated store is damaged: %s has no readable format", logFile(d.dir))
	}
	if got := binary.BigEndian.Uint64(v); got > storeFormat {
		return api.Errorf(api.StoreTooNew, "The store in %s has format %d, this version knows up to %d", d.dir, got, storeFormat)
	}
	return nil
}

// openSnapshot opens the newest snapshot; nil if there is none.
func (d *disk) openSnapshot() (*raft.SnapshotMeta, io.ReadCloser, error) {
	list, err := d.snapshots.List()
	if err != nil {
		return nil, nil, diskError("list the snapshots", err)
	}
	if len(list) == 0 {
		if damaged := d.snapshotFolders(); len(damaged) > 0 {
			return nil, nil, api.Errorf(api.StoreDamaged, "The replicated store is damaged: no snapshot of %s can be read", strings.Join(damaged, ", "))
		}
		return nil, nil, nil
	}
	meta, rc, err := d.snapshots.Open(list[0].ID)
	if err != nil {
		return nil, nil, api.Errorf(api.StoreDamaged, "The replicated store is damaged: snapshot %s: %v", list[0].ID, err)
	}
	return meta, rc, nil
}

// snapshotFolders lists finished snapshots by name, readable or not.
func (d *disk) snapshotFolders() []string {
	entries, err := os.ReadDir(filepath.Join(d.dir, "snapshots"))
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasSuffix(e.Name(), ".tmp") {
			names = append(names, e.Name())
		}
	}
	return names
}

func (d *disk) close() error { return d.db.Close() }

// IsDiskFull tells whether err says that there is no room for what was to be written.
func IsDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// diskError names what was being done and tells a full disk from other faults.
func diskError(act string, err error) error {
	switch {
	case err == nil:
		return nil
	case IsDiskFull(err):
		return api.Errorf(api.DiskFull, "%s: %v", act, err)
	default:
		return fmt.Errorf("%s: %w", act, err)
	}
}

// guardedLog stops the member on the first failed write, with the reason, where Raft
// would step down and stand again for ever. It also knows how long a write has been
// under way: Raft keeps sending heartbeats while its disk hangs.
type guardedLog struct {
	raft.LogStore
	fail    func(error)
	writing atomic.Int64 // monotonic start of the write under way, in ns since epoch; 0 if none
	epoch   time.Time
	recent  recentWrites
}

func (g *guardedLog) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

func (g *guardedLog) StoreLogs(logs []*raft.Log) error {
	began := time.Now()
	g.writing.Store(int64(began.Sub(g.epoch)) + 1)
	err := g.LogStore.StoreLogs(logs)
	g.writing.Store(0)
	ended := time.Now()
	g.recent.add(ended, ended.Sub(began))
	if err != nil {
		g.fail(diskError("write the log", err))
	}
	return err
}

func (g *guardedLog) DeleteRange(from, to uint64) error {
	err := g.LogStore.DeleteRange(from, to)
	if err != nil {
		g.fail(diskError("compact the log", err))
	}
	return err
}

// stalled tells whether a write has been under way for longer than bound.
func (g *guardedLog) stalled(bound time.Duration) bool {
	return g.underWay() > bound
}

// underWay is how long the write under way has taken so far; 0 if there is none.
func (g *guardedLog) underWay() time.Duration {
	started := g.writing.Load()
	if started == 0 {
		return 0
	}
	return time.Since(g.epoch) - time.Duration(started)
}

// guardedStable stops the member when its term or vote cannot be written. Raft would
// panic; instead its goroutine ends here, and the member is closed with the reason.
type guardedStable struct {
	raft.StableStore
	fail func(error)
}

func (g *guardedStable) Set(key, val []byte) error {
	return g.check(g.StableStore.Set(key, val))
}

func (g *guardedStable) SetUint64(key []byte, val uint64) error {
	return g.check(g.StableStore.SetUint64(key, val))
}

func (g *guardedStable) check(err error) error {
	if err != nil {
		g.fail(diskError("write term and vote", err))
		runtime.Goexit()
	}
	return nil
}

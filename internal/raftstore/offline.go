package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// A Copy is what the replica of a stopped member holds: its snapshot and its whole log applied,
// be it known to be committed or not.
type Copy struct {
	// Tables may be changed: they are this Copy's own.
	Tables *state.Store
	// Servers is the latest configuration in the log.
	Servers []state.Server
	// Extent tells which entries there are, LastTerm the term of the last.
	Extent   state.LogExtent
	LastTerm uint64
	// Term is the latest that the member knew of; never below LastTerm.
	Term uint64
}

// Lineage is the copy's.
func (c *Copy) Lineage() Lineage { return LineageOf(c.Tables.View()) }

// ReadCopy reads the replica in dir, which no process may have open. It changes nothing. It fails
// with api.StoreDamaged, api.StoreTooNew, or api.Conflict while another process has it open.
func ReadCopy(dir string) (*Copy, error) {
	if _, err := os.Stat(logFile(dir)); err != nil {
		return nil, api.Errorf(api.StoreDamaged, "The replicated store is damaged: %s is missing", logFile(dir))
	}
	if err := verifyLog(logFile(dir)); err != nil {
		return nil, logError(logFile(dir), err)
	}
	db, err := raftboltdb.New(raftboltdb.Options{Path: logFile(dir), BoltOptions: &bbolt.Options{ReadOnly: true, Timeout: lockTime}})
	if err != nil {
		return nil, logError(logFile(dir), err)
	}
	defer db.Close()
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, newRaftLog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, diskError("open the snapshots", err)
	}
	d := &disk{dir: dir, db: db, snapshots: snapshots}
	c := &Copy{Tables: state.New()}
	if err := c.readSnapshot(d); err != nil {
		return nil, err
	}
	return c, c.readLog(d)
}

func (c *Copy) readSnapshot(d *disk) error {
	meta, rc, err := d.openSnapshot()
	if err != nil || rc == nil {
		return err
	}
	defer rc.Close()
	if err := c.Tables.Restore(rc); err != nil {
		return fmt.Errorf("snapshot %s: %w", meta.ID, err)
	}
	c.Servers = serversOf(meta.Configuration)
	c.Extent.Compacted, c.Extent.Last, c.LastTerm = meta.Index, meta.Index, meta.Term
	return nil
}

func serversOf(conf raft.Configuration) []state.Server {
	servers := make([]state.Server, len(conf.Servers))
	for i, s := range conf.Servers {
		servers[i] = state.Server{ID: string(s.ID), Voter: s.Suffrage == raft.Voter}
	}
	return servers
}

func (c *Copy) readLog(d *disk) error {
	first, err1 := d.db.FirstIndex()
	last, err2 := d.db.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return logError(logFile(d.dir), err)
	}
	if last > 0 && first > c.Extent.Compacted+1 {
		return api.Errorf(api.StoreDamaged, "The replicated store is damaged: entries %d to %d are missing in %s", c.Extent.Compacted+1, first-1, d.dir)
	}
	for i := c.Extent.Compacted + 1; i <= last; i++ {
		if err := c.take(d, i); err != nil {
			return err
		}
	}
	c.Tables.SetServers(c.Servers)
	c.Term = c.LastTerm
	if v, err := d.db.Get(keyCurrentTerm); err == nil && len(v) == 8 {
		c.Term = max(c.Term, binary.BigEndian.Uint64(v))
	}
	return nil
}

// take applies one entry.
func (c *Copy) take(d *disk, index uint64) error {
	var l raft.Log
	if err := d.db.GetLog(index, &l); err != nil {
		return api.Errorf(api.StoreDamaged, "The replicated store is damaged: entry %d in %s: %v", index, logFile(d.dir), err)
	}
	if n := len(c.Extent.Terms); n == 0 || c.Extent.Terms[n-1].Term != l.Term {
		c.Extent.Terms = append(c.Extent.Terms, state.TermStart{Term: l.Term, Index: index})
	}
	c.Extent.Last, c.LastTerm = index, l.Term
	switch l.Type {
	case raft.LogConfiguration:
		c.Servers = serversOf(raft.DecodeConfiguration(l.Data))
	case raft.LogCommand:
		if _, _, err := c.Tables.Apply(l.Index, l.Term, l.Data); err != nil {
			return err
		}
	}
	return nil
}

// keyCurrentTerm is where Raft keeps the latest term that it knows of.
var keyCurrentTerm = []byte("CurrentTerm")

// Build makes a replica in dir that holds view and nothing else, as of view's index and term,
// with the servers of view as Raft's configuration. A folder that is there is replaced: nothing
// may use it. It blocks until all of it is on the disk; what is left of a Build that was cut off
// is no replica that counts, since nobody has noted it.
func Build(dir string, view *state.View, term uint64) error {
	if err := os.RemoveAll(dir); err != nil {
		return diskError("clear the folder of the new store", err)
	}
	d, err := openDisk(&Config{Dir: dir, Create: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if err := errors.Join(d.fill(view, max(term, view.Term())), d.close()); err != nil {
		return diskError("write the new store", err)
	}
	return syncFolders(dir)
}

func (d *disk) fill(view *state.View, term uint64) error {
	if err := d.db.Set(keyCurrentTerm, binary.BigEndian.AppendUint64(nil, term)); err != nil {
		return err
	}
	conf := raft.Configuration{}
	for _, s := range view.Servers() {
		srv := raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.ID), Suffrage: raft.Nonvoter}
		if s.Voter {
			srv.Suffrage = raft.Voter
		}
		conf.Servers = append(conf.Servers, srv)
	}
	sink, err := d.snapshots.Create(raft.SnapshotVersionMax, view.Index(), view.Term(), conf, view.Index(), idEncoder{})
	if err != nil {
		return err
	}
	return snapshot{view}.Persist(sink)
}

// idEncoder is the part of a transport that a snapshot needs: addresses are member IDs.
type idEncoder struct{ raft.Transport }

func (idEncoder) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

// syncFolders makes the entries of dir and of what it lies in last.
func syncFolders(dir string) error {
	for _, path := range []string{filepath.Join(dir, "snapshots"), dir, filepath.Dir(dir)} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return diskError("write the new store", err)
		}
	}
	return nil
}

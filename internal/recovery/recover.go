package recovery

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// Steps of a recovery that reach is told of; for tests that end it there.
const (
	// PointBackedUp: the old database folder is copied.
	PointBackedUp = "recover-backed-up"
	// PointBuilt: the recovered replica is on the disk, and the old one counts.
	PointBuilt = "recover-built"
	// PointDone: the recovered replica counts.
	PointDone = "recover-done"
)

// copyPrefix begins the name of each copy of the database folder, copyPart ends that of one under way.
const copyPrefix, copyPart = "database.before-recovery-", ".part"

// backUp copies the database folder beside it, and returns where to. The copy has the local store
// and the replica as they are, for a way back. What is left of a copy that was cut off goes.
func (s *Server) backUp(now time.Time) (to string, err error) {
	halves, err := filepath.Glob(filepath.Join(s.files.Dir, copyPrefix+"*"+copyPart))
	if err != nil {
		return "", err
	}
	for _, half := range halves {
		if err := os.RemoveAll(half); err != nil {
			return "", err
		}
	}
	to = filepath.Join(s.files.Dir, copyPrefix+now.UTC().Format("20060102T150405Z"))
	part := to + copyPart
	if err := copyTree(s.files.Database, part); err != nil {
		return "", errors.Join(fmt.Errorf("back the database folder up: %w", err), os.RemoveAll(part))
	}
	if err := os.RemoveAll(to); err != nil {
		return "", err
	}
	if err := os.Rename(part, to); err != nil {
		return "", err
	}
	return to, syncFolder(s.files.Dir)
}

// copyTree copies files and folders, readable by their owner alone, and waits until they are on
// the disk.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		case d.Type().IsRegular():
			return copyFile(path, filepath.Join(to, rel))
		}
		return nil
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// A Recovered is what a recovery has done.
type Recovered struct {
	*state.Recovery
	// Backup is where the database folder was copied to, as it was before.
	Backup string
}

// Recover makes this server the only voter of its cluster, in a new incarnation, with all that its
// copy holds. reach, if not nil, is told of each step and may end it there. Cut off anywhere, it
// leaves either the old replica in use, and can be run again, or the recovered one. After an error
// that leaves the old one, nothing of it takes room on the disk.
func (s *Server) Recover(now time.Time, reach func(point string) error) (Recovered, error) {
	if reach == nil {
		reach = func(string) error { return nil }
	}
	done, err := s.recover(now, reach)
	if errors.Is(err, api.DiskFull) || raftstore.IsDiskFull(err) {
		err = api.Errorf(api.DiskFull, "%v", err).
			WithHint("make room in %s for the folder %s twice more, and give the same command again", s.files.Dir, filepath.Base(s.files.Database))
	}
	return done, err
}

func (s *Server) recover(now time.Time, reach func(point string) error) (done Recovered, err error) {
	view, err := s.recovered(now)
	if err != nil {
		return done, err
	}
	done.Recovery, _ = view.Recovery()
	next := localstore.Replica{
		ID: s.replica.ID, ClusterID: s.replica.ClusterID, Incarnation: done.Incarnation,
		Dir: fmt.Sprintf("%s.%d", s.replica.ID, done.Incarnation),
	}
	if done.Backup, err = s.backUp(now); err != nil {
		return done, err
	}
	if err := reach(PointBackedUp); err != nil {
		return done, err
	}
	if err := raftstore.Build(s.folder(next), view, s.copy.Term); err != nil {
		return done, errors.Join(err, os.RemoveAll(s.folder(next)), os.RemoveAll(done.Backup))
	}
	if err := reach(PointBuilt); err != nil {
		return done, err
	}
	if err := s.local.SwitchReplica(localstore.Switch{Replica: next}); err != nil {
		return done, err // it may be on the disk all the same
	}
	return done, reach(PointDone)
}

// recovered is the state with the recovery in it, as of an entry behind the last one of the copy.
func (s *Server) recovered(now time.Time) (*state.View, error) {
	tables := s.copy.Tables
	body := state.ClusterRecover{
		ID: uuid.NewString(), MemberID: s.replica.ID, Incarnation: tables.View().Cluster().Incarnation + 1,
		Copy: s.copy.Extent, Voters: []string{},
	}
	if n := len(body.Copy.Terms) - state.MaxTermStarts; n > 0 {
		body.Copy.Terms = body.Copy.Terms[n:]
	}
	for _, srv := range s.copy.Servers {
		if srv.Voter && srv.ID != s.replica.ID {
			body.Voters = append(body.Voters, srv.ID)
		}
	}
	if err := apply(tables, s.copy.Extent.Last+1, s.copy.Term, now, state.KindClusterRecover, body); err != nil {
		return nil, err
	}
	tables.SetServers([]state.Server{{ID: s.replica.ID, Voter: true}})
	return tables.View(), nil
}

// apply writes one command into tables that no cluster shares.
func apply(tables *state.Store, index, term uint64, now time.Time, kind string, body any) error {
	cmd, err := state.NewCommand(kind, uuid.NewString(), now, nil, body)
	if err != nil {
		return err
	}
	entry, err := state.EncodeEntry([]state.Command{cmd})
	if err != nil {
		return err
	}
	results, _, err := tables.Apply(index, max(term, 1), entry)
	if err != nil {
		return err
	}
	if refusal := results[0].Err; refusal != nil {
		return refusal
	}
	return nil
}

func exists(path string) error {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return api.Errorf(api.NotFound, "%s is not there: no daemon was ever started with this INCUS_DIR", path).
			WithHint("set INCUS_DIR to the state directory of the server")
	}
	if errors.Is(err, fs.ErrPermission) {
		return api.Errorf(api.NotAuthorized, "You may not read %s", path).
			WithHint("run the command as root, or as the user of the daemon")
	}
	return err
}

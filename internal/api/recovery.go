package api

import (
	"context"
	"io"
	"net/http"
	"time"

	"incusd/api"
)

// Recovery shows, backs up and restores this member's copy of the replicated state.
type Recovery interface {
	// Database describes the copy as it is; it asks nobody.
	Database() (api.ClusterDatabase, error)
	// RemoveRaftNode blocks until the Raft server at address, which has no member's row, is gone.
	// It fails with api.NotFound if there is none.
	RemoveRaftNode(ctx context.Context, address string) error
	// Backup writes all of the replicated state, as of one index.
	Backup(ctx context.Context, w io.Writer) error
	// Restore makes what Backup wrote the state of this server, which must be a standalone one
	// without anything of its own. name and address may be empty where they are clear.
	Restore(ctx context.Context, r io.Reader, name, address string) (api.ClusterRestored, error)
}

const (
	// transferTime bounds the reading or writing of a backup.
	transferTime = 10 * time.Minute
	// maxBackup bounds a backup that is sent, in bytes.
	maxBackup = 1<<30 + 1
)

// databaseGet shows this member's copy: GET /internal/cluster/database.
func (s *Server) databaseGet(*call) (reply, error) {
	db, err := s.cfg.Recovery.Database()
	return reply{metadata: db}, err
}

// raftNodeDelete removes a Raft server without a member: DELETE
// /internal/cluster/raft-node/{address}.
func (s *Server) raftNodeDelete(c *call) (reply, error) {
	return empty, s.cfg.Recovery.RemoveRaftNode(c.Context(), c.name("address"))
}

// backupGet sends the replicated state: GET /internal/cluster/backup. What breaks off cannot be
// told any more; the checksum at its end is missing then.
func (s *Server) backupGet(c *call) (reply, error) {
	if _, err := s.cfg.Store.Read(c.Context()); err != nil { // else nothing could be told of it
		return reply{}, err
	}
	return reply{serve: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		ctx, cancel := context.WithTimeout(r.Context(), transferTime)
		defer cancel()
		if err := s.cfg.Recovery.Backup(ctx, w); err != nil {
			s.cfg.Log.Error("a backup was cut off", "err", err)
			panic(http.ErrAbortHandler)
		}
	}}, nil
}

// restorePut makes the backup in its body the state of this server: PUT
// /internal/cluster/restore?name=&address=.
func (s *Server) restorePut(c *call) (reply, error) {
	restored, err := s.cfg.Recovery.Restore(c.Context(), io.LimitReader(c.Body, maxBackup), c.param("name"), c.param("address"))
	return reply{metadata: restored}, err
}

package recovery

import (
	"errors"
	"path/filepath"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// Files say where a server keeps what this package works on.
type Files struct {
	// Dir is the state directory, in which the server's key pair is.
	Dir string
	// Database is the folder with all that follows; LocalStore a file in it, Replicas a folder.
	Database, LocalStore, Replicas string
}

// A Server is a stopped one. While it is open no daemon can start on it.
type Server struct {
	files Files
	local *localstore.Store
	// replica is the one in use, copy what it holds.
	replica localstore.Replica
	copy    *raftstore.Copy
}

// Open opens the stores of a stopped server. It fails with api.Conflict while its daemon runs, with
// api.NotFound where no daemon ever ran, and as raftstore.ReadCopy does.
func Open(files Files) (*Server, error) {
	if err := exists(files.LocalStore); err != nil {
		return nil, err
	}
	local, err := localstore.Open(files.LocalStore)
	if errors.Is(err, api.Conflict) {
		return nil, Running()
	}
	if err != nil {
		return nil, err
	}
	s := &Server{files: files, local: local}
	if err := s.read(); err != nil {
		return nil, errors.Join(err, local.Close())
	}
	return s, nil
}

// Running is the refusal of all that needs the daemon to be stopped.
func Running() error {
	return api.Errorf(api.Conflict, "The daemon is running, please stop it first.").
		WithHint("incus admin shutdown")
}

func (s *Server) read() error {
	replica, ok := s.local.Current()
	if !ok {
		return api.Errorf(api.NotFound, "%s names no replica: the daemon has not been started yet", s.files.LocalStore)
	}
	var err error
	s.replica = replica
	s.copy, err = raftstore.ReadCopy(s.folder(replica))
	return err
}

func (s *Server) folder(r localstore.Replica) string { return filepath.Join(s.files.Replicas, r.Dir) }

// Close gives the stores back.
func (s *Server) Close() error { return s.local.Close() }

// Database describes the server's copy.
func (s *Server) Database() api.ClusterDatabase {
	return Describe(s.copy.Tables.View(), s.copy.Extent.Last, s.local.Moved())
}

// Describe lists the members of view with their database roles: who votes is Raft's word, the rest
// the state's. lastIndex is that of the last entry of the log. moved are addresses that were
// noted and that the cluster does not have yet.
func Describe(view *state.View, lastIndex uint64, moved map[string]localstore.Move) api.ClusterDatabase {
	db := api.ClusterDatabase{LastIndex: lastIndex, Members: []api.ClusterDatabaseMember{}}
	if !view.Cluster().Enabled {
		return db
	}
	for _, m := range view.Members() {
		row := api.ClusterDatabaseMember{ID: m.Number, Name: m.Name, Address: m.Address, Role: state.RoleSpare}
		if move, ok := moved[m.ID]; ok && move.From == m.Address {
			row.Address = move.To
		}
		switch {
		case view.IsVoter(m.ID):
			row.Role = state.RoleVoter
		case m.Role == state.RoleStandby:
			row.Role = state.RoleStandby
		}
		db.Members = append(db.Members, row)
	}
	return db
}

package daemon

import (
	"errors"
	"os"
	"path/filepath"

	"incusd/api"
)

// Paths is the layout of a server's files.
type Paths struct {
	// Dir is the state directory.
	Dir string
	// Socket is the unix socket of the REST API.
	Socket string
}

// DefaultPaths follows INCUS_DIR and INCUS_SOCKET.
func DefaultPaths() Paths {
	dir := os.Getenv("INCUS_DIR")
	if dir == "" {
		dir = "/var/lib/incus"
	}
	socket := os.Getenv("INCUS_SOCKET")
	if socket == "" {
		socket = filepath.Join(dir, "unix.socket")
	}
	return Paths{Dir: dir, Socket: socket}
}

func (p Paths) database() string   { return filepath.Join(p.Dir, "database") }
func (p Paths) localStore() string { return filepath.Join(p.database(), "local.db") }
func (p Paths) replicas() string   { return filepath.Join(p.database(), "global") }

func (p Paths) clusterCert() string { return filepath.Join(p.Dir, "cluster.crt") }
func (p Paths) clusterKey() string  { return filepath.Join(p.Dir, "cluster.key") }

// prepare makes the folders; see protect for those that exist. The state directory can be entered by all, since the
// socket in it has rights of its own; the stores are for the daemon alone.
func (p Paths) prepare() error {
	if err := os.MkdirAll(p.Dir, 0o711); err != nil {
		return err
	}
	return os.MkdirAll(p.replicas(), 0o700)
}

// checkTogether refuses to begin anew where replicas lie and the note of which counts is
// gone: a server that was a member would come up as another one.
func (p Paths) checkTogether() error {
	if _, err := os.Stat(p.localStore()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(p.replicas())
	if err != nil || len(entries) == 0 {
		return err
	}
	return api.Errorf(api.StoreDamaged, "%s is missing, but %s holds a replica", p.localStore(), p.replicas())
}

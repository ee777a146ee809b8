package daemon

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// protect takes from others what they may not do with the state directory: write into
// it, and read keys and stores. Somebody who could may have done it already, so each
// mending is a warning. Another owner is only warned of: it may be how this server is set up,
// and to give files away is the administrator's decision.
func (p Paths) protect(log *slog.Logger) error {
	if err := restrict(p.Dir, 0o022, log); err != nil {
		return err
	}
	keys, err := os.ReadDir(p.Dir)
	if err != nil {
		return err
	}
	for _, entry := range keys {
		if entry.Type().IsRegular() && (strings.HasSuffix(entry.Name(), ".key") || strings.HasSuffix(entry.Name(), ".key.saving")) {
			if err := restrict(filepath.Join(p.Dir, entry.Name()), 0o077, log); err != nil {
				return err
			}
		}
	}
	return filepath.WalkDir(p.database(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() && !entry.Type().IsRegular() {
			return nil // a link leads elsewhere, where others rule
		}
		if info, err := entry.Info(); err == nil && entry.IsDir() && path != p.database() && info.Mode().Perm()&0o077 == 0 {
			return fs.SkipDir // nobody else could reach what is in it
		}
		return restrict(path, 0o077, log)
	})
}

// restrict takes the permissions of mask from a file or folder.
func restrict(path string, mask fs.FileMode, log *slog.Logger) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // what lies here changes while a join is settled
	}
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		log.Warn("a file of this server belongs to another user, who can read and change it; give it to the daemon's user: chown",
			"path", path, "uid", owner.Uid)
	}
	mode := info.Mode().Perm()
	if mode&mask == 0 {
		return nil
	}
	if err := os.Chmod(path, mode&^mask); err != nil {
		return err
	}
	log.Warn("other users had access that they must not have; it was taken away. If one of them is not trusted, replace this server's keys",
		"path", path, "mode", mode.String(), "now", (mode &^ mask).String())
	return nil
}

package conf

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"incusd/api"
)

const (
	// lockLimit is how long another process may hold the configuration.
	lockLimit = 5 * time.Second
	lockPause = 20 * time.Millisecond
)

// locked runs work while no other process of ours changes the files in the user's folder, which is
// made if need be. The lock is on the folder itself: nothing is left behind.
func locked(d Dirs, work func() error) error {
	if d.User == "" {
		return api.Errorf(api.BadRequest, "There is no place for the configuration file").WithHint("set INCUS_CONF or HOME to a folder")
	}
	if err := os.MkdirAll(d.User, 0o700); err != nil {
		return err
	}
	dir, err := os.Open(d.User)
	if err != nil {
		return err
	}
	defer dir.Close() // gives the lock up
	for end := time.Now().Add(lockLimit); ; time.Sleep(lockPause) {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return work()
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return &fs.PathError{Op: "lock", Path: d.User, Err: err}
		case time.Now().After(end):
			return api.Errorf(api.Timeout, "Another incus command has been changing %s for %s", d.User, lockLimit).
				WithHint("wait until it ends, and try again")
		}
	}
}

// modeOf is the mode of a file, or fallback if there is none.
func modeOf(path string, fallback fs.FileMode) fs.FileMode {
	if info, err := os.Stat(path); err == nil {
		return info.Mode().Perm()
	}
	return fallback
}

// replaceFile writes a file so that whoever reads it sees the old content or the new, never a part.
// A link to it stays one.
func replaceFile(path string, data []byte, mode fs.FileMode) (err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	err = cmp.Or(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

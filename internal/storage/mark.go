package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"incusd/api"
)

// markFile is in the root of a pool that is a folder or a file system: it says whose that is. It
// comes and goes with the disk, so that what lies below a mount point is never taken for the pool.
const markFile = ".incus-pool"

// probeSize is how much a folder must take to be good for a pool, in bytes.
const probeSize = 64 << 10

// A mark is what stands in markFile. A damaged one is nobody's: the zero mark.
type mark struct {
	ID    string `json:"id"`
	Owner string `json:"owner"`
	Name  string `json:"name"`
}

func markOf(p Pool) mark { return mark{ID: p.ID, Owner: p.Owner, Name: p.Name} }

// isOf tells whether the mark is the pool's. The name is for people only.
func (m mark) isOf(p Pool) bool { return m.ID == p.ID && m.Owner == p.Owner }

func (m mark) String() string {
	if m.Name == "" {
		return "an unknown storage pool"
	}
	return fmt.Sprintf("the storage pool %q (%s)", m.Name, m.ID)
}

// readMark reads the mark of a folder.
func readMark(folder string) (m mark, marked bool, err error) {
	data, err := os.ReadFile(filepath.Join(folder, markFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return mark{}, false, nil
	case err != nil:
		return mark{}, false, err
	case json.Unmarshal(data, &m) != nil:
		return mark{}, true, nil
	}
	return m, true, nil
}

// draft is the name of what is begun in a folder and not yet what it shall be. It has the pool's
// key, so that what a crash leaves of it is known to be the pool's, with a mark and without.
func draft(folder string, p Pool) string { return filepath.Join(folder, ".incus-"+p.key()) }

// claim proves that the folder takes data, and marks it as the pool's. The mark appears as a whole,
// and only where none is: of two that claim one folder, one is refused.
func claim(folder string, p Pool) (err error) {
	name := draft(folder, p)
	defer func() { err = errors.Join(err, removeFile(name)) }()
	if err := writeSynced(name, make([]byte, probeSize)); err != nil {
		return err
	}
	text, err := json.Marshal(markOf(p))
	if err != nil {
		return err
	}
	if err := writeSynced(name, append(text, '\n')); err != nil {
		return err
	}
	switch err := os.Link(name, filepath.Join(folder, markFile)); {
	case errors.Is(err, fs.ErrExist):
		return checkUnclaimed(folder)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP):
		return api.Errorf(api.ConfigInvalid, "'%s' is on a file system without hard links", folder).WithHint("choose a folder on another file system")
	case err != nil:
		return err
	}
	return syncFolder(folder)
}

// checkUnclaimed refuses a folder that is a pool, or lies in one.
func checkUnclaimed(path string) error {
	real := resolve(path)
	for at := real; ; at = filepath.Dir(at) {
		// A folder above that cannot be read has no mark of this daemon's.
		m, marked, err := readMark(at)
		switch {
		case marked && at == real:
			return api.Errorf(api.Conflict, "'%s' is %s already", path, m).WithHint("choose another folder, or delete that storage pool first")
		case marked:
			return api.Errorf(api.Conflict, "'%s' lies in %s, at '%s'", path, m, at).WithHint("choose a folder outside of that storage pool")
		case err != nil && at == real && !errors.Is(err, unix.ENOTDIR):
			return err
		case at == filepath.Dir(at):
			return nil
		}
	}
}

// checkOwned says why a folder is not the pool: api.Unavailable.
func checkOwned(folder string, p Pool) error {
	m, marked, err := readMark(folder)
	switch _, missing := os.Stat(folder); {
	case errors.Is(missing, fs.ErrNotExist):
		return api.Errorf(api.Unavailable, "Source path '%s' doesn't exist", folder).WithHint("mount or restore it; the pool comes back by itself")
	case errors.Is(err, unix.ENOTDIR):
		return api.Errorf(api.Unavailable, "Source path '%s' isn't a folder", folder)
	case err != nil:
		return err
	case !marked:
		return api.Errorf(api.Unavailable, "The storage pool %q isn't at '%s': the file %s is missing there. Is the disk not mounted?", p.Name, folder, markFile).
			WithHint("mount the disk; the pool comes back by itself")
	case !m.isOf(p):
		return api.Errorf(api.Unavailable, "'%s' is %s, not this one (%s)", folder, m, p.ID).WithHint("mount the right disk; the pool comes back by itself")
	}
	return nil
}

// release takes what is the pool's from a folder: what empty removes, and the mark at last, so that
// a release that was cut off is gone on with. A folder that is not the pool's is left alone; kept
// says so when something is in it.
func release(folder string, p Pool, empty func() error) (kept string, err error) {
	if err := removeFile(draft(folder, p)); err != nil {
		return "", err
	}
	m, marked, err := readMark(folder)
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Sprintf("'%s' isn't a folder", folder), nil
	case err != nil:
		return "", err
	case marked && !m.isOf(p):
		return fmt.Sprintf("'%s' is %s", folder, m), nil
	case !marked:
		if entries, err := os.ReadDir(folder); err == nil && len(entries) > 0 {
			return fmt.Sprintf("'%s' has no mark of the pool", folder), nil
		}
		return "", nil
	}
	if err := empty(); err != nil {
		return "", err
	}
	if err := removeFile(filepath.Join(folder, markFile)); err != nil {
		return "", err
	}
	return "", syncFolder(folder)
}

// removeFile removes a file; none is as good.
func removeFile(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	return nil
}

// removeFolder removes a folder with nothing in it. One that is in use, or no folder, was there
// before the pool or is somebody else's by now; kept says so.
func removeFolder(path string) (kept string, err error) {
	switch err := unix.Rmdir(path); {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return fmt.Sprintf("'%s' has something in it that is not the pool's", path), nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOTDIR):
		return fmt.Sprintf("'%s' is a mount point or a link", path), nil
	default:
		return "", fmt.Errorf("remove %s: %w", path, err)
	}
}

func writeSynced(name string, data []byte) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

// syncFolder makes the names in a folder outlive a power cut.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

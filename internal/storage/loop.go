package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"incusd/api"
)

const (
	mebibyte = 1 << 20
	gibibyte = 1 << 30
	// minLoop is the smallest loop file: below it no file system makes sense, in bytes.
	minLoop = 128 * mebibyte
	// loopOverhead is what a new file system writes at once, at most, in bytes.
	loopOverhead = 64 * mebibyte
)

// checkLoop refuses a loop file that cannot be made.
func (at place) checkLoop(p Pool) error {
	if _, err := os.Lstat(at.loopFile(p)); err == nil {
		return api.Errorf(api.Conflict, "The loop file '%s' is there already", at.loopFile(p)).WithHint("move it away, or choose another name for the pool")
	}
	size, err := at.loopSize(p)
	if err != nil {
		return err
	}
	if size < minLoop {
		return api.Errorf(api.ConfigInvalid, "Invalid value for option %q: a loop file needs at least %d MiB", "size", minLoop/mebibyte)
	}
	left, err := free(at.dir)
	if err != nil {
		return err
	}
	if left < loopOverhead {
		return fmt.Errorf("%d MiB are free at %s, a new file system takes %d MiB: %w", left/mebibyte, at.dir, loopOverhead/mebibyte, syscall.ENOSPC)
	}
	return nil
}

// loopSize is the size of the pool's loop file in bytes: that of the key, else a fifth of what is
// free, between 5 and 30 GiB.
func (at place) loopSize(p Pool) (uint64, error) {
	if text := p.Config["size"]; text != "" {
		return ParseSize(text)
	}
	left, err := free(at.dir)
	if err != nil {
		return 0, err
	}
	return min(max(left/5/gibibyte, 5), 30) * gibibyte, nil
}

// createLoop makes the file; it takes space as it is written.
func (at place) createLoop(p Pool) (size uint64, err error) {
	if size, err = at.loopSize(p); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(filepath.Dir(at.loopFile(p)), 0o700); err != nil {
		return 0, err
	}
	file, err := os.OpenFile(at.loopMark(p), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(file.Truncate(int64(size)), file.Close()); err != nil {
		return 0, err
	}
	if err := os.Link(at.loopMark(p), at.loopFile(p)); errors.Is(err, fs.ErrExist) {
		return 0, at.checkLoop(p)
	} else if err != nil {
		return 0, err
	}
	return size, syncFolder(filepath.Dir(at.loopFile(p)))
}

// loopMark is a second name of the pool's loop file, with the pool's key. It is the first that the
// file gets and the last that it loses: so the file that has both is the pool's, whatever was put in
// its place meanwhile and wherever a crash was. A mark in the file would be lost to mkfs.
func (at place) loopMark(p Pool) string { return draft(filepath.Dir(at.loopFile(p)), p) }

// ownsLoop tells whether the loop file is the pool's.
func (at place) ownsLoop(p Pool) bool {
	file, err := os.Lstat(at.loopFile(p))
	mark, err2 := os.Lstat(at.loopMark(p))
	return err == nil && err2 == nil && os.SameFile(file, mark)
}

// removeLoop gives the loop device back and removes the file, if it is the pool's.
func (at place) removeLoop(ctx context.Context, run runner, p Pool) (kept string, err error) {
	if at.ownsLoop(p) {
		if err := at.detachLoop(ctx, run, p); err != nil {
			return "", err
		}
		if err := removeFile(at.loopFile(p)); err != nil {
			return "", err
		}
	} else if _, err := os.Lstat(at.loopFile(p)); err == nil {
		kept = fmt.Sprintf("the loop file '%s' isn't the pool's: it was there before, or was put there later", at.loopFile(p))
	}
	return kept, removeFile(at.loopMark(p))
}

// growLoop gives the file the size that next says, if that is another one, and its loop device with it.
// device is "" if it has none.
func (at place) growLoop(ctx context.Context, run runner, before, next Pool) (grown bool, device string, err error) {
	text := next.Config["size"]
	if !at.isLoop(next) || text == "" || text == before.Config["size"] {
		return false, "", nil
	}
	size, err := ParseSize(text)
	if err != nil {
		return false, "", err
	}
	file := at.loopFile(next)
	info, err := os.Stat(file)
	if err != nil {
		return false, "", err
	}
	if uint64(info.Size()) > size {
		return false, "", api.Errorf(api.ConfigInvalid, "Invalid value for option %q: the pool has %s and cannot shrink", "size", FormatSize(uint64(info.Size())))
	}
	if err := os.Truncate(file, int64(size)); err != nil {
		return false, "", err
	}
	if device, err = loopDevice(file); err != nil || device == "" {
		return true, device, err
	}
	_, err = run(ctx, "losetup", "--set-capacity", device)
	return true, device, err
}

// loopDevice finds the loop device that has a file; "" if none has.
func loopDevice(file string) (string, error) {
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", err
	}
	real := resolve(file) // the kernel knows the file without symlinks
	for _, name := range backing {
		if has, err := os.ReadFile(name); err == nil && string(has) == real+"\n" {
			return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(name))), nil
		}
	}
	return "", nil
}

// detachLoop gives the loop device of the pool's file back.
func (at place) detachLoop(ctx context.Context, run runner, p Pool) error {
	device, err := loopDevice(at.loopFile(p))
	if err != nil || device == "" {
		return err
	}
	_, err = run(ctx, "losetup", "--detach", device)
	return err
}

// attachLoop makes a block device of the pool's file, and returns its path.
func (at place) attachLoop(ctx context.Context, run runner, p Pool) (string, error) {
	if device, err := loopDevice(at.loopFile(p)); err != nil || device != "" {
		return device, err
	}
	if _, err := run(ctx, "losetup", "--find", at.loopFile(p)); err != nil {
		return "", err
	}
	return loopDevice(at.loopFile(p))
}

package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"incusd/api"
)

const (
	// commandTime bounds one call of a tool, such as mkfs.
	commandTime = 2 * time.Minute
	// probeTime bounds finding out which drivers work.
	probeTime = 10 * time.Second
)

// A runner runs a tool and returns what it printed.
type runner func(ctx context.Context, name string, args ...string) (string, error)

// execute runs a tool of this machine, without a shell and with messages in English.
func execute(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	switch {
	case err == nil:
		return out.String(), nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s took too long: %w", name, ctx.Err())
	}
	said := strings.Join(strings.Fields(problems.String()+" "+out.String()), " ")
	if strings.Contains(said, "No space left on device") {
		return "", fmt.Errorf("%s: %w", name, syscall.ENOSPC)
	}
	if said == "" {
		said = err.Error()
	}
	return "", fmt.Errorf("%s: %s", name, said)
}

// explain gives an error of the operating system its reason.
func explain(err error) error {
	var reasoned *api.Error
	switch {
	case err == nil, errors.As(err, &reasoned):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return api.Errorf(api.DiskFull, "No space left on the disk: %v", err).
			WithHint("free space on the disk of the pool's source, then run the same command again")
	case errors.Is(err, fs.ErrPermission):
		return api.Errorf(api.NotPermitted, "Not permitted: %v", err)
	case errors.Is(err, syscall.EROFS):
		return api.Errorf(api.ConfigInvalid, "The disk can only be read: %v", err).WithHint("choose another source, or mount it for writing")
	}
	return err
}

// saidNo tells whether a tool has answered that there is no such thing. One that was cut off has
// answered nothing.
func saidNo(err error) bool {
	return err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// tools says which of the tools are not installed; nil if all are.
func tools(names ...string) error {
	var missing []string
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	switch len(missing) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("the tool %s is not installed", missing[0])
	}
	return fmt.Errorf("the tools %s are not installed", strings.Join(missing, ", "))
}

func asRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("the daemon does not run as root")
	}
	return nil
}

// kernelHas tells whether the kernel knows a file system, loading its module if it is there.
func kernelHas(ctx context.Context, filesystem string, run runner) bool {
	known := func() bool {
		list, err := os.ReadFile("/proc/filesystems")
		return err == nil && strings.Contains(string(list), "\t"+filesystem+"\n")
	}
	if known() {
		return true
	}
	_, err := run(ctx, "modprobe", filesystem)
	return err == nil && known()
}

// A mount is one line of this process's mounts.
type mount struct{ point, source string }

// mounts lists what is mounted, in the order in which it was. Paths there have no symlinks.
func mounts() ([]mount, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	// Blanks and the like stand there in octal.
	plain := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var all []mount
	for line := range strings.Lines(string(text)) {
		place, what, _ := strings.Cut(line, " - ")
		where, which := strings.Fields(place), strings.Fields(what)
		if len(where) > 4 && len(which) > 1 {
			all = append(all, mount{point: plain.Replace(where[4]), source: plain.Replace(which[1])})
		}
	}
	return all, nil
}

// mountedAt is the source of what is mounted at path: of the last, which hides those before it.
func mountedAt(path string) (source string, mounted bool, err error) {
	all, err := mounts()
	real := resolve(path)
	for _, m := range all {
		if m.point == real {
			source, mounted = m.source, true
		}
	}
	return source, mounted, err
}

// checkNoMounts refuses a folder that something is mounted at, or somewhere in.
func checkNoMounts(path string) error {
	all, err := mounts()
	if err != nil {
		return err
	}
	real := resolve(path)
	for _, m := range all {
		if isWithin(real, m.point) {
			return api.Errorf(api.Conflict, "'%s' cannot be removed: '%s' is mounted at '%s'", path, m.source, m.point).WithHint("unmount it, then try again")
		}
	}
	return nil
}

// resolve is the path without symlinks, as far as it exists.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return absolute(real)
	}
	path = absolute(path)
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolve(parent), filepath.Base(path))
}

func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}

// isWithin tells whether path is the folder or in it.
func isWithin(folder, path string) bool {
	inside, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(inside)
}

// measure asks the file system at path.
func measure(path string) (*api.ResourcesStoragePool, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return nil, fmt.Errorf("measure %s: %w", path, err)
	}
	unit := uint64(s.Bsize)
	return &api.ResourcesStoragePool{
		Space:  api.ResourcesStoragePoolSpace{Used: (s.Blocks - s.Bfree) * unit, Total: s.Blocks * unit},
		Inodes: api.ResourcesStoragePoolInodes{Used: s.Files - s.Ffree, Total: s.Files},
	}, nil
}

// free is how many bytes may still be written at path.
func free(path string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, fmt.Errorf("measure %s: %w", path, err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// isBlockDevice tells whether path is a disk or a partition.
func isBlockDevice(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0
}

// signature is what is found on a block device: its type, "" when it is empty.
func signature(ctx context.Context, run runner, device string) (string, error) {
	out, err := run(ctx, "wipefs", "--no-act", "--noheadings", "--output", "TYPE", device)
	if err != nil {
		return "", err
	}
	return strings.Join(strings.Fields(out), ", "), nil
}

// wipe takes away what is on the pool's block device, where source.wipe says so.
func wipe(ctx context.Context, run runner, p Pool) error {
	if p.Config["source.wipe"] != "true" {
		return nil
	}
	_, err := run(ctx, "wipefs", "--all", p.Config["source"])
	return err
}

// checkDevice refuses a block device that something is on, unless it may be wiped.
func checkDevice(ctx context.Context, run runner, p Pool) error {
	device := p.Config["source"]
	if p.Config["source.wipe"] == "true" {
		return nil
	}
	found, err := signature(ctx, run, device)
	if err != nil {
		return err
	}
	if found != "" {
		return api.Errorf(api.ConfigInvalid, "Source device '%s' isn't empty: it has %s", device, found).
			WithHint("choose an empty device, or set source.wipe=true to lose what is on it")
	}
	return nil
}

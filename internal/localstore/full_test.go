package localstore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"incusd/api"
)

// A change that a full disk does not take changes nothing, and the store is as good as before.
func TestFullDiskChangesNothingAndSpaceMendsIt(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a small disk of its own needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "local.db")
	s := mustOpen(t, path)
	must(t, s.SetConfig(map[string]string{"user.a": "1"}))
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	large := strings.Repeat("x", 64<<10)
	for range 2 {
		if err := s.SetConfig(map[string]string{"user.a": "2", "user.b": large}); !errors.Is(err, api.DiskFull) {
			t.Fatalf("got %v", err)
		}
		if got := s.Config(); got["user.a"] != "1" || len(got) != 1 {
			t.Errorf("a change that was refused is seen: %d keys, %q", len(got), got["user.a"])
		}
	}
	s = reopened(t, s)
	if got := s.Config(); got["user.a"] != "1" || len(got) != 1 {
		t.Errorf("after a restart on the full disk: %d keys, %q", len(got), got["user.a"])
	}
	must(t, os.Remove(filler))
	must(t, s.SetConfig(map[string]string{"user.a": "2", "user.b": large}))
	if got := reopened(t, s).Config(); got["user.a"] != "2" || got["user.b"] != large {
		t.Errorf("with space again: %q and %d bytes", got["user.a"], len(got["user.b"]))
	}
}

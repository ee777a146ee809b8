package daemon

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever the daemon writes that holds a secret, nobody else can read.
func TestSecretsAreForTheDaemonAlone(t *testing.T) {
	cfg := testConfig(t)
	d, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.settings.Update(t.Context(), map[string]string{"cluster.https_address": "10.0.0.1:8443"}, false, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.bootstrap(t.Context(), "node1", nil, func(string) {}); err != nil {
		t.Fatal(err)
	}
	d.Stop(t.Context())
	seen := 0
	err = filepath.WalkDir(cfg.Paths.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		secret := strings.HasPrefix(path, cfg.Paths.database()) || strings.HasSuffix(path, ".key")
		if secret {
			seen++
		}
		if entry.Name() == "snapshots" {
			return fs.SkipDir // made by a library that thinks otherwise, in a folder that is closed
		}
		if mode := info.Mode().Perm(); secret && mode&0o077 != 0 || mode&0o022 != 0 {
			t.Errorf("%s has mode %v", path, mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 6 { // two keys, the folder of the stores, the stores
		t.Errorf("only %d secret files were seen", seen)
	}
}

func TestStartTakesAccessFromOthers(t *testing.T) {
	cfg := testConfig(t)
	d, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d.Stop(t.Context())
	key := filepath.Join(cfg.Paths.Dir, "server.key")
	modes := map[string]fs.FileMode{cfg.Paths.Dir: 0o777, key: 0o644, cfg.Paths.database(): 0o755, cfg.Paths.localStore(): 0o660}
	for path, mode := range modes {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	if d, err = Start(cfg); err != nil {
		t.Fatal(err)
	}
	d.Stop(t.Context())
	want := map[string]fs.FileMode{cfg.Paths.Dir: 0o755, key: 0o600, cfg.Paths.database(): 0o700, cfg.Paths.localStore(): 0o600}
	for path, mode := range want {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, expected %v", path, info.Mode().Perm(), mode)
		}
		if !strings.Contains(log.String(), "path="+path) {
			t.Errorf("no warning about %s", path)
		}
	}
}

// Links may be how an administrator puts the stores on another disk.
func TestLinkedStoresAreLeftAlone(t *testing.T) {
	cfg := testConfig(t)
	elsewhere := t.TempDir()
	if err := os.Chmod(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(cfg.Paths.Dir, "database"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, cfg.Paths.replicas()); err != nil {
		t.Fatal(err)
	}
	d, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d.Stop(t.Context())
	if info, err := os.Stat(elsewhere); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

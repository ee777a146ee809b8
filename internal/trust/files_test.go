package trust

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"incusd/api"
)

type files struct{ dir, cert, key string }

func newFiles(t *testing.T) files {
	dir := t.TempDir()
	return files{dir, filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")}
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoadOrGenerateMakesAPairOnce(t *testing.T) {
	f := newFiles(t)
	first, err := LoadOrGenerate(f.dir, "server", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrGenerate(f.dir, "server", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if first.Fingerprint() != second.Fingerprint() {
		t.Error("the second start made another pair")
	}
	if !bytes.Equal(first.KeyPEM, second.KeyPEM) || !bytes.Equal(first.CertPEM, second.CertPEM) {
		t.Error("the files differ from the pair that was made")
	}
	for name, want := range map[string]fs.FileMode{f.cert: 0o644, f.key: 0o600} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		// The umask may take rights away, never add some.
		if got := info.Mode().Perm(); got&^want != 0 || got&0o600 != 0o600 {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
	entries, _ := os.ReadDir(f.dir)
	if len(entries) != 2 {
		t.Errorf("files left behind: %v", entries)
	}
}

func TestLoadOrGenerateRefusesHalfAPairByName(t *testing.T) {
	pair := generate(t, Server)
	for _, test := range []struct{ there, missing string }{{"server.crt", "server.key"}, {"server.key", "server.crt"}} {
		f := newFiles(t)
		data := pair.CertPEM
		if test.there == "server.key" {
			data = pair.KeyPEM
		}
		write(t, filepath.Join(f.dir, test.there), data)
		_, err := LoadOrGenerate(f.dir, "server", time.Now())
		want := filepath.Join(f.dir, test.there) + " exists but " + filepath.Join(f.dir, test.missing) + " does not"
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if _, err := os.Stat(filepath.Join(f.dir, test.missing)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was made", test.missing)
		}
	}
}

func TestLoadRefusesFilesThatAreNoPair(t *testing.T) {
	pair, other := generate(t, Server), generate(t, Server)
	for _, test := range []struct {
		name      string
		cert, key []byte
		want      string
	}{
		{"two pairs", pair.CertPEM, other.KeyPEM, "are not a usable pair: private key does not match public key"},
		{"no certificate", []byte("x"), pair.KeyPEM, "are not a usable pair: failed to find any PEM data in certificate input"},
		{"empty key", pair.CertPEM, nil, "are not a usable pair: failed to find any PEM data in key input"},
		{"huge", bytes.Repeat([]byte("x"), maxMaterial+1), pair.KeyPEM, "has 65537 bytes"},
	} {
		f := newFiles(t)
		write(t, f.cert, test.cert)
		write(t, f.key, test.key)
		for _, load := range []func() (*KeyPair, error){
			func() (*KeyPair, error) { return Load(f.cert, f.key) },
			func() (*KeyPair, error) { return LoadOrGenerate(f.dir, "server", time.Now()) },
		} {
			_, err := load()
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), f.cert) {
				t.Errorf("%s: got %v, want the file's name and %q", test.name, err, test.want)
			}
		}
	}
	if _, err := Load("no.crt", "no.key"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no.crt") {
		t.Errorf("missing file: %v", err)
	}
}

func TestLoadTakesRSAKeysOfTheUser(t *testing.T) {
	f := newFiles(t)
	cert, key := rsaPair(t)
	write(t, f.cert, cert)
	write(t, f.key, key)
	pair, err := Load(f.cert, f.key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pair.KeyPEM, key) {
		t.Error("the key was changed")
	}
}

// Save is stopped after each of its steps; what is found afterwards must be a pair.
func TestSaveInterruptedAnywhereLeavesAWholePair(t *testing.T) {
	old, fresh := generate(t, Server), generate(t, Server)
	for _, replacing := range []bool{false, true} {
		for _, test := range []struct {
			name  string
			steps func(f files)
			isNew bool
		}{
			{"key written", func(f files) { write(t, pending(f.key), fresh.KeyPEM) }, false},
			{"key half written", func(f files) { write(t, pending(f.key), fresh.KeyPEM[:50]) }, false},
			{"both written", func(f files) {
				write(t, pending(f.key), fresh.KeyPEM)
				write(t, pending(f.cert), fresh.CertPEM)
			}, false},
			{"key moved", func(f files) {
				write(t, f.key, fresh.KeyPEM)
				write(t, pending(f.cert), fresh.CertPEM)
			}, true},
			{"both moved", func(f files) {
				write(t, f.key, fresh.KeyPEM)
				write(t, f.cert, fresh.CertPEM)
			}, true},
		} {
			f := newFiles(t)
			if replacing {
				if err := old.Save(f.cert, f.key); err != nil {
					t.Fatal(err)
				}
			}
			test.steps(f)
			pair, err := LoadOrGenerate(f.dir, "server", time.Now())
			if err != nil {
				t.Errorf("%s, replacing %t: %v", test.name, replacing, err)
				continue
			}
			if got := Same(pair.Cert, fresh.Cert); got != test.isNew {
				t.Errorf("%s, replacing %t: new pair %t, want %t", test.name, replacing, got, test.isNew)
			}
			if got := Same(pair.Cert, old.Cert); got != (replacing && !test.isNew) {
				t.Errorf("%s, replacing %t: old pair %t", test.name, replacing, got)
			}
			// And the next Save is not disturbed by what lies about.
			if err := old.Save(f.cert, f.key); err != nil {
				t.Fatal(err)
			}
			if pair, err := Load(f.cert, f.key); err != nil || !Same(pair.Cert, old.Cert) {
				t.Errorf("%s, replacing %t: saving again: %v", test.name, replacing, err)
			}
		}
	}
}

func TestSaveReplacesAPairAndKeepsTheKeyPrivate(t *testing.T) {
	f := newFiles(t)
	if err := os.WriteFile(pending(f.key), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	pair := generate(t, Server)
	if err := pair.Save(f.cert, f.key); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(f.key); err != nil || info.Mode().Perm()&^0o600 != 0 {
		t.Errorf("key: %v, %v", info.Mode(), err)
	}
	if err := pair.Save(filepath.Join(f.dir, "none", "a.crt"), filepath.Join(f.dir, "none", "a.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
}

func TestFullDiskHasItsReason(t *testing.T) {
	if err := diskFull(&fs.PathError{Op: "write", Path: "server.key", Err: syscall.ENOSPC}); !errors.Is(err, api.DiskFull) || !strings.Contains(err.Error(), "server.key") {
		t.Errorf("got %v", err)
	}
	if err := diskFull(fs.ErrPermission); err != fs.ErrPermission {
		t.Errorf("got %v", err)
	}
}

package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"incusd/api"
)

// Modes of the two files of a pair.
const (
	certMode = 0o644
	keyMode  = 0o600
)

// Load reads a pair from its files, which may be user-supplied. It finishes a Save of
// the same files that a crash interrupted. Its errors name the files; when one is
// missing they match fs.ErrNotExist.
func Load(certFile, keyFile string) (*KeyPair, error) {
	if err := finishSave(certFile, keyFile); err != nil {
		return nil, err
	}
	return load(certFile, keyFile)
}

func load(certFile, keyFile string) (*KeyPair, error) {
	certPEM, err := readFile(certFile)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readFile(keyFile)
	if err != nil {
		return nil, err
	}
	pair, err := NewKeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s and %s are not a usable pair: %s; put back the pair that belongs together, or move both files away to have a new one made",
			certFile, keyFile, strings.TrimPrefix(err.Error(), "tls: "))
	}
	return pair, nil
}

// readFile reads a file of at most maxMaterial bytes.
func readFile(name string) ([]byte, error) { return readUpTo(name, maxMaterial) }

func readUpTo(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", name, info.Size(), limit)
	}
	return os.ReadFile(name)
}

// LoadOrGenerate loads the pair base.crt and base.key of dir, and makes it first when
// neither file exists, valid from now on. It refuses half a pair and files that do not belong together:
// others may already trust the certificate, so a new one is never made in its place.
func LoadOrGenerate(dir, base string, now time.Time) (*KeyPair, error) {
	certFile, keyFile := filepath.Join(dir, base+".crt"), filepath.Join(dir, base+".key")
	if err := finishSave(certFile, keyFile); err != nil {
		return nil, err
	}
	haveCert, err := exists(certFile)
	if err != nil {
		return nil, err
	}
	haveKey, err := exists(keyFile)
	if err != nil {
		return nil, err
	}
	switch {
	case haveCert && haveKey:
		return load(certFile, keyFile)
	case haveCert:
		return nil, halfPair(certFile, keyFile)
	case haveKey:
		return nil, halfPair(keyFile, certFile)
	}
	pair, err := GenerateAt(now, Server, LocalHosts()...)
	if err != nil {
		return nil, err
	}
	if err := pair.Save(certFile, keyFile); err != nil {
		return nil, err
	}
	return pair, nil
}

func halfPair(there, missing string) error {
	return fmt.Errorf("%s exists but %s does not: put the missing file back, or move the other one away to have a new pair made", there, missing)
}

// Save writes the pair to two files of one directory, which must exist. A crash leaves
// the old pair or the new one, once Load or LoadOrGenerate has looked at it. It fails
// with api.DiskFull when there is no space.
func (k *KeyPair) Save(certFile, keyFile string) error {
	// Two files cannot be replaced in one step. So both are written beside their targets,
	// then the key is moved, then the certificate: while the new certificate still waits
	// and the new key does not, the new pair is what counts. See finishSave.
	if err := writeFile(pending(keyFile), k.KeyPEM, keyMode); err != nil {
		return err
	}
	if err := writeFile(pending(certFile), k.CertPEM, certMode); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(keyFile)); err != nil {
		return err
	}
	if err := move(pending(keyFile), keyFile); err != nil {
		return err
	}
	return move(pending(certFile), certFile)
}

// finishSave makes the last step of a Save that was interrupted before it: the key is
// in place and the certificate that belongs to it is not. Other left-overs of a Save
// do no harm; the next one overwrites them.
func finishSave(certFile, keyFile string) error {
	haveCert, err := exists(pending(certFile))
	if err != nil || !haveCert {
		return err
	}
	if haveKey, err := exists(pending(keyFile)); err != nil || haveKey {
		return err
	}
	if _, err := load(pending(certFile), keyFile); err != nil {
		return nil // not what Save leaves; the files themselves are judged by the caller
	}
	return move(pending(certFile), certFile)
}

// pending is where Save writes a file before it is moved into place.
func pending(name string) string {
	return filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".saving")
}

func exists(name string) (bool, error) {
	_, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// writeFile writes a file that does not matter yet, and waits until it is on disk.
func writeFile(name string, data []byte, mode fs.FileMode) error {
	// A left-over may have another mode, and the mode counts only for new files.
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return diskFull(err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return diskFull(err)
}

func move(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return diskFull(err)
	}
	return syncDir(filepath.Dir(to))
}

// syncDir waits until the names in dir are on disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return diskFull(d.Sync())
}

// diskFull gives an error for want of space its reason.
func diskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return api.Errorf(api.DiskFull, "%v", err)
	}
	return err
}

package conf

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"incusd/api"
)

// Modes of what is written here.
const (
	configMode fs.FileMode = 0o600
	keyMode    fs.FileMode = 0o600
	certMode   fs.FileMode = 0o644
	dirMode    fs.FileMode = 0o750
)

// A ClientCert is what this client shows to servers.
type ClientCert struct {
	TLS tls.Certificate
	// PEM is the file of the certificate, as it is.
	PEM []byte
	// Roots are the authorities that servers' certificates may come from; nil where the user named none.
	Roots *x509.CertPool
}

// perRemote is the file of a remote in one of the folders for them; empty if there can be none.
func perRemote(base, folder, name, extension string) string {
	if base == "" || name == "" || strings.ContainsRune(name, '/') {
		return ""
	}
	return filepath.Join(base, folder, name+extension)
}

// serverCertPath is where the certificate of a remote's server is saved.
func (c *Config) serverCertPath(name string) string {
	base := c.dirs.User
	if c.remotes[name].Global {
		base = c.dirs.Global
	}
	return perRemote(base, "servercerts", name, ".crt")
}

// readOptional reads a file; a missing one is nil.
func readOptional(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// ServerCert is the certificate that was saved for a remote; nil if there is none.
func (c *Config) ServerCert(name string) (*x509.Certificate, error) {
	path := c.serverCertPath(name)
	data, err := readOptional(path)
	if data == nil || err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, api.Errorf(api.CertInvalid, "%s is not a PEM certificate", path).WithHint("add the remote anew: incus remote remove %s", name)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, api.Errorf(api.CertInvalid, "%s: %v", path, err).WithHint("add the remote anew: incus remote remove %s", name)
	}
	return cert, nil
}

// SaveServerCert saves the certificate that the servers of a remote show, or forgets the one that
// is saved if cert is nil. It belongs into a Change.
func (c *Config) SaveServerCert(name string, cert *x509.Certificate) error {
	path := perRemote(c.dirs.User, "servercerts", name, ".crt")
	if cert == nil {
		return removeFile(path)
	}
	return writeIn(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), certMode)
}

// ClientCert is what the client shows to the servers of a remote: a pair for that remote alone, if
// there is one, else the one for all. It is nil if there is neither.
func (c *Config) ClientCert(name string) (*ClientCert, error) {
	base := filepath.Join(c.dirs.User, "client")
	own := perRemote(c.dirs.User, "clientcerts", name, "")
	if exists(own+".crt") && exists(own+".key") {
		base = own
	}
	if c.dirs.User == "" || !exists(base+".crt") || !exists(base+".key") {
		return nil, nil
	}
	certPEM, err := os.ReadFile(base + ".crt")
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(base + ".key")
	if err != nil {
		return nil, err
	}
	if isEncrypted(keyPEM) {
		return nil, api.Errorf(api.CertInvalid, "%s.key is protected by a password, which this client does not ask for", base).
			WithHint("take the password off: openssl pkey -in %s.key -out %s.new && mv %s.new %s.key", base, base, base, base)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, api.Errorf(api.CertInvalid, "%s.crt and %s.key: %v", base, base, err).
			WithHint("move both files away; incus remote generate-certificate makes new ones, which servers have to be told of")
	}
	cert := &ClientCert{TLS: pair, PEM: certPEM}
	ca, err := readOptional(base + ".ca")
	if ca != nil {
		cert.Roots = x509.NewCertPool()
		if !cert.Roots.AppendCertsFromPEM(ca) {
			err = api.Errorf(api.CertInvalid, "%s.ca has no PEM certificate", base)
		}
	}
	return cert, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func isEncrypted(keyPEM []byte) bool {
	block, _ := pem.Decode(keyPEM)
	return block != nil && (block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"))
}

// MakeClientCert makes the pair that is for all remotes, unless there is one. It tells whether it
// made one.
func MakeClientCert(d Dirs, now time.Time) (made bool, err error) {
	err = locked(d, func() error {
		base := filepath.Join(d.User, "client")
		if exists(base+".crt") && exists(base+".key") {
			return nil
		}
		certPEM, keyPEM, err := generate(now)
		if err != nil {
			return fmt.Errorf("make a client certificate: %w", err)
		}
		// The certificate comes last: a key alone counts as nothing.
		if err := replaceFile(base+".key", keyPEM, keyMode); err != nil {
			return err
		}
		made = true
		return replaceFile(base+".crt", certPEM, certMode)
	})
	return made, err
}

// A remoteFile is a kind of file that belongs to one remote.
type remoteFile struct {
	folder, extension string
	mode              fs.FileMode
}

// serverFiles are about the servers of a remote, clientFiles the keys for it that the user has made.
func serverFiles() []remoteFile {
	return []remoteFile{{"servercerts", ".crt", certMode}, {"oidctokens", ".json", keyMode}, {"jars", "", keyMode}}
}

func clientFiles() []remoteFile {
	return []remoteFile{{"clientcerts", ".crt", certMode}, {"clientcerts", ".key", keyMode}, {"clientcerts", ".ca", certMode}}
}

// ForgetServer removes what is saved about the servers of a remote. Keys that the user has made for
// it stay.
func (c *Config) ForgetServer(name string) error { return c.removeAll(name, serverFiles()) }

// RemoveFiles removes all files of a remote.
func (c *Config) RemoveFiles(name string) error {
	return c.removeAll(name, append(serverFiles(), clientFiles()...))
}

func (c *Config) removeAll(name string, files []remoteFile) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, removeFile(perRemote(c.dirs.User, f.folder, name, f.extension)))
	}
	return errors.Join(errs...)
}

// CopyFiles copies the files of a remote to the user's own of another one.
func (c *Config) CopyFiles(name, to string) error {
	base := c.dirs.User
	if c.remotes[name].Global {
		base = c.dirs.Global
	}
	for _, f := range append(serverFiles(), clientFiles()...) {
		path := perRemote(c.dirs.User, f.folder, to, f.extension)
		data, err := readOptional(perRemote(base, f.folder, name, f.extension))
		if err == nil && data != nil {
			err = writeIn(path, data, f.mode)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeIn is replaceFile into a folder that is made if need be.
func writeIn(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return err
	}
	return replaceFile(path, data, mode)
}

func removeFile(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

package trust

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// Files of an Authority in the state directory.
const (
	authorityFile   = "server.ca"
	revocationsFile = "ca.crl"
)

// maxRevocations is the longest list of revoked certificates that is read, in bytes; one has about 40.
const maxRevocations = 16 << 20

// An Authority is the CA that must have signed the certificates of clients, if a server has one. A nil
// Authority is that of a server without: it objects to nobody, and vouches for nobody.
type Authority struct {
	roots   *x509.CertPool
	revoked map[string]bool // serial numbers
}

// LoadAuthority reads dir/server.ca and, if it is there, dir/ca.crl, the list of what that CA has
// revoked. It returns nil without server.ca. Its errors name the file: what cannot be read must not
// pass for an authority that objects to nobody.
func LoadAuthority(dir string) (*Authority, error) {
	file := filepath.Join(dir, authorityFile)
	text, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	ca, err := ParseCertificate(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if !ca.IsCA {
		return nil, fmt.Errorf("%s is not the certificate of an authority: it is not allowed to sign others", file)
	}
	a := &Authority{roots: x509.NewCertPool(), revoked: make(map[string]bool)}
	a.roots.AddCert(ca)
	return a, a.readRevocations(filepath.Join(dir, revocationsFile), ca)
}

func (a *Authority) readRevocations(file string, ca *x509.Certificate) error {
	der, err := readUpTo(file, maxRevocations)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := list.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("%s is not signed by %s: %w", file, authorityFile, err)
	}
	for _, entry := range list.RevokedCertificateEntries {
		a.revoked[entry.SerialNumber.String()] = true
	}
	return nil
}

// Allows tells whether cert, which is trusted by the trust store, may be used at the time now: the
// authority, if there is one, has signed it and not revoked it.
func (a *Authority) Allows(cert *x509.Certificate, now time.Time) bool {
	return a == nil || a.signed(cert, now)
}

// Vouches tells whether cert is a client's by the authority's word alone. It must be for clients only:
// a certificate that is for servers, too, may be one that a cluster had, whose key others have.
func (a *Authority) Vouches(cert *x509.Certificate, now time.Time) bool {
	return a != nil && a.signed(cert, now) &&
		slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
}

func (a *Authority) signed(cert *x509.Certificate, now time.Time) bool {
	_, err := cert.Verify(x509.VerifyOptions{Roots: a.roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil && !a.revoked[cert.SerialNumber.String()]
}

package api

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// updateTries is how often a change is made anew on what somebody else has changed meanwhile.
const updateTries = 5

// certificatePut changes a trusted certificate: PUT and PATCH /1.0/certificates/FINGERPRINT. A
// restricted client may put another certificate in the place of its own, and nothing else.
func (s *Server) certificatePut(c *call) (reply, error) {
	if c.caller.notification {
		return empty, nil // by which the protocol's members reload a cache; there is none here
	}
	next, err := change(c, func(cert api.Certificate) api.CertificatePut { return cert.Put() }, func(cert api.Certificate) any { return cert })
	if err != nil {
		return reply{}, err
	}
	for try := 1; ; try++ {
		err := s.updateCertificate(c, next)
		if try == updateTries || c.givenETag() != "" || !errors.Is(err, api.PreconditionFail) {
			return empty, err
		}
	}
}

func (s *Server) updateCertificate(c *call, next func(api.Certificate) (api.CertificatePut, error)) error {
	view, err := s.read(c.Context())
	if err != nil {
		return err
	}
	cert, err := ownCertificate(c, view, "Certificate cannot be changed")
	if err != nil {
		return err
	}
	put, err := next(cert)
	if err != nil {
		return err
	}
	put.Projects = append([]string{}, put.Projects...) // null is none
	put.Certificate = cmp.Or(put.Certificate, cert.Certificate)
	if err := c.caller.mayChange(cert, put); err != nil {
		return err
	}
	if cert.Type == api.CertificateServer {
		return api.Errorf(api.Conflict, "Certificate cannot be changed: it is that of cluster member %q", cert.Name).
			WithHint("a member's certificate follows from the member")
	}
	if put.Type != cert.Type {
		return api.Errorf(api.BadRequest, "The certificate type cannot be changed")
	}
	changed := state.Certificate{
		Fingerprint: cert.Fingerprint, Name: put.Name, Type: put.Type, Restricted: put.Restricted, Projects: put.Projects,
		PEM: cert.Certificate, Description: put.Description,
	}
	if old, ok := view.Certificate(cert.Fingerprint); ok {
		changed.AddedAt = old.AddedAt
	}
	if strings.TrimSpace(put.Certificate) != strings.TrimSpace(cert.Certificate) {
		other, err := s.replacement(c, put.Certificate)
		if err != nil {
			return err
		}
		changed.Fingerprint, changed.PEM = trust.Fingerprint(other), trust.EncodePEM(other)
	}
	return s.cfg.TrustStore.UpdateCertificate(c.Context(), cert.Fingerprint, changed, view.CertificateHash(cert.Fingerprint), c.caller.requestor())
}

// replacement reads the certificate that takes the place of another one, which has to be PEM. For a
// server's, who is no administrator shows a bearer token that its key has signed: such certificates are
// public, and with one that is a client's no server can join any more.
func (s *Server) replacement(c *call, text string) (*x509.Certificate, error) {
	if block, _ := pem.Decode([]byte(text)); block == nil {
		return nil, api.Errorf(api.CertInvalid, "Invalid PEM encoded certificate")
	}
	cert, err := trust.ParseCertificate(text)
	if err != nil {
		return nil, err
	}
	if err := s.checkClient(cert); err != nil || c.caller.admin() || !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		return cert, err
	}
	if _, err := trust.VerifyBearer(bearerOf(c.Request), cert, s.cfg.Now()); err != nil {
		return nil, api.Errorf(api.NotAuthorized, "The key of the new certificate is not proved").
			WithHint("send what its key has signed along: Authorization: Bearer $(incus remote get-client-token 5m)")
	}
	return cert, nil
}

// mayChange lets everybody who is not an administrator put another certificate in the
// place of their own, with the same rights.
func (c *caller) mayChange(cert api.Certificate, put api.CertificatePut) error {
	switch {
	case c.admin():
		return nil
	case put.Name != cert.Name || put.Type != cert.Type || put.Restricted != cert.Restricted || put.Description != cert.Description ||
		!slices.Equal(put.Projects, cert.Projects):
		return api.Errorf(api.NotAuthorized, "Only the certificate can be changed")
	}
	return nil
}

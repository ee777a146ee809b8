package api

import (
	"context"
	"crypto/x509"
	"net/http"
	"strings"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// bearerOf is the bearer token of a request, empty if it has none.
func bearerOf(r *http.Request) string {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(token)
	}
	return r.URL.Query().Get("access_token")
}

// A bearer is what a caller is known by who has shown a bearer token.
type bearer struct {
	// certificate is the trusted one whose key has signed the token.
	certificate *x509.Certificate
	// until is when the token runs out.
	until time.Time
}

// byBearer gives the caller the rights of the client that has signed the bearer token with
// its certificate's key (trust.md §2). A token that says nothing here changes nothing:
// the caller is who the connection shows. So do those of a place that has sent too many that nobody signed.
func (s *Server) byBearer(ctx context.Context, c *caller, text string) {
	subject := trust.BearerSubject(text)
	if subject == "" {
		return
	}
	row, ok := clientCertificate(s.cfg.Store.Local(), subject)
	if !ok && s.limits.lookup(&caller{address: c.address, fingerprint: subject}) {
		ctx, cancel := context.WithTimeout(ctx, trustTimeout)
		defer cancel()
		if view, err := s.cfg.Store.Read(ctx); err == nil {
			row, ok = clientCertificate(view, subject)
		}
	}
	source := Source(c.address)
	if !ok || !s.limits.forgeries.left(source) {
		return
	}
	signed := s.verify(text, row)
	if signed == nil {
		s.limits.forgeries.allow(source)
		return
	}
	if s.cfg.Authority.Allows(signed.certificate, s.cfg.Now()) {
		c.projects, c.bearer = nil, signed
		c.client(row)
	}
}

// clientCertificate finds the certificate of a client by its whole fingerprint.
func clientCertificate(view *raftstore.View, fingerprint string) (*state.Certificate, bool) {
	if view == nil {
		return nil, false
	}
	row, ok := view.Certificate(fingerprint)
	return row, ok && row.Type == api.CertificateClient && same(row.Fingerprint, fingerprint)
}

// verify returns what a bearer token says that the key of a valid certificate has signed, or nil.
func (s *Server) verify(text string, row *state.Certificate) *bearer {
	cert, err := trust.ParseCertificate(row.PEM)
	if err != nil || trust.CheckValid(cert, s.cfg.Now()) != nil {
		return nil
	}
	until, err := trust.VerifyBearer(text, cert, s.cfg.Now())
	if err != nil {
		return nil
	}
	return &bearer{certificate: cert, until: until}
}

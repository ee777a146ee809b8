package api

import (
	"context"
	"crypto/x509"
	"net/http"
	"strings"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
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
// the caller is who the connection shows.
func (s *Server) byBearer(ctx context.Context, c *caller, text string) {
	subject := trust.BearerSubject(text)
	if subject == "" {
		return
	}
	named := *c
	if !s.trustsBearer(s.cfg.Store.Local(), &named, subject, text) && s.limits.lookup(&caller{address: c.address, fingerprint: subject}) {
		ctx, cancel := context.WithTimeout(ctx, trustTimeout)
		defer cancel()
		if view, err := s.cfg.Store.Read(ctx); err == nil {
			s.trustsBearer(view, &named, subject, text)
		}
	}
	if named.bearer != nil {
		*c = named
	}
}

// trustsBearer makes the caller the client that a bearer token names, if its signature is that of a
// trusted client.
func (s *Server) trustsBearer(view *raftstore.View, named *caller, subject, text string) bool {
	if view == nil {
		return false
	}
	trusted, ok := view.Certificate(subject)
	if !ok || trusted.Type != api.CertificateClient || !same(trusted.Fingerprint, subject) {
		return false
	}
	cert, err := trust.ParseCertificate(trusted.PEM)
	if err != nil || trust.CheckValid(cert, s.cfg.Now()) != nil {
		return false
	}
	until, err := trust.VerifyBearer(text, cert, s.cfg.Now())
	if err != nil {
		return false
	}
	named.projects, named.bearer = nil, &bearer{certificate: cert, until: until}
	return named.client(trusted)
}

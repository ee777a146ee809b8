package api

import (
	"context"
	"net/http"
	"strings"

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

// byBearer gives the caller the rights of the client that has signed the bearer token with
// its certificate's key (trust.md §2). A token that says nothing here changes nothing:
// the caller is who the connection shows.
func (s *Server) byBearer(ctx context.Context, c *caller, text string) {
	named := caller{address: c.address}
	named.fingerprint = trust.BearerSubject(text)
	if named.fingerprint == "" {
		return
	}
	view := s.cfg.Store.Local()
	if !s.trustsBearer(view, &named, text) && s.limits.lookup(&named) {
		ctx, cancel := context.WithTimeout(ctx, trustTimeout)
		defer cancel()
		if view, err := s.cfg.Store.Read(ctx); err == nil {
			s.trustsBearer(view, &named, text)
		}
	}
	if named.kind&(Client|RestrictedClient) != 0 {
		named.removed = c.removed
		*c = named
	}
}

// trustsBearer completes the caller that a bearer token names, if its signature is that of a
// trusted client.
func (s *Server) trustsBearer(view *raftstore.View, named *caller, text string) bool {
	if view == nil {
		return false
	}
	trusted, ok := view.Certificate(named.fingerprint)
	if !ok || trusted.Type != api.CertificateClient || !same(trusted.Fingerprint, named.fingerprint) {
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
	named.certificate, named.until = cert, until
	return named.client(trusted)
}

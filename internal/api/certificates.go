package api

import (
	"cmp"
	"context"
	"crypto/x509"
	"slices"
	"strings"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

func certificateURL(c api.Certificate) string { return resource("certificates", c.Fingerprint) }

// certificates is the trust store: clients' certificates, and those of members, which follow from
// the members' rows.
func certificates(view *raftstore.View) []api.Certificate {
	var all []api.Certificate
	for _, c := range view.Certificates() {
		all = append(all, api.Certificate{
			Name: c.Name, Type: c.Type, Restricted: c.Restricted, Projects: append([]string{}, c.Projects...),
			Certificate: c.PEM, Description: c.Description, Fingerprint: c.Fingerprint,
		})
	}
	if view.Cluster().Enabled {
		for _, m := range view.Members() {
			all = append(all, api.Certificate{
				Name: m.Name, Type: api.CertificateServer, Projects: []string{}, Certificate: m.Certificate, Fingerprint: m.Fingerprint,
			})
		}
	}
	slices.SortFunc(all, func(a, b api.Certificate) int { return cmp.Compare(a.Fingerprint, b.Fingerprint) })
	return all
}

// certificatesGet lists the trust store: GET /1.0/certificates.
func (s *Server) certificatesGet(c *call) (reply, error) {
	view, err := s.read(c.Context())
	if err != nil {
		return reply{}, err
	}
	list, err := listed(c, certificates(view), certificateURL)
	return ok(view, list), err
}

// findCertificate returns the trusted certificate that the path names by its
// fingerprint, or by the start of it if there is only one such.
func findCertificate(c *call, view *raftstore.View) (api.Certificate, error) {
	prefix := strings.ToLower(c.name("fingerprint"))
	var found []api.Certificate
	for _, cert := range certificates(view) {
		if prefix != "" && strings.HasPrefix(cert.Fingerprint, prefix) {
			found = append(found, cert)
		}
	}
	switch len(found) {
	case 0:
		return api.Certificate{}, api.Errorf(api.NotFound, "Certificate not found")
	case 1:
		return found[0], nil
	}
	return api.Certificate{}, api.Errorf(api.BadRequest, "More than one certificate matches").WithHint("give more of the fingerprint: incus config trust list -c nF shows it all")
}

// ownCertificate is findCertificate for a change. Who is no administrator has proved the key of its own
// one and changes no other, and is not told whether there is one.
func ownCertificate(c *call, view *raftstore.View, refusal string) (api.Certificate, error) {
	cert, err := findCertificate(c, view)
	if !c.caller.admin() && (err != nil || !same(cert.Fingerprint, c.caller.fingerprint)) {
		err = api.Errorf(api.NotAuthorized, "%s", refusal)
	}
	return cert, err
}

// certificateGet shows one certificate: GET /1.0/certificates/FINGERPRINT.
func (s *Server) certificateGet(c *call) (reply, error) {
	view, err := s.read(c.Context())
	if err != nil {
		return reply{}, err
	}
	cert, err := findCertificate(c, view)
	if err != nil {
		return reply{}, err
	}
	return ok(view, cert).tag(cert), nil
}

// certificateDelete ends the trust in a client: DELETE /1.0/certificates/FINGERPRINT.
// Members' certificates go with the member. A restricted client may give up its own.
func (s *Server) certificateDelete(c *call) (reply, error) {
	view, err := s.read(c.Context())
	if err != nil {
		return reply{}, err
	}
	cert, err := ownCertificate(c, view, "Certificate cannot be deleted")
	if err != nil {
		return reply{}, err
	}
	if cert.Type == api.CertificateServer {
		return reply{}, api.Errorf(api.Conflict, "Certificate cannot be deleted: it is that of cluster member %q", cert.Name).
			WithHint("it goes when the member is removed")
	}
	return empty, s.cfg.TrustStore.RemoveCertificate(c.Context(), cert.Fingerprint, c.caller.requestor())
}

// certificatesPost adds to the trust store: POST /1.0/certificates. Whoever shows a
// join token redeems it for a server's certificate; without one an administrator adds
// a client's.
func (s *Server) certificatesPost(c *call) (reply, error) {
	req, err := decode[api.CertificatesPost](c)
	if err != nil {
		return reply{}, err
	}
	switch {
	case req.TrustToken != "" && req.Password != "":
		return reply{}, api.Errorf(api.BadRequest, "Give a token or the password, not both")
	case req.TrustToken != "" && !req.Token:
		return s.redeemToken(c, &req)
	case req.Password != "":
		return s.enterByPassword(c, &req)
	case c.caller.kind == RestrictedClient:
		return reply{}, api.Errorf(api.NotAuthorized, "Certificate is restricted")
	case !c.caller.admin():
		return reply{}, api.Errorf(api.NotAuthorized, "not authorized")
	case req.Token:
		return s.invite(c, &req)
	case req.Certificate == "":
		return reply{}, api.Errorf(api.BadRequest, "Client is already trusted")
	}
	return s.addClient(c, &req)
}

// redeemToken tells join tokens from certificate add tokens.
func (s *Server) redeemToken(c *call, req *api.CertificatesPost) (reply, error) {
	if token, err := api.ParseCertificateAddToken(req.TrustToken); err == nil {
		return s.redeemInvitation(c, token)
	}
	return s.redeem(c, req)
}

// redeem claims a join token for a server's certificate. A token lets its holder do
// that one thing: neither another type nor another name can be had for it. All that
// the request has wrong is found before the token is touched.
func (s *Server) redeem(c *call, req *api.CertificatesPost) (reply, error) {
	token, err := api.ParseJoinToken(req.TrustToken)
	switch {
	case err != nil && c.caller.admin():
		return reply{}, err
	case err != nil: // as without any token, since it is none
		return reply{}, api.Errorf(api.NotAuthorized, "not authorized").WithHint("%v; copy the whole token", err)
	}
	if err := s.useOf(c, token.Secret); err != nil {
		return reply{}, err
	}
	if req.Type != "" && req.Type != api.CertificateServer {
		return reply{}, api.Errorf(api.NotAuthorized, "A join token admits a server certificate, not one of type %q", req.Type).
			WithHint("a client needs the token of: incus config trust add NAME")
	}
	if req.Name != "" && req.Name != token.ServerName {
		return reply{}, api.Errorf(api.TokenWrongName, "Join token is for the member name %q, not for %q", token.ServerName, req.Name)
	}
	cert, err := s.certificateOf(c, req)
	if err != nil {
		return reply{}, err
	}
	if err := s.refuseTrusted(c.Context(), token, trust.Fingerprint(cert)); err != nil {
		return reply{}, err
	}
	proved := trust.Same(c.caller.certificate, cert)
	if _, err := s.cfg.Tokens.Claim(c.Context(), token, cert, proved, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(resource("certificates", trust.Fingerprint(cert))), nil
}

// enterByPassword lets a server that knows the cluster's password claim a token of its own. All
// that the request has wrong is found before the password is looked at.
func (s *Server) enterByPassword(c *call, req *api.CertificatesPost) (reply, error) {
	if req.Type != "" && req.Type != api.CertificateServer {
		return reply{}, api.Errorf(api.NotAuthorized, "The cluster's password admits a server certificate, not one of type %q", req.Type)
	}
	if err := api.ValidateMemberName(req.Name); err != nil {
		return reply{}, err
	}
	cert, err := s.certificateOf(c, req)
	if err != nil {
		return reply{}, err
	}
	if err := s.cfg.Tokens.Verify(c.Context(), c.caller.address, req.Password); err != nil {
		return reply{}, err
	}
	proved := trust.Same(c.caller.certificate, cert)
	if _, err := s.cfg.Tokens.Grant(c.Context(), req.Name, cert, proved, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(resource("certificates", trust.Fingerprint(cert))), nil
}

// certificateOf is the certificate that a request is about: the one in its body or the
// one of its connection, which must be the same if there are both.
func (s *Server) certificateOf(c *call, req *api.CertificatesPost) (*x509.Certificate, error) {
	cert := c.caller.certificate
	if req.Certificate != "" {
		sent, err := trust.ParseCertificate(req.Certificate)
		if err != nil {
			return nil, err
		}
		if cert != nil && !trust.Same(cert, sent) {
			return nil, api.Errorf(api.CertInvalid, "The certificate in the request is not that of the connection")
		}
		cert = sent
	}
	switch {
	case cert == nil && c.TLS == nil:
		return nil, api.Errorf(api.BadRequest, "Can't use TLS data on non-TLS link")
	case cert == nil:
		return nil, api.Errorf(api.BadRequest, "No client certificate provided")
	}
	return cert, trust.CheckValid(cert, s.cfg.Now())
}

// refuseTrusted stops a redemption that would gain nothing. Only who has the token's
// secret is told; everybody else learns from Claim that the token is unknown.
func (s *Server) refuseTrusted(ctx context.Context, token *api.ClusterMemberJoinToken, fingerprint string) error {
	view, err := s.read(ctx)
	if err != nil {
		return err
	}
	if _, ok := view.Token(tokens.Hash(token.Secret)); !ok {
		return nil
	}
	m, member := view.MemberByFingerprint(fingerprint)
	_, client := view.Certificate(fingerprint)
	if client || member && m.State == state.MemberActive {
		return api.Errorf(api.CertTaken, "Certificate already in trust store")
	}
	return nil
}

// checkClient tells why no client could use a certificate.
func (s *Server) checkClient(cert *x509.Certificate) error {
	now := s.cfg.Now()
	if err := trust.CheckValid(cert, now); err != nil {
		return err
	}
	if !s.cfg.Authority.Allows(cert, now) {
		return api.Errorf(api.CertInvalid, "The certificate is not signed by the authority that this server wants, or was revoked").
			WithHint("clients need a certificate of the authority in server.ca, in the server's state directory")
	}
	return nil
}

// addClient trusts a client from now on.
func (s *Server) addClient(c *call, req *api.CertificatesPost) (reply, error) {
	if err := checkClientType(req.Type); err != nil {
		return reply{}, err
	}
	cert, err := trust.ParseCertificate(req.Certificate)
	if err != nil {
		return reply{}, err
	}
	now := s.cfg.Now().UTC()
	if err := s.checkClient(cert); err != nil {
		return reply{}, err
	}
	view, err := s.read(c.Context())
	if err != nil {
		return reply{}, err
	}
	fingerprint := trust.Fingerprint(cert)
	if _, ok := view.MemberByFingerprint(fingerprint); ok {
		return reply{}, api.Errorf(api.CertTaken, "Certificate already in trust store")
	}
	added := state.Certificate{
		Fingerprint: fingerprint, Name: cmp.Or(req.Name, cert.Subject.CommonName, c.caller.address), Type: req.Type,
		Restricted: req.Restricted, Projects: append([]string{}, req.Projects...), PEM: trust.EncodePEM(cert),
		Description: req.Description, AddedAt: now,
	}
	if err := s.cfg.TrustStore.AddCertificate(c.Context(), added, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(resource("certificates", fingerprint)), nil
}

// checkClientType refuses what an administrator cannot add by hand.
func checkClientType(kind string) error {
	switch kind {
	case api.CertificateClient, api.CertificateMetrics:
		return nil
	case api.CertificateServer:
		return api.Errorf(api.NotAuthorized, "Server certificates are trusted by joining the cluster, not by adding them").
			WithHint("issue a join token: incus cluster add NAME")
	}
	return api.Errorf(api.BadRequest, "Invalid certificate type")
}

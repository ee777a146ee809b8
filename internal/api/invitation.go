package api

import (
	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
)

// invite issues a certificate add token: POST /1.0/certificates with token=true.
func (s *Server) invite(c *call, req *api.CertificatesPost) (reply, error) {
	addresses := expand(config.Get(s.settings(), "core.https_address"))
	switch {
	case req.Certificate != "":
		return reply{}, api.Errorf(api.BadRequest, "Can't use certificate if token is requested")
	case req.Type != api.CertificateClient:
		return reply{}, api.Errorf(api.BadRequest, "Tokens can only be issued for client certificates")
	case len(addresses) == 0:
		return reply{}, api.Errorf(api.BadRequest, "Can't issue token when server isn't listening on network").
			WithHint("set an address: incus config set core.https_address ADDRESS")
	}
	_, fingerprint := s.cfg.Certificate()
	token, err := s.cfg.Tokens.Invite(c.Context(), tokens.Invitation{
		Client:      req.Name,
		Grant:       state.ClientGrant{Restricted: req.Restricted, Projects: append([]string{}, req.Projects...), Description: req.Description},
		Fingerprint: fingerprint,
		Addresses:   addresses,
	}, c.caller.requestor())
	if err != nil {
		return reply{}, err
	}
	return accepted(tokens.Operation(token, s.tokenLocation(token), true)), nil
}

// redeemInvitation trusts the client whose certificate the connection shows, as the
// token says. What else the request has is not looked at: the token decides.
func (s *Server) redeemInvitation(c *call, token *api.CertificateAddToken) (reply, error) {
	if err := s.useOf(c, token.Secret); err != nil {
		return reply{}, err
	}
	cert, err := s.certificateOf(c, &api.CertificatesPost{})
	if err != nil {
		return reply{}, err
	}
	if err := s.checkClient(cert); err != nil {
		return reply{}, err
	}
	if c.caller.kind == Client && !s.hasRedeemed(&c.caller, token.Secret) {
		return reply{}, api.Errorf(api.BadRequest, "Client is already trusted")
	}
	added, err := s.cfg.Tokens.Redeem(c.Context(), token.Secret, cert, c.caller.requestor())
	if err != nil {
		return reply{}, err
	}
	return created(resource("certificates", added.Fingerprint)), nil
}

// hasRedeemed tells whether the caller is trusted by just that token: it asks again since
// the answer was lost.
func (s *Server) hasRedeemed(c *caller, secret string) bool {
	t, ok := s.cfg.Store.Local().Token(tokens.Hash(secret))
	return ok && t.Ended == state.TokenUsed && same(t.UsedBy, c.fingerprint)
}

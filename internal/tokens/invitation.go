package tokens

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// An Invitation says whom a certificate add token is for, and where to redeem it.
type Invitation struct {
	// Client is the name that the client's certificate will have.
	Client string
	Grant  state.ClientGrant
	// Fingerprint is that of the certificate that the server shows to clients.
	Fingerprint string
	// Addresses are those of the server that was asked, the first to be tried.
	Addresses []string
}

// Invite issues a certificate add token. It fails with ConfigInvalid if
// core.remote_token_expiry cannot be read, and with TooMany when there are too many
// tokens. It blocks until the change is committed or ctx ends.
func (s *Service) Invite(ctx context.Context, inv Invitation, requestor *api.EventRequestor) (*state.Token, error) {
	view, err := s.store.Basis(ctx)
	if err != nil {
		return nil, err
	}
	now := s.now().UTC()
	expires, err := config.Expiry(config.Get(view.Config(), "core.remote_token_expiry"), now)
	if err != nil {
		return nil, api.Errorf(api.ConfigInvalid, "core.remote_token_expiry: %v", err)
	}
	secret := newSecret()
	grant := inv.Grant
	token := &state.Token{
		Hash:        Hash(secret),
		Secret:      secret,
		Name:        inv.Client,
		Operation:   uuid.NewString(),
		Issuer:      s.store.ID(),
		Fingerprint: inv.Fingerprint,
		Addresses:   invitationAddresses(view, inv, secret, expires),
		CreatedAt:   now,
		ExpiresAt:   expires,
		Client:      &grant,
	}
	result, err := s.propose(ctx, state.KindTokenInvite, requestor, state.TokenInvite{Token: *token})
	if err != nil {
		return nil, err
	}
	s.log.Info("Certificate add token issued", "client", token.Name, "operation", token.Operation, "expires", token.ExpiresAt)
	issued, err := decode(result, token)
	if err != nil {
		return nil, err
	}
	issued.Secret = secret // which an answer does not have
	return issued, nil
}

// invitationAddresses are those of the server that was asked, and then those of other
// members, each of which honours the token, as many as fit into the token's text.
func invitationAddresses(view *raftstore.View, inv Invitation, secret string, expires time.Time) []string {
	all := slices.Clone(inv.Addresses)
	if view.Cluster().Enabled {
		for _, m := range reachable(view.Members()) {
			if !slices.Contains(all, m.Address) {
				all = append(all, m.Address)
			}
		}
	}
	text := api.CertificateAddToken{ClientName: inv.Client, Fingerprint: inv.Fingerprint, Secret: secret, ExpiresAt: expires, Addresses: []string{}}
	return fitting(all, jsonSize(text))
}

// Redeem trusts the client whose certificate is cert, as the token says, and ends the
// token. Nothing is written before the certificate is known to be usable; the same client
// may redeem again. Whoever calls has to know that the client has the certificate's key.
// It fails with CertInvalid or ClockSkew, TokenUnknown, TokenUsed, TokenRevoked,
// TokenExpired, CertTaken. It blocks until the change is committed or ctx ends.
func (s *Service) Redeem(ctx context.Context, secret string, cert *x509.Certificate, requestor *api.EventRequestor) (*state.Certificate, error) {
	if err := trust.CheckValid(cert, s.now()); err != nil {
		return nil, err
	}
	view, err := s.store.Read(ctx)
	if err != nil {
		return nil, err
	}
	fingerprint := trust.Fingerprint(cert)
	// Anybody may call this, so guesses are refused before they reach the log.
	if t, ok := view.Token(Hash(secret)); !ok || t.Client == nil {
		s.log.Warn("Certificate add token refused", "fingerprint", fingerprint, "reason", api.TokenUnknown)
		return nil, state.NoInvitation()
	}
	result, err := s.propose(ctx, state.KindTokenRedeem, requestor, state.TokenRedeem{
		Hash:        Hash(secret),
		Certificate: state.Certificate{Fingerprint: fingerprint, PEM: trust.EncodePEM(cert)},
	})
	if err != nil {
		return nil, err
	}
	var added state.Certificate
	if err := json.Unmarshal(result.Value, &added); err != nil {
		return nil, fmt.Errorf("the store's answer: %w", err)
	}
	s.log.Info("Certificate add token redeemed", "client", added.Name, "fingerprint", fingerprint)
	return &added, nil
}

// invitationMetadata is what the operation of a certificate add token says, in upstream's
// shape: the client assembles the token's text from it.
func invitationMetadata(t *state.Token) map[string]any {
	projects := make([]any, len(t.Client.Projects))
	for i, p := range t.Client.Projects {
		projects[i] = p
	}
	metadata := map[string]any{
		"fingerprint": t.Fingerprint,
		"addresses":   asList(t.Addresses),
		"request": map[string]any{
			"name": t.Name, "type": api.CertificateClient, "restricted": t.Client.Restricted, "projects": projects,
			"certificate": "", "description": t.Client.Description, "trust_token": "", "token": true,
		},
	}
	if !t.ExpiresAt.IsZero() {
		metadata["expiresAt"] = t.ExpiresAt.UTC().Format(time.RFC3339Nano)
	}
	return metadata
}

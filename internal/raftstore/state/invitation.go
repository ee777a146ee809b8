package state

import (
	"slices"
	"time"

	"incusd/api"
)

// A certificate add token is an invitation to a client, who becomes trusted by redeeming it.

func applyTokenInvite(tx *transaction, b *TokenInvite) (any, error) {
	if clusterOf(tx.Txn).ID == "" {
		return nil, refuse(api.Conflict)
	}
	grant := b.Token.Client
	if grant == nil {
		return nil, badRequest("a certificate add token needs what it gives")
	}
	if err := checkToken(tx, &b.Token); err != nil {
		return nil, err
	}
	if b.Token.Name == "" {
		return nil, badRequest("A client name is required")
	}
	if err := checkCertificateTexts(b.Token.Name, grant.Description, grant.Projects); err != nil {
		return nil, err
	}
	projects, err := tx.knownProjects(grant.Projects)
	if err != nil {
		return nil, err
	}
	if err := tx.roomForToken(); err != nil {
		return nil, err
	}
	t := &Token{
		Hash: b.Token.Hash, Secret: b.Token.Secret, Name: b.Token.Name, Operation: b.Token.Operation, Issuer: b.Token.Issuer,
		Fingerprint: b.Token.Fingerprint, Addresses: b.Token.Addresses, CreatedAt: b.Token.CreatedAt, ExpiresAt: b.Token.ExpiresAt,
		Client: &ClientGrant{Restricted: grant.Restricted, Projects: projects, Description: grant.Description},
	}
	return tx.putToken(t)
}

// applyTokenRedeem is the only place where two clients with one token meet. Nothing is used
// up unless the client is trusted in the same step.
func applyTokenRedeem(tx *transaction, b *TokenRedeem) (any, error) {
	if err := checkKey("fingerprint", b.Certificate.Fingerprint); err != nil {
		return nil, err
	}
	t, ok := tokenTable.get(tx.Txn, primary, b.Hash)
	if !ok || t.Client == nil {
		return nil, NoInvitation()
	}
	if t.Ended == TokenUsed && t.UsedBy == b.Certificate.Fingerprint {
		if c, ok := certificateTable.get(tx.Txn, primary, t.UsedBy); ok {
			return c, nil // its answer was lost
		}
	}
	if ended := t.Refusal(tx.now); ended != nil {
		return nil, ended // said only to who has the secret
	}
	c := Certificate{
		Fingerprint: b.Certificate.Fingerprint, Name: t.Name, Type: api.CertificateClient, Restricted: t.Client.Restricted,
		Projects: slices.Clone(t.Client.Projects), PEM: b.Certificate.PEM, Description: t.Client.Description, AddedAt: tx.now,
	}
	if err := tx.trust(c); err != nil {
		return nil, err
	}
	ended := tx.end(t, TokenUsed, c.Fingerprint)
	tx.emit("", "", ended)
	return &c, nil
}

// NoInvitation is the refusal of a certificate add token that is not known.
func NoInvitation() *api.Error {
	return api.Errorf(api.TokenUnknown, "No matching certificate add operation found").
		WithHint("ask for a new token: incus config trust add NAME")
}

// Refusal tells why t opens nothing any more at the time now, nil if it does. The zero
// time leaves out an expiry that no leader has noted yet.
func (t *Token) Refusal(now time.Time) *api.Error {
	why := t.endReason(now)
	switch {
	case why == "":
		return nil
	case t.Client == nil:
		return api.Errorf(why, "%s", why.Error())
	}
	became := map[api.Reason]string{api.TokenUsed: "been used", api.TokenRevoked: "been revoked", api.TokenExpired: "expired"}
	return api.Errorf(why, "Certificate add token has %s", became[why]).WithHint("ask for a new token: incus config trust add NAME")
}

package tokens

import (
	"context"
	"crypto/x509"
	"net/netip"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// passwordKey is where the cluster keeps the hash of its trust password.
const passwordKey = "core.trust_password"

// Verify tells whether a password is the cluster's: nil if it is. source is the IP address from
// which it came. Each try is counted by the replicated store before it is looked at, so that
// guesses are bounded in the whole cluster, however many members are asked at once; one that was
// right is given back. It fails with PasswordUnset, TooMany and PasswordWrong.
func (s *Service) Verify(ctx context.Context, source, password string) error {
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	source = network(source)
	hash := view.Config()[passwordKey]
	switch {
	case hash == "":
		return api.PasswordUnset
	case !view.AttemptsLeft(source, s.now()):
		return api.Errorf(api.TooMany, "Too many attempts at the cluster's password").WithHint("wait some minutes, or join with a token: incus cluster add NAME")
	}
	if _, err := s.propose(ctx, state.KindPasswordAttempt, nil, state.PasswordAttempt{Source: source}); err != nil {
		return err
	}
	if err := s.compare(ctx, hash, password); err != nil {
		s.log.Warn("Cluster trust password refused", "address", source)
		return err
	}
	if _, err := s.propose(ctx, state.KindPasswordAttempt, nil, state.PasswordAttempt{Source: source, Refund: true}); err != nil {
		s.log.Debug("An attempt at the password was not given back", "err", err)
	}
	return nil
}

// network is what the attempts from an address are counted under: itself, or for IPv6 its /64, of
// which one host has all addresses.
func network(source string) string {
	address, err := netip.ParseAddr(source)
	if err != nil || address.Unmap().Is4() {
		return source
	}
	prefix, err := address.WithZone("").Prefix(64)
	if err != nil {
		return source
	}
	return prefix.String()
}

// compare computes one hash at a time: each takes memory that a stranger asked for.
func (s *Service) compare(ctx context.Context, hash, password string) error {
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return api.Errorf(api.TooMany, "Too many attempts at the cluster's password at once")
	}
	right, err := trust.CheckPassword(hash, password)
	switch {
	case err != nil:
		return err
	case !right:
		return api.PasswordWrong
	}
	return nil
}

// Grant gives the server with that certificate, which has shown the cluster's password, a token
// for the member called name, claimed by it. It fails as Issue and Claim do.
func (s *Service) Grant(ctx context.Context, name string, cert *x509.Certificate, proved bool, requestor *api.EventRequestor) (*state.Token, error) {
	if err := api.ValidateMemberName(name); err != nil {
		return nil, err
	}
	if err := trust.CheckValid(cert, s.now()); err != nil {
		return nil, err
	}
	view, err := s.store.Read(ctx)
	if err != nil {
		return nil, err
	}
	token, err := s.draft(view, name, newMember)
	if err != nil {
		return nil, err
	}
	result, err := s.propose(ctx, state.KindTokenGrant, requestor, state.TokenGrant{
		Token: *token, Fingerprint: trust.Fingerprint(cert), Certificate: trust.EncodePEM(cert), Proved: proved,
	})
	if err != nil {
		return nil, err
	}
	s.log.Info("Join granted by password", "name", name, "fingerprint", trust.Fingerprint(cert))
	return decode(result, nil)
}

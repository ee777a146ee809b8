package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

const (
	// followTime is for how long, at least, who knows only the former certificate is led to the
	// next: a remote that is used twice a year has not lost its cluster.
	followTime = 365 * 24 * time.Hour
	// rotateTries is how often a replacement is tried anew that met another one, or a new token.
	rotateTries = 5
)

// UpdateCertificate lets all members show the certificate that an administrator supplies, in
// place of the present one, whose key endorses it. A bad pair is refused before anything changes;
// see trust.CheckPair. It is harmless to repeat. It fails with NotClustered, and blocks until the
// change is committed or ctx ends.
func (s *Admissions) UpdateCertificate(ctx context.Context, certPEM, keyPEM string, requestor *api.EventRequestor) error {
	pair, err := trust.CheckPair(certPEM, keyPEM, s.now())
	if err != nil {
		return err
	}
	err = s.rotate(ctx, requestor, func(view *state.View) (*state.ClusterCertificate, error) {
		if view.Cluster().Certificate == string(pair.CertPEM) {
			return nil, nil
		}
		body, err := endorsed(view, pair, s.now())
		if err == nil {
			body.Supplied = true
		}
		return body, err
	})
	if err == nil {
		s.log.Info("Cluster certificate replaced", "fingerprint", pair.Fingerprint())
	}
	return err
}

// RotateKey gives the cluster another key, which whoever has the present one cannot lead anybody
// to, and its live join tokens other secrets. It fails with NotClustered, and blocks until the
// change is committed or ctx ends.
func (s *Admissions) RotateKey(ctx context.Context, requestor *api.EventRequestor) error {
	if err := s.awaitRemovals(ctx); err != nil {
		return err
	}
	err := s.rotate(ctx, requestor, func(view *state.View) (*state.ClusterCertificate, error) { return unendorsed(view, s.now()) })
	if err == nil {
		s.log.Info("Cluster key rotated")
	}
	return err
}

// rotate proposes what plan makes of the present state, and again if that was another by then.
// A nil plan means that nothing is to be done.
func (s *Admissions) rotate(ctx context.Context, requestor *api.EventRequestor, plan func(*state.View) (*state.ClusterCertificate, error)) error {
	for try := 1; ; try++ {
		view, err := s.store.Read(ctx)
		if err != nil {
			return err
		}
		if !view.Cluster().Enabled {
			return api.NotClustered
		}
		body, err := plan(view.View)
		if err != nil || body == nil {
			return err
		}
		err = s.propose(ctx, state.KindClusterCert, requestor, body, nil)
		if !errors.Is(err, api.Conflict) || try == rotateTries {
			return err
		}
	}
}

// endorsed is next in place of the present certificate, endorsed by its key.
func endorsed(view *state.View, next *trust.KeyPair, now time.Time) (*state.ClusterCertificate, error) {
	c := view.Cluster()
	present, err := trust.NewKeyPair([]byte(c.Certificate), []byte(c.Key))
	if err != nil {
		return nil, api.Errorf(api.Internal, "The cluster's present key cannot endorse another: %v", err).
			WithHint("give the cluster a new key without that: incus cluster rotate-key")
	}
	until := endorsedUntil(view, now, next.Cert.NotAfter)
	endorsement, err := present.Endorse(next.Cert, now, until)
	if err != nil {
		return nil, err
	}
	body := certificateBody(c, next)
	body.Endorsement, body.Until = endorsement, until.UTC()
	return body, nil
}

// unendorsed is a new key pair in place of the present one, and the tokens issued anew.
func unendorsed(view *state.View, now time.Time) (*state.ClusterCertificate, error) {
	c := view.Cluster()
	next, err := generateLike(c, now)
	if err != nil {
		return nil, err
	}
	body := certificateBody(c, next)
	body.Reissue = tokens.Reissues(view)
	return body, nil
}

func certificateBody(c state.Cluster, next *trust.KeyPair) *state.ClusterCertificate {
	return &state.ClusterCertificate{
		Expect: c.CertificateHash(), Certificate: string(next.CertPEM), Key: string(next.KeyPEM), Fingerprint: next.Fingerprint(),
	}
}

// generateLike makes a pair with the names of the cluster's present certificate: a client that
// pins that one asks for the first of them.
func generateLike(c state.Cluster, now time.Time) (*trust.KeyPair, error) {
	hosts := trust.LocalHosts()
	if cert, err := trust.ParseCertificate(c.Certificate); err == nil && len(cert.DNSNames)+len(cert.IPAddresses) > 0 {
		hosts = cert.DNSNames
		for _, ip := range cert.IPAddresses {
			hosts = append(hosts, ip.String())
		}
	}
	pair, err := trust.GenerateAt(now, trust.Server, hosts...)
	if err != nil {
		return nil, fmt.Errorf("make a key pair for the cluster: %w", err)
	}
	return pair, nil
}

// endorsedUntil is when nobody needs to be led on any more: not before followTime is over, nor
// while a live token names an earlier certificate. A token without an expiry is led on until the
// next certificate ends.
func endorsedUntil(view *state.View, now, nextEnds time.Time) time.Time {
	until := now.Add(followTime)
	for _, t := range view.Tokens() {
		if t.Ended != "" {
			continue
		}
		expires := t.ExpiresAt
		if expires.IsZero() {
			expires = nextEnds
		}
		if expires.After(until) {
			until = expires
		}
	}
	return until
}

// awaitRotation waits until the key is another one, which a removal asked for. It fails with
// Timeout when the leader goes on with it.
func (s *Admissions) awaitRotation(ctx context.Context) error {
	for {
		var changed <-chan struct{}
		if view, err := s.store.Read(ctx); err == nil {
			if !view.Cluster().RotateKey {
				return nil
			}
			changed = view.WatchMembers()
		}
		if !sleep(ctx, lookTime, changed) {
			return api.Errorf(api.Timeout, "The member was removed, and the cluster's key is still the one that it has").
				WithHint("the leader goes on with it; to be certain, run: incus cluster rotate-key")
		}
	}
}

// keepCertificate renews the cluster's certificate in time, and makes another key when a member
// was removed that must not have it. A certificate that an administrator supplied is theirs to
// renew; a warning says when.
func (t *term) keepCertificate(ctx context.Context) {
	for {
		view := t.store.Local()
		if err := t.renew(ctx, view); err != nil && ctx.Err() == nil {
			t.log.Error("The cluster's certificate was not replaced; trying again", "err", err)
		}
		if !sleep(ctx, t.set.SweepInterval, view.WatchMembers()) {
			return
		}
	}
}

func (t *term) renew(ctx context.Context, view *raftstore.View) error {
	c, now := view.Cluster(), t.now()
	if !c.Enabled || c.Leader != t.store.ID() {
		return nil
	}
	var body *state.ClusterCertificate
	switch {
	case c.RotateKey && lingers(view.View, t.raft.Servers()):
		return nil // else whoever was removed would be sent the new key, too
	case c.RotateKey:
		next, err := unendorsed(view.View, now)
		if err != nil {
			return err
		}
		body = next
	case renewalDue(c, now):
		next, err := generateLike(c, now)
		if err != nil {
			return err
		}
		if body, err = endorsed(view.View, next, now); err != nil {
			return err
		}
	default:
		return nil
	}
	if err := t.propose(ctx, state.KindClusterCert, body); err != nil {
		return err
	}
	t.log.Info("The cluster's certificate was replaced by itself", "fingerprint", body.Fingerprint, "new key for clients to confirm", body.Endorsement == "")
	return nil
}

// lingers tells whether Raft still has a server that is no member any more, to which it may send
// what is committed.
func lingers(view *state.View, servers []state.Server) bool {
	return slices.ContainsFunc(servers, func(s state.Server) bool {
		_, member := view.Member(s.ID)
		return !member
	})
}

// awaitRemovals waits until Raft has no server any more that is no member.
func (s *Admissions) awaitRemovals(ctx context.Context) error {
	for {
		view, err := s.store.Read(ctx)
		if err != nil {
			return err
		}
		if !lingers(view.View, view.Servers()) {
			return nil
		}
		if !sleep(ctx, lookTime, view.WatchMembers()) {
			return api.Errorf(api.Timeout, "A server that was removed still gets what is committed, and would get the new key").
				WithHint("try again in a moment: incus cluster rotate-key")
		}
	}
}

// renewalDue tells whether the cluster's own certificate comes to its end.
func renewalDue(c state.Cluster, now time.Time) bool {
	if c.Supplied {
		return false
	}
	cert, err := trust.ParseCertificate(c.Certificate)
	return err == nil && trust.RenewalDue(cert, now)
}

package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

const (
	// identityInterval is how often the clock is looked at.
	identityInterval = 10 * time.Second
	// identityTime bounds one change of the member's row.
	identityTime = 10 * time.Second
)

// Steps of a renewal that Config.Reach is told of; each names what has just been done.
const (
	PointIdentityNoted    = "identity.noted"
	PointIdentityProposed = "identity.proposed"
	PointIdentityAdopted  = "identity.adopted"
)

// identity is this server's own key pair: what it shows to other members, and to clients while it
// is standalone.
//
// It is renewed in four steps, each of which may be the last before a crash: the new pair is noted
// in files beside the old; the member's row names it, with an endorsement by the old key; the
// files are replaced; the row forgets the old one. Members that know the row take either; those
// that do not know it yet follow the endorsement. So the server is locked out at no time.
type identity struct {
	paths Paths
	local func() *raftstore.View
	id    func() string
	now   func() time.Time
	log   *slog.Logger

	renewing sync.Mutex // one renewal at a time
	own      atomic.Pointer[trust.KeyPair]
	cache    chainCache
}

// pair is what is in server.crt and server.key.
func (i *identity) pair() *trust.KeyPair { return i.own.Load() }

// chained is the pair with what leads from its predecessors to it, as the member's row has it.
func (i *identity) chained() *trust.KeyPair {
	own := i.pair()
	view := i.local()
	if view == nil {
		return own
	}
	m, ok := view.Member(i.id())
	if !ok || m.Fingerprint != own.Fingerprint() || len(m.Endorsements) == 0 {
		return own
	}
	pair, err := i.cache.get(string(own.CertPEM), chainOf(m.Endorsements, i.now()), func() (*trust.KeyPair, error) { return own, nil })
	if err != nil {
		i.log.Error("what this server's former key endorsed cannot be read", "err", err)
		return own
	}
	return pair
}

func (i *identity) tls() *tls.Certificate { return &i.chained().TLS }

func (p Paths) serverCert() string { return filepath.Join(p.Dir, "server.crt") }
func (p Paths) serverKey() string  { return filepath.Join(p.Dir, "server.key") }
func (p Paths) nextCert() string   { return filepath.Join(p.Dir, "server.next.crt") }
func (p Paths) nextKey() string    { return filepath.Join(p.Dir, "server.next.key") }

// next is the pair that is noted to take the place of the present one; nil if there is none. What
// cannot be read is none: it has not got into the member's row, or the row's other certificate
// is still good.
func (i *identity) next() *trust.KeyPair {
	pair, err := trust.Load(i.paths.nextCert(), i.paths.nextKey())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			i.log.Warn("the next key pair of this server cannot be read", "err", err)
		}
		return nil
	}
	return pair
}

func (i *identity) note(next *trust.KeyPair) error {
	return next.Save(i.paths.nextCert(), i.paths.nextKey())
}

// forget drops the noted pair.
func (i *identity) forget() {
	for _, f := range []string{i.paths.nextKey(), i.paths.nextCert()} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			i.log.Warn("remove a key pair that is not needed any more", "err", err)
		}
	}
}

// adopt makes the noted pair the present one.
func (i *identity) adopt(next *trust.KeyPair) error {
	if err := next.Save(i.paths.serverCert(), i.paths.serverKey()); err != nil {
		return err
	}
	i.own.Store(next)
	i.forget()
	i.log.Info("this server shows its new certificate", "fingerprint", next.Fingerprint())
	return nil
}

// An identityStep is what is to be done next about a server's certificate.
type identityStep int

const (
	identityRest    identityStep = iota
	identityRenew                // make another pair
	identityPropose              // put the noted pair into the row
	identityAdopt                // the row has the noted pair: show it
	identityConfirm              // the row may forget the former one
	identityDrop                 // the noted pair is of no use
)

// planIdentity decides by the member's row and the fingerprints of the present and the noted
// pair; next is "" if there is none.
func planIdentity(row *state.Member, own, next string, due bool) identityStep {
	switch {
	case next == own && next != "":
		return identityDrop
	case next != "" && row.Fingerprint == next:
		return identityAdopt
	case row.Fingerprint != own:
		return identityRest // not what this program did; see docs/certificates.md
	case next != "":
		return identityPropose
	case row.Former != "":
		return identityConfirm
	case due:
		return identityRenew
	}
	return identityRest
}

// identityDue tells whether the server's certificate, which it made itself, comes to its end.
func identityDue(own *trust.KeyPair, now time.Time) bool {
	return own.Generated() && trust.RenewalDue(own.Cert, now)
}

// keepIdentity renews this server's certificate in time, and finishes renewals that were cut off.
func (d *Daemon) keepIdentity() {
	for {
		swapped := d.swap()
		view := d.current.Local()
		if err := d.tendIdentity(d.ctx); err != nil && d.ctx.Err() == nil {
			d.log.Warn("this server's certificate was not renewed; trying again", "err", err)
		}
		select {
		case <-view.WatchMembers():
		case <-time.After(identityInterval):
		case <-swapped:
		case <-d.ctx.Done():
			return
		}
	}
}

// tendIdentity takes the steps that are due. A join must not be under way: the cluster knows the
// joining server by its certificate.
func (d *Daemon) tendIdentity(ctx context.Context) error {
	d.own.renewing.Lock()
	defer d.own.renewing.Unlock()
	if step, _ := d.identityStep(); step == identityRest {
		return nil
	}
	end, err := d.joiner.Begin()
	if err != nil {
		return nil // it is looked at again
	}
	defer end()
	for {
		step, next := d.identityStep()
		if step == identityRest {
			return nil
		}
		if err := d.takeIdentityStep(ctx, step, next); err != nil {
			return err
		}
	}
}

// identityStep is what is due, and the noted pair; nil if there is none.
func (d *Daemon) identityStep() (identityStep, *trust.KeyPair) {
	row, ok := d.current.Local().Member(d.current.ID())
	if !ok || row.State != state.MemberActive {
		return identityRest, nil
	}
	own, next, noted := d.own.pair(), d.own.next(), ""
	if next != nil {
		noted = next.Fingerprint()
	}
	return planIdentity(row, own.Fingerprint(), noted, identityDue(own, d.cfg.Now())), next
}

func (d *Daemon) takeIdentityStep(ctx context.Context, step identityStep, next *trust.KeyPair) error {
	own := d.own.pair()
	switch step {
	case identityRenew:
		pair, err := trust.GenerateAt(d.cfg.Now(), trust.Server, trust.LocalHosts()...)
		if err != nil {
			return err
		}
		if err := d.own.note(pair); err != nil {
			return err
		}
		return d.reach(PointIdentityNoted)
	case identityPropose:
		err := d.proposeIdentity(ctx, own, next)
		if errors.Is(err, api.CertTaken) || errors.Is(err, api.Conflict) {
			d.own.forget()
		}
		if err != nil {
			return err
		}
		return d.reach(PointIdentityProposed)
	case identityAdopt:
		if err := d.own.adopt(next); err != nil {
			return err
		}
		return d.reach(PointIdentityAdopted)
	case identityConfirm:
		return d.changeIdentity(ctx, state.MemberCertificate{Fingerprint: own.Fingerprint(), Shown: true})
	case identityDrop:
		d.own.forget()
	}
	return nil
}

// proposeIdentity puts next into this member's row.
func (d *Daemon) proposeIdentity(ctx context.Context, own, next *trust.KeyPair) error {
	until := next.Cert.NotAfter
	endorsement, err := own.Endorse(next.Cert, d.cfg.Now(), until)
	if err != nil {
		return err
	}
	return d.changeIdentity(ctx, state.MemberCertificate{
		Expect: own.Fingerprint(), Certificate: trust.EncodePEM(next.Cert), Fingerprint: next.Fingerprint(), Endorsement: endorsement, Until: until.UTC(),
	})
}

func (d *Daemon) changeIdentity(ctx context.Context, body state.MemberCertificate) error {
	ctx, cancel := context.WithTimeout(ctx, identityTime)
	defer cancel()
	body.ID = d.current.ID()
	return d.propose(ctx, state.KindMemberCert, nil, body)
}

// updateIdentity lets a standalone server show the pair that an administrator supplies. Members
// renew theirs by themselves.
func (d *Daemon) updateIdentity(ctx context.Context, certPEM, keyPEM string) error {
	if d.current.Local().Cluster().Enabled {
		return api.Errorf(api.BadRequest, "Server certificate updates aren't supported in clusters").
			WithHint("replace what clients see: incus cluster update-certificate CERT KEY; a member's own certificate is renewed by itself")
	}
	pair, err := trust.CheckPair(certPEM, keyPEM, d.cfg.Now())
	if err != nil {
		return err
	}
	end, err := d.joiner.Begin()
	if err != nil {
		return err
	}
	d.own.renewing.Lock()
	err = d.replaceIdentity(ctx, pair)
	d.own.renewing.Unlock()
	end()
	if err != nil {
		return err
	}
	return d.tendIdentity(ctx)
}

// replaceIdentity takes the first steps with a pair that is given; the others follow as ever.
func (d *Daemon) replaceIdentity(ctx context.Context, pair *trust.KeyPair) error {
	own := d.own.pair()
	if string(own.CertPEM) == string(pair.CertPEM) {
		return nil
	}
	if trust.Same(own.Cert, pair.Cert) { // with other intermediates: nobody knows it by those
		return d.own.adopt(pair)
	}
	if err := d.own.note(pair); err != nil {
		return err
	}
	if err := d.proposeIdentity(ctx, own, pair); err != nil {
		if !errors.Is(err, api.OutcomeUnknown) {
			d.own.forget()
		}
		return fmt.Errorf("replace the server's certificate: %w", err)
	}
	return nil
}

// UpdateCertificate is updateIdentity for the REST API.
func (l *lifecycle) UpdateCertificate(ctx context.Context, certPEM, keyPEM string) error {
	return (*Daemon)(l).updateIdentity(ctx, certPEM, keyPEM)
}

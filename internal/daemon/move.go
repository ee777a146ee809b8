package daemon

import (
	"context"
	"errors"
	"time"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/membership"
	"incusd/internal/raftstore"
)

const (
	keyClusterAddress = "cluster.https_address"
	keyCoreAddress    = "core.https_address"
	keyMetricsAddress = "core.metrics_address"
	// announceInterval is the pause between two tries to tell the cluster where this member is.
	announceInterval = time.Second
)

// Steps of a move that Config.Reach is told of; each names what has just been done.
const (
	PointAddressNoted = "address.noted"
	PointAddressTold  = "address.told"
)

// SetAddress moves this member to another address while the cluster runs. It listens there
// beside the old address, lets the other members look, notes the address, and tells the
// cluster; the old address is closed last. A crash after the note goes on at the next start,
// before it nothing has changed. With unseen the others need not reach the address yet.
func (l *lifecycle) SetAddress(ctx context.Context, address string, unseen bool) error {
	d := (*Daemon)(l)
	address, err := membership.MemberAddress(address)
	if err != nil {
		return err
	}
	store, err := d.current.get()
	if err != nil {
		return err
	}
	if !store.Local().Cluster().Enabled {
		return api.Errorf(api.NotClustered, "This server is not clustered").
			WithHint("set the address of a standalone server with: incus config set core.https_address=ADDRESS")
	}
	d.settings.mu.Lock()
	defer d.settings.mu.Unlock()
	release, err := d.https.hold(address)
	if err != nil {
		return err
	}
	defer d.listenAgain()
	defer release()
	look := membership.LookNone
	if !unseen {
		look = membership.LookDone
		if err := membership.CheckReached(ctx, store, d.memberName, address); err != nil {
			return err
		}
	}
	return d.moveTo(ctx, store, address, look)
}

// moveTo notes the address and tells the cluster. What was refused is not noted any more
// afterwards; what may have been taken is, and told again until it is.
func (d *Daemon) moveTo(ctx context.Context, store *raftstore.Store, address string, look membership.Look) error {
	before := d.local.Config()
	m, ok := store.Local().Member(store.ID())
	if !ok {
		return api.MemberRemoved
	}
	if err := d.local.SetConfig(config.MovedAddresses(before, m.Address, address)); err != nil {
		return err
	}
	if err := d.reach(PointAddressNoted); err != nil {
		return err
	}
	err := d.announce(ctx, store, address, look)
	if errors.Is(err, api.OutcomeUnknown) {
		select {
		case d.untold <- struct{}{}:
		default:
		}
		return err
	}
	if err == nil {
		return nil
	}
	undo := map[string]string{keyClusterAddress: before[keyClusterAddress], keyCoreAddress: before[keyCoreAddress]}
	if undoErr := d.local.SetConfig(undo); undoErr != nil {
		d.log.Error("go back to the former address", "err", undoErr)
	}
	return err
}

func (d *Daemon) announce(ctx context.Context, store *raftstore.Store, address string, look membership.Look) error {
	if err := membership.Announce(ctx, store, address, look, d.cfg.Now()); err != nil {
		return err
	}
	d.reachPoint(PointAddressTold)
	d.log.Info("the cluster knows this member's address", "address", address)
	return nil
}

func (d *Daemon) listenAgain() {
	if err := d.listen(); err != nil {
		d.log.Error("listen after a change of address", "err", err)
	}
}

func (d *Daemon) memberName(id string) string {
	if m, ok := d.current.Local().Member(id); ok {
		return m.Name
	}
	return id
}

// keepAddress tells the cluster when the address under which this member is configured is
// not the one that the cluster knows: it was changed while the daemon was stopped, or a move
// was cut off.
func (d *Daemon) keepAddress() {
	for {
		swapped := d.swap()
		view := d.current.Local()
		var again <-chan time.Time
		if address, moved := d.movedTo(view); moved {
			d.tryAnnounce(address)
			again = time.After(announceInterval)
		}
		select {
		case <-view.WatchMembers():
		case <-d.untold: // nobody tells a member anything who does not know where it is
		case <-again:
		case <-swapped:
		case <-d.ctx.Done():
			return
		}
	}
}

// movedTo is the configured address, if the cluster knows another one.
func (d *Daemon) movedTo(view *raftstore.View) (address string, moved bool) {
	configured := d.local.Config()[keyClusterAddress]
	m, ok := view.Member(d.current.ID())
	if configured == "" || !ok || !view.Cluster().Enabled {
		return "", false
	}
	address = config.CanonicalAddress(configured, config.DefaultPort)
	return address, address != m.Address
}

// tryAnnounce leaves a move alone that is under way.
func (d *Daemon) tryAnnounce(address string) {
	if !d.settings.mu.TryLock() {
		return
	}
	defer d.settings.mu.Unlock()
	if now, moved := d.movedTo(d.current.Local()); !moved || now != address {
		return
	}
	store, err := d.current.get()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(d.ctx, 10*time.Second)
	defer cancel()
	if err := d.announce(ctx, store, address, membership.LookDue); err != nil && d.ctx.Err() == nil {
		d.log.Warn("the cluster does not know this member's address yet; trying again", "address", address, "err", err)
	}
}

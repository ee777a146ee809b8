package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"incusd/api"
	restapi "incusd/internal/api"
	"incusd/internal/entities"
	"incusd/internal/events"
	"incusd/internal/localstore"
	"incusd/internal/membership"
	"incusd/internal/network"
	"incusd/internal/operations"
	"incusd/internal/raftstore"
	"incusd/internal/resources"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// Config is what a daemon is started with. Only Paths is required.
type Config struct {
	Paths Paths
	// Group, if set, owns the unix socket.
	Group string
	// Timing is the replicated store's.
	Timing raftstore.Timing
	// Membership are the intervals of the leader's loops.
	Membership membership.Settings
	Logger     *slog.Logger

	// Listen, ListenUnix and Dial reach the network; the machine's own by default.
	Listen     ListenFunc
	ListenUnix func() (net.Listener, error)
	Dial       func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the wall clock.
	Now func() time.Time

	// Storage and Network make pools and networks; those of this machine by default.
	Storage entities.StorageDrivers
	Network entities.NetworkDrivers

	// Reach is told of each named step of a write, a join or the making of an entity, and may
	// fail or stop it; see raftstore.Config.Reach, membership.JoinerConfig.Reach and
	// entities.MachineConfig.Reach. For tests.
	Reach func(point string) error
	// WrapLog stands between Raft and its log. For tests.
	WrapLog func(raft.LogStore) raft.LogStore
	// SnapshotEvery is after how many entries the log is compacted; 0 means the default.
	SnapshotEvery uint64
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Listen == nil {
		c.Listen = net.Listen
	}
	if c.ListenUnix == nil {
		c.ListenUnix = func() (net.Listener, error) { return listenUnix(c.Paths.Socket, c.Group) }
	}
	if c.Dial == nil {
		// Never through a proxy: members' traffic is theirs alone.
		c.Dial = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

// A Daemon is one running server.
type Daemon struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context // ends when the daemon stops
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// joins are the tries to settle a join that was cut off, and what follows the removal of
	// this server. They may swap the replica, so they end before it is closed.
	joins sync.WaitGroup
	// startingOver is held while this server becomes an empty standalone one, and while it asks to
	// be readmitted: a cluster must not count a member that has just been emptied.
	startingOver turn
	// turns are what watchStanding is to do; see inTurn.
	turns chan func()
	// untold wakes keepAddress: a move was noted, and whether the cluster knows of it is not known.
	untold chan struct{}

	own        *identity
	authority  *trust.Authority // nil without server.ca
	local      *localstore.Store
	current    *current
	endpoint   *raftstore.Endpoint
	network    *networkCertificate
	operations *operations.Registry
	events     *events.Hub
	// whereabouts is what location says, for the log, which takes no locks for it.
	whereabouts atomic.Value
	tokens      *tokens.Service
	joiner      *membership.Joiner
	admission   *membership.Admissions
	settings    *settings
	machine     *entities.Machine
	entities    *entities.Service
	applier     *entities.Applier
	building    builder
	rest        *restapi.Server
	https       *listeners
	metrics     *listeners // for metrics alone
	unix        *http.Server
	peers       peerTransports

	begun    time.Time     // monotonic
	opened   chan struct{} // closed when start has returned: nothing is opened after that
	started  chan struct{}
	ready    chan struct{}
	stopping atomic.Bool
	stopOnce sync.Once
	done     chan struct{} // closed when stopped
	// failed ends when the store must stop; its cause is the reason.
	failed context.Context
	fail   context.CancelCauseFunc
	// swapped is closed and replaced when the replica is.
	swapMu  sync.Mutex
	swapped chan struct{}
	// fenced wakes who lets this member follow a recovered cluster.
	fenced chan struct{}
}

// Start opens everything and returns a daemon that answers. The unix socket answers
// first, before and without a quorum. It fails with the reason if a store is damaged,
// from a newer version or on a full disk, and with ShuttingDown if it is stopped before
// it has started; then it has closed all again.
func Start(cfg Config) (*Daemon, error) {
	cfg.setDefaults()
	d := newDaemon(cfg)
	if err := d.run(); err != nil {
		return nil, err
	}
	return d, nil
}

// run starts the daemon, or ends it and says why.
func (d *Daemon) run() error {
	err := d.start()
	close(d.opened)
	if err == nil {
		return nil
	}
	d.Stop(context.Background())
	if cause := d.Err(); cause != nil {
		return cause
	}
	return err
}

func newDaemon(cfg Config) *Daemon {
	d := &Daemon{
		cfg:          cfg,
		current:      &current{},
		endpoint:     &raftstore.Endpoint{},
		events:       events.New(),
		begun:        time.Now(),
		opened:       make(chan struct{}),
		started:      make(chan struct{}),
		ready:        make(chan struct{}),
		done:         make(chan struct{}),
		swapped:      make(chan struct{}),
		turns:        make(chan func()),
		untold:       make(chan struct{}, 1),
		startingOver: make(turn, 1),
		fenced:       make(chan struct{}, 1),
	}
	d.log = slog.New(&logEvents{Handler: cfg.Logger.Handler(), daemon: d})
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.failed, d.fail = context.WithCancelCause(context.Background())
	d.operations = operations.New(d.location, d.publishOperation, cfg.Now)
	return d
}

// start opens all in order. It can be stopped before it is done: the socket answers
// early, and the store may fail.
func (d *Daemon) start() error {
	for _, open := range []func() error{d.openLocal, d.buildServices, d.serveUnix, d.openCurrent, d.listenAtStart} {
		if err := open(); err != nil {
			return err
		}
		if d.ctx.Err() != nil {
			return api.Errorf(api.ShuttingDown, "Stopped before everything was started")
		}
	}
	close(d.started)
	d.wg.Go(d.follow)
	d.wg.Go(d.keepAddress)
	d.wg.Go(d.keepIdentity)
	d.wg.Go(d.comeBack)
	d.wg.Go(func() { d.applier.Run(d.ctx) })
	d.settleJoin()
	d.joins.Go(d.watchStanding)
	d.joins.Go(d.followRecoveries)
	d.wg.Go(d.becomeReady)
	return nil
}

// openLocal opens what is this server's alone: its directory, settings and key.
func (d *Daemon) openLocal() error {
	if err := d.cfg.Paths.prepare(); errors.Is(err, fs.ErrPermission) {
		return api.Errorf(api.NotPermitted, "state directory: %v", err).WithHint("run incusd as root, or give it an INCUS_DIR in which this user may write")
	} else if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := d.cfg.Paths.protect(d.log); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	var err error
	if err := d.cfg.Paths.checkTogether(); err != nil {
		return err
	}
	// The local store's lock keeps a second daemon off this directory.
	if d.local, err = localstore.Open(d.cfg.Paths.localStore()); err != nil {
		return err
	}
	if d.authority, err = trust.LoadAuthority(d.cfg.Paths.Dir); err != nil {
		return err
	}
	if d.authority != nil {
		d.log.Info("clients need a certificate that the authority in server.ca has signed")
	}
	own, err := trust.LoadOrGenerate(d.cfg.Paths.Dir, "server", d.cfg.Now())
	if err != nil {
		return err
	}
	d.own = &identity{paths: d.cfg.Paths, local: d.current.Local, id: d.current.ID, now: d.cfg.Now, log: d.log}
	d.own.own.Store(own)
	d.network = &networkCertificate{own: d.own, local: d.current.Local, log: d.log, now: d.cfg.Now}
	return nil
}

// buildServices makes the parts that live as long as the daemon. They all see the
// replica through d.current.
func (d *Daemon) buildServices() error {
	d.peers.init(d)
	d.building.daemon = d
	d.openMachine()
	d.tokens = tokens.New(d.current, d.cfg.Now, d.log)
	d.admission = membership.NewAdmissions(d.current, prober{d.cfg.Dial}, d.tokens, inventory{}, d.cfg.Membership, d.cfg.Now, d.log)
	d.settings = &settings{daemon: d}
	d.joiner = membership.NewJoiner(membership.JoinerConfig{
		Notes:        d.local,
		Own:          d.own.pair,
		Dial:         d.cfg.Dial,
		Connect:      d.connect,
		Listen:       d.holdAddress,
		Open:         d.openJoining,
		Builder:      &d.building,
		Discard:      d.discard,
		Adopt:        d.adopt,
		Architecture: restapi.Architecture(),
		Now:          d.cfg.Now,
		Log:          d.log,
		Reach:        d.cfg.Reach,
	})
	facts, err := restapi.ReadFacts()
	if err != nil {
		return err
	}
	facts.Firewall = network.Firewall()
	d.rest = restapi.New(restapi.Config{
		Store:          d.current,
		Tokens:         d.tokens,
		Bootstrap:      d.bootstrap,
		Join:           d.join,
		Reset:          d.reset,
		Admission:      d.admission,
		Leadership:     d.current,
		Members:        d.admission,
		Settings:       d.settings,
		TrustStore:     (*trustStore)(d),
		Daemon:         (*lifecycle)(d),
		Recovery:       (*recoverer)(d),
		Health:         (*checkup)(d),
		Operations:     d.operations,
		Events:         d.events,
		Entities:       d.entities,
		Resources:      resources.Read,
		StorageDrivers: d.cfg.Storage.Supported,
		Facts:          facts,
		Certificate:    d.network.describe,
		Peer:           d.peers.of,
		Authority:      d.authority,
		Now:            d.cfg.Now,
		Log:            d.log,
	})
	shown := tlsIdentity{network: d.network.tls, own: d.own.tls}
	d.https = newListeners(d.cfg.Listen, d.trustedProxies, shown, d.endpoint, d.rest.Handler(restapi.TLSListener), restapi.ConnContext, d.log)
	d.metrics = newListeners(d.cfg.Listen, d.trustedProxies, shown, nil, d.rest.MetricsHandler(), restapi.ConnContext, d.log)
	return nil
}

func (d *Daemon) serveUnix() error {
	ln, err := d.cfg.ListenUnix()
	if err != nil {
		return err
	}
	d.unix = newHTTPServer(d.rest.Handler(restapi.UnixListener), restapi.ConnContext, d.log)
	d.wg.Go(func() {
		if err := d.unix.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("unix socket ended", "err", err)
		}
	})
	return nil
}

// becomeReady waits until the replica answers, within a bound: without quorum the
// daemon is as ready as it can be.
func (d *Daemon) becomeReady() {
	ctx, cancel := context.WithTimeout(d.ctx, 10*time.Second)
	defer cancel()
	if _, err := d.current.Read(ctx); err != nil {
		d.log.Warn("started, and takes no part in its cluster yet", "err", err)
	}
	close(d.ready)
}

// location names this server for operations and events: its member name, or "none".
func (d *Daemon) location() string {
	v := d.current.Local()
	if v == nil {
		return "none"
	}
	if m, ok := v.Member(d.current.ID()); ok && v.Cluster().Enabled {
		return m.Name
	}
	return "none"
}

// ID is the server's Raft ID, which is its member's ID too. A join or a reset changes it.
func (d *Daemon) ID() string { return d.current.ID() }

// View is the replicated state as this server's own replica has it; it may be stale.
func (d *Daemon) View() *raftstore.View { return d.current.Local() }

// Voters are the IDs of those who vote by this server's own log, committed or not.
func (d *Daemon) Voters() []string {
	var out []string
	for _, s := range d.current.store.Load().Servers() {
		if s.Voter {
			out = append(out, s.ID)
		}
	}
	return out
}

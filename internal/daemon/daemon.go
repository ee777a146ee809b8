package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"incusd/api"
	restapi "incusd/internal/api"
	"incusd/internal/config"
	"incusd/internal/events"
	"incusd/internal/localstore"
	"incusd/internal/membership"
	"incusd/internal/operations"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
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

	// Reach is told of each named step of a write or a join and may fail or stop it; see
	// raftstore.Config.Reach and membership.JoinerConfig.Reach. For tests.
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

	own        *trust.KeyPair
	local      *localstore.Store
	current    *current
	endpoint   *raftstore.Endpoint
	network    *networkCertificate
	operations *operations.Registry
	events     *events.Hub
	tokens     *tokens.Service
	joiner     *membership.Joiner
	admission  *membership.Admissions
	settings   *settings
	rest       *restapi.Server
	https      *listeners
	unix       *http.Server
	peers      peerTransports

	started  chan struct{}
	ready    chan struct{}
	stopping atomic.Bool
	stopOnce sync.Once
	done     chan struct{} // closed when stopped
	failure  atomic.Pointer[error]
	// swapped is closed and replaced when the replica is.
	swapMu  sync.Mutex
	swapped chan struct{}
}

// Start opens everything and returns a daemon that answers. The unix socket answers
// first, before and without a quorum. It fails with the reason if a store is damaged,
// from a newer version or on a full disk, and then has closed all again.
func Start(cfg Config) (*Daemon, error) {
	cfg.setDefaults()
	d := newDaemon(cfg)
	if err := d.start(); err != nil {
		d.Stop(context.Background())
		return nil, err
	}
	return d, nil
}

func newDaemon(cfg Config) *Daemon {
	d := &Daemon{
		cfg:      cfg,
		log:      cfg.Logger,
		current:  &current{},
		endpoint: &raftstore.Endpoint{},
		events:   events.New(),
		started:  make(chan struct{}),
		ready:    make(chan struct{}),
		done:     make(chan struct{}),
		swapped:  make(chan struct{}),
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.operations = operations.New(d.location, d.publishOperation, cfg.Now)
	return d
}

func (d *Daemon) start() error {
	if err := d.cfg.Paths.prepare(); err != nil {
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
	if d.own, err = trust.LoadOrGenerate(d.cfg.Paths.Dir, "server"); err != nil {
		return err
	}
	d.network = &networkCertificate{own: d.own, local: d.current.Local, log: d.log}
	if err := d.buildServices(); err != nil {
		return err
	}
	if err := d.serveUnix(); err != nil {
		return err
	}
	if err := d.openCurrent(); err != nil {
		return err
	}
	if err := d.listenAtStart(); err != nil {
		return err
	}
	close(d.started)
	d.wg.Go(d.follow)
	d.wg.Go(func() { d.joiner.Resume(d.ctx) })
	d.wg.Go(d.becomeReady)
	return nil
}

// buildServices makes the parts that live as long as the daemon. They all see the
// replica through d.current.
func (d *Daemon) buildServices() error {
	d.peers.init(d)
	d.tokens = tokens.New(d.current, d.cfg.Now, d.log)
	d.admission = membership.NewAdmissions(d.current, prober{d.cfg.Dial}, d.cfg.Membership, d.cfg.Now, d.log)
	d.settings = &settings{daemon: d}
	d.joiner = membership.NewJoiner(membership.JoinerConfig{
		Notes:        d.local,
		Own:          d.own,
		Dial:         d.cfg.Dial,
		Connect:      d.connect,
		Listen:       d.holdAddress,
		Open:         d.openJoining,
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
	d.rest = restapi.New(restapi.Config{
		Store:       d.current,
		Tokens:      d.tokens,
		Bootstrap:   d.bootstrap,
		Join:        d.join,
		Admission:   d.admission,
		Members:     d.admission,
		Settings:    d.settings,
		TrustStore:  (*trustStore)(d),
		Daemon:      (*lifecycle)(d),
		Operations:  d.operations,
		Events:      d.events,
		Facts:       facts,
		Certificate: d.network.describe,
		Peer:        d.peers.of,
		Now:         d.cfg.Now,
		Log:         d.log,
	})
	d.https = newListeners(d.cfg.Listen, tlsIdentity{network: d.network.tls, own: d.own.TLS},
		d.endpoint, d.rest.Handler(restapi.TLSListener), restapi.ConnContext, d.log)
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

// openCurrent opens this server's replica, or makes the first one: a standalone server
// is a cluster of one with the same store.
func (d *Daemon) openCurrent() error {
	rep, ok := d.local.Current()
	create := !ok
	if create {
		id := uuid.NewString()
		rep = localstore.Replica{ID: id, Dir: id, ClusterID: uuid.NewString()}
	}
	store, err := d.openReplica(rep, d.knownPeers(), create, true)
	if err != nil {
		return err
	}
	if create {
		// Noted only now: without a note, a crash before leaves a folder that the next start
		// sweeps away, and never a note of a replica that is not there.
		if err := d.local.SetCurrent(rep); err != nil {
			store.Close()
			return err
		}
	}
	d.endpoint.Attach(store)
	d.current.store.Store(store)
	d.watchFailure(store)
	d.sweepReplicas()
	return d.initCluster(store, rep.ClusterID)
}

func (d *Daemon) openReplica(rep localstore.Replica, peers []raftstore.Peer, create, bootstrap bool) (*raftstore.Store, error) {
	var store *raftstore.Store
	isOpen := make(chan struct{})
	cfg := raftstore.Config{
		ID:             rep.ID,
		ClusterID:      rep.ClusterID,
		Dir:            d.replicaDir(rep),
		Create:         create,
		Bootstrap:      bootstrap,
		Certificate:    d.own.TLS,
		Peers:          peers,
		CommitHint:     d.local.CommitHint(rep.ID),
		SaveCommitHint: func(index uint64) { d.saveHint(rep.ID, index) },
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return d.cfg.Dial(ctx, "tcp", address)
		},
		OnEvents: func(evs []state.Event) { d.publishApplied(rep.ID, evs) },
		OnReady: func(ctx context.Context, id string) error {
			if !opened(ctx, isOpen) {
				return ctx.Err()
			}
			return membership.Ready(ctx, store, store, id)
		},
		OnLeader: func(ctx context.Context) {
			if !opened(ctx, isOpen) || store == nil {
				return
			}
			membership.NewLeader(store, store, d.cfg.Membership, d.cfg.Now, d.log).Run(ctx)
		},
		WrapLog:       d.cfg.WrapLog,
		Reach:         d.cfg.Reach,
		Timing:        d.cfg.Timing,
		SnapshotEvery: d.cfg.SnapshotEvery,
		Now:           d.cfg.Now,
		Logger:        d.log.With("member", rep.ID[:8]),
	}
	store, err := raftstore.Open(cfg)
	close(isOpen) // store is set: the callbacks may use it
	return store, err
}

// opened waits until Open has returned: callbacks may come earlier.
func opened(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *Daemon) saveHint(replica string, index uint64) {
	if err := d.local.SetCommitHint(replica, index); err != nil {
		d.log.Debug("the commit hint was not saved", "err", err)
	}
}

// initCluster makes the first entry of a new store, and of one whose first start was cut off.
func (d *Daemon) initCluster(store *raftstore.Store, clusterID string) error {
	if len(store.Servers()) > 1 || store.Local().Cluster().ID != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(d.ctx, 30*time.Second)
	defer cancel()
	cmd, err := state.NewCommand(state.KindClusterInit, uuid.NewString(), d.cfg.Now().UTC(), nil, state.ClusterInit{
		ClusterID: clusterID,
		Member: state.Member{
			ID:             store.ID(),
			Name:           "none",
			Certificate:    string(d.own.CertPEM),
			Fingerprint:    d.own.Fingerprint(),
			Architecture:   restapi.Architecture(),
			CommandVersion: state.CommandVersion,
		},
	})
	if err != nil {
		return err
	}
	if _, err := store.Propose(ctx, cmd); err != nil {
		return fmt.Errorf("begin the store: %w", err)
	}
	return nil
}

// watchFailure ends the daemon when its store must stop: a member that cannot write
// must not pretend to be one.
func (d *Daemon) watchFailure(store *raftstore.Store) {
	d.wg.Go(func() {
		select {
		case err := <-store.Failed():
			d.failure.Store(&err)
			go d.Stop(context.Background())
		case <-d.ctx.Done():
		}
	})
}

func (d *Daemon) replicaDir(rep localstore.Replica) string {
	return filepath.Join(d.cfg.Paths.replicas(), rep.Dir)
}

// knownPeers are the members as this server last knew them.
func (d *Daemon) knownPeers() []raftstore.Peer {
	return storePeers(d.local.Peers(), d.log)
}

func storePeers(peers []localstore.Peer, log *slog.Logger) []raftstore.Peer {
	out := make([]raftstore.Peer, 0, len(peers))
	for _, p := range peers {
		cert, err := trust.ParseCertificate(p.Certificate)
		if err != nil {
			log.Warn("a known member's certificate cannot be read", "member", p.Name, "err", err)
			continue
		}
		out = append(out, raftstore.Peer{ID: p.ID, Address: p.Address, Fingerprint: trust.Fingerprint(cert)})
	}
	return out
}

// sweepReplicas removes folders that neither the current replica nor a join owns.
func (d *Daemon) sweepReplicas() {
	keep := map[string]bool{}
	if rep, ok := d.local.Current(); ok {
		keep[rep.Dir] = true
	}
	if rec, ok := d.local.Join(); ok {
		keep[rec.Replica.Dir] = true
	}
	entries, err := os.ReadDir(d.cfg.Paths.replicas())
	if err != nil {
		d.log.Warn("look for left-over replicas", "err", err)
		return
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			d.removeReplica(e.Name())
		}
	}
}

func (d *Daemon) removeReplica(dir string) {
	if dir == "" || dir != filepath.Base(dir) {
		return
	}
	if err := os.RemoveAll(filepath.Join(d.cfg.Paths.replicas(), dir)); err != nil {
		d.log.Warn("remove a replica that is no longer used", "dir", dir, "err", err)
	}
}

// addresses are the configured ones to listen on.
func (d *Daemon) addresses() []string {
	local := d.local.Config()
	return listenAddresses(local)
}

// listenAddresses are those of the local keys, with their ports.
func listenAddresses(local map[string]string) []string {
	var out []string
	for _, key := range []string{"core.https_address", "cluster.https_address"} {
		if a := local[key]; a != "" {
			out = append(out, config.CanonicalAddress(a, config.DefaultPort))
		}
	}
	return out
}

// listenAtStart opens the listeners. A clustered server whose address is not there yet
// (the network comes up late) tries again for a minute, and meanwhile answers on its socket.
func (d *Daemon) listenAtStart() error {
	err := d.https.set(d.addresses()...)
	if err == nil {
		return nil
	}
	if v := d.current.Local(); v == nil || !v.Cluster().Enabled {
		d.log.Error("the server is not available on the network", "err", err)
		return nil
	}
	d.log.Warn("cannot listen yet, trying again", "err", err)
	d.wg.Go(d.retryListening)
	return nil
}

func (d *Daemon) retryListening() {
	const pause, tries = time.Second, 60
	for range tries {
		select {
		case <-time.After(pause):
		case <-d.ctx.Done():
			return
		}
		if err := d.https.set(d.addresses()...); err == nil {
			return
		}
	}
	d.log.Error("the server is not available on the network: giving up; change core.https_address or restart the daemon")
}

// becomeReady waits until the replica answers, within a bound: without quorum the
// daemon is as ready as it can be.
func (d *Daemon) becomeReady() {
	ctx, cancel := context.WithTimeout(d.ctx, 10*time.Second)
	defer cancel()
	if _, err := d.current.Read(ctx); err != nil {
		d.log.Warn("started without a quorum", "err", err)
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

// Done is closed when the daemon has stopped.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Err is why the daemon stopped by itself, nil if it was asked to.
func (d *Daemon) Err() error {
	if err := d.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Stop ends the daemon: it waits for operations until ctx ends, hands leadership over,
// and closes all in reverse. It blocks until that is done; more than one call is harmless.
func (d *Daemon) Stop(ctx context.Context) {
	d.stopOnce.Do(func() { d.stop(ctx) })
	<-d.done
}

// Kill ends the daemon as a crash would, as far as one process can: nothing is handed
// over, no operation is waited for, nobody is told. It is for tests.
func (d *Daemon) Kill() {
	d.stopOnce.Do(func() {
		defer close(d.done)
		d.stopping.Store(true)
		d.close()
	})
	<-d.done
}

// View is the replicated state as this server's own replica has it; it may be stale.
func (d *Daemon) View() *raftstore.View { return d.current.Local() }

func (d *Daemon) stop(ctx context.Context) {
	defer close(d.done)
	d.quiesce(ctx)
	d.close()
}

// close ends everything, in reverse of start.
func (d *Daemon) close() {
	d.cancel()
	ended, cut := context.WithCancel(context.Background())
	cut()
	if err := d.operations.Shutdown(ended); err != nil {
		d.log.Debug("operations were cut off", "err", err)
	}
	if d.rest != nil {
		d.rest.Close() // ends waits and WebSockets
	}
	// Members' connections count as requests of the HTTPS server: the store ends them.
	if s := d.current.store.Load(); s != nil {
		d.endpoint.Detach(s)
		if err := s.Close(); err != nil {
			d.log.Error("close the replicated store", "err", err)
		}
	}
	short, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if d.https != nil {
		d.https.close(short)
	}
	if d.unix != nil {
		if err := d.unix.Shutdown(short); err != nil {
			d.unix.Close()
		}
	}
	d.peers.close()
	d.wg.Wait()
	if d.local != nil {
		if err := d.local.Close(); err != nil {
			d.log.Error("close the local store", "err", err)
		}
	}
}

// quiesce ends what clients asked for, and gives leadership away.
func (d *Daemon) quiesce(ctx context.Context) {
	d.stopping.Store(true)
	if err := d.operations.Shutdown(ctx); err != nil {
		d.log.Warn("operations were cut off", "err", err)
	}
	if s := d.current.store.Load(); s != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := s.Handover(ctx); err != nil {
			d.log.Warn("leadership was not handed over", "err", err)
		}
	}
}

// lifecycle is the daemon as the REST API sees it.
type lifecycle Daemon

func (l *lifecycle) Started() <-chan struct{} { return l.started }
func (l *lifecycle) Ready() <-chan struct{}   { return l.ready }
func (l *lifecycle) Stopping() bool           { return l.stopping.Load() }

// Shutdown begins the end. The listeners are closed when its answer has been sent.
func (l *lifecycle) Shutdown(ctx context.Context, force bool) error {
	d := (*Daemon)(l)
	if !d.stopping.CompareAndSwap(false, true) {
		return api.Errorf(api.TooMany, "Shutdown already in progress")
	}
	if force {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		cancel()
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.ShutdownTime())
		defer cancel()
	}
	d.quiesce(ctx)
	go d.Stop(context.Background())
	return nil
}

// ShutdownTime is core.shutdown_timeout: how long a clean stop waits for operations.
func (d *Daemon) ShutdownTime() time.Duration {
	v := d.current.Local()
	if v == nil {
		return time.Minute
	}
	return time.Duration(config.GetInt(v.Config(), "core.shutdown_timeout")) * time.Minute
}

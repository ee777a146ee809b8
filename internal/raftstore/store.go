package raftstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// A Store is one open replica. All its methods may be called concurrently.
type Store struct {
	cfg       Config
	ctx       context.Context
	cancel    context.CancelFunc
	closed    chan struct{}
	closeOnce sync.Once
	failure   chan error
	failed    atomic.Pointer[error] // what failure had
	// spawnMu keeps wg from growing once shutdown waits for it.
	spawnMu  sync.Mutex
	stopping bool
	wg       sync.WaitGroup

	disk      *disk
	log       *guardedLog
	fsm       *fsm
	transport *transport
	raft      *raft.Raft
	clients   clients
	conns     conns
	// caughtUp is set once the tables hold an entry of the current leader: from then on
	// they alone say who is a member.
	caughtUp   atomic.Bool
	leadership leadership

	hints    peerHints
	moves    moves
	roll     roll
	standing standing
	rivals   rivals

	// shutOut is why this member takes no part any more; nil while it does.
	shutOut atomic.Pointer[api.Error]
	// confirming is set while a fenced member is asked whether it is of a later lineage.
	confirming atomic.Bool
	// raftDone waits for Raft, which stops once.
	raftOnce sync.Once
	raftDone raft.Future

	proposals chan *proposal
	// writes is held for reading by each change that this leader takes; held refuses them.
	writes    sync.RWMutex
	held      *api.Error
	roundMu   sync.Mutex
	nextRound *readRound
	roundRuns bool
	noticeMu  sync.Mutex
	notices   map[string]*notice
}

// Open opens the replica in cfg.Dir and starts Raft. It does not wait for a quorum:
// Local answers at once, from what was known to be committed. It fails with
// api.StoreDamaged, api.StoreTooNew or api.DiskFull and then has changed nothing.
func Open(cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	d, err := openDisk(&cfg)
	if err != nil {
		return nil, err
	}
	s := newStore(cfg, d)
	if err := s.start(); err != nil {
		s.shutdown()
		return nil, err
	}
	return s, nil
}

func newStore(cfg Config, d *disk) *Store {
	s := &Store{
		cfg:       cfg,
		closed:    make(chan struct{}),
		failure:   make(chan error, 1),
		disk:      d,
		proposals: make(chan *proposal, 1024),
		notices:   make(map[string]*notice),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.leadership.changed = make(chan struct{})
	s.leadership.lost = time.Now()
	s.standing.known = make(chan struct{})
	s.moves.noted = maps.Clone(cfg.Moved)
	s.fsm = newFSM(s)
	var logs raft.LogStore = d.db
	if cfg.WrapLog != nil {
		logs = cfg.WrapLog(logs)
	}
	s.log = &guardedLog{LogStore: logs, fail: s.fail, epoch: time.Now()}
	s.transport = newTransport(s)
	return s
}

func (s *Store) start() error {
	if err := s.replay(); err != nil {
		return err
	}
	s.learnRemoval(s.cfg.Removed)
	cached, err := raft.NewLogCache(512, s.log)
	if err != nil {
		return err
	}
	stable := &guardedStable{StableStore: s.disk.db, fail: s.fail}
	conf, notify := s.raftConfig()
	if s.cfg.Create && s.cfg.Bootstrap {
		if err := s.bootstrap(conf, cached, stable); err != nil {
			return err
		}
	}
	if s.raft, err = raft.NewRaft(conf, s.fsm, cached, stable, s.disk.snapshots, s.transport); err != nil {
		return logError(s.cfg.Dir, err)
	}
	if s.cfg.ShutOut != nil {
		s.ShutOut(s.cfg.ShutOut)
	}
	s.wg.Go(s.watchLeader)
	s.wg.Go(s.watchPeers)
	s.wg.Go(s.watchRoll)
	s.wg.Go(func() { s.watchOwnLeadership(notify) })
	s.wg.Go(s.fold)
	s.wg.Go(s.saveHints)
	s.wg.Go(s.compact)
	if s.cfg.ShutOut != nil {
		return nil
	}
	if err := s.electAlone(); err != nil {
		return err
	}
	s.wg.Go(s.watchVote)
	return nil
}

func (s *Store) raftConfig() (*raft.Config, <-chan bool) {
	notify := make(chan bool, 16)
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(s.cfg.ID)
	conf.HeartbeatTimeout = s.cfg.Timing.Election
	conf.ElectionTimeout = s.cfg.Timing.Election
	conf.LeaderLeaseTimeout = s.cfg.Timing.Lease
	// How often a leader repeats what is committed. notifyPeers tells it at once, so this is for
	// notices that were lost only, and every repetition costs both ends.
	conf.CommitTimeout = 500 * time.Millisecond
	conf.SnapshotThreshold = s.cfg.SnapshotEvery // of entries; compact counts commands
	conf.TrailingLogs = s.cfg.SnapshotEvery / 2
	conf.ShutdownOnRemove = false
	conf.NoSnapshotRestoreOnStart = true // replay has done it
	conf.NoLegacyTelemetry = true
	conf.NotifyCh = notify
	conf.Logger = newRaftLog(s.cfg.Logger)
	return conf, notify
}

// bootstrap makes the new replica a cluster of one. An interrupted one is finished by
// the next.
func (s *Store) bootstrap(conf *raft.Config, logs raft.LogStore, stable raft.StableStore) error {
	err := raft.BootstrapCluster(conf, logs, stable, s.disk.snapshots, s.transport, raft.Configuration{
		Servers: []raft.Server{{ID: conf.LocalID, Address: raft.ServerAddress(s.cfg.ID), Suffrage: raft.Voter}},
	})
	if errors.Is(err, raft.ErrCantBootstrap) {
		return nil
	}
	return diskError("make the store", err)
}

// replay fills the tables from the newest snapshot and the log up to the commit hint.
// Raft itself knows nothing to be committed until a leader says so: without this, a
// member without quorum would know neither whom to trust nor what to show.
func (s *Store) replay() error {
	meta, rc, err := s.disk.openSnapshot()
	if err != nil {
		return err
	}
	from := uint64(1)
	if rc != nil {
		err := s.fsm.state.Restore(rc)
		rc.Close()
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", meta.ID, err)
		}
		from = meta.Index + 1
		s.fsm.applied.Store(meta.Index)
	}
	first, err1 := s.disk.db.FirstIndex()
	last, err2 := s.disk.db.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return api.Errorf(api.StoreDamaged, "The replicated store is damaged: %s: %v", logFile(s.cfg.Dir), err)
	}
	if last > 0 && first > from {
		return api.Errorf(api.StoreDamaged, "The replicated store is damaged: entries %d to %d are missing in %s", from, first-1, s.cfg.Dir)
	}
	s.fsm.silentUntil = last
	return s.replayLog(from, min(last, s.cfg.CommitHint))
}

func (s *Store) replayLog(from, to uint64) error {
	for i := from; i <= to; i++ {
		var l raft.Log
		if err := s.disk.db.GetLog(i, &l); err != nil {
			return api.Errorf(api.StoreDamaged, "The replicated store is damaged: entry %d in %s: %v", i, logFile(s.cfg.Dir), err)
		}
		if l.Type != raft.LogCommand && l.Type != raft.LogConfiguration {
			continue
		}
		if err, ok := s.fsm.apply(&l).(error); ok {
			return err
		}
	}
	return nil
}

// electAlone makes the only voter of a cluster stand at once, where Raft would have it
// wait for a leader that cannot be: lowering the time-out makes it look at its clock.
func (s *Store) electAlone() error {
	servers := s.servers()
	voters := slices.DeleteFunc(slices.Clone(servers), func(srv state.Server) bool { return !srv.Voter })
	if len(voters) != 1 || voters[0].ID != s.cfg.ID {
		return nil
	}
	normal := s.raft.ReloadableConfig()
	lower := normal
	lower.HeartbeatTimeout -= time.Millisecond
	if lower.HeartbeatTimeout < s.cfg.Timing.Lease {
		return nil
	}
	if err := s.raft.ReloadConfig(lower); err != nil {
		return err
	}
	return s.raft.ReloadConfig(normal)
}

// calmFactor is how much longer a member without a vote waits for a word from its leader. It
// never stands for election, and a new leader makes itself known to it at once; so it needs few
// heartbeats, which are most of what a large cluster costs when nothing happens.
const calmFactor = 4

// watchVote keeps Raft's time-outs as long as this member's part in elections needs. A member
// that does not know yet whether it votes has the short ones.
func (s *Store) watchVote() {
	calm := false
	for {
		view := s.fsm.state.View()
		if now := len(view.Servers()) > 0 && !view.IsVoter(s.cfg.ID); now != calm {
			if err := s.setPatience(now); err != nil {
				s.cfg.Logger.Error("Raft's time-outs could not be changed", "err", err)
			}
			calm = now
		}
		select {
		case <-view.WatchMembers():
		case <-s.closed:
			return
		}
	}
}

func (s *Store) setPatience(calm bool) error {
	set := s.raft.ReloadableConfig()
	set.HeartbeatTimeout = s.cfg.Timing.Election
	if calm {
		set.HeartbeatTimeout *= calmFactor
	}
	set.ElectionTimeout = set.HeartbeatTimeout
	return s.raft.ReloadConfig(set)
}

// saveHints keeps the commit hint fresh, so that little is unknown after a restart
// without quorum.
func (s *Store) saveHints() {
	if s.cfg.SaveCommitHint == nil {
		return
	}
	var saved uint64
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.closed:
			s.cfg.SaveCommitHint(s.fsm.state.View().Index())
			return
		}
		if index := s.fsm.state.View().Index(); index != saved {
			s.cfg.SaveCommitHint(index)
			saved = index
		}
	}
}

// compact takes a snapshot when enough commands were applied since the last one. Raft
// would count entries, of which one may hold hundreds of commands.
func (s *Store) compact() {
	for {
		select {
		case <-s.fsm.full:
		case <-s.closed:
			return
		}
		s.fsm.since.Store(0)
		// One that is refused (a configuration is being changed) is tried again after as many.
		if err := s.await(s.ctx, s.raft.Snapshot()); err != nil {
			s.cfg.Logger.Debug("no snapshot this time", "err", err)
		}
	}
}

// ID is this member's Raft server ID.
func (s *Store) ID() string { return s.cfg.ID }

// ClusterID is the cluster's ID.
func (s *Store) ClusterID() string { return s.cfg.ClusterID }

// Dir is the replica's folder.
func (s *Store) Dir() string { return s.cfg.Dir }

// Synced tells whether this replica has seen the cluster's present at least once since
// it was opened. Before that its tables may lack whole members.
func (s *Store) Synced() bool { return s.caughtUp.Load() }

// Failed yields the reason, once, when this member had to stop: a disk that cannot be
// written, or an entry that this version cannot apply. The store must then be closed.
func (s *Store) Failed() <-chan error { return s.failure }

// fail stops this member's part in the cluster with a reason.
func (s *Store) fail(err error) {
	s.failed.CompareAndSwap(nil, &err)
	select {
	case s.failure <- err:
		s.cfg.Logger.Error("the replicated store has stopped", "err", err)
	default:
	}
}

// Snapshot compacts the log now. It blocks until that is done.
func (s *Store) Snapshot() error {
	err := s.raft.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}

// Handover gives leadership away, if this member leads and another can: a planned stop
// then costs the cluster some milliseconds. It blocks until done or ctx ends.
func (s *Store) Handover(ctx context.Context) error {
	if !s.IsLeader() {
		return nil
	}
	for _, srv := range s.servers() {
		if srv.Voter && srv.ID != s.cfg.ID && s.CaughtUp(srv.ID) {
			return s.TransferLeadership(ctx, srv.ID)
		}
	}
	return nil
}

// Close stops Raft and closes the files. Calls under way end with an error. It blocks
// for at most a few seconds.
func (s *Store) Close() error {
	return s.shutdown()
}

func (s *Store) shutdown() error {
	var err error
	s.closeOnce.Do(func() {
		var done raft.Future
		if s.raft != nil {
			done = s.stopRaft()
		}
		s.spawnMu.Lock()
		s.stopping = true
		s.spawnMu.Unlock()
		close(s.closed)
		s.cancel()
		s.conns.closeAll()
		s.clients.closeAll()
		s.transport.Close()
		if done != nil {
			err = done.Error()
		}
		s.wg.Wait()
		err = errors.Join(err, s.disk.close())
	})
	return err
}

// stopRaft tells Raft to stop, the first time, and returns what waits for it.
func (s *Store) stopRaft() raft.Future {
	s.raftOnce.Do(func() { s.raftDone = s.raft.Shutdown() })
	return s.raftDone
}

// spawn runs f in a goroutine that Close waits for. It refuses once the store is closing.
func (s *Store) spawn(f func()) bool {
	s.spawnMu.Lock()
	defer s.spawnMu.Unlock()
	if s.stopping {
		return false
	}
	s.wg.Go(f)
	return true
}

// peer finds a member for a connection. The tables decide; until they have caught up
// with a leader, what was known before counts as well, and about those whose row is
// still to come, what another member told.
func (s *Store) peer(id string) (Peer, bool) {
	view := s.fsm.state.View()
	if m, ok := view.Member(id); ok && m.Address != "" {
		return s.moves.apply(Peer{ID: m.ID, Address: m.Address, Fingerprint: m.Fingerprint, Former: m.Former}), true
	}
	if _, removed := view.Removed(id); removed {
		return Peer{}, false
	}
	if !s.caughtUp.Load() {
		for _, p := range s.cfg.Peers {
			if p.ID == id {
				return s.moves.apply(p), true
			}
		}
	}
	return s.hints.get(id, s.fsm.applied.Load())
}

// peerIDs lists all members known, other than this one.
func (s *Store) peerIDs() []string {
	var ids []string
	view := s.fsm.state.View()
	for _, m := range append(view.Members(), view.Joining()...) {
		ids = append(ids, m.ID)
	}
	if !s.caughtUp.Load() {
		for _, p := range s.cfg.Peers {
			ids = append(ids, p.ID)
		}
	}
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return id == s.cfg.ID })
}

// LastIndex is the index of the last entry of this member's log.
func (s *Store) LastIndex() uint64 { return s.raft.LastIndex() }

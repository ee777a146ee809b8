package raftstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/endorsement"
	"incusd/internal/raftstore/state"
)

// Timing holds what trades speed of fail-over against calm on a loaded machine.
type Timing struct {
	// Election is how long a follower waits without a word from the leader before it
	// stands for election, give or take a factor of two. Default 350 ms: a fail-over
	// takes some 0.6 s, and a machine whose two cores are busy does not flap
	// (at 100 ms it does). Less is faster and less stable.
	Election time.Duration
	// Lease is how long a leader that hears no majority goes on believing in itself.
	// Default 6/7 of Election, which it must not exceed.
	Lease time.Duration
	// Call bounds one call to another member. Default 2 s.
	Call time.Duration
	// DiskStall is how long one write to the log may take before a leader falls silent,
	// so that a member with a working disk takes over; a follower falls silent after three times
	// as long, and is replaced like one that died. Default 3 s.
	DiskStall time.Duration
	// GiveUp is how long there may have been no leader before calls stop waiting for one.
	// Default 10 times Election: an election that can succeed has by then.
	GiveUp time.Duration
	// StaleAfter is how long ReadOrStale waits for a leader. Default 800 ms.
	StaleAfter time.Duration
}

func (t Timing) withDefaults() Timing {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&t.Election, 350*time.Millisecond)
	def(&t.Lease, t.Election*6/7)
	def(&t.Call, 2*time.Second)
	def(&t.DiskStall, 3*time.Second)
	def(&t.GiveUp, 10*t.Election)
	def(&t.StaleAfter, 800*time.Millisecond)
	return t
}

// A Peer is another member, as far as connections need to know it.
type Peer struct {
	ID, Address string
	// Fingerprint is of the peer's own certificate; Former, if not empty, of the one that it may
	// still show instead.
	Fingerprint, Former string
}

// shows tells whether chain, which somebody has proved to own, is the peer's: its certificate, or
// a newer one that it endorses, whose entry has not been applied here yet.
func (p Peer) shows(chain []*x509.Certificate, now time.Time) bool {
	if p.Fingerprint == "" || len(chain) == 0 {
		return false
	}
	return endorsement.Follow(chain, p.Fingerprint, now) == nil || p.Former != "" && fingerprintOf(chain) == p.Former
}

// A Move is another address of a member.
type Move struct{ From, To string }

// Config is what Open needs. ID, Dir, ClusterID, Certificate and Dial are required.
type Config struct {
	// ID is this member's Raft server ID, which is also its address within Raft.
	ID string
	// ClusterID names the cluster; connections between different clusters are refused.
	ClusterID string
	// Dir is the replica's own folder. Open makes it when Create is set and wants it
	// to hold a replica when not.
	Dir    string
	Create bool
	// Bootstrap makes a new replica a cluster of one. Without it a new replica waits
	// until a leader adds it.
	Bootstrap bool
	// Certificate returns this member's own key pair: what it shows to other members from now on.
	Certificate func() *tls.Certificate
	// Peers are the members as last known. They count until the replica has caught up.
	Peers []Peer
	// Removed is set if this member is known to be removed: it then only shows what it has.
	Removed *state.Removed
	// CommitHint is an index known to be committed. Entries up to it are applied at
	// once, so that the local view works before, and without, a quorum.
	CommitHint uint64
	// SaveCommitHint, if set, is called now and then with a newer hint.
	SaveCommitHint func(index uint64)
	// Dial opens a plain connection to host:port.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// OnEvents, if set, gets the events of each newly applied entry, in order. It must not block.
	OnEvents func([]state.Event)
	// OnReady, if set, is called on the leader when a new member says that it listens.
	OnReady func(ctx context.Context, id string) error
	// OnAnnounce, if set, is called when the member with that ID says where it is reached from
	// now on. It must look for itself, unless unseen is set.
	OnAnnounce func(ctx context.Context, id, address string, unseen bool) error
	// OnTransfer, if set, is called on the leader to hand leadership to a member, or to whom
	// it chooses if that is "". It returns who leads then.
	OnTransfer func(ctx context.Context, to string) (leader string, err error)
	// Moved are other addresses of members, by ID: each counts while the member's row, or Peers,
	// has the address that it replaces, and never again after the row has had another one.
	Moved map[string]Move
	// Incarnation is the one that the replica was of when it was last open; 0 for a new one.
	Incarnation int
	// ShutOut, if set, is why this member takes no part in its cluster: see Store.ShutOut.
	ShutOut *api.Error
	// OnFenced, if set, is called when a member of a later incarnation of the cluster was met: the
	// store is shut out by then, and reason says why.
	OnFenced func(reason *api.Error)
	// OnLeader, if set, runs while this member leads; its context ends with leadership.
	OnLeader func(ctx context.Context)
	// WrapLog, if set, stands between Raft and its log; for tests of bad disks.
	WrapLog func(raft.LogStore) raft.LogStore
	// Reach, if set, is told of each named step of a write and may fail or stop it; for
	// tests that kill a member there. See the Point constants.
	Reach  func(point string) error
	Timing Timing
	// SnapshotEvery is the number of commands after which the log is compacted; default
	// 2048. All of them may have to be applied again at a start, at some 50 µs each; less
	// makes starts faster and writes snapshots more often.
	SnapshotEvery uint64
	// Now is the wall clock that commands are stamped with; default time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

// Steps of a write that Config.Reach is told of.
const (
	// PointForward: a proposal is about to be sent to the leader.
	PointForward = "forward"
	// PointForwarded: the leader's answer has arrived at the proposer.
	PointForwarded = "forwarded"
	// PointAppend: the leader is about to append an entry.
	PointAppend = "append"
	// PointCommitted: an entry is committed and applied on the leader, and not yet answered.
	PointCommitted = "committed"
)

// Steps of a change of who votes and leads that Config.Reach is told of, on the leader.
const (
	// PointPromote: a member is about to get a vote. PointPromoted: it has it.
	PointPromote  = "promote"
	PointPromoted = "promoted"
	// PointDemote: a member is about to lose its vote. PointDemoted: it has none.
	PointDemote  = "demote"
	PointDemoted = "demoted"
	// PointTransfer: leadership is about to be handed on.
	PointTransfer = "transfer"
)

func (c *Config) validate() error {
	switch {
	case c.ID == "":
		return errors.New("raftstore: no ID")
	case c.ClusterID == "":
		return errors.New("raftstore: no cluster ID")
	case c.Dir == "":
		return errors.New("raftstore: no folder")
	case c.Dial == nil:
		return errors.New("raftstore: no dialer")
	case c.Certificate == nil:
		return errors.New("raftstore: no certificate")
	}
	c.Timing = c.Timing.withDefaults()
	if c.Timing.Lease > c.Timing.Election {
		return errors.New("raftstore: the lease must not exceed the election timeout")
	}
	if c.SnapshotEvery == 0 {
		c.SnapshotEvery = 2048
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func (c *Config) reach(point string) error {
	if c.Reach == nil {
		return nil
	}
	return c.Reach(point)
}

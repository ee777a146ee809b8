package raftstore

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"incusd/internal/raftstore/state"
)

// transport is Raft's network transport with five additions: it knows when each
// peer last answered, it holds replication to a peer that does not answer until it
// does (Raft's own back-off would sleep up to ten seconds after its return), it sends
// fewer heartbeats to peers without a vote, it answers none while the disk hangs, and this
// member can be told of a commit without waiting for the next round.
type transport struct {
	*raft.NetworkTransport
	store   *Store
	streams *streamLayer
	consume chan raft.RPC

	mu    sync.Mutex
	peers map[string]*peerContact
	// answered wakes those who watch for a peer that is back.
	answered chan struct{}
}

// peerContact is what the transport has seen of one peer.
type peerContact struct {
	last  time.Time     // of the last answer; zero if there was none
	match uint64        // highest index known to be in its log
	back  chan struct{} // closed at the next answer; nil unless someone waits
	gone  bool          // not in Raft's configuration any more
	calm  bool          // has no vote, and a longer time-out; see watchVote
	sent  time.Time     // when the last heartbeat was sent, if calm
}

func newTransport(s *Store) *transport {
	t := &transport{
		store:    s,
		streams:  &streamLayer{store: s, incoming: make(chan net.Conn)},
		consume:  make(chan raft.RPC),
		peers:    make(map[string]*peerContact),
		answered: make(chan struct{}, 1),
	}
	t.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:          t.streams,
		MaxPool:         3,
		MaxRPCsInFlight: 1, // no pipelining: it gains nothing here, and every answer is seen
		Timeout:         s.cfg.Timing.Call,
		Logger:          newRaftLog(s.cfg.Logger),
	})
	s.wg.Go(t.pump)
	return t
}

// pump moves calls from the network to Raft, beside those that inject makes.
func (t *transport) pump() {
	in := t.NetworkTransport.Consumer()
	for {
		select {
		case rpc := <-in:
			select {
			case t.consume <- rpc:
			case <-t.store.closed:
				return
			}
		case <-t.store.closed:
			return
		}
	}
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.consume }

// errSilent is why a member with a hung disk sends and answers nothing: the others shall
// elect a leader that can write, and let somebody vote whose vote counts.
var errSilent = errors.New("silent: the disk of this member hangs")

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.store.log.stalled(t.store.cfg.Timing.DiskStall) {
		return errSilent
	}
	if isHeartbeat(args) {
		t.pace(string(id), args.Term)
	}
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	if err == nil {
		t.heard(string(id), args, resp)
		return nil
	}
	if !isHeartbeat(args) {
		t.awaitAnswer(string(id), args.Term)
	}
	return err
}

// SetHeartbeatHandler implements raft.Transport. Raft answers heartbeats beside its own work,
// and so would show a member online that has not written an entry for hours. It is given more
// time than a leader: with two voters of three its silence ends leadership, for a disk that may
// go on in a moment.
func (t *transport) SetHeartbeatHandler(answer func(raft.RPC)) {
	const patience = 3
	t.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		if t.store.log.stalled(patience * t.store.cfg.Timing.DiskStall) {
			rpc.Respond(nil, errSilent)
			return
		}
		answer(rpc)
	})
}

// pace holds a heartbeat to a peer without a vote until one is due. Raft sends some twenty in a
// second to everybody, half a millisecond of the leader's processor each; whoever has no vote
// needs them only to know who leads.
func (t *transport) pace(id string, term uint64) {
	t.mu.Lock()
	c := t.contact(id)
	wait := t.store.cfg.Timing.Election - time.Since(c.sent)
	calm := c.calm
	t.mu.Unlock()
	if !calm {
		return
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-t.store.leadershipEnd(term):
		case <-t.store.closed:
		}
	}
	t.mu.Lock()
	c.sent = time.Now()
	t.mu.Unlock()
}

// InstallSnapshot implements raft.Transport. Like a failed append, a failed snapshot is
// tried again when the peer answers, not when Raft's back-off ends.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := t.NetworkTransport.InstallSnapshot(id, target, args, resp, data)
	if err != nil {
		t.awaitAnswer(string(id), args.Term)
	}
	return err
}

// forgetMatches begins a term: what was matched in an earlier one may be gone.
func (t *transport) forgetMatches() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.peers {
		c.match = 0
	}
}

// AppendEntriesPipeline implements raft.Transport.
func (t *transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
}

// heard notes an answer. Only real ones count: pretending would renew the lease.
func (t *transport) heard(id string, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	t.mu.Lock()
	c := t.contact(id)
	wasSilent := time.Since(c.last) > t.store.cfg.Timing.Election*2
	c.last = time.Now()
	if resp.Success && !isHeartbeat(args) {
		c.match = max(c.match, args.PrevLogEntry+uint64(len(args.Entries)))
	}
	if c.back != nil {
		close(c.back)
		c.back = nil
	}
	t.mu.Unlock()
	if wasSilent {
		select {
		case t.answered <- struct{}{}:
		default:
		}
	}
}

func (t *transport) contact(id string) *peerContact {
	c, ok := t.peers[id]
	if !ok {
		c = &peerContact{}
		t.peers[id] = c
	}
	return c
}

// awaitAnswer holds a failed replication call until the peer answers a heartbeat, is
// removed, or this member stops leading in that term.
func (t *transport) awaitAnswer(id string, term uint64) {
	t.mu.Lock()
	c := t.contact(id)
	if c.gone || time.Since(c.last) < t.store.cfg.Timing.Election {
		t.mu.Unlock()
		return // it answers, so this failure was something else
	}
	if c.back == nil {
		c.back = make(chan struct{})
	}
	back := c.back
	t.mu.Unlock()
	select {
	case <-back:
	case <-t.store.leadershipEnd(term):
	case <-t.store.closed:
	}
}

// setServers follows Raft's configuration: whoever waits for a removed peer goes on.
func (t *transport) setServers(servers []state.Server) {
	present := make(map[string]bool, len(servers))
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range servers {
		present[s.ID] = true
		t.contact(s.ID).calm = !s.Voter
	}
	for id, c := range t.peers {
		c.gone = !present[id]
		if c.gone && c.back != nil {
			close(c.back)
			c.back = nil
		}
	}
}

// lastAnswer tells how long ago a peer answered, and whether it ever did.
func (t *transport) lastAnswer(id string) (at time.Time, match uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.peers[id]
	if !ok {
		return time.Time{}, 0
	}
	return c.last, c.match
}

// inject tells this member's own Raft that the leader has committed up to index. It
// is the message that the leader would send with its next round: empty, and with the
// entry before it named, so Raft checks that its log matches up to there. An index
// without that check could commit a suffix that does not match.
func (t *transport) inject(ctx context.Context, n CommitNotice) error {
	resp := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{RespChan: resp, Command: &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax,
			ID:              []byte(n.Leader),
			Addr:            []byte(n.Leader),
		},
		Term:              n.Term,
		PrevLogEntry:      n.Index,
		PrevLogTerm:       n.EntryTerm,
		LeaderCommitIndex: n.Index,
	}}
	select {
	case t.consume <- rpc:
	case <-t.store.closed:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-resp:
		return nil
	case <-t.store.closed:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// streamLayer gives Raft its connections. Addresses within Raft are member IDs.
type streamLayer struct {
	store    *Store
	incoming chan net.Conn
}

var errNoAccept = errors.New("raftstore: closed")

func (l *streamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.store.closed:
		return nil, errNoAccept
	}
}

func (l *streamLayer) Close() error   { return nil }
func (l *streamLayer) Addr() net.Addr { return idAddr(l.store.cfg.ID) }

func (l *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.store.ctx, timeout)
	defer cancel()
	conn, err := l.store.dial(ctx, string(address), purposeRaft)
	if err != nil {
		return nil, err
	}
	return l.store.track(conn, string(address)), nil
}

// idAddr is a member ID as a net.Addr.
type idAddr string

func (idAddr) Network() string  { return "member" }
func (a idAddr) String() string { return string(a) }

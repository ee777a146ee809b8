package raftstore

import (
	"context"
	"encoding/json"
	"errors"
	"net/rpc"
	"sync"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// Calls between members that Raft does not have: proposals to the leader, the
// rounds of the read index, notices of commits, and a joiner's word that it listens.
// They run over net/rpc on connections of their own, so that they never wait behind
// a large append.

// callService is the service's name in net/rpc.
const callService = "Store"

// The arguments and replies below are exported because net/rpc wants it.

// ProposeArgs asks the leader to take a command.
type ProposeArgs struct{ Command state.Command }

// ProposeReply is what became of a command.
type ProposeReply struct {
	Result state.Result
	Commit CommitNotice
	// Refused says that this member did not take the command: it does not lead, or lost
	// leadership before the outcome was known.
	Refused string
	// Maybe is set when the command may yet be applied.
	Maybe bool
}

// A CommitNotice says that the leader of Term knows Index, an entry of EntryTerm, to be
// committed.
type CommitNotice struct {
	Leader           string
	Term             uint64
	Index, EntryTerm uint64
}

// ReadIndexReply answers with the index that a read must have reached.
type ReadIndexReply struct {
	Commit  CommitNotice
	Refused string
}

// TermReply answers with a member's current term.
type TermReply struct{ Term uint64 }

// ReadyReply answers a joining member.
type ReadyReply struct {
	Refused string // not the leader
	Leader  string // who leads instead, as far as is known
	Err     *api.Error
}

// PeerReply answers who a member is, as of Index.
type PeerReply struct {
	Found                bool
	Address, Fingerprint string
	Index                uint64
}

// calls answers other members. Its methods have the form that net/rpc asks for.
type calls struct {
	store *Store
	// from is the caller, as its certificate proves.
	from string
}

// Propose takes a command as the leader.
func (c *calls) Propose(args *ProposeArgs, reply *ProposeReply) error {
	if err := c.mayPropose(args.Command); err != nil {
		reply.Result.Err = err
		return nil
	}
	*reply = c.store.lead(c.store.ctx, args.Command)
	return nil
}

// mayPropose lets members change everything, a joining server only become a member
// itself, and nobody else anything: the row may have gone since the connection was opened.
func (c *calls) mayPropose(cmd state.Command) *api.Error {
	m, ok := c.store.fsm.state.View().Member(c.from)
	switch {
	case ok && m.Fenced != 0:
		return fencedBy(c.store.fsm.state.View())
	case ok && m.State == state.MemberActive:
		return nil
	case ok && cmd.Kind == state.KindMemberActivate:
		var body state.MemberActivate
		if err := json.Unmarshal(cmd.Body, &body); err == nil && body.ID == c.from {
			return nil
		}
	}
	if _, known := c.store.peer(c.from); known && !ok {
		return nil // a member that joined while this one was away
	}
	return api.Errorf(api.NotAuthorized, "a server that is not a member may not change the cluster")
}

// known refuses calls of whoever is no member any more.
func (c *calls) known() error {
	if _, ok := c.store.peer(c.from); !ok {
		return api.MemberRemoved
	}
	return nil
}

// ReadIndex answers the index that a linearizable read must have reached.
func (c *calls) ReadIndex(_ *struct{}, reply *ReadIndexReply) error {
	if err := c.known(); err != nil {
		return err
	}
	notice, err := c.store.leaderReadIndex(c.store.ctx)
	if err != nil {
		reply.Refused = err.Error()
		return nil
	}
	reply.Commit = notice
	return nil
}

// Term answers this member's current term. A majority of voters still at the
// leader's term, asked after a read began, proves that nobody else led by then.
func (c *calls) Term(_ *struct{}, reply *TermReply) error {
	if err := c.known(); err != nil {
		return err
	}
	reply.Term = c.store.raft.CurrentTerm()
	return nil
}

// Commit takes a notice of a commit. It may overtake the entry, which has to go to the disk here.
func (c *calls) Commit(notice *CommitNotice, _ *struct{}) error {
	if notice.Leader != c.from || c.known() != nil {
		return errors.New("a notice of another member's commit")
	}
	c.store.follow(c.store.ctx, *notice)
	return nil
}

// Ready adds a joining member that listens now to Raft's configuration.
func (c *calls) Ready(_ *struct{}, reply *ReadyReply) error {
	if !c.store.IsLeader() {
		reply.Refused, reply.Leader = errNotLeader.Error(), c.store.Leader()
		return nil
	}
	ctx, cancel := context.WithTimeout(c.store.ctx, c.store.cfg.Timing.Call)
	defer cancel()
	err := c.store.cfg.OnReady(ctx, c.from)
	switch {
	case err == nil:
	case errors.Is(err, api.JoinAborted), errors.Is(err, api.MemberNotFound), errors.Is(err, api.BadRequest):
		reply.Err = api.AsError(err)
	default: // the leader changed, or the change took too long: it is asked again
		reply.Refused = err.Error()
	}
	return nil
}

// Peer tells where a member is and which certificate it has, to one that does not know it.
func (c *calls) Peer(id *string, reply *PeerReply) error {
	if err := c.known(); err != nil {
		return err
	}
	reply.Index = c.store.fsm.applied.Load()
	if m, ok := c.store.fsm.state.View().Member(*id); ok {
		reply.Found, reply.Address, reply.Fingerprint = true, m.Address, m.Fingerprint
	}
	return nil
}

// clients are the open call connections to other members.
type clients struct {
	mu sync.Mutex
	m  map[string]*client
}

// A client is the way to one member. One goroutine at a time opens its connection, for
// all who wait, and not under their contexts: a caller that has enough answers must not
// break a connection that the next one needs.
type client struct {
	mu      sync.Mutex
	rpc     *rpc.Client
	last    time.Time     // of the last answer
	opening chan struct{} // closed when the attempt under way ends; nil if there is none
	failed  time.Time     // of the last failed attempt, which failed with err
	err     error
}

// redialPause is how long a failed attempt speaks for those that come after it.
const redialPause = 50 * time.Millisecond

// call asks member id. It blocks until the answer, the end of ctx or of the store, or
// a bound; the error then does not tell whether the call was carried out, except that
// errUnreached says it was not.
func (s *Store) call(callerCtx context.Context, id, method string, args, reply any) error {
	ctx, cancel := context.WithTimeout(callerCtx, s.cfg.Timing.Call)
	defer cancel()
	began := time.Now()
	cl := s.clients.get(id)
	c, err := cl.open(ctx, s, id)
	if err != nil {
		return errors.Join(errUnreached, err)
	}
	call := c.Go(callService+"."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		err = call.Error
	case <-ctx.Done():
		// A caller in a hurry says nothing about the connection. One that has been silent
		// for the whole bound is dead.
		if callerCtx.Err() == nil && !cl.answeredSince(began) {
			cl.drop(c)
		}
		return ctx.Err()
	case <-s.closed:
		return errStopped
	}
	var remote rpc.ServerError
	if err != nil && !errors.As(err, &remote) {
		cl.drop(c)
		return err
	}
	cl.answered()
	return err
}

// errDropped: the connection failed while the caller waited for it.
var errDropped = errors.New("the connection failed")

// errUnreached: the call never left this member.
var errUnreached = errors.New("member not reached")

func (c *clients) get(id string) *client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[string]*client)
	}
	cl, ok := c.m[id]
	if !ok {
		cl = &client{}
		c.m[id] = cl
	}
	return cl
}

// open returns the connection. It blocks until there is one, the attempt failed, or ctx ends.
func (cl *client) open(ctx context.Context, s *Store, id string) (*rpc.Client, error) {
	cl.mu.Lock()
	if cl.rpc == nil && cl.opening == nil {
		if cl.err != nil && time.Since(cl.failed) < redialPause {
			defer cl.mu.Unlock()
			return nil, cl.err
		}
		cl.opening = make(chan struct{})
		if !s.spawn(func() { cl.dial(s, id) }) {
			close(cl.opening)
			cl.opening, cl.err = nil, errStopped
			cl.mu.Unlock()
			return nil, errStopped
		}
	}
	c, opening := cl.rpc, cl.opening
	cl.mu.Unlock()
	if c != nil {
		return c, nil
	}
	select {
	case <-opening:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closed:
		return nil, errStopped
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.rpc == nil {
		return nil, cl.err
	}
	return cl.rpc, nil
}

func (cl *client) dial(s *Store, id string) {
	conn, err := s.dial(s.ctx, id, purposeCall)
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if err == nil {
		cl.rpc = rpc.NewClient(&boundedConn{s.track(conn, id), s.cfg.Timing.Call})
	} else {
		cl.failed = time.Now()
	}
	cl.err = err
	close(cl.opening)
	cl.opening = nil
}

func (cl *client) answered() {
	cl.mu.Lock()
	cl.last = time.Now()
	cl.mu.Unlock()
}

func (cl *client) answeredSince(t time.Time) bool {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.last.After(t)
}

// drop forgets a connection that failed, so that the next call makes a new one.
func (cl *client) drop(c *rpc.Client) {
	cl.mu.Lock()
	if cl.rpc == c {
		cl.rpc, cl.err = nil, errDropped
	}
	cl.mu.Unlock()
	c.Close()
}

func (c *clients) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cl := range c.m {
		cl.mu.Lock()
		if cl.rpc != nil {
			cl.rpc.Close()
			cl.rpc, cl.err = nil, errStopped // whoever just waited for it finds neither
		}
		cl.mu.Unlock()
	}
}

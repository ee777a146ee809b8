package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

const (
	// maxFold bounds the commands of one entry, and maxFoldBytes their size.
	maxFold      = 256
	maxFoldBytes = 1 << 20
	// maxCommand bounds one command's body.
	maxCommand = 4 << 20
	// entriesInFlight is how many entries may wait for their commit at a time. While one
	// does, further proposals gather for the next. With 2, sixteen writers got a fifth less
	// through: more entries mean more syncs and messages for the same commands.
	entriesInFlight = 1
	// retryPause is the wait before a proposal is offered again when no leader is known.
	retryPause = 20 * time.Millisecond
)

// A proposal waits for its entry.
type proposal struct {
	cmd  state.Command
	done chan ProposeReply // buffered
}

// Propose brings cmd to the leader and blocks until it is applied there, or ctx ends.
// It may be called on any member. A refusal comes both in the result and as the error.
//
// If no leader took the command it fails with api.NoQuorum, and nothing was changed: when
// ctx ends, or within a second if there has been no leader for Timing.GiveUp.
// If one may have, and no answer came, it fails with api.OutcomeUnknown: the change may
// have been made, or may be made yet; only the same Request may be proposed again.
func (s *Store) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	if len(cmd.Body) > maxCommand {
		return state.Result{}, api.Errorf(api.TooLarge, "a change of %d bytes is too large, the limit is %d", len(cmd.Body), maxCommand)
	}
	cmd.Origin = s.cfg.ID
	start := time.Now()
	var maybe bool
	var last string
	for {
		if err := s.outcast(); err != nil && !maybe {
			return state.Result{}, err
		} else if err != nil {
			return state.Result{}, s.undecided(ctx, true, err.Error())
		}
		changed := s.leaderChanged()
		reply := s.offer(ctx, cmd, changed)
		maybe = maybe || reply.Maybe
		if reply.Refused == "" {
			s.follow(ctx, reply.Commit)
			if reply.Result.Err != nil {
				return reply.Result, reply.Result.Err
			}
			return reply.Result, nil
		}
		last = reply.Refused
		if s.givenUp(start) {
			return state.Result{}, s.undecided(ctx, maybe, last)
		}
		select {
		case <-changed:
		case <-time.After(retryPause):
		case <-ctx.Done():
			return state.Result{}, s.undecided(ctx, maybe, last)
		case <-s.closed:
			return state.Result{}, s.undecided(ctx, maybe, "the store is closed")
		}
	}
}

// follow lets the local replica show what was just acknowledged, so that what rests on
// it (whose certificate is known) is true for the caller's next request here, and who
// watches the tables hears of it. It is a courtesy with a bound: a replica that lags does
// not hold up an answer.
func (s *Store) follow(ctx context.Context, n CommitNotice) {
	const bound = 100 * time.Millisecond
	if n.Leader == s.cfg.ID {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if err := s.catchUp(ctx, n); err != nil {
		s.cfg.Logger.Debug("the replica lags behind a write", "index", n.Index, "err", err)
	}
}

func (s *Store) undecided(ctx context.Context, maybe bool, why string) error {
	switch failed := s.failed.Load(); {
	case maybe && failed != nil:
		return api.Errorf(api.OutcomeUnknown, "Outcome unknown: this member stopped before the change was certain (%v)", *failed).
			WithHint("%s; then look whether the change was made", api.AsError(*failed).NextStep())
	case maybe:
		return api.Errorf(api.OutcomeUnknown, "Outcome unknown: the change was sent, and no answer came (%s)", why)
	case failed != nil:
		return *failed
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return s.noQuorum(why)
}

// offer makes one try: here, if this member leads, else at the leader.
func (s *Store) offer(ctx context.Context, cmd state.Command, changed <-chan struct{}) ProposeReply {
	leader := s.Leader()
	switch leader {
	case "":
		return ProposeReply{Refused: "no leader is known"}
	case s.cfg.ID:
		return s.lead(ctx, cmd)
	}
	if err := s.cfg.reach(PointForward); err != nil {
		return ProposeReply{Refused: err.Error()}
	}
	ctx, cancel := withDone(ctx, changed)
	defer cancel()
	var reply ProposeReply
	if err := s.call(ctx, leader, "Propose", &ProposeArgs{cmd}, &reply); err != nil {
		return ProposeReply{Refused: err.Error(), Maybe: !errors.Is(err, errUnreached)}
	}
	if err := s.cfg.reach(PointForwarded); err != nil {
		return ProposeReply{Refused: err.Error(), Maybe: true}
	}
	return reply
}

// withDone ends the context when done is closed: a call to a leader that has been
// replaced is not worth waiting for.
func withDone(ctx context.Context, done <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := make(chan struct{})
	go func() {
		select {
		case <-done:
			cancel()
		case <-stop:
		}
	}()
	return ctx, func() { close(stop); cancel() }
}

// lead takes a command as the leader and blocks until it is applied here.
func (s *Store) lead(ctx context.Context, cmd state.Command) ProposeReply {
	if !s.IsLeader() || s.outcast() != nil {
		return ProposeReply{Refused: errNotLeader.Error()}
	}
	if state.Offline(cmd.Kind) { // whoever proposes it, here or by a call
		return ProposeReply{Result: state.Result{Err: api.Errorf(api.NotAuthorized, "%q is not for a cluster that runs", cmd.Kind).
			WithHint("stop the servers; see incusd cluster --help, and incus admin cluster restore --help")}}
	}
	// An entry that this build cannot apply would stop every member, at every start.
	if err := state.Check(&cmd); err != nil {
		return ProposeReply{Result: state.Result{Err: api.AsError(err)}}
	}
	s.writes.RLock()
	defer s.writes.RUnlock()
	if s.held != nil {
		return ProposeReply{Result: state.Result{Err: s.held}}
	}
	p := &proposal{cmd: cmd, done: make(chan ProposeReply, 1)}
	select {
	case s.proposals <- p:
	case <-ctx.Done():
		return ProposeReply{Refused: ctx.Err().Error()}
	case <-s.closed:
		return ProposeReply{Refused: errStopped.Error()}
	}
	select {
	case reply := <-p.done:
		return reply
	case <-ctx.Done():
		return ProposeReply{Refused: ctx.Err().Error(), Maybe: true}
	case <-s.closed:
		return ProposeReply{Refused: errStopped.Error(), Maybe: true}
	}
}

// Hold makes this leader refuse all changes, with that reason, until release is called. It blocks
// until those under way are answered: all that was acknowledged is in the tables by then.
func (s *Store) Hold(reason *api.Error) (release func()) {
	s.hold(reason)
	return func() { s.hold(nil) }
}

func (s *Store) hold(reason *api.Error) {
	s.writes.Lock()
	defer s.writes.Unlock()
	s.held = reason
}

// fold gathers proposals into entries: those that arrive while entries wait for their
// commit share the next one.
func (s *Store) fold() {
	slots := make(chan struct{}, entriesInFlight)
	var held *proposal // did not fit into the last entry
	for {
		select {
		case slots <- struct{}{}:
		case <-s.closed:
			return
		}
		batch := s.gather(held)
		if batch == nil {
			return
		}
		batch, held = split(batch)
		s.append(batch, func() { <-slots })
	}
}

// gather blocks for a first proposal and takes what else is waiting.
func (s *Store) gather(held *proposal) []*proposal {
	batch := make([]*proposal, 0, 8)
	if held != nil {
		batch = append(batch, held)
	} else {
		select {
		case p := <-s.proposals:
			batch = append(batch, p)
		case <-s.closed:
			return nil
		}
	}
	size := len(batch[0].cmd.Body)
	for len(batch) < maxFold && size < maxFoldBytes {
		select {
		case p := <-s.proposals:
			batch = append(batch, p)
			size += len(p.cmd.Body)
		default:
			return batch
		}
	}
	return batch
}

// split keeps an entry below twice maxFoldBytes: a last command that is large waits.
func split(batch []*proposal) ([]*proposal, *proposal) {
	last := len(batch) - 1
	if last > 0 && len(batch[last].cmd.Body) > maxFoldBytes {
		return batch[:last], batch[last]
	}
	return batch, nil
}

// append stamps the commands with the leader's clock, proposes their entry, and
// answers each when it is applied.
func (s *Store) append(batch []*proposal, release func()) {
	if err := s.cfg.reach(PointAppend); err != nil {
		defer release()
		answerAll(batch, ProposeReply{Refused: err.Error()})
		return
	}
	now := s.cfg.Now().UTC()
	cmds := make([]state.Command, len(batch))
	for i, p := range batch {
		p.cmd.Time = now
		cmds[i] = p.cmd
	}
	entry, err := state.EncodeEntry(cmds)
	if err != nil {
		defer release()
		answerAll(batch, ProposeReply{Result: state.Result{Err: api.Errorf(api.BadRequest, "encode the change: %v", err)}})
		return
	}
	future := s.raft.Apply(entry, s.cfg.Timing.Call)
	s.spawn(func() {
		defer release()
		s.answer(batch, future)
	})
}

func (s *Store) answer(batch []*proposal, future raft.ApplyFuture) {
	if err := s.await(s.ctx, future); err != nil {
		// Only these say for sure that the entry was never appended.
		never := errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrEnqueueTimeout) || errors.Is(err, raft.ErrLeadershipTransferInProgress)
		answerAll(batch, ProposeReply{Refused: err.Error(), Maybe: !never})
		return
	}
	done, ok := future.Response().(applied)
	if !ok || len(done.results) != len(batch) {
		answerAll(batch, ProposeReply{Refused: fmt.Sprintf("the entry was not applied: %v", future.Response()), Maybe: true})
		return
	}
	// The entry's own term, not the current one: this member may have stopped leading.
	notice := CommitNotice{Leader: s.cfg.ID, Term: done.term, Index: future.Index(), EntryTerm: done.term}
	s.notifyPeers()
	if err := s.cfg.reach(PointCommitted); err != nil {
		answerAll(batch, ProposeReply{Refused: err.Error(), Maybe: true})
		return
	}
	for i, p := range batch {
		p.done <- ProposeReply{Result: done.results[i], Commit: notice}
	}
}

func answerAll(batch []*proposal, reply ProposeReply) {
	for _, p := range batch {
		p.done <- reply
	}
}

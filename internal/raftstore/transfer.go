package raftstore

import (
	"context"
	"errors"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// TransferArgs asks the leader to hand leadership to the member To; "" lets it choose.
type TransferArgs struct{ To string }

// TransferReply answers who leads now.
type TransferReply struct {
	Leader  string
	Refused string // not the leader, or not any more: ask again
	Err     *api.Error
}

// Transfer hands leadership on as the leader.
func (c *calls) Transfer(args *TransferArgs, reply *TransferReply) error {
	if m, ok := c.store.fsm.state.View().Member(c.from); !ok || m.State != state.MemberActive {
		reply.Err = api.Errorf(api.NotAuthorized, "a server that is not a member may not change who leads")
		return nil
	}
	ctx, cancel := context.WithTimeout(c.store.ctx, c.store.cfg.Timing.Call)
	defer cancel()
	*reply = c.store.handOn(ctx, args.To)
	return nil
}

// handOn hands leadership on, if this member leads.
func (s *Store) handOn(ctx context.Context, to string) TransferReply {
	if !s.IsLeader() || s.cfg.OnTransfer == nil {
		return TransferReply{Refused: errNotLeader.Error()}
	}
	leader, err := s.cfg.OnTransfer(ctx, to)
	var refusal *api.Error
	switch {
	case err == nil:
		return TransferReply{Leader: leader}
	case errors.As(err, &refusal):
		return TransferReply{Err: refusal}
	}
	return TransferReply{Refused: err.Error()}
}

// MoveLeadership has the leader hand leadership to the member to, or to whom it chooses
// if that is empty, and returns who leads now, as seen by the former leader and by this
// member. It may be called on any member. It fails with the leader's refusal, which names
// what speaks against the member, and with NoQuorum when nobody leads. It blocks until
// done or ctx ends.
func (s *Store) MoveLeadership(ctx context.Context, to string) (leader string, err error) {
	start, first := time.Now(), ""
	for {
		changed := s.leaderChanged()
		leader := s.Leader()
		if first == "" {
			first = leader
		}
		if to == "" && leader != "" && leader != first {
			return leader, nil // it was handed on, and only the answer was lost
		}
		reply := s.askLeader(ctx, leader, to)
		switch {
		case reply.Err != nil:
			return "", reply.Err
		case reply.Refused == "":
			return reply.Leader, s.awaitLeader(ctx, reply.Leader)
		case s.givenUp(start):
			return "", s.noQuorum(reply.Refused)
		}
		select {
		case <-changed:
		case <-time.After(retryPause):
		case <-ctx.Done():
			return "", api.Errorf(api.OutcomeUnknown, "Outcome unknown: leadership may have been transferred (%s)", reply.Refused).
				WithHint("see who leads: incus cluster list")
		case <-s.closed:
			return "", errStopped
		}
	}
}

func (s *Store) askLeader(ctx context.Context, leader, to string) TransferReply {
	switch leader {
	case "":
		return TransferReply{Refused: "no leader is known"}
	case s.cfg.ID:
		return s.handOn(ctx, to)
	}
	var reply TransferReply
	if err := s.call(ctx, leader, "Transfer", &TransferArgs{To: to}, &reply); err != nil {
		return TransferReply{Refused: err.Error()}
	}
	return reply
}

// awaitLeader waits until this member sees that leader leads, too: what it shows next is
// then what was answered.
func (s *Store) awaitLeader(ctx context.Context, leader string) error {
	for {
		changed := s.leaderChanged()
		if s.Leader() == leader {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return api.Errorf(api.OutcomeUnknown, "Outcome unknown: leadership was transferred, and this member does not see it yet").
				WithHint("see who leads: incus cluster list")
		case <-s.closed:
			return errStopped
		}
	}
}

package raftstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// A member that a recovery has fenced, and that had no vote, may follow the recovered cluster
// without joining anew, if it has nothing that the recovered copy lacks. It drops its own log,
// which may hold other entries under the same indexes and terms, and begins again with the state
// that a member of the recovered cluster gives it; then it asks to be readmitted.

// adoptTime bounds one transfer of the state.
const adoptTime = time.Minute

// adoptRequest says up to where the caller has applied the log of its lineage.
type adoptRequest struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

// adoptReply comes before the state, unless it is a refusal.
type adoptReply struct {
	Error *api.Error `json:"error,omitempty"`
}

// Position is the last entry that this replica has applied, as a request for readmission names it.
func (s *Store) Position() state.MemberReadmit {
	view, own := s.fsm.state.View(), s.lineage()
	return state.MemberReadmit{ID: s.cfg.ID, Incarnation: own.Incarnation, Recovery: own.Recovery, Index: view.Index(), Term: view.Term()}
}

// FetchPresent asks the other members for the state of the recovered cluster. It fails with
// api.MemberFenced when one of that cluster says that this member cannot follow it, and no other
// gives its state; it may be tried again after any other error.
func (s *Store) FetchPresent(ctx context.Context) (*state.View, error) {
	if s.votes() {
		why := "This member was shut out by a recovery"
		if reason := s.shutOut.Load(); reason != nil {
			why = reason.Message
		}
		return nil, api.Errorf(api.MemberFenced, "%s; it had a vote, so it may hold changes that the recovered cluster lost, and cannot follow it", why)
	}
	var final, all error
	for _, id := range s.peerIDs() {
		view, err := s.fetchFrom(ctx, id)
		switch {
		case err == nil:
			return view, nil
		case errors.Is(err, api.MemberFenced):
			final = err
		}
		all = errors.Join(all, err)
	}
	if final != nil {
		return nil, final
	}
	return nil, fmt.Errorf("no member gave the state of the recovered cluster: %w", all)
}

// votes tells whether this member has a vote in the latest configuration that its log has.
func (s *Store) votes() bool {
	for _, srv := range s.servers() {
		if srv.ID == s.cfg.ID {
			return srv.Voter
		}
	}
	return false
}

func (s *Store) fetchFrom(ctx context.Context, id string) (*state.View, error) {
	peer, ok := s.peer(id)
	if !ok {
		return nil, api.Errorf(api.MemberNotFound, "no member has the ID %s", id)
	}
	conn, err := s.dialPeer(ctx, peer, purposeAdopt)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(adoptTime)); err != nil {
		return nil, err
	}
	at := s.Position()
	if err := writeMessage(conn, adoptRequest{Index: at.Index, Term: at.Term}); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, maxHello)
	var reply adoptReply
	if err := readMessage(r, &reply); err != nil {
		return nil, err
	}
	if reply.Error != nil {
		return nil, reply.Error
	}
	fresh := state.New()
	if err := fresh.Restore(r); err != nil {
		return nil, fmt.Errorf("the state that member %s gave: %w", id, err)
	}
	if got := LineageOf(fresh.View()); s.lineage().of(got) != kinNewer {
		return nil, fmt.Errorf("member %s gave the state of %s", id, got)
	}
	return fresh.View(), nil
}

// serveAdoption gives a member of an earlier lineage the present state, or says why not.
func (s *Store) serveAdoption(conn net.Conn, st *stream, h hello) {
	if err := conn.SetDeadline(time.Now().Add(adoptTime)); err != nil {
		return
	}
	var req adoptRequest
	if err := readMessage(st.r, &req); err != nil {
		return
	}
	view, err := s.presentFor(h, req)
	if err != nil {
		if err := writeMessage(conn, adoptReply{Error: api.AsError(err)}); err != nil {
			s.cfg.Logger.Debug("a refusal was not delivered", "member", h.From, "err", err)
		}
		return
	}
	if err := writeMessage(conn, adoptReply{}); err != nil {
		return
	}
	if err := view.Persist(conn); err != nil {
		s.cfg.Logger.Warn("a member that follows the recovered cluster did not get its state", "member", h.From, "err", err)
	}
}

func (s *Store) presentFor(h hello, req adoptRequest) (*state.View, error) {
	if s.lineage().of(h.Lineage) != kinOlder {
		return nil, api.Errorf(api.Conflict, "this member knows of no recovery after %s", h.Lineage)
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timing.Call)
	defer cancel()
	view, err := s.Read(ctx)
	if s.outcast() != nil {
		// What ended this member's part says nothing of the one that asks.
		return nil, api.Errorf(api.Unavailable, "this member is out of the cluster itself")
	}
	if err != nil {
		return nil, err
	}
	ask := state.MemberReadmit{ID: h.From, Incarnation: h.Incarnation, Recovery: h.Recovery, Index: req.Index, Term: req.Term}
	if err := view.Readmissible(ask); err != nil {
		return nil, err
	}
	return view.View, nil
}

// Readmit lets the leader count this member, which has taken the recovered cluster's state over,
// as one of its members again. It blocks until that is done or ctx ends. A refusal is final.
func (s *Store) Readmit(ctx context.Context, at state.MemberReadmit) error {
	return s.askUntilAnswered(ctx, "Readmit", &at)
}

// Readmit takes back a member that a recovery had fenced.
func (c *calls) Readmit(args *state.MemberReadmit, reply *ReadyReply) error {
	if args.ID != c.from {
		return errors.New("a member can only be readmitted by itself")
	}
	cmd, err := state.NewCommand(state.KindMemberReadmit, uuid.NewString(), c.store.cfg.Now().UTC(), nil, *args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.store.ctx, c.store.cfg.Timing.Call)
	defer cancel()
	got := c.store.lead(ctx, cmd)
	reply.Refused, reply.Err = got.Refused, got.Result.Err
	if got.Refused != "" {
		reply.Leader = c.store.Leader()
	}
	return nil
}

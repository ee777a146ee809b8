package raftstore

import (
	"context"
	"errors"

	"incusd/api"
)

// A member that has moved may be one that nobody reaches any more: no leader calls it, and
// it does not know who leads. It still reaches others, at the addresses that it knows, and
// proves who it is by its key. So it tells any of them where it is now, and that one looks
// for itself before the cluster believes it.

// AnnounceArgs say where the caller can be reached from now on.
type AnnounceArgs struct {
	Address string
	// Unseen is set if the address need not be reachable yet.
	Unseen bool
}

// AnnounceReply answers a member that has moved.
type AnnounceReply struct{ Err *api.Error }

// ReachReply tells why the caller is not reached at an address; empty if it is.
type ReachReply struct{ Problem string }

// Announce takes the word of a member about its address.
func (c *calls) Announce(args *AnnounceArgs, reply *AnnounceReply) error {
	if err := c.known(); err != nil {
		return err
	}
	if c.store.cfg.OnAnnounce == nil {
		reply.Err = api.Errorf(api.Unavailable, "this member takes no addresses")
		return nil
	}
	ctx, cancel := context.WithTimeout(c.store.ctx, c.store.cfg.Timing.Call)
	defer cancel()
	if err := c.store.cfg.OnAnnounce(ctx, c.from, args.Address, args.Unseen); err != nil {
		reply.Err = api.AsError(err)
	}
	return nil
}

// Reach tries to reach the caller at an address, as a connection of Raft would.
func (c *calls) Reach(address *string, reply *ReachReply) error {
	if err := c.known(); err != nil {
		return err
	}
	if err := c.store.ReachAt(c.store.ctx, c.from, *address); err != nil {
		reply.Problem = err.Error()
	}
	return nil
}

// Others lists the IDs of all other members that are known here.
func (s *Store) Others() []string { return s.peerIDs() }

// ReachAt tells why the member with that ID is not reached at address; nil if it is, and
// has proved to be that member. It blocks for at most half of Timing.Call, so that who asked
// for it from afar hears of it.
func (s *Store) ReachAt(ctx context.Context, id, address string) error {
	peer, ok := s.peer(id)
	if !ok {
		return api.Errorf(api.MemberNotFound, "no member has the ID %s", id)
	}
	peer.Address = address
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timing.Call/2)
	defer cancel()
	conn, err := s.dialPeer(ctx, peer, purposeCall)
	if err != nil {
		return api.Errorf(api.AddressUnreach, "%v", err)
	}
	if m, ok := s.fsm.state.View().Member(id); ok {
		s.moves.found(id, m.Address, address)
	}
	return conn.Close()
}

// ReachedFrom asks another member whether it reaches this one at address. answered is false
// if that member could not be asked, and err then says why.
func (s *Store) ReachedFrom(ctx context.Context, id, address string) (answered bool, err error) {
	var reply ReachReply
	if err := s.call(ctx, id, "Reach", &address, &reply); err != nil {
		return false, err
	}
	if reply.Problem != "" {
		return true, api.Errorf(api.AddressUnreach, "%s", reply.Problem)
	}
	return true, nil
}

// AnnounceTo tells another member that this one is reached at address from now on. It
// blocks until the cluster has taken it, or refused it, or for at most Timing.Call. answered
// is false if that member could not be asked; the change may have been made all the same.
func (s *Store) AnnounceTo(ctx context.Context, id, address string, unseen bool) (answered bool, err error) {
	var reply AnnounceReply
	if err := s.call(ctx, id, "Announce", &AnnounceArgs{Address: address, Unseen: unseen}, &reply); err != nil {
		if errors.Is(err, errUnreached) {
			return false, err
		}
		return false, api.Errorf(api.OutcomeUnknown, "Outcome unknown: member %s was told the address, and did not answer (%v)", id, err)
	}
	if reply.Err != nil {
		return true, reply.Err
	}
	return true, nil
}

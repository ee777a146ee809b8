package raftstore

import (
	"context"
	"net/rpc"
	"strconv"
	"time"

	"incusd/internal/raftstore/state"
)

// SurveyReply is what a running member says of itself to one that wants to recover the cluster.
type SurveyReply struct {
	// Incarnation is the member's, Leader the ID of the leader that it hears, "" if none.
	Incarnation int
	Leader      string
	// Term is the latest that it knows of; LastTerm and LastIndex are of its last entry.
	Term, LastTerm, LastIndex uint64
	// Applied is the last entry that it knows to be committed.
	Applied uint64
	// Servers is the latest configuration in its log.
	Servers []state.Server
}

// Votes tells whether the member with that ID has a vote, by this answer.
func (r *SurveyReply) Votes(id string) bool {
	for _, s := range r.Servers {
		if s.ID == id {
			return s.Voter
		}
	}
	return false
}

// Survey answers what this member's log holds and whom it follows.
func (c *calls) Survey(_ *struct{}, reply *SurveyReply) error {
	if err := c.known(); err != nil {
		return err
	}
	s := c.store
	stats := s.raft.Stats()
	number := func(key string) uint64 {
		n, err := strconv.ParseUint(stats[key], 10, 64)
		if err != nil {
			return 0 // Raft writes numbers there
		}
		return n
	}
	*reply = SurveyReply{
		Incarnation: s.lineage().Incarnation, Leader: s.Leader(),
		Term: s.raft.CurrentTerm(), LastTerm: number("last_log_term"), LastIndex: s.raft.LastIndex(),
		Applied: s.fsm.applied.Load(), Servers: s.servers(),
	}
	if snapshot := s.snapshotIndex(); snapshot >= reply.LastIndex && snapshot > 0 {
		reply.LastTerm = max(reply.LastTerm, number("last_snapshot_term"))
	}
	return nil
}

// Survey asks a running member what its log holds. It blocks until the answer or the end of ctx.
func Survey(ctx context.Context, link Link, peer Peer) (*SurveyReply, error) {
	conn, err := link.open(ctx, peer, purposeCall)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	client := rpc.NewClient(&boundedConn{conn, time.Minute})
	defer client.Close()
	var reply SurveyReply
	call := client.Go(callService+".Survey", &struct{}{}, &reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error != nil {
			return nil, call.Error
		}
		return &reply, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Package raftstore is the replicated store: hashicorp/raft with its log in
// raft-boltdb, the tables of package state as its finite state machine, and what
// the library leaves to its users: mutual TLS between members, writes from any
// member, linearizable reads from any replica, and errors with a reason.
//
// What always holds:
//
//   - An acknowledged command is committed, and is seen by every Read that begins
//     later, on any member.
//   - One request takes effect once, however often it is sent again.
//   - No call waits without a limit: a lost quorum, a lost answer and a dead leader
//     end as api.NoQuorum or api.OutcomeUnknown.
//   - A replica that is damaged, written by a newer version, or on a full disk is
//     refused with the reason and never reset.
//
// The package knows entries, indexes and members' keys. It does not know what a
// token means, nor HTTP.
package raftstore

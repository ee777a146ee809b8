// Package state holds the replicated tables of a cluster and the commands that
// change them.
//
// It owns what every member must agree on: the cluster itself, its members and groups
// of them, join tokens, server configuration and trusted client certificates. Apply is
// a pure function of state and command: the package knows no clock, no chance, no
// network and no disk. What those decide stands in the command. Records that a View returns
// are shared by all readers and are never changed; copy before you change.
//
// One entry of the log holds one or more commands. Each is applied in a transaction
// of its own, and either takes effect or is refused: a refusal is rolled back, is the
// same on every member, and is the command's result. The few refusals that do leave
// something behind say what in a refusal's effect. Readers see whole entries only.
//
// What always holds:
//
//   - At most one token per member name has not ended, and a server claims at most one.
//   - Who joins holds a claim: a joining row's token has not ended and is claimed by
//     that row's fingerprint, until the row is gone or active.
//   - Every member is in at least one cluster group, and every group that it is in is there.
//   - IDs, numbers, names, addresses and fingerprints of members differ.
//   - A token is used up by at most one member, and its secret is forgotten when it ends.
//   - One request takes effect once, as long as its ID is remembered; see MaxRequests.
package state

// Package entities is what a cluster configures: storage pools, networks, storage
// volumes, profiles and projects.
//
// It owns three things. What the cluster wants, as the wire shows it: pure functions of
// a view (Pools, Network, …). How it is changed: a Service, which validates and proposes
// commands, and which waits until the members have reported. And how a member makes it
// true on its machine: an Applier, whose plan is a pure function of the rows and of the
// member's own notes, and a Machine, which carries steps out and notes them.
//
// What always holds:
//
//   - What a member has made, or is about to make, stands in its notes first. So a crash
//     anywhere leaves nothing that the next start does not know of.
//   - Nothing is removed from a machine because a row cannot be found: only because the
//     row says so, or because it belonged to a replica that this server has given up.
//   - A member that fails reports it and leaves the others alone; nothing is rolled back.
//
// The package knows nothing of HTTP, of Raft, or of who is asking. What a pool or a
// network is on a machine, packages storage and network know.
package entities

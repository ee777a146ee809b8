// Package membership decides who is in the cluster: it admits joining members,
// judges who is online, gives database roles, and keeps Raft's configuration equal
// to what the replicated tables say.
//
// What must happen together is one command; see package state. What follows from
// it is done by the leader's loops, which look at what is and at what should be,
// take one step, and look again. So a crash at any point needs no repair of its own:
// the next leader goes on where the last one stopped.
//
// Decisions are plain functions from a value to a value (Plan, nextStep); they probe
// nothing and know no clock. The package knows nothing of HTTP: calls to other
// members go through interfaces that it declares.
package membership

// Package health finds out what is wrong with a cluster.
//
// Diagnose is a pure function: from what the state says and what each member has reported to
// the findings, with cause and next step, in the words of an administrator at 3 a.m. It knows
// no clock and no network; who gathers the evidence is not its business.
//
// What is found is a member's or a link's real cause as far as several views tell it apart: a
// member that nobody reaches is down, one that only some reach is cut off from the others, and
// the clock that is wrong is the one that differs from most.
package health

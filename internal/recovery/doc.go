// Package recovery works on the stores of a server whose daemon is stopped: it shows what the
// server's copy of the replicated state holds, brings a cluster that has lost the majority of its
// voters back from one copy, and changes addresses that the cluster cannot be told of.
//
// What always holds: until the one transaction of the local store that makes a change count, all
// is as it was, and the same command can be run again.
package recovery

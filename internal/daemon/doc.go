// Package daemon puts the parts of a server together: it opens the local and the
// replicated store, the listeners and the loops, and closes them in reverse. It
// swaps the replica when the server joins a cluster, and keeps the files in the
// state directory true to the replicated state.
//
// It holds no rule of its own about members, tokens or configuration. All that
// touches the outside (dialers, listeners, clock) is passed in, so that tests run
// many daemons in one process.
package daemon

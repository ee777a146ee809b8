// Package localstore keeps what a member knows for itself: which replica of the store
// is its own, a join that is not finished, the peers it last knew, how far the log is
// known to be committed, and the member-local configuration.
//
// It owns one bbolt file, <INCUS_DIR>/database/local.db, and a small file beside it for
// the commit hint. Each change is one transaction: after a crash it is there whole or
// not at all. Everything is read into memory when the file is opened, so reading never
// blocks and never fails, and what is damaged is found at the start.
//
// The file is locked while it is open: a second daemon with the same INCUS_DIR is
// refused. The package knows nothing of Raft, of configuration keys or of the network.
package localstore

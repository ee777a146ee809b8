// Package storage is what a storage pool and a volume are on this machine.
//
// It has a driver for each kind of pool behind one small interface, and a Manager that
// chooses the driver and does one thing at a time. A schema says which keys a pool and a
// volume may have, and which of them are each member's own.
//
// What always holds: nothing that was there before a pool is removed or overwritten, be it
// with the pool's removal or with its creation; a creation that fails has undone what it
// did; removing is harmless when half of it, or nothing, is there. A driver that this
// machine lacks a tool, kernel support or the rights for says which, and does nothing.
//
// The drivers dir and btrfs are tested for real. Those of lvm and zfs call the systems' own
// tools; where the machine that runs the tests lacks them, only their command lines are
// checked, and docs/compatibility.md says so.
//
// The package knows nothing of clusters, of what other members have, or of who asks.
package storage

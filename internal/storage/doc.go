// Package storage is what a storage pool and a volume are on this machine.
//
// It has a driver for each kind of pool behind one small interface, and a Manager that
// chooses the driver and does one thing at a time. A schema says which keys a pool and a
// volume may have, and which of them are each member's own.
//
// What always holds: nothing that was there before a pool or volume is removed or
// overwritten, be it with its removal or with its creation; a creation that fails has
// undone what it did; removing is harmless when half of it, or nothing, is there. A driver
// that this machine lacks a tool, kernel support or the rights for says which, and does
// nothing.
//
// Whose a thing is, the thing itself says: a pool has a mark with the pool's ID and its
// owner's, from before anything is written into it until all else of it is gone. It is a
// file in the root of a folder or file system, a tag of lvm, a property of zfs, a second
// name of a loop file. Only what has the mark is used, measured or removed. So two pools
// never share a place; what lies below the mount point of a disk that is not there is
// neither written to nor removed; and a crash leaves either what has the mark, or what is
// named by it and empty, which the removal of the same pool finds.
//
// The drivers dir and btrfs are tested for real. Those of lvm and zfs call the systems' own
// tools; where the machine that runs the tests lacks them, only their command lines are
// checked, and docs/compatibility.md says so.
//
// The package knows nothing of clusters, of what other members have, or of who asks.
package storage

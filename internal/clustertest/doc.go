// Package clustertest runs many members in one process, each with real Raft, real
// files and the real daemon, on a network that tests can cut, slow down and heal, and
// on disks that they can fill, slow down and break. Members are killed as a crash
// kills them: nothing is flushed, nobody is told.
//
// It is for tests only. Nothing in it is random unless a test's seed says so.
package clustertest

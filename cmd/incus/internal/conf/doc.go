// Package conf keeps what the command line remembers from one run to the next: the remotes in
// config.yml, and the certificates in the files beside it.
//
// Files and forms are those of Incus, so that both clients share them: what one has written, the
// other reads. What this package does not know in config.yml stays there, comments too. A file is
// replaced as a whole: a crash leaves the old one or the new one, and two processes that change it
// at once do so one after the other.
//
// The package knows nothing of servers, nor of how they are reached.
package conf

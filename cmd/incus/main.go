// Command incus is the command line of the cluster. It asks, prints and calls the
// REST API of the local daemon through package client; it knows no other way to
// the cluster, and holds no state of its own.
//
// There is one file per noun. Whatever a command needs from outside (streams,
// environment, connections, terminal) is in world, so that tests run commands as a
// shell does, but in their own process.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the command at once
	code := run(ctx, systemWorld(), os.Args[1:])
	stop()
	os.Exit(code)
}

// Command bench measures a cluster of this project on this machine, with every member
// a process of its own, and prints a table of the figures that the project holds itself
// to beside what was wanted and what the peer needs.
//
// It starts its own daemons on loopback addresses, in a temporary folder, and removes
// both at the end. It judges nothing: a slow machine makes slow figures, so the table
// is for reading, and the exit code says only whether measuring worked.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// settings are what the flags choose.
type settings struct {
	// bin is the folder of the binaries incusd and incus.
	bin string
	// rounds is how often start, bootstrap and joins are measured, each time on new servers.
	rounds int
	// members is the size of those clusters, at least 3.
	members int
	// calls is the number of calls, one after the other, of a latency figure.
	calls int
	// load is how long the callers of a rate figure call, and clients how many they are.
	load    time.Duration
	clients int
	// failovers is how often the leader is killed, and how often it is stopped.
	failovers int
	// restarts is how often a member is restarted after it was seen offline.
	restarts int
	// size, if not 0, is that of one large cluster, whose idle cost is measured and nothing else.
	size int
	// logs shows the daemons' logs when measuring fails.
	logs bool
}

func main() {
	var s settings
	flag.StringVar(&s.bin, "bin", "bin", "folder of the binaries incusd and incus")
	flag.IntVar(&s.rounds, "rounds", 5, "new clusters to form")
	flag.IntVar(&s.members, "members", 7, "members of each, at least 3")
	flag.IntVar(&s.calls, "calls", 300, "calls, one after the other, of a latency figure")
	flag.DurationVar(&s.load, "load", 3*time.Second, "duration of a rate figure")
	flag.IntVar(&s.clients, "clients", 16, "clients of a rate figure")
	flag.IntVar(&s.failovers, "failovers", 5, "times to kill, and to stop, the leader")
	flag.IntVar(&s.restarts, "restarts", 3, "times to restart a member that was offline")
	flag.IntVar(&s.size, "size", 0, "measure only what a cluster of this size costs when nothing happens")
	flag.BoolVar(&s.logs, "logs", false, "show the daemons' logs when measuring fails")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures everything and prints the table, also of what was measured before an error.
func run(ctx context.Context, s settings) error {
	if s.members < 3 || s.size != 0 && s.size < 3 {
		return fmt.Errorf("-members is %d, -size is %d: a cluster that survives the loss of one has at least 3", s.members, s.size)
	}
	bin, err := filepath.Abs(s.bin)
	if err != nil {
		return err
	}
	s.bin = bin
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()

	dir, err := os.MkdirTemp("", "incus-bench") // short: the path of a unix socket may have 107 bytes
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	b := &bench{settings: s, dir: dir, table: newTable()}
	started, where := time.Now(), machine()
	if s.size > 0 {
		err = b.measureSize(ctx)
	} else {
		err = b.measure(ctx)
		b.table.print(os.Stdout)
	}
	b.table.printNotes(os.Stdout)
	fmt.Printf("\nTook %s. %s.\n", time.Since(started).Round(time.Second), where)
	if err != nil && s.logs {
		b.showLogs(os.Stderr)
	}
	return err
}

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTicks is how many there are in a second of /proc/PID/stat, on Linux.
const clockTicks = 100

// scale forms a cluster of the size that a flag gives and measures what it costs when nothing
// happens: the processor time of the leader and of another member.
func (b *bench) scale(ctx context.Context) error {
	started := time.Now()
	f, err := b.form(ctx, "scale", b.size)
	if err != nil {
		return err
	}
	b.table.note("%d members formed in %s; the last join took %s.", b.size, time.Since(started).Round(time.Second), short(f.joins[len(f.joins)-1]))
	if err := b.allOnline(ctx); err != nil {
		return err
	}
	leader, others, err := b.leader(ctx)
	if err != nil {
		return err
	}
	const span = 10 * time.Second
	before, err := processorTimes(leader, others[len(others)-1])
	if err != nil {
		return err
	}
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := processorTimes(leader, others[len(others)-1])
	if err != nil {
		return err
	}
	idle := func(i int) time.Duration { return (after[i] - before[i]) / time.Duration(span/time.Second) }
	b.table.note("Idle, processor time in a second: leader %s (%s for each other member), the newest member %s.",
		short(idle(0)), short(idle(0)/time.Duration(b.size-1)), short(idle(1)))
	size, err := leader.resident()
	if err != nil {
		return err
	}
	b.table.note("Resident memory of the leader: %.1f MiB.", float64(size)/(1<<20))
	began := time.Now()
	leader.kill()
	if err := b.nextWrite(ctx, others[len(others)-1], 1); err != nil {
		return err
	}
	b.table.note("Leader killed, to the next write through the newest member: %s.", short(time.Since(began)))
	return nil
}

// processorTimes is how much processor time each member's process has used.
func processorTimes(members ...*member) ([]time.Duration, error) {
	var out []time.Duration
	for _, m := range members {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
		if err != nil {
			return nil, err
		}
		// The name of the program, in brackets, may hold spaces; user and system time are the
		// 12th and 13th field after it.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		user, err1 := strconv.ParseInt(fields[11], 10, 64)
		system, err2 := strconv.ParseInt(fields[12], 10, 64)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("no times in %q", stat)
		}
		out = append(out, time.Duration(user+system)*time.Second/clockTicks)
	}
	return out, nil
}

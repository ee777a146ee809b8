package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"incusd/api"
)

// rolling restarts every member of a cluster of five, one after the other, while writers go
// on through whichever member answers. Its figures are the longest time without an
// acknowledged write during each restart.
func (b *bench) rolling(ctx context.Context) error {
	b.stopAll()
	if _, err := b.form(ctx, "five", 5); err != nil {
		return err
	}
	if err := b.allOnline(ctx); err != nil {
		return err
	}
	w := &writers{members: b.running, acknowledged: make(map[string]int)}
	stop := w.start(ctx, 4)
	defer stop()
	var gaps []time.Duration
	for _, m := range b.running {
		w.restartGap()
		if err := m.restart(ctx); err != nil {
			return err
		}
		if err := b.allOnline(ctx); err != nil {
			return err
		}
		gaps = append(gaps, w.longestGap())
	}
	stop()
	b.table.durations("rolling restart of 5, longest gap in writes", gaps)
	return w.check(ctx)
}

// restart ends the member as systemd does, and starts it again.
func (m *member) restart(ctx context.Context) error {
	if err := m.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-m.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	m.api.forget()
	_, err := m.start(ctx)
	return err
}

// allOnline waits until every member takes a write and sees all members online.
func (b *bench) allOnline(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, m := range b.running {
		err := poll(ctx, 20*time.Millisecond, func() (bool, error) {
			if m.api.trySetConfig(ctx, 5*time.Second, "user.settled", m.name) != nil {
				return false, nil
			}
			list, err := m.api.members(ctx)
			online := 0
			for _, c := range list {
				if c.Status == "Online" {
					online++
				}
			}
			return err == nil && online == len(b.running), nil
		})
		if err != nil {
			return fmt.Errorf("wait until %s sees all members online: %w", m.name, err)
		}
	}
	return nil
}

// writers change keys of the configuration, each its own, through one member after the other.
type writers struct {
	members []*member

	mu sync.Mutex
	// last is when the last write was acknowledged, longest the longest time between two.
	last    time.Time
	longest time.Duration
	// acknowledged is the last value of each key that was.
	acknowledged map[string]int
}

// start begins to write; stop ends it and may be called more than once.
func (w *writers) start(ctx context.Context, n int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { w.write(ctx, fmt.Sprintf("user.rolling.%d", i), i) })
	}
	return func() { cancel(); wg.Wait() }
}

// write goes on to the next member when one does not take a write at once.
func (w *writers) write(ctx context.Context, key string, at int) {
	for value := 1; ctx.Err() == nil; {
		m := w.members[at%len(w.members)]
		if err := m.api.trySetConfig(ctx, 2*time.Second, key, strconv.Itoa(value)); err != nil {
			at++
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		w.acknowledge(key, value)
		value++
	}
}

func (w *writers) acknowledge(key string, value int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.longest, w.last = max(w.longest, now.Sub(w.last)), now
	w.acknowledged[key] = value
}

// restartGap begins a new measurement.
func (w *writers) restartGap() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.longest, w.last = 0, time.Now()
}

func (w *writers) longestGap() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(w.longest, time.Since(w.last))
}

// check reads back what was acknowledged: a figure of writes that were lost is worth nothing.
func (w *writers) check(ctx context.Context) error {
	for _, m := range w.members {
		var server api.Server
		if err := m.api.get(ctx, "/1.0", &server); err != nil {
			return err
		}
		for key, value := range w.acknowledged {
			if got, _ := strconv.Atoi(server.Config[key]); got < value {
				return fmt.Errorf("%s has %s=%s, and %d was acknowledged", m.name, key, server.Config[key], value)
			}
		}
	}
	return nil
}

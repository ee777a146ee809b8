package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"incusd/test/loopback"
)

// A bench measures. Its steps go in the order of measure and share one cluster of three.
type bench struct {
	settings
	dir       string
	table     *table
	addresses *loopback.Book
	// running are the members whose processes this bench has to end.
	running []*member
}

// measure takes every figure. It stops at the first error, since a cluster that misbehaved
// once would give figures that mean nothing.
func (b *bench) measure(ctx context.Context) error {
	defer b.stopAll()
	b.addresses = loopback.NewBook()
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"disk and sizes", b.disk},
		{"formation", b.formation},
		{"cluster of three", b.threeMembers},
		{"restart", func(ctx context.Context) error { return b.restart(ctx, "restarted member, start to Online") }},
		{"tokens", b.tokens},
		{"member list", b.lists},
		{"configuration writes", b.writes},
		{"crowd", b.crowded},
		{"memory after load", b.memoryAfterLoad},
		{"fail-over", b.failOver},
		{"restart after load", func(ctx context.Context) error {
			return b.restart(ctx, "restarted member, after load") // it has thousands of tokens to read
		}},
		{"rolling restart", b.rolling},
	} {
		fmt.Fprintln(os.Stderr, "bench:", step.name)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// measureSize measures one large cluster and nothing else.
func (b *bench) measureSize(ctx context.Context) error {
	defer b.stopAll()
	b.addresses = loopback.NewBook()
	return b.scale(ctx)
}

// disk measures what the disk of the state directories needs for one small durable
// append, the floor under every write, and the sizes of the binaries.
func (b *bench) disk(context.Context) error {
	file, err := os.Create(filepath.Join(b.dir, "fsync"))
	if err != nil {
		return err
	}
	defer file.Close()
	block := make([]byte, 4<<10)
	samples, err := oneByOne(b.calls, func(int) error {
		if _, err := file.Write(block); err != nil {
			return err
		}
		return file.Sync()
	})
	if err != nil {
		return err
	}
	b.table.durations("disk: 4 KiB append + fsync", samples)

	for _, name := range []string{"incusd", "incus"} {
		info, err := os.Stat(filepath.Join(b.bin, name))
		if err != nil {
			return fmt.Errorf("%w (run make build first)", err)
		}
		b.table.bytes("size of "+name, info.Size())
	}
	return nil
}

// formation forms new clusters, rounds times, and measures each step of it.
func (b *bench) formation(ctx context.Context) error {
	var starts, bootstraps, adds []time.Duration
	joins := make([][]time.Duration, b.members)
	for round := range b.rounds {
		f, err := b.form(ctx, fmt.Sprintf("round%d", round), b.members)
		if err != nil {
			return err
		}
		b.stopAll()
		starts = append(starts, f.starts...)
		bootstraps = append(bootstraps, f.bootstrap)
		adds = append(adds, f.adds...)
		for i, d := range f.joins {
			joins[i] = append(joins[i], d)
		}
	}
	b.table.durations("start to first answer", starts)
	b.table.durations("bootstrap (incus admin init)", bootstraps)
	b.table.durations("incus cluster add", adds)
	b.table.durations("join, member 2 (incus admin init)", joins[0])
	b.table.durations("join, member 3", joins[1])
	b.table.durations("join, last member", joins[b.members-2])
	b.table.note("The last member to join was number %d.", b.members)
	return nil
}

// threeMembers forms the cluster that the remaining steps use.
func (b *bench) threeMembers(ctx context.Context) error {
	if _, err := b.form(ctx, "three", 3); err != nil {
		return err
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	return b.memory("resident memory, idle")
}

// tokens measures the issue of join tokens by REST.
func (b *bench) tokens(ctx context.Context) error {
	return b.leaderAndElsewhere(ctx, "token", func(m *member, client, i int) error {
		// A name has one live token, so that the cluster's limit of live tokens is not reached.
		return m.api.token(ctx, fmt.Sprintf("bench-%d-%d", client, i%100))
	})
}

// lists measures reads of the member list, which are linearizable.
func (b *bench) lists(ctx context.Context) error {
	return b.leaderAndElsewhere(ctx, "member list", func(m *member, _, _ int) error {
		return m.api.get(ctx, membersPath, nil)
	})
}

// writes measures changes of the cluster's configuration.
func (b *bench) writes(ctx context.Context) error {
	return b.leaderAndElsewhere(ctx, "configuration write", func(m *member, client, i int) error {
		return m.api.setConfig(ctx, fmt.Sprintf("user.bench.%d", client), strconv.Itoa(i))
	})
}

// leaderAndElsewhere measures a call on the leader and on another member: one after the
// other, and by many clients at once.
func (b *bench) leaderAndElsewhere(ctx context.Context, figure string, call func(m *member, client, i int) error) error {
	leader, others, err := b.leader(ctx)
	if err != nil {
		return err
	}
	for _, place := range []struct {
		words string
		*member
	}{{"on the leader", leader}, {"elsewhere", others[0]}} {
		samples, err := oneByOne(b.calls, func(i int) error { return call(place.member, 0, i) })
		if err != nil {
			return err
		}
		b.table.durations(fmt.Sprintf("%s, %s", figure, place.words), samples)
		result, err := underLoad(ctx, b.clients, b.load, func(client, i int) error {
			return call(place.member, client, i)
		})
		if err != nil {
			return err
		}
		b.table.rate(fmt.Sprintf("%s, %s, many clients", figure, place.words), result)
	}
	return nil
}

func (b *bench) memoryAfterLoad(context.Context) error {
	return b.memory("resident memory, after load")
}

// memory records the resident memory of every member.
func (b *bench) memory(figure string) error {
	var sizes []int64
	for _, m := range b.running {
		size, err := m.resident()
		if err != nil {
			return err
		}
		sizes = append(sizes, size)
	}
	b.table.bytes(figure, sizes...)
	return nil
}

// failOver takes the leader away and measures how long a writer on another member waits:
// first by kill -9, which closes its connections, then by SIGSTOP, which leaves them open
// and silent, as a pulled cable does.
func (b *bench) failOver(ctx context.Context) error {
	for _, how := range []struct {
		figure string
		away   func(*member) error
		back   func(*member) error
	}{
		{
			"fail-over: leader killed, to the next write",
			func(m *member) error { m.kill(); return nil },
			func(m *member) error { _, err := m.start(ctx); return err },
		},
		{
			"fail-over: leader's packets vanish, to the next write",
			func(m *member) error { return m.signal(syscall.SIGSTOP) },
			func(m *member) error { return m.signal(syscall.SIGCONT) },
		},
	} {
		var samples []time.Duration
		for i := range b.failovers {
			leader, others, err := b.leader(ctx)
			if err != nil {
				return err
			}
			started := time.Now()
			if err := how.away(leader); err != nil {
				return err
			}
			if err := b.nextWrite(ctx, others[i%len(others)], i); err != nil {
				return err
			}
			samples = append(samples, time.Since(started))
			if err := how.back(leader); err != nil {
				return err
			}
			if err := b.settle(ctx); err != nil {
				return err
			}
		}
		b.table.durations(how.figure, samples)
	}
	return nil
}

// nextWrite writes through m until a write is acknowledged.
func (b *bench) nextWrite(ctx context.Context, m *member, i int) error {
	var last error
	err := poll(ctx, 5*time.Millisecond, func() (bool, error) {
		last = m.api.trySetConfig(ctx, 5*time.Second, "user.failover", strconv.Itoa(i))
		return last == nil, nil
	})
	return errors.Join(err, last)
}

// restart kills a member, waits until the others say that it is offline, and measures from
// its start until they say that it is online again.
func (b *bench) restart(ctx context.Context, figure string) error {
	leader, others, err := b.leader(ctx)
	if err != nil {
		return err
	}
	// The lowest threshold that the schema takes, since waiting for it is not the figure.
	if err := leader.api.setConfig(ctx, "cluster.offline_threshold", "11"); err != nil {
		return err
	}
	var samples []time.Duration
	for i := range b.restarts {
		m := others[i%len(others)]
		m.kill()
		if err := leader.waitStatus(ctx, m.name, "Offline"); err != nil {
			return err
		}
		started := time.Now()
		if _, err := m.start(ctx); err != nil {
			return err
		}
		if err := leader.waitStatus(ctx, m.name, "Online"); err != nil {
			return err
		}
		samples = append(samples, time.Since(started))
	}
	b.table.durations(figure, samples)
	return nil
}

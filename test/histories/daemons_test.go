package histories

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/client"
	"incusd/internal/clustertest"
	"incusd/internal/raftstore"
)

// outside is the host of the clients. It is never cut off.
const outside = "clients"

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(cmp.Or(os.Getenv(name), fmt.Sprint(otherwise)), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// stormTime is how long faults come and go, in virtual time.
const stormTime = 15 * time.Second

// play runs one history: a cluster, clients, faults, and in the end a whole cluster again.
func play(t *testing.T, seed uint64) (*history, *storm) {
	s := &storm{seed: seed, rng: rand.New(rand.NewPCG(seed, 1<<32))}
	s.form(t, []int{3, 4}[seed%2])
	c := s.c
	w := newWorkload(c.Context(), t, seed, adminOf(c.Servers()[0]), targetsOf(c), dialer(c, outside))
	s.begun = time.Now()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the faults:\n%s", s.log)
		}
	})
	s.heal()
	stop := w.start()
	defer stop()
	for time.Since(s.begun) < stormTime {
		s.blow()
	}
	stop()
	s.heal()
	c.Leader()
	c.RequireConverged()
	w.requireMarks(w.last())
	c.RequireConverged()
	for _, server := range c.Servers() {
		server.Stop()
	}
	return w.h, s
}

// form makes a cluster; of four members one has no vote. They compact their logs often.
func (s *storm) form(t *testing.T, size int) {
	s.c = &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
	for n := range size {
		host := fmt.Sprintf("m%d", n+1)
		reach := func(point string) error { s.reach(host, point); return nil }
		server := s.c.AddServer(clustertest.CompactAfter(100), clustertest.OnReach(reach))
		if n == 0 {
			server.MustBootstrap()
		} else {
			server.MustJoin(s.c.Servers()[0])
		}
	}
}

func targetsOf(c *clustertest.Cluster) []target {
	var out []target
	for _, s := range c.Servers() {
		out = append(out, target{s.Host, s.Address()})
	}
	return out
}

func dialer(c *clustertest.Cluster, host string) client.DialFunc {
	dial := c.Net.Dialer(host)
	return func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }
}

// adminOf is a client on the server's unix socket.
func adminOf(s *clustertest.Server) *client.Client {
	dial := s.C.Net.Dialer(s.Host)
	return client.Unix("", client.Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, s.Host+":1")
	}})
}

// TestRevocationBehindAPartitionIsNotDenied: a member that is cut off cannot know that
// there is no such token. A history showed it doing so (seed 13): who wanted to revoke the
// token was told that it does not exist, and it stayed valid.
func TestRevocationBehindAPartitionIsNotDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		c.RequireConverged()
		leader, far := c.Servers()[0], c.Servers()[2]
		(&storm{c: c}).isolate(far.Host)
		token, err := adminOf(leader).CreateJoinToken(c.Context(), "joiner")
		if err != nil {
			t.Fatal(err)
		}
		if err := adminOf(far).CancelOperation(c.Context(), token.Operation); !errors.Is(err, api.NoQuorum) {
			t.Errorf("a member without quorum answered %v, expected %s", err, api.NoQuorum)
		}
		c.Net.Heal()
		c.RequireConverged()
		for _, s := range c.Servers() {
			s.Stop()
		}
	})
}

// A storm is a sequence of faults.
type storm struct {
	c     *clustertest.Cluster
	seed  uint64
	blown uint64 // faults so far
	// rng is made anew for each fault, so that what one asks of it changes none of the next.
	rng   *rand.Rand
	begun time.Time
	log   string

	mu sync.Mutex
	// armed is what to do when a member gets to the step of that name; nil if nothing.
	armed map[string]func()
	// asker is the host that last sent a write to the leader.
	asker string
}

// reach is called when a member gets to a named step of a write.
func (s *storm) reach(host, point string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if point == raftstore.PointForward {
		s.asker = host
	}
	if f := s.armed[point]; f != nil {
		delete(s.armed, point)
		f()
	}
}

// when does f at the very moment when some member gets to a step, or soon anyway.
func (s *storm) when(point string, f func()) {
	done := make(chan struct{})
	s.mu.Lock()
	s.armed = map[string]func(){point: func() { f(); close(done) }}
	s.mu.Unlock()
	select {
	case <-done:
	case <-time.After(200 * time.Millisecond):
		s.reach("", point)
	}
}

// A fault is something that may go wrong. heal ends it.
type fault struct {
	name   string
	weight int // how often, relative to the others
	begin  func(*storm)
}

var faults = []fault{
	{"kill the leader", 4, func(s *storm) { s.kill(s.leader()) }},
	{"kill one", 2, func(s *storm) { s.kill(s.any()) }},
	{"kill all", 1, func(s *storm) { s.kill(s.c.Servers()...) }},
	{"isolate the leader", 4, func(s *storm) { s.isolate(s.leader().Host) }},
	{"isolate one", 2, func(s *storm) { s.isolate(s.any().Host) }},
	{"cut the leader from one", 2, func(s *storm) { s.c.Net.Cut(s.leader().Host, s.other(s.leader()).Host) }},
	{"the leader is not heard", 3, func(s *storm) { s.mute(s.leader().Host) }},
	{"the leader hears nothing", 3, func(s *storm) { s.deafen(s.leader().Host) }},
	{"one hears nothing", 1, func(s *storm) { s.deafen(s.any().Host) }},
	{"one does not hear the leader", 2, func(s *storm) { s.c.Net.CutOneWay(s.leader().Host, s.other(s.leader()).Host) }},
	{"the leader is slow", 2, func(s *storm) { s.slow(s.leader().Host) }},
	{"the leader hears late, and is then not heard", 4, func(s *storm) {
		// What it hears lets it go on to believe in itself when others do not any more.
		leader := s.leader()
		s.late(leader.Host)
		<-time.After(s.between(400*time.Millisecond, time.Second))
		s.mute(leader.Host)
	}},
	// These come when an entry is under way: it will be committed or not, or it is already,
	// and those who asked for it do not hear of that.
	{"the leader hears nothing from when it appends", 6, func(s *storm) {
		leader := s.leader()
		s.when(raftstore.PointAppend, func() { s.deafen(leader.Host) })
	}},
	{"isolate who asked when the leader appends", 6, func(s *storm) {
		s.when(raftstore.PointAppend, func() { s.isolate(s.asker) })
	}},
	{"isolate the leader when it has committed", 4, func(s *storm) {
		leader := s.leader()
		s.when(raftstore.PointCommitted, func() { s.isolate(leader.Host) })
	}},
	{"isolate the leader, kill another", 2, func(s *storm) {
		leader := s.leader()
		s.isolate(leader.Host)
		s.kill(s.other(leader))
	}},
}

// blow lets one thing go wrong for some time, mends it, and gives the cluster a moment,
// which may be too little. Some faults end before the next leader is elected, and some
// only after those who wait for one have given up.
func (s *storm) blow() {
	s.blown++
	s.rng = rand.New(rand.NewPCG(s.seed, 1<<32+s.blown))
	fault := s.choose()
	stays := s.between(100*time.Millisecond, 1500*time.Millisecond)
	if s.rng.IntN(3) == 0 {
		stays = s.between(4500*time.Millisecond, 6*time.Second)
	}
	rest := s.between(0, 500*time.Millisecond)
	s.note(fault.name)
	fault.begin(s)
	<-time.After(stays)
	s.note("heal")
	s.heal()
	<-time.After(rest)
}

// choose chooses a fault by weight.
func (s *storm) choose() fault {
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	n := s.rng.IntN(total)
	for _, f := range faults {
		if n -= f.weight; n < 0 {
			return f
		}
	}
	panic("not reached: n is below the sum of the weights")
}

func (s *storm) note(what string) {
	s.log += fmt.Sprintf("  %6.3f s, %s leads: %s\n", time.Since(s.begun).Seconds(), s.leader().Host, what)
}

func (s *storm) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.rng.Int64N(int64(most-least)))
}

// heal starts who is down, mends all links, and gives each a little delay: without it all
// would be over before the virtual clock moves, and no fault could come in between.
func (s *storm) heal() {
	s.c.Net.Heal()
	hosts := []string{outside}
	for _, server := range s.c.Servers() {
		if !server.Runs() {
			server.MustStart()
		}
		hosts = append(hosts, server.Host)
	}
	for _, from := range hosts {
		for _, to := range hosts {
			if from != to {
				s.c.Net.Delay(from, to, time.Duration(500+s.rng.IntN(5000))*time.Microsecond)
			}
		}
	}
}

// leader is one who believes to lead, or anybody if nobody does.
func (s *storm) leader() *clustertest.Server {
	for _, server := range s.c.Running() {
		if server.Leads() {
			return server
		}
	}
	return s.any()
}

func (s *storm) any() *clustertest.Server { return s.other(nil) }

func (s *storm) other(than *clustertest.Server) *clustertest.Server {
	for {
		if server := s.c.Servers()[s.rng.IntN(len(s.c.Servers()))]; server != than {
			return server
		}
	}
}

// others are the hosts of all other members.
func (s *storm) others(host string) []string {
	var out []string
	for _, server := range s.c.Servers() {
		if server.Host != host {
			out = append(out, server.Host)
		}
	}
	return out
}

func (s *storm) kill(servers ...*clustertest.Server) {
	for _, server := range servers {
		server.Kill()
	}
}

func (s *storm) isolate(host string) {
	for _, other := range s.others(host) {
		s.c.Net.Cut(host, other)
	}
}

func (s *storm) mute(host string) {
	for _, other := range s.others(host) {
		s.c.Net.CutOneWay(host, other)
	}
}

func (s *storm) deafen(host string) {
	for _, other := range s.others(host) {
		s.c.Net.CutOneWay(other, host)
	}
}

// slow delays what the server sends, and late what it hears.
func (s *storm) slow(host string) {
	delay := time.Duration(20+s.rng.IntN(400)) * time.Millisecond
	for _, other := range s.others(host) {
		s.c.Net.Delay(host, other, delay)
	}
}

func (s *storm) late(host string) {
	delay := time.Duration(100+s.rng.IntN(500)) * time.Millisecond
	for _, other := range s.others(host) {
		s.c.Net.Delay(other, host, delay)
	}
}

package histories

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/client"
	"incusd/test/binaries"
	"incusd/test/loopback"
)

func TestMain(m *testing.M) { binaries.Main(m) }

// patience is how long a condition may take to come true.
const patience = 30 * time.Second

// TestHistoryOfProcesses stops, continues and kills the processes of a cluster, the leader
// above all. A stopped process is worse than a cut network: it knows of no time that
// passed, and what it was about to say it says when it goes on. The seed gives the order
// of the faults.
//
//	HISTORIES_SEED=7 go test ./test/histories -run Processes -v
func TestHistoryOfProcesses(t *testing.T) {
	seed := number(t, "HISTORIES_SEED", 1)
	t.Logf("seed %d", seed)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := formProcesses(ctx, t, 3)
	w := newWorkload(ctx, t, seed, c.all[0].client(), c.targets(), (&net.Dialer{}).DialContext)
	stop := w.start()
	defer stop()
	rng := rand.New(rand.NewPCG(seed, 1<<32))
	for _, n := range rng.Perm(len(processFaults)) {
		c.acked(w.h, 50) // the cluster works, and the clients with it
		fault := processFaults[n]
		leader := c.leader(ctx)
		t.Logf("%s; %s leads", fault.name, leader.name)
		fault.strike(c, w.h, leader, rng)
	}
	c.acked(w.h, 50)
	stop()
	c.converge(ctx)
	w.requireMarks(w.last())
	c.converge(ctx)
	w.h.check(t)
}

// TestMemberKilledSoonAfterItsJoinKnowsItsCluster: whatever it was told last, a member
// that comes back alone knows that it is one, and shows the cluster's certificate. A
// history found that it took itself for a standalone server (seed 13, kill all at once).
func TestMemberKilledSoonAfterItsJoinKnowsItsCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := formProcesses(ctx, t, 3)
	server, _, err := c.all[0].client().Server(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.all {
		p.signal(syscall.SIGKILL)
	}
	for _, p := range c.all {
		p.kill()
	}
	last := c.all[len(c.all)-1]
	last.start()
	c.eventually("an answer", func() error { return last.client().Ready(ctx) })
	if members, err := last.client().Members(ctx, ""); err != nil || len(members) != len(c.all) {
		t.Errorf("it lists %d members, %v; expected %d", len(members), err, len(c.all))
	}
	shown, err := client.RemoteCertificate(ctx, nil, last.address)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := client.Fingerprint(shown), server.Environment.CertificateFingerprint; got != want {
		t.Errorf("it shows the certificate %.12s, expected the cluster's, %.12s", got, want)
	}
}

// processFaults are played once each. They begin with a healthy cluster, and leave all
// processes running.
var processFaults = []struct {
	name   string
	strike func(c *processes, h *history, leader *process, rng *rand.Rand)
}{
	{"stop the leader until another leads", func(c *processes, h *history, leader *process, _ *rand.Rand) {
		leader.stop()
		c.leaderOtherThan(leader)
		c.acked(h, 20)
		leader.goOn()
	}},
	{"stop the leader, for longer and for less than an election", func(c *processes, _ *history, leader *process, rng *rand.Rand) {
		for range 6 {
			leader.stop()
			<-time.After(time.Duration(50+rng.IntN(700)) * time.Millisecond)
			leader.goOn()
			<-time.After(time.Duration(rng.IntN(100)) * time.Millisecond)
		}
	}},
	{"stop the leader, kill the next one, let the first go on", func(c *processes, _ *history, leader *process, _ *rand.Rand) {
		leader.stop()
		next := c.leaderOtherThan(leader)
		next.kill()
		leader.goOn()
		next.start()
	}},
	{"stop all but the leader for a moment", func(c *processes, _ *history, leader *process, _ *rand.Rand) {
		for _, p := range c.all {
			if p != leader {
				p.stop()
			}
		}
		<-time.After(500 * time.Millisecond)
		for _, p := range c.all {
			if p != leader {
				p.goOn()
			}
		}
	}},
	{"stop a follower", func(c *processes, h *history, leader *process, rng *rand.Rand) {
		follower := c.other(leader, rng)
		follower.stop()
		c.acked(h, 20)
		follower.goOn()
	}},
	{"kill the leader", func(c *processes, h *history, leader *process, _ *rand.Rand) {
		leader.kill()
		c.leaderOtherThan(leader)
		c.acked(h, 20)
		leader.start()
	}},
	{"kill a follower", func(c *processes, _ *history, leader *process, rng *rand.Rand) {
		follower := c.other(leader, rng)
		follower.kill()
		follower.start()
	}},
	{"kill all at once", func(c *processes, _ *history, _ *process, _ *rand.Rand) {
		for _, p := range c.all {
			p.signal(syscall.SIGKILL)
		}
		for _, p := range c.all {
			p.kill()
			p.start()
		}
	}},
}

// processes are the members of a cluster.
type processes struct {
	t   *testing.T
	all []*process
}

// formProcesses starts n daemons and makes them a cluster.
func formProcesses(ctx context.Context, t *testing.T, n int) *processes {
	t.Helper()
	// The path is short, because that of a unix socket may have 107 bytes.
	dir, err := os.MkdirTemp("/tmp", "incus-histories")
	if err != nil {
		t.Fatal(err)
	}
	c := &processes{t: t}
	t.Cleanup(func() {
		for _, p := range c.all {
			p.kill()
			if t.Failed() {
				t.Logf("--- the end of %s's log\n%s", p.name, p.logEnd())
			}
		}
		os.RemoveAll(dir)
	})
	book := loopback.NewBook()
	for i := range n {
		name := fmt.Sprintf("m%d", i+1)
		address, err := book.Take()
		if err != nil {
			t.Fatal(err)
		}
		p := &process{t: t, name: name, address: address, dir: filepath.Join(dir, name)}
		if err := os.Mkdir(p.dir, 0o711); err != nil {
			t.Fatal(err)
		}
		p.start()
		c.all = append(c.all, p)
		if err := p.form(ctx, c.all[0]); err != nil {
			t.Fatalf("form the cluster, %s: %v", name, err)
		}
	}
	c.eventually("three voters", func() error {
		members, err := c.all[0].client().Members(ctx, "")
		if err != nil {
			return err
		}
		for _, m := range members {
			if len(members) != n || !slices.Contains(m.Roles, api.RoleDatabase) || m.Status != "Online" {
				return fmt.Errorf("%d members, %+v", len(members), m)
			}
		}
		return nil
	})
	return c
}

func (c *processes) targets() []target {
	var out []target
	for _, p := range c.all {
		out = append(out, target{p.name, p.address})
	}
	return out
}

func (c *processes) eventually(what string, f func() error) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s, within %v: %v", what, patience, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// acked waits until n more writes are acknowledged.
func (c *processes) acked(h *history, n int64) {
	c.t.Helper()
	from := h.acked.Load()
	c.eventually("the cluster takes writes", func() error {
		if now := h.acked.Load(); now < from+n {
			return fmt.Errorf("%d of %d", now-from, n)
		}
		return nil
	})
}

// leader waits until one leads, in the opinion of somebody who is up to date.
func (c *processes) leader(ctx context.Context) *process {
	c.t.Helper()
	return c.leaderSuch(ctx, func(*process) bool { return true })
}

func (c *processes) leaderOtherThan(old *process) *process {
	c.t.Helper()
	return c.leaderSuch(context.Background(), func(p *process) bool { return p != old })
}

func (c *processes) leaderSuch(ctx context.Context, fits func(*process) bool) (leader *process) {
	c.t.Helper()
	c.eventually("a leader", func() error {
		for _, asked := range c.all {
			members, err := asked.members(ctx)
			if err != nil {
				continue // stopped, killed or not up to date
			}
			for i, m := range members {
				if slices.Contains(m.Roles, api.RoleDatabaseLeader) && fits(c.all[i]) {
					leader = c.all[i]
					return nil
				}
			}
		}
		return errors.New("nobody leads")
	})
	return leader
}

func (c *processes) other(than *process, rng *rand.Rand) *process {
	for {
		if p := c.all[rng.IntN(len(c.all))]; p != than {
			return p
		}
	}
}

// converge waits until all members give the same answers: members, configuration, tokens.
func (c *processes) converge(ctx context.Context) {
	c.t.Helper()
	type answers struct {
		Members []api.ClusterMember
		Config  api.ConfigMap
		Tokens  []client.JoinToken
	}
	c.eventually("all members answer the same", func() error {
		var first answers
		for i, p := range c.all {
			var a answers
			var err error
			if a.Members, err = p.members(ctx); err != nil {
				return err
			}
			server, _, err := p.client().Server(ctx)
			if err != nil {
				return err
			}
			a.Config = server.Config
			delete(a.Config, "core.https_address") // these two are each member's own
			delete(a.Config, "cluster.https_address")
			if a.Tokens, err = p.client().JoinTokens(ctx); err != nil {
				return err
			}
			if i == 0 {
				first = a
			}
			if diff := cmp.Diff(first, a); diff != "" {
				return fmt.Errorf("%s and %s differ:\n%s", c.all[0].name, p.name, diff)
			}
		}
		return nil
	})
}

// A process is one daemon.
type process struct {
	t                  *testing.T
	name, address, dir string
	cmd                *exec.Cmd
	// ended is closed when the process has ended; nil if it was never started.
	ended chan struct{}
}

// start runs the daemon and does not wait for it.
func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(binaries.Dir, "incusd"), "--verbose")
	cmd.Env = append(os.Environ(), "INCUS_DIR="+p.dir, "INCUS_SOCKET=")
	cmd.Stdout, cmd.Stderr = log, log
	// The daemons must not outlive a test that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.ended = cmd, make(chan struct{})
	ended := p.ended
	go func() {
		defer close(ended)
		cmd.Wait() // how it ended is of no interest: all are killed
	}()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Errorf("%s: %v", p.name, err)
	}
}

func (p *process) stop() { p.signal(syscall.SIGSTOP) }
func (p *process) goOn() { p.signal(syscall.SIGCONT) }

// kill ends the process at once, and waits for its end. More than one call is harmless.
func (p *process) kill() {
	if p.ended == nil {
		return
	}
	p.cmd.Process.Kill() // fails if it has ended, which is as well
	<-p.ended
}

// client is a client on the daemon's unix socket. It keeps no connections.
func (p *process) client() *client.Client {
	return client.Unix(filepath.Join(p.dir, "unix.socket"), client.Options{Timeout: 5 * time.Second})
}

// members are those that the process lists, if it is up to date.
func (p *process) members(ctx context.Context) ([]api.ClusterMember, error) {
	var stale bool
	opts := client.Options{Timeout: time.Second, OnStale: func(client.Stale) { stale = true }}
	c := client.Unix(filepath.Join(p.dir, "unix.socket"), opts)
	defer c.Close()
	members, err := c.Members(ctx, "")
	if err == nil && stale {
		err = fmt.Errorf("%s is not up to date", p.name)
	}
	return members, err
}

// form makes the server the first member, or lets it join by first.
func (p *process) form(ctx context.Context, first *process) error {
	c := p.client()
	defer c.Close()
	for { // until it answers
		if err := c.Ready(ctx); err == nil {
			break
		} else if ctx.Err() != nil {
			return err
		}
		<-time.After(5 * time.Millisecond)
	}
	put := api.ClusterPut{Cluster: api.Cluster{ServerName: p.name, Enabled: true}}
	if p == first {
		listen := api.ServerPut{Config: api.ConfigMap{"core.https_address": p.address}}
		if err := c.PatchServer(ctx, listen, ""); err != nil {
			return err
		}
	} else {
		token, err := first.client().CreateJoinToken(ctx, p.name)
		if err != nil {
			return err
		}
		put.ServerAddress, put.ClusterToken = p.address, token.String()
	}
	op, err := c.UpdateCluster(ctx, put, "")
	if err != nil {
		return err
	}
	_, err = c.Wait(ctx, op, nil)
	return err
}

func (p *process) logFile() string { return filepath.Join(p.dir, "incusd.log") }

func (p *process) logEnd() string {
	data, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	const end = 6 << 10
	return strings.TrimSpace(string(data[max(0, len(data)-end):]))
}

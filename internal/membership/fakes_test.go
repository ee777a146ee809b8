package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// A bed is the tables of one member and a model of Raft, of which that member is the
// leader. Its members are called node1, node2 and so on; it is node1.
type bed struct {
	t      *testing.T
	tables *state.Store
	tokens *tokens.Service
	pair   *trust.KeyPair // the cluster's

	mu       sync.Mutex
	index    uint64
	entries  []string // kinds of the commands applied
	leader   string
	fail     error // what proposals fail with
	servers  []state.Server
	steps    []string // changes of Raft's configuration
	meantime func()   // runs once, while the servers are read
	answers  map[string]time.Time
	lagging  map[string]bool
	answered chan struct{}
	logs     bytes.Buffer
}

// newBed returns a cluster of one, enabled.
func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{
		t: t, tables: state.New(), leader: "id-1", answered: make(chan struct{}, 1),
		answers: make(map[string]time.Time), lagging: make(map[string]bool),
	}
	b.tokens = tokens.New(b, time.Now, nil)
	b.pair = b.newPair()
	own := b.newPair()
	b.apply(state.KindClusterInit, state.ClusterInit{ClusterID: "cluster-1", Member: state.Member{
		ID: "id-1", Certificate: string(own.CertPEM), Fingerprint: own.Fingerprint(), Architecture: "x86_64", CommandVersion: state.CommandVersion,
	}})
	b.apply(state.KindClusterEnable, state.ClusterEnable{
		MemberID: "id-1", Name: "node1", Address: "10.1.0.1:8443", Certificate: string(b.pair.CertPEM), Key: string(b.pair.KeyPEM),
	})
	b.apply(state.KindLeaderElected, state.LeaderElected{ID: "id-1", Term: 1})
	b.setServer("id-1", true)
	b.entries = nil
	return b
}

func (b *bed) newPair() *trust.KeyPair {
	pair, err := trust.GenerateAt(time.Now().Add(-time.Hour), trust.Server)
	if err != nil {
		b.t.Fatal(err)
	}
	return pair
}

// apply proposes what must succeed.
func (b *bed) apply(kind string, body any) {
	b.t.Helper()
	cmd, err := state.NewCommand(kind, "", time.Now(), nil, body)
	if err == nil {
		_, err = b.Propose(b.t.Context(), cmd)
	}
	if err != nil {
		b.t.Fatalf("%s: %v", kind, err)
	}
}

// joiner issues a token for node<n> and claims it.
func (b *bed) joiner(n int) *trust.KeyPair {
	b.t.Helper()
	token, err := b.tokens.Issue(b.t.Context(), fmt.Sprintf("node%d", n), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	pair := b.newPair()
	if _, err := b.tokens.Claim(b.t.Context(), tokens.Text(token), pair.Cert, true, nil); err != nil {
		b.t.Fatal(err)
	}
	return pair
}

// admit makes node<n> a joining member, in Raft as a non-voter.
func (b *bed) admit(n int) {
	b.t.Helper()
	id := fmt.Sprintf("id-%d", n)
	b.apply(state.KindMemberAdmit, state.MemberAdmit{
		ID: id, Fingerprint: b.joiner(n).Fingerprint(), Name: fmt.Sprintf("node%d", n), Address: fmt.Sprintf("10.1.0.%d:8443", n),
		Architecture: "x86_64", CommandVersion: state.CommandVersion,
	})
	b.setServer(id, false)
}

// join makes node<n> a full member that answers.
func (b *bed) join(n int) {
	b.t.Helper()
	b.admit(n)
	b.answer(n)
	b.apply(state.KindMemberActivate, state.MemberActivate{ID: fmt.Sprintf("id-%d", n)})
}

// member returns node<n>.
func (b *bed) member(n int) *state.Member {
	m, ok := b.tables.View().Member(fmt.Sprintf("id-%d", n))
	if !ok {
		b.t.Fatalf("there is no member %d", n)
	}
	return m
}

// answer notes that node<n> answered just now.
func (b *bed) answer(n int) {
	b.mu.Lock()
	b.answers[fmt.Sprintf("id-%d", n)] = time.Now()
	b.mu.Unlock()
	select {
	case b.answered <- struct{}{}:
	default:
	}
}

// keepAnswering answers for members every 50 ms until the test ends or stop is called.
func (b *bed) keepAnswering(members ...int) (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for sleep(ctx, 50*time.Millisecond, nil) {
			b.mu.Lock()
			for _, n := range members {
				b.answers[fmt.Sprintf("id-%d", n)] = time.Now()
			}
			b.mu.Unlock()
		}
	})
	return func() { cancel(); wg.Wait() }
}

// lead runs the leader's loops until stop is called.
func (b *bed) lead() (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { NewLeader(b, b, Settings{}, nil, slog.New(slog.NewTextHandler(&b.logs, nil))).Run(ctx) })
	return func() { cancel(); wg.Wait() }
}

func (b *bed) setServer(id string, voter bool) {
	b.mu.Lock()
	b.servers = slices.DeleteFunc(slices.Clone(b.servers), func(s state.Server) bool { return s.ID == id })
	b.servers = append(b.servers, state.Server{ID: id, Voter: voter})
	servers := b.servers
	b.mu.Unlock()
	b.tables.SetServers(servers)
}

func (b *bed) removeServer(id string) {
	b.mu.Lock()
	b.servers = slices.DeleteFunc(slices.Clone(b.servers), func(s state.Server) bool { return s.ID == id })
	servers := b.servers
	b.mu.Unlock()
	b.tables.SetServers(servers)
}

// takeSteps returns the changes of Raft's configuration since it was last called, and
// takeEntries the kinds of the commands.
func (b *bed) takeSteps() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	steps := b.steps
	b.steps = nil
	return steps
}

func (b *bed) takeEntries() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	entries := b.entries
	b.entries = nil
	return entries
}

// ID implements Store.
func (b *bed) ID() string { return "id-1" }

func (b *bed) Departed(context.Context, *state.Member) bool { return true }

// Local implements LeaderStore.
func (b *bed) Local() *raftstore.View {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &raftstore.View{View: b.tables.View(), Leader: b.leader}
}

// Read implements Store.
func (b *bed) Read(ctx context.Context) (*raftstore.View, error) { return b.Local(), ctx.Err() }

func (b *bed) Basis(ctx context.Context) (*raftstore.View, error) { return b.Read(ctx) }

// Propose implements Store: it stamps and applies at once.
func (b *bed) Propose(_ context.Context, cmd state.Command) (state.Result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return state.Result{}, b.fail
	}
	cmd.Time = time.Now().UTC()
	entry, err := state.EncodeEntry([]state.Command{cmd})
	if err != nil {
		return state.Result{}, err
	}
	b.index++
	b.entries = append(b.entries, cmd.Kind)
	results, _, err := b.tables.Apply(b.index, 1, entry)
	switch {
	case err != nil:
		return state.Result{}, err
	case results[0].Err != nil:
		return results[0], results[0].Err
	}
	return results[0], nil
}

func (b *bed) setFailure(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
}

// Servers implements Raft, as do all methods from here on.
func (b *bed) Servers() []state.Server {
	b.mu.Lock()
	meantime := b.meantime
	b.meantime = nil
	b.mu.Unlock()
	if meantime != nil {
		meantime()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.servers)
}

func (b *bed) step(what, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.steps = append(b.steps, what+" "+id)
}

func (b *bed) AddNonvoter(_ context.Context, id string) error {
	b.step("add", id)
	b.setServer(id, false)
	return nil
}

func (b *bed) Promote(_ context.Context, id string) error {
	b.step("promote", id)
	b.setServer(id, true)
	return nil
}

func (b *bed) Demote(_ context.Context, id string) error {
	if id == b.ID() {
		return errors.New("a leader cannot take its own vote away")
	}
	b.step("demote", id)
	b.setServer(id, false)
	return nil
}

func (b *bed) Remove(_ context.Context, id string) error {
	b.step("remove", id)
	b.removeServer(id)
	return nil
}

// TransferLeadership blocks as Raft's does, until this member stops leading.
func (b *bed) TransferLeadership(ctx context.Context, to string) error {
	b.step("transfer", to)
	<-ctx.Done()
	return ctx.Err()
}

func (b *bed) LastAnswer(id string) (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, ok := b.answers[id]
	return time.Since(at), ok
}

func (b *bed) Answered() <-chan struct{} { return b.answered }

func (b *bed) CaughtUp(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.lagging[id]
}

func (b *bed) setLagging(n int, lagging bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lagging[fmt.Sprintf("id-%d", n)] = lagging
}

// prober answers for addresses as a network would.
type prober map[string]string

func (p prober) Probe(ctx context.Context, address string) (string, error) {
	switch fp := p[address]; fp {
	case "":
		return "", errors.New("connection refused")
	case "silent":
		<-ctx.Done()
		return "", ctx.Err()
	default:
		return fp, nil
	}
}

func newID() string { return uuid.NewString() }

func requireReason(t *testing.T, err error, want api.Reason) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, expected reason %s", err, want)
	}
}

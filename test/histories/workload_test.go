package histories

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"incusd/api"
	"incusd/client"
	"incusd/internal/trust"
)

const (
	// clients is how many act at the same time, and registers on how many keys.
	clients   = 5
	registers = 3
	// leastPatience is how long the first client waits for an answer; each further one
	// waits longer by as much. Some give up before a new leader is elected, so that
	// outcomes stay open, and some see it. The last clients wait until a member gives up:
	// what it then says must be true.
	leastPatience = 300 * time.Millisecond
	mostPatience  = 15 * time.Second
	patient       = 3
	// markPrefix is of the keys that each write sets besides its register, once: what is
	// set there in the end tells which writes were made.
	markPrefix = "user.mark."
)

// A target is one member, as clients reach it.
type target struct{ name, address string }

// A workload is what the clients do to a cluster.
type workload struct {
	t       *testing.T
	h       *history
	seed    uint64
	targets []target
	dial    client.DialFunc
	// pause is the longest that a client waits between two operations.
	pause time.Duration
	// cluster is the certificate that all members show; admin is one that all trust.
	cluster *x509.Certificate
	admin   *trust.KeyPair
	tokens  tokenPool
}

// newWorkload makes the cluster trust the workload's clients, by way of a client that it
// trusts already.
func newWorkload(ctx context.Context, t *testing.T, seed uint64, known *client.Client, targets []target, dial client.DialFunc) *workload {
	t.Helper()
	w := &workload{t: t, h: newHistory(), seed: seed, targets: targets, dial: dial, pause: 30 * time.Millisecond}
	w.tokens.names = map[string]int{}
	var err error
	if w.admin, err = trust.Generate(trust.Client); err != nil {
		t.Fatal(err)
	}
	post := api.CertificatesPost{Name: "histories", Type: api.CertificateClient, Certificate: string(w.admin.CertPEM)}
	if err := known.CreateCertificate(ctx, post); err != nil {
		t.Fatalf("trust the test's clients: %v", err)
	}
	server, _, err := known.Server(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if w.cluster, err = trust.ParseCertificate(server.Environment.Certificate); err != nil {
		t.Fatal(err)
	}
	w.requireTrust(ctx)
	return w
}

// requireTrust waits until each member's own replica knows the clients: one that is cut
// off before refuses them, since it can ask nobody.
func (w *workload) requireTrust(ctx context.Context) {
	w.t.Helper()
	k := w.newWorker(clients)
	defer k.close()
	for at, to := range k.admins {
		for {
			k.stale = false
			server, _, err := to.Server(ctx)
			if err == nil && !k.stale && server.Auth == "trusted" {
				break
			}
			if ctx.Err() != nil {
				w.t.Fatalf("%s does not let the clients in: %v", w.targets[at].name, err)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
}

// start lets the clients act. What it returns stops them and waits for them; more than
// one call is harmless.
func (w *workload) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for id := range clients {
		wg.Go(func() { w.newWorker(id).run(ctx) })
	}
	return func() { cancel(); wg.Wait() }
}

// A worker is one client. It does one thing at a time, each at a member that it chooses.
type worker struct {
	*workload
	id     int
	rng    *rand.Rand
	admins []*client.Client // one for each target
	// strangers show no certificate, as a server that redeems a token by itself.
	strangers []*client.Client
	at        int  // index of the target that is being asked
	stale     bool // the last answer was
	writes    int
}

func (w *workload) newWorker(id int) *worker {
	k := &worker{workload: w, id: id, rng: rand.New(rand.NewPCG(w.seed, uint64(id)))}
	patience := leastPatience * time.Duration(id+1)
	if id >= clients-patient {
		patience = mostPatience
	}
	opts := client.Options{Dial: w.dial, Timeout: patience, OnStale: func(client.Stale) { k.stale = true }}
	for _, to := range w.targets {
		k.admins = append(k.admins, client.HTTPS(to.address, client.Pin(w.cluster, &w.admin.TLS), opts))
		k.strangers = append(k.strangers, client.HTTPS(to.address, client.Pin(w.cluster, (*tls.Certificate)(nil)), opts))
	}
	return k
}

func (k *worker) run(ctx context.Context) {
	defer k.close()
	for ctx.Err() == nil {
		k.at = k.rng.IntN(len(k.targets))
		switch n := k.rng.IntN(10); {
		case n < 4:
			k.write(k.admins[k.at])
		case n < 7:
			k.read(k.admins[k.at])
		default:
			k.useTokens()
		}
		select {
		case <-time.After(time.Duration(k.rng.Int64N(int64(k.pause)))):
		case <-ctx.Done():
		}
	}
}

func (k *worker) close() {
	for _, c := range append(k.admins, k.strangers...) {
		c.Close()
	}
}

func registerKey(n int) string { return fmt.Sprintf("user.r%d", n) }

// write writes a value that nobody else writes to one register, and marks it.
func (k *worker) write(to *client.Client) {
	k.writes++
	value := fmt.Sprintf("%d-%d", k.id, k.writes)
	key := registerKey(k.rng.IntN(registers))
	patch := api.ServerPut{Config: api.ConfigMap{key: value, markPrefix + value: "1"}}
	call := k.h.now()
	err := to.PatchServer(context.Background(), patch, "")
	got, happened := k.answer(err)
	if happened {
		k.h.key(key, k.id, call, write{value}, got)
	}
	k.h.fate(value, got)
}

// read reads all registers at once.
func (k *worker) read(to *client.Client) {
	call := k.h.now()
	k.stale = false
	server, _, err := to.Server(context.Background())
	if _, happened := k.answer(err); err != nil || k.stale || !happened {
		return
	}
	if server.Auth != "trusted" {
		k.t.Errorf("client %d is shown the strangers' face by %s", k.id, k.targets[k.at].name)
		return
	}
	for n := range registers {
		k.h.key(registerKey(n), k.id, call, read{}, server.Config[registerKey(n)])
	}
}

// nothing are the refusals that say: not now; nothing was changed.
var nothing = []api.Reason{api.NoQuorum, api.ShuttingDown, api.Unavailable, api.TooMany}

// unsure are those after which the outcome is open.
var unsure = []api.Reason{api.OutcomeUnknown, api.Timeout}

// answer tells what an error means, given the refusals that an operation may meet by its
// own nature. The operation is no part of the history if it certainly did not happen.
func (k *worker) answer(err error, own ...api.Reason) (a answer, happened bool) {
	if err == nil {
		return granted, true
	}
	var refusal *api.Error
	if !errors.As(err, &refusal) {
		k.t.Errorf("client %d, by %s: %v", k.id, k.targets[k.at].name, err)
		return open, true
	}
	switch {
	case slices.Contains(nothing, refusal.Reason):
		return refused(refusal.Reason), false
	case slices.Contains(unsure, refusal.Reason):
		return open, true
	case slices.Contains(own, refusal.Reason):
		return refused(refusal.Reason), true
	}
	k.t.Errorf("client %d was refused by %s for a reason that nothing here gives: %q (%v)", k.id, k.targets[k.at].name, string(refusal.Reason), err)
	return open, true
}

// A knownToken is a token whose text a client holds, and two keys that compete for it.
type knownToken struct {
	name string
	*client.JoinToken
	keys [2]*trust.KeyPair
}

// tokenPool is what the clients know of tokens. A name is given up after some operations:
// those of one name are judged together, which open ones make costly.
type tokenPool struct {
	mu    sync.Mutex
	used  int // of names
	names map[string]int
	known []*knownToken // the newest last
}

const (
	namesInUse        = 2
	operationsPerName = 30
	tokensKept        = 4
)

// pick chooses a name, and a token for it if one is known.
func (p *tokenPool) pick(rng *rand.Rand) (name string, token *knownToken) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.names) < namesInUse {
		p.used++
		p.names[fmt.Sprintf("joiner%d", p.used)] = operationsPerName
	}
	inUse := slices.Sorted(maps.Keys(p.names))
	name = inUse[rng.IntN(len(inUse))]
	if p.names[name]--; p.names[name] == 0 {
		delete(p.names, name)
	}
	var of []*knownToken
	for _, t := range p.known {
		if t.name == name {
			of = append(of, t)
		}
	}
	if len(of) > 0 {
		token = of[max(len(of)-1-rng.IntN(tokensKept), 0)]
	}
	return name, token
}

// add makes a new token known. All tokens for one name share their keys.
func (p *tokenPool) add(t *knownToken) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.known {
		if other.name == t.name {
			t.keys = other.keys
		}
	}
	for i := range t.keys {
		if t.keys[i] == nil {
			var err error
			if t.keys[i], err = trust.Generate(trust.Server); err != nil {
				return err
			}
		}
	}
	p.known = append(p.known, t)
	return nil
}

func (k *worker) useTokens() {
	name, token := k.tokens.pick(k.rng)
	n := k.rng.IntN(20)
	switch {
	case token == nil || n < 3:
		k.issue(k.admins[k.at], name)
	case n < 5:
		k.revoke(k.admins[k.at], token)
	default:
		k.claim(k.strangers[k.at], token, k.rng.IntN(2))
	}
}

func (k *worker) issue(to *client.Client, name string) {
	call := k.h.now()
	token, err := to.CreateJoinToken(context.Background(), name)
	got, happened := k.answer(err)
	switch {
	case !happened:
	case err != nil: // it may be there, with a text that nobody knows
		k.h.name(name, k.id, call, issue{fmt.Sprintf("lost %d", call)}, got)
	default:
		k.h.name(name, k.id, call, issue{token.Operation}, got)
		if err := k.tokens.add(&knownToken{name: name, JoinToken: token}); err != nil {
			k.t.Error(err)
		}
	}
}

func (k *worker) claim(to *client.Client, token *knownToken, key int) {
	call := k.h.now()
	err := to.CreateCertificate(context.Background(), api.CertificatesPost{
		Type: api.CertificateServer, Certificate: string(token.keys[key].CertPEM), TrustToken: token.String(),
	})
	if got, happened := k.answer(err, api.TokenClaimed, api.TokenRevoked); happened {
		k.h.name(token.name, k.id, call, claim{token.Operation, string('A' + rune(key))}, got)
	}
}

func (k *worker) revoke(to *client.Client, token *knownToken) {
	call := k.h.now()
	err := to.CancelOperation(context.Background(), token.Operation)
	got, happened := k.answer(err, api.BadRequest, api.NotFound)
	if got == refused(api.BadRequest) || got == refused(api.NotFound) {
		got = notRunning
	}
	if happened {
		k.h.name(token.name, k.id, call, revoke{token.Operation}, got)
	}
}

// last reads all registers, and tries all tokens with a key, once at every member. It
// returns the marks that each shows. The cluster must be whole.
func (w *workload) last() []map[string]bool {
	k := w.newWorker(clients)
	defer k.close()
	marks := make([]map[string]bool, len(w.targets))
	for at, to := range k.admins {
		k.at = at
		k.read(to)
		for _, token := range w.tokens.known {
			k.claim(k.strangers[at], token, at%2)
		}
		k.stale = false
		server, _, err := to.Server(context.Background())
		if err != nil || k.stale {
			w.t.Fatalf("%s does not answer in the end: %v, stale: %v", w.targets[at].name, err, k.stale)
		}
		marks[at] = map[string]bool{}
		for key := range server.Config {
			if value, ok := strings.CutPrefix(key, markPrefix); ok {
				marks[at][value] = true
			}
		}
	}
	return marks
}

// requireMarks checks that every member has all writes that were acknowledged, and none
// that was refused.
func (w *workload) requireMarks(marks []map[string]bool) {
	w.t.Helper()
	for at, marked := range marks {
		for value, a := range w.h.fates {
			if a != open && marked[value] != (a == granted) {
				w.t.Errorf("%s, in the end: write %s was answered %q; made: %v", w.targets[at].name, value, a, marked[value])
			}
		}
	}
}

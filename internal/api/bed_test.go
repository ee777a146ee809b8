package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/events"
	"incusd/internal/membership"
	"incusd/internal/operations"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// A fakeStore is one member's replica of a store that is in one process: what is
// proposed is applied.
type fakeStore struct {
	*fakeLog
	id string
}

func (f *fakeStore) ID() string { return f.id }

func (f *fakeStore) Departed(context.Context, *state.Member) bool { return true }

// A fakeLog is what the members of a cluster share.
type fakeLog struct {
	mu     sync.Mutex
	tables *state.Store
	index  uint64
	leader string
	// down makes reads and proposals fail for want of a quorum.
	down bool
	// behind, if set, is what Local shows.
	behind *raftstore.View
	// looked, if set, is called before Local looks.
	looked func()
	reads  int
}

func (f *fakeLog) view() *raftstore.View {
	return &raftstore.View{View: f.tables.View(), Leader: f.leader}
}

func (f *fakeLog) Local() *raftstore.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	if looked := f.looked; looked != nil {
		f.mu.Unlock()
		looked()
		f.mu.Lock()
	}
	if f.behind != nil {
		return f.behind
	}
	return f.view()
}

func (f *fakeLog) Read(context.Context) (*raftstore.View, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	if f.down {
		return nil, api.Errorf(api.NoQuorum, "No quorum: no leader answers")
	}
	return f.view(), nil
}

func (f *fakeLog) Basis(ctx context.Context) (*raftstore.View, error) { return f.Read(ctx) }

func (f *fakeLog) ReadOrStale(ctx context.Context) (*raftstore.View, error) {
	view, err := f.Read(ctx)
	if err != nil {
		view = f.Local()
		view.Stale = &raftstore.Stale{Reason: api.NoQuorum, Index: view.Index(), Since: time.Unix(1800000000, 0)}
	}
	return view, nil
}

func (f *fakeLog) Propose(_ context.Context, cmd state.Command) (state.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return state.Result{}, api.Errorf(api.NoQuorum, "No quorum: no leader answers")
	}
	entry, err := state.EncodeEntry([]state.Command{cmd})
	if err != nil {
		return state.Result{}, err
	}
	f.index++
	results, _, err := f.tables.Apply(f.index, 1, entry)
	if err != nil {
		return state.Result{}, err
	}
	if results[0].Err != nil {
		return results[0], results[0].Err
	}
	return results[0], nil
}

// fakeSettings keeps the cluster's keys and the server's own in one map.
type fakeSettings struct {
	mu     sync.Mutex
	values map[string]string
	judged int // changes that depend on the value before
}

func (f *fakeSettings) Effective(*raftstore.View) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.values)
}

func (f *fakeSettings) Update(_ context.Context, set map[string]string, replace bool, match func(map[string]string) error, _ *api.EventRequestor) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if match != nil {
		f.judged++
		if err := match(f.values); err != nil {
			return err
		}
	}
	if value, ok := set["nokey"]; ok {
		return api.Errorf(api.ConfigInvalid, "cannot set 'nokey' to '%s': unknown key", value)
	}
	if replace {
		f.values = make(map[string]string)
	}
	maps.Copy(f.values, set)
	maps.DeleteFunc(f.values, func(_, v string) bool { return v == "" })
	return nil
}

// fakeTrust is the trust store's writing side.
type fakeTrust struct{ bed *bed }

func (f fakeTrust) AddCertificate(_ context.Context, cert state.Certificate, _ *api.EventRequestor) error {
	return f.bed.propose(state.KindCertificateAdd, state.CertificateAdd{Certificate: cert})
}

func (f fakeTrust) UpdateCertificate(_ context.Context, fingerprint string, cert state.Certificate, expect string, _ *api.EventRequestor) error {
	return f.bed.propose(state.KindCertificateUpdate, state.CertificateUpdate{Fingerprint: fingerprint, Certificate: cert, Expect: expect})
}

func (f fakeTrust) RemoveCertificate(_ context.Context, fingerprint string, _ *api.EventRequestor) error {
	return f.bed.propose(state.KindCertificateRemove, state.CertificateRemove{Fingerprint: fingerprint})
}

// fakeDaemon has started and is ready unless a test says otherwise.
type fakeDaemon struct {
	started, ready chan struct{}
	mu             sync.Mutex
	stopping       bool
	shutdowns      []bool
	moves          []string
}

func newFakeDaemon() *fakeDaemon {
	d := &fakeDaemon{started: make(chan struct{}), ready: make(chan struct{})}
	close(d.started)
	close(d.ready)
	return d
}

func (d *fakeDaemon) Started() <-chan struct{} { return d.started }
func (d *fakeDaemon) Ready() <-chan struct{}   { return d.ready }

func (d *fakeDaemon) Stopping() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopping
}

func (d *fakeDaemon) SetAddress(_ context.Context, address string, unseen bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.moves = append(d.moves, fmt.Sprintf("%s %t", address, unseen))
	return nil
}

func (*fakeDaemon) UpdateCertificate(context.Context, string, string) error { return nil }

func (d *fakeDaemon) Shutdown(_ context.Context, force bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping {
		return api.Errorf(api.TooMany, "Shutdown already in progress")
	}
	d.stopping = true
	d.shutdowns = append(d.shutdowns, force)
	return nil
}

// fakeLeadership moves at once, and refuses members that are offline.
type fakeLeadership struct{ bed *bed }

func (f fakeLeadership) MoveLeadership(_ context.Context, to string) (string, error) {
	log := f.bed.store.fakeLog
	log.mu.Lock()
	defer log.mu.Unlock()
	for _, m := range log.tables.View().Members() {
		if to == "" && m.ID != log.leader {
			to = m.ID
		}
		if m.ID == to && m.Offline {
			return "", api.Errorf(api.MemberOffline, "Cluster member %q is offline", m.Name)
		}
	}
	log.leader = to
	return to, nil
}

// openAddresses answers every address with the certificate that a test says is there.
type openAddresses struct{ fingerprint string }

func (o *openAddresses) Probe(context.Context, string) (string, error) { return o.fingerprint, nil }

// A bed is one server with all that it works with.
type bed struct {
	recovery fakeRecovery
	t        testing.TB
	store    *fakeStore
	settings *fakeSettings
	daemon   *fakeDaemon
	server   *Server
	handlers map[ListenerKind]http.Handler
	clock    time.Time
	own      *trust.KeyPair // of this server
	pair     *trust.KeyPair // of the cluster
	peers    map[string]http.RoundTripper
	probed   *openAddresses
	ctx      context.Context
}

// newBed returns a standalone server.
func newBed(t testing.TB) *bed {
	t.Helper()
	b := bedOn(t, &fakeStore{fakeLog: &fakeLog{tables: state.New()}, id: uuid.NewString()})
	b.store.leader = b.store.id
	b.mustPropose(state.KindClusterInit, state.ClusterInit{ClusterID: uuid.NewString(), Member: state.Member{
		ID: b.store.id, Number: 1, Name: "none", Certificate: string(b.own.CertPEM), Fingerprint: b.own.Fingerprint(), Architecture: "x86_64",
		CommandVersion: state.CommandVersion, State: state.MemberActive, Role: state.RoleVoter, FailureDomain: "default", Groups: []string{"default"},
	}})
	b.setServers()
	return b
}

// bedOn returns a server with a store.
func bedOn(t testing.TB, store *fakeStore) *bed {
	t.Helper()
	b := &bed{
		t: t, store: store, settings: &fakeSettings{values: make(map[string]string)}, daemon: newFakeDaemon(),
		clock: time.Now().Add(time.Minute), peers: make(map[string]http.RoundTripper), probed: &openAddresses{}, ctx: t.Context(),
	}
	b.own = newPair(t, trust.Server)
	hub := events.New()
	location := func() string { m, _ := b.store.Local().Member(b.store.id); return m.Name }
	ops := operations.New(location, func(op api.Operation) { hub.Publish(operationEvent(op)) }, b.now)
	tokens := tokens.New(b.store, b.now, slog.New(slog.DiscardHandler))
	service := membership.NewAdmissions(b.store, b.probed, tokens, fakeInventory{}, membership.Settings{HandoverTimeout: 20 * time.Millisecond}, b.now, slog.New(slog.DiscardHandler))
	b.server = New(Config{
		Store: b.store, Tokens: tokens, Admission: service, Members: service,
		Entities: withEntities(t, b), StorageDrivers: fakeDrivers{}.Supported,
		Resources: func() (*api.Resources, error) { return &api.Resources{CPU: api.ResourcesCPU{Total: 2}}, nil },
		Bootstrap: func(_ context.Context, name string, _ *api.EventRequestor, progress func(string)) error {
			progress("Creating the cluster's certificate")
			return b.enable(name)
		},
		Join:       func(context.Context, api.ClusterPut, func(string)) error { return nil },
		Reset:      func(context.Context, bool) error { return nil },
		Leadership: fakeLeadership{b},
		Health:     &fakeHealth{bed: b},
		Settings:   b.settings, TrustStore: fakeTrust{b}, Daemon: b.daemon, Recovery: &b.recovery, Operations: ops, Events: hub,
		Facts: Facts{
			Hostname: "host1", Architectures: []string{"x86_64", "i686"}, Kernel: "Linux", KernelArchitecture: "x86_64",
		},
		Certificate: func() (string, string) {
			if b.pair != nil {
				return string(b.pair.CertPEM), b.pair.Fingerprint()
			}
			return string(b.own.CertPEM), b.own.Fingerprint()
		},
		Peer: func(m *state.Member) http.RoundTripper {
			if peer, ok := b.peers[m.Name]; ok {
				return peer
			}
			return deadPeer{}
		},
		Now: b.now, Log: slog.New(slog.DiscardHandler),
	})
	b.handlers = map[ListenerKind]http.Handler{
		TLSListener: b.server.Handler(TLSListener), UnixListener: b.server.Handler(UnixListener),
	}
	t.Cleanup(b.server.Close)
	return b
}

func operationEvent(op api.Operation) api.Event {
	metadata, err := json.Marshal(op)
	if err != nil {
		panic(err)
	}
	return api.Event{Type: api.EventOperation, Timestamp: op.UpdatedAt, Metadata: metadata, Location: op.Location}
}

// newCluster returns the first of the members with these names.
func newCluster(t testing.TB, names ...string) *bed {
	t.Helper()
	b := newBed(t)
	b.settings.values["core.https_address"] = "10.0.0.1:8443"
	b.settings.values["cluster.https_address"] = "10.0.0.1:8443"
	if err := b.enable(names[0]); err != nil {
		t.Fatal(err)
	}
	for i, name := range names[1:] {
		b.addMember(name, fmt.Sprintf("10.0.0.%d:8443", i+2))
	}
	return b
}

func (b *bed) now() time.Time { return b.clock }

func (b *bed) propose(kind string, body any) error {
	cmd, err := state.NewCommand(kind, uuid.NewString(), b.clock.UTC(), nil, body)
	if err != nil {
		return err
	}
	_, err = b.store.Propose(context.Background(), cmd)
	return err
}

func (b *bed) mustPropose(kind string, body any) {
	b.t.Helper()
	if err := b.propose(kind, body); err != nil {
		b.t.Fatalf("%s: %v", kind, err)
	}
}

// enable makes the standalone server the first member.
func (b *bed) enable(name string) error {
	pair := newPair(b.t, trust.Server)
	err := b.propose(state.KindClusterEnable, state.ClusterEnable{
		MemberID: b.store.id, Name: name, Address: "10.0.0.1:8443", Certificate: string(pair.CertPEM), Key: string(pair.KeyPEM),
	})
	if err == nil {
		b.pair = pair
	}
	return err
}

// addMember takes a new member through a whole join.
func (b *bed) addMember(name, address string) *state.Member {
	b.t.Helper()
	id := b.admit(name, address).ID
	b.mustPropose(state.KindMemberActivate, state.MemberActivate{ID: id})
	b.setServers()
	m, _ := b.store.Local().Member(id)
	return m
}

// admit takes a server through a join up to its admission.
func (b *bed) admit(name, address string) *state.Member {
	b.t.Helper()
	pair := newPair(b.t, trust.Server)
	b.claim(name, pair.Cert)
	id := uuid.NewString()
	b.mustPropose(state.KindMemberAdmit, state.MemberAdmit{
		ID: id, Fingerprint: pair.Fingerprint(), Name: name, Address: address, Architecture: "x86_64", CommandVersion: state.CommandVersion,
	})
	m, ok := b.store.Local().Member(id)
	if !ok {
		b.t.Fatalf("%s was not admitted", name)
	}
	return m
}

// issue makes a join token for name.
func (b *bed) issue(name string) *state.Token {
	b.t.Helper()
	t, err := b.server.cfg.Tokens.Issue(context.Background(), name, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return t
}

// claim redeems a new token for a server's certificate.
func (b *bed) claim(name string, cert *x509.Certificate) {
	b.t.Helper()
	if _, err := b.server.cfg.Tokens.Claim(context.Background(), tokens.Text(b.issue(name)), cert, true, nil); err != nil {
		b.t.Fatal(err)
	}
}

// setServers makes all members voters of Raft.
func (b *bed) setServers() {
	var servers []state.Server
	for _, m := range b.store.tables.View().Members() {
		servers = append(servers, state.Server{ID: m.ID, Voter: true})
	}
	b.store.tables.SetServers(servers)
}

// member finds a member's row.
func (b *bed) member(name string) *state.Member {
	b.t.Helper()
	m, ok := b.store.Local().MemberByName(name)
	if !ok {
		b.t.Fatalf("no member %s", name)
	}
	return m
}

// trustClient adds a client's certificate and returns it.
func (b *bed) trustClient(restricted bool, projects ...string) *x509.Certificate {
	b.t.Helper()
	pair := newPair(b.t, trust.Client)
	b.mustPropose(state.KindCertificateAdd, state.CertificateAdd{Certificate: state.Certificate{
		Fingerprint: pair.Fingerprint(), Name: "laptop", Type: api.CertificateClient, Restricted: restricted, Projects: projects,
		PEM: string(pair.CertPEM), AddedAt: b.clock.UTC(),
	}})
	return pair.Cert
}

// newPair makes a key pair.
func newPair(t testing.TB, usage trust.Usage) *trust.KeyPair {
	t.Helper()
	pair, err := trust.Generate(usage, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// A request is what a test sends; the zero value of all but method and path is fine.
type request struct {
	method, path string
	body         any // a string as it is, anything else as JSON
	// cert makes it come over TLS with that certificate, stranger without one; else it
	// comes by the unix socket.
	cert     *x509.Certificate
	stranger bool
	header   map[string]string
	from     string // the remote address
}

// do sends a request and returns the answer.
func (b *bed) do(req request) *httptest.ResponseRecorder {
	b.t.Helper()
	var body io.Reader
	switch content := req.body.(type) {
	case nil:
	case string:
		body = strings.NewReader(content)
	default:
		data, err := json.Marshal(content)
		if err != nil {
			b.t.Fatal(err)
		}
		body = bytes.NewReader(data)
	}
	r := httptest.NewRequestWithContext(b.ctx, req.method, "http://unix.socket"+req.path, body)
	for key, value := range req.header {
		r.Header.Set(key, value)
	}
	if req.from != "" {
		r.RemoteAddr = req.from
	}
	listener := UnixListener
	if req.cert != nil || req.stranger {
		listener = TLSListener
		r.TLS = &tls.ConnectionState{}
		if req.cert != nil {
			r.TLS.PeerCertificates = []*x509.Certificate{req.cert}
		}
	}
	w := httptest.NewRecorder()
	b.handlers[listener].ServeHTTP(w, r)
	return w
}

// get sends a GET by the unix socket and decodes what it is answered.
func get[T any](b *bed, path string) T {
	b.t.Helper()
	return metadata[T](b.t, b.do(request{method: "GET", path: path}), http.StatusOK)
}

// metadata checks the status of an answer and decodes its metadata.
func metadata[T any](t testing.TB, w *httptest.ResponseRecorder, status int) T {
	t.Helper()
	var value T
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if err := json.Unmarshal(envelope(t, w).Metadata, &value); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return value
}

func envelope(t testing.TB, w *httptest.ResponseRecorder) api.Response {
	t.Helper()
	var e api.Response
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
		t.Fatalf("no envelope: %v: %s", err, w.Body)
	}
	return e
}

// wantRefusal checks that an answer is a refusal for a reason.
func wantRefusal(t testing.TB, w *httptest.ResponseRecorder, status int, reason api.Reason, text string) {
	t.Helper()
	e := envelope(t, w)
	var details api.ErrorMetadata
	_ = json.Unmarshal(e.Metadata, &details)
	if w.Code != status || e.Code != status || e.Type != api.ErrorResponse || details.Reason != reason || !strings.Contains(e.Error, text) {
		t.Errorf("got %d %s %q, want %d %s %q", w.Code, details.Reason, e.Error, status, reason, text)
	}
	if details.Hint == "" {
		t.Error("a refusal without a next step")
	}
}

// A deadPeer is a member that does not answer.
type deadPeer struct{}

func (deadPeer) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("connection refused")
}

// A livePeer is another member's server, as this one reaches it.
type livePeer struct {
	handler http.Handler
	cert    *x509.Certificate // that this server shows
}

func (p livePeer) RoundTrip(r *http.Request) (*http.Response, error) {
	in := httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.RequestURI(), r.Body)
	in.Header = r.Header.Clone()
	in.Host = r.URL.Host
	in.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{p.cert}}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, in)
	return w.Result(), nil
}

// secondServer is the server of another member of b's cluster, which b can reach.
func (b *bed) secondServer(name string) *bed {
	b.t.Helper()
	other := bedOn(b.t, &fakeStore{fakeLog: b.store.fakeLog, id: b.member(name).ID})
	other.pair = b.pair
	b.peers[name] = livePeer{other.handlers[TLSListener], b.own.Cert}
	return other
}

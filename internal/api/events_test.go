package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"incusd/api"
	"incusd/internal/operations"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// listen opens the events of b as a caller by one kind of listener sees them.
func (b *bed) listen(listener ListenerKind, query string, header http.Header) (*websocket.Conn, *http.Response, error) {
	b.t.Helper()
	handler := b.handlers[listener]
	cert := b.certs(header.Get("Test-Certificate"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if listener == TLSListener {
			r.TLS = &tls.ConnectionState{PeerCertificates: cert}
		}
		handler.ServeHTTP(w, r)
	}))
	b.t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	b.t.Cleanup(cancel)
	conn, resp, err := websocket.Dial(ctx, strings.Replace(server.URL, "http", "ws", 1)+"/1.0/events"+query, &websocket.DialOptions{HTTPHeader: header})
	if err == nil {
		b.t.Cleanup(func() { _ = conn.CloseNow() })
	}
	return conn, resp, err
}

// certs finds the certificate that a test names by its fingerprint.
func (b *bed) certs(fingerprint string) []*x509.Certificate {
	if cert, ok := b.store.Local().Certificate(fingerprint); ok {
		block, err := trust.ParseCertificate(cert.PEM)
		if err != nil {
			b.t.Fatal(err)
		}
		return []*x509.Certificate{block}
	}
	return nil
}

// next reads one event.
func next(t *testing.T, conn *websocket.Conn) api.Event {
	t.Helper()
	var e api.Event
	_, data, err := conn.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func tokenEvent(b *bed) (api.Event, string) {
	token := b.issue("node2")
	return operationEvent(tokens.Operation(token, "node1", true)), token.Secret
}

func TestWhoIsConnectedMissesNoEvent(t *testing.T) {
	b := newCluster(t, "node1")
	conn, _, err := b.listen(UnixListener, "?type=operation,lifecycle", nil)
	if err != nil {
		t.Fatal(err)
	}
	b.server.cfg.Events.Publish(api.Event{Type: api.EventLogging, Metadata: json.RawMessage("{}")})
	secretEvent, secret := tokenEvent(b)
	b.server.cfg.Events.Publish(secretEvent)
	b.server.cfg.Events.Publish(api.Event{Type: api.EventLifecycle, Metadata: json.RawMessage(`{"action":"cluster-enabled"}`)})
	if e := next(t, conn); e.Type != api.EventOperation || !strings.Contains(string(e.Metadata), secret) {
		t.Errorf("got %s %s", e.Type, e.Metadata)
	}
	if e := next(t, conn); e.Type != api.EventLifecycle {
		t.Errorf("got %s", e.Type)
	}
}

// lifecycle is an event as the daemon publishes it: what is of no project is in the default one.
func lifecycle(project, source string) api.Event {
	data, _ := json.Marshal(api.EventLifecycleInfo{Action: "changed", Source: source})
	return api.Event{Type: api.EventLifecycle, Project: project, Metadata: data}
}

func TestRestrictedClientHearsOfItsProjectsOnly(t *testing.T) {
	b := newCluster(t, "node1")
	for _, name := range []string{"web", "shop"} {
		b.mustPropose(state.KindProjectCreate, state.ProjectCreate{Project: state.Project{Name: name}})
	}
	secretEvent, _ := tokenEvent(b)
	secretEvent.Project = "default"
	task := operationEvent(api.Operation{ID: "x", Class: api.OperationClassTask})
	all := []api.Event{
		{Type: api.EventLogging, Metadata: json.RawMessage("{}")}, secretEvent, task,
		lifecycle("default", "/1.0/certificates/ab"), lifecycle("default", "/1.0"), lifecycle("default", "/1.0/cluster/members"),
		lifecycle("default", "/1.0/storage-pools/volumes"), lifecycle("default", "/1.0/operations/x"), lifecycle("", "/1.0/profiles/nobodys"),
		{Type: api.EventLifecycle, Project: "web", Metadata: json.RawMessage("[]")},
		lifecycle("shop", "/1.0/profiles/p?project=shop"), lifecycle("shop", "/1.0/projects/shop"),
		lifecycle("default", "/1.0/networks/br0"), lifecycle("web", "/1.0/profiles/p?project=web"),
		lifecycle("web", "/1.0/storage-pools/local/volumes/custom/v?project=web"), lifecycle("web", "/1.0/projects/web"),
	}
	for query, want := range map[string]string{
		"":             "/1.0/networks/br0",
		"?project=web": "/1.0/profiles/p?project=web /1.0/storage-pools/local/volumes/custom/v?project=web /1.0/projects/web",
	} {
		fingerprint := trust.Fingerprint(b.trustClient(true, "default", "web"))
		conn, _, err := b.listen(TLSListener, query, http.Header{"Test-Certificate": {fingerprint}})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			b.server.cfg.Events.Publish(e)
		}
		for _, source := range strings.Fields(want) {
			if e := next(t, conn); !strings.Contains(string(e.Metadata), `"source":"`+source+`"`) {
				t.Errorf("%q: got %s, want that of %s", query, e.Metadata, source)
			}
		}
		b.mustPropose(state.KindCertificateRemove, state.CertificateRemove{Fingerprint: fingerprint})
		if _, data, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("%q: got %s, %v", query, data, err)
		}
	}
}

// What waits in the queue of a listener when its certificate is removed is not told any more.
func TestNothingIsToldAfterTheRemoval(t *testing.T) {
	b := newCluster(t, "node1")
	cert := b.trustClient(false)
	conn, _, err := b.listen(TLSListener, "", http.Header{"Test-Certificate": {trust.Fingerprint(cert)}})
	if err != nil {
		t.Fatal(err)
	}
	b.server.cfg.Events.Publish(lifecycle("default", "/1.0"))
	next(t, conn)
	// Whoever looks at rights from here on finds none, and there is an event that it may have before.
	remove := sync.OnceFunc(func() {
		b.mustPropose(state.KindCertificateRemove, state.CertificateRemove{Fingerprint: trust.Fingerprint(cert)})
	})
	b.store.mu.Lock()
	b.store.looked = remove
	b.store.mu.Unlock()
	b.server.cfg.Events.Publish(lifecycle("default", "/1.0/late"))
	if _, data, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("got %s, %v", data, err)
	}
}

func TestEventsAreRefusedBeforeTheUpgrade(t *testing.T) {
	b := newCluster(t, "node1")
	restricted := http.Header{"Test-Certificate": {trust.Fingerprint(b.trustClient(true, "default"))}}
	tests := map[string]struct {
		listener ListenerKind
		query    string
		header   http.Header
		status   int
	}{
		"stranger":                {TLSListener, "", nil, 403},
		"unknown type":            {UnixListener, "?type=weather", nil, 400},
		"logs for restricted":     {TLSListener, "?type=logging", restricted, 403},
		"project of nobody":       {UnixListener, "?project=web", nil, 404},
		"project of others":       {TLSListener, "?project=web", restricted, 403},
		"project and all of them": {UnixListener, "?project=web&all-projects=true", nil, 400},
		"page of another origin":  {UnixListener, "", http.Header{"Origin": {"https://evil.example.org"}}, 403},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, resp, err := b.listen(test.listener, test.query, test.header)
			if err == nil || resp == nil || resp.StatusCode != test.status {
				t.Errorf("got %v, %v", resp, err)
			}
		})
	}
	b.settings.values["core.https_allowed_websocket_origin"] = "https://ui.example.org, other.example.org"
	if _, _, err := b.listen(UnixListener, "", http.Header{"Origin": {"https://ui.example.org"}}); err != nil {
		t.Errorf("allowed origin: %v", err)
	}
}

// Whoever asks in the wrong way is told so in an envelope, over HTTP/2 too, where the
// header Upgrade must not be answered.
func TestEventsWithoutAnUpgradeAreRefused(t *testing.T) {
	b := newCluster(t, "node1")
	for _, http2 := range []bool{false, true} {
		server := b.serve(UnixListener, http2)
		resp, err := server.Client().Get(server.URL + "/1.0/events")
		if err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, recorded(t, resp), 400, api.BadRequest, "the request must be an upgrade")
	}
	upgrade := map[string]string{
		"Connection": "keep-alive, upgrade", "Upgrade": "WebSocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
	}
	for header, wrong := range map[string]string{"Connection": "close", "Upgrade": "h2c", "Sec-WebSocket-Version": "8", "Sec-WebSocket-Key": "AAAA"} {
		broken := maps.Clone(upgrade)
		broken[header] = wrong
		wantRefusal(t, b.do(request{method: "GET", path: "/1.0/events", header: broken}), 400, api.BadRequest, "the request must be an upgrade")
	}
	wantRefusal(t, b.do(request{method: "HEAD", path: "/1.0/events", header: upgrade}), 400, api.BadRequest, "the request must be an upgrade")
	upgrade["Origin"] = "https://evil.example.org"
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/events", header: upgrade}), 403, api.NotAuthorized, `Pages of origin "https://evil.example.org"`)
}

func TestOriginsThatMayListen(t *testing.T) {
	b := newCluster(t, "node1")
	b.settings.values["core.https_allowed_websocket_origin"] = "https://ui.example.org, *.example.com [a"
	for origin, want := range map[string]bool{
		"https://10.0.0.1:8443": true, "https://ui.example.org": true, "https://UI.example.org": true, "http://ui.example.org": false,
		"https://a.example.com": true, "https://example.com": false, "null": false, "%": false,
	} {
		if got := b.server.allowsListener(origin, "10.0.0.1:8443"); got != want {
			t.Errorf("%s: %t", origin, got)
		}
	}
}

// lastOf reads the events of an operation until it has ended, and returns it as it is
// then.
func lastOf(t *testing.T, conn *websocket.Conn, id string) (op api.Operation) {
	t.Helper()
	for !op.StatusCode.IsFinal() {
		e := next(t, conn)
		if err := json.Unmarshal(e.Metadata, &op); e.Type != api.EventOperation || err != nil || op.ID != id {
			t.Fatalf("got %s %s, %v", e.Type, e.Metadata, err)
		}
	}
	return op
}

// A swappingStore is the replica in use, which a join replaces.
type swappingStore struct{ atomic.Pointer[fakeStore] }

func (s *swappingStore) ID() string             { return s.Load().ID() }
func (s *swappingStore) Local() *raftstore.View { return s.Load().Local() }
func (s *swappingStore) Read(ctx context.Context) (*raftstore.View, error) {
	return s.Load().Read(ctx)
}
func (s *swappingStore) ReadOrStale(ctx context.Context) (*raftstore.View, error) {
	return s.Load().ReadOrStale(ctx)
}

// A join gives the server another replica and another name while its operation runs;
// who listens hears of the end nevertheless.
func TestEndOfAJoinIsHeard(t *testing.T) {
	cluster, joiner := newCluster(t, "node1"), newBed(t)
	row := cluster.addMember("node2", "10.0.0.2:8443")
	store := new(swappingStore)
	store.Store(joiner.store)
	location := func() string { m, _ := store.Local().Member(store.ID()); return m.Name }
	cfg := &joiner.server.cfg
	cfg.Store = store
	cfg.Operations = operations.New(location, func(op api.Operation) { cfg.Events.Publish(operationEvent(op)) }, joiner.now)
	answered := make(chan struct{})
	cfg.Join = func(_ context.Context, _ api.ClusterPut, progress func(string)) error {
		<-answered // the request that began it shows the server as it was
		progress("Receiving the cluster's state")
		store.Store(&fakeStore{fakeLog: cluster.store.fakeLog, id: row.ID})
		progress("Closing the old store")
		return nil
	}
	conn, _, err := joiner.listen(UnixListener, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	w := joiner.do(request{method: "PUT", path: "/1.0/cluster", body: map[string]any{
		"enabled": true, "cluster_token": tokens.Text(cluster.issue("node3")).String(), "server_address": "10.0.0.2",
	}})
	close(answered)
	started := metadata[api.Operation](t, w, 202)
	if started.Location != "none" {
		t.Errorf("begun as %q", started.Location)
	}
	if ended := lastOf(t, conn, started.ID); ended.Status != "Success" || ended.Location != "node2" || ended.Metadata["join_progress"] != "Closing the old store" {
		t.Errorf("got %+v", ended)
	}
	if got := get[api.Operation](joiner, operationURL(started.ID)); got.Status != "Success" {
		t.Errorf("asked for again: %+v", got)
	}
}

func TestCloseEndsEventStreams(t *testing.T) {
	b := newCluster(t, "node1")
	conn, _, err := b.listen(UnixListener, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	go b.server.Close()
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("got %v", err)
	}
}

// pipeListener hands out connections in memory, so that time can be a bubble's.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	l.conns <- server
	return client, nil
}

// listenInBubble opens the events of b over a connection in memory. ended is closed
// when the server is done with it.
func listenInBubble(t *testing.T, b *bed, options *websocket.DialOptions) (conn *websocket.Conn, ended chan struct{}) {
	t.Helper()
	listener := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	ended = make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		b.handlers[UnixListener].ServeHTTP(w, r)
	})}
	go server.Serve(listener)
	transport := &http.Transport{DialContext: listener.dial}
	options.HTTPClient = &http.Client{Transport: transport}
	conn, _, err := websocket.Dial(t.Context(), "ws://unix.socket/1.0/events", options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.CloseNow()
		transport.CloseIdleConnections()
		_ = server.Close()
	})
	return conn, ended
}

func TestListenersArePinged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pings := make(chan time.Time, 100)
		conn, _ := listenInBubble(t, newCluster(t, "node1"), &websocket.DialOptions{
			OnPingReceived: func(context.Context, []byte) bool { pings <- time.Now(); return true },
		})
		start := time.Now()
		conn.CloseRead(t.Context())
		for i := range 3 {
			if at := <-pings; at.Sub(start) != time.Duration(i+1)*pingInterval {
				t.Errorf("ping %d after %s", i+1, at.Sub(start))
			}
		}
	})
}

func TestListenerThatDoesNotAnswerPingsIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, ended := listenInBubble(t, newCluster(t, "node1"), &websocket.DialOptions{
			OnPingReceived: func(context.Context, []byte) bool { return false },
		})
		start := time.Now()
		conn.CloseRead(t.Context())
		<-ended
		if d := time.Since(start); d != pingInterval+pongTimeout {
			t.Errorf("dropped after %s", d)
		}
	})
}

func TestListenerThatIsNoLongerTrustedIsCutOff(t *testing.T) {
	b := newCluster(t, "node1")
	cert := b.trustClient(false)
	conn, _, err := b.listen(TLSListener, "", http.Header{"Test-Certificate": {trust.Fingerprint(cert)}})
	if err != nil {
		t.Fatal(err)
	}
	b.trustClient(false) // changes the trust store, but not for this one
	b.server.cfg.Events.Publish(api.Event{Type: api.EventLifecycle, Metadata: json.RawMessage("{}")})
	next(t, conn)
	b.mustPropose(state.KindCertificateRemove, state.CertificateRemove{Fingerprint: trust.Fingerprint(cert)})
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("got %v", err)
	}
}

func TestProcessAtTheSocketIsNamed(t *testing.T) {
	b := newCluster(t, "node1")
	socket, err := net.Listen("unix", filepath.Join(t.TempDir(), "unix.socket"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: b.handlers[UnixListener], ConnContext: ConnContext}
	go server.Serve(socket)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket.Addr().String())
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://unix.socket/1.0")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var e struct{ Metadata api.Server }
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Skip("the user who runs the test has no name")
	}
	if e.Metadata.AuthUserName != me.Username || e.Metadata.AuthUserMethod != "unix" {
		t.Errorf("got %q by %q", e.Metadata.AuthUserName, e.Metadata.AuthUserMethod)
	}
}

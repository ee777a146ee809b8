package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/internal/daemon"
	"incusd/internal/localstore"
	"incusd/internal/membership"
	"incusd/internal/raftstore"
)

// A Cluster is a set of servers on one network. They begin standalone.
type Cluster struct {
	T   testing.TB
	Net *Network

	mu      sync.Mutex
	servers []*Server
}

// New returns a cluster with size members, named m1, m2 and so on.
func New(t testing.TB, size int) *Cluster {
	t.Helper()
	c := &Cluster{T: t, Net: NewNetwork()}
	for range size {
		s := c.AddServer()
		if len(c.servers) == 1 {
			s.MustBootstrap()
		} else {
			s.MustJoin(c.servers[0])
		}
	}
	return c
}

// A Server is one daemon with its own state directory. It can be stopped, killed and
// started again.
type Server struct {
	C    *Cluster
	Host string // its name on the network, and as a member
	dir  string
	// Hardware is the server's disks and links, which outlive its daemon.
	Hardware *Hardware

	mu     sync.Mutex
	daemon *daemon.Daemon
	http   *http.Client
	// reach and wrapLog are passed to the daemon at its next start.
	reach   func(point string) error
	wrapLog func(raft.LogStore) raft.LogStore
	now     func() time.Time
	every   uint64
}

// AddServer starts a standalone server.
func (c *Cluster) AddServer(prepare ...func(*Server)) *Server {
	c.T.Helper()
	c.mu.Lock()
	host := fmt.Sprintf("m%d", len(c.servers)+1)
	s := &Server{C: c, Host: host, dir: filepath.Join(tempDir(c.T), host), Hardware: newHardware()}
	c.servers = append(c.servers, s)
	c.mu.Unlock()
	for _, p := range prepare {
		p(s)
	}
	s.MustStart()
	c.T.Cleanup(s.Stop)
	return s
}

// Servers lists all servers, running or not.
func (c *Cluster) Servers() []*Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Server(nil), c.servers...)
}

// Running lists the servers that run.
func (c *Cluster) Running() []*Server {
	var out []*Server
	for _, s := range c.Servers() {
		if s.Runs() {
			out = append(out, s)
		}
	}
	return out
}

// OnReach makes the server call f at each named step, from its next start.
func OnReach(f func(point string) error) func(*Server) { return func(s *Server) { s.reach = f } }

// OnDisk puts wrap between the server's Raft and its log, from its next start.
func OnDisk(wrap func(raft.LogStore) raft.LogStore) func(*Server) {
	return func(s *Server) { s.wrapLog = wrap }
}

// WithClock gives the server a wall clock of its own, from its next start.
func WithClock(now func() time.Time) func(*Server) { return func(s *Server) { s.now = now } }

// CompactAfter makes the server compact its log after n entries, from its next start.
func CompactAfter(n uint64) func(*Server) { return func(s *Server) { s.every = n } }

// Address is where the server is reached by others when it begins.
func (s *Server) Address() string { return s.Host + ":8443" }

// Dir is the server's state directory.
func (s *Server) Dir() string { return s.dir }

// MoveTo moves the server to another address while it runs.
func (s *Server) MoveTo(ctx context.Context, address string, force bool) error {
	return s.Do(ctx, "PUT", "/internal/cluster/address", api.ClusterAddressPut{Address: address, Force: force}, nil)
}

// SetLocal changes the server's own configuration while its daemon is stopped.
func (s *Server) SetLocal(set map[string]string) error {
	local, err := localstore.Open(filepath.Join(s.dir, "database", "local.db"))
	if err != nil {
		return err
	}
	return errors.Join(local.SetConfig(set), local.Close())
}

// Runs tells whether the server runs.
func (s *Server) Runs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.daemon != nil
}

func (s *Server) socket() string { return s.Host + ":1" }

// Start starts the server's daemon on its state directory.
func (s *Server) Start() error {
	d, err := daemon.Start(daemon.Config{
		Paths:         daemon.Paths{Dir: s.dir, Socket: filepath.Join(s.dir, "unix.socket")},
		Membership:    membership.Settings{SettleTime: 200 * time.Millisecond},
		Logger:        s.logger(),
		Listen:        func(_, address string) (net.Listener, error) { return s.C.Net.Listen(address) },
		ListenUnix:    func() (net.Listener, error) { return s.C.Net.Listen(s.socket()) },
		Dial:          func(ctx context.Context, _, address string) (net.Conn, error) { return s.dial(ctx, address) },
		Now:           s.now,
		Storage:       s.Hardware,
		Network:       s.Hardware,
		Reach:         s.reach,
		WrapLog:       s.wrapLog,
		SnapshotEvery: s.every,
		Timing:        raftstore.Timing{},
	})
	if err != nil {
		return err
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return s.dial(ctx, s.socket())
	}}
	s.mu.Lock()
	s.daemon, s.http = d, &http.Client{Transport: tr}
	s.mu.Unlock()
	return nil
}

func (s *Server) dial(ctx context.Context, address string) (net.Conn, error) {
	return s.C.Net.Dialer(s.Host)(ctx, address)
}

func (s *Server) logger() *slog.Logger {
	if os.Getenv("CLUSTERTEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", s.Host)
}

// MustStart is Start that fails the test.
func (s *Server) MustStart() {
	s.C.T.Helper()
	if err := s.Start(); err != nil {
		s.C.T.Fatalf("start %s: %v", s.Host, err)
	}
}

// Stop stops the server cleanly. It is harmless if it does not run.
func (s *Server) Stop() {
	d := s.take()
	if d == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	d.Stop(ctx)
}

// Kill ends the server as a crash does: all its connections break at once, nobody is
// told, and nothing more is written.
func (s *Server) Kill() {
	s.C.Net.Kill(s.Host)
	d := s.take()
	if d == nil {
		return
	}
	d.Kill()
}

// WaitForEnd waits until the server's daemon has ended by itself, and returns why.
func (s *Server) WaitForEnd(ctx context.Context) (reason, err error) {
	s.mu.Lock()
	d := s.daemon
	s.mu.Unlock()
	select {
	case <-d.Done():
		s.take()
		return d.Err(), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Server) take() *daemon.Daemon {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.daemon
	s.daemon = nil
	if s.http != nil {
		s.http.CloseIdleConnections()
	}
	return d
}

// Do makes a request on the server's socket and decodes the answer's metadata into
// out, unless that is nil. A refusal is an *api.Error.
func (s *Server) Do(ctx context.Context, method, path string, in, out any) error {
	_, err := s.do(ctx, method, path, in, out)
	return err
}

func (s *Server) do(ctx context.Context, method, path string, in, out any) (*api.Response, error) {
	s.mu.Lock()
	client := s.http
	s.mu.Unlock()
	if client == nil {
		return nil, errors.New("the server does not run")
	}
	data, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.Host+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var env api.Response
	if err := json.Unmarshal(body, &env); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", method, path, err, body)
	}
	if env.Type == api.ErrorResponse {
		var meta api.ErrorMetadata
		if json.Unmarshal(env.Metadata, &meta) != nil || meta.Reason == "" {
			meta.Reason = api.Internal
		}
		return &env, &api.Error{Reason: meta.Reason, Message: env.Error, Code: env.Code}
	}
	if out != nil {
		return &env, json.Unmarshal(env.Metadata, out)
	}
	return &env, nil
}

// Run makes a request that starts an operation and waits for its end.
func (s *Server) Run(ctx context.Context, method, path string, in any) error {
	env, err := s.do(ctx, method, path, in, nil)
	if err != nil || env.Type != api.AsyncResponse {
		return err
	}
	var op api.Operation
	if err := s.Do(ctx, "GET", env.Operation+"/wait", nil, &op); err != nil {
		return err
	}
	if op.StatusCode != api.Success {
		reason, ok := op.Metadata["reason"].(string)
		if !ok {
			reason = string(api.Internal)
		}
		return &api.Error{Reason: api.Reason(reason), Message: op.Err}
	}
	return nil
}

// Listen returns the events of the server of the given types, from now to the end of ctx, as a
// client at its socket hears them.
func (s *Server) Listen(ctx context.Context, types string) (<-chan api.Event, error) {
	s.mu.Lock()
	client := s.http
	s.mu.Unlock()
	conn, _, err := websocket.Dial(ctx, "ws://"+s.Host+"/1.0/events?all-projects=true&type="+types, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		return nil, err
	}
	heard := make(chan api.Event, 100)
	go func() {
		defer close(heard)
		defer conn.CloseNow()
		for {
			var e api.Event
			if wsjson.Read(ctx, conn, &e) != nil {
				return
			}
			heard <- e
		}
	}()
	return heard, nil
}

// Context is bounded: no test waits for ever.
func (c *Cluster) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	c.T.Cleanup(cancel)
	return ctx
}

// MustBootstrap makes the server the first member.
func (s *Server) MustBootstrap() {
	s.C.T.Helper()
	ctx := s.C.Context()
	if err := s.Do(ctx, "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{"core.https_address": s.Address()}}, nil); err != nil {
		s.C.T.Fatalf("configure %s: %v", s.Host, err)
	}
	if err := s.Run(ctx, "PUT", "/1.0/cluster", api.ClusterPut{Cluster: api.Cluster{ServerName: s.Host, Enabled: true}}); err != nil {
		s.C.T.Fatalf("bootstrap %s: %v", s.Host, err)
	}
}

// Token issues a join token on the server.
func (s *Server) Token(ctx context.Context, name string) (string, error) {
	var op api.Operation
	if err := s.Do(ctx, "POST", "/1.0/cluster/members", api.ClusterMembersPost{ServerName: name}, &op); err != nil {
		return "", err
	}
	t, err := op.JoinToken()
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

// MustToken is Token that fails the test.
func (s *Server) MustToken(name string) string {
	s.C.T.Helper()
	token, err := s.Token(s.C.Context(), name)
	if err != nil {
		s.C.T.Fatalf("issue a token on %s: %v", s.Host, err)
	}
	return token
}

// Join joins with a token, as a preseed does.
func (s *Server) Join(ctx context.Context, token string) error {
	return s.Run(ctx, "PUT", "/1.0/cluster", api.ClusterPut{
		Cluster:       api.Cluster{Enabled: true},
		ServerAddress: s.Address(),
		ClusterToken:  token,
	})
}

// MustJoin joins with a token that by issues.
func (s *Server) MustJoin(by *Server) {
	s.C.T.Helper()
	if err := s.Join(s.C.Context(), by.MustToken(s.Host)); err != nil {
		s.C.T.Fatalf("join %s: %v", s.Host, err)
	}
}

// Members lists the members as the server shows them.
func (s *Server) Members(ctx context.Context) ([]api.ClusterMember, error) {
	var members []api.ClusterMember
	err := s.Do(ctx, "GET", "/1.0/cluster/members?recursion=1", nil, &members)
	return members, err
}

// View is the replicated state as the server's own replica has it.
func (s *Server) View() *raftstore.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.daemon == nil {
		return nil
	}
	return s.daemon.View()
}

// Voters are the IDs of those who vote by the server's own log, committed or not; none while it does
// not run.
func (s *Server) Voters() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.daemon == nil {
		return nil
	}
	return s.daemon.Voters()
}

// Offline tells whether the server's replica says that the member of that name is offline.
func (s *Server) Offline(name string) bool {
	v := s.View()
	if v == nil {
		return false
	}
	m, ok := v.MemberByName(name)
	return ok && m.Offline
}

// Leads tells whether the server believes that it leads a cluster, whatever it is called there.
func (s *Server) Leads() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.daemon == nil {
		return false
	}
	v := s.daemon.View()
	_, member := v.Member(v.Leader)
	return member && v.Cluster().Enabled && v.Leader == s.daemon.ID()
}

// Leader waits until a running server leads, by its own belief and the others'.
func (c *Cluster) Leader() *Server {
	c.T.Helper()
	var leader *Server
	c.Eventually("a leader", func() error {
		for _, s := range c.Running() {
			if s.Leads() {
				leader = s
				return s.Do(c.Context(), "GET", "/1.0", nil, nil)
			}
		}
		return errors.New("nobody leads")
	})
	return leader
}

// Eventually waits until f succeeds. It fails the test with f's last error.
func (c *Cluster) Eventually(what string, f func() error) {
	c.T.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.T.Fatalf("%s: %v", what, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// RequireConverged waits until all running members hold the same state: the same index
// and, byte by byte, the same snapshot.
func (c *Cluster) RequireConverged() {
	c.T.Helper()
	c.Eventually("converge", func() error {
		var first []byte
		for _, s := range c.Running() {
			v := s.View()
			if !v.Cluster().Enabled {
				continue
			}
			var buf bytes.Buffer
			if err := v.Persist(&buf); err != nil {
				return err
			}
			if first == nil {
				first = buf.Bytes()
			} else if !bytes.Equal(first, buf.Bytes()) {
				return fmt.Errorf("%s holds another state, at index %d", s.Host, v.Index())
			}
		}
		return nil
	})
}

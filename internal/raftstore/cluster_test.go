package raftstore_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// node is one member of a test cluster: a store behind a listener of the test network.
type node struct {
	t     testing.TB
	c     *cluster
	host  string
	id    string
	dir   string
	pair  *trust.KeyPair
	hint  uint64
	peers []raftstore.Peer
	wrap  func(raft.LogStore) raft.LogStore
	reach func(string) error
	every uint64

	store *raftstore.Store
	stop  func()
}

// cluster is a handful of nodes on one network.
type cluster struct {
	t     testing.TB
	net   *clustertest.Network
	id    string
	nodes []*node
}

func (n *node) address() string { return n.host + ":8443" }

func (n *node) peer() raftstore.Peer {
	return raftstore.Peer{ID: n.id, Address: n.address(), Fingerprint: n.pair.Fingerprint()}
}

func newCluster(t testing.TB, size int) *cluster {
	t.Helper()
	c := &cluster{t: t, net: clustertest.NewNetwork(), id: uuid.NewString()}
	for range size {
		c.add()
	}
	return c
}

// add makes a node; the first bootstraps, the others join as voters.
func (c *cluster) add() *node { return c.addWith(func(*node) {}) }

// addWith lets prepare change the node before it is opened.
func (c *cluster) addWith(prepare func(*node)) *node {
	c.t.Helper()
	i := len(c.nodes) + 1
	pair, err := trust.Generate(trust.Server)
	must(c.t, err)
	n := &node{t: c.t, c: c, host: fmt.Sprintf("m%d", i), id: uuid.NewString(), pair: pair, dir: filepath.Join(c.t.TempDir(), "replica")}
	if i > 1 {
		n.peers = c.peers()
	}
	prepare(n)
	c.nodes = append(c.nodes, n)
	if i == 1 {
		must(c.t, n.open(true, true))
		c.begin(n)
	} else {
		c.join(n)
	}
	c.t.Cleanup(n.close)
	return n
}

func (c *cluster) peers() []raftstore.Peer {
	var out []raftstore.Peer
	for _, n := range c.nodes {
		out = append(out, n.peer())
	}
	return out
}

// open starts the node's store and listener.
func (n *node) open(create, bootstrap bool) error {
	var store *raftstore.Store
	ready := make(chan struct{})
	cfg := raftstore.Config{
		ID: n.id, ClusterID: n.c.id, Dir: n.dir, Create: create, Bootstrap: bootstrap,
		Certificate:    func() *tls.Certificate { return &n.pair.TLS },
		Peers:          n.peers,
		CommitHint:     n.hint,
		SaveCommitHint: func(i uint64) { n.hint = i },
		Dial:           n.c.net.Dialer(n.host),
		WrapLog:        n.wrap,
		Reach:          n.reach,
		SnapshotEvery:  n.every,
		OnReady: func(ctx context.Context, id string) error {
			<-ready
			return store.AddNonvoter(ctx, id)
		},
		Logger: logger(n.t).With("host", n.host),
	}
	var err error
	store, err = raftstore.Open(cfg)
	close(ready)
	if err != nil {
		return err
	}
	n.store = store
	ln, err := n.c.net.Listen(n.address())
	if err != nil {
		store.Close()
		return err
	}
	ep := &raftstore.Endpoint{}
	ep.Attach(store)
	go serve(ln, ep, n.pair)
	n.stop = func() { ln.Close() }
	return nil
}

// serve hands connections to the endpoint, as the daemon's HTTPS server does.
func serve(ln net.Listener, ep *raftstore.Endpoint, pair *trust.KeyPair) {
	for {
		raw, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			conn := tls.Server(raw, raftstore.ServerTLS(func() *tls.Certificate { return &pair.TLS }))
			if err := conn.Handshake(); err != nil {
				conn.Close()
				return
			}
			ep.Serve(conn)
		}()
	}
}

func logger(t testing.TB) *slog.Logger {
	if os.Getenv("RAFT_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// close stops the node cleanly.
func (n *node) close() {
	if n.store == nil {
		return
	}
	n.stop()
	if err := n.store.Close(); err != nil {
		n.t.Errorf("close %s: %v", n.host, err)
	}
	n.store = nil
}

// kill ends the node as a crash does, as far as the others can tell.
func (n *node) kill() {
	n.c.net.Kill(n.host)
	n.close()
}

func (c *cluster) begin(n *node) {
	c.t.Helper()
	c.must(n, state.KindClusterInit, state.ClusterInit{ClusterID: c.id, Member: state.Member{
		ID: n.id, Name: "none", Certificate: string(n.pair.CertPEM), Fingerprint: n.pair.Fingerprint(), CommandVersion: state.CommandVersion,
	}})
	c.must(n, state.KindClusterEnable, state.ClusterEnable{MemberID: n.id, Name: n.host, Address: n.address(),
		Certificate: string(n.pair.CertPEM), Key: string(n.pair.KeyPEM)})
}

// join takes a new node through claim, admission and activation.
func (c *cluster) join(n *node) {
	c.t.Helper()
	c.admit(n)
	must(c.t, n.open(true, false))
	ctx := c.ctx()
	must(c.t, n.store.Ready(ctx))
	_, err := n.store.Read(ctx)
	must(c.t, err)
	c.must(n, state.KindMemberActivate, state.MemberActivate{ID: n.id})
	leader := c.leader()
	must(c.t, leader.store.Promote(ctx, n.id))
}

// admit issues a token for n, claims it and admits n.
func (c *cluster) admit(n *node) {
	c.t.Helper()
	first := c.leader()
	hash := "hash-" + n.host
	c.must(first, state.KindTokenIssue, state.TokenIssue{Token: state.Token{Hash: hash, Secret: "s", Name: n.host,
		Operation: "op-" + n.host, Fingerprint: "f", Addresses: []string{first.address()}}})
	c.must(first, state.KindTokenClaim, state.TokenClaim{Hash: hash, Name: n.host, Fingerprint: n.pair.Fingerprint(), Certificate: string(n.pair.CertPEM)})
	c.must(first, state.KindMemberAdmit, state.MemberAdmit{ID: n.id, Fingerprint: n.pair.Fingerprint(), Name: n.host, Address: n.address(), CommandVersion: state.CommandVersion})
}

// leader waits until some node leads by its own and the others' belief.
func (c *cluster) leader() *node {
	c.t.Helper()
	for {
		for _, n := range c.nodes {
			if n.store != nil && n.store.IsLeader() {
				if _, err := n.store.Read(c.ctx()); err == nil {
					return n
				}
			}
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (c *cluster) follower() *node {
	l := c.leader()
	for _, n := range c.nodes {
		if n.store != nil && n != l {
			return n
		}
	}
	c.t.Fatal("no follower")
	return nil
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	c.t.Cleanup(cancel)
	return ctx
}

func command(t testing.TB, kind string, body any) state.Command {
	t.Helper()
	cmd, err := state.NewCommand(kind, uuid.NewString(), time.Now(), nil, body)
	must(t, err)
	return cmd
}

func (c *cluster) must(n *node, kind string, body any) {
	c.t.Helper()
	_, err := n.store.Propose(c.ctx(), command(c.t, kind, body))
	must(c.t, err)
}

func (c *cluster) set(n *node, key, value string) error {
	_, err := n.store.Propose(c.ctx(), command(c.t, state.KindConfigSet, state.ConfigSet{Set: map[string]string{key: value}}))
	return err
}

func (c *cluster) get(n *node, key string) string {
	c.t.Helper()
	v, err := n.store.Read(c.ctx())
	must(c.t, err)
	return v.Config()[key]
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantReason(t testing.TB, err error, reason api.Reason) {
	t.Helper()
	if !errors.Is(err, reason) {
		t.Fatalf("got error %v, want reason %s", err, reason)
	}
}

package clustertest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/raftstore"
	"incusd/internal/trust"
)

// A visitor is a machine that is no member, with a key pair and its open connections.
type visitor struct {
	c    *clustertest.Cluster
	pair *trust.KeyPair
	http *http.Client
	// dials counts the connections that were opened.
	dials atomic.Int64
}

func newVisitor(t *testing.T, c *clustertest.Cluster) *visitor {
	t.Helper()
	pair, err := trust.Generate(trust.Client)
	if err != nil {
		t.Fatal(err)
	}
	k := &visitor{c: c, pair: pair}
	dial := laptop(c)
	k.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair.TLS}},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			k.dials.Add(1)
			return dial(ctx, network, address)
		},
	}}
	t.Cleanup(k.http.CloseIdleConnections)
	return k
}

// do asks a server over the network and returns its refusal, if it is one.
func (k *visitor) do(s *clustertest.Server, method, path string, in any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(k.c.Context(), method, "https://"+s.Address()+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	resp, err := k.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer api.Response
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	if answer.Type != api.ErrorResponse {
		return nil
	}
	var details api.ErrorMetadata
	if err := json.Unmarshal(answer.Metadata, &details); err != nil {
		return err
	}
	return &api.Error{Reason: details.Reason, Message: answer.Error}
}

// redeem becomes trusted with a certificate add token.
func (k *visitor) redeem(s *clustertest.Server, token string) error {
	return k.do(s, "POST", "/1.0/certificates", api.CertificatesPost{TrustToken: token})
}

// redeemed asks until it is told the outcome, as a client does whose answers are lost.
func (k *visitor) redeemed(s *clustertest.Server, token string) {
	k.c.T.Helper()
	k.c.Eventually("the redemption at "+s.Host, func() error { return k.redeem(s, token) })
}

// addToken issues a certificate add token.
func addToken(t *testing.T, s *clustertest.Server) string {
	t.Helper()
	var op api.Operation
	if err := s.Do(s.C.Context(), "POST", "/1.0/certificates", api.CertificatesPost{Name: "laptop", Type: api.CertificateClient, Token: true}, &op); err != nil {
		t.Fatal(err)
	}
	token, err := op.CertificateAddToken()
	if err != nil {
		t.Fatal(err)
	}
	return token.String()
}

// administrators asks for what only administrators may see.
const administrators = "/1.0/warnings"

// A session is what a client has open at one server.
type session struct {
	server *clustertest.Server
	// heard and waited are closed when the events and the wait have ended.
	heard, waited chan struct{}
	answer        api.Response // of the wait
}

// open listens to events and waits for an operation that does not end.
func (k *visitor) open(t *testing.T, s *clustertest.Server, operation string) *session {
	t.Helper()
	o := &session{server: s, heard: make(chan struct{}), waited: make(chan struct{})}
	conn, _, err := websocket.Dial(k.c.Context(), "wss://"+s.Address()+"/1.0/events", &websocket.DialOptions{HTTPClient: k.http})
	if err != nil {
		t.Fatalf("listen at %s: %v", s.Host, err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	go func() {
		defer close(o.heard)
		for {
			if _, _, err := conn.Read(context.Background()); err != nil {
				return
			}
		}
	}()
	req, err := http.NewRequestWithContext(k.c.Context(), "GET", "https://"+s.Address()+"/1.0/operations/"+operation+"/wait", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := k.http.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("wait at %s: %v %v", s.Host, resp, err)
	}
	go func() {
		defer close(o.waited)
		defer resp.Body.Close()
		_ = json.NewDecoder(resp.Body).Decode(&o.answer)
	}()
	return o
}

// requireCut waits until the server has ended both.
func (o *session) requireCut(t *testing.T) {
	t.Helper()
	for what, ended := range map[string]chan struct{}{"events": o.heard, "wait": o.waited} {
		select {
		case <-ended:
		case <-o.server.C.Context().Done():
			t.Fatalf("%s at %s go on", what, o.server.Host)
		}
	}
	if o.answer.Type != api.ErrorResponse || o.answer.Code != http.StatusForbidden {
		t.Errorf("the wait at %s ended with %+v", o.server.Host, o.answer)
	}
}

// A certificate that is removed, replaced or restricted opens nothing any more from the moment on in
// which a member has applied that, on connections that were open, too. A member that was cut off
// follows when it is back.
func TestChangedCertificateIsRefusedOnOpenConnections(t *testing.T) {
	changes := map[string]func(t *testing.T, by *clustertest.Server, path string) error{
		"removed": func(_ *testing.T, by *clustertest.Server, path string) error {
			return by.Do(by.C.Context(), "DELETE", path, nil, nil)
		},
		"replaced": func(t *testing.T, by *clustertest.Server, path string) error {
			other := newVisitor(t, by.C)
			return by.Do(by.C.Context(), "PATCH", path, map[string]any{"certificate": string(other.pair.CertPEM)}, nil)
		},
		"restricted": func(_ *testing.T, by *clustertest.Server, path string) error {
			return by.Do(by.C.Context(), "PATCH", path, map[string]any{"restricted": true}, nil)
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, 3)
				all, by := c.Servers(), c.Leader()
				away := all[0]
				if away == by {
					away = all[1]
				}
				k := newVisitor(t, c)
				k.redeemed(by, addToken(t, by))
				var pending api.Operation
				if err := by.Do(c.Context(), "POST", "/1.0/cluster/members", api.ClusterMembersPost{ServerName: "late"}, &pending); err != nil {
					t.Fatal(err)
				}
				c.RequireConverged()
				var sessions []*session
				for _, s := range all {
					sessions = append(sessions, k.open(t, s, pending.ID))
					if err := k.do(s, "GET", administrators, nil); err != nil {
						t.Fatalf("%s: %v", s.Host, err)
					}
				}
				dials := k.dials.Load()

				var others []string
				for _, s := range all {
					if s != away {
						others = append(others, s.Host)
					}
				}
				c.Net.Isolate(away.Host, others...)
				if err := change(t, by, "/1.0/certificates/"+k.pair.Fingerprint()); err != nil {
					t.Fatal(err)
				}
				if err := k.do(by, "GET", administrators, nil); !errors.Is(err, api.NotAuthorized) {
					t.Errorf("%s, which has made the change: %v", by.Host, err)
				}
				refuses := func(s *clustertest.Server) {
					t.Helper()
					c.Eventually(s.Host+" has applied it", func() error {
						if cert, ok := s.View().Certificate(k.pair.Fingerprint()); ok && !cert.Restricted {
							return errors.New("not yet")
						}
						return nil
					})
					if err := k.do(s, "GET", administrators, nil); !errors.Is(err, api.NotAuthorized) {
						t.Errorf("%s: %v", s.Host, err)
					}
				}
				for i, s := range all {
					if s != away {
						refuses(s)
						sessions[i].requireCut(t)
					}
				}
				c.Net.Heal()
				for i, s := range all {
					refuses(s)
					sessions[i].requireCut(t)
				}
				if n := k.dials.Load(); n != dials {
					t.Errorf("%d connections were opened anew: those that were open are not what was tested", n-dials)
				}
				c.RequireConverged()
			})
		})
	}
}

// requireUsed checks that the token has trusted the client, and nobody else.
func requireUsed(t *testing.T, c *clustertest.Cluster, k *visitor, token string) {
	t.Helper()
	late := newVisitor(t, c)
	for _, s := range c.Running() {
		k.redeemed(s, token) // told again, wherever it asks
		if err := late.redeem(s, token); !errors.Is(err, api.TokenUsed) {
			t.Errorf("another client at %s: %v", s.Host, err)
		}
		if err := k.do(s, "GET", administrators, nil); err != nil {
			t.Errorf("the client at %s: %v", s.Host, err)
		}
		if n := len(s.View().Certificates()); n != 1 {
			t.Errorf("%s trusts %d clients", s.Host, n)
		}
	}
}

func TestAddTokenOutlivesItsIssuer(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		issuer := c.Leader()
		token := addToken(t, issuer)
		issuer.Kill()
		k := newVisitor(t, c)
		k.redeemed(c.Running()[0], token)
		issuer.MustStart()
		c.RequireConverged()
		requireUsed(t, c, k, token)
		for _, s := range c.Servers() {
			s.Kill()
		}
		for _, s := range c.Servers() {
			s.MustStart()
		}
		c.Leader()
		requireUsed(t, c, k, token)
		c.RequireConverged()
	})
}

// Whoever dies at whichever step of a redemption, the client that asks again is trusted, once, and
// nobody else is.
func TestMemberKilledAtEachStepOfARedemption(t *testing.T) {
	for _, tc := range []struct{ who, point string }{
		{"leader", raftstore.PointAppend}, {"leader", raftstore.PointCommitted},
		{"asked", raftstore.PointForward}, {"asked", raftstore.PointForwarded},
	} {
		t.Run(fmt.Sprintf("%s %s", tc.who, tc.point), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				trap := newTrap(tc.point)
				trap.armed.Store(false)
				c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
				hooks := map[string][]func(*clustertest.Server){tc.who: {clustertest.OnReach(trap.reach)}}
				leader := c.AddServer(hooks["leader"]...)
				leader.MustBootstrap()
				asked := c.AddServer(hooks["asked"]...)
				asked.MustJoin(leader)
				other := c.AddServer()
				other.MustJoin(leader)
				victim := map[string]*clustertest.Server{"leader": leader, "asked": asked}[tc.who]
				token := addToken(t, other)
				c.RequireConverged()

				k := newVisitor(t, c)
				trap.armed.Store(true)
				done := make(chan error, 1)
				go func() { done <- k.redeem(asked, token) }()
				select {
				case <-trap.caught:
				case err := <-done:
					t.Fatalf("the redemption passed no such step: %v", err)
				}
				killHeld(c, victim, trap.release)
				t.Logf("redemption: %v", <-done)
				k.redeemed(other, token)
				victim.MustStart()
				c.RequireConverged()
				requireUsed(t, c, k, token)
			})
		})
	}
}

func TestOneAddTokenTrustsOneOfThreeClientsAtOnce(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		token := addToken(t, c.Servers()[1])
		var racing sync.WaitGroup
		var mu sync.Mutex
		var winners []*visitor
		for _, s := range c.Servers() {
			k := newVisitor(t, c)
			racing.Go(func() {
				switch err := k.redeem(s, token); {
				case err == nil:
					mu.Lock()
					winners = append(winners, k)
					mu.Unlock()
				case !errors.Is(err, api.TokenUsed):
					t.Errorf("%s: %v", s.Host, err)
				}
			})
		}
		racing.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d clients were let in", len(winners))
		}
		c.RequireConverged()
		requireUsed(t, c, winners[0], token)
	})
}

func TestAddTokenExpiresOnEveryMember(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		if err := set(c.Servers()[0], "core.remote_token_expiry", "5S"); err != nil {
			t.Fatal(err)
		}
		token := addToken(t, c.Servers()[2])
		<-time.After(5 * time.Second)
		k := newVisitor(t, c)
		for _, s := range c.Servers() {
			if err := k.redeem(s, token); !errors.Is(err, api.TokenExpired) {
				t.Errorf("%s: %v", s.Host, err)
			}
		}
		c.RequireConverged()
	})
}

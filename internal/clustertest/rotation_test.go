package clustertest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"incusd/api"
	"incusd/client"
	"incusd/internal/clustertest"
	"incusd/internal/raftstore"
	"incusd/internal/trust"
)

// suppliedPair is what an administrator brings along.
func suppliedPair(t *testing.T) *trust.KeyPair {
	t.Helper()
	pair, err := trust.Generate(trust.Server, "cluster.example")
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// replaceCertificate is incus cluster update-certificate on by.
func replaceCertificate(ctx context.Context, by *clustertest.Server, pair *trust.KeyPair) error {
	return by.Do(ctx, "PUT", "/1.0/cluster/certificate", api.ClusterCertificatePut{
		ClusterCertificate: string(pair.CertPEM), ClusterCertificateKey: api.Secret(pair.KeyPEM),
	}, nil)
}

// laptop dials as somebody outside of the cluster does.
func laptop(c *clustertest.Cluster) client.DialFunc {
	dial := c.Net.Dialer("laptop")
	return func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }
}

// shown is the certificate that a server shows to clients.
func shown(c *clustertest.Cluster, s *clustertest.Server) (*x509.Certificate, error) {
	return client.RemoteCertificate(c.Context(), laptop(c), s.Address())
}

// requireShown waits until all running members show the certificate, and have it on their disks.
func requireShown(t *testing.T, c *clustertest.Cluster, want string) {
	t.Helper()
	c.Eventually("all show the certificate "+want[:12], func() error {
		for _, s := range c.Running() {
			cert, err := shown(c, s)
			if err != nil {
				return err
			}
			if got := trust.Fingerprint(cert); got != want {
				return fmt.Errorf("%s shows %.12s", s.Host, got)
			}
			disk, err := trust.Load(filepath.Join(s.Dir(), "cluster.crt"), filepath.Join(s.Dir(), "cluster.key"))
			if err != nil {
				return err
			}
			if disk.Fingerprint() != want {
				return fmt.Errorf("%s has %.12s on its disk", s.Host, disk.Fingerprint())
			}
		}
		return nil
	})
}

// A remote is a client that keeps the certificate that it was shown, as the command line does.
type remote struct {
	*client.Client
	mu   sync.Mutex
	pin  *x509.Certificate
	dial client.DialFunc
}

// newRemote is a client of s that keeps pin.
func newRemote(c *clustertest.Cluster, s *clustertest.Server, pin *x509.Certificate) *remote {
	r := &remote{pin: pin, dial: laptop(c)}
	r.Client = client.Remote{Name: s.Host, Addresses: []string{s.Address()}, Pinned: pin, Moved: func(next *x509.Certificate) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pin = next
	}}.Client(client.Options{Dial: r.dial})
	return r
}

func (r *remote) kept() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return trust.Fingerprint(r.pin)
}

func TestCertificateIsReplacedWithAMemberAwayAndTokensOut(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		m1, m2, m3 := c.Servers()[0], c.Servers()[1], c.Servers()[2]
		old, err := shown(c, m1)
		if err != nil {
			t.Fatal(err)
		}
		first, second := m1.MustToken("m4"), m2.MustToken("m5")
		before := newRemote(c, m2, old)
		defer before.Close()
		if _, _, err := before.Server(c.Context()); err != nil {
			t.Fatal(err)
		}
		m3.Kill()

		load := startCallers(c, m1, m2)
		pairs := []*trust.KeyPair{suppliedPair(t), suppliedPair(t)}
		for _, pair := range pairs { // twice while m3 is away
			if err := replaceCertificate(c.Context(), m2, pair); err != nil {
				t.Fatal(err)
			}
			if err := replaceCertificate(c.Context(), m1, pair); err != nil {
				t.Fatalf("the same again: %v", err)
			}
		}
		last := pairs[1].Fingerprint()
		requireShown(t, c, last)
		load.stop(t)

		if links := m1.View().Cluster().Endorsements; len(links) != 2 {
			t.Errorf("%d endorsements, two replacements", len(links))
		}
		m3.MustStart()
		requireShown(t, c, last)
		c.RequireConverged()

		// Both tokens work, though they name the first certificate.
		m4 := c.AddServer()
		if err := m4.Join(c.Context(), first); err != nil {
			t.Fatalf("a token from before: %v", err)
		}
		m5 := c.AddServer()
		if err := m5.Join(c.Context(), second); err != nil {
			t.Fatalf("the other token from before: %v", err)
		}
		requireShown(t, c, last)

		// A connection that was open goes on, and a new one is led to what is kept from then on.
		if _, _, err := before.Server(c.Context()); err != nil {
			t.Errorf("the open connection: %v", err)
		}
		again := newRemote(c, m2, before.pin)
		defer again.Close()
		if _, _, err := again.Server(c.Context()); err != nil || again.kept() != last {
			t.Errorf("the remote keeps %.12s, expected %.12s: %v", again.kept(), last, err)
		}
		c.RequireConverged()
	})
}

// callers make requests until they are stopped, each of which must succeed.
type callers struct {
	end  chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	n    int
	errs []error
}

func startCallers(c *clustertest.Cluster, servers ...*clustertest.Server) *callers {
	l := &callers{end: make(chan struct{})}
	for i, s := range servers {
		for _, path := range []string{"/1.0", "/1.0/cluster/members/" + servers[1-i].Host + "/state"} { // the latter is forwarded
			l.wg.Go(func() {
				for {
					err := s.Do(c.Context(), "GET", path, nil, nil)
					l.mu.Lock()
					l.n++
					if err != nil {
						l.errs = append(l.errs, fmt.Errorf("%s at %s: %w", path, s.Host, err))
					}
					l.mu.Unlock()
					select {
					case <-l.end:
						return
					case <-time.After(time.Millisecond):
					}
				}
			})
		}
	}
	return l
}

func (l *callers) stop(t *testing.T) {
	t.Helper()
	close(l.end)
	l.wg.Wait()
	if len(l.errs) > 0 || l.n == 0 {
		t.Errorf("%d of %d requests failed, such as: %v", len(l.errs), l.n, l.errs[:min(3, len(l.errs))])
	}
}

func TestBadPairChangesNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		m1 := c.Servers()[0]
		before := m1.View().Cluster().CertificateHash()
		good, other := suppliedPair(t), suppliedPair(t)
		mixed := *good
		mixed.KeyPEM = other.KeyPEM
		if err := replaceCertificate(c.Context(), m1, &mixed); !errors.Is(err, api.CertInvalid) {
			t.Errorf("another's key: %v", err)
		}
		if m1.View().Cluster().CertificateHash() != before {
			t.Error("a bad pair was taken")
		}
		alone := c.AddServer()
		if err := replaceCertificate(c.Context(), alone, good); !errors.Is(err, api.NotClustered) {
			t.Errorf("a standalone server: %v", err)
		}
		// Anybody may ask; only administrators are answered.
		stranger := &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
			DialContext:     laptop(c),
		}}
		defer stranger.CloseIdleConnections()
		for method, path := range map[string]string{"PUT": "/1.0/cluster/certificate", "POST": "/internal/cluster/rotate-key"} {
			req, err := http.NewRequestWithContext(c.Context(), method, "https://"+m1.Address()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := stranger.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s %s by a stranger: %s", method, path, resp.Status)
			}
		}
	})
}

// Whoever dies when the entry is committed, all members that come back show the same certificate,
// and what a crash has left between the two files is put right.
func TestReplacementSurvivesCrashes(t *testing.T) {
	for _, leads := range []bool{true, false} {
		t.Run(fmt.Sprintf("leader %t", leads), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, 3)
				victim := c.Leader()
				asked := c.Servers()[1]
				for _, s := range c.Servers() {
					if !leads && s != c.Leader() {
						victim = s
					}
				}
				for _, s := range c.Servers() {
					if s != victim {
						asked = s
					}
				}
				pair := suppliedPair(t)
				done := make(chan error, 1)
				go func() { done <- replaceCertificate(c.Context(), asked, pair) }()
				victim.Kill()
				if err := <-done; err != nil && !errors.Is(err, api.OutcomeUnknown) {
					t.Fatal(err)
				}
				if err := replaceCertificate(c.Context(), asked, pair); err != nil {
					t.Fatal(err)
				}
				// What a crash between the two files leaves: the new key, and not its certificate.
				crt, key := filepath.Join(victim.Dir(), "cluster.crt"), filepath.Join(victim.Dir(), "cluster.key")
				if err := os.WriteFile(key, pair.KeyPEM, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(crt); err != nil {
					t.Fatal(err)
				}
				victim.MustStart()
				requireShown(t, c, pair.Fingerprint())
				c.RequireConverged()
			})
		})
	}
}

// A member that was removed has the key that the cluster had. After a rotation it is worth nothing.
func TestRotatedKeyLeavesTheRemovedMemberBehind(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		m1 := c.Leader()
		var gone *clustertest.Server
		for _, s := range c.Servers() {
			if s != m1 {
				gone = s
			}
		}
		old, err := shown(c, m1)
		if err != nil {
			t.Fatal(err)
		}
		handedOut := m1.MustToken("m4")
		r := newRemote(c, m1, old)
		defer r.Close()
		if err := m1.Do(c.Context(), "DELETE", "/1.0/cluster/members/"+gone.Host+"?rotate-key=1", nil, nil); err != nil {
			t.Fatal(err)
		}
		cluster := m1.View().Cluster()
		next, err := trust.ParseCertificate(cluster.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if trust.Same(next, old) || len(cluster.Endorsements) != 0 || cluster.RotateKey {
			t.Fatalf("the cluster shows %.12s after %.12s, %d endorsements", trust.Fingerprint(next), trust.Fingerprint(old), len(cluster.Endorsements))
		}
		gone.Kill()
		requireShown(t, c, trust.Fingerprint(next))

		// Nobody is led on.
		if _, _, err := r.Server(c.Context()); !errors.Is(err, api.FingerprintMatch) {
			t.Errorf("a remote follows: %v", err)
		}
		m4 := c.AddServer()
		if err := m4.Join(c.Context(), handedOut); !errors.Is(err, api.FingerprintMatch) {
			t.Errorf("a token that was handed out: %v", err)
		}
		// The token is listed anew, and that one works.
		var ops map[string][]api.Operation
		if err := m1.Do(c.Context(), "GET", "/1.0/operations?recursion=1", nil, &ops); err != nil {
			t.Fatal(err)
		}
		listed := ""
		for _, op := range ops["running"] {
			if token, err := op.JoinToken(); err == nil && token.ServerName == "m4" {
				listed = token.String()
			}
		}
		if listed == "" || listed == handedOut {
			t.Fatalf("the list has %q, handed out was %q", listed, handedOut)
		}
		if err := m4.Join(c.Context(), listed); err != nil {
			t.Fatal(err)
		}
		requireShown(t, c, trust.Fingerprint(next))
		c.RequireConverged()
	})
}

// A clock that all servers of a test share.
type wallClock struct{ ahead atomic.Int64 }

func (w *wallClock) now() time.Time          { return time.Now().Add(time.Duration(w.ahead.Load())) }
func (w *wallClock) turn(days time.Duration) { w.ahead.Store(int64(days * 24 * time.Hour)) }

// clocked forms a cluster on one wall clock.
func clocked(t *testing.T, size int) (*clustertest.Cluster, *wallClock) {
	c, clock := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}, new(wallClock)
	for i := range size {
		if s := c.AddServer(clustertest.WithClock(clock.now)); i == 0 {
			s.MustBootstrap()
		} else {
			s.MustJoin(c.Servers()[0])
		}
	}
	return c, clock
}

func TestClusterRenewsItsOwnCertificateAndNoOther(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, clock := clocked(t, 2)
		m1 := c.Servers()[0]
		old, err := shown(c, m1)
		if err != nil {
			t.Fatal(err)
		}
		clock.turn(9 * 365)
		<-time.After(time.Minute)
		requireShown(t, c, trust.Fingerprint(old)) // a year is left
		clock.turn(10*365 - 180)
		var next *x509.Certificate
		c.Eventually("another certificate", func() error {
			if next, err = shown(c, m1); err == nil && trust.Same(next, old) {
				err = errors.New("it is the old one")
			}
			return err
		})
		requireShown(t, c, trust.Fingerprint(next))
		if next.DNSNames[0] != old.DNSNames[0] || !next.NotAfter.After(clock.now().AddDate(9, 0, 0)) {
			t.Errorf("the new certificate is for %v until %s", next.DNSNames, next.NotAfter)
		}
		cluster := m1.View().Cluster()
		if len(cluster.Endorsements) != 1 || cluster.Supplied {
			t.Errorf("%d endorsements, supplied %t", len(cluster.Endorsements), cluster.Supplied)
		}

		// One that an administrator supplied is theirs.
		pair, err := trust.GenerateAt(clock.now(), trust.Server, "cluster.example")
		if err != nil {
			t.Fatal(err)
		}
		if err := replaceCertificate(c.Context(), m1, pair); err != nil {
			t.Fatal(err)
		}
		clock.turn(20*365 - 190)
		<-time.After(time.Minute)
		requireShown(t, c, pair.Fingerprint())
	})
}

// The leader dies when the member is gone and the key is still the old one. The wish is part of
// the removal, and the next leader fulfils it.
func TestKeyIsRotatedAlthoughTheLeaderDies(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
		var armed atomic.Bool
		left := make(chan struct{})
		once := sync.OnceFunc(func() { close(left) })
		// The replacement of the certificate is what is appended first after the member has left.
		leave := func(s *clustertest.Server) func(string) error {
			return func(point string) error {
				if v := s.View(); point == raftstore.PointAppend && armed.Load() && v != nil && v.Cluster().RotateKey {
					once()
					return errors.New("it dies here")
				}
				return nil
			}
		}
		for i := range 4 {
			s := c.AddServer(func(s *clustertest.Server) { clustertest.OnReach(leave(s))(s) })
			if i == 0 {
				s.MustBootstrap()
			} else {
				s.MustJoin(c.Servers()[0])
			}
		}
		leader := c.Leader()
		before := leader.View().Cluster().CertificateHash()
		var by, gone *clustertest.Server
		for _, s := range c.Servers() {
			if s != leader {
				by, gone = gone, s
			}
		}
		armed.Store(true)
		done := make(chan error, 1)
		go func() {
			done <- by.Do(c.Context(), "DELETE", "/1.0/cluster/members/"+gone.Host+"?rotate-key=1", nil, nil)
		}()
		<-left
		leader.Kill()
		armed.Store(false)
		if err := <-done; err != nil && !errors.Is(err, api.OutcomeUnknown) && !errors.Is(err, api.NoQuorum) {
			t.Errorf("the removal: %v", err)
		}
		c.Eventually("another key", func() error {
			if now := by.View().Cluster(); now.RotateKey || now.CertificateHash() == before || len(now.Endorsements) > 0 {
				return errors.New("it is the old one")
			}
			return nil
		})
		leader.MustStart()
		cert, err := shown(c, by)
		if err != nil {
			t.Fatal(err)
		}
		gone.Stop()
		requireShown(t, c, trust.Fingerprint(cert))
		c.RequireConverged()
	})
}

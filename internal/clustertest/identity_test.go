package clustertest_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/daemon"
	"incusd/internal/trust"
)

// loadPair is what is in a server's files. While the server replaces them, they do not fit.
func loadPair(s *clustertest.Server) (*trust.KeyPair, error) {
	return trust.Load(filepath.Join(s.Dir(), "server.crt"), filepath.Join(s.Dir(), "server.key"))
}

// ownPair is loadPair of a server that leaves its files alone.
func ownPair(t *testing.T, s *clustertest.Server) *trust.KeyPair {
	t.Helper()
	pair, err := loadPair(s)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// requireRenewed waits until each running member shows another certificate than it had, valid
// for years, and the cluster knows it and no other.
func requireRenewed(t *testing.T, c *clustertest.Cluster, clock *wallClock, former map[string]string) {
	t.Helper()
	c.Eventually("all members have renewed their certificates", func() error {
		for _, s := range c.Running() {
			pair, err := loadPair(s)
			if err != nil {
				return err
			}
			if pair.Fingerprint() == former[s.Host] || pair.Cert.NotAfter.Before(clock.now().AddDate(9, 0, 0)) {
				return fmt.Errorf("%s has %.12s until %s", s.Host, pair.Fingerprint(), pair.Cert.NotAfter)
			}
			for _, by := range c.Running() {
				m, ok := by.View().MemberByName(s.Host)
				if !ok || m.Fingerprint != pair.Fingerprint() || m.Former != "" {
					return fmt.Errorf("%s knows %s by %.12s or %.12s, it has %.12s", by.Host, s.Host, m.Fingerprint, m.Former, pair.Fingerprint())
				}
			}
		}
		return nil
	})
}

// requireWhole checks that members answer each other's calls, and that the store takes a write.
func requireWhole(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	c.Eventually("members forward to each other", func() error {
		for _, by := range c.Running() {
			if err := by.Do(c.Context(), "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{"user.by": by.Host}}, nil); err != nil {
				return fmt.Errorf("write at %s: %w", by.Host, err)
			}
			for _, s := range c.Running() {
				if err := by.Do(c.Context(), "GET", "/1.0/cluster/members/"+s.Host+"/state", nil, nil); err != nil {
					return fmt.Errorf("%s asks %s: %w", by.Host, s.Host, err)
				}
			}
		}
		return nil
	})
	c.RequireConverged()
}

func formers(t *testing.T, c *clustertest.Cluster) map[string]string {
	all := make(map[string]string)
	for _, s := range c.Servers() {
		all[s.Host] = ownPair(t, s).Fingerprint()
	}
	return all
}

// One member is away while the others renew their certificates: it knows none of the new ones, they
// know only its old one, and it is back by itself.
func TestMembersRenewTheirCertificatesWithOneAway(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, clock := clocked(t, 3)
		former := formers(t, c)
		away := c.Servers()[2]
		away.Kill()
		clock.turn(10*365 - 100)
		requireRenewed(t, c, clock, former)
		requireWhole(t, c)

		for _, s := range c.Running() { // so that nothing is left of any connection
			s.Stop()
		}
		away.MustStart()
		for _, s := range c.Servers()[:2] {
			s.MustStart()
		}
		requireRenewed(t, c, clock, former)
		requireWhole(t, c)
	})
}

// The renewing member dies after each of its steps, and goes on at its next start.
func TestRenewalIsFinishedAfterACrashAtEachStep(t *testing.T) {
	for _, point := range []string{daemon.PointIdentityNoted, daemon.PointIdentityProposed, daemon.PointIdentityAdopted} {
		t.Run(point, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c, clock := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}, new(wallClock)
				reached := make(chan struct{})
				once := sync.OnceFunc(func() { close(reached) })
				dies := func(at string) error {
					if at != point {
						return nil
					}
					once()
					return errors.New("it goes no further")
				}
				m1 := c.AddServer(clustertest.WithClock(clock.now))
				m1.MustBootstrap()
				m2 := c.AddServer(clustertest.WithClock(clock.now), clustertest.OnReach(dies))
				m2.MustJoin(m1)
				former := formers(t, c)
				clock.turn(10*365 - 100)
				<-reached
				m2.Kill()
				clustertest.OnReach(nil)(m2)
				requireStatus(t, c, map[string]string{"m1": "Online", "m2": "Online"})
				m2.MustStart()
				requireRenewed(t, c, clock, former)
				requireWhole(t, c)
			})
		})
	}
}

// Everything has expired while the servers were off. Members take each other's word all the same,
// renew their own certificates, and whoever is on the socket replaces the cluster's.
func TestExpiredCertificatesLockNobodyOut(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, clock := clocked(t, 3)
		pair := suppliedPair(t)
		if err := replaceCertificate(c.Context(), c.Servers()[0], pair); err != nil {
			t.Fatal(err)
		}
		former := formers(t, c)
		for _, s := range c.Servers() {
			s.Stop()
		}
		clock.turn(12 * 365)
		for _, s := range c.Servers() {
			s.MustStart()
		}
		m2 := c.Servers()[1]
		requireRenewed(t, c, clock, former)
		requireWhole(t, c)
		requireShown(t, c, pair.Fingerprint()) // it is the administrator's
		findings := findingCodes(t, m2)
		if !findings["certificate_expired"] {
			t.Errorf("incus cluster doctor finds %v", findings)
		}

		next, err := trust.GenerateAt(clock.now(), trust.Server, "cluster.example")
		if err != nil {
			t.Fatal(err)
		}
		if err := replaceCertificate(c.Context(), m2, next); err != nil {
			t.Fatal(err)
		}
		requireShown(t, c, next.Fingerprint())
		requireWhole(t, c)
		if findings := findingCodes(t, m2); findings["certificate_expired"] {
			t.Error("incus cluster doctor still finds an expired certificate")
		}
		m4 := c.AddServer(clustertest.WithClock(clock.now))
		m4.MustJoin(m2)
	})
}

func findingCodes(t *testing.T, by *clustertest.Server) map[string]bool {
	t.Helper()
	var diagnosis api.Diagnosis
	if err := by.Do(by.C.Context(), "GET", "/internal/cluster/doctor", nil, &diagnosis); err != nil {
		t.Fatal(err)
	}
	codes := make(map[string]bool)
	for _, f := range diagnosis.Findings {
		codes[f.Code] = true
	}
	return codes
}

// A standalone server's certificate is replaced by hand, and still leads from the former one.
func TestStandaloneServerGetsAnotherCertificate(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
		s := c.AddServer()
		if err := s.Do(c.Context(), "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{"core.https_address": s.Address()}}, nil); err != nil {
			t.Fatal(err)
		}
		old, err := shown(c, s)
		if err != nil {
			t.Fatal(err)
		}
		pair, other := suppliedPair(t), suppliedPair(t)
		put := func(cert, key []byte) error {
			return s.Do(c.Context(), "PUT", "/internal/server-certificate", api.ServerCertificatePut{Certificate: string(cert), Key: api.Secret(key)}, nil)
		}
		if err := put(pair.CertPEM, other.KeyPEM); !errors.Is(err, api.CertInvalid) {
			t.Errorf("another's key: %v", err)
		}
		for range 2 {
			if err := put(pair.CertPEM, pair.KeyPEM); err != nil {
				t.Fatal(err)
			}
		}
		if cert, err := shown(c, s); err != nil || trust.Fingerprint(cert) != pair.Fingerprint() || ownPair(t, s).Fingerprint() != pair.Fingerprint() {
			t.Errorf("it shows %v, %v", cert, err)
		}
		r := newRemote(c, s, old)
		defer r.Close()
		if _, _, err := r.Server(c.Context()); err != nil || r.kept() != pair.Fingerprint() {
			t.Errorf("the remote: %v", err)
		}
		// It is the same server after a restart, and can form a cluster and let others in.
		s.Kill()
		s.MustStart()
		s.MustBootstrap()
		if err := put(other.CertPEM, other.KeyPEM); err == nil || err.Error() != "Server certificate updates aren't supported in clusters" {
			t.Errorf("in a cluster: %v", err)
		}
		m2 := c.AddServer()
		m2.MustJoin(s)
		<-time.After(time.Second)
		requireWhole(t, c)
	})
}

package clustertest_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
)

// warnings lists those that s shows.
func warnings(s *clustertest.Server) ([]api.Warning, error) {
	var all []api.Warning
	return all, s.Do(s.C.Context(), "GET", "/1.0/warnings?recursion=1", nil, &all)
}

// requireWarning waits until all running members show one warning of that status, and returns it.
func requireWarning(c *clustertest.Cluster, kind, status string) api.Warning {
	c.T.Helper()
	var found api.Warning
	c.Eventually(fmt.Sprintf("all show a warning %q, %s", kind, status), func() error {
		for _, s := range c.Running() {
			all, err := warnings(s)
			if err != nil {
				return err
			}
			if len(all) != 1 || all[0].Type != kind || all[0].Status != status || found.UUID != "" && all[0].UUID != found.UUID {
				return fmt.Errorf("%s shows %+v", s.Host, all)
			}
			found = all[0]
		}
		return nil
	})
	return found
}

func TestAWarningIsTheSameFromEveryMemberAndEveryLeader(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		m1, m2, m3 := c.Servers()[0], c.Servers()[1], c.Servers()[2]
		m3.Kill()
		w := requireWarning(c, "Offline cluster member", api.WarningNew)
		if w.Location != "m3" || w.Severity != api.WarningLow || w.EntityURL != "/1.0/cluster/members/m3" {
			t.Errorf("the warning is %+v", w)
		}
		if err := m2.Do(c.Context(), "PUT", "/1.0/warnings/"+w.UUID, api.WarningPut{Status: api.WarningAcknowledged}, nil); err != nil {
			t.Fatal(err)
		}
		next := m1
		if c.Leader() == m1 {
			next = m2
		}
		if err := m1.Do(c.Context(), "POST", "/internal/cluster/transfer-leader", api.ClusterLeader{Member: next.Host}, nil); err != nil {
			t.Fatal(err)
		}
		if got := c.Leader(); got != next {
			t.Fatalf("%s leads", got.Host)
		}
		<-time.After(time.Minute)
		if again := requireWarning(c, w.Type, api.WarningAcknowledged); again.UUID != w.UUID || again.Count != 1 {
			t.Errorf("with another leader it is %+v", again)
		}
		m3.MustStart()
		requireWarning(c, w.Type, api.WarningResolved)
		c.RequireConverged()
	})
}

// Long before the certificate that clients see ends there is a warning; after its end whoever may open
// the unix socket does everything as before.
func TestAnExpiredCertificateWarnsAndKeepsNoAdministratorOut(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
		var ahead atomic.Int64
		for i := range 3 {
			s := c.AddServer(clustertest.WithClock(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }))
			if i == 0 {
				s.MustBootstrap()
			} else {
				s.MustJoin(c.Servers()[0])
			}
		}
		pair := suppliedPair(t)
		if err := replaceCertificate(c.Context(), c.Servers()[1], pair); err != nil {
			t.Fatal(err)
		}
		c.RequireConverged()
		for _, s := range c.Servers() {
			if all, err := warnings(s); err != nil || len(all) > 0 {
				t.Fatalf("%s shows %+v, %v", s.Host, all, err)
			}
		}
		const day = 24 * time.Hour
		ahead.Store(int64(time.Until(pair.Cert.NotAfter) - 100*day))
		<-time.After(time.Minute) // the members renew their own certificates
		ahead.Add(int64(70 * day))
		w := requireWarning(c, "Cluster certificate expires", api.WarningNew)
		if w.Severity != api.WarningModerate || !strings.Contains(w.LastMessage, "incus cluster update-certificate") {
			t.Errorf("before the end it is %+v", w)
		}
		ahead.Add(int64(31 * day))
		c.Eventually("it is worse", func() error {
			if w = requireWarning(c, w.Type, api.WarningNew); w.Severity != api.WarningHigh {
				return fmt.Errorf("%+v", w)
			}
			return nil
		})
		for i, s := range c.Servers() {
			if err := set(s, "user.day", fmt.Sprint(i)); err != nil {
				t.Errorf("on the socket of %s: %v", s.Host, err)
			}
		}
		next := suppliedPair(t)
		ahead.Store(0)
		if err := replaceCertificate(c.Context(), c.Servers()[2], next); err != nil {
			t.Fatal(err)
		}
		requireWarning(c, w.Type, api.WarningResolved)
		c.RequireConverged()
		for _, s := range c.Servers() {
			s.Stop()
		}
	})
}

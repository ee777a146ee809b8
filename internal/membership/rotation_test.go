package membership

import (
	"testing"
	"time"

	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

func TestRenewalIsDueHalfAYearBeforeTheEndOfAnOwnCertificate(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pair, err := trust.GenerateAt(now, trust.Server)
	if err != nil {
		t.Fatal(err)
	}
	own := state.Cluster{Certificate: string(pair.CertPEM)}
	supplied := own
	supplied.Supplied = true
	ends := pair.Cert.NotAfter
	for _, test := range []struct {
		name string
		c    state.Cluster
		at   time.Time
		want bool
	}{
		{"new", own, now, false},
		{"the moment before", own, ends.Add(-renewBefore), false},
		{"the moment", own, ends.Add(-renewBefore + time.Second), true},
		{"expired", own, ends.AddDate(1, 0, 0), true},
		{"an administrator's", supplied, ends.AddDate(1, 0, 0), false},
		{"none", state.Cluster{}, now, false},
	} {
		if got := renewalDue(test.c, test.at); got != test.want {
			t.Errorf("%s: due %t", test.name, got)
		}
	}
}

func TestSuppliedCertificateIsWorthAWordTwoMonthsBeforeItsEnd(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pair, err := trust.GenerateAt(now, trust.Server)
	if err != nil {
		t.Fatal(err)
	}
	supplied := state.Cluster{Certificate: string(pair.CertPEM), Supplied: true}
	ends := pair.Cert.NotAfter
	for _, test := range []struct {
		name string
		c    state.Cluster
		at   time.Time
		want bool
	}{
		{"new", supplied, now, false},
		{"two months before", supplied, ends.Add(-warnBefore), false},
		{"a moment later", supplied, ends.Add(-warnBefore + time.Second), true},
		{"expired", supplied, ends.AddDate(1, 0, 0), true},
		{"the cluster's own", state.Cluster{Certificate: string(pair.CertPEM)}, ends.AddDate(1, 0, 0), false},
		{"none", state.Cluster{Supplied: true}, now, false},
	} {
		if at, got := suppliedEnds(test.c, test.at); got != test.want || got && !at.Equal(ends) {
			t.Errorf("%s: %t, %s", test.name, got, at)
		}
	}
}

package tokens

import (
	"strings"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

func TestNetworkOfAnAddress(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "::ffff:192.0.2.1", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64", "@": "@",
	} {
		if got := network(source); got != want {
			t.Errorf("%s: %s", source, got)
		}
	}
}

func TestPasswordIsCountedBeforeItIsLookedAt(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	requireReason(t, s.Verify(t.Context(), "192.0.2.1", "x"), api.PasswordUnset)
	c.must(state.KindConfigSet, state.ConfigSet{Set: map[string]string{passwordKey: trust.HashPassword("open sesame")}})
	for range 20 { // one that is right costs nothing
		if err := s.Verify(t.Context(), "192.0.2.1", "open sesame"); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		requireReason(t, s.Verify(t.Context(), "192.0.2.1", "wrong guess"), api.PasswordWrong)
	}
	before := c.index
	requireReason(t, s.Verify(t.Context(), "192.0.2.1", "open sesame"), api.TooMany)
	if c.index != before {
		t.Error("a refused attempt is written to the log of the cluster")
	}
	if err := s.Verify(t.Context(), "192.0.2.2", "open sesame"); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
	c.now = c.now.Add(time.Minute)
	if err := s.Verify(t.Context(), "192.0.2.1", "open sesame"); err != nil {
		t.Errorf("a minute later: %v", err)
	}
	if logs := c.logs.String(); strings.Contains(logs, "sesame") || strings.Contains(logs, "wrong guess") || strings.Contains(logs, "argon2") {
		t.Errorf("the logs have a password: %s", logs)
	}
}

func TestPasswordGrantsAClaimForOneKey(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	pair := c.newPair()
	token, err := s.Grant(t.Context(), "node2", pair.Cert, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token.Secret != "" || token.ClaimedBy != pair.Fingerprint() || token.Name != "node2" {
		t.Errorf("%+v", token)
	}
	if _, err := s.Grant(t.Context(), "node2", pair.Cert, true, nil); err != nil {
		t.Errorf("the same server again: %v", err)
	}
	_, err = s.Grant(t.Context(), "node2", c.newPair().Cert, true, nil)
	requireReason(t, err, api.TokenClaimed)
	_, err = s.Grant(t.Context(), "node1", c.newPair().Cert, true, nil)
	requireReason(t, err, api.NameTaken)
	_, err = s.Grant(t.Context(), "a b", c.newPair().Cert, true, nil)
	requireReason(t, err, api.NameInvalid)
}

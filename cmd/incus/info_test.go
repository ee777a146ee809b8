package main

import (
	"strings"
	"testing"

	"incusd/api"
)

func TestTargetNeedsACluster(t *testing.T) {
	s := clustered(t)
	s.mustRun(t, "", "config", "get", "user.x", "--target", "node3")
	s.mustAsk(t, "GET /1.0", "GET /1.0?target=node3")
	standalone(t, nil).mustFail(t, "Error: To use --target, the destination remote must be a cluster\n"+
		"Hint: form a cluster first: incus admin init, or incus cluster enable NAME\n", "", "info", "--target", "node3")
}

func TestInfoHidesSecrets(t *testing.T) {
	s := standalone(t, api.ConfigMap{"user.api.token": "abc", "acme.eab.hmac": "x", "user.tokens": "3"})
	got := s.mustRun(t, "", "info")
	for _, line := range []string{"  user.api.token: SENSITIVE\n", "  acme.eab.hmac: SENSITIVE\n", "  user.tokens: \"3\"\n"} {
		if !strings.Contains(got, line) {
			t.Errorf("no %q in:\n%s", line, got)
		}
	}
}

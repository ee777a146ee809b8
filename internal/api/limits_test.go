package api

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// guess is a redemption of a token that does not exist, for a server's certificate.
func (b *bed) guess(name string) api.CertificatesPost {
	unknown := *b.issue(name)
	unknown.Secret = "00"
	return redemption(&unknown, newPair(b.t, trust.Server).Cert)
}

func TestAttemptsOfStrangersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no time passes
		b := newCluster(t, "node1")
		post := request{method: "POST", path: "/1.0/certificates", body: b.guess("node2"), stranger: true, from: "192.0.2.1:1000"}
		for range sourceAttempts.burst {
			wantRefusal(t, b.do(post), 403, api.TokenUnknown, "No matching cluster join operation found")
		}
		wantRefusal(t, b.do(post), 429, api.TooMany, "Too many attempts to use a token")
		post.from = "192.0.2.1:1001"
		wantRefusal(t, b.do(post), 429, api.TooMany, "Too many attempts to use a token")
		post.from = "192.0.2.2:1000" // has a share of its own
		wantRefusal(t, b.do(post), 403, api.TokenUnknown, "No matching cluster join operation found")

		// What cannot be a token costs nothing, and administrators do not pay for strangers.
		broken := request{method: "POST", path: "/1.0/certificates", body: `{"trust_token":"x"}`, stranger: true, from: "192.0.2.1:1000"}
		wantRefusal(t, b.do(broken), 403, api.NotAuthorized, "not authorized")
		own := request{method: "POST", path: "/1.0/certificates", body: b.guess("node2")}
		wantRefusal(t, b.do(own), 403, api.TokenUnknown, "No matching cluster join operation found")
	})
}

func TestStrangersDoNotKeepServersFromJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCluster(t, "node1")
		guess := b.guess("node3")
		var last *request
		for i := range allAttempts.burst + 1 { // each from its own address
			last = &request{method: "POST", path: "/1.0/certificates", body: guess, stranger: true, from: fmt.Sprintf("192.0.%d.%d:1", i/250, i%250)}
			b.do(*last)
		}
		wantRefusal(t, b.do(*last), 429, api.TooMany, "Too many attempts to use a token")

		token, pair := b.issue("node2"), newPair(t, trust.Server)
		text := tokens.Text(token).String()
		wait := request{method: "GET", path: operationURL(token.Operation) + "/wait?timeout=0&secret=" + token.Secret, stranger: true, from: last.from}
		preflight := request{
			method: "POST", path: "/internal/cluster/join/preflight", body: map[string]any{"token": text}, stranger: true, from: last.from,
		}
		claim := request{method: "POST", path: "/1.0/certificates", body: redemption(token, nil), cert: pair.Cert, from: last.from}
		abort := request{method: "POST", path: "/internal/cluster/join/abort", body: `{"id":""}`, cert: pair.Cert, from: last.from}
		for _, req := range []request{wait, preflight, claim, abort} {
			if w := b.do(req); w.Code >= 300 {
				t.Errorf("%s: %s", req.path, w.Body)
			}
		}
		// A token that is revoked is no better than none.
		if err := b.server.cfg.Tokens.Revoke(t.Context(), token.Operation, nil); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, b.do(preflight), 429, api.TooMany, "Too many attempts to use a token")
	})
}

func TestUsesOfOneTokenAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCluster(t, "node1")
		preflight := func(name string) request {
			body := map[string]any{"token": tokens.Text(b.issue(name)).String()}
			return request{method: "POST", path: "/internal/cluster/join/preflight", body: body, stranger: true}
		}
		first, second := preflight("node2"), preflight("node3")
		for range tokenAttempts.burst {
			b.do(first)
		}
		wantRefusal(t, b.do(first), 429, api.TooMany, "Too many attempts to use a token")
		if w := b.do(second); w.Code != http.StatusOK {
			t.Errorf("the other token: %s", w.Body)
		}
	})
}

func TestStepsOfOneJoinAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCluster(t, "node1")
		first, second := b.joiner("node2"), b.joiner("node3")
		admit := request{method: "POST", path: "/internal/cluster/join/admit", cert: first, body: map[string]any{
			"id": "0b0b0b0b-0000-4000-8000-000000000002", "name": "node2", "address": "10.0.0.2", "architecture": "x86_64",
			"command_version": state.CommandVersion,
		}}
		for range joinSteps.burst {
			if w := b.do(admit); w.Code != http.StatusOK {
				t.Fatalf("got %s", w.Body)
			}
		}
		wantRefusal(t, b.do(admit), 429, api.TooMany, "Too many attempts to join")
		abort := request{method: "POST", path: "/internal/cluster/join/abort", body: `{"id":""}`, cert: second}
		if w := b.do(abort); w.Code != http.StatusOK {
			t.Errorf("the other server: %s", w.Body)
		}
	})
}

func TestSharesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares(allowance{1, 1})
		if !s.allow("a") || s.allow("a") {
			t.Error("not one")
		}
		for i := range maxShares / 2 {
			s.allow(fmt.Sprint(i))
		}
		if s.allow("a") {
			t.Error("a key that was used lately is forgotten")
		}
		for i := range 3 * maxShares {
			s.allow(fmt.Sprint(i))
		}
		if n := len(s.young) + len(s.old); n > maxShares {
			t.Errorf("%d keys are remembered", n)
		}
	})
}

func TestSource(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:8443": "192.0.2.1", "192.0.2.1": "192.0.2.1", "[::ffff:192.0.2.1]:1": "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64", "[fe80::1%eth0]:1": "fe80::/64", "pipe": "pipe", "": "",
	} {
		if got := Source(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

// A bearer token that nobody signed costs the check of a signature.
func TestForgedBearerTokensAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no time passes
		b := newCluster(t, "node1")
		client := newPair(t, trust.Client)
		b.mustPropose(state.KindCertificateAdd, state.CertificateAdd{Certificate: state.Certificate{
			Fingerprint: client.Fingerprint(), Name: "ci", Type: api.CertificateClient, PEM: string(client.CertPEM), AddedAt: b.clock.UTC(),
		}})
		good := bearerText(t, client, b.clock.Add(time.Hour))
		use := func(token, from string) int {
			header := map[string]string{"Authorization": "Bearer " + token}
			return b.do(request{method: "GET", path: "/1.0/cluster", stranger: true, header: header, from: from}).Code
		}
		for range 2 * sourceForgeries.burst { // what is signed is not counted
			if code := use(good, "192.0.2.1:1"); code != 200 {
				t.Fatalf("status %d", code)
			}
		}
		for range sourceForgeries.burst {
			use(good[:len(good)-4]+"AAAA", "192.0.2.1:1")
		}
		if code := use(good, "192.0.2.1:2"); code != 403 {
			t.Errorf("there is no limit: %d", code)
		}
		if code := use(good, "192.0.2.2:1"); code != 200 {
			t.Errorf("another place pays for it: %d", code)
		}
		time.Sleep(time.Second)
		if code := use(good, "192.0.2.1:1"); code != 200 {
			t.Errorf("a second later: %d", code)
		}
	})
}

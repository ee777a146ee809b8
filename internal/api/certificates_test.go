package api

import (
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// redemption is what the upstream client sends to redeem a join token.
func redemption(token *state.Token, cert *x509.Certificate) api.CertificatesPost {
	post := api.CertificatesPost{Name: token.Name, Type: "server", TrustToken: tokens.Text(token).String()}
	if cert != nil {
		post.Certificate = base64.StdEncoding.EncodeToString(cert.Raw)
	}
	return post
}

func (b *bed) redeem(post api.CertificatesPost, cert *x509.Certificate) (status int, reason api.Reason, text string) {
	b.t.Helper()
	w := b.do(request{method: "POST", path: "/1.0/certificates", body: post, cert: cert, stranger: true})
	e := envelope(b.t, w)
	var details api.ErrorMetadata
	if w.Code >= 400 {
		details = metadata[api.ErrorMetadata](b.t, w, w.Code)
	}
	return w.Code, details.Reason, e.Error
}

func TestTokenIsRedeemedForAServerOnce(t *testing.T) {
	b := newCluster(t, "node1")
	token, first, second := b.issue("node2"), newPair(t, trust.Server).Cert, newPair(t, trust.Server).Cert
	for range 2 { // the same server may come again: its answer may have been lost
		if status, _, text := b.redeem(redemption(token, first), nil); status != http.StatusCreated {
			t.Fatalf("got %d %s", status, text)
		}
	}
	if status, reason, _ := b.redeem(redemption(token, second), nil); reason != api.TokenClaimed {
		t.Errorf("the second server: %d %s", status, reason)
	}
	b.wantKind("the first", first, Joiner)
	b.wantKind("the second", second, Stranger)
}

func TestTokenIsRedeemedForTheCertificateOfTheConnection(t *testing.T) {
	b := newCluster(t, "node1")
	token, cert, other := b.issue("node2"), newPair(t, trust.Server).Cert, newPair(t, trust.Server).Cert
	if status, reason, text := b.redeem(redemption(token, other), cert); reason != api.CertInvalid {
		t.Errorf("another certificate in the body: %d %s %s", status, reason, text)
	}
	if status, _, text := b.redeem(redemption(token, nil), cert); status != http.StatusCreated {
		t.Errorf("none in the body: %d %s", status, text)
	}
	b.wantKind("the connection's", cert, Joiner)
}

// A certificate is no secret: who shows only that must not move another's claim.
func TestOnlyWhoHasTheKeyChangesToAnotherToken(t *testing.T) {
	b := newCluster(t, "node1")
	first, second, cert := b.issue("node2"), b.issue("node3"), newPair(t, trust.Server).Cert
	if status, _, text := b.redeem(redemption(first, cert), cert); status != http.StatusCreated {
		t.Fatal(text)
	}
	if status, reason, text := b.redeem(redemption(second, cert), nil); reason != api.CertTaken {
		t.Errorf("without the key: %d %s %s", status, reason, text)
	}
	if status, _, text := b.redeem(redemption(second, cert), cert); status != http.StatusCreated {
		t.Errorf("with the key: %d %s", status, text)
	}
}

func TestTokenDoesNoMoreThanAdmitItsServer(t *testing.T) {
	b := newCluster(t, "node1")
	token, cert := b.issue("node2"), newPair(t, trust.Server).Cert
	expired, err := trust.GenerateAt(time.Now().AddDate(-20, 0, 0), trust.Server)
	if err != nil {
		t.Fatal(err)
	}
	unknown := *token
	unknown.Secret = "00"
	tests := map[string]struct {
		change func(*api.CertificatesPost)
		reason api.Reason
	}{
		"client":          {func(p *api.CertificatesPost) { p.Type = "client" }, api.NotAuthorized},
		"metrics":         {func(p *api.CertificatesPost) { p.Type = "metrics" }, api.NotAuthorized},
		"another name":    {func(p *api.CertificatesPost) { p.Name = "node3" }, api.TokenWrongName},
		"no certificate":  {func(p *api.CertificatesPost) { p.Certificate = "" }, api.BadRequest},
		"broken":          {func(p *api.CertificatesPost) { p.Certificate = "x" }, api.CertInvalid},
		"expired":         {func(p *api.CertificatesPost) { p.Certificate = string(expired.CertPEM) }, api.CertInvalid},
		"unknown token":   {func(p *api.CertificatesPost) { p.TrustToken = tokens.Text(&unknown).String() }, api.TokenUnknown},
		"malformed token": {func(p *api.CertificatesPost) { p.TrustToken = "x" }, api.NotAuthorized},
		"no token":        {func(p *api.CertificatesPost) { p.TrustToken = "" }, api.NotAuthorized},
		"a member's own":  {func(p *api.CertificatesPost) { p.Certificate = string(b.own.CertPEM) }, api.CertTaken},
		"token for one":   {func(p *api.CertificatesPost) { p.TrustToken, p.Token = "", true }, api.NotAuthorized},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			post := redemption(token, cert)
			test.change(&post)
			if status, reason, text := b.redeem(post, nil); reason != test.reason {
				t.Errorf("got %d %s %s, want %s", status, reason, text, test.reason)
			}
		})
	}
	if status, _, text := b.redeem(redemption(token, cert), nil); status != http.StatusCreated {
		t.Errorf("after all that the token is gone: %d %s", status, text)
	}
	if got := get[[]api.Certificate](b, "/1.0/certificates?recursion=1"); len(got) != 1 {
		t.Errorf("trust store %+v", got)
	}
}

func TestClientCertificates(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	pair := newPair(t, trust.Client)
	post := request{method: "POST", path: "/1.0/certificates", body: api.CertificatesPost{Name: "laptop", Type: "client", Certificate: string(pair.CertPEM)}}
	w := b.do(post)
	if w.Code != http.StatusCreated || w.Header().Get("Location") != "/1.0/certificates/"+pair.Fingerprint() || string(envelope(t, w).Metadata) != "null" {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	wantRefusal(t, b.do(post), 409, api.CertTaken, "Certificate already in trust store")
	if got := get[[]string](b, "/1.0/certificates"); len(got) != 3 {
		t.Errorf("got %v", got)
	}
	path := "/1.0/certificates/" + pair.Fingerprint()[:12]
	if got := get[api.Certificate](b, path); got.Name != "laptop" || got.Type != "client" || got.Projects == nil {
		t.Errorf("got %+v", got)
	}
	if got := get[api.Certificate](b, "/1.0/certificates/"+b.member("node2").Fingerprint); got.Name != "node2" || got.Type != "server" {
		t.Errorf("got %+v", got)
	}
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/certificates/" + b.member("node2").Fingerprint}), 409, api.Conflict, `that of cluster member "node2"`)
	if w := b.do(request{method: "DELETE", path: path}); w.Code != http.StatusOK {
		t.Errorf("got %s", w.Body)
	}
	wantRefusal(t, b.do(request{method: "GET", path: path}), 404, api.NotFound, "Certificate not found")

	for body, want := range map[string]struct {
		status int
		reason api.Reason
		text   string
	}{
		`{"token":true,"certificate":"x"}`:     {400, api.BadRequest, "Can't use certificate if token is requested"},
		`{"token":true,"type":"server"}`:       {400, api.BadRequest, "Tokens can only be issued for client certificates"},
		`{"token":true,"type":"client"}`:       {400, api.BadRequest, "A client name is required"},
		`{"type":"client"}`:                    {400, api.BadRequest, "Client is already trusted"},
		`{"type":"","certificate":"x"}`:        {400, api.BadRequest, "Invalid certificate type"},
		`{"type":"server","certificate":"x"}`:  {403, api.NotAuthorized, "by joining the cluster"},
		`{"type":"client","certificate":"x"}`:  {400, api.CertInvalid, ""},
		`{"type":"metrics","certificate":"x"}`: {400, api.CertInvalid, ""},
	} {
		wantRefusal(t, b.do(request{method: "POST", path: "/1.0/certificates", body: body}), want.status, want.reason, want.text)
	}
}

func TestJoinCallsReachTheCluster(t *testing.T) {
	b := newCluster(t, "node1")
	token, pair := b.issue("node2"), newPair(t, trust.Server)
	b.probed.fingerprint = pair.Fingerprint()
	preflight := map[string]any{
		"token": tokens.Text(token).String(), "name": "node2", "address": "10.0.0.2", "certificate": string(pair.CertPEM), "command_version": state.CommandVersion,
	}
	report := metadata[map[string]any](t, b.do(request{method: "POST", path: "/internal/cluster/join/preflight", body: preflight, stranger: true}), 200)
	if problems, _ := report["problems"].([]any); report["name"] != "node2" || len(problems) > 0 {
		t.Errorf("report %v", report)
	}
	if status, _, text := b.redeem(redemption(token, pair.Cert), nil); status != http.StatusCreated {
		t.Fatal(text)
	}
	admit := map[string]any{
		"id": "0b0b0b0b-0000-4000-8000-000000000002", "name": "node2", "address": "10.0.0.2", "architecture": "x86_64", "command_version": state.CommandVersion,
	}
	admission := metadata[map[string]any](t, b.do(request{method: "POST", path: "/internal/cluster/join/admit", body: admit, cert: pair.Cert}), 200)
	if admission["member_id"] != admit["id"] || admission["key"] != string(b.pair.KeyPEM) {
		t.Errorf("admission of %v", admission["member_id"])
	}
	abort := map[string]any{"id": admit["id"]}
	result := metadata[state.AbortResult](t, b.do(request{method: "POST", path: "/internal/cluster/join/abort", body: abort, cert: pair.Cert}), 200)
	if result.Active {
		t.Error("a join that was not finished succeeded")
	}
	b.wantKind("after the abort", pair.Cert, Stranger)
	if status, _, text := b.redeem(redemption(token, pair.Cert), nil); status != http.StatusCreated {
		t.Errorf("the token is gone: %s", text)
	}
}

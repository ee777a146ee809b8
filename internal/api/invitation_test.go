package api

import (
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// invitation asks for a certificate add token as the upstream client does, and assembles it.
func (b *bed) invitation(body string) (*api.CertificateAddToken, api.Operation) {
	b.t.Helper()
	op := metadata[api.Operation](b.t, b.do(request{method: "POST", path: "/1.0/certificates", body: body}), http.StatusAccepted)
	token, err := op.CertificateAddToken()
	if err != nil {
		b.t.Fatal(err)
	}
	return token, op
}

func redeemBy(token *api.CertificateAddToken, cert *x509.Certificate) request {
	return request{method: "POST", path: "/1.0/certificates", cert: cert,
		body: map[string]any{"name": "mine", "type": "client", "restricted": false, "projects": []string{"other"}, "trust_token": token.String()}}
}

func TestInvitationHasUpstreamsShape(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	b.mustPropose(state.KindProjectCreate, state.ProjectCreate{Project: state.Project{Name: "web"}})
	token, op := b.invitation(`{"name":"laptop","type":"client","restricted":true,"projects":["web"],"token":true}`)
	_, fingerprint := b.server.cfg.Certificate()
	if token.ClientName != "laptop" || token.Fingerprint != fingerprint || token.Addresses[0] != "10.0.0.1:8443" || len(token.Secret) != 64 || !token.ExpiresAt.IsZero() {
		t.Errorf("token %+v", token)
	}
	if len(token.Addresses) != 2 {
		t.Errorf("the token names %v, and any member honours it", token.Addresses)
	}
	if _, ok := op.Metadata["expiresAt"]; ok || op.Class != api.OperationClassToken || op.Description != "Executing operation" || op.Status != "Running" || !op.MayCancel {
		t.Errorf("operation %+v", op)
	}
	if op.Resources == nil || len(op.Resources) != 0 {
		t.Errorf("resources %v, want {}", op.Resources)
	}
	request := op.Metadata["request"].(map[string]any)
	if request["name"] != "laptop" || request["restricted"] != true || request["token"] != true || len(request["projects"].([]any)) != 1 {
		t.Errorf("request %v", request)
	}
	b.mustPropose(state.KindConfigSet, state.ConfigSet{Set: map[string]string{"core.remote_token_expiry": "1H"}})
	limited, op := b.invitation(`{"name":"laptop","type":"client","projects":null,"token":true}`)
	if !limited.ExpiresAt.Equal(b.clock.Add(time.Hour)) {
		t.Errorf("expires at %v", limited.ExpiresAt)
	}
	if list, ok := op.Metadata["request"].(map[string]any)["projects"].([]any); !ok || len(list) != 0 {
		t.Errorf("projects are %v, not an empty list", list)
	}
	b.clock = b.clock.Add(time.Hour)
	wantRefusal(t, b.do(redeemBy(limited, newPair(t, trust.Client).Cert)), 403, api.TokenExpired, "Certificate add token has expired")
	if w := b.do(redeemBy(token, newPair(t, trust.Client).Cert)); w.Code != http.StatusCreated {
		t.Errorf("one without an end: %s", w.Body)
	}
}

func TestInvitationIsRedeemedOnce(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	other := b.secondServer("node2")
	token, op := b.invitation(`{"name":"laptop","type":"client","restricted":true,"projects":["default"],"token":true}`)
	client, late := newPair(t, trust.Client).Cert, newPair(t, trust.Client).Cert
	wantRefusal(t, b.do(request{method: "POST", path: "/1.0/certificates", stranger: true, body: redeemBy(token, nil).body}), 400, api.BadRequest, "No client certificate provided")
	wantRefusal(t, b.do(request{method: "POST", path: "/1.0/certificates", body: redeemBy(token, nil).body}), 400, api.BadRequest, "Can't use TLS data on non-TLS link")
	wantRefusal(t, b.do(redeemBy(token, b.trustClient(false))), 400, api.BadRequest, "Client is already trusted")
	wantRefusal(t, b.do(redeemBy(token, b.trustClient(true))), 409, api.CertTaken, "already in trust store")
	wantRefusal(t, b.do(redeemBy(token, b.certificate("node2"))), 409, api.CertTaken, "already in trust store")
	// None of these has burned it. It is redeemed with another member than the one that issued it.
	w := other.do(redeemBy(token, client))
	if w.Code != http.StatusCreated || w.Header().Get("Location") != "/1.0/certificates/"+trust.Fingerprint(client) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	added := get[api.Certificate](b, "/1.0/certificates/"+trust.Fingerprint(client))
	if added.Name != "laptop" || added.Type != "client" || !added.Restricted || len(added.Projects) != 1 || added.Projects[0] != "default" {
		t.Errorf("certificate %+v", added)
	}
	b.wantKind("after the redemption", client, RestrictedClient)
	if w := b.do(redeemBy(token, client)); w.Code != http.StatusCreated {
		t.Errorf("again, since the answer was lost: %s", w.Body)
	}
	wantRefusal(t, b.do(redeemBy(token, late)), 403, api.TokenUsed, "Certificate add token has been used")
	wrong := *token
	wrong.Secret = strings.Repeat("0", 64)
	wantRefusal(t, b.do(redeemBy(&wrong, late)), 403, api.TokenUnknown, "No matching certificate add operation found")
	b.wantKind("who came late", late, Stranger)

	if ended := get[api.Operation](b, "/1.0/operations/"+op.ID); ended.Status != "Success" || ended.Metadata["secret"] != nil {
		t.Errorf("operation %+v", ended)
	}
	revoked, op := b.invitation(`{"name":"desk","type":"client","token":true}`)
	if w := other.do(request{method: "DELETE", path: "/1.0/operations/" + op.ID}); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	wantRefusal(t, b.do(redeemBy(revoked, late)), 403, api.TokenRevoked, "Certificate add token has been revoked")
}

func TestInvitationsAreForAdministrators(t *testing.T) {
	b := newCluster(t, "node1")
	_, op := b.invitation(`{"name":"laptop","type":"client","token":true}`)
	restricted := b.trustClient(true, "default")
	ask := request{method: "POST", path: "/1.0/certificates", body: `{"name":"x","type":"client","token":true}`}
	for _, cert := range []*x509.Certificate{restricted, b.trustMetrics(), newPair(t, trust.Client).Cert} {
		ask.cert = cert
		wantRefusal(t, b.do(ask), 403, api.NotAuthorized, "")
	}
	for _, path := range []string{"/1.0/operations?recursion=1", "/1.0/operations/" + op.ID} {
		if w := b.do(request{method: "GET", path: path, cert: restricted}); strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s shows a restricted client %s", path, w.Body)
		}
	}
	b.settings.values["core.https_address"] = ""
	wantRefusal(t, b.do(request{method: "POST", path: "/1.0/certificates", body: ask.body}), 400, api.BadRequest, "isn't listening on network")
}

// What opens a door for a server opens none for a client, and the other way round.
func TestTokensOfOneKindAreNothingToTheOther(t *testing.T) {
	b := newCluster(t, "node1")
	invitation, _ := b.invitation(`{"name":"node2","type":"client","token":true}`)
	join := b.issue("node2")
	asJoin := api.ClusterMemberJoinToken{ServerName: "node2", Fingerprint: invitation.Fingerprint, Addresses: invitation.Addresses, Secret: invitation.Secret}
	asInvitation := api.CertificateAddToken{ClientName: "node2", Fingerprint: join.Fingerprint, Addresses: join.Addresses, Secret: join.Secret}
	for _, text := range []string{asJoin.String(), asInvitation.String()} {
		body := map[string]any{"trust_token": text}
		wantRefusal(t, b.do(request{method: "POST", path: "/1.0/certificates", cert: newPair(t, trust.Client).Cert, body: body}), 403, api.TokenUnknown, "")
	}
}

func TestCertificatesAreChanged(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	b.mustPropose(state.KindProjectCreate, state.ProjectCreate{Project: state.Project{Name: "web"}})
	cert := b.trustClient(true, "default")
	path := "/1.0/certificates/" + trust.Fingerprint(cert)
	change := func(method, body string, etag string) request {
		return request{method: method, path: path, body: body, header: map[string]string{"If-Match": etag}}
	}
	w := b.do(request{method: "GET", path: path})
	etag := w.Header().Get("ETag")
	if w := b.do(change("PATCH", `{"description":"mine","projects":["default","web"]}`, etag)); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	wantRefusal(t, b.do(change("PATCH", `{"description":"theirs"}`, etag)), 412, api.PreconditionFail, "ETag doesn't match")
	if got := get[api.Certificate](b, path); got.Description != "mine" || len(got.Projects) != 2 || got.Name != "laptop" || !got.Restricted {
		t.Errorf("certificate %+v", got)
	}
	if w := b.do(change("PUT", `{"name":"desk","type":"client","restricted":false,"projects":null,"certificate":""}`, "")); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	got := get[api.Certificate](b, path)
	if got.Name != "desk" || got.Restricted || got.Projects == nil || len(got.Projects) != 0 || got.Description != "" || got.Certificate == "" {
		t.Errorf("certificate %+v", got)
	}
	b.wantKind("not restricted any more", cert, Client)
	wantRefusal(t, b.do(change("PATCH", `{"type":"metrics"}`, "")), 400, api.BadRequest, "The certificate type cannot be changed")
	wantRefusal(t, b.do(change("PATCH", `{"certificate":"x"}`, "")), 400, api.CertInvalid, "Invalid PEM encoded certificate")
	next := newPair(t, trust.Client)
	if w := b.do(request{method: "PATCH", path: path[:len(path)-50], body: map[string]any{"certificate": string(next.CertPEM)}}); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	b.wantKind("the old certificate", cert, Stranger)
	b.wantKind("the new one", next.Cert, Client)
	ofMember := request{method: "PATCH", path: "/1.0/certificates/" + b.member("node2").Fingerprint, body: `{"name":"x"}`}
	wantRefusal(t, b.do(ofMember), 409, api.Conflict, `that of cluster member "node2"`)
	wantRefusal(t, b.do(request{method: "PATCH", path: "/1.0/certificates/" + strings.Repeat("0", 64), body: `{}`}), 404, api.NotFound, "Certificate not found")
}

func TestRestrictedClientChangesItsOwnCertificateAndNothingElse(t *testing.T) {
	b := newCluster(t, "node1")
	own, other := b.trustClient(true, "default"), b.trustClient(false)
	path := "/1.0/certificates/" + trust.Fingerprint(own)
	next := newPair(t, trust.Client)
	refused := func(method, path string, body any, text string) {
		t.Helper()
		wantRefusal(t, b.do(request{method: method, path: path, body: body, cert: own}), 403, api.NotAuthorized, text)
	}
	for _, body := range []string{`{"restricted":false}`, `{"projects":["default","web"]}`, `{"name":"x"}`, `{"description":"x"}`, `{"type":"metrics"}`} {
		refused("PATCH", path, body, "Only the certificate can be changed")
	}
	refused("PATCH", "/1.0/certificates/"+trust.Fingerprint(other), map[string]any{"certificate": string(next.CertPEM)}, "Certificate cannot be changed")
	refused("DELETE", "/1.0/certificates/"+trust.Fingerprint(other), nil, "Certificate cannot be deleted")
	refused("PATCH", "/1.0/certificates/"+strings.Repeat("0", 64), map[string]any{}, "Certificate cannot be changed")
	refused("DELETE", "/1.0/certificates/"+strings.Repeat("0", 64), nil, "Certificate cannot be deleted")

	// Whose key it does not prove to have it cannot take: that of a server which wants to join, say.
	server := newPair(t, trust.Server)
	put := request{method: "PATCH", path: path, body: map[string]any{"certificate": string(server.CertPEM)}, cert: own}
	for _, proof := range []string{"", "x", bearerText(t, next, b.clock.Add(time.Hour)), bearerText(t, server, b.clock.Add(-time.Hour))} {
		put.header = map[string]string{"Authorization": "Bearer " + proof}
		wantRefusal(t, b.do(put), 403, api.NotAuthorized, "The key of the new certificate is not proved")
	}
	if status, _, text := b.redeem(redemption(b.issue("node2"), server.Cert), nil); status != http.StatusCreated {
		t.Errorf("the server cannot join: %s", text)
	}
	put = request{method: "PATCH", path: path, body: map[string]any{"certificate": string(next.CertPEM)}, cert: own}
	if w := b.do(put); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	b.wantKind("the old certificate", own, Stranger)
	b.wantKind("the new one", next.Cert, RestrictedClient)
	if w := b.do(request{method: "DELETE", path: "/1.0/certificates/" + next.Fingerprint(), cert: next.Cert}); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	b.wantKind("given up", next.Cert, Stranger)
}

func TestBearerTokensOpenWhatTheirCertificateDoes(t *testing.T) {
	b := newCluster(t, "node1")
	pair := newPair(t, trust.Client)
	b.mustPropose(state.KindCertificateAdd, state.CertificateAdd{Certificate: state.Certificate{
		Fingerprint: pair.Fingerprint(), Name: "ci", Type: api.CertificateClient, PEM: string(pair.CertPEM), AddedAt: b.clock,
	}})
	bearer := func(pair *trust.KeyPair) string {
		text, err := jwt.NewWithClaims(jwt.SigningMethodES384, jwt.RegisteredClaims{
			Subject: pair.Fingerprint(), NotBefore: jwt.NewNumericDate(b.clock), ExpiresAt: jwt.NewNumericDate(b.clock.Add(time.Minute)),
		}).SignedString(pair.TLS.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	list := func(token string) int {
		header := map[string]string{"Authorization": "Bearer " + token}
		return b.do(request{method: "GET", path: "/1.0/cluster/members", stranger: true, header: header}).Code
	}
	token := bearer(pair)
	if code := list(token); code != http.StatusOK {
		t.Errorf("status %d", code)
	}
	if w := b.do(request{method: "GET", path: "/1.0/cluster/members?access_token=" + token, stranger: true}); w.Code != http.StatusOK {
		t.Errorf("in the query: %s", w.Body)
	}
	if code := list(bearer(newPair(t, trust.Client))); code != http.StatusForbidden {
		t.Errorf("of a stranger: %d", code)
	}
	b.clock = b.clock.Add(time.Minute)
	if code := list(token); code != http.StatusForbidden {
		t.Errorf("after its time: %d", code)
	}
	token = bearer(pair)
	b.mustPropose(state.KindCertificateRemove, state.CertificateRemove{Fingerprint: pair.Fingerprint()})
	if code := list(token); code != http.StatusForbidden {
		t.Errorf("of a certificate that was removed: %d", code)
	}
}

func TestMetricsAreForThoseWhoMaySeeThem(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	metrics := b.trustMetrics()
	w := b.do(request{method: "GET", path: "/1.0/metrics", cert: metrics})
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "# TYPE incus_uptime_seconds") || !strings.HasSuffix(w.Body.String(), "# EOF\n") ||
		!strings.Contains(w.Body.String(), `incus_cluster_members{status="online"} 2`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/metrics", stranger: true}), 403, api.NotAuthorized, "not authorized")
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/cluster", cert: metrics}), 403, api.NotAuthorized, "not authorized")
	if face := metadata[api.Server](t, b.do(request{method: "GET", path: "/1.0", cert: metrics}), 200); face.Auth != "untrusted" {
		t.Errorf("it is %s", face.Auth)
	}
	if reads := b.store.reads; reads > 0 {
		for range 100 {
			b.do(request{method: "GET", path: "/1.0/metrics", stranger: true})
		}
		if b.store.reads != reads {
			t.Errorf("strangers who are refused made the leader answer %d reads", b.store.reads-reads)
		}
	}
	b.settings.values["core.metrics_authentication"] = "false"
	if w := b.do(request{method: "GET", path: "/1.0/metrics", stranger: true}); w.Code != http.StatusOK {
		t.Errorf("open to all: %s", w.Body)
	}
	b.server.limits = newLimits()
	b.server.limits.attempts = rate.NewLimiter(0, 0)
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/metrics", stranger: true}), 429, api.TooMany, "Too many requests")
}

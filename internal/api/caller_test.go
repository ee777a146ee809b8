package api

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// mayCall says, apart from the table of routes, who may call what: each route has a row here. Those at
// the top are the ones that need a thought.
var mayCall = map[string]Callers{
	"GET /":                                        anyone,
	"GET /1.0":                                     anyone,
	"GET /1.0/cluster":                             trusted | Joiner,
	"POST /1.0/certificates":                       anyone,
	"PUT /1.0/certificates/{fingerprint}":          trusted,
	"PATCH /1.0/certificates/{fingerprint}":        trusted,
	"DELETE /1.0/certificates/{fingerprint}":       trusted,
	"GET /1.0/metrics":                             anyone,
	"GET /1.0/operations/{id}/wait":                anyone,
	"GET /1.0/warnings":                            administrators,
	"GET /1.0/warnings/{uuid}":                     administrators,
	"PUT /1.0/warnings/{uuid}":                     administrators,
	"PATCH /1.0/warnings/{uuid}":                   administrators,
	"DELETE /1.0/warnings/{uuid}":                  administrators,
	"GET /internal/ready":                          UnixSocket,
	"PUT /internal/shutdown":                       UnixSocket,
	"PUT /internal/cluster/address":                Client | Member | UnixSocket,
	"POST /internal/cluster/reset":                 UnixSocket,
	"POST /internal/cluster/join/preflight":        anyone,
	"POST /internal/cluster/join/admit":            Joiner | Member,
	"POST /internal/cluster/join/abort":            Stranger | Joiner | Member,
	"PUT /internal/server-certificate":             UnixSocket,
	"GET /internal/cluster/database":               UnixSocket,
	"DELETE /internal/cluster/raft-node/{address}": UnixSocket,
	"GET /internal/cluster/backup":                 UnixSocket,
	"PUT /internal/cluster/restore":                UnixSocket,
	"GET /internal/cluster/report":                 UnixSocket | Member,
	"POST /internal/cluster/events":                Member,

	"PUT /1.0":                                                 administrators,
	"PATCH /1.0":                                               administrators,
	"PUT /1.0/cluster":                                         administrators,
	"PUT /1.0/cluster/certificate":                             administrators,
	"GET /1.0/cluster/members":                                 trusted,
	"POST /1.0/cluster/members":                                administrators,
	"GET /1.0/cluster/members/{name}":                          trusted,
	"PUT /1.0/cluster/members/{name}":                          administrators,
	"PATCH /1.0/cluster/members/{name}":                        administrators,
	"POST /1.0/cluster/members/{name}":                         administrators,
	"DELETE /1.0/cluster/members/{name}":                       administrators,
	"GET /1.0/cluster/members/{name}/state":                    trusted,
	"POST /1.0/cluster/members/{name}/state":                   administrators,
	"GET /1.0/cluster/groups":                                  trusted,
	"POST /1.0/cluster/groups":                                 administrators,
	"GET /1.0/cluster/groups/{name}":                           trusted,
	"PUT /1.0/cluster/groups/{name}":                           administrators,
	"PATCH /1.0/cluster/groups/{name}":                         administrators,
	"POST /1.0/cluster/groups/{name}":                          administrators,
	"DELETE /1.0/cluster/groups/{name}":                        administrators,
	"GET /1.0/certificates":                                    trusted,
	"GET /1.0/certificates/{fingerprint}":                      trusted,
	"GET /1.0/operations":                                      trusted,
	"GET /1.0/operations/{id}":                                 trusted,
	"DELETE /1.0/operations/{id}":                              administrators,
	"GET /1.0/events":                                          trusted,
	"GET /1.0/storage-pools":                                   trusted,
	"POST /1.0/storage-pools":                                  administrators,
	"GET /1.0/storage-pools/{name}":                            trusted,
	"PUT /1.0/storage-pools/{name}":                            administrators,
	"PATCH /1.0/storage-pools/{name}":                          administrators,
	"DELETE /1.0/storage-pools/{name}":                         administrators,
	"GET /1.0/storage-pools/{name}/resources":                  trusted,
	"GET /1.0/storage-pools/{name}/volumes":                    trusted,
	"GET /1.0/storage-pools/{name}/volumes/{type}":             trusted,
	"POST /1.0/storage-pools/{name}/volumes":                   trusted,
	"POST /1.0/storage-pools/{name}/volumes/{type}":            trusted,
	"GET /1.0/storage-pools/{name}/volumes/{type}/{volume}":    trusted,
	"PUT /1.0/storage-pools/{name}/volumes/{type}/{volume}":    trusted,
	"PATCH /1.0/storage-pools/{name}/volumes/{type}/{volume}":  trusted,
	"POST /1.0/storage-pools/{name}/volumes/{type}/{volume}":   trusted,
	"DELETE /1.0/storage-pools/{name}/volumes/{type}/{volume}": trusted,
	"GET /1.0/networks":                                        trusted,
	"POST /1.0/networks":                                       trusted,
	"GET /1.0/networks/{name}":                                 trusted,
	"PUT /1.0/networks/{name}":                                 trusted,
	"PATCH /1.0/networks/{name}":                               trusted,
	"POST /1.0/networks/{name}":                                trusted,
	"DELETE /1.0/networks/{name}":                              trusted,
	"GET /1.0/networks/{name}/state":                           trusted,
	"GET /1.0/networks/{name}/leases":                          trusted,
	"GET /1.0/profiles":                                        trusted,
	"POST /1.0/profiles":                                       trusted,
	"GET /1.0/profiles/{name}":                                 trusted,
	"PUT /1.0/profiles/{name}":                                 trusted,
	"PATCH /1.0/profiles/{name}":                               trusted,
	"POST /1.0/profiles/{name}":                                trusted,
	"DELETE /1.0/profiles/{name}":                              trusted,
	"GET /1.0/projects":                                        trusted,
	"POST /1.0/projects":                                       administrators,
	"GET /1.0/projects/{name}":                                 trusted,
	"PUT /1.0/projects/{name}":                                 administrators,
	"PATCH /1.0/projects/{name}":                               administrators,
	"POST /1.0/projects/{name}":                                administrators,
	"DELETE /1.0/projects/{name}":                              administrators,
	"GET /1.0/projects/{name}/state":                           trusted,
	"GET /1.0/resources":                                       trusted,
	"GET /1.0/instances":                                       trusted,
	"POST /1.0/instances":                                      administrators,
	"GET /1.0/images":                                          trusted,
	"POST /1.0/images":                                         administrators,
	"GET /internal/cluster/health":                             trusted,
	"GET /internal/cluster/doctor":                             administrators,
	"GET /internal/cluster/roles":                              trusted,
	"POST /internal/cluster/transfer-leader":                   administrators,
	"POST /internal/cluster/rotate-key":                        administrators,
}

// callers returns, for each kind, the certificate that makes a caller one of it.
func (b *bed) callers() map[Callers]request {
	joiner := newPair(b.t, trust.Server)
	b.claim("joiner", joiner.Cert)
	return map[Callers]request{
		Stranger:         {stranger: true},
		Joiner:           {cert: joiner.Cert},
		Metrics:          {cert: b.trustMetrics()},
		RestrictedClient: {cert: b.trustClient(true, "default")},
		Client:           {cert: b.trustClient(false)},
		Member:           {cert: b.certificate("node2")},
		UnixSocket:       {},
	}
}

func (b *bed) certificate(name string) *x509.Certificate {
	b.t.Helper()
	cert, err := trust.ParseCertificate(b.member(name).Certificate)
	if err != nil {
		b.t.Fatal(err)
	}
	return cert
}

func TestEveryRouteLetsInWhomItShould(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	routes := b.stubRoutes()
	callers := b.callers()
	seen := make(map[string]bool)
	for _, route := range routes {
		name := route.Method + " " + route.Path
		seen[name] = true
		allowed, ok := mayCall[name]
		if !ok {
			t.Errorf("%s has no row in mayCall: say there who may call it", name)
			continue
		}
		for _, kind := range Kinds() {
			req := callers[kind] // the restricted one's project is the one that is meant without a name
			req.method, req.path = route.Method, pathOf(route)
			w := b.do(req)
			switch {
			case allowed&kind != 0 && w.Code != http.StatusAccepted:
				t.Errorf("%s: %s is refused: %s", name, kind, w.Body)
			case allowed&kind == 0 && w.Code != http.StatusForbidden:
				t.Errorf("%s: %s gets %d", name, kind, w.Code)
			case allowed&kind == 0 && kind == RestrictedClient:
				wantRefusal(t, w, http.StatusForbidden, api.NotAuthorized, "Certificate is restricted")
			case allowed&kind == 0:
				wantRefusal(t, w, http.StatusForbidden, api.NotAuthorized, "not authorized")
			}
		}
	}
	for name := range mayCall {
		if !seen[name] {
			t.Errorf("%s is not a route", name)
		}
	}
}

// stubRoutes makes all handlers say that they were reached, for what tests the way to them.
func (b *bed) stubRoutes() []Route {
	reached := reply{status: http.StatusAccepted}
	routes := Routes()
	for i := range routes {
		routes[i].handle = func(*Server, *call) (reply, error) { return reached, nil }
	}
	for _, listener := range []ListenerKind{TLSListener, UnixListener} {
		b.handlers[listener] = b.server.router(listener, routes)
	}
	return routes
}

// pathOf is a path of the route.
func pathOf(route Route) string { return strings.NewReplacer("{", "", "}", "").Replace(route.Path) }

// kindOf tells as what a certificate is let in at this moment.
func (b *bed) kindOf(cert *x509.Certificate, header map[string]string) Callers {
	r := httptest.NewRequest("GET", "https://10.0.0.1:8443/1.0", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	for key, value := range header {
		r.Header.Set(key, value)
	}
	c, _ := b.server.authenticate(r, TLSListener)
	return c.kind
}

func (b *bed) wantKind(why string, cert *x509.Certificate, want Callers) {
	b.t.Helper()
	if got := b.kindOf(cert, nil); got != want {
		b.t.Errorf("%s: %s, want %s", why, got, want)
	}
}

func TestTrustFollowsTheStateAndTheClock(t *testing.T) {
	t.Run("a member while it is one", func(t *testing.T) {
		b := newCluster(t, "node1", "node2")
		joining := b.admit("node3", "10.0.0.3:8443")
		cert, _ := trust.ParseCertificate(joining.Certificate)
		b.wantKind("active", b.certificate("node2"), Member)
		b.wantKind("admitted", cert, Joiner)
		b.mustPropose(state.KindMemberAbort, state.MemberAbort{ID: joining.ID, Fingerprint: joining.Fingerprint})
		b.wantKind("aborted", cert, Stranger)
	})
	t.Run("a member until a recovery goes on without it", func(t *testing.T) {
		b := newCluster(t, "node1", "node2")
		cert := b.certificate("node2")
		b.mustPropose(state.KindClusterRecover, state.ClusterRecover{ID: "r1", MemberID: b.member("node1").ID, Incarnation: 2})
		b.wantKind("fenced", cert, Stranger)
	})
	t.Run("a joiner until its claim runs out", func(t *testing.T) {
		b := newCluster(t, "node1")
		joiner := newPair(t, trust.Server)
		b.claim("node2", joiner.Cert)
		b.wantKind("claimed", joiner.Cert, Joiner)
		b.clock = b.clock.Add(state.ClaimTime)
		b.wantKind("after its time", joiner.Cert, Stranger)
	})
	t.Run("a joiner until its token is revoked", func(t *testing.T) {
		b := newCluster(t, "node1")
		joiner := newPair(t, trust.Server)
		b.claim("node2", joiner.Cert)
		token, _ := b.store.Local().TokenByName("node2")
		b.mustPropose(state.KindTokenRevoke, state.TokenRevoke{Operation: token.Operation})
		b.wantKind("revoked", joiner.Cert, Stranger)
	})
	t.Run("a client until its certificate is removed", func(t *testing.T) {
		b := newCluster(t, "node1")
		cert := b.trustClient(false)
		b.wantKind("trusted", cert, Client)
		b.mustPropose(state.KindCertificateRemove, state.CertificateRemove{Fingerprint: trust.Fingerprint(cert)})
		b.wantKind("removed", cert, Stranger)
	})
	t.Run("nobody before or after the dates of the certificate", func(t *testing.T) {
		b := newCluster(t, "node1", "node2")
		client, member := b.trustClient(false), b.certificate("node2")
		for _, shift := range []time.Duration{-100 * 365 * 24 * time.Hour, 100 * 365 * 24 * time.Hour} {
			b.clock = time.Now().Add(shift)
			b.wantKind("client", client, Stranger)
			b.wantKind("member", member, Stranger)
		}
	})
	t.Run("for the metrics alone by a metrics certificate", func(t *testing.T) {
		b := newCluster(t, "node1")
		b.wantKind("metrics", b.trustMetrics(), Metrics)
	})
}

// trustMetrics adds a certificate for the metrics and returns it.
func (b *bed) trustMetrics() *x509.Certificate {
	b.t.Helper()
	pair := newPair(b.t, trust.Client)
	b.mustPropose(state.KindCertificateAdd, state.CertificateAdd{Certificate: state.Certificate{
		Fingerprint: pair.Fingerprint(), Name: "prometheus", Type: api.CertificateMetrics, PEM: string(pair.CertPEM), AddedAt: b.clock,
	}})
	return pair.Cert
}

func TestTrustOfAMomentAgoElsewhereIsFound(t *testing.T) {
	b := newCluster(t, "node1")
	b.store.behind = b.store.view()
	cert := b.trustClient(false) // not in what this member knows
	b.wantKind("just trusted", cert, Client)

	b.store.down = true
	b.wantKind("without a leader to ask", cert, Stranger)
}

func TestStrangersCannotMakeTheLeaderWorkAtWill(t *testing.T) {
	b := newCluster(t, "node1")
	stranger := newPair(t, trust.Client).Cert
	b.store.reads = 0
	for range 1000 {
		b.kindOf(stranger, nil)
	}
	if b.store.reads > 2*keyLookups.burst {
		t.Errorf("the leader was asked %d times for one key", b.store.reads)
	}
	for range sourceLookups.burst + 10 {
		b.kindOf(newPair(t, trust.Client).Cert, nil)
	}
	if b.store.reads > 2*sourceLookups.burst {
		t.Errorf("the leader was asked %d times by one stranger", b.store.reads)
	}
}

func TestStrangerDoesNotKeepOthersFromBeingFound(t *testing.T) {
	b := newCluster(t, "node1")
	b.store.behind = b.store.view()
	cert := b.trustClient(false) // not in what this member knows
	for range allLookups.burst + 50 {
		b.do(request{method: "GET", path: "/1.0", cert: newPair(t, trust.Client).Cert, from: "192.0.2.1:1"})
	}
	if w := b.do(request{method: "GET", path: "/1.0/cluster", cert: cert, from: "192.0.2.2:1"}); w.Code != http.StatusOK {
		t.Errorf("got %s", w.Body)
	}
}

func TestAgentOfMembersNeedsTheirCertificate(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	for _, agent := range []string{agentNotifier, agentClient} {
		header := map[string]string{"User-Agent": agent}
		w := b.do(request{method: "GET", path: "/1.0", cert: b.trustClient(false), header: header})
		wantRefusal(t, w, http.StatusForbidden, api.NotAuthorized, "Cluster notification isn't using trusted server certificate")
		w = b.do(request{method: "GET", path: "/1.0", cert: b.certificate("node2"), header: header})
		metadata[api.Server](t, w, http.StatusOK)
	}
}

func TestForwardedIdentityIsTakenFromMembersOnly(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	restricted := trust.Fingerprint(b.trustClient(true, "default"))
	as := func(protocol, username string) map[string]string {
		return map[string]string{headerForwardedProtocol: protocol, headerForwardedUsername: username, headerForwardedAddress: "192.0.2.7"}
	}
	member, client := b.certificate("node2"), b.trustClient(true)
	tests := map[string]struct {
		cert   *x509.Certificate
		header map[string]string
		want   Callers
	}{
		"member for the socket":            {member, as("unix", "root"), Client},
		"member for nobody":                {member, as("", ""), Stranger},
		"member for a restricted client":   {member, as("tls", restricted), RestrictedClient},
		"member for a certificate unknown": {member, as("tls", strings.Repeat("0", 64)), Stranger},
		"member for another member":        {member, as("cluster", "x"), Member},
		"member for who knows what":        {member, as("oidc", "x"), Stranger},
		"client that claims the socket":    {client, as("unix", "root"), RestrictedClient},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := b.kindOf(test.cert, test.header); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestRequestsFromOtherSitesAreRefused(t *testing.T) {
	b := newCluster(t, "node1")
	for _, value := range []string{"cross-site", "same-site"} {
		w := b.do(request{method: "GET", path: "/1.0", header: map[string]string{"Sec-Fetch-Site": value}})
		wantRefusal(t, w, http.StatusForbidden, api.NotAuthorized, "Forbidden Sec-Fetch-Site header value")
	}
	w := b.do(request{method: "GET", path: "/1.0", header: map[string]string{"Sec-Fetch-Site": "same-origin"}})
	if w.Code != http.StatusOK {
		t.Errorf("same origin: %d", w.Code)
	}
}

func TestWithoutTLSNobodyIsLetIn(t *testing.T) {
	b := newCluster(t, "node1")
	w := httptest.NewRecorder()
	b.handlers[TLSListener].ServeHTTP(w, httptest.NewRequest("GET", "/1.0", nil))
	wantRefusal(t, w, http.StatusForbidden, api.NotAuthorized, "Bad/missing TLS on network query")
}

func TestStrangerWhoWantsToBeKnownIsRefused(t *testing.T) {
	b := newCluster(t, "node1")
	w := b.do(request{method: "GET", path: "/1.0", stranger: true, header: map[string]string{"X-Incus-authenticated": "true"}})
	wantRefusal(t, w, http.StatusForbidden, api.NotAuthorized, "not authorized")
}

func TestRestrictedClientSeesItsProjectsOnly(t *testing.T) {
	b := newCluster(t, "node1")
	b.mustPropose(state.KindProjectCreate, state.ProjectCreate{Project: state.Project{Name: "web"}})
	inside, outside := b.trustClient(true, "default"), b.trustClient(true, "web")
	paths := []string{"/1.0/operations", "/1.0/profiles", "/1.0/profiles/default", "/1.0/networks", "/1.0/instances"}
	for _, path := range paths {
		if w := b.do(request{method: "GET", path: path, cert: inside}); w.Code != http.StatusOK {
			t.Errorf("%s inside: %s", path, w.Body)
		}
		w := b.do(request{method: "GET", path: path, cert: outside})
		wantRefusal(t, w, http.StatusForbidden, api.NotAuthorized, `User does not have permission for project "default"`)
	}
	if got := metadata[[]string](t, b.do(request{method: "GET", path: "/1.0/projects", cert: outside}), 200); len(got) != 1 || got[0] != "/1.0/projects/web" {
		t.Errorf("projects outside: %v", got)
	}
	server := metadata[map[string]any](t, b.do(request{method: "GET", path: "/1.0", cert: inside}), 200)
	if tag := b.do(request{method: "GET", path: "/1.0", cert: inside}).Header().Get("ETag"); tag != "" {
		t.Error("the ETag of the configuration is shown to a restricted client")
	}
	if config, ok := server["config"].(map[string]any); !ok || len(config) != 0 {
		t.Errorf("configuration shown to a restricted client: %v", server["config"])
	}
}

func TestSecretsOfTokensAreForAdministrators(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	token := b.issue("node3")
	for kind, req := range b.callers() {
		if kind&trusted == 0 {
			continue
		}
		for _, path := range []string{"/1.0/operations?recursion=1", "/1.0/operations/" + token.Operation} {
			req.method, req.path = "GET", path
			shown := strings.Contains(b.do(req).Body.String(), token.Secret)
			if want := kind&administrators != 0; shown != want {
				t.Errorf("%s as %s: secret shown is %t", path, kind, shown)
			}
		}
	}
	if tokens.Hash(token.Secret) != token.Hash {
		t.Error("the secret was not that of the token")
	}
}

// joiner redeems a token for name and returns the certificate it was redeemed for.
func (b *bed) joiner(name string) *x509.Certificate {
	b.t.Helper()
	pair := newPair(b.t, trust.Server)
	b.claim(name, pair.Cert)
	return pair.Cert
}

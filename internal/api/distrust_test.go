package api

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

func TestWaitOfAClientThatIsNoLongerTrustedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCluster(t, "node1")
		op, goOn := b.run(false)
		defer close(goOn)
		cert := b.trustClient(false)
		time.AfterFunc(time.Minute, func() {
			b.mustPropose(state.KindCertificateRemove, state.CertificateRemove{Fingerprint: trust.Fingerprint(cert)})
		})
		start := time.Now()
		w := b.do(request{method: "GET", path: operationURL(op.ID()) + "/wait", cert: cert})
		e := envelope(t, w)
		if time.Since(start) != time.Minute || e.Type != api.ErrorResponse || e.Code != 403 || e.Error != "not authorized any more" {
			t.Errorf("after %s: %s", time.Since(start), w.Body)
		}
	})
}

func TestRightsOfAForwardedCallerAreLookedAtAgain(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	member := b.certificate("node2")
	c := caller{kind: RestrictedClient, protocol: protocolTLS, certificate: member, fingerprint: trust.Fingerprint(member), forwarded: true, projects: []string{"default"}}
	cert := b.trustClient(true, "default")
	c.username = trust.Fingerprint(cert)
	if !c.staysAs(b.store.Local(), b.clock) {
		t.Error("trusted, and not any more")
	}
	row, _ := b.store.Local().Certificate(c.username)
	next := *row
	next.Projects = nil
	b.mustPropose(state.KindCertificateUpdate, state.CertificateUpdate{Fingerprint: c.username, Certificate: next})
	if c.staysAs(b.store.Local(), b.clock) {
		t.Error("it lost its project, and stays")
	}
	socket := caller{kind: Client, protocol: protocolUnix, username: "root", certificate: member, fingerprint: trust.Fingerprint(member), forwarded: true}
	if !socket.staysAs(b.store.Local(), b.clock) {
		t.Error("a process of a member is cut off")
	}
	socket.certificate = cert
	socket.fingerprint = trust.Fingerprint(cert)
	if socket.staysAs(b.store.Local(), b.clock) {
		t.Error("who asks for it is no member, and it stays")
	}
}

// Who has stolen a bearer token has it until it ends, and can make nothing of it that lasts.
func TestBearerTokenProvesNoKey(t *testing.T) {
	b := newCluster(t, "node1")
	client, thief := newPair(t, trust.Client), newPair(t, trust.Client)
	b.mustPropose(state.KindCertificateAdd, state.CertificateAdd{Certificate: state.Certificate{
		Fingerprint: client.Fingerprint(), Name: "laptop", Type: api.CertificateClient, Restricted: true, Projects: []string{"default"},
		PEM: string(client.CertPEM), AddedAt: b.clock.UTC(),
	}})
	stolen := map[string]string{"Authorization": "Bearer " + bearerText(t, client, b.clock.Add(time.Hour))}
	path := "/1.0/certificates/" + client.Fingerprint()
	for _, over := range []request{{stranger: true}, {cert: thief.Cert}} {
		over.header, over.path = stolen, path
		over.method = "GET"
		cert := metadata[api.Certificate](t, b.do(over), http.StatusOK)
		put := cert.Put()
		put.Certificate = string(thief.CertPEM)
		over.method, over.body = "PUT", put
		wantRefusal(t, b.do(over), 403, api.NotAuthorized, "Certificate cannot be changed")
		over.method, over.body = "DELETE", nil
		wantRefusal(t, b.do(over), 403, api.NotAuthorized, "Certificate cannot be deleted")
	}
	b.wantKind("the thief", thief.Cert, Stranger)
	b.wantKind("the client", client.Cert, RestrictedClient)

	// Nor does it stand for the key of the certificate that a token is redeemed for.
	token := b.issue("node2")
	w := b.do(request{method: "POST", path: "/1.0/certificates", stranger: true, header: stolen, body: api.CertificatesPost{
		Name: "node2", Type: "server", TrustToken: tokens.Text(token).String(),
	}})
	wantRefusal(t, w, 400, api.BadRequest, "No client certificate provided")
}

func TestBearersRightsEndWithTheTokenAndWithTheCertificate(t *testing.T) {
	b := newCluster(t, "node1")
	client := newPair(t, trust.Client)
	row := state.Certificate{Fingerprint: client.Fingerprint(), Name: "laptop", Type: api.CertificateClient, PEM: string(client.CertPEM), AddedAt: b.clock.UTC()}
	b.mustPropose(state.KindCertificateAdd, state.CertificateAdd{Certificate: row})
	c := caller{kind: Client, protocol: protocolTLS, username: client.Fingerprint(), bearer: &bearer{certificate: client.Cert, until: b.clock.Add(time.Hour)}}
	if !c.staysAs(b.store.Local(), b.clock) {
		t.Error("trusted, and not any more")
	}
	if c.staysAs(b.store.Local(), b.clock.Add(time.Hour)) {
		t.Error("its token ended, and it stays")
	}
	b.mustPropose(state.KindCertificateRemove, state.CertificateRemove{Fingerprint: client.Fingerprint()})
	if c.staysAs(b.store.Local(), b.clock) {
		t.Error("its certificate is gone, and it stays")
	}
}

// bearerText is a bearer token as the client makes it.
func bearerText(t *testing.T, pair *trust.KeyPair, until time.Time) string {
	t.Helper()
	claims := jwt.RegisteredClaims{Subject: pair.Fingerprint(), ExpiresAt: jwt.NewNumericDate(until)}
	text, err := jwt.NewWithClaims(jwt.SigningMethodES384, claims).SignedString(pair.TLS.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// authority gives the server a CA, and returns what makes certificates that it has signed.
func (b *bed) authority() (sign func(usages ...x509.ExtKeyUsage) *x509.Certificate) {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	var ca *x509.Certificate
	serial := int64(0)
	sign = func(usages ...x509.ExtKeyUsage) *x509.Certificate {
		serial++
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "signed"}, BasicConstraintsValid: true,
			NotBefore: b.clock.Add(-time.Hour), NotAfter: b.clock.Add(time.Hour), ExtKeyUsage: usages,
		}
		parent, public := ca, newPair(b.t, trust.Client).Cert.PublicKey
		if ca == nil {
			template.IsCA, template.KeyUsage, parent, public = true, x509.KeyUsageCertSign, template, key.Public()
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
		if err != nil {
			b.t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			b.t.Fatal(err)
		}
		return cert
	}
	ca = sign()
	dir := b.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "server.ca"), []byte(trust.EncodePEM(ca)), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if b.server.cfg.Authority, err = trust.LoadAuthority(dir); err != nil {
		b.t.Fatal(err)
	}
	return sign
}

func (b *bed) trustAs(cert *x509.Certificate, kind string, restricted bool) {
	b.t.Helper()
	b.mustPropose(state.KindCertificateAdd, state.CertificateAdd{Certificate: state.Certificate{
		Fingerprint: trust.Fingerprint(cert), Name: "laptop", Type: kind, Restricted: restricted, PEM: trust.EncodePEM(cert), AddedAt: b.clock.UTC(),
	}})
}

func TestAuthorityMustHaveSignedClients(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	before := b.trustClient(false)
	b.wantKind("without an authority", before, Client)
	sign := b.authority()
	client, meter, stranger := sign(x509.ExtKeyUsageClientAuth), sign(x509.ExtKeyUsageClientAuth), sign(x509.ExtKeyUsageClientAuth)
	b.trustAs(client, api.CertificateClient, false)
	b.trustAs(meter, api.CertificateMetrics, false)
	b.wantKind("not signed", before, Stranger)
	b.wantKind("signed", client, Client)
	b.wantKind("signed", meter, Metrics)
	b.wantKind("signed and not trusted", stranger, Stranger)
	b.wantKind("a member's own", b.certificate("node2"), Member)

	add := request{method: "POST", path: "/1.0/certificates", body: map[string]any{"type": "client", "certificate": string(newPair(t, trust.Client).CertPEM)}}
	wantRefusal(t, b.do(add), http.StatusBadRequest, api.CertInvalid, "not signed by the authority")
	add.body = map[string]any{"type": "client", "certificate": trust.EncodePEM(stranger)}
	if w := b.do(add); w.Code != http.StatusCreated {
		t.Error(w.Body)
	}
	b.wantKind("signed and added", stranger, Client)
}

func TestAuthorityVouchesForClientsIfItMay(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	sign := b.authority()
	client, server, limited := sign(x509.ExtKeyUsageClientAuth), sign(x509.ExtKeyUsageServerAuth), sign(x509.ExtKeyUsageClientAuth)
	b.trustAs(limited, api.CertificateClient, true)
	set := func(value string) {
		b.mustPropose(state.KindConfigSet, state.ConfigSet{Set: map[string]string{"core.trust_ca_certificates": value}})
	}
	// The entry judges a client by the trust store, which does not have this one.
	create := request{method: "POST", path: "/1.0/profiles", body: map[string]any{"name": "p"}, cert: client}
	wantRefusal(t, b.do(create), http.StatusForbidden, api.NotAuthorized, "not authorized")
	onBehalf := map[string]string{headerForwardedProtocol: protocolAuthority, headerForwardedUsername: trust.Fingerprint(client)}
	b.wantKind("by default", client, Stranger)
	set("true")
	b.wantKind("a client's", client, Client)
	if w := b.do(create); w.Code != http.StatusCreated {
		t.Errorf("it changes nothing: %s", w.Body)
	}
	b.wantKind("a server's", server, Stranger)
	b.wantKind("what the trust store says counts", limited, RestrictedClient)
	b.wantKind("not signed", newPair(t, trust.Client).Cert, Stranger)
	if got := b.kindOf(b.certificate("node2"), onBehalf); got != Client {
		t.Errorf("by another member: %s", got)
	}
	if got := b.kindOf(client, onBehalf); got != Client {
		t.Errorf("a client that says so itself: %s", got)
	}
	if got := b.kindOf(newPair(t, trust.Client).Cert, onBehalf); got != Stranger {
		t.Errorf("a stranger that says so itself: %s", got)
	}
	c := caller{kind: Client, certificate: client, fingerprint: trust.Fingerprint(client), authority: b.server.cfg.Authority}
	forwarded := caller{kind: Client, certificate: b.certificate("node2"), fingerprint: trust.Fingerprint(b.certificate("node2")), forwarded: true, vouched: true, protocol: protocolTLS}
	if !c.staysAs(b.store.Local(), b.clock) || !forwarded.staysAs(b.store.Local(), b.clock) {
		t.Error("rights are lost")
	}
	set("false")
	b.wantKind("no longer", client, Stranger)
	if c.staysAs(b.store.Local(), b.clock) || forwarded.staysAs(b.store.Local(), b.clock) {
		t.Error("rights are kept")
	}
	if got := b.kindOf(b.certificate("node2"), onBehalf); got == Client {
		t.Error("another member still vouches for it")
	}
}

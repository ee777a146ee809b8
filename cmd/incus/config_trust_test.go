package main

import (
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"incusd/api"
	"incusd/client"
	"incusd/client/clienttest"
)

// certified is a daemon whose trust store has a laptop's certificate.
func certified(t *testing.T) (*shell, api.Certificate) {
	t.Helper()
	s := newShell(t)
	pair := clienttest.Pair(t, nil)
	cert := api.Certificate{
		Name: "laptop", Type: "client", Restricted: true, Projects: []string{"web", "shop"}, Description: "Jane's",
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Leaf.Raw})), Fingerprint: client.Fingerprint(pair.Leaf),
	}
	s.Reply("GET /1.0/certificates", []api.Certificate{cert})
	s.Reply("GET /1.0/certificates/"+cert.Fingerprint[:12], cert)
	s.Reply("PUT /1.0/certificates/"+cert.Fingerprint, struct{}{})
	s.Reply("POST /1.0/certificates", struct{}{})
	return s, cert
}

// addTokenOperation is the operation of a token for a client called name.
func addTokenOperation(id, name, expiry string) api.Operation {
	op := api.Operation{ID: id, Class: "token", Status: "Running", StatusCode: api.Running, Metadata: map[string]any{
		"secret": "s3cret", "fingerprint": "ab", "addresses": []string{"10.0.0.1:8443"}, "request": map[string]any{"name": name, "type": "client"},
	}}
	if expiry != "" {
		op.Metadata["expiresAt"] = expiry
	}
	return op
}

func TestTrustAddPrintsTheTokenThatTheClientNeeds(t *testing.T) {
	s, _ := certified(t)
	s.ReplyAsync("POST /1.0/certificates", addTokenOperation("1", "build", ""))
	token := &api.CertificateAddToken{ClientName: "build", Fingerprint: "ab", Addresses: []string{"10.0.0.1:8443"}, Secret: "s3cret"}
	if got := s.mustRun(t, "", "config", "trust", "add", "build"); got != "Client build certificate add token:\n"+token.String()+"\n" {
		t.Errorf("got %q", got)
	}
	const sent = `{"name":"build","type":"client","restricted":false,"projects":[],"certificate":"","description":"","trust_token":"","token":true}`
	if body := s.body(t, "POST /1.0/certificates"); body != sent {
		t.Errorf("sent %s", body)
	}
	if got := s.mustRun(t, "", "config", "trust", "add", "build", "-q", "--restricted", "--projects", "shop,web"); got != token.String()+"\n" {
		t.Errorf("got %q", got)
	}
	if body := s.body(t, "POST /1.0/certificates"); !strings.Contains(body, `"restricted":true,"projects":["shop","web"]`) {
		t.Errorf("sent %s", body)
	}
	const empty = "eyJjbGllbnRfbmFtZSI6ImJ1aWxkIiwiZmluZ2VycHJpbnQiOiJhYiIsImFkZHJlc3NlcyI6WyIxMC4wLjAuMTo4NDQzIl0sInNlY3JldCI6InMzY3JldCIsImV4cGlyZXNfYXQiOiIwMDAxLTAxLTAxVDAwOjAwOjAwWiJ9"
	if token.String() != empty {
		t.Errorf("the token's form has changed: %s", token)
	}
	s.mustFail(t, "Error: --projects has no effect without --restricted: the client could do everything\nHint: add --restricted, or leave --projects out\n",
		"", "config", "trust", "add", "build", "--projects", "shop")
}

func TestTrustTokensAreListedAndRevoked(t *testing.T) {
	s, _ := certified(t)
	join := load[map[string][]api.Operation](t, "query-operations.out")["running"]
	operations := append([]api.Operation{addTokenOperation("1", "laptop", ""), addTokenOperation("2", "build", "2026-11-28T06:00:00Z")}, join...)
	s.Reply("GET /1.0/operations", map[string][]api.Operation{"running": operations})
	s.Reply("DELETE /1.0/operations/2", struct{}{})
	if got := s.mustRun(t, "", "config", "trust", "list-tokens", "-f", "csv", "-c", "nE"); got != "build,2026/11/28 06:00 UTC\nlaptop,\" \"\n" {
		t.Errorf("got %q", got)
	}
	if got := s.mustRun(t, "", "config", "trust", "list-tokens", "-f", "yaml"); !strings.Contains(got, "- client_name: laptop\n  fingerprint: ab\n  addresses:\n    - 10.0.0.1:8443\n  secret: s3cret\n") {
		t.Errorf("got %q", got)
	}
	if got := s.mustRun(t, "", "config", "trust", "revoke-token", "build"); got != "Certificate add token for build deleted\n" {
		t.Errorf("got %q", got)
	}
	s.mustFail(t, "Error: No certificate add token for member x on remote: local\n", "", "config", "trust", "revoke-token", "x")
}

func TestTrustedCertificatesAreListed(t *testing.T) {
	s, cert := certified(t)
	date := func(at time.Time) string { return at.UTC().Format(dateFormat) }
	parsed, err := parseCertificate(cert.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	short := cert.Fingerprint[:12]
	for columns, want := range map[string]string{
		"ntdfe": "laptop,client,Jane's," + short + "," + date(parsed.NotAfter) + "\n",
		"cFi":   "clienttest," + cert.Fingerprint + "," + date(parsed.NotBefore) + "\n",
		"rp":    "yes,\"shop\nweb\"\n",
	} {
		if got := s.mustRun(t, "", "config", "trust", "list", "-f", "csv", "-c", columns); got != want {
			t.Errorf("%s: got %q", columns, got)
		}
	}
	if got := s.mustRun(t, "", "config", "trust", "ls"); !strings.HasPrefix(got, "+--------+--------+-------------+--------------+") || !strings.Contains(got, "|  NAME  |  TYPE  | DESCRIPTION | FINGERPRINT  |") {
		t.Errorf("got\n%s", got)
	}
	s.mustRun(t, "", "config", "trust", "list", "lap", "type=client")
	lines := s.Lines()
	if got := lines[len(lines)-1]; got != "GET /1.0/certificates?filter=name+eq+%28%5Elap%24%7C%5Elap.%2A%29+and+type+eq+client&recursion=1" {
		t.Errorf("asked %s", got)
	}
}

func TestTrustedCertificateIsShownEditedAndRemoved(t *testing.T) {
	s, cert := certified(t)
	short := cert.Fingerprint[:12]
	shown := s.mustRun(t, "", "config", "trust", "show", short)
	if !strings.HasPrefix(shown, "name: laptop\ntype: client\nrestricted: true\nprojects:\n  - web\n  - shop\ncertificate: |\n  -----BEGIN") ||
		!strings.HasSuffix(shown, "description: Jane's\nfingerprint: "+cert.Fingerprint+"\n") {
		t.Errorf("got %s", shown)
	}
	s.mustRun(t, strings.Replace(shown, "restricted: true", "restricted: false", 1), "config", "trust", "edit", short)
	if body := s.body(t, "PUT /1.0/certificates/"+cert.Fingerprint); !strings.HasPrefix(body, `{"name":"laptop","type":"client","restricted":false,"projects":["web","shop"],`) || strings.Contains(body, "fingerprint") {
		t.Errorf("sent %s", body)
	}
	s.Reply("DELETE /1.0/certificates/"+short, struct{}{})
	s.mustRun(t, "", "config", "trust", "remove", short)
	s.mustFail(t, "Error: Missing fingerprint\nHint: usage: incus config trust remove [<remote>:]<fingerprint> [flags]; see incus config trust list\n", "", "config", "trust", "rm", "local:")
}

func TestCertificateIsAddedFromAFile(t *testing.T) {
	s, cert := certified(t)
	path := filepath.Join(t.TempDir(), "laptop.crt")
	s.mustFail(t, "Error: Provided certificate path doesn't exist: "+path+"\nHint: on the client: incus remote get-client-certificate > "+path+"\n", "", "config", "trust", "add-certificate", path)
	if err := os.WriteFile(path, []byte(cert.Certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	parsed, err := parseCertificate(cert.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	material := base64.StdEncoding.EncodeToString(parsed.Raw)
	for _, tt := range []struct{ stdin, args, want string }{
		{"", path, `{"name":"laptop.crt","type":"client","restricted":false,"projects":[],"certificate":"` + material + `","description":"","trust_token":"","token":false}`},
		{cert.Certificate, "local: - --name prom --type metrics --description D", `{"name":"prom","type":"metrics","restricted":false,"projects":[],"certificate":"` + material + `","description":"D","trust_token":"","token":false}`},
		{"", path + " --restricted --projects shop", `{"name":"laptop.crt","type":"client","restricted":true,"projects":["shop"],"certificate":"` + material + `","description":"","trust_token":"","token":false}`},
	} {
		s.mustRun(t, tt.stdin, append([]string{"config", "trust", "add-certificate"}, strings.Fields(tt.args)...)...)
		if body := s.body(t, "POST /1.0/certificates"); body != tt.want {
			t.Errorf("%s: sent %s", tt.args, body)
		}
	}
	s.mustFail(t, "Error: Unknown certificate type \"server\"\nHint: use client or metrics\n", "", "config", "trust", "add-certificate", path, "--type", "server")
	s.mustFail(t, "Error: -: Invalid certificate\nHint: give a PEM certificate, as incus remote get-client-certificate prints it\n", "rubbish", "config", "trust", "add-certificate", "-")
}

func TestPreseedLetsClientsIn(t *testing.T) {
	s := standalone(t, nil)
	pair := clienttest.Pair(t, nil)
	material, fingerprint := base64.StdEncoding.EncodeToString(pair.Leaf.Raw), client.Fingerprint(pair.Leaf)
	s.Reply("POST /1.0/certificates", struct{}{})
	preseed := "certificates: [{name: laptop, type: client, restricted: true, projects: [shop], certificate: " + material + "}]\n"
	s.mustRun(t, preseed, "admin", "init", "--preseed")
	if body := s.body(t, "POST /1.0/certificates"); !strings.HasPrefix(body, `{"name":"laptop","type":"client","restricted":true,"projects":["shop"],"certificate":"`+material) {
		t.Errorf("sent %s", body)
	}
	// Run again: a client that is in has the rights that the file says.
	s.Refuse("POST /1.0/certificates", 409, "Certificate already in trust store", api.ErrorMetadata{Reason: api.CertTaken})
	s.Reply("PUT /1.0/certificates/"+fingerprint, struct{}{})
	for restricted, changes := range map[bool]bool{true: false, false: true} {
		s.Reply("GET /1.0/certificates/"+fingerprint, api.Certificate{
			Name: "laptop", Type: "client", Restricted: restricted, Projects: []string{"shop"}, Fingerprint: fingerprint, Certificate: "PEM",
		})
		before := len(s.Lines())
		s.mustRun(t, preseed, "admin", "init", "--preseed")
		if changed := strings.Contains(strings.Join(s.Lines()[before:], "\n"), "PUT /1.0/certificates/"); changed != changes {
			t.Errorf("restricted %t: changed %t", restricted, changed)
		}
	}
	if body := s.body(t, "PUT /1.0/certificates/"+fingerprint); body != `{"name":"laptop","type":"client","restricted":true,"projects":["shop"],"certificate":"PEM","description":""}` {
		t.Errorf("sent %s", body)
	}
	s.mustFail(t, "Error: certificates: "+fingerprint+" is there more than once; nothing was changed\nHint: make one entry of them\n",
		preseed[:len(preseed)-2]+", {name: b, type: client, certificate: "+material+"}]\n", "admin", "init", "--preseed")
}

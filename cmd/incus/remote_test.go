package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/client"
	"incusd/client/clienttest"
	"incusd/cmd/incus/internal/conf"
	"incusd/endorsement"
)

// A far server is one behind an address, with a trust store of one secret and one certificate.
type far struct {
	*clienttest.Server
	address, fingerprint string
	pair                 tls.Certificate

	mu      sync.Mutex
	secret  string // of the live token
	trusts  string // fingerprint of the client's certificate
	refuses *api.Error
}

// newFar starts a far server that knows the live token secret.
func newFar(t *testing.T, secret string) *far {
	t.Helper()
	f := &far{Server: clienttest.New(t), pair: clienttest.Pair(t, nil), secret: secret}
	f.address = f.ServeTLS(t, f.pair)
	f.fingerprint = client.Fingerprint(f.pair.Leaf)
	f.Handle("GET /1.0", func(w http.ResponseWriter, r *http.Request) {
		server := api.Server{}
		server.Auth, server.AuthMethods = "untrusted", []string{"tls"}
		if f.knows(r) {
			server.Auth, server.APIExtensions, server.Config = "trusted", []string{"projects"}, api.ConfigMap{"user.x": "far"}
		}
		clienttest.Sync(w, server)
	})
	f.Handle("POST /1.0/certificates", func(w http.ResponseWriter, r *http.Request) {
		var post api.CertificatesPost
		data, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(data, &post)
		f.mu.Lock()
		defer f.mu.Unlock()
		token, err := api.ParseCertificateAddToken(post.TrustToken)
		if f.refuses != nil {
			clienttest.Error(w, f.refuses.Status(), f.refuses.Message, api.ErrorMetadata{Reason: f.refuses.Reason, Hint: f.refuses.NextStep()})
			return
		}
		if err != nil || token.Secret != f.secret || len(r.TLS.PeerCertificates) == 0 {
			clienttest.Error(w, 403, "No matching certificate add operation found", nil)
			return
		}
		f.secret, f.trusts = "", client.Fingerprint(r.TLS.PeerCertificates[0])
		clienttest.Sync(w, struct{}{})
	})
	f.Handle("GET /1.0/projects", f.guarded([]api.Project{{Name: "default"}, {Name: "shop"}}))
	f.Handle("GET /1.0/projects/default", f.guarded(api.Project{Name: "default"}))
	f.Handle("GET /1.0/cluster", f.guarded(api.Cluster{Enabled: true, ServerName: "far1"}))
	f.Handle("GET /1.0/cluster/members", f.guarded([]api.ClusterMember{{ServerName: "far1", Status: "Online"}}))
	return f
}

func (f *far) knows(r *http.Request) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && client.Fingerprint(r.TLS.PeerCertificates[0]) == f.trusts
}

// guarded answers who is trusted.
func (f *far) guarded(answer any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !f.knows(r) {
			clienttest.Error(w, 403, "not authorized", nil)
			return
		}
		clienttest.Sync(w, answer)
	}
}

// token is the text of a token that names the server and these addresses.
func (f *far) token(secret string, addresses ...string) string {
	return (&api.CertificateAddToken{ClientName: "laptop", Fingerprint: f.fingerprint, Addresses: addresses, Secret: secret}).String()
}

// remoteShell is a shell with a folder for its configuration.
func remoteShell(t *testing.T) *shell {
	t.Helper()
	s := standalone(t, nil)
	s.env["INCUS_CONF"] = filepath.Join(t.TempDir(), "incus")
	return s
}

// ownCert lets the shell have a client certificate already.
func (s *shell) ownCert(t *testing.T) {
	t.Helper()
	if _, err := conf.MakeClientCert(conf.Dirs{User: s.env["INCUS_CONF"]}, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// file is the content of a file of the shell's configuration; empty if there is none.
func (s *shell) file(name string) string {
	data, _ := os.ReadFile(filepath.Join(s.env["INCUS_CONF"], name))
	return string(data)
}

func TestRemoteIsAddedByAToken(t *testing.T) {
	s, f := remoteShell(t), newFar(t, "s3cret")
	dead := clienttest.Refusing(t)
	token := f.token("s3cret", dead, f.address)
	if !s.run("", "remote", "add", "prod", token) {
		t.Fatal(&s.stderr)
	}
	if got := s.stderr.String(); got != "Generating a client certificate. This may take a minute...\n" || s.stdout.Len() > 0 {
		t.Errorf("stdout %q, stderr %q", &s.stdout, got)
	}
	if body := f.Requests()[1].Body; !strings.Contains(body, `"trust_token":"`+token+`"`) || !strings.Contains(body, `"type":""`) {
		t.Errorf("sent %s", body)
	}
	want := "default-remote: local\nremotes:\n" +
		"  images:\n    protocol: simplestreams\n    public: true\n    addr: https://images.linuxcontainers.org\n" +
		"  local:\n    protocol: incus\n    public: false\n    addr: unix://\n" +
		"  prod:\n    auth_type: tls\n    protocol: incus\n    public: false\n    addr: https://" + dead + ",https://" + f.address + "\n" +
		"    last_working_address: https://" + f.address + "\n"
	if diff := cmp.Diff(want, s.file("config.yml")); diff != "" {
		t.Errorf("config.yml, -want +got:\n%s", diff)
	}
	block, _ := pem.Decode([]byte(s.file("servercerts/prod.crt")))
	if block == nil || string(block.Bytes) != string(f.pair.Leaf.Raw) {
		t.Error("another certificate was saved")
	}
	if got := s.mustRun(t, "", "cluster", "list", "prod:", "-f", "csv", "-c", "ns"); got != "far1,ONLINE\n" {
		t.Errorf("got %q", got)
	}
	s.mustFail(t, "Error: Remote prod already exists\nHint: choose another name; for other addresses of the same servers: incus remote set-urls prod ADDRESS...\n",
		"", "remote", "add", "prod", token)
}

func TestRefusedTokensAddNothing(t *testing.T) {
	s, f := remoteShell(t), newFar(t, "s3cret")
	s.ownCert(t)
	f.refuses = api.Errorf(api.TokenExpired, "Token has expired").WithHint("issue another: incus config trust add NAME")
	s.mustFail(t, "Error: Failed to create certificate: Token has expired\nHint: issue another: incus config trust add NAME\n",
		"", "remote", "add", "prod", f.token("s3cret", f.address))
	// The server at that address is not the one that the token names: it does not get to see it.
	impostor := newFar(t, "s3cret")
	s.mustFail(t, "Error: Certificate fingerprint mismatch between certificate token and server \"https://"+impostor.address+"\": it shows "+
		impostor.fingerprint+", and the token names "+f.fingerprint+"\nHint: it is another server, or has a new certificate (then issue another token: "+
		"incus config trust add NAME), or somebody sits in between; the token was not sent\n",
		"", "remote", "add", "prod", f.token("s3cret", impostor.address))
	if len(impostor.Requests()) > 0 {
		t.Errorf("the impostor was asked %q", impostor.Lines())
	}
	s.mustFail(t, "Error: A remote that is added by a token needs a name\nHint: incus remote add NAME TOKEN\n", "", "remote", "add", f.token("s", f.address))
	if s.file("config.yml") != "" || s.file("servercerts/prod.crt") != "" {
		t.Errorf("wrote %s", s.file("config.yml"))
	}
}

func TestOtherAddressesAreAskedForWhereThoseOfTheTokenAreDead(t *testing.T) {
	s, f := remoteShell(t), newFar(t, "s3cret")
	s.ownCert(t)
	dead := clienttest.Refusing(t)
	token := f.token("s3cret", dead)
	refused := `Unable to connect to remote "prod": ` + dead + ": connect: connection refused\n"
	s.mustFail(t, refused+"Error: Failed to add remote: "+refused+"Hint: the token was not used: try again where the server can be reached, or give an address of it when asked\n",
		"\n", "remote", "add", "prod", token)
	s.mustFail(t, refused+"Error: Failed to add remote: "+refused+"Hint: the token was not used: try again where the server can be reached, or give an address of it when asked\n",
		"", "remote", "add", "prod", token)
	if !s.run(dead+", "+f.address+"\n", "remote", "add", "prod", token) {
		t.Fatal(&s.stderr)
	}
	want := "All server addresses are unavailable\nPlease provide alternate server addresses separated with commas (empty to abort): "
	if got := s.stdout.String(); got != want || s.stderr.String() != refused {
		t.Errorf("stdout %q, stderr %q", got, &s.stderr)
	}
	if got := s.file("config.yml"); !strings.Contains(got, "addr: https://"+dead+",https://"+f.address+"\n") {
		t.Errorf("wrote %s", got)
	}
}

func TestRemoteIsAddedByItsFingerprint(t *testing.T) {
	for _, tt := range []struct{ answer, stderr string }{
		{"y", ""},
		{"FINGERPRINT", ""},
		{"what?\nyes", "Please type 'y', 'n' or the fingerprint:\n"},
	} {
		s, f := remoteShell(t), newFar(t, "s3cret")
		s.ownCert(t)
		answers := strings.Replace(tt.answer, "FINGERPRINT", f.fingerprint, 1) + "\n" + f.token("s3cret", f.address) + "\n"
		if !s.run(answers, "remote", "add", "prod", f.address) {
			t.Fatal(&s.stderr)
		}
		question := "ok (y/n/[fingerprint])? "
		want := "Certificate fingerprint: " + f.fingerprint + "\n" + strings.Repeat(question, strings.Count(tt.answer, "\n")+1) +
			"Trust token for prod: Client certificate now trusted by server: prod\n"
		if got := s.stdout.String(); got != want || s.stderr.String() != tt.stderr {
			t.Errorf("%s: stdout %q, stderr %q", tt.answer, got, &s.stderr)
		}
		if body := f.body("POST /1.0/certificates"); !strings.Contains(body, `"type":"client"`) {
			t.Errorf("sent %s", body)
		}
		if got := s.mustRun(t, "", "config", "get", "prod:", "user.x"); got != "far\n" {
			t.Errorf("got %q", got)
		}
	}
}

// body is what was sent with the last request of that line.
func (f *far) body(line string) string {
	found := ""
	for _, r := range f.Requests() {
		if r.Line == line {
			found = r.Body
		}
	}
	return found
}

func TestCertificateThatIsNotAcceptedAddsNothing(t *testing.T) {
	s, f := remoteShell(t), newFar(t, "s3cret")
	s.ownCert(t)
	other := strings.Repeat("0", 64)
	s.mustFail(t, "Error: Server certificate NACKed by user\nHint: \"incus info\" on the server shows its fingerprint; nothing was added\n", "n\n", "remote", "add", "prod", f.address)
	s.mustFail(t, "Error: Server certificate NACKed by user\nHint: \"incus info\" on the server shows its fingerprint; nothing was added\n", "\n", "remote", "add", "prod", f.address)
	s.mustFail(t, "Error: The server shows certificate "+f.fingerprint+", not "+other+
		"\nHint: it is another server, or somebody sits in between; nothing was added\n", other+"\n", "remote", "add", "prod", f.address)
	s.mustFail(t, "Error: the input ended before the answer to \"ok (y/n/[fingerprint])?\"\n", "", "remote", "add", "prod", f.address)
	if s.file("config.yml") != "" || len(f.Requests()) > 0 {
		t.Errorf("asked %q, wrote %s", f.Lines(), s.file("config.yml"))
	}
}

func TestTokensThatLetNoClientInAreNotSent(t *testing.T) {
	s, f := remoteShell(t), newFar(t, "s3cret")
	s.ownCert(t)
	join := (&api.ClusterMemberJoinToken{ServerName: "m2", Fingerprint: f.fingerprint, Addresses: []string{f.address}, Secret: "x"}).String()
	cut := f.token("s3cret", f.address)[:120]
	const (
		notForClients = "Error: A join token lets a server join the cluster, and no client in\nHint: a client needs the token of: incus config trust add NAME\n"
		isCut         = "Error: Invalid certificate add token: not a JSON object of the right form\nHint: copy the whole token, as incus config trust add printed it\n"
		none          = "Error: The server does not trust this client, and no token was given\n" +
			"Hint: an administrator of the server makes one: incus config trust add NAME; nothing was added\n"
	)
	for _, tt := range []struct{ want, answers, args string }{
		{notForClients, "", "prod " + join},
		{notForClients, "", "prod " + f.address + " --token " + join},
		{notForClients, "y\n" + join + "\n", "prod " + f.address},
		{isCut, "", "prod " + cut},
		{isCut, "", cut},
		{isCut, "", "prod " + f.address + " --token " + cut},
		{isCut, "y\n" + cut + "\n", "prod " + f.address},
		{none, "y\n\n", "prod " + f.address},
	} {
		s.mustFail(t, tt.want, tt.answers, append([]string{"remote", "add"}, strings.Fields(tt.args)...)...)
	}
	if f.body("POST /1.0/certificates") != "" || s.file("config.yml") != "" {
		t.Errorf("asked %q, wrote %s", f.Lines(), s.file("config.yml"))
	}
}

func TestRemoteThatDoesNotAnswerIsNotAdded(t *testing.T) {
	s := remoteShell(t)
	s.ownCert(t)
	dead := clienttest.Refusing(t)
	s.mustFail(t, "Error: Unable to connect to remote \"prod\": "+dead+": connect: connection refused\n"+
		"Hint: check the address, that the server runs, and that this machine reaches it; nothing was added\n", "", "remote", "add", "prod", dead)
}

func TestRemoteAddWithFlagsAsksNothing(t *testing.T) {
	s, f := remoteShell(t), newFar(t, "s3cret")
	s.ownCert(t)
	f.Handle("GET /1.0/projects/shop", f.guarded(api.Project{Name: "shop"}))
	args := []string{"remote", "add", "prod", "https://" + f.address, "--accept-certificate", "--token", f.token("s3cret", "x"), "--project", "shop", "--keepalive", "30", "--auth-type", "tls"}
	s.mustRun(t, "", args...)
	if got := s.file("config.yml"); !strings.Contains(got, "  prod:\n    auth_type: tls\n    keepalive: 30\n    project: shop\n    protocol: incus\n") {
		t.Errorf("wrote %s", got)
	}
	// Trusted already: no token is needed for another name.
	s.mustRun(t, "", "remote", "add", "again", f.address, "--accept-certificate")
	// Trusted already, and a token all the same: the answer to an earlier try may have been lost.
	if !s.run("", "remote", "add", "third", f.token("s3cret", f.address)) {
		t.Fatal(&s.stderr)
	}
	if got := s.stderr.String(); got != "Warning: the server trusts this client already (No matching certificate add operation found)\n" {
		t.Errorf("got %q", got)
	}
}

func TestProjectOfARemoteIsTheOneThatTheClientMayUse(t *testing.T) {
	for _, tt := range []struct {
		projects            []api.Project
		answer, asked, want string
	}{
		{[]api.Project{}, "", "", ""},
		{[]api.Project{{Name: "a"}}, "", "", "    project: a\n"},
		{[]api.Project{{Name: "a"}, {Name: "default"}}, "", "", ""},
		{[]api.Project{{Name: "a"}, {Name: "b"}}, "b\n", "Available projects:\n - a\n - b\nName of the project to use for this remote: ", "    project: b\n"},
	} {
		s, f := remoteShell(t), newFar(t, "s3cret")
		s.ownCert(t)
		f.Handle("GET /1.0/projects", f.guarded(tt.projects))
		if got := s.mustRun(t, tt.answer, "remote", "add", "prod", f.token("s3cret", f.address)); got != tt.asked {
			t.Errorf("%v: asked %q", tt.projects, got)
		}
		if got := s.file("config.yml"); strings.Contains(got, "project:") != (tt.want != "") || !strings.Contains(got, tt.want) {
			t.Errorf("%v: wrote %s", tt.projects, got)
		}
	}
}

func TestRemotesOfOtherKindsAreKeptForIncus(t *testing.T) {
	s := remoteShell(t)
	s.Reply("GET /1.0/projects", []api.Project{{Name: "default"}})
	s.mustRun(t, "", "remote", "add", "oci", "https://user:pass@docker.io/x", "--protocol", "oci", "--credentials-helper", "h")
	s.mustRun(t, "", "remote", "add", "sock", s.Socket())
	if got := s.file("config.yml"); !strings.Contains(got, "  oci:\n    protocol: oci\n    credentials_helper: h\n    public: true\n    addr: https://user:pass@docker.io/x\n"+
		"  sock:\n    auth_type: tls\n    project: default\n    protocol: incus\n    public: false\n    addr: unix://"+s.Socket()+"\n") {
		t.Errorf("wrote %s", got)
	}
	s.mustRun(t, "", "storage", "list", "sock:")
	s.mustFail(t, "Error: The remote isn't a private server\nHint: images serves images to anybody; this command needs a server that knows you\n", "", "info", "images:")
}

func TestWrongRemotesAreRefusedBeforeAnythingIsAsked(t *testing.T) {
	s := remoteShell(t)
	s.ownCert(t)
	for _, tt := range []struct{ args, want string }{
		{"https://a:8443", "Remote names may not contain colons; please provide an explicit one\nHint: incus remote add NAME https://a:8443\n"},
		{"a:b 10.0.0.1", "Remote names may not contain colons\n"},
		{"local 10.0.0.1", "Remote local already exists\nHint: choose another name\n"},
		{"a 10.0.0.1 /run/x.socket", "Cannot mix HTTPS and Unix URLs\nHint: make them two remotes\n"},
		{"a http://b", "Invalid URL scheme \"http\" in \"http://b\"\nHint: use https://HOST:PORT, or unix://PATH\n"},
		{"a b --protocol lxd", "Invalid protocol: lxd\nHint: use incus, oci or simplestreams\n"},
		{"a http://b --protocol oci", "Only https URLs are supported for oci and simplestreams\n"},
		{"a b --auth-type oidc", "Authentication type 'oidc' is not supported by this client\nHint: use tls, which needs a certificate and a token: incus config trust add NAME on the server\n"},
	} {
		s.mustFail(t, "Error: "+tt.want, "", append([]string{"remote", "add"}, strings.Fields(tt.args)...)...)
	}
	if s.file("config.yml") != "" {
		t.Errorf("wrote %s", s.file("config.yml"))
	}
}

func TestAddressesAreNormalized(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1": "https://10.0.0.1:8443", "a.example:1": "https://a.example:1", "https://a": "https://a:8443",
		"https://a:443/some/path": "https://a:443", "fe80::1": "https://[fe80::1]:8443", "[::1]:99": "https://[::1]:99",
		"unix:///run/s": "unix:///run/s", "/run/s": "unix:///run/s", "unix://": "unix://", "unix:/x": "unix:///x",
		"": "", "ftp://a": "", "unix://a": "", "a b": "", "https://u:p@a": "", "0.0.0.0": "", "https://": "", "a:0": "", "a:65536": "",
	} {
		got, err := normalizeAddress(text)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	if got, err := normalized([]string{"a,b:1", "a"}); err != nil || strings.Join(got, " ") != "https://a:8443 https://b:1" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRemotesAreListedAsIncusDoes(t *testing.T) {
	s := remoteShell(t)
	if diff := cmp.Diff(golden(t, "remote-list.out"), s.mustRun(t, "", "remote", "list")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	write(t, s, "config.yml", "default-remote: prod\nremotes:\n  local: {addr: 'unix://'}\n  prod:\n    addr: https://a:8443,https://b:8443\n    last_working_address: https://b:8443\n")
	if got := s.mustRun(t, "", "remote", "list", "-f", "csv"); got !=
		"local,unix://,incus,file access,NO,YES,NO\nprod (current),\"https://a:8443\nhttps://b:8443 (last)\",incus,tls,NO,NO,NO\n" {
		t.Errorf("got %q", got)
	}
	if got := s.mustRun(t, "", "remote", "list", "-f", "yaml"); got !=
		"local:\n  protocol: incus\n  public: false\n  addr: unix://\nprod:\n  last_working_address: https://b:8443\n  protocol: incus\n  public: false\n  addr: https://a:8443,https://b:8443\n" {
		t.Errorf("got %q", got)
	}
	if got := s.mustRun(t, "", "remote", "list", "-f", "json"); !strings.Contains(got, `"prod":{"Addrs":["https://a:8443","https://b:8443"],"LastWorkingAddr":"https://b:8443","AuthType":""`) {
		t.Errorf("got %q", got)
	}
	if got := s.mustRun(t, "", "remote", "get-default"); got != "prod\n" {
		t.Errorf("got %q", got)
	}
	s.env["INCUS_REMOTE"] = "local"
	if got := s.mustRun(t, "", "remote", "get-default"); got != "local\n" {
		t.Errorf("got %q", got)
	}
}

func write(t *testing.T, s *shell, name, text string) {
	t.Helper()
	path := filepath.Join(s.env["INCUS_CONF"], name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRemotesAreSwitchedRenamedMovedAndRemoved(t *testing.T) {
	s, f := remoteShell(t), newFar(t, "s3cret")
	s.ownCert(t)
	s.mustRun(t, "", "remote", "add", "prod", f.token("s3cret", f.address))
	s.mustRun(t, "", "remote", "switch", "prod")
	if got := s.mustRun(t, "", "cluster", "list", "-f", "csv", "-c", "n"); got != "far1\n" {
		t.Errorf("the default remote is not asked: %q", got)
	}
	s.mustRun(t, "", "project", "switch", "default")
	if got := s.mustRun(t, "", "project", "list", "-f", "csv", "-c", "n"); got != "default (current)\nshop\n" {
		t.Errorf("got %q", got)
	}
	s.mustRun(t, "", "remote", "rename", "prod", "lab")
	if got := s.mustRun(t, "", "remote", "get-default"); got != "lab\n" || s.file("servercerts/prod.crt") != "" || s.file("servercerts/lab.crt") == "" {
		t.Errorf("default %q, files %q and %q", got, s.file("servercerts/prod.crt"), s.file("servercerts/lab.crt"))
	}
	s.mustRun(t, "", "cluster", "list", "lab:")
	dead := clienttest.Refusing(t)
	s.mustRun(t, "", "remote", "set-url", "lab", dead)
	s.mustFail(t, "Error: Unable to connect to remote \"lab\": "+dead+": connect: connection refused\nHint: check that the server runs and that this machine "+
		"reaches it; give it another address: incus remote set-urls lab ADDRESS...\n", "", "cluster", "list")
	s.mustRun(t, "", "remote", "set-urls", "lab:", dead, f.address)
	s.mustRun(t, "", "cluster", "list")
	// A server with another certificate at the same address is not talked to.
	impostor := newFar(t, "")
	s.mustRun(t, "", "remote", "set-url", "lab", impostor.address)
	s.mustFail(t, "Error: Unable to connect to remote \"lab\": "+impostor.address+": shows certificate "+impostor.fingerprint+" instead of "+f.fingerprint+
		"\nHint: compare the fingerprint with that of \"incus info\" on the server; if it has a new certificate, add the remote anew (incus remote remove lab); "+
		"if not, somebody sits in between\n", "", "cluster", "list")
	if len(impostor.Requests()) > 0 {
		t.Errorf("the impostor was asked %q", impostor.Lines())
	}
	s.mustFail(t, "Error: Can't remove the default remote\nHint: make another one the default first: incus remote switch local\n", "", "remote", "remove", "lab")
	s.mustRun(t, "", "remote", "switch", "local")
	s.mustRun(t, "", "remote", "rm", "lab")
	if s.file("servercerts/lab.crt") != "" || strings.Contains(s.file("config.yml"), "lab") || s.file("client.key") == "" {
		t.Errorf("left %s", s.file("config.yml"))
	}
	for args, want := range map[string]string{
		"switch x":         "Remote x doesn't exist\nHint: those that there are: images, local\n",
		"remove x":         "Remote x doesn't exist\nHint: those that there are: images, local\n",
		"remove local":     "Remote local is static and cannot be modified\nHint: local: is always the daemon behind the unix socket of this machine\n",
		"rename local x":   "Remote local is static and cannot be modified\nHint: local: is always the daemon behind the unix socket of this machine\n",
		"set-url local x":  "Remote local is static and cannot be modified\nHint: local: is always the daemon behind the unix socket of this machine\n",
		"rename images a:": "Remote names may not contain colons\n",
	} {
		s.mustFail(t, "Error: "+want, "", append([]string{"remote"}, strings.Fields(args)...)...)
	}
}

func TestAdministratorsOfThisMachineAreHeardWhateverTheDefaultRemote(t *testing.T) {
	s := remoteShell(t)
	write(t, s, "config.yml", "default-remote: gone\n")
	s.Reply("GET /internal/ready", struct{}{})
	s.mustRun(t, "", "admin", "waitready")
	s.mustFail(t, "Error: The remote \"gone\" doesn't exist\nHint: those that there are: local; add it: incus remote add gone ADDRESS\n", "", "info")
	s.mustRun(t, "", "info", "local:")
}

func TestRemovedClientIsToldThatItIsNotTrusted(t *testing.T) {
	s, f := remoteShell(t), newFar(t, "s3cret")
	s.ownCert(t)
	s.mustRun(t, "", "remote", "add", "prod", f.token("s3cret", f.address))
	own := f.trusts
	f.trusts = ""
	s.mustFail(t, "Error: not authorized: the server of remote \"prod\" does not trust this client (certificate "+own+")\nHint: it was removed there, or never added, or has expired. "+
		"Let an administrator run \"incus config trust add NAME\" and use the token here: incus remote remove prod; incus remote add prod TOKEN\n", "", "cluster", "list", "prod:")
	// Without any certificate the server is not even asked.
	asked := len(f.Requests())
	if err := os.Remove(filepath.Join(s.env["INCUS_CONF"], "client.key")); err != nil {
		t.Fatal(err)
	}
	s.mustFail(t, "Error: Missing TLS client certificate and key\nHint: make them: incus remote generate-certificate; the server has to be told of the new certificate\n", "", "cluster", "list", "prod:")
	if len(f.Requests()) != asked {
		t.Error("the server was asked")
	}
}

func TestAddressThatAnsweredLastIsTriedFirst(t *testing.T) {
	s, f := remoteShell(t), newFar(t, "s3cret")
	s.ownCert(t)
	second := f.ServeTLS(t, f.pair)
	s.mustRun(t, "", "remote", "add", "prod", f.token("s3cret", f.address, second))
	if strings.Contains(s.file("config.yml"), "last_working_address") {
		t.Error("the first address needs no note")
	}
	dead := clienttest.Refusing(t)
	write(t, s, "config.yml", strings.Replace(s.file("config.yml"), f.address, dead, 1))
	s.mustRun(t, "", "cluster", "list", "prod:")
	if got := s.file("config.yml"); !strings.Contains(got, "    last_working_address: https://"+second+"\n") {
		t.Errorf("wrote %s", got)
	}
}

func TestReplacedCertificateOfAServerIsKept(t *testing.T) {
	s, f := remoteShell(t), newFar(t, "s3cret")
	s.ownCert(t)
	next := clienttest.Pair(t, nil)
	proof, err := endorsement.Sign(f.pair.Leaf, f.pair.PrivateKey, next.Leaf, time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	with := next
	with.Certificate = [][]byte{next.Leaf.Raw, proof.Raw, f.pair.Leaf.Raw}
	replaced := f.ServeTLS(t, with)
	// A token that is out leads there, too.
	s.mustRun(t, "", "remote", "add", "lab", f.token("s3cret", replaced))
	if got := s.file("servercerts/lab.crt"); got != certificatePEM(next.Leaf) {
		t.Errorf("saved %s", got)
	}
	s.mustRun(t, "", "remote", "add", "prod", f.address, "--accept-certificate")
	s.mustRun(t, "", "remote", "set-url", "prod", replaced)
	if !s.run("", "cluster", "list", "prod:") || !strings.Contains(s.stderr.String(), "Warning: the certificate of remote \"prod\" was replaced, "+
		"and its former key endorses the new one, which is kept from now on: "+client.Fingerprint(next.Leaf)) {
		t.Errorf("stderr: %s", &s.stderr)
	}
	if got := s.file("servercerts/prod.crt"); got != certificatePEM(next.Leaf) {
		t.Errorf("kept %s", got)
	}
	// A year later nothing leads from the old one any more, and nothing needs to.
	s.mustRun(t, "", "remote", "set-url", "prod", f.ServeTLS(t, next))
	s.mustRun(t, "", "cluster", "list", "prod:")
}

func TestCompletionKnowsRemotes(t *testing.T) {
	s, f := remoteShell(t), newFar(t, "s3cret")
	s.ownCert(t)
	s.mustRun(t, "", "remote", "add", "prod", f.token("s3cret", f.address))
	for args, want := range map[string]string{
		"remote switch ":           "images\nlocal\nprod\n",
		"remote remove p":          "prod\n",
		"remote rename prod ":      "",
		"cluster show prod:":       "prod:far1\n",
		"cluster show nope:":       "",
		"info prod: --target ":     "far1\n",
		"config get prod: cl":      "",
		"remote add --protocol ":   "incus\noci\nsimplestreams\n",
		"project switch prod:sh":   "prod:shop\n",
		"config trust add x --pro": "--project\n--projects\n",
	} {
		s.run("", append([]string{"__complete"}, strings.Split(args, " ")...)...)
		got, _, _ := strings.Cut(s.stdout.String(), ":4\n")
		if strings.HasSuffix(args, "--pro") {
			got = "" // flags have descriptions
			for line := range strings.Lines(s.stdout.String()) {
				if word, _, found := strings.Cut(line, "\t"); found {
					got += word + "\n"
				}
			}
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", args, got, want)
		}
	}
}

func TestClientCertificateIsPrintedAndMade(t *testing.T) {
	s := remoteShell(t)
	if !s.run("", "remote", "get-client-certificate") || s.stdout.String() != s.file("client.crt") ||
		s.stderr.String() != "Generating a client certificate. This may take a minute...\n" {
		t.Errorf("stdout %q, stderr %q", &s.stdout, &s.stderr)
	}
	path := filepath.Join(t.TempDir(), "laptop.crt")
	if got := s.mustRun(t, "", "remote", "get-client-certificate", path); got != "" {
		t.Errorf("got %q", got)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != s.file("client.crt") {
		t.Error(err)
	}
	s.mustFail(t, "Error: A client certificate is already present\nHint: servers know this client by it. To give it up, move client.crt and client.key away from "+
		s.env["INCUS_CONF"]+"\n", "", "remote", "generate-certificate")
	s.mustFail(t, "Error: Invalid certificate format \"der\"\nHint: use pem\n", "", "remote", "get-client-certificate", "-f", "der")
	quiet := remoteShell(t)
	quiet.mustRun(t, "", "remote", "generate-certificate", "-q")
	if quiet.file("client.key") == "" {
		t.Error("there is no key")
	}
}

func TestClientTokenIsAJWTInTheNameOfTheCertificate(t *testing.T) {
	s := remoteShell(t)
	s.ownCert(t)
	own, err := (func() (*conf.ClientCert, error) {
		c, err := conf.Read(conf.Dirs{User: s.env["INCUS_CONF"]})
		if err != nil {
			return nil, err
		}
		return c.ClientCert("")
	})()
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now().Unix()
	header, claims, sum, signature := parts(t, strings.TrimSpace(s.mustRun(t, "", "remote", "get-client-token", "30m")))
	if header != `{"alg":"ES384","typ":"JWT"}` {
		t.Errorf("header %s", header)
	}
	key := own.TLS.Leaf.PublicKey.(*ecdsa.PublicKey)
	digest := sha512.Sum384(sum)
	if len(signature) != 96 || !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:48]), new(big.Int).SetBytes(signature[48:])) {
		t.Error("the signature is not that of the key")
	}
	var c struct {
		Sub           string
		Iat, Nbf, Exp int64
	}
	if err := json.Unmarshal([]byte(claims), &c); err != nil || c.Sub != client.Fingerprint(own.TLS.Leaf) || c.Iat < before || c.Nbf != c.Iat || c.Exp != c.Iat+1800 {
		t.Errorf("claims %s: %v", claims, err)
	}
	for _, duration := range []string{"x", "0s", "-1m", ""} {
		s.mustFail(t, "Error: Invalid duration \""+duration+"\"\nHint: for example 30m, or 12h\n", "", "remote", "get-client-token", "--", duration)
	}
}

func TestClientTokenOfAnRSAKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pair := clienttest.Pair(t, nil)
	own := &conf.ClientCert{TLS: tls.Certificate{PrivateKey: key, Leaf: pair.Leaf}}
	token, err := clientToken(own, time.Now(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	header, _, sum, signature := parts(t, token)
	digest := sha256.Sum256(sum)
	if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature); err != nil || header != `{"alg":"RS256","typ":"JWT"}` {
		t.Errorf("header %s: %v", header, err)
	}
	own.TLS.PrivateKey = pair.PrivateKey // P-256, which has no place in the protocol
	if _, err := clientToken(own, time.Now(), time.Minute); err == nil || err.Error() != "Unable to sign JWT with available key algorithms" {
		t.Errorf("got %v", err)
	}
}

// parts takes a token apart; sum is what is signed.
func parts(t *testing.T, token string) (header, claims string, sum, signature []byte) {
	t.Helper()
	words := strings.Split(token, ".")
	if len(words) != 3 {
		t.Fatalf("got %q", token)
	}
	var decoded [3][]byte
	for i, word := range words {
		var err error
		if decoded[i], err = base64.RawURLEncoding.DecodeString(word); err != nil {
			t.Fatal(err)
		}
	}
	return string(decoded[0]), string(decoded[1]), []byte(words[0] + "." + words[1]), decoded[2]
}

// An authority that vouches for the server makes a prompt needless.
func TestServerThatAnAuthorityVouchesForIsNotAskedAbout(t *testing.T) {
	authority := clienttest.Pair(t, func(c *x509.Certificate) *tls.Certificate {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
		return nil
	})
	s, f := remoteShell(t), newFar(t, "s3cret")
	s.ownCert(t)
	vouched := f.ServeTLS(t, clienttest.Pair(t, func(c *x509.Certificate) *tls.Certificate {
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		return &authority
	}))
	write(t, s, "client.ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Leaf.Raw})))
	got := s.mustRun(t, f.token("s3cret", f.address)+"\n", "remote", "add", "prod", vouched)
	if got != "Trust token for prod: Client certificate now trusted by server: prod\n" || s.file("servercerts/prod.crt") != "" {
		t.Errorf("got %q, saved %q", got, s.file("servercerts/prod.crt"))
	}
	s.mustRun(t, "", "cluster", "list", "prod:")
}

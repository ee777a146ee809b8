package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/client"
	"incusd/client/clienttest"
)

// The questions of the dialogue.
const (
	askClustering = "Would you like to use Incus clustering? (yes/no) [default=no]: "
	askAddress    = "What IP address or DNS name should be used to reach this server? [default=192.0.2.7]: "
	askJoining    = "Are you joining an existing cluster? (yes/no) [default=no]: "
	askName       = "What member name should be used to identify this server in the cluster? [default=server1]: "
	askPool       = "Do you want to configure a new storage pool? (yes/no) [default=yes]: "
	askBridge     = "Would you like to create a new local network bridge? (yes/no) [default=yes]: "
	askListen     = "Would you like the server to be available over the network? (yes/no) [default=no]: "
	askPassword   = "Setup password authentication on the cluster? (yes/no) [default=no]: "
	askLocal      = "Do you want to configure a new local storage pool? (yes/no) [default=yes]: "
	askRemote     = "Do you want to configure a new remote storage pool? (yes/no) [default=no]: "
	askInterface  = "Would you like to configure Incus to use an existing bridge or host interface? (yes/no) [default=no]: "
	askImages     = "Would you like stale cached images to be updated automatically? (yes/no) [default=yes]: "
	askHasToken   = "Do you have a join token? (yes/no/[token]) [default=no]: "
	askToken      = "Please provide join token: "
	askLoss       = "All existing data is lost when joining a cluster, continue? (yes/no) [default=no] "
	askPrint      = `Would you like a YAML "incus admin init" preseed to be printed? (yes/no) [default=no]: `
)

// aCluster is a cluster that a server may join with token.
type aCluster struct {
	cert  *x509.Certificate
	token api.ClusterMemberJoinToken
}

func newCluster(t *testing.T) *aCluster {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &aCluster{cert, api.ClusterMemberJoinToken{
		ServerName: "server2", Fingerprint: client.Fingerprint(cert), Addresses: []string{"10.0.0.1:8443"}, Secret: "s",
	}}
}

// pem is the cluster's certificate.
func (c *aCluster) pem() string { return certificatePEM(c.cert) }

// joiner is a standalone server from which the cluster can be reached.
func (c *aCluster) joiner(t *testing.T) *shell {
	t.Helper()
	s := standalone(t, nil)
	s.world.findMember = func(_ context.Context, token *api.ClusterMemberJoinToken) (string, *x509.Certificate, error) {
		if token.Fingerprint != c.token.Fingerprint {
			return "", nil, api.Errorf(api.FingerprintMatch, "mismatch")
		}
		return token.Addresses[0], c.cert, nil
	}
	s.world.preflight = func(context.Context, string, *x509.Certificate, api.JoinRequest) (*api.JoinReport, error) {
		return &api.JoinReport{Name: "server2"}, nil
	}
	return s
}

// put is the request of a join as server2.
func (c *aCluster) put(change func(*api.ClusterPut)) api.ClusterPut {
	put := api.ClusterPut{
		Cluster:        api.Cluster{ServerName: "server2", Enabled: true},
		ClusterAddress: "10.0.0.1:8443", ClusterCertificate: c.pem(), ServerAddress: "192.0.2.7:8443", ClusterToken: c.token.String(),
	}
	if change != nil {
		change(&put)
	}
	return put
}

// sentPut returns the request that the daemon got for /1.0/cluster.
func (s *shell) sentPut(t *testing.T) api.ClusterPut {
	t.Helper()
	var put api.ClusterPut
	if err := json.Unmarshal([]byte(s.body(t, "PUT /1.0/cluster")), &put); err != nil {
		t.Fatal(err)
	}
	return put
}

func TestDialogueBootstraps(t *testing.T) {
	s := standalone(t, api.ConfigMap{"user.x": "1"})
	got := s.mustRun(t, "yes\n\nno\n\nno\nno\nno\nno\n\nno\n", "admin", "init")
	if diff := cmp.Diff(askClustering+askAddress+askJoining+askName+askPassword+askLocal+askRemote+askInterface+askImages+askPrint, got); diff != "" {
		t.Error(diff)
	}
	s.mustAsk(t, "GET /1.0", "GET /1.0/cluster", "GET /1.0", "PUT /1.0", "PUT /1.0/cluster", "GET /1.0/operations/9e871762")
	want := `{"config":{"cluster.https_address":"192.0.2.7:8443","core.https_address":"192.0.2.7:8443","user.x":"1"}}`
	if diff := cmp.Diff(want, s.body(t, "PUT /1.0")); diff != "" {
		t.Error(diff)
	}
	if put := s.sentPut(t); put.ServerName != "server1" || !put.Enabled || put.ClusterAddress != "" {
		t.Errorf("sent %+v", put)
	}
}

func TestDialogueOffersTheAddressThatTheServerHas(t *testing.T) {
	s := standalone(t, api.ConfigMap{"core.https_address": "10.0.0.9:9443"})
	got := s.mustRun(t, "yes\n\nno\nm1\nno\nno\nno\nno\n\nno\n", "admin", "init")
	if !strings.Contains(got, "[default=10.0.0.9]: ") {
		t.Errorf("got %q", got)
	}
	if body := s.body(t, "PUT /1.0"); !strings.Contains(body, `"cluster.https_address":"10.0.0.9:9443"`) {
		t.Errorf("sent %s", body)
	}
}

func TestDialogueJoins(t *testing.T) {
	c := newCluster(t)
	for name, tt := range map[string]struct{ answers, questions string }{
		"with the answers of the documentation": {
			"yes\n\nyes\nyes\nTOKEN\nyes\n\n",
			askClustering + askAddress + askJoining + askHasToken + askToken + askLoss + askPrint,
		},
		"with the answers of 7.3": {
			"yes\n\nyes\nTOKEN\nyes\nno\n",
			askClustering + askAddress + askJoining + askHasToken + askLoss + askPrint,
		},
		"without an end of the last line": {
			"Y\n192.0.2.7\nY\n TOKEN \nYES\nN",
			askClustering + askAddress + askJoining + askHasToken + askLoss + askPrint,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.joiner(t)
			got := s.mustRun(t, strings.ReplaceAll(tt.answers, "TOKEN", c.token.String()), "admin", "init")
			if diff := cmp.Diff(tt.questions, got); diff != "" {
				t.Error(diff)
			}
			s.mustAsk(t, "GET /1.0", "GET /1.0", "PUT /1.0/cluster", "GET /1.0/operations/9e871762")
			if diff := cmp.Diff(c.put(nil), s.sentPut(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDialogueAsksAgain(t *testing.T) {
	c := newCluster(t)
	s := c.joiner(t)
	answers := "maybe\nyes\n0.0.0.0\n[::]:8443\na b\n10.0.0.2\nperhaps\nyes\nno-token\nyes\nbm90IGEgdG9rZW4=\n\n" + c.token.String() + "\nok\nyes\nx\nno\n"
	if !s.run(answers, "admin", "init") {
		t.Fatal(&s.stderr)
	}
	again := "Invalid input, try again.\n"
	address := "Invalid IP address or DNS name\n" + again
	want := again + address + address + address + again +
		"Invalid join token: not base64\n" + again +
		"Invalid join token: not a JSON object of the right form\n" + again +
		"Invalid join token: not a JSON object of the right form\n" + again +
		again + again
	if diff := cmp.Diff(want, s.stderr.String()); diff != "" {
		t.Error(diff)
	}
	if put := s.sentPut(t); put.ServerAddress != "10.0.0.2:8443" {
		t.Errorf("sent %+v", put)
	}
}

func TestDialogueThatEndsEarlyChangesNothing(t *testing.T) {
	c := newCluster(t)
	join := "yes\n\nyes\n" + c.token.String() + "\nyes\nno\n"
	bootstrap := "yes\n\nno\n\nno\n"
	for _, script := range []string{join, bootstrap} {
		lines := strings.SplitAfter(script, "\n")
		for n := range len(lines) - 1 {
			s := c.joiner(t)
			if s.run(strings.Join(lines[:n], ""), "admin", "init") || !strings.HasPrefix(s.stderr.String(), "Error: the input ended before the answer to ") {
				t.Errorf("%d answers: %s", n, &s.stderr)
			}
			s.unchanged(t)
		}
	}
}

func TestDialogueRefuses(t *testing.T) {
	c := newCluster(t)
	forged := c.token
	forged.Fingerprint = "00"
	for name, tt := range map[string]struct{ answers, stderr string }{
		"no consent": {"yes\n\nyes\n" + c.token.String() + "\n\n", "Error: User aborted configuration\n"},
		"another certificate, before it asks for consent": {"yes\n\nyes\n" + forged.String() + "\n", "Error: mismatch\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.joiner(t)
			s.mustFail(t, tt.stderr, tt.answers, "admin", "init")
			s.unchanged(t)
		})
	}
	s := clustered(t)
	s.mustFail(t, "Error: This server is already clustered, as \"node1\"\nHint: nothing to do; see incus cluster list\n", "yes\n", "admin", "init")
}

func TestDialogueWithoutClusteringChangesNothing(t *testing.T) {
	s := standalone(t, nil)
	got := s.mustRun(t, "\nno\nno\nno\n\n\n\n", "admin", "init")
	if diff := cmp.Diff(askClustering+askPool+askBridge+askInterface+askListen+askImages+askPrint, got); diff != "" {
		t.Error(diff)
	}
	s.unchanged(t)
}

func TestPrintedPreseedDoesTheSame(t *testing.T) {
	c := newCluster(t)
	for _, script := range []string{"yes\n\nno\n\nyes\nsecret\nsecret\n\ndir\n/srv\nno\nno\nno\nyes\n", "yes\n\nyes\n" + c.token.String() + "\nyes\nyes\n"} {
		asked := c.joiner(t)
		_, preseed, found := strings.Cut(asked.mustRun(t, script, "admin", "init"), askPrint)
		if !found {
			t.Fatal("nothing printed")
		}
		again := c.joiner(t)
		again.mustRun(t, preseed, "admin", "init", "--preseed")
		if diff := cmp.Diff(asked.sentPut(t), again.sentPut(t)); diff != "" {
			t.Errorf("%s\n%s", preseed, diff)
		}
	}
}

func TestInterruptEndsTheDialogue(t *testing.T) {
	s := standalone(t, nil)
	in, out := io.Pipe()
	t.Cleanup(func() { out.Close() })
	s.world.stdin = in
	ctx, interrupt := interruptible(t)
	s.world.stdout = writerFunc(func(p []byte) (int, error) { interrupt(); return len(p), nil }) // at the first question
	if code := run(ctx, s.world, []string{"admin", "init"}); code != 1 || s.stderr.String() != "Error: interrupted\n" {
		t.Errorf("exit code %d, %s", code, &s.stderr)
	}
	s.unchanged(t)
}

func TestInterruptDuringAJoinTellsHowToGoOn(t *testing.T) {
	c := newCluster(t)
	s := c.joiner(t)
	ctx, interrupt := interruptible(t)
	running := task("Joining cluster")
	running.StatusCode = api.Running
	s.ReplyAsync("PUT /1.0/cluster", running)
	s.Handle("GET /1.0/operations/9e871762", func(w http.ResponseWriter, _ *http.Request) {
		clienttest.Sync(w, running)
		interrupt()
	})
	s.world.stdin = strings.NewReader("cluster: {enabled: true, server_address: a, cluster_token: " + c.token.String() + "}")
	want := "Error: interrupted; the daemon goes on with operation 9e871762\nHint: see how it ends: incus operation show 9e871762\n"
	if code := run(ctx, s.world, []string{"admin", "init", "--preseed"}); code != 1 || s.stderr.String() != want {
		t.Errorf("exit code %d, %s", code, &s.stderr)
	}
}

// interruptible returns a context and what ends it as a signal does.
func interruptible(t *testing.T) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(t.Context())
	return ctx, func() { cancel(errors.New("interrupt signal received")) }
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestProgressIsShownToPeople(t *testing.T) {
	c := newCluster(t)
	s := c.joiner(t)
	s.world.stderrTerminal = true
	running := task("Joining cluster")
	running.StatusCode, running.Status = api.Running, "Running"
	running.Metadata = map[string]any{"progress": "Asking for admission"}
	s.ReplyAsync("PUT /1.0/cluster", running)
	s.Handle("GET /1.0/operations/9e871762", func(w http.ResponseWriter, _ *http.Request) {
		clienttest.Sync(w, running)
		s.Publish(task("Joining cluster"))
	})
	if !s.run("yes\n\nyes\n"+c.token.String()+"\nyes\nno\n", "admin", "init") {
		t.Fatal(&s.stderr)
	}
	if want := "\r\x1b[KJoining cluster: Asking for admission\r\x1b[K"; s.stderr.String() != want {
		t.Errorf("got %q", &s.stderr)
	}
}

func TestFailedJoinSaysWhy(t *testing.T) {
	c := newCluster(t)
	s := c.joiner(t)
	failed := task("Joining cluster")
	failed.StatusCode, failed.Status, failed.Err = api.Failure, "Failure", "Join token has been used"
	failed.Metadata = map[string]any{"reason": "token_used", "hint": "issue another"}
	s.ReplyAsync("PUT /1.0/cluster", failed)
	s.mustFail(t, "Error: Join token has been used\nHint: issue another\n",
		"cluster: {enabled: true, server_address: 10.0.0.2, cluster_token: "+c.token.String()+"}", "admin", "init", "--preseed")
}

func TestPreseedBootstraps(t *testing.T) {
	const preseed = `config:
  core.https_address: 192.0.2.101:8443
  images.auto_update_interval: 15
storage_pools: []
profiles:
cluster:
  server_name: server1
  enabled: true
`
	file := filepath.Join(t.TempDir(), "preseed.yaml")
	if err := os.WriteFile(file, []byte(preseed), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ stdin, args string }{
		{preseed, "--preseed"}, {preseed, "--preseed -"}, {"", "--preseed " + file}, {"", "--preseed=" + file},
	} {
		s := standalone(t, nil)
		if got := s.mustRun(t, tt.stdin, append([]string{"admin", "init"}, strings.Fields(tt.args)...)...); got != "" {
			t.Errorf("printed %q", got)
		}
		want := `{"config":{"cluster.https_address":"192.0.2.101:8443","core.https_address":"192.0.2.101:8443","images.auto_update_interval":"15"}}`
		if diff := cmp.Diff(want, s.body(t, "PUT /1.0")); diff != "" {
			t.Errorf("%s: %s", tt.args, diff)
		}
		if put := s.sentPut(t); put.ServerName != "server1" || !put.Enabled {
			t.Errorf("%s: sent %+v", tt.args, put)
		}
	}
}

func TestPreseedAgainIsHarmless(t *testing.T) {
	s := clustered(t)
	s.mustRun(t, "config: {core.https_address: '127.0.0.11:8443'}\ncluster: {server_name: node1, enabled: true}", "admin", "init", "--preseed")
	s.unchanged(t)
	s.mustFail(t, "Error: This server is already clustered, as \"node1\"\nHint: nothing to do; see incus cluster list\n",
		"config: {user.x: 1}\ncluster: {server_name: node2, enabled: true}", "admin", "init", "--preseed")
	s.unchanged(t)

	token := newCluster(t).token
	token.ServerName = "node1"
	token.Fingerprint = load[api.Server](t, "server.json").Environment.CertificateFingerprint
	join := "cluster: {enabled: true, server_address: 127.0.0.11, cluster_token: " + token.String() + "}"
	if !s.run(join, "admin", "init", "--preseed") || s.stderr.String() != "This server is already a member of that cluster, as \"node1\"\n" {
		t.Error(&s.stderr)
	}
	s.unchanged(t)
}

func TestPreseedKeepsAnAddressThatIsGiven(t *testing.T) {
	s := standalone(t, nil)
	s.mustRun(t, "config: {core.https_address: ':8443', cluster.https_address: '10.0.0.1:8443'}\ncluster: {server_name: a, enabled: true}",
		"admin", "init", "--preseed")
	if body := s.body(t, "PUT /1.0"); !strings.Contains(body, `"cluster.https_address":"10.0.0.1:8443"`) {
		t.Errorf("sent %s", body)
	}
}

func TestPreseedJoins(t *testing.T) {
	c := newCluster(t)
	file := filepath.Join(t.TempDir(), "cluster.crt")
	if err := os.WriteFile(file, []byte(c.pem()), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		preseed, stderr string
		change          func(*api.ClusterPut)
	}{
		"by token":               {preseed: "cluster: {enabled: true, server_address: '192.0.2.7:8443', cluster_token: TOKEN}"},
		"by token, without port": {preseed: "cluster: {enabled: true, server_address: 192.0.2.7, cluster_token: TOKEN}"},
		"with other sections": {
			preseed: "config: {user.x: 1}\ncluster: {server_name: server9, enabled: true, server_address: 192.0.2.7, cluster_token: TOKEN}",
			stderr: "Warning: server_name \"server9\" is ignored: the token is for \"server2\"\n" +
				"Warning: ignored: config. A server that joins takes what the cluster has\n",
		},
		"with member configuration": {
			preseed: `cluster:
  enabled: true
  server_address: 192.0.2.7
  cluster_token: TOKEN
  member_config:
  - {entity: storage-pool, name: my-pool, key: source, value: ""}
  - {entity: storage-pool, name: my-pool, key: driver, value: "zfs"}
  - {entity: network, name: ext, key: tunnel.a.local, value: 10.0.0.2}
`,
			stderr: "Warning: member_config: key \"driver\" of storage-pool \"my-pool\" is ignored: it is not member-specific\n",
			change: func(put *api.ClusterPut) {
				put.MemberConfig = []api.ClusterMemberConfigKey{
					{Entity: "storage-pool", Name: "my-pool", Key: "source"},
					{Entity: "network", Name: "ext", Key: "tunnel.a.local", Value: "10.0.0.2"},
				}
			},
		},
		"by token and certificate": {
			preseed: "cluster: {enabled: true, server_address: 192.0.2.7, cluster_token: TOKEN, cluster_address: 10.0.0.5, cluster_certificate_path: FILE}",
			change:  func(put *api.ClusterPut) { put.ClusterAddress = "10.0.0.5:8443" },
		},
		"by certificate": {
			preseed: "cluster: {server_name: server2, enabled: true, server_address: 192.0.2.7, cluster_address: 10.0.0.1, cluster_certificate_path: FILE}",
			change:  func(put *api.ClusterPut) { put.ClusterToken = "" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.joiner(t)
			text := strings.NewReplacer("TOKEN", c.token.String(), "FILE", file).Replace(tt.preseed)
			if !s.run(text, "admin", "init", "--preseed") || s.stderr.String() != tt.stderr {
				t.Fatalf("stderr: %s", &s.stderr)
			}
			if diff := cmp.Diff(c.put(tt.change), s.sentPut(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPreseedThatIsWrongChangesNothing(t *testing.T) {
	c := newCluster(t)
	other := newCluster(t)
	for _, tt := range []struct{ preseed, want string }{
		{"config: {}\nclustr: {}", `Failed to parse the preseed: line 2: unknown key "clustr" (did you mean "cluster"?)`},
		{"cluster:\n  server_nmae: a\n  enbled: true", `Failed to parse the preseed: line 2: unknown key "server_nmae" (did you mean "server_name"?); line 3: unknown key "enbled" (did you mean "enabled"?)`},
		{"cluster: [", "Failed to parse the preseed: yaml: line 1: did not find expected node content"},
		{"config: {a: [1]}", "Failed to parse the preseed: type []interface {} is not supported in api.ConfigMap"},
		{"config: {}\n---\nconfig: {}", "Failed to parse the preseed: more than one YAML document"},
		{"config: {a: 1}\nstorage_pools: [{name: a, whatever: b}]", `Failed to parse the preseed: line 2: unknown key "whatever"`},
		{"storage_volumes: [{}]", "storage_volumes: an entry has no name; nothing was changed"},
		{"networks: [{}]", "networks: an entry has no name; nothing was changed"},
		{"profiles: [{}]", "profiles: an entry has no name; nothing was changed"},
		{"projects: {a: b}", "Failed to parse the preseed: line 1: cannot unmarshal !!map into []api.ProjectsPost"},
		{"certificates: text", "Failed to parse the preseed: line 1: cannot unmarshal !!str `text` into []api.CertificatesPost"},
		{"certificates: [{name: a, token: true}]", `certificates: the entry "a" is about a token; nothing was changed`},
		{"certificates: [{name: a, trust_token: x}]", `certificates: the entry "a" is about a token; nothing was changed`},
		{"certificates: [{name: a, type: server}]", `certificates: the entry "a" has type "server"; nothing was changed`},
		{"certificates: [{name: a, type: client, certificate: AAAA}]", `certificates: the entry "a": x509: malformed certificate; nothing was changed`},
		{"certificates: [{name: a, type: client, certificate: '?'}]", `certificates: the entry "a": Invalid certificate; nothing was changed`},
		{"cluster_groups: [{}]", "cluster_groups: an entry has no name; nothing was changed"},
		{"cluster: {enabled: true, cluster_password: x}", "cluster: cluster_password is given without cluster_address and cluster_certificate, which say of which cluster it is"},
		{"cluster: {enabled: true}", "ServerName is required when enabling clustering"},
		{"cluster: {enabled: true, server_name: 'a b'}", "Invalid cluster member name: Name cannot contain white space"},
		{"cluster: {server_name: a}", `cluster: server_name "a" is given, but enabled is not true`},
		{"cluster: {enabled: true, server_name: a, server_address: 10.0.0.2}", "cluster: there is neither cluster_token nor cluster_address, but other keys of a join"},
		{"cluster: {server_address: a, cluster_token: TOKEN}", "cluster: a join needs enabled: true"},
		{"cluster: {enabled: true, cluster_token: TOKEN}", "cluster: a join needs server_address, the address under which members reach this server"},
		{"cluster: {enabled: true, server_address: a, cluster_token: abc}", "Invalid join token: not base64"},
		{"cluster: {enabled: true, server_address: a, cluster_address: b}", "cluster: a join needs cluster_token, or cluster_address and cluster_certificate"},
		{"cluster: {enabled: true, server_address: a, cluster_token: TOKEN, cluster_certificate: x}", "cluster: cluster_certificate is given without cluster_address"},
		{"cluster: {enabled: true, server_address: a, cluster_address: b, cluster_certificate: x}", "cluster_certificate: not PEM"},
		{"cluster: {enabled: true, server_address: a, cluster_address: b, cluster_certificate_path: /no/file}", "cluster_certificate_path: open /no/file: no such file or directory"},
		{"cluster: {enabled: true, server_address: a, cluster_address: b, cluster_token: TOKEN, cluster_certificate: OTHER}", "cluster_certificate is not the certificate that the token names"},
	} {
		s := c.joiner(t)
		quoted, _ := json.Marshal(other.pem())
		text := strings.NewReplacer("TOKEN", c.token.String(), "OTHER", string(quoted)).Replace(tt.preseed)
		if s.run(text, "admin", "init", "--preseed") {
			t.Errorf("%s: accepted", tt.preseed)
		}
		if got, _, _ := strings.Cut(s.stderr.String(), "\n"); got != "Error: "+tt.want {
			t.Errorf("%s:\ngot  %s\nwant Error: %s", tt.preseed, got, tt.want)
		}
		s.mustAsk(t)
	}
}

func TestPreseedThatCannotReachTheClusterChangesNothing(t *testing.T) {
	c := newCluster(t)
	s := c.joiner(t)
	s.world.findMember = func(context.Context, *api.ClusterMemberJoinToken) (string, *x509.Certificate, error) {
		return "", nil, errors.New("nobody there")
	}
	s.mustFail(t, "Error: nobody there\n", "config: {user.x: 1}\ncluster: {enabled: true, server_address: a, cluster_token: "+c.token.String()+"}",
		"admin", "init", "--preseed")
	s.unchanged(t)
}

func TestInitFlagsThatDoNotGoTogether(t *testing.T) {
	s := newShell(t)
	for args, want := range map[string]string{
		"--auto --preseed":                                       "Can't use --auto and --preseed together\n",
		"--minimal --preseed":                                    "Can't use --minimal and --preseed together\n",
		"--minimal --auto":                                       "Can't use --minimal and --auto together\n",
		"--network-address 10.0.0.1":                             "Configuration flags require --auto\n",
		"--minimal --storage-backend dir":                        "Configuration flags require --auto\n",
		"--dump --auto":                                          "Can't use --dump with other flags\n",
		"--auto --network-port 9000":                             "--network-port can't be used without --network-address\n",
		"--auto --network-address a --network-port 70000":        "Invalid port 70000: use 1 to 65535\n",
		"--auto --storage-create-loop 5":                         "None of --storage-pool, --storage-create-device or --storage-create-loop may be used with the 'dir' backend: --storage-create-loop is given\n",
		"--auto --storage-backend btrfs --storage-create-loop 0": "--storage-create-loop needs a whole number of GiB, at least 1\n",
		"--auto --storage-backend btrfs --storage-create-loop 5 --storage-create-device /dev/x": "Only one of --storage-create-device, --storage-create-loop or --storage-pool can be specified\n",
		"file.yaml":               "Invalid number of arguments\nHint: usage: incus admin init [--preseed [<file>|-]] [flags]\n",
		"--preseed=a.yaml b.yaml": "Invalid number of arguments\nHint: usage: incus admin init [--preseed [<file>|-]] [flags]\n",
	} {
		s.mustFail(t, "Error: "+want, "", append([]string{"admin", "init"}, strings.Fields(args)...)...)
	}
	s.mustAsk(t)
}

func TestAutoSetsTheAddress(t *testing.T) {
	for args, want := range map[string]string{
		"--network-address 10.0.0.1":                     "10.0.0.1:8443",
		"--network-address 10.0.0.1 --network-port 9443": "10.0.0.1:9443",
		"--network-address ::1":                          "[::1]:8443",
		"--network-address [::1] --network-port 9443":    "[::1]:9443",
	} {
		s := standalone(t, nil)
		s.mustRun(t, "", append([]string{"admin", "init", "--auto"}, strings.Fields(args)...)...)
		if body := s.body(t, "PUT /1.0"); body != `{"config":{"core.https_address":"`+want+`"}}` {
			t.Errorf("%s: sent %s", args, body)
		}
	}
}

func TestMinimalMakesAPoolABridgeAndTheirDevices(t *testing.T) {
	s := standalone(t, nil)
	s.mustRun(t, "", "admin", "init", "--minimal")
	for request, want := range map[string]string{
		"POST /1.0/storage-pools":   `{"config":{"source":""},"description":"","name":"default","driver":"dir"}`,
		"POST /1.0/networks":        `{"config":{},"description":"","name":"incusbr0","type":""}`,
		"PUT /1.0/profiles/default": `{"config":{},"description":"","devices":{"eth0":{"name":"eth0","network":"incusbr0","type":"nic"},"root":{"path":"/","pool":"default","type":"disk"}}}`,
	} {
		if diff := cmp.Diff(want, s.body(t, request)); diff != "" {
			t.Errorf("%s: %s", request, diff)
		}
	}
	s = standalone(t, nil)
	s.Reply("GET /1.0/storage-pools", []api.StoragePool{{Name: "mine"}})
	s.Reply("GET /1.0/networks", []api.Network{{Name: "br0", Type: "bridge", Managed: true}})
	s.mustRun(t, "", "admin", "init", "--auto")
	if body := s.body(t, "PUT /1.0/profiles/default"); !strings.Contains(body, `"pool":"mine"`) || !strings.Contains(body, `"network":"br0"`) {
		t.Errorf("sent %s", body)
	}
}

func TestDialogueMakesAPoolAndABridge(t *testing.T) {
	s := standalone(t, nil)
	if !s.run("no\n\n\nbtrfs\n\n\n0\nseven\n7GiB\n\n\n10.0.0.1/24\n\nnone\nyes\nall\n0\n9443\nno\nno\n", "admin", "init") {
		t.Fatal(s.stderr.String())
	}
	got := s.stdout.String()
	want := askClustering + askPool + "Name of the new storage pool [default=default]: " + "Name of the storage backend to use (btrfs, dir) [default=btrfs]: " +
		"Create a new BTRFS pool? (yes/no) [default=yes]: " +
		"Would you like to use an existing empty block device (e.g. a disk or partition)? (yes/no) [default=no]: " +
		strings.Repeat("Size in GiB of the new loop device (1GiB minimum) [default=9GiB]: ", 3) + askBridge +
		"What should the new bridge be called? [default=incusbr0]: " +
		"What IPv4 address should be used? (CIDR subnet notation, “auto” or “none”) [default=auto]: " +
		"Would you like to NAT IPv4 traffic on your bridge? [default=yes]: " +
		"What IPv6 address should be used? (CIDR subnet notation, “auto” or “none”) [default=auto]: " + askListen +
		"Address to bind to (not including port) [default=all]: " + strings.Repeat("Port to bind to [default=8443]: ", 2) + askImages + askPrint
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for request, want := range map[string]string{
		"POST /1.0/storage-pools": `{"config":{"size":"7GiB"},"description":"","name":"default","driver":"btrfs"}`,
		"POST /1.0/networks":      `{"config":{"ipv4.address":"10.0.0.1/24","ipv4.nat":"true","ipv6.address":"none"},"description":"","name":"incusbr0","type":""}`,
		"PUT /1.0":                `{"config":{"core.https_address":"[::]:9443","images.auto_update_interval":"0"}}`,
	} {
		if diff := cmp.Diff(want, s.body(t, request)); diff != "" {
			t.Errorf("%s: %s", request, diff)
		}
	}
}

func TestDialogueJoinsByPassword(t *testing.T) {
	c := newCluster(t)
	s := c.joiner(t)
	s.world.remoteCertificate = func(_ context.Context, address string) (*x509.Certificate, error) {
		if address != "10.0.0.1" {
			return nil, errors.New("nobody there")
		}
		return c.cert, nil
	}
	s.world.preflight = func(_ context.Context, _ string, _ *x509.Certificate, req api.JoinRequest) (*api.JoinReport, error) {
		switch req.Password {
		case "right":
		case "":
			return nil, api.TokenNotClaimed
		default:
			return nil, api.PasswordWrong
		}
		return &api.JoinReport{MemberConfig: []api.ClusterMemberConfigKey{
			{Entity: "storage-pool", Name: "local", Key: "source", Description: "\"source\" property for storage pool \"local\""},
		}}, nil
	}
	fingerprint := client.Fingerprint(c.cert)
	if !s.run("yes\n\nyes\nno\nserver2\n10.0.0.9\n10.0.0.1\nabc\n"+fingerprint+"\nwrong\n\nright\nyes\n/srv\nno\n", "admin", "init") {
		t.Fatal(s.stderr.String())
	}
	got := s.stdout.String()
	const isCorrect = "Is this the correct fingerprint? (yes/no/[fingerprint]) [default=no]: "
	const ofWhom = "IP address or FQDN of an existing cluster member (may include port): "
	want := askClustering + askAddress + askJoining + askHasToken + askName + ofWhom + ofWhom + "Cluster fingerprint: " + fingerprint + "\n" +
		"You can validate this fingerprint by running \"incus info\" locally on an existing cluster member.\n" + isCorrect + isCorrect +
		strings.Repeat("Cluster trust password: ", 3) + askLoss + "Choose \"source\" property for storage pool \"local\": " + askPrint
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	put := s.sentPut(t)
	if put.ClusterPassword != "right" || put.ClusterToken != "" || put.ServerName != "server2" || len(put.MemberConfig) != 1 || put.MemberConfig[0].Value != "/srv" {
		t.Errorf("sent %+v", put)
	}
}

func TestPreseedThatFailsHalfWayTellsWhatWasDone(t *testing.T) {
	s := standalone(t, nil)
	s.Refuse("POST /1.0/networks", 403, "not as this user", api.ErrorMetadata{Reason: api.NotPermitted})
	s.run("config: {user.x: 1}\nstorage_pools: [{name: a, driver: dir}]\nnetworks: [{name: br0}]\nprofiles: [{name: p}]", "admin", "init", "--preseed")
	want := "Error: network br0: not as this user (done before: config, storage pool a; when that is mended, run the same command again to go on)\n"
	if got, _, _ := strings.Cut(s.stderr.String(), "Hint"); got != want {
		t.Errorf("got %q", got)
	}
}

func TestPreseedAsksForADriverThatIsNotThere(t *testing.T) {
	s := standalone(t, nil)
	s.mustFail(t, "Error: storage_pools: the driver \"zfs\" of \"a\" isn't available on this machine; nothing was changed\n"+
		"Hint: use one of btrfs, dir, or install what zfs needs\n", "config: {user.x: 1}\nstorage_pools: [{name: a, driver: zfs}]", "admin", "init", "--preseed")
	s.unchanged(t)
}

func TestPreseedIsCheckedAsAWholeBeforeTheFirstChange(t *testing.T) {
	const file = `config: {user.x: 1}
storage_pools: [{name: local, driver: btrfs}, {name: fast, driver: zfs}, {name: new}, {name: new, driver: dir}]
networks: [{name: br0, type: physical}, {name: br1}, {name: br1, project: nowhere}]
projects: [{name: web}, {name: web}]
storage_volumes: [{name: v, pool: none}, {name: i, pool: local, type: image}]
profiles:
- name: default
  devices: {root: {pool: gone}, eth0: {type: nic, network: br9}, eth1: {type: nic, network: br1}, a: {type: disk, pool: new}}
- {name: p, project: web, devices: {eth0: {type: nic, network: br0}}}
- {name: q, project: elsewhere}
`
	s := standalone(t, nil)
	s.Reply("GET /1.0/storage-pools", []api.StoragePool{{Name: "local", Driver: "dir"}})
	s.Reply("GET /1.0/networks", []api.Network{{Name: "br0", Type: "bridge", Managed: true}, {Name: "br9", Type: "bridge"}})
	s.Reply("GET /1.0/projects", []api.Project{{Name: "default"}})
	if s.run(file, "admin", "init", "--preseed") {
		t.Fatal("accepted")
	}
	s.unchanged(t)
	var got []string
	for line := range strings.Lines(s.stderr.String()) {
		if !strings.HasPrefix(line, "   Hint: ") {
			got = append(got, strings.TrimSuffix(line, "\n"))
		}
	}
	want := []string{
		"Error: The preseed cannot be applied, for 12 reasons; nothing was changed",
		` - storage_pools: "new" is there more than once`,
		` - projects: "web" is there more than once`,
		` - storage_pools: Storage pool "local" is of type "dir" instead of "btrfs"`,
		` - storage_pools: the driver "zfs" of "fast" isn't available on this machine`,
		` - storage_pools: "new" has no driver`,
		` - networks: Network "br0" is of type "bridge" instead of "physical"`,
		` - networks: the project "nowhere" of "br1" doesn't exist`,
		` - storage_volumes: the storage pool "none" of "v" doesn't exist`,
		` - storage_volumes: "i" cannot have the type "image"`,
		` - profiles: the network "br9" of device "eth0" of "default" doesn't exist`,
		` - profiles: the storage pool "gone" of device "root" of "default" doesn't exist`,
		` - profiles: the project "elsewhere" of "q" doesn't exist`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPreseedMayNameWhatItMakesItself(t *testing.T) {
	s := standalone(t, nil)
	s.Reply("GET /1.0/projects", []api.Project{{Name: "default"}})
	s.Reply("POST /1.0/projects", struct{}{})
	s.Reply("POST /1.0/profiles", struct{}{})
	s.mustRun(t, `storage_pools: [{name: local, driver: dir}]
networks: [{name: br0}]
projects: [{name: web}]
profiles: [{name: p, project: web, devices: {root: {type: disk, path: /, pool: local}, eth0: {type: nic, network: br0}}}]`, "admin", "init", "--preseed")
}

func TestDialogueEndsWhenTheDaemonDoesNotAnswer(t *testing.T) {
	for question, tt := range map[string]struct{ route, answers string }{
		"a new pool's name":   {"GET /1.0/storage-pools/default", "no\nyes\ndefault\n"},
		"a new bridge's name": {"GET /1.0/networks/incusbr0", "no\nno\nyes\nincusbr0\n"},
		"an interface's name": {"GET /1.0/networks/eth7", "no\nno\nno\nyes\neth7\n"},
	} {
		s := standalone(t, nil)
		s.Refuse(tt.route, 503, "No quorum", api.ErrorMetadata{Reason: api.NoQuorum, Hint: "wait"})
		s.mustFail(t, "Error: No quorum\nHint: wait\n", tt.answers+strings.Repeat("again\n", 3), "admin", "init")
		s.unchanged(t)
		if n := strings.Count(strings.Join(s.Lines(), " "), tt.route); n != 1 {
			t.Errorf("%s: asked the daemon %d times", question, n)
		}
	}
}

func TestDumpPrintsTheSetUp(t *testing.T) {
	s := grouped(defaultGroup())(t)
	s.Reply("GET /1.0/profiles", []api.Profile{{Name: "default", ProfilePut: api.ProfilePut{Description: "Default Incus profile"}, Project: "default"}})
	s.Reply("GET /1.0/projects", []api.Project{{Name: "default", ProjectPut: api.ProjectPut{Description: "Default Incus project", Config: api.ConfigMap{
		"features.images": "true", "features.networks": "true", "features.networks.zones": "true",
		"features.profiles": "true", "features.storage.buckets": "true", "features.storage.volumes": "true",
	}}}})
	s.Reply("GET /1.0/networks", []api.Network{})
	s.Reply("GET /1.0/storage-pools", []api.StoragePool{})
	if diff := cmp.Diff(golden(t, "admin-init-dump.out"), s.mustRun(t, "", "admin", "init", "--dump")); diff != "" {
		t.Error(diff)
	}
}

func FuzzParsePreseed(f *testing.F) {
	f.Add([]byte("config: {a: 1}\ncluster: {enabled: true, server_name: a}"))
	f.Add([]byte("cluster: {enabled: true, server_address: a, cluster_token: e30=}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePreseed(data)
		if err == nil && p.joins() && p.Cluster.ServerAddress == "" {
			t.Error("a join without an address was accepted")
		}
	})
}

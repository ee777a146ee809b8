package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
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

// A shell runs command lines against a fake daemon.
type shell struct {
	*clienttest.Server
	env      map[string]string
	world    *world
	stdout   bytes.Buffer
	stderr   bytes.Buffer
	exitCode int
}

func newShell(t *testing.T) *shell {
	t.Helper()
	s := &shell{Server: clienttest.New(t), env: map[string]string{}}
	s.env["INCUS_DIR"] = s.Dir
	s.env["INCUS_GLOBAL_CONF"] = filepath.Join(s.Dir, "global") // not that of this machine
	s.world = &world{
		stdout: &s.stdout, stderr: &s.stderr,
		getenv:       func(name string) string { return s.env[name] },
		location:     time.UTC,
		localAddress: func() string { return "192.0.2.7" },
		connect:      func(opts client.Options) *client.Client { return client.Unix(s.Socket(), opts) },
		findMember: func(context.Context, *api.ClusterMemberJoinToken) (string, *x509.Certificate, error) {
			t.Error("looked for a member")
			return "", nil, api.NoMemberReachable
		},
		edit: func(context.Context, []byte) ([]byte, error) {
			t.Error("opened an editor")
			return nil, context.Canceled
		},
	}
	return s
}

// run executes one command line with stdin and returns whether it succeeded.
func (s *shell) run(stdin string, args ...string) bool {
	s.stdout.Reset()
	s.stderr.Reset()
	s.world.stdin = strings.NewReader(stdin)
	s.exitCode = run(context.Background(), s.world, args)
	return s.exitCode == 0
}

// mustRun is run of a command line that has to succeed without a word on stderr.
func (s *shell) mustRun(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	if !s.run(stdin, args...) || s.stderr.Len() > 0 {
		t.Fatalf("incus %s: exit code %d, stderr:\n%s", strings.Join(args, " "), s.exitCode, &s.stderr)
	}
	return s.stdout.String()
}

// mustFail is run of a command line that has to fail with exactly this on stderr.
func (s *shell) mustFail(t *testing.T, stderr, stdin string, args ...string) {
	t.Helper()
	if s.run(stdin, args...) || s.exitCode != 1 {
		t.Errorf("incus %s: exit code %d, stdout:\n%s", strings.Join(args, " "), s.exitCode, &s.stdout)
	}
	if diff := cmp.Diff(stderr, s.stderr.String()); diff != "" {
		t.Errorf("incus %s: -want +got on stderr:\n%s", strings.Join(args, " "), diff)
	}
}

// mustAsk checks that the daemon was asked exactly this, in this order.
func (s *shell) mustAsk(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), s.Lines()); diff != "" {
		t.Errorf("-want +got of the requests:\n%s", diff)
	}
}

// unchanged checks that the daemon was asked for nothing but answers.
func (s *shell) unchanged(t *testing.T) {
	t.Helper()
	for _, line := range s.Lines() {
		if !strings.HasPrefix(line, "GET ") {
			t.Errorf("the daemon was asked to %s", line)
		}
	}
}

// body returns what was sent with the last request of that line.
func (s *shell) body(t *testing.T, line string) string {
	t.Helper()
	requests := s.Requests()
	for i := len(requests) - 1; i >= 0; i-- {
		if requests[i].Line == line {
			return requests[i].Body
		}
	}
	t.Fatalf("no request %s in %q", line, s.Lines())
	return ""
}

func golden(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func load[T any](t *testing.T, name string) T {
	t.Helper()
	var object T
	if err := json.Unmarshal([]byte(golden(t, name)), &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// clustered lets the fake daemon be node1 of the cluster in testdata.
func clustered(t *testing.T) *shell {
	t.Helper()
	s := newShell(t)
	s.Reply("GET /1.0", json.RawMessage(golden(t, "server.json")))
	s.Reply("GET /1.0/cluster", api.Cluster{ServerName: "node1", Enabled: true, MemberConfig: []api.ClusterMemberConfigKey{}})
	members := load[[]json.RawMessage](t, "cluster-list.json.out")
	s.Reply("GET /1.0/cluster/members", members)
	s.Reply("GET /1.0/cluster/members/node1", members[0])
	s.Reply("GET /1.0/cluster/members/node1/state", json.RawMessage(golden(t, "member-state.json")))
	s.Reply("GET /1.0/operations", json.RawMessage(golden(t, "query-operations.out")))
	s.Refuse("GET /1.0/cluster/members/nope", 404, "Cluster member not found", nil)
	return s
}

// standalone lets the fake daemon be a server that is no member of a cluster.
func standalone(t *testing.T, config api.ConfigMap) *shell {
	t.Helper()
	s := newShell(t)
	server := api.Server{}
	server.Config = config
	server.Environment.ServerName = "server1"
	server.Environment.ServerVersion = api.Version
	server.Environment.StorageSupportedDrivers = []api.StorageDriverInfo{{Name: "btrfs", Version: "6"}, {Name: "dir", Version: "1"}}
	if address := config["core.https_address"]; address != "" {
		server.Environment.Addresses = []string{address}
	}
	s.Reply("GET /1.0", server)
	s.Reply("PUT /1.0", struct{}{})
	s.Reply("GET /1.0/cluster", api.Cluster{MemberConfig: []api.ClusterMemberConfigKey{}})
	s.ReplyAsync("PUT /1.0/cluster", task("Creating bootstrap node"))
	s.Reply("GET /1.0/storage-pools", []api.StoragePool{})
	s.Reply("POST /1.0/storage-pools", struct{}{})
	s.Reply("GET /1.0/networks", []api.Network{{Name: "eth0", Type: "physical"}})
	s.Reply("POST /1.0/networks", struct{}{})
	s.Reply("GET /1.0/profiles/default", api.Profile{Name: "default"})
	s.Reply("PUT /1.0/profiles/default", struct{}{})
	s.world.disk = func(string) (string, uint64) { return "", 45 << 30 }
	s.world.canListen = func(string) error { return nil }
	return s
}

// task is an operation that has succeeded.
func task(description string) api.Operation {
	return api.Operation{
		ID: "9e871762", Class: api.OperationClassTask, Description: description,
		Status: api.Success.String(), StatusCode: api.Success,
	}
}

func TestOutputIsThatOfIncus(t *testing.T) {
	for _, tt := range []struct{ file, args string }{
		{"cluster-list.table.out", "cluster list"},
		{"cluster-list.table.out", "cluster ls local:"},
		{"cluster-list.all-columns.out", "cluster list -c nurafdsm"},
		{"cluster-list.all-columns.out", "cluster list -c n,u,r,a,f,d,s,m"},
		{"cluster-list.compact.out", "cluster list -f compact"},
		{"cluster-list.csv.out", "cluster list -f csv"},
		{"cluster-list.csv-header.out", "cluster list -f csv,header"},
		{"cluster-list.csv-noheader.out", "cluster list -f csv,noheader"},
		{"cluster-list.json.out", "cluster list -f json"},
		{"cluster-list.yaml.out", "cluster list -f yaml"},
		{"cluster-list.markdown.out", "cluster list -f markdown"},
		{"cluster-list-tokens.table.out", "cluster list-tokens"},
		{"cluster-list-tokens.compact.out", "cluster list-tokens -f compact"},
		{"cluster-list-tokens.csv.out", "cluster list-tokens -f csv"},
		{"cluster-list-tokens.json.out", "cluster list-tokens -f json"},
		{"cluster-show.node1.out", "cluster show node1"},
		{"cluster-show.node1.out", "cluster show local:node1"},
		{"cluster-info.node1.out", "cluster info node1"},
		{"config-show.out", "config show"},
		{"info.out", "info"},
		{"operation-list.out", "operation list"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			s := clustered(t)
			if diff := cmp.Diff(golden(t, tt.file), s.mustRun(t, "", strings.Fields(tt.args)...)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestErrorsAreThoseOfIncus(t *testing.T) {
	for _, tt := range []struct{ file, args string }{
		{"cluster-get.missing.err", "cluster get node1 nokey"},
		{"cluster-list.bad-column.err", "cluster list -c X"},
		{"cluster-enable-again.err", "cluster enable node1"},
		{"cluster-show.missing.err", "cluster show nope"},
		{"query-member-missing.err", "query /1.0/cluster/members/nope"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			clustered(t).mustFail(t, golden(t, tt.file), "", strings.Fields(tt.args)...)
		})
	}
}

func TestHintsAndProblemsAreToldBelowTheError(t *testing.T) {
	s := clustered(t)
	s.Refuse("GET /1.0/cluster/members/node2", 403, "no", api.ErrorMetadata{Reason: api.TokenUsed, Hint: "issue another"})
	s.mustFail(t, "Error: no\nHint: issue another\n", "", "cluster", "show", "node2")
	s.mustFail(t, "Error: no\nReason: token_used\nHint: issue another\n", "", "cluster", "show", "node2", "-v")
	s.Refuse("GET /1.0/cluster/members/node2", 400, "2 problems", api.ErrorMetadata{
		Reason: api.JoinRefused, Hint: "mend both",
		Problems: []api.Error{{Reason: api.ClockSkew, Message: "clock"}, {Reason: api.NameTaken, Message: "name", Hint: "another"}},
	})
	s.mustFail(t, "Error: 2 problems\n - clock\n   Hint: "+api.ClockSkew.Hint()+"\n - name\n   Hint: another\nHint: mend both\n",
		"", "cluster", "show", "node2")
}

func TestStaleAnswerIsWarnedOfOnce(t *testing.T) {
	s := clustered(t)
	for _, route := range []string{"GET /1.0/cluster", "GET /1.0/cluster/members"} {
		answer := any(api.Cluster{Enabled: true})
		if strings.HasSuffix(route, "members") {
			answer = []api.ClusterMember{}
		}
		s.Handle(route, staleAnswer(answer))
	}
	if !s.run("", "cluster", "list", "-f", "csv") {
		t.Fatal(&s.stderr)
	}
	want := "Warning: this cluster has no quorum (no_quorum); showing what this member last knew (index 7, since 2026/11/22 08:57 UTC)\n" +
		"Warning: 1 of 3 voters answers, 2 are needed; start those that are missing: node2, node3. If they are lost for ever, see: incusd cluster recover-from-quorum-loss --help\n"
	if diff := cmp.Diff(want, s.stderr.String()); diff != "" {
		t.Error(diff)
	}
}

func TestWithoutDaemonTheErrorNamesTheSocket(t *testing.T) {
	s := newShell(t)
	path := filepath.Join(s.Dir, "no.socket")
	s.world.connect = func(opts client.Options) *client.Client { return client.Unix(path, opts) }
	s.mustFail(t, "Error: The incus daemon doesn't appear to be started (socket path: "+path+")\n"+
		"Hint: start incusd, or set INCUS_DIR to the state directory of a running one\n", "", "cluster", "list")
	if got := s.mustRun(t, "", "version"); got != "Client version: 7.3\nServer version: unreachable\n" {
		t.Errorf("got %q", got)
	}
	s.mustFail(t, "Error: Daemon still not running after 1s timeout (The incus daemon doesn't appear to be started (socket path: "+path+"))\n"+
		"Hint: look into the daemon's log for what it is waiting for\n", "", "admin", "waitready", "-t", "1")
}

func TestUnknownRemotesAreRefused(t *testing.T) {
	const hint = "Hint: those that there are: images, local; add it: incus remote add web ADDRESS\n"
	s := clustered(t)
	for _, args := range []string{"cluster list web:", "cluster show web:node1", "query web:/1.0", "config get web: user.x"} {
		s.mustFail(t, "Error: The remote \"web\" doesn't exist\n"+hint, "", strings.Fields(args)...)
	}
	s.env["INCUS_REMOTE"] = "web"
	s.mustFail(t, "Error: The remote \"web\" doesn't exist\n"+hint, "", "cluster", "list")
	s.mustRun(t, "", "cluster", "list", "local:")
	s.mustRun(t, "", "cluster", "list", "--force-local")
	s.mustFail(t, "Error: The remote \"web\" doesn't exist\nHint: --force-local leaves the remotes in config.yml aside\n",
		"", "cluster", "list", "web:", "--force-local")
}

func TestUnknownCommandsAndWrongArgumentsAreErrors(t *testing.T) {
	s := newShell(t)
	s.mustFail(t, "Error: unknown command \"frobnicate\" for \"incus cluster\"\nHint: see incus cluster --help\n", "", "cluster", "frobnicate")
	s.mustFail(t, "Error: unknown command \"lits\" for \"incus cluster\"\nHint: did you mean list? See incus cluster --help\n", "", "cluster", "lits")
	s.mustFail(t, "Error: Invalid number of arguments\nHint: usage: incus cluster show [<remote>:]<member> [flags]\n", "", "cluster", "show")
	s.mustFail(t, "Error: Invalid format \"xml\": use one of csv, json, table, yaml, compact, markdown\n", "", "cluster", "list", "-f", "xml")
	s.mustAsk(t)
	if got := s.mustRun(t, "", "--version"); got != "7.3\n" {
		t.Errorf("got %q", got)
	}
}

func TestCompletionOffersMembersTokensAndKeys(t *testing.T) {
	s := clustered(t)
	for args, want := range map[string]string{
		"cluster show ":          "node1\nnode2\nnode3\n",
		"info --target node3":    "node3\n",
		"cluster revoke-token ":  "goldB\ngoldA\n",
		"config get cl":          "cluster.https_address\n",
		"cluster list --format ": "csv\njson\ntable\nyaml\ncompact\nmarkdown\n",
	} {
		words := strings.Split(args, " ")
		s.run("", append([]string{"__complete"}, words...)...)
		if got, _, _ := strings.Cut(s.stdout.String(), ":4\n"); got != want {
			t.Errorf("%s: got %q, want %q", args, got, want)
		}
	}
}

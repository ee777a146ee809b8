package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
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

func connect(t *testing.T, opts client.Options) (*clienttest.Server, *client.Client) {
	t.Helper()
	server := clienttest.New(t)
	c := client.Unix(server.Socket(), opts)
	t.Cleanup(c.Close)
	return server, c
}

func TestRefusalsCarryReasonAndHint(t *testing.T) {
	server, c := connect(t, client.Options{})
	server.Refuse("POST /1.0/certificates", 403, "Join token has expired",
		api.ErrorMetadata{Reason: api.TokenExpired, Hint: "issue another"})
	err := c.CreateCertificate(t.Context(), api.CertificatesPost{})
	var refusal *api.Error
	if !errors.As(err, &refusal) || !errors.Is(err, api.TokenExpired) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(&api.Error{Reason: api.TokenExpired, Message: "Join token has expired", Hint: "issue another", Code: 403}, refusal); diff != "" {
		t.Error(diff)
	}
}

func TestRefusalsOfOtherServersGetTheReasonOfTheirStatus(t *testing.T) {
	for status, reason := range map[int]api.Reason{
		400: api.BadRequest, 401: api.NotAuthorized, 403: api.NotAuthorized, 404: api.NotFound, 409: api.Conflict,
		412: api.PreconditionFail, 413: api.TooLarge, 429: api.TooMany, 500: api.Internal, 501: api.NotImplemented,
		503: api.Unavailable, 504: api.Timeout,
	} {
		server, c := connect(t, client.Options{})
		server.Refuse("GET /1.0", status, "no", nil)
		if _, _, err := c.Server(t.Context()); !errors.Is(err, reason) || err.Error() != "no" {
			t.Errorf("%d: got %v, want %s", status, err, reason)
		}
	}
}

func TestAllProblemsOfARefusalArriveAtOnce(t *testing.T) {
	server, c := connect(t, client.Options{})
	problems := []api.Error{{Reason: api.NameTaken, Message: "name"}, {Reason: api.ClockSkew, Message: "clock"}}
	server.Refuse("PUT /1.0/cluster", 400, "refused", api.ErrorMetadata{Reason: api.JoinRefused, Problems: problems})
	_, err := c.UpdateCluster(t.Context(), api.ClusterPut{}, "")
	var refused *client.RefusedError
	if !errors.As(err, &refused) || !errors.Is(err, api.JoinRefused) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(problems, refused.Problems()); diff != "" {
		t.Error(diff)
	}
}

func TestRequestsAreThoseOfTheProtocol(t *testing.T) {
	server, c := connect(t, client.Options{})
	server.Reply("GET /1.0/operations", map[string]any{})
	server.Reply("GET /1.0/cluster/members", []any{})
	server.Reply("GET /1.0", api.Server{})
	server.Reply("PUT /1.0", map[string]any{})
	server.Reply("PATCH /1.0", map[string]any{})
	ctx := t.Context()
	if _, err := c.Operations(ctx, false); err != nil {
		t.Error(err)
	}
	if _, err := c.WithProject("web").Operations(ctx, true); err != nil {
		t.Error(err)
	}
	if _, err := c.Members(ctx, "server_name eq (^a$|^a.*)"); err != nil {
		t.Error(err)
	}
	if _, _, err := c.WithTarget("node3").Server(ctx); err != nil {
		t.Error(err)
	}
	if err := c.UpdateServer(ctx, api.ServerPut{}, `"abc"`); err != nil {
		t.Error(err)
	}
	if err := c.PatchServer(ctx, api.ServerPut{Config: api.ConfigMap{"user.x": "1"}}, ""); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Member(ctx, "a/b"); !errors.Is(err, api.NotFound) {
		t.Error(err)
	}
	want := []string{
		"GET /1.0/operations?project=default&recursion=1",
		"GET /1.0/operations?all-projects=true&recursion=1",
		"GET /1.0/cluster/members?filter=server_name+eq+%28%5Ea%24%7C%5Ea.%2A%29&recursion=1",
		"GET /1.0?target=node3",
		"PUT /1.0",
		"PATCH /1.0",
		"GET /1.0/cluster/members/a%2Fb",
	}
	if diff := cmp.Diff(want, server.Lines()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	put := server.Requests()[4]
	if put.IfMatch != `"abc"` || put.Body != `{"config":{}}` || !strings.HasPrefix(put.Agent, "Incus 7.3 (Linux; ") {
		t.Errorf("got %+v", put)
	}
}

func TestStaleAnswersAreTold(t *testing.T) {
	var got client.Stale
	server, c := connect(t, client.Options{OnStale: func(s client.Stale) { got = s }})
	server.Handle("GET /1.0/cluster/members", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Incus-Stale", "no_quorum; index=7; since=2026-11-22T08:57:28Z; voters=3; missing=node2,node3; new=1")
		clienttest.Sync(w, []any{})
	})
	if _, err := c.Members(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	want := client.Stale{Reason: api.NoQuorum, Index: 7, Since: time.Date(2026, 11, 22, 8, 57, 28, 0, time.UTC), Voters: 3, Missing: []string{"node2", "node3"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestServerThatHangsUpIsNamed(t *testing.T) {
	server, c := connect(t, client.Options{})
	server.Handle("PUT /1.0", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	err := c.UpdateServer(t.Context(), api.ServerPut{}, "")
	if !errors.Is(err, api.OutcomeUnknown) || !strings.HasSuffix(err.Error(), " hung up before it answered") {
		t.Errorf("got %v", err)
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	server, c := connect(t, client.Options{Timeout: 50 * time.Millisecond})
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	silent := func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}
	server.Handle("GET /1.0", silent)
	server.Handle("PUT /1.0", silent)
	if _, _, err := c.Server(t.Context()); !errors.Is(err, api.Unavailable) {
		t.Errorf("a question that was not answered: %v", err)
	}
	if err := c.UpdateServer(t.Context(), api.ServerPut{}, ""); !errors.Is(err, api.OutcomeUnknown) {
		t.Errorf("a change that was not answered: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.UpdateServer(ctx, api.ServerPut{}, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gave up: %v", err)
	}
}

func TestChangeThatWasNotSentHasNotHappened(t *testing.T) {
	cut := func(context.Context, string, string) (net.Conn, error) {
		mine, other := net.Pipe()
		other.Close()
		return mine, nil
	}
	c := client.HTTPS("10.0.0.1", client.Pin(nil, nil), client.Options{Dial: cut})
	if err := c.UpdateServer(t.Context(), api.ServerPut{}, ""); !errors.Is(err, api.Unavailable) {
		t.Errorf("got %v", err)
	}
}

func TestUnreachableServersAreNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "unix.socket")
	_, _, err := client.Unix(path, client.Options{}).Server(t.Context())
	want := "The incus daemon doesn't appear to be started (socket path: " + path + ")"
	if !errors.Is(err, api.Unavailable) || err.Error() != want {
		t.Errorf("got %v", err)
	}
	refusing := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	}
	err = client.HTTPS("10.0.0.1", nil, client.Options{Dial: refusing}).UpdateServer(t.Context(), api.ServerPut{}, "")
	if !errors.Is(err, api.Unavailable) || err.Error() != "Unable to connect to 10.0.0.1:8443: connection refused" {
		t.Errorf("got %v", err)
	}
}

func TestShutdownEndsWithTheConnection(t *testing.T) {
	server, c := connect(t, client.Options{})
	server.Handle("PUT /internal/shutdown", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if err := c.Shutdown(t.Context(), true); err != nil {
		t.Error(err)
	}
	if got := server.Lines()[0]; got != "PUT /internal/shutdown?force=true" {
		t.Errorf("asked %s", got)
	}
}

func operation(code api.StatusCode) api.Operation {
	return api.Operation{ID: "b9", Class: api.OperationClassTask, Status: code.String(), StatusCode: code}
}

func TestWaitFollowsEvents(t *testing.T) {
	server, c := connect(t, client.Options{})
	// The end is published as soon as the client has subscribed and asked.
	server.Handle("GET /1.0/operations/b9", func(w http.ResponseWriter, _ *http.Request) {
		clienttest.Sync(w, operation(api.Running))
		other := operation(api.Failure)
		other.ID = "c1"
		running := operation(api.Running)
		running.Metadata = map[string]any{"progress": "half"}
		server.Publish(other)
		server.Publish(running)
		server.Publish(operation(api.Success))
	})
	var seen []string
	start := operation(api.Running)
	op, err := c.Wait(t.Context(), &start, func(op *api.Operation) {
		text, _ := op.Metadata["progress"].(string)
		seen = append(seen, op.Status+" "+text)
	})
	if err != nil || op.StatusCode != api.Success {
		t.Fatalf("got %v, %v", op, err)
	}
	if diff := cmp.Diff([]string{"Running ", "Running half", "Success "}, seen); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestWaitDoesWithoutEvents(t *testing.T) {
	for name, prepare := range map[string]func(*clienttest.Server){
		"refused": (*clienttest.Server).RefuseEvents,
		"broken":  func(*clienttest.Server) {},
	} {
		t.Run(name, func(t *testing.T) {
			server, c := connect(t, client.Options{})
			prepare(server)
			server.Handle("GET /1.0/operations/b9", func(w http.ResponseWriter, _ *http.Request) {
				clienttest.Sync(w, operation(api.Running))
				server.DropEvents()
			})
			answers := []api.StatusCode{api.Running, api.Success}
			server.Handle("GET /1.0/operations/b9/wait", func(w http.ResponseWriter, _ *http.Request) {
				clienttest.Sync(w, operation(answers[0]))
				answers = answers[1:]
			})
			start := operation(api.Running)
			op, err := c.Wait(t.Context(), &start, nil)
			if err != nil || op.StatusCode != api.Success {
				t.Fatalf("got %v, %v", op, err)
			}
			if last := server.Lines()[len(server.Lines())-1]; last != "GET /1.0/operations/b9/wait?timeout=10" {
				t.Errorf("last asked %s", last)
			}
		})
	}
}

func TestFailedOperationsCarryReasonAndHint(t *testing.T) {
	server, c := connect(t, client.Options{})
	failed := operation(api.Failure)
	failed.Err = "Join token has been used"
	failed.Metadata = map[string]any{"reason": "token_used", "hint": "issue another"}
	server.Reply("GET /1.0/operations/b9", failed)
	_, err := c.Wait(t.Context(), &failed, nil)
	var refusal *api.Error
	if !errors.As(err, &refusal) || refusal.Reason != api.TokenUsed || refusal.Hint != "issue another" || err.Error() != failed.Err {
		t.Errorf("got %#v", err)
	}
}

func TestOperationThatVanishedHasAnUnknownOutcome(t *testing.T) {
	_, c := connect(t, client.Options{})
	start := operation(api.Running)
	if _, err := c.Wait(t.Context(), &start, nil); !errors.Is(err, api.OutcomeUnknown) {
		t.Errorf("got %v", err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	server, c := connect(t, client.Options{})
	server.Reply("GET /1.0/operations/b9", operation(api.Running))
	ctx, cancel := context.WithCancelCause(t.Context())
	start := operation(api.Running)
	_, err := c.Wait(ctx, &start, func(*api.Operation) { cancel(errors.New("enough")) })
	if !errors.Is(err, context.Canceled) || err.Error() != "enough" {
		t.Errorf("got %v", err)
	}
}

func TestJoinTokensAreTheRunningOnes(t *testing.T) {
	server, c := connect(t, client.Options{})
	token := func(name string, code api.StatusCode) api.Operation {
		return api.Operation{
			ID: "op-" + name, Class: api.OperationClassToken, StatusCode: code,
			Metadata: map[string]any{
				"serverName": name, "secret": "s", "fingerprint": "f",
				"addresses": []string{"10.0.0.1:8443"}, "expiresAt": "2026-11-22T08:57:28.363230681Z",
			},
		}
	}
	certificate := token("x", api.Running)
	certificate.Metadata = map[string]any{"request": map[string]any{}}
	server.Reply("GET /1.0/operations", map[string][]api.Operation{
		"running":   {token("node2", api.Running), certificate, {ID: "t", Class: api.OperationClassTask, StatusCode: api.Running}},
		"cancelled": {token("node3", api.Cancelled)},
	})
	tokens, err := c.WithProject("web").JoinTokens(t.Context())
	if err != nil || len(tokens) != 1 || tokens[0].ServerName != "node2" || tokens[0].Operation != "op-node2" {
		t.Fatalf("got %+v, %v", tokens, err)
	}
	if got := server.Lines()[0]; got != "GET /1.0/operations?project=default&recursion=1" {
		t.Errorf("asked %s", got)
	}
}

func TestCanonicalAddress(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1": "10.0.0.1:8443", "10.0.0.1:9000": "10.0.0.1:9000", "node1": "node1:8443", "node1:": "node1:8443",
		"::1": "[::1]:8443", "[::1]": "[::1]:8443", "[::1]:9000": "[::1]:9000",
	} {
		if got := client.CanonicalAddress(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestSocketIsFoundInTheOrderOfTheDocumentation(t *testing.T) {
	env := map[string]string{}
	getenv := func(name string) string { return env[name] }
	if path, _ := client.SocketPath("", getenv); path != "/var/lib/incus/unix.socket" && path != "/run/incus/unix.socket" {
		t.Errorf("without environment: %s", path)
	}
	dir := t.TempDir()
	env["INCUS_DIR"] = dir
	if path, _ := client.SocketPath("", getenv); path != filepath.Join(dir, "unix.socket") {
		t.Errorf("INCUS_DIR: %s", path)
	}
	if err := os.WriteFile(filepath.Join(dir, "unix.socket.user"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if path, project := client.SocketPath("", getenv); path != filepath.Join(dir, "unix.socket.user") || !strings.HasPrefix(project, "user-") {
		t.Errorf("restricted socket: %s, %s", path, project)
	}
	env["INCUS_SOCKET"] = "/a"
	if path, _ := client.SocketPath("", getenv); path != "/a" {
		t.Errorf("INCUS_SOCKET: %s", path)
	}
	if path, _ := client.SocketPath("/b", getenv); path != "/b" {
		t.Errorf("explicit: %s", path)
	}
}

// member starts an HTTPS server with a certificate of its own, that tells which
// certificate its client showed.
func member(t *testing.T) (address string, cert *x509.Certificate) {
	t.Helper()
	pair := keyPair(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		clienttest.Sync(w, api.Server{AuthUserName: name})
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{*pair}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13}
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), pair.Leaf
}

func keyPair(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "joiner"}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestPinnedClientTalksOnlyToTheOneServer(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://192.0.2.1:1") // never used
	address, cert := member(t)
	c := client.HTTPS(address, client.Pin(cert, keyPair(t)), client.Options{})
	t.Cleanup(c.Close)
	server, _, err := c.Server(t.Context())
	if err != nil || server.AuthUserName != "joiner" {
		t.Fatalf("got %+v, %v", server, err)
	}
	_, other := member(t)
	err = client.HTTPS(address, client.Pin(other, nil), client.Options{}).UpdateServer(t.Context(), api.ServerPut{}, "")
	if !errors.Is(err, api.FingerprintMatch) {
		t.Errorf("another server: %v", err)
	}
}

func TestFindMemberTakesTheAddressWithTheRightCertificate(t *testing.T) {
	wrong, _ := member(t)
	right, cert := member(t)
	token := &api.ClusterMemberJoinToken{Fingerprint: client.Fingerprint(cert), Addresses: []string{"127.0.0.1:1", wrong, right}}
	address, found, err := client.FindMember(t.Context(), nil, token)
	if err != nil || address != right || !found.Equal(cert) {
		t.Errorf("got %s, %v", address, err)
	}
	token.Addresses = []string{wrong, "127.0.0.1:1"}
	_, _, err = client.FindMember(t.Context(), nil, token)
	if !errors.Is(err, api.FingerprintMatch) || !strings.Contains(err.Error(), wrong) {
		t.Errorf("wrong certificate: %v", err)
	}
	token.Addresses = []string{"127.0.0.1:1"}
	_, _, err = client.FindMember(t.Context(), nil, token)
	if !errors.Is(err, api.NoMemberReachable) || !strings.Contains(err.Error(), "127.0.0.1:1: connect: connection refused") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestWhoMayNotAskDoesNotWaitForTheDaemon(t *testing.T) {
	server, c := connect(t, client.Options{})
	server.Handle("GET /internal/ready", func(w http.ResponseWriter, _ *http.Request) {
		clienttest.Error(w, http.StatusForbidden, "not authorized", &api.Error{Reason: api.NotAuthorized})
	})
	start := time.Now()
	if err := c.WaitReady(t.Context(), time.Minute); !errors.Is(err, api.NotAuthorized) || time.Since(start) > 30*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}

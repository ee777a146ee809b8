package api

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/internal/operations"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
)

// run starts an operation that ends when its channel is closed.
func (b *bed) run(mayCancel bool) (*operations.Op, chan struct{}) {
	b.t.Helper()
	goOn := make(chan struct{})
	op, err := b.server.cfg.Operations.Run("Waiting", nil, mayCancel, func(ctx context.Context, _ *operations.Op) error {
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return op, goOn
}

func TestOperationsOfAllMembersAreListed(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3") // node3 does not answer
	other := b.secondServer("node2")
	token := b.issue("node4")
	here, endHere := b.run(false)
	there, endThere := other.run(false)
	defer close(endHere)
	defer close(endThere)

	got := get[map[string][]api.Operation](b, "/1.0/operations?recursion=1&project=default")
	ids := make(map[string]string)
	for _, op := range got["running"] {
		ids[op.ID] = op.Location
	}
	if len(ids) != 3 || ids[here.ID()] != "node1" || ids[there.ID()] != "node2" || ids[token.Operation] != "node1" {
		t.Errorf("got %v", ids)
	}
	urls := get[map[string][]string](b, "/1.0/operations")
	if len(urls["running"]) != 3 || !strings.HasPrefix(urls["running"][0], "/1.0/operations/") {
		t.Errorf("got %v", urls)
	}
	t.Run("a member that asks gets those that run here", func(t *testing.T) {
		w := b.do(request{method: "GET", path: "/1.0/operations?recursion=1", cert: b.certificate("node2"), header: map[string]string{"User-Agent": agentNotifier}})
		got := metadata[map[string][]api.Operation](t, w, 200)
		if len(got["running"]) != 1 || got["running"][0].ID != here.ID() {
			t.Errorf("got %v", got)
		}
	})
	t.Run("tokens belong to the default project", func(t *testing.T) {
		got := get[map[string][]api.Operation](b, "/1.0/operations?recursion=1&project=web")
		if len(got["running"]) != 2 {
			t.Errorf("got %v", got)
		}
	})
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/operations?project=a&all-projects=true"}), 400, api.BadRequest, "Cannot specify a project when requesting all projects")
}

func TestOperationOfAnotherMember(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	other := b.secondServer("node2")
	op, _ := other.run(true)
	if got := get[api.Operation](b, "/1.0/operations/"+op.ID()); got.ID != op.ID() || got.Location != "node2" {
		t.Errorf("got %+v", got)
	}
	if w := b.do(request{method: "DELETE", path: "/1.0/operations/" + op.ID()}); w.Code != http.StatusOK {
		t.Errorf("got %s", w.Body)
	}
	ended := get[api.Operation](b, "/1.0/operations/"+op.ID()+"/wait?timeout=10")
	if ended.Status != "Cancelled" {
		t.Errorf("got %+v", ended)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/operations/nope"}), 404, api.NotFound, "Operation not found")
}

func TestCancellation(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	fixed, goOn := b.run(false)
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/operations/" + fixed.ID()}), 400, api.BadRequest, "This operation can't be cancelled")
	close(goOn)
	<-fixed.Done()
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/operations/" + fixed.ID()}), 400, api.BadRequest, "Only running operations can be cancelled")

	path := operationURL(b.issue("node3").Operation)
	other := b.secondServer("node2") // any member revokes
	if w := other.do(request{method: "DELETE", path: path}); w.Code != http.StatusOK {
		t.Fatalf("got %s", w.Body)
	}
	wantRefusal(t, b.do(request{method: "DELETE", path: path}), 400, api.BadRequest, "Only running operations can be cancelled")
	if got := get[api.Operation](b, path); got.Status != "Cancelled" || got.Metadata["secret"] != nil {
		t.Errorf("got %+v", got)
	}
	b.clock = b.clock.Add(tokens.Lingering + time.Second)
	wantRefusal(t, b.do(request{method: "GET", path: path}), 404, api.NotFound, "Operation not found")
}

func TestWaitEndsWithTheOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCluster(t, "node1")
		op, goOn := b.run(false)
		time.AfterFunc(time.Minute, func() { close(goOn) })
		start := time.Now()
		if got := get[api.Operation](b, "/1.0/operations/"+op.ID()+"/wait?timeout=5"); got.Status != "Running" || time.Since(start) != 5*time.Second {
			t.Errorf("%s after %s", got.Status, time.Since(start))
		}
		if got := get[api.Operation](b, "/1.0/operations/"+op.ID()+"/wait?timeout=-1"); got.Status != "Success" || time.Since(start) != time.Minute {
			t.Errorf("%s after %s", got.Status, time.Since(start))
		}
	})
}

func TestWaitMayBeLongerThanAnyOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCluster(t, "node1")
		op, goOn := b.run(false)
		time.AfterFunc(time.Minute, func() { close(goOn) })
		if got := get[api.Operation](b, "/1.0/operations/"+op.ID()+"/wait?timeout=9223372036854775807"); got.Status != "Success" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestWaitForTheEndOfAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCluster(t, "node1")
		token := b.issue("node2")
		time.AfterFunc(time.Second, func() { b.issue("unrelated") })
		time.AfterFunc(time.Minute, func() { b.mustPropose(state.KindTokenRevoke, state.TokenRevoke{Operation: token.Operation}) })
		if got := get[api.Operation](b, operationURL(token.Operation)+"/wait"); got.Status != "Cancelled" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestCloseEndsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCluster(t, "node1")
		op, goOn := b.run(false)
		defer close(goOn)
		time.AfterFunc(time.Hour, b.server.Close)
		if got := get[api.Operation](b, "/1.0/operations/"+op.ID()+"/wait"); got.Status != "Running" {
			t.Errorf("got %+v", got)
		}
		wantRefusal(t, b.do(request{method: "GET", path: "/1.0/operations/" + op.ID() + "/wait"}), 503, api.ShuttingDown, "Incus is shutting down")
	})
}

func TestStrangerWaitsWithTheSecretOnly(t *testing.T) {
	b := newCluster(t, "node1")
	token := b.issue("node2")
	path := operationURL(token.Operation) + "/wait?timeout=0"
	for _, query := range []string{"", "&secret=", "&secret=wrong"} {
		wantRefusal(t, b.do(request{method: "GET", path: path + query, stranger: true}), 403, api.NotAuthorized, "not authorized")
	}
	w := b.do(request{method: "GET", path: path + "&secret=" + token.Secret, stranger: true})
	if op := metadata[api.Operation](t, w, 200); op.Status != "Running" || op.Metadata["secret"] != nil {
		t.Errorf("got %+v", op)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/operations/nope/wait?secret=x", stranger: true}), 403, api.NotAuthorized, "not authorized")
	wantRefusal(t, b.do(request{method: "GET", path: path[:len(path)-1] + "soon"}), 400, api.BadRequest, `Invalid value "soon" for parameter "timeout"`)
}

func TestWaitSendsItsHeadersAtOnce(t *testing.T) {
	b := newCluster(t, "node1")
	op, goOn := b.run(false)
	server := httptest.NewServer(b.handlers[UnixListener])
	defer server.Close()
	resp, err := server.Client().Get(server.URL + "/1.0/operations/" + op.ID() + "/wait")
	if err != nil {
		t.Fatal(err) // would not return before the headers
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
	close(goOn)
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || !strings.Contains(line, `"Success"`) {
		t.Errorf("got %q, %v", line, err)
	}
}

func TestTargetLetsTheOtherMemberAnswer(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	other := b.secondServer("node2")
	other.settings.values["core.https_address"] = "10.0.0.2:8443"

	if got := get[api.Server](b, "/1.0?target=node2"); got.Environment.ServerName != "node2" || got.Config["core.https_address"] != "10.0.0.2:8443" || got.AuthUserMethod != "unix" {
		t.Errorf("got %s %v", got.Environment.ServerName, got.Config)
	}
	if w := b.do(request{method: "PATCH", path: "/1.0?target=node2", body: `{"config":{"user.a":"b"}}`}); w.Code != 200 || other.settings.values["user.a"] != "b" {
		t.Errorf("got %s", w.Body)
	}
	if got := get[api.Server](b, "/1.0?target=node1"); got.Environment.ServerName != "node1" {
		t.Errorf("its own name: %s", got.Environment.ServerName)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0?target=nope"}), 404, api.MemberNotFound, "Cluster member not found")
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0?target=node3"}), 503, api.MemberOffline, `Cluster member "node3" does not answer`)
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/cluster/members/node3/state"}), 503, api.MemberOffline, `Cluster member "node3" does not answer`)
	b.mustPropose(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: b.member("node3").ID, Offline: true, Since: b.clock, Reason: "gone"}}})
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0?target=node3"}), 503, api.MemberOffline, `Cluster member "node3" is offline`)

	t.Run("for whom it asks", func(t *testing.T) {
		restricted := b.trustClient(true, "default")
		got := metadata[api.Server](t, b.do(request{method: "GET", path: "/1.0?target=node2", cert: restricted}), 200)
		if got.AuthUserMethod != "tls" || len(got.Config) != 0 {
			t.Errorf("the other member took it for %s, and showed %v", got.AuthUserMethod, got.Config)
		}
	})
	t.Run("not for those it does not know", func(t *testing.T) {
		for _, cert := range []*x509.Certificate{nil, b.joiner("node4")} {
			seen := metadata[api.Server](t, b.do(request{method: "GET", path: "/1.0?target=node2", cert: cert, stranger: true}), 200)
			if len(seen.Config) != 0 || seen.Environment.ServerName == "node2" {
				t.Errorf("got %+v", seen)
			}
		}
	})
	t.Run("once", func(t *testing.T) {
		header := map[string]string{headerForwardedProtocol: "unix"}
		w := b.do(request{method: "GET", path: "/1.0?target=node2", cert: b.certificate("node2"), header: header})
		wantRefusal(t, w, 503, api.Unavailable, "forwarded to the wrong member")
	})
	t.Run("without a cluster, none is this server", func(t *testing.T) {
		alone := newBed(t)
		if w := alone.do(request{method: "GET", path: "/1.0?target=none"}); w.Code != 200 {
			t.Errorf("got %s", w.Body)
		}
	})
	t.Run("errors come back as they are", func(t *testing.T) {
		w := b.do(request{method: "PATCH", path: "/1.0?target=node2", body: `{"config":{"nokey":"1"}}`})
		wantRefusal(t, w, 400, api.ConfigInvalid, "cannot set 'nokey' to '1': unknown key")
	})
}

func TestStateOfAMachineIsMeasuredThere(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	b.secondServer("node2")
	for _, name := range []string{"node1", "node2"} {
		got := get[api.ClusterMemberState](b, "/1.0/cluster/members/"+name+"/state")
		if got.SysInfo.TotalRAM == 0 || len(got.SysInfo.LoadAverages) != 3 || got.StoragePools == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestEventsOfOperations(t *testing.T) {
	b := newCluster(t, "node1")
	sub := b.server.cfg.Events.Subscribe([]string{api.EventOperation}, "default", false)
	defer sub.Close()
	op, goOn := b.run(false)
	close(goOn)
	<-op.Done()
	for _, want := range []string{"Running", "Success"} {
		var got api.Operation
		if err := json.Unmarshal((<-sub.C()).Metadata, &got); err != nil || got.Status != want || got.ID != op.ID() {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

func TestOperationsAreForAdministrators(t *testing.T) {
	b := newCluster(t, "node1")
	op, goOn := b.run(true)
	defer close(goOn)
	cert := b.trustClient(true, "default")
	see := func(method, path string) *httptest.ResponseRecorder {
		return b.do(request{method: method, path: path, cert: cert})
	}
	for _, query := range []string{"", "?recursion=1"} {
		if got := metadata[map[string]any](t, see("GET", "/1.0/operations"+query), 200); len(got) != 0 {
			t.Errorf("%s: %v", query, got)
		}
	}
	wantRefusal(t, see("GET", operationURL(op.ID())), 404, api.NotFound, "Operation not found")
	wantRefusal(t, see("GET", operationURL(op.ID())+"/wait"), 403, api.NotAuthorized, "not authorized")
	wantRefusal(t, see("DELETE", operationURL(op.ID())), 403, api.NotAuthorized, restricted)
}

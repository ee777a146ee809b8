package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
)

func TestUnknownPathsAndMethods(t *testing.T) {
	b := newCluster(t, "node1")
	tests := map[string]struct {
		method, path string
		status       int
		text         string
	}{
		"path":               {"GET", "/1.0/nope", 404, "not found"},
		"path at the root":   {"GET", "/2.0", 404, "not found"},
		"double slash":       {"GET", "/1.0//cluster", 404, "not found"},
		"method of others":   {"POST", "/1.0/cluster", 501, "not implemented"},
		"method of nobody":   {"BREW", "/1.0/cluster", 404, `Method "BREW" not found`},
		"this version lacks": {"POST", "/1.0/instances", 501, "runs no instances"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			reason := api.NotFound
			if test.status == 501 {
				reason = api.NotImplemented
			}
			wantRefusal(t, b.do(request{method: test.method, path: test.path}), test.status, reason, test.text)
		})
	}
	if w := b.do(request{method: "HEAD", path: "/1.0/cluster"}); w.Code != http.StatusOK {
		t.Errorf("HEAD: %d", w.Code)
	}
}

func TestOptionsAnswersWithWhatOtherOriginsMayDo(t *testing.T) {
	b := newCluster(t, "node1")
	b.settings.values["core.https_allowed_origin"] = "https://ui.example.org"
	b.settings.values["core.https_allowed_methods"] = "GET, PUT"
	b.settings.values["core.https_allowed_credentials"] = "true"
	origin := map[string]string{"Origin": "https://ui.example.org"}
	w := b.do(request{method: "OPTIONS", path: "/1.0", stranger: true, header: origin})
	if w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	for header, want := range map[string]string{
		"Access-Control-Allow-Origin": "https://ui.example.org", "Access-Control-Allow-Methods": "GET, PUT",
		"Access-Control-Allow-Headers": "", "Access-Control-Allow-Credentials": "true",
	} {
		if got := w.Header().Get(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	t.Run("whatever the path, and for the page that asks for leave", func(t *testing.T) {
		header := map[string]string{"Origin": "https://ui.example.org", "Sec-Fetch-Site": "cross-site"}
		for _, path := range []string{"/1.0", "/1.0/nope", "/2.0"} {
			w := b.do(request{method: "OPTIONS", path: path, stranger: true, header: header})
			if w.Code != http.StatusOK || w.Header().Get("Access-Control-Allow-Origin") != "https://ui.example.org" {
				t.Errorf("%s: %d %v", path, w.Code, w.Header())
			}
		}
		wantRefusal(t, b.do(request{method: "GET", path: "/1.0", header: header}), 403, api.NotAuthorized, "Forbidden Sec-Fetch-Site header value")
	})
	w = b.do(request{method: "OPTIONS", path: "/internal/ready", header: origin})
	if got := w.Header().Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("internal calls are open to %q", got)
	}
}

func TestBodies(t *testing.T) {
	b := newCluster(t, "node1")
	tests := map[string]struct {
		body   string
		status int
		reason api.Reason
		text   string
	}{
		"too large":    {`{"server_name":"` + strings.Repeat("x", maxBody) + `"}`, 413, api.TooLarge, "larger than 1048576 bytes"},
		"empty":        {"", 400, api.BadRequest, "Request body is empty"},
		"broken":       {"{\n  \"server_name\": nope}", 400, api.BadRequest, "at line 2, column 19"},
		"wrong kind":   {`{"server_name": 7}`, 400, api.BadRequest, "line 1, column 17"},
		"two objects":  {`{} {}`, 400, api.BadRequest, "line 1, column 4"},
		"not a string": {`[]`, 400, api.BadRequest, "Invalid JSON"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := b.do(request{method: "POST", path: "/1.0/cluster/members", body: test.body})
			wantRefusal(t, w, test.status, test.reason, test.text)
		})
	}
	t.Run("a form that is JSON", func(t *testing.T) { // curl -d without -H
		header := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
		w := b.do(request{method: "POST", path: "/1.0/cluster/members", body: `{"server_name":"node2","unknown":1}`, header: header})
		if w.Code != http.StatusAccepted {
			t.Errorf("got %s", w.Body)
		}
	})
	t.Run("on GET and DELETE they are ignored", func(t *testing.T) {
		if w := b.do(request{method: "GET", path: "/1.0", body: `""`}); w.Code != http.StatusOK {
			t.Errorf("GET: %s", w.Body)
		}
		w := b.do(request{method: "DELETE", path: operationURL(b.issue("node3").Operation), body: `""`})
		if w.Code != http.StatusOK {
			t.Errorf("DELETE: %s", w.Body)
		}
	})
}

func TestNullIsTakenForNothing(t *testing.T) {
	b := newBed(t)
	b.settings.values["core.https_address"] = "10.0.0.1:8443"
	w := b.do(request{method: "PUT", path: "/1.0/cluster", body: `{"server_name":"node1","enabled":true,"member_config":null}`})
	if w.Code != http.StatusAccepted {
		t.Errorf("got %s", w.Body)
	}
}

func TestServerHasTwoFaces(t *testing.T) {
	b := newCluster(t, "node1")
	b.settings.values["user.ui.title"] = "hello"
	joiner := b.joiner("node2")

	stranger := metadata[map[string]any](t, b.do(request{method: "GET", path: "/1.0", stranger: true}), 200)
	if stranger["auth"] != "untrusted" || stranger["api_extensions"] != nil || stranger["environment"] != nil {
		t.Errorf("stranger sees %v", stranger)
	}
	if config, _ := stranger["config"].(map[string]any); len(config) != 1 || config["user.ui.title"] != "hello" {
		t.Errorf("stranger sees the configuration %v", stranger["config"])
	}

	w := b.do(request{method: "GET", path: "/1.0", cert: joiner})
	seen := metadata[api.Server](t, w, 200)
	if seen.Auth != "trusted" || len(seen.APIExtensions) == 0 || len(seen.Config) != 0 || !seen.Environment.ServerClustered {
		t.Errorf("joiner sees %+v", seen)
	}
	if strings.Contains(w.Body.String(), "PRIVATE KEY") || seen.Environment.Certificate != "" {
		t.Error("joiner sees too much")
	}

	trustedFace := get[api.Server](b, "/1.0?project=web")
	if trustedFace.Config["core.https_address"] != "10.0.0.1:8443" || trustedFace.Environment.Project != "web" ||
		trustedFace.Environment.Addresses[0] != "10.0.0.1:8443" || trustedFace.AuthUserMethod != "unix" ||
		trustedFace.Environment.ServerName != "node1" || trustedFace.Environment.CertificateFingerprint != b.pair.Fingerprint() {
		t.Errorf("administrator sees %+v", trustedFace)
	}
}

func TestStandaloneServerIsCalledAsItsHost(t *testing.T) {
	b := newBed(t)
	environment := get[api.Server](b, "/1.0").Environment
	if environment.ServerName != "host1" || environment.ServerClustered || environment.CertificateFingerprint != b.own.Fingerprint() {
		t.Errorf("got %+v", environment)
	}
	if cluster := get[api.Cluster](b, "/1.0/cluster"); cluster.Enabled || cluster.ServerName != "" || cluster.MemberConfig == nil {
		t.Errorf("got %+v", cluster)
	}
	for _, path := range []string{"/1.0/cluster/members", "/1.0/cluster/groups", "/1.0/cluster/members/node1"} {
		wantRefusal(t, b.do(request{method: "GET", path: path}), 400, api.NotClustered, "not clustered")
	}
}

func TestConfigurationIsChangedUnderItsETag(t *testing.T) {
	b := newCluster(t, "node1")
	etag := b.do(request{method: "GET", path: "/1.0"}).Header().Get("ETag")
	put := request{method: "PUT", path: "/1.0", body: `{"config":{"core.https_address":"10.0.0.1:8443","user.n":3}}`, header: map[string]string{"If-Match": etag}}
	if w := b.do(put); w.Code != http.StatusOK {
		t.Fatalf("got %s", w.Body)
	}
	if got := get[api.Server](b, "/1.0").Config; len(got) != 2 || got["user.n"] != "3" {
		t.Errorf("configuration is %v", got)
	}
	wantRefusal(t, b.do(put), http.StatusPreconditionFailed, api.PreconditionFail, "ETag doesn't match: ")
	put.header = map[string]string{"If-Match": strings.Trim(b.do(request{method: "GET", path: "/1.0"}).Header().Get("ETag"), `"`)}
	if w := b.do(put); w.Code != http.StatusOK {
		t.Errorf("without quotes: %s", w.Body)
	}
	judged := b.settings.judged
	if w := b.do(request{method: "PATCH", path: "/1.0", body: `{"config":{"user.m":"1"}}`}); w.Code != http.StatusOK || b.settings.judged != judged {
		t.Errorf("without ETag: %s", w.Body)
	}
	if w := b.do(request{method: "PATCH", path: "/1.0", body: `{}`}); w.Code != http.StatusOK {
		t.Errorf("PATCH of nothing: %s", w.Body)
	}
}

func TestStartUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCluster(t, "node1", "node2")
		b.daemon.started = make(chan struct{})
		start := time.Now()
		w := b.do(request{method: "GET", path: "/1.0", cert: b.certificate("node2"), header: map[string]string{"User-Agent": agentNotifier}})
		wantRefusal(t, w, 503, api.Unavailable, "Daemon is starting up")
		if time.Since(start) > 0 {
			t.Error("a member was kept waiting")
		}
		time.AfterFunc(time.Second, func() { close(b.daemon.started) })
		if w := b.do(request{method: "GET", path: "/1.0"}); w.Code != http.StatusOK || time.Since(start) != time.Second {
			t.Errorf("%d after %s", w.Code, time.Since(start))
		}

		b.daemon.started = make(chan struct{})
		w = b.do(request{method: "GET", path: "/1.0"})
		wantRefusal(t, w, 503, api.Unavailable, "Daemon is starting up")

		b.daemon.ready = make(chan struct{})
		wantRefusal(t, b.do(request{method: "GET", path: "/internal/ready"}), 503, api.Unavailable, "Daemon not ready yet")
		close(b.daemon.started)
		wantRefusal(t, b.do(request{method: "PATCH", path: "/1.0", body: `{"config":{"user.a":"b"}}`}), 503, api.Unavailable, "Daemon not ready yet")
		close(b.daemon.ready)
		if w := b.do(request{method: "GET", path: "/internal/ready"}); w.Code != http.StatusOK {
			t.Errorf("ready: %s", w.Body)
		}
	})
}

func TestShutdown(t *testing.T) {
	b := newCluster(t, "node1")
	if w := b.do(request{method: "PUT", path: "/internal/shutdown?force=true"}); w.Code != http.StatusOK || len(b.daemon.shutdowns) != 1 || !b.daemon.shutdowns[0] {
		t.Fatalf("got %s", w.Body)
	}
	wantRefusal(t, b.do(request{method: "PUT", path: "/internal/shutdown?force=false"}), 429, api.TooMany, "Shutdown already in progress")
	wantRefusal(t, b.do(request{method: "GET", path: "/internal/ready"}), 503, api.ShuttingDown, "Daemon is shutting down")
	w := b.do(request{method: "POST", path: "/1.0/cluster/members", body: `{"server_name":"node2"}`})
	wantRefusal(t, w, 503, api.ShuttingDown, "Incus is shutting down")
	if w := b.do(request{method: "GET", path: "/1.0/cluster/members"}); w.Code != http.StatusOK {
		t.Errorf("reads: %s", w.Body)
	}
}

func TestWithoutQuorumTheClusterIsStillDescribed(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	b.store.down = true
	for _, path := range []string{"/1.0", "/1.0/cluster", "/1.0/cluster/members", "/1.0/cluster/members/node2", "/1.0/cluster/groups", "/1.0/operations"} {
		w := b.do(request{method: "GET", path: path})
		if stale := w.Header().Get("X-Incus-Stale"); w.Code != 200 || !strings.HasPrefix(stale, "no_quorum; index=") || !strings.HasSuffix(stale, "; since=2027-01-15T08:00:00Z") {
			t.Errorf("%s: %d, X-Incus-Stale: %s", path, w.Code, stale)
		}
	}
	view := &raftstore.View{View: b.store.tables.View(), Stale: &raftstore.Stale{
		Reason: api.NoQuorum, Index: 7, Quorum: &raftstore.Quorum{Voters: []string{"x", "y", b.store.id}, Missing: []string{b.store.id}}}}
	if got := staleHeader(view); got != "no_quorum; index=7; voters=3; missing=node1" {
		t.Errorf("with a roll call it says %q", got)
	}
	w := b.do(request{method: "GET", path: "/1.0/certificates"})
	wantRefusal(t, w, 503, api.NoQuorum, "No quorum")
	b.store.down = false
	if w := b.do(request{method: "GET", path: "/1.0/cluster"}); w.Header().Get("X-Incus-Stale") != "" {
		t.Error("a fresh answer says that it is stale")
	}
}

func TestEveryErrorHasAReason(t *testing.T) {
	tests := map[string]struct {
		err    error
		status int
		reason api.Reason
	}{
		"ours":        {api.Errorf(api.NameTaken, "x"), 409, api.NameTaken},
		"bare reason": {api.TokenUsed, 403, api.TokenUsed},
		"time":        {context.DeadlineExceeded, 504, api.Timeout},
		"size":        {&http.MaxBytesError{Limit: 1}, 413, api.TooLarge},
		"unknown":     {errors.New("boom"), 500, api.Internal},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := refusalOf(test.err); got.Status() != test.status || got.Reason != test.reason {
				t.Errorf("got %d %s", got.Status(), got.Reason)
			}
		})
	}
}

func TestOSReleaseAndLoads(t *testing.T) {
	name, version := parseOSRelease([]byte("PRETTY_NAME=\"Debian\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=12\n"))
	if name != "Debian GNU/Linux" || version != "12" {
		t.Errorf("got %q %q", name, version)
	}
	if loads, err := parseLoads([]byte("4.42 3.03 1.58 2/187 4711\n")); err != nil || loads[0] != 4.42 || loads[2] != 1.58 {
		t.Errorf("got %v, %v", loads, err)
	}
	if _, err := parseLoads([]byte("4.42")); err == nil {
		t.Error("half a file was read")
	}
	facts, err := ReadFacts()
	if err != nil || facts.Hostname == "" || facts.KernelVersion == "" {
		t.Errorf("got %+v, %v", facts, err)
	}
}

func BenchmarkGetMembers(b *testing.B) {
	bed := newCluster(b, "node1", "node2", "node3")
	for b.Loop() {
		if w := bed.do(request{method: "GET", path: "/1.0/cluster/members?filter=&recursion=1", cert: nil}); w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}

func TestMemberMovesToAnotherAddress(t *testing.T) {
	b := newBed(t)
	b.ask("PUT", "/internal/cluster/address", api.ClusterAddressPut{Address: "10.0.0.9", Force: true}, 200)
	if want := []string{"10.0.0.9 true"}; !slices.Equal(b.daemon.moves, want) {
		t.Errorf("moved %q, want %q", b.daemon.moves, want)
	}
}

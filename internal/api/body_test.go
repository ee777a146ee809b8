package api

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"incusd/api"
)

// serve answers over the network, HTTP/2 by TLS if wanted. Without a certificate
// callers of the TLS listener are strangers.
func (b *bed) serve(listener ListenerKind, http2 bool) *httptest.Server {
	b.t.Helper()
	handler := b.handlers[listener]
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if listener == TLSListener && r.TLS == nil {
			r.TLS = &tls.ConnectionState{}
		}
		handler.ServeHTTP(w, r)
	}))
	if server.EnableHTTP2 = http2; http2 {
		server.StartTLS()
	} else {
		server.Start()
	}
	b.t.Cleanup(server.Close)
	return server
}

// recorded reads all of an answer.
func recorded(t *testing.T, resp *http.Response) *httptest.ResponseRecorder {
	t.Helper()
	defer resp.Body.Close()
	w := httptest.NewRecorder()
	w.Code = resp.StatusCode
	if _, err := io.Copy(w.Body, resp.Body); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestSlowBodyIsNotWaitedFor(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			b := newCluster(t, "node1")
			b.server.bodyTime = 50 * time.Millisecond
			server := b.serve(TLSListener, http2)
			slow := func(path string) *httptest.ResponseRecorder {
				body, sender := io.Pipe()
				defer sender.Close()
				go sender.Write([]byte(`{"trust_`)) // and no more
				resp, err := server.Client().Post(server.URL+path, "application/json", body)
				if err != nil {
					t.Fatal(err)
				}
				return recorded(t, resp)
			}
			wantRefusal(t, slow("/1.0/certificates"), http.StatusRequestTimeout, api.Timeout, "Request body did not come within 50ms")
			// Nobody reads these bodies, but net/http would wait for them.
			wantRefusal(t, slow("/1.0/nope"), http.StatusNotFound, api.NotFound, "not found")
			wantRefusal(t, slow("/1.0/cluster/members"), http.StatusForbidden, api.NotAuthorized, "not authorized")
		})
	}
}

// The time of a body is not that of the call.
func TestCallMayTakeLongerThanItsBody(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			b := newCluster(t, "node1")
			b.server.bodyTime = 20 * time.Millisecond
			op, goOn := b.run(false)
			time.AfterFunc(10*b.server.bodyTime, func() { close(goOn) })
			server := b.serve(UnixListener, http2)
			req, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/1.0/operations/"+op.ID()+"/wait", strings.NewReader(`""`))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if got := metadata[api.Operation](t, recorded(t, resp), http.StatusOK); got.Status != "Success" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestStrangersSendSmallBodies(t *testing.T) {
	b := newCluster(t, "node1")
	cert := b.joiner("node2")
	large := `{"trust_token":"` + strings.Repeat("x", maxStrangersBody) + `"}`
	for _, req := range []request{
		{method: "POST", path: "/1.0/certificates", body: large, stranger: true},
		{method: "POST", path: "/internal/cluster/join/admit", body: large, cert: cert},
		{method: "GET", path: "/1.0", body: large, cert: cert},
	} {
		wantRefusal(t, b.do(req), 413, api.TooLarge, "Request body is larger than 65536 bytes")
	}
	if w := b.do(request{method: "POST", path: "/1.0/certificates", body: large}); w.Code == 413 {
		t.Errorf("an administrator: %s", w.Body)
	}
}

// Who does not read an answer does not keep it in memory for ever.
func TestSlowReaderIsNotWaitedFor(t *testing.T) {
	b := newCluster(t, "node1")
	b.server.readTime = 50 * time.Millisecond
	ended := make(chan error, 1)
	large := reply{metadata: strings.Repeat("x", 64<<20)} // more than any socket's buffers
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.server.limitAnswer(w)
		ended <- large.write(w, r)
	})
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// The time of an answer is not that of the next request on the same connection.
func TestCallMayTakeLongerThanItsAnswer(t *testing.T) {
	b := newCluster(t, "node1")
	b.server.readTime = 20 * time.Millisecond
	server := b.serve(UnixListener, false)
	get := func(path string) {
		t.Helper()
		resp, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if w := recorded(t, resp); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	get("/1.0")
	op, goOn := b.run(false)
	time.AfterFunc(10*b.server.readTime, func() { close(goOn) })
	get("/1.0/operations/" + op.ID() + "/wait")
}

func TestStrangersBodiesAreCounted(t *testing.T) {
	b := newCluster(t, "node1")
	b.server.limits.bodies.ofOne = 100
	body := `{"trust_token":"` + strings.Repeat("x", 100) + `"}`
	request := request{method: "POST", path: "/1.0/certificates", body: body, stranger: true}
	wantRefusal(t, b.do(request), http.StatusTooManyRequests, api.TooMany, "Too many request bodies at once")
	b.server.limits.bodies.ofOne = 1000
	for range 20 { // each is given back
		if w := b.do(request); w.Code != http.StatusForbidden { // it is no token
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	if n := b.server.limits.bodies; n.all != 0 || len(n.source) != 0 {
		t.Errorf("%d bytes are counted, by source %v", n.all, n.source)
	}
}

package api

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"incusd/api"
	"incusd/internal/trust"
)

// FuzzRequests sends what nobody should send and wants an envelope for it, or a stream.
func FuzzRequests(f *testing.F) {
	for _, route := range Routes() {
		f.Add(route.Method, route.Path, "recursion=1&filter=a eq b&target=x", `{"server_name":"a","enabled":true,"config":{"a":[1]}}`)
	}
	f.Add("POST", "/1.0/certificates", "", `{"trust_token":"e30=","certificate":"x"}`)
	f.Add("PATCH", "/1.0/cluster/members/node1", "", `{"roles":null,"config":null}`)
	f.Add("GET", "/1.0/cluster/members/%zz", "target=%zz&timeout=9999999999999999999", "")
	b := newCluster(f, "node1")
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		u, err := url.Parse("http://unix.socket" + path)
		if err != nil || u.Path == "" {
			return
		}
		u.RawQuery = query
		values := u.Query()
		values.Set("timeout", "0") // nothing is worth waiting for
		u.RawQuery = values.Encode()
		r, err := http.NewRequestWithContext(t.Context(), method, u.String(), strings.NewReader(body))
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		b.daemon.stopping = false // one of the routes is the shutdown
		b.handlers[UnixListener].ServeHTTP(w, r)
		if method == http.MethodOptions || w.Header().Get("Content-Type") == "application/octet-stream" {
			return
		}
		var e api.Response
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Type == "" {
			t.Errorf("%s %s: %d %q: no envelope", method, u, w.Code, w.Body)
		}
		if e.Type == api.ErrorResponse && e.Code == http.StatusInternalServerError {
			t.Errorf("%s %s: a fault of the request is taken for one of the server: %s", method, u, e.Error)
		}
	})
}

// FuzzStrangers sends what somebody without any rights can send, over the network: it
// must change nothing, open nothing and be nobody's fault but the sender's.
func FuzzStrangers(f *testing.F) {
	b := newCluster(f, "node1")
	unknown := newPair(f, trust.Client).Cert
	for _, route := range Routes() {
		f.Add(route.Method, route.Path, "recursion=2&project=default", "User-Agent", "incus-cluster-notifier", `{"config":{"core.trust_password":"x"}}`, true)
	}
	for _, header := range []struct{ key, value string }{
		{headerForwardedProtocol, "unix"}, {headerForwardedUsername, "root"}, {"X-Incus-authenticated", "true"}, {"Sec-Fetch-Site", "cross-site"},
		{"Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."}, {"If-Match", `"x"`}, {"Origin", "https://example.org"}, {"Content-Type", "text/plain"},
	} {
		f.Add("GET", "/1.0", "", header.key, header.value, "", false)
	}
	token := api.ClusterMemberJoinToken{ServerName: "node2", Fingerprint: "00", Addresses: []string{"10.0.0.1:8443"}, Secret: "00"}
	text := token.String()
	f.Add("POST", "/1.0/certificates", "", "", "", `{"type":"server","trust_token":"`+text+`","certificate":"`+base64.StdEncoding.EncodeToString(unknown.Raw)+`"}`, false)
	f.Add("POST", "/1.0/certificates", "", "", "", `{"type":"client","trust_token":"`+text+`"}`, true)
	f.Add("POST", "/internal/cluster/join/admit", "", "", "", `{"name":"node2","secret":"00","secret":"01","address":"10.0.0.2:99999999999999999999"}`, true)
	f.Fuzz(func(t *testing.T, method, path, query, key, value, body string, withCertificate bool) {
		u, err := url.Parse("https://10.0.0.1:8443" + path)
		if err != nil || u.Path == "" {
			return
		}
		u.RawQuery = query
		r, err := http.NewRequestWithContext(t.Context(), method, u.String(), strings.NewReader(body))
		if err != nil {
			return
		}
		r.Header.Set(key, value)
		r.RemoteAddr = "192.0.2.1:1"
		r.TLS = &tls.ConnectionState{}
		if withCertificate {
			r.TLS.PeerCertificates = []*x509.Certificate{unknown}
		}
		b.server.limits = newLimits() // the limits have tests of their own
		index := b.store.Local().Index()
		w := httptest.NewRecorder()
		b.handlers[TLSListener].ServeHTTP(w, r)
		if now := b.store.Local().Index(); now != index {
			t.Fatalf("%s %s: a stranger has written %d entries", method, u, now-index)
		}
		if method == http.MethodOptions {
			return
		}
		var e api.Response
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Type == "" {
			t.Fatalf("%s %s: %d %q: no envelope", method, u, w.Code, w.Body)
		}
		switch {
		case e.Type == api.ErrorResponse && e.Code >= 500 && e.Code != http.StatusNotImplemented:
			t.Errorf("%s %s: a stranger's request is taken for a fault of the server: %d %s", method, u, e.Code, e.Error)
		case e.Type != api.ErrorResponse && u.Path != "/" && u.Path != "/1.0" && u.Path != "/internal/cluster/join/abort": // which finds nothing to end
			t.Errorf("%s %s: a stranger was answered: %s", method, u, w.Body)
		case strings.Contains(w.Body.String(), "PRIVATE KEY"):
			t.Errorf("%s %s: a stranger was shown a key", method, u)
		}
	})
}

package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"incusd/api"
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

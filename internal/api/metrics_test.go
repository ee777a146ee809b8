package api

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"strings"
	"testing"
)

// The listener that is for metrics alone asks for the same certificates, and has nothing else to give.
func TestTheMetricsListenerIsForMetricsAlone(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	handler := b.server.MetricsHandler()
	for _, test := range []struct {
		cert         *x509.Certificate
		method, path string
		code         int
		says         string
	}{
		{b.trustMetrics(), "GET", "/1.0/metrics", 200, "incus_cluster_members"},
		{b.trustClient(false), "GET", "/1.0/metrics", 200, "# EOF"},
		{nil, "GET", "/1.0/metrics", 403, "not authorized"},
		{nil, "GET", "/", 200, "/1.0"},
		{nil, "GET", "/1.0", 200, `"auth":"untrusted"`},
		{b.trustClient(false), "PUT", "/1.0", 501, "not implemented"},
		{b.trustClient(false), "GET", "/1.0/cluster/members", 404, "not found"},
		{b.certificate("node2"), "GET", "/internal/cluster/report", 404, "not found"},
		{nil, "POST", "/1.0/certificates", 404, "not found"},
	} {
		r := httptest.NewRequestWithContext(b.ctx, test.method, "https://node1:9100"+test.path, strings.NewReader("{}"))
		r.TLS = &tls.ConnectionState{}
		if test.cert != nil {
			r.TLS.PeerCertificates = []*x509.Certificate{test.cert}
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != test.code || !strings.Contains(w.Body.String(), test.says) {
			t.Errorf("%s %s: %d %s", test.method, test.path, w.Code, w.Body)
		}
	}
}

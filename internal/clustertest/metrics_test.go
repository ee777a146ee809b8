package clustertest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"incusd/internal/clustertest"
)

// Whoever gathers metrics reaches core.metrics_address, after a restart too, and nothing else there.
func TestMetricsHaveAListenerOfTheirOwn(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		s := c.Servers()[0]
		k := newVisitor(t, c)
		ask := func(path string) (int, string, error) {
			resp, err := k.http.Get("https://m1:9100" + path)
			if err != nil {
				return 0, "", err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			return resp.StatusCode, string(body), err
		}
		if _, _, err := ask("/1.0/metrics"); err == nil {
			t.Fatal("somebody answers already")
		}
		if err := set(s, "core.metrics_address", "m1"); err != nil {
			t.Fatal(err)
		}
		if code, body, err := ask("/1.0/metrics"); err != nil || code != http.StatusForbidden {
			t.Fatalf("a stranger is answered %d %s, %v", code, body, err)
		}
		if err := set(s, "core.metrics_authentication", "false"); err != nil {
			t.Fatal(err)
		}
		s.Stop()
		k.http.CloseIdleConnections()
		s.MustStart()
		c.Eventually("metrics for everybody", func() error {
			if code, body, err := ask("/1.0/metrics"); err != nil || code != http.StatusOK || !strings.Contains(body, "incus_cluster_members") {
				return fmt.Errorf("%d %s, %v", code, body, err)
			}
			return nil
		})
		if code, body, err := ask("/1.0/cluster/members"); err != nil || code != http.StatusNotFound {
			t.Errorf("it also answers %d %s, %v", code, body, err)
		}
		k.http.CloseIdleConnections()
	})
}

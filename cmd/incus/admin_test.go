package main

import (
	"net/http"
	"testing"

	"incusd/client/clienttest"
)

func TestWaitreadyAsksUntilTheDaemonIsReady(t *testing.T) {
	s := newShell(t)
	asked := 0
	s.Handle("GET /internal/ready", func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 1 {
			clienttest.Error(w, 503, "Daemon not ready yet", nil)
			return
		}
		clienttest.Sync(w, struct{}{})
	})
	s.mustRun(t, "", "admin", "waitready", "--timeout", "30")
	s.mustAsk(t, "GET /internal/ready", "GET /internal/ready")
}

func TestShutdownHasALimit(t *testing.T) {
	s := newShell(t)
	s.Reply("PUT /internal/shutdown", struct{}{})
	s.mustRun(t, "", "admin", "shutdown", "--force")
	s.mustAsk(t, "PUT /internal/shutdown?force=true", "GET /internal/ready")
	s.Handle("PUT /internal/shutdown", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s.mustFail(t, "Error: Daemon still running after 1s timeout\n"+
		"Hint: it may be waiting for operations: incus operation list; --force does not wait for them\n", "", "admin", "shutdown", "-t", "1")
}

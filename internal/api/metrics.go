package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"incusd/api"
	"incusd/internal/config"
)

// metricsRoutes are those of the listener that is for metrics alone.
func metricsRoutes() []Route {
	return slices.DeleteFunc(Routes(), func(r Route) bool {
		return r.Method != http.MethodGet || !slices.Contains([]string{"/", "/1.0", "/1.0/metrics"}, r.Path)
	})
}

// metricsGet describes this member in the text format of Prometheus: GET /1.0/metrics. With
// core.metrics_authentication=false it is open to everybody.
func (s *Server) metricsGet(c *call) (reply, error) {
	if c.caller.kind&(trusted|Metrics) == 0 {
		if config.GetBool(s.settings(), "core.metrics_authentication") {
			return reply{}, api.Errorf(api.NotAuthorized, "not authorized")
		}
		if !s.limits.attempt(&c.caller) { // it makes the leader answer a read
			return reply{}, api.Errorf(api.TooMany, "Too many requests for metrics")
		}
	}
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return reply{}, err
	}
	var m metrics
	m.add("incus_uptime_seconds", "counter", "The daemon uptime in seconds.", time.Since(s.begun).Seconds())
	m.add("incus_operations_total", "counter", "The number of running operations", float64(len(s.cfg.Operations.List())))
	active := 0
	for _, w := range view.Warnings() {
		if w.Status != api.WarningResolved {
			active++
		}
	}
	m.add("incus_warnings_total", "counter", "The number of active warnings.", float64(active))
	m.add("incus_cluster_quorum", "gauge", "1 if a leader answers, else 0.", one(view.Stale == nil))
	m.add("incus_cluster_leader", "gauge", "1 if this member leads.", one(view.Leader == s.cfg.Store.ID()))
	m.add("incus_cluster_applied_index", "counter", "The last entry of the replicated log that is applied here.", float64(view.Index()))
	online, offline := 0, 0
	for _, member := range view.Members() {
		if member.Offline {
			offline++
		} else {
			online++
		}
	}
	m.head("incus_cluster_members", "gauge", "The members of the cluster by status.")
	m.value(`incus_cluster_members{status="online"}`, float64(online))
	m.value(`incus_cluster_members{status="offline"}`, float64(offline))
	text := m.String() + "# EOF\n"
	return reply{serve: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		s.limitAnswer(w)
		_, _ = w.Write([]byte(text)) // a caller who is gone needs no answer
	}}, nil
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// metrics is a text in Prometheus' format.
type metrics struct{ strings.Builder }

func (m *metrics) head(name, kind, help string) {
	fmt.Fprintf(m, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (m *metrics) value(series string, value float64) { fmt.Fprintf(m, "%s %g\n", series, value) }

func (m *metrics) add(name, kind, help string, value float64) {
	m.head(name, kind, help)
	m.value(name, value)
}

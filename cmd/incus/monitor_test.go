package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"incusd/api"
)

func TestMonitorShowsEvents(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	event := func(kind string, metadata any) api.Event {
		data, err := json.Marshal(metadata)
		if err != nil {
			t.Fatal(err)
		}
		return api.Event{Type: kind, Timestamp: at, Metadata: data, Location: "server1"}
	}
	removed := event(api.EventLifecycle, api.EventLifecycleInfo{
		Action: "cluster-member-renamed", Source: "/1.0/cluster/members/b", Context: map[string]any{"old_name": "a"},
		Requestor: &api.EventRequestor{Username: "root", Protocol: "unix"},
	})
	tests := map[string]struct {
		format, level string
		event         api.Event
		want          string
	}{
		"lifecycle": {"pretty", "", removed, "INFO    [2026-01-02T03:04:05Z] [server1] Action: cluster-member-renamed, Source: /1.0/cluster/members/b, Requestor: unix/root () old_name=\"a\"\n"},
		"operation": {"pretty", "info", event(api.EventOperation, api.Operation{ID: "1", Class: "task", Description: "Joining cluster", Status: "Failure", Err: "no"}),
			"INFO    [2026-01-02T03:04:05Z] [server1] ID: 1, Class: task, Description: Joining cluster Err=\"no\" Location=\"\" Status=\"Failure\"\n"},
		"log": {"pretty", "warning", event(api.EventLogging, api.EventLogInfo{Message: "slow", Level: "warning", Context: map[string]string{"b": "2", "a": "1"}}),
			"WARNING [2026-01-02T03:04:05Z] [server1] slow a=\"1\" b=\"2\"\n"},
		"too fine a line": {"pretty", "error", event(api.EventLogging, api.EventLogInfo{Message: "slow", Level: "warning"}), ""},
		"json": {"json", "", event(api.EventLogging, api.EventLogInfo{Message: "slow", Level: "info"}),
			`{"type":"logging","timestamp":"2026-01-02T03:04:05Z","metadata":{"message":"slow","level":"info","context":null},"location":"server1"}` + "\n\n"},
		"yaml": {"yaml", "", event(api.EventLogging, api.EventLogInfo{Message: "slow", Level: "info"}),
			"location: server1\nmetadata:\n  context: null\n  level: info\n  message: slow\ntimestamp: \"2026-01-02T03:04:05Z\"\ntype: logging\n\n\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newShell(t)
			show, err := (&app{world: s.world}).eventPrinter(test.format, test.level)
			if err != nil {
				t.Fatal(err)
			}
			if err := show(test.event); err != nil || s.stdout.String() != test.want {
				t.Errorf("%v\n%q\nwant\n%q", err, &s.stdout, test.want)
			}
		})
	}
}

func TestMonitorSaysWhatIsWrong(t *testing.T) {
	s := newShell(t)
	s.mustFail(t, "Error: Invalid format: xml\n", "", "monitor", "--format", "xml")
	s.mustFail(t, "Error: Log level filtering can only be used with pretty formatting\n", "", "monitor", "--loglevel", "info")
	s.mustFail(t, "Error: not a valid log level: \"loud\"; use one of debug, info, warning, error\n", "", "monitor", "--pretty", "--loglevel", "loud")
	s.RefuseEvents()
	if s.run("", "monitor") || !strings.HasPrefix(s.stderr.String(), "Error: not authorized\n") {
		t.Errorf("got %q", &s.stderr)
	}
}

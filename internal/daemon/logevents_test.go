package daemon

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"testing"

	"incusd/api"
)

func TestLogIsToldToWhoListens(t *testing.T) {
	var lines bytes.Buffer
	d := newDaemon(Config{Logger: slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelError}))})
	d.whereabouts.Store("m1")
	if d.log.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("what nobody hears is made")
	}
	operations := d.events.Subscribe([]string{api.EventOperation}, "", true)
	defer operations.Close()
	d.log.Info("not heard")
	listener := d.events.Subscribe([]string{api.EventLifecycle, api.EventLogging}, "default", false)
	defer listener.Close()

	log := d.log.With("member", "m2").WithGroup("raft").With("term", 3)
	log.Debug("too fine")
	log.Warn("a vote", slog.Group("of", "id", 7), "why", secret("x"))
	e := <-listener.C()
	var got api.EventLogInfo
	if err := json.Unmarshal(e.Metadata, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"member": "m2", "raft.term": "3", "raft.of.id": "7", "raft.why": "[redacted]"}
	if e.Type != api.EventLogging || e.Location != "m1" || e.Timestamp.IsZero() || got.Message != "a vote" || got.Level != "warning" || !maps.Equal(got.Context, want) {
		t.Errorf("got %+v %s", e, e.Metadata)
	}
	if lines.Len() != 0 {
		t.Errorf("written, too: %s", &lines)
	}
	d.log.Error("both")
	if e := <-listener.C(); e.Type != api.EventLogging || lines.Len() == 0 {
		t.Errorf("got %+v, written %q", e, &lines)
	}
	if len(operations.C()) != 0 {
		t.Error("others hear it")
	}
}

type secret string

func (secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

package daemon

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"

	"incusd/api"
)

// logEvents is the daemon's log. What it says of level info and above is told as an event,
// too, to those who listen; more than that only where it is written down anyway.
type logEvents struct {
	slog.Handler // writes the lines
	daemon       *Daemon
	prefix       string      // of the open groups
	context      []slog.Attr // with their whole names
}

func (h *logEvents) Enabled(ctx context.Context, level slog.Level) bool {
	return h.Handler.Enabled(ctx, level) || level >= slog.LevelInfo && h.daemon.events.Wanted(api.EventLogging)
}

func (h *logEvents) Handle(ctx context.Context, r slog.Record) error {
	if h.daemon.events.Wanted(api.EventLogging) {
		h.tell(r)
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// tell publishes a line. It takes no lock of the store, which may log under it.
func (h *logEvents) tell(r slog.Record) {
	info := api.EventLogInfo{Message: r.Message, Level: levelName(r.Level), Context: make(map[string]string)}
	for _, attr := range h.context {
		info.Context[attr.Key] = attr.Value.String()
	}
	r.Attrs(func(attr slog.Attr) bool {
		for _, a := range flat(h.prefix, []slog.Attr{attr}) {
			info.Context[a.Key] = a.Value.String()
		}
		return true
	})
	data, err := json.Marshal(info)
	if err != nil {
		return // strings are always written
	}
	place, _ := h.daemon.whereabouts.Load().(string)
	h.daemon.events.Publish(api.Event{Type: api.EventLogging, Timestamp: r.Time, Location: place, Metadata: data})
}

func (h *logEvents) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.Handler, c.context = h.Handler.WithAttrs(attrs), append(slices.Clip(h.context), flat(h.prefix, attrs)...)
	return &c
}

func (h *logEvents) WithGroup(name string) slog.Handler {
	c := *h
	c.Handler, c.prefix = h.Handler.WithGroup(name), h.prefix+name+"."
	return &c
}

// flat gives each value its whole name, with those of the groups that it is in.
func flat(prefix string, attrs []slog.Attr) []slog.Attr {
	var out []slog.Attr
	for _, a := range attrs {
		value := a.Value.Resolve()
		switch {
		case value.Kind() != slog.KindGroup:
			out = append(out, slog.Attr{Key: prefix + a.Key, Value: value})
		case a.Key == "":
			out = append(out, flat(prefix, value.Group())...)
		default:
			out = append(out, flat(prefix+a.Key+".", value.Group())...)
		}
	}
	return out
}

// levelName is the protocol's word for a level.
func levelName(level slog.Level) string {
	if level == slog.LevelWarn {
		return "warning"
	}
	return strings.ToLower(level.String())
}

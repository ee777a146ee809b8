package state

import (
	"fmt"
	"io"
	"log/slog"
)

// What holds a secret (a token's secret, the cluster's private key, a command's body)
// prints as what it is about, whatever the verb or the logger's format. Only JSON that
// is asked for, for log, snapshot and wire, has the secret.

func (c Cluster) String() string {
	return fmt.Sprintf("cluster %s incarnation %d, key [redacted]", c.ID, c.Incarnation)
}

// Format implements fmt.Formatter.
func (c Cluster) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue implements slog.LogValuer.
func (c Cluster) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", c.ID), slog.Int("incarnation", c.Incarnation), slog.Bool("enabled", c.Enabled))
}

func (t Token) String() string {
	s := fmt.Sprintf("token for %s (operation %s), secret [redacted]", t.Name, t.Operation)
	if t.Ended != "" {
		s += ", " + t.Ended
	}
	return s
}

// Format implements fmt.Formatter.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue implements slog.LogValuer.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", t.Name), slog.String("operation", t.Operation), slog.String("ended", t.Ended))
}

func (b ClusterEnable) String() string {
	return fmt.Sprintf("enable member %s as %s at %s, key [redacted]", b.MemberID, b.Name, b.Address)
}

// Format implements fmt.Formatter.
func (b ClusterEnable) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, b.String()) }

// LogValue implements slog.LogValuer.
func (b ClusterEnable) LogValue() slog.Value { return slog.StringValue(b.String()) }

// LogValue implements slog.LogValuer.
func (b TokenIssue) LogValue() slog.Value { return b.Token.LogValue() }

// LogValue implements slog.LogValuer.
func (b TokenInvite) LogValue() slog.Value { return b.Token.LogValue() }

func (c Command) String() string {
	return fmt.Sprintf("%s version %d, request %s, %d bytes", c.Kind, c.Version, c.Request, len(c.Body))
}

// Format implements fmt.Formatter.
func (c Command) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue implements slog.LogValuer.
func (c Command) LogValue() slog.Value {
	return slog.GroupValue(slog.String("kind", c.Kind), slog.Int("version", c.Version), slog.String("request", c.Request))
}

// LogValue implements slog.LogValuer.
func (e Event) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("action", e.Action), slog.String("source", e.Source)}
	if e.Token != nil {
		attrs = append(attrs, slog.Any("token", e.Token.LogValue()))
	}
	return slog.GroupValue(attrs...)
}

package raftstore

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/hashicorp/go-hclog"
)

// raftLog gives Raft's log lines to slog, one level lower than Raft thinks of them:
// it calls every failed heartbeat an error, where for us an unreachable member is an
// event of its own, told once.
type raftLog struct {
	hclog.Logger // answers the rest of the interface
	to           *slog.Logger
}

func newRaftLog(to *slog.Logger) hclog.Logger {
	return &raftLog{Logger: hclog.NewNullLogger(), to: to}
}

func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	var to slog.Level
	switch level {
	case hclog.Error:
		to = slog.LevelInfo
		if noisy[msg] {
			to = slog.LevelDebug
		}
	case hclog.Trace:
		return
	default:
		to = slog.LevelDebug
	}
	if l.to.Enabled(context.Background(), to) {
		l.to.Log(context.Background(), to, "raft: "+msg, formatted(args)...)
	}
}

// formatted spells out the values that Raft leaves to hclog to format.
func formatted(args []any) []any {
	args = slices.Clone(args)
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	return args
}

var noisy = map[string]bool{
	"failed to heartbeat to":                   true,
	"failed to appendEntries to":               true,
	"failed to make requestVote RPC":           true,
	"failed to decode incoming command":        true,
	"failed to flush response":                 true,
	"peer doesn't support vote reject reasons": true,
}

func (l *raftLog) Trace(string, ...any)           {}
func (l *raftLog) Debug(msg string, args ...any)  { l.Log(hclog.Debug, msg, args...) }
func (l *raftLog) Info(msg string, args ...any)   { l.Log(hclog.Info, msg, args...) }
func (l *raftLog) Warn(msg string, args ...any)   { l.Log(hclog.Warn, msg, args...) }
func (l *raftLog) Error(msg string, args ...any)  { l.Log(hclog.Error, msg, args...) }
func (l *raftLog) IsTrace() bool                  { return false }
func (l *raftLog) IsDebug() bool                  { return true }
func (l *raftLog) IsInfo() bool                   { return true }
func (l *raftLog) IsWarn() bool                   { return true }
func (l *raftLog) IsError() bool                  { return true }
func (l *raftLog) Named(string) hclog.Logger      { return l }
func (l *raftLog) ResetNamed(string) hclog.Logger { return l }
func (l *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{Logger: l.Logger, to: l.to.With(args...)}
}

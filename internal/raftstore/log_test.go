package raftstore

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestRaftsLinesAreSpeltOut(t *testing.T) {
	var out bytes.Buffer
	log := newRaftLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	log.Info("initial configuration", "servers", hclog.Fmt("%+v", []string{"a", "b"}))
	if want := `level=DEBUG msg="raft: initial configuration" servers="[a b]"`; !strings.Contains(out.String(), want) {
		t.Errorf("got %swant %s", out.String(), want)
	}
}

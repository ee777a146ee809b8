package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"incusd/api"
	"incusd/internal/raftstore"
)

const ownKey, ownAddress, sharedKey = keyCoreAddress, "10.0.0.1:8443", "user.x"

// both changes a key of this server and one of the cluster.
func both() map[string]string { return map[string]string{ownKey: ownAddress, sharedKey: "1"} }

// startOn starts a daemon on m, whose store does what reach says when it is about to append.
func startOn(t *testing.T, m *machine, reach func(d *Daemon) error) *Daemon {
	t.Helper()
	cfg := testConfig(t)
	cfg.Listen = m.listen
	var started atomic.Pointer[Daemon]
	cfg.Reach = func(point string) error {
		if d := started.Load(); point == raftstore.PointAppend && d != nil {
			return reach(d)
		}
		return nil
	}
	d, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Stop(context.Background()) })
	started.Store(d)
	return d
}

func (d *Daemon) shared(t *testing.T) string {
	t.Helper()
	view, err := d.current.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return view.Config()[sharedKey]
}

func TestSettingsThatCannotBeNotedHereChangeNothing(t *testing.T) {
	m := &machine{used: make(map[string]bool)}
	d := startOn(t, m, func(*Daemon) error { return nil })
	d.local.Close() // a disk that takes nothing
	if err := d.settings.Update(t.Context(), both(), false, nil, nil); err == nil {
		t.Fatal("it was acknowledged")
	}
	if got := d.shared(t); got != "" {
		t.Errorf("the cluster's part stands: %q", got)
	}
	if got := m.addresses(); len(got) > 0 {
		t.Errorf("it listens on %v", got)
	}
}

func TestSettingsThatTheClusterRefusesChangeNothingHere(t *testing.T) {
	m := &machine{used: make(map[string]bool)}
	d := startOn(t, m, func(*Daemon) error { return nil })
	meanwhile := func(map[string]string) error { // another change between the judgement and the commit
		return d.settings.Update(t.Context(), map[string]string{"user.y": "1"}, false, nil, nil)
	}
	if err := d.settings.Update(t.Context(), both(), false, meanwhile, nil); err == nil {
		t.Fatal("what was judged is not there any more, and it was acknowledged")
	}
	if got, ok := d.local.Config()[ownKey]; ok || len(m.addresses()) > 0 {
		t.Errorf("%s is %q, and it listens on %v", ownKey, got, m.addresses())
	}
}

func TestErrorSaysWhatStandsOfSettings(t *testing.T) {
	for name, tt := range map[string]struct {
		err   error
		undo  error
		stand bool
		want  api.Reason
	}{
		"refused":                    {err: api.PreconditionFail, want: api.PreconditionFail},
		"refused, and not undone":    {err: api.PreconditionFail, undo: api.DiskFull, stand: true, want: api.PreconditionFail},
		"perhaps taken, so it stays": {err: api.OutcomeUnknown, stand: true, want: api.OutcomeUnknown},
	} {
		undone := false
		err := takenBack(tt.err, map[string]string{ownKey: ownAddress}, func() error { undone = true; return tt.undo })
		if !errors.Is(err, tt.want) || strings.Contains(err.Error(), ownKey) != tt.stand || undone == (tt.want == api.OutcomeUnknown) {
			t.Errorf("%s: %v, undone: %v", name, err, undone)
		}
	}
}

// A server that starts over, or joins, makes its listeners follow the configuration too.
func TestListenersFollowAChangeWhileTheReplicaIsChanged(t *testing.T) {
	m := &machine{used: make(map[string]bool)}
	d := startOn(t, m, func(d *Daemon) error { d.listenAgain(); return nil })
	if err := d.settings.Update(t.Context(), both(), false, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := m.addresses(); !slices.Equal(got, []string{ownAddress}) || d.shared(t) != "1" {
		t.Errorf("it listens on %v", got)
	}
}

func TestTheMetricsListenerFollowsItsKey(t *testing.T) {
	m := &machine{used: make(map[string]bool)}
	if _, err := m.listen("tcp", "10.0.0.1:9999"); err != nil {
		t.Fatal(err)
	}
	d := startOn(t, m, func(*Daemon) error { return nil })
	for _, tt := range []struct {
		metrics, https string
		want           api.Reason
		listens        []string
	}{
		{"10.0.0.1", "", "", []string{"10.0.0.1:9100"}},
		{"10.0.0.1:9101", ownAddress, "", []string{ownAddress, "10.0.0.1:9101"}},
		{"10.0.0.1:9999", "10.0.0.1:8444", api.AddressInUse, []string{ownAddress, "10.0.0.1:9101"}},
		{ownAddress, ownAddress, api.AddressInUse, []string{ownAddress, "10.0.0.1:9101"}},
		{"", ownAddress, "", []string{ownAddress}},
	} {
		err := d.settings.Update(t.Context(), map[string]string{keyMetricsAddress: tt.metrics, keyCoreAddress: tt.https}, false, nil, nil)
		if tt.want == "" && err != nil || tt.want != "" && !errors.Is(err, tt.want) {
			t.Errorf("%q: %v", tt.metrics, err)
		}
		got := slices.DeleteFunc(m.addresses(), func(a string) bool { return a == "10.0.0.1:9999" })
		if !slices.Equal(got, tt.listens) {
			t.Errorf("%q: it listens on %v", tt.metrics, got)
		}
	}
}

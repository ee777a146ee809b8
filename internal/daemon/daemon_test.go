package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"incusd/api"
	"incusd/internal/raftstore"
)

func testConfig(t *testing.T) Config {
	dir := t.TempDir()
	m := &machine{used: make(map[string]bool)}
	cfg := Config{Paths: Paths{Dir: dir, Socket: filepath.Join(dir, "unix.socket")}, Listen: m.listen}
	cfg.setDefaults()
	return cfg
}

func TestStopBeforeTheStartIsDone(t *testing.T) {
	cfg := testConfig(t)
	var d *Daemon
	cfg.Reach = func(point string) error {
		if point == raftstore.PointAppend { // the first entry of the new store
			go d.Stop(context.Background())
			<-d.ctx.Done()
		}
		return nil
	}
	d = newDaemon(cfg)
	if err := d.run(); err == nil {
		t.Error("it started")
	}
	<-d.Done()
	if len(d.https.open) != 0 {
		t.Errorf("still listening on %v", d.https.open)
	}
	again, err := Start(Config{Paths: cfg.Paths, Listen: cfg.Listen})
	if err != nil {
		t.Fatalf("something was left open: %v", err)
	}
	again.Stop(t.Context())
}

func TestFailedBootstrapKeepsTheAddresses(t *testing.T) {
	d, err := Start(testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Stop(context.Background())
	const key, address = "cluster.https_address", "10.0.0.1:8443"
	set := map[string]string{"core.https_address": address}
	if err := d.settings.Update(t.Context(), set, false, nil, nil); err != nil {
		t.Fatal(err)
	}
	bootstrap := func(name string) error { return d.bootstrap(t.Context(), name, nil, func(string) {}) }

	if err := bootstrap("no name"); !errors.Is(err, api.NameInvalid) {
		t.Errorf("got %v", err)
	}
	if got, ok := d.local.Config()[key]; ok {
		t.Errorf("%s is %q after a bootstrap that failed", key, got)
	}
	if err := bootstrap("node1"); err != nil {
		t.Fatal(err)
	}
	if err := bootstrap("node1"); err != nil {
		t.Errorf("repeated: %v", err)
	}
	if err := bootstrap("node2"); !errors.Is(err, api.AlreadyClustered) {
		t.Errorf("under another name: %v", err)
	}
	if got := d.local.Config()[key]; got != address {
		t.Errorf("%s is %q", key, got)
	}
	if got := d.addresses(); !slices.Equal(got, []string{address, address}) {
		t.Errorf("the addresses are %v", got)
	}
}

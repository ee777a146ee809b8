package entities

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// tables is a store with one member, id1, that is no cluster.
type tables struct {
	t     *testing.T
	s     *state.Store
	index uint64
}

func newTables(t *testing.T) *tables {
	w := &tables{t: t, s: state.New()}
	w.must(state.KindClusterInit, state.ClusterInit{ClusterID: "c", Member: state.Member{ID: "id1", Certificate: "c", Fingerprint: "f", CommandVersion: 1}})
	return w
}

func (w *tables) must(kind string, body any) {
	w.t.Helper()
	cmd, err := state.NewCommand(kind, "", time.Unix(1800000000, 0), nil, body)
	if err != nil {
		w.t.Fatal(err)
	}
	entry, err := state.EncodeEntry([]state.Command{cmd})
	if err != nil {
		w.t.Fatal(err)
	}
	w.index++
	results, _, err := w.s.Apply(w.index, 1, entry)
	if err != nil {
		w.t.Fatal(err)
	}
	if results[0].Err != nil {
		w.t.Fatal(results[0].Err)
	}
}

func (w *tables) view() *raftstore.View { return &raftstore.View{View: w.s.View()} }

func (w *tables) pool(id string) {
	w.must(state.KindEntityCreate, state.EntityCreate{ID: id, Kind: state.EntityPool, Name: id, Type: "dir", MemberID: "id1"})
}

func (w *tables) report(id string, revision uint64, status string) {
	w.must(state.KindEntityReport, state.EntityReport{ID: id, MemberID: "id1", Revision: revision, Status: status})
}

func note(id, owner string, revision uint64, done bool) localstore.Made {
	return localstore.Made{ID: id, Owner: owner, Kind: state.EntityPool, Name: id, Type: "dir", Revision: revision, Done: done}
}

func steps(list []step) string {
	names := map[verb]string{doClear: "clear", doRemove: "remove", doMake: "make", doChange: "change", doStart: "start", doReport: "report"}
	var out []string
	for _, s := range list {
		name := s.note.Name
		if s.row != nil {
			name = s.row.Name
		}
		out = append(out, names[s.do]+" "+name)
	}
	return strings.Join(out, ", ")
}

func TestPlanFollowsRowsAndNotes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		rows    func(w *tables)
		notes   []localstore.Made
		started bool
		want    string
	}{
		{"nothing to do", func(*tables) {}, nil, false, ""},
		{"new", func(w *tables) { w.pool("a") }, nil, false, "make a"},
		{"cut off while it was made", func(w *tables) { w.pool("a") }, []localstore.Made{note("a", "id1", 1, false)}, false, "make a"},
		{"made, and the report was lost", func(w *tables) { w.pool("a") }, []localstore.Made{note("a", "id1", 1, true)}, false, "report a"},
		{"made, after a start", func(w *tables) { w.pool("a"); w.report("a", 1, api.EntityCreated) }, []localstore.Made{note("a", "id1", 1, true)}, false, "start a"},
		{"made and started", func(w *tables) { w.pool("a"); w.report("a", 1, api.EntityCreated) }, []localstore.Made{note("a", "id1", 1, true)}, true, ""},
		{"unavailable", func(w *tables) { w.pool("a"); w.report("a", 1, api.EntityUnavailable) }, []localstore.Made{note("a", "id1", 1, true)}, true, "start a"},
		{"failed", func(w *tables) { w.pool("a"); w.report("a", 1, api.EntityErrored) }, nil, false, ""},
		{"changed", func(w *tables) {
			w.pool("a")
			w.report("a", 1, api.EntityCreated)
			e, _ := w.s.View().Entity("a")
			w.must(state.KindEntityUpdate, state.EntityUpdate{ID: "a", Expect: e.Hash(), Config: map[string]string{"user.x": "y"}})
		}, []localstore.Made{note("a", "id1", 1, true)}, true, "change a"},
		{"deleted", func(w *tables) { w.pool("a"); w.must(state.KindEntityDelete, state.EntityDelete{ID: "a"}) }, []localstore.Made{note("a", "id1", 1, true)}, true, "remove a"},
		{"deleted before it was made", func(w *tables) { w.pool("a"); w.must(state.KindEntityDelete, state.EntityDelete{ID: "a"}) }, nil, false, "remove a"},
		{"could not be removed", func(w *tables) {
			w.pool("a")
			w.must(state.KindEntityDelete, state.EntityDelete{ID: "a"})
			w.report("a", 2, api.EntityErrored)
		}, []localstore.Made{note("a", "id1", 1, true)}, true, ""},
		{"a row that is not there removes nothing", func(*tables) {}, []localstore.Made{note("a", "id1", 1, true)}, true, ""},
		{"of a replica that was given up", func(w *tables) { w.pool("a") }, []localstore.Made{note("old", "id0", 1, true)}, false, "clear old, make a"},
		{"of a join under way", func(*tables) {}, []localstore.Made{note("new", "joining", 1, true)}, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newTables(t)
			test.rows(w)
			started := map[string]bool{"a": test.started}
			if got := steps(plan(w.view(), "id1", []string{"joining", "id1"}, test.notes, started)); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestVolumesAreMadeAfterAndRemovedBeforeTheirPool(t *testing.T) {
	t.Parallel()
	w := newTables(t)
	w.pool("p")
	w.must(state.KindEntityCreate, state.EntityCreate{ID: "v", Kind: state.EntityVolume, Project: "default", Pool: "p", Name: "v", Type: "filesystem", MemberID: "id1"})
	if got := steps(plan(w.view(), "id1", []string{"id1"}, nil, nil)); got != "make p, make v" {
		t.Error(got)
	}
	w.must(state.KindEntityDelete, state.EntityDelete{ID: "v"})
	w.must(state.KindEntityDelete, state.EntityDelete{ID: "p"})
	if got := steps(plan(w.view(), "id1", []string{"id1"}, nil, nil)); got != "remove v, remove p" {
		t.Error(got)
	}
	pool, volume := note("p", "old", 1, true), note("v", "old", 1, true)
	volume.Kind = state.EntityVolume
	if got := steps(plan(newTables(t).view(), "id1", []string{"id1"}, []localstore.Made{pool, volume}, nil)); got != "clear v, clear p" {
		t.Error(got)
	}
}

func TestKeysThatAJoiningServerIsAsked(t *testing.T) {
	t.Parallel()
	w := newTables(t)
	w.pool("b")
	w.pool("a")
	w.must(state.KindEntityReport, state.EntityReport{ID: "a", MemberID: "id1", Revision: 1, Status: api.EntityCreated, Config: map[string]string{
		"source": "/x", "volatile.initial_source": "/x",
	}})
	w.must(state.KindEntityCreate, state.EntityCreate{ID: "n", Kind: state.EntityNetwork, Project: "default", Name: "up", Type: "physical", MemberID: "id1",
		MemberConfig: map[string]string{"parent": "eth0"}, Config: map[string]string{"mtu": "1400"}})
	got := MemberConfig(w.view(), "id1")
	if s := fmt.Sprint(got); s != `[{network up parent  "parent" property for network "up"} {storage-pool a source  "source" property for storage pool "a"}]` {
		t.Error(s)
	}
	rows := JoinEntities(w.view())
	if len(rows) != 3 {
		t.Fatalf("%+v", rows)
	}
	values := []api.ClusterMemberConfigKey{
		{Entity: "storage-pool", Name: "a", Key: "source", Value: "/y"}, {Entity: "storage-pool", Name: "a", Key: "driver", Value: "dir"},
		{Entity: "storage-pool", Name: "nope", Key: "source", Value: "/y"},
	}
	if ignored := IgnoredKeys(rows, values); len(ignored) != 2 || ignored[0].Key != "driver" || ignored[1].Name != "nope" {
		t.Errorf("%+v", ignored)
	}
}

func TestProfilesAreChecked(t *testing.T) {
	t.Parallel()
	nic := func(pairs ...string) api.ProfilePut {
		device := api.ConfigMap{}
		for i := 0; i < len(pairs); i += 2 {
			device[pairs[i]] = pairs[i+1]
		}
		return api.ProfilePut{Devices: map[string]api.ConfigMap{"d": device}}
	}
	for text, put := range map[string]api.ProfilePut{
		"Missing device type":                     nic(),
		`Invalid device type "x"`:                 nic("type", "x"),
		`A nic needs "network"`:                   nic("type", "nic"),
		`Invalid nictype "x"`:                     nic("type", "nic", "nictype", "x"),
		`needs "parent"`:                          nic("type", "nic", "nictype", "bridged"),
		"in conjunction":                          nic("type", "nic", "nictype", "bridged", "network", "n"),
		`must have a "pool"`:                      nic("type", "disk", "path", "/"),
		`may not have a "source"`:                 nic("type", "disk", "path", "/", "source", "/x", "pool", "p"),
		"Image keys can only be set on instances": {Config: api.ConfigMap{"image.os": "x"}},
		"Unknown configuration key: limit.cpu":    {Config: api.ConfigMap{"limit.cpu": "2"}},
		`Invalid device name "a/b"`:               {Devices: map[string]api.ConfigMap{"a/b": {"type": "none"}}},
		"a profile can have one root disk":        {Devices: map[string]api.ConfigMap{"a": {"type": "disk", "path": "/", "pool": "p"}, "b": {"type": "disk", "path": "/", "pool": "p"}}},
	} {
		if err := checkProfile(put); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	good := api.ProfilePut{Config: api.ConfigMap{"limits.cpu": "2", "user.x": "y", "boot.autostart": "true"}, Devices: map[string]api.ConfigMap{
		"root": {"type": "disk", "path": "/", "pool": "p"}, "eth0": {"type": "nic", "name": "eth0", "nictype": "bridged", "parent": "br0"}, "gpu": {"type": "gpu"},
	}}
	if err := checkProfile(good); err != nil {
		t.Error(err)
	}
}

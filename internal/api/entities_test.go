package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// send makes a request with a body and checks the status.
func (b *bed) send(method, path, body string, status int) {
	b.t.Helper()
	if w := b.do(request{method: method, path: path, body: body}); w.Code != status {
		b.t.Fatalf("%s %s %s: %d %s", method, path, body, w.Code, w.Body)
	}
}

func TestPoolLivesFromItsPostToItsDelete(t *testing.T) {
	b := newBed(t)
	w := b.do(request{method: "POST", path: "/1.0/storage-pools", body: `{"name":"local","driver":"dir","config":null,"description":"d"}`})
	if w.Code != http.StatusCreated || w.Header().Get("Location") != "/1.0/storage-pools/local" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	pool := get[api.StoragePool](b, "/1.0/storage-pools/local")
	if pool.Status != "Created" || pool.Config["source"] != "/pools/local" || pool.Description != "d" || pool.UsedBy == nil || pool.Locations[0] != "none" {
		t.Errorf("%+v", pool)
	}
	wantRefusal(t, b.do(request{method: "POST", path: "/1.0/storage-pools", body: `{"name":"local","driver":"dir"}`}), 409, api.Conflict, "already exists")
	b.send("PATCH", "/1.0/storage-pools/local", `{"config":{"user.a":"1","rsync.compression":true}}`, 200)
	pool = get[api.StoragePool](b, "/1.0/storage-pools/local")
	if pool.Config["user.a"] != "1" || pool.Config["rsync.compression"] != "true" || pool.Config["source"] == "" || pool.Description != "d" {
		t.Errorf("after PATCH: %+v", pool)
	}
	b.send("PUT", "/1.0/storage-pools/local", `{"config":{"source":"/pools/local"},"description":"e"}`, 200)
	if pool := get[api.StoragePool](b, "/1.0/storage-pools/local"); pool.Config["user.a"] != "" || pool.Description != "e" {
		t.Errorf("after PUT: %+v", pool)
	}
	wantRefusal(t, b.do(request{method: "PUT", path: "/1.0/storage-pools/local", body: `{"config":{"source":"/else"}}`}), 400, api.ConfigInvalid, "cannot be changed")
	b.send("POST", "/1.0/profiles", `{"name":"p","devices":{"root":{"type":"disk","path":"/","pool":"local"}}}`, 201)
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/storage-pools/local"}), 400, api.InUse, "The storage pool is currently in use")
	if used := get[api.StoragePool](b, "/1.0/storage-pools/local").UsedBy; len(used) != 1 || used[0] != "/1.0/profiles/p" {
		t.Errorf("used by %v", used)
	}
	b.send("DELETE", "/1.0/profiles/p", "", 200)
	b.send("DELETE", "/1.0/storage-pools/local", "", 200)
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/storage-pools/local"}), 404, api.NotFound, "Storage pool not found")
}

func TestBadEntitiesAreRefusedAndChangeNothing(t *testing.T) {
	b := newBed(t)
	for _, test := range []struct {
		path, body string
		status     int
		reason     api.Reason
		text       string
	}{
		{"storage-pools", `{"driver":"dir"}`, 400, api.BadRequest, "No name provided"},
		{"storage-pools", `{"name":"a b","driver":"dir"}`, 400, api.NameInvalid, "Invalid storage pool name: "},
		{"storage-pools", `{"name":"a"}`, 400, api.BadRequest, "No driver provided"},
		{"storage-pools", `{"name":"a","driver":"zfs"}`, 400, api.DriverUnavailable, "zfs"},
		{"storage-pools", `{"name":"a","driver":"dir","config":{"size":"1GiB"}}`, 400, api.ConfigInvalid, `Invalid option "size"`},
		{"storage-pools", `{"name":"a","driver":"dir","config":{"rsync.compression":"maybe"}}`, 400, api.ConfigInvalid, `Invalid value for option "rsync.compression": `},
		{"networks", `{"name":""}`, 400, api.BadRequest, "No name provided"},
		{"networks", `{"name":"abcdefghijklmnop"}`, 400, api.NameInvalid, "Invalid network name: "},
		{"networks", `{"name":"none"}`, 400, api.NameInvalid, "reserved"},
		{"networks", `{"name":"br0","type":"ovn"}`, 400, api.DriverUnavailable, "OVN"},
		{"networks", `{"name":"br0","config":{"ipv4.adress":"auto"}}`, 400, api.ConfigInvalid, `Invalid option for network "br0" option "ipv4.adress"`},
		{"networks", `{"name":"br0","config":{"ipv4.address":"10.0.0.0/24"}}`, 400, api.ConfigInvalid, "network's own address"},
		{"profiles", `{"name":"x/y"}`, 400, api.NameInvalid, "Invalid profile name: "},
		{"profiles", `{"name":"default"}`, 500, api.Conflict, `Error inserting "default" into database: The profile already exists`},
		{"profiles", `{"name":"p","devices":{"eth0":{"type":"nice"}}}`, 400, api.BadRequest, `Invalid device type "nice"`},
		{"profiles", `{"name":"p","devices":{"root":{"type":"disk","path":"/","pool":"no"}}}`, 400, api.BadRequest, `The storage pool "no" doesn't exist`},
		{"profiles", `{"name":"p","config":{"volatile.a":"b"}}`, 400, api.ConfigInvalid, "Volatile keys can only be set on instances"},
		{"projects", `{"name":"a_b"}`, 400, api.NameInvalid, "Project names may not contain underscores"},
		{"projects", `{"name":"default"}`, 409, api.Conflict, "already exists"},
		{"projects", `{"name":"p","config":{"features.images":"perhaps"}}`, 400, api.ConfigInvalid, "features.images"},
	} {
		wantRefusal(t, b.do(request{method: "POST", path: "/1.0/" + test.path, body: test.body}), test.status, test.reason, test.text)
	}
	if n := len(get[[]string](b, "/1.0/profiles")) + len(get[[]string](b, "/1.0/projects")) + len(get[[]string](b, "/1.0/storage-pools")); n != 2 {
		t.Errorf("there are %d objects", n)
	}
}

func TestHintOfANameIsThatOfItsKind(t *testing.T) {
	b := newBed(t)
	for _, test := range []struct{ path, name, hint string }{
		{"storage-pools", "_p", "at most 64 letters, digits, dots, dashes and underscores"},
		{"networks", "abcdefghijklmnop", "2 to 15 letters"},
		{"networks", "none", "choose another name"},
		{"projects", "a_b", "at most 64 letters, digits, dots and dashes,"},
		{"projects", "-a", "at most 64 letters, digits, dots and dashes,"},
	} {
		var details api.ErrorMetadata
		e := envelope(t, b.do(request{method: "POST", path: "/1.0/" + test.path, body: fmt.Sprintf(`{"name":%q,"driver":"dir"}`, test.name)}))
		if err := json.Unmarshal(e.Metadata, &details); err != nil || details.Reason != api.NameInvalid || !strings.Contains(details.Hint, test.hint) {
			t.Errorf("%s %s: %q, hint %q", test.path, test.name, e.Error, details.Hint)
		}
	}
}

func TestChangesAreForTheETagThatTheirAuthorSaw(t *testing.T) {
	b := newBed(t)
	b.send("POST", "/1.0/storage-pools", `{"name":"local","driver":"dir"}`, 201)
	b.send("POST", "/1.0/networks", `{"name":"br0"}`, 201)
	for _, path := range []string{"/1.0/storage-pools/local", "/1.0/networks/br0", "/1.0/profiles/default", "/1.0/projects/default"} {
		tag := b.do(request{method: "GET", path: path}).Header().Get("ETag")
		change := request{method: "PATCH", path: path, body: `{"description":"new"}`, header: map[string]string{"If-Match": tag}}
		if w := b.do(change); w.Code != 200 {
			t.Errorf("%s: %s", path, w.Body)
		}
		wantRefusal(t, b.do(change), 412, api.PreconditionFail, "ETag doesn't match: ")
	}
}

func TestBridgeWithoutAddressesIsGivenThem(t *testing.T) {
	b := newBed(t)
	b.send("POST", "/1.0/networks?project=default", `{"config":{"ipv4.address":"auto","ipv6.address":"auto"},"name":"incusbr0","type":""}`, 201)
	n := get[api.Network](b, "/1.0/networks/incusbr0")
	if n.Type != "bridge" || !n.Managed || n.Config["ipv4.address"] != "10.1.2.1/24" || n.Config["ipv4.nat"] != "true" || n.Config["ipv6.address"] != "none" {
		t.Errorf("%+v", n)
	}
	all := get[[]api.Network](b, "/1.0/networks?recursion=1")
	if len(all) != 2 || all[0].Name != "eth0" || all[0].Managed || all[0].Status != "" || all[1].Name != "incusbr0" {
		t.Errorf("%+v", all)
	}
	if one := get[api.Network](b, "/1.0/networks/eth0"); one.Type != "physical" {
		t.Errorf("%+v", one)
	}
	b.send("PATCH", "/1.0/networks/incusbr0", `{"config":{"ipv4.address":"10.9.9.1/24"}}`, 200)
	b.send("POST", "/1.0/networks/incusbr0", `{"name":"br1"}`, 201)
	if n := get[api.Network](b, "/1.0/networks/br1"); n.Config["ipv4.address"] != "10.9.9.1/24" {
		t.Errorf("%+v", n)
	}
	b.send("DELETE", "/1.0/networks/br1", "", 200)
}

func TestTwoStepsWithTheTextsOfTheProtocol(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	const pools = "/1.0/storage-pools"
	wantRefusal(t, b.do(request{method: "POST", path: pools, body: `{"name":"local","driver":"dir"}`}), 500, api.BadRequest, "Pool not pending on any node (use --target <node> first)")
	b.send("POST", pools+"?target=node1", `{"name":"local","driver":"dir","config":{"source":"/a"}}`, 201)
	wantRefusal(t, b.do(request{method: "POST", path: pools + "?target=node1", body: `{"name":"local","driver":"dir"}`}), 400, api.BadRequest, `The storage pool already defined on member "node1"`)
	wantRefusal(t, b.do(request{method: "POST", path: pools + "?target=node2", body: `{"name":"local","driver":"dir","config":{"user.a":"b"}}`}), 500, api.BadRequest, `Config key "user.a" may not be used as member-specific key`)
	wantRefusal(t, b.do(request{method: "POST", path: pools + "?target=node2", body: `{"name":"local","driver":"dir","description":"d"}`}), 400, api.BadRequest, "The storage pool description cannot be set for a specific member")
	wantRefusal(t, b.do(request{method: "POST", path: pools + "?target=node9", body: `{"name":"local","driver":"dir"}`}), 404, api.MemberNotFound, "Cluster member not found")
	wantRefusal(t, b.do(request{method: "POST", path: pools, body: `{"name":"local","driver":"dir"}`}), 500, api.BadRequest, "Pool not defined on nodes: node2")
	wantRefusal(t, b.do(request{method: "POST", path: pools, body: `{"name":"local","driver":"dir","config":{"source":"/a"}}`}), 500, api.BadRequest, `Config key "source" is cluster member specific`)
	if p := get[api.StoragePool](b, pools+"/local?target=node1"); p.Status != "Pending" || p.Config["source"] != "/a" {
		t.Errorf("%+v", p)
	}
	if p := get[api.StoragePool](b, pools+"/local"); p.Config["source"] != "" {
		t.Errorf("%+v", p)
	}
	wantRefusal(t, b.do(request{method: "PUT", path: pools + "/local", body: `{"config":{"user.a":"b"}}`}), 400, api.BadRequest, "Cannot update storage pool global config when not in created state")
	const networks = "/1.0/networks"
	wantRefusal(t, b.do(request{method: "POST", path: networks, body: `{"name":"br0"}`}), 500, api.BadRequest, "Network not pending on any node (use --target <node> first)")
	b.send("POST", networks+"?target=node1", `{"name":"br0"}`, 201)
	wantRefusal(t, b.do(request{method: "POST", path: networks + "?target=node1", body: `{"name":"br0"}`}), 409, api.Conflict, `Network "br0" is already defined on member "node1"`)
	wantRefusal(t, b.do(request{method: "POST", path: networks, body: `{"name":"br0"}`}), 500, api.BadRequest, "Network not defined on nodes: node2")
}

func TestLoneMemberMayEndTheTwoStepsWithKeysOfItsOwn(t *testing.T) {
	b := newCluster(t, "node1")
	b.send("POST", "/1.0/storage-pools?target=node1", `{"name":"local","driver":"dir"}`, 201)
	b.send("POST", "/1.0/storage-pools", `{"name":"local","driver":"dir","config":{"source.wipe":"true","user.a":"b"}}`, 201)
	if p := get[api.StoragePool](b, "/1.0/storage-pools/local?target=node1"); p.Status != "Created" || p.Config["source.wipe"] != "true" || p.Config["user.a"] != "b" {
		t.Errorf("%+v", p)
	}
}

func TestProjectsKeepTheirProfilesApart(t *testing.T) {
	b := newBed(t)
	b.send("POST", "/1.0/projects", `{"name":"web"}`, 201)
	b.send("POST", "/1.0/projects", `{"name":"shared","config":{"features.profiles":"false"}}`, 201)
	b.send("POST", "/1.0/profiles?project=web", `{"name":"p"}`, 201)
	for path, want := range map[string]string{
		"/1.0/profiles?project=web":       "/1.0/profiles/default?project=web /1.0/profiles/p?project=web",
		"/1.0/profiles":                   "/1.0/profiles/default",
		"/1.0/profiles?project=shared":    "/1.0/profiles/default",
		"/1.0/profiles?all-projects=true": "/1.0/profiles/default /1.0/profiles/default?project=web /1.0/profiles/p?project=web",
	} {
		if got := strings.Join(get[[]string](b, path), " "); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
	if p := get[api.Profile](b, "/1.0/profiles/default?project=web"); p.Description != "Default Incus profile for project web" {
		t.Errorf("%+v", p)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/profiles?project=none"}), 404, api.NotFound, "Project not found")
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/projects/web"}), 400, api.InUse, "Only empty projects can be removed.")
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/projects/default"}), 403, api.BadRequest, "The 'default' project cannot be deleted")
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/profiles/default"}), 403, api.BadRequest, `The "default" profile cannot be deleted`)
	b.send("DELETE", "/1.0/profiles/p?project=web", "", 200)
	b.send("DELETE", "/1.0/projects/web", "", 200)
}

func TestVolumesLieOnTheMemberThatWasAsked(t *testing.T) {
	b := newBed(t)
	b.send("POST", "/1.0/storage-pools", `{"name":"local","driver":"dir","config":{"volume.security.shifted":"true"}}`, 201)
	const volumes = "/1.0/storage-pools/local/volumes"
	b.send("POST", volumes+"/custom", `{"name":"v1","config":{"user.a":"b"}}`, 201)
	v := get[api.StorageVolume](b, volumes+"/custom/v1")
	if v.Location != "none" || v.ContentType != "filesystem" || v.Type != "custom" || v.Config["security.shifted"] != "true" || v.Config["user.a"] != "b" {
		t.Errorf("%+v", v)
	}
	wantRefusal(t, b.do(request{method: "POST", path: volumes, body: `{"name":"c","type":"container"}`}), 400, api.BadRequest, "not allowed")
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/storage-pools/local"}), 400, api.InUse, "in use")
	b.send("POST", volumes+"/custom/v1", `{"name":"v2"}`, 201)
	if list := get[[]string](b, volumes); len(list) != 1 || list[0] != volumes+"/custom/v2" {
		t.Errorf("%v", list)
	}
	b.send("DELETE", volumes+"/custom/v2", "", 200)
}

func TestTargetAnswersForItsOwnInterfaces(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	other := b.secondServer("node2")
	for path, want := range map[string]string{
		"/1.0/networks/eth0": "node1", "/1.0/networks/eth0?target=node1": "node1", "/1.0/networks/eth0?target=node2": "node2",
	} {
		if got := get[api.Network](b, path); got.Description != want {
			t.Errorf("%s: that of %q", path, got.Description)
		}
	}
	if got := get[api.NetworkState](b, "/1.0/networks/eth0/state?target=node2"); got.State != "node2" {
		t.Errorf("state of %q", got.State)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/networks/eth1?target=node2"}), 404, api.NotFound, "Network not found")
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/networks/eth0?target=node9"}), 404, api.MemberNotFound, "Cluster member not found")
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/networks/eth0?target=node3"}), 503, api.MemberOffline, "node3")

	for _, name := range []string{"node1", "node2", "node3"} {
		b.send("POST", "/1.0/networks?target="+name, `{"name":"br0"}`, 201)
	}
	other.server.cfg.Entities.(lazyEntities).start()
	b.mustPropose(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: b.member("node3").ID, Offline: true}}})
	b.send("POST", "/1.0/networks", `{"name":"br0"}`, 201)
	for path, want := range map[string]string{"": "node1 node2", "?target=node1": "node1", "?target=node2": "node2"} {
		var got []string
		for _, lease := range get[[]api.NetworkLease](b, "/1.0/networks/br0/leases"+path) {
			got = append(got, lease.Address)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("leases%s: those on %v", path, got)
		}
	}
}

func TestRestrictedClientSeesNothingOfOtherProjects(t *testing.T) {
	b := newBed(t)
	b.send("POST", "/1.0/storage-pools", `{"name":"local","driver":"dir"}`, 201)
	b.send("POST", "/1.0/networks", `{"name":"br0"}`, 201)
	for _, project := range []string{"web", "shop"} {
		b.send("POST", "/1.0/projects", `{"name":"`+project+`"}`, 201)
		b.send("POST", "/1.0/profiles?project="+project, `{"name":"p","devices":{"root":{"type":"disk","path":"/","pool":"local"},"eth0":{"type":"nic","network":"br0"}}}`, 201)
	}
	web := b.trustClient(true, "web")
	const want = "/1.0/profiles/p?project=web"
	pool := metadata[api.StoragePool](t, b.do(request{method: "GET", path: "/1.0/storage-pools/local", cert: web}), 200)
	pools := metadata[[]api.StoragePool](t, b.do(request{method: "GET", path: "/1.0/storage-pools?recursion=1", cert: web}), 200)
	for _, p := range append(pools, pool) {
		if strings.Join(p.UsedBy, " ") != want || len(p.Config) != 0 {
			t.Errorf("%+v", p)
		}
	}
	if tag := b.do(request{method: "GET", path: "/1.0/storage-pools/local", cert: web}).Header().Get("ETag"); tag != "" {
		t.Error("the ETag of the configuration is shown")
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/networks/br0?project=web", cert: web}), 403, api.NotAuthorized, notDefault)
	both := b.trustClient(true, "web", "default")
	network := metadata[api.Network](t, b.do(request{method: "GET", path: "/1.0/networks/br0?project=web", cert: both}), 200)
	networks := metadata[[]api.Network](t, b.do(request{method: "GET", path: "/1.0/networks?recursion=1&project=web&filter=name+eq+br0", cert: both}), 200)
	for _, n := range append(networks, network) {
		if strings.Join(n.UsedBy, " ") != want {
			t.Errorf("%+v", n)
		}
	}
	if all := get[api.Network](b, "/1.0/networks/br0"); len(all.UsedBy) != 2 {
		t.Errorf("an administrator sees %v", all.UsedBy)
	}
	metadata[api.Resources](t, b.do(request{method: "GET", path: "/1.0/resources", cert: web}), 200)
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/networks/br0/state", cert: web}), 403, api.NotAuthorized, `User does not have permission for project "default"`)
}

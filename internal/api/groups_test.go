package api

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// newGroups is a cluster of node1 to node3 with the group "gpu", in which are node1 and node2, and
// "old", in which is nobody. node2 is in no other group.
func newGroups(t *testing.T) *bed {
	t.Helper()
	b := newCluster(t, "node1", "node2", "node3")
	for _, body := range []string{`{"name":"gpu","description":"fast ones","members":["node1","node2"],"config":{"user.a":"1"}}`, `{"name":"old","members":null,"config":null}`} {
		w := b.do(request{method: "POST", path: "/1.0/cluster/groups", body: body})
		if w.Code != http.StatusCreated || string(envelope(t, w).Metadata) != "null" {
			t.Fatalf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	b.must(request{method: "PATCH", path: "/1.0/cluster/members/node2", body: `{"groups":["gpu"]}`})
	return b
}

// must sends a request that is answered with nothing but success.
func (b *bed) must(r request) {
	b.t.Helper()
	if w := b.do(r); w.Code != http.StatusOK || string(envelope(b.t, w).Metadata) != "{}" {
		b.t.Fatalf("%s %s: %d %s", r.method, r.path, w.Code, w.Body)
	}
}

// memberships writes who is in which group.
func (b *bed) memberships() string {
	b.t.Helper()
	var all []string
	for _, m := range get[[]api.ClusterMember](b, "/1.0/cluster/members?recursion=1") {
		all = append(all, m.ServerName+"="+strings.Join(m.Groups, "+"))
	}
	return strings.Join(all, " ")
}

func TestGroupsAreShownWhole(t *testing.T) {
	b := newGroups(t)
	b.mustProject("web", "gpu,other")
	b.mustProject("shop", "gpu")
	const all = `[{"description":"Default cluster group","members":["node1","node3"],"config":{},"name":"default","used_by":[]},` +
		`{"description":"fast ones","members":["node1","node2"],"config":{"user.a":"1"},"name":"gpu","used_by":["/1.0/projects/shop","/1.0/projects/web"]},` +
		`{"description":"","members":[],"config":{},"name":"old","used_by":[]}]`
	if got := string(envelope(t, b.do(request{method: "GET", path: "/1.0/cluster/groups?recursion=1"})).Metadata); got != all {
		t.Errorf("got  %s\nwant %s", got, all)
	}
	if got := get[[]string](b, "/1.0/cluster/groups"); strings.Join(got, " ") != "/1.0/cluster/groups/default /1.0/cluster/groups/gpu /1.0/cluster/groups/old" {
		t.Errorf("got %v", got)
	}
	if got := get[[]string](b, "/1.0/cluster/groups?filter=name+eq+old"); len(got) != 1 {
		t.Errorf("filtered: %v", got)
	}
	w := b.do(request{method: "GET", path: "/1.0/cluster/groups/gpu", cert: b.trustClient(true, "shop")})
	if got := metadata[api.ClusterGroup](t, w, 200); !reflect.DeepEqual(got.UsedBy, []string{"/1.0/projects/shop"}) {
		t.Errorf("a restricted client sees the projects %v", got.UsedBy)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/cluster/groups/blue"}), 404, api.NotFound, "Cluster_group not found")
}

// mustProject makes a project that is restricted to groups.
func (b *bed) mustProject(name, groups string) {
	b.t.Helper()
	w := b.do(request{method: "POST", path: "/1.0/projects", body: `{"name":"` + name + `","config":{"restricted.cluster.groups":"` + groups + `"}}`})
	if w.Code != http.StatusCreated {
		b.t.Fatalf("%s", w.Body)
	}
}

func TestGroupIsCreatedWhereItSays(t *testing.T) {
	b := newCluster(t, "node1")
	w := b.do(request{method: "POST", path: "/1.0/cluster/groups", body: `{"name":"a#b"}`})
	if location := w.Header().Get("Location"); w.Code != 201 || location != "/1.0/cluster/groups/a%23b" || get[api.ClusterGroup](b, location).Name != "a#b" {
		t.Errorf("%d %s", w.Code, location)
	}
	w = b.do(request{method: "POST", path: "/1.0/cluster/groups/a%23b", body: `{"name":"c"}`})
	if location := w.Header().Get("Location"); w.Code != 201 || location != "/1.0/cluster/groups/c" || get[api.ClusterGroup](b, location).Name != "c" {
		t.Errorf("%d %s", w.Code, location)
	}
}

func TestGroupChanges(t *testing.T) {
	const gpu = "/1.0/cluster/groups/gpu"
	tests := []struct {
		name, method, path, body string
		status                   int // of a refusal
		reason                   api.Reason
		text                     string
		after                    string // memberships; "" for as before
	}{
		{name: "put replaces", method: "PUT", path: gpu, body: `{"description":"x","members":["node3","node2"]}`, after: "node1=default node2=gpu node3=default+gpu"},
		{name: "put keeps who has no other group", method: "PUT", path: gpu, body: `{"members":[]}`, after: "node1=default node2=gpu node3=default"},
		{name: "patch leaves alone what it does not name", method: "PATCH", path: gpu, body: `{"description":"x","members":null}`},
		{name: "patch replaces the members", method: "PATCH", path: gpu, body: `{"members":["node2","node3"]}`, after: "node1=default node2=gpu node3=default+gpu"},
		{name: "patch takes nobody out of the only group", method: "PATCH", path: gpu, body: `{"members":[]}`, status: 400, reason: api.BadRequest,
			text: "Cannot remove node2 from group as member needs to belong to at least one group"},
		{name: "unknown member", method: "PATCH", path: gpu, body: `{"members":["node9"]}`, status: 404, reason: api.MemberNotFound, text: `Cluster member "node9" not found`},
		{name: "unknown key", method: "PATCH", path: gpu, body: `{"config":{"x":"1"}}`, status: 400, reason: api.ConfigInvalid, text: `Invalid cluster group configuration key "x"`},
		{name: "unknown group", method: "PUT", path: "/1.0/cluster/groups/nope", body: `{}`, status: 404, reason: api.NotFound, text: "Cluster_group not found"},
		{name: "create twice", method: "POST", path: "/1.0/cluster/groups", body: `{"name":"gpu"}`, status: 409, reason: api.Conflict, text: `Cluster group "gpu" already exists`},
		{name: "create without name", method: "POST", path: "/1.0/cluster/groups", body: `{}`, status: 400, reason: api.NameInvalid, text: "Invalid cluster group name: "},
		{name: "create with a stranger", method: "POST", path: "/1.0/cluster/groups", body: `{"name":"new","members":["node9"]}`, status: 404, reason: api.MemberNotFound, text: `"node9"`},
		{name: "rename the default one", method: "POST", path: "/1.0/cluster/groups/default", body: `{"name":"x"}`, status: 403, reason: api.BadRequest, text: `The "default" group cannot be renamed`},
		{name: "rename to what is taken", method: "POST", path: gpu, body: `{"name":"old"}`, status: 409, reason: api.Conflict, text: `Name "old" already in use`},
		{name: "rename what a project names", method: "POST", path: "/1.0/cluster/groups/used", body: `{"name":"x"}`, status: 400, reason: api.InUse, text: "Cluster group is currently in use"},
		{name: "delete what a project names", method: "DELETE", path: "/1.0/cluster/groups/used", status: 400, reason: api.InUse, text: "Cluster group is currently in use"},
		{name: "delete the default one", method: "DELETE", path: "/1.0/cluster/groups/default", status: 403, reason: api.BadRequest, text: "The 'default' cluster group cannot be deleted"},
		{name: "delete what has members", method: "DELETE", path: gpu, status: 400, reason: api.InUse, text: "Only empty cluster groups can be removed"},
		{name: "delete", method: "DELETE", path: "/1.0/cluster/groups/old"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newGroups(t)
			b.do(request{method: "POST", path: "/1.0/cluster/groups", body: `{"name":"used"}`})
			b.mustProject("web", "used")
			before := b.memberships()
			r := request{method: tt.method, path: tt.path, body: tt.body}
			if tt.status != 0 {
				wantRefusal(t, b.do(r), tt.status, tt.reason, tt.text)
			} else {
				b.must(r)
			}
			if tt.after == "" {
				tt.after = before
			}
			if got := b.memberships(); got != tt.after {
				t.Errorf("members are in %s, want %s", got, tt.after)
			}
		})
	}
}

func TestGroupPatchMergesTheConfiguration(t *testing.T) {
	b := newGroups(t)
	b.must(request{method: "PATCH", path: "/1.0/cluster/groups/gpu", body: `{"config":{"user.b":2}}`})
	want := api.ClusterGroupPut{Description: "fast ones", Members: []string{"node1", "node2"}, Config: api.ConfigMap{"user.a": "1", "user.b": "2"}}
	if got := get[api.ClusterGroup](b, "/1.0/cluster/groups/gpu"); !reflect.DeepEqual(got.ClusterGroupPut, want) {
		t.Errorf("got %+v", got)
	}
	b.must(request{method: "PUT", path: "/1.0/cluster/groups/gpu", body: `{"members":["node1","node2"],"config":{"user.b":3}}`})
	want = api.ClusterGroupPut{Members: []string{"node1", "node2"}, Config: api.ConfigMap{"user.b": "3"}}
	if got := get[api.ClusterGroup](b, "/1.0/cluster/groups/gpu"); !reflect.DeepEqual(got.ClusterGroupPut, want) {
		t.Errorf("got %+v", got)
	}
}

func TestGroupIfMatch(t *testing.T) {
	const path = "/1.0/cluster/groups/gpu"
	for _, method := range []string{"PUT", "PATCH"} {
		t.Run(method, func(t *testing.T) {
			b := newGroups(t)
			w := b.do(request{method: "GET", path: path})
			g := metadata[api.ClusterGroup](t, w, 200)
			g.Description = "new"
			r := request{method: method, path: path, body: g.ClusterGroupPut, header: map[string]string{"If-Match": w.Header().Get("ETag")}}
			b.must(r)
			wantRefusal(t, b.do(r), 412, api.PreconditionFail, "ETag doesn't match: ")
			delete(r.header, "If-Match")
			b.must(r)
			// Who is in it counts, too.
			tag := b.do(request{method: "GET", path: path}).Header().Get("ETag")
			b.must(request{method: "PATCH", path: "/1.0/cluster/members/node3", body: `{"groups":["gpu"]}`})
			r.header["If-Match"] = tag
			wantRefusal(t, b.do(r), 412, api.PreconditionFail, "ETag doesn't match: ")
		})
	}
}

func TestGroupsNeedACluster(t *testing.T) {
	b := newBed(t)
	for _, r := range []request{
		{method: "GET", path: "/1.0/cluster/groups"},
		{method: "GET", path: "/1.0/cluster/groups/default"},
		{method: "POST", path: "/1.0/cluster/groups", body: `{"name":"x"}`},
		{method: "PUT", path: "/1.0/cluster/groups/default", body: `{}`},
		{method: "POST", path: "/1.0/cluster/members/none", body: `{"server_name":"x"}`},
	} {
		wantRefusal(t, b.do(r), 400, api.NotClustered, "This server is not clustered")
	}
}

func TestMemberIsRenamed(t *testing.T) {
	b := newGroups(t)
	b.issue("node9")
	before := get[api.ClusterMember](b, "/1.0/cluster/members/node2")
	b.must(request{method: "POST", path: "/1.0/cluster/members/node2", body: `{"server_name":"rack#2"}`})
	want := before
	want.ServerName = "rack#2"
	if got := get[api.ClusterMember](b, "/1.0/cluster/members/rack%232"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/cluster/members/node2"}), 404, api.MemberNotFound, "Cluster member not found")
	if got := get[api.ClusterGroup](b, "/1.0/cluster/groups/gpu"); strings.Join(got.Members, " ") != "node1 rack#2" {
		t.Errorf("the group has %v", got.Members)
	}
	named := func(name string) bool {
		for _, c := range get[[]api.Certificate](b, "/1.0/certificates?recursion=1") {
			if c.Name == name {
				return true
			}
		}
		return false
	}
	if !named("rack#2") || named("node2") {
		t.Error("its certificate has the old name")
	}
	tests := map[string]struct {
		from, to string
		status   int
		reason   api.Reason
		text     string
	}{
		"unknown member":  {"nope", "x", 404, api.MemberNotFound, "Cluster member not found"},
		"the old name":    {"node2", "x", 404, api.MemberNotFound, "Cluster member not found"},
		"taken":           {"node3", "node1", 409, api.NameTaken, "The cluster already has a member with name: node1"},
		"a token's":       {"node3", "node9", 409, api.NameTaken, `There is a join token for the name "node9"`},
		"invalid":         {"node3", "a b", 400, api.NameInvalid, "Invalid cluster member name: Name cannot contain white space"},
		"empty":           {"node3", "", 400, api.NameInvalid, "Invalid cluster member name: "},
		"path in a name":  {"node3", "a/b", 400, api.NameInvalid, "Invalid cluster member name: "},
		"a reserved name": {"node3", "none", 400, api.NameInvalid, "Invalid cluster member name: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := b.do(request{method: "POST", path: "/1.0/cluster/members/" + tt.from, body: api.ClusterMemberPost{ServerName: tt.to}})
			wantRefusal(t, w, tt.status, tt.reason, tt.text)
		})
	}
}

// target= and the name that the server gives itself follow a rename at once.
func TestRenamedMemberAnswersByItsNewName(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	b.must(request{method: "POST", path: "/1.0/cluster/members/node1", body: `{"server_name":"first"}`})
	if got := get[api.Server](b, "/1.0?target=first"); got.Environment.ServerName != "first" {
		t.Errorf("the server is called %q", got.Environment.ServerName)
	}
	if got := get[api.Cluster](b, "/1.0/cluster"); got.ServerName != "first" {
		t.Errorf("the cluster says %q", got.ServerName)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0?target=node1"}), 404, api.MemberNotFound, "Cluster member not found")
}

// Clients send back the roles that they got.
func TestRolesThatAreEchoedBackAreHarmless(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	b.store.tables.SetServers([]state.Server{{ID: b.member("node1").ID, Voter: true}, {ID: b.member("node2").ID}})
	tests := map[string]struct {
		member string
		roles  []string
		want   string // "" for a refusal
		text   string
	}{
		"the leader's":            {"node1", []string{"database-leader", "database", "event-hub"}, "event-hub database-leader database", ""},
		"the leader's, old":       {"node1", []string{"database-standby", "database"}, "database-leader database", ""},
		"a vote that is not his":  {"node2", []string{"database"}, "", `The "database" role cannot be added at this time`},
		"without the leader's":    {"node1", []string{"event-hub"}, "", `The "database" role cannot be dropped at this time`},
		"of another's place":      {"node2", []string{"database-standby", "database-leader", "ovn-chassis"}, "ovn-chassis", ""},
		"one that does not exist": {"node2", []string{"king"}, "", `Update roles: Invalid cluster role "king"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := "/1.0/cluster/members/" + tt.member
			put := get[api.ClusterMember](b, path).ClusterMemberPut
			put.Roles = tt.roles
			r := request{method: "PUT", path: path, body: put}
			if tt.text != "" {
				wantRefusal(t, b.do(r), 400, api.BadRequest, tt.text)
				return
			}
			b.must(r)
			if got := strings.Join(get[api.ClusterMember](b, path).Roles, " "); got != tt.want {
				t.Errorf("roles %q, want %q", got, tt.want)
			}
		})
	}
}

// Who read the roles before the member began to vote, and sends them back, is told to read again.
func TestMemberETagFollowsTheVote(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	one, two := b.member("node1").ID, b.member("node2").ID
	b.store.tables.SetServers([]state.Server{{ID: one, Voter: true}, {ID: two}})
	const path = "/1.0/cluster/members/node2"
	w := b.do(request{method: "GET", path: path})
	put := metadata[api.ClusterMember](t, w, 200).ClusterMemberPut
	b.setServers() // now both vote
	for _, method := range []string{"PUT", "PATCH"} {
		r := request{method: method, path: path, body: put, header: map[string]string{"If-Match": w.Header().Get("ETag")}}
		wantRefusal(t, b.do(r), 412, api.PreconditionFail, "ETag doesn't match: ")
	}
	w = b.do(request{method: "GET", path: path})
	put = metadata[api.ClusterMember](t, w, 200).ClusterMemberPut
	b.must(request{method: "PUT", path: path, body: put, header: map[string]string{"If-Match": w.Header().Get("ETag")}})
}

package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/client/clienttest"
)

func defaultGroup() api.ClusterGroup {
	return api.ClusterGroup{
		ClusterGroupPut: api.ClusterGroupPut{Description: "Default cluster group", Members: []string{"node1", "node2", "node3"}, Config: api.ConfigMap{}},
		Name:            "default", UsedBy: []string{},
	}
}

func gpuGroup() api.ClusterGroup {
	return api.ClusterGroup{
		ClusterGroupPut: api.ClusterGroupPut{Description: "fast", Members: []string{"node1"}, Config: api.ConfigMap{"user.x": "1"}},
		Name:            "gpu", UsedBy: []string{},
	}
}

// grouped is a fake daemon of a cluster whose groups are these; node1 is in two of them.
func grouped(groups ...api.ClusterGroup) func(*testing.T) *shell {
	return func(t *testing.T) *shell {
		s := clustered(t)
		s.Reply("GET /1.0/cluster/groups", groups)
		s.Reply("POST /1.0/cluster/groups", struct{}{})
		for _, g := range groups {
			s.Reply("GET /1.0/cluster/groups/"+g.Name, g)
			for _, method := range []string{"PUT", "POST", "DELETE"} {
				s.Reply(method+" /1.0/cluster/groups/"+g.Name, struct{}{})
			}
		}
		member := load[[]api.ClusterMember](t, "cluster-list.json.out")[0]
		member.Groups = []string{"default", "gpu"}
		s.Reply("GET /1.0/cluster/members/node1", member)
		s.Reply("PUT /1.0/cluster/members/node1", struct{}{})
		s.Reply("POST /1.0/cluster/members/node1", struct{}{})
		return s
	}
}

func TestGroupOutputIsThatOfIncus(t *testing.T) {
	for args, file := range map[string]string{
		"list":                "cluster-group-list.table.out",
		"ls local: -c n,d,m":  "cluster-group-list.table.out",
		"list -f compact":     "cluster-group-list.compact.out",
		"list -f csv":         "cluster-group-list.csv.out",
		"list -f yaml":        "cluster-group-list.yaml.out",
		"show default":        "cluster-group-show.default.out",
		"show local:default ": "cluster-group-show.default.out",
	} {
		s := grouped(defaultGroup())(t)
		if diff := cmp.Diff(golden(t, file), s.mustRun(t, "", append([]string{"cluster", "group"}, strings.Fields(args)...)...)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", args, diff)
		}
	}
	// Incus has null for config and used_by there, which is an error of its own.
	want := `[{"description":"Default cluster group","members":["node1","node2","node3"],"config":{},"name":"default","used_by":[]}]` + "\n"
	if diff := cmp.Diff(want, grouped(defaultGroup())(t).mustRun(t, "", "cluster", "group", "list", "-f", "json")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestGroupCommands(t *testing.T) {
	const all, one, node1 = "/1.0/cluster/groups", "/1.0/cluster/groups/gpu", "/1.0/cluster/members/node1"
	member := func(groups string) string {
		return `{"roles":["database-leader","database"],"failure_domain":"default","description":"","config":{},"groups":[` + groups + `]}`
	}
	follow(t, grouped(defaultGroup(), gpuGroup()), []step{
		{"cluster group create new", "", "Cluster group new created\n", "POST " + all, `{"description":"","members":null,"config":{},"name":"new"}`},
		{"cluster group create new --description the_new_ones", "description: old\nmembers: [node2]\nconfig: {user.n: 5}", "Cluster group new created\n",
			"POST " + all, `{"description":"the new ones","members":["node2"],"config":{"user.n":"5"},"name":"new"}`},
		{"cluster group set gpu user.y=2", "", "", "PUT " + one, `{"description":"fast","members":["node1"],"config":{"user.x":"1","user.y":"2"}}`},
		{"cluster group set gpu -p description=slow", "", "", "PUT " + one, `{"description":"slow","members":["node1"],"config":{"user.x":"1"}}`},
		{"cluster group unset gpu user.x", "", "", "PUT " + one, `{"description":"fast","members":["node1"],"config":{}}`},
		{"cluster group get gpu user.x", "", "1\n", "GET " + one, ""},
		{"cluster group get gpu description -p", "", "fast\n", "GET " + one, ""},
		{"cluster group edit gpu", "members: [node2]", "", "PUT " + one, `{"description":"","members":["node2"],"config":{}}`},
		{"cluster group rename gpu fast", "", "Cluster group gpu renamed to fast\n", "POST " + one, `{"name":"fast"}`},
		{"cluster group mv gpu fast", "", "Cluster group gpu renamed to fast\n", "POST " + one, `{"name":"fast"}`},
		{"cluster group delete default gpu", "", "Cluster group default deleted\nCluster group gpu deleted\n", "DELETE " + one, ""},
		{"cluster group rm gpu", "", "Cluster group gpu deleted\n", "DELETE " + one, ""},
		{"cluster group assign node1 gpu other", "", "Cluster member node1 added to cluster groups [gpu other]\n", "PUT " + node1, member(`"gpu","other"`)},
		{"cluster group apply local:node1 default,gpu", "", "Cluster member node1 added to cluster groups [default gpu]\n", "PUT " + node1, member(`"default","gpu"`)},
		{"cluster group add node1 other", "", "Cluster member node1 added to group other\n", "PUT " + node1, member(`"default","gpu","other"`)},
		{"cluster group remove node1 default", "", "Cluster member node1 removed from group default\n", "PUT " + node1, member(`"gpu"`)},
		{"cluster rename node1 first", "", "Member node1 renamed to first\n", "POST " + node1, `{"server_name":"first"}`},
		{"cluster mv local:node1 first", "", "Member node1 renamed to first\n", "POST " + node1, `{"server_name":"first"}`},
		{"cluster role add node1 event-hub,ovn-chassis", "", "", "PUT " + node1,
			`{"roles":["database-leader","database","event-hub","ovn-chassis"],"failure_domain":"default","description":"","config":{},"groups":["default","gpu"]}`},
		{"cluster role remove node1 database-leader", "", "", "PUT " + node1,
			`{"roles":["database"],"failure_domain":"default","description":"","config":{},"groups":["default","gpu"]}`},
	})
}

func TestGroupCommandsThatFail(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"cluster group get gpu nokey", `Error: The key "nokey" does not exist on cluster group "gpu"` + "\n"},
		{"cluster group add node1 gpu", "Error: Cluster member node1 is already in group gpu\n"},
		{"cluster group remove node1 other", "Error: Cluster group other isn't currently applied to node1\n"},
		{"cluster group add nope gpu", "Error: Cluster member not found\n"},
		{"cluster role add node1 database", `Error: Member "node1" already has role "database"` + "\n"},
		{"cluster group list -c x", "Error: Unknown column shorthand char 'x' in 'x'\n"},
		{"cluster group assign node1", "Error: Invalid number of arguments\nHint: usage: incus cluster group assign [<remote>:]<member> <group>... [flags]\n"},
	} {
		s := grouped(gpuGroup())(t)
		s.mustFail(t, tt.want, "", strings.Fields(tt.args)...)
		s.unchanged(t)
	}
	s := standalone(t, nil)
	s.mustFail(t, "Error: Server isn't part of a cluster\nHint: form a cluster first: incus admin init, or incus cluster enable NAME\n", "", "cluster", "group", "list")
	s = clustered(t)
	member := load[[]api.ClusterMember](t, "cluster-list.json.out")[1]
	s.Reply("GET /1.0/cluster/members/node2", member)
	s.mustFail(t, golden(t, "cluster-role-remove.again.err"), "", "cluster", "role", "remove", "node2", "event-hub")
	s.Refuse("POST /1.0/cluster/members/nope", 404, "Cluster member not found", nil)
	s.mustFail(t, golden(t, "cluster-rename-missing.err"), "", "cluster", "rename", "nope", "nope2")
}

// A member that somebody else changes meanwhile is read anew, and nothing of theirs is lost.
func TestGroupAddBeginsAnewWhenTheMemberWasChanged(t *testing.T) {
	s := grouped(gpuGroup())(t)
	reads := 0
	s.Handle("GET /1.0/cluster/members/node1", func(w http.ResponseWriter, _ *http.Request) {
		member := load[[]api.ClusterMember](t, "cluster-list.json.out")[0]
		if reads++; reads > 1 {
			member.Groups = []string{"theirs"}
		}
		clienttest.Sync(w, member)
	})
	writes := 0
	s.Handle("PUT /1.0/cluster/members/node1", func(w http.ResponseWriter, _ *http.Request) {
		if writes++; writes == 1 {
			clienttest.Error(w, 412, "ETag doesn't match", nil)
			return
		}
		clienttest.Sync(w, struct{}{})
	})
	s.mustRun(t, "", "cluster", "group", "add", "node1", "gpu")
	if body := s.body(t, "PUT /1.0/cluster/members/node1"); !strings.Contains(body, `"groups":["theirs","gpu"]`) {
		t.Errorf("sent %s", body)
	}
}

func TestCompletionOffersGroupsAndRoles(t *testing.T) {
	s := grouped(defaultGroup(), gpuGroup())(t)
	for args, want := range map[string]string{
		"cluster group show ":               "default\ngpu\n",
		"cluster group assign n":            "node1\nnode2\nnode3\n",
		"cluster group assign node1 gpu d":  "default\n",
		"cluster group add node1 ":          "default\ngpu\n",
		"cluster rename ":                   "node1\nnode2\nnode3\n",
		"cluster role add node1 e":          "event-hub\n",
		"cluster group get gpu ":            "user.x\n",
		"cluster group get gpu -p d":        "description\n",
		"cluster group rename gpu ":         "",
		"cluster group remove node1 gpu de": "",
	} {
		s.run("", append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if got, _, _ := strings.Cut(s.stdout.String(), ":4\n"); got != want {
			t.Errorf("%s: got %q, want %q", args, got, want)
		}
	}
}

func TestPreseedMakesAndChangesGroups(t *testing.T) {
	s := standalone(t, api.ConfigMap{"core.https_address": "10.0.0.1:8443"})
	s.Refuse("GET /1.0/cluster/groups/new", 404, "Cluster_group not found", api.ErrorMetadata{Reason: api.NotFound})
	s.Reply("POST /1.0/cluster/groups", struct{}{})
	s.Reply("GET /1.0/cluster/groups/gpu", gpuGroup())
	s.Reply("PUT /1.0/cluster/groups/gpu", struct{}{})
	s.mustRun(t, "cluster: {enabled: true, server_name: node1}\ncluster_groups: [{name: new, members: [node1], config: {user.n: 1}}, {name: gpu, config: {user.y: 2}}]",
		"admin", "init", "--preseed")
	lines := s.Lines()
	if diff := cmp.Diff([]string{"GET /1.0/cluster/groups/new", "POST /1.0/cluster/groups", "GET /1.0/cluster/groups/gpu", "PUT /1.0/cluster/groups/gpu"}, lines[len(lines)-4:]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(`{"description":"","members":["node1"],"config":{"user.n":"1"},"name":"new"}`, s.body(t, "POST /1.0/cluster/groups")); diff != "" {
		t.Error(diff)
	}
	// Members and description that are not given stay.
	if diff := cmp.Diff(`{"description":"fast","members":["node1"],"config":{"user.x":"1","user.y":"2"}}`, s.body(t, "PUT /1.0/cluster/groups/gpu")); diff != "" {
		t.Error(diff)
	}
}

func TestPreseedWithGroupsNeedsACluster(t *testing.T) {
	s := standalone(t, nil)
	s.mustFail(t, "Error: cluster_groups: this server is no member of a cluster; nothing was changed\nHint: form a cluster first: incus admin init, or incus cluster enable NAME\n",
		"config: {user.x: 1}\ncluster_groups: [{name: gpu}]", "admin", "init", "--preseed")
	s.unchanged(t)
	s = clustered(t)
	s.run("cluster_groups: [{name: gpu, members: [node1, node9]}]", "admin", "init", "--preseed")
	if want := "Error: cluster_groups: the cluster has no member \"node9\", which is to be in \"gpu\"; nothing was changed\n"; !strings.HasPrefix(s.stderr.String(), want) {
		t.Errorf("got %q", &s.stderr)
	}
	s.run("cluster_groups: [{name: gpu}, {name: gpu}, {name: a b}]", "admin", "init", "--preseed")
	if want := "Error: The preseed cannot be applied, for 2 reasons; nothing was changed\n"; !strings.HasPrefix(s.stderr.String(), want) {
		t.Errorf("got %q", &s.stderr)
	}
	s.unchanged(t)
	s.Reply("GET /1.0/cluster/groups/gpu", gpuGroup())
	s.Refuse("PUT /1.0/cluster/groups/gpu", 500, "no", nil)
	s.mustFail(t, "Error: cluster group gpu: Failed to update cluster group: no\n", "cluster_groups: [{name: gpu}]", "admin", "init", "--preseed")
	s.Refuse("GET /1.0/cluster/groups/gpu", 404, "Cluster_group not found", api.ErrorMetadata{Reason: api.NotFound})
	s.Refuse("POST /1.0/cluster/groups", 500, "no", nil)
	s.mustFail(t, "Error: cluster group gpu: Failed to create cluster group: no\n", "cluster_groups: [{name: gpu}]", "admin", "init", "--preseed")
}

// What --dump prints can be applied to another server, whose members have other names.
func TestDumpHasTheGroupsThatSomebodyMade(t *testing.T) {
	changed := defaultGroup()
	changed.Description = "All of them"
	for want, groups := range map[string][]api.ClusterGroup{
		"cluster_groups: []\n": {defaultGroup()},
		"cluster_groups:\n  - config: {}\n    description: All of them\n    name: default\n  - config:\n      user.x: \"1\"\n    description: fast\n    name: gpu\n": {changed, gpuGroup()},
	} {
		s := grouped(groups...)(t)
		s.Reply("GET /1.0/profiles", []api.Profile{})
		s.Reply("GET /1.0/projects", []api.Project{})
		s.Reply("GET /1.0/networks", []api.Network{})
		s.Reply("GET /1.0/storage-pools", []api.StoragePool{})
		out := s.mustRun(t, "", "admin", "init", "--dump")
		if !strings.Contains(out, want) {
			t.Errorf("got\n%s\nwant\n%s", out, want)
		}
		if _, err := parsePreseed([]byte(out)); err != nil {
			t.Errorf("it is no preseed: %v", err)
		}
	}
}

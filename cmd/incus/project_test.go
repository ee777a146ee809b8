package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
)

func shop() api.Project {
	return api.Project{
		ProjectPut: api.ProjectPut{Config: api.ConfigMap{"features.profiles": "true", "features.images": "true"}, Description: "web shop"},
		Name:       "shop", UsedBy: []string{"/1.0/profiles/default?project=shop"},
	}
}

func projectAnswers(t *testing.T) *shell { return answers(t, "/1.0/projects/shop", shop()) }

func TestProjectIsCreatedChangedAndDeleted(t *testing.T) {
	const one, all = "/1.0/projects/shop", "/1.0/projects"
	follow(t, projectAnswers, []step{
		{"project create shop", "", "Project shop created\n", "POST " + all, `{"config":{},"description":"","name":"shop"}`},
		{"project create shop -c features.networks=true --config user.x=a=b --description new", "config: {user.n: 5}", "Project shop created\n",
			"POST " + all, `{"config":{"features.networks":"true","user.n":"5","user.x":"a=b"},"description":"new","name":"shop"}`},
		{"project set shop user.x=1", "", "", "PUT " + one,
			`{"config":{"features.images":"true","features.profiles":"true","user.x":"1"},"description":"web shop"}`},
		{"project unset shop features.images", "", "", "PUT " + one, `{"config":{"features.profiles":"true"},"description":"web shop"}`},
		{"project get shop features.images", "", "true\n", "GET " + one, ""},
		{"project edit shop", "{}", "", "PUT " + one, `{"config":{},"description":""}`},
		{"project rename shop store", "", "Project shop renamed to store\n", "POST " + one, `{"name":"store"}`},
		{"project delete shop", "", "Project shop deleted\n", "DELETE " + one, ""},
		{"project show shop", "", "config:\n  features.images: \"true\"\n  features.profiles: \"true\"\ndescription: web shop\nname: shop\n" +
			"used_by:\n  - /1.0/profiles/default?project=shop\n", "GET " + one, ""},
	})
}

func TestProjectListMarksTheCurrentOne(t *testing.T) {
	s := clustered(t)
	s.Reply("GET /1.0/projects", []api.Project{{Name: "default", UsedBy: []string{}}, shop()})
	want := `+-------------------+--------+----------+-----------------+-----------------+----------+---------------+-------------+---------+
|       NAME        | IMAGES | PROFILES | STORAGE VOLUMES | STORAGE BUCKETS | NETWORKS | NETWORK ZONES | DESCRIPTION | USED BY |
+-------------------+--------+----------+-----------------+-----------------+----------+---------------+-------------+---------+
| default (current) | NO     | NO       | NO              | NO              | NO       | NO            |             | 0       |
+-------------------+--------+----------+-----------------+-----------------+----------+---------------+-------------+---------+
| shop              | YES    | YES      | NO              | NO              | NO       | NO            | web shop    | 1       |
+-------------------+--------+----------+-----------------+-----------------+----------+---------------+-------------+---------+
`
	if diff := cmp.Diff(want, s.mustRun(t, "", "project", "list")); diff != "" {
		t.Error(diff)
	}
	if got := s.mustRun(t, "", "project", "list", "-c", "n", "-f", "csv", "--project", "shop"); got != "default\nshop (current)\n" {
		t.Errorf("got %q", got)
	}
	s.env["INCUS_PROJECT"] = "shop"
	if got := s.mustRun(t, "", "project", "list", "-c", "nu", "-f", "csv,header"); got != "NAME,USED BY\ndefault,0\nshop (current),1\n" {
		t.Errorf("got %q", got)
	}
}

func TestProjectInfo(t *testing.T) {
	s := projectAnswers(t)
	s.Reply("GET /1.0/projects/shop/state", api.ProjectState{Resources: map[string]api.ProjectStateResource{
		"networks": {Limit: -1, Usage: 2}, "disk": {Limit: 10 << 30, Usage: 1 << 29}, "containers": {Limit: 5},
	}})
	want := `+------------+-----------+-----------+
|  RESOURCE  |   LIMIT   |   USAGE   |
+------------+-----------+-----------+
| CONTAINERS | 5         | 0         |
+------------+-----------+-----------+
| DISK       | 10.00GiB  | 512.00MiB |
+------------+-----------+-----------+
| NETWORKS   | UNLIMITED | 2         |
+------------+-----------+-----------+
`
	if diff := cmp.Diff(want, s.mustRun(t, "", "project", "info", "shop")); diff != "" {
		t.Error(diff)
	}
	if got := s.mustRun(t, "", "project", "info", "shop", "-f", "json"); !strings.HasPrefix(got, `[{"resource":"containers","limit":5,"usage":0},`) {
		t.Errorf("got %q", got)
	}
	s.Reply("GET /1.0/projects/shop/state", api.ProjectState{})
	if got := s.mustRun(t, "", "project", "info", "shop", "-f", "json"); got != "[]\n" {
		t.Errorf("got %q", got)
	}
}

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/client"
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
	if got := s.mustRun(t, "", "project", "info", "shop", "-f", "json"); got != `{"resources":{"containers":{"Limit":5,"Usage":0},"disk":{"Limit":10737418240,"Usage":536870912},"networks":{"Limit":-1,"Usage":2}}}`+"\n" {
		t.Errorf("got %q", got)
	}
	if got := s.mustRun(t, "", "project", "info", "shop", "-f", "yaml"); !strings.HasPrefix(got, "resources:\n  containers:\n    limit: 5\n    usage: 0\n") {
		t.Errorf("got %q", got)
	}
	s.Reply("GET /1.0/projects/shop/state", api.ProjectState{})
	if got := s.mustRun(t, "", "project", "info", "shop", "-f", "csv"); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestSwitchedProjectIsThatOfLaterCommands(t *testing.T) {
	s := projectAnswers(t)
	s.Reply("GET /1.0/profiles", []api.Profile{})
	s.Reply("GET /1.0/projects/default", api.Project{Name: "default"})
	dir := filepath.Join(t.TempDir(), "incus")
	s.env["INCUS_CONF"] = dir
	if got := s.mustRun(t, "", "project", "get-current"); got != "default\n" {
		t.Errorf("got %q", got)
	}
	s.mustRun(t, "", "project", "switch", "shop")
	if got := s.mustRun(t, "", "project", "get-current"); got != "shop\n" {
		t.Errorf("got %q", got)
	}
	for args, want := range map[string]string{
		"profile list":                   "GET /1.0/profiles?project=shop&recursion=1",
		"profile list --project web":     "GET /1.0/profiles?project=web&recursion=1",
		"profile list --project default": "GET /1.0/profiles?recursion=1",
		"profile list --force-local":     "GET /1.0/profiles?recursion=1",
		"profile list --all-projects":    "GET /1.0/profiles?all-projects=true&recursion=1",
	} {
		s.mustRun(t, "", strings.Fields(args)...)
		if lines := s.Lines(); lines[len(lines)-1] != want {
			t.Errorf("%s: %s", args, lines[len(lines)-1])
		}
	}
	want := "default-remote: local\nremotes:\n" +
		"  images:\n    protocol: simplestreams\n    public: true\n    addr: https://images.linuxcontainers.org\n" +
		"  local:\n    protocol: incus\n    public: false\n    addr: unix://\n    project: shop\n"
	data, err := os.ReadFile(filepath.Join(dir, "config.yml"))
	if err != nil || string(data) != want {
		t.Errorf("%v, wrote\n%s", err, data)
	}
	for path, mode := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, "config.yml"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	s.mustFail(t, "Error: not found\n", "", "project", "switch", "nowhere")
	s.mustRun(t, "", "project", "delete", "shop")
	if got := s.mustRun(t, "", "project", "get-current"); got != "default\n" {
		t.Errorf("after the project was deleted: %q", got)
	}
}

func TestSwitchKeepsTheRestOfTheFile(t *testing.T) {
	s := projectAnswers(t)
	s.env["HOME"] = t.TempDir()
	dir := filepath.Join(s.env["HOME"], ".config", "incus")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config.yml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	const before = "# mine\ndefault-remote: local\nremotes:\n  web:\n    addrs:\n      - https://10.0.0.1:8443 # the shop\n" +
		"    project: a\n  local:\n    addr: unix://\n    project: old\n    public: false\naliases:\n  ll: list\ndefaults:\n  list_format: csv\n"
	write(before)
	s.mustRun(t, "", "project", "switch", "shop")
	data, err := os.ReadFile(path)
	if diff := cmp.Diff(strings.Replace(before, "project: old\n    public: false\n", "project: shop\n    public: false\n    protocol: incus\n", 1), string(data)); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	for text, want := range map[string]string{
		"":                                "default\n",
		"remotes:\n":                      "default\n",
		"remotes:\n  local:\n":            "default\n",
		"remotes: {local: {project: p}}":  "p\n",
		"remotes: {local: {project: ''}}": "default\n",
		"remotes: {local: {project: }}":   "default\n",
	} {
		write(text)
		if got := s.mustRun(t, "", "project", "get-current"); got != want {
			t.Errorf("%q: got %q", text, got)
		}
		s.mustRun(t, "", "project", "switch", "shop")
		if got := s.mustRun(t, "", "project", "get-current"); got != "shop\n" {
			t.Errorf("%q: after a switch: %q", text, got)
		}
	}
	write("remotes: [local]")
	s.mustFail(t, "Error: Unable to decode the configuration "+path+": line 1: a mapping is expected\n"+
		"Hint: correct the file, or leave it aside with --force-local\n", "", "profile", "list")
}

func TestProjectOfTheSocketHoldsUntilAnotherIsNamed(t *testing.T) {
	s := projectAnswers(t)
	s.Reply("GET /1.0/profiles", []api.Profile{})
	s.env["INCUS_CONF"] = t.TempDir()
	connect := s.world.connect
	s.world.connect = func(opts client.Options) *client.Client { return connect(opts).WithProject("user-1000") }
	for _, step := range []struct{ args, line, current string }{
		{"profile list", "GET /1.0/profiles?project=user-1000&recursion=1", "user-1000\n"},
		{"profile list --project shop", "GET /1.0/profiles?project=shop&recursion=1", "user-1000\n"},
		{"project switch shop", "GET /1.0/projects/shop", "shop\n"},
		{"profile list", "GET /1.0/profiles?project=shop&recursion=1", "shop\n"},
	} {
		s.mustRun(t, "", strings.Fields(step.args)...)
		if lines := s.Lines(); lines[len(lines)-1] != step.line {
			t.Errorf("%s: %s", step.args, lines[len(lines)-1])
		}
		if got := s.mustRun(t, "", "project", "get-current"); got != step.current {
			t.Errorf("%s: current is %q", step.args, got)
		}
	}
}

package main

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/client/clienttest"
)

const noCluster = "Error: To use --target, the destination remote must be a cluster\n" +
	"Hint: form a cluster first: incus admin init, or incus cluster enable NAME\n"

// answers is a fake daemon of a cluster whose changes of one object succeed.
func answers(t *testing.T, path string, object any) *shell {
	t.Helper()
	s := clustered(t)
	s.Reply("GET "+path, object)
	for _, method := range []string{"PUT ", "POST ", "DELETE "} {
		s.Reply(method+path, struct{}{})
	}
	collection := path[:strings.LastIndexByte(path, '/')]
	s.Reply("GET "+collection, []any{object})
	s.Reply("POST "+collection, struct{}{})
	return s
}

// a step is a command line and what comes of it: its output, the last request, and its body.
type step struct{ args, stdin, stdout, request, body string }

// follow runs steps, each on its own fake daemon.
func follow(t *testing.T, fake func(*testing.T) *shell, steps []step) {
	t.Helper()
	for _, tt := range steps {
		t.Run(tt.args, func(t *testing.T) {
			s := fake(t)
			if diff := cmp.Diff(tt.stdout, s.mustRun(t, tt.stdin, arguments(tt.args)...)); diff != "" {
				t.Errorf("-want +got of the output:\n%s", diff)
			}
			requests := s.Requests()
			last := requests[len(requests)-1]
			if diff := cmp.Diff(tt.request+" "+tt.body, last.Line+" "+last.Body); diff != "" {
				t.Errorf("-want +got of the last request:\n%s", diff)
			}
		})
	}
}

// arguments splits a command line at spaces; an underscore stands for one within a word.
func arguments(line string) []string {
	words := strings.Fields(line)
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "_", " ")
	}
	return words
}

func pool() api.StoragePool {
	return api.StoragePool{
		StoragePoolPut: api.StoragePoolPut{Config: api.ConfigMap{"size": "20GiB", "user.x": "1"}, Description: "fast"},
		Name:           "local", Driver: "btrfs", Status: api.EntityCreated, Locations: []string{"node1", "node2"},
		UsedBy: []string{"/1.0/profiles/default", "/1.0/profiles/web?project=shop", "/1.0/storage-pools/local/volumes/custom/backups"},
	}
}

func poolAnswers(t *testing.T) *shell { return answers(t, "/1.0/storage-pools/local", pool()) }

func TestStoragePoolIsCreatedChangedAndDeleted(t *testing.T) {
	const one, all = "/1.0/storage-pools/local", "/1.0/storage-pools"
	follow(t, poolAnswers, []step{
		{"storage create local btrfs size=20GiB", "", "Storage pool local created\n",
			"POST " + all, `{"config":{"size":"20GiB"},"description":"","name":"local","driver":"btrfs"}`},
		{"storage create local dir source=/srv/a --target node2", "", "Storage pool local pending on member node2\n",
			"POST " + all + "?target=node2", `{"config":{"source":"/srv/a"},"description":"","name":"local","driver":"dir"}`},
		{"storage create local:local dir user.x=- user.y=a=b --description the_fast_one", "description: slow\nconfig: {size: 5, user.y: c}\n",
			"Storage pool local created\n",
			"POST " + all, `{"config":{"size":"5","user.x":"-","user.y":"a=b"},"description":"the fast one","name":"local","driver":"dir"}`},
		{"storage create local dir -q", "", "", "POST " + all, `{"config":{},"description":"","name":"local","driver":"dir"}`},
		{"storage set local user.y=2 user.x=", "", "", "PUT " + one, `{"config":{"size":"20GiB","user.y":"2"},"description":"fast"}`},
		{"storage set local --target node2 size=30GiB", "", "",
			"PUT " + one + "?target=node2", `{"config":{"size":"30GiB","user.x":"1"},"description":"fast"}`},
		{"storage set -p local description=new", "", "", "PUT " + one, `{"config":{"size":"20GiB","user.x":"1"},"description":"new"}`},
		{"storage unset local user.x size", "", "", "PUT " + one, `{"config":{},"description":"fast"}`},
		{"storage get local size", "", "20GiB\n", "GET " + one, ""},
		{"storage get local none", "", "\n", "GET " + one, ""},
		{"storage get -p local description", "", "fast\n", "GET " + one, ""},
		{"storage get local size --target node2", "", "20GiB\n", "GET " + one + "?target=node2", ""},
		{"storage edit local", "config: {size: 5GiB}\n", "", "PUT " + one, `{"config":{"size":"5GiB"},"description":""}`},
		{"storage rm local", "", "Storage pool local deleted\n", "DELETE " + one, ""},
	})
}

func TestSetSendsTheETagAndTriesAgainWhenSomebodyElseWasFaster(t *testing.T) {
	s := poolAnswers(t)
	s.Handle("GET /1.0/storage-pools/local", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"abc"`)
		clienttest.Sync(w, pool())
	})
	tries := 0
	s.Handle("PUT /1.0/storage-pools/local", func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 1 {
			clienttest.Error(w, 412, "ETag doesn't match", nil)
			return
		}
		clienttest.Sync(w, struct{}{})
	})
	s.mustRun(t, "", "storage", "set", "local", "user.x=2")
	s.mustAsk(t, "GET /1.0/storage-pools/local", "PUT /1.0/storage-pools/local", "GET /1.0/storage-pools/local", "PUT /1.0/storage-pools/local")
	for _, r := range s.Requests() {
		if strings.HasPrefix(r.Line, "PUT ") && r.IfMatch != `"abc"` {
			t.Errorf("%s with If-Match %q", r.Line, r.IfMatch)
		}
	}
}

func TestStorageEditTakesWhatStorageShowPrints(t *testing.T) {
	s := poolAnswers(t)
	shown := s.mustRun(t, "", "storage", "show", "local")
	want := `config:
  size: 20GiB
  user.x: "1"
description: fast
name: local
driver: btrfs
used_by:
  - /1.0/profiles/default
  - /1.0/profiles/web?project=shop
  - /1.0/storage-pools/local/volumes/custom/backups
status: Created
locations:
  - node1
  - node2
`
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Error(diff)
	}
	s.mustRun(t, strings.Replace(shown, "20GiB", "25GiB", 1), "storage", "edit", "local")
	if got := s.body(t, "PUT /1.0/storage-pools/local"); got != `{"config":{"size":"25GiB","user.x":"1"},"description":"fast"}` {
		t.Errorf("sent %s", got)
	}
	// So does create, for a copy of it.
	s.mustRun(t, shown, "storage", "create", "other", "btrfs")
	if got := s.body(t, "POST /1.0/storage-pools"); got != `{"config":{"size":"20GiB","user.x":"1"},"description":"fast","name":"other","driver":"btrfs"}` {
		t.Errorf("sent %s", got)
	}
	s.mustFail(t, "Error: line 1: unknown key \"confg\"\n", "confg: {}\n", "storage", "create", "other", "btrfs")
}

func TestEditorShowsASample(t *testing.T) {
	s := poolAnswers(t)
	s.world.stdinTerminal = true
	s.world.edit = opened(t, "### This is the writable part of a storage pool, as YAML.\n### Lines that begin with # are ignored.\n###\n### A sample:\n"+
		"###   description: The fast disks\n###   config:\n###     size: 30GiB\n\nconfig:\n  size: 20GiB\n  user.x: \"1\"\ndescription: fast\n", "description: slow\n")
	s.mustRun(t, "", "storage", "edit", "local")
	if got := s.body(t, "PUT /1.0/storage-pools/local"); got != `{"config":{},"description":"slow"}` {
		t.Errorf("sent %s", got)
	}
}

func TestTargetsOfEntitiesNeedACluster(t *testing.T) {
	s := standalone(t, nil)
	for _, args := range []string{
		"storage create p dir --target a", "storage show p --target a", "storage set p size=1 --target a", "storage info p --target a",
		"storage volume create p v --target a", "network create n --target a", "network list --target a", "network info n --target a",
		"network unset n parent --target a", "info --resources --target a",
	} {
		s.mustFail(t, noCluster, "", strings.Fields(args)...)
	}
	s.unchanged(t)
}

func TestStorageList(t *testing.T) {
	s := clustered(t)
	errored := pool()
	errored.Name, errored.Driver, errored.Status, errored.UsedBy, errored.Description = "archive", "dir", api.EntityErrored, nil, ""
	errored.Config = api.ConfigMap{"source": "/srv/a"}
	s.Reply("GET /1.0/storage-pools", []api.StoragePool{pool(), errored})
	want := `+---------+--------+-------------+---------+---------+
|  NAME   | DRIVER | DESCRIPTION | USED BY |  STATE  |
+---------+--------+-------------+---------+---------+
| archive | dir    |             | 0       | ERRORED |
+---------+--------+-------------+---------+---------+
| local   | btrfs  | fast        | 3       | CREATED |
+---------+--------+-------------+---------+---------+
`
	if diff := cmp.Diff(want, s.mustRun(t, "", "storage", "list")); diff != "" {
		t.Error(diff)
	}
	s.mustAsk(t, "GET /1.0/storage-pools?recursion=1")
	if diff := cmp.Diff("archive,dir,,/srv/a,0,ERRORED\nlocal,btrfs,fast,,3,CREATED\n", s.mustRun(t, "", "storage", "ls", "-c", "nDdSus", "-f", "csv")); diff != "" {
		t.Error(diff)
	}
	s.Reply("GET /1.0/storage-pools", []api.StoragePool{})
	if got := s.mustRun(t, "", "storage", "list", "-f", "json"); got != "[]\n" {
		t.Errorf("got %q", got)
	}
	s.mustFail(t, "Error: Unknown column shorthand char 'x' in 'nx'\n", "", "storage", "list", "-c", "nx")
	s.mustFail(t, "Error: \"local\" is not a remote\nHint: a remote ends with a colon: local:\n", "", "storage", "list", "local")
}

func space() api.ResourcesStoragePool {
	return api.ResourcesStoragePool{
		Space:  api.ResourcesStoragePoolSpace{Used: 1536 << 20, Total: 20 << 30},
		Inodes: api.ResourcesStoragePoolInodes{Used: 12, Total: 4096},
	}
}

func TestStorageInfo(t *testing.T) {
	s := poolAnswers(t)
	s.Reply("GET /1.0/storage-pools/local/resources", space())
	want := `info:
  description: fast
  driver: btrfs
  inodes used: "12"
  name: local
  space used: 1.50GiB
  status: Created
  total inodes: "4096"
  total space: 20.00GiB
used by:
  profiles:
    - default
    - web
  volumes:
    - backups
`
	if diff := cmp.Diff(want, s.mustRun(t, "", "storage", "info", "local", "--target", "node2")); diff != "" {
		t.Error(diff)
	}
	s.mustAsk(t, "GET /1.0", "GET /1.0/storage-pools/local?target=node2", "GET /1.0/storage-pools/local/resources?target=node2")
	s.Reply("GET /1.0/storage-pools/local", api.StoragePool{Name: "local", Driver: "btrfs", Status: api.EntityCreated})
	s.Reply("GET /1.0/storage-pools/local/resources", api.ResourcesStoragePool{Space: space().Space})
	want = "info:\n  description: \"\"\n  driver: btrfs\n  name: local\n  space used: \"1610612736\"\n  status: Created\n  total space: \"21474836480\"\nused by: {}\n"
	if diff := cmp.Diff(want, s.mustRun(t, "", "storage", "info", "local", "--bytes")); diff != "" {
		t.Error(diff)
	}
	s.Reply("GET /1.0/storage-pools/local/resources", space())
	if diff := cmp.Diff("space:\n  used: 1610612736\n  total: 21474836480\ninodes:\n  used: 12\n  total: 4096\n", s.mustRun(t, "", "storage", "show", "local", "--resources")); diff != "" {
		t.Error(diff)
	}
}

func TestWhyAPoolFailedIsShownWhereItCannotBeMeasured(t *testing.T) {
	failed := pool()
	failed.Status, failed.Message, failed.UsedBy = api.EntityErrored, "node2: Source path '/srv/b' doesn't exist", nil
	s := answers(t, "/1.0/storage-pools/local", failed)
	s.Refuse("GET /1.0/storage-pools/local/resources", 500, "not mounted", nil)
	s.mustFail(t, "Error: not mounted\n", "", "storage", "info", "local")
	want := "info:\n  description: fast\n  driver: btrfs\n  message: 'node2: Source path ''/srv/b'' doesn''t exist'\n  name: local\n  status: Errored\nused by: {}\n"
	if diff := cmp.Diff(want, s.stdout.String()); diff != "" {
		t.Error(diff)
	}
	if got := s.mustRun(t, "", "storage", "show", "local"); !strings.HasSuffix(got, "\nmessage: 'node2: Source path ''/srv/b'' doesn''t exist'\n") {
		t.Errorf("got %q", got)
	}
	s = poolAnswers(t)
	s.Refuse("GET /1.0/storage-pools/local/resources", 503, "Cluster member \"node2\" is offline", nil)
	s.mustFail(t, "Error: Cluster member \"node2\" is offline\n", "", "storage", "info", "local")
	if s.stdout.Len() > 0 {
		t.Errorf("printed %s", &s.stdout)
	}
}

func TestCreateThatFailsOnMembersNamesThemAndTheNextStep(t *testing.T) {
	const why = `The storage pool "local" could not be made on 2 of 3 members: node2: Source path '/srv/b' doesn't exist; node3: no space left`
	for args, route := range map[string]string{"storage create local dir": "POST /1.0/storage-pools", "network create local": "POST /1.0/networks"} {
		s := clustered(t)
		s.Refuse(route, 500, why, api.ErrorMetadata{Reason: api.EntityFailed, Hint: api.EntityFailed.Hint()})
		s.mustFail(t, "Error: "+why+"\nHint: "+api.EntityFailed.Hint()+"\n", "", strings.Fields(args)...)
		if s.stdout.Len() > 0 {
			t.Errorf("%s: said %s", args, &s.stdout)
		}
	}
}

func TestSizesAreWrittenForPeople(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0B", 1023: "1023B", 1024: "1.00KiB", 1536 << 20: "1.50GiB", 1 << 40: "1.00TiB", 1 << 63: "8.00EiB", 1<<64 - 1: "16.00EiB",
	} {
		if got := formatSize(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func volume() api.StorageVolume {
	return api.StorageVolume{
		StorageVolumePut: api.StorageVolumePut{Config: api.ConfigMap{"size": "10GiB"}, Description: "nightly"},
		Name:             "backups", Pool: "local", Type: "custom", ContentType: "filesystem", Location: "node2", Project: "default",
		UsedBy: []string{"/1.0/profiles/default"}, CreatedAt: time.Date(2026, 11, 22, 8, 57, 28, 0, time.UTC),
	}
}

const volumePath = "/1.0/storage-pools/local/volumes/custom/backups"

func volumeAnswers(t *testing.T) *shell { return answers(t, volumePath, volume()) }

func TestStorageVolumeIsCreatedChangedAndDeleted(t *testing.T) {
	const all = "/1.0/storage-pools/local/volumes/custom"
	follow(t, volumeAnswers, []step{
		{"storage volume create local backups size=10GiB", "", "Storage volume backups created\n",
			"POST " + all, `{"config":{"size":"10GiB"},"description":"","name":"backups","type":"custom","content_type":"filesystem","source":null}`},
		{"storage volume create local:local custom/backups --type block --target node2 --description old", "", "Storage volume backups created\n",
			"POST " + all + "?target=node2", `{"config":{},"description":"old","name":"backups","type":"custom","content_type":"block","source":null}`},
		{"storage volume create local backups --project shop", "", "Storage volume backups created\n",
			"POST " + all + "?project=shop", `{"config":{},"description":"","name":"backups","type":"custom","content_type":"filesystem","source":null}`},
		{"storage volume set local backups size=20GiB", "", "", "PUT " + volumePath, `{"config":{"size":"20GiB"},"description":"nightly"}`},
		{"storage volume unset local:local custom/backups size", "", "", "PUT " + volumePath, `{"config":{},"description":"nightly"}`},
		{"storage volume get local backups size", "", "10GiB\n", "GET " + volumePath, ""},
		{"storage volume get -p local backups description", "", "nightly\n", "GET " + volumePath, ""},
		{"storage volume edit local backups", "description: weekly\n", "", "PUT " + volumePath, `{"config":{},"description":"weekly"}`},
		{"storage volume rename local backups custom/old", "", "Renamed storage volume from \"backups\" to \"old\"\n",
			"POST " + volumePath, `{"name":"old"}`},
		{"storage volume delete local backups", "", "Storage volume backups deleted\n", "DELETE " + volumePath, ""},
		{"storage volume info local backups", "", "Name: backups\nDescription: nightly\nType: custom\nContent type: filesystem\nPool: local\n" +
			"Project: default\nLocation: node2\nSize: 10GiB\nCreated: 2026/11/22 08:57 UTC\nUsed by:\n  - /1.0/profiles/default\n", "GET " + volumePath, ""},
		{"storage volume list local -f csv", "", "custom,backups,nightly,filesystem,1,node2\n", "GET " + all + "?recursion=1", ""},
		{"storage volume list local -f csv --all-projects", "", "default,custom,backups,nightly,filesystem,1,node2\n",
			"GET " + all + "?all-projects=true&recursion=1", ""},
		{"storage volume list local -f csv --all-projects -c n --project shop", "", "backups\n", "GET " + all + "?all-projects=true&recursion=1", ""},
	})
	s := volumeAnswers(t)
	if got := s.mustRun(t, "", "storage", "volume", "show", "local", "backups"); !strings.HasPrefix(got, "config:\n  size: 10GiB\ndescription: nightly\nname: backups\npool: local\ntype: custom\n") {
		t.Errorf("got %s", got)
	}
	s.mustFail(t, "Error: Invalid number of arguments\nHint: usage: incus storage volume show [<remote>:]<pool> <volume> [flags]\n", "", "storage", "volume", "show", "local")
}

func TestWrongArgumentsAreRefusedBeforeTheServerIsAsked(t *testing.T) {
	s := newShell(t)
	for args, want := range map[string]string{
		"storage create local":            "Invalid number of arguments\nHint: usage: incus storage create [<remote>:]<pool> <driver> [<key>=<value>...] [flags]",
		"storage create local dir size":   "Invalid key=value configuration: size",
		"storage create local dir =1":     "Invalid key=value configuration: =1",
		"storage set local size=1 x":      "Invalid key=value configuration: x",
		"storage show local:":             "Missing storage pool name\nHint: usage: incus storage show [<remote>:]<pool> [flags]",
		"network delete web:br0":          "The remote \"web\" doesn't exist\nHint: those that there are: images, local; add it: incus remote add web ADDRESS",
		"profile device add p d nic a":    "Invalid key=value configuration: a",
		"project create p --config a":     "Invalid key=value configuration: a",
		"storage volume list local -f x":  "Invalid format \"x\": use one of csv, json, table, yaml, compact, markdown",
		"profile device get default eth0": "Invalid number of arguments\nHint: usage: incus profile device get [<remote>:]<profile> <device> <key> [flags]",
	} {
		s.mustFail(t, "Error: "+want+"\n", "", strings.Fields(args)...)
	}
	s.mustAsk(t)
}

func TestPropertiesAreThoseThatCanBeChanged(t *testing.T) {
	s := poolAnswers(t)
	want := "Error: The property \"driver\" does not exist on the storage pool \"local\"\nHint: the property that can be changed is description\n"
	s.mustFail(t, want, "", "storage", "get", "-p", "local", "driver")
	s.mustFail(t, want, "", "storage", "set", "-p", "local", "driver=zfs")
	s.unchanged(t)
}

func TestCompletionOffersEntitiesAndTheirKeys(t *testing.T) {
	s := poolAnswers(t)
	s.Reply("GET /1.0/storage-pools/local/volumes/custom", []api.StorageVolume{volume()})
	s.Reply("GET "+volumePath, volume())
	s.Reply("GET /1.0/networks", []api.Network{{Name: "incusbr0"}, {Name: "eth0"}})
	s.Reply("GET /1.0/profiles", []api.Profile{{Name: "default"}, {Name: "web"}})
	s.Reply("GET /1.0/profiles/web", web())
	s.Reply("GET /1.0/projects", []api.Project{{Name: "default"}, {Name: "shop"}})
	for args, want := range map[string]string{
		"storage show ":                            "local\n",
		"storage show local ":                      "",
		"storage get local ":                       "size\nuser.x\n",
		"storage get -p local ":                    "description\n",
		"storage unset local:local u":              "user.x\n",
		"storage set local ":                       "",
		"storage show --target node3":              "node3\n",
		"storage volume show ":                     "local\n",
		"storage volume show local ":               "backups\n",
		"storage volume get local:local b":         "backups\n",
		"storage volume get local custom/backups ": "size\n",
		"storage volume create local v --type b":   "filesystem\nblock\n",
		"network show e":                           "eth0\n",
		"network create --type m":                  "bridge\nmacvlan\nphysical\nsriov\n",
		"network attach-profile eth0 ":             "default\nweb\n",
		"profile device get web ":                  "eth0\nroot\n",
		"profile device get web root ":             "path\npool\ntype\n",
		"profile device add web eth1 n":            "nic\nnone\n",
		"profile copy web x --target-project ":     "default\nshop\n",
		"project delete sh":                        "shop\n",
		"project show web:":                        "",
	} {
		words := strings.Split(args, " ")
		s.run("", append([]string{"__complete"}, words...)...)
		if got, _, _ := strings.Cut(s.stdout.String(), ":4\n"); got != want {
			t.Errorf("%s: got %q, want %q", args, got, want)
		}
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	a := &app{world: newShell(t).world}
	root := a.rootCommand()
	for _, noun := range []string{"storage", "network", "profile", "project", "remote", "config trust"} {
		cmd, _, err := root.Find(strings.Fields(noun))
		if err != nil {
			t.Fatal(err)
		}
		cmds := cmd.Commands()
		for i := 0; i < len(cmds); i++ {
			cmds = append(cmds, cmds[i].Commands()...)
		}
		for _, c := range cmds {
			if c.HasSubCommands() {
				continue
			}
			if c.Short == "" || !strings.Contains(c.Example, "incus "+strings.TrimPrefix(c.CommandPath(), "incus ")) {
				t.Errorf("%s has no example of itself:\n%s", c.CommandPath(), c.Example)
			}
			if slices.Contains([]string{"create", "edit", "set"}, c.Name()) && c.Long == "" {
				t.Errorf("%s: the help does not say what stdin is for", c.CommandPath())
			}
		}
	}
}

// opened is an editor that has to be shown want, and in which answer is typed.
func opened(t *testing.T, want, answer string) func(context.Context, []byte) ([]byte, error) {
	return func(_ context.Context, text []byte) ([]byte, error) {
		if diff := cmp.Diff(want, string(text)); diff != "" {
			t.Errorf("-want +got in the editor:\n%s", diff)
		}
		return []byte(answer), nil
	}
}

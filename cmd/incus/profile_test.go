package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
)

func profileAnswers(t *testing.T) *shell { return answers(t, "/1.0/profiles/web", web()) }

func TestProfileIsCreatedChangedAndDeleted(t *testing.T) {
	const one, all = "/1.0/profiles/web", "/1.0/profiles"
	follow(t, profileAnswers, []step{
		{"profile create web --description shop", "", "Profile web created\n", "POST " + all, `{"config":{},"description":"shop","devices":null,"name":"web"}`},
		{"profile create web --project shop", "config: {user.n: 5}\ndevices: {eth0: {type: nic}}", "Profile web created\n",
			"POST " + all + "?project=shop", `{"config":{"user.n":"5"},"description":"","devices":{"eth0":{"type":"nic"}},"name":"web"}`},
		{"profile set web user.x=1", "", "", "PUT " + one,
			strings.Replace(devices(eth0Device+","+rootDevice), `"jane"`, `"jane","user.x":"1"`, 1)},
		{"profile unset web user.owner", "", "", "PUT " + one,
			strings.Replace(devices(eth0Device+","+rootDevice), `"user.owner":"jane"`, "", 1)},
		{"profile get web user.owner", "", "jane\n", "GET " + one, ""},
		{"profile get web description -p", "", "shop\n", "GET " + one, ""},
		{"profile edit web", "description: new", "", "PUT " + one, `{"config":{},"description":"new","devices":null}`},
		{"profile rename web site", "", "Profile web renamed to site\n", "POST " + one, `{"name":"site"}`},
		{"profile delete web", "", "Profile web deleted\n", "DELETE " + one, ""},
		{"profile copy web site", "", "Profile site created\n", "POST " + all, strings.TrimSuffix(devices(eth0Device+","+rootDevice), "}") + `,"name":"site"}`},
		{"profile cp web local:site --target-project shop", "", "Profile site created\n",
			"POST " + all + "?project=shop", strings.TrimSuffix(devices(eth0Device+","+rootDevice), "}") + `,"name":"site"}`},
		{"profile copy web site --refresh", "", "Profile site created\n", "POST " + all, strings.TrimSuffix(devices(eth0Device+","+rootDevice), "}") + `,"name":"site"}`},
		{"profile copy web web --target-project shop --refresh", "", "", "PUT " + one + "?project=shop", devices(eth0Device + "," + rootDevice)},
		{"profile list -f csv", "", "web,shop,0\n", "GET " + all + "?recursion=1", ""},
		{"profile list -f csv --all-projects", "", "default,web,shop,0\n", "GET " + all + "?all-projects=true&recursion=1", ""},
		{"profile list -f csv --all-projects -c ne", "", "web,default\n", "GET " + all + "?all-projects=true&recursion=1", ""},
	})
}

func TestProfileShow(t *testing.T) {
	want := `config:
  user.owner: jane
description: shop
devices:
  eth0:
    network: br0
    type: nic
  root:
    path: /
    pool: local
    type: disk
name: web
used_by: []
project: default
`
	if diff := cmp.Diff(want, profileAnswers(t).mustRun(t, "", "profile", "show", "web")); diff != "" {
		t.Error(diff)
	}
}

func TestDevicesOfAProfile(t *testing.T) {
	const one = "/1.0/profiles/web"
	follow(t, profileAnswers, []step{
		{"profile device add web eth1 nic network=br1 name=eth1", "", "Device eth1 added to web\n", "PUT " + one,
			devices(eth0Device + `,"eth1":{"name":"eth1","network":"br1","type":"nic"},` + rootDevice)},
		{"profile device list web", "", "eth0\nroot\n", "GET " + one, ""},
		{"profile device show web", "", "eth0:\n  network: br0\n  type: nic\nroot:\n  path: /\n  pool: local\n  type: disk\n", "GET " + one, ""},
		{"profile device get web root pool", "", "local\n", "GET " + one, ""},
		{"profile device set web root size=5GiB pool=other", "", "", "PUT " + one,
			devices(eth0Device + `,"root":{"path":"/","pool":"other","size":"5GiB","type":"disk"}`)},
		{"profile device unset web root pool", "", "", "PUT " + one, devices(eth0Device + `,"root":{"path":"/","type":"disk"}`)},
		{"profile device remove web eth0", "", "Device eth0 removed from web\n", "PUT " + one, devices(rootDevice)},
		{"profile device rm web eth0 root", "", "Device eth0, root removed from web\n", "PUT " + one, devices("")},
	})
	s := profileAnswers(t)
	s.mustFail(t, "Error: The device already exists\nHint: choose another name, or change it: incus profile device set\n", "",
		"profile", "device", "add", "web", "eth0", "nic")
	for _, args := range []string{"get web x y", "set web x y=z", "unset web x y", "remove web eth0 x"} {
		s.mustFail(t, "Error: Device doesn't exist: x\nHint: see incus profile device list\n", "", append([]string{"profile", "device"}, strings.Fields(args)...)...)
	}
	s.unchanged(t)
	// A profile without devices may come as null.
	s.Reply("GET "+one, api.Profile{Name: "web"})
	s.mustRun(t, "", "profile", "device", "add", "web", "root", "disk")
	if got := s.body(t, "PUT "+one); got != `{"config":{},"description":"","devices":{"root":{"type":"disk"}}}` {
		t.Errorf("sent %s", got)
	}
}

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
)

func bridge() api.Network {
	return api.Network{
		NetworkPut: api.NetworkPut{Config: api.ConfigMap{"ipv4.address": "10.1.2.1/24", "ipv6.address": "none"}, Description: "inner"},
		Name:       "br0", Type: "bridge", Managed: true, Status: api.EntityCreated, Locations: []string{"node1"}, Project: "default",
		UsedBy: []string{"/1.0/profiles/web"},
	}
}

func bridgeAnswers(t *testing.T) *shell { return answers(t, "/1.0/networks/br0", bridge()) }

func TestNetworkIsCreatedChangedAndDeleted(t *testing.T) {
	const one, all = "/1.0/networks/br0", "/1.0/networks"
	follow(t, bridgeAnswers, []step{
		{"network create br0 ipv4.address=10.1.2.1/24", "", "Network br0 created\n",
			"POST " + all, `{"config":{"ipv4.address":"10.1.2.1/24"},"description":"","name":"br0","type":""}`},
		{"network create br0 -t physical parent=eth1 --target node2", "", "Network br0 pending on member node2\n",
			"POST " + all + "?target=node2", `{"config":{"parent":"eth1"},"description":"","name":"br0","type":"physical"}`},
		{"network create br0 --type bridge --description inner --project shop", "config: {ipv6.nat: true}", "Network br0 created\n",
			"POST " + all + "?project=shop", `{"config":{"ipv6.nat":"true"},"description":"inner","name":"br0","type":"bridge"}`},
		{"network set br0 ipv4.nat=true", "", "", "PUT " + one,
			`{"config":{"ipv4.address":"10.1.2.1/24","ipv4.nat":"true","ipv6.address":"none"},"description":"inner"}`},
		{"network unset br0 ipv6.address --target node1", "", "", "PUT " + one + "?target=node1", `{"config":{"ipv4.address":"10.1.2.1/24"},"description":"inner"}`},
		{"network get br0 ipv4.address", "", "10.1.2.1/24\n", "GET " + one, ""},
		{"network edit br0", "{}", "", "PUT " + one, `{"config":{},"description":""}`},
		{"network rename br0 br1", "", "Network br0 renamed to br1\n", "POST " + one, `{"name":"br1"}`},
		{"network mv local:br0 br1", "", "Network br0 renamed to br1\n", "POST " + one, `{"name":"br1"}`},
		{"network delete br0", "", "Network br0 deleted\n", "DELETE " + one, ""},
		{"network list -f csv", "", "br0,bridge,YES,10.1.2.1/24,none,inner,1,CREATED\n", "GET " + all + "?recursion=1", ""},
		{"network list -f csv --all-projects", "", "default,br0,bridge,YES,10.1.2.1/24,none,inner,1,CREATED\n", "GET " + all + "?all-projects=true&recursion=1", ""},
		{"network list -f csv -c ne --target node2", "", "br0,default\n", "GET " + all + "?recursion=1&target=node2", ""},
	})
}

func TestNetworkListTable(t *testing.T) {
	s := clustered(t)
	s.Reply("GET /1.0/networks", []api.Network{bridge(), {Name: "eth0", Type: "physical"}})
	want := `+------+----------+---------+-------------+------+-------------+---------+---------+
| NAME |   TYPE   | MANAGED |    IPV4     | IPV6 | DESCRIPTION | USED BY |  STATE  |
+------+----------+---------+-------------+------+-------------+---------+---------+
| br0  | bridge   | YES     | 10.1.2.1/24 | none | inner       | 1       | CREATED |
+------+----------+---------+-------------+------+-------------+---------+---------+
| eth0 | physical | NO      |             |      |             | 0       |         |
+------+----------+---------+-------------+------+-------------+---------+---------+
`
	if diff := cmp.Diff(want, s.mustRun(t, "", "network", "list")); diff != "" {
		t.Error(diff)
	}
}

func TestNetworkInfo(t *testing.T) {
	s := bridgeAnswers(t)
	s.Reply("GET /1.0/networks/br0/state", api.NetworkState{
		Hwaddr: "10:66:6a:00:00:01", MTU: 1500, State: "up", Type: "broadcast",
		Addresses: []api.NetworkStateAddress{{Family: "inet", Address: "10.1.2.1", Netmask: "24", Scope: "global"}},
		Counters:  api.NetworkStateCounters{BytesReceived: 2048, BytesSent: 10, PacketsReceived: 3, PacketsSent: 4},
		Bridge:    &api.NetworkStateBridge{ID: "8000.10666a000001", ForwardDelay: 1500, UpperDevices: []string{"veth1", "veth2"}},
	})
	want := `Name: br0
MAC address: 10:66:6a:00:00:01
MTU: 1500
State: up
Type: broadcast

IP addresses:
  inet	10.1.2.1/24 (global)

Network usage:
  Bytes received: 2.00KiB
  Bytes sent: 10B
  Packets received: 3
  Packets sent: 4

Bridge:
  ID: 8000.10666a000001
  STP: false
  Forward delay: 1500
  Default VLAN ID: 0
  VLAN filtering: false
  Upper devices: veth1, veth2
`
	if diff := cmp.Diff(want, s.mustRun(t, "", "network", "info", "br0", "--target", "node2")); diff != "" {
		t.Error(diff)
	}
	s.mustAsk(t, "GET /1.0", "GET /1.0/networks/br0?target=node2", "GET /1.0/networks/br0/state?target=node2")
}

func TestWhyANetworkFailedIsShownWhereItHasNoInterface(t *testing.T) {
	failed := bridge()
	failed.Status, failed.Message = api.EntityErrored, "node2: no such interface: eth9"
	s := answers(t, "/1.0/networks/br0", failed)
	s.mustFail(t, "Error: not found\n", "", "network", "info", "br0")
	if got := s.stdout.String(); got != "Name: br0\nStatus: Errored\nMessage: node2: no such interface: eth9\n" {
		t.Errorf("got %q", got)
	}
	if got := s.mustRun(t, "", "network", "show", "br0"); !strings.HasSuffix(got, "message: 'node2: no such interface: eth9'\n") {
		t.Errorf("got %q", got)
	}
	// The same is shown where the interface of the member that answers does work.
	s.Reply("GET /1.0/networks/br0/state", api.NetworkState{State: "up"})
	if got := s.mustRun(t, "", "network", "info", "br0"); !strings.HasPrefix(got, "Name: br0\nStatus: Errored\nMessage: node2: no such interface: eth9\nMAC address: \n") {
		t.Errorf("got %q", got)
	}
	bridgeAnswers(t).mustFail(t, "Error: not found\n", "", "network", "info", "br0")
}

func TestNetworkLeases(t *testing.T) {
	s := bridgeAnswers(t)
	s.Reply("GET /1.0/networks/br0/leases", []api.NetworkLease{
		{Hostname: "c10", Hwaddr: "10:66:6a:00:00:0a", Address: "10.1.2.10", Type: "dynamic", Location: "node1"},
		{Hostname: "c2", Hwaddr: "10:66:6a:00:00:02", Address: "10.1.2.2", Type: "static", Location: "node2"},
	})
	want := `+----------+-------------------+------------+---------+----------+
| HOSTNAME |    MAC ADDRESS    | IP ADDRESS |  TYPE   | LOCATION |
+----------+-------------------+------------+---------+----------+
| c2       | 10:66:6a:00:00:02 | 10.1.2.2   | STATIC  | node2    |
+----------+-------------------+------------+---------+----------+
| c10      | 10:66:6a:00:00:0a | 10.1.2.10  | DYNAMIC | node1    |
+----------+-------------------+------------+---------+----------+
`
	if diff := cmp.Diff(want, s.mustRun(t, "", "network", "list-leases", "br0")); diff != "" {
		t.Error(diff)
	}
}

// web is a profile with two devices.
func web() api.Profile {
	return api.Profile{
		ProfilePut: api.ProfilePut{
			Config: api.ConfigMap{"user.owner": "jane"}, Description: "shop",
			Devices: map[string]api.ConfigMap{
				"root": {"type": "disk", "path": "/", "pool": "local"},
				"eth0": {"type": "nic", "network": "br0"},
			},
		},
		Name: "web", Project: "default", UsedBy: []string{},
	}
}

// devices is the body of an update of web with other devices.
func devices(json string) string {
	return `{"config":{"user.owner":"jane"},"description":"shop","devices":{` + json + `}}`
}

const (
	rootDevice = `"root":{"path":"/","pool":"local","type":"disk"}`
	eth0Device = `"eth0":{"network":"br0","type":"nic"}`
)

func TestNetworkIsAttachedToAProfile(t *testing.T) {
	fake := func(t *testing.T) *shell {
		s := answers(t, "/1.0/profiles/web", web())
		s.Reply("GET /1.0/networks/br1", api.Network{Name: "br1", Type: "bridge", Managed: true})
		s.Reply("GET /1.0/networks/lan", api.Network{Name: "lan", Type: "bridge"})
		s.Reply("GET /1.0/networks/eno1", api.Network{Name: "eno1", Type: "physical"})
		return s
	}
	follow(t, fake, []step{
		{"network attach-profile br1 web", "", "Device br1 added to web\n", "PUT /1.0/profiles/web",
			devices(`"br1":{"network":"br1","type":"nic"},` + eth0Device + "," + rootDevice)},
		{"network attach-profile lan web eth1 eth5", "", "Device eth1 added to web\n", "PUT /1.0/profiles/web",
			devices(eth0Device + `,"eth1":{"name":"eth5","nictype":"bridged","parent":"lan","type":"nic"},` + rootDevice)},
		{"network attach-profile eno1 web", "", "Device eno1 added to web\n", "PUT /1.0/profiles/web",
			devices(`"eno1":{"nictype":"macvlan","parent":"eno1","type":"nic"},` + eth0Device + "," + rootDevice)},
		{"network detach-profile br0 web", "", "Device eth0 removed from web\n", "PUT /1.0/profiles/web", devices(rootDevice)},
		{"network detach-profile br0 web eth0", "", "Device eth0 removed from web\n", "PUT /1.0/profiles/web", devices(rootDevice)},
	})
	s := fake(t)
	s.mustFail(t, "Error: The device already exists\nHint: choose another name, or change it: incus profile device set\n", "", "network", "attach-profile", "br1", "web", "eth0")
	s.mustFail(t, "Error: No device found for network \"br1\"\nHint: see incus profile device show\n", "", "network", "detach-profile", "br1", "web")
	s.mustFail(t, "Error: Device doesn't exist: eth7\nHint: see incus profile device list\n", "", "network", "detach-profile", "br0", "web", "eth7")
	s.mustFail(t, "Error: Device \"root\" is not on network \"br0\"\n", "", "network", "detach-profile", "br0", "web", "root")
	s.mustFail(t, "Error: not found\n", "", "network", "attach-profile", "br9", "web")
	s.unchanged(t)
	two := web()
	two.Devices["eth1"] = api.ConfigMap{"type": "nic", "nictype": "bridged", "parent": "br0"}
	s.Reply("GET /1.0/profiles/web", two)
	s.mustFail(t, "Error: More than one device is on network \"br0\": eth0, eth1\nHint: name one of them as the last argument\n", "", "network", "detach-profile", "br0", "web")
}

package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"incusd/api"
)

// inside says that this process has a network namespace of its own.
const inside = "INCUS_TEST_NAMESPACE"

// TestMain runs all tests in a network namespace of their own, where that can be made: no
// interface of the machine is ever touched.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	}
	os.Exit(m.Run()) // no namespace can be made here: the tests that need one say so
}

func needNamespace(t *testing.T) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("a network namespace of its own needs root")
	}
}

func newTestManager(t *testing.T, dir, owner string) *Manager {
	t.Helper()
	needNamespace(t)
	m := New(Config{Dir: dir, Owner: func() string { return owner }, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { m.Close() })
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func bridge(name string, config map[string]string) Network {
	all := map[string]string{"ipv4.address": "10.77.0.1/24", "ipv4.nat": "true", "ipv6.address": "none"}
	for key, value := range config {
		all[key] = value
	}
	return Network{ID: "id-" + name, Project: "default", Name: name, Type: "bridge", Config: all}
}

func create(t *testing.T, m *Manager, n Network) {
	t.Helper()
	must(t, m.Create(t.Context(), n))
	t.Cleanup(func() { _ = m.Delete(context.Background(), n) })
}

func addresses(t *testing.T, name string) string {
	t.Helper()
	s, err := New(Config{}).State(name)
	must(t, err)
	var all []string
	for _, a := range s.Addresses {
		if a.Scope == "global" {
			all = append(all, a.Address+"/"+a.Netmask)
		}
	}
	return strings.Join(all, " ")
}

func rules(t *testing.T) string {
	t.Helper()
	if Firewall() == "none" {
		t.Skip("nft is not installed")
	}
	out, err := exec.Command("nft", "list", "ruleset").Output()
	must(t, err)
	return string(out)
}

func TestBridgeLivesFromCreateToDelete(t *testing.T) {
	m := newTestManager(t, t.TempDir(), "c1")
	n := bridge("br0", map[string]string{"bridge.mtu": "1400", "ipv6.address": "fd42:1::1/64"})
	must(t, m.Delete(t.Context(), n)) // of what never was
	must(t, m.Check(t.Context(), n))
	create(t, m, n)
	must(t, m.Create(t.Context(), n))
	s, err := m.State("br0")
	must(t, err)
	if s.MTU != 1400 || s.State != "up" || s.Bridge == nil || !strings.HasPrefix(s.Hwaddr, "10:66:6a:") {
		t.Errorf("%+v", s)
	}
	if got := addresses(t, "br0"); got != "10.77.0.1/24 fd42:1::1/64" {
		t.Errorf("addresses: %s", got)
	}
	must(t, m.Delete(t.Context(), n))
	must(t, m.Delete(t.Context(), n))
	if link, _ := find("br0"); link != nil {
		t.Error("the bridge is still there")
	}
	if _, err := os.Stat(m.folder(n)); !os.IsNotExist(err) {
		t.Errorf("left on disk: %v", err)
	}
}

func TestInterfaceOfSomebodyElseIsNotTouched(t *testing.T) {
	m := newTestManager(t, t.TempDir(), "c1")
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br1"}}))
	theirs, err := netlink.LinkByName("br1")
	must(t, err)
	t.Cleanup(func() { netlink.LinkDel(theirs) })
	n := bridge("br1", nil)
	if err := m.Create(t.Context(), n); !errors.Is(err, api.Conflict) || !strings.Contains(err.Error(), `Network interface "br1" already exists`) {
		t.Errorf("create: %v", err)
	}
	must(t, m.Delete(t.Context(), n))
	if link, _ := find("br1"); link == nil {
		t.Error("somebody else's bridge was removed")
	}
}

func TestMembersOfOneClusterShareABridgeAndOthersDoNot(t *testing.T) {
	one := newTestManager(t, t.TempDir(), "c1")
	two := newTestManager(t, t.TempDir(), "c1")
	other := newTestManager(t, t.TempDir(), "c2")
	n := bridge("br2", nil)
	create(t, one, n)
	must(t, two.Create(t.Context(), n))
	if err := other.Create(t.Context(), n); !errors.Is(err, api.Conflict) {
		t.Errorf("another cluster's: %v", err)
	}
	must(t, other.Delete(t.Context(), n))
	must(t, two.Delete(t.Context(), n))
	must(t, one.Delete(t.Context(), n))
	if link, _ := find("br2"); link != nil {
		t.Error("the bridge is still there")
	}
}

func TestBridgeIsStillOursWhenTheClusterIsAnother(t *testing.T) {
	owner := "alone"
	needNamespace(t)
	m := New(Config{Dir: t.TempDir(), Owner: func() string { return owner }, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { m.Close() })
	n := bridge("br3", nil)
	create(t, m, n)
	owner = "cluster"
	must(t, m.Delete(t.Context(), n))
	if link, _ := find("br3"); link != nil {
		t.Error("the bridge is still there")
	}
}

func TestHalfABridgeIsCompletedOrRemoved(t *testing.T) {
	m := newTestManager(t, t.TempDir(), "c1")
	for name, finish := range map[string]func(Network) error{
		"br4": func(n Network) error { return m.Create(t.Context(), n) },
		"br5": func(n Network) error { return m.Delete(t.Context(), n) },
	} {
		n := bridge(name, nil)
		must(t, m.writeFile(n, markFile, m.mark(n)))
		must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: m.draftName(n)}})) // and then it was cut off
		must(t, finish(n))
		t.Cleanup(func() { _ = m.Delete(context.Background(), n) })
	}
	if addresses(t, "br4") != "10.77.0.1/24" {
		t.Error("it was not completed")
	}
	for _, n := range []Network{bridge("br4", nil), bridge("br5", nil)} {
		if link, _ := find(m.draftName(n)); link != nil {
			t.Error("a draft was not removed")
		}
	}
	if link, _ := find("br5"); link != nil {
		t.Error("it was not removed")
	}
}

func TestPortsComeAndGo(t *testing.T) {
	m := newTestManager(t, t.TempDir(), "c1")
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "p0"}, PeerName: "p1"}))
	t.Cleanup(func() {
		if link, _ := find("p0"); link != nil {
			netlink.LinkDel(link)
		}
	})
	n := bridge("br6", map[string]string{"bridge.external_interfaces": "p0, p1"})
	create(t, m, n)
	if s, _ := m.State("br6"); len(s.Bridge.UpperDevices) == 0 {
		// In a namespace whose /sys is another one's, only the kernel's own word counts.
		port, err := netlink.LinkByName("p0")
		must(t, err)
		if !isPortOf(port, "br6") {
			t.Error("p0 is no port")
		}
	}
	next := bridge("br6", map[string]string{"bridge.external_interfaces": "p1"})
	must(t, m.Update(t.Context(), n, next))
	port, err := netlink.LinkByName("p0")
	must(t, err)
	if port.Attrs().MasterIndex != 0 {
		t.Error("p0 is still a port")
	}
	must(t, m.Delete(t.Context(), next))
	if link, _ := find("p1"); link == nil || link.Attrs().MasterIndex != 0 {
		t.Error("a port went with the bridge, or is still one")
	}
	for _, wrong := range []string{"nothere", "lo"} {
		if err := m.Check(t.Context(), bridge("br7", map[string]string{"bridge.external_interfaces": wrong})); wrong == "nothere" && !errors.Is(err, api.ConfigInvalid) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	must(t, netlink.AddrAdd(port, parse(t, "192.0.2.9/24")))
	if err := m.Check(t.Context(), bridge("br7", map[string]string{"bridge.external_interfaces": "p0"})); !errors.Is(err, api.ConfigInvalid) || !strings.Contains(err.Error(), "192.0.2.9") {
		t.Errorf("an interface with an address: %v", err)
	}
}

func parse(t *testing.T, cidr string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(cidr)
	must(t, err)
	return a
}

func TestUpdateIsMadeWithoutTakingTheBridgeAway(t *testing.T) {
	m := newTestManager(t, t.TempDir(), "c1")
	n := bridge("br8", nil)
	create(t, m, n)
	before, err := netlink.LinkByName("br8")
	must(t, err)
	next := bridge("br8", map[string]string{"ipv4.address": "10.78.0.1/24", "bridge.mtu": "1300", "ipv4.nat": "false"})
	must(t, m.Update(t.Context(), n, next))
	after, err := netlink.LinkByName("br8")
	must(t, err)
	if after.Attrs().Index != before.Attrs().Index || after.Attrs().MTU != 1300 || addresses(t, "br8") != "10.78.0.1/24" {
		t.Errorf("index %d, was %d; MTU %d; %s", after.Attrs().Index, before.Attrs().Index, after.Attrs().MTU, addresses(t, "br8"))
	}
	if strings.Contains(rules(t), "br8") {
		t.Error("NAT was not ended")
	}
	renamed := next
	renamed.Name = "br9"
	must(t, m.Update(t.Context(), next, renamed))
	t.Cleanup(func() { _ = m.Delete(context.Background(), renamed) })
	if old, _ := find("br8"); old != nil || addresses(t, "br9") != "10.78.0.1/24" {
		t.Error("it was not renamed")
	}
}

func TestNATOfEachNetworkIsItsOwn(t *testing.T) {
	m := newTestManager(t, t.TempDir(), "c1")
	one, two := bridge("nat-1", nil), bridge("nat.2", map[string]string{"ipv4.address": "10.79.0.1/24"})
	create(t, m, one)
	create(t, m, two)
	must(t, m.Start(t.Context(), one))
	if r := rules(t); strings.Count(r, "ip saddr 10.77.0.0/24 ip daddr != 10.77.0.0/24 masquerade") != 1 || !strings.Contains(r, "10.79.0.0/24") {
		t.Errorf("%s", r)
	}
	must(t, m.Delete(t.Context(), one))
	if r := rules(t); strings.Contains(r, "10.77.0.0") || !strings.Contains(r, "10.79.0.0/24") {
		t.Errorf("%s", r)
	}
	must(t, m.Delete(t.Context(), two))
	if r := rules(t); strings.Contains(r, "incus") {
		t.Errorf("%s", r)
	}
}

func TestBridgeAnswersDNSAndOutlivesAKilledDaemon(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	m := newTestManager(t, dir, "c1")
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		t.Skip("dnsmasq is not installed")
	}
	n := bridge("br10", map[string]string{"ipv4.address": "10.80.0.1/24"})
	create(t, m, n)
	answers(t, "10.80.0.1")
	must(t, m.Close())
	// What a daemon that was killed has left: a server that nobody watches.
	args, err := m.serverArgs(n)
	must(t, err)
	left := exec.Command("dnsmasq", args...)
	must(t, left.Start())
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	answers(t, "10.80.0.1")
	next := newTestManager(t, dir, "c1")
	must(t, next.Start(t.Context(), n))
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("what was left goes on")
	}
	answers(t, "10.80.0.1")
	leases, err := next.Leases(n)
	must(t, err)
	if len(leases) != 1 || leases[0].Type != "gateway" || leases[0].Address != "10.80.0.1" {
		t.Errorf("%+v", leases)
	}
}

// answers waits until the DNS server there knows its own name.
func answers(t *testing.T, server string) {
	t.Helper()
	// A question for _gateway.incus, type A.
	question := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08_gateway\x05incus\x00\x00\x01\x00\x01")
	deadline := time.Now().Add(20 * time.Second)
	var last error
	for time.Now().Before(deadline) {
		last = ask(server, question)
		if last == nil {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Fatalf("the DNS server does not answer: %v", last)
}

func ask(server string, question []byte) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	conn, err := net.Dial("udp", server+":53")
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write(question); err != nil {
		return err
	}
	answer := make([]byte, 512)
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if n < 12 || answer[7] == 0 {
		return fmt.Errorf("an answer without an address: %x", answer[:n])
	}
	return nil
}

func TestParentMustBeThere(t *testing.T) {
	m := newTestManager(t, t.TempDir(), "c1")
	for kind, want := range map[string]string{"physical": "doesn't exist", "macvlan": "doesn't exist", "sriov": "doesn't exist"} {
		if err := m.Check(t.Context(), Network{Type: kind, Config: map[string]string{"parent": "eth9"}}); !errors.Is(err, api.ConfigInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, err)
		}
		if err := m.Check(t.Context(), Network{Type: kind}); !errors.Is(err, api.ConfigInvalid) || !strings.Contains(err.Error(), "parent") {
			t.Errorf("%s without parent: %v", kind, err)
		}
	}
	must(t, m.Create(t.Context(), Network{ID: "m", Name: "m", Type: "macvlan", Config: map[string]string{"parent": "lo"}}))
	if err := m.Check(t.Context(), Network{Type: "sriov", Config: map[string]string{"parent": "lo"}}); !errors.Is(err, api.ConfigInvalid) || !strings.Contains(err.Error(), "SR-IOV") {
		t.Errorf("sriov on lo: %v", err)
	}
}

func TestNewBridgeGetsASubnetThatNobodyHas(t *testing.T) {
	m := newTestManager(t, t.TempDir(), "c1")
	got, err := m.FillIn("bridge", map[string]string{"ipv4.address": "auto", "ipv6.address": "none"})
	must(t, err)
	ip, subnet, err := net.ParseCIDR(got["ipv4.address"])
	if err != nil || ip[12] != 10 || ip[15] != 1 || got["ipv4.nat"] != "true" || got["ipv6.address"] != "none" || got["ipv6.nat"] != "" {
		t.Errorf("%v, %v", got, err)
	}
	_, wide, _ := net.ParseCIDR("10.0.0.0/8")
	_, everything, _ := net.ParseCIDR("0.0.0.0/0")
	if !overlaps(wide, subnet) || overlaps(everything, subnet) || overlaps(nil, subnet) {
		t.Error("which routes are in the way is judged wrongly")
	}
	if got, _ := m.FillIn("physical", map[string]string{"parent": "eth0"}); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestInterfacesOfTheMachineAreListed(t *testing.T) {
	m := newTestManager(t, t.TempDir(), "c1")
	all, err := m.Interfaces()
	must(t, err)
	for _, n := range all {
		if n.Name == "lo" && n.Type == "loopback" && !n.Managed && n.Config != nil && n.UsedBy != nil {
			return
		}
	}
	t.Errorf("%+v", all)
}

func TestLeasesAreRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := New(Config{Dir: dir})
	n := bridge("br0", nil)
	must(t, os.MkdirAll(m.folder(n), 0o755))
	must(t, os.WriteFile(filepath.Join(m.folder(n), leaseFile), []byte(
		"1700000000 00:16:3e:01:02:03 10.77.0.5 web 01:00:16:3e:01:02:03\n1700000000 00:16:3e:01:02:04 10.77.0.6 * *\nduid 00:01\nrubbish\n"), 0o600))
	leases, err := m.Leases(n)
	must(t, err)
	if len(leases) != 3 || leases[1] != (api.NetworkLease{Hostname: "web", Hwaddr: "00:16:3e:01:02:03", Address: "10.77.0.5", Type: "dynamic"}) || leases[2].Hostname != "" {
		t.Errorf("%+v", leases)
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"ipv4.address=10.0.0.0/24": "network's own address", "ipv4.address=10.0.0.1/31": "no address for anybody else", "ipv4.address=fd42::1/64": "no IPv4 address",
		"ipv4.address=10.0.0.1": "no IPv4 address", "bridge.mtu=12": "no number from", "bridge.hwaddr=x": "no MAC address", "ipv4.nat=perhaps": "no boolean",
		"ipv4.dhcp.ranges=10.0.0.2": "no range", "tunnel.a.protocol=gre": "tunnels are not supported", "security.acls=x": "would not be enforced",
		"parent=eth0": `Invalid option for network "br0" option "parent"`, "bridge.driver=openvswitch": "not supported", "bridge.external_interfaces=a/b": "cannot be an interface's name",
	} {
		key, value, _ := strings.Cut(text, "=")
		if _, err := Validate("bridge", "br0", map[string]string{key: value}); !errors.Is(err, api.ConfigInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	got, err := Validate("bridge", "br0", map[string]string{"ipv4.nat": "YES", "ipv4.address": "auto", "ipv6.address": "none", "user.a": "b", "dns.mode": ""})
	if err != nil || fmt.Sprint(got) != "map[ipv4.address:auto ipv4.nat:true ipv6.address:none user.a:b]" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Validate("ovn", "br0", nil); !errors.Is(err, api.DriverUnavailable) {
		t.Errorf("ovn: %v", err)
	}
	for name, ok := range map[string]bool{"br0": true, "none": false, "a": false, "abcdefghijklmnop": false, "a:b": false, "..": false} {
		if err := ValidateName("bridge", name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	for key, want := range map[string]bool{"parent": true, "bridge.external_interfaces": true, "tunnel.a.local": true, "tunnel.a.protocol": false, "ipv4.address": false} {
		if MemberSpecific("bridge", key) != want {
			t.Errorf("%s is a member's own: %v", key, !want)
		}
	}
}

func TestMembersThatShareABridgeDoNotGetInEachOthersWay(t *testing.T) {
	var members []*Manager
	for range 4 {
		members = append(members, newTestManager(t, t.TempDir(), "c1"))
	}
	n := bridge("br11", map[string]string{"ipv4.address": "10.81.0.1/24"})
	all := func(do func(*Manager) error) {
		t.Helper()
		errs := make(chan error, len(members))
		for _, m := range members {
			go func() { errs <- do(m) }()
		}
		for range members {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	}
	for range 3 {
		all(func(m *Manager) error { return m.Create(t.Context(), n) })
		all(func(m *Manager) error { return m.Delete(t.Context(), n) })
	}
	if link, _ := find("br11"); link != nil || strings.Contains(rules(t), "br11") {
		t.Error("something is left")
	}
}

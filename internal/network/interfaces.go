package network

import (
	"bufio"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"incusd/api"
)

// Interfaces lists this machine's interfaces as networks that are not managed, by name.
func (m *Manager) Interfaces() ([]api.Network, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, explain(err)
	}
	out := make([]api.Network, 0, len(links))
	for _, link := range links {
		out = append(out, api.Network{
			NetworkPut: api.NetworkPut{Config: api.ConfigMap{}}, Name: link.Attrs().Name, Type: typeOf(link), UsedBy: []string{},
		})
	}
	slices.SortFunc(out, func(a, b api.Network) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// typeOf is the protocol's word for a kind of interface.
func typeOf(link netlink.Link) string {
	switch {
	case link.Attrs().Flags&net.FlagLoopback != 0:
		return "loopback"
	case slices.Contains([]string{"bridge", "vlan", "bond"}, link.Type()):
		return link.Type()
	}
	if _, err := os.Stat("/sys/class/net/" + link.Attrs().Name + "/device"); err == nil {
		return "physical"
	}
	return "unknown"
}

// State tells what the interface of that name is doing: api.NotFound if there is none.
func (m *Manager) State(name string) (*api.NetworkState, error) {
	link, err := find(name)
	if err != nil {
		return nil, explain(err)
	}
	if link == nil {
		return nil, api.Errorf(api.NotFound, "Network interface %q not found", name)
	}
	attrs := link.Attrs()
	s := &api.NetworkState{
		Addresses: []api.NetworkStateAddress{}, Hwaddr: attrs.HardwareAddr.String(), MTU: attrs.MTU, State: "down", Type: "unknown",
	}
	if attrs.Flags&net.FlagUp != 0 {
		s.State = "up"
	}
	switch {
	case attrs.Flags&net.FlagLoopback != 0:
		s.Type = "loopback"
	case attrs.Flags&net.FlagPointToPoint != 0:
		s.Type = "point-to-point"
	case attrs.Flags&net.FlagBroadcast != 0:
		s.Type = "broadcast"
	}
	if c := attrs.Statistics; c != nil {
		s.Counters = api.NetworkStateCounters{
			BytesReceived: int64(c.RxBytes), BytesSent: int64(c.TxBytes), PacketsReceived: int64(c.RxPackets), PacketsSent: int64(c.TxPackets),
			ErrorsReceived: int64(c.RxErrors), ErrorsSent: int64(c.TxErrors),
			PacketsDroppedInbound: int64(c.RxDropped), PacketsDroppedOutbound: int64(c.TxDropped),
		}
	}
	addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, explain(err)
	}
	for _, a := range addresses {
		s.Addresses = append(s.Addresses, stateAddress(a.IPNet))
	}
	if link.Type() == "bridge" {
		s.Bridge = bridgeState(name)
	}
	return s, nil
}

func stateAddress(n *net.IPNet) api.NetworkStateAddress {
	length, _ := n.Mask.Size()
	a := api.NetworkStateAddress{Family: "inet", Address: n.IP.String(), Netmask: strconv.Itoa(length), Scope: "global"}
	if n.IP.To4() == nil {
		a.Family = "inet6"
	}
	switch {
	case n.IP.IsLoopback():
		a.Scope = "local"
	case n.IP.IsLinkLocalUnicast():
		a.Scope = "link"
	}
	return a
}

// bridgeState reads what the kernel tells of a bridge.
func bridgeState(name string) *api.NetworkStateBridge {
	read := func(key string) string {
		data, _ := os.ReadFile("/sys/class/net/" + name + "/bridge/" + key) // what it does not tell stays empty
		return strings.TrimSpace(string(data))
	}
	number := func(key string) uint64 {
		n, _ := strconv.ParseUint(read(key), 10, 64)
		return n
	}
	b := &api.NetworkStateBridge{
		ID: read("bridge_id"), STP: read("stp_state") == "1", ForwardDelay: number("forward_delay"), VLANDefault: number("default_pvid"),
		VLANFiltering: read("vlan_filtering") == "1", UpperDevices: []string{},
	}
	ports, _ := filepath.Glob("/sys/class/net/" + name + "/brif/*")
	for _, port := range ports {
		b.UpperDevices = append(b.UpperDevices, filepath.Base(port))
	}
	return b
}

// Leases lists the addresses that the network has given on this machine, and its own.
func (m *Manager) Leases(n Network) ([]api.NetworkLease, error) {
	leases := []api.NetworkLease{}
	if n.Type != "bridge" {
		return leases, nil
	}
	for _, key := range []string{"ipv4.address", "ipv6.address"} {
		if ip, _, err := net.ParseCIDR(address(n, key)); err == nil {
			leases = append(leases, api.NetworkLease{Hostname: n.Name + ".gw", Address: ip.String(), Type: "gateway"})
		}
	}
	file, err := os.Open(filepath.Join(m.folder(n), leaseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return leases, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if lease, ok := parseLease(lines.Text()); ok {
			leases = append(leases, lease)
		}
	}
	return leases, lines.Err()
}

// parseLease reads a line of dnsmasq's: expiry, hardware address or identifier, address, name, client.
func parseLease(line string) (api.NetworkLease, bool) {
	words := strings.Fields(line)
	if len(words) < 5 || net.ParseIP(words[2]) == nil {
		return api.NetworkLease{}, false
	}
	lease := api.NetworkLease{Address: words[2], Type: "dynamic"}
	if mac, err := net.ParseMAC(words[1]); err == nil {
		lease.Hwaddr = mac.String()
	}
	if words[3] != "*" {
		lease.Hostname = words[3]
	}
	return lease, true
}

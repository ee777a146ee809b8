package network

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"incusd/api"
)

// Types lists the types of networks that can be made.
func Types() []string { return slices.Sorted(maps.Keys(keys)) }

// A rule checks a value and returns it in the form to store.
type rule func(value string) (string, error)

// keys are the options of each type.
var keys = map[string]map[string]rule{
	"bridge": {
		"bridge.driver": oneOf("native"), "bridge.external_interfaces": interfaces, "bridge.hwaddr": mac, "bridge.mtu": mtu,
		"dns.domain": text, "dns.mode": oneOf("none", "managed", "dynamic"), "dns.nameservers": text, "dns.search": text,
		"ipv4.address": cidr(4), "ipv4.dhcp": boolean, "ipv4.dhcp.expiry": text, "ipv4.dhcp.gateway": ip(4), "ipv4.dhcp.ranges": ranges(4),
		"ipv4.dhcp.routes": text, "ipv4.firewall": boolean, "ipv4.nat": boolean, "ipv4.nat.address": ip(4),
		"ipv4.nat.order": oneOf("before", "after"), "ipv4.routes": text, "ipv4.routing": boolean, "ipv4.ovn.ranges": ranges(4),
		"ipv6.address": cidr(6), "ipv6.dhcp": boolean, "ipv6.dhcp.expiry": text, "ipv6.dhcp.ranges": ranges(6), "ipv6.dhcp.stateful": boolean,
		"ipv6.firewall": boolean, "ipv6.nat": boolean, "ipv6.nat.address": ip(6), "ipv6.nat.order": oneOf("before", "after"),
		"ipv6.routes": text, "ipv6.routing": boolean, "ipv6.ovn.ranges": ranges(6),
		"bgp.ipv4.nexthop": ip(4), "bgp.ipv6.nexthop": ip(6), "raw.dnsmasq": anyText,
	},
	"macvlan": {"parent": interfaceName, "mtu": mtu, "vlan": vlan, "gvrp": boolean},
	"physical": {
		"parent": interfaceName, "mtu": mtu, "vlan": vlan, "gvrp": boolean, "ipv4.gateway": cidr(4), "ipv6.gateway": cidr(6),
		"ipv4.routes": text, "ipv6.routes": text, "ipv4.ovn.ranges": ranges(4), "ipv6.ovn.ranges": ranges(6), "dns.nameservers": text,
		"bgp.ipv4.nexthop": ip(4), "bgp.ipv6.nexthop": ip(6),
	},
	"sriov": {"parent": interfaceName, "mtu": mtu, "vlan": vlan},
}

// refused are options that would promise what this daemon does not do.
var refused = map[string]string{
	"security.acls": "network ACLs are not supported, so the rules would not be enforced",
	"tunnel.":       "tunnels are not supported",
	"bgp.peers.":    "BGP is not supported",
	"fan.":          "fan networking is not supported",
}

// ValidateName checks that a bridge's name can be an interface's, and refuses what is reserved. It
// fails with api.NameInvalid.
func ValidateName(kind, name string) error {
	invalid := func(format string, args ...any) error {
		return api.Errorf(api.NameInvalid, "Invalid network name: "+format, args...).
			WithHint("use 2 to 15 letters, digits, dots, dashes and underscores, with a letter or digit at both ends")
	}
	switch {
	case name == "none":
		return api.Errorf(api.NameInvalid, "Invalid network name: %q is reserved", name).WithHint("choose another name")
	case kind != "bridge":
		return nil
	case len(name) < 2:
		return invalid("Network interface is too short (minimum 2 characters)")
	case len(name) > 15:
		return invalid("Network interface is too long (maximum 15 characters)")
	}
	if err := checkInterfaceName(name); err != nil {
		return invalid("%v", err)
	}
	return nil
}

func checkInterfaceName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 15 || strings.ContainsAny(name, "/: \t\r\n\x00") {
		return fmt.Errorf("%q cannot be an interface's name", name)
	}
	return nil
}

// Validate checks the keys and values of the configuration of the network called name against the
// schema of its type, without looking at the machine, and returns them in the form to store. It fails with
// api.ConfigInvalid, or api.DriverUnavailable for a type that is known and not offered.
func Validate(kind, name string, config map[string]string) (map[string]string, error) {
	schema, ok := keys[kind]
	switch {
	case kind == "ovn":
		return nil, api.Errorf(api.DriverUnavailable, "Network type %q isn't available: OVN is not supported by this daemon", kind).WithHint("use one of %s", strings.Join(Types(), ", "))
	case !ok:
		return nil, api.Errorf(api.ConfigInvalid, "Invalid network type %q; use one of %s", kind, strings.Join(Types(), ", "))
	}
	out := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(config)) {
		check, ok := schema[key]
		switch {
		case strings.HasPrefix(key, "user."), strings.HasPrefix(key, "volatile."):
			check = anyText
		case !ok:
			return nil, unknown(name, key)
		}
		if config[key] == "" {
			continue
		}
		value, err := check(config[key])
		if err != nil {
			return nil, api.Errorf(api.ConfigInvalid, "Invalid value for network %q option %q: %v", name, key, err)
		}
		out[key] = value
	}
	return out, nil
}

func unknown(name, key string) error {
	for prefix, why := range refused {
		if strings.HasPrefix(key, prefix) {
			return api.Errorf(api.ConfigInvalid, "Invalid option for network %q option %q: %s", name, key, why)
		}
	}
	return api.Errorf(api.ConfigInvalid, "Invalid option for network %q option %q", name, key).WithHint("see docs/networks.md for the options of each type; your own begin with user.")
}

// MemberSpecific tells whether a key of a network's configuration is each member's own.
func MemberSpecific(_, key string) bool {
	if slices.Contains([]string{"parent", "bridge.external_interfaces", "bgp.ipv4.nexthop", "bgp.ipv6.nexthop"}, key) {
		return true
	}
	return strings.HasPrefix(key, "tunnel.") && (strings.HasSuffix(key, ".interface") || strings.HasSuffix(key, ".local"))
}

// FillIn gives a new bridge the addresses that "auto" and nothing stand for, which this machine does
// not use, and the NAT that goes with them. The result is stored.
func (m *Manager) FillIn(kind string, config map[string]string) (map[string]string, error) {
	out := maps.Clone(config)
	if kind != "bridge" {
		return out, nil
	}
	if out == nil {
		out = map[string]string{}
	}
	for family, choose := range map[string]func() string{"ipv4": random4, "ipv6": random6} {
		key := family + ".address"
		if out[key] != "" && out[key] != "auto" {
			continue
		}
		if family == "ipv6" && !hasIPv6() {
			out[key] = "none"
			continue
		}
		subnet, err := unused(choose)
		if err != nil {
			return nil, err
		}
		out[key] = subnet
		if out[family+".nat"] == "" {
			out[family+".nat"] = "true"
		}
	}
	return out, nil
}

func hasIPv6() bool {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && strings.TrimSpace(string(off)) == "0"
}

func random4() string { return fmt.Sprintf("10.%d.%d.1/24", rand.IntN(256), rand.IntN(256)) }

func random6() string {
	return fmt.Sprintf("fd42:%x:%x:%x::1/64", rand.IntN(1<<16), rand.IntN(1<<16), rand.IntN(1<<16))
}

// unused chooses until the machine has no route or address in the subnet.
func unused(choose func() string) (string, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return "", explain(err)
	}
	for range 1000 {
		candidate := choose()
		_, subnet, err := net.ParseCIDR(candidate)
		if err != nil {
			return "", err
		}
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return overlaps(r.Dst, subnet) }) {
			return candidate, nil
		}
	}
	return "", api.Errorf(api.Conflict, "No subnet is free on this machine").WithHint("give the addresses yourself: ipv4.address=10.0.0.1/24")
}

func overlaps(route, subnet *net.IPNet) bool {
	if route == nil {
		return false
	}
	if ones, _ := route.Mask.Size(); ones == 0 {
		return false
	}
	return route.Contains(subnet.IP) || subnet.Contains(route.IP)
}

func text(value string) (string, error) {
	if strings.ContainsAny(value, "\x00\r\n") {
		return "", fmt.Errorf("it has control characters")
	}
	return value, nil
}

func anyText(value string) (string, error) { return value, nil }

func boolean(value string) (string, error) {
	on, ok := api.ParseBool(value)
	if !ok {
		return "", fmt.Errorf("%q is no boolean", value)
	}
	return strconv.FormatBool(on), nil
}

func oneOf(values ...string) rule {
	return func(value string) (string, error) {
		if !slices.Contains(values, value) {
			return "", fmt.Errorf("%q is not supported; use %s", value, strings.Join(values, ", "))
		}
		return value, nil
	}
}

func between(value string, least, most int) (string, error) {
	if n, err := strconv.Atoi(value); err != nil || n < least || n > most {
		return "", fmt.Errorf("%q is no number from %d to %d", value, least, most)
	}
	return value, nil
}

func mtu(value string) (string, error) { return between(value, 68, 65535) }

func vlan(value string) (string, error) { return between(value, 1, 4094) }

func mac(value string) (string, error) {
	parsed, err := net.ParseMAC(value)
	if err != nil || len(parsed) != 6 {
		return "", fmt.Errorf("%q is no MAC address", value)
	}
	return parsed.String(), nil
}

func interfaceName(value string) (string, error) { return value, checkInterfaceName(value) }

func interfaces(value string) (string, error) {
	for _, name := range fields(value) {
		if err := checkInterfaceName(name); err != nil {
			return "", err
		}
	}
	return value, nil
}

func isFamily(ip net.IP, version int) bool { return ip != nil && (ip.To4() != nil) == (version == 4) }

func ip(version int) rule {
	return func(value string) (string, error) {
		if !isFamily(net.ParseIP(value), version) {
			return "", fmt.Errorf("%q is no IPv%d address", value, version)
		}
		return value, nil
	}
}

// cidr is an address of a host with the length of its network's prefix, or "auto", or "none".
func cidr(version int) rule {
	return func(value string) (string, error) {
		if value == "auto" || value == "none" {
			return value, nil
		}
		address, subnet, err := net.ParseCIDR(value)
		if err != nil || !isFamily(address, version) {
			return "", fmt.Errorf("%q is no IPv%d address with a prefix, such as %s", value, version, map[int]string{4: "10.0.0.1/24", 6: "fd42::1/64"}[version])
		}
		if ones, bits := subnet.Mask.Size(); bits-ones < 2 {
			return "", fmt.Errorf("%q leaves no address for anybody else", value)
		}
		if address.Equal(subnet.IP) {
			return "", fmt.Errorf("%q is the network's own address; give that of the bridge, such as %s", value, subnet.IP.String()+" + 1")
		}
		return value, nil
	}
}

func ranges(version int) rule {
	return func(value string) (string, error) {
		for _, r := range fields(value) {
			first, last, ok := strings.Cut(r, "-")
			if !ok || !isFamily(net.ParseIP(first), version) || !isFamily(net.ParseIP(last), version) {
				return "", fmt.Errorf("%q is no range of IPv%d addresses, such as FIRST-LAST", r, version)
			}
		}
		return value, nil
	}
}

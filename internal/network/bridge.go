package network

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"

	"incusd/api"
)

// markFile holds the mark of the bridge that this daemon has made, or is about to make.
const markFile = "mark"

// mark is the alias of a bridge of ours.
func (m *Manager) mark(n Network) string {
	return fmt.Sprintf("incus:%s/%s/%s", m.cfg.Owner(), n.Project, n.Name)
}

// isOurs tells whether a link is the bridge of this network: it carries the cluster's mark, or
// the one that is noted here.
func (m *Manager) isOurs(link netlink.Link, n Network) bool {
	if link.Type() != "bridge" {
		return false
	}
	noted, err := os.ReadFile(filepath.Join(m.folder(n), markFile))
	alias := link.Attrs().Alias
	return alias == m.mark(n) || err == nil && alias != "" && alias == string(noted)
}

// startBridge makes the bridge, if it is not there, and all about it as the network says.
func (m *Manager) startBridge(ctx context.Context, n Network) error {
	if err := m.writeFile(n, markFile, m.mark(n)); err != nil {
		return err
	}
	link, err := find(n.Name)
	if err != nil {
		return err
	}
	if link == nil {
		if link, err = m.makeLink(n); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetAlias(link, m.mark(n)); err != nil {
		return fmt.Errorf("mark the bridge: %w", err)
	}
	for _, step := range []func() error{
		func() error { return setMTU(link, n.Config["bridge.mtu"]) },
		func() error { return quietIPv6(n) },
		func() error { return setAddresses(link, n) },
		func() error { return netlink.LinkSetUp(link) },
		func() error { return m.attach(link, n) },
		func() error { return forward(n) },
		func() error { return m.nat(ctx, n) },
		func() error { return m.serve(n) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// makeLink makes the bridge under a name of its own, marks it, and then gives it the real name: so
// that nobody ever sees it there without its mark. Another member that shares it may come first.
func (m *Manager) makeLink(n Network) (netlink.Link, error) {
	if err := m.removeDraft(n); err != nil {
		return nil, err
	}
	draft := m.draftName(n)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: draft, HardwareAddr: hardwareAddress(n)}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("make the bridge: %w", err)
	}
	link, err := netlink.LinkByName(draft)
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetAlias(link, m.mark(n)); err != nil {
		return nil, fmt.Errorf("mark the bridge: %w", err)
	}
	if err := netlink.LinkSetName(link, n.Name); errors.Is(err, syscall.EEXIST) {
		if err := errors.Join(m.removeDraft(n), m.check(n)); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, fmt.Errorf("name the bridge: %w", err)
	}
	return netlink.LinkByName(n.Name)
}

// draftName is the bridge's while it is made: no other daemon has this folder.
func (m *Manager) draftName(n Network) string {
	sum := sha256.Sum256([]byte(m.folder(n)))
	return fmt.Sprintf("i%x", sum[:6])
}

// removeDraft removes a bridge whose making was cut off.
func (m *Manager) removeDraft(n Network) error {
	link, err := find(m.draftName(n))
	if err != nil || link == nil {
		return err
	}
	return netlink.LinkDel(link)
}

// hardwareAddress is the one that the network gives, or one that follows from its ID, so that it
// is the same after every start.
func hardwareAddress(n Network) net.HardwareAddr {
	if given, err := net.ParseMAC(n.Config["bridge.hwaddr"]); err == nil {
		return given
	}
	sum := sha256.Sum256([]byte(n.ID))
	return net.HardwareAddr{0x10, 0x66, 0x6a, sum[0], sum[1], sum[2]}
}

func setMTU(link netlink.Link, text string) error {
	if text == "" {
		return nil
	}
	mtu, err := strconv.Atoi(text)
	if err != nil || link.Attrs().MTU == mtu {
		return err
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set the MTU of %s to %d: %w", link.Attrs().Name, mtu, err)
	}
	return nil
}

// quietIPv6 keeps the machine from taking addresses or routes from its own bridge, and IPv6 off
// a bridge that has none.
func quietIPv6(n Network) error {
	off := "0"
	if address(n, "ipv6.address") == "" {
		off = "1"
	}
	for key, value := range map[string]string{"accept_ra": "0", "autoconf": "0", "disable_ipv6": off} {
		if err := sysctl("net/ipv6/conf/"+n.Name+"/"+key, value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func sysctl(key, value string) error {
	path := "/proc/sys/" + key
	if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0)
}

// address is the CIDR of a family's key; "" if the network has none.
func address(n Network, key string) string {
	if a := n.Config[key]; a != "none" {
		return a
	}
	return ""
}

// setAddresses gives the bridge its addresses and takes others away.
func setAddresses(link netlink.Link, n Network) error {
	var wanted []string
	for _, key := range []string{"ipv4.address", "ipv6.address"} {
		if a := address(n, key); a != "" {
			wanted = append(wanted, a)
		}
	}
	now, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, a := range now {
		if text := a.IPNet.String(); slices.Contains(wanted, text) {
			wanted = slices.DeleteFunc(wanted, func(s string) bool { return s == text })
		} else if !a.IP.IsLinkLocalUnicast() {
			if err := netlink.AddrDel(link, &a); err != nil {
				return err
			}
		}
	}
	for _, text := range wanted {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		a.Flags = 0x02 // IFA_F_NODAD: it is this bridge's, nobody else can have it
		if err := netlink.AddrReplace(link, a); err != nil {
			return fmt.Errorf("give %s the address %s: %w", n.Name, text, err)
		}
	}
	return nil
}

// ports are the interfaces of the machine that belong to the bridge.
func ports(n Network) []string { return fields(n.Config["bridge.external_interfaces"]) }

// checkPorts refuses interfaces that cannot be ports.
func (m *Manager) checkPorts(n Network) error {
	for _, name := range ports(n) {
		link, err := find(name)
		switch {
		case err != nil:
			return err
		case link == nil:
			return api.Errorf(api.ConfigInvalid, "External interface %q doesn't exist on this member", name)
		case isPortOf(link, n.Name):
			continue
		case link.Attrs().MasterIndex != 0:
			return api.Errorf(api.ConfigInvalid, "External interface %q belongs to another bridge or bond", name)
		}
		addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addresses {
			if a.IP.IsGlobalUnicast() {
				return api.Errorf(api.ConfigInvalid, "Only unconfigured network interfaces can be bridged: %q has the address %s", name, a.IPNet)
			}
		}
	}
	return nil
}

func isPortOf(link netlink.Link, bridge string) bool {
	master, err := netlink.LinkByName(bridge)
	return err == nil && link.Attrs().MasterIndex == master.Attrs().Index
}

func (m *Manager) attach(bridge netlink.Link, n Network) error {
	for _, name := range ports(n) {
		port, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("external interface %q: %w", name, err)
		}
		if err := errors.Join(netlink.LinkSetMaster(port, bridge), netlink.LinkSetUp(port)); err != nil {
			return fmt.Errorf("make %s a port of %s: %w", name, n.Name, err)
		}
	}
	return nil
}

// detach ends what attach did, for interfaces that are still there.
func (m *Manager) detach(names []string, bridge string) error {
	for _, name := range names {
		port, err := find(name)
		if err != nil {
			return err
		}
		if port == nil || !isPortOf(port, bridge) {
			continue
		}
		if err := netlink.LinkSetNoMaster(port); err != nil {
			return fmt.Errorf("take %s out of %s: %w", name, bridge, err)
		}
	}
	return nil
}

// forward lets the machine route for networks that have an address.
func forward(n Network) error {
	for key, path := range map[string]string{"ipv4": "net/ipv4/ip_forward", "ipv6": "net/ipv6/conf/all/forwarding"} {
		if address(n, key+".address") == "" || n.Config[key+".routing"] == "false" {
			continue
		}
		if err := sysctl(path, "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("let the machine route %s: %w", key, err)
		}
	}
	return nil
}

// removeBridge removes the bridge, if it is ours, and what goes with it.
func (m *Manager) removeBridge(ctx context.Context, n Network) error {
	if s, ok := m.servers[n.ID]; ok {
		s.stop()
		delete(m.servers, n.ID)
	}
	if err := errors.Join(m.endLeftover(n), m.removeDraft(n)); err != nil {
		return err
	}
	link, err := find(n.Name)
	if err != nil {
		return err
	}
	ours := link != nil && m.isOurs(link, n)
	if link == nil {
		_, err := os.Stat(filepath.Join(m.folder(n), markFile))
		ours = err == nil // it went without us, or an earlier removal was cut off
	}
	if ours {
		if err := m.removeNAT(ctx, n); err != nil {
			return err
		}
	}
	if ours && link != nil {
		if err := m.detach(ports(n), n.Name); err != nil {
			return err
		}
		// Another member that shares it may just have done so.
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, syscall.ENODEV) {
			return fmt.Errorf("remove the bridge: %w", err)
		}
	}
	return os.RemoveAll(m.folder(n))
}

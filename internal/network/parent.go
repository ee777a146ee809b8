package network

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"incusd/api"
)

// checkParent refuses a network whose interface is not there, or cannot be used that way.
func checkParent(n Network) error {
	parent := n.Config["parent"]
	if parent == "" {
		return api.Errorf(api.ConfigInvalid, "A network of type %q needs the key %q: an interface of the member", n.Type, "parent")
	}
	link, err := find(parent)
	if err != nil {
		return err
	}
	if link == nil {
		return api.Errorf(api.ConfigInvalid, "Parent interface %q doesn't exist on this member", parent)
	}
	if n.Type != "sriov" {
		return nil
	}
	total, err := os.ReadFile("/sys/class/net/" + parent + "/device/sriov_totalvfs")
	if err != nil || strings.TrimSpace(string(total)) == "0" {
		return api.Errorf(api.ConfigInvalid, "Parent interface %q has no SR-IOV virtual functions", parent)
	}
	return nil
}

// vlanLink is the interface of a VLAN above the parent; "" if the network has none.
func vlanLink(n Network) string {
	if n.Config["vlan"] == "" {
		return ""
	}
	return n.Config["parent"] + "." + n.Config["vlan"]
}

// useParent makes the parent what the network says.
func useParent(n Network) error {
	parent, err := netlink.LinkByName(n.Config["parent"])
	if err != nil {
		return err
	}
	if n.Type == "physical" {
		if err := setMTU(parent, n.Config["mtu"]); err != nil {
			return err
		}
	}
	name := vlanLink(n)
	if name == "" || n.Type != "physical" {
		return nil
	}
	if link, err := find(name); err != nil || link != nil {
		return err
	}
	id, err := strconv.Atoi(n.Config["vlan"])
	if err != nil {
		return err
	}
	vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: name, ParentIndex: parent.Attrs().Index, Alias: vlanMark(n)}, VlanId: id}
	if err := netlink.LinkAdd(vlan); err != nil {
		return fmt.Errorf("make the VLAN interface %s: %w", name, err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetAlias(link, vlanMark(n)); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func vlanMark(n Network) string { return "incus:" + n.ID }

// leaveParent removes the VLAN interface that useParent made.
func leaveParent(n Network) error {
	name := vlanLink(n)
	if name == "" {
		return nil
	}
	link, err := find(name)
	if err != nil || link == nil || link.Attrs().Alias != vlanMark(n) {
		return err
	}
	return netlink.LinkDel(link)
}

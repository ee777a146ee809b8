package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

func (a *app) networks() *noun[api.Network, api.NetworkPut] {
	return &noun[api.Network, api.NetworkPut]{
		app: a, path: "network", words: "network", argument: "<network>", targets: true,
		example: "incusbr0", pair: "ipv4.address=10.1.2.1/24",
		sample:  "description: For the web servers\nconfig:\n  ipv4.address: 10.1.2.1/24\n  ipv4.nat: \"true\"\n",
		deleted: "Network %s deleted", renamed: "Network %s renamed to %s",
		get:         (*client.Client).Network,
		put:         (*client.Client).UpdateNetwork,
		delete:      (*client.Client).DeleteNetwork,
		rename:      (*client.Client).RenameNetwork,
		part:        func(n *api.Network) *api.NetworkPut { return &n.NetworkPut },
		config:      func(n *api.NetworkPut) *api.ConfigMap { return &n.Config },
		description: func(n *api.NetworkPut) *string { return &n.Description },
		names: func(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
			networks, err := c.Networks(ctx, false)
			return namesOf(networks, func(n api.Network) string { return n.Name }), err
		},
	}
}

func (a *app) networkCommand() *cobra.Command {
	cmds := append([]*cobra.Command{a.networkCreateCommand(), a.networkListCommand(), a.networkInfoCommand(), a.networkLeasesCommand(),
		a.networkAttachCommand(), a.networkDetachCommand()}, a.networks().common()...)
	return parent("network", "Manage networks", cmds...)
}

func (a *app) networkCreateCommand() *cobra.Command {
	var target, description, kind string
	cmd := &cobra.Command{
		Use:   "create [<remote>:]<network> [<key>=<value>...]",
		Short: "Create a network",
		Long:  "Create a network." + fmt.Sprintf(twoSteps, "parent"),
		Example: "  incus network create incusbr0 ipv4.address=10.1.2.1/24\n\n" +
			"  incus network create uplink --type physical parent=eth1 --target server1\n" +
			"  incus network create uplink --type physical parent=eth0 --target server2\n" +
			"  incus network create uplink --type physical",
		Args:              argCount(1, -1),
		ValidArgsFunction: a.completeArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			put, err := a.networks().fresh(args[1:], description)
			if err != nil {
				return err
			}
			if c, err = aim(cmd.Context(), c, target); err != nil {
				return err
			}
			if err := c.CreateNetwork(cmd.Context(), api.NetworksPost{NetworkPut: put, Name: name, Type: kind}); err != nil {
				return err
			}
			a.sayMade("Network", name, target)
			return nil
		},
	}
	a.networks().describe(cmd, &description)
	cmd.Flags().StringVarP(&kind, "type", "t", "", "Make a network of this `TYPE`: bridge (if none is given), macvlan, physical or sriov")
	mustComplete(cmd, "type", cobra.FixedCompletions([]string{"bridge", "macvlan", "physical", "sriov"}, cobra.ShellCompDirectiveNoFileComp))
	a.targetFlag(cmd, &target)
	return cmd
}

func networkColumns(table.Format) []column[api.Network] {
	return []column[api.Network]{
		{'e', "PROJECT", func(n api.Network) string { return n.Project }},
		{'n', "NAME", func(n api.Network) string { return n.Name }},
		{'t', "TYPE", func(n api.Network) string { return n.Type }},
		{'m', "MANAGED", func(n api.Network) string { return yesOrNo(n.Managed) }},
		{'4', "IPV4", func(n api.Network) string { return n.Config["ipv4.address"] }},
		{'6', "IPV6", func(n api.Network) string { return n.Config["ipv6.address"] }},
		{'d', "DESCRIPTION", func(n api.Network) string { return n.Description }},
		{'u', "USED BY", func(n api.Network) string { return strconv.Itoa(len(n.UsedBy)) }},
		{'s', "STATE", func(n api.Network) string { return strings.ToUpper(n.Status) }},
	}
}

func (a *app) networkListCommand() *cobra.Command {
	var flags listFlags
	var target string
	cmd := &cobra.Command{
		Use:     "list [<remote>:]",
		Aliases: []string{"ls"},
		Short:   "List the networks, and the interfaces of a member",
		Long: "List the networks, and the interfaces of the member that answers or that --target names.\n\n" +
			"The state is ERRORED if one of the members could not make the network; \"incus network show\" says why.\n\n" +
			columnHelp(networkColumns(table.Format{})),
		Example: "  incus network list\n  incus network list --all-projects\n  incus network list -c ns -f csv --target server2",
		Args:    argCount(0, 1),
		RunE: listAll(a, &flags, networkColumns, func(ctx context.Context, c *client.Client) ([]api.Network, error) {
			c, err := aim(ctx, c, target)
			if err != nil {
				return nil, err
			}
			return c.Networks(ctx, flags.allProjects)
		}),
	}
	flags.add(cmd, "ntm46dus")
	flags.addProjects(cmd)
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) networkInfoCommand() *cobra.Command {
	cmd := a.networks().onMember("info [<remote>:]<network>", "Show what a network or interface is doing", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			network, _, err := c.Network(ctx, name)
			if err != nil {
				return err
			}
			trouble := network.Message != "" || network.Managed && network.Status != api.EntityCreated
			state, err := c.NetworkState(ctx, name)
			if err != nil && !trouble {
				return err
			}
			fmt.Fprintf(a.stdout, "Name: %s\n", name)
			if trouble {
				fmt.Fprintf(a.stdout, "Status: %s\n", network.Status)
			}
			if network.Message != "" {
				fmt.Fprintf(a.stdout, "Message: %s\n", network.Message)
			}
			if err != nil { // what could not be made does nothing
				return err
			}
			a.printNetworkState(state)
			return nil
		})
	cmd.Long = cmd.Short + " on the member that answers, or on the one that --target names."
	cmd.Example = "  incus network info incusbr0\n  incus network info eth0 --target server2"
	return cmd
}

func (a *app) printNetworkState(s *api.NetworkState) {
	fmt.Fprintf(a.stdout, "MAC address: %s\nMTU: %d\nState: %s\nType: %s\n", s.Hwaddr, s.MTU, s.State, s.Type)
	if len(s.Addresses) > 0 {
		fmt.Fprintln(a.stdout, "\nIP addresses:")
		for _, addr := range s.Addresses {
			fmt.Fprintf(a.stdout, "  %s\t%s/%s (%s)\n", addr.Family, addr.Address, addr.Netmask, addr.Scope)
		}
	}
	fmt.Fprintf(a.stdout, "\nNetwork usage:\n  Bytes received: %s\n  Bytes sent: %s\n  Packets received: %d\n  Packets sent: %d\n",
		formatSize(uint64(max(s.Counters.BytesReceived, 0))), formatSize(uint64(max(s.Counters.BytesSent, 0))), s.Counters.PacketsReceived, s.Counters.PacketsSent)
	if b := s.Bridge; b != nil {
		fmt.Fprintf(a.stdout, "\nBridge:\n  ID: %s\n  STP: %t\n  Forward delay: %d\n  Default VLAN ID: %d\n  VLAN filtering: %t\n  Upper devices: %s\n",
			b.ID, b.STP, b.ForwardDelay, b.VLANDefault, b.VLANFiltering, strings.Join(b.UpperDevices, ", "))
	}
}

func leaseColumns(table.Format) []column[api.NetworkLease] {
	return []column[api.NetworkLease]{
		{'h', "HOSTNAME", func(l api.NetworkLease) string { return l.Hostname }},
		{'m', "MAC ADDRESS", func(l api.NetworkLease) string { return l.Hwaddr }},
		{'i', "IP ADDRESS", func(l api.NetworkLease) string { return l.Address }},
		{'t', "TYPE", func(l api.NetworkLease) string { return strings.ToUpper(l.Type) }},
		{'L', "LOCATION", func(l api.NetworkLease) string { return l.Location }},
	}
}

func (a *app) networkLeasesCommand() *cobra.Command {
	var flags listFlags
	cmd := a.networks().command("list-leases [<remote>:]<network>", "List the addresses that a network has given", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			list, err := newListing(flags, leaseColumns)
			if err != nil {
				return err
			}
			leases, err := c.NetworkLeases(ctx, name)
			if err != nil {
				return err
			}
			return list.print(a, leases)
		})
	flags.add(cmd, "hmitL")
	cmd.Long = cmd.Short + ", on all members.\n\n" + columnHelp(leaseColumns(table.Format{}))
	cmd.Example = "  incus network list-leases incusbr0"
	return cmd
}

func (a *app) networkAttachCommand() *cobra.Command {
	cmd := a.networks().command("attach-profile [<remote>:]<network> <profile> [<device>] [<interface>]", "Attach a network to a profile", 2, 4,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			profile, device, wanted := args[0], name, api.ConfigMap{}
			if len(args) > 1 {
				device = args[1]
			}
			if len(args) > 2 {
				wanted["name"] = args[2]
			}
			network, _, err := c.Network(ctx, name)
			if err != nil {
				return err
			}
			maps.Copy(wanted, nicOn(network))
			if err := addDevice(ctx, c, profile, device, wanted); err != nil {
				return err
			}
			a.say("Device %s added to %s", device, profile)
			return nil
		})
	cmd.Long = "Attach a network to a profile, as a device that is called <device>, or like the network.\n\n" +
		"<interface> is what the interface is called in the instance."
	cmd.Example = "  incus network attach-profile incusbr0 default eth0 eth0"
	cmd.ValidArgsFunction = a.completeArgs(a.networks().names, a.profiles().names)
	return cmd
}

// nicOn is the device that attaches to a network. An interface that is not managed has no
// network to name, only itself.
func nicOn(n *api.Network) api.ConfigMap {
	switch {
	case n.Managed:
		return api.ConfigMap{"type": "nic", "network": n.Name}
	case n.Type == "bridge":
		return api.ConfigMap{"type": "nic", "nictype": "bridged", "parent": n.Name}
	}
	return api.ConfigMap{"type": "nic", "nictype": "macvlan", "parent": n.Name}
}

func (a *app) networkDetachCommand() *cobra.Command {
	cmd := a.networks().command("detach-profile [<remote>:]<network> <profile> [<device>]", "Detach a network from a profile", 2, 3,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			profile, device := args[0], ""
			err := changeDevices(ctx, c, profile, func(devices map[string]api.ConfigMap) error {
				var err error
				if device, err = attached(devices, name, args[1:]); err == nil {
					delete(devices, device)
				}
				return err
			})
			if err == nil {
				a.say("Device %s removed from %s", device, profile)
			}
			return err
		})
	cmd.Example = "  incus network detach-profile incusbr0 default\n  incus network detach-profile incusbr0 default eth0"
	cmd.ValidArgsFunction = a.completeArgs(a.networks().names, a.profiles().names)
	return cmd
}

// attached finds the device that attaches to a network: the one that named names, or else the
// only one.
func attached(devices map[string]api.ConfigMap, network string, named []string) (string, error) {
	on := func(device string) bool {
		d := devices[device]
		return d["type"] == "nic" && (d["network"] == network || d["parent"] == network)
	}
	if len(named) > 0 {
		device := named[0]
		switch _, ok := devices[device]; {
		case !ok:
			return "", noDevice(device)
		case !on(device):
			return "", api.Errorf(api.BadRequest, "Device %q is not on network %q", device, network)
		}
		return device, nil
	}
	found := slices.DeleteFunc(slices.Sorted(maps.Keys(devices)), func(device string) bool { return !on(device) })
	switch len(found) {
	case 0:
		return "", api.Errorf(api.NotFound, "No device found for network %q", network).WithHint("see incus profile device show")
	case 1:
		return found[0], nil
	}
	return "", api.Errorf(api.BadRequest, "More than one device is on network %q: %s", network, strings.Join(found, ", ")).
		WithHint("name one of them as the last argument")
}

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

func (a *app) networks() *noun[api.Network, api.NetworkPut] {
	return &noun[api.Network, api.NetworkPut]{
		app: a, words: "network", argument: "<network>", targets: true, deleted: "Network %s deleted", renamed: "Network %s renamed to %s",
		get: func(ctx context.Context, c *client.Client, name string) (*api.Network, string, error) {
			return c.Network(ctx, name)
		},
		put: func(ctx context.Context, c *client.Client, name string, put api.NetworkPut, etag string) error {
			return c.UpdateNetwork(ctx, name, put, etag)
		},
		delete: func(ctx context.Context, c *client.Client, name string) error { return c.DeleteNetwork(ctx, name) },
		rename: func(ctx context.Context, c *client.Client, name, to string) error {
			return c.RenameNetwork(ctx, name, to)
		},
		part:        func(n *api.Network) *api.NetworkPut { return &n.NetworkPut },
		config:      func(n *api.NetworkPut) *api.ConfigMap { return &n.Config },
		description: func(n *api.NetworkPut) *string { return &n.Description },
		complete: a.completeNames(func(ctx context.Context, c *client.Client) ([]string, error) {
			networks, err := c.Networks(ctx, false)
			return namesOf(networks, func(n api.Network) string { return n.Name }), err
		}),
	}
}

func (a *app) networkCommand() *cobra.Command {
	cmds := append([]*cobra.Command{a.networkCreateCommand(), a.networkListCommand(), a.networkInfoCommand(), a.networkLeasesCommand()}, a.networks().common()...)
	return parent("network", "Manage networks", cmds...)
}

func (a *app) networkCreateCommand() *cobra.Command {
	var target, description, kind string
	cmd := &cobra.Command{
		Use:   "create [<remote>:]<network> [<key>=<value>...]",
		Short: "Create a network",
		Long: "Create a network.\n\nIn a cluster of several members this takes two steps: once for each member with --target\n" +
			"and the keys that are its own, such as parent, and then once without --target.\n" +
			"Where a member could not make it, the last command again lets it try again.",
		Example: "  incus network create incusbr0 ipv4.address=10.1.2.1/24\n\n" +
			"  incus network create uplink --type physical parent=eth1 --target server1",
		Args: argCount(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			put, err := newObject(a, args[1:], description, func(p *api.NetworkPut) (*api.ConfigMap, *string) { return &p.Config, &p.Description })
			if err != nil {
				return err
			}
			if c, err = aim(cmd.Context(), c, target); err != nil {
				return err
			}
			if err := c.CreateNetwork(cmd.Context(), api.NetworksPost{NetworkPut: put, Name: name, Type: kind}); err != nil {
				return err
			}
			if target != "" {
				a.say("Network %s pending on member %s", name, target)
			} else {
				a.say("Network %s created", name)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "Describe the network as `TEXT`")
	cmd.Flags().StringVarP(&kind, "type", "t", "", "Make a network of this `TYPE`: bridge (if none is given), macvlan, physical, sriov")
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
	var all bool
	var target string
	cmd := &cobra.Command{
		Use: "list [<remote>:]", Aliases: []string{"ls"}, Short: "List the networks, and the interfaces of a member",
		Long: "List the networks, and the interfaces of a member.\n\n" + columnHelp(networkColumns(table.Format{})), Args: argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all && !strings.Contains(flags.columns, "e") {
				flags.columns = "e" + flags.columns
			}
			list, err := newListing(flags, networkColumns)
			if err != nil {
				return err
			}
			c, err := a.onlyRemote(args)
			if err != nil {
				return err
			}
			if c, err = aim(cmd.Context(), c, target); err != nil {
				return err
			}
			networks, err := c.Networks(cmd.Context(), all)
			if err != nil {
				return err
			}
			return list.print(a, networks)
		},
	}
	flags.add(cmd, "ntm46dus")
	cmd.Flags().BoolVar(&all, "all-projects", false, "List those of all projects")
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) networkInfoCommand() *cobra.Command {
	return a.networks().command("info [<remote>:]<network>", "Show what a network or interface is doing", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			state, err := c.NetworkState(ctx, name)
			if err != nil {
				return err
			}
			a.printNetworkState(name, state)
			return nil
		})
}

func (a *app) printNetworkState(name string, s *api.NetworkState) {
	fmt.Fprintf(a.stdout, "Name: %s\nMAC address: %s\nMTU: %d\nState: %s\nType: %s\n", name, s.Hwaddr, s.MTU, s.State, s.Type)
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
	return cmd
}

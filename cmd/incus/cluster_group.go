package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

func (a *app) clusterGroups() *noun[api.ClusterGroup, api.ClusterGroupPut] {
	return &noun[api.ClusterGroup, api.ClusterGroupPut]{
		app: a, path: "cluster group", words: "cluster group", argument: "<group>",
		example: "gpu", pair: "user.owner=jane",
		sample:      "description: Those with a graphics card\nmembers: [server1, server3]\nconfig:\n  user.owner: jane\n",
		renamed:     "Cluster group %s renamed to %s",
		missing:     "The key %q does not exist on cluster group %q",
		get:         (*client.Client).ClusterGroup,
		put:         (*client.Client).UpdateClusterGroup,
		rename:      (*client.Client).RenameClusterGroup,
		part:        func(g *api.ClusterGroup) *api.ClusterGroupPut { return &g.ClusterGroupPut },
		config:      func(g *api.ClusterGroupPut) *api.ConfigMap { return &g.Config },
		description: func(g *api.ClusterGroupPut) *string { return &g.Description },
		names:       groupNames,
	}
}

func groupNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	groups, err := c.ClusterGroups(ctx)
	return namesOf(groups, func(g api.ClusterGroup) string { return g.Name }), err
}

func memberNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	members, err := c.Members(ctx, "")
	return namesOf(members, func(m api.ClusterMember) string { return m.ServerName }), err
}

func (a *app) clusterGroupCommand() *cobra.Command {
	n := a.clusterGroups()
	return parent("group", "Manage groups of members",
		a.groupListCommand(), a.groupCreateCommand(), n.showCommand(), n.getCommand(), n.setCommand(), n.unsetCommand(), n.editCommand(),
		n.renameCommand(), a.groupDeleteCommand(), a.groupAssignCommand(), a.groupAddCommand(), a.groupRemoveCommand())
}

func groupColumns(table.Format) []column[api.ClusterGroup] {
	return []column[api.ClusterGroup]{
		{'n', "NAME", func(g api.ClusterGroup) string { return g.Name }},
		{'d', "DESCRIPTION", func(g api.ClusterGroup) string { return g.Description }},
		{'m', "MEMBERS", func(g api.ClusterGroup) string { return strconv.Itoa(len(g.Members)) }},
	}
}

func (a *app) groupListCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:     "list [<remote>:]",
		Aliases: []string{"ls"},
		Short:   "List the cluster groups",
		Long:    "List the cluster groups.\n\n" + columnHelp(groupColumns(table.Format{})),
		Example: "  incus cluster group list\n  incus cluster group list -c nm -f csv",
		Args:    argCount(0, 1),
		RunE: listAll(a, &flags, groupColumns, func(ctx context.Context, c *client.Client) ([]api.ClusterGroup, error) {
			if err := requireCluster(ctx, c); err != nil {
				return nil, err
			}
			return c.ClusterGroups(ctx)
		}),
	}
	flags.add(cmd, "ndm")
	return cmd
}

func (a *app) groupCreateCommand() *cobra.Command {
	var description string
	n := a.clusterGroups()
	cmd := &cobra.Command{
		Use:   "create [<remote>:]<group>",
		Short: "Create a cluster group",
		Long: "Create a cluster group.\n\n" +
			"When stdin is no terminal, description, members and configuration are read from there as YAML.",
		Example: "  incus cluster group create gpu --description \"Those with a graphics card\"\n" +
			"  incus cluster group create gpu < gpu.yaml",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			put, err := n.fresh(nil, description)
			if err != nil {
				return err
			}
			if err := c.CreateClusterGroup(cmd.Context(), api.ClusterGroupsPost{ClusterGroupPut: put, Name: name}); err != nil {
				return err
			}
			a.say("Cluster group %s created", name)
			return nil
		},
	}
	n.describe(cmd, &description)
	return cmd
}

// groupDeleteCommand deletes one after the other, and stops at the first that cannot be.
func (a *app) groupDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "delete [<remote>:]<group>...",
		Aliases: []string{"rm"},
		Short:   "Delete cluster groups",
		Long: "Delete cluster groups.\n\nA group with members stays: take them out first with \"incus cluster group remove\". So does one that the\n" +
			"restricted.cluster.groups of a project names; \"incus cluster group show\" lists those in used_by.",
		Example:           "  incus cluster group delete gpu",
		Args:              argCount(1, -1),
		ValidArgsFunction: a.completeArgs(groupNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				c, name, err := a.server(arg)
				if err != nil {
					return err
				}
				if err := c.DeleteClusterGroup(cmd.Context(), name); err != nil {
					return err
				}
				a.say("Cluster group %s deleted", name)
			}
			return nil
		},
	}
}

// manyGroups is for how many groups of one member the shell offers words.
const manyGroups = 16

func (a *app) groupAssignCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "assign [<remote>:]<member> <group>...",
		Aliases: []string{"apply"},
		Short:   "Put a member into these groups, and out of all others",
		Long:    "Put a member into these groups, and out of all others.\n\nCommas may separate groups, too.",
		Example: "  incus cluster group assign server1 default gpu",
		Args:    argCount(2, -1),
		ValidArgsFunction: a.completeArgs(append([]argLister{memberNames},
			slices.Repeat([]argLister{groupNames}, manyGroups)...)...),
		RunE: func(cmd *cobra.Command, args []string) error {
			var groups []string
			for _, arg := range args[1:] {
				groups = append(groups, strings.FieldsFunc(arg, func(r rune) bool { return r == ',' })...)
			}
			name, err := a.changeMember(cmd.Context(), args[0], func(m *api.ClusterMemberPut, _ string) error {
				m.Groups = groups
				return nil
			})
			if err != nil {
				return err
			}
			a.say("Cluster member %s added to cluster groups %v", name, groups)
			return nil
		},
	}
}

func (a *app) groupAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "add [<remote>:]<member> <group>",
		Short:             "Put a member into a group",
		Example:           "  incus cluster group add server1 gpu",
		Args:              argCount(2, 2),
		ValidArgsFunction: a.completeArgs(memberNames, groupNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.changeMember(cmd.Context(), args[0], func(m *api.ClusterMemberPut, name string) error {
				if slices.Contains(m.Groups, args[1]) {
					return fmt.Errorf("Cluster member %s is already in group %s", name, args[1])
				}
				m.Groups = append(m.Groups, args[1])
				return nil
			})
			if err != nil {
				return err
			}
			a.say("Cluster member %s added to group %s", name, args[1])
			return nil
		},
	}
}

func (a *app) groupRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "remove [<remote>:]<member> <group>",
		Short:             "Take a member out of a group",
		Example:           "  incus cluster group remove server1 gpu",
		Args:              argCount(2, 2),
		ValidArgsFunction: a.completeArgs(memberNames, groupNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.changeMember(cmd.Context(), args[0], func(m *api.ClusterMemberPut, name string) error {
				at := slices.Index(m.Groups, args[1])
				if at < 0 {
					return fmt.Errorf("Cluster group %s isn't currently applied to %s", args[1], name)
				}
				m.Groups = slices.Delete(m.Groups, at, at+1)
				return nil
			})
			if err != nil {
				return err
			}
			a.say("Cluster member %s removed from group %s", name, args[1])
			return nil
		},
	}
}

// changeMember changes the member named "[remote:]member" as it is, anew if somebody else changes it
// meanwhile, and returns the name.
func (a *app) changeMember(ctx context.Context, arg string, change func(m *api.ClusterMemberPut, name string) error) (string, error) {
	c, name, err := a.server(arg)
	if err != nil {
		return "", err
	}
	return name, retryStale(func() error {
		member, etag, err := c.Member(ctx, name)
		if err != nil {
			return err
		}
		if err := change(&member.ClusterMemberPut, name); err != nil {
			return err
		}
		return c.UpdateMember(ctx, name, member.ClusterMemberPut, etag)
	})
}

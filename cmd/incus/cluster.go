package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

func (a *app) clusterCommand() *cobra.Command {
	return parent("cluster", "Manage the members of the cluster",
		a.clusterListCommand(), a.clusterShowCommand(), a.clusterInfoCommand(), a.clusterDoctorCommand(),
		a.clusterGetCommand(), a.clusterSetCommand(), a.clusterUnsetCommand(), a.clusterEditCommand(),
		a.clusterRenameCommand(), a.clusterRoleCommand(), a.clusterGroupCommand(),
		a.clusterEvacuateCommand(), a.clusterRestoreCommand(),
		a.clusterEnableCommand(), a.clusterJoinCommand(), a.clusterAddCommand(), a.clusterListTokensCommand(), a.clusterRevokeTokenCommand(),
		a.clusterRemoveCommand(), a.clusterReplaceCommand(),
		a.clusterUpdateCertificateCommand(), a.clusterRotateKeyCommand())
}

// requireCluster fails unless the server is a member of a cluster.
func requireCluster(ctx context.Context, c *client.Client) error {
	cluster, _, err := c.Cluster(ctx)
	if err != nil {
		return err
	}
	if !cluster.Enabled {
		return refuse(api.NotClustered, "Server isn't part of a cluster")
	}
	return nil
}

// member connects to the server of "[remote:]member", checks that it is clustered,
// and returns the name.
func (a *app) member(ctx context.Context, arg string) (*client.Client, string, error) {
	c, name, err := a.server(arg)
	if err != nil {
		return nil, "", err
	}
	return c, name, requireCluster(ctx, c)
}

func memberColumns(f table.Format) []column[api.ClusterMember] {
	return []column[api.ClusterMember]{
		{'n', "NAME", func(m api.ClusterMember) string { return m.ServerName }},
		{'u', "URL", func(m api.ClusterMember) string { return m.URL }},
		{'r', "ROLES", func(m api.ClusterMember) string { return strings.Join(m.Roles, f.Separator()) }},
		{'a', "ARCHITECTURE", func(m api.ClusterMember) string { return m.Architecture }},
		{'f', "FAILURE DOMAIN", func(m api.ClusterMember) string { return m.FailureDomain }},
		{'d', "DESCRIPTION", func(m api.ClusterMember) string { return m.Description }},
		{'s', "STATUS", func(m api.ClusterMember) string { return strings.ToUpper(m.Status) }},
		{'m', "MESSAGE", func(m api.ClusterMember) string { return m.Message }},
	}
}

func (a *app) clusterListCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:     "list [<remote>:] [<filter>...]",
		Aliases: []string{"ls"},
		Short:   "List the members",
		Long: "List the members.\n\nA filter is the start of a name, or key=value with a key of \"incus cluster show\"\n" +
			"or one of the member's configuration.\n\n" + columnHelp(append(memberColumns(table.Format{}), memberHealth{}.columns(a.date)...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			health := memberHealth{}
			extra := health.columns(a.date)
			list, err := newListing(flags, func(f table.Format) []column[api.ClusterMember] { return append(memberColumns(f), extra...) })
			if err != nil {
				return err
			}
			c, filters, err := a.leadingRemote(args)
			if err != nil {
				return err
			}
			if err := requireCluster(cmd.Context(), c); err != nil {
				return err
			}
			members, err := c.Members(cmd.Context(), memberFilter(filters))
			if err != nil {
				return err
			}
			if list.shows(extra) {
				if err := health.fetch(cmd.Context(), c); err != nil {
					return err
				}
			}
			return list.print(a, members)
		},
	}
	flags.add(cmd, "nurafdsm")
	cmd.Flags().Bool("all-projects", false, "Has no effect: members belong to no project")
	return cmd
}

// memberFilter writes the filters of a command line in the language of the API.
// Several names are alternatives; all else must hold together.
func memberFilter(args []string) string {
	var names, clauses []string
	for _, arg := range args {
		key, value, isPair := strings.Cut(arg, "=")
		if !isPair {
			names = append(names, fmt.Sprintf("^%s$|^%s.*", arg, arg))
			continue
		}
		if !slices.Contains(memberFields(), key) {
			key = "config." + key
		}
		if strings.ContainsAny(value, " \t") || value == "" {
			value = `"` + value + `"`
		}
		clauses = append(clauses, key+" eq "+value)
	}
	if len(names) > 0 {
		clauses = append([]string{"server_name eq (" + strings.Join(names, "|") + ")"}, clauses...)
	}
	return strings.Join(clauses, " and ")
}

// memberFields are the names of a member's fields on the wire.
func memberFields() []string {
	var names []string
	for _, t := range []reflect.Type{reflect.TypeFor[api.ClusterMemberPut](), reflect.TypeFor[api.ClusterMember]()} {
		for i := range t.NumField() {
			if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

func (a *app) clusterShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show [<remote>:]<member>",
		Short:             "Show a member",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			member, _, err := c.Member(cmd.Context(), name)
			if err != nil {
				return err
			}
			return table.WriteYAML(a.stdout, member)
		},
	}
}

func (a *app) clusterInfoCommand() *cobra.Command {
	var withRaft bool
	cmd := &cobra.Command{
		Use:               "info [<remote>:]<member>",
		Short:             "Show how the machine of a member is doing",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.member(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if withRaft {
				return a.showRaft(cmd.Context(), c, name)
			}
			state, err := c.MemberState(cmd.Context(), name)
			if err != nil {
				return err
			}
			return table.WriteYAML(a.stdout, state)
		},
	}
	cmd.Flags().BoolVar(&withRaft, "raft", false, "Show the member's part in the replicated store, too; also of one that is offline")
	return cmd
}

// propertyFlag adds --property to a command that reads or writes keys of a member.
func propertyFlag(cmd *cobra.Command, property *bool) {
	cmd.Flags().BoolVarP(property, "property", "p", false,
		"The key is a property (description, failure_domain, groups or roles), not a configuration key")
}

// property prints one of a member's properties, lists as upstream does.
func property(m *api.ClusterMemberPut, name, key string) (string, error) {
	switch key {
	case "description":
		return m.Description, nil
	case "failure_domain":
		return m.FailureDomain, nil
	case "groups":
		return fmt.Sprint(m.Groups), nil
	case "roles":
		return fmt.Sprint(m.Roles), nil
	}
	return "", noProperty(name, key)
}

// setProperty changes one of a member's properties; lists are separated by commas.
func setProperty(m *api.ClusterMemberPut, name, key, value string) error {
	list := strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
	switch key {
	case "description":
		m.Description = value
	case "failure_domain":
		m.FailureDomain = value
	case "groups":
		m.Groups = list
	case "roles":
		m.Roles = list
	default:
		return noProperty(name, key)
	}
	return nil
}

func noProperty(name, key string) error {
	return api.Errorf(api.BadRequest, "The property %q does not exist on the cluster member %q", key, name).
		WithHint("properties are description, failure_domain, groups and roles")
}

func (a *app) clusterGetCommand() *cobra.Command {
	var isProperty bool
	cmd := &cobra.Command{
		Use:               "get [<remote>:]<member> <key>",
		Short:             "Print a configuration key of a member",
		Args:              argCount(2, 2),
		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.member(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			member, _, err := c.Member(cmd.Context(), name)
			if err != nil {
				return err
			}
			value, found := member.Config[args[1]]
			switch {
			case isProperty:
				if value, err = property(&member.ClusterMemberPut, name, args[1]); err != nil {
					return err
				}
			case !found:
				return fmt.Errorf("The key %q does not exist on cluster member %q", args[1], name)
			}
			fmt.Fprintln(a.stdout, value)
			return nil
		},
	}
	propertyFlag(cmd, &isProperty)
	return cmd
}

func (a *app) clusterSetCommand() *cobra.Command {
	var isProperty bool
	cmd := &cobra.Command{
		Use:               "set [<remote>:]<member> <key>=<value>...",
		Short:             "Set configuration keys of a member",
		Args:              argCount(2, -1),
		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			values, err := a.keyValues(args[1:])
			if err != nil {
				return err
			}
			return a.setMember(cmd.Context(), args[0], values, isProperty)
		},
	}
	propertyFlag(cmd, &isProperty)
	return cmd
}

func (a *app) clusterUnsetCommand() *cobra.Command {
	var isProperty bool
	cmd := &cobra.Command{
		Use:               "unset [<remote>:]<member> <key>...",
		Short:             "Unset configuration keys of a member",
		Args:              argCount(2, -1),
		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := make(map[string]string)
			for _, key := range args[1:] {
				values[key] = ""
			}
			return a.setMember(cmd.Context(), args[0], values, isProperty)
		},
	}
	propertyFlag(cmd, &isProperty)
	return cmd
}

// setMember changes keys or properties of the member named "[remote:]member". An
// empty value unsets a key.
func (a *app) setMember(ctx context.Context, arg string, values map[string]string, isProperty bool) error {
	c, name, err := a.member(ctx, arg)
	if err != nil {
		return err
	}
	return retryStale(func() error {
		member, etag, err := c.Member(ctx, name)
		if err != nil {
			return err
		}
		if member.Config == nil {
			member.Config = api.ConfigMap{}
		}
		for key, value := range values {
			switch {
			case isProperty:
				if err := setProperty(&member.ClusterMemberPut, name, key, value); err != nil {
					return err
				}
			case value == "":
				delete(member.Config, key)
			default:
				member.Config[key] = value
			}
		}
		return c.UpdateMember(ctx, name, member.ClusterMemberPut, etag)
	})
}

// retryStale repeats change while somebody else changes the same object: every try
// reads it anew, so nothing of the other's is lost.
func retryStale(change func() error) error {
	const tries = 5
	for n := 1; ; n++ {
		if err := change(); n == tries || !errors.Is(err, api.PreconditionFail) {
			return err
		}
	}
}

const memberHelp = `### This is the writable part of a cluster member, as YAML.
### Lines that begin with # are ignored.
###
### A sample:
###   roles: [database]
###   failure_domain: rack1
###   description: The one beside the window
###   config:
###     user.owner: jane
###   groups: [default]
`

func (a *app) clusterEditCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "edit [<remote>:]<member>",
		Short:             "Edit a member as YAML",
		Long:              "Edit a member as YAML.\n\nWhen stdin is no terminal, the YAML is read from there.",
		Example:           "  incus cluster edit node1 < node1.yaml",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			member, etag, err := c.Member(ctx, name)
			if err != nil {
				return err
			}
			if !a.stdinTerminal {
				// What "incus cluster show" printed is taken, too: its other fields are
				// known, and ignored.
				return editObject(ctx, a, *member, memberHelp, func(m api.ClusterMember) error {
					return c.UpdateMember(ctx, name, m.ClusterMemberPut, "")
				})
			}
			return editObject(ctx, a, member.ClusterMemberPut, memberHelp, func(put api.ClusterMemberPut) error {
				return c.UpdateMember(ctx, name, put, etag)
			})
		},
	}
}

func (a *app) clusterRenameCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rename [<remote>:]<member> <new-name>",
		Aliases:           []string{"mv"},
		Short:             "Rename a member",
		Long:              "Rename a member.\n\nThe member need not be online: it takes its new name from the cluster.",
		Example:           "  incus cluster rename server1 rack1-left",
		Args:              argCount(2, 2),
		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			if err := c.RenameMember(cmd.Context(), name, args[1]); err != nil {
				return err
			}
			a.say("Member %s renamed to %s", name, args[1])
			return nil
		},
	}
}

func (a *app) clusterEnableCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "enable [<remote>:]<name>",
		Short: "Make this server the first member, called <name>, of a new cluster",
		Args:  argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			server, _, err := c.Server(ctx)
			if err != nil {
				return err
			}
			if server.Config["core.https_address"] == "" && server.Config["cluster.https_address"] == "" {
				return refuse(api.NoAddress, "This server is not available on the network")
			}
			cluster, etag, err := c.Cluster(ctx)
			if err != nil {
				return err
			}
			if cluster.Enabled {
				return errors.New("This server is already clustered")
			}
			op, err := c.UpdateCluster(ctx, api.ClusterPut{Cluster: api.Cluster{ServerName: name, Enabled: true}}, etag)
			if err != nil {
				return err
			}
			if _, err := a.await(ctx, c, op, "Enabling clustering"); err != nil {
				return err
			}
			a.say("Clustering enabled")
			return nil
		},
	}
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
)

func (a *app) clusterRoleCommand() *cobra.Command {
	return parent("role", "Manage what a member is there for", a.roleAddCommand(), a.roleRemoveCommand(), a.clusterRoleExplainCommand())
}

// givenRoles are the roles that an administrator gives; the others are the cluster's choice.
func givenRoles(context.Context, *client.Client, []string) ([]string, error) {
	return []string{api.RoleDatabaseClient, api.RoleEventHub, api.RoleOVNChassis}, nil
}

const roleHelp = "Roles are separated by commas: event-hub, ovn-chassis and database-client, which keeps a member from voting.\n" +
	"The roles database, database-standby and database-leader are the cluster's own choice."

func (a *app) roleAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "add [<remote>:]<member> <role>[,<role>...]",
		Aliases:           []string{"create"},
		Short:             "Give a member roles",
		Long:              "Give a member roles.\n\n" + roleHelp,
		Example:           "  incus cluster role add server1 event-hub",
		Args:              argCount(2, 2),
		ValidArgsFunction: a.completeArgs(memberNames, givenRoles),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := a.changeMember(cmd.Context(), args[0], func(m *api.ClusterMemberPut, name string) error {
				for role := range strings.SplitSeq(args[1], ",") {
					if slices.Contains(m.Roles, role) {
						return fmt.Errorf("Member %q already has role %q", name, role)
					}
					m.Roles = append(m.Roles, role)
				}
				return nil
			})
			return err
		},
	}
}

func (a *app) roleRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "remove [<remote>:]<member> <role>[,<role>...]",
		Aliases:           []string{"rm", "delete"},
		Short:             "Take roles from a member",
		Long:              "Take roles from a member.\n\n" + roleHelp,
		Example:           "  incus cluster role remove server1 event-hub",
		Args:              argCount(2, 2),
		ValidArgsFunction: a.completeArgs(memberNames, givenRoles),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := a.changeMember(cmd.Context(), args[0], func(m *api.ClusterMemberPut, name string) error {
				for role := range strings.SplitSeq(args[1], ",") {
					at := slices.Index(m.Roles, role)
					if at < 0 {
						return fmt.Errorf("Member %q does not have role %q", name, role)
					}
					m.Roles = slices.Delete(m.Roles, at, at+1)
				}
				return nil
			})
			return err
		},
	}
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/cmd/incus/internal/table"
)

func (a *app) clusterEvacuateCommand() *cobra.Command {
	cmd := a.maintenanceCommand("evacuate", "Evacuating cluster member")
	cmd.Use, cmd.Aliases = "evacuate [<remote>:]<member>", []string{"evac"}
	cmd.Short = "Take a member out of service"
	cmd.Long = "Take a member out of service, so that it can be worked on.\n\n" +
		"Another member gets its database role, if one can take it. It stays a member, and shows\nEVACUATED until it is restored."
	return cmd
}

func (a *app) clusterRestoreCommand() *cobra.Command {
	cmd := a.maintenanceCommand("restore", "Restoring cluster member")
	cmd.Use = "restore [<remote>:]<member>"
	cmd.Short = "Take an evacuated member back into service"
	return cmd
}

// maintenanceCommand is evacuate or restore, without its texts.
func (a *app) maintenanceCommand(action, title string) *cobra.Command {
	var mode string
	var force bool
	cmd := &cobra.Command{
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.member(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if !force {
				question := fmt.Sprintf("Are you sure you want to %s cluster member %q? (yes/no) [default=no]: ", action, name)
				if yes, err := a.prompter().yesNo(ctx, question, false); err != nil || !yes {
					return err
				}
			}
			op, err := c.UpdateMemberState(ctx, name, api.ClusterMemberStatePost{Action: action, Mode: mode})
			if err != nil {
				return err
			}
			ended, err := a.await(ctx, c, op, title)
			if err != nil {
				return err
			}
			if text, _ := ended.Metadata["evacuation_progress"].(string); text != "" && !a.quiet {
				fmt.Fprintln(a.stderr, text)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&mode, "action", "", "What becomes of instances; there are none yet")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not ask for a confirmation")
	return cmd
}

func (a *app) clusterRoleExplainCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:               "explain [<remote>:][<member>]",
		Short:             "Say why members have their database roles",
		Long:              "Say why members have their database roles, or are about to get others.\n\n" + columnHelp(roleColumns(table.Format{})),
		Args:              argCount(0, 1),
		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := newListing(flags, roleColumns)
			if err != nil {
				return err
			}
			arg := ""
			if len(args) > 0 {
				arg = args[0]
			}
			c, name, err := a.member(cmd.Context(), arg)
			if err != nil {
				return err
			}
			all, err := c.MemberRoles(cmd.Context())
			if err != nil {
				return err
			}
			shown := all[:0]
			for _, r := range all {
				if name == "" || r.ServerName == name {
					shown = append(shown, r)
				}
			}
			if len(shown) == 0 {
				return refuse(api.MemberNotFound, "Cluster member not found")
			}
			return list.print(a, shown)
		},
	}
	flags.add(cmd, "nrw")
	return cmd
}

func roleColumns(table.Format) []column[api.ClusterMemberRole] {
	return []column[api.ClusterMemberRole]{
		{'n', "NAME", func(r api.ClusterMemberRole) string { return r.ServerName }},
		{'r', "ROLE", func(r api.ClusterMemberRole) string { return r.Role }},
		{'l', "LEADER", func(r api.ClusterMemberRole) string { return yesOrNo(r.Leader) }},
		{'w', "WHY", func(r api.ClusterMemberRole) string { return r.Message }},
	}
}

func (a *app) transferLeaderCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "transfer-leader [[<remote>:]<member>]",
		Short: "Let another member lead: the one that is named, or any that can",
		Args:  argCount(0, 1),

		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			arg := ""
			if len(args) > 0 {
				arg = args[0]
			}
			c, name, err := a.member(cmd.Context(), arg)
			if err != nil {
				return err
			}
			leader, err := c.TransferLeader(cmd.Context(), name)
			if err != nil {
				return err
			}
			a.say("Member %s leads now", leader)
			return nil
		},
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
)

// lookInterval is how often a terminal is shown what a removal waits for.
const lookInterval = 500 * time.Millisecond

// forceWarning is the protocol's own, and then what the command line has always been true about.
const forceWarning = `Forcefully removing a server from the cluster should only be done as a last
resort.

The removed server will not be functional after this action and will require a
full reset, losing any remaining instance, image or storage volume that
the server may have held.

When possible, a graceful removal should be preferred, this will require you to
move any affected instance, image or storage volume to another server prior to
the server being cleanly removed from the cluster.

The --force flag should only be used if the server has died, been reinstalled
or is otherwise never expected to come back up.

Are you really sure you want to force removing %s? (yes/no): `

func (a *app) clusterRemoveCommand() *cobra.Command {
	var force, rotate, yes bool
	cmd := &cobra.Command{
		Use:     "remove [<remote>:]<member>",
		Aliases: []string{"rm", "delete"},
		Short:   "Remove a member from the cluster",
		Long: "Remove a member from the cluster.\n\nThe member hands over what it does for the cluster, and becomes an empty standalone\n" +
			"server. If it is dead for good, --force removes it as it is; should it come back, it\n" +
			"says that it was removed, and \"incus admin cluster reset\" makes it usable again.",
		Example:           "  incus cluster remove node3\n  incus cluster remove node3 --force",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if force && !yes {
				if err := a.confirm(ctx, fmt.Sprintf(forceWarning, name), "User aborted delete operation"); err != nil {
					return err
				}
			}
			err = a.watching(ctx, c, name, func(ctx context.Context) error { return c.RemoveMember(ctx, name, force, rotate) })
			if err != nil {
				return err
			}
			a.say("Member %s removed", name)
			if rotate {
				a.sayRotated(ctx, c)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Remove it although it is offline, or not empty")
	cmd.Flags().BoolVar(&rotate, "rotate-key", false, "Give the cluster another key afterwards, which the member does not have")
	cmd.Flags().BoolVar(&yes, "yes", false, "Do not ask")
	return cmd
}

// confirm fails with refusal unless the answer to question is a literal yes.
func (a *app) confirm(ctx context.Context, question, refusal string) error {
	answer, err := a.prompter().line(ctx, question)
	if err != nil {
		return err
	}
	if !strings.EqualFold(answer, "yes") {
		return errors.New(refusal)
	}
	return nil
}

// watching runs work, and shows a terminal meanwhile what the cluster says of the member.
func (a *app) watching(ctx context.Context, c *client.Client, name string, work func(context.Context) error) error {
	if !a.stderrTerminal || a.quiet {
		return work(ctx)
	}
	line := a.statusLine()
	defer line("")
	done := make(chan error, 1)
	go func() { done <- work(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(lookInterval):
		}
		short, cancel := context.WithTimeout(ctx, lookInterval)
		if m, _, err := c.Member(short, name); err == nil {
			line(name + ": " + m.Message)
		}
		cancel()
	}
}

func (a *app) clusterReplaceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "replace [<remote>:]<member>",
		Short: "Issue the token with which a new server takes the place of a dead member",
		Long: "Issue the token with which a new server takes the place of a dead member.\n\nThe new server gets the member's name, and may have its address. The dead member is\n" +
			"removed in the moment in which the new one becomes a member, and not before.",
		Example:           "  incus cluster replace node3",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeMembers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.member(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			token, err := c.CreateReplacementToken(cmd.Context(), name)
			if err != nil {
				return err
			}
			a.say("Member %s join token, for a server in its place:", name)
			fmt.Fprintln(a.stdout, token.String())
			return nil
		},
	}
}

func (a *app) adminClusterDisableCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "disable",
		Short: "Turn clustering off on this server",
		Long: "Turn clustering off on this server.\n\nThe last member of a cluster keeps its storage pools, networks and profiles. Any other\n" +
			"member is removed from its cluster, and becomes an empty standalone server.",
		Args: argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, c := cmd.Context(), a.daemon()
			cluster, etag, err := c.Cluster(ctx)
			if err != nil {
				return err
			}
			if !cluster.Enabled {
				return refuse(api.NotClustered, "Server isn't part of a cluster")
			}
			members, err := c.Members(ctx, "")
			if err != nil {
				return err
			}
			question := fmt.Sprintf("Are you sure you want to turn clustering off on %s? (yes/no): ", cluster.ServerName)
			if len(members) > 1 {
				question = fmt.Sprintf("%s is not the only member: it leaves the cluster and becomes an empty standalone server.\n", cluster.ServerName) + question
			}
			if err := a.unlessYes(ctx, yes, question); err != nil {
				return err
			}
			err = a.watching(ctx, c, cluster.ServerName, func(ctx context.Context) error {
				_, err := c.UpdateCluster(ctx, api.ClusterPut{}, etag)
				return err
			})
			if err != nil {
				return err
			}
			a.say("Clustering disabled")
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "Do not ask")
	return cmd
}

func (a *app) adminClusterResetCommand() *cobra.Command {
	var yes, force bool
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Make this server, which its cluster has removed, a clean standalone one",
		Long: "Make this server, which its cluster has removed or lost, a clean standalone one.\n\nWhat the cluster had here goes: storage pools with their volumes, and networks. The\n" +
			"server's own key and addresses stay. A member of a cluster that works is refused: it\nleaves with \"incus cluster remove\".",
		Args: argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			const question = "This removes all storage pools, volumes and networks that this server has from its\n" +
				"cluster, and its copy of the cluster's state. Are you sure? (yes/no): "
			if err := a.unlessYes(cmd.Context(), yes, question); err != nil {
				return err
			}
			if err := a.daemon().ResetCluster(cmd.Context(), force); err != nil {
				return err
			}
			a.say("This server is a standalone server now")
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "Do not ask")
	cmd.Flags().BoolVar(&force, "force", false, "Give the cluster up although it may come back: it has not removed this server, and does not answer")
	return cmd
}

func (a *app) unlessYes(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	return a.confirm(ctx, question, "User aborted operation")
}

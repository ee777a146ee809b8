package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"incusd/client"
	"incusd/internal/daemon"
	"incusd/internal/recovery"
)

// The commands of this file speak to the running daemon. They are here because upstream's
// client knows "admin cluster" only as a program of the daemon's.

func setAddressCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "set-address <address>",
		Short: "Move this member to another address",
		Long: "Move this member to another address, while the cluster runs.\n\n" +
			"While the daemon is stopped, the address is noted, and told to the cluster at its next start.",
		Args: argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			said := "This member moved to %s\n"
			move := func() error { return socket().SetAddress(cmd.Context(), args[0], force) }
			if !running(cmd.Context()) {
				said = "This member moves to %s when its daemon starts\n"
				move = func() error {
					return withStopped(cmd.Context(), func(s *recovery.Server) error { return s.SetAddress(args[0]) })
				}
			}
			if err := move(); err != nil {
				return explain(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), said, args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "Move although the other members do not reach that address")
	return cmd
}

func transferLeaderCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "transfer-leader [<member>]",
		Short: "Let another member lead",
		Args:  argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			leader, err := socket().TransferLeader(cmd.Context(), name)
			if err != nil {
				return explain(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Member %s leads now\n", leader)
			return nil
		},
	}
}

func resetCommand() *cobra.Command {
	var yes, force bool
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Make this server, which its cluster has removed or lost, a clean standalone one",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const question = "This removes all storage pools, volumes and networks that this server has from its\n" +
				"cluster, and its copy of the cluster's state. Are you sure? (yes/no): "
			if !yes {
				if err := confirm(cmd, question, "Reset operation aborted"); err != nil {
					return err
				}
			}
			if err := socket().ResetCluster(cmd.Context(), force); err != nil {
				return explain(err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "This server is a standalone server now")
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "Do not ask")
	cmd.Flags().BoolVar(&force, "force", false, "Give the cluster up although it may come back: it has not removed this server, and does not answer")
	return cmd
}

// socket is the running daemon of this server; its calls fail with api.Unavailable if there is none.
func socket() *client.Client { return client.Unix(daemon.DefaultPaths().Socket, client.Options{}) }

// The commands that scripts of Incus know as those of the daemon's program; incus admin has them, too.

func waitreadyCommand() *cobra.Command {
	var seconds int
	cmd := &cobra.Command{
		Use: "waitready", Short: "Wait until the daemon answers requests", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return explain(socket().WaitReady(cmd.Context(), client.Patience(seconds)))
		},
	}
	timeoutFlag(cmd, &seconds)
	return cmd
}

func shutdownCommand() *cobra.Command {
	var seconds int
	var force bool
	cmd := &cobra.Command{
		Use: "shutdown", Short: "Stop the daemon", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return explain(socket().ShutdownWithin(cmd.Context(), client.Patience(seconds), force))
		},
	}
	timeoutFlag(cmd, &seconds)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not wait for running operations")
	return cmd
}

func timeoutFlag(cmd *cobra.Command, seconds *int) {
	cmd.Flags().IntVarP(seconds, "timeout", "t", 0, fmt.Sprintf("Give up after `SECONDS`; 0 means %d", client.DefaultPatience))
}

// argCount says, where the number of arguments is wrong, what the command takes.
func argCount(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && len(args) <= high {
			return nil
		}
		return fmt.Errorf("Invalid number of arguments\nHint: usage: %s", cmd.UseLine())
	}
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"incusd/client"
)

func (a *app) adminCommand() *cobra.Command {
	return parent("admin", "Set up, start and stop the daemon of this server",
		a.adminInitCommand(), a.adminWaitreadyCommand(), a.adminShutdownCommand(), a.adminUpdateCertificateCommand(), a.adminClusterCommand())
}

func (a *app) adminWaitreadyCommand() *cobra.Command {
	var timeout int
	cmd := &cobra.Command{
		Use:   "waitready",
		Short: "Wait until the daemon answers requests",
		Args:  argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.daemon().WaitReady(cmd.Context(), client.Patience(timeout))
		},
	}
	timeoutFlag(cmd, &timeout)
	return cmd
}

func timeoutFlag(cmd *cobra.Command, timeout *int) {
	cmd.Flags().IntVarP(timeout, "timeout", "t", 0, fmt.Sprintf("Give up after `SECONDS`; 0 means %d", client.DefaultPatience))
}

func (a *app) adminShutdownCommand() *cobra.Command {
	var timeout int
	var force bool
	cmd := &cobra.Command{
		Use:   "shutdown",
		Short: "Stop the daemon of this server",
		Args:  argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.daemon().ShutdownWithin(cmd.Context(), client.Patience(timeout), force)
		},
	}
	timeoutFlag(cmd, &timeout)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not wait for running operations")
	return cmd
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"incusd/api"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version [<remote>:]",
		Short: "Show the versions of this command and of the daemon",
		Args:  argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.leadingRemote(args)
			if err != nil {
				return err
			}
			version := "unreachable"
			if server, _, err := c.Server(cmd.Context()); err == nil {
				version = server.Environment.ServerVersion
			}
			fmt.Fprintf(a.stdout, "Client version: %s\nServer version: %s\n", api.Version, version)
			return nil
		},
	}
}

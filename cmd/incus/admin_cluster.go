package main

import "github.com/spf13/cobra"

// adminClusterCommand has what an administrator does to the cluster as a whole.
func (a *app) adminClusterCommand() *cobra.Command {
	return parent("cluster", "Manage the cluster as a whole", a.transferLeaderCommand(),
		a.adminClusterDisableCommand(), a.adminClusterResetCommand())
}

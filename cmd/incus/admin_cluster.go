package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
)

// adminClusterCommand has what an administrator does to the cluster as a whole. What works on the
// stores of this server, most of it while its daemon is stopped, is the daemon's own command.
func (a *app) adminClusterCommand() *cobra.Command {
	return parent("cluster", "Manage the cluster as a whole: leader, recovery, backup",
		a.transferLeaderCommand(), a.adminClusterDisableCommand(), a.adminClusterResetCommand(),
		a.adminBackupCommand(), a.adminRestoreCommand(),
		a.offlineCommand("list-database", "Print the addresses of the members that vote", "ls"),
		a.offlineCommand("show", "Show the members as this server's database has them"),
		a.offlineCommand("edit", "Edit the members' addresses while the daemon is stopped"),
		a.offlineCommand("set-address", "Move this member to another address"),
		a.offlineCommand("recover-from-quorum-loss", "Make this server the only voter of its cluster"),
		a.offlineCommand("remove-raft-node", "Remove a Raft node that is no member any more"),
	)
}

// offlineCommand passes a command and all its arguments on to incusd.
func (a *app) offlineCommand(name, short string, aliases ...string) *cobra.Command {
	return &cobra.Command{
		Use: name, Aliases: aliases, Short: short, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			program, err := findDaemon()
			if err != nil {
				return err
			}
			run := exec.CommandContext(cmd.Context(), program, append([]string{"admin", "cluster", name}, args...)...)
			run.Stdin, run.Stdout, run.Stderr = a.stdin, a.stdout, a.stderr
			err = run.Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return saidError{exit.ExitCode()}
			}
			return err
		},
	}
}

// A saidError ends the command with an exit code and without a word: what there is to say was
// said, by another program or in what was printed.
type saidError struct{ code int }

func (e saidError) Error() string { return "the reason was said" }

// findDaemon looks for incusd in PATH, and beside this program.
func findDaemon() (string, error) {
	if path, err := exec.LookPath("incusd"); err == nil {
		return path, nil
	}
	if own, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(own), "incusd")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	return "", errors.New("incusd is neither in PATH nor beside incus: run this where the daemon is installed")
}

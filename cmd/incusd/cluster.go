package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/internal/daemon"
	"incusd/internal/recovery"
)

// clusterCommand is what works on the stores of a server itself (cli.md §8): most of it while the
// daemon is stopped.
func clusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Show, repair and recover the database of a cluster",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(listDatabaseCommand(), showCommand(), editCommand(), recoverCommand(), removeRaftNodeCommand(),
		setAddressCommand(), transferLeaderCommand(), resetCommand())
	return cmd
}

// adminCommand has the same commands under the name that incus admin cluster calls them by.
func adminCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "admin", Short: "Work on this server", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(clusterCommand())
	return cmd
}

// running tells whether a daemon answers on the socket.
func running(ctx context.Context) bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", daemon.DefaultPaths().Socket)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// readDatabase asks the daemon, which holds the lock on the stores while it runs, or else reads
// them itself.
func readDatabase(ctx context.Context) (api.ClusterDatabase, error) {
	if running(ctx) {
		return socket().ClusterDatabase(ctx)
	}
	var db api.ClusterDatabase
	err := withStopped(ctx, func(s *recovery.Server) error {
		db = s.Database()
		return nil
	})
	return db, err
}

// How long to wait for a daemon that was told to stop: until it knows, and until its stores are closed.
const (
	toldTime = time.Second
	endTime  = 15 * time.Second
)

// withStopped runs f on the stores of the stopped server.
func withStopped(ctx context.Context, f func(*recovery.Server) error) error {
	start := time.Now()
	for limit := toldTime; running(ctx); time.Sleep(toldTime / 20) {
		if errors.Is(socket().Ready(ctx), api.ShuttingDown) {
			limit = endTime
		}
		if time.Since(start) > limit {
			return recovery.Running()
		}
	}
	s, err := recovery.Open(daemon.DefaultPaths().Offline())
	if err != nil {
		return err
	}
	return errors.Join(f(s), s.Close())
}

func listDatabaseCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "list-database",
		Aliases: []string{"ls"},
		Short:   "Print the addresses of the members that vote",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			db, err := readDatabase(cmd.Context())
			if err != nil {
				return explain(err)
			}
			var rows []string
			for _, m := range db.Members {
				if m.Role == "voter" {
					rows = append(rows, m.Address)
				}
			}
			return writeColumn(cmd.OutOrStdout(), format, "Address", rows)
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "table", "Format (csv|json|table|yaml|compact|markdown)")
	return cmd
}

func showCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show the members of the cluster as this server's database has them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			db, err := readDatabase(cmd.Context())
			if err != nil {
				return explain(err)
			}
			return writeDatabase(cmd.OutOrStdout(), db)
		},
	}
}

func editCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "edit",
		Short: "Edit the members' addresses while the daemon is stopped",
		Long: "Edit the members' addresses while the daemon is stopped.\n\n" +
			"Stop all daemons, give each of them the same list, and start them again: each then\nreaches the others, and the cluster takes the new addresses over. Nothing has to be copied.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return explain(withStopped(cmd.Context(), func(s *recovery.Server) error {
				return edit(cmd, s)
			}))
		},
	}
}

func recoverCommand() *cobra.Command {
	var quiet, force bool
	cmd := &cobra.Command{
		Use:   "recover-from-quorum-loss",
		Short: "Make this server the only voter of its cluster, from its own copy of the database",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return explain(withStopped(cmd.Context(), func(s *recovery.Server) error {
				return recoverCluster(cmd, s, quiet, force)
			}))
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Don't require user confirmation")
	cmd.Flags().BoolVar(&force, "force", false, "Go on although another member holds a fresher copy, or the cluster has removed this server")
	return cmd
}

const recoverQuestion = `You should run this command only if you are *absolutely* certain that this is
the only database node left in your cluster AND that other database nodes will
never come back (i.e. their daemon won't ever be started again).

This will make this server the only member of the cluster, and it won't
be possible to perform operations on former cluster members anymore.

However all information about former cluster members will be preserved in the
database, so you can possibly inspect it for further recovery.

You'll be able to permanently delete from the database all information about
former cluster members by running "incus cluster remove <member-name> --force".

Do you want to proceed? (yes/no): `

func recoverCluster(cmd *cobra.Command, s *recovery.Server, quiet, force bool) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	found, err := s.Survey(ctx, (&net.Dialer{}).DialContext)
	if err != nil {
		return err
	}
	refusal, warning := recovery.Judge(found)
	if refusal == nil && warning != nil && !force {
		refusal = warning
	}
	if err := writeSurvey(out, found); err != nil {
		return err
	}
	if refusal != nil {
		return refusal
	}
	fmt.Fprintf(out, "%s\nFormer members are shut out from now on; those that had no vote come back by themselves.\n\n", recovery.Loss(found))
	if !quiet {
		if err := confirm(cmd, recoverQuestion, "Recover operation aborted"); err != nil {
			return err
		}
	}
	done, err := s.Recover(time.Now(), nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The database as it was is in %s\n", done.Backup)
	fmt.Fprintf(out, "Recovered as incarnation %d. Start the daemon, then remove or replace the members that are lost.\n", done.Incarnation)
	fmt.Fprintln(out, "All join tokens are revoked, since one that was used or revoked last may be among them.")
	return nil
}

// writeSurvey shows what each member's log holds, freshest first.
func writeSurvey(w io.Writer, found []recovery.Survivor) error {
	found = slices.Clone(found)
	slices.SortStableFunc(found, func(a, b recovery.Survivor) int { return b.Last.Compare(a.Last) })
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "MEMBER\tADDRESS\tVOTES\tLAST TERM\tLAST INDEX\tCOMMITTED\t")
	for _, f := range found {
		votes, note := "no", f.Problem
		if f.Voter {
			votes = "yes"
		}
		if f.Self {
			note = "this server"
		}
		if !f.Reached {
			fmt.Fprintf(tw, "%s\t%s\t%s\t-\t-\t-\t%s\n", f.Name, f.Address, votes, note)
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", f.Name, f.Address, votes, f.Last.Term, f.Last.Index, f.Applied, note)
	}
	fmt.Fprintln(tw)
	return tw.Flush()
}

func removeRaftNodeCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "remove-raft-node <address>",
		Short: "Remove a Raft node that is no member of the cluster any more",
		Args:  argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !quiet {
				const question = "You should run this command only if you ended up in an\n" +
					"inconsistent state where a node has been uncleanly removed (i.e. it doesn't show\n" +
					"up in \"incus cluster list\" but it's still in the raft configuration).\n\nDo you want to proceed? (yes/no): "
				if err := confirm(cmd, question, "Remove raft node operation aborted"); err != nil {
					return err
				}
			}
			return explain(socket().RemoveRaftNode(cmd.Context(), args[0]))
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Don't require user confirmation")
	return cmd
}

// confirm asks, and fails with aborted unless the answer is yes.
func confirm(cmd *cobra.Command, question, aborted string) error {
	fmt.Fprint(cmd.OutOrStdout(), question)
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !strings.EqualFold(strings.TrimSpace(line), "yes") {
		return errors.New(aborted)
	}
	return nil
}

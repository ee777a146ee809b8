package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

func (a *app) operationCommand() *cobra.Command {
	cmd := parent("operation", "List, show and cancel operations",
		a.operationListCommand(), a.operationShowCommand(), a.operationDeleteCommand())
	return cmd
}

func (a *app) operationColumns(table.Format) []column[api.Operation] {
	return []column[api.Operation]{
		{'i', "ID", func(op api.Operation) string { return op.ID }},
		{'t', "TYPE", func(op api.Operation) string { return strings.ToUpper(op.Class) }},
		{'d', "DESCRIPTION", func(op api.Operation) string { return op.Description }},
		{'s', "STATE", func(op api.Operation) string { return strings.ToUpper(op.Status) }},
		{'c', "CANCELABLE", func(op api.Operation) string { return yesOrNo(op.MayCancel) }},
		{'C', "CREATED", func(op api.Operation) string { return a.date(op.CreatedAt) }},
		{'L', "LOCATION", func(op api.Operation) string { return op.Location }},
	}
}

func (a *app) operationListCommand() *cobra.Command {
	var flags listFlags
	var allProjects bool
	cmd := &cobra.Command{
		Use:     "list [<remote>:]",
		Aliases: []string{"ls"},
		Short:   "List the operations",
		Long: "List the operations.\n\nThose that have ended are listed for 5 seconds.\n\n" +
			columnHelp(a.operationColumns(table.Format{})),
		Args: argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.onlyRemote(args)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("columns") {
				if flags.columns, err = operationDefault(cmd.Context(), c, flags.columns); err != nil {
					return err
				}
			}
			list, err := newListing(flags, a.operationColumns)
			if err != nil {
				return err
			}
			operations, err := c.Operations(cmd.Context(), allProjects)
			if err != nil {
				return err
			}
			return list.print(a, operations)
		},
	}
	flags.add(cmd, "itdscC")
	cmd.Flags().BoolVar(&allProjects, "all-projects", false, "List the operations of all projects")
	return cmd
}

// operationDefault adds the location to columns where there is more than one.
func operationDefault(ctx context.Context, c *client.Client, columns string) (string, error) {
	server, _, err := c.Server(ctx)
	if err != nil {
		return "", err
	}
	if server.Environment.ServerClustered {
		columns += "L"
	}
	return columns, nil
}

func (a *app) operationShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show [<remote>:]<operation>",
		Short:             "Show an operation",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeOperations(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := a.server(args[0])
			if err != nil {
				return err
			}
			op, err := c.Operation(cmd.Context(), id)
			if err != nil {
				return err
			}
			return table.WriteYAML(a.stdout, op)
		},
	}
}

func (a *app) operationDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "delete [<remote>:]<operation>",
		Aliases:           []string{"cancel", "rm"},
		Short:             "Cancel an operation",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeOperations(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := a.server(args[0])
			if err != nil {
				return err
			}
			if err := c.CancelOperation(cmd.Context(), id); err != nil {
				return err
			}
			a.say("Operation %s deleted", id)
			return nil
		},
	}
}

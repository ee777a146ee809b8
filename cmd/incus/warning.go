package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

func (a *app) warningCommand() *cobra.Command {
	return parent("warning", "List, acknowledge and delete warnings",
		a.warningListCommand(), a.warningShowCommand(), a.warningAcknowledgeCommand(), a.warningDeleteCommand())
}

func (a *app) warningColumns(table.Format) []column[api.Warning] {
	return []column[api.Warning]{
		{'u', "UUID", func(w api.Warning) string { return w.UUID }},
		{'t', "TYPE", func(w api.Warning) string { return w.Type }},
		{'S', "STATE", func(w api.Warning) string { return strings.ToUpper(w.Status) }},
		{'s', "SEVERITY", func(w api.Warning) string { return strings.ToUpper(w.Severity) }},
		{'c', "COUNT", func(w api.Warning) string { return strconv.Itoa(w.Count) }},
		{'p', "PROJECT", func(w api.Warning) string { return w.Project }},
		{'L', "LOCATION", func(w api.Warning) string { return w.Location }},
		{'l', "LAST SEEN", func(w api.Warning) string { return a.date(w.LastSeenAt) }},
		{'f', "FIRST SEEN", func(w api.Warning) string { return a.date(w.FirstSeenAt) }},
	}
}

func (a *app) warningListCommand() *cobra.Command {
	var flags listFlags
	var all bool
	cmd := &cobra.Command{
		Use:     "list [<remote>:]",
		Aliases: []string{"ls"},
		Short:   "List the warnings",
		Long: "List the warnings.\n\nThose that are acknowledged, and those whose cause is gone, are listed with --all.\n\n" +
			columnHelp(a.warningColumns(table.Format{})),
		Example: "  incus warning list\n  incus warning list --all --format json",
		Args:    argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.onlyRemote(args)
			if err != nil {
				return err
			}
			if flags.columns, err = warningPlaces(cmd, c, flags.columns); err != nil {
				return err
			}
			list, err := newListing(flags, a.warningColumns)
			if err != nil {
				return err
			}
			warnings, err := c.Warnings(cmd.Context())
			if err != nil {
				return err
			}
			if !all {
				warnings = slices.DeleteFunc(warnings, func(w api.Warning) bool { return w.Status != api.WarningNew })
			}
			return list.print(a, warnings)
		},
	}
	flags.add(cmd, "utSscpLl")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "List all warnings")
	return cmd
}

// warningPlaces takes the location out of the default columns where there is but one.
func warningPlaces(cmd *cobra.Command, c *client.Client, columns string) (string, error) {
	if !strings.Contains(columns, "L") {
		return columns, nil
	}
	server, _, err := c.Server(cmd.Context())
	switch {
	case err != nil:
		return "", err
	case server.Environment.ServerClustered:
		return columns, nil
	case cmd.Flags().Changed("columns"):
		return "", fmt.Errorf("Can't specify column L when not clustered")
	}
	return strings.ReplaceAll(columns, "L", ""), nil
}

func warningNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	warnings, err := c.Warnings(ctx)
	return namesOf(warnings, func(w api.Warning) string { return w.UUID }), err
}

// warning returns the client and the UUID that arg names.
func (a *app) warning(cmd *cobra.Command, arg string) (*client.Client, string, error) {
	c, uuid, err := a.server(arg)
	if err == nil && uuid == "" {
		err = api.Errorf(api.BadRequest, "Missing warning UUID").WithHint("usage: %s", cmd.UseLine())
	}
	return c, uuid, err
}

func (a *app) warningShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show [<remote>:]<UUID>",
		Short:             "Show a warning as YAML",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeArgs(warningNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, uuid, err := a.warning(cmd, args[0])
			if err != nil {
				return err
			}
			w, err := c.Warning(cmd.Context(), uuid)
			if err != nil {
				return err
			}
			return table.WriteYAML(a.stdout, w)
		},
	}
}

func (a *app) warningAcknowledgeCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "acknowledge [<remote>:]<UUID>",
		Aliases:           []string{"ack"},
		Short:             "Acknowledge a warning",
		Long:              "Acknowledge a warning.\n\nIt is listed with --all only, until it gets worse or comes back after its cause was gone.",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeArgs(warningNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, uuid, err := a.warning(cmd, args[0])
			if err != nil {
				return err
			}
			return c.UpdateWarning(cmd.Context(), uuid, api.WarningPut{Status: api.WarningAcknowledged})
		},
	}
}

// warningDeleteCommand deletes what it can, and tells of all that it cannot.
func (a *app) warningDeleteCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "delete [<remote>:]<UUID>... | --all [<remote>:]",
		Aliases: []string{"rm", "remove"},
		Short:   "Delete warnings",
		Long:    "Delete warnings.\n\nOne whose cause lasts comes back: acknowledge it instead.",
		Args: func(cmd *cobra.Command, args []string) error {
			if all {
				return argCount(0, 1)(cmd, args)
			}
			return argCount(1, -1)(cmd, args)
		},
		ValidArgsFunction: a.completeArgs(warningNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all {
				return a.deleteAllWarnings(cmd.Context(), args)
			}
			var errs []error
			for _, arg := range args {
				c, uuid, err := a.warning(cmd, arg)
				if err == nil {
					err = c.DeleteWarning(cmd.Context(), uuid)
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Delete all warnings")
	return cmd
}

func (a *app) deleteAllWarnings(ctx context.Context, args []string) error {
	c, rest, err := a.leadingRemote(args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("--all cannot be used together with other arguments")
	}
	warnings, err := c.Warnings(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range warnings {
		if err := c.DeleteWarning(ctx, w.UUID); !errors.Is(err, api.NotFound) { // another did it, or it was forgotten
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

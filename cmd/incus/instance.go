package main

import (
	"github.com/spf13/cobra"

	"incusd/cmd/incus/internal/table"
)

// instance is what "incus list" would list. There are none: this daemon runs no instances.
type instance struct{}

// listCommand answers what scripts ask of every server.
func (a *app) listCommand() *cobra.Command {
	var flags listFlags
	columns := func(table.Format) []column[instance] {
		var all []column[instance]
		for _, c := range []struct {
			key   rune
			title string
		}{{'n', "NAME"}, {'s', "STATE"}, {'4', "IPV4"}, {'6', "IPV6"}, {'t', "TYPE"}, {'S', "SNAPSHOTS"}, {'L', "LOCATION"}} {
			all = append(all, column[instance]{c.key, c.title, func(instance) string { return "" }})
		}
		return all
	}
	cmd := &cobra.Command{
		Use: "list [<remote>:] [<filter>...]", Aliases: []string{"ls"}, Short: "List the instances: this daemon runs none",
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := newListing(flags, columns)
			if err != nil {
				return err
			}
			c, _, err := a.leadingRemote(args)
			if err != nil {
				return err
			}
			if _, err := c.Instances(cmd.Context()); err != nil {
				return err
			}
			return list.print(a, []instance{})
		},
	}
	flags.add(cmd, "ns46tS")
	cmd.Flags().Bool("all-projects", false, "Has no effect: there are no instances in any project")
	return cmd
}

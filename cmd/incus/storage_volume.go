package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

// volumeNoun is the noun of custom volumes. Their pool is an argument of its own.
type volumeNoun = noun[api.StorageVolume, api.StorageVolumePut]

// volumes is the noun of the custom volumes on the pool that *pool names when a command runs.
func (a *app) volumes(pool *string) *volumeNoun {
	return &volumeNoun{
		app: a, path: "storage volume", words: "storage volume", argument: "<pool> <volume>",
		example: "local backups", pair: "size=10GiB",
		sample:  "description: Last week's backups\nconfig:\n  size: 10GiB\n",
		deleted: "Storage volume %s deleted", renamed: "Renamed storage volume from %q to %q",
		get: func(c *client.Client, ctx context.Context, name string) (*api.StorageVolume, string, error) {
			return c.StorageVolume(ctx, *pool, name)
		},
		put: func(c *client.Client, ctx context.Context, name string, put api.StorageVolumePut, etag string) error {
			return c.UpdateStorageVolume(ctx, *pool, name, put, etag)
		},
		delete: func(c *client.Client, ctx context.Context, name string) error {
			return c.DeleteStorageVolume(ctx, *pool, name)
		},
		rename: func(c *client.Client, ctx context.Context, name, to string) error {
			return c.RenameStorageVolume(ctx, *pool, name, to)
		},
		part:        func(v *api.StorageVolume) *api.StorageVolumePut { return &v.StorageVolumePut },
		config:      func(v *api.StorageVolumePut) *api.ConfigMap { return &v.Config },
		description: func(v *api.StorageVolumePut) *string { return &v.Description },
		names: func(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
			volumes, err := c.StorageVolumes(ctx, *pool, false)
			return namesOf(volumes, func(v api.StorageVolume) string { return v.Name }), err
		},
	}
}

// volumeCommand has the commands on custom volumes.
func (a *app) volumeCommand() *cobra.Command {
	return parent("volume", "Manage custom storage volumes",
		a.volumeCreateCommand(), a.volumeListCommand(), a.onVolume(volumeInfoCommand),
		a.onVolume((*volumeNoun).showCommand), a.onVolume((*volumeNoun).getCommand),
		a.onVolume((*volumeNoun).setCommand), a.onVolume((*volumeNoun).unsetCommand),
		a.onVolume((*volumeNoun).editCommand), a.onVolume((*volumeNoun).deleteCommand),
		a.onVolume(volumeRenameCommand))
}

// onVolume makes a command of the noun that gets the pool as an argument before the volume's.
func (a *app) onVolume(command func(*volumeNoun) *cobra.Command) *cobra.Command {
	pool := new(string)
	cmd := command(a.volumes(pool))
	check, run, words := cmd.Args, cmd.RunE, cmd.ValidArgsFunction
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) < 2 {
			return argCount(2, -1)(cmd, args)
		}
		return check(cmd, args[1:])
	}
	// shift takes the pool off, and leaves the remote at what is the first argument then.
	shift := func(args []string) []string {
		remote, name, found := strings.Cut(args[0], ":")
		if found {
			remote += ":"
		} else {
			remote, name = "", args[0]
		}
		*pool = name
		if len(args) == 1 {
			return nil
		}
		return append([]string{remote + volumeName(args[1])}, args[2:]...)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return run(cmd, shift(args)) }
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return a.completeArgs(poolNames)(cmd, args, start)
		}
		return words(cmd, shift(args), start)
	}
	return cmd
}

func volumeRenameCommand(n *volumeNoun) *cobra.Command {
	cmd := n.renameCommand()
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return run(cmd, []string{args[0], volumeName(args[1])}) }
	return cmd
}

// volumeName drops the type, of which there is one.
func volumeName(arg string) string { return strings.TrimPrefix(arg, api.VolumeCustom+"/") }

func (a *app) volumeCreateCommand() *cobra.Command {
	var target, description, kind string
	cmd := &cobra.Command{
		Use:   "create [<remote>:]<pool> <volume> [<key>=<value>...]",
		Short: "Create a custom storage volume",
		Long: "Create a custom storage volume.\n\nIt lies on the member that answers, or on the one that --target names.\n\n" +
			"When stdin is no terminal, description and configuration are read from there as YAML.",
		Example: "  incus storage volume create local backups size=10GiB\n" +
			"  incus storage volume create local disk1 size=10GiB --type block --target server2",
		Args:              argCount(2, -1),
		ValidArgsFunction: a.completeArgs(poolNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, pool, err := a.server(args[0])
			if err != nil {
				return err
			}
			put, err := a.volumes(nil).fresh(args[2:], description)
			if err != nil {
				return err
			}
			if c, err = aim(cmd.Context(), c, target); err != nil {
				return err
			}
			name := volumeName(args[1])
			err = c.CreateStorageVolume(cmd.Context(), pool, api.StorageVolumesPost{StorageVolumePut: put, Name: name, Type: api.VolumeCustom, ContentType: kind})
			if err != nil {
				return err
			}
			a.say("Storage volume %s created", name)
			return nil
		},
	}
	a.volumes(nil).describe(cmd, &description)
	cmd.Flags().StringVar(&kind, "type", api.VolumeFilesystem, "Content `TYPE`: filesystem or block")
	mustComplete(cmd, "type", cobra.FixedCompletions([]string{api.VolumeFilesystem, api.VolumeBlock}, cobra.ShellCompDirectiveNoFileComp))
	a.targetFlag(cmd, &target)
	return cmd
}

func volumeColumns(table.Format) []column[api.StorageVolume] {
	return []column[api.StorageVolume]{
		{'e', "PROJECT", func(v api.StorageVolume) string { return v.Project }},
		{'t', "TYPE", func(v api.StorageVolume) string { return v.Type }},
		{'n', "NAME", func(v api.StorageVolume) string { return v.Name }},
		{'d', "DESCRIPTION", func(v api.StorageVolume) string { return v.Description }},
		{'c', "CONTENT-TYPE", func(v api.StorageVolume) string { return v.ContentType }},
		{'u', "USED BY", func(v api.StorageVolume) string { return strconv.Itoa(len(v.UsedBy)) }},
		{'L', "LOCATION", func(v api.StorageVolume) string { return v.Location }},
	}
}

func (a *app) volumeListCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:               "list [<remote>:]<pool>",
		Aliases:           []string{"ls"},
		Short:             "List the custom volumes on a storage pool",
		Long:              "List the custom volumes on a storage pool.\n\n" + columnHelp(volumeColumns(table.Format{})),
		Example:           "  incus storage volume list local\n  incus storage volume list local --all-projects -f csv",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeArgs(poolNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := newListing(flags.withProject(cmd), volumeColumns)
			if err != nil {
				return err
			}
			c, pool, err := a.server(args[0])
			if err != nil {
				return err
			}
			volumes, err := c.StorageVolumes(cmd.Context(), pool, flags.allProjects)
			if err != nil {
				return err
			}
			return list.print(a, volumes)
		},
	}
	flags.add(cmd, "tndcuL")
	flags.addProjects(cmd)
	return cmd
}

func volumeInfoCommand(n *volumeNoun) *cobra.Command {
	cmd := n.command(n.usage("info"), "Show what a storage volume is and where it lies", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			volume, _, err := n.get(c, ctx, name)
			if err == nil {
				n.app.printVolume(volume)
			}
			return err
		})
	cmd.Example = n.line("info", "")
	return cmd
}

func (a *app) printVolume(v *api.StorageVolume) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(a.stdout, "%s: %s\n", name, value)
		}
	}
	line("Name", v.Name)
	line("Description", v.Description)
	line("Type", v.Type)
	line("Content type", v.ContentType)
	line("Pool", v.Pool)
	line("Project", v.Project)
	line("Location", v.Location)
	line("Size", v.Config["size"])
	line("Created", a.date(v.CreatedAt))
	if len(v.UsedBy) > 0 {
		fmt.Fprintln(a.stdout, "Used by:")
	}
	for _, url := range v.UsedBy {
		fmt.Fprintf(a.stdout, "  - %s\n", url)
	}
}

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

func (a *app) pools() *noun[api.StoragePool, api.StoragePoolPut] {
	return &noun[api.StoragePool, api.StoragePoolPut]{
		app: a, words: "storage pool", argument: "<pool>", targets: true, deleted: "Storage pool %s deleted",
		get: func(ctx context.Context, c *client.Client, name string) (*api.StoragePool, string, error) {
			return c.StoragePool(ctx, name)
		},
		put: func(ctx context.Context, c *client.Client, name string, put api.StoragePoolPut, etag string) error {
			return c.UpdateStoragePool(ctx, name, put, etag)
		},
		delete:      func(ctx context.Context, c *client.Client, name string) error { return c.DeleteStoragePool(ctx, name) },
		part:        func(p *api.StoragePool) *api.StoragePoolPut { return &p.StoragePoolPut },
		config:      func(p *api.StoragePoolPut) *api.ConfigMap { return &p.Config },
		description: func(p *api.StoragePoolPut) *string { return &p.Description },
		complete:    a.completePools(),
	}
}

func (a *app) completePools() cobra.CompletionFunc {
	return a.completeNames(func(ctx context.Context, c *client.Client) ([]string, error) {
		pools, err := c.StoragePools(ctx)
		return namesOf(pools, func(p api.StoragePool) string { return p.Name }), err
	})
}

func (a *app) storageCommand() *cobra.Command {
	cmds := append([]*cobra.Command{a.storageCreateCommand(), a.storageListCommand(), a.storageInfoCommand(), a.volumeCommand()}, a.pools().common()...)
	return parent("storage", "Manage storage pools and volumes", cmds...)
}

func (a *app) storageCreateCommand() *cobra.Command {
	var target, description string
	cmd := &cobra.Command{
		Use:   "create [<remote>:]<pool> <driver> [<key>=<value>...]",
		Short: "Create a storage pool",
		Long: "Create a storage pool.\n\nIn a cluster of several members this takes two steps: once for each member with --target\n" +
			"and the keys that are its own, such as source and size, and then once without --target.\n" +
			"Where a member could not make it, the last command again lets it try again.",
		Example: "  incus storage create local btrfs size=20GiB\n\n" +
			"  incus storage create local dir source=/srv/a --target server1\n" +
			"  incus storage create local dir source=/srv/b --target server2\n" +
			"  incus storage create local dir",
		Args: argCount(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			put, err := newObject(a, args[2:], description, func(p *api.StoragePoolPut) (*api.ConfigMap, *string) { return &p.Config, &p.Description })
			if err != nil {
				return err
			}
			if c, err = aim(cmd.Context(), c, target); err != nil {
				return err
			}
			if err := c.CreateStoragePool(cmd.Context(), api.StoragePoolsPost{StoragePoolPut: put, Name: name, Driver: args[1]}); err != nil {
				return err
			}
			if target != "" {
				a.say("Storage pool %s pending on member %s", name, target)
			} else {
				a.say("Storage pool %s created", name)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "Describe the pool as `TEXT`")
	a.targetFlag(cmd, &target)
	return cmd
}

func poolColumns(table.Format) []column[api.StoragePool] {
	return []column[api.StoragePool]{
		{'n', "NAME", func(p api.StoragePool) string { return p.Name }},
		{'D', "DRIVER", func(p api.StoragePool) string { return p.Driver }},
		{'d', "DESCRIPTION", func(p api.StoragePool) string { return p.Description }},
		{'S', "SOURCE", func(p api.StoragePool) string { return p.Config["source"] }},
		{'u', "USED BY", func(p api.StoragePool) string { return strconv.Itoa(len(p.UsedBy)) }},
		{'s', "STATE", func(p api.StoragePool) string { return strings.ToUpper(p.Status) }},
	}
}

func (a *app) storageListCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "list [<remote>:]", Aliases: []string{"ls"}, Short: "List the storage pools",
		Long: "List the storage pools.\n\n" + columnHelp(poolColumns(table.Format{})), Args: argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := newListing(flags, poolColumns)
			if err != nil {
				return err
			}
			c, err := a.onlyRemote(args)
			if err != nil {
				return err
			}
			pools, err := c.StoragePools(cmd.Context())
			if err != nil {
				return err
			}
			return list.print(a, pools)
		},
	}
	flags.add(cmd, "nDdus")
	return cmd
}

// poolInfo is a pool as "incus storage info" prints it.
type poolInfo struct {
	Info struct {
		Description string `yaml:"description"`
		Driver      string `yaml:"driver"`
		Name        string `yaml:"name"`
		Status      string `yaml:"status"`
		Message     string `yaml:"message,omitempty"`
		SpaceUsed   string `yaml:"space used"`
		TotalSpace  string `yaml:"total space"`
	} `yaml:"info"`
	UsedBy map[string][]string `yaml:"used by"`
}

func (a *app) storageInfoCommand() *cobra.Command {
	var bytes bool
	cmd := a.pools().command("info [<remote>:]<pool>", "Show how full a storage pool is", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			pool, _, err := c.StoragePool(ctx, name)
			if err != nil {
				return err
			}
			space, err := c.StoragePoolResources(ctx, name)
			if err != nil {
				return err
			}
			size := formatSize
			if bytes {
				size = func(n uint64) string { return strconv.FormatUint(n, 10) }
			}
			var info poolInfo
			info.Info.Description, info.Info.Driver, info.Info.Name = pool.Description, pool.Driver, pool.Name
			info.Info.Status, info.Info.Message = pool.Status, pool.Message
			info.Info.SpaceUsed, info.Info.TotalSpace = size(space.Space.Used), size(space.Space.Total)
			info.UsedBy = byCollection(pool.UsedBy)
			return table.WriteYAML(a.stdout, info)
		})
	cmd.Flags().BoolVar(&bytes, "bytes", false, "Print sizes in bytes")
	return cmd
}

// byCollection sorts URLs by what they are, such as "profiles".
func byCollection(urls []string) map[string][]string {
	out := map[string][]string{}
	for _, url := range urls {
		parts := strings.Split(strings.TrimPrefix(url, "/1.0/"), "/")
		kind := parts[0]
		if kind == "storage-pools" {
			kind = "volumes"
		}
		name, _, _ := strings.Cut(parts[len(parts)-1], "?")
		out[kind] = append(out[kind], name)
	}
	return out
}

// formatSize writes a size for people.
func formatSize(bytes uint64) string {
	const unit = 1024
	if bytes < unit {
		return strconv.FormatUint(bytes, 10) + "B"
	}
	size, i := float64(bytes)/unit, 0
	for size >= unit && i < 5 {
		size, i = size/unit, i+1
	}
	return fmt.Sprintf("%.2f%ciB", size, "KMGTPE"[i])
}

// volumes is the noun of custom volumes; its names are "pool/volume".
func (a *app) volumes() *noun[api.StorageVolume, api.StorageVolumePut] {
	return &noun[api.StorageVolume, api.StorageVolumePut]{
		app: a, words: "storage volume", argument: "<pool> <volume>", deleted: "Storage volume %s deleted", renamed: "Renamed storage volume from %q to %q",
		part:        func(v *api.StorageVolume) *api.StorageVolumePut { return &v.StorageVolumePut },
		config:      func(v *api.StorageVolumePut) *api.ConfigMap { return &v.Config },
		description: func(v *api.StorageVolumePut) *string { return &v.Description },
		complete:    a.completePools(),
	}
}

// volumeCommand has the commands on custom volumes. Their pool is an argument of its own.
func (a *app) volumeCommand() *cobra.Command {
	return parent("volume", "Manage custom storage volumes",
		a.volumeCreateCommand(), a.volumeListCommand(),
		a.onVolume((*noun[api.StorageVolume, api.StorageVolumePut]).showCommand),
		a.onVolume((*noun[api.StorageVolume, api.StorageVolumePut]).getCommand),
		a.onVolume((*noun[api.StorageVolume, api.StorageVolumePut]).setCommand),
		a.onVolume((*noun[api.StorageVolume, api.StorageVolumePut]).unsetCommand),
		a.onVolume((*noun[api.StorageVolume, api.StorageVolumePut]).editCommand),
		a.onVolume((*noun[api.StorageVolume, api.StorageVolumePut]).deleteCommand),
		a.onVolume((*noun[api.StorageVolume, api.StorageVolumePut]).renameCommand))
}

// onVolume makes a command of the noun whose two first arguments are a pool and a volume.
func (a *app) onVolume(command func(*noun[api.StorageVolume, api.StorageVolumePut]) *cobra.Command) *cobra.Command {
	n := a.volumes()
	pool := ""
	n.get = func(ctx context.Context, c *client.Client, name string) (*api.StorageVolume, string, error) {
		return c.StorageVolume(ctx, pool, name)
	}
	n.put = func(ctx context.Context, c *client.Client, name string, put api.StorageVolumePut, etag string) error {
		return c.UpdateStorageVolume(ctx, pool, name, put, etag)
	}
	n.delete = func(ctx context.Context, c *client.Client, name string) error {
		return c.DeleteStorageVolume(ctx, pool, name)
	}
	n.rename = func(ctx context.Context, c *client.Client, name, to string) error {
		return c.RenameStorageVolume(ctx, pool, name, to)
	}
	cmd := command(n)
	check, run := cmd.Args, cmd.RunE
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) < 2 {
			return argCount(2, -1)(cmd, args)
		}
		return check(cmd, args[1:])
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		remote, name, found := strings.Cut(args[0], ":")
		if pool = name; !found {
			remote, pool = "", args[0]
		} else {
			remote += ":"
		}
		return run(cmd, append([]string{remote + volumeName(args[1])}, args[2:]...))
	}
	return cmd
}

// volumeName drops the type, of which there is one.
func volumeName(arg string) string { return strings.TrimPrefix(arg, api.VolumeCustom+"/") }

func (a *app) volumeCreateCommand() *cobra.Command {
	var target, description, kind string
	cmd := &cobra.Command{
		Use: "create [<remote>:]<pool> <volume> [<key>=<value>...]", Short: "Create a custom storage volume",
		Args: argCount(2, -1), ValidArgsFunction: a.completePools(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, pool, err := a.server(args[0])
			if err != nil {
				return err
			}
			put, err := newObject(a, args[2:], description, func(p *api.StorageVolumePut) (*api.ConfigMap, *string) { return &p.Config, &p.Description })
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
	cmd.Flags().StringVar(&description, "description", "", "Describe the volume as `TEXT`")
	cmd.Flags().StringVar(&kind, "type", api.VolumeFilesystem, "Content `TYPE`: filesystem or block")
	a.targetFlag(cmd, &target)
	return cmd
}

func volumeColumns(table.Format) []column[api.StorageVolume] {
	return []column[api.StorageVolume]{
		{'t', "TYPE", func(v api.StorageVolume) string { return v.Type }},
		{'n', "NAME", func(v api.StorageVolume) string { return v.Name }},
		{'d', "DESCRIPTION", func(v api.StorageVolume) string { return v.Description }},
		{'c', "CONTENT-TYPE", func(v api.StorageVolume) string { return v.ContentType }},
		{'u', "USED BY", func(v api.StorageVolume) string { return strconv.Itoa(len(v.UsedBy)) }},
		{'L', "LOCATION", func(v api.StorageVolume) string { return v.Location }},
		{'e', "PROJECT", func(v api.StorageVolume) string { return v.Project }},
	}
}

func (a *app) volumeListCommand() *cobra.Command {
	var flags listFlags
	var all bool
	cmd := &cobra.Command{
		Use: "list [<remote>:]<pool>", Aliases: []string{"ls"}, Short: "List the custom volumes on a storage pool",
		Long: "List the custom volumes on a storage pool.\n\n" + columnHelp(volumeColumns(table.Format{})), Args: argCount(1, 1),
		ValidArgsFunction: a.completePools(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all && !strings.Contains(flags.columns, "e") {
				flags.columns = "e" + flags.columns
			}
			list, err := newListing(flags, volumeColumns)
			if err != nil {
				return err
			}
			c, pool, err := a.server(args[0])
			if err != nil {
				return err
			}
			volumes, err := c.StorageVolumes(cmd.Context(), pool, all)
			if err != nil {
				return err
			}
			return list.print(a, volumes)
		},
	}
	flags.add(cmd, "tndcuL")
	cmd.Flags().BoolVar(&all, "all-projects", false, "List those of all projects")
	return cmd
}

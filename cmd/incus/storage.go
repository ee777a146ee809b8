package main

import (
	"context"
	"errors"
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
		app: a, path: "storage", words: "storage pool", argument: "<pool>", targets: true,
		example: "local", pair: "size=30GiB",
		sample:      "description: The fast disks\nconfig:\n  size: 30GiB\n",
		deleted:     "Storage pool %s deleted",
		get:         (*client.Client).StoragePool,
		put:         (*client.Client).UpdateStoragePool,
		delete:      (*client.Client).DeleteStoragePool,
		part:        func(p *api.StoragePool) *api.StoragePoolPut { return &p.StoragePoolPut },
		config:      func(p *api.StoragePoolPut) *api.ConfigMap { return &p.Config },
		description: func(p *api.StoragePoolPut) *string { return &p.Description },
		measure:     (*client.Client).StoragePoolResources,
		names:       poolNames,
	}
}

func poolNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	pools, err := c.StoragePools(ctx)
	return namesOf(pools, func(p api.StoragePool) string { return p.Name }), err
}

func (a *app) storageCommand() *cobra.Command {
	cmds := append([]*cobra.Command{a.storageCreateCommand(), a.storageListCommand(), a.storageInfoCommand(), a.volumeCommand()}, a.pools().common()...)
	return parent("storage", "Manage storage pools and volumes", cmds...)
}

// twoSteps is the part of a help text on making what members have parts of.
const twoSteps = "\n\nIn a cluster of several members this takes two steps: once for each member with --target\n" +
	"and the keys that are its own, such as %s, and then once without --target.\n" +
	"Where a member could not make it, the last command again, without keys, lets it try again.\n\n" +
	"When stdin is no terminal, description and configuration are read from there as YAML."

func (a *app) storageCreateCommand() *cobra.Command {
	var target, description string
	cmd := &cobra.Command{
		Use:   "create [<remote>:]<pool> <driver> [<key>=<value>...]",
		Short: "Create a storage pool",
		Long:  "Create a storage pool." + fmt.Sprintf(twoSteps, "source and size"),
		Example: "  incus storage create local btrfs size=20GiB\n\n" +
			"  incus storage create local dir source=/srv/a --target server1\n" +
			"  incus storage create local dir source=/srv/b --target server2\n" +
			"  incus storage create local dir",
		Args:              argCount(2, -1),
		ValidArgsFunction: a.completeArgs(nil, driverNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			put, err := a.pools().fresh(args[2:], description)
			if err != nil {
				return err
			}
			if c, err = aim(cmd.Context(), c, target); err != nil {
				return err
			}
			if err := c.CreateStoragePool(cmd.Context(), api.StoragePoolsPost{StoragePoolPut: put, Name: name, Driver: args[1]}); err != nil {
				return err
			}
			a.sayMade("Storage pool", name, target)
			return nil
		},
	}
	a.pools().describe(cmd, &description)
	a.targetFlag(cmd, &target)
	return cmd
}

// sayMade confirms one of the two steps in which members' parts are made.
func (a *app) sayMade(what, name, target string) {
	if target != "" {
		a.say("%s %s pending on member %s", what, name, target)
	} else {
		a.say("%s %s created", what, name)
	}
}

// driverNames are the storage drivers that work on the server.
func driverNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	server, _, err := c.Server(ctx)
	if err != nil {
		return nil, err
	}
	return drivers(server), nil
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
		Use:     "list [<remote>:]",
		Aliases: []string{"ls"},
		Short:   "List the storage pools",
		Long: "List the storage pools.\n\nThe state is ERRORED if one of the members could not make the pool; \"incus storage show\" says why.\n\n" +
			columnHelp(poolColumns(table.Format{})),
		Example: "  incus storage list\n  incus storage list -c nDs -f csv",
		Args:    argCount(0, 1),
		RunE: listAll(a, &flags, poolColumns, func(ctx context.Context, c *client.Client) ([]api.StoragePool, error) {
			return c.StoragePools(ctx)
		}),
	}
	flags.add(cmd, "nDdus")
	return cmd
}

// poolInfo is a pool as "incus storage info" prints it.
type poolInfo struct {
	Info   poolFacts           `yaml:"info"`
	UsedBy map[string][]string `yaml:"used by"`
}

// poolFacts has what is measured only if it could be; some file systems have no inodes to count.
type poolFacts struct {
	Description string `yaml:"description"`
	Driver      string `yaml:"driver"`
	InodesUsed  string `yaml:"inodes used,omitempty"`
	Message     string `yaml:"message,omitempty"`
	Name        string `yaml:"name"`
	SpaceUsed   string `yaml:"space used,omitempty"`
	Status      string `yaml:"status"`
	TotalInodes string `yaml:"total inodes,omitempty"`
	TotalSpace  string `yaml:"total space,omitempty"`
}

func (a *app) storageInfoCommand() *cobra.Command {
	var bytes bool
	cmd := a.pools().onMember("info [<remote>:]<pool>", "Show how full a storage pool is, and what uses it", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			pool, _, err := c.StoragePool(ctx, name)
			if err != nil {
				return err
			}
			info := poolInfo{
				Info:   poolFacts{Description: pool.Description, Driver: pool.Driver, Name: pool.Name, Status: pool.Status, Message: pool.Message},
				UsedBy: byCollection(pool.UsedBy),
			}
			space, err := c.StoragePoolResources(ctx, name)
			switch {
			case err == nil:
				info.Info.measured(space, bytes)
			case pool.Status == api.EntityCreated && pool.Message == "":
				return err
			}
			// One that could not be made cannot be measured; why is still worth knowing.
			return errors.Join(table.WriteYAML(a.stdout, info), err)
		})
	cmd.Long = cmd.Short + ".\n\nSpace is that on the member that answers, or on the one that --target names."
	cmd.Example = "  incus storage info local\n  incus storage info local --target server1 --bytes"
	cmd.Flags().BoolVar(&bytes, "bytes", false, "Print sizes in bytes")
	return cmd
}

// measured adds how full a pool is; plain writes sizes as numbers of bytes.
func (f *poolFacts) measured(r *api.ResourcesStoragePool, plain bool) {
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	size := formatSize
	if plain {
		size = count
	}
	f.SpaceUsed, f.TotalSpace = size(r.Space.Used), size(r.Space.Total)
	if r.Inodes.Total > 0 {
		f.InodesUsed, f.TotalInodes = count(r.Inodes.Used), count(r.Inodes.Total)
	}
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

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

func (a *app) profiles() *noun[api.Profile, api.ProfilePut] {
	return &noun[api.Profile, api.ProfilePut]{
		app: a, words: "profile", argument: "<profile>", deleted: "Profile %s deleted", renamed: "Profile %s renamed to %s",
		get: func(ctx context.Context, c *client.Client, name string) (*api.Profile, string, error) {
			return c.Profile(ctx, name)
		},
		put: func(ctx context.Context, c *client.Client, name string, put api.ProfilePut, etag string) error {
			return c.UpdateProfile(ctx, name, put, etag)
		},
		delete: func(ctx context.Context, c *client.Client, name string) error { return c.DeleteProfile(ctx, name) },
		rename: func(ctx context.Context, c *client.Client, name, to string) error {
			return c.RenameProfile(ctx, name, to)
		},
		part:        func(p *api.Profile) *api.ProfilePut { return &p.ProfilePut },
		config:      func(p *api.ProfilePut) *api.ConfigMap { return &p.Config },
		description: func(p *api.ProfilePut) *string { return &p.Description },
		complete: a.completeNames(func(ctx context.Context, c *client.Client) ([]string, error) {
			profiles, err := c.Profiles(ctx, false)
			return namesOf(profiles, func(p api.Profile) string { return p.Name }), err
		}),
	}
}

func (a *app) profileCommand() *cobra.Command {
	cmds := append([]*cobra.Command{a.profileCreateCommand(), a.profileListCommand(), a.profileCopyCommand(), a.deviceCommand()}, a.profiles().common()...)
	return parent("profile", "Manage profiles", cmds...)
}

func (a *app) profileCreateCommand() *cobra.Command {
	var description string
	cmd := &cobra.Command{
		Use: "create [<remote>:]<profile>", Short: "Create a profile, from YAML on stdin if that is no terminal", Args: argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			put, err := newObject(a, nil, description, func(p *api.ProfilePut) (*api.ConfigMap, *string) { return &p.Config, &p.Description })
			if err != nil {
				return err
			}
			if err := c.CreateProfile(cmd.Context(), api.ProfilesPost{ProfilePut: put, Name: name}); err != nil {
				return err
			}
			a.say("Profile %s created", name)
			return nil
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "Describe the profile as `TEXT`")
	return cmd
}

func (a *app) profileCopyCommand() *cobra.Command {
	cmd := a.profiles().command("copy [<remote>:]<profile> <new-name>", "Copy a profile", 2, 2,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			profile, _, err := c.Profile(ctx, name)
			if err != nil {
				return err
			}
			if err := c.CreateProfile(ctx, api.ProfilesPost{ProfilePut: profile.ProfilePut, Name: args[0]}); err != nil {
				return err
			}
			a.say("Profile %s created", args[0])
			return nil
		})
	cmd.Aliases = []string{"cp"}
	return cmd
}

func profileColumns(table.Format) []column[api.Profile] {
	return []column[api.Profile]{
		{'e', "PROJECT", func(p api.Profile) string { return p.Project }},
		{'n', "NAME", func(p api.Profile) string { return p.Name }},
		{'d', "DESCRIPTION", func(p api.Profile) string { return p.Description }},
		{'u', "USED BY", func(p api.Profile) string { return strconv.Itoa(len(p.UsedBy)) }},
	}
}

func (a *app) profileListCommand() *cobra.Command {
	var flags listFlags
	var all bool
	cmd := &cobra.Command{
		Use: "list [<remote>:]", Aliases: []string{"ls"}, Short: "List the profiles",
		Long: "List the profiles.\n\n" + columnHelp(profileColumns(table.Format{})), Args: argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all && !strings.Contains(flags.columns, "e") {
				flags.columns = "e" + flags.columns
			}
			list, err := newListing(flags, profileColumns)
			if err != nil {
				return err
			}
			c, err := a.onlyRemote(args)
			if err != nil {
				return err
			}
			profiles, err := c.Profiles(cmd.Context(), all)
			if err != nil {
				return err
			}
			return list.print(a, profiles)
		},
	}
	flags.add(cmd, "ndu")
	cmd.Flags().BoolVar(&all, "all-projects", false, "List those of all projects")
	return cmd
}

// deviceCommand has the commands on the devices of a profile.
func (a *app) deviceCommand() *cobra.Command {
	return parent("device", "Manage the devices of a profile",
		a.deviceAddCommand(), a.deviceListCommand(), a.deviceShowCommand(), a.deviceGetCommand(), a.deviceSetCommand(), a.deviceUnsetCommand(), a.deviceRemoveCommand())
}

// changeDevices changes the devices of a profile as it is.
func changeDevices(ctx context.Context, c *client.Client, name string, change func(map[string]api.ConfigMap) error) error {
	return retryStale(func() error {
		profile, etag, err := c.Profile(ctx, name)
		if err != nil {
			return err
		}
		if profile.Devices == nil {
			profile.Devices = map[string]api.ConfigMap{}
		}
		if err := change(profile.Devices); err != nil {
			return err
		}
		return c.UpdateProfile(ctx, name, profile.ProfilePut, etag)
	})
}

func noDevice(name string) error {
	return api.Errorf(api.NotFound, "Device doesn't exist: %s", name).WithHint("see incus profile device list")
}

func (a *app) deviceAddCommand() *cobra.Command {
	return a.profiles().command("add [<remote>:]<profile> <device> <type> [<key>=<value>...]", "Add a device to a profile", 3, -1,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			values, err := a.pairs(args[2:])
			if err != nil {
				return err
			}
			err = changeDevices(ctx, c, name, func(devices map[string]api.ConfigMap) error {
				if _, ok := devices[args[0]]; ok {
					return api.Errorf(api.Conflict, "The device already exists")
				}
				device := api.ConfigMap{"type": args[1]}
				maps.Copy(device, values)
				devices[args[0]] = device
				return nil
			})
			if err == nil {
				a.say("Device %s added to %s", args[0], name)
			}
			return err
		})
}

func (a *app) deviceListCommand() *cobra.Command {
	return a.profiles().command("list [<remote>:]<profile>", "List the devices of a profile", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			profile, _, err := c.Profile(ctx, name)
			if err != nil {
				return err
			}
			for _, device := range slices.Sorted(maps.Keys(profile.Devices)) {
				fmt.Fprintln(a.stdout, device)
			}
			return nil
		})
}

func (a *app) deviceShowCommand() *cobra.Command {
	return a.profiles().command("show [<remote>:]<profile>", "Show the devices of a profile", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			profile, _, err := c.Profile(ctx, name)
			if err != nil {
				return err
			}
			return table.WriteYAML(a.stdout, profile.Devices)
		})
}

func (a *app) deviceGetCommand() *cobra.Command {
	return a.profiles().command("get [<remote>:]<profile> <device> <key>", "Print a key of a device", 3, 3,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			profile, _, err := c.Profile(ctx, name)
			if err != nil {
				return err
			}
			device, ok := profile.Devices[args[0]]
			if !ok {
				return noDevice(args[0])
			}
			fmt.Fprintln(a.stdout, device[args[1]])
			return nil
		})
}

func (a *app) deviceSetCommand() *cobra.Command {
	return a.profiles().command("set [<remote>:]<profile> <device> <key>=<value>...", "Set keys of a device", 3, -1,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			values, err := a.keyValues(args[1:])
			if err != nil {
				return err
			}
			return changeDevices(ctx, c, name, func(devices map[string]api.ConfigMap) error { return setDevice(devices, args[0], values) })
		})
}

func (a *app) deviceUnsetCommand() *cobra.Command {
	return a.profiles().command("unset [<remote>:]<profile> <device> <key>", "Unset a key of a device", 3, 3,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			return changeDevices(ctx, c, name, func(devices map[string]api.ConfigMap) error {
				return setDevice(devices, args[0], map[string]string{args[1]: ""})
			})
		})
}

// setDevice sets keys of a device, or unsets those without a value.
func setDevice(devices map[string]api.ConfigMap, name string, values map[string]string) error {
	device, ok := devices[name]
	if !ok {
		return noDevice(name)
	}
	for key, value := range values {
		if value == "" {
			delete(device, key)
		} else {
			device[key] = value
		}
	}
	return nil
}

func (a *app) deviceRemoveCommand() *cobra.Command {
	cmd := a.profiles().command("remove [<remote>:]<profile> <device>...", "Remove devices from a profile", 2, -1,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			err := changeDevices(ctx, c, name, func(devices map[string]api.ConfigMap) error {
				for _, device := range args {
					if _, ok := devices[device]; !ok {
						return noDevice(device)
					}
					delete(devices, device)
				}
				return nil
			})
			if err == nil {
				a.say("Device %s removed from %s", strings.Join(args, ", "), name)
			}
			return err
		})
	cmd.Aliases = []string{"rm"}
	return cmd
}

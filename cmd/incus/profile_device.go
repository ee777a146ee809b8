package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

// deviceCommand has the commands on the devices of a profile.
func (a *app) deviceCommand() *cobra.Command {
	return parent("device", "Manage the devices of a profile",
		a.deviceAddCommand(), a.deviceListCommand(), a.deviceShowCommand(), a.deviceGetCommand(), a.deviceSetCommand(), a.deviceUnsetCommand(), a.deviceRemoveCommand())
}

// device makes a command on the devices of a profile; the shell is offered profiles and devices.
func (a *app) device(use, short, example string, least, most int, run action) *cobra.Command {
	cmd := a.profiles().command(use, short, least, most, run)
	cmd.Example = example
	cmd.ValidArgsFunction = a.completeArgs(a.profiles().names, deviceNames)
	return cmd
}

func deviceNames(ctx context.Context, c *client.Client, args []string) ([]string, error) {
	profile, _, err := c.Profile(ctx, args[0])
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(profile.Devices)), nil
}

// deviceKeys are the keys of the device that args[1] names.
func deviceKeys(ctx context.Context, c *client.Client, args []string) ([]string, error) {
	profile, _, err := c.Profile(ctx, args[0])
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(profile.Devices[args[1]])), nil
}

// deviceTypes are the types that the protocol knows.
func deviceTypes() []string {
	return strings.Fields("disk gpu infiniband nic none pci proxy tpm unix-block unix-char unix-hotplug usb")
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

// addDevice adds a device to a profile that has none of that name.
func addDevice(ctx context.Context, c *client.Client, profile, name string, device api.ConfigMap) error {
	return changeDevices(ctx, c, profile, func(devices map[string]api.ConfigMap) error {
		if _, ok := devices[name]; ok {
			return api.Errorf(api.Conflict, "The device already exists").WithHint("choose another name, or change it: incus profile device set")
		}
		devices[name] = device
		return nil
	})
}

func noDevice(name string) error {
	return api.Errorf(api.NotFound, "Device doesn't exist: %s", name).WithHint("see incus profile device list")
}

func (a *app) deviceAddCommand() *cobra.Command {
	cmd := a.device("add [<remote>:]<profile> <device> <type> [<key>=<value>...]", "Add a device to a profile",
		"  incus profile device add default eth0 nic network=incusbr0\n  incus profile device add default root disk path=/ pool=local", 3, -1,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			device, err := literal(args[2:])
			if err != nil {
				return err
			}
			device["type"] = args[1]
			if err := addDevice(ctx, c, name, args[0], device); err != nil {
				return err
			}
			a.say("Device %s added to %s", args[0], name)
			return nil
		})
	types := func(context.Context, *client.Client, []string) ([]string, error) { return deviceTypes(), nil }
	cmd.ValidArgsFunction = a.completeArgs(a.profiles().names, nil, types)
	return cmd
}

func (a *app) deviceListCommand() *cobra.Command {
	cmd := a.device("list [<remote>:]<profile>", "List the devices of a profile", "  incus profile device list default", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			devices, err := deviceNames(ctx, c, []string{name})
			for _, device := range devices {
				fmt.Fprintln(a.stdout, device)
			}
			return err
		})
	cmd.Aliases = []string{"ls"}
	cmd.ValidArgsFunction = a.completeArgs(a.profiles().names)
	return cmd
}

func (a *app) deviceShowCommand() *cobra.Command {
	cmd := a.device("show [<remote>:]<profile>", "Show the devices of a profile as YAML", "  incus profile device show default", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			profile, _, err := c.Profile(ctx, name)
			if err != nil {
				return err
			}
			return table.WriteYAML(a.stdout, profile.Devices)
		})
	cmd.ValidArgsFunction = a.completeArgs(a.profiles().names)
	return cmd
}

func (a *app) deviceGetCommand() *cobra.Command {
	cmd := a.device("get [<remote>:]<profile> <device> <key>", "Print a key of a device", "  incus profile device get default eth0 network", 3, 3,
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
	cmd.ValidArgsFunction = a.completeArgs(a.profiles().names, deviceNames, deviceKeys)
	return cmd
}

func (a *app) deviceSetCommand() *cobra.Command {
	cmd := a.device("set [<remote>:]<profile> <device> <key>=<value>...", "Set keys of a device",
		"  incus profile device set default root size=10GiB", 3, -1,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			values, err := a.keyValues(args[1:])
			if err != nil {
				return err
			}
			return changeDevices(ctx, c, name, func(devices map[string]api.ConfigMap) error { return setDevice(devices, args[0], values) })
		})
	cmd.Long = "Set keys of a device.\n\nAn empty value unsets a key; the value - is read from stdin."
	return cmd
}

func (a *app) deviceUnsetCommand() *cobra.Command {
	cmd := a.device("unset [<remote>:]<profile> <device> <key>", "Unset a key of a device", "  incus profile device unset default root size", 3, 3,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			return changeDevices(ctx, c, name, func(devices map[string]api.ConfigMap) error {
				return setDevice(devices, args[0], map[string]string{args[1]: ""})
			})
		})
	cmd.ValidArgsFunction = a.completeArgs(a.profiles().names, deviceNames, deviceKeys)
	return cmd
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
	cmd := a.device("remove [<remote>:]<profile> <device>...", "Remove devices from a profile", "  incus profile device remove default eth0", 2, -1,
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

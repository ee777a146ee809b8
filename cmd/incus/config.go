package main

import (
	"context"
	"fmt"
	"maps"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

func (a *app) configCommand() *cobra.Command {
	return parent("config", "Manage the configuration of the server and its cluster",
		a.configGetCommand(), a.configSetCommand(), a.configUnsetCommand(), a.configShowCommand(), a.configEditCommand(),
		a.configTrustCommand())
}

// configServer connects to the server that a config command means and returns the
// other arguments.
func (a *app) configServer(ctx context.Context, args []string, target string) (*client.Client, []string, error) {
	c, rest, err := a.leadingRemote(args)
	if err != nil {
		return nil, nil, err
	}
	c, err = aim(ctx, c, target)
	return c, rest, err
}

// updateConfig reads the server's configuration, lets change work on it, and writes
// it if it is different then. It repeats that when somebody else wrote meanwhile.
func updateConfig(ctx context.Context, c *client.Client, change func(api.ConfigMap)) error {
	return retryStale(func() error {
		server, etag, err := c.Server(ctx)
		if err != nil {
			return err
		}
		put := api.ServerPut{Config: api.ConfigMap{}}
		maps.Copy(put.Config, server.Config)
		change(put.Config)
		if maps.Equal(put.Config, server.Config) {
			return nil
		}
		return c.UpdateServer(ctx, put, etag)
	})
}

func (a *app) configGetCommand() *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use:               "get [<remote>:] <key>",
		Short:             "Print a configuration key",
		Args:              argCount(1, 2),
		ValidArgsFunction: a.completeConfigKeys(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, rest, err := a.configServer(cmd.Context(), args, target)
			if err != nil {
				return err
			}
			if err := argCount(1, 1)(cmd, rest); err != nil {
				return err
			}
			server, _, err := c.Server(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, server.Config[rest[0]])
			return nil
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) configSetCommand() *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use:     "set [<remote>:] <key>=<value>...",
		Short:   "Set configuration keys",
		Long:    "Set configuration keys.\n\nAn empty value unsets a key; the value - is read from stdin.",
		Example: "  incus config set core.https_address=192.0.2.101:8443",
		Args:    argCount(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, rest, err := a.configServer(cmd.Context(), args, target)
			if err != nil {
				return err
			}
			if err := argCount(1, -1)(cmd, rest); err != nil {
				return err
			}
			values, err := a.keyValues(rest)
			if err != nil {
				return err
			}
			return updateConfig(cmd.Context(), c, func(config api.ConfigMap) { maps.Copy(config, values) })
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) configUnsetCommand() *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use:               "unset [<remote>:] <key>",
		Short:             "Unset a configuration key",
		Args:              argCount(1, 2),
		ValidArgsFunction: a.completeConfigKeys(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, rest, err := a.configServer(cmd.Context(), args, target)
			if err != nil {
				return err
			}
			if err := argCount(1, 1)(cmd, rest); err != nil {
				return err
			}
			// As an empty value, so that the server refuses a key that it does not know.
			return updateConfig(cmd.Context(), c, func(config api.ConfigMap) { config[rest[0]] = "" })
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) configShowCommand() *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use:   "show [<remote>:]",
		Short: "Print the configuration",
		Args:  argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, rest, err := a.configServer(cmd.Context(), args, target)
			if err != nil {
				return err
			}
			if err := argCount(0, 0)(cmd, rest); err != nil {
				return err
			}
			server, _, err := c.Server(cmd.Context())
			if err != nil {
				return err
			}
			return table.WriteYAML(a.stdout, server.ServerPut)
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}

const configHelp = `### This is the configuration of the server, as YAML.
### Lines that begin with # are ignored.
###
### A sample:
###   config:
###     core.https_address: 192.0.2.101:8443
`

func (a *app) configEditCommand() *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use:     "edit [<remote>:]",
		Short:   "Edit the configuration as YAML",
		Long:    "Edit the configuration as YAML.\n\nWhen stdin is no terminal, the YAML is read from there.",
		Example: "  incus config edit < config.yaml",
		Args:    argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, rest, err := a.configServer(ctx, args, target)
			if err != nil {
				return err
			}
			if err := argCount(0, 0)(cmd, rest); err != nil {
				return err
			}
			server, etag, err := c.Server(ctx)
			if err != nil {
				return err
			}
			if !a.stdinTerminal {
				etag = "" // the text was not made from what was just read
			}
			return editObject(ctx, a, server.ServerPut, configHelp, func(put api.ServerPut) error {
				return c.UpdateServer(ctx, put, etag)
			})
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}

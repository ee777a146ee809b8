package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

// serverInfo is a server as "incus info" prints it: GET /1.0 with its extensions
// counted, since hundreds of names help nobody.
type serverInfo struct {
	api.ServerPut      `yaml:",inline"`
	APIExtensionsCount int                   `yaml:"api_extensions_count"`
	APIStatus          string                `yaml:"api_status"`
	APIVersion         string                `yaml:"api_version"`
	Auth               string                `yaml:"auth"`
	Public             bool                  `yaml:"public"`
	AuthMethods        []string              `yaml:"auth_methods"`
	AuthUserName       string                `yaml:"auth_user_name"`
	AuthUserMethod     string                `yaml:"auth_user_method"`
	Environment        api.ServerEnvironment `yaml:"environment"`
}

func (a *app) infoCommand() *cobra.Command {
	var target string
	var resources bool
	cmd := &cobra.Command{
		Use:   "info [<remote>:]",
		Short: "Show what the server is and runs on",
		Long: "Show what the server is and runs on.\n\nWith --resources, show what its machine is made of: processors, memory, disks, network cards.\n" +
			"For programs, incus query /1.0/resources tells the same as JSON.",
		Example: "  incus info\n  incus info --resources --target server2",
		Args:    argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, rest, err := a.leadingRemote(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return api.Errorf(api.NotImplemented, "Instances are not part of this version").
					WithHint("without a name, %s shows the server", cmd.CommandPath())
			}
			if c, err = aim(cmd.Context(), c, target); err != nil {
				return err
			}
			if resources {
				found, err := c.Resources(cmd.Context())
				if err != nil {
					return err
				}
				printResources(a.stdout, found)
				return nil
			}
			server, _, err := c.Server(cmd.Context())
			if err != nil {
				return err
			}
			return table.WriteYAML(a.stdout, newServerInfo(server))
		},
	}
	cmd.Flags().BoolVar(&resources, "resources", false, "Show what the machine is made of")
	a.targetFlag(cmd, &target)
	return cmd
}

// targetFlag adds --target to a command.
func (a *app) targetFlag(cmd *cobra.Command, target *string) {
	cmd.Flags().StringVar(target, "target", "", "Ask the cluster member called `MEMBER`")
	mustComplete(cmd, "target", a.completeMembers(anywhere))
}

// aim makes c's calls go to the member target, unless that is empty.
func aim(ctx context.Context, c *client.Client, target string) (*client.Client, error) {
	if target == "" {
		return c, nil
	}
	server, _, err := c.Server(ctx)
	if err != nil {
		return nil, err
	}
	if !server.Environment.ServerClustered {
		return nil, refuse(api.NotClustered, "To use --target, the destination remote must be a cluster")
	}
	return c.WithTarget(target), nil
}

func newServerInfo(s *api.Server) serverInfo {
	info := serverInfo{
		ServerPut:          api.ServerPut{Config: masked(s.Config)},
		APIExtensionsCount: len(s.APIExtensions),
		APIStatus:          s.APIStatus,
		APIVersion:         s.APIVersion,
		Auth:               s.Auth,
		Public:             s.Public,
		AuthMethods:        s.AuthMethods,
		AuthUserName:       s.AuthUserName,
		AuthUserMethod:     s.AuthUserMethod,
		Environment:        s.Environment,
	}
	info.Environment.Certificate = "" // its fingerprint says enough
	return info
}

// masked hides the values of keys whose last part ends like the name of a secret:
// people paste this output into reports.
func masked(config api.ConfigMap) api.ConfigMap {
	out := make(api.ConfigMap, len(config))
	for key, value := range config {
		last := key[strings.LastIndexByte(key, '.')+1:]
		for _, ending := range []string{"key", "cert", "hmac", "password", "secret", "token"} {
			if strings.HasSuffix(last, ending) && value != "" {
				value = "SENSITIVE"
			}
		}
		out[key] = value
	}
	return out
}

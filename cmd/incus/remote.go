package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/cmd/incus/internal/conf"
	"incusd/cmd/incus/internal/table"
)

func (a *app) remoteCommand() *cobra.Command {
	return parent("remote", "Manage the servers that this command knows",
		a.remoteAddCommand(), a.remoteListCommand(), a.remoteGetDefaultCommand(), a.remoteSwitchCommand(),
		a.remoteRemoveCommand(), a.remoteRenameCommand(), a.remoteSetURLCommand(),
		a.remoteGenerateCertificateCommand(), a.remoteGetClientCertificateCommand(), a.remoteGetClientTokenCommand())
}

// A listedRemote is one line of "incus remote list".
type listedRemote struct {
	name string
	conf.Remote
}

func (a *app) remoteColumns(f table.Format) []column[listedRemote] {
	return []column[listedRemote]{
		{'n', "NAME", func(r listedRemote) string {
			if r.name == a.defaultRemote() {
				return r.name + " (current)"
			}
			return r.name
		}},
		{'u', "URL", func(r listedRemote) string { return strings.Join(r.lines(), "\n") }},
		{'p', "PROTOCOL", func(r listedRemote) string { return r.Protocol }},
		{'a', "AUTH TYPE", listedRemote.auth},
		{'P', "PUBLIC", func(r listedRemote) string { return yesOrNo(r.Public) }},
		{'s', "STATIC", func(r listedRemote) string { return yesOrNo(r.Static) }},
		{'g', "GLOBAL", func(r listedRemote) string { return yesOrNo(r.Global) }},
	}
}

// lines are the addresses; of several the one is marked that answered last.
func (r listedRemote) lines() []string {
	lines := slices.Clone(r.Addrs)
	for i, addr := range lines {
		if len(lines) > 1 && addr == r.LastWorking {
			lines[i] = addr + " (last)"
		}
	}
	return lines
}

// auth is how the server knows the client.
func (r listedRemote) auth() string {
	switch {
	case r.AuthType != "":
		return r.AuthType
	case r.Unix():
		return "file access"
	case r.Protocol != conf.ProtocolIncus:
		return "none"
	}
	return authTLS
}

// object is what programs are shown, in the words of Incus.
func (r listedRemote) object() remoteObject {
	return remoteObject{
		Addrs: r.Addrs, LastWorkingAddr: r.LastWorking, AuthType: r.AuthType, KeepAlive: r.KeepAlive, Project: r.Project,
		Protocol: r.Protocol, CredHelper: r.CredHelper, Public: r.Public, Global: r.Global, Static: r.Static,
		Addr: strings.Join(r.Addrs, ","),
	}
}

// remoteObject has the names that Incus prints, which differ between JSON and YAML.
type remoteObject struct {
	Addrs           []string `yaml:"-"`
	LastWorkingAddr string   `yaml:"last_working_address,omitempty"`
	AuthType        string   `yaml:"auth_type,omitempty"`
	KeepAlive       int      `yaml:"keepalive,omitempty"`
	Project         string   `yaml:"project,omitempty"`
	Protocol        string   `yaml:"protocol,omitempty"`
	CredHelper      string   `yaml:"credentials_helper,omitempty"`
	Public          bool     `yaml:"public"`
	Global          bool     `yaml:"-"`
	Static          bool     `yaml:"-"`
	TLS             *string  `yaml:"-"` // always null
	Addr            string   `json:"-" yaml:"addr"`
}

func (a *app) remoteListCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the remotes",
		Long: "List the remotes.\n\nThe current one is that which commands mean which name none. A global one comes from the\n" +
			"administrator's file, /etc/incus/config.yml; a static one cannot be changed.\n\n" + columnHelp(a.remoteColumns(table.Format{})),
		Example:           "  incus remote list\n  incus remote list -c nu -f csv",
		Args:              argCount(0, 0),
		ValidArgsFunction: a.completeArgs(),
		RunE: func(*cobra.Command, []string) error {
			list, err := newListing(flags, a.remoteColumns)
			if err != nil {
				return err
			}
			all, objects := []listedRemote{}, map[string]remoteObject{}
			for _, name := range a.conf.Names() {
				r, _ := a.conf.Remote(name)
				all = append(all, listedRemote{name, r})
				objects[name] = all[len(all)-1].object()
			}
			return list.printAs(a, all, objects)
		},
	}
	flags.add(cmd, "nupaPsg")
	return cmd
}

func (a *app) remoteGetDefaultCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "get-default",
		Short:             "Print the remote that commands mean which name none",
		Example:           "  incus remote get-default",
		Args:              argCount(0, 0),
		ValidArgsFunction: a.completeArgs(),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.stdout, a.defaultRemote())
			return err
		},
	}
}

func noRemote(c *conf.Config, name string) error {
	return api.Errorf(api.NotFound, "Remote %s doesn't exist", name).
		WithHint("those that there are: %s", strings.Join(c.Names(), ", "))
}

// known returns the remote of that name.
func known(c *conf.Config, name string) (conf.Remote, error) {
	r, ok := c.Remote(name)
	if !ok {
		return r, noRemote(c, name)
	}
	return r, nil
}

// changeable returns the remote of that name, if it is not static.
func changeable(c *conf.Config, name string) (conf.Remote, error) {
	r, err := known(c, name)
	if err == nil && r.Static {
		err = api.Errorf(api.BadRequest, "Remote %s is static and cannot be modified", name).
			WithHint("%s: is always the daemon behind the unix socket of this machine", name)
	}
	return r, err
}

// bareName takes the colon off that people put behind a remote's name out of habit.
func bareName(arg string) string { return strings.TrimSuffix(arg, ":") }

func (a *app) remoteSwitchCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "switch <remote>",
		Aliases:           []string{"set-default"},
		Short:             "Let commands mean another remote where they name none",
		Long:              "Let commands mean another remote where they name none.\n\nINCUS_REMOTE in the environment wins.",
		Example:           "  incus remote switch prod\n  incus remote switch local",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeRemotes(),
		RunE: func(_ *cobra.Command, args []string) error {
			name := bareName(args[0])
			return a.change(func(c *conf.Config) error {
				if _, err := known(c, name); err != nil {
					return err
				}
				c.SetDefault(name)
				return nil
			})
		},
	}
}

func (a *app) remoteRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "remove <remote>",
		Aliases: []string{"delete", "rm"},
		Short:   "Forget a remote",
		Long: "Forget a remote, and the certificate of its server.\n\nThe server goes on trusting this client until its administrator removes the certificate\n" +
			"there: incus config trust remove.",
		Example:           "  incus remote remove prod",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeRemotes(),
		RunE: func(_ *cobra.Command, args []string) error {
			name := bareName(args[0])
			err := a.change(func(c *conf.Config) error {
				r, err := changeable(c, name)
				switch {
				case err != nil:
					return err
				case r.Global:
					return api.Errorf(api.BadRequest, "Remote %s is global and cannot be removed", name).
						WithHint("the administrator of this machine has it in /etc/incus/config.yml")
				case c.Default() == name:
					return api.Errorf(api.BadRequest, "Can't remove the default remote").WithHint("make another one the default first: incus remote switch %s", localRemote)
				}
				c.Remove(name)
				return nil
			})
			if err != nil {
				return err
			}
			return a.conf.ForgetServer(name)
		},
	}
}

func (a *app) remoteRenameCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rename <remote> <new-name>",
		Aliases:           []string{"mv"},
		Short:             "Rename a remote",
		Example:           "  incus remote rename prod berlin",
		Args:              argCount(2, 2),
		ValidArgsFunction: a.completeRemotes(),
		RunE: func(_ *cobra.Command, args []string) error {
			name, to, global := bareName(args[0]), args[1], false
			err := a.change(func(c *conf.Config) error {
				r, err := changeable(c, name)
				if err != nil {
					return err
				}
				if err := free(c, to); err != nil {
					return err
				}
				// The files are there under both names until the remote has its new one.
				if err := c.CopyFiles(name, to); err != nil {
					return err
				}
				global = r.Global
				c.Rename(name, to)
				return nil
			})
			if err != nil || global {
				return err
			}
			return a.conf.RemoveFiles(name)
		},
	}
}

// adopt copies what is saved about a remote of the administrator's before it becomes the user's own.
func adopt(c *conf.Config, name string, r conf.Remote) error {
	if !r.Global {
		return nil
	}
	return c.CopyFiles(name, name)
}

// free refuses a name that no new remote can have.
func free(c *conf.Config, name string) error {
	if r, taken := c.Remote(name); taken {
		err := api.Errorf(api.Conflict, "Remote %s already exists", name)
		if r.Static {
			return err.WithHint("choose another name")
		}
		return err.WithHint("choose another name; for other addresses of the same servers: incus remote set-urls %s ADDRESS...", name)
	}
	return conf.CheckName(name)
}

func (a *app) remoteSetURLCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "set-urls <remote> <address>...",
		Aliases: []string{"set-url"},
		Short:   "Change the addresses of a remote",
		Long: "Change the addresses of a remote.\n\nThey are tried in turn, the one that answered last first. The server must show the same\n" +
			"certificate there as before.",
		Example:           "  incus remote set-urls prod 192.0.2.101\n  incus remote set-urls prod 192.0.2.101 192.0.2.102:8444",
		Args:              argCount(2, -1),
		ValidArgsFunction: a.completeRemotes(),
		RunE: func(_ *cobra.Command, args []string) error {
			name := bareName(args[0])
			return a.change(func(c *conf.Config) error {
				r, err := changeable(c, name)
				if err != nil {
					return err
				}
				if r.Protocol == conf.ProtocolIncus {
					r.Addrs, err = normalized(args[1:])
				} else {
					r.Addrs, err = imageURLs(args[1:])
				}
				if err != nil {
					return err
				}
				r.LastWorking = ""
				if err := adopt(c, name, r); err != nil {
					return err
				}
				c.Put(name, r)
				return nil
			})
		},
	}
}

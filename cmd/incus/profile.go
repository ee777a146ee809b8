package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

func (a *app) profiles() *noun[api.Profile, api.ProfilePut] {
	return &noun[api.Profile, api.ProfilePut]{
		app: a, path: "profile", words: "profile", argument: "<profile>",
		example: "web", pair: "user.owner=jane",
		sample: "description: For the web servers\nconfig:\n  user.owner: jane\ndevices:\n" +
			"  eth0:\n    type: nic\n    network: incusbr0\n",
		deleted: "Profile %s deleted", renamed: "Profile %s renamed to %s",
		get:         (*client.Client).Profile,
		put:         (*client.Client).UpdateProfile,
		delete:      (*client.Client).DeleteProfile,
		rename:      (*client.Client).RenameProfile,
		part:        func(p *api.Profile) *api.ProfilePut { return &p.ProfilePut },
		config:      func(p *api.ProfilePut) *api.ConfigMap { return &p.Config },
		description: func(p *api.ProfilePut) *string { return &p.Description },
		names: func(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
			profiles, err := c.Profiles(ctx, false)
			return namesOf(profiles, func(p api.Profile) string { return p.Name }), err
		},
	}
}

func (a *app) profileCommand() *cobra.Command {
	cmds := append([]*cobra.Command{a.profileCreateCommand(), a.profileListCommand(), a.profileCopyCommand(), a.deviceCommand()}, a.profiles().common()...)
	return parent("profile", "Manage profiles", cmds...)
}

func (a *app) profileCreateCommand() *cobra.Command {
	var description string
	cmd := &cobra.Command{
		Use:   "create [<remote>:]<profile>",
		Short: "Create a profile",
		Long: "Create a profile.\n\nWhen stdin is no terminal, its description, configuration and devices are read from\n" +
			"there as YAML.",
		Example:           "  incus profile create web --description \"For the web servers\"\n  incus profile create web < web.yaml",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			put, err := a.profiles().fresh(nil, description)
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
	a.profiles().describe(cmd, &description)
	return cmd
}

func (a *app) profileCopyCommand() *cobra.Command {
	var refresh bool
	var project string
	cmd := a.profiles().command("copy [<remote>:]<profile> [<remote>:]<new-name>", "Copy a profile", 2, 2,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			to, newName, err := a.server(args[0])
			if err != nil {
				return err
			}
			if project != "" {
				to = to.WithProject(project)
			}
			profile, _, err := c.Profile(ctx, name)
			if err != nil {
				return err
			}
			if refresh {
				err := to.UpdateProfile(ctx, newName, profile.ProfilePut, "")
				if !errors.Is(err, api.NotFound) {
					return err
				}
			}
			if err := to.CreateProfile(ctx, api.ProfilesPost{ProfilePut: profile.ProfilePut, Name: newName}); err != nil {
				return err
			}
			a.say("Profile %s created", newName)
			return nil
		})
	cmd.Aliases = []string{"cp"}
	cmd.Example = "  incus profile copy default web\n  incus profile copy default default --target-project shop --refresh"
	cmd.Flags().BoolVar(&refresh, "refresh", false, "Overwrite the profile if it is there already")
	cmd.Flags().StringVar(&project, "target-project", "", "Copy to the project called `NAME`")
	mustComplete(cmd, "target-project", a.complete(anywhere, func(ctx context.Context, c *client.Client) ([]string, error) { return projectNames(ctx, c, nil) }))
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
	cmd := &cobra.Command{
		Use:     "list [<remote>:]",
		Aliases: []string{"ls"},
		Short:   "List the profiles",
		Long:    "List the profiles.\n\n" + columnHelp(profileColumns(table.Format{})),
		Example: "  incus profile list\n  incus profile list --all-projects -f csv",
		Args:    argCount(0, 1),
		RunE: listAll(a, &flags, profileColumns, func(ctx context.Context, c *client.Client) ([]api.Profile, error) {
			return c.Profiles(ctx, flags.allProjects)
		}),
	}
	flags.add(cmd, "ndu")
	flags.addProjects(cmd)
	return cmd
}

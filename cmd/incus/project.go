package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/conf"
	"incusd/cmd/incus/internal/table"
)

func (a *app) projects() *noun[api.Project, api.ProjectPut] {
	return &noun[api.Project, api.ProjectPut]{
		app: a, path: "project", words: "project", argument: "<project>",
		example: "shop", pair: "features.networks=true",
		sample:  "description: The web shop\nconfig:\n  features.profiles: \"false\"\n",
		deleted: "Project %s deleted", renamed: "Project %s renamed to %s",
		get:         (*client.Client).Project,
		put:         (*client.Client).UpdateProject,
		delete:      a.deleteProject,
		rename:      (*client.Client).RenameProject,
		part:        func(p *api.Project) *api.ProjectPut { return &p.ProjectPut },
		config:      func(p *api.ProjectPut) *api.ConfigMap { return &p.Config },
		description: func(p *api.ProjectPut) *string { return &p.Description },
		names:       projectNames,
	}
}

func projectNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	projects, err := c.Projects(ctx)
	return namesOf(projects, func(p api.Project) string { return p.Name }), err
}

func (a *app) projectCommand() *cobra.Command {
	cmds := append([]*cobra.Command{a.projectCreateCommand(), a.projectListCommand(), a.projectInfoCommand(),
		a.projectSwitchCommand(), a.projectCurrentCommand()}, a.projects().common()...)
	return parent("project", "Manage projects", cmds...)
}

func (a *app) projectCreateCommand() *cobra.Command {
	var description string
	var config []string
	cmd := &cobra.Command{
		Use:   "create [<remote>:]<project>",
		Short: "Create a project",
		Long: "Create a project.\n\nIt has profiles, images and storage volumes of its own, and shares the networks of the default\n" +
			"project, unless its features.* keys say otherwise.\n\n" +
			"When stdin is no terminal, description and configuration are read from there as YAML.",
		Example: "  incus project create shop --description \"The web shop\"\n" +
			"  incus project create shop -c features.networks=true -c features.profiles=false\n" +
			"  incus project create shop < shop.yaml",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.server(args[0])
			if err != nil {
				return err
			}
			put, err := a.projects().fresh(config, description)
			if err != nil {
				return err
			}
			if err := c.CreateProject(cmd.Context(), api.ProjectsPost{ProjectPut: put, Name: name}); err != nil {
				return err
			}
			a.say("Project %s created", name)
			return nil
		},
	}
	a.projects().describe(cmd, &description)
	cmd.Flags().StringArrayVarP(&config, "config", "c", nil, "Set a `KEY=VALUE`; may be given several times")
	return cmd
}

// deleteProject deletes a project. Who works in it goes back to the default one.
func (a *app) deleteProject(c *client.Client, ctx context.Context, name string) error {
	if err := c.DeleteProject(ctx, name); err != nil {
		return err
	}
	if a.used.remote.Project != name {
		return nil
	}
	return a.switchProject(api.DefaultProject)
}

// switchProject makes the project that of all later commands that use the same remote.
func (a *app) switchProject(project string) error {
	return a.change(func(c *conf.Config) error {
		r, err := known(c, a.used.name)
		if err != nil {
			return err
		}
		if err := adopt(c, a.used.name, r); err != nil {
			return err
		}
		c.SetProject(a.used.name, project)
		return nil
	})
}

func (a *app) projectSwitchCommand() *cobra.Command {
	cmd := a.projects().command("switch [<remote>:]<project>", "Work in a project from now on", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			if _, _, err := c.WithProject("").Project(ctx, name); err != nil {
				return err
			}
			return a.switchProject(name)
		})
	cmd.Long = cmd.Short + ".\n\nIt is kept for the remote in config.yml in INCUS_CONF, or in ~/.config/incus. --project and INCUS_PROJECT name another\none for a single command."
	cmd.Example = "  incus project switch shop\n  incus project switch default"
	return cmd
}

func (a *app) projectCurrentCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "get-current",
		Short:             "Print the project that was switched to",
		Example:           "  incus project get-current",
		Args:              argCount(0, 0),
		ValidArgsFunction: a.completeArgs(),
		RunE: func(*cobra.Command, []string) error {
			name := a.defaultRemote()
			r, known := a.conf.Remote(name)
			if !known {
				return a.unknownRemote(name)
			}
			current := r.Project
			if current == "" && r.Static { // the socket may have a project of its own
				current = a.connect(client.Options{}).InProject()
			}
			_, err := fmt.Fprintln(a.stdout, cmp.Or(current, api.DefaultProject))
			return err
		},
	}
}

// projectColumns marks the project that the command works in.
func (a *app) projectColumns(table.Format) []column[api.Project] {
	current := sync.OnceValue(func() string { return a.used.client.InProject() })
	feature := func(key string) func(api.Project) string {
		return func(p api.Project) string { return yesOrNo(p.Config[key] == "true") }
	}
	return []column[api.Project]{
		{'n', "NAME", func(p api.Project) string {
			if p.Name == current() {
				return p.Name + " (current)"
			}
			return p.Name
		}},
		{'i', "IMAGES", feature("features.images")},
		{'p', "PROFILES", feature("features.profiles")},
		{'v', "STORAGE VOLUMES", feature("features.storage.volumes")},
		{'b', "STORAGE BUCKETS", feature("features.storage.buckets")},
		{'w', "NETWORKS", feature("features.networks")},
		{'z', "NETWORK ZONES", feature("features.networks.zones")},
		{'d', "DESCRIPTION", func(p api.Project) string { return p.Description }},
		{'u', "USED BY", func(p api.Project) string { return strconv.Itoa(len(p.UsedBy)) }},
	}
}

func (a *app) projectListCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:     "list [<remote>:]",
		Aliases: []string{"ls"},
		Short:   "List the projects",
		Long: "List the projects.\n\nThe one that --project or INCUS_PROJECT names, or that was switched to, or else the default one, is marked\n" +
			"as current.\n\n" +
			columnHelp(a.projectColumns(table.Format{})),
		Example: "  incus project list\n  incus project list -c nu -f csv",
		Args:    argCount(0, 1),
		RunE: listAll(a, &flags, a.projectColumns, func(ctx context.Context, c *client.Client) ([]api.Project, error) {
			return c.Projects(ctx)
		}),
	}
	flags.add(cmd, "nipvbwzdu")
	return cmd
}

// projectUse is one line of "incus project info". Limit is -1 where there is none.
type projectUse struct {
	Resource     string
	Limit, Usage int64
}

// amount writes an amount of the resource: of some, bytes are counted.
func (u projectUse) amount(n int64) string {
	if n >= 0 && (u.Resource == "disk" || u.Resource == "memory") {
		return formatSize(uint64(n))
	}
	return strconv.FormatInt(n, 10)
}

func projectUseColumns(table.Format) []column[projectUse] {
	return []column[projectUse]{
		{'r', "RESOURCE", func(u projectUse) string { return strings.ToUpper(u.Resource) }},
		{'l', "LIMIT", func(u projectUse) string {
			if u.Limit < 0 {
				return "UNLIMITED"
			}
			return u.amount(u.Limit)
		}},
		{'u', "USAGE", func(u projectUse) string { return u.amount(u.Usage) }},
	}
}

func (a *app) projectInfoCommand() *cobra.Command {
	var flags listFlags
	cmd := a.projects().command("info [<remote>:]<project>", "Show what a project uses", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			list, err := newListing(flags, projectUseColumns)
			if err != nil {
				return err
			}
			state, err := c.ProjectState(ctx, name)
			if err != nil {
				return err
			}
			uses := []projectUse{}
			for _, resource := range slices.Sorted(maps.Keys(state.Resources)) {
				uses = append(uses, projectUse{resource, state.Resources[resource].Limit, state.Resources[resource].Usage})
			}
			return list.printAs(a, uses, state)
		})
	flags.add(cmd, "rlu")
	cmd.Long = cmd.Short + ".\n\n" + columnHelp(projectUseColumns(table.Format{}))
	cmd.Example = "  incus project info default"
	return cmd
}

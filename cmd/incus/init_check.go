package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"incusd/api"
	"incusd/client"
)

// A preseedCheck looks for all that keeps a preseed from being applied, before anything is
// changed. It asks the server only about what the preseed mentions.
type preseedCheck struct {
	preseed *preseed
	client  *client.Client

	server   *api.Server
	pools    map[string]api.StoragePool
	projects map[string]api.ProjectPut // those of the file, too, as they would be
	networks map[string]map[string]api.Network

	problems []api.Error
}

// check refuses a preseed that cannot be applied, and names all reasons.
func (a *application) check(ctx context.Context, p *preseed) error {
	c := &preseedCheck{preseed: p, client: a.client, networks: map[string]map[string]api.Network{}}
	if err := c.read(ctx); err != nil {
		return err
	}
	c.checkTwice()
	c.checkPools()
	c.checkProjects()
	if err := c.checkNetworks(ctx); err != nil {
		return err
	}
	c.checkVolumes()
	if err := c.checkProfiles(ctx); err != nil {
		return err
	}
	if err := c.checkGroups(ctx, a.clustered); err != nil {
		return err
	}
	return c.result()
}

// result makes one error of all problems.
func (c *preseedCheck) result() error {
	switch len(c.problems) {
	case 0:
		return nil
	case 1:
		problem := c.problems[0]
		problem.Message += "; nothing was changed"
		return &problem
	}
	return &problemsError{
		api.Errorf(api.BadRequest, "The preseed cannot be applied, for %d reasons; nothing was changed", len(c.problems)), c.problems,
	}
}

// A problemsError is an error of several parts, each with its own next step.
type problemsError struct {
	whole    *api.Error
	problems []api.Error
}

func (e *problemsError) Error() string         { return e.whole.Error() }
func (e *problemsError) Unwrap() error         { return e.whole }
func (e *problemsError) Problems() []api.Error { return e.problems }

func (c *preseedCheck) problem(reason api.Reason, hint, format string, args ...any) {
	c.problems = append(c.problems, *api.Errorf(reason, format, args...).WithHint("%s", hint))
}

// read asks for what more than one check needs.
func (c *preseedCheck) read(ctx context.Context) (err error) {
	if len(c.preseed.StoragePools) > 0 {
		if c.server, _, err = c.client.Server(ctx); err != nil {
			return err
		}
	}
	if len(c.preseed.StoragePools)+len(c.preseed.StorageVolumes) > 0 || c.mentions("disk", "pool") {
		pools, err := c.client.StoragePools(ctx)
		if err != nil {
			return err
		}
		c.pools = byName(pools, func(p api.StoragePool) string { return p.Name })
	}
	return c.readProjects(ctx)
}

func byName[T any](all []T, name func(T) string) map[string]T {
	out := make(map[string]T, len(all))
	for _, o := range all {
		out[name(o)] = o
	}
	return out
}

// mentions tells whether a device of that type of a profile names something by key.
func (c *preseedCheck) mentions(kind, key string) bool {
	return slices.ContainsFunc(c.preseed.Profiles, func(p preseedProfile) bool {
		for _, device := range p.Devices {
			if wants(device, kind, key) != "" {
				return true
			}
		}
		return false
	})
}

// wants is what a device of that type names by key. A device without a type is merged into one
// that is there.
func wants(device api.ConfigMap, kind, key string) string {
	if device["type"] != "" && device["type"] != kind {
		return ""
	}
	return device[key]
}

func (c *preseedCheck) readProjects(ctx context.Context) error {
	named := func(project string) bool { return project != "" && project != api.DefaultProject }
	p := c.preseed
	if len(p.Projects) == 0 &&
		!slices.ContainsFunc(p.Networks, func(n preseedNetwork) bool { return named(n.Project) }) &&
		!slices.ContainsFunc(p.StorageVolumes, func(v preseedVolume) bool { return named(v.Project) }) &&
		!slices.ContainsFunc(p.Profiles, func(f preseedProfile) bool { return named(f.Project) }) {
		return nil
	}
	projects, err := c.client.Projects(ctx)
	if err != nil {
		return err
	}
	c.projects = map[string]api.ProjectPut{}
	for _, project := range projects {
		c.projects[project.Name] = project.ProjectPut
	}
	for _, project := range p.Projects {
		next := c.projects[project.Name]
		next.Config = mergedConfig(next.Config, project.Config)
		c.projects[project.Name] = next
	}
	return nil
}

// checkTwice refuses two entries about one thing: which of them counts would be a guess.
func (c *preseedCheck) checkTwice() {
	p := c.preseed
	twice(c, "storage_pools", p.StoragePools, func(e api.StoragePoolsPost) string { return quoted(e.Name) })
	twice(c, "networks", p.Networks, func(e preseedNetwork) string { return inProject(e.Name, e.Project) })
	twice(c, "projects", p.Projects, func(e api.ProjectsPost) string { return quoted(e.Name) })
	twice(c, "profiles", p.Profiles, func(e preseedProfile) string { return inProject(e.Name, e.Project) })
	twice(c, "cluster_groups", p.ClusterGroups, func(e api.ClusterGroupsPost) string { return quoted(e.Name) })
	twice(c, "certificates", p.Certificates, fingerprintOf)
	twice(c, "storage_volumes", p.StorageVolumes, func(e preseedVolume) string { return inProject(e.Name, e.Project) + " on " + quoted(e.Pool) })
}

func twice[T any](c *preseedCheck, section string, entries []T, what func(T) string) {
	count := map[string]int{}
	for _, e := range entries {
		if count[what(e)]++; count[what(e)] == 2 {
			c.problem(api.BadRequest, "make one entry of them", "%s: %s is there more than once", section, what(e))
		}
	}
}

func quoted(name string) string { return fmt.Sprintf("%q", name) }

func inProject(name, project string) string {
	if project == "" || project == api.DefaultProject {
		return quoted(name)
	}
	return fmt.Sprintf("%q in project %q", name, project)
}

func (c *preseedCheck) checkName(section, name string) {
	if err := api.ValidateName(name); err != nil {
		c.problem(api.NameInvalid, "choose another name", "%s: %q: %v", section, name, err)
	}
}

func (c *preseedCheck) checkPools() {
	for _, pool := range c.preseed.StoragePools {
		now, exists := c.pools[pool.Name]
		c.checkName("storage_pools", pool.Name)
		switch {
		case exists && pool.Driver != "" && now.Driver != pool.Driver:
			c.problem(api.Conflict, "choose another name, or leave the driver out", "storage_pools: Storage pool %q is of type %q instead of %q", pool.Name, now.Driver, pool.Driver)
		case !exists && pool.Driver == "":
			c.problem(api.BadRequest, "use one of "+strings.Join(drivers(c.server), ", "), "storage_pools: %q has no driver", pool.Name)
		case pool.Driver != "" && !supports(c.server, pool.Driver):
			c.problem(api.DriverUnavailable, fmt.Sprintf("use one of %s, or install what %s needs", strings.Join(drivers(c.server), ", "), pool.Driver),
				"storage_pools: the driver %q of %q isn't available on this machine", pool.Driver, pool.Name)
		}
	}
}

func (c *preseedCheck) checkProjects() {
	for _, project := range c.preseed.Projects {
		c.checkName("projects", project.Name)
	}
}

// hasProject tells whether the project of an entry is there, or will be.
func (c *preseedCheck) hasProject(section, name, project string) bool {
	if project == "" || project == api.DefaultProject {
		return true
	}
	_, ok := c.projects[project]
	if !ok {
		c.problem(api.NotFound, "add it to the section projects", "%s: the project %q of %q doesn't exist", section, project, name)
	}
	return ok
}

// owner is the project whose networks a project uses.
func (c *preseedCheck) owner(project string) string {
	if own, _ := api.ParseBool(c.projects[project].Config["features.networks"]); own {
		return project
	}
	return api.DefaultProject
}

// managed are the managed networks that a project has, by name.
func (c *preseedCheck) managed(ctx context.Context, owner string) (map[string]api.Network, error) {
	if found, ok := c.networks[owner]; ok {
		return found, nil
	}
	all, err := c.client.WithProject(owner).Networks(ctx, false)
	if err != nil && !errors.Is(err, api.NotFound) { // a project of the file has none yet
		return nil, err
	}
	found := byName(slices.DeleteFunc(all, func(n api.Network) bool { return !n.Managed }), func(n api.Network) string { return n.Name })
	c.networks[owner] = found
	return found, nil
}

func (c *preseedCheck) checkNetworks(ctx context.Context) error {
	for _, n := range c.preseed.Networks {
		c.checkName("networks", n.Name)
		if !c.hasProject("networks", n.Name, n.Project) {
			continue
		}
		found, err := c.managed(ctx, c.owner(n.Project))
		if err != nil {
			return err
		}
		if now, exists := found[n.Name]; exists && n.Type != "" && now.Type != n.Type {
			c.problem(api.Conflict, "choose another name, or leave the type out", "networks: Network %q is of type %q instead of %q", n.Name, now.Type, n.Type)
		}
	}
	return nil
}

func (c *preseedCheck) checkVolumes() {
	for _, v := range c.preseed.StorageVolumes {
		c.checkName("storage_volumes", v.Name)
		c.hasProject("storage_volumes", v.Name, v.Project)
		c.hasPool(fmt.Sprintf("storage_volumes: the storage pool %q of %q", v.Pool, v.Name), v.Pool)
		if v.Type != "" && v.Type != api.VolumeCustom {
			c.problem(api.BadRequest, "use "+api.VolumeCustom, "storage_volumes: %q cannot have the type %q", v.Name, v.Type)
		}
	}
}

// hasPool reports a pool that neither exists nor is in the file; what says whose it is.
func (c *preseedCheck) hasPool(what, name string) {
	_, exists := c.pools[name]
	if !exists && !slices.ContainsFunc(c.preseed.StoragePools, func(p api.StoragePoolsPost) bool { return p.Name == name }) {
		c.problem(api.NotFound, "add it to the section storage_pools", "%s doesn't exist", what)
	}
}

func (c *preseedCheck) checkProfiles(ctx context.Context) error {
	for _, profile := range c.preseed.Profiles {
		c.checkName("profiles", profile.Name)
		known := c.hasProject("profiles", profile.Name, profile.Project)
		for _, name := range slices.Sorted(maps.Keys(profile.Devices)) {
			device := profile.Devices[name]
			if pool := wants(device, "disk", "pool"); pool != "" {
				c.hasPool(fmt.Sprintf("profiles: the storage pool %q of device %q of %q", pool, name, profile.Name), pool)
			}
			network := wants(device, "nic", "network")
			if network == "" || !known {
				continue
			}
			ok, err := c.hasNetwork(ctx, c.owner(profile.Project), network)
			if err != nil {
				return err
			}
			if !ok {
				c.problem(api.NotFound, "add it to the section networks", "profiles: the network %q of device %q of %q doesn't exist", network, name, profile.Name)
			}
		}
	}
	return nil
}

// hasNetwork tells whether the project has a managed network, or will have.
func (c *preseedCheck) hasNetwork(ctx context.Context, owner, name string) (bool, error) {
	if slices.ContainsFunc(c.preseed.Networks, func(n preseedNetwork) bool {
		return n.Name == name && c.owner(cmp.Or(n.Project, api.DefaultProject)) == owner
	}) {
		return true, nil
	}
	found, err := c.managed(ctx, owner)
	_, ok := found[name]
	return ok, err
}

// checkGroups looks for members that are not there: a server that forms a cluster is its only one.
func (c *preseedCheck) checkGroups(ctx context.Context, clustered bool) error {
	if len(c.preseed.ClusterGroups) == 0 {
		return nil
	}
	members := map[string]bool{}
	switch {
	case clustered:
		names, err := memberNames(ctx, c.client, nil)
		if err != nil {
			return err
		}
		for _, name := range names {
			members[name] = true
		}
	case c.preseed.enables():
		members[c.preseed.Cluster.ServerName] = true
	default:
		c.problem(api.NotClustered, api.NotClustered.Hint(), "cluster_groups: this server is no member of a cluster")
		return nil
	}
	for _, group := range c.preseed.ClusterGroups {
		c.checkName("cluster_groups", group.Name)
		for _, name := range group.Members {
			if !members[name] {
				c.problem(api.MemberNotFound, "leave it out, and put it in when it is there: incus cluster group add "+name+" "+group.Name,
					"cluster_groups: the cluster has no member %q, which is to be in %q", name, group.Name)
			}
		}
	}
	return nil
}

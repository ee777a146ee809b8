package main

import (
	"context"
	"fmt"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

// dumped is the present set-up in the order of the protocol; its list of certificates is empty, as
// that of Incus is: who may come in is not part of a set-up that is copied.
type dumped struct {
	Config         api.ConfigMap   `yaml:"config"`
	Networks       []dumpedNetwork `yaml:"networks"`
	StoragePools   []dumpedPool    `yaml:"storage_pools"`
	StorageVolumes []dumpedVolume  `yaml:"storage_volumes"`
	Profiles       []dumpedProfile `yaml:"profiles"`
	Projects       []dumpedProject `yaml:"projects"`
	Certificates   []string        `yaml:"certificates"`
	ClusterGroups  []dumpedGroup   `yaml:"cluster_groups"`
}

type dumpedNetwork struct {
	Config      api.ConfigMap `yaml:"config"`
	Description string        `yaml:"description"`
	Name        string        `yaml:"name"`
	Type        string        `yaml:"type"`
	Project     string        `yaml:"project"`
}

type dumpedPool struct {
	Config      api.ConfigMap `yaml:"config"`
	Description string        `yaml:"description"`
	Name        string        `yaml:"name"`
	Driver      string        `yaml:"driver"`
}

type dumpedVolume struct {
	Config      api.ConfigMap `yaml:"config"`
	Description string        `yaml:"description"`
	Name        string        `yaml:"name"`
	Type        string        `yaml:"type"`
	ContentType string        `yaml:"content_type"`
	Pool        string        `yaml:"pool"`
	Project     string        `yaml:"project"`
}

type dumpedProfile struct {
	Config      api.ConfigMap            `yaml:"config"`
	Description string                   `yaml:"description"`
	Devices     map[string]api.ConfigMap `yaml:"devices"`
	Name        string                   `yaml:"name"`
	Project     string                   `yaml:"project"`
}

type dumpedProject struct {
	Config      api.ConfigMap `yaml:"config"`
	Description string        `yaml:"description"`
	Name        string        `yaml:"name"`
}

// dumpedGroup has no members: they are this cluster's, and a preseed that names members which are not
// there yet could not be applied.
type dumpedGroup struct {
	Config      api.ConfigMap `yaml:"config"`
	Description string        `yaml:"description"`
	Name        string        `yaml:"name"`
}

// dump prints the present set-up in the form of a preseed, which gives another server the same.
func (a *app) dump(ctx context.Context, c *client.Client) error {
	d, err := a.readDump(ctx, c)
	if err != nil {
		return err
	}
	if err := table.WriteYAML(a.stdout, d); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout) // other tools rely on the empty line at the end
	return err
}

func (a *app) readDump(ctx context.Context, c *client.Client) (*dumped, error) {
	server, _, err := c.Server(ctx)
	if err != nil {
		return nil, err
	}
	d := &dumped{Config: server.Config}
	if _, ok := d.Config["core.trust_password"]; ok {
		delete(d.Config, "core.trust_password")
		a.warn("core.trust_password is left out: only a hash of it is stored; set it anew where this is used")
	}
	networks, err := c.Networks(ctx, true)
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		if n.Managed {
			d.Networks = append(d.Networks, dumpedNetwork{n.Config, n.Description, n.Name, n.Type, unlessDefault(n.Project)})
		}
	}
	pools, err := c.StoragePools(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range pools {
		d.StoragePools = append(d.StoragePools, dumpedPool{p.Config, p.Description, p.Name, p.Driver})
		volumes, err := c.StorageVolumes(ctx, p.Name, true)
		if err != nil {
			return nil, err
		}
		for _, v := range volumes {
			d.StorageVolumes = append(d.StorageVolumes, dumpedVolume{v.Config, v.Description, v.Name, v.Type, v.ContentType, v.Pool, unlessDefault(v.Project)})
		}
	}
	profiles, err := c.Profiles(ctx, true)
	if err != nil {
		return nil, err
	}
	for _, p := range profiles {
		d.Profiles = append(d.Profiles, dumpedProfile{p.Config, p.Description, p.Devices, p.Name, unlessDefault(p.Project)})
	}
	projects, err := c.Projects(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range projects {
		d.Projects = append(d.Projects, dumpedProject{p.Config, p.Description, p.Name})
	}
	if !server.Environment.ServerClustered {
		return d, nil
	}
	groups, err := c.ClusterGroups(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if !isBuiltIn(g) {
			d.ClusterGroups = append(d.ClusterGroups, dumpedGroup{g.Config, g.Description, g.Name})
		}
	}
	return d, nil
}

// isBuiltIn tells whether a group is the one that every cluster has, as it came.
func isBuiltIn(g api.ClusterGroup) bool {
	return g.Name == "default" && g.Description == "Default cluster group" && len(g.Config) == 0
}

// unlessDefault leaves the default project out, as upstream does.
func unlessDefault(project string) string {
	if project == api.DefaultProject {
		return ""
	}
	return project
}

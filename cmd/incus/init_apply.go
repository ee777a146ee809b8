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

// An application applies a preseed, section by section, and remembers what it has done.
type application struct {
	app    *app
	client *client.Client
	// clustered tells whether the server is a member already.
	clustered bool
	done      []string
}

// step carries out one part. Its failure tells what was done before it.
func (a *application) step(what string, do func() error) error {
	if err := do(); err != nil {
		err = fmt.Errorf("%s: %w", what, err)
		if len(a.done) > 0 {
			err = fmt.Errorf("%w (done before: %s; when that is mended, run the same command again to go on)", err, strings.Join(a.done, ", "))
		}
		return err
	}
	a.done = append(a.done, what)
	return nil
}

// entities makes or changes all that a preseed lists, in the order in which one needs the other.
func (a *application) entities(ctx context.Context, p *preseed) error {
	for _, pool := range p.StoragePools {
		if err := a.step("storage pool "+pool.Name, func() error { return a.pool(ctx, pool) }); err != nil {
			return err
		}
	}
	isDefault := func(n preseedNetwork) bool { return n.Project == "" || n.Project == api.DefaultProject }
	for _, n := range p.Networks {
		if isDefault(n) {
			if err := a.step("network "+n.Name, func() error { return a.network(ctx, n) }); err != nil {
				return err
			}
		}
	}
	for _, project := range p.Projects {
		if err := a.step("project "+project.Name, func() error { return a.project(ctx, project) }); err != nil {
			return err
		}
	}
	for _, n := range p.Networks {
		if !isDefault(n) {
			if err := a.step("network "+n.Name, func() error { return a.network(ctx, n) }); err != nil {
				return err
			}
		}
	}
	for _, v := range p.StorageVolumes {
		if err := a.step("storage volume "+v.Name, func() error { return a.volume(ctx, v) }); err != nil {
			return err
		}
	}
	for _, profile := range p.Profiles {
		if err := a.step("profile "+profile.Name, func() error { return a.profile(ctx, profile) }); err != nil {
			return err
		}
	}
	return nil
}

// mergedConfig is now with the keys of more.
func mergedConfig(now, more api.ConfigMap) api.ConfigMap {
	out := maps.Clone(now)
	if out == nil {
		out = api.ConfigMap{}
	}
	maps.Copy(out, more)
	return out
}

// own drops the keys that are each member's, where they can be changed for one member only.
func (a *application) own(entity string, config api.ConfigMap) api.ConfigMap {
	if !a.clustered {
		return config
	}
	out := maps.Clone(config)
	maps.DeleteFunc(out, func(key, _ string) bool { return slices.Contains(specificKeys[entity], key) })
	return out
}

func (a *application) pool(ctx context.Context, pool api.StoragePoolsPost) error {
	return retryStale(func() error {
		now, etag, err := a.client.StoragePool(ctx, pool.Name)
		if errors.Is(err, api.NotFound) {
			return a.client.CreateStoragePool(ctx, pool)
		}
		if err != nil {
			return err
		}
		if pool.Driver != "" && now.Driver != pool.Driver {
			return api.Errorf(api.Conflict, "Storage pool %q is of type %q instead of %q", pool.Name, now.Driver, pool.Driver)
		}
		put := now.StoragePoolPut
		put.Config = mergedConfig(put.Config, a.own("storage-pool", pool.Config))
		put.Description = cmp.Or(pool.Description, put.Description)
		return a.client.UpdateStoragePool(ctx, pool.Name, put, etag)
	})
}

func (a *application) network(ctx context.Context, n preseedNetwork) error {
	c := a.client.WithProject(n.Project)
	return retryStale(func() error {
		now, etag, err := c.Network(ctx, n.Name)
		if errors.Is(err, api.NotFound) || err == nil && !now.Managed {
			return c.CreateNetwork(ctx, n.NetworksPost)
		}
		if err != nil {
			return err
		}
		put := now.NetworkPut
		wanted := a.own("network", n.Config)
		// An address that was chosen for "auto" stays.
		maps.DeleteFunc(wanted, func(key, value string) bool { return value == "auto" && put.Config[key] != "" })
		put.Config = mergedConfig(put.Config, wanted)
		put.Description = cmp.Or(n.Description, put.Description)
		return c.UpdateNetwork(ctx, n.Name, put, etag)
	})
}

func (a *application) project(ctx context.Context, project api.ProjectsPost) error {
	return retryStale(func() error {
		now, etag, err := a.client.Project(ctx, project.Name)
		if errors.Is(err, api.NotFound) {
			return a.client.CreateProject(ctx, project)
		}
		if err != nil {
			return err
		}
		put := now.ProjectPut
		put.Config = mergedConfig(put.Config, project.Config)
		put.Description = cmp.Or(project.Description, put.Description)
		return a.client.UpdateProject(ctx, project.Name, put, etag)
	})
}

func (a *application) volume(ctx context.Context, v preseedVolume) error {
	c := a.client.WithProject(v.Project)
	if v.Type == "" {
		v.Type = api.VolumeCustom
	}
	return retryStale(func() error {
		now, etag, err := c.StorageVolume(ctx, v.Pool, v.Name)
		if errors.Is(err, api.NotFound) {
			return c.CreateStorageVolume(ctx, v.Pool, v.StorageVolumesPost)
		}
		if err != nil {
			return err
		}
		put := now.StorageVolumePut
		put.Config = mergedConfig(put.Config, v.Config)
		put.Description = cmp.Or(v.Description, put.Description)
		return c.UpdateStorageVolume(ctx, v.Pool, v.Name, put, etag)
	})
}

func (a *application) profile(ctx context.Context, profile preseedProfile) error {
	c := a.client.WithProject(profile.Project)
	return retryStale(func() error {
		now, etag, err := c.Profile(ctx, profile.Name)
		if errors.Is(err, api.NotFound) {
			return c.CreateProfile(ctx, profile.ProfilesPost)
		}
		if err != nil {
			return err
		}
		put := now.ProfilePut
		put.Config = mergedConfig(put.Config, profile.Config)
		if put.Devices == nil {
			put.Devices = map[string]api.ConfigMap{}
		}
		for name, device := range profile.Devices {
			put.Devices[name] = mergedConfig(put.Devices[name], device)
		}
		put.Description = cmp.Or(profile.Description, put.Description)
		return c.UpdateProfile(ctx, profile.Name, put, etag)
	})
}

// certificates lets the clients in that a preseed lists.
func (a *application) certificates(ctx context.Context, p *preseed) error {
	for _, c := range p.Certificates {
		if err := a.step("certificate "+c.Name, func() error { return a.certificate(ctx, c) }); err != nil {
			return err
		}
	}
	return nil
}

// certificate gives a client that is trusted already the rights that the preseed says.
func (a *application) certificate(ctx context.Context, post api.CertificatesPost) error {
	err := a.client.CreateCertificate(ctx, post)
	if !errors.Is(err, api.CertTaken) {
		return err
	}
	cert, err := certificateMaterial(post.Certificate)
	if err != nil {
		return err
	}
	return retryStale(func() error {
		now, etag, err := a.client.Certificate(ctx, client.Fingerprint(cert))
		if err != nil {
			return err
		}
		put := now.Put()
		put.Name, put.Description = cmp.Or(post.Name, put.Name), cmp.Or(post.Description, put.Description)
		put.Type, put.Restricted, put.Projects = post.Type, post.Restricted, post.Projects
		if put.Type == now.Type && put.Name == now.Name && put.Description == now.Description &&
			put.Restricted == now.Restricted && slices.Equal(put.Projects, now.Projects) {
			return nil
		}
		return a.client.UpdateCertificate(ctx, now.Fingerprint, put, etag)
	})
}

// groups makes or changes the cluster groups, when there is a cluster.
func (a *application) groups(ctx context.Context, p *preseed) error {
	for _, group := range p.ClusterGroups {
		if err := a.step("cluster group "+group.Name, func() error { return a.group(ctx, group) }); err != nil {
			return err
		}
	}
	return nil
}

// group leaves the members of a group alone if the preseed does not name any.
func (a *application) group(ctx context.Context, group api.ClusterGroupsPost) error {
	return retryStale(func() error {
		now, etag, err := a.client.ClusterGroup(ctx, group.Name)
		if errors.Is(err, api.NotFound) {
			if err := a.client.CreateClusterGroup(ctx, group); err != nil {
				return fmt.Errorf("Failed to create cluster group: %w", err)
			}
			return nil
		}
		if err != nil {
			return err
		}
		put := now.ClusterGroupPut
		put.Config = mergedConfig(put.Config, group.Config)
		put.Description = cmp.Or(group.Description, put.Description)
		if group.Members != nil {
			put.Members = group.Members
		}
		if err := a.client.UpdateClusterGroup(ctx, group.Name, put, etag); err != nil {
			return fmt.Errorf("Failed to update cluster group: %w", err)
		}
		return nil
	})
}

package client

import (
	"context"
	"net/http"
	"net/url"

	"incusd/api"
)

// list reads the objects of a collection.
func list[T any](ctx context.Context, c *Client, query url.Values, parts ...string) ([]T, error) {
	all := []T{}
	if query == nil {
		query = url.Values{}
	}
	query.Set("recursion", "1")
	_, err := c.get(ctx, c.path(query, parts...), &all)
	return all, err
}

// one reads one object, and its ETag.
func one[T any](ctx context.Context, c *Client, parts ...string) (*T, string, error) {
	var object T
	etag, err := c.get(ctx, c.path(nil, parts...), &object)
	if err != nil {
		return nil, "", err
	}
	return &object, etag, nil
}

// send makes a change whose answer says nothing but that it was made.
func (c *Client) send(ctx context.Context, method string, body any, etag string, parts ...string) error {
	_, err := c.Query(ctx, method, c.path(nil, parts...), body, etag)
	return err
}

// everywhere asks for the objects of all projects.
func everywhere(all bool) url.Values {
	if !all {
		return nil
	}
	return url.Values{"all-projects": {"true"}}
}

// StoragePools lists the storage pools.
func (c *Client) StoragePools(ctx context.Context) ([]api.StoragePool, error) {
	return list[api.StoragePool](ctx, c, nil, "storage-pools")
}

// StoragePool reads a storage pool, as the client's target has it, and the ETag for UpdateStoragePool.
func (c *Client) StoragePool(ctx context.Context, name string) (*api.StoragePool, string, error) {
	return one[api.StoragePool](ctx, c, "storage-pools", name)
}

// CreateStoragePool makes a storage pool, or with a target defines it for that member.
func (c *Client) CreateStoragePool(ctx context.Context, post api.StoragePoolsPost) error {
	return c.send(ctx, http.MethodPost, post, "", "storage-pools")
}

// UpdateStoragePool replaces the writable part of a storage pool.
func (c *Client) UpdateStoragePool(ctx context.Context, name string, put api.StoragePoolPut, etag string) error {
	return c.send(ctx, http.MethodPut, put, etag, "storage-pools", name)
}

// DeleteStoragePool removes a storage pool.
func (c *Client) DeleteStoragePool(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, nil, "", "storage-pools", name)
}

// StoragePoolResources measures a storage pool on the member that answers, or the client's target.
func (c *Client) StoragePoolResources(ctx context.Context, name string) (*api.ResourcesStoragePool, error) {
	space, _, err := one[api.ResourcesStoragePool](ctx, c, "storage-pools", name, "resources")
	return space, err
}

// StorageVolumes lists the custom volumes on a pool.
func (c *Client) StorageVolumes(ctx context.Context, pool string, all bool) ([]api.StorageVolume, error) {
	return list[api.StorageVolume](ctx, c, everywhere(all), "storage-pools", pool, "volumes", api.VolumeCustom)
}

// StorageVolume reads a custom volume, and the ETag for UpdateStorageVolume.
func (c *Client) StorageVolume(ctx context.Context, pool, name string) (*api.StorageVolume, string, error) {
	return one[api.StorageVolume](ctx, c, "storage-pools", pool, "volumes", api.VolumeCustom, name)
}

// CreateStorageVolume makes a custom volume on the member that answers, or the client's target.
func (c *Client) CreateStorageVolume(ctx context.Context, pool string, post api.StorageVolumesPost) error {
	return c.send(ctx, http.MethodPost, post, "", "storage-pools", pool, "volumes", api.VolumeCustom)
}

// UpdateStorageVolume replaces the writable part of a custom volume.
func (c *Client) UpdateStorageVolume(ctx context.Context, pool, name string, put api.StorageVolumePut, etag string) error {
	return c.send(ctx, http.MethodPut, put, etag, "storage-pools", pool, "volumes", api.VolumeCustom, name)
}

// RenameStorageVolume gives a custom volume another name.
func (c *Client) RenameStorageVolume(ctx context.Context, pool, name, newName string) error {
	return c.send(ctx, http.MethodPost, api.StorageVolumePost{Name: newName}, "", "storage-pools", pool, "volumes", api.VolumeCustom, name)
}

// DeleteStorageVolume removes a custom volume.
func (c *Client) DeleteStorageVolume(ctx context.Context, pool, name string) error {
	return c.send(ctx, http.MethodDelete, nil, "", "storage-pools", pool, "volumes", api.VolumeCustom, name)
}

// Networks lists the networks of the client's project, or of all projects, and the interfaces of
// the member that answers.
func (c *Client) Networks(ctx context.Context, all bool) ([]api.Network, error) {
	return list[api.Network](ctx, c, everywhere(all), "networks")
}

// Network reads a network, as the client's target has it, and the ETag for UpdateNetwork.
func (c *Client) Network(ctx context.Context, name string) (*api.Network, string, error) {
	return one[api.Network](ctx, c, "networks", name)
}

// CreateNetwork makes a network, or with a target defines it for that member.
func (c *Client) CreateNetwork(ctx context.Context, post api.NetworksPost) error {
	return c.send(ctx, http.MethodPost, post, "", "networks")
}

// UpdateNetwork replaces the writable part of a network.
func (c *Client) UpdateNetwork(ctx context.Context, name string, put api.NetworkPut, etag string) error {
	return c.send(ctx, http.MethodPut, put, etag, "networks", name)
}

// RenameNetwork gives a network another name.
func (c *Client) RenameNetwork(ctx context.Context, name, newName string) error {
	return c.send(ctx, http.MethodPost, api.NetworkPost{Name: newName}, "", "networks", name)
}

// DeleteNetwork removes a network.
func (c *Client) DeleteNetwork(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, nil, "", "networks", name)
}

// NetworkState tells what an interface is doing on the member that answers, or the client's target.
func (c *Client) NetworkState(ctx context.Context, name string) (*api.NetworkState, error) {
	state, _, err := one[api.NetworkState](ctx, c, "networks", name, "state")
	return state, err
}

// NetworkLeases lists the addresses that a network has given.
func (c *Client) NetworkLeases(ctx context.Context, name string) ([]api.NetworkLease, error) {
	leases, _, err := one[[]api.NetworkLease](ctx, c, "networks", name, "leases")
	if err != nil {
		return nil, err
	}
	return *leases, nil
}

// Profiles lists the profiles of the client's project, or of all projects.
func (c *Client) Profiles(ctx context.Context, all bool) ([]api.Profile, error) {
	return list[api.Profile](ctx, c, everywhere(all), "profiles")
}

// Profile reads a profile, and the ETag for UpdateProfile.
func (c *Client) Profile(ctx context.Context, name string) (*api.Profile, string, error) {
	return one[api.Profile](ctx, c, "profiles", name)
}

// CreateProfile makes a profile.
func (c *Client) CreateProfile(ctx context.Context, post api.ProfilesPost) error {
	return c.send(ctx, http.MethodPost, post, "", "profiles")
}

// UpdateProfile replaces the writable part of a profile.
func (c *Client) UpdateProfile(ctx context.Context, name string, put api.ProfilePut, etag string) error {
	return c.send(ctx, http.MethodPut, put, etag, "profiles", name)
}

// RenameProfile gives a profile another name.
func (c *Client) RenameProfile(ctx context.Context, name, newName string) error {
	return c.send(ctx, http.MethodPost, api.ProfilePost{Name: newName}, "", "profiles", name)
}

// DeleteProfile removes a profile.
func (c *Client) DeleteProfile(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, nil, "", "profiles", name)
}

// Projects lists the projects.
func (c *Client) Projects(ctx context.Context) ([]api.Project, error) {
	return list[api.Project](ctx, c, nil, "projects")
}

// Project reads a project, and the ETag for UpdateProject.
func (c *Client) Project(ctx context.Context, name string) (*api.Project, string, error) {
	return one[api.Project](ctx, c, "projects", name)
}

// CreateProject makes a project.
func (c *Client) CreateProject(ctx context.Context, post api.ProjectsPost) error {
	return c.send(ctx, http.MethodPost, post, "", "projects")
}

// UpdateProject replaces the writable part of a project.
func (c *Client) UpdateProject(ctx context.Context, name string, put api.ProjectPut, etag string) error {
	return c.send(ctx, http.MethodPut, put, etag, "projects", name)
}

// RenameProject gives a project another name.
func (c *Client) RenameProject(ctx context.Context, name, newName string) error {
	return c.send(ctx, http.MethodPost, api.ProjectPost{Name: newName}, "", "projects", name)
}

// DeleteProject removes an empty project.
func (c *Client) DeleteProject(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, nil, "", "projects", name)
}

// ProjectState tells what a project uses.
func (c *Client) ProjectState(ctx context.Context, name string) (*api.ProjectState, error) {
	state, _, err := one[api.ProjectState](ctx, c, "projects", name, "state")
	return state, err
}

// Resources describes the machine of the member that answers, or of the client's target.
func (c *Client) Resources(ctx context.Context) (*api.Resources, error) {
	found, _, err := one[api.Resources](ctx, c, "resources")
	return found, err
}

// Instances lists the URLs of instances, of which there are none.
func (c *Client) Instances(ctx context.Context) ([]string, error) {
	urls, _, err := one[[]string](ctx, c, "instances")
	if err != nil {
		return nil, err
	}
	return *urls, nil
}

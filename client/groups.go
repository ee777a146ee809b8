package client

import (
	"context"
	"net/http"

	"incusd/api"
)

// RenameMember gives a member another name.
func (c *Client) RenameMember(ctx context.Context, name, newName string) error {
	return c.send(ctx, http.MethodPost, api.ClusterMemberPost{ServerName: newName}, "", "cluster", "members", name)
}

// ClusterGroups lists the groups of members.
func (c *Client) ClusterGroups(ctx context.Context) ([]api.ClusterGroup, error) {
	return list[api.ClusterGroup](ctx, c, nil, "cluster", "groups")
}

// ClusterGroup reads a group of members, and the ETag for UpdateClusterGroup.
func (c *Client) ClusterGroup(ctx context.Context, name string) (*api.ClusterGroup, string, error) {
	return one[api.ClusterGroup](ctx, c, "cluster", "groups", name)
}

// CreateClusterGroup makes a group of members.
func (c *Client) CreateClusterGroup(ctx context.Context, post api.ClusterGroupsPost) error {
	return c.send(ctx, http.MethodPost, post, "", "cluster", "groups")
}

// UpdateClusterGroup replaces the writable part of a group of members.
func (c *Client) UpdateClusterGroup(ctx context.Context, name string, put api.ClusterGroupPut, etag string) error {
	return c.send(ctx, http.MethodPut, put, etag, "cluster", "groups", name)
}

// RenameClusterGroup gives a group of members another name.
func (c *Client) RenameClusterGroup(ctx context.Context, name, newName string) error {
	return c.send(ctx, http.MethodPost, api.ClusterGroupPost{Name: newName}, "", "cluster", "groups", name)
}

// DeleteClusterGroup removes a group without members.
func (c *Client) DeleteClusterGroup(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, nil, "", "cluster", "groups", name)
}

package client

import (
	"context"
	"net/http"

	"incusd/api"
)

// Paths of calls that upstream does not have.
const (
	rolesPath    = "/internal/cluster/roles"
	transferPath = "/internal/cluster/transfer-leader"
)

// MemberRoles says why each member has its database role.
func (c *Client) MemberRoles(ctx context.Context) ([]api.ClusterMemberRole, error) {
	roles := []api.ClusterMemberRole{}
	_, err := c.get(ctx, rolesPath, &roles)
	return roles, err
}

// TransferLeader lets the member called name lead, or any that can if it is empty, and
// returns who leads now.
func (c *Client) TransferLeader(ctx context.Context, name string) (string, error) {
	reply, err := c.Query(ctx, http.MethodPost, transferPath, api.ClusterLeader{Member: name}, "")
	if err != nil {
		return "", err
	}
	var leader api.ClusterLeader
	err = reply.Decode(&leader)
	return leader.Member, err
}

// UpdateMemberState evacuates or restores a member.
func (c *Client) UpdateMemberState(ctx context.Context, name string, post api.ClusterMemberStatePost) (*api.Operation, error) {
	reply, err := c.Query(ctx, http.MethodPost, c.path(nil, "cluster", "members", name, "state"), post, "")
	if err != nil {
		return nil, err
	}
	return reply.Operation()
}

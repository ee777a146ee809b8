package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"incusd/api"
)

// get reads the object at path into out and returns its ETag.
func (c *Client) get(ctx context.Context, path string, out any) (string, error) {
	reply, err := c.Query(ctx, http.MethodGet, path, nil, "")
	if err != nil {
		return "", err
	}
	if err := reply.Decode(out); err != nil {
		return "", fmt.Errorf("GET %s: %w", path, err)
	}
	return reply.ETag, nil
}

// Server reads the server: GET /1.0, and the ETag for UpdateServer. Callers that
// the server does not trust get only the fields of api.ServerUntrusted.
func (c *Client) Server(ctx context.Context) (*api.Server, string, error) {
	var server api.Server
	etag, err := c.get(ctx, c.path(nil), &server)
	if err != nil {
		return nil, "", err
	}
	return &server, etag, nil
}

// UpdateServer replaces the server's configuration.
func (c *Client) UpdateServer(ctx context.Context, put api.ServerPut, etag string) error {
	_, err := c.Query(ctx, http.MethodPut, c.path(nil), put, etag)
	return err
}

// PatchServer changes the keys of the server's configuration that patch names.
func (c *Client) PatchServer(ctx context.Context, patch api.ServerPut, etag string) error {
	_, err := c.Query(ctx, http.MethodPatch, c.path(nil), patch, etag)
	return err
}

// Cluster reads the server's view of its cluster, and the ETag for UpdateCluster.
func (c *Client) Cluster(ctx context.Context) (*api.Cluster, string, error) {
	var cluster api.Cluster
	etag, err := c.get(ctx, c.path(nil, "cluster"), &cluster)
	if err != nil {
		return nil, "", err
	}
	return &cluster, etag, nil
}

// UpdateCluster starts a bootstrap or a join and returns its operation; see Wait.
// The operation is nil where the server did all at once.
func (c *Client) UpdateCluster(ctx context.Context, put api.ClusterPut, etag string) (*api.Operation, error) {
	reply, err := c.Query(ctx, http.MethodPut, c.path(nil, "cluster"), put, etag)
	if err != nil {
		return nil, err
	}
	return reply.Operation()
}

// Members lists the members that match filter (rest-basics.md §6); empty means all.
func (c *Client) Members(ctx context.Context, filter string) ([]api.ClusterMember, error) {
	members := []api.ClusterMember{}
	query := url.Values{"recursion": {"1"}, "filter": {filter}}
	_, err := c.get(ctx, c.path(query, "cluster", "members"), &members)
	return members, err
}

// Member reads one member, and the ETag for UpdateMember.
func (c *Client) Member(ctx context.Context, name string) (*api.ClusterMember, string, error) {
	var member api.ClusterMember
	etag, err := c.get(ctx, c.path(nil, "cluster", "members", name), &member)
	if err != nil {
		return nil, "", err
	}
	return &member, etag, nil
}

// UpdateMember replaces the writable part of a member.
func (c *Client) UpdateMember(ctx context.Context, name string, put api.ClusterMemberPut, etag string) error {
	_, err := c.Query(ctx, http.MethodPut, c.path(nil, "cluster", "members", name), put, etag)
	return err
}

// RemoveMember removes a member and waits until it is gone, or until the server says that the
// removal goes on by itself (api.Timeout). With force it may be dead. With rotate the cluster
// gets another key afterwards; see RotateKey.
func (c *Client) RemoveMember(ctx context.Context, name string, force, rotate bool) error {
	query := url.Values{}
	if rotate {
		query.Set("rotate-key", "1")
	}
	if force {
		query.Set("force", "1")
	}
	_, err := c.Query(ctx, http.MethodDelete, c.path(query, "cluster", "members", name), nil, "")
	return err
}

// ResetCluster makes the server, over its own socket, a clean standalone one, unless it is a
// member of a cluster that works. force is needed if its cluster has not removed it and does not
// answer.
func (c *Client) ResetCluster(ctx context.Context, force bool) error {
	_, err := c.Query(ctx, http.MethodPost, fmt.Sprintf("/internal/cluster/reset?force=%t", force), nil, "")
	return err
}

// MemberState reads how the machine of a member is doing.
func (c *Client) MemberState(ctx context.Context, name string) (*api.ClusterMemberState, error) {
	var state api.ClusterMemberState
	if _, err := c.get(ctx, c.path(nil, "cluster", "members", name, "state"), &state); err != nil {
		return nil, err
	}
	return &state, nil
}

// A JoinToken is a live join token and the operation that stands for it.
type JoinToken struct {
	api.ClusterMemberJoinToken `yaml:",inline"`
	// Operation is the ID to give to CancelOperation.
	Operation string `json:"-" yaml:"-"`
}

// CreateJoinToken issues the token with which the server called name may join. An
// earlier token for that name is revoked.
func (c *Client) CreateJoinToken(ctx context.Context, name string) (*JoinToken, error) {
	return c.createToken(ctx, api.ClusterMembersPost{ServerName: name})
}

// CreateReplacementToken issues the token with which a new server takes the place of the
// member called name, which must be offline. An earlier token for that name is revoked.
func (c *Client) CreateReplacementToken(ctx context.Context, name string) (*JoinToken, error) {
	return c.createToken(ctx, api.ClusterMembersPost{ServerName: name, Replace: true})
}

func (c *Client) createToken(ctx context.Context, post api.ClusterMembersPost) (*JoinToken, error) {
	op, err := c.issue(ctx, "join token", post, "cluster", "members")
	if err != nil {
		return nil, err
	}
	return joinToken(op)
}

// issue asks for a token, which words names, and returns the operation that stands for it.
func (c *Client) issue(ctx context.Context, words string, post any, parts ...string) (*api.Operation, error) {
	reply, err := c.Query(ctx, http.MethodPost, c.path(nil, parts...), post, "")
	if err != nil {
		return nil, err
	}
	op, err := reply.Operation()
	if err == nil && op == nil {
		err = fmt.Errorf("the server answered without an operation for the %s", words)
	}
	return op, err
}

// JoinTokens lists the live join tokens. It leaves out those whose secret the
// caller may not see: they are of no use to it.
func (c *Client) JoinTokens(ctx context.Context) ([]JoinToken, error) {
	return liveTokens(ctx, c, joinToken)
}

// liveTokens lists the running operations that read takes for tokens.
func liveTokens[T any](ctx context.Context, c *Client, read func(*api.Operation) (*T, error)) ([]T, error) {
	operations, err := c.WithProject("").Operations(ctx, false)
	if err != nil {
		return nil, err
	}
	tokens := []T{}
	for i := range operations {
		op := &operations[i]
		if op.StatusCode != api.Running {
			continue
		}
		if token, err := read(op); err == nil {
			tokens = append(tokens, *token)
		}
	}
	return tokens, nil
}

func joinToken(op *api.Operation) (*JoinToken, error) {
	token, err := op.JoinToken()
	if err != nil {
		return nil, err
	}
	return &JoinToken{ClusterMemberJoinToken: *token, Operation: op.ID}, nil
}

// CreateCertificate adds a certificate to the trust store. It is also how a server
// redeems a join token; a client without rights needs one in post.
func (c *Client) CreateCertificate(ctx context.Context, post api.CertificatesPost) error {
	_, err := c.Query(ctx, http.MethodPost, c.path(nil, "certificates"), post, "")
	return err
}

// Ready asks whether the daemon has fully started. It fails with the daemon's own
// reason while it has not. Only the unix socket and members may ask.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.Query(ctx, http.MethodGet, "/internal/ready", nil, "")
	return err
}

// SetAddress moves the member that answers to another address; with force the other members
// need not reach it there yet.
func (c *Client) SetAddress(ctx context.Context, address string, force bool) error {
	_, err := c.Query(ctx, http.MethodPut, "/internal/cluster/address", api.ClusterAddressPut{Address: address, Force: force}, "")
	return err
}

// Shutdown stops the daemon and blocks until it has stopped or ctx ends; force does
// not wait for running operations. A connection that ends without an answer counts
// as stopped.
func (c *Client) Shutdown(ctx context.Context, force bool) error {
	_, err := c.query(ctx, 0, http.MethodPut, fmt.Sprintf("/internal/shutdown?force=%t", force), nil, "")
	if err != nil && (ctx.Err() != nil || !errors.Is(err, api.OutcomeUnknown)) {
		return err
	}
	return c.awaitEnd(ctx)
}

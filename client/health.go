package client

import (
	"context"

	"incusd/api"
)

// Diagnosis asks the server what is wrong with its cluster. It answers without a quorum, too,
// within about two seconds.
func (c *Client) Diagnosis(ctx context.Context) (*api.Diagnosis, error) {
	var d api.Diagnosis
	if _, err := c.get(ctx, "/internal/cluster/doctor", &d); err != nil {
		return nil, err
	}
	return &d, nil
}

// ClusterHealth asks for what the leader knows of each member.
func (c *Client) ClusterHealth(ctx context.Context) (*api.ClusterHealth, error) {
	var h api.ClusterHealth
	if _, err := c.get(ctx, "/internal/cluster/health", &h); err != nil {
		return nil, err
	}
	return &h, nil
}

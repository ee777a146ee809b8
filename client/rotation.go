package client

import (
	"context"
	"net/http"

	"incusd/api"
)

// UpdateClusterCertificate lets all members show another certificate, PEM both. Who knows the
// present one is led to it; see Remote.
func (c *Client) UpdateClusterCertificate(ctx context.Context, certificate, key string) error {
	put := api.ClusterCertificatePut{ClusterCertificate: certificate, ClusterCertificateKey: api.Secret(key)}
	_, err := c.Query(ctx, http.MethodPut, c.path(nil, "cluster", "certificate"), put, "")
	return err
}

// RotateKey gives the cluster a key that nobody has who had the present one, and its join tokens
// other secrets. Nobody is led to the new certificate: it must be confirmed again.
func (c *Client) RotateKey(ctx context.Context) error {
	_, err := c.Query(ctx, http.MethodPost, "/internal/cluster/rotate-key", nil, "")
	return err
}

// UpdateServerCertificate lets a server that is in no cluster show another certificate, PEM both,
// over its own socket.
func (c *Client) UpdateServerCertificate(ctx context.Context, certificate, key string) error {
	put := api.ServerCertificatePut{Certificate: certificate, Key: api.Secret(key)}
	_, err := c.Query(ctx, http.MethodPut, "/internal/server-certificate", put, "")
	return err
}

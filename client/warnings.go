package client

import (
	"context"
	"net/http"

	"incusd/api"
)

// Warnings lists the warnings, acknowledged and resolved ones too.
func (c *Client) Warnings(ctx context.Context) ([]api.Warning, error) {
	return list[api.Warning](ctx, c, nil, "warnings")
}

// Warning reads one warning.
func (c *Client) Warning(ctx context.Context, uuid string) (*api.Warning, error) {
	w, _, err := one[api.Warning](ctx, c, "warnings", uuid)
	return w, err
}

// UpdateWarning sets the status of a warning.
func (c *Client) UpdateWarning(ctx context.Context, uuid string, put api.WarningPut) error {
	return c.send(ctx, http.MethodPut, put, "", "warnings", uuid)
}

// DeleteWarning forgets a warning.
func (c *Client) DeleteWarning(ctx context.Context, uuid string) error {
	return c.send(ctx, http.MethodDelete, nil, "", "warnings", uuid)
}

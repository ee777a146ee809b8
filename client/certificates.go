package client

import (
	"context"
	"net/http"
	"net/url"

	"incusd/api"
)

// Certificates lists the trust store, as far as it matches filter (rest-basics.md §6); empty means all.
func (c *Client) Certificates(ctx context.Context, filter string) ([]api.Certificate, error) {
	certificates := []api.Certificate{}
	query := url.Values{"recursion": {"1"}}
	if filter != "" {
		query.Set("filter", filter)
	}
	_, err := c.get(ctx, c.path(query, "certificates"), &certificates)
	return certificates, err
}

// Certificate reads the certificate whose fingerprint begins with fingerprint, and the ETag for
// UpdateCertificate.
func (c *Client) Certificate(ctx context.Context, fingerprint string) (*api.Certificate, string, error) {
	var certificate api.Certificate
	etag, err := c.get(ctx, c.path(nil, "certificates", fingerprint), &certificate)
	if err != nil {
		return nil, "", err
	}
	return &certificate, etag, nil
}

// UpdateCertificate replaces the writable part of an entry of the trust store.
func (c *Client) UpdateCertificate(ctx context.Context, fingerprint string, put api.CertificatePut, etag string) error {
	_, err := c.Query(ctx, http.MethodPut, c.path(nil, "certificates", fingerprint), put, etag)
	return err
}

// DeleteCertificate ends the trust in a certificate.
func (c *Client) DeleteCertificate(ctx context.Context, fingerprint string) error {
	_, err := c.Query(ctx, http.MethodDelete, c.path(nil, "certificates", fingerprint), nil, "")
	return err
}

// An AddToken is a live certificate add token and the operation that stands for it.
type AddToken struct {
	api.CertificateAddToken `yaml:",inline"`
	// Operation is the ID to give to CancelOperation.
	Operation string `json:"-" yaml:"-"`
}

// CreateAddToken issues a token with which a client adds its own certificate. Name, type and rights
// are those of post.
func (c *Client) CreateAddToken(ctx context.Context, post api.CertificatesPost) (*AddToken, error) {
	post.Token = true
	op, err := c.issue(ctx, "certificate add token", post, "certificates")
	if err != nil {
		return nil, err
	}
	return addToken(op)
}

// AddTokens lists the live certificate add tokens whose secret the caller may see.
func (c *Client) AddTokens(ctx context.Context) ([]AddToken, error) {
	return liveTokens(ctx, c, addToken)
}

func addToken(op *api.Operation) (*AddToken, error) {
	token, err := op.CertificateAddToken()
	if err != nil {
		return nil, err
	}
	return &AddToken{CertificateAddToken: *token, Operation: op.ID}, nil
}

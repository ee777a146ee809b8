package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"incusd/api"
)

// membersPath is the member list, as incus cluster list reads it.
const membersPath = "/1.0/cluster/members?recursion=1"

// A restClient speaks to one daemon over its unix socket, with nothing between the
// figure and the wire but net/http.
type restClient struct{ http *http.Client }

func newRESTClient(socket string) *restClient {
	var d net.Dialer
	return &restClient{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 64,
	}}}
}

// get reads a resource into metadata, which may be nil.
func (c *restClient) get(ctx context.Context, path string, metadata any) error {
	return c.do(ctx, http.MethodGet, path, nil, metadata)
}

// do sends one request and reads the whole answer. An error answer is an error.
func (c *restClient) do(ctx context.Context, method, path string, body, metadata any) error {
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://unix.socket"+path, payload)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return decode(data, resp.Status, metadata)
}

func decode(data []byte, status string, metadata any) error {
	var envelope api.Response
	if err := json.Unmarshal(data, &envelope); err != nil {
		return fmt.Errorf("%s: %w", status, err)
	}
	if envelope.Type == api.ErrorResponse {
		return fmt.Errorf("%s: %s", status, envelope.Error)
	}
	if metadata == nil {
		return nil
	}
	return json.Unmarshal(envelope.Metadata, metadata)
}

// forget closes idle connections, so that the next call dials the daemon anew.
func (c *restClient) forget() { c.http.CloseIdleConnections() }

// members lists the cluster's members.
func (c *restClient) members(ctx context.Context) ([]api.ClusterMember, error) {
	var list []api.ClusterMember
	err := c.get(ctx, membersPath, &list)
	return list, err
}

// token asks for a join token for the member called name.
func (c *restClient) token(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodPost, "/1.0/cluster/members", api.ClusterMembersPost{ServerName: name}, nil)
}

// setConfig changes one key of the cluster's configuration.
func (c *restClient) setConfig(ctx context.Context, key, value string) error {
	return c.do(ctx, http.MethodPatch, "/1.0", api.ServerPut{Config: api.ConfigMap{key: value}}, nil)
}

// trySetConfig is setConfig that gives up after limit.
func (c *restClient) trySetConfig(ctx context.Context, limit time.Duration, key, value string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return c.setConfig(ctx, key, value)
}

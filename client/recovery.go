package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"incusd/api"
)

// ClusterDatabase describes the daemon's copy of the replicated state. Only the unix socket may ask.
func (c *Client) ClusterDatabase(ctx context.Context) (api.ClusterDatabase, error) {
	var db api.ClusterDatabase
	reply, err := c.Query(ctx, http.MethodGet, "/internal/cluster/database", nil, "")
	if err != nil {
		return db, err
	}
	return db, reply.Decode(&db)
}

// RemoveRaftNode removes a Raft server that has no member's row.
func (c *Client) RemoveRaftNode(ctx context.Context, address string) error {
	_, err := c.Query(ctx, http.MethodDelete, "/internal/cluster/raft-node/"+url.PathEscape(address), nil, "")
	return err
}

// Backup writes the whole replicated state to w and returns its size. An error says that w has no
// whole backup. It blocks until all is written or ctx ends.
func (c *Client) Backup(ctx context.Context, w io.Writer) (int64, error) {
	req, err := c.request(ctx, http.MethodGet, "/internal/cluster/backup", nil, "")
	if err != nil {
		return 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, c.noAnswer(ctx, false, err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") != "application/octet-stream" {
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		if err != nil {
			return 0, c.noAnswer(ctx, false, err)
		}
		if _, err = parseReply(resp, req, data); err == nil {
			err = api.Errorf(api.NotImplemented, "the server sent no backup")
		}
		return 0, err
	}
	to := &sink{w: w}
	size, err := io.Copy(to, resp.Body)
	if err != nil && to.err == nil {
		err = c.noAnswer(ctx, false, err)
	}
	return size, err
}

// sink remembers why nothing more could be written, which says nothing of the connection.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (n int, err error) {
	n, err = s.w.Write(p)
	s.err = err
	return n, err
}

// Restore makes a backup the state of the server. name and address may be empty.
func (c *Client) Restore(ctx context.Context, backup io.Reader, name, address string) (api.ClusterRestored, error) {
	var done api.ClusterRestored
	query := url.Values{"name": {name}, "address": {address}}
	req, err := c.request(ctx, http.MethodPut, "/internal/cluster/restore?"+query.Encode(), nil, "")
	if err != nil {
		return done, err
	}
	req.Body = io.NopCloser(backup)
	req.ContentLength = -1
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := c.http.Do(req)
	if err != nil {
		return done, c.noAnswer(ctx, true, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return done, c.noAnswer(ctx, true, err)
	}
	reply, err := parseReply(resp, req, data)
	if err != nil {
		return done, err
	}
	return done, reply.Decode(&done)
}

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"

	"incusd/api"
)

// maxBody bounds an answer. The largest real ones, lists of thousands of objects,
// have a few MiB.
const maxBody = 64 << 20

// A Reply is what a server answered.
type Reply struct {
	api.Response
	// ETag stands for the version of the object that was read; give it to an update.
	ETag string
	// Text is the body of an answer that has no envelope; nil if it has one.
	Text []byte
}

// Decode reads the reply's metadata into out.
func (r *Reply) Decode(out any) error {
	if r.Text != nil {
		return fmt.Errorf("the server answered with plain text where JSON was expected")
	}
	return json.Unmarshal(r.Metadata, out)
}

// Operation reads the operation that an asynchronous reply announces. A
// synchronous reply has none and gives nil.
func (r *Reply) Operation() (*api.Operation, error) {
	if r.Type != api.AsyncResponse {
		return nil, nil
	}
	var op api.Operation
	if err := r.Decode(&op); err != nil {
		return nil, fmt.Errorf("read operation %s: %w", r.Response.Operation, err)
	}
	return &op, nil
}

// Query sends one request and reads the whole answer. Path begins with a slash and
// is sent as it is; body is encoded as JSON unless it is nil; etag, if not empty,
// makes the request fail with api.PreconditionFail when the object has changed.
//
// A refusal is an *api.Error. A server that does not answer within the client's
// timeout gives api.Unavailable, or api.OutcomeUnknown if it may have acted. When
// ctx ends first, the error is that of ctx, and the outcome of a change is unknown,
// too.
func (c *Client) Query(ctx context.Context, method, path string, body any, etag string) (*Reply, error) {
	return c.query(ctx, c.opts.Timeout, method, path, body, etag)
}

// query is Query with a time limit of its own; 0 means that only ctx limits it.
func (c *Client) query(ctx context.Context, limit time.Duration, method, path string, body any, etag string) (*Reply, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, &silentError{limit})
		defer cancel()
	}
	var wrote atomic.Bool // the trace may be called by another goroutine
	trace := &httptrace.ClientTrace{WroteHeaders: func() { wrote.Store(true) }}
	req, err := c.request(httptrace.WithClientTrace(ctx, trace), method, path, body, etag)
	if err != nil {
		return nil, err
	}
	isChange := method != http.MethodGet && method != http.MethodHead
	start := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		c.opts.Logger.Debug("request", "method", method, "path", path, "err", err)
		return nil, c.noAnswer(ctx, isChange && wrote.Load(), err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	c.opts.Logger.Debug("request", "method", method, "path", path, "status", resp.StatusCode, "bytes", len(data), "took", time.Since(start))
	switch {
	case err != nil:
		return nil, c.noAnswer(ctx, isChange && wrote.Load(), err)
	case len(data) > maxBody:
		return nil, fmt.Errorf("%s %s: the answer is longer than %d bytes", method, path, maxBody)
	}
	if header := resp.Header.Get(staleHeader); header != "" && c.opts.OnStale != nil {
		c.opts.OnStale(parseStale(header))
	}
	return parseReply(resp, req, data)
}

func (c *Client) request(ctx context.Context, method, path string, body any, etag string) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request body: %w", err)
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, content)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	for k, v := range c.opts.Header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if etag != "" {
		req.Header.Set("If-Match", etag)
	}
	return req, nil
}

// parseReply tells an envelope from plain text and a refusal from an answer.
func parseReply(resp *http.Response, req *http.Request, data []byte) (*Reply, error) {
	reply := &Reply{ETag: resp.Header.Get("ETag")}
	if json.Unmarshal(data, &reply.Response) != nil || !isEnvelope(reply.Type) {
		if resp.StatusCode != http.StatusOK {
			return nil, api.Errorf(reasonOf(resp.StatusCode), "Failed to fetch %s: %s", req.URL, resp.Status).WithCode(resp.StatusCode)
		}
		return &Reply{ETag: reply.ETag, Text: data}, nil
	}
	if reply.Type == api.ErrorResponse {
		return nil, refusal(&reply.Response, resp.StatusCode)
	}
	return reply, nil
}

func isEnvelope(kind string) bool {
	return kind == api.SyncResponse || kind == api.AsyncResponse || kind == api.ErrorResponse
}

// noAnswer explains why no answer came to a request; sent tells whether it may have
// changed something.
func (c *Client) noAnswer(ctx context.Context, sent bool, err error) error {
	var silent *silentError
	if ctx.Err() != nil && !errors.As(context.Cause(ctx), &silent) {
		return ended(ctx) // the caller gave up; that is its business, not the server's
	}
	var unreached *unreachedError
	if errors.As(err, &unreached) {
		return unreached.refusal()
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return c.notReached(op, err)
	}
	var refused *api.Error // by the pin
	if errors.As(err, &refused) && refused.Reason == api.FingerprintMatch {
		return api.Errorf(refused.Reason, "%s: %s", c.peer, refused.Message).WithHint("%s", refused.NextStep())
	}
	reason := api.Unavailable
	if sent {
		reason = api.OutcomeUnknown
	}
	if silent != nil {
		err = silent
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return withNextStep(api.Errorf(reason, "%s hung up before it answered", c.peer))
	}
	return withNextStep(api.Errorf(reason, "%s: %v", c.peer, plain(err)))
}

// notReached words a failed dial; those of a unix socket have known causes.
func (c *Client) notReached(op *net.OpError, err error) error {
	if op.Net == "unix" {
		switch {
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
			return api.Errorf(api.Unavailable, "The incus daemon doesn't appear to be started (socket path: %s)", c.peer).
				WithHint("start incusd, or set INCUS_DIR to the state directory of a running one")
		case errors.Is(err, syscall.EACCES):
			return api.Errorf(api.NotAuthorized, "You don't have the needed permissions to talk to the incus daemon (socket path: %s)", c.peer).
				WithHint("run the command as root, or as a member of the socket's group")
		}
	}
	return api.Errorf(api.Unavailable, "Unable to connect to %s: %v", c.peer, plain(op)).
		WithHint("check that the server runs and that its address and port can be reached from here")
}

// plain strips the wrapping that net/http and net put around a cause: the peer is
// named already.
func plain(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return err
}

// ended is why ctx ended: its cause, in which the error of ctx itself can be found
// as well.
func ended(ctx context.Context) error {
	return &endedError{cause: context.Cause(ctx), err: ctx.Err()}
}

type endedError struct{ cause, err error }

func (e *endedError) Error() string   { return e.cause.Error() }
func (e *endedError) Unwrap() []error { return []error{e.cause, e.err} }

// silentError is the cause of giving up on a server that says nothing.
type silentError struct{ limit time.Duration }

func (e *silentError) Error() string { return fmt.Sprintf("no answer within %v", e.limit) }

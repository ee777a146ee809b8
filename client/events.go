package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"

	"incusd/api"
)

// maxEvent bounds one event. Operations with the progress of many parts are the
// largest.
const maxEvent = 1 << 20

// Events is an open stream of events.
type Events struct{ conn *websocket.Conn }

// Events subscribes to the events of the given types (all if there are none) in the
// client's project. When it returns, the subscription is in force: nothing that
// happens later is missed. It fails with the server's refusal.
func (c *Client) Events(ctx context.Context, types ...string) (*Events, error) {
	return c.events(ctx, url.Values{}, types)
}

// AllEvents is Events of all projects.
func (c *Client) AllEvents(ctx context.Context, types ...string) (*Events, error) {
	return c.allProjects(true).events(ctx, everywhere(true), types)
}

func (c *Client) events(ctx context.Context, query url.Values, types []string) (*Events, error) {
	if len(types) > 0 {
		query.Set("type", strings.Join(types, ","))
	}
	// The handshake is bounded; the stream lives until it is closed.
	dialCtx, cancel := context.WithTimeoutCause(ctx, c.opts.Timeout, &silentError{c.opts.Timeout})
	defer cancel()
	header := c.opts.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("User-Agent", c.opts.UserAgent)
	conn, resp, err := websocket.Dial(dialCtx, c.base.String()+c.path(query, "events"), &websocket.DialOptions{
		HTTPClient: c.http,
		HTTPHeader: header,
	})
	if err != nil {
		if resp != nil {
			data, _ := io.ReadAll(io.LimitReader(resp.Body, maxEvent))
			if _, refused := parseReply(resp, resp.Request, data); refused != nil {
				return nil, refused
			}
			return nil, api.Errorf(reasonOf(resp.StatusCode), "subscribe to events: %s", resp.Status).WithCode(resp.StatusCode)
		}
		return nil, c.noAnswer(dialCtx, false, err)
	}
	conn.SetReadLimit(maxEvent)
	return &Events{conn: conn}, nil
}

// Next blocks until the next event arrives, the stream breaks or ctx ends. After an
// error, also that of ctx, the stream is of no more use.
func (e *Events) Next(ctx context.Context) (api.Event, error) {
	_, data, err := e.conn.Read(ctx)
	if err != nil {
		return api.Event{}, fmt.Errorf("read event: %w", err)
	}
	var event api.Event
	if err := json.Unmarshal(data, &event); err != nil {
		return api.Event{}, fmt.Errorf("read event: %w", err)
	}
	return event, nil
}

// Close ends the stream without waiting for the server.
func (e *Events) Close() error { return e.conn.CloseNow() }

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"incusd/api"
)

// maxEvent bounds one event. Operations with the progress of many parts are the
// largest.
const maxEvent = 1 << 20

// silenceLimit is after how long without a word a server is given up: one that is there pings three
// times in it.
const silenceLimit = 30 * time.Second

// Events is an open stream of events.
type Events struct {
	conn *websocket.Conn
	// silence breaks the stream, and is put off by each word of the server.
	silence *time.Timer
	broken  atomic.Bool
}

// Events subscribes to the events of the given types (all if there are none) in the
// client's project. When it returns, the subscription is in force: nothing that
// happens later is missed. It fails with the server's refusal.
func (c *Client) Events(ctx context.Context, types ...string) (*Events, error) {
	return c.events(ctx, url.Values{}, types)
}

// AllEvents is Events of all projects.
func (c *Client) AllEvents(ctx context.Context, types ...string) (*Events, error) {
	return c.events(ctx, everywhere(true), types)
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
	e := &Events{}
	conn, resp, err := websocket.Dial(dialCtx, c.base.String()+c.path(query, "events"), &websocket.DialOptions{
		HTTPClient: c.http,
		HTTPHeader: header,
		OnPingReceived: func(context.Context, []byte) bool {
			e.silence.Reset(silenceLimit)
			return true
		},
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
	e.conn = conn
	e.silence = time.AfterFunc(silenceLimit, func() {
		e.broken.Store(true)
		conn.CloseNow()
	})
	return e, nil
}

// Next blocks until the next event arrives, the stream ends or ctx does. After an error, also that
// of ctx, the stream is of no more use. Only who calls it hears the server, so who has an open stream
// does that all the time.
func (e *Events) Next(ctx context.Context) (api.Event, error) {
	_, data, err := e.conn.Read(ctx)
	if err != nil {
		return api.Event{}, e.whyEnded(ctx, err)
	}
	e.silence.Reset(silenceLimit)
	var event api.Event
	if err := json.Unmarshal(data, &event); err != nil {
		return api.Event{}, fmt.Errorf("read event: %w", err)
	}
	return event, nil
}

// whyEnded words the end of the stream: a server that ends it says why.
func (e *Events) whyEnded(ctx context.Context, err error) error {
	var farewell websocket.CloseError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case e.broken.Load():
		return api.Errorf(api.Unavailable, "The stream of events broke: no word of the server for %v", silenceLimit)
	case !errors.As(err, &farewell) || farewell.Reason == "":
		return api.Errorf(api.Unavailable, "The stream of events broke: %v", err)
	case farewell.Code == websocket.StatusGoingAway:
		return api.Errorf(api.ShuttingDown, "The server has ended the stream of events: %s", farewell.Reason)
	case strings.HasPrefix(farewell.Reason, "too slow"):
		return api.Errorf(api.TooMany, "The server has ended the stream of events: %s", farewell.Reason)
	}
	return api.Errorf(api.NotAuthorized, "The server has ended the stream of events: %s", farewell.Reason)
}

// Close ends the stream without waiting for the server.
func (e *Events) Close() error {
	e.silence.Stop()
	return e.conn.CloseNow()
}

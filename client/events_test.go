package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"incusd/api"
	"incusd/client"
	"incusd/client/clienttest"
)

func TestStreamOfEventsEndsWithTheServersWord(t *testing.T) {
	server := clienttest.New(t)
	c := client.Unix(server.Socket(), client.Options{})
	for _, tt := range []struct {
		code     websocket.StatusCode
		farewell string
		reason   api.Reason
		want     string
	}{
		{websocket.StatusGoingAway, "Incus is shutting down", api.ShuttingDown, "The server has ended the stream of events: Incus is shutting down"},
		{websocket.StatusPolicyViolation, "not authorized any more", api.NotAuthorized, "The server has ended the stream of events: not authorized any more"},
		{websocket.StatusPolicyViolation, "too slow: more than 1000 events were waiting", api.TooMany, "The server has ended the stream of events: too slow"},
		{websocket.StatusNormalClosure, "", api.Unavailable, "The stream of events broke: "},
	} {
		server.Handle("GET /1.0/events", func(w http.ResponseWriter, r *http.Request) {
			if conn, err := websocket.Accept(w, r, nil); err == nil {
				_ = conn.Close(tt.code, tt.farewell)
			}
		})
		events, err := c.Events(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := events.Next(t.Context()); !errors.Is(err, tt.reason) || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: got %v", tt.farewell, err)
		}
		events.Close()
	}
}

// pipes are connections within this process; they are a listener, too.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if conn, open := <-p; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }
func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	p <- there
	return here, nil
}

func TestSilentServerIsGivenUpAndOneThatPingsIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pings = 20
		listener := make(pipes)
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			ctx := conn.CloseRead(context.WithoutCancel(r.Context()))
			for range pings {
				time.Sleep(10 * time.Second)
				_ = conn.Ping(ctx)
			}
			<-ctx.Done() // from now on not a word
		})}
		go server.Serve(listener)
		c := client.Unix("/run/x", client.Options{Dial: listener.dial})
		events, err := c.Events(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_, err = events.Next(t.Context())
		if !errors.Is(err, api.Unavailable) || err.Error() != "The stream of events broke: no word of the server for 30s" {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took != pings*10*time.Second+30*time.Second {
			t.Errorf("given up after %v", took)
		}
		events.Close()
		close(listener)
		_ = server.Close()
	})
}

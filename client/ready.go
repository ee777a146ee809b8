package client

import (
	"context"
	"errors"
	"time"

	"incusd/api"
)

// readyInterval is the time between two questions whether the daemon is ready, and endInterval
// between two whether it still ends.
const (
	readyInterval = 500 * time.Millisecond
	endInterval   = 50 * time.Millisecond
)

// DefaultPatience bounds, in seconds, a wait for which the user gave no limit.
const DefaultPatience = 600

// Patience is the limit of a wait for so many seconds, of which 0 and less mean DefaultPatience.
func Patience(seconds int) time.Duration {
	if seconds <= 0 {
		seconds = DefaultPatience
	}
	return time.Duration(seconds) * time.Second
}

// WaitReady asks again and again until the daemon is ready. It fails with api.Timeout when limit
// has passed.
func (c *Client) WaitReady(ctx context.Context, limit time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	last := errors.New("no answer")
	for {
		err := c.Ready(limited)
		if err == nil || errors.Is(err, api.NotAuthorized) && errors.Is(last, api.NotAuthorized) {
			return err // who may not ask is not told later either; a new socket gets its owner in a moment
		}
		if limited.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-limited.Done():
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case limited.Err() != nil:
			return api.Errorf(api.Timeout, "Daemon still not running after %ds timeout (%v)", int(limit.Seconds()), last).
				WithHint("look into the daemon's log for what it is waiting for")
		}
	}
}

// awaitEnd blocks until a daemon that ends does not answer any more, or another one does: the answer
// to the command goes out before all is closed.
func (c *Client) awaitEnd(ctx context.Context) error {
	for errors.Is(c.Ready(ctx), api.ShuttingDown) {
		select {
		case <-time.After(endInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// ShutdownWithin is Shutdown, and fails with api.Timeout when limit has passed.
func (c *Client) ShutdownWithin(ctx context.Context, limit time.Duration, force bool) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := c.Shutdown(limited, force)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return api.Errorf(api.Timeout, "Daemon still running after %ds timeout", int(limit.Seconds())).
			WithHint("it may be waiting for operations: incus operation list; --force does not wait for them")
	}
	return err
}

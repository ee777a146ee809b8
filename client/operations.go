package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"incusd/api"
)

const (
	// quietLimit is how long a wait trusts a silent event stream before it asks for
	// the operation itself: events can be lost with their connection.
	quietLimit = 15 * time.Second
	// pollTime is how long the server may hold one request of a wait without events.
	pollTime = 10 * time.Second
	// holdPause keeps a server that does not hold the request from being flooded.
	holdPause = 200 * time.Millisecond
)

// Operations lists the operations of the client's project, or of all, in the
// order in which they were created.
func (c *Client) Operations(ctx context.Context, allProjects bool) ([]api.Operation, error) {
	query := url.Values{"recursion": {"1"}}
	switch {
	case allProjects:
		query.Set("all-projects", "true")
	case c.project == "":
		query.Set("project", "default")
	}
	// The answer is grouped by status.
	var byStatus map[string][]api.Operation
	if _, err := c.get(ctx, c.path(query, "operations"), &byStatus); err != nil {
		return nil, err
	}
	all := []api.Operation{}
	for _, group := range byStatus {
		all = append(all, group...)
	}
	slices.SortFunc(all, func(a, b api.Operation) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// Operation reads one operation. Ended ones can be read for 5 s.
func (c *Client) Operation(ctx context.Context, id string) (*api.Operation, error) {
	var op api.Operation
	if _, err := c.get(ctx, c.path(nil, "operations", id), &op); err != nil {
		return nil, err
	}
	return &op, nil
}

// CancelOperation cancels an operation; that of a join token revokes the token.
func (c *Client) CancelOperation(ctx context.Context, id string) error {
	_, err := c.Query(ctx, http.MethodDelete, c.path(nil, "operations", id), nil, "")
	return err
}

// Wait blocks until op has ended or ctx ends, and returns its last state. A failed
// or cancelled operation is also an error, with the reason that the operation's
// metadata names. Progress, unless nil, is called with every state seen.
//
// It follows the event stream. Where the server refuses that, or it breaks, it asks
// the server to hold a request until the operation ends. A nil op, as synchronous
// answers give, has ended.
func (c *Client) Wait(ctx context.Context, op *api.Operation, progress func(*api.Operation)) (*api.Operation, error) {
	if op == nil {
		return nil, nil
	}
	if progress == nil {
		progress = func(*api.Operation) {}
	}
	last, err := c.follow(ctx, op.ID, progress)
	for err == nil && last == nil {
		last, err = c.hold(ctx, op.ID, progress)
		if err == nil && last == nil {
			err = pause(ctx, holdPause)
		}
	}
	if err != nil {
		return nil, err
	}
	return last, operationError(last)
}

// follow waits by the event stream. It returns nil without an error when the stream
// cannot be had, or broke before the end.
func (c *Client) follow(ctx context.Context, id string, progress func(*api.Operation)) (*api.Operation, error) {
	events, err := c.Events(ctx, api.EventOperation)
	switch {
	case ctx.Err() != nil:
		return nil, ended(ctx)
	case err != nil:
		return nil, nil
	}
	states := make(chan *api.Operation)
	readCtx, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		events.Close()
		for range states { // until the reader is gone
		}
	}()
	go func() {
		defer close(states)
		readStates(readCtx, events, id, states)
	}()
	for {
		// Asked after subscribing, so that an end between request and subscription shows.
		op, err := c.reread(ctx, id)
		if err != nil {
			return nil, err
		}
		for quiet := time.After(quietLimit); op != nil; {
			progress(op)
			if op.StatusCode.IsFinal() {
				return op, nil
			}
			select {
			case next, open := <-states:
				if !open {
					return nil, nil
				}
				op, quiet = next, time.After(quietLimit)
			case <-quiet:
				op = nil
			case <-ctx.Done():
				return nil, ended(ctx)
			}
		}
	}
}

// readStates sends the states of operation id that the stream brings, until it
// ends. A frame that is no operation is skipped.
func readStates(ctx context.Context, events *Events, id string, states chan<- *api.Operation) {
	for {
		event, err := events.Next(ctx)
		if err != nil {
			return
		}
		var op api.Operation
		if event.Type != api.EventOperation || json.Unmarshal(event.Metadata, &op) != nil || op.ID != id {
			continue
		}
		select {
		case states <- &op:
		case <-ctx.Done():
			return
		}
	}
}

// reread reads an operation that is known to have been started: one that cannot be
// found any more has ended unseen.
func (c *Client) reread(ctx context.Context, id string) (*api.Operation, error) {
	op, err := c.Operation(ctx, id)
	return op, lost(id, err)
}

// hold lets the server wait for the operation, for a while. It returns nil if the
// operation goes on.
func (c *Client) hold(ctx context.Context, id string, progress func(*api.Operation)) (*api.Operation, error) {
	seconds := strconv.Itoa(int(pollTime.Seconds()))
	path := c.path(url.Values{"timeout": {seconds}}, "operations", id, "wait")
	reply, err := c.query(ctx, pollTime+c.opts.Timeout, http.MethodGet, path, nil, "")
	if err != nil {
		return nil, lost(id, err)
	}
	var op api.Operation
	if err := reply.Decode(&op); err != nil {
		return nil, err
	}
	progress(&op)
	if !op.StatusCode.IsFinal() {
		return nil, nil
	}
	return &op, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

// lost replaces "not found" for an operation that did exist.
func lost(id string, err error) error {
	var e *api.Error
	if errors.As(err, &e) && e.Status() == http.StatusNotFound {
		return withNextStep(api.Errorf(api.OutcomeUnknown, "operation %s ended, and its result is not kept any longer", id))
	}
	return err
}

// operationError is the error of an operation that has ended. Our own servers put
// reason, hint and problems into the metadata, as in an error envelope.
func operationError(op *api.Operation) error {
	if op.StatusCode == api.Success {
		return nil
	}
	var details api.ErrorMetadata
	if data, err := json.Marshal(op.Metadata); err == nil {
		_ = json.Unmarshal(data, &details) // foreign metadata has no reason
	}
	if details.Reason == "" {
		details.Reason = api.Internal
	}
	message := op.Err
	if message == "" {
		message = op.StatusCode.String()
	}
	return withProblems(&api.Error{Reason: details.Reason, Message: message, Hint: details.Hint}, details.Problems)
}

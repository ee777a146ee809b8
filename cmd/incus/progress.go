package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"incusd/api"
	"incusd/client"
)

// await blocks until op has ended, for at most operationLimit, and shows a person
// what it does under title. It returns the operation's last state.
func (a *app) await(ctx context.Context, c *client.Client, op *api.Operation, title string) (*api.Operation, error) {
	tooLong := refuse(api.OutcomeUnknown, "%s: not ended within %v", title, operationLimit)
	ctx, cancel := context.WithTimeoutCause(ctx, operationLimit, tooLong)
	defer cancel()
	line := a.statusLine()
	ended, err := c.Wait(ctx, op, func(op *api.Operation) {
		if text := progressOf(op); text != "" {
			line(title + ": " + text)
		}
	})
	line("")
	if errors.Is(err, context.Canceled) {
		return nil, api.Errorf(api.OutcomeUnknown, "interrupted; the daemon goes on with operation %s", op.ID).
			WithHint("see how it ends: incus operation show %s", op.ID)
	}
	return ended, err
}

// progressOf is what a running operation says about itself, or "".
func progressOf(op *api.Operation) string {
	keys := make([]string, 0, len(op.Metadata))
	for key := range op.Metadata {
		if key == "progress" || strings.HasSuffix(key, "_progress") {
			keys = append(keys, key)
		}
	}
	if op.StatusCode.IsFinal() || len(keys) == 0 {
		return ""
	}
	text, _ := op.Metadata[slices.Min(keys)].(string)
	return text
}

// statusLine returns a function that replaces the last line of a terminal; "" clears
// it. Without a terminal, or when asked to be quiet, it does nothing.
func (a *app) statusLine() func(string) {
	shown := ""
	return func(text string) {
		if !a.stderrTerminal || a.quiet || text == shown {
			return
		}
		shown = text
		fmt.Fprintf(a.stderr, "\r\x1b[K%s", text)
	}
}

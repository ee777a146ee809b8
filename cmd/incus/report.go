package main

import (
	"context"
	"errors"
	"fmt"

	"incusd/api"
)

// report prints why the command failed and, where that is known, what to do next.
func (a *app) report(err error) {
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	fmt.Fprintf(a.stderr, "Error: %v\n", err)
	var refused interface{ Problems() []api.Error }
	if errors.As(err, &refused) {
		for _, p := range refused.Problems() {
			a.reportProblem(&p)
		}
	}
	var e *api.Error
	if !errors.As(err, &e) {
		return
	}
	if a.verbose {
		fmt.Fprintf(a.stderr, "Reason: %s\n", string(e.Reason))
	}
	if e.Hint != "" {
		fmt.Fprintf(a.stderr, "Hint: %s\n", e.Hint)
	}
}

func (a *app) reportProblem(p *api.Error) {
	fmt.Fprintf(a.stderr, " - %s\n", p.Message)
	if hint := p.NextStep(); hint != "" {
		fmt.Fprintf(a.stderr, "   Hint: %s\n", hint)
	}
}

// refuse makes an error for reason with the catalogue's next step: what this
// process refuses itself is explained as well as what a server refuses.
func refuse(reason api.Reason, format string, args ...any) *api.Error {
	return explained(api.Errorf(reason, format, args...))
}

// explained adds the catalogue's next step to a refusal of our own packages.
func explained(err error) *api.Error {
	e := api.AsError(err)
	return e.WithHint("%s", e.NextStep())
}

package api

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strings"
	"time"

	"incusd/api"
	"incusd/internal/operations"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
)

func operationURL(id string) string { return resource("operations", id) }

// byStatus groups operations by their lower-case status, as the protocol lists them.
type byStatus map[string][]api.Operation

func (b byStatus) add(ops ...api.Operation) {
	for _, op := range ops {
		key := strings.ToLower(op.Status)
		b[key] = append(b[key], op)
	}
}

// operationsGet lists operations by status: GET /1.0/operations: those that run here,
// the tokens, and those of the other members that answer in time. A member that asks gets
// only those that run here. They are for administrators: operations are the cluster's and in no
// project, and who can read a token can use it.
func (s *Server) operationsGet(c *call) (reply, error) {
	scope, err := c.projects()
	if err != nil {
		return reply{}, err
	}
	all := make(byStatus)
	if !c.caller.admin() {
		return reply{metadata: all}, nil
	}
	for _, op := range s.cfg.Operations.List() {
		all.add(op.API())
	}
	if c.caller.notification {
		return reply{metadata: all}, nil
	}
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return reply{}, err
	}
	if scope.includes(defaultName) { // that is the project of tokens
		all.add(tokens.Operations(view, s.cfg.Now())...)
	}
	for _, theirs := range askAll[byStatus](c.Context(), s, s.online(view), "/1.0/operations?recursion=1&all-projects=true") {
		for _, ops := range theirs {
			all.add(ops...)
		}
	}
	if c.recursive() {
		return ok(view, all), nil
	}
	urls := make(map[string][]string, len(all))
	for status, ops := range all {
		for _, op := range ops {
			urls[status] = append(urls[status], operationURL(op.ID))
		}
	}
	return ok(view, urls), nil
}

// An operation is in one of three places; exactly one field is set.
type found struct {
	here  *operations.Op
	token *state.Token
	at    *state.Member
}

// findOperation looks for the operation that the path names: here, among the
// tokens, and with the other members. Who is no administrator finds none.
func (s *Server) findOperation(c *call) (found, *raftstore.View, error) {
	id := c.name("id")
	missing := api.Errorf(api.NotFound, "Operation not found")
	if !c.caller.admin() {
		return found{}, nil, missing
	}
	if op, ok := s.cfg.Operations.Get(id); ok {
		return found{here: op}, s.cfg.Store.Local(), nil
	}
	if c.caller.notification {
		return found{}, nil, missing
	}
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return found{}, nil, err
	}
	if t, ok := view.TokenByOperation(id); ok && tokens.Visible(t, s.cfg.Now()) {
		return found{token: t}, view, nil
	}
	if c.caller.forwarded {
		return found{}, nil, missing // another member thought that it is here
	}
	for m := range askAll[api.Operation](c.Context(), s, s.online(view), operationURL(id)) {
		return found{at: m}, view, nil
	}
	return found{}, nil, unlessStale(view, missing)
}

// operationGet shows one operation: GET /1.0/operations/ID.
func (s *Server) operationGet(c *call) (reply, error) {
	f, view, err := s.findOperation(c)
	switch {
	case err != nil:
		return reply{}, err
	case f.at != nil:
		return s.forward(c, f.at), nil
	case f.token != nil:
		return ok(view, tokens.Operation(f.token, tokens.Location(view, f.token), true)), nil
	}
	return reply{metadata: f.here.API()}, nil
}

// operationDelete cancels an operation, or revokes a token: DELETE /1.0/operations/ID.
func (s *Server) operationDelete(c *call) (reply, error) {
	f, _, err := s.findOperation(c)
	switch {
	case err != nil:
		return reply{}, err
	case f.at != nil:
		return s.forward(c, f.at), nil
	case f.token == nil:
		return empty, f.here.Cancel()
	case f.token.Ended != "":
		return reply{}, api.Errorf(api.BadRequest, "Only running operations can be cancelled")
	}
	return empty, s.cfg.Tokens.Revoke(c.Context(), f.token.Operation, c.caller.requestor())
}

// operationWait answers when an operation has ended: GET /1.0/operations/ID/wait.
// Its headers are sent at once. Who is no administrator must have the secret of
// the operation, which only tokens have.
func (s *Server) operationWait(c *call) (reply, error) {
	seconds, err := integer(c, "timeout", -1)
	if err != nil {
		return reply{}, err
	}
	if !c.caller.admin() {
		return s.waitBySecret(c, seconds)
	}
	f, _, err := s.findOperation(c)
	switch {
	case err != nil:
		return reply{}, err
	case f.at != nil:
		return s.forwardPatiently(c, f.at), nil
	case f.token != nil:
		return s.waiting(c, seconds, s.tokenEnd(f.token, true)), nil
	}
	return s.waiting(c, seconds, operationEnd(f.here)), nil
}

// waitBySecret is for callers who are no administrators. They are not told which operations
// there are.
func (s *Server) waitBySecret(c *call, seconds int) (reply, error) {
	refusal := api.Errorf(api.NotAuthorized, "not authorized")
	secret := c.param("secret")
	if secret == "" {
		return reply{}, refusal
	}
	if err := s.useOf(c, secret); err != nil {
		return reply{}, err
	}
	t, ok := s.cfg.Store.Local().TokenByOperation(c.name("id"))
	if !ok || !same(t.Hash, tokens.Hash(secret)) {
		return reply{}, refusal
	}
	return s.waiting(c, seconds, s.tokenEnd(t, false)), nil
}

// maxWait is the longest wait that a duration can hold, in seconds: 292 years.
const maxWait = int64(math.MaxInt64 / time.Second)

// waiting sends the headers, waits for end in the bounds of seconds (negative: none),
// the request and the server, and then sends what the operation is by then. A caller whom
// nobody trusts any more is refused at once.
func (s *Server) waiting(c *call, seconds int, end func(context.Context) api.Operation) reply {
	return reply{serve: func(w http.ResponseWriter, r *http.Request) {
		leave, err := s.stream()
		if err != nil {
			s.fail(w, r, err)
			return
		}
		defer leave()
		ctx, cancel := s.untilClosed(r.Context())
		defer cancel()
		ctx, distrust := s.whileTrusted(ctx, &c.caller)
		defer distrust()
		if seconds >= 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(min(int64(seconds), maxWait))*time.Second)
			defer cancel()
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Connection", "keep-alive")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()

		data, err := waited(ctx, end(ctx))
		if err != nil {
			s.cfg.Log.Error("answer could not be written", "err", err)
			return
		}
		_, _ = w.Write(data) // a caller who is gone needs no answer
	}}
}

// waited is the answer after a wait. Its status went out long ago: a refusal shows in the body only.
func waited(ctx context.Context, op api.Operation) ([]byte, error) {
	if cause := context.Cause(ctx); errors.Is(cause, api.NotAuthorized) {
		refusal := api.AsError(cause)
		body := api.Response{Type: api.ErrorResponse, Code: refusal.Status(), Error: refusal.Message}
		return encode(body, api.ErrorMetadata{Reason: refusal.Reason, Hint: refusal.NextStep()})
	}
	return encode(api.Response{Type: api.SyncResponse, Status: api.Success.String(), StatusCode: int(api.Success)}, op)
}

// operationEnd waits for an operation of this member.
func operationEnd(op *operations.Op) func(context.Context) api.Operation {
	return func(ctx context.Context) api.Operation {
		select {
		case <-op.Done():
		case <-ctx.Done():
		}
		return op.API()
	}
}

// tokenEnd waits for the end of a token, by whichever member it comes.
func (s *Server) tokenEnd(t *state.Token, withSecret bool) func(context.Context) api.Operation {
	return func(ctx context.Context) api.Operation {
		view := s.cfg.Store.Local()
		for {
			if now, ok := view.Token(t.Hash); ok {
				t = now
			}
			if t.Ended != "" {
				break
			}
			select {
			case <-view.Watch():
				view = s.cfg.Store.Local()
				continue
			case <-ctx.Done():
			}
			break
		}
		return tokens.Operation(t, tokens.Location(view, t), withSecret)
	}
}

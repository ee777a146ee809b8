// Package operations runs work that outlives the request that asked for it.
//
// Each operation runs on this member, in a goroutine of its own that the registry
// owns, and is shown to clients while it runs and for five seconds after. The
// registry is in memory: operations end with the daemon. Join tokens, which clients
// see as operations too, are replicated state and are not kept here.
//
// The package knows nothing of HTTP, nor of what an operation does.
package operations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"incusd/api"
)

// retention is how long an ended operation can still be asked for (rest-basics.md §4).
const retention = 5 * time.Second

// A Registry holds the operations of this member.
type Registry struct {
	location func() string
	publish  func(api.Operation)
	clock    func() time.Time

	ctx     context.Context // of all operations; ends when Shutdown runs out of patience
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu         sync.Mutex
	closed     bool
	operations map[string]*Op
}

// New returns an empty registry. location names this member; publish is told of
// each change of an operation, in order, and must neither block nor call back.
func New(location func() string, publish func(api.Operation), clock func() time.Time) *Registry {
	ctx, cancel := context.WithCancel(context.Background())
	return &Registry{
		location: location, publish: publish, clock: clock,
		ctx: ctx, cancel: cancel,
		operations: make(map[string]*Op),
	}
}

// An Op is one operation. Its methods may be called from any goroutine.
type Op struct {
	registry    *Registry
	id          string
	description string
	resources   map[string][]string
	mayCancel   bool
	created     time.Time
	cancel      context.CancelFunc
	done        chan struct{} // closed when the operation has ended

	mu       sync.Mutex
	updated  time.Time
	status   api.StatusCode
	metadata map[string]any
	err      error
}

// Run starts an operation at once and returns it. Its context ends when it is
// cancelled or when the daemon stops and has waited long enough; run must then
// return. It fails with api.ShuttingDown once Shutdown has been called.
func (r *Registry) Run(description string, resources map[string][]string, mayCancel bool, run func(ctx context.Context, op *Op) error) (*Op, error) {
	ctx, cancel := context.WithCancel(r.ctx)
	now := r.clock().UTC()
	op := &Op{
		registry: r, id: uuid.NewString(), description: description, resources: resources, mayCancel: mayCancel,
		created: now, updated: now, status: api.Running, cancel: cancel, done: make(chan struct{}),
	}
	if err := r.add(op); err != nil {
		cancel()
		return nil, err
	}
	r.publish(op.API())
	go func() {
		defer r.running.Done()
		defer cancel()
		op.end(run(ctx, op))
		time.AfterFunc(retention, func() { r.forget(op) })
	}()
	return op, nil
}

// add registers op and counts it as running.
func (r *Registry) add(op *Op) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return api.Errorf(api.ShuttingDown, "Incus is shutting down")
	}
	r.operations[op.id] = op
	r.running.Add(1)
	return nil
}

func (r *Registry) forget(op *Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.operations, op.id)
}

// List returns the operations that run or have ended a moment ago, oldest first.
func (r *Registry) List() []*Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.operations), func(a, b *Op) int {
		return cmp.Or(a.created.Compare(b.created), strings.Compare(a.id, b.id))
	})
}

// Get returns the operation called id, if there is one.
func (r *Registry) Get(id string) (*Op, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	op, ok := r.operations[id]
	return op, ok
}

// Shutdown refuses new operations and waits for those that run. When ctx ends
// first, it cancels them all, waits for them to return, and says so.
func (r *Registry) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()

	ended := make(chan struct{})
	go func() {
		r.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		r.cancel()
		return nil
	case <-ctx.Done():
		r.cancel()
		<-ended
		return fmt.Errorf("operations were cancelled: %w", ctx.Err())
	}
}

// ID is the operation's UUID.
func (o *Op) ID() string { return o.id }

// Done is closed when the operation has ended.
func (o *Op) Done() <-chan struct{} { return o.done }

// Wait blocks until the operation has ended, and returns its error, or until ctx
// ends.
func (o *Op) Wait(ctx context.Context) error {
	select {
	case <-o.done:
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// API is the operation as clients see it now.
func (o *Op) API() api.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.snapshot()
}

// SetMetadata replaces what the operation tells about itself. The caller must not
// change the map afterwards. After the end it does nothing.
func (o *Op) SetMetadata(metadata map[string]any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.status.IsFinal() {
		return
	}
	o.metadata = metadata
	o.changed()
}

// Cancel asks the operation to stop; it does not wait for that. It fails for an
// operation that has ended or cannot be cancelled.
func (o *Op) Cancel() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.status != api.Running:
		return api.Errorf(api.BadRequest, "Only running operations can be cancelled")
	case !o.mayCancel:
		return api.Errorf(api.BadRequest, "This operation can't be cancelled")
	}
	o.status = api.Cancelling
	o.changed()
	o.cancel()
	return nil
}

// end records how the operation ended. One that was asked to stop and finished its
// work nevertheless is a success: nothing was left undone.
func (o *Op) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		o.status = api.Success
	case o.status == api.Cancelling && errors.Is(err, context.Canceled):
		o.status = api.Cancelled
	default:
		o.status = api.Failure
	}
	if err != nil {
		o.err = err
		o.metadata = withReason(o.metadata, err)
	}
	o.changed()
	close(o.done)
}

// withReason adds what the envelope of a refusal has to metadata: the stable reason,
// what to do next, and all problems if there are several. The protocol itself has only
// a text for why an operation failed.
func withReason(metadata map[string]any, err error) map[string]any {
	refusal := api.AsError(err)
	out := maps.Clone(metadata)
	if out == nil {
		out = make(map[string]any)
	}
	out["reason"] = string(refusal.Reason)
	if hint := refusal.NextStep(); hint != "" {
		out["hint"] = hint
	}
	var several interface{ Problems() []api.Error }
	if errors.As(err, &several) {
		out["problems"] = several.Problems()
	}
	return out
}

// changed stamps and publishes the new state. o.mu is held, which keeps the
// publications of one operation in order.
func (o *Op) changed() {
	o.updated = o.registry.clock().UTC()
	o.registry.publish(o.snapshot())
}

// snapshot is the operation on the wire; o.mu is held. Maps are never null, but a kind
// of resource without URLs is, as in upstream's answers.
func (o *Op) snapshot() api.Operation {
	resources := make(map[string][]string, len(o.resources))
	for kind, urls := range o.resources {
		resources[kind] = slices.Clone(urls)
	}
	metadata := make(map[string]any, len(o.metadata))
	maps.Copy(metadata, o.metadata)
	var text string
	if o.err != nil {
		text = o.err.Error()
	}
	return api.Operation{
		ID: o.id, Class: api.OperationClassTask, Description: o.description,
		CreatedAt: o.created, UpdatedAt: o.updated, Status: o.status.String(), StatusCode: o.status,
		Resources: resources, Metadata: metadata, MayCancel: o.mayCancel, Err: text, Location: o.registry.location(),
	}
}

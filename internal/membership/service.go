package membership

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// A Store is the replicated store on any member.
type Store interface {
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
	Read(ctx context.Context) (*raftstore.View, error)
	// ID is this member's.
	ID() string
	// Departed tells whether the server that was m knows that it is no member, or is not there.
	Departed(ctx context.Context, m *state.Member) bool
}

// An Adder adds a server to Raft's configuration as a non-voter, on the leader. It is
// harmless to add one that is there.
type Adder interface {
	AddNonvoter(ctx context.Context, id string) error
}

// A Prober connects to an address as other members would and returns the fingerprint
// of the certificate that is shown there, without trusting it.
type Prober interface {
	Probe(ctx context.Context, address string) (fingerprint string, err error)
}

// Admissions lets servers in and changes members, on every member of a cluster. It
// holds no state of its own.
type Admissions struct {
	store     Store
	prober    Prober
	passwords Passwords
	inventory Inventory
	set       Settings
	now       func() time.Time
	log       *slog.Logger
}

// Passwords judges the cluster's trust password; see tokens.Service.Verify.
type Passwords interface {
	Verify(ctx context.Context, source, password string) error
}

// Inventory is what a joining server has to make on its machine.
type Inventory interface {
	// MemberConfig lists the keys that the server must give, by those that a member has set.
	MemberConfig(view *raftstore.View, memberID string) []api.ClusterMemberConfigKey
	// JoinEntities lists the cluster's pools and networks.
	JoinEntities(view *raftstore.View) []api.JoinEntity
}

// NewAdmissions returns the admissions to the cluster of store. now is the wall clock,
// for token expiry and certificate dates; nil means time.Now. A nil log discards.
func NewAdmissions(store Store, prober Prober, passwords Passwords, inventory Inventory, set Settings, now func() time.Time, log *slog.Logger) *Admissions {
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Admissions{store: store, prober: prober, passwords: passwords, inventory: inventory, set: set.withDefaults(), now: now, log: log}
}

// A NotLeaderError says that only the leader can do this, and which member that is.
type NotLeaderError struct {
	// ID and Address are the leader's.
	ID, Address string
}

func (e *NotLeaderError) Error() string {
	return fmt.Sprintf("only the leader can do this: the member at %s", e.Address)
}

// Unwrap gives the error a reason, for a caller that cannot follow it.
func (e *NotLeaderError) Unwrap() error { return api.Unavailable }

// A proposer is a store as far as changes go.
type proposer interface {
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
}

// propose makes one change, as a request of its own: whoever calls it again asks anew. now is the
// wall clock; requestor is nil for what the cluster does by itself.
func propose(ctx context.Context, store proposer, kind string, now time.Time, requestor *api.EventRequestor, body any) (state.Result, error) {
	cmd, err := state.NewCommand(kind, uuid.NewString(), now.UTC(), requestor, body)
	if err != nil {
		return state.Result{}, err
	}
	return store.Propose(ctx, cmd)
}

// propose makes a change and reads its result into value, unless that is nil.
func (s *Admissions) propose(ctx context.Context, kind string, requestor *api.EventRequestor, body, value any) error {
	result, err := propose(ctx, s.store, kind, s.now(), requestor, body)
	if err != nil || value == nil {
		return err
	}
	if err := json.Unmarshal(result.Value, value); err != nil {
		return fmt.Errorf("the store's answer to %s: %w", kind, err)
	}
	return nil
}

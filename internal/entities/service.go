package entities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

const (
	// settleTime is how long a change waits for the members' reports. It leaves room below the
	// limits of servers and clients.
	settleTime = 45 * time.Second
	// tries is how often a change is worked out anew because the object changed meanwhile.
	tries = 5
)

// A Service changes what the cluster configures. Every change is decided in the replicated
// command; what members must make true is waited for, within settleTime: then it returns
// nil, or api.EntityFailed with the reason of each member that could not, or api.Timeout.
type Service struct {
	store   Store
	machine *Machine
	now     func() time.Time
	log     *slog.Logger
}

// NewService returns a Service.
func NewService(store Store, machine *Machine, now func() time.Time, log *slog.Logger) *Service {
	return &Service{store: store, machine: machine, now: now, log: log}
}

// propose proposes a command and returns the row that it results in.
func (s *Service) propose(ctx context.Context, kind string, body any, by *api.EventRequestor) (*state.Entity, error) {
	res, err := s.decide(ctx, kind, body, by)
	if err != nil || len(res.Value) == 0 {
		return nil, err
	}
	row := new(state.Entity)
	if err := json.Unmarshal(res.Value, row); err != nil {
		return nil, fmt.Errorf("result of %s: %w", kind, err)
	}
	return row, nil
}

func (s *Service) decide(ctx context.Context, kind string, body any, by *api.EventRequestor) (state.Result, error) {
	return propose(ctx, s.store, kind, s.now(), by, body)
}

func propose(ctx context.Context, store Store, kind string, now time.Time, by *api.EventRequestor, body any) (state.Result, error) {
	cmd, err := state.NewCommand(kind, uuid.NewString(), now, by, body)
	if err != nil {
		return state.Result{}, err
	}
	return store.Propose(ctx, cmd)
}

// repeat works a change out, and again if the object was changed between its being read and
// the command. Whether the caller minds such a change is for the caller's own check to say.
func repeat(change func() error) error {
	for try := 1; ; try++ {
		err := change()
		var stale staleBasis
		if try == tries || !errors.As(err, &stale) {
			return err
		}
	}
}

// A staleBasis is a refusal of a command because what it was worked out from has changed.
type staleBasis struct{ error }

func (s staleBasis) Unwrap() error { return s.error }

// basis marks the refusal of a command that was worked out from what is not so any more.
func basis(err error) error {
	if errors.Is(err, api.PreconditionFail) {
		return staleBasis{err}
	}
	return err
}

// alone returns the only member of a cluster of one, or of a server that is no cluster.
func alone(view *raftstore.View) (*state.Member, bool) {
	members := view.Members()
	if len(members) != 1 {
		return nil, false
	}
	return members[0], true
}

// create makes a pool or network: at once where there is one member, else as one of the two steps.
func (s *Service) create(ctx context.Context, view *raftstore.View, row state.Entity, target string, by *api.EventRequestor) error {
	own, global := split(row.Kind, row.Type, row.Config)
	if target != "" {
		return s.define(ctx, view, row, target, own, global, by)
	}
	body := state.EntityCreate{
		ID: uuid.NewString(), Kind: row.Kind, Project: row.Project, Name: row.Name, Type: row.Type,
		Description: row.Description, Config: global,
	}
	member, single := alone(view)
	switch {
	case single:
		body.MemberID, body.MemberConfig = member.ID, own
		if err := s.checkHere(ctx, view, row); err != nil {
			return err
		}
	case len(own) > 0:
		return api.Errorf(api.BadRequest, "Config key %q is cluster member specific", first(own)).WithCode(http.StatusInternalServerError).
			WithHint("give it with --target for each member, and run the command without it then")
	}
	made, err := s.propose(ctx, state.KindEntityCreate, body, by)
	if err != nil {
		return err
	}
	err = s.settled(ctx, made)
	if single && made.ID == body.ID && errors.Is(err, api.EntityFailed) {
		return s.takeBack(ctx, made, err, by)
	}
	return err
}

// checkHere tells a server that is alone what is wrong before anything is committed.
func (s *Service) checkHere(ctx context.Context, view *raftstore.View, row state.Entity) error {
	var part state.EntityMember
	if old, ok := find(view, row.Kind, row.Project, "", row.Name); ok && !old.Deleting {
		if old.Made {
			return nil // the command refuses it, or tries again what has failed
		}
		part = old.Members[s.store.ID()]
	}
	// What was defined stands where the row does not say otherwise.
	row.Config = merged(part.Config, row.Config)
	return s.machine.check(ctx, wanted(&row, state.EntityMember{}, s.store.ID()))
}

// takeBack removes what could not be made on the only member there is: there, nothing is done
// by halves.
func (s *Service) takeBack(ctx context.Context, row *state.Entity, why error, by *api.EventRequestor) error {
	if _, err := s.propose(ctx, state.KindEntityDelete, state.EntityDelete{ID: row.ID}, by); err != nil {
		s.log.Warn("what could not be made stays as Errored", "kind", row.Kind, "name", row.Name, "err", err)
	}
	return why
}

// define is the first step of a two-step creation.
func (s *Service) define(ctx context.Context, view *raftstore.View, row state.Entity, target string, own, global map[string]string, by *api.EventRequestor) error {
	switch {
	case len(global) > 0:
		return api.Errorf(api.BadRequest, "Config key %q may not be used as member-specific key", first(global)).WithCode(http.StatusInternalServerError).
			WithHint("give it in the second step, without --target")
	case row.Description != "":
		return api.Errorf(api.BadRequest, "The %s description cannot be set for a specific member", words(row.Kind))
	}
	m, err := targeted(view, target)
	if err != nil {
		return err
	}
	_, err = s.propose(ctx, state.KindEntityDefine, state.EntityDefine{
		ID: uuid.NewString(), Kind: row.Kind, Project: row.Project, Name: row.Name, Type: row.Type, MemberID: m.ID, Config: own,
	}, by)
	return err
}

// update makes a row say that description and configuration; with target, the configuration is that
// of one member.
func (s *Service) update(ctx context.Context, row *state.Entity, view *raftstore.View, target, description string, config map[string]string, by *api.EventRequestor) error {
	body, err := updateOf(view, row, target, description, config)
	if err != nil {
		return err
	}
	next, err := s.propose(ctx, state.KindEntityUpdate, body, by)
	if err != nil {
		return basis(err)
	}
	if next.Revision == row.Revision && next.HasFailed() {
		// The same again means: try again.
		next, err = s.propose(ctx, state.KindEntityCreate, state.EntityCreate{
			ID: uuid.NewString(), Kind: row.Kind, Project: row.Project, Pool: row.Pool, Name: row.Name, Type: row.Type,
		}, by)
		if err != nil {
			return err
		}
	}
	return s.settled(ctx, next)
}

// updateOf splits a configuration into the cluster's keys and the members'.
func updateOf(view *raftstore.View, row *state.Entity, target, description string, config map[string]string) (state.EntityUpdate, error) {
	body := state.EntityUpdate{ID: row.ID, Expect: row.Hash(), Description: description, Config: row.Config}
	own, global := split(row.Kind, row.Type, config)
	member, err := targeted(view, target)
	switch {
	case err != nil:
		return body, err
	case member != nil:
		for key, value := range global {
			if row.Config[key] != value {
				return body, api.Errorf(api.BadRequest, "Config key %q may not be used as cluster member specific key", key)
			}
		}
		body.Description = row.Description
		body.Members = map[string]map[string]string{member.ID: own}
	case !view.Cluster().Enabled:
		body.Config = global
		body.Members = map[string]map[string]string{view.Members()[0].ID: own}
	case len(own) > 0:
		return body, api.Errorf(api.BadRequest, "Config key %q is cluster member specific", first(own)).WithHint("change it with --target MEMBER")
	default:
		body.Config = global
	}
	return body, nil
}

// remove deletes an entity everywhere.
func (s *Service) remove(ctx context.Context, row *state.Entity, by *api.EventRequestor) error {
	next, err := s.propose(ctx, state.KindEntityDelete, state.EntityDelete{ID: row.ID}, by)
	if err != nil {
		return err
	}
	return s.settled(ctx, next)
}

// settled waits until every member that is online has reported what became of the row, or the row
// is gone. A row that changes again meanwhile is waited for as it is then.
func (s *Service) settled(ctx context.Context, row *state.Entity) error {
	if row == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	// The leader has applied the row. This member may lag behind, and a row that is not here yet must
	// not look like one that is gone.
	view, err := s.store.Read(ctx)
	if err != nil {
		return fmt.Errorf("The %s %q was written, but what became of it is not known: %w", words(row.Kind), row.Name, err)
	}
	for ; ; view = s.store.Local() {
		now, there := view.Entity(row.ID)
		if !there {
			return nil
		}
		waiting, failed := progress(view, now)
		if len(waiting) == 0 && now.Revision >= row.Revision {
			return failure(now, failed)
		}
		select {
		case <-view.WatchEntities():
		case <-ctx.Done():
			return api.Errorf(api.Timeout, "The %s %q is not done yet on: %s", words(row.Kind), row.Name, strings.Join(waiting, ", ")).
				WithHint("those members go on; look again in a moment, with --target MEMBER")
		}
	}
}

// progress says which online members have yet to report, and what failed on which.
func progress(view *raftstore.View, row *state.Entity) (waiting, failed []string) {
	for _, m := range view.Members() {
		part, ok := row.Members[m.ID]
		switch {
		case !ok:
		case part.Status == state.EntityErrored && part.Revision == row.Revision:
			failed = append(failed, fmt.Sprintf("%s: %s", m.Name, part.Reason))
		case part.Revision == row.Revision && part.Status != state.EntityPending:
		case !m.Offline:
			waiting = append(waiting, m.Name)
		}
	}
	return waiting, failed
}

// failure makes one error of what failed on the members; that of a server that is alone speaks
// for itself.
func failure(row *state.Entity, failed []string) error {
	switch {
	case len(failed) == 0:
		return nil
	case len(failed) == 1 && strings.HasPrefix(failed[0], state.Standalone+": "):
		return api.Errorf(api.EntityFailed, "%s", strings.TrimPrefix(failed[0], state.Standalone+": ")).WithHint("mend that, then run the same command again")
	}
	doing := "made"
	if row.Deleting {
		doing = "removed"
	}
	return api.Errorf(api.EntityFailed, "The %s %q could not be %s on %d of %d members: %s",
		words(row.Kind), row.Name, doing, len(failed), len(row.Members), strings.Join(failed, "; "))
}

// split divides a configuration into the keys that are each member's own and the cluster's.
func split(kind, ofType string, config map[string]string) (own, global map[string]string) {
	own, global = map[string]string{}, map[string]string{}
	for key, value := range config {
		if memberSpecific(kind, ofType, key) {
			own[key] = value
		} else {
			global[key] = value
		}
	}
	return own, global
}

// first is the first key, so that errors name the same one each time.
func first(config map[string]string) string { return slices.Sorted(maps.Keys(config))[0] }

// words is what people call a kind.
func words(kind string) string { return strings.ReplaceAll(kind, "-", " ") }

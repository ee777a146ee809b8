package entities

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/network"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/storage"
)

// CheckJoin tells all that would keep a cluster's pools and networks from being made on this
// machine, with the given values of member-specific keys. Nothing is changed.
func (m *Machine) CheckJoin(ctx context.Context, rows []api.JoinEntity, values []api.ClusterMemberConfigKey) []api.Error {
	var problems []api.Error
	for _, row := range rows {
		t := localstore.Made{ID: row.ID, Kind: row.Kind, Project: row.Project, Name: row.Name, Type: row.Type, Config: row.Config}
		if err := m.checkJoining(ctx, t, ownValues(t, values)); err != nil {
			problems = append(problems, *api.AsError(fmt.Errorf("%s %q: %w", words(t.Kind), t.Name, err)))
		}
	}
	return problems
}

func (m *Machine) checkJoining(ctx context.Context, t localstore.Made, own map[string]string) error {
	own, err := validOwn(t, own)
	if err != nil {
		return err
	}
	t.Config = merged(t.Config, own)
	if _, ok := m.inTheWay(t); !ok {
		return m.check(ctx, t)
	}
	if t.Kind == state.EntityPool {
		return m.cfg.Storage.CheckDriver(ctx, t.Type)
	}
	return nil
}

// IgnoredKeys lists the values that are no member-specific keys of what the cluster has.
func IgnoredKeys(rows []api.JoinEntity, values []api.ClusterMemberConfigKey) []api.ClusterMemberConfigKey {
	return slices.DeleteFunc(slices.Clone(values), func(v api.ClusterMemberConfigKey) bool {
		return slices.ContainsFunc(rows, func(row api.JoinEntity) bool {
			return row.Kind == v.Entity && row.Name == v.Name && memberSpecific(row.Kind, row.Type, v.Key)
		})
	})
}

// ownValues are the values for one thing, without those that are empty.
func ownValues(t localstore.Made, values []api.ClusterMemberConfigKey) map[string]string {
	own := map[string]string{}
	for _, v := range values {
		if v.Entity == t.Kind && v.Name == t.Name && v.Value != "" && memberSpecific(t.Kind, t.Type, v.Key) {
			own[v.Key] = v.Value
		}
	}
	return own
}

// validOwn checks the values of member-specific keys.
func validOwn(t localstore.Made, own map[string]string) (map[string]string, error) {
	if t.Kind == state.EntityPool {
		return storage.ValidatePool(t.Type, own)
	}
	return network.Validate(t.Type, t.Name, own)
}

// inTheWay finds something of this server's own whose name or source the thing has as well. It
// goes when the join has succeeded; the thing can only be made after that.
func (m *Machine) inTheWay(t localstore.Made) (localstore.Made, bool) {
	all := m.cfg.Notes.Made()
	i := slices.IndexFunc(all, func(n localstore.Made) bool {
		sameSource := t.Kind == state.EntityPool && t.Config["source"] != "" && n.Config["source"] == t.Config["source"]
		return n.ID != t.ID && n.Owner != t.Owner && n.Kind == t.Kind && (n.Name == t.Name || sameSource)
	})
	if i < 0 {
		return localstore.Made{}, false
	}
	return all[i], true
}

// MakeJoining makes a cluster's pools and networks on this machine, in the name of the replica
// owner that a join fills, and returns this server's part of each, by ID. What something of this
// server's own is in the way of is left out: the applier makes it after the join. When it fails it
// has removed what it made.
func (m *Machine) MakeJoining(ctx context.Context, owner string, view *raftstore.View, values []api.ClusterMemberConfigKey) (map[string]state.EntityMember, error) {
	parts := map[string]state.EntityMember{}
	for _, row := range joinable(view) {
		t := wanted(row, state.EntityMember{}, owner)
		own, err := validOwn(t, ownValues(t, values))
		if err == nil {
			t.Config = merged(t.Config, own)
			if _, ok := m.inTheWay(t); ok {
				parts[row.ID] = state.EntityMember{Config: own, Status: state.EntityPending}
				continue
			}
			t, err = m.make(ctx, t)
		}
		if err != nil {
			err = fmt.Errorf("%s %q: %w", words(row.Kind), row.Name, err)
			return nil, errors.Join(err, m.Abandon(context.WithoutCancel(ctx), owner))
		}
		parts[row.ID] = state.EntityMember{Config: ownKeys(row, t.Config), Status: state.EntityCreated, Revision: row.Revision}
	}
	return parts, nil
}

// Abandon removes what was made in the name of a replica. What cannot be removed stays noted, and
// the applier tries again.
func (m *Machine) Abandon(ctx context.Context, owner string) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	all := slices.DeleteFunc(m.cfg.Notes.Made(), func(n localstore.Made) bool { return n.Owner != owner })
	slices.SortStableFunc(all, lastFirst)
	var errs []error
	for _, n := range all {
		if err := m.remove(ctx, n); err != nil {
			errs = append(errs, fmt.Errorf("remove %s %q: %w", words(n.Kind), n.Name, err))
		}
	}
	return errors.Join(errs...)
}

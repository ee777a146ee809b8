package membership

import (
	"context"
	"errors"
	"maps"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// groupTries bounds how often a change of a group begins anew because the group was changed
// meanwhile.
const groupTries = 10

// Groups returns the cluster groups of view as the wire shows them, by name.
func Groups(view *raftstore.View) []api.ClusterGroup {
	rows := view.Groups()
	out := make([]api.ClusterGroup, len(rows))
	for i, g := range rows {
		out[i] = groupOf(view, g)
	}
	return out
}

// Group returns one cluster group as the wire shows it. It fails with NotFound.
func Group(view *raftstore.View, name string) (api.ClusterGroup, error) {
	g, ok := view.Group(name)
	if !ok {
		return api.ClusterGroup{}, api.Errorf(api.NotFound, "Cluster_group not found").WithHint("see incus cluster group list for the names")
	}
	return groupOf(view, g), nil
}

// groupOf has no null in it: clients write into what they get.
func groupOf(view *raftstore.View, g *state.Group) api.ClusterGroup {
	out := api.ClusterGroup{
		ClusterGroupPut: api.ClusterGroupPut{Description: g.Description, Members: []string{}, Config: api.ConfigMap{}},
		Name:            g.Name,
		UsedBy:          append([]string{}, view.GroupUsedBy(g.Name)...),
	}
	maps.Copy(out.Config, g.Config)
	for _, m := range view.GroupMembers(g.Name) {
		out.Members = append(out.Members, m.Name)
	}
	return out
}

// CreateGroup makes a cluster group. It fails with NotClustered, NameInvalid, Conflict if there is
// one of that name, MemberNotFound, and ConfigInvalid. Like all changes of groups it blocks until it
// is committed or ctx ends.
func (s *Admissions) CreateGroup(ctx context.Context, post api.ClusterGroupsPost, requestor *api.EventRequestor) error {
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	ids, err := memberIDs(view, post.Members)
	if err != nil {
		return err
	}
	body := state.GroupCreate{Group: state.Group{Name: post.Name, Description: post.Description, Config: post.Config}, Members: ids}
	if err := s.propose(ctx, state.KindGroupCreate, requestor, body, nil); err != nil {
		return err
	}
	s.log.Info("Cluster group created", "group", post.Name)
	return nil
}

// UpdateGroup changes a cluster group. change gets it as it is and returns its new writable part; it
// may be called again when the group changes meanwhile. A member whose only group it is stays in it,
// or with strict the change is refused.
func (s *Admissions) UpdateGroup(ctx context.Context, name string, change func(api.ClusterGroup) (api.ClusterGroupPut, error), strict bool, requestor *api.EventRequestor) error {
	for try := 1; ; try++ {
		body, err := s.groupUpdate(ctx, name, change, strict)
		if err != nil {
			return err
		}
		err = s.propose(ctx, state.KindGroupUpdate, requestor, body, nil)
		if err == nil {
			s.log.Info("Cluster group updated", "group", name)
		}
		if try == groupTries || !errors.Is(err, api.PreconditionFail) {
			return err
		}
	}
}

// groupUpdate works a change out from the group as it is now.
func (s *Admissions) groupUpdate(ctx context.Context, name string, change func(api.ClusterGroup) (api.ClusterGroupPut, error), strict bool) (*state.GroupUpdate, error) {
	view, err := s.store.Read(ctx)
	if err != nil {
		return nil, err
	}
	now, err := Group(view, name)
	if err != nil {
		return nil, err
	}
	put, err := change(now)
	if err != nil {
		return nil, err
	}
	ids, err := memberIDs(view, put.Members)
	if err != nil {
		return nil, err
	}
	return &state.GroupUpdate{
		Group:   state.Group{Name: name, Description: put.Description, Config: put.Config},
		Members: ids, Expect: view.GroupHash(name), Strict: strict,
	}, nil
}

// memberIDs finds members by name.
func memberIDs(view *raftstore.View, names []string) ([]string, error) {
	var ids []string
	for _, name := range names {
		m, ok := view.MemberByName(name)
		if !ok {
			return nil, api.Errorf(api.MemberNotFound, "Cluster member %q not found", name)
		}
		ids = append(ids, m.ID)
	}
	return ids, nil
}

// RenameGroup gives a cluster group another name. It fails with BadRequest for the default one, with
// NotFound, NameInvalid, Conflict if the name is taken, and InUse if a project names the group.
func (s *Admissions) RenameGroup(ctx context.Context, name, newName string, requestor *api.EventRequestor) error {
	if err := s.propose(ctx, state.KindGroupRename, requestor, state.GroupRename{Name: name, NewName: newName}, nil); err != nil {
		return err
	}
	s.log.Info("Cluster group renamed", "group", newName, "before", name)
	return nil
}

// DeleteGroup removes a cluster group without members. It fails with BadRequest for the default one,
// with NotFound, and with InUse if it has members or a project names it.
func (s *Admissions) DeleteGroup(ctx context.Context, name string, requestor *api.EventRequestor) error {
	if err := s.propose(ctx, state.KindGroupDelete, requestor, state.GroupDelete{Name: name}, nil); err != nil {
		return err
	}
	s.log.Info("Cluster group deleted", "group", name)
	return nil
}

package membership

import (
	"context"
	"slices"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// UpdateMember replaces the writable part of the member with that ID. expect, if not
// empty, is its WritableHash as the caller saw it. It fails with NotClustered,
// MemberNotFound, PreconditionFail, NotFound for an unknown group, and BadRequest or
// ConfigInvalid for what is not allowed. It blocks until the change is committed or
// ctx ends.
func (s *Admissions) UpdateMember(ctx context.Context, id string, put api.ClusterMemberPut, expect string, requestor *api.EventRequestor) error {
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	if !view.Cluster().Enabled {
		return api.NotClustered
	}
	m, ok := view.Member(id)
	if !ok {
		return api.MemberNotFound
	}
	roles, err := storedRoles(put.Roles, view.IsVoter(id))
	if err != nil {
		return err
	}
	// The rest of the rules is the command's: it decides with what is there then.
	err = s.propose(ctx, state.KindMemberUpdate, requestor, state.MemberUpdate{
		ID:            id,
		Expect:        expect,
		Roles:         roles,
		FailureDomain: put.FailureDomain,
		Description:   put.Description,
		Config:        put.Config,
		Groups:        put.Groups,
	}, nil)
	if err != nil {
		return err
	}
	s.log.Info("Member updated", "member", m.Name)
	return nil
}

// storedRoles takes the database's own roles out of a list as the wire has it. Clients
// send back what they got, so they may be there; but they are not a wish that could be
// granted: who votes is the planner's choice.
func storedRoles(roles []string, voter bool) ([]string, error) {
	switch listed := slices.Contains(roles, api.RoleDatabase); {
	case voter && !listed:
		return nil, api.Errorf(api.BadRequest, "The %q role cannot be dropped at this time", api.RoleDatabase).
			WithHint("the member votes, and the cluster sees to that: leave the role as incus cluster show has it")
	case !voter && listed:
		return nil, api.Errorf(api.BadRequest, "The %q role cannot be added at this time", api.RoleDatabase).
			WithHint("the member has no vote, and the cluster sees to that: leave the role as incus cluster show has it; incus cluster role explain says why")
	}
	return slices.DeleteFunc(slices.Clone(roles), func(r string) bool {
		return r == api.RoleDatabase || r == api.RoleDatabaseLeader || r == api.RoleDatabaseStandby
	}), nil
}

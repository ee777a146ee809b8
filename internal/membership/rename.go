package membership

import (
	"context"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// RenameMember gives the member called name another one. The member need not be online: its name is
// the cluster's, and it learns of it like every other member. It fails with NotClustered,
// MemberNotFound, NameInvalid, and NameTaken if another member has the name or a server is about to
// join under it. It blocks until the change is committed or ctx ends.
func (s *Admissions) RenameMember(ctx context.Context, name, newName string, requestor *api.EventRequestor) error {
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	if !view.Cluster().Enabled {
		return api.NotClustered
	}
	m, ok := view.MemberByName(name)
	if !ok {
		return api.MemberNotFound
	}
	err = s.propose(ctx, state.KindMemberRename, requestor, state.MemberRename{ID: m.ID, Expect: name, Name: newName}, nil)
	if err != nil {
		return err
	}
	s.log.Info("Member renamed", "member", newName, "before", name)
	return nil
}

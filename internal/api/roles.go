package api

import (
	"context"

	"incusd/api"
	"incusd/internal/membership"
)

// Leadership moves leadership to another member.
type Leadership interface {
	// MoveLeadership makes the member with that ID lead, or any that can if it is empty, and
	// returns who leads now.
	MoveLeadership(ctx context.Context, to string) (leader string, err error)
}

// rolesGet says why each member has the database role that it has:
// GET /internal/cluster/roles. It is answered from stale data too.
func (s *Server) rolesGet(c *call) (reply, error) {
	view, err := clustered(s.cfg.Store.ReadOrStale(c.Context()))
	if err != nil {
		return reply{}, err
	}
	return ok(view, membership.Roles(view)), nil
}

// leaderTransfer moves leadership to the member that is named, or to one that can take
// it: POST /internal/cluster/transfer-leader. It answers who leads now.
func (s *Server) leaderTransfer(c *call) (reply, error) {
	req, err := decode[api.ClusterLeader](c)
	if err != nil {
		return reply{}, err
	}
	view, err := clustered(s.read(c.Context()))
	if err != nil {
		return reply{}, err
	}
	to := ""
	if req.Member != "" {
		m, ok := view.MemberByName(req.Member)
		if !ok {
			return reply{}, api.Errorf(api.MemberNotFound, "Cluster member not found")
		}
		to = m.ID
	}
	leader, err := s.cfg.Leadership.MoveLeadership(c.Context(), to)
	if err != nil {
		return reply{}, err
	}
	answer := api.ClusterLeader{Member: leader}
	if m, ok := view.Member(leader); ok {
		answer.Member = m.Name
	}
	s.cfg.Log.Info("Leadership transferred", "leader", answer.Member)
	return reply{metadata: answer}, nil
}

package api

import (
	"context"

	"incusd/api"
	"incusd/internal/membership"
	"incusd/internal/operations"
)

// memberStatePost evacuates or restores a member: POST /1.0/cluster/members/NAME/state.
// The operation runs on the member that was asked, so that one that is offline can be
// evacuated, too.
func (s *Server) memberStatePost(c *call) (reply, error) {
	req, err := decode[api.ClusterMemberStatePost](c)
	if err != nil {
		return reply{}, err
	}
	view, m, err := s.findMember(c, s.read)
	if err != nil {
		return reply{}, err
	}
	var description string
	var work func(context.Context, string, func(string), *api.EventRequestor) error
	switch req.Action {
	case "evacuate":
		description, work = "Evacuating cluster member", s.cfg.Members.Evacuate
		err = membership.CheckEvacuation(req.Mode, len(view.Members()))
	case "restore":
		description, work = "Restoring cluster member", s.cfg.Members.Restore
		err = membership.CheckRestoration(req.Mode)
	default:
		err = api.Errorf(api.BadRequest, "Unknown action %q", req.Action).WithHint("actions are evacuate and restore")
	}
	if err != nil {
		return reply{}, err
	}
	id, requestor := m.ID, c.caller.requestor()
	op, err := s.cfg.Operations.Run(description, nil, false, func(ctx context.Context, op *operations.Op) error {
		return work(ctx, id, func(text string) { op.SetMetadata(map[string]any{"evacuation_progress": text}) }, requestor)
	})
	if err != nil {
		return reply{}, err
	}
	return accepted(op.API()), nil
}

package api

import (
	"slices"

	"incusd/api"
	"incusd/internal/membership"
)

func warningURL(w api.Warning) string { return resource("warnings", w.UUID) }

// warningsGet lists the warnings, resolved ones too: GET /1.0/warnings. Without project= it lists those
// of all projects and of none. It is answered from stale data too.
func (s *Server) warningsGet(c *call) (reply, error) {
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return reply{}, err
	}
	warnings := membership.Warnings(view)
	if project := c.param("project"); project != "" {
		warnings = slices.DeleteFunc(warnings, func(w api.Warning) bool { return w.Project != project })
	}
	list, err := listed(c, warnings, warningURL)
	return ok(view, list), err
}

// warningGet shows one warning: GET /1.0/warnings/UUID. It is answered from stale data too.
func (s *Server) warningGet(c *call) (reply, error) {
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return reply{}, err
	}
	w, err := membership.Warning(view, c.name("uuid"))
	if err != nil {
		return reply{}, unlessStale(view, api.AsError(err))
	}
	return ok(view, w), nil
}

// warningPut acknowledges a warning, or makes it new again: PUT and PATCH /1.0/warnings/UUID.
func (s *Server) warningPut(c *call) (reply, error) {
	put, err := decode[api.WarningPut](c)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Members.SetWarning(c.Context(), c.name("uuid"), put.Status, c.caller.requestor())
}

// warningDelete forgets a warning: DELETE /1.0/warnings/UUID.
func (s *Server) warningDelete(c *call) (reply, error) {
	return empty, s.cfg.Members.DeleteWarning(c.Context(), c.name("uuid"), c.caller.requestor())
}

package api

import (
	"incusd/api"
	"incusd/internal/entities"
)

func profileURL(p api.Profile) string { return api.InProject(resource("profiles", p.Name), p.Project) }

// profileTag is what the ETag of a profile is made from.
func profileTag(p api.Profile) any { return []any{p.Config, p.Description, p.Devices} }

func profilePart(p api.Profile) api.ProfilePut { return p.ProfilePut }

// profilesGet lists the profiles of a project: GET /1.0/profiles.
func (s *Server) profilesGet(c *call) (reply, error) {
	view, scope, err := s.scoped(c)
	if err != nil {
		return reply{}, err
	}
	profiles := within(&c.caller, entities.Profiles(view, scope.name, scope.all), func(p api.Profile) string { return p.Project })
	list, err := listed(c, profiles, profileURL)
	return ok(view, list), err
}

// profileGet shows a profile: GET /1.0/profiles/NAME.
func (s *Server) profileGet(c *call) (reply, error) {
	view, scope, err := s.scoped(c)
	if err != nil {
		return reply{}, err
	}
	p, err := entities.Profile(view, scope.name, c.name("name"))
	if err != nil {
		return reply{}, unlessStale(view, api.AsError(err))
	}
	return ok(view, p).tag(profileTag(*p)), nil
}

// profilesPost makes a profile: POST /1.0/profiles.
func (s *Server) profilesPost(c *call) (reply, error) {
	post, err := decode[api.ProfilesPost](c)
	if err != nil {
		return reply{}, err
	}
	if err := checkNew("profile", post.Name); err != nil {
		return reply{}, err
	}
	project, err := s.project(c)
	if err != nil {
		return reply{}, err
	}
	if err := s.cfg.Entities.CreateProfile(c.Context(), project, post, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(api.InProject(resource("profiles", post.Name), project)), nil
}

// profilePut changes a profile: PUT and PATCH /1.0/profiles/NAME.
func (s *Server) profilePut(c *call) (reply, error) {
	project, err := s.project(c)
	if err != nil {
		return reply{}, err
	}
	next, err := change(c, profilePart, profileTag)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Entities.UpdateProfile(c.Context(), project, c.name("name"), next, c.caller.requestor())
}

// profilePost renames a profile: POST /1.0/profiles/NAME.
func (s *Server) profilePost(c *call) (reply, error) {
	project, err := s.project(c)
	if err != nil {
		return reply{}, err
	}
	post, err := decode[api.ProfilePost](c)
	if err != nil {
		return reply{}, err
	}
	if err := checkNew("profile", post.Name); err != nil {
		return reply{}, err
	}
	if err := s.cfg.Entities.RenameProfile(c.Context(), project, c.name("name"), post.Name, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(api.InProject(resource("profiles", post.Name), project)), nil
}

// profileDelete removes a profile: DELETE /1.0/profiles/NAME.
func (s *Server) profileDelete(c *call) (reply, error) {
	project, err := s.project(c)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Entities.DeleteProfile(c.Context(), project, c.name("name"), c.caller.requestor())
}

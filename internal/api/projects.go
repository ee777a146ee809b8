package api

import (
	"context"
	"strings"

	"incusd/api"
	"incusd/internal/entities"
	"incusd/internal/operations"
	"incusd/internal/raftstore"
)

func projectURL(p api.Project) string { return resource("projects", p.Name) }

// projectTag is what the ETag of a project is made from.
func projectTag(p api.Project) any { return []any{p.Description, p.Config} }

func projectPart(p api.Project) api.ProjectPut { return p.ProjectPut }

// projectsGet lists the projects that the caller may use: GET /1.0/projects.
func (s *Server) projectsGet(c *call) (reply, error) {
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return reply{}, err
	}
	visible := within(&c.caller, entities.Projects(view), func(p api.Project) string { return p.Name })
	list, err := listed(c, visible, projectURL)
	return ok(view, list), err
}

// projectGet shows a project: GET /1.0/projects/NAME.
func (s *Server) projectGet(c *call) (reply, error) {
	view, p, err := s.findProject(c)
	if err != nil {
		return reply{}, err
	}
	return ok(view, p).tag(projectTag(*p)), nil
}

// findProject is the project that the URL names, if the caller may use it.
func (s *Server) findProject(c *call) (*raftstore.View, *api.Project, error) {
	if err := c.caller.mayUse(c.name("name")); err != nil {
		return nil, nil, err
	}
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return nil, nil, err
	}
	p, err := entities.Project(view, c.name("name"))
	if err != nil {
		return nil, nil, unlessStale(view, api.AsError(err))
	}
	return view, p, nil
}

// projectsPost makes a project: POST /1.0/projects.
func (s *Server) projectsPost(c *call) (reply, error) {
	post, err := decode[api.ProjectsPost](c)
	if err != nil {
		return reply{}, err
	}
	if err := s.cfg.Entities.CreateProject(c.Context(), post, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(resource("projects", post.Name)), nil
}

// projectPut changes a project: PUT and PATCH /1.0/projects/NAME.
func (s *Server) projectPut(c *call) (reply, error) {
	next, err := change(c, projectPart, projectTag)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Entities.UpdateProject(c.Context(), c.name("name"), next, c.caller.requestor())
}

// projectPost renames a project: POST /1.0/projects/NAME.
func (s *Server) projectPost(c *call) (reply, error) {
	post, err := decode[api.ProjectPost](c)
	if err != nil {
		return reply{}, err
	}
	if err := s.cfg.Entities.RenameProject(c.Context(), c.name("name"), post.Name, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	// Upstream's client waits for an operation here. There is nothing left to do in it, so
	// that a refusal is told at once.
	op, err := s.cfg.Operations.Run("Renaming project", nil, false, func(context.Context, *operations.Op) error { return nil })
	if err != nil {
		return reply{}, err
	}
	return accepted(op.API()), nil
}

// projectDelete removes an empty project: DELETE /1.0/projects/NAME.
func (s *Server) projectDelete(c *call) (reply, error) {
	return empty, s.cfg.Entities.DeleteProject(c.Context(), c.name("name"), c.caller.requestor())
}

// projectStateGet tells what a project uses: GET /1.0/projects/NAME/state. Nothing is limited, and
// of what could be only networks are there.
func (s *Server) projectStateGet(c *call) (reply, error) {
	view, p, err := s.findProject(c)
	if err != nil {
		return reply{}, err
	}
	state := api.ProjectState{Resources: map[string]api.ProjectStateResource{}}
	for _, name := range []string{"containers", "cpu", "disk", "instances", "memory", "networks", "processes", "virtual-machines"} {
		state.Resources[name] = api.ProjectStateResource{Limit: -1}
	}
	networks := api.ProjectStateResource{Limit: -1}
	for _, used := range p.UsedBy {
		if strings.HasPrefix(used, resource("networks", "")) {
			networks.Usage++
		}
	}
	state.Resources["networks"] = networks
	return ok(view, state), nil
}

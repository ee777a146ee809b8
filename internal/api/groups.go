package api

import (
	"net/http"
	"slices"

	"incusd/api"
	"incusd/internal/membership"
)

func groupURL(g api.ClusterGroup) string { return resource("cluster/groups", g.Name) }

// groupTag is what the ETag of a group is made from.
func groupTag(g api.ClusterGroup) any { return g.ClusterGroupPut }

func groupPart(g api.ClusterGroup) api.ClusterGroupPut { return g.ClusterGroupPut }

// visible keeps of the URLs of projects those that the caller may use.
func (c *call) visible(projects []string) []string {
	if c.caller.kind != RestrictedClient {
		return projects
	}
	return slices.DeleteFunc(projects, func(url string) bool {
		return !slices.ContainsFunc(c.caller.projects, func(name string) bool { return resource("projects", name) == url })
	})
}

// groupsGet lists the groups of members: GET /1.0/cluster/groups. It is answered from stale data too.
func (s *Server) groupsGet(c *call) (reply, error) {
	view, err := clustered(s.cfg.Store.ReadOrStale(c.Context()))
	if err != nil {
		return reply{}, err
	}
	groups := membership.Groups(view)
	for i := range groups {
		c.caller.hide(&groups[i].Config)
		groups[i].UsedBy = c.visible(groups[i].UsedBy)
	}
	list, err := listed(c, groups, groupURL)
	return ok(view, list), err
}

// groupGet shows one group: GET /1.0/cluster/groups/NAME. It is answered from stale data too.
func (s *Server) groupGet(c *call) (reply, error) {
	view, err := clustered(s.cfg.Store.ReadOrStale(c.Context()))
	if err != nil {
		return reply{}, err
	}
	g, err := membership.Group(view, c.name("name"))
	if err != nil {
		return reply{}, unlessStale(view, api.AsError(err))
	}
	c.caller.hide(&g.Config)
	g.UsedBy = c.visible(g.UsedBy)
	return ok(view, g).tag(groupTag(g)), nil
}

// groupsPost makes a group: POST /1.0/cluster/groups.
func (s *Server) groupsPost(c *call) (reply, error) {
	post, err := decode[api.ClusterGroupsPost](c)
	if err != nil {
		return reply{}, err
	}
	if err := s.cfg.Members.CreateGroup(c.Context(), post, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(resource("cluster/groups", post.Name)), nil
}

// groupPut changes a group: PUT and PATCH /1.0/cluster/groups/NAME. By a PATCH nobody is taken out of
// the only group, and the caller is told; by a PUT, as in the protocol, such a member silently stays.
func (s *Server) groupPut(c *call) (reply, error) {
	next, err := change(c, groupPart, groupTag)
	if err != nil {
		return reply{}, err
	}
	if _, err := clustered(s.cfg.Store.Local(), nil); err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Members.UpdateGroup(c.Context(), c.name("name"), next, c.Method == http.MethodPatch, c.caller.requestor())
}

// groupPost renames a group: POST /1.0/cluster/groups/NAME.
func (s *Server) groupPost(c *call) (reply, error) {
	post, err := decode[api.ClusterGroupPost](c)
	if err != nil {
		return reply{}, err
	}
	if err := s.cfg.Members.RenameGroup(c.Context(), c.name("name"), post.Name, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(resource("cluster/groups", post.Name)), nil
}

// groupDelete removes a group without members: DELETE /1.0/cluster/groups/NAME.
func (s *Server) groupDelete(c *call) (reply, error) {
	return empty, s.cfg.Members.DeleteGroup(c.Context(), c.name("name"), c.caller.requestor())
}

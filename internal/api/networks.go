package api

import (
	"net/url"
	"slices"
	"strings"

	"incusd/api"
	"incusd/internal/entities"
	"incusd/internal/raftstore/state"
)

func networkURL(n api.Network) string { return api.InProject(resource("networks", n.Name), n.Project) }

// networkTag is what the ETag of a network is made from.
func networkTag(n api.Network) any { return []any{n.Name, n.Managed, n.Type, n.Description, n.Config} }

func networkPart(n api.Network) api.NetworkPut { return n.NetworkPut }

// networksGet lists the managed networks of a project and, in the default one, the interfaces of
// the member that answers: GET /1.0/networks.
func (s *Server) networksGet(c *call) (reply, error) {
	view, scope, err := s.scoped(c)
	if err != nil {
		return reply{}, err
	}
	networks := within(&c.caller, entities.Networks(view, scope.name, scope.all), func(n api.Network) string { return n.Project })
	if (scope.all || view.Owner(scope.name, state.FeatureNetworks) == defaultName) && c.caller.mayUse(defaultName) == nil {
		interfaces, err := s.cfg.Entities.Interfaces(c.Context())
		if err != nil {
			return reply{}, err
		}
		networks = append(networks, interfaces...)
	}
	for i := range networks {
		networks[i].UsedBy = c.caller.visible(networks[i].UsedBy)
	}
	slices.SortStableFunc(networks, func(a, b api.Network) int { return strings.Compare(a.Name, b.Name) })
	list, err := listed(c, networks, networkURL)
	return ok(view, list), err
}

// networkGet shows a network, or an interface of one member: GET /1.0/networks/NAME.
func (s *Server) networkGet(c *call) (reply, error) {
	view, scope, err := s.scoped(c)
	if err != nil {
		return reply{}, err
	}
	network, err := entities.Network(view, scope.name, c.name("name"), s.on(c, view))
	if err == nil {
		network.UsedBy = c.caller.visible(network.UsedBy)
		return ok(view, network).tag(networkTag(*network)), nil
	}
	if view.Owner(scope.name, state.FeatureNetworks) != defaultName {
		return reply{}, unlessStale(view, api.AsError(err))
	}
	// Any member can show a managed network; interfaces only the one that has them.
	if m, err := s.target(c); m != nil || err != nil {
		return s.forward(c, m), err
	}
	interfaces, failure := s.cfg.Entities.Interfaces(c.Context())
	if failure != nil {
		return reply{}, failure
	}
	for _, found := range interfaces {
		if found.Name == c.name("name") {
			return ok(view, found).tag(networkTag(found)), nil
		}
	}
	return reply{}, unlessStale(view, api.AsError(err))
}

// networksPost makes a network: POST /1.0/networks.
func (s *Server) networksPost(c *call) (reply, error) {
	post, err := decode[api.NetworksPost](c)
	if err != nil {
		return reply{}, err
	}
	if err := checkNew("network", post.Name); err != nil {
		return reply{}, err
	}
	if err := c.caller.maySet(nil, post.Config); err != nil {
		return reply{}, err
	}
	project, err := s.project(c)
	if err != nil {
		return reply{}, err
	}
	if err := s.cfg.Entities.CreateNetwork(c.Context(), project, post, s.targetOf(c), c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(api.InProject(resource("networks", post.Name), project)), nil
}

// networkPut changes a network: PUT and PATCH /1.0/networks/NAME.
func (s *Server) networkPut(c *call) (reply, error) {
	project, err := s.project(c)
	if err != nil {
		return reply{}, err
	}
	next, err := change(c, networkPart, networkTag)
	if err != nil {
		return reply{}, err
	}
	allowed := func(now api.Network) (api.NetworkPut, error) {
		put, err := next(now)
		if err == nil {
			err = c.caller.maySet(now.Config, put.Config)
		}
		return put, err
	}
	return empty, s.cfg.Entities.UpdateNetwork(c.Context(), project, c.name("name"), s.targetOf(c), allowed, c.caller.requestor())
}

// networkPost renames a network: POST /1.0/networks/NAME.
func (s *Server) networkPost(c *call) (reply, error) {
	project, err := s.project(c)
	if err != nil {
		return reply{}, err
	}
	post, err := decode[api.NetworkPost](c)
	if err != nil {
		return reply{}, err
	}
	if err := checkNew("network", post.Name); err != nil {
		return reply{}, err
	}
	if err := s.cfg.Entities.RenameNetwork(c.Context(), project, c.name("name"), post.Name, c.caller.requestor()); err != nil {
		return reply{}, err
	}
	return created(api.InProject(resource("networks", post.Name), project)), nil
}

// networkDelete removes a network: DELETE /1.0/networks/NAME.
func (s *Server) networkDelete(c *call) (reply, error) {
	project, err := s.project(c)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Entities.DeleteNetwork(c.Context(), project, c.name("name"), c.caller.requestor())
}

// networkStateGet tells what an interface is doing on one member: GET /1.0/networks/NAME/state.
func (s *Server) networkStateGet(c *call) (reply, error) {
	view, scope, err := s.scoped(c)
	if err != nil {
		return reply{}, err
	}
	if view.Owner(scope.name, state.FeatureNetworks) != defaultName {
		return reply{}, api.Errorf(api.NotFound, "Network not found")
	}
	state, err := s.cfg.Entities.NetworkState(c.Context(), c.name("name"))
	return reply{metadata: state}, err
}

// networkLeasesGet lists the addresses that a network has given, on all members that answer, or
// on this one, if target= names it or a member asks: GET /1.0/networks/NAME/leases.
func (s *Server) networkLeasesGet(c *call) (reply, error) {
	view, scope, err := s.scoped(c)
	if err != nil {
		return reply{}, err
	}
	if _, err := entities.Network(view, scope.name, c.name("name"), ""); err != nil {
		return reply{}, unlessStale(view, api.AsError(err))
	}
	leases, err := s.cfg.Entities.NetworkLeases(c.Context(), scope.name, c.name("name"))
	if err != nil {
		return reply{}, err
	}
	if !c.caller.notification && c.param("target") == "" {
		path := resource("networks", c.name("name")) + "/leases?project=" + url.QueryEscape(scope.name)
		for _, theirs := range askAll[[]api.NetworkLease](c.Context(), s, s.online(view), path) {
			leases = append(leases, theirs...)
		}
	}
	slices.SortStableFunc(leases, func(a, b api.NetworkLease) int { return strings.Compare(a.Address+a.Location, b.Address+b.Location) })
	return ok(view, leases), nil
}

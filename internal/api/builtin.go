package api

import (
	"maps"
	"slices"

	"incusd/api"
)

// keep answers a PUT or PATCH of an object that is built in; what names such objects.
// Clients send back what they got and are told that it is so; any other change is
// refused. current is what can be sent, compared by same; tag is what the object's
// ETag is made from.
func keep[T any](c *call, what string, current T, same func(a, b T) bool, tag any) (reply, error) {
	next, err := change(c, func(now T) T { return now }, func(T) any { return tag })
	if err != nil {
		return reply{}, err
	}
	wanted, err := next(current)
	if err != nil {
		return reply{}, err
	}
	if !same(wanted, current) {
		return reply{}, api.Errorf(api.NotImplemented, "Changing %s is not implemented yet: it can only be set to what it is", what)
	}
	return empty, nil
}

// groupPut is PUT and PATCH /1.0/cluster/groups/NAME.
func (s *Server) groupPut(c *call) (reply, error) {
	view, err := clustered(s.read(c.Context()))
	if err != nil {
		return reply{}, err
	}
	g, err := findGroup(c, view)
	if err != nil {
		return reply{}, err
	}
	return keep(c, "a cluster group", groupPart(g), sameGroup, groupPart(g))
}

// writableGroup is also what the ETag of a group is made from.
type writableGroup struct {
	Description string        `json:"description"`
	Members     []string      `json:"members"`
	Config      api.ConfigMap `json:"config"`
}

func sameGroup(a, b writableGroup) bool {
	return a.Description == b.Description && slices.Equal(a.Members, b.Members) && maps.Equal(a.Config, b.Config)
}

func groupPart(g api.ClusterGroup) writableGroup {
	return writableGroup{g.Description, g.Members, g.Config}
}

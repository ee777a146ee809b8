package api

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"incusd/api"
	"incusd/internal/raftstore"
)

// This daemon runs no instances and keeps no images: their lists are true and empty.

// nothing lists what there is none of.
func nothing(_ *Server, c *call) (reply, error) {
	if _, err := c.projects(); err != nil {
		return reply{}, err
	}
	return reply{metadata: []string{}}, nil
}

// noInstances refuses what this daemon is not for.
func noInstances(*Server, *call) (reply, error) {
	return reply{}, api.Errorf(api.NotImplemented, "This daemon forms clusters; it runs no instances and keeps no images")
}

// change reads the body of a PUT or PATCH and returns what makes the new writable part P of an
// object O: it refuses when If-Match does not fit the object, and writes a PATCH over it. tag is
// what the object's ETag is made from.
func change[O, P any](c *call, part func(O) P, tag func(O) any) (func(O) (P, error), error) {
	fields, err := decode[map[string]any](c)
	if err != nil {
		return nil, err
	}
	// What is null counts as left out.
	maps.DeleteFunc(fields, func(_ string, value any) bool { return value == nil })
	return func(now O) (P, error) {
		var next P
		if err := c.ifMatch(tag(now)); err != nil {
			return next, err
		}
		wanted := fields
		if c.Method == http.MethodPatch {
			var err error
			if wanted, err = patched(part(now), fields); err != nil {
				return next, err
			}
		}
		data, err := json.Marshal(wanted)
		if err != nil {
			return next, err
		}
		return next, unmarshal(data, &next)
	}, nil
}

// patched is value with the fields of a PATCH. Objects in it are merged.
func patched(value any, changes map[string]any) (map[string]any, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	for key, change := range changes {
		before, isObject := fields[key].(map[string]any)
		if added, ok := change.(map[string]any); ok && isObject {
			maps.Copy(before, added)
		} else {
			fields[key] = change
		}
	}
	return fields, nil
}

// on is the member that target= names, for objects that any member can show as another has them.
// A server that is no cluster has one name for itself.
func (s *Server) on(c *call, view *raftstore.View) string {
	target := c.param("target")
	if target == unclusteredName && !view.Cluster().Enabled {
		return ""
	}
	return target
}

// targetOf is on for a call that has no view yet.
func (s *Server) targetOf(c *call) string { return s.on(c, s.cfg.Store.Local()) }

// scoped reads the state and which project's objects the call is about. The project must be there.
func (s *Server) scoped(c *call) (*raftstore.View, projectScope, error) {
	scope, err := c.projects()
	if err != nil {
		return nil, scope, err
	}
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return nil, scope, err
	}
	if _, ok := view.Project(scope.name); !ok && !scope.all {
		return nil, scope, api.Errorf(api.NotFound, "Project not found")
	}
	return view, scope, nil
}

// project is the project that a change is about.
func (s *Server) project(c *call) (string, error) {
	_, scope, err := s.scoped(c)
	if err == nil && scope.all {
		err = api.Errorf(api.BadRequest, "A change is about one project")
	}
	return scope.name, err
}

// checkNew checks the name of something new; what is the word of the protocol's text.
func checkNew(what, name string) error {
	if name == "" {
		return api.Errorf(api.BadRequest, "No name provided")
	}
	if err := api.ValidateName(name); err != nil {
		return api.Errorf(api.NameInvalid, "Invalid %s name: %v", what, err)
	}
	return nil
}

// visible leaves out of used_by what is in projects that the caller may not use.
func (c *caller) visible(usedBy []string) []string {
	if c.kind != RestrictedClient {
		return usedBy
	}
	return slices.DeleteFunc(slices.Clone(usedBy), func(path string) bool {
		u, err := url.Parse(path)
		return err != nil || c.mayUse(cmp.Or(u.Query().Get("project"), defaultName)) != nil
	})
}

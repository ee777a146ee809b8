package api

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"incusd/api"
	"incusd/internal/entities"
	"incusd/internal/raftstore/state"
)

// A restricted client is let in by the table of routes; what it may do there, its projects decide: here,
// before any handler runs, and once more where the change is applied, since a project may be another one
// by then (state/rights.go).

// owned has the paths of what projects have, each with the feature that decides whose it is: the
// project's own, or, without that feature, the default project's.
var owned = map[string]string{
	"/1.0/networks":                     state.FeatureNetworks,
	"/1.0/profiles":                     state.FeatureProfiles,
	"/1.0/storage-pools/{name}/volumes": state.FeatureVolumes,
}

// owned tells by which feature what the route is about is in a project, and whether it is a list of
// that. The feature is empty for what is in none.
func (rt *Route) owned() (feature string, list bool) {
	for path, feature := range owned {
		if rest, ok := strings.CutPrefix(rt.Path, path); ok && (rest == "" || rest[0] == '/') {
			return feature, rt.Method == http.MethodGet && (rest == "" || rest == "/{type}")
		}
	}
	return "", false
}

// isOfProject tells whether a URL is that of a project, or of something that is in one.
func isOfProject(url string) bool {
	path, _, _ := strings.Cut(url, "?")
	if pool, volume, ok := strings.Cut(path, "/volumes/"); ok {
		return strings.HasPrefix(pool, "/1.0/storage-pools/") && volume != ""
	}
	return slices.ContainsFunc([]string{"/1.0/projects/", "/1.0/profiles/", "/1.0/networks/"}, func(list string) bool {
		return strings.HasPrefix(path, list)
	})
}

// confine refuses a restricted client what is not in its projects: project= names one of them, and
// what it finds or makes there is that project's or another's of them. A change by target= is one of a
// machine, which is in no project.
func (s *Server) confine(rt *Route, c *call) error {
	feature, list := rt.owned()
	if c.caller.kind != RestrictedClient || feature == "" {
		return nil
	}
	scope, err := c.projects()
	if err != nil || list {
		return err
	}
	if rt.Method != http.MethodGet && c.param("target") != "" {
		return api.Errorf(api.NotAuthorized, "Certificate is restricted")
	}
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return err
	}
	return c.caller.mayUse(view.Owner(scope.name, feature))
}

// mayUse refuses projects that a restricted client has no part in.
func (c *caller) mayUse(project string) error {
	if c.kind != RestrictedClient || slices.Contains(c.projects, project) {
		return nil
	}
	return api.Errorf(api.NotAuthorized, "User does not have permission for project %q", project)
}

// within leaves out of a list what is in projects that the caller may not use.
func within[T any](c *caller, items []T, project func(T) string) []T {
	return slices.DeleteFunc(items, func(item T) bool { return c.mayUse(project(item)) != nil })
}

// hide takes a configuration of the cluster's away from a restricted client, and tells whether it did. Who
// is not shown one gets no ETag that is made from it, either: it would tell when a guess is right.
func (c *caller) hide(config *api.ConfigMap) bool {
	if c.kind != RestrictedClient {
		return false
	}
	*config = api.ConfigMap{}
	return true
}

// maySet refuses a restricted client what of a network's configuration reaches into the machine.
func (c *caller) maySet(before, after api.ConfigMap) error {
	if c.kind != RestrictedClient {
		return nil
	}
	both := maps.Clone(before)
	if both == nil {
		both = api.ConfigMap{}
	}
	maps.Copy(both, after)
	for _, key := range slices.Sorted(maps.Keys(both)) {
		if before[key] != after[key] && entities.OfTheMachine(key) {
			return api.Errorf(api.NotAuthorized, "Certificate is restricted").
				WithHint("the key %q is about the machine: an administrator can set it", key)
		}
	}
	return nil
}

package entities

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// defaultFeatures are what a new project has of its own unless it says otherwise.
var defaultFeatures = []string{"features.images", state.FeatureProfiles, "features.storage.buckets", state.FeatureVolumes}

// features are what a project may have of its own.
var features = append([]string{state.FeatureNetworks, "features.networks.zones"}, defaultFeatures...)

// CreateProject makes a project.
func (s *Service) CreateProject(ctx context.Context, post api.ProjectsPost, by *api.EventRequestor) error {
	if err := checkProjectName(post.Name); err != nil {
		return err
	}
	config := merged(post.Config, nil)
	for _, feature := range defaultFeatures {
		if config[feature] == "" {
			config[feature] = "true"
		}
	}
	config, err := projectConfig(config)
	if err != nil {
		return err
	}
	_, err = s.decide(ctx, state.KindProjectCreate, state.ProjectCreate{
		Project: state.Project{Name: post.Name, Description: post.Description, Config: config},
	}, by)
	return err
}

// UpdateProject changes a project; see UpdatePool.
func (s *Service) UpdateProject(ctx context.Context, name string, change func(api.Project) (api.ProjectPut, error), by *api.EventRequestor) error {
	return repeat(func() error {
		view, err := s.store.Read(ctx)
		if err != nil {
			return err
		}
		row, ok := view.Project(name)
		if !ok {
			return api.Errorf(api.NotFound, "Project not found")
		}
		put, err := change(projectOf(view, row))
		if err != nil {
			return err
		}
		config, err := projectConfig(put.Config)
		if err != nil {
			return err
		}
		_, err = s.decide(ctx, state.KindProjectUpdate, state.ProjectUpdate{
			Project: state.Project{Name: name, Description: put.Description, Config: config}, Expect: row.Hash(),
		}, by)
		return basis(err)
	})
}

// RenameProject gives an empty project another name.
func (s *Service) RenameProject(ctx context.Context, name, newName string, by *api.EventRequestor) error {
	if err := checkProjectName(newName); err != nil {
		return err
	}
	_, err := s.decide(ctx, state.KindProjectRename, state.ProjectRename{Name: name, NewName: newName}, by)
	return err
}

// DeleteProject removes an empty project.
func (s *Service) DeleteProject(ctx context.Context, name string, by *api.EventRequestor) error {
	_, err := s.decide(ctx, state.KindProjectDelete, state.ProjectDelete{Name: name}, by)
	return err
}

// checkProjectName has the rules of entities.md §4.
func checkProjectName(name string) error {
	invalid := func(format string, args ...any) error {
		return api.Errorf(api.NameInvalid, format, args...).
			WithHint("use at most 64 letters, digits, dots and dashes, with a letter or digit at both ends")
	}
	switch {
	case name == "":
		return invalid("No name provided")
	case strings.Contains(name, "_"):
		return invalid("Project names may not contain underscores")
	case name == "*":
		return invalid("Reserved project name")
	case strings.ContainsAny(name, `'"`), name == ".", name == "..":
		return invalid("Invalid project name %q", name)
	}
	if err := api.ValidateName(name); err != nil {
		return invalid("Invalid project name %q: %v", name, err)
	}
	return nil
}

// projectKeys are the other keys of a project, or, ending with a dot, where they begin.
var projectKeys = []string{"backups.compression_algorithm", "images.", "limits.", "restricted", "restricted.", "user."}

// projectConfig checks the configuration of a project and returns it in the form to store.
func projectConfig(config map[string]string) (map[string]string, error) {
	out := set(config)
	for _, key := range slices.Sorted(maps.Keys(out)) {
		value := out[key]
		switch {
		case slices.Contains(features, key), key == "restricted":
			on, ok := api.ParseBool(value)
			if !ok {
				return nil, api.Errorf(api.ConfigInvalid, "Invalid project configuration key %q value: %q is no boolean", key, value)
			}
			out[key] = strconv.FormatBool(on)
		case key == "restricted.cluster.target" && value != "allow" && value != "block":
			return nil, api.Errorf(api.ConfigInvalid, "Invalid project configuration key %q value: use allow or block", key)
		case !isAmong(projectKeys, key):
			return nil, api.Errorf(api.ConfigInvalid, "Invalid project configuration key %q", key).WithHint("keys of your own begin with user.")
		}
	}
	return out, nil
}

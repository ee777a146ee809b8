package api

import (
	"incusd/api"
)

// Storage, networks and instances are not part of this version: their lists are true
// and empty. The project and the profile that are built in can be set to what they are,
// as the dialogue of upstream's client does, and to nothing else.

// nothing lists what there is none of.
func nothing(_ *Server, c *call) (reply, error) {
	if _, err := c.projects(); err != nil {
		return reply{}, err
	}
	return reply{metadata: []string{}}, nil
}

// missing is the answer about one of what there is none of.
func missing(text string) handler {
	return func(*Server, *call) (reply, error) {
		return reply{}, api.Errorf(api.NotFound, "%s", text)
	}
}

// notYet refuses what this version cannot do; what names it.
func notYet(what string) handler {
	return func(*Server, *call) (reply, error) {
		return reply{}, api.Errorf(api.NotImplemented, "%s is not implemented yet", what)
	}
}

// defaultProject is the built-in project.
func defaultProject() api.Project {
	return api.Project{
		Name: defaultName, Description: "Default Incus project", UsedBy: []string{resource("profiles", defaultName)},
		Config: api.ConfigMap{
			"features.images": "true", "features.networks": "true", "features.networks.zones": "true",
			"features.profiles": "true", "features.storage.buckets": "true", "features.storage.volumes": "true",
		},
	}
}

// defaultProfile is the built-in profile of the built-in project.
func defaultProfile() api.Profile {
	return api.Profile{
		Name: defaultName, Description: "Default Incus profile", Project: defaultName,
		Config: api.ConfigMap{}, Devices: map[string]api.ConfigMap{}, UsedBy: []string{},
	}
}

// projectsGet lists the projects that the caller may use: GET /1.0/projects.
func (s *Server) projectsGet(c *call) (reply, error) {
	var visible []api.Project
	if c.caller.mayUse(defaultName) == nil {
		visible = append(visible, defaultProject())
	}
	list, err := listed(c, visible, func(p api.Project) string { return resource("projects", p.Name) })
	return reply{metadata: list}, err
}

// findProject returns the project that the path names.
func findProject(c *call) (api.Project, error) {
	p := defaultProject()
	if c.name("name") != p.Name {
		return p, api.Errorf(api.NotFound, "Project not found")
	}
	return p, nil
}

// projectTag is what the ETag of a project is made from.
func projectTag(p api.Project) any { return []any{p.Description, p.Config} }

// projectGet shows a project: GET /1.0/projects/NAME.
func (s *Server) projectGet(c *call) (reply, error) {
	if err := c.caller.mayUse(c.name("name")); err != nil {
		return reply{}, err
	}
	p, err := findProject(c)
	if err != nil {
		return reply{}, err
	}
	return reply{metadata: p}.tag(projectTag(p)), nil
}

// profilesGet lists the profiles of a project: GET /1.0/profiles.
func (s *Server) profilesGet(c *call) (reply, error) {
	scope, err := c.projects()
	if err != nil {
		return reply{}, err
	}
	var visible []api.Profile
	if scope.includes(defaultName) {
		visible = append(visible, defaultProfile())
	}
	list, err := listed(c, visible, func(p api.Profile) string { return resource("profiles", p.Name) })
	return reply{metadata: list}, err
}

// findProfile returns the profile that the path names.
func findProfile(c *call) (api.Profile, error) {
	p := defaultProfile()
	scope, err := c.projects()
	if err == nil && (c.name("name") != p.Name || !scope.includes(p.Project)) {
		err = api.Errorf(api.NotFound, "Fetch profile: Profile not found")
	}
	return p, err
}

// profileTag is what the ETag of a profile is made from.
func profileTag(p api.Profile) any { return []any{p.Config, p.Description, p.Devices} }

// profileGet shows a profile: GET /1.0/profiles/NAME.
func (s *Server) profileGet(c *call) (reply, error) {
	p, err := findProfile(c)
	if err != nil {
		return reply{}, err
	}
	return reply{metadata: p}.tag(profileTag(p)), nil
}

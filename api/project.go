package api

import "net/url"

// DefaultProject is the project, and DefaultProfile the profile of each project, that
// is always there.
const (
	DefaultProject = "default"
	DefaultProfile = "default"
)

// InProject adds the project to the URL of an object, unless it is the default one.
func InProject(path, project string) string {
	if project == "" || project == DefaultProject {
		return path
	}
	return path + "?project=" + url.QueryEscape(project)
}

// ProjectPut is the writable part of a project.
type ProjectPut struct {
	Config      ConfigMap `json:"config" yaml:"config"`
	Description string    `json:"description" yaml:"description"`
}

// ProjectsPost asks for a project.
type ProjectsPost struct {
	ProjectPut `yaml:",inline"`
	Name       string `json:"name" yaml:"name"`
}

// ProjectPost renames a project.
type ProjectPost struct {
	Name string `json:"name" yaml:"name"`
}

// Project is a project.
type Project struct {
	ProjectPut `yaml:",inline"`
	Name       string   `json:"name" yaml:"name"`
	UsedBy     []string `json:"used_by" yaml:"used_by"`
}

// ProjectState is what a project uses of what it may use.
type ProjectState struct {
	Resources map[string]ProjectStateResource `json:"resources" yaml:"resources"`
}

// ProjectStateResource has upstream's capitalised names; -1 means no limit.
type ProjectStateResource struct {
	Limit int64
	Usage int64
}

// ProfilePut is the writable part of a profile.
type ProfilePut struct {
	Config      ConfigMap            `json:"config" yaml:"config"`
	Description string               `json:"description" yaml:"description"`
	Devices     map[string]ConfigMap `json:"devices" yaml:"devices"`
}

// ProfilesPost asks for a profile.
type ProfilesPost struct {
	ProfilePut `yaml:",inline"`
	Name       string `json:"name" yaml:"name"`
}

// ProfilePost renames a profile.
type ProfilePost struct {
	Name string `json:"name" yaml:"name"`
}

// Profile is a profile of a project.
type Profile struct {
	ProfilePut `yaml:",inline"`
	Name       string   `json:"name" yaml:"name"`
	UsedBy     []string `json:"used_by" yaml:"used_by"`
	Project    string   `json:"project" yaml:"project"`
}

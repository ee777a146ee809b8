package api

// Project is a project.
type Project struct {
	Config      ConfigMap `json:"config" yaml:"config"`
	Description string    `json:"description" yaml:"description"`
	Name        string    `json:"name" yaml:"name"`
	UsedBy      []string  `json:"used_by" yaml:"used_by"`
}

// Profile is a profile of a project.
type Profile struct {
	Config      ConfigMap            `json:"config" yaml:"config"`
	Description string               `json:"description" yaml:"description"`
	Devices     map[string]ConfigMap `json:"devices" yaml:"devices"`
	Name        string               `json:"name" yaml:"name"`
	UsedBy      []string             `json:"used_by" yaml:"used_by"`
	Project     string               `json:"project" yaml:"project"`
}

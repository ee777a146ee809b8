package state

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// Features that decide which project's objects a project sees.
const (
	FeatureNetworks = "features.networks"
	FeatureProfiles = "features.profiles"
	FeatureVolumes  = "features.storage.volumes"
)

// Project is a row of a project. The project "default" is there without a row, as View.Project
// shows it, until it is changed.
type Project struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Config      map[string]string `json:"config,omitempty"`
}

// ProjectCreate is the body of "project.create", version 1.
type ProjectCreate struct {
	Project Project `json:"project"`
}

// ProjectUpdate is the body of "project.update", version 1.
type ProjectUpdate struct {
	Project Project `json:"project"`
	// Expect is Project.Hash as the proposer saw it; PreconditionFail if it differs now.
	Expect string `json:"expect"`
}

// ProjectRename is the body of "project.rename", version 1.
type ProjectRename struct {
	Name    string `json:"name"`
	NewName string `json:"new_name"`
}

// ProjectDelete is the body of "project.delete", version 1. It refuses with Conflict what is not
// empty.
type ProjectDelete struct {
	Name string `json:"name"`
}

// projectTable has the projects that were made or changed.
var projectTable = &table[Project]{
	name:    "project",
	topic:   topicEntities,
	indexes: []index[Project]{{name: primary, key: func(p *Project) string { return p.Name }}},
	count:   func(c *counts, _ *Project, n int) { c.projects += n },
}

// Hash is a SHA-256 of what "project.update" writes, in hex.
func (p *Project) Hash() string { return hashOf(p.Description, withoutEmpty(p.Config)) }

// Enabled tells whether the project has a feature of its own, such as "features.networks".
func (p *Project) Enabled(feature string) bool { return p.Config[feature] == "true" }

// Project returns the project of that name.
func (v *View) Project(name string) (*Project, bool) { return projectOf(v.txn, name) }

// Projects returns all projects, by name.
func (v *View) Projects() []*Project { return allProjects(v.txn) }

// Owner is the project that holds what project has of a feature: itself if it has the feature of
// its own, else "default".
func (v *View) Owner(project, feature string) string { return ownerOf(v.txn, project, feature) }

func ownerOf(txn *memdb.Txn, project, feature string) string {
	if p, ok := projectOf(txn, project); ok && !p.Enabled(feature) {
		return api.DefaultProject
	}
	return project
}

// projectOf returns a row, or the project that is always there.
func projectOf(txn *memdb.Txn, name string) (*Project, bool) {
	if p, ok := projectTable.get(txn, primary, name); ok {
		return p, true
	}
	if name != api.DefaultProject {
		return nil, false
	}
	return &Project{Name: name, Description: "Default Incus project", Config: map[string]string{
		"features.images": "true", FeatureNetworks: "true", "features.networks.zones": "true",
		FeatureProfiles: "true", "features.storage.buckets": "true", FeatureVolumes: "true",
	}}, true
}

func allProjects(txn *memdb.Txn) []*Project {
	all := projectTable.list(txn, primary)
	if _, ok := projectTable.get(txn, primary, api.DefaultProject); !ok {
		def, _ := projectOf(txn, api.DefaultProject)
		all = append(all, def)
	}
	slices.SortFunc(all, func(a, b *Project) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// ProjectUsedBy lists the URLs of what is in a project, in order.
func (v *View) ProjectUsedBy(name string) []string { return inhabitants(v.txn, name) }

func inhabitants(txn *memdb.Txn, project string) []string {
	var urls []string
	for _, p := range allProfiles(txn) {
		if p.Project == project {
			urls = append(urls, p.url())
		}
	}
	for _, kind := range []string{EntityNetwork, EntityVolume} {
		for _, e := range entitiesOf(txn, kind) {
			if e.Project == project && !e.Deleting {
				urls = append(urls, e.url())
			}
		}
	}
	slices.Sort(urls)
	return urls
}

// isEmpty tells whether nothing is in a project but its default profile as it came.
func isEmpty(txn *memdb.Txn, project string) bool {
	for _, kind := range []string{EntityNetwork, EntityVolume} {
		if slices.ContainsFunc(entitiesOf(txn, kind), func(e *Entity) bool { return e.Project == project }) {
			return false
		}
	}
	return !slices.ContainsFunc(profileTable.list(txn, primary), func(p *Profile) bool { return p.Project == project })
}

func applyProjectCreate(tx *transaction, b *ProjectCreate) (any, error) {
	p := b.Project
	if err := api.ValidateName(p.Name); err != nil {
		return nil, api.Errorf(api.NameInvalid, "Invalid project name %q: %v", p.Name, err)
	}
	if _, exists := projectOf(tx.Txn, p.Name); exists {
		return nil, api.Errorf(api.Conflict, "Project %q already exists", p.Name)
	}
	if tx.counts.projects >= MaxProjects {
		return nil, api.Errorf(api.TooMany, "There are %d projects, which is the limit", MaxProjects)
	}
	if err := checkEntityConfig(p.Description, p.Config); err != nil {
		return nil, err
	}
	projectTable.put(tx, &p)
	tx.emitProject(&p, "created", nil)
	return nil, nil
}

func applyProjectUpdate(tx *transaction, b *ProjectUpdate) (any, error) {
	p := b.Project
	old, ok := projectOf(tx.Txn, p.Name)
	if !ok {
		return nil, api.Errorf(api.NotFound, "Project not found")
	}
	if b.Expect != old.Hash() {
		return nil, refuse(api.PreconditionFail)
	}
	if err := checkEntityConfig(p.Description, p.Config); err != nil {
		return nil, err
	}
	if err := tx.checkFeatures(old, &p); err != nil {
		return nil, err
	}
	projectTable.put(tx, &p)
	tx.emitProject(&p, "updated", nil)
	return nil, nil
}

// checkFeatures refuses to change what a project has of its own while something is in it: it
// would be out of sight.
func (tx *transaction) checkFeatures(old, next *Project) error {
	all := maps.Clone(old.Config)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, next.Config)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		switch {
		case !strings.HasPrefix(key, "features.") || old.Enabled(key) == next.Enabled(key):
		case next.Name == api.DefaultProject:
			return badRequest("You can't change the features of the default project")
		case !isEmpty(tx.Txn, next.Name):
			return badRequest("Project feature %q can only be changed on empty projects", key)
		}
	}
	return nil
}

func applyProjectRename(tx *transaction, b *ProjectRename) (any, error) {
	if b.Name == api.DefaultProject {
		return nil, api.Errorf(api.BadRequest, "The 'default' project cannot be renamed").WithCode(403)
	}
	p, ok := projectOf(tx.Txn, b.Name)
	if !ok {
		return nil, api.Errorf(api.NotFound, "Project not found")
	}
	if err := api.ValidateName(b.NewName); err != nil {
		return nil, api.Errorf(api.NameInvalid, "Invalid project name %q: %v", b.NewName, err)
	}
	if _, taken := projectOf(tx.Txn, b.NewName); taken {
		return nil, api.Errorf(api.Conflict, "A project named %q already exists", b.NewName)
	}
	if !isEmpty(tx.Txn, b.Name) {
		return nil, api.Errorf(api.InUse, "Only empty projects can be renamed")
	}
	projectTable.drop(tx, p)
	next := *p
	next.Name = b.NewName
	projectTable.put(tx, &next)
	tx.moveRights(b.Name, b.NewName)
	tx.emitProject(&next, "renamed", map[string]any{"old_name": b.Name})
	return nil, nil
}

func applyProjectDelete(tx *transaction, b *ProjectDelete) (any, error) {
	if b.Name == api.DefaultProject {
		return nil, api.Errorf(api.BadRequest, "The 'default' project cannot be deleted").WithCode(403)
	}
	p, ok := projectTable.get(tx.Txn, primary, b.Name)
	if !ok {
		return nil, api.Errorf(api.NotFound, "Project not found")
	}
	if !isEmpty(tx.Txn, b.Name) {
		return nil, api.Errorf(api.InUse, "Only empty projects can be removed.")
	}
	projectTable.drop(tx, p)
	tx.moveRights(b.Name, "")
	tx.emitProject(p, "deleted", nil)
	return nil, nil
}

func (tx *transaction) emitProject(p *Project, what string, context map[string]any) {
	tx.add(Event{Action: "project-" + what, Source: source("/1.0/projects", p.Name), Project: p.Name, Context: context})
}

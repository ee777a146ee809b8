package state

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// Profile is a row of a profile. The profile "default" of each project is there without a row, as
// View.Profile shows it, until it is changed.
type Profile struct {
	Project     string                       `json:"project"`
	Name        string                       `json:"name"`
	Description string                       `json:"description,omitempty"`
	Config      map[string]string            `json:"config,omitempty"`
	Devices     map[string]map[string]string `json:"devices,omitempty"`
}

// ProfileCreate is the body of "profile.create", version 1.
type ProfileCreate struct {
	Profile Profile `json:"profile"`
}

// ProfileUpdate is the body of "profile.update", version 1.
type ProfileUpdate struct {
	Profile Profile `json:"profile"`
	// Expect is Profile.Hash as the proposer saw it; PreconditionFail if it differs now.
	Expect string `json:"expect"`
}

// ProfileRename is the body of "profile.rename", version 1.
type ProfileRename struct {
	Project string `json:"project"`
	Name    string `json:"name"`
	NewName string `json:"new_name"`
}

// ProfileDelete is the body of "profile.delete", version 1.
type ProfileDelete struct {
	Project string `json:"project"`
	Name    string `json:"name"`
}

// profileTable has the profiles that were made or changed.
var profileTable = &table[Profile]{
	name:    "profile",
	topic:   topicEntities,
	indexes: []index[Profile]{{name: primary, key: func(p *Profile) string { return profileKey(p.Project, p.Name) }}},
	count:   func(c *counts, _ *Profile, n int) { c.profiles += n },
}

func profileKey(project, name string) string { return project + "\x01" + name }

// Hash is a SHA-256 of what "profile.update" writes, in hex.
func (p *Profile) Hash() string {
	devices := map[string]map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(p.Devices)) {
		devices[name] = withoutEmpty(p.Devices[name])
	}
	return hashOf(p.Description, withoutEmpty(p.Config), devices)
}

// url is the profile's in the API.
func (p *Profile) url() string { return api.InProject(source("/1.0/profiles", p.Name), p.Project) }

// Profile returns the profile of that name in that very project.
func (v *View) Profile(project, name string) (*Profile, bool) {
	return findProfile(v.txn, project, name)
}

// Profiles returns all profiles, by project and name.
func (v *View) Profiles() []*Profile { return allProfiles(v.txn) }

// findProfile returns a row, or the profile that every project with its own profiles has.
func findProfile(txn *memdb.Txn, project, name string) (*Profile, bool) {
	if p, ok := profileTable.get(txn, primary, profileKey(project, name)); ok {
		return p, true
	}
	owner, ok := projectOf(txn, project)
	if name != api.DefaultProfile || !ok || !owner.Enabled(FeatureProfiles) {
		return nil, false
	}
	return builtInProfile(project), true
}

// builtInProfile is what the profile "default" of a project is before it is changed.
func builtInProfile(project string) *Profile {
	p := &Profile{Project: project, Name: api.DefaultProfile, Description: "Default Incus profile"}
	if project != api.DefaultProject {
		p.Description += " for project " + project
	}
	return p
}

func allProfiles(txn *memdb.Txn) []*Profile {
	all := profileTable.list(txn, primary)
	for _, project := range allProjects(txn) {
		if !project.Enabled(FeatureProfiles) {
			continue
		}
		if _, ok := profileTable.get(txn, primary, profileKey(project.Name, api.DefaultProfile)); !ok {
			all = append(all, builtInProfile(project.Name))
		}
	}
	slices.SortFunc(all, func(a, b *Profile) int {
		return strings.Compare(profileKey(a.Project, a.Name), profileKey(b.Project, b.Name))
	})
	return all
}

func applyProfileCreate(tx *transaction, b *ProfileCreate) (any, error) {
	p := b.Profile
	if err := tx.mayChange(p.Project); err != nil {
		return nil, err
	}
	if err := api.ValidateName(p.Name); err != nil {
		return nil, api.Errorf(api.NameInvalid, "Invalid profile name: %v", err)
	}
	owner, ok := projectOf(tx.Txn, p.Project)
	switch {
	case !ok:
		return nil, api.Errorf(api.NotFound, "Project not found")
	case !owner.Enabled(FeatureProfiles):
		return nil, badRequest("The project %q has no profiles of its own", p.Project)
	case tx.counts.profiles >= MaxProfiles:
		return nil, api.Errorf(api.TooMany, "There are %d profiles, which is the limit", MaxProfiles)
	}
	if _, exists := findProfile(tx.Txn, p.Project, p.Name); exists {
		return nil, stepError(api.Conflict, "Error inserting %q into database: The profile already exists", p.Name)
	}
	if err := tx.checkProfile(&p); err != nil {
		return nil, err
	}
	profileTable.put(tx, &p)
	tx.emitProfile(&p, "created", nil)
	return nil, nil
}

func applyProfileUpdate(tx *transaction, b *ProfileUpdate) (any, error) {
	p := b.Profile
	if err := tx.mayChange(p.Project); err != nil {
		return nil, err
	}
	old, ok := findProfile(tx.Txn, p.Project, p.Name)
	if !ok {
		return nil, api.Errorf(api.NotFound, "Failed to retrieve profile %q: Profile not found", p.Name)
	}
	if b.Expect != old.Hash() {
		return nil, refuse(api.PreconditionFail)
	}
	if err := tx.checkProfile(&p); err != nil {
		return nil, err
	}
	profileTable.put(tx, &p)
	tx.emitProfile(&p, "updated", nil)
	return nil, nil
}

func applyProfileRename(tx *transaction, b *ProfileRename) (any, error) {
	p, err := tx.ownProfile(b.Project, b.Name, "renamed")
	if err != nil {
		return nil, err
	}
	if err := api.ValidateName(b.NewName); err != nil {
		return nil, api.Errorf(api.NameInvalid, "Invalid profile name: %v", err)
	}
	if _, taken := findProfile(tx.Txn, b.Project, b.NewName); taken {
		return nil, api.Errorf(api.Conflict, "Name %q already in use", b.NewName)
	}
	profileTable.drop(tx, p)
	next := *p
	next.Name = b.NewName
	profileTable.put(tx, &next)
	tx.emitProfile(&next, "renamed", map[string]any{"old_name": b.Name})
	return nil, nil
}

func applyProfileDelete(tx *transaction, b *ProfileDelete) (any, error) {
	p, err := tx.ownProfile(b.Project, b.Name, "deleted")
	if err != nil {
		return nil, err
	}
	profileTable.drop(tx, p)
	tx.emitProfile(p, "deleted", nil)
	return nil, nil
}

// ownProfile is a profile that somebody has made; verb is what is to be done with it.
func (tx *transaction) ownProfile(project, name, verb string) (*Profile, error) {
	if err := tx.mayChange(project); err != nil {
		return nil, err
	}
	if name == api.DefaultProfile {
		return nil, api.Errorf(api.BadRequest, `The "default" profile cannot be %s`, verb).WithCode(403)
	}
	p, ok := profileTable.get(tx.Txn, primary, profileKey(project, name))
	if !ok {
		return nil, api.Errorf(api.NotFound, "Profile not found")
	}
	return p, nil
}

func (tx *transaction) emitProfile(p *Profile, what string, context map[string]any) {
	tx.add(Event{Action: "profile-" + what, Source: p.url(), Project: p.Project, Context: context})
}

// checkProfile checks sizes, and that the pools and networks of the devices are there: here is
// where a profile meets their deletion.
func (tx *transaction) checkProfile(p *Profile) error {
	if err := checkEntityConfig(p.Description, p.Config); err != nil {
		return err
	}
	if n := len(p.Devices); n > MaxDevices {
		return api.Errorf(api.TooLarge, "The profile has %d devices, the limit is %d", n, MaxDevices)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Devices)) {
		device := p.Devices[name]
		if err := api.ValidateName(name); err != nil {
			return badRequest("Invalid device name %q: %v", name, err)
		}
		if err := checkConfig(device); err != nil {
			return err
		}
		if pool := device["pool"]; device["type"] == "disk" && pool != "" {
			if _, ok := entityTable.get(tx.Txn, "name", place(EntityPool, "", "", pool)); !ok {
				return badRequest("Device validation failed for %q: The storage pool %q doesn't exist", name, pool)
			}
		}
		if network := device["network"]; device["type"] == "nic" && network != "" {
			owner := ownerOf(tx.Txn, p.Project, FeatureNetworks)
			if _, ok := entityTable.get(tx.Txn, "name", place(EntityNetwork, owner, "", network)); !ok {
				return badRequest("Device validation failed for %q: The network %q doesn't exist", name, network)
			}
		}
	}
	return nil
}

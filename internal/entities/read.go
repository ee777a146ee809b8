package entities

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"incusd/api"
	"incusd/internal/network"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/storage"
)

// Pools lists the storage pools, by name, as the whole cluster has them.
func Pools(view *raftstore.View) []api.StoragePool {
	out := []api.StoragePool{}
	for _, e := range shown(view, view.Entities(state.EntityPool)) {
		out = append(out, poolOf(view, e, nil))
	}
	return out
}

// Pool returns one storage pool, as the whole cluster has it or, if target is not empty, as the
// member of that name has it.
func Pool(view *raftstore.View, name, target string) (*api.StoragePool, error) {
	e, err := poolRow(view, name)
	if err != nil {
		return nil, err
	}
	m, err := targeted(view, target)
	if err != nil {
		return nil, err
	}
	pool := poolOf(view, e, m)
	return &pool, nil
}

func poolOf(view *raftstore.View, e *state.Entity, m *state.Member) api.StoragePool {
	status, message := statusOf(view, e, m)
	return api.StoragePool{
		StoragePoolPut: api.StoragePoolPut{Config: configOf(view, e, m), Description: e.Description},
		Name:           e.Name, Driver: e.Type, UsedBy: usedBy(view, e),
		Status: status, Message: message, Locations: locations(view, e),
	}
}

// Networks lists the managed networks that a project sees, or those of all projects.
func Networks(view *raftstore.View, project string, all bool) []api.Network {
	owner := view.Owner(project, state.FeatureNetworks)
	out := []api.Network{}
	for _, e := range shown(view, view.Entities(state.EntityNetwork)) {
		if all || e.Project == owner {
			out = append(out, networkOf(view, e, nil))
		}
	}
	return out
}

// Network returns one managed network; see Pool.
func Network(view *raftstore.View, project, name, target string) (*api.Network, error) {
	e, err := networkRow(view, project, name)
	if err != nil {
		return nil, err
	}
	m, err := targeted(view, target)
	if err != nil {
		return nil, err
	}
	n := networkOf(view, e, m)
	return &n, nil
}

func networkOf(view *raftstore.View, e *state.Entity, m *state.Member) api.Network {
	status, message := statusOf(view, e, m)
	return api.Network{
		NetworkPut: api.NetworkPut{Config: configOf(view, e, m), Description: e.Description},
		Name:       e.Name, Type: e.Type, Managed: true, UsedBy: usedBy(view, e), Project: e.Project,
		Status: status, Message: message, Locations: locations(view, e),
	}
}

// Volumes lists the custom volumes on a pool that a project sees, or those of all projects.
func Volumes(view *raftstore.View, pool, project string, all bool) ([]api.StorageVolume, error) {
	if _, err := poolRow(view, pool); err != nil {
		return nil, err
	}
	owner := view.Owner(project, state.FeatureVolumes)
	out := []api.StorageVolume{}
	for _, e := range shown(view, view.Entities(state.EntityVolume)) {
		if e.Pool == pool && (all || e.Project == owner) {
			out = append(out, volumeOf(view, e))
		}
	}
	return out, nil
}

// Volume returns one custom volume.
func Volume(view *raftstore.View, pool, project, name string) (*api.StorageVolume, error) {
	_, e, err := volumeRow(view, pool, project, name)
	if err != nil {
		return nil, err
	}
	v := volumeOf(view, e)
	return &v, nil
}

func volumeOf(view *raftstore.View, e *state.Entity) api.StorageVolume {
	v := api.StorageVolume{
		StorageVolumePut: api.StorageVolumePut{Config: maps.Clone(e.Config), Description: e.Description},
		Name:             e.Name, Pool: e.Pool, Type: api.VolumeCustom, ContentType: e.Type,
		Project: e.Project, UsedBy: usedBy(view, e), CreatedAt: e.CreatedAt,
	}
	if where := locations(view, e); len(where) > 0 {
		v.Location = where[0]
	}
	return v
}

// Profiles lists the profiles that a project sees, or those of all projects.
func Profiles(view *raftstore.View, project string, all bool) []api.Profile {
	owner := view.Owner(project, state.FeatureProfiles)
	out := []api.Profile{}
	for _, p := range view.Profiles() {
		if all || p.Project == owner {
			out = append(out, profileOf(p))
		}
	}
	return out
}

// Profile returns one profile.
func Profile(view *raftstore.View, project, name string) (*api.Profile, error) {
	p, ok := view.Profile(view.Owner(project, state.FeatureProfiles), name)
	if !ok {
		return nil, api.Errorf(api.NotFound, "Fetch profile: Profile not found")
	}
	profile := profileOf(p)
	return &profile, nil
}

func profileOf(p *state.Profile) api.Profile {
	out := api.Profile{
		ProfilePut: api.ProfilePut{Config: maps.Clone(p.Config), Description: p.Description, Devices: map[string]api.ConfigMap{}},
		Name:       p.Name, Project: p.Project, UsedBy: []string{},
	}
	for name, device := range p.Devices {
		out.Devices[name] = maps.Clone(device)
	}
	return out
}

// Projects lists the projects, by name.
func Projects(view *raftstore.View) []api.Project {
	out := []api.Project{}
	for _, p := range view.Projects() {
		out = append(out, projectOf(view, p))
	}
	return out
}

// Project returns one project.
func Project(view *raftstore.View, name string) (*api.Project, error) {
	p, ok := view.Project(name)
	if !ok {
		return nil, api.Errorf(api.NotFound, "Project not found")
	}
	project := projectOf(view, p)
	return &project, nil
}

func projectOf(view *raftstore.View, p *state.Project) api.Project {
	used := view.ProjectUsedBy(p.Name)
	if used == nil {
		used = []string{}
	}
	return api.Project{
		ProjectPut: api.ProjectPut{Config: maps.Clone(p.Config), Description: p.Description}, Name: p.Name, UsedBy: used,
	}
}

// poolRow is the row of a pool.
func poolRow(view *raftstore.View, name string) (*state.Entity, error) {
	row, ok := view.Pool(name)
	if !ok {
		return nil, api.Errorf(api.NotFound, "Storage pool not found")
	}
	return row, nil
}

// networkRow is the row of a network that a project sees.
func networkRow(view *raftstore.View, project, name string) (*state.Entity, error) {
	row, ok := view.Network(view.Owner(project, state.FeatureNetworks), name)
	if !ok {
		return nil, api.Errorf(api.NotFound, "Network not found")
	}
	return row, nil
}

// volumeRow is the row of a volume that a project sees, and that of the pool it lies on.
func volumeRow(view *raftstore.View, pool, project, name string) (on, row *state.Entity, err error) {
	if on, err = poolRow(view, pool); err != nil {
		return nil, nil, err
	}
	row, ok := view.Volume(pool, view.Owner(project, state.FeatureVolumes), name)
	if !ok {
		return nil, nil, api.Errorf(api.NotFound, "Storage volume not found")
	}
	return on, row, nil
}

// shown leaves out what is on its way out, unless a member could not remove it and nothing else
// has the name: then an administrator has to know.
func shown(view *raftstore.View, all []*state.Entity) []*state.Entity {
	return slices.DeleteFunc(slices.Clone(all), func(e *state.Entity) bool {
		if !e.Deleting {
			return false
		}
		found, ok := find(view, e.Kind, e.Project, e.Pool, e.Name)
		return !ok || found.ID != e.ID
	})
}

func find(view *raftstore.View, kind, project, pool, name string) (*state.Entity, bool) {
	switch kind {
	case state.EntityPool:
		return view.Pool(name)
	case state.EntityNetwork:
		return view.Network(project, name)
	}
	return view.Volume(pool, project, name)
}

// targeted finds the member that target= names; nil for none.
func targeted(view *raftstore.View, target string) (*state.Member, error) {
	if target == "" {
		return nil, nil
	}
	m, ok := view.MemberByName(target)
	if !ok {
		return nil, api.Errorf(api.MemberNotFound, "Cluster member not found")
	}
	return m, nil
}

// configOf is the configuration that the wire shows: the cluster's keys and, for one member or a
// server that is alone, that member's.
func configOf(view *raftstore.View, e *state.Entity, m *state.Member) api.ConfigMap {
	out := api.ConfigMap{}
	maps.Copy(out, e.Config)
	id := ""
	switch members := view.Members(); {
	case m != nil:
		id = m.ID
	case !view.Cluster().Enabled && len(members) == 1:
		id = members[0].ID
	}
	maps.Copy(out, e.Members[id].Config)
	return out
}

// statusOf says how an entity is: on one member, or on all. A member that is away and will
// catch up does not make the whole pending.
func statusOf(view *raftstore.View, e *state.Entity, m *state.Member) (status, message string) {
	if m != nil {
		part, ok := e.Members[m.ID]
		if !ok {
			return api.EntityPending, ""
		}
		return partStatus(e, part), part.Reason
	}
	var messages []string
	status = api.EntityCreated
	if !e.Made {
		status = api.EntityPending
	}
	for _, member := range view.Members() {
		part, ok := e.Members[member.ID]
		if !ok {
			continue
		}
		switch own := partStatus(e, part); {
		case own == api.EntityErrored:
			status = api.EntityErrored
		case own == api.EntityPending && !member.Offline && status != api.EntityErrored:
			status = api.EntityPending
		}
		if part.Reason != "" {
			messages = append(messages, fmt.Sprintf("%s: %s", member.Name, part.Reason))
		}
	}
	return status, strings.Join(messages, "; ")
}

// partStatus is what a member's part comes to at the revision that is wanted now.
func partStatus(e *state.Entity, part state.EntityMember) string {
	if part.Revision < e.Revision && part.Status != state.EntityErrored {
		return api.EntityPending
	}
	return part.Status
}

// locations names the members that have a part, in the order in which they joined.
func locations(view *raftstore.View, e *state.Entity) []string {
	out := []string{}
	for _, m := range view.Members() {
		if _, ok := e.Members[m.ID]; ok {
			out = append(out, m.Name)
		}
	}
	return out
}

func usedBy(view *raftstore.View, e *state.Entity) []string {
	if used := view.UsedBy(e); used != nil {
		return used
	}
	return []string{}
}

// MemberConfig lists the keys that are each member's own, of the pools and networks that are made:
// what a joining server is asked. They are those that the member with that ID has set.
func MemberConfig(view *raftstore.View, memberID string) []api.ClusterMemberConfigKey {
	out := []api.ClusterMemberConfigKey{}
	for _, e := range joinable(view) {
		for key := range e.Members[memberID].Config {
			if strings.HasPrefix(key, "volatile.") || !memberSpecific(e.Kind, e.Type, key) {
				continue
			}
			out = append(out, api.ClusterMemberConfigKey{
				Entity: e.Kind, Name: e.Name, Key: key, Description: fmt.Sprintf("%q property for %s %q", key, words(e.Kind), e.Name),
			})
		}
	}
	slices.SortFunc(out, func(a, b api.ClusterMemberConfigKey) int {
		return cmp.Or(cmp.Compare(a.Entity, b.Entity), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key, b.Key))
	})
	return out
}

// JoinEntities lists the pools and networks that a joining server has to make; never nil.
func JoinEntities(view *raftstore.View) []api.JoinEntity {
	out := []api.JoinEntity{}
	for _, e := range joinable(view) {
		out = append(out, api.JoinEntity{
			ID: e.ID, Kind: e.Kind, Project: e.Project, Name: e.Name, Type: e.Type, Config: maps.Clone(e.Config),
		})
	}
	return out
}

func joinable(view *raftstore.View) []*state.Entity {
	all := slices.Concat(view.Entities(state.EntityPool), view.Entities(state.EntityNetwork))
	return slices.DeleteFunc(all, func(e *state.Entity) bool { return !e.Made || e.Deleting })
}

// memberSpecific tells whether a key is each member's own.
func memberSpecific(kind, ofType, key string) bool {
	switch kind {
	case state.EntityPool:
		return storage.MemberSpecific(ofType, key)
	case state.EntityNetwork:
		return network.MemberSpecific(ofType, key)
	}
	return false
}

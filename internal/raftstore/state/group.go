package state

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// Group is a row of a cluster group, a named set of members. Who is in it stands in the members'
// own rows, so that a member is never in a group without both. The group "default" is there without
// a row, as View.Group shows it, until it is changed.
type Group struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Config      map[string]string `json:"config,omitempty"`
}

// GroupCreate is the body of "group.create", version 1.
type GroupCreate struct {
	Group Group `json:"group"`
	// Members are the IDs of those that are in it from the start; they stay in their other groups.
	Members []string `json:"members,omitempty"`
}

// GroupUpdate is the body of "group.update", version 1: the writable part of a group.
type GroupUpdate struct {
	Group Group `json:"group"`
	// Members are the IDs of all that shall be in it.
	Members []string `json:"members,omitempty"`
	// Expect, if not empty, is View.GroupHash as the proposer saw it; PreconditionFail if it differs now.
	Expect string `json:"expect,omitempty"`
	// Strict refuses to take a member out of its only group; otherwise such a member stays in it.
	Strict bool `json:"strict,omitempty"`
}

// GroupRename is the body of "group.rename", version 1.
type GroupRename struct {
	Name    string `json:"name"`
	NewName string `json:"new_name"`
}

// GroupDelete is the body of "group.delete", version 1. It refuses with InUse what has members or
// what a project names.
type GroupDelete struct {
	Name string `json:"name"`
}

// groupTable has the groups that were made or changed.
var groupTable = &table[Group]{
	name:    "group",
	topic:   topicOther,
	indexes: []index[Group]{{name: primary, key: func(g *Group) string { return g.Name }}},
	count:   func(c *counts, _ *Group, n int) { c.groups += n },
}

// url is the group's in the API.
func (g *Group) url() string { return source("/1.0/cluster/groups", g.Name) }

// Group returns the cluster group of that name.
func (v *View) Group(name string) (*Group, bool) { return groupOf(v.txn, name) }

// Groups returns all cluster groups, by name.
func (v *View) Groups() []*Group {
	all := groupTable.list(v.txn, primary)
	if _, ok := groupTable.get(v.txn, primary, DefaultGroup); !ok {
		def, _ := groupOf(v.txn, DefaultGroup)
		all = append(all, def)
	}
	slices.SortFunc(all, func(a, b *Group) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// GroupMembers returns the active members of a group, by number.
func (v *View) GroupMembers(name string) []*Member { return groupMembers(v.txn, name) }

// GroupHash is a SHA-256 of what "group.update" writes, in hex.
func (v *View) GroupHash(name string) string { return groupHash(v.txn, name) }

// GroupUsedBy lists the URLs of the projects that are restricted to a group, in order.
func (v *View) GroupUsedBy(name string) []string { return groupUsers(v.txn, name) }

// groupOf returns a row, or the group that is always there.
func groupOf(txn *memdb.Txn, name string) (*Group, bool) {
	if g, ok := groupTable.get(txn, primary, name); ok {
		return g, true
	}
	if name != DefaultGroup {
		return nil, false
	}
	return &Group{Name: DefaultGroup, Description: "Default cluster group"}, true
}

func groupMembers(txn *memdb.Txn, name string) []*Member {
	return slices.DeleteFunc(membersIn(txn, MemberActive), func(m *Member) bool { return !slices.Contains(m.Groups, name) })
}

// groupHash has the members' names, since that is how clients say who shall be in the group.
func groupHash(txn *memdb.Txn, name string) string {
	g, ok := groupOf(txn, name)
	if !ok {
		return ""
	}
	names := []string{}
	for _, m := range groupMembers(txn, name) {
		names = append(names, m.Name)
	}
	return hashOf(g.Description, withoutEmpty(g.Config), names)
}

// restrictedGroups is the key by which a project names the groups that it may use.
const restrictedGroups = "restricted.cluster.groups"

func groupUsers(txn *memdb.Txn, name string) []string {
	var urls []string
	for _, p := range allProjects(txn) {
		for used := range strings.SplitSeq(p.Config[restrictedGroups], ",") {
			if strings.TrimSpace(used) == name {
				urls = append(urls, source("/1.0/projects", p.Name))
				break
			}
		}
	}
	return urls
}

func applyGroupCreate(tx *transaction, b *GroupCreate) (any, error) {
	g := b.Group
	if !clusterOf(tx.Txn).Enabled {
		return nil, refuse(api.NotClustered)
	}
	if err := api.ValidateGroupName(g.Name); err != nil {
		return nil, err
	}
	if _, exists := groupOf(tx.Txn, g.Name); exists {
		return nil, api.Errorf(api.Conflict, "Cluster group %q already exists", g.Name)
	}
	if tx.counts.groups >= MaxGroups {
		return nil, api.Errorf(api.TooMany, "There are %d cluster groups, which is the limit", MaxGroups).WithHint("delete those that are not needed: incus cluster group delete GROUP")
	}
	if err := checkGroup(&g); err != nil {
		return nil, err
	}
	groupTable.put(tx, &g)
	if err := tx.enterGroup(g.Name, b.Members); err != nil {
		return nil, err
	}
	tx.emitGroup(&g, "created", nil)
	return nil, nil
}

func applyGroupUpdate(tx *transaction, b *GroupUpdate) (any, error) {
	g := b.Group
	if !clusterOf(tx.Txn).Enabled {
		return nil, refuse(api.NotClustered)
	}
	if _, ok := groupOf(tx.Txn, g.Name); !ok {
		return nil, groupNotFound()
	}
	if b.Expect != "" && b.Expect != groupHash(tx.Txn, g.Name) {
		return nil, refuse(api.PreconditionFail)
	}
	if err := checkGroup(&g); err != nil {
		return nil, err
	}
	groupTable.put(tx, &g)
	if err := tx.enterGroup(g.Name, b.Members); err != nil {
		return nil, err
	}
	if err := tx.leaveGroup(&g, b); err != nil {
		return nil, err
	}
	tx.emitGroup(&g, "updated", nil)
	return nil, nil
}

// enterGroup puts members into a group.
func (tx *transaction) enterGroup(group string, ids []string) error {
	for _, id := range ids {
		m, ok := activeMember(tx.Txn, id)
		if !ok {
			return refuse(api.MemberNotFound)
		}
		if !slices.Contains(m.Groups, group) {
			tx.setGroups(m, append(slices.Clone(m.Groups), group))
		}
	}
	return nil
}

// leaveGroup takes the members out of a group that are not in the list. None is ever left without
// a group: this is where requests about several groups meet.
func (tx *transaction) leaveGroup(g *Group, b *GroupUpdate) error {
	for _, m := range groupMembers(tx.Txn, g.Name) {
		switch {
		case slices.Contains(b.Members, m.ID):
		case len(m.Groups) > 1:
			tx.setGroups(m, slices.DeleteFunc(slices.Clone(m.Groups), func(name string) bool { return name == g.Name }))
		case b.Strict:
			return api.Errorf(api.BadRequest, "Cannot remove %s from group as member needs to belong to at least one group", m.Name).
				WithHint("put it into another group first: incus cluster group add %s GROUP", m.Name)
		}
	}
	return nil
}

// setGroups writes the groups of a member: each once, in one order, so that equal sets are equal.
func (tx *transaction) setGroups(m *Member, groups []string) {
	m = m.Clone()
	m.Groups = sortedGroups(groups)
	memberTable.put(tx, m)
}

func sortedGroups(groups []string) []string {
	out := slices.Clone(groups)
	slices.Sort(out)
	return slices.Compact(out)
}

func applyGroupRename(tx *transaction, b *GroupRename) (any, error) {
	g, err := tx.ownGroup(b.Name, `The "default" group cannot be renamed`)
	if err != nil {
		return nil, err
	}
	if err := api.ValidateGroupName(b.NewName); err != nil {
		return nil, err
	}
	if _, taken := groupOf(tx.Txn, b.NewName); taken {
		return nil, api.Errorf(api.Conflict, "Name %q already in use", b.NewName)
	}
	if err := tx.checkUnused(b.Name); err != nil {
		return nil, err
	}
	groupTable.drop(tx, g)
	next := *g
	next.Name = b.NewName
	groupTable.put(tx, &next)
	for _, m := range memberTable.list(tx.Txn, "number") {
		if at := slices.Index(m.Groups, b.Name); at >= 0 {
			groups := slices.Clone(m.Groups)
			groups[at] = b.NewName
			tx.setGroups(m, groups)
		}
	}
	tx.emitGroup(&next, "renamed", map[string]any{"old_name": b.Name})
	return nil, nil
}

func applyGroupDelete(tx *transaction, b *GroupDelete) (any, error) {
	g, err := tx.ownGroup(b.Name, "The 'default' cluster group cannot be deleted")
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(memberTable.list(tx.Txn, "number"), func(m *Member) bool { return slices.Contains(m.Groups, b.Name) }) {
		return nil, api.Errorf(api.InUse, "Only empty cluster groups can be removed").
			WithHint("take its members out first: incus cluster group remove MEMBER %s", b.Name)
	}
	if err := tx.checkUnused(b.Name); err != nil {
		return nil, err
	}
	groupTable.drop(tx, g)
	tx.emitGroup(g, "deleted", nil)
	return nil, nil
}

// ownGroup is a group that somebody has made; builtIn is what to say of the one that is always there.
func (tx *transaction) ownGroup(name, builtIn string) (*Group, error) {
	if name == DefaultGroup {
		return nil, api.Errorf(api.BadRequest, "%s", builtIn).WithCode(403).WithHint("every cluster has it: new members are put in it")
	}
	g, ok := groupTable.get(tx.Txn, primary, name)
	if !ok {
		return nil, groupNotFound()
	}
	return g, nil
}

func groupNotFound() error {
	return api.Errorf(api.NotFound, "Cluster_group not found").WithHint("see incus cluster group list for the names")
}

// checkUnused refuses to take a group's name away from a project that is restricted to it.
func (tx *transaction) checkUnused(name string) error {
	users := groupUsers(tx.Txn, name)
	if len(users) == 0 {
		return nil
	}
	return api.Errorf(api.InUse, "Cluster group is currently in use").
		WithHint("%s names it in %s; take it out there first", strings.Join(users, ", "), restrictedGroups)
}

func (tx *transaction) emitGroup(g *Group, what string, context map[string]any) {
	tx.add(Event{Action: "cluster-group-" + what, Source: g.url(), Context: context})
}

// checkGroup has the rules of cluster-api.md §8.
func checkGroup(g *Group) error {
	if err := checkEntityConfig(g.Description, g.Config); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(g.Config)) {
		if strings.HasPrefix(key, "user.") {
			continue
		}
		arch, what, ok := cpuKey(key)
		if !ok {
			return api.Errorf(api.ConfigInvalid, "Invalid cluster group configuration key %q", key).
				WithHint("keys are instances.vm.cpu.ARCHITECTURE.baseline, instances.vm.cpu.ARCHITECTURE.flags and user.*")
		}
		if what == "flags" && g.Config[key] == "auto" && (arch != "x86_64" || g.Config["instances.vm.cpu.x86_64.baseline"] != "kvm64") {
			return api.Errorf(api.ConfigInvalid, "Invalid cluster group configuration key %q value", key).
				WithHint("auto goes with instances.vm.cpu.x86_64.baseline=kvm64 alone; give a list of flags, or set that")
		}
	}
	return nil
}

// architectures are those that a group may say something about.
var architectures = []string{"aarch64", "armv6l", "armv7l", "armv8l", "i686", "loongarch64", "mips", "mips64",
	"ppc", "ppc64", "ppc64le", "riscv32", "riscv64", "s390x", "x86_64"}

// cpuKey splits a key such as "instances.vm.cpu.x86_64.flags".
func cpuKey(key string) (arch, what string, ok bool) {
	rest, ok := strings.CutPrefix(key, "instances.vm.cpu.")
	if !ok {
		return "", "", false
	}
	arch, what, _ = strings.Cut(rest, ".")
	return arch, what, slices.Contains(architectures, arch) && (what == "baseline" || what == "flags")
}

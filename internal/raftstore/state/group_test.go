package state

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"incusd/api"
)

// newGroups is a cluster of node1, node2 and node3 with the group "gpu", in which are node1 and
// node2, and "old", in which is nobody. node2 is in no other group.
func newGroups(t testing.TB) *world {
	w := newCluster(t)
	w.join("id2", "node2", "fp2")
	w.join("id3", "node3", "fp3")
	w.must(KindGroupCreate, GroupCreate{Group: Group{Name: "gpu", Description: "fast ones", Config: map[string]string{"user.a": "1"}}, Members: []string{"id1", "id2"}})
	w.must(KindGroupCreate, GroupCreate{Group: Group{Name: "old"}})
	w.must(KindMemberUpdate, updateBody(func(b *MemberUpdate) { b.ID, b.Groups = "id2", []string{"gpu"} }))
	return w
}

// memberships writes who is in which group.
func (w *world) memberships() string {
	var all []string
	for _, m := range w.s.View().Members() {
		all = append(all, m.Name+"="+strings.Join(m.Groups, "+"))
	}
	return strings.Join(all, " ")
}

func TestTheDefaultGroupIsThereWithoutARow(t *testing.T) {
	w := newCluster(t)
	g, ok := w.s.View().Group("default")
	if !ok || g.Description != "Default cluster group" || len(w.s.View().Groups()) != 1 || len(w.s.View().GroupMembers("default")) != 1 {
		t.Fatalf("the group %+v, all %v", g, w.s.View().Groups())
	}
	w.must(KindGroupUpdate, GroupUpdate{Group: Group{Name: "default", Description: "mine"}, Members: []string{"id1"}})
	w.happened("cluster-group-updated /1.0/cluster/groups/default")
	if g, _ := w.s.View().Group("default"); g.Description != "mine" || len(w.s.View().Groups()) != 1 {
		t.Errorf("the group %+v, all %v", g, w.s.View().Groups())
	}
	if v := w.s.View(); v.counts.groups != 1 {
		t.Errorf("%d rows", v.counts.groups)
	}
}

// A snapshot from before there were groups opens, and its members are in the default one.
func TestSnapshotsWithoutGroupsOpen(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "snapshot", "v1.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte(`{"table":"group"`)) {
		t.Fatal("this snapshot has groups")
	}
	w := newWorld(t)
	if err := w.s.Restore(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	w.index, w.asked = w.s.View().Index(), 1000
	w.must(KindGroupCreate, GroupCreate{Group: Group{Name: "gpu"}, Members: []string{"id1"}})
	if got := w.memberships(); got != "node1=default+gpu node2=default" {
		t.Error(got)
	}
}

func TestGroupsSurviveASnapshot(t *testing.T) {
	w := newGroups(t)
	data := persist(t, w.s.View())
	s := New()
	if err := s.Restore(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if got := persist(t, s.View()); !bytes.Equal(got, data) || s.View().counts != w.s.View().counts {
		t.Errorf("restored\n%s\nwas\n%s", got, data)
	}
}

func TestGroupCommands(t *testing.T) {
	const before = "node1=default+gpu node2=gpu node3=default"
	update := func(name string, strict bool, members ...string) GroupUpdate {
		return GroupUpdate{Group: Group{Name: name}, Members: members, Strict: strict}
	}
	config := func(pairs ...string) GroupUpdate {
		b := update("gpu", false, "id1", "id2")
		b.Group.Config = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			b.Group.Config[pairs[i]] = pairs[i+1]
		}
		return b
	}
	tests := []struct {
		name   string
		kind   string
		body   any
		reason api.Reason
		text   string
		after  string // memberships
		event  string
	}{
		{name: "create", kind: KindGroupCreate, body: GroupCreate{Group: Group{Name: "new"}, Members: []string{"id3", "id3"}},
			after: "node1=default+gpu node2=gpu node3=default+new", event: "created /1.0/cluster/groups/new"},
		{name: "create twice", kind: KindGroupCreate, body: GroupCreate{Group: Group{Name: "gpu"}}, reason: api.Conflict, text: `Cluster group "gpu" already exists`},
		{name: "create the one that is always there", kind: KindGroupCreate, body: GroupCreate{Group: Group{Name: "default"}}, reason: api.Conflict, text: `Cluster group "default" already exists`},
		{name: "create with a bad name", kind: KindGroupCreate, body: GroupCreate{Group: Group{Name: "a b"}}, reason: api.NameInvalid, text: "Invalid cluster group name: Name cannot contain white space"},
		{name: "create with a stranger", kind: KindGroupCreate, body: GroupCreate{Group: Group{Name: "new"}, Members: []string{"id1", "id9"}}, reason: api.MemberNotFound, text: "Cluster member not found"},

		{name: "put one in", kind: KindGroupUpdate, body: update("gpu", false, "id1", "id2", "id3"),
			after: "node1=default+gpu node2=gpu node3=default+gpu", event: "updated /1.0/cluster/groups/gpu"},
		{name: "take one out", kind: KindGroupUpdate, body: update("gpu", true, "id2"),
			after: "node1=default node2=gpu node3=default", event: "updated /1.0/cluster/groups/gpu"},
		{name: "whose only group it is stays", kind: KindGroupUpdate, body: update("gpu", false),
			after: "node1=default node2=gpu node3=default", event: "updated /1.0/cluster/groups/gpu"},
		{name: "whose only group it is cannot be taken out", kind: KindGroupUpdate, body: update("gpu", true), reason: api.BadRequest,
			text: "Cannot remove node2 from group as member needs to belong to at least one group"},
		{name: "empty the default one", kind: KindGroupUpdate, body: update("default", false),
			after: "node1=gpu node2=gpu node3=default", event: "updated /1.0/cluster/groups/default"},
		{name: "update what is not there", kind: KindGroupUpdate, body: update("new", false), reason: api.NotFound, text: "Cluster_group not found"},
		{name: "update with a stranger", kind: KindGroupUpdate, body: update("gpu", false, "id9"), reason: api.MemberNotFound, text: "Cluster member not found"},
		{name: "update of something else", kind: KindGroupUpdate, body: GroupUpdate{Group: Group{Name: "gpu"}, Expect: "x"}, reason: api.PreconditionFail, text: "ETag doesn't match"},
		{name: "unknown key", kind: KindGroupUpdate, body: config("scheduler.instance", "all"), reason: api.ConfigInvalid, text: `Invalid cluster group configuration key "scheduler.instance"`},
		{name: "unknown architecture", kind: KindGroupUpdate, body: config("instances.vm.cpu.z80.baseline", "x"), reason: api.ConfigInvalid, text: `Invalid cluster group configuration key "instances.vm.cpu.z80.baseline"`},
		{name: "unknown part", kind: KindGroupUpdate, body: config("instances.vm.cpu.x86_64.flags.more", "x"), reason: api.ConfigInvalid, text: `Invalid cluster group configuration key "instances.vm.cpu.x86_64.flags.more"`},
		{name: "flags", kind: KindGroupUpdate, body: config("instances.vm.cpu.x86_64.baseline", "EPYC-v2", "instances.vm.cpu.x86_64.flags", "aes,-avx", "user.x", "auto"),
			after: before, event: "updated /1.0/cluster/groups/gpu"},
		{name: "automatic flags", kind: KindGroupUpdate, body: config("instances.vm.cpu.x86_64.baseline", "kvm64", "instances.vm.cpu.x86_64.flags", "auto"),
			after: before, event: "updated /1.0/cluster/groups/gpu"},
		{name: "automatic flags of another baseline", kind: KindGroupUpdate, body: config("instances.vm.cpu.x86_64.flags", "auto"), reason: api.ConfigInvalid,
			text: `Invalid cluster group configuration key "instances.vm.cpu.x86_64.flags" value`},
		{name: "automatic flags of another architecture", kind: KindGroupUpdate, body: config("instances.vm.cpu.x86_64.baseline", "kvm64", "instances.vm.cpu.aarch64.flags", "auto"),
			reason: api.ConfigInvalid, text: `Invalid cluster group configuration key "instances.vm.cpu.aarch64.flags" value`},
		{name: "too long", kind: KindGroupUpdate, body: GroupUpdate{Group: Group{Name: "gpu", Description: strings.Repeat("x", MaxConfigValue+1)}}, reason: api.TooLarge,
			text: "The description has 65537 bytes, the limit is 65536"},

		{name: "rename", kind: KindGroupRename, body: GroupRename{Name: "gpu", NewName: "zoo"},
			after: "node1=default+zoo node2=zoo node3=default", event: "renamed /1.0/cluster/groups/zoo"},
		{name: "rename to before others", kind: KindGroupRename, body: GroupRename{Name: "gpu", NewName: "a"},
			after: "node1=a+default node2=a node3=default", event: "renamed /1.0/cluster/groups/a"},
		{name: "rename the default one", kind: KindGroupRename, body: GroupRename{Name: "default", NewName: "new"}, reason: api.BadRequest, text: `The "default" group cannot be renamed`},
		{name: "rename to the default one", kind: KindGroupRename, body: GroupRename{Name: "gpu", NewName: "default"}, reason: api.Conflict, text: `Name "default" already in use`},
		{name: "rename to what is taken", kind: KindGroupRename, body: GroupRename{Name: "gpu", NewName: "old"}, reason: api.Conflict, text: `Name "old" already in use`},
		{name: "rename to a bad name", kind: KindGroupRename, body: GroupRename{Name: "gpu", NewName: "a/b"}, reason: api.NameInvalid, text: "Invalid cluster group name: Name contains invalid character '/'"},
		{name: "rename what is not there", kind: KindGroupRename, body: GroupRename{Name: "new", NewName: "a"}, reason: api.NotFound, text: "Cluster_group not found"},

		{name: "delete", kind: KindGroupDelete, body: GroupDelete{Name: "old"}, after: before, event: "deleted /1.0/cluster/groups/old"},
		{name: "delete what has members", kind: KindGroupDelete, body: GroupDelete{Name: "gpu"}, reason: api.InUse, text: "Only empty cluster groups can be removed"},
		{name: "delete the default one", kind: KindGroupDelete, body: GroupDelete{Name: "default"}, reason: api.BadRequest, text: "The 'default' cluster group cannot be deleted"},
		{name: "delete what is not there", kind: KindGroupDelete, body: GroupDelete{Name: "new"}, reason: api.NotFound, text: "Cluster_group not found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newGroups(t)
			was := content(t, w.s.View())
			if tt.reason != "" {
				w.says(tt.reason, tt.text, tt.kind, tt.body)
				w.happened()
				if content(t, w.s.View()) != was {
					t.Error("the refusal changed the state")
				}
				return
			}
			w.must(tt.kind, tt.body)
			w.happened("cluster-group-" + tt.event)
			if got := w.memberships(); got != tt.after {
				t.Errorf("members are in %s, want %s", got, tt.after)
			}
		})
	}
}

func TestBuiltInGroupIsRefusedAsForbidden(t *testing.T) {
	w := newGroups(t)
	for kind, body := range map[string]any{KindGroupRename: GroupRename{Name: "default", NewName: "x"}, KindGroupDelete: GroupDelete{Name: "default"}} {
		if err := w.refused(api.BadRequest, kind, body); err.Status() != 403 || err.NextStep() == "" {
			t.Errorf("%s: status %d, next step %q", kind, err.Status(), err.NextStep())
		}
	}
}

func TestGroupThatAProjectNamesKeepsItsName(t *testing.T) {
	w := newGroups(t)
	project := func(groups string) {
		p, _ := w.s.View().Project("web")
		w.must(KindProjectUpdate, ProjectUpdate{Project: Project{Name: "web", Config: map[string]string{"restricted.cluster.groups": groups}}, Expect: p.Hash()})
	}
	w.must(KindProjectCreate, ProjectCreate{Project: Project{Name: "web"}})
	project("default, old,gpu")
	for _, g := range []string{"default", "gpu", "old"} {
		if got := w.s.View().GroupUsedBy(g); !slices.Equal(got, []string{"/1.0/projects/web"}) {
			t.Errorf("%s is used by %v", g, got)
		}
	}
	w.says(api.InUse, "Cluster group is currently in use", KindGroupDelete, GroupDelete{Name: "old"})
	w.says(api.InUse, "Cluster group is currently in use", KindGroupRename, GroupRename{Name: "old", NewName: "older"})
	project("older,gpu")
	if got := w.s.View().GroupUsedBy("old"); len(got) != 0 {
		t.Errorf("used by %v", got)
	}
	w.must(KindGroupDelete, GroupDelete{Name: "old"})
}

// Of two requests about different groups that together would leave a member without any, the
// second is refused, or keeps the member.
func TestTwoRequestsDoNotLeaveAMemberWithoutAGroup(t *testing.T) {
	w := newGroups(t)
	w.must(KindGroupUpdate, GroupUpdate{Group: Group{Name: "default"}, Members: []string{"id3"}, Strict: true})
	w.refused(api.BadRequest, KindGroupUpdate, GroupUpdate{Group: Group{Name: "gpu"}, Members: []string{"id2"}, Strict: true})
	w.must(KindGroupUpdate, GroupUpdate{Group: Group{Name: "gpu"}})
	if got := w.memberships(); got != "node1=gpu node2=gpu node3=default" {
		t.Error(got)
	}
	w.refused(api.InUse, KindGroupDelete, GroupDelete{Name: "gpu"})
	w.must(KindGroupDelete, GroupDelete{Name: "old"})
	w.refused(api.NotFound, KindMemberUpdate, updateBody(func(b *MemberUpdate) { b.Groups = []string{"old"} }))
}

func TestGroupHashFollowsWhatIsWritten(t *testing.T) {
	w := newGroups(t)
	seen := map[string]string{}
	note := func(what string) {
		t.Helper()
		hash := w.s.View().GroupHash("gpu")
		if other, ok := seen[hash]; ok || hash == "" {
			t.Errorf("%s: the hash %q is that of %q", what, hash, other)
		}
		seen[hash] = what
	}
	note("as made")
	w.must(KindGroupUpdate, GroupUpdate{Group: Group{Name: "gpu"}, Members: []string{"id1", "id2"}, Expect: w.s.View().GroupHash("gpu")})
	note("description and configuration")
	w.must(KindMemberRename, MemberRename{ID: "id2", Expect: "node2", Name: "other"})
	note("a member's name")
	w.must(KindMemberUpdate, updateBody(func(b *MemberUpdate) { b.ID, b.Groups = "id3", []string{"gpu"} }))
	note("a member that chose it")
	if w.s.View().GroupHash("nope") != "" {
		t.Error("a hash of nothing")
	}
}

func TestGroupsAreBounded(t *testing.T) {
	w := newCluster(t)
	for i := range MaxGroups {
		w.must(KindGroupCreate, GroupCreate{Group: Group{Name: fmt.Sprintf("g%d", i)}})
	}
	w.refused(api.TooMany, KindGroupCreate, GroupCreate{Group: Group{Name: "more"}})
	w.must(KindGroupDelete, GroupDelete{Name: "g0"})
	w.must(KindGroupCreate, GroupCreate{Group: Group{Name: "more"}})
}

func TestGroupsNeedACluster(t *testing.T) {
	w := newWorld(t)
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
	w.refused(api.NotClustered, KindGroupCreate, GroupCreate{Group: Group{Name: "gpu"}})
	w.refused(api.NotClustered, KindGroupUpdate, GroupUpdate{Group: Group{Name: "default"}})
	w.refused(api.NotClustered, KindMemberRename, MemberRename{ID: "id1", Expect: "none", Name: "node1"})
}

func TestMemberUpdateTakesGroupsThatAreThere(t *testing.T) {
	w := newGroups(t)
	w.must(KindMemberUpdate, updateBody(func(b *MemberUpdate) { b.Groups = []string{"old", "gpu", "old"} }))
	if got := w.memberships(); got != "node1=gpu+old node2=gpu node3=default" {
		t.Error(got)
	}
}

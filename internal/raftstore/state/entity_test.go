package state

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"incusd/api"
)

// entity decodes the row that a command answered with.
func (w *world) entity(value json.RawMessage) *Entity {
	w.t.Helper()
	e := new(Entity)
	if err := json.Unmarshal(value, e); err != nil {
		w.t.Fatal(err)
	}
	return e
}

// three is a cluster of three members, with the IDs id1 to id3.
func three(t *testing.T) *world {
	t.Helper()
	w := newCluster(t)
	w.grow("id2", "node2")
	w.grow("id3", "node3")
	return w
}

// grow lets a server join under a name.
func (w *world) grow(id, name string) {
	w.t.Helper()
	w.must(KindTokenGrant, TokenGrant{
		Token:       Token{Hash: "hash-" + id, Secret: "s", Name: name, Operation: "op-" + id, Addresses: []string{"a"}},
		Fingerprint: "fp-" + id, Certificate: "cert-" + id,
	})
	w.must(KindMemberAdmit, MemberAdmit{ID: id, Fingerprint: "fp-" + id, Name: name, Address: "10.0.9." + id[2:] + ":8443", Architecture: "x86_64", CommandVersion: 1})
	w.must(KindMemberActivate, MemberActivate{ID: id})
}

func definition(pool, member string) EntityDefine {
	return EntityDefine{ID: "e-" + pool, Kind: EntityPool, Name: pool, Type: "dir", MemberID: member, Config: map[string]string{"source": "/" + member}}
}

func (w *world) made(id, member string, revision uint64) {
	w.t.Helper()
	w.must(KindEntityReport, EntityReport{ID: id, MemberID: member, Revision: revision, Status: EntityCreated})
}

func TestPoolIsMadeInTwoSteps(t *testing.T) {
	t.Parallel()
	w := three(t)
	create := EntityCreate{ID: "x", Kind: EntityPool, Name: "local", Type: "dir", Config: map[string]string{"user.a": "b"}}
	w.says(api.BadRequest, "Pool not pending on any node (use --target <node> first)", KindEntityCreate, create)
	w.must(KindEntityDefine, definition("local", "id1"))
	w.says(api.BadRequest, `The storage pool already defined on member "node1"`, KindEntityDefine, definition("local", "id1"))
	other := definition("local", "id2")
	other.Type = "zfs"
	w.says(api.Conflict, "Storage pool already exists with a different driver", KindEntityDefine, other)
	w.says(api.BadRequest, "Pool not defined on nodes: node2, node3", KindEntityCreate, create)
	w.must(KindEntityDefine, definition("local", "id3"))
	w.must(KindEntityDefine, definition("local", "id2"))
	e := w.entity(w.must(KindEntityCreate, create))
	if e.ID != "e-local" || !e.Made || e.Config["user.a"] != "b" || len(e.Members) != 3 || e.Members["id2"].Config["source"] != "/id2" {
		t.Errorf("%+v", e)
	}
	if len(w.events) != 1 || w.events[0].Action != "storage-pool-created" || w.events[0].Source != "/1.0/storage-pools/local" {
		t.Errorf("%+v", w.events)
	}
	w.says(api.Conflict, "The storage pool is already created", KindEntityCreate, create)
	w.says(api.Conflict, "Storage pool is not in pending state", KindEntityDefine, definition("local", "id1"))
}

func TestOnlyMemberNeedsOneStep(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	create := EntityCreate{ID: "e1", Kind: EntityNetwork, Project: "default", Name: "br0", Type: "bridge", MemberID: "id1", MemberConfig: map[string]string{"parent": "eth0"}}
	e := w.entity(w.must(KindEntityCreate, create))
	if e.Members["id1"].Status != EntityPending || e.Members["id1"].Config["parent"] != "eth0" {
		t.Errorf("%+v", e)
	}
	create.ID = "e2"
	w.says(api.Conflict, `Network "br0" already exists`, KindEntityCreate, create)
	create.Name, create.Project = "br1", "nowhere"
	w.says(api.NotFound, "Project not found", KindEntityCreate, create)
}

func TestFailedMembersTryAgainWithoutTouchingTheOthers(t *testing.T) {
	t.Parallel()
	w := three(t)
	for _, id := range []string{"id1", "id2", "id3"} {
		w.must(KindEntityDefine, definition("local", id))
	}
	create := EntityCreate{Kind: EntityPool, Name: "local", Type: "dir"}
	w.must(KindEntityCreate, create)
	w.made("e-local", "id1", 1)
	w.must(KindEntityReport, EntityReport{ID: "e-local", MemberID: "id2", Revision: 1, Status: EntityErrored, Reason: "full", Config: map[string]string{"size": "1GiB"}})
	withConfig := create
	withConfig.Config = map[string]string{"user.a": "b"}
	w.says(api.BadRequest, "Storage pool already partially created. Please do not specify any global config when re-running create", KindEntityCreate, withConfig)
	e := w.entity(w.must(KindEntityCreate, create))
	if p := e.Members["id2"]; p.Status != EntityPending || p.Reason != "" || p.Revision != 0 || p.Config["size"] != "1GiB" {
		t.Errorf("%+v", p)
	}
	if p := e.Members["id1"]; p.Status != EntityCreated || p.Revision != 1 {
		t.Errorf("%+v", p)
	}
	if len(w.events) != 0 {
		t.Errorf("another try is told as %+v", w.events)
	}
}

func TestReportsOfThePastSayNothingAboutThePresent(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	w.must(KindEntityCreate, EntityCreate{ID: "e1", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id1"})
	e, _ := w.s.View().Entity("e1")
	w.must(KindEntityUpdate, EntityUpdate{ID: "e1", Expect: e.Hash(), Config: map[string]string{"user.a": "b"}})
	w.made("e1", "id1", 2)
	w.must(KindEntityReport, EntityReport{ID: "e1", MemberID: "id1", Revision: 1, Status: EntityErrored, Reason: "late"})
	w.must(KindEntityReport, EntityReport{ID: "e1", MemberID: "id1", Revision: 9, Status: EntityErrored, Reason: "of what never was"})
	w.must(KindEntityReport, EntityReport{ID: "e1", MemberID: "id9", Revision: 2, Status: EntityErrored, Reason: "of a stranger"})
	w.must(KindEntityReport, EntityReport{ID: "gone", MemberID: "id1", Revision: 1, Status: EntityCreated})
	w.refused(api.Conflict, KindEntityReport, EntityReport{ID: "e1", MemberID: "id1", Revision: 2, Status: EntityCreated, Gone: true})
	if e, _ := w.s.View().Entity("e1"); len(e.Members) != 1 || e.Members["id1"].Status != EntityCreated || e.Members["id1"].Revision != 2 {
		t.Errorf("%+v", e)
	}
}

func TestUpdateIsForWhatItsAuthorSaw(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	w.must(KindEntityCreate, EntityCreate{ID: "e1", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id1"})
	e, _ := w.s.View().Entity("e1")
	update := EntityUpdate{ID: "e1", Expect: e.Hash(), Description: "d"}
	if next := w.entity(w.must(KindEntityUpdate, update)); next.Revision != 1 {
		t.Errorf("a description gives members work: revision %d", next.Revision)
	}
	w.refused(api.PreconditionFail, KindEntityUpdate, update)
	e, _ = w.s.View().Entity("e1")
	next := w.entity(w.must(KindEntityUpdate, EntityUpdate{ID: "e1", Expect: e.Hash(), Members: map[string]map[string]string{"id1": {"size": "2GiB"}}}))
	if next.Revision != 2 || next.Members["id1"].Config["size"] != "2GiB" {
		t.Errorf("%+v", next)
	}
	w.refused(api.MemberNotFound, KindEntityUpdate, EntityUpdate{ID: "e1", Expect: next.Hash(), Members: map[string]map[string]string{"id9": {}}})
}

func TestDeletedEntityFreesItsNameAndGoesWithTheLastReport(t *testing.T) {
	t.Parallel()
	w := three(t)
	for _, id := range []string{"id1", "id2", "id3"} {
		w.must(KindEntityDefine, definition("local", id))
	}
	w.must(KindEntityCreate, EntityCreate{Kind: EntityPool, Name: "local", Type: "dir"})
	w.must(KindEntityDelete, EntityDelete{ID: "e-local"})
	if _, ok := w.s.View().Pool("local"); ok {
		t.Error("it is still shown")
	}
	gone := func(id, member string) {
		w.must(KindEntityReport, EntityReport{ID: id, MemberID: member, Revision: 2, Status: EntityPending, Gone: true})
	}
	gone("e-local", "id1")
	w.must(KindEntityReport, EntityReport{ID: "e-local", MemberID: "id2", Revision: 2, Status: EntityErrored, Reason: "busy"})
	if e, ok := w.s.View().Pool("local"); !ok || e.Members["id2"].Reason != "busy" {
		t.Error("what could not be removed is not shown")
	}
	again := definition("local", "id1")
	again.ID = "e-new"
	w.must(KindEntityDefine, again)
	if e, _ := w.s.View().Pool("local"); e.ID != "e-new" {
		t.Error("the old one hides the new one")
	}
	w.must(KindEntityDelete, EntityDelete{ID: "e-local"})
	if e, _ := w.s.View().Entity("e-local"); e.Members["id2"].Status != EntityPending {
		t.Errorf("no other try: %+v", e)
	}
	gone("e-local", "id2")
	gone("e-local", "id3")
	if _, ok := w.s.View().Entity("e-local"); ok {
		t.Error("the row stays")
	}
	w.must(KindEntityDelete, EntityDelete{ID: "e-new"})
	if _, ok := w.s.View().Entity("e-new"); ok {
		t.Error("what was only defined waits for reports")
	}
}

func TestWhatIsUsedCannotBeDeleted(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	w.must(KindEntityCreate, EntityCreate{ID: "p", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id1"})
	w.must(KindEntityCreate, EntityCreate{ID: "n", Kind: EntityNetwork, Project: "default", Name: "br0", Type: "bridge", MemberID: "id1"})
	w.must(KindProfileCreate, ProfileCreate{Profile: Profile{Project: "default", Name: "a", Devices: map[string]map[string]string{
		"root": {"type": "disk", "path": "/", "pool": "local"}, "eth0": {"type": "nic", "nictype": "bridged", "parent": "br0"},
	}}})
	w.says(api.InUse, "The storage pool is currently in use", KindEntityDelete, EntityDelete{ID: "p"})
	w.says(api.InUse, "The network is currently in use", KindEntityDelete, EntityDelete{ID: "n"})
	w.must(KindProfileDelete, ProfileDelete{Project: "default", Name: "a"})
	w.must(KindEntityCreate, EntityCreate{ID: "v", Kind: EntityVolume, Project: "default", Pool: "local", Name: "data", Type: "filesystem", MemberID: "id1"})
	if used := strings.Join(w.s.View().UsedBy(w.pool("local")), " "); used != "/1.0/storage-pools/local/volumes/custom/data" {
		t.Errorf("used by %s", used)
	}
	w.says(api.InUse, "The storage pool is currently in use", KindEntityDelete, EntityDelete{ID: "p"})
	w.must(KindEntityDelete, EntityDelete{ID: "v"})
	w.must(KindEntityDelete, EntityDelete{ID: "p"})
}

func (w *world) pool(name string) *Entity {
	w.t.Helper()
	e, ok := w.s.View().Pool(name)
	if !ok {
		w.t.Fatalf("no pool %s", name)
	}
	return e
}

func TestNewMemberHasAPartOfEachEntity(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	for _, name := range []string{"a", "b", "c"} {
		w.must(KindEntityCreate, EntityCreate{ID: name, Kind: EntityPool, Name: name, Type: "dir", MemberID: "id1"})
	}
	w.must(KindEntityDelete, EntityDelete{ID: "c"})
	w.must(KindTokenGrant, TokenGrant{Token: Token{Hash: "h", Name: "node2", Operation: "o", Addresses: []string{"a"}}, Fingerprint: "fp2", Certificate: "c2"})
	w.must(KindMemberAdmit, MemberAdmit{ID: "id2", Fingerprint: "fp2", Name: "node2", Address: "10.0.0.2:8443", CommandVersion: 1})
	w.must(KindMemberActivate, MemberActivate{ID: "id2", Entities: map[string]EntityMember{
		"a": {Status: EntityCreated, Revision: 1, Config: map[string]string{"source": "/x"}}, "none": {Status: EntityCreated},
	}})
	if p := w.pool("a").Members["id2"]; p.Status != EntityCreated || p.Config["source"] != "/x" {
		t.Errorf("%+v", p)
	}
	if p := w.pool("b").Members["id2"]; p.Status != EntityPending || p.Revision != 0 {
		t.Errorf("%+v", p)
	}
	if e, _ := w.s.View().Entity("c"); len(e.Members) != 1 {
		t.Errorf("a new member has to remove what it never had: %v", slices.Sorted(maps.Keys(e.Members)))
	}
}

func TestBuiltInObjectsAreThereWithoutRows(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	v := w.s.View()
	if p, ok := v.Project("default"); !ok || !p.Enabled("features.networks") || p.Description != "Default Incus project" {
		t.Errorf("%+v", p)
	}
	if p, ok := v.Profile("default", "default"); !ok || p.Description != "Default Incus profile" {
		t.Errorf("%+v", p)
	}
	w.must(KindProjectCreate, ProjectCreate{Project: Project{Name: "web", Config: map[string]string{"features.profiles": "true"}}})
	w.must(KindProjectCreate, ProjectCreate{Project: Project{Name: "bare"}})
	v = w.s.View()
	if p, ok := v.Profile("web", "default"); !ok || p.Description != "Default Incus profile for project web" {
		t.Errorf("%+v", p)
	}
	if _, ok := v.Profile("bare", "default"); ok || v.Owner("bare", "features.profiles") != "default" || v.Owner("web", "features.profiles") != "web" {
		t.Error("a project without profiles of its own has one")
	}
	p, _ := v.Profile("default", "default")
	changed := Profile{Project: "default", Name: "default", Description: "mine"}
	w.must(KindProfileUpdate, ProfileUpdate{Profile: changed, Expect: p.Hash()})
	w.refused(api.PreconditionFail, KindProfileUpdate, ProfileUpdate{Profile: changed, Expect: p.Hash()})
	if p, _ := w.s.View().Profile("default", "default"); p.Description != "mine" {
		t.Errorf("%+v", p)
	}
	w.says(api.BadRequest, `The "default" profile cannot be renamed`, KindProfileRename, ProfileRename{Project: "default", Name: "default", NewName: "x"})
}

func TestOnlyEmptyProjectsGo(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	features := map[string]string{"features.profiles": "true"}
	w.must(KindProjectCreate, ProjectCreate{Project: Project{Name: "web", Config: features}})
	w.must(KindProfileCreate, ProfileCreate{Profile: Profile{Project: "web", Name: "p"}})
	w.says(api.InUse, "Only empty projects can be removed.", KindProjectDelete, ProjectDelete{Name: "web"})
	w.says(api.InUse, "Only empty projects can be renamed", KindProjectRename, ProjectRename{Name: "web", NewName: "net"})
	row, _ := w.s.View().Project("web")
	w.says(api.BadRequest, `Project feature "features.profiles" can only be changed on empty projects`, KindProjectUpdate, ProjectUpdate{Project: Project{Name: "web"}, Expect: row.Hash()})
	w.must(KindProfileDelete, ProfileDelete{Project: "web", Name: "p"})
	w.must(KindProjectRename, ProjectRename{Name: "web", NewName: "net"})
	w.must(KindProjectDelete, ProjectDelete{Name: "net"})
	def, _ := w.s.View().Project("default")
	w.says(api.BadRequest, "You can't change the features of the default project", KindProjectUpdate, ProjectUpdate{Project: Project{Name: "default"}, Expect: def.Hash()})
}

func TestProfileNeedsThePoolsAndNetworksOfItsDevices(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	with := func(device map[string]string) ProfileCreate {
		return ProfileCreate{Profile: Profile{Project: "default", Name: "p", Devices: map[string]map[string]string{"d": device}}}
	}
	w.says(api.BadRequest, `Device validation failed for "d": The storage pool "no" doesn't exist`, KindProfileCreate, with(map[string]string{"type": "disk", "pool": "no"}))
	w.says(api.BadRequest, `Device validation failed for "d": The network "no" doesn't exist`, KindProfileCreate, with(map[string]string{"type": "nic", "network": "no"}))
}

func TestAttemptsAtThePasswordAreCountedInTheWholeCluster(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	try := func(source string) *Result {
		r := w.do(KindPasswordAttempt, PasswordAttempt{Source: source})
		return &r
	}
	for range sourceAttempts {
		if r := try("192.0.2.1"); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	w.refused(api.TooMany, KindPasswordAttempt, PasswordAttempt{Source: "192.0.2.1"})
	if w.s.View().AttemptsLeft("192.0.2.1", w.now) || !w.s.View().AttemptsLeft("192.0.2.2", w.now) {
		t.Error("readers are told otherwise")
	}
	w.now = w.now.Add(sourceRefill)
	if r := try("192.0.2.1"); r.Err != nil {
		t.Errorf("a minute later: %v", r.Err)
	}
	w.refused(api.TooMany, KindPasswordAttempt, PasswordAttempt{Source: "192.0.2.1"})
	w.must(KindPasswordAttempt, PasswordAttempt{Source: "192.0.2.1", Refund: true})
	if r := try("192.0.2.1"); r.Err != nil {
		t.Errorf("after a right one: %v", r.Err)
	}
	w.now = w.now.Add(-24 * 365 * sourceRefill) // the clock jumps back
	w.refused(api.TooMany, KindPasswordAttempt, PasswordAttempt{Source: "192.0.2.1"})
	w.now = w.now.Add(sourceRefill)
	if r := try("192.0.2.1"); r.Err != nil {
		t.Errorf("a jump of the clock locks out: %v", r.Err)
	}
	taken := 0
	for n := range 100 {
		if r := try("198.51.100." + string(rune('a'+n%50))); r.Err == nil {
			taken++
		}
	}
	if taken > allAttempts {
		t.Errorf("%d attempts from many addresses", taken)
	}
}

func TestPasswordGrantsTheTokenThatIsThere(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	w.must(KindTokenIssue, TokenIssue{Token: Token{Hash: "admin", Secret: "s", Name: "node2", Operation: "o1", Addresses: []string{"a"}}})
	grant := func(hash, op, fingerprint string) TokenGrant {
		return TokenGrant{Token: Token{Hash: hash, Name: "node2", Operation: op, Addresses: []string{"a"}}, Fingerprint: fingerprint, Certificate: "c"}
	}
	w.must(KindTokenGrant, grant("h1", "o2", "fp2"))
	if tok, ok := w.s.View().TokenByClaim("fp2"); !ok || tok.Hash != "admin" {
		t.Errorf("%+v", tok)
	}
	w.must(KindTokenGrant, grant("h2", "o3", "fp2"))
	w.refused(api.TokenClaimed, KindTokenGrant, grant("h3", "o4", "fp3"))
	w.refused(api.NameTaken, KindTokenGrant, TokenGrant{Token: Token{Hash: "h4", Name: "node1", Operation: "o5"}, Fingerprint: "fp4", Certificate: "c"})
}

func TestOldFailureDoesNotBringADeletedNameBack(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	w.must(KindEntityCreate, EntityCreate{ID: "e1", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id1"})
	w.must(KindEntityDelete, EntityDelete{ID: "e1"})
	late := EntityReport{ID: "e1", MemberID: "id1", Revision: 1, Status: EntityErrored, Reason: "could not be made"}
	w.must(KindEntityReport, late)
	if e, ok := w.s.View().Pool("local"); ok {
		t.Errorf("it is shown again: %+v", e)
	}
	late.Revision = 2
	w.must(KindEntityReport, late)
	if _, ok := w.s.View().Pool("local"); !ok {
		t.Error("that it cannot be removed is not shown")
	}
}

func TestLoneServerAddsToWhatWasDefinedForIt(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	w.must(KindEntityDefine, definition("local", "id1"))
	create := EntityCreate{ID: "x", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id1", MemberConfig: map[string]string{"size": "2GiB"}}
	e := w.entity(w.must(KindEntityCreate, create))
	if own := e.Members["id1"].Config; e.ID != "e-local" || !e.Made || own["source"] != "/id1" || own["size"] != "2GiB" {
		t.Errorf("%+v", e)
	}
	w.must(KindEntityDefine, definition("other", "id1"))
	create.Name, create.MemberConfig = "other", map[string]string{"source": "/srv"}
	if e := w.entity(w.must(KindEntityCreate, create)); e.Members["id1"].Config["source"] != "/srv" {
		t.Errorf("what was said last does not count: %+v", e)
	}
}

func TestEntityStaysSmallEnoughForASnapshot(t *testing.T) {
	t.Parallel()
	w := three(t)
	long := strings.Repeat("x", MaxConfigValue)
	many := map[string]string{"user.a": long, "user.b": long, "user.c": long, "user.d": long}
	tooLong := definition("local", "id1")
	tooLong.Config = map[string]string{"source": long}
	w.says(api.ConfigInvalid, "The keys of one member have 65542 bytes, the limit is 16384", KindEntityDefine, tooLong)
	for _, id := range []string{"id1", "id2", "id3"} {
		w.must(KindEntityDefine, definition("local", id))
	}
	create := EntityCreate{Kind: EntityPool, Name: "local", Type: "dir", Config: many}
	w.says(api.ConfigInvalid, "The description and the configuration have 262168 bytes, the limit is 262144", KindEntityCreate, create)
	create.Config = nil
	e := w.entity(w.must(KindEntityCreate, create))
	w.refused(api.ConfigInvalid, KindEntityUpdate, EntityUpdate{ID: e.ID, Expect: e.Hash(), Config: many})
	w.refused(api.ConfigInvalid, KindEntityUpdate, EntityUpdate{ID: e.ID, Expect: e.Hash(), Members: map[string]map[string]string{"id1": {"source": long}}})

	w.must(KindEntityReport, EntityReport{ID: e.ID, MemberID: "id1", Revision: 1, Status: EntityErrored, Reason: strings.Repeat("é", MaxConfigValue)})
	w.must(KindEntityReport, EntityReport{ID: e.ID, MemberID: "id2", Revision: 1, Status: EntityCreated, Config: map[string]string{"size": long}})
	e, _ = w.s.View().Entity(e.ID)
	if reason := e.Members["id1"].Reason; len(reason) > MaxReason || !strings.HasSuffix(reason, "é…") {
		t.Errorf("%d bytes, …%q", len(reason), reason[len(reason)-8:])
	}
	if p := e.Members["id2"]; p.Status != EntityErrored || p.Config["size"] != "" || p.Config["source"] != "/id2" || !strings.Contains(p.Reason, "65550 bytes") {
		t.Errorf("%.200v", p)
	}
}

func TestRowTakesNoMoreThanItsLimitFromAllMembers(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	full := &Entity{ID: "e1", Kind: EntityPool, Name: "local", Type: "dir", Revision: 1, Made: true, Members: map[string]EntityMember{"id1": {}}}
	own := map[string]string{"source": strings.Repeat("x", MaxPartConfig-len("source"))}
	for i := 0; full.size() < MaxEntityRow-2*MaxPartConfig; i++ {
		full.Members["old"+strings.Repeat("i", i)] = EntityMember{Config: own, Status: EntityCreated, Revision: 1}
	}
	tx := &transaction{Txn: w.s.db.Txn(true)}
	entityTable.put(tx, full)
	tx.Commit()
	next := *w.s.View()
	next.txn = w.s.db.Txn(false)
	w.s.publish(&next, topicEntities)
	update := EntityUpdate{ID: "e1", Expect: full.Hash(), Config: map[string]string{"user.a": strings.Repeat("x", MaxConfigValue)}}
	w.refused(api.ConfigInvalid, KindEntityUpdate, update)
	w.must(KindEntityReport, EntityReport{ID: "e1", MemberID: "id1", Revision: 1, Status: EntityErrored, Reason: "full", Config: map[string]string{
		"source": strings.Repeat("\x01", MaxPartConfig-100), // six bytes each in JSON
	}})
	e, _ := w.s.View().Entity("e1")
	if p := e.Members["id1"]; p.Status != EntityErrored || p.Reason != "" || len(p.Config) != 0 || e.size() > MaxEntityRow {
		t.Errorf("%d bytes, %.200v", e.size(), p)
	}
}

func TestWhatAJoinerMadeOfADeletedPoolIsItsToRemove(t *testing.T) {
	t.Parallel()
	w := newCluster(t)
	w.must(KindEntityCreate, EntityCreate{ID: "e1", Kind: EntityPool, Name: "local", Type: "dir", MemberID: "id1"})
	w.must(KindTokenGrant, TokenGrant{
		Token:       Token{Hash: "h", Secret: "s", Name: "node2", Operation: "op", Addresses: []string{"a"}},
		Fingerprint: "fp-id2", Certificate: "cert-id2",
	})
	w.must(KindMemberAdmit, MemberAdmit{ID: "id2", Fingerprint: "fp-id2", Name: "node2", Address: "10.0.9.2:8443", CommandVersion: 1})
	w.must(KindEntityDelete, EntityDelete{ID: "e1"})
	w.must(KindMemberActivate, MemberActivate{ID: "id2", Entities: map[string]EntityMember{"e1": {Status: EntityCreated, Revision: 1}}})
	if e, _ := w.s.View().Entity("e1"); e.Members["id2"].Status != EntityPending {
		t.Errorf("nobody removes it there: %+v", e)
	}
}

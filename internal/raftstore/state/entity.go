package state

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// Kinds of entities.
const (
	EntityPool    = "storage-pool"
	EntityNetwork = "network"
	EntityVolume  = "storage-volume"
)

// Statuses of an entity on one member; those of the wire.
const (
	EntityPending     = "Pending"
	EntityCreated     = "Created"
	EntityErrored     = "Errored"
	EntityUnavailable = "Unavailable"
)

// An Entity is something that members make true on their machines: a storage pool, a
// network or a storage volume. The row says what is wanted; each member reports what
// became of it.
type Entity struct {
	// ID is a UUID, chosen by who proposed the entity first, never used again.
	ID   string `json:"id"`
	Kind string `json:"kind"`
	// Project is of networks and volumes; empty for pools.
	Project string `json:"project,omitempty"`
	// Pool is the name of the pool that a volume lies on; empty for others.
	Pool string `json:"pool,omitempty"`
	Name string `json:"name"`
	// Type is the pool's driver, the network's type, or the volume's content type.
	Type        string `json:"type"`
	Description string `json:"description,omitempty"`
	// Config has the cluster-wide keys.
	Config map[string]string `json:"config,omitempty"`
	// Revision counts what members must make true, from 1: it goes up with every change of Name
	// or of a configuration.
	Revision uint64 `json:"revision"`
	// Made is false after the first step of a two-step creation: members do nothing yet.
	Made bool `json:"made"`
	// Deleting is true until each member has reported that nothing is left on it. Its name is
	// free meanwhile.
	Deleting  bool      `json:"deleting,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// Members is what each member has, by member ID. A pool or network that is made has all
	// active members, a volume has one.
	Members map[string]EntityMember `json:"members"`
}

// EntityMember is an entity on one member.
type EntityMember struct {
	// Config has the keys that are specific to the member.
	Config map[string]string `json:"config,omitempty"`
	Status string            `json:"status"`
	// Reason says why it is EntityErrored or EntityUnavailable.
	Reason string `json:"reason,omitempty"`
	// Revision is the one that Status is about; below Entity.Revision the member has work to do.
	Revision uint64 `json:"revision,omitempty"`
}

// EntityDefine is the body of "entity.define", version 1: the first step of a two-step
// creation, for one member. Its result is the Entity.
type EntityDefine struct {
	// ID is that of the new row, if there is none of that name.
	ID       string            `json:"id"`
	Kind     string            `json:"kind"`
	Project  string            `json:"project,omitempty"`
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	MemberID string            `json:"member_id"`
	Config   map[string]string `json:"config,omitempty"`
}

// EntityCreate is the body of "entity.create", version 1. Where the cluster has one member, or
// for a volume, it makes the entity at once, with MemberID and MemberConfig, which add to what an
// "entity.define" has said. Else it is the second step after one of these for each member; once more, without Config, it lets the members
// that are EntityErrored try again. Its result is the Entity.
type EntityCreate struct {
	ID          string            `json:"id"`
	Kind        string            `json:"kind"`
	Project     string            `json:"project,omitempty"`
	Pool        string            `json:"pool,omitempty"`
	Name        string            `json:"name"`
	Type        string            `json:"type"`
	Description string            `json:"description,omitempty"`
	Config      map[string]string `json:"config,omitempty"`
	// MemberID is the member that a volume lies on, or the only member.
	MemberID     string            `json:"member_id,omitempty"`
	MemberConfig map[string]string `json:"member_config,omitempty"`
}

// EntityUpdate is the body of "entity.update", version 1. Its result is the Entity.
type EntityUpdate struct {
	ID string `json:"id"`
	// Expect is Entity.Hash as the proposer saw it; PreconditionFail if it differs now.
	Expect      string            `json:"expect"`
	Description string            `json:"description,omitempty"`
	Config      map[string]string `json:"config,omitempty"`
	// Members replaces the member-specific keys of the members that it names, by ID.
	Members map[string]map[string]string `json:"members,omitempty"`
}

// EntityRename is the body of "entity.rename", version 1. Its result is the Entity.
type EntityRename struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// EntityDelete is the body of "entity.delete", version 1. It refuses with Conflict what is used.
// Once more, it lets the members that could not remove it try again. An entity that was only
// defined is gone at once. Its result is the Entity.
type EntityDelete struct {
	ID string `json:"id"`
}

// EntityReport is the body of "entity.report", version 1: what became of an entity on a member.
// Harmless when the entity or the member's part is gone. Older revisions than the row's are noted,
// with their revision, unless a newer one was reported or the row is being deleted.
type EntityReport struct {
	ID       string `json:"id"`
	MemberID string `json:"member_id"`
	Revision uint64 `json:"revision"`
	Status   string `json:"status"`
	// Reason is cut after MaxReason.
	Reason string `json:"reason,omitempty"`
	// Config, if not nil, sets these member-specific keys: what the member has chosen.
	Config map[string]string `json:"config,omitempty"`
	// Gone says that nothing is left of a deleted entity on the member. The row goes with the last
	// member's.
	Gone bool `json:"gone,omitempty"`
}

// entityTable has the entities of all kinds. A row that is being deleted has given its name up.
var entityTable = &table[Entity]{
	name:  "entity",
	topic: topicEntities,
	indexes: []index[Entity]{
		{name: primary, key: func(e *Entity) string { return e.ID }},
		{name: "name", key: func(e *Entity) string { return keyIf(!e.Deleting, e.place()) }},
		{name: "place", key: (*Entity).place, many: true},
	},
	count: func(c *counts, e *Entity, n int) {
		if e.Kind == EntityVolume {
			c.volumes += n
		} else {
			c.entities += n
		}
	},
}

// place orders entities by kind, project, pool and name. None of these has a control character.
func (e *Entity) place() string { return place(e.Kind, e.Project, e.Pool, e.Name) }

func place(kind, project, pool, name string) string {
	return strings.Join([]string{kind, project, pool, name}, "\x01")
}

// Clone returns a copy that may be changed.
func (e *Entity) Clone() *Entity {
	c := *e
	c.Config = maps.Clone(e.Config)
	c.Members = make(map[string]EntityMember, len(e.Members))
	for _, id := range e.memberIDs() {
		part := e.Members[id]
		part.Config = maps.Clone(part.Config)
		c.Members[id] = part
	}
	return &c
}

// Hash is a SHA-256 of what "entity.update" writes, in hex; see EntityUpdate.Expect.
func (e *Entity) Hash() string {
	own := map[string]map[string]string{}
	for _, id := range e.memberIDs() {
		own[id] = withoutEmpty(e.Members[id].Config)
	}
	return hashOf(e.ID, e.Description, withoutEmpty(e.Config), own)
}

// hashOf is a SHA-256 of values, in hex. Maps are written in the order of their keys.
func hashOf(values ...any) string {
	data, err := json.Marshal(values)
	must(err)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Entity returns the entity with that ID, one that is being deleted too.
func (v *View) Entity(id string) (*Entity, bool) { return entityTable.get(v.txn, primary, id) }

// Entities returns all entities of a kind, those that are being deleted too, by project, pool,
// name and ID.
func (v *View) Entities(kind string) []*Entity { return entitiesOf(v.txn, kind) }

func entitiesOf(txn *memdb.Txn, kind string) []*Entity {
	return slices.DeleteFunc(entityTable.list(txn, "place"), func(e *Entity) bool { return e.Kind != kind })
}

// Pool returns the pool of that name. If there is none, it is one that is being deleted and that a
// member could not remove.
func (v *View) Pool(name string) (*Entity, bool) { return shownEntity(v.txn, EntityPool, "", "", name) }

// Network returns the network of that name in that very project, found like a pool.
func (v *View) Network(project, name string) (*Entity, bool) {
	return shownEntity(v.txn, EntityNetwork, project, "", name)
}

// Volume returns the volume of that name in that very project, found like a pool.
func (v *View) Volume(pool, project, name string) (*Entity, bool) {
	return shownEntity(v.txn, EntityVolume, project, pool, name)
}

func shownEntity(txn *memdb.Txn, kind, project, pool, name string) (*Entity, bool) {
	at := place(kind, project, pool, name)
	if e, ok := entityTable.get(txn, "name", at); ok {
		return e, true
	}
	for _, e := range entityTable.list(txn, "place", at) {
		if e.HasFailed() {
			return e, true
		}
	}
	return nil, false
}

// HasFailed tells whether a member could not make or remove its part.
func (e *Entity) HasFailed() bool {
	return slices.ContainsFunc(e.memberIDs(), func(id string) bool { return e.Members[id].Status == EntityErrored })
}

// memberIDs are the members that have a part, in order.
func (e *Entity) memberIDs() []string { return slices.Sorted(maps.Keys(e.Members)) }

// words names the entity's kind to people; sentence begins a sentence with it.
func (e *Entity) words() string    { return strings.ReplaceAll(e.Kind, "-", " ") }
func (e *Entity) sentence() string { return strings.ToUpper(e.Kind[:1]) + e.words()[1:] }

// short is how the protocol's texts call pools and networks when they are not there.
func (e *Entity) short() string {
	if e.Kind == EntityPool {
		return "Pool"
	}
	return "Network"
}

// typeWord is what people call the type.
func (e *Entity) typeWord() string {
	if e.Kind == EntityPool {
		return "driver"
	}
	return "type"
}

// url is the entity's in the API.
func (e *Entity) url() string {
	path := source("/1.0/networks", e.Name)
	switch e.Kind {
	case EntityPool:
		path = source("/1.0/storage-pools", e.Name)
	case EntityVolume:
		path = source(source("/1.0/storage-pools", e.Pool)+"/volumes/custom", e.Name)
	}
	return api.InProject(path, e.Project)
}

// emitEntity adds a lifecycle event about e, such as "created"; context may be nil.
func (tx *transaction) emitEntity(e *Entity, what string, context map[string]any) {
	tx.add(Event{Action: e.Kind + "-" + what, Source: e.url(), Project: e.Project, Context: context})
}

// checkEntity checks what a new row says of itself.
func (tx *transaction) checkEntity(e *Entity) error {
	if err := checkKey("entity ID", e.ID); err != nil {
		return err
	}
	if _, ok := entityTable.get(tx.Txn, primary, e.ID); ok {
		return api.Errorf(api.Conflict, "There is an entity %s already", e.ID)
	}
	if e.Kind != EntityPool && e.Kind != EntityNetwork && e.Kind != EntityVolume {
		return badRequest("%.80q is no kind of entity", e.Kind)
	}
	if err := api.ValidateName(e.Name); err != nil {
		return api.Errorf(api.NameInvalid, "Invalid %s name: %v", e.words(), err)
	}
	if e.Type == "" || len(e.Type) > maxKeyText {
		return badRequest("a %s needs a type of at most %d bytes", e.words(), maxKeyText)
	}
	if e.Kind != EntityPool {
		if _, ok := projectOf(tx.Txn, e.Project); !ok {
			return api.Errorf(api.NotFound, "Project not found")
		}
	}
	switch {
	case e.Kind == EntityVolume && tx.counts.volumes >= MaxVolumes:
		return api.Errorf(api.TooMany, "There are %d storage volumes, which is the limit", MaxVolumes)
	case e.Kind != EntityVolume && tx.counts.entities >= MaxEntities:
		return api.Errorf(api.TooMany, "There are %d storage pools and networks, which is the limit", MaxEntities)
	}
	return nil
}

// checkOwn refuses keys of one member that no schema would allow, or that are too long together.
func checkOwn(config map[string]string) error {
	if err := checkConfig(config); err != nil {
		return err
	}
	if n := textSize(config); n > MaxPartConfig {
		return tooLong("The keys of one member", n, MaxPartConfig)
	}
	return nil
}

// checkGlobal refuses a description and cluster-wide keys that are too long together.
func checkGlobal(description string, config map[string]string) error {
	if err := checkEntityConfig(description, config); err != nil {
		return err
	}
	if n := len(description) + textSize(config); n > MaxEntityConfig {
		return tooLong("The description and the configuration", n, MaxEntityConfig)
	}
	return nil
}

func tooLong(what string, n, limit int) error {
	return api.Errorf(api.ConfigInvalid, "%s have %d bytes, the limit is %d", what, n, limit).WithHint("shorten what is longest")
}

// textSize is the length of all keys and values, in bytes.
func textSize(config map[string]string) int {
	n := 0
	for _, key := range slices.Sorted(maps.Keys(config)) {
		n += len(key) + len(config[key])
	}
	return n
}

// ShortReason cuts a failure in words to what a row takes.
func ShortReason(text string) string {
	if len(text) <= MaxReason {
		return text
	}
	const more = "…"
	end := MaxReason - len(more)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + more
}

// putEntity puts a row that may have grown.
func (tx *transaction) putEntity(e *Entity) error {
	if n := e.size(); n > MaxEntityRow {
		return api.Errorf(api.ConfigInvalid, "The %s %q would have %d bytes with the keys of all members, the limit is %d",
			e.words(), e.Name, n, MaxEntityRow).WithHint("shorten what is longest")
	}
	entityTable.put(tx, e)
	return nil
}

// size is that of the row in a snapshot, in bytes.
func (e *Entity) size() int {
	data, err := json.Marshal(e)
	must(err)
	return len(data)
}

func checkEntityConfig(description string, configs ...map[string]string) error {
	if len(description) > MaxConfigValue {
		return api.Errorf(api.TooLarge, "The description has %d bytes, the limit is %d", len(description), MaxConfigValue)
	}
	for _, config := range configs {
		if err := checkConfig(config); err != nil {
			return err
		}
	}
	return nil
}

// stepError is a refusal of one of the two steps, which the protocol answers with 500.
func stepError(reason api.Reason, format string, args ...any) *api.Error {
	return api.Errorf(reason, format, args...).WithCode(500)
}

// otherType refuses a step whose driver or type is not that of the row.
func otherType(e *Entity) error {
	return stepError(api.Conflict, "%s already exists with a different %s", e.sentence(), e.typeWord())
}

// applyEntityDefine is the first step of a two-step creation.
func applyEntityDefine(tx *transaction, b *EntityDefine) (any, error) {
	if err := tx.mayChange(b.Project); err != nil {
		return nil, err
	}
	m, ok := activeMember(tx.Txn, b.MemberID)
	if !ok {
		return nil, refuse(api.MemberNotFound)
	}
	if err := checkOwn(b.Config); err != nil {
		return nil, err
	}
	if b.Kind == EntityVolume {
		return nil, badRequest("a storage volume is made in one step")
	}
	e, ok := entityTable.get(tx.Txn, "name", place(b.Kind, b.Project, "", b.Name))
	if !ok {
		e = &Entity{ID: b.ID, Kind: b.Kind, Project: b.Project, Name: b.Name, Type: b.Type, Revision: 1, CreatedAt: tx.now}
		if err := tx.checkEntity(e); err != nil {
			return nil, err
		}
	}
	if err := checkDefine(e, b, m); err != nil {
		return nil, err
	}
	e = e.Clone()
	e.Members[m.ID] = EntityMember{Config: withoutEmpty(b.Config), Status: EntityPending}
	if err := tx.putEntity(e); err != nil {
		return nil, err
	}
	tx.emitEntity(e, "created", map[string]any{"target": m.Name})
	return e, nil
}

func checkDefine(e *Entity, b *EntityDefine, m *Member) error {
	_, again := e.Members[m.ID]
	switch {
	case b.Type != "" && b.Type != e.Type:
		return otherType(e)
	case e.Made:
		return stepError(api.Conflict, "%s is not in pending state", e.sentence())
	case again && e.Kind == EntityPool:
		return badRequest("The storage pool already defined on member %q", m.Name)
	case again:
		return api.Errorf(api.Conflict, "Network %q is already defined on member %q", e.Name, m.Name)
	}
	return nil
}

// applyEntityCreate makes an entity: in one step, as the second of two, or once more.
func applyEntityCreate(tx *transaction, b *EntityCreate) (any, error) {
	if err := tx.mayChange(b.Project); err != nil {
		return nil, err
	}
	if err := checkGlobal(b.Description, b.Config); err != nil {
		return nil, err
	}
	e, exists := entityTable.get(tx.Txn, "name", place(b.Kind, b.Project, b.Pool, b.Name))
	if exists && e.Made {
		return tx.retryEntity(e, b)
	}
	if !exists {
		e = &Entity{ID: b.ID, Kind: b.Kind, Project: b.Project, Pool: b.Pool, Name: b.Name, Type: b.Type, Revision: 1, CreatedAt: tx.now}
		if err := tx.checkEntity(e); err != nil {
			return nil, err
		}
	}
	e = e.Clone()
	if err := tx.placeEntity(e, b, exists); err != nil {
		return nil, err
	}
	if exists && b.Type != "" && b.Type != e.Type {
		return nil, otherType(e)
	}
	e.Made, e.Description, e.Config = true, b.Description, withoutEmpty(b.Config)
	if err := tx.putEntity(e); err != nil {
		return nil, err
	}
	tx.emitEntity(e, "created", nil)
	return e, nil
}

// placeEntity gives a new entity its members' parts.
func (tx *transaction) placeEntity(e *Entity, b *EntityCreate, defined bool) error {
	members := membersIn(tx.Txn, MemberActive)
	if e.Kind == EntityVolume {
		if pool, ok := entityTable.get(tx.Txn, "name", place(EntityPool, "", "", e.Pool)); !ok || !pool.Made {
			return api.Errorf(api.NotFound, "Storage pool not found")
		}
	}
	if e.Kind == EntityVolume || len(members) == 1 && (!defined || b.MemberID != "") {
		return tx.placeOn(e, b)
	}
	if !defined {
		return stepError(api.BadRequest, "%s not pending on any node (use --target <node> first)", e.short()).
			WithHint("say first what is each member's own: the same command with --target MEMBER, once for each member of the cluster")
	}
	var missing []string
	for _, m := range members {
		if _, ok := e.Members[m.ID]; !ok {
			missing = append(missing, m.Name)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return stepError(api.BadRequest, "%s not defined on nodes: %s", e.short(), strings.Join(missing, ", "))
	}
	return nil
}

// placeOn gives a new entity its part on one member. What the member's keys were defined as stands
// where the command does not say otherwise.
func (tx *transaction) placeOn(e *Entity, b *EntityCreate) error {
	m, ok := activeMember(tx.Txn, b.MemberID)
	if !ok {
		return refuse(api.MemberNotFound)
	}
	if m.Removal != nil {
		return api.Errorf(api.Conflict, "Member %q is being removed", m.Name).WithHint("choose another member with --target")
	}
	own := withoutEmpty(e.Members[m.ID].Config)
	maps.Copy(own, b.MemberConfig)
	if err := checkOwn(own); err != nil {
		return err
	}
	e.Members = map[string]EntityMember{m.ID: {Config: withoutEmpty(own), Status: EntityPending}}
	return nil
}

// retryEntity lets the members that have failed try again.
func (tx *transaction) retryEntity(e *Entity, b *EntityCreate) (any, error) {
	single := len(membersIn(tx.Txn, MemberActive)) == 1
	same := maps.Equal(withoutEmpty(b.Config), withoutEmpty(e.Config))
	switch {
	case !e.HasFailed() && (single || e.Kind == EntityVolume):
		return nil, api.Errorf(api.Conflict, "%s %q already exists", e.sentence(), e.Name)
	case !e.HasFailed():
		return nil, stepError(api.Conflict, "The %s is already created", e.words())
	case b.Type != "" && b.Type != e.Type:
		return nil, otherType(e)
	case len(b.Config) > 0 && !same:
		return nil, stepError(api.BadRequest, "%s already partially created. Please do not specify any global config when re-running create", e.sentence())
	}
	e = e.Clone()
	e.tryAgain()
	entityTable.put(tx, e)
	return e, nil
}

// tryAgain makes what has failed pending.
func (e *Entity) tryAgain() {
	for _, id := range e.memberIDs() {
		if part := e.Members[id]; part.Status == EntityErrored {
			part.Status, part.Reason, part.Revision = EntityPending, "", 0
			e.Members[id] = part
		}
	}
}

func applyEntityUpdate(tx *transaction, b *EntityUpdate) (any, error) {
	e, ok := entityTable.get(tx.Txn, primary, b.ID)
	if !ok || e.Deleting {
		return nil, api.Errorf(api.NotFound, "The object is gone")
	}
	if err := tx.mayChange(e.Project); err != nil {
		return nil, err
	}
	if b.Expect != e.Hash() {
		return nil, refuse(api.PreconditionFail)
	}
	if err := checkGlobal(b.Description, b.Config); err != nil {
		return nil, err
	}
	global := !maps.Equal(withoutEmpty(b.Config), withoutEmpty(e.Config))
	if !e.Made && (global || b.Description != e.Description) {
		return nil, badRequest("Cannot update %s global config when not in created state", e.words())
	}
	changed := global
	e = e.Clone()
	e.Description, e.Config = b.Description, withoutEmpty(b.Config)
	for _, id := range slices.Sorted(maps.Keys(b.Members)) {
		part, ok := e.Members[id]
		if !ok {
			return nil, refuse(api.MemberNotFound)
		}
		if err := checkOwn(b.Members[id]); err != nil {
			return nil, err
		}
		if next := withoutEmpty(b.Members[id]); !maps.Equal(next, withoutEmpty(part.Config)) {
			part.Config, changed = next, true
			e.Members[id] = part
		}
	}
	if changed && e.Made {
		e.Revision++
	}
	if err := tx.putEntity(e); err != nil {
		return nil, err
	}
	tx.emitEntity(e, "updated", tx.updateContext(b, global))
	return e, nil
}

// updateContext names the member that a change is about, if it is about one alone.
func (tx *transaction) updateContext(b *EntityUpdate, global bool) map[string]any {
	if global || len(b.Members) != 1 || !clusterOf(tx.Txn).Enabled {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(b.Members)) {
		if m, ok := memberTable.get(tx.Txn, primary, id); ok {
			return map[string]any{"target": m.Name}
		}
	}
	return nil
}

func applyEntityRename(tx *transaction, b *EntityRename) (any, error) {
	e, ok := entityTable.get(tx.Txn, primary, b.ID)
	if !ok || e.Deleting {
		return nil, api.Errorf(api.NotFound, "The object is gone")
	}
	if err := tx.mayChange(e.Project); err != nil {
		return nil, err
	}
	switch {
	case e.Kind == EntityPool:
		return nil, badRequest("A storage pool cannot be renamed")
	case e.Kind == EntityNetwork && clusterOf(tx.Txn).Enabled:
		return nil, badRequest("Renaming clustered network not supported")
	case len(usersOf(tx.Txn, e)) > 0:
		return nil, api.Errorf(api.InUse, "The %s is currently in use", e.words())
	case b.Name == e.Name:
		return e, nil
	}
	if err := api.ValidateName(b.Name); err != nil {
		return nil, api.Errorf(api.NameInvalid, "Invalid %s name: %v", e.words(), err)
	}
	if _, taken := entityTable.get(tx.Txn, "name", place(e.Kind, e.Project, e.Pool, b.Name)); taken {
		return nil, api.Errorf(api.Conflict, "%s %q already exists", e.sentence(), b.Name)
	}
	old := e.Name
	e = e.Clone()
	e.Name = b.Name
	e.Revision++
	entityTable.put(tx, e)
	tx.emitEntity(e, "renamed", map[string]any{"old_name": old})
	return e, nil
}

// applyEntityDelete lets the members remove the entity. What was only defined is gone at once.
func applyEntityDelete(tx *transaction, b *EntityDelete) (any, error) {
	e, ok := entityTable.get(tx.Txn, primary, b.ID)
	if !ok {
		return nil, api.Errorf(api.NotFound, "The object is gone")
	}
	if err := tx.mayChange(e.Project); err != nil {
		return nil, err
	}
	e = e.Clone()
	if e.Deleting {
		e.tryAgain()
		entityTable.put(tx, e)
		return e, nil
	}
	if len(usersOf(tx.Txn, e)) > 0 {
		return nil, api.Errorf(api.InUse, "The %s is currently in use", e.words())
	}
	tx.emitEntity(e, "deleted", nil)
	if !e.Made {
		entityTable.drop(tx, e)
		return e, nil
	}
	e.Deleting = true
	e.Revision++
	for _, id := range e.memberIDs() {
		e.Members[id] = EntityMember{Config: e.Members[id].Config, Status: EntityPending}
	}
	entityTable.put(tx, e)
	return e, nil
}

// applyEntityReport notes what became of an entity on a member. A report that comes late says
// nothing about the present, and is left out.
func applyEntityReport(tx *transaction, b *EntityReport) (any, error) {
	e, ok := entityTable.get(tx.Txn, primary, b.ID)
	if !ok {
		return nil, nil
	}
	part, ok := e.Members[b.MemberID]
	if !ok || b.Revision < part.Revision || b.Revision > e.Revision {
		return nil, nil
	}
	if e.Deleting && b.Revision < e.Revision {
		return nil, nil // what failed before would look as if it could not be removed
	}
	if !slices.Contains([]string{EntityPending, EntityCreated, EntityErrored, EntityUnavailable}, b.Status) {
		return nil, badRequest("%.80q is no status of an entity", b.Status)
	}
	if b.Gone && !e.Deleting {
		return nil, api.Errorf(api.Conflict, "The %s %q is not being deleted", e.words(), e.Name)
	}
	e = e.Clone()
	if b.Gone {
		delete(e.Members, b.MemberID)
	} else {
		e.Members[b.MemberID] = e.reported(part, b)
	}
	tx.keepEntity(e)
	return nil, nil
}

// reported is a member's part after its report. A member cannot mend a report that is refused, and
// would send it again without end: what does not fit is left out.
func (e *Entity) reported(part EntityMember, b *EntityReport) EntityMember {
	next := EntityMember{Status: b.Status, Reason: ShortReason(b.Reason), Revision: b.Revision}
	config := withoutEmpty(part.Config)
	maps.Copy(config, b.Config)
	next.Config = withoutEmpty(config)
	if err := checkOwn(next.Config); err != nil {
		next.Config, next.Status, next.Reason = part.Config, EntityErrored, ShortReason("its own keys do not fit into the row: "+err.Error())
	}
	if e.sizeWith(b.MemberID, next) > MaxEntityRow {
		next.Config, next.Reason = part.Config, ""
	}
	return next
}

// sizeWith is size with another part for one member.
func (e *Entity) sizeWith(id string, part EntityMember) int {
	c := e.Clone()
	c.Members[id] = part
	return c.size()
}

// keepEntity puts e, or drops it if it was deleted and is on no member any more.
func (tx *transaction) keepEntity(e *Entity) {
	if e.Deleting && len(e.Members) == 0 {
		entityTable.drop(tx, e)
		return
	}
	entityTable.put(tx, e)
}

// joinEntities gives a new member its part of each pool and network. What it has made of one that
// is being deleted by now is its to remove, like the others'.
func (tx *transaction) joinEntities(id string, made map[string]EntityMember) error {
	for _, e := range entityTable.list(tx.Txn, "place") {
		part, ok := made[e.ID]
		if e.Kind == EntityVolume || !e.Made || e.Deleting && !ok {
			continue
		}
		if !ok || part.Revision > e.Revision || e.Deleting {
			part = EntityMember{Config: part.Config, Status: EntityPending}
		}
		if err := checkOwn(part.Config); err != nil {
			return fmt.Errorf("%s %q: %w", e.words(), e.Name, err)
		}
		part.Config, part.Reason = withoutEmpty(part.Config), ShortReason(part.Reason)
		e = e.Clone()
		e.Members[id] = part
		if err := tx.putEntity(e); err != nil {
			return err
		}
	}
	return nil
}

// leaveEntities drops the parts of a member that is gone, and the volumes that were on it.
func (tx *transaction) leaveEntities(id string) {
	for _, e := range entityTable.list(tx.Txn, "place") {
		if _, ok := e.Members[id]; !ok {
			continue
		}
		e = e.Clone()
		delete(e.Members, id)
		if len(e.Members) == 0 && e.Kind == EntityVolume {
			entityTable.drop(tx, e)
			continue
		}
		tx.keepEntity(e)
	}
}

// UsedBy lists the URLs of what uses the pool, network or volume, in order.
func (v *View) UsedBy(e *Entity) []string { return usersOf(v.txn, e) }

func usersOf(txn *memdb.Txn, e *Entity) []string {
	var users []string
	for _, p := range allProfiles(txn) {
		if profileUses(txn, p, e) {
			users = append(users, p.url())
		}
	}
	if e.Kind == EntityPool {
		for _, v := range entitiesOf(txn, EntityVolume) {
			if v.Pool == e.Name && !v.Deleting {
				users = append(users, v.url())
			}
		}
	}
	slices.Sort(users)
	return users
}

// profileUses tells whether a device of the profile needs the entity.
func profileUses(txn *memdb.Txn, p *Profile, e *Entity) bool {
	for _, name := range slices.Sorted(maps.Keys(p.Devices)) {
		device := p.Devices[name]
		switch {
		case e.Deleting:
		case e.Kind == EntityPool && device["type"] == "disk" && device["pool"] == e.Name:
			return true
		case e.Kind == EntityVolume && device["type"] == "disk" && device["pool"] == e.Pool && device["source"] == e.Name:
			if ownerOf(txn, p.Project, FeatureVolumes) == e.Project {
				return true
			}
		case e.Kind == EntityNetwork && device["type"] == "nic":
			if device["network"] == e.Name && ownerOf(txn, p.Project, FeatureNetworks) == e.Project ||
				device["network"] == "" && device["parent"] == e.Name && e.Project == api.DefaultProject {
				return true
			}
		}
	}
	return false
}

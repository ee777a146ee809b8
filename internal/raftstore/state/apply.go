package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// A Store is the tables of one member. Apply, SetServers and Restore exclude each
// other; readers are never held up.
type Store struct {
	mu   sync.Mutex // for who changes
	db   *memdb.MemDB
	view atomic.Pointer[View]
}

// New returns an empty store.
func New() *Store {
	s := &Store{db: newDB()}
	s.view.Store(&View{txn: s.db.Txn(false), changed: make(chan struct{}), membersChanged: make(chan struct{}), entitiesChanged: make(chan struct{})})
	return s
}

// View returns the tables as they are after the last applied entry. It never blocks.
func (s *Store) View() *View { return s.view.Load() }

// Apply applies one entry. It returns one Result per command, and the events that
// follow. Entries come in the order of their indexes.
//
// An error means that this member must stop: the entry cannot be read, or has a kind
// or version of command that this build does not know (api.StoreDamaged,
// api.StoreTooNew), or was applied before. Nothing was changed then.
func (s *Store) Apply(index, term uint64, entry []byte) ([]Result, []Event, error) {
	steps, err := decodeSteps(entry)
	if err != nil {
		return nil, nil, fmt.Errorf("apply entry %d: %w", index, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.view.Load()
	if index <= v.index {
		return nil, nil, fmt.Errorf("apply entry %d: entry %d was applied before it", index, v.index)
	}
	b := &batch{db: s.db, counts: v.counts}
	results := make([]Result, len(steps))
	for i, st := range steps {
		results[i] = b.run(st)
	}
	next := &View{txn: s.db.Txn(false), index: index, term: term, servers: v.servers, counts: b.counts}
	s.publish(next, b.topics)
	return results, b.events, nil
}

// SetServers records Raft's committed configuration, which is part of what members
// show. It is no entry and counts no index.
func (s *Store) SetServers(servers []Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.view.Load()
	old := next.servers
	if next.servers = sortedServers(servers); !slices.Equal(old, next.servers) {
		s.publish(&next, topicMembers)
	}
}

// publish makes v what readers see, and wakes those who wait for topics.
func (s *Store) publish(v *View, topics topic) {
	old := s.view.Load()
	v.changed, v.membersChanged, v.entitiesChanged = old.changed, old.membersChanged, old.entitiesChanged
	if topics != topicNone {
		v.changed = make(chan struct{})
	}
	if topics&topicMembers != 0 {
		v.membersChanged = make(chan struct{})
	}
	if topics&(topicMembers|topicEntities) != 0 {
		v.entitiesChanged = make(chan struct{})
	}
	s.view.Store(v)
	if topics != topicNone {
		close(old.changed)
	}
	if topics&topicMembers != 0 {
		close(old.membersChanged)
	}
	if topics&(topicMembers|topicEntities) != 0 {
		close(old.entitiesChanged)
	}
}

// A version is one schema of a kind's body, and what it does.
type version struct {
	accepts func(body any) bool
	decode  func(data json.RawMessage) (action, error)
}

// An action checks a command against the tables and carries it out. It returns the
// command's value, or an error, which is a refusal.
type action func(tx *transaction) (any, error)

// bodyOf is the version whose body is B.
func bodyOf[B any](apply func(*transaction, *B) (any, error)) version {
	return version{
		accepts: func(body any) bool {
			switch body.(type) {
			case B, *B:
				return true
			}
			return false
		},
		decode: func(data json.RawMessage) (action, error) {
			b := new(B)
			if err := decodeStrict(data, b); err != nil {
				return nil, err
			}
			return func(tx *transaction) (any, error) { return apply(tx, b) }, nil
		},
	}
}

// kinds has the versions of every kind, from 1. To change a command, append one; old
// ones stay as long as a log may hold them. CommandVersion goes up with every addition.
var kinds = map[string][]version{
	KindClusterInit:       {bodyOf(applyClusterInit)},
	KindClusterEnable:     {bodyOf(applyClusterEnable)},
	KindLeaderElected:     {bodyOf(applyLeaderElected)},
	KindLeaderSweep:       {bodyOf(applyLeaderSweep)},
	KindMemberUpdate:      {bodyOf(applyMemberUpdate)},
	KindMemberCert:        {bodyOf(applyMemberCertificate)},
	KindMemberAddress:     {bodyOf(applyMemberAddress)},
	KindMemberRename:      {bodyOf(applyMemberRename)},
	KindMemberLiveness:    {bodyOf(applyMemberLiveness)},
	KindMemberRole:        {bodyOf(applyMemberRole)},
	KindMemberStopping:    {bodyOf(applyMemberStopping)},
	KindMemberMaintenance: {bodyOf(applyMemberMaintenance)},
	KindMemberAdmit:       {bodyOf(applyMemberAdmit)},
	KindMemberActivate:    {bodyOf(applyMemberActivate)},
	KindMemberAbort:       {bodyOf(applyMemberAbort)},
	KindMemberRemove:      {bodyOf(applyMemberRemove)},
	KindMemberLeave:       {bodyOf(applyMemberLeave)},
	KindClusterDisable:    {bodyOf(applyClusterDisable)},
	KindClusterCert:       {bodyOf(applyClusterCertificate)},
	KindClusterRecover:    {bodyOf(applyClusterRecover)},
	KindClusterRestore:    {bodyOf(applyClusterRestore)},
	KindMemberReadmit:     {bodyOf(applyMemberReadmit)},
	KindTokenIssue:        {bodyOf(applyTokenIssue)},
	KindTokenClaim:        {bodyOf(applyTokenClaim)},
	KindTokenRevoke:       {bodyOf(applyTokenRevoke)},
	KindConfigSet:         {bodyOf(applyConfigSet)},
	KindCertificateAdd:    {bodyOf(applyCertificateAdd)},
	KindCertificateUpdate: {bodyOf(applyCertificateUpdate)},
	KindTokenInvite:       {bodyOf(applyTokenInvite)},
	KindTokenRedeem:       {bodyOf(applyTokenRedeem)},
	KindCertificateRemove: {bodyOf(applyCertificateRemove)},
	KindEntityDefine:      {bodyOf(applyEntityDefine)},
	KindEntityCreate:      {bodyOf(applyEntityCreate)},
	KindEntityUpdate:      {bodyOf(applyEntityUpdate)},
	KindEntityRename:      {bodyOf(applyEntityRename)},
	KindEntityDelete:      {bodyOf(applyEntityDelete)},
	KindEntityReport:      {bodyOf(applyEntityReport)},
	KindProfileCreate:     {bodyOf(applyProfileCreate)},
	KindProfileUpdate:     {bodyOf(applyProfileUpdate)},
	KindProfileRename:     {bodyOf(applyProfileRename)},
	KindProfileDelete:     {bodyOf(applyProfileDelete)},
	KindProjectCreate:     {bodyOf(applyProjectCreate)},
	KindProjectUpdate:     {bodyOf(applyProjectUpdate)},
	KindProjectRename:     {bodyOf(applyProjectRename)},
	KindProjectDelete:     {bodyOf(applyProjectDelete)},
	KindPasswordAttempt:   {bodyOf(applyPasswordAttempt)},
	KindTokenGrant:        {bodyOf(applyTokenGrant)},
	KindGroupCreate:       {bodyOf(applyGroupCreate)},
	KindGroupUpdate:       {bodyOf(applyGroupUpdate)},
	KindGroupRename:       {bodyOf(applyGroupRename)},
	KindGroupDelete:       {bodyOf(applyGroupDelete)},
	KindWarningReport:     {bodyOf(applyWarningReport)},
	KindWarningStatus:     {bodyOf(applyWarningStatus)},
	KindWarningDelete:     {bodyOf(applyWarningDelete)},
}

// A step is a command that is understood.
type step struct {
	cmd *Command
	do  action
}

// decodeSteps understands a whole entry before anything of it is applied.
func decodeSteps(entry []byte) ([]step, error) {
	cmds, err := DecodeEntry(entry)
	if err != nil {
		return nil, err
	}
	steps := make([]step, len(cmds))
	for i := range cmds {
		if steps[i], err = decodeStep(&cmds[i]); err != nil {
			return nil, err
		}
	}
	return steps, nil
}

func decodeStep(cmd *Command) (step, error) {
	versions, known := kinds[cmd.Kind]
	if !known || cmd.Version > len(versions) {
		return step{}, api.Errorf(api.StoreTooNew, "the log has a command %q version %d, this build knows none newer than %d of it; "+
			"install the version of incusd that the other members run", cmd.Kind, cmd.Version, len(versions))
	}
	if cmd.Version < 1 {
		return step{}, api.Errorf(api.StoreDamaged, "command %q has version %d, versions count from 1", cmd.Kind, cmd.Version)
	}
	do, err := versions[cmd.Version-1].decode(cmd.Body)
	if err != nil {
		return step{}, api.Errorf(api.StoreDamaged, "the body of command %q version %d cannot be read: %v", cmd.Kind, cmd.Version, err)
	}
	return step{cmd, do}, nil
}

// counts are the sizes of tables that have a limit. They follow from the records.
type counts struct {
	tokens, tombstones, requests, retired, config, certificates int
	entities, volumes, profiles, projects, attempts             int
	groups, removed, warnings                                   int
}

// A batch is an entry on its way into the tables.
type batch struct {
	db     *memdb.MemDB
	counts counts
	topics topic
	events []Event
}

// run applies one command in a transaction of its own.
func (b *batch) run(st step) Result {
	tx := b.begin(st.cmd)
	if seen, ok := tx.recall(); ok {
		tx.Abort()
		return seen
	}
	value, err := tx.carryOut(st.do)
	if err != nil {
		tx.Abort()
		tx = b.begin(st.cmd)
		if r := (*refusal)(nil); errors.As(err, &r) {
			r.effect(tx)
		}
	}
	res := resultOf(value, err)
	tx.remember(res)
	b.commit(tx)
	return res
}

func (b *batch) begin(cmd *Command) *transaction {
	return &transaction{Txn: b.db.Txn(true), cmd: cmd, now: cmd.Time.UTC(), counts: b.counts}
}

func (b *batch) commit(tx *transaction) {
	tx.Commit()
	b.counts = tx.counts
	b.topics |= tx.topics
	b.events = append(b.events, tx.events...)
}

func resultOf(value any, err error) Result {
	if err != nil {
		return Result{Err: api.AsError(err)}
	}
	if value == nil {
		return Result{}
	}
	data, err := json.Marshal(value)
	if err != nil {
		return Result{Err: api.Errorf(api.Internal, "encode the result: %v", err)}
	}
	return Result{Value: data}
}

// A transaction is one command's transaction: the tables as it sees and changes them.
type transaction struct {
	*memdb.Txn
	cmd *Command
	// now is the command's time, the only clock there is.
	now    time.Time
	counts counts
	topics topic
	events []Event
}

// lastYear is one year less than what JSON can say: a time in the state plus any limit
// must stay writable, or no snapshot could be made again.
const lastYear = 9998

func (tx *transaction) carryOut(do action) (any, error) {
	if y := tx.now.Year(); y < 1 || y > lastYear {
		return nil, badRequest("the leader's clock says year %d; set it, for example with NTP", y)
	}
	return do(tx)
}

// emit adds a lifecycle event of the command. token, which may be nil, is a token
// whose operation changed with it.
func (tx *transaction) emit(action, source string, token *Token) {
	tx.add(Event{Action: action, Source: source, Token: token})
}

// add adds an event of the command.
func (tx *transaction) add(e Event) {
	e.Time, e.Requestor, e.Origin = tx.now, tx.cmd.Requestor, tx.cmd.Origin
	tx.events = append(tx.events, e)
}

// A refusal is an error that leaves something behind. The command is rolled back all
// the same; effect is then applied to the tables as they were before it.
type refusal struct {
	err    *api.Error
	effect func(tx *transaction)
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// refuse refuses for reason in the reason's own words.
func refuse(reason api.Reason) error { return api.Errorf(reason, "%s", reason.Error()) }

func badRequest(format string, args ...any) error {
	return api.Errorf(api.BadRequest, format, args...)
}

// source is the URL of an object, as events name it.
func source(collection, name string) string { return collection + "/" + url.PathEscape(name) }

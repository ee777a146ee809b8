package membership

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// A LeaderStore is the replicated store on the member that leads.
type LeaderStore interface {
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
	// Local is this member's replica. A leader's has all that was acknowledged.
	Local() *raftstore.View
	// ID is this member's.
	ID() string
}

// Raft is what the leader sees of the other members, and how it changes Raft's
// configuration. Changes block until they are committed or ctx ends, and may have been
// made all the same when they fail.
type Raft interface {
	// Servers is the latest configuration.
	Servers() []state.Server
	AddNonvoter(ctx context.Context, id string) error
	Promote(ctx context.Context, id string) error
	Demote(ctx context.Context, id string) error
	Remove(ctx context.Context, id string) error
	TransferLeadership(ctx context.Context, to string) error
	// LastAnswer tells how long ago, by the monotonic clock, a member answered this
	// one, and whether it ever did.
	LastAnswer(id string) (ago time.Duration, heard bool)
	// Answered yields a value when a member answers after a silence.
	Answered() <-chan struct{}
	// CaughtUp tells whether a member has all but the newest entries.
	CaughtUp(id string) bool
}

// A Leader does what only the leader may do: it judges who is online, plans roles,
// makes Raft's configuration follow the state, ends what ran out or was begun, renews the
// cluster's certificate, and keeps the warnings.
type Leader struct {
	store LeaderStore
	raft  Raft
	set   Settings
	now   func() time.Time
	log   *slog.Logger
}

// NewLeader returns the leader's work over store and raft, which does nothing before
// Run. now is the wall clock, for what people read; nil means time.Now. A nil log discards.
func NewLeader(store LeaderStore, raft Raft, set Settings, now func() time.Time, log *slog.Logger) *Leader {
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Leader{store: store, raft: raft, set: set.withDefaults(), now: now, log: log}
}

// Run works until ctx ends, which must be when this member does not lead any more. It
// must begin when the local replica has applied all entries of earlier terms. It may
// run again in a later term.
func (l *Leader) Run(ctx context.Context) {
	t := &term{Leader: l, start: time.Now()}
	var wg sync.WaitGroup
	wg.Go(func() { t.judge(ctx) })
	wg.Go(func() { t.keepRoles(ctx) })
	wg.Go(func() { t.sweep(ctx) })
	wg.Go(func() { t.keepMaintenance(ctx) })
	wg.Go(func() { t.endRemovals(ctx) })
	wg.Go(func() { t.keepCertificate(ctx) })
	wg.Go(func() { t.keepWarnings(ctx) })
	wg.Wait()
}

// A term is one time of leading.
type term struct {
	*Leader
	start time.Time // monotonic
}

// propose makes one change. It fails also when the outcome is unknown: whoever calls
// it looks at the state again anyway.
func (t *term) propose(ctx context.Context, kind string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, t.set.ChangeTimeout)
	defer cancel()
	_, err := propose(ctx, t.store, kind, t.now(), nil, body)
	return err
}

// silence is how long a member has not answered in this term. Who was not heard at all
// is silent since this leader first knew it, so that a new leader gives everybody a
// full threshold.
func (t *term) silence(id string, known time.Time) (d time.Duration, heard bool) {
	if ago, ever := t.raft.LastAnswer(id); ever && ago <= time.Since(t.start) {
		return ago, true
	}
	return time.Since(known), false
}

// acquaintances remembers since when, in this term, each member is known.
type acquaintances map[string]time.Time

// meet returns since when id is known, from now if it was not.
func (a acquaintances) meet(id string) time.Time {
	at, ok := a[id]
	if !ok {
		at = time.Now()
		a[id] = at
	}
	return at
}

// keepOnly forgets who is not among members.
func (a acquaintances) keepOnly(members []*state.Member) {
	for id := range a {
		if !slices.ContainsFunc(members, func(m *state.Member) bool { return m.ID == id }) {
			delete(a, id)
		}
	}
}

// sleep waits for d, or wake if it is not nil, and tells whether ctx goes on.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// keepRoles plans roles and makes Raft's configuration follow them. Both are decided
// from the same look at the members, roles first: a member that dies on its way to a
// vote is replaced in the plan before Raft is touched.
func (t *term) keepRoles(ctx context.Context) {
	for {
		// In this order: a server is added after its row, so one without a row in a later
		// view has lost it.
		servers := t.raft.Servers()
		view := t.store.Local()
		if wait := t.roleStep(ctx, view, servers); !sleep(ctx, wait, view.WatchMembers()) {
			return
		}
	}
}

// roleStep makes one change, if one is due, and tells how long to wait for news before
// the next look; 0 means not at all.
func (t *term) roleStep(ctx context.Context, view *raftstore.View, servers []state.Server) time.Duration {
	if len(servers) == 0 || view.Cluster().Leader != t.store.ID() {
		return t.set.RetryInterval // not leading any more, or closing
	}
	members := t.candidates(view, servers)
	idle := t.set.PlanInterval
	if slices.ContainsFunc(members, func(c Candidate) bool { return c.Online && !c.Ready }) {
		if time.Since(t.start) < t.set.SettleTime {
			return t.set.CatchUpInterval
		}
		idle = t.set.CatchUpInterval
	}
	if changes := Plan(members, targets(view.View)); len(changes) > 0 {
		return t.assign(ctx, view, changes)
	}
	step, ok := nextStep(seats(view.View, servers, members))
	if !ok {
		return idle
	}
	return t.take(ctx, view, step)
}

func targets(view *state.View) Targets {
	values := view.Config()
	return Targets{
		Voters:  int(config.GetInt(values, "cluster.max_voters")),
		Standby: int(config.GetInt(values, "cluster.max_standby")),
	}
}

// assign writes roles into the state, which wakes the loop again.
func (t *term) assign(ctx context.Context, view *raftstore.View, changes []state.RoleChange) time.Duration {
	if err := t.propose(ctx, state.KindMemberRole, state.MemberRole{Changes: changes}); err != nil {
		if ctx.Err() == nil {
			t.log.Warn("Database roles were not changed; trying again", "err", err)
		}
		return t.set.RetryInterval
	}
	for _, c := range changes {
		t.log.Info("Database role changed", "member", memberName(view, c.ID), "role", c.Role)
	}
	return t.set.RetryInterval // woken at once by the change itself
}

// take makes one change of Raft's configuration.
func (t *term) take(ctx context.Context, view *raftstore.View, step Step) time.Duration {
	stepCtx, cancel := context.WithTimeout(ctx, t.set.ChangeTimeout)
	defer cancel()
	var err error
	switch step.Kind {
	case StepAdd:
		err = t.raft.AddNonvoter(stepCtx, step.ID)
	case StepPromote:
		err = t.raft.Promote(stepCtx, step.ID)
	case StepDemote:
		err = t.raft.Demote(stepCtx, step.ID)
	case StepRemove:
		err = t.raft.Remove(stepCtx, step.ID)
	case StepTransfer:
		err = t.raft.TransferLeadership(stepCtx, step.ID)
	}
	switch {
	case ctx.Err() != nil: // the next leader looks again
		return t.set.RetryInterval
	case err != nil:
		t.log.Warn("Raft's configuration was not changed; trying again", "step", step.Kind, "member", memberName(view, step.ID), "err", err)
		return t.set.RetryInterval
	}
	t.log.Info("Raft's configuration changed", "step", step.Kind, "member", memberName(view, step.ID))
	return 0
}

// memberName is what people know a member by; the ID if it is not there any more.
func memberName(view *raftstore.View, id string) string {
	if m, ok := view.Member(id); ok && m.Name != "" {
		return m.Name
	}
	return id
}

// candidates gathers the active members, as this leader sees them, for the planner.
func (t *term) candidates(view *raftstore.View, servers []state.Server) []Candidate {
	return candidates(view.View, servers, t.store.ID(), func(id string) bool {
		return t.answers(id) && t.raft.CaughtUp(id)
	})
}

// candidates joins what the state and Raft say of each active member. ready tells
// whether a member that is online may be given a role.
func candidates(view *state.View, servers []state.Server, leader string, ready func(id string) bool) []Candidate {
	voter := make(map[string]bool, len(servers))
	for _, s := range servers {
		voter[s.ID] = s.Voter
	}
	var out []Candidate
	for _, m := range view.Members() {
		if m.Fenced != 0 {
			continue // of an earlier incarnation of the cluster: it can hold no role
		}
		c := Candidate{
			ID:     m.ID,
			Number: m.Number,
			Domain: m.FailureDomain,
			Role:   m.Role,
			Voter:  voter[m.ID],
			Leader: m.ID == leader,
			Online: !m.Offline || m.ID == leader,
			Client: slices.Contains(m.Roles, api.RoleDatabaseClient),

			Evacuated: m.Maintenance == state.MaintenanceEvacuating || m.Maintenance == state.MaintenanceEvacuated,
			Stopping:  m.Stopping,
			Leaving:   m.Removal != nil,
			Fenced:    m.Fenced != 0,
		}
		c.Ready = c.Leader || c.Online && ready(m.ID)
		out = append(out, c)
	}
	return out
}

// rolesSettled tells whether nothing is left to do in view for the planner and for
// what follows it, provided that all members that are online have the log.
func rolesSettled(view *state.View) bool {
	servers := view.Servers()
	all := candidates(view, servers, view.Cluster().Leader, func(string) bool { return true })
	if len(Plan(all, targets(view))) > 0 {
		return false
	}
	_, more := nextStep(seats(view, servers, all))
	return !more
}

// answers tells whether a member answered just now.
func (t *term) answers(id string) bool {
	silent, heard := t.silence(id, t.start)
	return heard && silent <= t.set.AnswerWithin
}

// seats joins what Raft and the state say of each server, by number; servers that are
// no members come first.
func seats(view *state.View, servers []state.Server, members []Candidate) []Seat {
	inRaft := make(map[string]state.Server, len(servers))
	var out []Seat
	for _, s := range servers {
		inRaft[s.ID] = s
		if _, known := view.Member(s.ID); !known {
			out = append(out, Seat{ID: s.ID, InRaft: true, Voter: s.Voter})
		}
	}
	for _, c := range members {
		_, in := inRaft[c.ID]
		out = append(out, Seat{
			ID: c.ID, Number: c.Number, Known: !c.Fenced, InRaft: in, Voter: c.Voter,
			Wanted: c.Role == state.RoleVoter && !c.Fenced, Leader: c.Leader, Online: c.Online, Ready: c.Ready,
			Yields: c.yields() || c.Leaving,
		})
	}
	for _, m := range view.Joining() {
		s, in := inRaft[m.ID]
		out = append(out, Seat{ID: m.ID, Number: m.Number, Known: true, Joining: true, InRaft: in, Voter: s.Voter})
	}
	return out
}

package entities

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

const (
	// stepTime bounds one step on this machine, such as making a file system.
	stepTime = 3 * time.Minute
	// reportTime bounds one report to the cluster.
	reportTime = 10 * time.Second
	// retryTime is how long the applier waits after something that time may mend: a report
	// without a quorum, or a disk that is not there.
	retryTime = 5 * time.Second
)

// Store is the replicated store, as this package uses it.
type Store interface {
	// ID is this server's member ID; another one after a join.
	ID() string
	// Local is what this member knows; nil before the store is open.
	Local() *raftstore.View
	Read(ctx context.Context) (*raftstore.View, error)
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
}

// An Applier makes what the cluster wants true on this server, and reports what became of it.
type Applier struct {
	store   Store
	machine *Machine
	// owners are the IDs of the replica in use and of one that a join is filling: what was made
	// in another name is to go.
	owners func() []string
	now    func() time.Time
	log    *slog.Logger

	kicks   chan struct{}
	started map[string]bool // by ID: usable since this process began
	failing map[string]bool // by ID: what belonged to another replica and could not be removed
}

// NewApplier returns an Applier; Run makes it work.
func NewApplier(store Store, machine *Machine, owners func() []string, now func() time.Time, log *slog.Logger) *Applier {
	return &Applier{
		store: store, machine: machine, owners: owners, now: now, log: log,
		kicks: make(chan struct{}, 1), started: map[string]bool{}, failing: map[string]bool{},
	}
}

// Kick lets the applier look again: the replica was swapped, or a join has ended.
func (a *Applier) Kick() {
	select {
	case a.kicks <- struct{}{}:
	default:
	}
}

// Run works until ctx ends. It looks, does what there is to do, and looks again.
func (a *Applier) Run(ctx context.Context) {
	for ctx.Err() == nil {
		view := a.store.Local()
		var retry <-chan time.Time
		if a.pass(ctx, view) {
			retry = time.After(retryTime)
		}
		select {
		case <-view.WatchEntities():
		case <-a.kicks:
		case <-retry:
		case <-ctx.Done():
		}
	}
}

// pass does all that is to be done, and tells whether something must be tried again later.
func (a *Applier) pass(ctx context.Context, view *raftstore.View) (again bool) {
	// The notes first: a join notes itself before anything that is made for it.
	notes := a.machine.cfg.Notes.Made()
	for _, s := range plan(view, a.store.ID(), a.owners(), notes, a.started) {
		if ctx.Err() != nil {
			return false
		}
		if err := a.carryOut(ctx, s); err != nil {
			again = true
		}
	}
	return again
}

// What a step does.
type verb int

const (
	doClear  verb = iota + 1 // remove what belongs to no replica of this server
	doRemove                 // remove what the cluster has deleted, and report
	doMake                   // make it, and report
	doChange                 // make it what the row says now, and report
	doStart                  // make it usable after a start; report if that does not work
	doReport                 // it is as the row wants it, and the row does not know
)

// A step is one thing to do.
type step struct {
	do   verb
	row  *state.Entity      // nil for doClear
	part state.EntityMember // this member's, before the step
	note localstore.Made    // what is there; zero if nothing
	want localstore.Made    // what is to be there
}

// plan says what to do, in order: first what is to go, then pools, networks and the volumes on
// them. It is a pure function.
func plan(view *raftstore.View, self string, owners []string, notes []localstore.Made, started map[string]bool) []step {
	noted := make(map[string]localstore.Made, len(notes))
	var clears, removes, rest []step
	for _, n := range notes {
		noted[n.ID] = n
		if !slices.Contains(owners, n.Owner) {
			clears = append(clears, step{do: doClear, note: n})
		}
	}
	for _, kind := range kinds() {
		for _, row := range view.Entities(kind) {
			part, mine := row.Members[self]
			if !mine || !row.Made {
				continue
			}
			note := noted[row.ID]
			do, any := decide(row, part, note, started[row.ID])
			if !any {
				continue
			}
			s := step{do: do, row: row, part: part, note: note, want: wanted(row, part, self)}
			if do == doRemove {
				removes = append(removes, s)
			} else {
				rest = append(rest, s)
			}
		}
	}
	slices.SortStableFunc(clears, func(x, y step) int { return lastFirst(x.note, y.note) })
	slices.Reverse(removes)
	return slices.Concat(clears, removes, rest)
}

// kinds are in the order in which they are made.
func kinds() []string { return []string{state.EntityPool, state.EntityNetwork, state.EntityVolume} }

// lastFirst orders what is to go: a volume goes before the pool that it lies on.
func lastFirst(a, b localstore.Made) int {
	return cmp.Compare(slices.Index(kinds(), b.Kind), slices.Index(kinds(), a.Kind))
}

// decide says what to do about one row.
func decide(row *state.Entity, part state.EntityMember, note localstore.Made, started bool) (verb, bool) {
	settled := part.Revision == row.Revision
	switch {
	case row.Deleting:
		return doRemove, !(settled && part.Status == state.EntityErrored)
	case settled && part.Status == state.EntityErrored:
		return 0, false // until somebody asks for another try
	case settled && part.Status != state.EntityPending:
		return doStart, !started || part.Status == state.EntityUnavailable
	case note.ID == "" || !note.Done:
		return doMake, true
	case note.Revision == row.Revision:
		return doReport, true
	}
	return doChange, true
}

// wanted is what the row wants on this member.
func wanted(row *state.Entity, part state.EntityMember, self string) localstore.Made {
	return localstore.Made{
		ID: row.ID, Owner: self, Kind: row.Kind, Project: row.Project, Pool: row.Pool, Name: row.Name, Type: row.Type,
		Config: merged(row.Config, part.Config), Revision: row.Revision,
	}
}

// carryOut does a step. An error means that it is to be tried again by itself.
func (a *Applier) carryOut(ctx context.Context, s step) error {
	work, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	switch s.do {
	case doClear:
		return a.drop(work, s.note)
	case doRemove:
		return a.delete(ctx, work, s)
	case doMake:
		made, err := a.machine.make(work, s.want)
		return a.settle(ctx, s, made, err)
	case doChange:
		made, err := a.change(work, s)
		return a.settle(ctx, s, made, err)
	case doStart:
		return a.start(ctx, work, s)
	}
	return a.settle(ctx, s, s.note, nil)
}

// change makes a thing what its row says now. It must be usable for that.
func (a *Applier) change(ctx context.Context, s step) (localstore.Made, error) {
	if !a.started[s.row.ID] {
		if err := a.machine.start(ctx, s.note); err != nil {
			return s.note, err
		}
	}
	return a.machine.change(ctx, s.note, s.want)
}

// drop removes what belonged to a replica that this server has given up. Nobody can be told if
// that fails but the log.
func (a *Applier) drop(ctx context.Context, note localstore.Made) error {
	err := a.machine.remove(ctx, note)
	switch {
	case err == nil:
		delete(a.failing, note.ID)
		a.log.Info("removed what belonged to this server before", "kind", note.Kind, "name", note.Name)
	case !a.failing[note.ID]:
		a.failing[note.ID] = true
		a.log.Warn("what belonged to this server before could not be removed; it is tried again", "kind", note.Kind, "name", note.Name, "err", err)
	}
	return err
}

// delete removes what the cluster has deleted.
func (a *Applier) delete(ctx, work context.Context, s step) error {
	if s.note.ID != "" {
		if err := a.machine.remove(work, s.note); err != nil {
			if ctx.Err() != nil {
				return err
			}
			a.log.Warn("could not be removed", "kind", s.row.Kind, "name", s.row.Name, "err", err)
			return a.report(ctx, s.row, state.EntityReport{Status: state.EntityErrored, Reason: reasonOf(err)})
		}
	}
	delete(a.started, s.row.ID)
	return a.report(ctx, s.row, state.EntityReport{Status: state.EntityPending, Gone: true})
}

// settle reports what became of a step. What was interrupted by the daemon's own end is not
// reported: it is done again at the next start.
func (a *Applier) settle(ctx context.Context, s step, made localstore.Made, err error) error {
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		a.log.Warn("could not be made", "kind", s.row.Kind, "name", s.row.Name, "err", err)
		return a.report(ctx, s.row, state.EntityReport{Status: state.EntityErrored, Reason: reasonOf(err)})
	}
	a.started[s.row.ID] = true
	a.log.Info("made", "kind", s.row.Kind, "name", s.row.Name, "revision", s.row.Revision)
	return a.report(ctx, s.row, state.EntityReport{Status: state.EntityCreated, Config: ownKeys(s.row, made.Config)})
}

// start makes what was made usable again. The cluster is told only when that changes something.
func (a *Applier) start(ctx, work context.Context, s step) error {
	note := s.note
	if note.ID == "" { // the notes were lost; the row says that it was made
		note = s.want
		note.Done = true
		if err := a.machine.cfg.Notes.SetMade(note); err != nil {
			return err
		}
	}
	if err := a.machine.start(work, note); err != nil {
		if ctx.Err() != nil {
			return err
		}
		if reason := reasonOf(err); s.part.Status != state.EntityUnavailable || s.part.Reason != reason {
			a.log.Warn("cannot be used at present; it is tried again", "kind", s.row.Kind, "name", s.row.Name, "err", err)
			if err := a.report(ctx, s.row, state.EntityReport{Status: state.EntityUnavailable, Reason: reason}); err != nil {
				return err
			}
		}
		return err
	}
	a.started[s.row.ID] = true
	if s.part.Status != state.EntityUnavailable {
		return nil
	}
	return a.report(ctx, s.row, state.EntityReport{Status: state.EntityCreated})
}

// report tells the cluster what became of an entity on this member.
func (a *Applier) report(ctx context.Context, row *state.Entity, body state.EntityReport) error {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	body.ID, body.MemberID, body.Revision = row.ID, a.store.ID(), row.Revision
	if _, err := propose(ctx, a.store, state.KindEntityReport, a.now(), nil, body); err != nil {
		a.log.Debug("a report did not reach the cluster; it is tried again", "kind", row.Kind, "name", row.Name, "err", err)
		return err
	}
	return nil
}

// ownKeys are the keys of a config that are this member's own.
func ownKeys(row *state.Entity, config map[string]string) map[string]string {
	own := maps.Clone(config)
	maps.DeleteFunc(own, func(key, _ string) bool { return !memberSpecific(row.Kind, row.Type, key) })
	return own
}

// reasonOf is a failure in words that fit into a row: the message, and what to do about it.
func reasonOf(err error) string {
	text := err.Error()
	var e *api.Error
	if errors.As(err, &e) && e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return state.ShortReason(text)
}

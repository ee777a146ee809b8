package membership

import (
	"context"
	"errors"
	"slices"
	"time"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// Evacuate takes the member with that ID out of service, online or not: new work goes
// elsewhere, and another member gets its database role if one can take it. progress is
// told what happens, at last what is left. It fails with Conflict if the member is
// evacuated or on its way there or back, and with MemberNotFound. What is cut off in
// between is ended by the leader. It blocks until done, at most for MaintenanceTimeout: the
// leader ends what takes longer, so there is nothing left to wait for.
func (s *Admissions) Evacuate(ctx context.Context, id string, progress func(string), requestor *api.EventRequestor) error {
	ctx, cancel := context.WithTimeout(ctx, s.set.MaintenanceTimeout)
	defer cancel()
	if err := s.maintain(ctx, id, "", state.MaintenanceEvacuating, requestor); err != nil {
		return err
	}
	progress("Handing over the database role")
	kept := s.awaitHandover(ctx, id)
	if err := s.maintain(ctx, id, state.MaintenanceEvacuating, state.MaintenanceEvacuated, requestor); err != nil {
		return unfinished(err)
	}
	progress(kept)
	s.log.Info("Member evacuated", "member", id, "left", kept)
	return nil
}

// Restore takes an evacuated member back into service. It fails, and ends, as Evacuate does.
func (s *Admissions) Restore(ctx context.Context, id string, progress func(string), requestor *api.EventRequestor) error {
	ctx, cancel := context.WithTimeout(ctx, s.set.MaintenanceTimeout)
	defer cancel()
	if err := s.maintain(ctx, id, state.MaintenanceEvacuated, state.MaintenanceRestoring, requestor); err != nil {
		return err
	}
	progress("Taking the member back into service")
	if err := s.maintain(ctx, id, state.MaintenanceRestoring, "", requestor); err != nil {
		return unfinished(err)
	}
	progress("")
	s.log.Info("Member restored", "member", id)
	return nil
}

// unfinished says what becomes of an evacuation or restoration that has begun, when the cluster
// could not be told of its end.
func unfinished(err error) error {
	if !errors.Is(err, api.NoQuorum) && !errors.Is(err, api.OutcomeUnknown) {
		return err
	}
	return api.AsError(err).WithHint("it has begun, and the leader ends it within a minute or so; see: incus cluster list")
}

func (s *Admissions) maintain(ctx context.Context, id, from, to string, requestor *api.EventRequestor) error {
	return s.propose(ctx, state.KindMemberMaintenance, requestor, state.MemberMaintenance{ID: id, From: from, To: to}, nil)
}

// awaitHandover waits, within a bound, until a member that is being evacuated neither
// votes nor leads, or nobody can take that. It says what is left; "" if nothing is.
func (s *Admissions) awaitHandover(ctx context.Context, id string) string {
	ctx, cancel := context.WithTimeout(ctx, s.set.HandoverTimeout)
	defer cancel()
	for {
		view, err := s.store.Read(ctx)
		switch {
		case ctx.Err() != nil:
			return "It still has its database role: no other member has taken it yet"
		case err != nil:
			return "Whether it still has its database role is not known: " + err.Error()
		case mayStop(view, id) && view.IsVoter(id):
			return "It keeps its vote: no other member can take it"
		case mayStop(view, id):
			return ""
		}
		sleep(ctx, handoverPoll, view.WatchMembers())
	}
}

// CheckEvacuation refuses modes of evacuation that do not exist, or not in a cluster of
// that many members.
func CheckEvacuation(mode string, members int) error {
	if !slices.Contains([]string{"", "auto", "migrate", "live-migrate", "refresh-migrate", "stop", "stateful-stop", "force-stop"}, mode) {
		return api.Errorf(api.BadRequest, "Invalid evacuation mode %q", mode).
			WithHint("modes are auto, migrate, live-migrate, refresh-migrate, stop, stateful-stop and force-stop")
	}
	if members == 1 && mode != "" && mode != "auto" && mode != "stop" {
		return api.Errorf(api.BadRequest, "Can't perform %q evacuation on a single node cluster", mode).WithHint("use mode stop")
	}
	return nil
}

// CheckRestoration refuses modes of restoration that do not exist.
func CheckRestoration(mode string) error {
	if mode != "" && mode != "skip" {
		return api.Errorf(api.BadRequest, "Invalid restore mode %q", mode).WithHint("the only mode is skip")
	}
	return nil
}

// A patrol is what the leader remembers of members in maintenance, and of those that may
// have to be healed. Its times are monotonic, and of this term.
type patrol struct {
	// known is since when each member is known, half what state each member on its way is in,
	// and away since when it was seen offline by a leader that had its quorum.
	known, away acquaintances
	half        map[string]halfway
}

// halfway is a state between two, and since when it was seen.
type halfway struct {
	state string
	since time.Time
}

// keepMaintenance ends evacuations and restorations that were cut off, and evacuates
// members that stay offline for longer than cluster.healing_threshold.
func (t *term) keepMaintenance(ctx context.Context) {
	p := &patrol{known: make(acquaintances), away: make(acquaintances), half: make(map[string]halfway)}
	for {
		for _, due := range t.maintenanceDue(t.store.Local(), p) {
			if err := t.propose(ctx, state.KindMemberMaintenance, due); err != nil {
				if ctx.Err() == nil && !errors.Is(err, api.Conflict) { // else the member did it itself, or is back
					t.log.Warn("A member's maintenance was not ended; trying again", "member", due.ID, "err", err)
				}
			} else {
				t.log.Warn("Member's state of maintenance set by the leader", "member", due.ID, "state", due.To, "heal", due.Heal)
			}
		}
		if !sleep(ctx, t.set.MaintenanceInterval, nil) {
			return
		}
	}
}

// maintenanceDue lists what the leader has to do now.
func (t *term) maintenanceDue(view *raftstore.View, p *patrol) []state.MemberMaintenance {
	members := view.Members()
	p.known.keepOnly(members)
	p.away.keepOnly(members)
	heal := config.GetDuration(view.Config(), "cluster.healing_threshold")
	contact := t.hasContact()
	var due []state.MemberMaintenance
	for _, m := range members {
		if to, overdue := p.overdue(m, t.set.MaintenanceTimeout); overdue {
			due = append(due, state.MemberMaintenance{ID: m.ID, From: m.Maintenance, To: to})
		}
		silent, _ := t.silence(m.ID, p.known.meet(m.ID))
		if !contact || !m.Offline || m.Maintenance != "" || m.ID == t.store.ID() {
			delete(p.away, m.ID)
		} else if away := time.Since(p.away.meet(m.ID)); heal > 0 && silent >= heal && away >= t.set.HealConfirm {
			due = append(due, state.MemberMaintenance{ID: m.ID, To: state.MaintenanceEvacuated, Heal: true})
		}
	}
	return due
}

// overdue tells to which end m is to be taken, if it has been halfway for longer than
// limit: whoever was at it is gone.
func (p *patrol) overdue(m *state.Member, limit time.Duration) (to string, overdue bool) {
	ends := map[string]string{state.MaintenanceEvacuating: state.MaintenanceEvacuated, state.MaintenanceRestoring: ""}
	to, on := ends[m.Maintenance]
	if !on {
		delete(p.half, m.ID)
		return "", false
	}
	h := p.half[m.ID]
	if h.state != m.Maintenance {
		h = halfway{m.Maintenance, time.Now()}
		p.half[m.ID] = h
	}
	return to, time.Since(h.since) >= limit
}

// hasContact tells whether a majority of the voters has answered just now. A leader that
// was cut off, or stopped for a while, finds everybody silent, and is wrong about that.
func (t *term) hasContact() bool {
	voters, answering := 0, 0
	for _, s := range t.raft.Servers() {
		if !s.Voter {
			continue
		}
		voters++
		if s.ID == t.store.ID() || t.answers(s.ID) {
			answering++
		}
	}
	return majority(answering, voters)
}

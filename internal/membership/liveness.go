package membership

import (
	"context"
	"fmt"
	"slices"
	"time"

	"incusd/internal/config"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// judge keeps what the state says of each member's liveness equal to what this leader
// sees. Nothing is written while nothing changes.
func (t *term) judge(ctx context.Context) {
	known := make(acquaintances)
	for {
		wait := t.set.LivenessInterval
		view := t.store.Local()
		if changes := t.livenessChanges(view, known); len(changes) > 0 {
			if err := t.propose(ctx, state.KindMemberLiveness, state.MemberLiveness{Changes: changes}); err != nil {
				if ctx.Err() == nil {
					t.log.Warn("What members are online was not written; trying again", "err", err)
				}
				wait = t.set.RetryInterval
			} else {
				t.logLiveness(view, changes)
			}
		}
		if !sleep(ctx, wait, t.raft.Answered()) {
			return
		}
	}
}

// livenessChanges compares all active members with what the state says of them.
func (t *term) livenessChanges(view *raftstore.View, known acquaintances) []state.LivenessChange {
	members := slices.DeleteFunc(view.Members(), func(m *state.Member) bool { return m.Fenced != 0 })
	known.keepOnly(members)
	threshold := config.GetDuration(view.Config(), "cluster.offline_threshold")
	var changes []state.LivenessChange
	for _, m := range members {
		silent, heard := t.silence(m.ID, known.meet(m.ID))
		if m.ID == t.store.ID() {
			silent, heard = 0, true
		}
		if c, ok := judgeMember(m, silent, heard, threshold, t.now()); ok {
			changes = append(changes, c)
		}
	}
	return changes
}

// judgeMember decides about one member: it is offline after threshold without an
// answer, and online again with the first answer that this leader gets.
func judgeMember(m *state.Member, silent time.Duration, heard bool, threshold time.Duration, now time.Time) (state.LivenessChange, bool) {
	switch {
	case !m.Offline && silent >= threshold:
		return state.LivenessChange{
			ID:      m.ID,
			Offline: true,
			Since:   now.Add(-silent).UTC(),
			Reason:  fmt.Sprintf("no answer to the leader for %s", silent.Round(time.Second)),
		}, true
	case m.Offline && heard && silent < threshold:
		return state.LivenessChange{ID: m.ID, Since: now.UTC()}, true
	}
	return state.LivenessChange{}, false
}

func (t *term) logLiveness(view *raftstore.View, changes []state.LivenessChange) {
	for _, c := range changes {
		if c.Offline {
			t.log.Warn("Member is offline", "member", memberName(view, c.ID), "reason", c.Reason)
		} else {
			t.log.Info("Member is online", "member", memberName(view, c.ID))
		}
	}
}

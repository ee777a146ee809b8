package membership

import (
	"context"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// sweep ends what ran out: tokens, claims, the memory of ended tokens and resolved warnings, and joining
// members that were lost. An idle cluster writes nothing.
//
// It does not watch the state: whether a token has expired is decided when it is used,
// and the sweep only makes that visible.
func (t *term) sweep(ctx context.Context) {
	known := make(acquaintances)
	for {
		due, next := t.inspect(t.store.Local(), known)
		if due != nil {
			if err := t.propose(ctx, state.KindLeaderSweep, due); err != nil {
				if ctx.Err() == nil {
					t.log.Warn("Expired tokens and joins were not removed; trying again", "err", err)
				}
			} else if len(due.Lost) > 0 {
				t.log.Warn("Joins that were never finished were removed", "members", due.Lost)
			}
		}
		wait := t.set.SweepInterval
		if !next.IsZero() {
			// The sweep is stamped when it is appended: never a moment too early.
			wait = min(wait, max(next.Sub(t.now()), 0)+time.Millisecond)
		}
		if !sleep(ctx, wait, nil) {
			return
		}
	}
}

// inspect returns the sweep that is due, nil if none is, and the next known deadline.
func (t *term) inspect(view *raftstore.View, known acquaintances) (due *state.LeaderSweep, next time.Time) {
	d := deadlines{now: t.now()}
	for _, token := range view.Tokens() {
		d.token(token)
	}
	for _, w := range view.Warnings() {
		if w.Status == api.WarningResolved {
			d.add(w.Updated.Add(state.ResolvedTime))
		}
	}
	joining := view.Joining()
	known.keepOnly(joining)
	var lost []string
	for _, m := range joining {
		silent, _ := t.silence(m.ID, known.meet(m.ID))
		if !m.JoinDeadline.After(d.now) && silent >= t.set.LostAfter {
			lost = append(lost, m.ID)
			d.due = true
		}
	}
	if !d.due {
		return nil, d.next
	}
	return &state.LeaderSweep{Lost: lost}, d.next
}

// deadlines finds out whether one of many has passed, and the next if none has.
type deadlines struct {
	now, next time.Time
	due       bool
}

func (d *deadlines) add(at time.Time) {
	switch {
	case at.IsZero():
	case !at.After(d.now):
		d.due = true
	case d.next.IsZero() || at.Before(d.next):
		d.next = at
	}
}

func (d *deadlines) token(t *state.Token) {
	switch {
	case t.Ended != "":
		d.add(t.EndedAt.Add(state.TombstoneTime))
	case t.Admitted(): // ends with its join
	default:
		d.add(t.ExpiresAt)
		if t.ClaimedBy != "" {
			d.add(t.ClaimUntil)
		}
	}
}

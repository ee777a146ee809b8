package membership

import (
	"context"
	"fmt"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// A LeadingStore is the replicated store with Raft, on the member that leads.
type LeadingStore interface {
	LeaderStore
	Raft
}

// Transfer hands leadership to the member with the ID to, or to the best one if that is
// empty, and returns who leads then; that member was seen to lead. It is harmless if the
// member leads already. It fails with CannotLead or MemberOffline, which name what speaks
// against the member; with Unavailable if leadership stayed; and with a *NotLeaderError
// on another member than the leader. It blocks until done or ctx ends.
func Transfer(ctx context.Context, store LeadingStore, set Settings, to string) (leader string, err error) {
	set = set.withDefaults()
	view := store.Local()
	if view.Leader != store.ID() {
		return "", &NotLeaderError{ID: view.Leader}
	}
	if to == store.ID() {
		return to, nil
	}
	to, err = awaitNext(ctx, store, set, to)
	if err != nil {
		return "", err
	}
	if err := store.TransferLeadership(ctx, to); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("transfer leadership: %w", err)
		}
		return "", api.Errorf(api.Unavailable, "Leadership was not transferred to cluster member %q: %v", memberName(store.Local(), to), err).
			WithHint("see who leads: incus cluster list")
	}
	return to, nil
}

// awaitNext chooses who shall lead next: the member with the ID to, or the best one if
// that is empty. A leader that is new has not heard of all members yet, and a member may
// lack the newest entries for a moment: awaitNext waits for that, for at most patience.
func awaitNext(ctx context.Context, store LeadingStore, set Settings, to string) (next string, err error) {
	const (
		patience = 2 * time.Second
		interval = 10 * time.Millisecond
	)
	for start := time.Now(); ; {
		view := store.Local()
		members := candidates(view.View, store.Servers(), store.ID(), func(id string) bool {
			silent, heard := store.LastAnswer(id)
			return heard && silent <= set.AnswerWithin && store.CaughtUp(id)
		})
		next, soon, err := chooseNext(members, to, memberName(view, to))
		if err == nil || !soon || time.Since(start) >= patience || !sleep(ctx, interval, nil) {
			return next, err
		}
	}
}

// chooseNext chooses among members who shall lead next: the one with the ID to, called
// name, or the best one if to is empty. soon tells of a refusal that it may be over when
// a member answers.
func chooseNext(members []Candidate, to, name string) (next string, soon bool, err error) {
	if to != "" {
		soon, err = mayLead(members, to, name)
		return to, soon, err
	}
	if next = successor(members); next != "" {
		return next, false, nil
	}
	for i := range members {
		soon = soon || members[i].Online && !members[i].Ready
		members[i].Ready = members[i].Online
	}
	return "", soon && successor(members) != "",
		api.Errorf(api.CannotLead, "No other member can lead now: none votes, is online and has the log")
}

// successor is the voter that shall lead after the leader, "" if none can: one that is
// ready, and best one that will keep its vote.
func successor(members []Candidate) string {
	members = inOrder(members)
	best := ""
	for _, m := range members {
		switch {
		case m.Leader || !m.Voter || !m.Ready || m.Fenced:
		case m.steady() && m.Role == state.RoleVoter:
			return m.ID
		case best == "":
			best = m.ID
		}
	}
	return best
}

// mayLead tells what speaks against the member id, called name, as the next leader. soon
// tells that this is over when the member answers.
func mayLead(members []Candidate, id, name string) (soon bool, err error) {
	for _, m := range inOrder(members) {
		switch {
		case m.ID != id:
			continue
		case against(m) != "":
			return false, api.Errorf(api.CannotLead, "Cluster member %q cannot lead: %s", name, against(m))
		case !m.Online:
			return false, api.Errorf(api.MemberOffline, "Cluster member %q is offline", name)
		case !m.Voter || m.Role != state.RoleVoter:
			return false, api.Errorf(api.CannotLead, "Cluster member %q cannot lead: it has no vote", name)
		case !m.Ready:
			return true, api.Errorf(api.CannotLead, "Cluster member %q cannot lead now: it does not answer, or does not have the whole log yet", name)
		}
		return false, nil
	}
	return false, api.Errorf(api.MemberNotFound, "Cluster member not found")
}

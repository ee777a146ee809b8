package raftstore

import (
	"errors"
	"fmt"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// A Lineage is which of a cluster's lives a replica is of. A recovery begins a new one, and
// members of an earlier one are shut out: their entries are not those of the recovered cluster.
// Both ends of each connection say theirs.
type Lineage struct {
	// Incarnation is 0 for a replica that is still empty.
	Incarnation int `json:"incarnation,omitempty"`
	// Recovery is the ID of the recovery that began it, empty for the first incarnation.
	Recovery string `json:"recovery,omitempty"`
	// Before are the IDs of the recoveries that began the incarnations before this one, latest
	// first, as far back as they are remembered. A number says how often a cluster was recovered;
	// only they say from which lineage it descends.
	Before []string `json:"before,omitempty"`
}

// kin is how another lineage relates to one's own.
type kin int

const (
	kinSame kin = iota
	// kinOlder is one that a recovery, known here, has ended.
	kinOlder
	// kinNewer is one that descends from this one by recoveries that are not known here.
	kinNewer
	// kinRival is one of which neither descends from the other, or from which it cannot be told.
	kinRival
)

// of tells what other is to l. An empty replica goes with every lineage: it has nothing that
// could differ.
func (l Lineage) of(other Lineage) kin {
	switch {
	case l.Incarnation == 0, other.Incarnation == 0:
		return kinSame
	case other.Incarnation < l.Incarnation && l.descends(other):
		return kinOlder
	case other.Incarnation > l.Incarnation && other.descends(l):
		return kinNewer
	case other.Incarnation == l.Incarnation && other.Recovery == l.Recovery:
		return kinSame
	}
	return kinRival
}

// descends tells whether l is known to have come of other, which is of an earlier incarnation. All
// lineages of a cluster come of its first incarnation.
func (l Lineage) descends(other Lineage) bool {
	if other.Incarnation == 1 {
		return true
	}
	back := l.Incarnation - other.Incarnation - 1
	return other.Recovery != "" && back < len(l.Before) && l.Before[back] == other.Recovery
}

// heeds tells whether what other says of the end of a member counts for a replica of l: it does
// unless other may be one that a recovery has ended, or a rival. All descend from the first
// incarnation, so that a replica of it heeds every lineage.
func (l Lineage) heeds(other Lineage) bool {
	if l.Incarnation <= 1 {
		return true
	}
	k := l.of(other)
	return other.Incarnation != 0 && (k == kinSame || k == kinNewer)
}

// LineageOf is the lineage that view is of.
func LineageOf(view *state.View) Lineage {
	l := Lineage{Incarnation: view.Cluster().Incarnation}
	began := make(map[int]string)
	for _, r := range view.Recoveries() {
		began[r.Incarnation] = r.ID
	}
	l.Recovery = began[l.Incarnation]
	for n := l.Incarnation - 1; began[n] != ""; n-- {
		l.Before = append(l.Before, began[n])
	}
	return l
}

// lineage is this replica's: what its tables say, or what was noted while they are empty.
func (s *Store) lineage() Lineage {
	if l := LineageOf(s.fsm.state.View()); l.Incarnation != 0 {
		return l
	}
	return Lineage{Incarnation: s.cfg.Incarnation}
}

// fencedBy is what a member of an earlier lineage is told by one that knows the latest recovery.
func fencedBy(view *state.View) *api.Error {
	r, ok := view.Recovery()
	if !ok {
		return api.Errorf(api.MemberFenced, "This member was shut out by a recovery of its cluster")
	}
	return api.Errorf(api.MemberFenced, "This member was shut out when the cluster was recovered on member %q at %s, as incarnation %d",
		r.Name, r.At.Format(time.RFC3339), r.Incarnation)
}

// refuseRival is what a member says to another of which neither's lineage comes of the other's.
func refuseRival(own Lineage, view *state.View, other Lineage) *api.Error {
	here := own.String()
	if r, ok := view.Recovery(); ok {
		here = fmt.Sprintf("%s, from the copy of %q at %s", own, r.Name, r.At.Format(time.RFC3339))
	}
	return api.Errorf(api.MemberFenced, "The cluster was recovered twice, on members that did not know of each other: here as %s; there as %s", here, other).
		WithHint("both go on and keep all they have; choose one, and end the other as docs/recover.md says: incus cluster remove NAME, and on its last member incus admin cluster disable")
}

// judgeLineage decides what becomes of a connection between this member and another, known one.
// newer is set if it is this member that must stop. Rivals only refuse each other: which of them
// is to go on is for people to say.
func judgeLineage(own Lineage, view *state.View, other Lineage) (refusal *api.Error, newer bool) {
	switch own.of(other) {
	case kinOlder:
		return fencedBy(view), false
	case kinNewer:
		return api.Errorf(api.MemberFenced, "The cluster was recovered, as incarnation %d, without this member, which is of incarnation %d", other.Incarnation, own.Incarnation), true
	case kinRival:
		return refuseRival(own, view, other), false
	}
	return nil, false
}

func (l Lineage) String() string {
	if l.Recovery == "" {
		return fmt.Sprintf("incarnation %d", l.Incarnation)
	}
	return fmt.Sprintf("incarnation %d, recovery %.8s", l.Incarnation, l.Recovery)
}

// RefusedByNewer tells whether err is the refusal of a member, whose key was proved, that is of a
// later lineage than own.
func RefusedByNewer(err error, own Lineage) bool {
	var refused *refusedError
	return errors.As(err, &refused) && own.of(refused.Lineage) == kinNewer
}

// RefusedAsRemoved tells whether err is the refusal of a member, whose key was proved and whose
// lineage counts for own, that knows this server to be removed.
func RefusedAsRemoved(err error, own Lineage) bool {
	var refused *refusedError
	return errors.As(err, &refused) && refused.Removed != nil && own.heeds(refused.Lineage)
}

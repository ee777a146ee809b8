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
}

// kin is how another lineage relates to one's own.
type kin int

const (
	kinSame kin = iota
	// kinOlder is one that a recovery, known here, has ended.
	kinOlder
	// kinNewer is one that began with a recovery that is not known here.
	kinNewer
	// kinRival is one that began with another recovery of the same incarnation.
	kinRival
)

// of tells what other is to l. An empty replica goes with every lineage: it has nothing that
// could differ.
func (l Lineage) of(other Lineage) kin {
	switch {
	case l.Incarnation == 0, other.Incarnation == 0:
		return kinSame
	case other.Incarnation < l.Incarnation:
		return kinOlder
	case other.Incarnation > l.Incarnation:
		return kinNewer
	case other.Recovery != "" && l.Recovery != "" && other.Recovery != l.Recovery:
		return kinRival
	}
	return kinSame
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
	if r, ok := view.Recovery(); ok && r.Incarnation == l.Incarnation {
		l.Recovery = r.ID
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

// rivals is what two members say to each other that were recovered independently.
func rivals(own, other Lineage) *api.Error {
	return api.Errorf(api.MemberFenced, "The cluster was recovered twice as incarnation %d, on members that did not know of each other (recoveries %.8s and %.8s)",
		own.Incarnation, own.Recovery, other.Recovery).
		WithHint("keep one of the two, and run on the other: incus admin cluster reset")
}

// judgeLineage decides what becomes of a connection between this member and another, known one.
// newer is set if it is this member that must stop.
func judgeLineage(own Lineage, view *state.View, other Lineage) (refusal *api.Error, newer bool) {
	switch own.of(other) {
	case kinOlder:
		return fencedBy(view), false
	case kinNewer:
		return api.Errorf(api.MemberFenced, "The cluster was recovered, as incarnation %d, without this member, which is of incarnation %d", other.Incarnation, own.Incarnation), true
	case kinRival:
		return rivals(own, other), false
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

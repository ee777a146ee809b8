package membership

import "slices"

// A StepKind is a kind of change of Raft's configuration.
type StepKind int

// Kinds of steps.
const (
	// StepAdd makes a member a non-voter.
	StepAdd StepKind = iota + 1
	// StepPromote and StepDemote give and take a vote.
	StepPromote
	StepDemote
	// StepRemove takes a server out that is no member.
	StepRemove
	// StepTransfer hands leadership to another voter, so that the next leader can take
	// this one's vote: a leader never takes its own.
	StepTransfer
)

func (k StepKind) String() string {
	switch k {
	case StepAdd:
		return "add"
	case StepPromote:
		return "promote"
	case StepDemote:
		return "demote"
	case StepRemove:
		return "remove"
	case StepTransfer:
		return "transfer leadership"
	}
	return "none"
}

// A Step is one change of Raft's configuration, for one server.
type Step struct {
	Kind StepKind
	ID   string
}

// A Seat is a server or member as the reconciler sees it.
type Seat struct {
	ID     string
	Number int
	// Known servers have a member row, active or joining, that is not fenced. The others
	// must go.
	Known bool
	// Joining members are added when they say that they listen, and not before.
	Joining bool
	// InRaft and Voter are what Raft's configuration says.
	InRaft, Voter bool
	// Wanted members shall have a vote.
	Wanted bool
	Leader bool
	Online bool
	Ready  bool
	// Yields is set for members that shall not lead while another can: those that are
	// evacuated, stop or leave.
	Yields bool
}

// tally is what nextStep counts. Each list is by number.
type tally struct {
	voters, wanted int
	// ready voters answer at this moment. One that has just died is still online, and must
	// not be counted on.
	ready int
	// promote are ready for the vote that they shall have.
	promote []Seat
	// Of those that shall lose their vote: gone are offline, or no members at all.
	gone, spare []Seat
	// leaving is set when the leader shall lose its vote.
	leaving bool
}

// answers tells whether the server can confirm the next entry.
func (s Seat) answers() bool { return s.Leader || s.Known && s.Online && s.Ready }

func count(seats []Seat) tally {
	var t tally
	for _, s := range seats {
		if s.Wanted {
			t.wanted++
		}
		if s.Voter {
			t.voters++
			if s.answers() {
				t.ready++
			}
		}
		switch {
		case s.Wanted && s.InRaft && !s.Voter && s.Ready && s.Online:
			t.promote = append(t.promote, s)
		case s.Wanted || !s.Voter:
		case s.Leader:
			t.leaving = true
		case s.Known && s.Online:
			t.spare = append(t.spare, s)
		default:
			t.gone = append(t.gone, s)
		}
	}
	return t
}

// surplus is how many votes are to be taken.
func (t tally) surplus() int {
	n := len(t.gone) + len(t.spare)
	if t.leaving {
		n++
	}
	return n
}

// nextStep returns the change that brings Raft's configuration closer to the wanted
// one, false if there is none to make now. seats are by number; online and ready are
// those of this moment.
//
// After each step a majority of the voters answers. The number of voters is even
// only between two steps, and such a pair begins only when its second step can be
// made too: with two voters of a future three, the loss of either stops the cluster.
// A dead voter is dropped before its successor is promoted, since then the failure of
// the successor does no harm; a living one only after.
func nextStep(seats []Seat) (Step, bool) {
	for _, s := range seats {
		switch {
		case !s.Known && s.InRaft && !s.Voter:
			return Step{StepRemove, s.ID}, true
		case s.Known && !s.Joining && !s.InRaft:
			return Step{StepAdd, s.ID}, true
		}
	}
	t := count(seats)
	if step, ok := t.replaceGone(); ok {
		return step, true
	}
	if step, ok := t.grow(); ok {
		return step, true
	}
	if step, ok := t.shrink(seats); ok {
		return step, true
	}
	return stepAside(seats)
}

// stepAside hands leadership on when the leader should not lead, although it keeps its
// vote for want of somebody to take that.
func stepAside(seats []Seat) (Step, bool) {
	if !slices.ContainsFunc(seats, func(s Seat) bool { return s.Leader && s.Yields }) {
		return Step{}, false
	}
	to := heir(seats)
	if to < 0 || seats[to].Yields {
		return Step{}, false
	}
	return Step{StepTransfer, seats[to].ID}, true
}

// heir finds who shall lead after the leader, -1 if nobody can: a voter that has the
// log, best one that does not yield itself.
func heir(seats []Seat) int {
	can := func(s Seat) bool { return s.Wanted && s.Voter && s.Ready && s.Online && !s.Leader }
	if i := slices.IndexFunc(seats, func(s Seat) bool { return can(s) && !s.Yields }); i >= 0 {
		return i
	}
	return slices.IndexFunc(seats, can)
}

// replaceGone drops a dead voter whose successor is ready.
func (t tally) replaceGone() (Step, bool) {
	if t.voters%2 == 0 || len(t.gone) == 0 || len(t.promote) == 0 || !majority(t.ready, t.voters-1) {
		return Step{}, false
	}
	return drop(t.gone[0]), true
}

func (t tally) grow() (Step, bool) {
	if len(t.promote) == 0 || !majority(t.ready+1, t.voters+1) {
		return Step{}, false
	}
	another := len(t.promote) > 1 || t.surplus() > 0 && t.voters+1 > t.wanted
	if t.voters%2 == 1 && !another {
		return Step{}, false // it would stay even
	}
	return Step{StepPromote, t.promote[0].ID}, true
}

// shrink takes votes away while there are more than wanted: those that do not answer first,
// the leader's last.
func (t tally) shrink(seats []Seat) (Step, bool) {
	if t.voters <= t.wanted {
		return Step{}, false
	}
	surplus := slices.Concat(t.gone, t.spare)
	silent := slices.IndexFunc(surplus, func(s Seat) bool { return !s.answers() })
	if silent >= 0 && majority(t.ready, t.voters-1) {
		return drop(surplus[silent]), true
	}
	if !majority(t.ready-1, t.voters-1) {
		return Step{}, false
	}
	if len(t.spare) > 0 {
		return drop(t.spare[len(t.spare)-1]), true
	}
	if !t.leaving {
		return Step{}, false
	}
	to := heir(seats)
	if to < 0 {
		return Step{}, false
	}
	return Step{StepTransfer, seats[to].ID}, true
}

// drop takes a vote, or a server that is no member out altogether.
func drop(s Seat) Step {
	if s.Known {
		return Step{StepDemote, s.ID}
	}
	return Step{StepRemove, s.ID}
}

func majority(online, voters int) bool { return online > voters/2 }

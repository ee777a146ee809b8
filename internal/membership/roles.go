package membership

import (
	"cmp"
	"slices"

	"incusd/internal/raftstore/state"
)

// A Candidate is an active member as the roles planner sees it.
type Candidate struct {
	ID string
	// Number orders members as they came.
	Number int
	// Domain is the failure domain.
	Domain string
	// Role is what the state says now: state.RoleVoter, RoleStandby or RoleSpare.
	Role string
	// Voter is true while the member has a vote in Raft, which follows Role.
	Voter  bool
	Leader bool
	Online bool
	// Ready members answer at this moment and have the log: they may get a role.
	Ready bool
	// Client members, those with role database-client, get no database role.
	Client bool
	// Evacuated members, or those on the way there, and Stopping ones give their role away,
	// but a vote only to somebody who is ready for it.
	Evacuated, Stopping bool
	// Leaving members are being removed: they count for no target, and have a role only
	// while nobody else could.
	Leaving bool
	// Fenced members were left behind by a recovery: they are no members to the planner.
	Fenced bool
}

// able members count for the target of voters.
func (m Candidate) able() bool { return !m.Client && !m.Leaving && !m.Fenced }

// yields tells whether the member gives its role to whoever can take it.
func (m Candidate) yields() bool { return m.Evacuated || m.Stopping }

// steady members are those that shall have the roles.
func (m Candidate) steady() bool { return m.able() && !m.yields() }

// holds tells whether the member has a vote, or is on its way to one.
func (m Candidate) holds() bool { return m.Voter || m.Role == state.RoleVoter }

// Targets are how many holders of each role are wanted.
type Targets struct {
	Voters, Standby int
}

// Plan returns the changes that bring the members' roles to what is wanted, by
// number; none if all is well. To plan again after the changes gives none.
//
// The number of voters is odd: with an even one, one more member must survive and no
// more may fail. So two members are one voter and one stand-by. There are never fewer
// voters than the targets and the members online allow. A role goes to an online
// member that has the log: best to one of the failure domain of a holder that is lost,
// then of the domain with the fewest holders, then to a stand-by, then to the lower
// number. Whoever has a role keeps it while it is online; an offline holder, and one
// that is evacuated or stops, yields when another can take its place.
func Plan(members []Candidate, want Targets) []state.RoleChange {
	members = inOrder(members)
	roles := wantedRoles(members, want)
	var changes []state.RoleChange
	for _, m := range members {
		if role := roles[m.ID]; role != m.Role {
			changes = append(changes, state.RoleChange{ID: m.ID, Role: role})
		}
	}
	return changes
}

// wantedRoles gives each of members, which are in order, the role that it shall have.
func wantedRoles(members []Candidate, want Targets) map[string]string {
	voters := chooseVoters(members, want.Voters)
	standby := chooseStandby(members, voters, want.Standby)
	roles := make(map[string]string, len(members))
	for _, m := range members {
		switch {
		case voters.has(m.ID):
			roles[m.ID] = state.RoleVoter
		case standby.has(m.ID):
			roles[m.ID] = state.RoleStandby
		default:
			roles[m.ID] = state.RoleSpare
		}
	}
	return roles
}

// inOrder sorts a copy of members by number. Only who is online is ready, and the
// leader, who asks, is both.
func inOrder(members []Candidate) []Candidate {
	members = slices.Clone(members)
	for i := range members {
		m := &members[i]
		m.Online = m.Online || m.Leader
		m.Ready = m.Leader || m.Ready && m.Online
	}
	slices.SortFunc(members, func(a, b Candidate) int { return cmp.Compare(a.Number, b.Number) })
	return members
}

// voterTarget is the odd number of voters that members are good for.
func voterTarget(members []Candidate, limit int) int {
	able := 0
	for _, m := range members {
		if m.able() {
			able++
		}
	}
	n := min(limit, able)
	if n%2 == 0 {
		n--
	}
	return max(n, 1)
}

// chooseVoters fills the seats from the best class to the worst.
func chooseVoters(members []Candidate, limit int) picks {
	target := voterTarget(members, limit)
	wanted := func(m Candidate) bool { return m.Role == state.RoleVoter }
	var chosen picks
	for _, class := range []func(Candidate) bool{
		func(m Candidate) bool { return m.steady() && m.Leader },
		func(m Candidate) bool { return m.steady() && wanted(m) && m.Voter && m.Online },
		func(m Candidate) bool { return m.steady() && wanted(m) && m.Ready }, // being promoted
		func(m Candidate) bool { return m.steady() && m.Voter && m.Online },  // being demoted; it can stay
	} {
		chosen.fill(members, nil, class, target)
	}
	lost := domains(members, func(m Candidate) bool { return m.holds() && !m.Fenced && !chosen.has(m.ID) })
	chosen.fill(members, lost, func(m Candidate) bool { return m.steady() && m.Ready }, target) // the new ones
	for _, class := range []func(Candidate) bool{
		func(m Candidate) bool { return m.steady() && wanted(m) && m.Online },              // being promoted, and slow
		func(m Candidate) bool { return m.able() && m.Leader },                             // nobody can take its place
		func(m Candidate) bool { return m.able() && wanted(m) && m.Voter && m.Online },     // as above
		func(m Candidate) bool { return m.able() && m.Voter && m.Online },                  // as above, being demoted
		func(m Candidate) bool { return m.able() && !m.Stopping && wanted(m) && m.Ready },  // evacuated, and better than none
		func(m Candidate) bool { return m.able() && !m.Stopping && m.Ready },               // as above, the new ones
		func(m Candidate) bool { return m.able() && !m.Stopping && wanted(m) && m.Online }, // as above, and slow
	} {
		chosen.fill(members, nil, class, target)
	}
	if !chosen.anyOnlineVoterOrReady() {
		// Better a client with a vote than a cluster without.
		chosen.fill(members, nil, func(m Candidate) bool { return m.Leader }, target)
	}
	chosen.fill(members, nil, func(m Candidate) bool { return m.able() && wanted(m) && m.Voter }, target)
	chosen.fill(members, nil, func(m Candidate) bool { return m.able() && m.Voter }, target)
	chosen.keepMajority()
	chosen.makeOdd()
	return chosen
}

// chooseStandby does the same for stand-bys, among those that are not voters.
func chooseStandby(members []Candidate, voters picks, limit int) picks {
	rest := slices.DeleteFunc(slices.Clone(members), func(m Candidate) bool { return !m.steady() || voters.has(m.ID) })
	holder := func(m Candidate) bool { return m.Role == state.RoleStandby }
	var chosen picks
	chosen.fill(rest, nil, func(m Candidate) bool { return holder(m) && m.Online }, limit)
	lost := domains(members, func(m Candidate) bool { return holder(m) && !m.Fenced && !voters.has(m.ID) && !chosen.has(m.ID) })
	chosen.fill(rest, lost, func(m Candidate) bool { return m.Ready }, limit)
	chosen.fill(rest, nil, holder, limit)
	return chosen
}

// domains counts the members of a class by failure domain.
func domains(members []Candidate, class func(Candidate) bool) map[string]int {
	out := make(map[string]int)
	for _, m := range members {
		if class(m) {
			out[m.Domain]++
		}
	}
	return out
}

// picks are the members chosen for a role, best first.
type picks []Candidate

func (p picks) has(id string) bool {
	return slices.ContainsFunc(p, func(m Candidate) bool { return m.ID == id })
}

func (p picks) anyOnlineVoterOrReady() bool {
	return slices.ContainsFunc(p, func(m Candidate) bool { return m.Online && (m.Voter || m.Ready) })
}

// holders counts the online members among p in a failure domain.
func (p picks) holders(domain string) int {
	n := 0
	for _, m := range p {
		if m.Online && m.Domain == domain {
			n++
		}
	}
	return n
}

// fill adds members of a class, the best at each turn, until there are limit. members
// are in the order of their numbers. lost counts, by failure domain, the holders whose
// place is free; it is used up.
func (p *picks) fill(members []Candidate, lost map[string]int, class func(Candidate) bool, limit int) {
	for len(*p) < limit {
		best := -1
		for i, m := range members {
			if !class(m) || p.has(m.ID) {
				continue
			}
			if best < 0 || p.better(m, members[best], lost) {
				best = i
			}
		}
		if best < 0 {
			return
		}
		*p = append(*p, members[best])
		if lost != nil {
			lost[members[best].Domain]--
		}
	}
}

// better tells whether a, of the higher number, is the better choice nevertheless.
func (p picks) better(a, b Candidate, lost map[string]int) bool {
	if la, lb := lost[a.Domain] > 0, lost[b.Domain] > 0; la != lb {
		return la
	}
	if ha, hb := p.holders(a.Domain), p.holders(b.Domain); ha != hb {
		return ha < hb
	}
	return a.Role == state.RoleStandby && b.Role == state.RoleSpare
}

// keepMajority drops offline ones until most are online. They are too many
// only when the voters online are clients that should not vote.
func (p *picks) keepMajority() {
	for {
		offline := 0
		for _, m := range *p {
			if !m.Online {
				offline++
			}
		}
		if offline == 0 || majority(len(*p)-offline, len(*p)) {
			return
		}
		i := p.lastIndex(func(m Candidate) bool { return !m.Online })
		*p = slices.Delete(*p, i, i+1)
	}
}

// makeOdd drops one of an even number: an offline one, or else one that yields, or else
// one that has no vote yet, or else the last chosen.
func (p *picks) makeOdd() {
	if len(*p) == 0 || len(*p)%2 == 1 {
		return
	}
	drop := len(*p) - 1
	if i := p.lastIndex(func(m Candidate) bool { return !m.Online }); i >= 0 {
		drop = i
	} else if i := p.lastIndex(Candidate.yields); i >= 0 {
		drop = i
	} else if i := p.lastIndex(func(m Candidate) bool { return !m.Voter }); i >= 0 {
		drop = i
	}
	*p = slices.Delete(*p, drop, drop+1)
}

func (p picks) lastIndex(match func(Candidate) bool) int {
	for i, m := range slices.Backward(p) {
		if match(m) {
			return i
		}
	}
	return -1
}

package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"incusd/api"
)

// leads tells whether a member says that it leads.
func leads(m Member) bool {
	return m.Report != nil && m.Report.Raft != nil && m.Report.Raft.State == "leader"
}

// noLeaderFor is how long a member that answered follows nobody; 0 if it follows somebody.
func noLeaderFor(m Member) time.Duration {
	if m.Report.Raft.Leader != "" {
		return 0
	}
	return time.Duration(m.Report.Raft.NoLeaderMS) * time.Millisecond
}

// leader is the member that leads: of those that say so the one of the latest term.
func (d *diagnosis) leader() (Member, bool) {
	var found Member
	for _, m := range d.followers() {
		if leads(m) && (found.Report == nil || m.Report.Raft.Term > found.Report.Raft.Term) {
			found = m
		}
	}
	return found, found.Report != nil
}

// hasQuorum tells whether the cluster can be changed: the member that looked has heard so, or
// a majority of the voters follows a member that leads.
func (d *diagnosis) hasQuorum() bool {
	if !d.Stale {
		return true
	}
	leader, ok := d.leader()
	if !ok {
		return false
	}
	follow := 0
	for _, m := range d.followers() {
		if m.Voter && m.Report.Raft.Leader == leader.Name {
			follow++
		}
	}
	return follow > len(d.allVoters())/2
}

func (d *diagnosis) quorum() {
	if d.hasQuorum() {
		return
	}
	voters := d.allVoters()
	absent := func(m Member) bool { return m.Report == nil || m.shutOut() }
	answer := slices.DeleteFunc(slices.Clone(voters), absent)
	missing := slices.DeleteFunc(slices.Clone(voters), func(m Member) bool { return !absent(m) })
	need := len(voters)/2 + 1
	if len(answer) >= need {
		d.noLeader(voters)
		return
	}
	parts := []string{fmt.Sprintf("The cluster has no quorum, so nothing can be changed%s: of %s (%s) %s %s, and %d %s needed",
		d.lostSince(), count(len(voters), "voter"), list(names(voters)), list(names(answer)), verb(answer, "answers", "answer"), need, verb(make([]int, need), "is", "are"))}
	for _, m := range missing {
		if m.Offline && !m.Since.IsZero() {
			parts = append(parts, fmt.Sprintf("%s is missing %s", m.Name, d.since(m.Since)))
		}
	}
	start := list(names(missing))
	if more := need - len(answer); more < len(missing) {
		start = fmt.Sprintf("%d of %s", more, start)
	}
	next := fmt.Sprintf("start incusd on %s; if their disks are lost for ever, see docs/recover.md", start)
	if out := slices.DeleteFunc(slices.Clone(missing), func(m Member) bool { return !m.shutOut() }); len(out) > 0 {
		next = fmt.Sprintf("%s will not vote here again: recover the cluster on a member that takes part, see docs/recover.md", list(names(out)))
	}
	d.found(api.SeverityError, NoQuorum, names(missing), strings.Join(parts, "; "), next)
}

// lostSince is when the member that looked lost its leader.
func (d *diagnosis) lostSince() string {
	m, ok := d.member(d.By)
	if !ok || m.Report == nil || m.Report.Raft == nil || m.Report.Raft.NoLeaderMS == 0 {
		return ""
	}
	return " " + d.since(d.Now.Add(-noLeaderFor(m)))
}

// noLeader: enough voters are there, and they have elected none of them.
func (d *diagnosis) noLeader(voters []Member) {
	next := "look again in some seconds, an election may be under way; if it stays so, mend the links that are named as broken, and look into the logs of the voters"
	d.found(api.SeverityError, NoQuorum, names(voters),
		fmt.Sprintf("Nobody leads the cluster%s, though enough voters answer (%s): nothing can be changed", d.lostSince(), list(names(voters))), next)
}

// leaders looks for members that follow another leader than the rest, or none.
func (d *diagnosis) leaders() {
	leader, ok := d.leader()
	if !ok {
		return
	}
	rest := make(map[string][]string)
	var order, follow []string
	for _, m := range d.followers() {
		switch {
		case m.Report.Raft.Leader == leader.Name:
			follow = append(follow, m.Name)
		case m.Fenced, m.Report.Raft.Leader == "" && noLeaderFor(m) < electionTime:
		default:
			if rest[m.Report.Raft.Leader] == nil {
				order = append(order, m.Report.Raft.Leader)
			}
			rest[m.Report.Raft.Leader] = append(rest[m.Report.Raft.Leader], m.Name)
		}
	}
	for _, other := range order {
		apart := rest[other]
		whom := other
		if whom == "" {
			whom = "nobody"
		}
		d.found(api.SeverityError, Partition, apart,
			fmt.Sprintf("%s %s %s, while %s %s %s: what %s %s may be out of date", list(apart), verb(apart, "follows", "follow"), whom,
				list(follow), verb(follow, "follows", "follow"), leader.Name, list(apart), verb(apart, "shows", "show")),
			fmt.Sprintf("mend the network between %s and %s; the links that are named as broken say where", list(apart), leader.Name))
	}
}

func (d *diagnosis) lag() {
	var newest uint64
	if leader, ok := d.leader(); ok {
		newest = leader.Report.Raft.CommitIndex
	}
	for _, m := range d.followers() {
		newest = max(newest, m.Report.Raft.CommitIndex)
	}
	for _, m := range d.followers() {
		if applied := m.Report.Raft.AppliedIndex; newest > applied && newest-applied > lagEntries {
			d.found(api.SeverityWarning, Lag, []string{m.Name},
				fmt.Sprintf("%s is %d entries behind the others", m.Name, newest-applied),
				fmt.Sprintf("look again in a minute: if the number falls, it is catching up; if not, look at disk and network of %s and into its log", m.Name))
		}
	}
}

// voters looks at whether the cluster has the voters it wants, and at what one more failure does.
func (d *diagnosis) voters() {
	if !d.hasQuorum() {
		return
	}
	voters := d.allVoters()
	online := slices.DeleteFunc(slices.Clone(voters), func(m Member) bool { return !d.alive(m) })
	if len(online) < d.Wanted {
		d.found(api.SeverityWarning, TooFewVoters, names(voters),
			fmt.Sprintf("%d voters are wanted, and %d of them %s online (%s)", d.Wanted, len(online), verb(online, "is", "are"), list(names(online))),
			"start the members that are offline; another member takes a vote over by itself, where there is one that can: incus cluster list shows who votes")
	}
	if len(voters) == 0 || len(online)-1 >= len(voters)/2+1 {
		return
	}
	members := slices.DeleteFunc(slices.Clone(d.Members), func(m Member) bool { return m.Fenced })
	switch need := len(voters)/2 + 1; {
	case len(members) == 1:
		d.found(api.SeverityNotice, NoSlack, names(voters),
			fmt.Sprintf("The cluster has one member: if %s stops, nothing answers", voters[0].Name),
			"add two more: incus cluster add NAME")
	case len(members) == 2:
		d.found(api.SeverityNotice, NoSlack, names(voters),
			fmt.Sprintf("Of two members one votes: if %s fails, nothing can be changed until it is back", list(names(voters))),
			"add a third member: incus cluster add NAME")
	default:
		next := "start the members that are offline before you stop or restart another one"
		if !slices.ContainsFunc(members, func(m Member) bool { return !d.alive(m) }) {
			next = "let more members vote: incus cluster role explain says who does not, and why"
		}
		d.found(api.SeverityWarning, NoSlack, names(online),
			fmt.Sprintf("One more failure stops the cluster: %d of %s %s online, and %d %s needed", len(online), count(len(voters), "voter"),
				verb(online, "is", "are"), need, verb(make([]int, need), "is", "are")),
			next)
	}
}

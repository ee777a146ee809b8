package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"incusd/api"
)

// A link is a way from one member to another, by name.
type link struct{ from, to string }

func newDiagnosis(e Evidence) *diagnosis {
	d := &diagnosis{Evidence: e, tried: make(map[link]api.PeerReach)}
	for _, m := range d.Members {
		// What became of the question itself, for members that are not tried besides; what is
		// known of a fresh connection replaces it.
		d.tried[link{d.By, m.Name}] = api.PeerReach{Name: m.Name, Reached: m.Report != nil, Problem: m.Problem, Detail: m.Detail}
	}
	for _, m := range d.reported() {
		for _, p := range m.Report.Peers {
			d.tried[link{m.Name, p.Name}] = p
		}
	}
	return d
}

// reachedBy lists who reaches a member, in the order of the members.
func (d *diagnosis) reachedBy(m Member) []string {
	return d.from(m, func(p api.PeerReach) bool { return p.Reached })
}

func (d *diagnosis) from(to Member, match func(api.PeerReach) bool) []string {
	var out []string
	for _, m := range d.Members {
		if p, ok := d.tried[link{m.Name, to.Name}]; ok && m.Name != to.Name && match(p) {
			out = append(out, m.Name)
		}
	}
	return out
}

// absent looks at the members that did not answer and that nobody reaches, and at those that
// answer to nothing but a connection.
func (d *diagnosis) absent() {
	for _, m := range d.Members {
		reached := d.reachedBy(m)
		switch {
		case m.Fenced:
		case m.Report != nil:
			if m.Offline && !d.Stale {
				d.found(api.SeverityWarning, MemberUnheard, []string{m.Name},
					fmt.Sprintf("%s answers here, but the leader has not heard it %s", m.Name, d.since(m.Since)),
					"if it has just come back, look again in some seconds; else see which links are broken, above or below")
			}
		case m.Problem == api.ReachRejected:
			d.refuses(m, []string{d.By}, m.Detail)
		case len(reached) == 0:
			d.offline(m)
		case slices.Contains(reached, d.By):
			d.found(api.SeverityError, MemberHangs, []string{m.Name},
				fmt.Sprintf("%s takes connections at %s, but its daemon gave no report (%s)", m.Name, m.Address, m.Detail),
				fmt.Sprintf("on %s, look at load, memory, disk and the daemon's log; if it stays, restart incusd there", m.Name))
		}
	}
}

func (d *diagnosis) refuses(m Member, callers []string, detail string) {
	d.found(api.SeverityError, MemberRefuses, append([]string{m.Name}, callers...),
		fmt.Sprintf("%s answers, but does not take %s for a member: %s", m.Name, list(callers), detail),
		fmt.Sprintf("compare the clocks (run date on %s and %s): a certificate counts between its dates only; if the clocks agree, one of them was removed or left behind by a recovery", m.Name, list(callers)))
}

// offline finds the cause by what those who tried have met with.
func (d *diagnosis) offline(m Member) {
	severity, cause := api.SeverityError, ""
	kind, detail := d.worst(m)
	host, port := splitAddress(m.Address)
	next := fmt.Sprintf("start incusd on %s; why it stopped is in its log (journalctl -u incusd)", m.Name)
	switch kind {
	case api.ReachRefused:
		cause = fmt.Sprintf("%s is down: its machine answers, but nothing listens at %s", m.Name, m.Address)
	case api.ReachTimeout:
		cause = fmt.Sprintf("Nothing comes back from %s at %s: its machine is off or hangs, or the network or a firewall drops what is sent", m.Name, m.Address)
		next = fmt.Sprintf("look at the machine of %s (power, console); if it runs, try from here: nc -vz %s %s", m.Name, host, port)
	case api.ReachSilent:
		cause = fmt.Sprintf("%s takes connections at %s and then says nothing: its daemon hangs, or its machine is overloaded", m.Name, m.Address)
		next = fmt.Sprintf("on %s, look at load, memory and disk; if it stays, restart incusd there", m.Name)
	case api.ReachWrongServer:
		d.wrongServer(m, detail)
		return
	default:
		cause = fmt.Sprintf("%s is not reached at %s: %s", m.Name, m.Address, detail)
		next = fmt.Sprintf("check name resolution and routes to %s", host)
	}
	if m.Offline && !m.Since.IsZero() {
		cause += ", " + d.since(m.Since)
	}
	if m.Stopping {
		severity = api.SeverityNotice
		cause += "; it was stopped on purpose"
	} else if m.Maintenance != "" {
		severity = api.SeverityWarning
		cause += "; it is evacuated"
	}
	d.found(severity, MemberOffline, []string{m.Name}, cause, next)
}

func (d *diagnosis) wrongServer(m Member, detail string) {
	d.found(api.SeverityError, WrongServer, []string{m.Name},
		fmt.Sprintf("At %s another server answers than %s (%s)", m.Address, m.Name, detail),
		fmt.Sprintf("give %s its address back, or tell the cluster the new one: on %s, incus admin cluster set-address ADDRESS", m.Name, m.Name))
}

// telling are the kinds of problems, the most telling first: a refusal comes from the machine
// itself, a time-out may be anywhere on the way.
var telling = []string{api.ReachWrongServer, api.ReachRefused, api.ReachSilent, api.ReachRejected, api.ReachTimeout, api.ReachFailed}

// worst is what tells most of why nobody reaches a member.
func (d *diagnosis) worst(m Member) (kind, detail string) {
	for _, kind := range telling {
		for _, from := range d.from(m, func(p api.PeerReach) bool { return p.Problem == kind }) {
			return kind, d.tried[link{from, m.Name}].Detail
		}
	}
	return api.ReachFailed, m.Detail
}

// links looks at ways that are broken between members that are there.
func (d *diagnosis) links() {
	broken := d.brokenLinks()
	for _, g := range d.groups(broken) {
		d.linkFinding(g)
	}
}

// brokenLinks are the failed ways to members that are alive, in the order of the members.
func (d *diagnosis) brokenLinks() []link {
	var out []link
	for _, to := range d.Members {
		if to.Fenced || to.shutOut() || !d.alive(to) {
			continue // absent and transitions speak of it
		}
		for _, from := range d.from(to, func(p api.PeerReach) bool { return !p.Reached }) {
			switch source, _ := d.member(from); {
			case source.Fenced, source.shutOut():
			case to.Problem == api.ReachRejected && from == d.By: // absent speaks of it
			default:
				out = append(out, link{from, to.Name})
			}
		}
	}
	return out
}

// A linkGroup is what several members meet with on their ways to one.
type linkGroup struct {
	to      string
	from    []string
	problem string
	// both is true if the way back is broken, too.
	both bool
}

// groups joins links to the same member. Of a pair that is broken both ways it keeps one: to
// the member that has more broken links, which is likelier to be the cause.
func (d *diagnosis) groups(broken []link) []linkGroup {
	degree := make(map[string]int)
	for _, l := range broken {
		degree[l.to]++
		degree[l.from]++
	}
	var out []linkGroup
	for _, l := range broken {
		both := slices.Contains(broken, link{l.to, l.from})
		if both && cmp.Or(cmp.Compare(degree[l.from], degree[l.to]), strings.Compare(l.to, l.from)) > 0 {
			continue // its way back stands for it
		}
		problem := d.tried[l].Problem
		i := slices.IndexFunc(out, func(g linkGroup) bool { return g.to == l.to && g.both == both && g.problem == problem })
		if i < 0 {
			out = append(out, linkGroup{to: l.to, problem: problem, both: both})
			i = len(out) - 1
		}
		out[i].from = append(out[i].from, l.from)
	}
	return out
}

// inWords says what a problem is to the eye of who meets with it.
var inWords = map[string]string{
	api.ReachRefused: "connection refused", api.ReachTimeout: "nothing comes back", api.ReachSilent: "the connection is taken, then nothing comes",
	api.ReachFailed: "the connection fails",
}

func (d *diagnosis) linkFinding(g linkGroup) {
	to, _ := d.member(g.to)
	all := append([]string{g.to}, g.from...)
	detail := d.tried[link{g.from[0], g.to}].Detail
	host, port := splitAddress(to.Address)
	switch {
	case g.problem == api.ReachWrongServer:
		d.wrongServer(to, detail)
	case g.problem == api.ReachRejected:
		d.refuses(to, g.from, detail)
	case g.both:
		d.found(d.linkSeverity(g), LinkBroken, all,
			fmt.Sprintf("%s and %s do not reach each other (%s), though they run", g.to, list(g.from), inWords[g.problem]),
			fmt.Sprintf("mend the network or the firewalls between %s and %s", g.to, list(g.from)))
	default:
		d.found(d.linkSeverity(g), OneWay, all,
			fmt.Sprintf("%s %s not reach %s at %s (%s), though %s runs%s", list(g.from), verb(g.from, "does", "do"), g.to, to.Address,
				inWords[g.problem], g.to, d.wayBack(g)),
			fmt.Sprintf("on %s, try: nc -vz %s %s; then look at firewalls and routes of %s", g.from[0], host, port, g.to))
	}
}

// splitAddress is host and port as nc takes them.
func splitAddress(address string) (host, port string) {
	i := strings.LastIndexByte(address, ':')
	if i < 0 {
		return address, ""
	}
	return strings.Trim(address[:i], "[]"), address[i+1:]
}

// wayBack tells what is known of the other direction.
func (d *diagnosis) wayBack(g linkGroup) string {
	for _, from := range g.from {
		if !d.tried[link{g.to, from}].Reached {
			return ""
		}
	}
	return " and reaches " + list(g.from)
}

// linkSeverity: a link of voters or of the leader is one that the cluster lives on.
func (d *diagnosis) linkSeverity(g linkGroup) string {
	to, _ := d.member(g.to)
	for _, name := range g.from {
		from, _ := d.member(name)
		if to.Voter && from.Voter || leads(to) || leads(from) {
			return api.SeverityError
		}
	}
	return api.SeverityWarning
}

package health

import (
	"fmt"
	"slices"

	"incusd/api"
)

// out tells whether the member that looked is out of the cluster, and finds that.
func (d *diagnosis) out() bool {
	switch d.Out {
	case api.MemberRemoved:
		d.found(api.SeverityError, Removed, []string{d.By},
			fmt.Sprintf("%s was removed from the cluster, and knows no more than what it was then", d.By),
			"make this server a clean one (incus admin cluster reset) and let it join anew, with a new token")
	case api.MemberFenced:
		d.found(api.SeverityError, Fenced, []string{d.By},
			fmt.Sprintf("%s is shut out: the cluster was recovered without it, and goes on elsewhere", d.By),
			"make this server a clean one (incus admin cluster reset) and let it join anew; look before whether it has something that the recovered cluster lost: see docs/recover.md")
	default:
		return false
	}
	return true
}

// transitions looks at what members are in the middle of.
func (d *diagnosis) transitions() {
	if rivals := slices.DeleteFunc(slices.Clone(d.Members), func(m Member) bool { return !m.Rival }); len(rivals) > 0 {
		d.found(api.SeverityError, Rival, names(rivals),
			fmt.Sprintf("The cluster was recovered twice, on members that did not know of each other: %s %s in the other one, which takes changes as well", list(names(rivals)), verb(rivals, "runs", "run")),
			"choose the one to keep, and end the other before anybody uses both: see docs/recover.md, \"Two members were recovered\"")
	}
	for _, m := range d.Members {
		if m.Fenced && !m.Rival {
			d.found(api.SeverityError, Fenced, []string{m.Name},
				fmt.Sprintf("%s is shut out: the cluster was recovered without it", m.Name),
				fmt.Sprintf("remove it (incus cluster remove --force %s), make its server a clean one (there: incus admin cluster reset) and let that join anew; see docs/recover.md", m.Name))
		}
		if !m.Fenced && m.shutOut() {
			d.found(api.SeverityError, Fenced, []string{m.Name},
				fmt.Sprintf("%s answers and takes no part in this cluster: %s", m.Name, m.Report.ShutOut),
				fmt.Sprintf("if this state of the cluster is the one to keep: incus cluster remove --force %s, make its server a clean one (there: incus admin cluster reset) and let that join anew; see docs/recover.md", m.Name))
		}
		if !m.Removing.IsZero() && d.Now.Sub(m.Removing) > workTime {
			d.found(api.SeverityWarning, RemovalStuck, []string{m.Name},
				fmt.Sprintf("The removal of %s has not ended %s", m.Name, d.since(m.Removing)),
				fmt.Sprintf("see what it waits for (incus cluster show %s); if the server is lost: incus cluster remove --force %s", m.Name, m.Name))
		}
		d.maintenance(m)
	}
	d.service()
}

// service finds that nobody takes new work. One member that was evacuated alone is what was asked for.
func (d *diagnosis) service() {
	alive := slices.DeleteFunc(slices.Clone(d.Members), func(m Member) bool { return !d.alive(m) })
	serving := func(m Member) bool { return m.Maintenance != "evacuated" }
	if len(alive) > 0 && len(d.Members) > 1 && !slices.ContainsFunc(alive, serving) {
		d.found(api.SeverityWarning, NoneInService, names(alive),
			"Every member that answers is evacuated: nothing takes new work, and database roles stay with members that were to give them away",
			"take one back into service: incus cluster restore "+alive[0].Name)
	}
}

func (d *diagnosis) maintenance(m Member) {
	lasted := d.Now.Sub(m.MaintenanceSince)
	switch {
	case m.Maintenance == "" || m.MaintenanceSince.IsZero():
	case m.Maintenance == "evacuated":
		d.long(m, api.SeverityNotice, lasted > evacuatedTime, "evacuated", "if the work on it is done: incus cluster restore "+m.Name)
	default:
		d.long(m, api.SeverityWarning, lasted > workTime, m.Maintenance,
			fmt.Sprintf("see what it waits for: incus cluster show %s, incus operation list", m.Name))
	}
}

func (d *diagnosis) long(m Member, severity string, isLong bool, what, next string) {
	if isLong {
		d.found(severity, MaintenanceLong, []string{m.Name}, fmt.Sprintf("%s is %s %s", m.Name, what, d.since(m.MaintenanceSince)), next)
	}
}

// entities looks at pools, networks and volumes, one finding for each and what is wrong.
func (d *diagnosis) entities() {
	for _, e := range d.Entities {
		m, ok := d.member(e.Member)
		switch {
		case e.Errored:
			reason := e.Reason
			if reason == "" {
				reason = "no reason was given"
			}
			d.found(api.SeverityError, EntityErrored, []string{e.Member},
				fmt.Sprintf("%s could not make the %s %s true: %s", e.Member, e.Kind, e.Name, reason),
				fmt.Sprintf("mend that on %s, then run the command that made, changed or deleted %s again", e.Member, e.Name))
		case ok && !d.alive(m):
			d.found(api.SeverityNotice, EntityPending, []string{e.Member},
				fmt.Sprintf("%s, which does not answer, has not made the %s %s yet", e.Member, e.Kind, e.Name),
				"nothing to do for this: it catches up when it is back")
		default:
			d.found(api.SeverityWarning, EntityPending, []string{e.Member},
				fmt.Sprintf("%s has not made the %s %s yet", e.Member, e.Kind, e.Name),
				fmt.Sprintf("look again in a minute; if it stays, look into the log of %s", e.Member))
		}
	}
}

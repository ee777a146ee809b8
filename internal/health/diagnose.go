package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"incusd/api"
)

// Diagnose says what is wrong, worst first; nothing if all is well.
func Diagnose(e Evidence) []api.Finding {
	d := newDiagnosis(e)
	if d.out() {
		return d.findings // what it knows of the others is history
	}
	for _, look := range []func(){
		d.quorum, d.absent, d.links, d.leaders, d.clocks, d.versions, d.disks, d.lag, d.certificates, d.voters, d.transitions, d.entities,
	} {
		look()
	}
	slices.SortStableFunc(d.findings, func(a, b api.Finding) int { return cmp.Compare(weight[a.Severity], weight[b.Severity]) })
	return d.findings
}

var weight = map[string]int{api.SeverityError: 0, api.SeverityWarning: 1, api.SeverityNotice: 2}

// A diagnosis is one run of Diagnose.
type diagnosis struct {
	Evidence
	// tried is what became of each way that was tried.
	tried    map[link]api.PeerReach
	findings []api.Finding
}

// found adds a finding. Cause and next step are whole sentences without a full stop.
func (d *diagnosis) found(severity string, code Code, members []string, cause, next string) {
	d.findings = append(d.findings, api.Finding{
		Severity: severity, Code: string(code), Members: append([]string{}, members...), Cause: cause, NextStep: next,
	})
}

// reported lists the members that answered.
func (d *diagnosis) reported() []Member {
	return slices.DeleteFunc(slices.Clone(d.Members), func(m Member) bool { return m.Report == nil })
}

// followers lists the members that answered and have opened their store.
func (d *diagnosis) followers() []Member {
	return slices.DeleteFunc(d.reported(), func(m Member) bool { return m.Report.Raft == nil })
}

func (d *diagnosis) allVoters() []Member {
	return slices.DeleteFunc(slices.Clone(d.Members), func(m Member) bool { return !m.Voter })
}

func (d *diagnosis) member(name string) (Member, bool) {
	i := slices.IndexFunc(d.Members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return Member{}, false
	}
	return d.Members[i], true
}

// alive tells whether a member is there at this moment, by its own word or another's.
func (d *diagnosis) alive(m Member) bool { return m.Report != nil || len(d.reachedBy(m)) > 0 }

// shutOut tells whether a member that is one here says that it takes no part any more: it has met a
// recovery of the cluster that is not known here.
func (m Member) shutOut() bool { return m.Report != nil && m.Report.ShutOut != "" }

func names(members []Member) []string {
	out := make([]string, len(members))
	for i, m := range members {
		out[i] = m.Name
	}
	return out
}

// list writes names as a sentence has them: "a, b and c".
func list(names []string) string {
	switch n := len(names); n {
	case 0:
		return "none"
	case 1:
		return names[0]
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}

// verb chooses the form that goes with that many.
func verb[T any](subject []T, one, many string) string {
	if len(subject) == 1 {
		return one
	}
	return many
}

// count is "1 voter" or "3 voters".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// since dates something, for who has several logs to compare.
func (d *diagnosis) since(t time.Time) string {
	return fmt.Sprintf("since %s (%s ago)", stamp(t), length(d.Now.Sub(t)))
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

// length is a time in at most two units.
func length(t time.Duration) string {
	switch t = max(t, 0); {
	case t < 10*time.Second:
		return t.Round(100 * time.Millisecond).String()
	case t < time.Minute:
		return t.Round(time.Second).String()
	case t < time.Hour:
		return strings.TrimSuffix(t.Round(time.Minute).String(), "0s")
	case t < 48*time.Hour:
		return strings.TrimSuffix(t.Round(time.Hour).String(), "0m0s")
	}
	return count(int(t.Hours()/24), "day")
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

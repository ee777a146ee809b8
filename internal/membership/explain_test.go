package membership

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"incusd/internal/raftstore/state"
)

func TestExplain(t *testing.T) {
	three := Targets{Voters: 3, Standby: 2}
	for _, tt := range []struct {
		name    string
		members string
		want    []string
	}{
		{"one member", "1:voter*,leader", []string{"votes: one of 1 wanted voter; leads"}},
		{"two members", "1:voter*,leader 2:stand-by", []string{
			"votes: one of 1 wanted voter; leads",
			"stand-by: 1 of 2; next to vote if a voter fails, and no voter now since an even number of voters survives no more failures",
		}},
		{"six members", "1:voter*,leader 2:voter* 3:voter* 4:stand-by 5:stand-by 6:spare", []string{
			"votes: one of 3 wanted voters; leads", "votes: one of 3 wanted voters", "votes: one of 3 wanted voters",
			"stand-by: 1 of 2; next to vote if a voter fails", "stand-by: 2 of 2; next to vote if a voter fails",
			"no role: 3 voters and 2 stand-bys are wanted, and others have these roles",
		}},
		{"what speaks against a role", "1:voter*,leader 2:spare,client 3:spare,evac 4:spare,stop 5:spare,leave 6:spare,fenced,off 7:spare,off 8:spare,slow", []string{
			"votes: one of 3 wanted voters; leads", "no role: database-client", "no role: evacuated",
			"no role: stopping", "no role: being removed", "no role: shut out by a recovery", "no role: offline",
			"no role: it does not answer, or does not have the log yet",
		}},
		{"nobody can take the place", "1:voter*,leader,stop 2:voter*,evac 3:voter*,off", []string{
			"votes although stopping: no other member can take its place; leads",
			"votes although evacuated: no other member can take its place",
			"votes although offline: no live member can take its place",
		}},
		{"a place is being taken", "1:voter*,leader,evac 2:voter* 3:spare*,off 4:voter,slow 5:stand-by", []string{
			"about to hand its vote and leadership to another member: evacuated",
			"votes: one of 3 wanted voters",
			"about to lose its vote: offline",
			"about to vote: it waits until it answers and has the log",
			"about to vote: one of 3 wanted voters",
		}},
		{"a leader that goes", "1:spare*,leader,leave 2:voter*", []string{
			"about to hand its vote and leadership to another member: being removed", "votes: one of 1 wanted voter",
		}},
		{"a promotion that waits", "1:voter*,leader 2:voter* 3:voter,slow", []string{
			"votes: one of 3 wanted voters; leads", "votes: one of 3 wanted voters", "about to vote: it waits until it answers and has the log",
		}},
		{"a stand-by that is away", "1:voter*,leader 2:voter* 3:voter* 4:stand-by,off", []string{
			"votes: one of 3 wanted voters; leads", "votes: one of 3 wanted voters", "votes: one of 3 wanted voters",
			"stand-by although offline: 1 of 2; no live member can take its place",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, e := range Explain(parseMembers(t, tt.members), three) {
				got = append(got, e.Text)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("explanations (-want +got):\n%s", diff)
			}
		})
	}
}

// An explanation never contradicts the plan, whatever the members are.
func TestExplanationsFitThePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		planned := map[string]string{}
		for _, m := range w.members {
			planned[m.ID] = m.Role
		}
		for _, c := range Plan(w.members, w.want) {
			planned[c.ID] = c.Role
		}
		for _, e := range Explain(w.members, w.want) {
			m := w.member(e.ID)
			if e.Role != planned[e.ID] {
				t.Fatalf("%s: explained role %s, planned %s", e.ID, e.Role, planned[e.ID])
			}
			about := strings.HasPrefix(e.Text, "about to ")
			if about != (m.Voter != (e.Role == state.RoleVoter)) {
				t.Fatalf("%q of %+v, planned %s", e.Text, *m, e.Role)
			}
			if strings.HasPrefix(e.Text, "stand-by") && e.Role != state.RoleStandby || strings.HasPrefix(e.Text, "votes") && e.Role != state.RoleVoter {
				t.Fatalf("%q of %+v, planned %s", e.Text, *m, e.Role)
			}
		}
	})
}

package membership

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"incusd/internal/raftstore/state"
)

// parseMembers reads members from words like "1:voter*,leader" or "3:spare,dom=b,off".
// A star after the role means that Raft agrees: a vote for voters. Members are online,
// ready and in failure domain "default" unless they say off, slow or dom=.
func parseMembers(t *testing.T, text string) []Candidate {
	t.Helper()
	var out []Candidate
	for word := range strings.FieldsSeq(text) {
		number, rest, _ := strings.Cut(word, ":")
		c := Candidate{ID: "m" + number, Domain: "default", Online: true, Ready: true}
		if _, err := fmt.Sscan(number, &c.Number); err != nil {
			t.Fatalf("member %q: %v", word, err)
		}
		for i, f := range strings.Split(rest, ",") {
			switch {
			case i == 0:
				c.Voter = strings.HasSuffix(f, "*")
				c.Role = strings.TrimSuffix(f, "*")
			case f == "leader":
				c.Leader = true
			case f == "off":
				c.Online, c.Ready = false, false
			case f == "slow":
				c.Ready = false
			case f == "client":
				c.Client = true
			case f == "evac":
				c.Evacuated = true
			case f == "stop":
				c.Stopping = true
			case f == "leave":
				c.Leaving = true
			case f == "fenced":
				c.Fenced = true
			case strings.HasPrefix(f, "dom="):
				c.Domain = f[4:]
			default:
				t.Fatalf("member %q: unknown word %q", word, f)
			}
		}
		out = append(out, c)
	}
	return out
}

func describeChanges(changes []state.RoleChange) string {
	var words []string
	for _, c := range changes {
		words = append(words, c.ID+"="+c.Role)
	}
	return strings.Join(words, " ")
}

func TestPlan(t *testing.T) {
	three := Targets{Voters: 3, Standby: 2}
	five := Targets{Voters: 5, Standby: 2}
	for _, tt := range []struct {
		name    string
		members string
		want    Targets
		changes string
	}{
		{"one member votes", "1:voter*,leader", three, ""},
		{"two members are a voter and a stand-by", "1:voter*,leader 2:spare", three, "m2=stand-by"},
		{"the third member makes three voters at once", "1:voter*,leader 2:stand-by 3:spare", three, "m2=voter m3=voter"},
		{"the fourth is a stand-by", "1:voter*,leader 2:voter* 3:voter* 4:spare", three, "m4=stand-by"},
		{"the sixth is a spare", "1:voter*,leader 2:voter* 3:voter* 4:stand-by 5:stand-by 6:spare", three, ""},
		{"four members for five voters have three", "1:voter*,leader 2:voter* 3:voter* 4:spare", five, "m4=stand-by"},
		{"five members for five voters", "1:voter*,leader 2:voter* 3:voter* 4:stand-by 5:spare", five, "m4=voter m5=voter"},
		{"fewer wanted", "1:voter* 2:voter* 3:voter*,leader 4:voter* 5:voter*", three, "m4=stand-by m5=stand-by"},
		{"back to two members", "1:voter* 3:voter*,leader", three, "m1=stand-by"},
		{"a slow third member waits, and so does the second", "1:voter*,leader 2:stand-by 3:spare,slow", three, ""},
		{"an offline third member as well", "1:voter*,leader 2:stand-by 3:spare,off", three, ""},
		{"an offline voter yields to a stand-by", "1:voter*,leader 2:voter*,off 3:voter* 4:stand-by", three, "m2=spare m4=voter"},
		{"and stays without one", "1:voter*,leader 2:voter*,off 3:voter*", three, ""},
		{"and stays while the stand-by is slow", "1:voter*,leader 2:voter*,off 3:voter* 4:stand-by,slow", three, ""},
		{"an offline stand-by yields to a spare", "1:voter*,leader 2:voter* 3:voter* 4:stand-by,off 5:stand-by 6:spare", three, "m4=spare m6=stand-by"},
		{"and stays without one", "1:voter*,leader 2:voter* 3:voter* 4:stand-by,off 5:stand-by", three, ""},
		{"the voter that came back too late becomes a stand-by", "1:voter*,leader 2:spare 3:voter* 4:voter*", three, "m2=stand-by"},
		{"a stand-by goes first", "1:voter*,leader 2:voter* 3:voter*,off 4:spare 5:stand-by", three, "m3=spare m4=stand-by m5=voter"},
		{"a new failure domain goes before a stand-by", "1:voter*,leader,dom=a 2:voter*,dom=b 3:voter*,off,dom=c 4:stand-by,dom=a 5:spare,dom=c", three, "m3=spare m5=voter"},
		{"the lost voter's domain goes before a new one", "1:voter*,leader,dom=a 2:voter*,dom=b 3:voter*,off,dom=a 4:stand-by,dom=c 5:spare,dom=a", three, "m3=spare m5=voter"},
		{"each lost domain once", "1:voter*,leader,dom=b 2:voter*,evac,dom=a 3:voter*,off,dom=c 4:stand-by,dom=a 5:spare,dom=a 6:spare,dom=c", three, "m2=spare m3=spare m4=voter m5=stand-by m6=voter"},
		{"the lost stand-by's domain as well", "1:voter*,leader,dom=z 2:voter*,dom=z 3:voter*,dom=z 4:stand-by,off,dom=a 5:stand-by,dom=a 6:spare,dom=b 7:spare,dom=a", three, "m4=spare m7=stand-by"},
		{"and spreads when its domain has nobody left", "1:voter*,leader,dom=a 2:voter*,dom=a 3:voter*,off,dom=b 4:stand-by,dom=a 5:spare,dom=c", three, "m3=spare m5=voter"},
		{"the domain with fewest voters", "1:voter*,leader,dom=a 2:voter*,dom=a 3:voter*,dom=b 4:spare,dom=a 5:spare,dom=b", five, "m4=voter m5=voter"},
		{"each new voter fills a domain", "1:voter*,leader,dom=a 2:spare,dom=a 3:spare,dom=b 4:spare,dom=c", three, "m2=stand-by m3=voter m4=voter"},
		{"stand-bys spread as well", "1:voter*,leader 2:voter* 3:voter* 4:spare,dom=a 5:spare,dom=a 6:spare,dom=b", three, "m4=stand-by m6=stand-by"},
		{"a voter that is displaced by too many domains stays", "1:voter*,leader,dom=a 2:voter*,dom=a 3:voter*,dom=a 4:stand-by,dom=b", three, ""},
		{"a client has no role", "1:voter*,leader 2:stand-by,client 3:spare", three, "m2=spare m3=stand-by"},
		{"a client that votes yields", "1:voter*,leader 2:voter*,client 3:voter* 4:stand-by", three, "m2=spare m4=voter"},
		{"a leader that is a client yields", "1:voter*,leader,client 2:voter* 3:voter* 4:stand-by", three, "m1=spare m4=voter"},
		{"a client that is alone stays", "1:voter*,leader,client", three, ""},
		{"a client leader stays while its only heir is slow", "1:voter*,leader,client 2:stand-by,slow", three, ""},
		{"an evacuated voter yields", "1:voter*,leader 2:voter* 3:voter*,evac 4:stand-by", three, "m3=spare m4=voter"},
		{"but stays while the stand-by is slow", "1:voter*,leader 2:voter* 3:voter*,evac 4:stand-by,slow", three, ""},
		{"and when it is needed", "1:voter*,leader 2:voter* 3:voter*,evac", three, ""},
		{"an evacuated leader yields", "1:voter*,leader,evac 2:stand-by", three, "m1=spare m2=voter"},
		{"all evacuated stay as they are", "1:voter*,leader,evac 2:voter*,evac 3:voter*,evac 4:spare,evac", three, ""},
		{"an evacuated member is better than a dead one", "1:voter*,leader 2:voter*,off 3:voter* 4:spare,evac", three, "m2=spare m4=voter"},
		{"an evacuated stand-by yields its place, to nobody too", "1:voter*,leader 2:voter* 3:voter* 4:stand-by,evac", three, "m4=spare"},
		{"a voter that stops yields", "1:voter*,leader,stop 2:voter* 3:voter* 4:stand-by 5:spare", three, "m1=spare m4=voter m5=stand-by"},
		{"of two that stop, one has a successor", "1:voter*,leader 2:voter*,stop 3:voter*,stop 4:stand-by", three, "m3=spare m4=voter"},
		{"one that stops is not promoted", "1:voter*,leader 2:voter*,off 3:voter* 4:stand-by,stop", three, "m4=spare"},
		{"a promotion under way is not turned back for a yielding voter", "1:voter*,leader 2:voter* 3:spare*,evac 4:voter,slow", three, ""},
		{"two of which one stops", "1:voter*,leader,stop 2:stand-by", three, "m1=spare m2=voter"},
		{"two of which the stand-by stops", "1:voter*,leader 2:stand-by,stop", three, "m2=spare"},
		{"a member that leaves counts no more", "1:voter*,leader 2:voter* 3:voter*,leave", three, "m2=stand-by m3=spare"},
		{"a leader that leaves yields to the stand-by", "1:voter*,leader,leave 2:stand-by", three, "m1=spare m2=voter"},
		{"but not to one that is offline", "1:voter*,leader,leave 2:stand-by,off", three, ""},
		{"a stand-by that leaves", "1:voter*,leader 2:voter* 3:voter* 4:stand-by,leave 5:stand-by", three, "m4=spare"},
		{"a fenced member is nothing", "1:voter*,leader 2:spare,fenced 3:stand-by,fenced 4:spare", three, "m3=spare m4=stand-by"},
		{"a fenced voter counts for no target", "1:voter*,leader 2:voter*,fenced,off 3:voter*,fenced,off", three, "m2=spare m3=spare"},
		{"no stand-bys wanted", "1:voter*,leader 2:stand-by", Targets{Voters: 3}, "m2=spare"},
		{"an even number of voters is mended", "1:voter*,leader 2:voter* 3:voter* 4:voter*", three, "m4=stand-by"},
		{"a promotion under way is not turned back for being slow", "1:voter*,leader 2:voter* 3:voter,slow", three, ""},
		{"but for being offline, and its pair with it", "1:voter*,leader 2:voter* 3:voter,off", three, "m2=stand-by m3=spare"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			members := parseMembers(t, tt.members)
			if got := describeChanges(Plan(members, tt.want)); got != tt.changes {
				t.Errorf("changes are %q, expected %q", got, tt.changes)
			}
		})
	}
}

func TestStepsToTheWantedConfiguration(t *testing.T) {
	for _, tt := range []struct{ name, members, steps string }{
		{"nothing to do", "1:voter*,leader 2:voter* 3:voter* 4:stand-by", ""},
		{"two promotions back to back", "1:voter*,leader 2:voter 3:voter", "promote m2, promote m3"},
		{"none while the pair is not complete", "1:voter*,leader 2:voter 3:voter,slow", ""},
		{"a dead voter goes before its successor comes", "1:voter*,leader 2:spare*,off 3:voter* 4:voter", "demote m2, promote m4"},
		{"a living one after", "1:voter*,leader 2:voter* 3:spare*,evac 4:voter", "promote m4, demote m3"},
		{"and only then", "1:voter*,leader 2:voter* 3:spare*,evac 4:voter,slow", ""},
		{"a leader that gives its vote away", "1:spare*,leader,evac 2:voter* 3:voter* 4:voter", "promote m4, transfer leadership m2, demote m1"},
		{"of two members", "1:spare*,leader,stop 2:voter", "promote m2, transfer leadership m2, demote m1"},
		{"a leader that keeps its vote leads no more", "1:voter*,leader,evac 2:voter*,stop 3:voter*", "transfer leadership m3"},
		{"unless nobody better is there", "1:voter*,leader,evac 2:voter*,stop 3:voter*,slow", ""},
		{"its heir is one that stays, if there is one", "1:spare*,leader,leave 2:voter*,evac 3:voter* 4:voter", "promote m4, transfer leadership m3, demote m1"},
		{"a fenced voter goes out of the configuration", "1:voter*,leader 2:spare*,fenced,off 3:spare*,fenced,off 4:voter*,off 5:voter* 6:voter*", "remove m2, remove m3"},
		{"a vote that does not answer goes before one that does", "1:spare*,slow,leave 2:voter*,leader 3:stand-by*", "demote m1, demote m3"},
		{"and none that does while the rest does not", "1:voter*,slow 2:stand-by* 3:spare*,leader,leave", ""},
		{"a dead voter stays while another does not answer: it may be back", "1:voter*,leader 2:voter*,slow 3:spare*,off 4:voter", ""},
		{"and so does a server that is no member", "1:voter*,leader 2:voter*,slow 3:spare*,fenced,off", ""},
		{"a vote is given only while most have the log", "1:voter*,leader 2:voter*,slow 3:voter*,slow 4:voter 5:voter", ""},
		{"one that does not answer is no reason to wait", "1:voter*,leader 2:voter* 3:voter*,slow 4:voter 5:voter", "promote m4, promote m5"},
		{"an even number is made odd whoever does not answer", "1:voter*,leader 2:voter* 3:voter*,slow 4:spare*", "demote m4"},
		{"no step makes the voters online a minority", "1:voter*,leader 2:voter*,off 3:spare*", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{members: parseMembers(t, tt.members), inRaft: map[string]bool{}}
			for _, m := range w.members {
				w.inRaft[m.ID] = true
			}
			var steps []string
			for range 10 {
				step, more := nextStep(w.seats())
				if !more {
					break
				}
				steps = append(steps, step.Kind.String()+" "+step.ID)
				w.take(t, step)
			}
			if got := strings.Join(steps, ", "); got != tt.steps {
				t.Errorf("steps are %q, expected %q", got, tt.steps)
			}
		})
	}
}

// world is members and what Raft has of them, as a model for nextStep and Plan.
type world struct {
	members []Candidate
	ghosts  []Seat // servers without a member
	joining []Seat
	inRaft  map[string]bool
	want    Targets
}

func (w *world) member(id string) *Candidate {
	i := slices.IndexFunc(w.members, func(m Candidate) bool { return m.ID == id })
	if i < 0 {
		return nil
	}
	return &w.members[i]
}

func (w *world) seats() []Seat {
	out := slices.Clone(w.ghosts)
	for _, m := range inOrder(w.members) {
		out = append(out, Seat{
			ID: m.ID, Number: m.Number, Known: !m.Fenced, InRaft: w.inRaft[m.ID], Voter: m.Voter,
			Wanted: m.Role == state.RoleVoter && !m.Fenced, Leader: m.Leader, Online: m.Online, Ready: m.Ready,
			Yields: m.yields() || m.Leaving,
		})
	}
	return append(out, w.joining...)
}

// voters counts the votes and those of them that can answer.
func (w *world) voters() (all, online int) {
	for _, m := range w.members {
		if m.Voter {
			all++
			if m.Online && !m.Fenced {
				online++
			}
		}
	}
	for _, g := range w.ghosts {
		if g.Voter {
			all++
		}
	}
	return all, online
}

// ready counts the votes of those that answer at this moment.
func (w *world) ready() int {
	n := 0
	for _, m := range w.members {
		if m.Voter && m.Online && m.Ready && !m.Fenced {
			n++
		}
	}
	return n
}

func (w *world) wanted() int {
	n := 0
	for _, m := range w.members {
		if m.Role == state.RoleVoter {
			n++
		}
	}
	return n
}

// fataler is a test, or a try of rapid's.
type fataler interface {
	Fatalf(format string, args ...any)
}

// take carries a step out and fails if it was not legal.
func (w *world) take(t fataler, s Step) {
	m := w.member(s.ID)
	before, _ := w.voters()
	switch s.Kind {
	case StepAdd:
		if m == nil || w.inRaft[s.ID] || m.Fenced {
			t.Fatalf("added %s, which is not a member or is there", s.ID)
		}
		w.inRaft[s.ID] = true
		return
	case StepPromote:
		if m == nil || m.Voter || !w.inRaft[s.ID] || !m.Ready || !m.Online || m.Role != state.RoleVoter {
			t.Fatalf("promoted %s, which may not be: %+v", s.ID, m)
		}
		m.Voter = true
	case StepDemote:
		if m == nil || !m.Voter || m.Leader || m.Role == state.RoleVoter {
			t.Fatalf("demoted %s, which may not be: %+v", s.ID, m)
		}
		if m.Online && before <= w.wanted() {
			t.Fatalf("demoted %s, which is online and has no successor", s.ID)
		}
		m.Voter = false
	case StepRemove:
		if m != nil {
			if !m.Fenced || m.Leader {
				t.Fatalf("removed %s, which is a member", s.ID)
			}
			m.Voter, w.inRaft[s.ID] = false, false
			return
		}
		w.ghosts = slices.DeleteFunc(w.ghosts, func(g Seat) bool { return g.ID == s.ID })
	case StepTransfer:
		if m == nil || !m.Voter || !m.Ready || m.Leader || m.Role != state.RoleVoter {
			t.Fatalf("leadership went to %s, which may not lead: %+v", s.ID, m)
		}
		for i := range w.members {
			w.members[i].Leader = w.members[i].ID == s.ID
		}
		return
	default:
		t.Fatalf("step %v", s)
	}
	if all, _ := w.voters(); all != before && !majority(w.ready(), all) {
		t.Fatalf("after %v %s only %d of %d voters answer", s.Kind, s.ID, w.ready(), all)
	}
}

// advance plans, or takes one step; it tells whether there was anything to do.
func (w *world) advance(t *rapid.T) bool {
	if changes := Plan(w.members, w.want); len(changes) > 0 {
		for _, c := range changes {
			m := w.member(c.ID)
			if c.Role == state.RoleVoter && !m.Voter && (!m.Ready || !m.Online || !m.able() || m.Stopping) {
				t.Fatalf("planned a vote for %+v", *m)
			}
			if c.Role != state.RoleSpare && !m.able() && !m.Leader {
				t.Fatalf("planned role %s for %+v", c.Role, *m)
			}
			if c.Role == state.RoleStandby && m.yields() {
				t.Fatalf("planned a stand-by of %+v", *m)
			}
			if c.Role == state.RoleStandby && !m.Online {
				t.Fatalf("planned a stand-by that is offline")
			}
			m.Role = c.Role
		}
		if again := Plan(w.members, w.want); len(again) > 0 {
			t.Fatalf("planned %s, and then %s: %+v", describeChanges(changes), describeChanges(again), w.members)
		}
		return true
	}
	step, ok := nextStep(w.seats())
	if ok {
		w.take(t, step)
	}
	return ok
}

// settle advances until nothing is left to do, and checks the state of rest.
func (w *world) settle(t *rapid.T) {
	bound := 4*len(w.members) + len(w.ghosts) + 4
	for range bound {
		if !w.advance(t) {
			w.checkRest(t)
			return
		}
	}
	t.Fatalf("not at rest after %d steps: %+v", bound, w)
}

func (w *world) checkRest(t *rapid.T) {
	able, ableOnline, standby := 0, 0, 0
	for _, m := range w.members {
		if m.Role == state.RoleStandby {
			standby++
		}
		if !m.able() {
			continue
		}
		able++
		if m.Online && (m.Ready && !m.Stopping || m.Voter) {
			ableOnline++
		}
	}
	if standby > w.want.Standby {
		t.Fatalf("at rest there are %d stand-bys", standby)
	}
	if slices.ContainsFunc(w.members, func(m Candidate) bool { return m.Role == state.RoleVoter && !m.Voter }) {
		return // waits for a member that is slow; the steps were legal
	}
	if all, _ := w.voters(); w.ready() < all && !majority(w.ready()-1, all-1) {
		return // no vote is taken before those that are left answer
	}
	if slices.ContainsFunc(w.members, func(m Candidate) bool { return m.Leader && m.Role != state.RoleVoter }) &&
		!slices.ContainsFunc(w.members, func(m Candidate) bool { return m.Role == state.RoleVoter && m.Ready }) {
		return // the leader waits for an heir
	}
	for _, m := range w.members {
		if m.Voter != (m.Role == state.RoleVoter) {
			t.Fatalf("at rest %s has role %s and a vote: %v in %+v", m.ID, m.Role, m.Voter, w)
		}
	}
	if len(w.ghosts) > 0 {
		t.Fatalf("at rest %d servers are left that are no members", len(w.ghosts))
	}
	all, online := w.voters()
	if limit := max(1, odd(min(w.want.Voters, able))); all > limit || all%2 == 0 {
		t.Fatalf("at rest there are %d voters, the limit is %d", all, limit)
	}
	if least := odd(min(w.want.Voters, able, ableOnline)); online < least {
		t.Fatalf("at rest there are %d voters online, %d could be", online, least)
	}
	w.checkYielding(t)
}

// checkYielding fails if a member that yields has kept what another could take.
func (w *world) checkYielding(t *rapid.T) {
	free := func(m Candidate) bool { return m.steady() && m.Ready && !m.holds() }
	idle := slices.ContainsFunc(w.members, free)
	for _, m := range w.members {
		switch {
		case m.Fenced && (w.inRaft[m.ID] || m.Role != state.RoleSpare):
			t.Fatalf("at rest %s is fenced and has a part in Raft", m.ID)
		case m.holds() && (m.yields() || m.Leaving) && idle:
			t.Fatalf("at rest %s votes, and another could: %+v", m.ID, w.members)
		case m.Leader && m.yields() && slices.ContainsFunc(w.members, func(o Candidate) bool { return o.steady() && o.Voter && o.Ready }):
			t.Fatalf("at rest %s leads, and another could: %+v", m.ID, w.members)
		}
	}
}

func odd(n int) int {
	if n%2 == 0 {
		return n - 1
	}
	return n
}

func drawWorld(t *rapid.T) *world {
	w := &world{
		inRaft: make(map[string]bool),
		want:   Targets{Voters: 2*rapid.IntRange(1, 3).Draw(t, "voters") + 1, Standby: rapid.IntRange(0, 3).Draw(t, "standby")},
	}
	n := rapid.IntRange(1, 9).Draw(t, "members")
	for i := range n {
		m := Candidate{ID: fmt.Sprintf("m%d", i+1), Number: i + 1}
		m.Domain = rapid.SampledFrom([]string{"default", "a", "b"}).Draw(t, "domain")
		m.Role = rapid.SampledFrom([]string{state.RoleVoter, state.RoleStandby, state.RoleSpare}).Draw(t, "role")
		m.Voter = rapid.Bool().Draw(t, "voter")
		m.Client = rapid.IntRange(0, 5).Draw(t, "client") == 0
		w.drawIntents(t, &m)
		w.drawLiveness(t, &m)
		w.inRaft[m.ID] = m.Voter || rapid.Bool().Draw(t, "in raft")
		w.members = append(w.members, m)
	}
	leader := &w.members[rapid.IntRange(0, n-1).Draw(t, "leader")]
	leader.Fenced = false
	leader.Leader, leader.Voter, w.inRaft[leader.ID] = true, true, true
	w.elect(t)
	if rapid.IntRange(0, 3).Draw(t, "ghost") == 0 {
		w.ghosts = append(w.ghosts, Seat{ID: "gone", InRaft: true, Voter: rapid.Bool().Draw(t, "ghost votes")})
	}
	if rapid.IntRange(0, 3).Draw(t, "joiner") == 0 {
		w.joining = append(w.joining, Seat{ID: "new", Number: n + 1, Known: true, Joining: true, InRaft: rapid.Bool().Draw(t, "joiner in raft")})
	}
	w.elect(t)
	return w
}

// drawIntents draws what is meant to become of a member. Who is fenced never answers.
func (w *world) drawIntents(t *rapid.T, m *Candidate) {
	rare := func(label string) bool { return rapid.IntRange(0, 5).Draw(t, label) == 0 }
	m.Evacuated, m.Stopping, m.Leaving = rare("evacuated"), rare("stopping"), rare("leaving")
	m.Fenced = m.Number > 1 && rare("fenced")
}

func (w *world) drawLiveness(t *rapid.T, m *Candidate) {
	m.Online = rapid.IntRange(0, 3).Draw(t, "offline") > 0 && !m.Fenced
	m.Ready = m.Online && rapid.IntRange(0, 3).Draw(t, "slow") > 0
}

// elect makes sure that there is a quorum and a leader: without, nothing happens.
func (w *world) elect(t *rapid.T) {
	for i := range w.members {
		if all, online := w.voters(); majority(online, all) {
			break
		}
		if w.members[i].Fenced {
			continue
		}
		w.members[i].Online = true
		if !w.member(w.members[i].ID).Voter {
			w.members[i].Voter, w.inRaft[w.members[i].ID] = true, true
		}
	}
	if all, online := w.voters(); !majority(online, all) {
		w.ghosts = nil
		for i := range w.members {
			w.members[i].Voter = w.members[i].Voter && !w.members[i].Fenced
		}
	}
	for i := range w.members {
		if m := &w.members[i]; m.Leader {
			if m.Online {
				m.Ready = true
				return
			}
			m.Leader = false
		}
	}
	for i := range w.members {
		if m := &w.members[i]; m.Online && m.Voter {
			m.Leader, m.Ready = true, true
			return
		}
	}
	t.Fatal("the model has no leader")
}

func TestRolesSettleFromAnyStateByLegalSteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		drawWorld(t).settle(t)
	})
}

func TestRolesSettleAfterMembersComeAndGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			for range rapid.IntRange(0, 3).Draw(t, "steps") {
				w.advance(t)
			}
			w.drawLiveness(t, &w.members[rapid.IntRange(0, len(w.members)-1).Draw(t, "who")])
			w.elect(t)
		}
		w.settle(t)
	})
}

// FuzzPlan looks for members that make Plan crash or contradict itself.
func FuzzPlan(f *testing.F) { f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { drawWorld(t).settle(t) })) }

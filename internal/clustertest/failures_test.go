//go:build !race

// These tests kill many members, which takes minutes under the race detector; the tests
// beside them take the same paths.

package clustertest_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/config"
	"incusd/internal/daemon"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// sampleEnv names how sparse a sample of the failures is taken: 1 takes all, as `make failures` does.
const sampleEnv = "FAILURES_EVERY"

// sampleEvery is what an ordinary run takes: about fifty.
const sampleEvery = 560

// TestEveryFailureAtEachStepEndsInTheRightRoles lets one or two servers of each kind fail, in each
// way, at each step of whatever changes votes, members and addresses, in clusters of each size.
// Where most of the voters are left the cluster goes on. Where they are not, it says so, changes
// nothing, and is right again when enough are back. In the end all is as the administrator wanted
// it, and nothing that was acknowledged is lost.
func TestEveryFailureAtEachStepEndsInTheRightRoles(t *testing.T) {
	every := sampleEvery
	if text := os.Getenv(sampleEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s is %q, expected a number from 1", sampleEnv, text)
		}
		every = n
	}
	all := failures()
	t.Logf("every %d. of %d failures", every, len(all))
	for i := 0; i < len(all); i += every {
		t.Run(all[i].String(), func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T) { newTrial(t, all[i]).run() })
		})
	}
}

// A procedure changes who votes, who is a member, or where a member is.
type procedure struct {
	name string
	// about is the letter of the member that it is about, as in roles, or joiner.
	about  byte
	from   int // the smallest cluster that has such a member
	before string
	// points are the steps at which a server can be held, for a cluster of size.
	points func(size int) []string
	begin  func(x *trial) error
	// finish does what an administrator does who had no answer.
	finish func(x *trial)
}

// joiner is the letter of a server that is no member yet.
const joiner = 'J'

var procedures = []procedure{
	{name: "rest", from: 1, points: func(int) []string { return []string{""} }},
	{name: "removal", about: 'L', from: 2, points: whenRemoved(true), begin: (*trial).remove, finish: (*trial).requireRemoved},
	{name: "removal", about: 'V', from: 3, points: whenRemoved(false), begin: (*trial).remove, finish: (*trial).requireRemoved},
	{name: "removal", about: 'S', from: 2, points: proposedThen(daemon.PointLeft), begin: (*trial).remove, finish: (*trial).requireRemoved},
	{name: "removal", about: '-', from: 6, points: proposedThen(daemon.PointLeft), begin: (*trial).remove, finish: (*trial).requireRemoved},
	{name: "handover", about: 'L', from: 2, points: whenStopped(true), begin: (*trial).stop},
	{name: "handover", about: 'V', from: 3, points: whenStopped(false), begin: (*trial).stop},
	{name: "promotion", from: 5, points: proposedThen(raftstore.PointPromote, raftstore.PointPromoted), begin: wantVoters("5"), finish: requireVoters("5")},
	{name: "demotion", from: 5, before: "5", points: proposedThen(raftstore.PointDemote, raftstore.PointDemoted), begin: wantVoters("3"), finish: requireVoters("3")},
	{name: "evacuation", about: 'L', from: 2, points: whenStopped(true), begin: (*trial).evacuate, finish: (*trial).requireEvacuatedAndRestored},
	{name: "evacuation", about: 'V', from: 3, points: whenStopped(false), begin: (*trial).evacuate, finish: (*trial).requireEvacuatedAndRestored},
	{name: "evacuation", about: 'S', from: 2, points: proposedThen(), begin: (*trial).evacuate, finish: (*trial).requireEvacuatedAndRestored},
	{name: "join", about: joiner, from: 1, points: whenJoined, begin: (*trial).join, finish: (*trial).requireJoined},
	{name: "move", about: 'L', from: 1, points: proposedThen(daemon.PointAddressNoted, daemon.PointAddressTold), begin: (*trial).move, finish: (*trial).requireMoved},
	{name: "move", about: 'V', from: 3, points: proposedThen(daemon.PointAddressNoted, daemon.PointAddressTold), begin: (*trial).move, finish: (*trial).requireMoved},
	{name: "move", about: 'S', from: 2, points: proposedThen(daemon.PointAddressNoted, daemon.PointAddressTold), begin: (*trial).move, finish: (*trial).requireMoved},
}

var (
	proposed = []string{raftstore.PointAppend, raftstore.PointCommitted}
	promote  = []string{raftstore.PointPromote, raftstore.PointPromoted}
	handOn   = []string{raftstore.PointTransfer}
	demote   = []string{raftstore.PointDemote, raftstore.PointDemoted}
)

func proposedThen(points ...string) func(int) []string {
	return func(int) []string { return slices.Concat(proposed, points) }
}

// whenRemoved lists the steps of the removal of a voter. Of three members nobody is promoted.
func whenRemoved(leads bool) func(size int) []string {
	return func(size int) []string {
		points := proposed
		if size != 3 {
			points = slices.Concat(points, promote)
		}
		if leads {
			points = slices.Concat(points, handOn)
		}
		return slices.Concat(points, demote, []string{daemon.PointLeft})
	}
}

// whenStopped lists those of a voter's stop or evacuation. Of three members it keeps its vote.
func whenStopped(leads bool) func(size int) []string {
	return func(size int) []string {
		points := proposed
		if size != 3 {
			points = slices.Concat(points, promote, demote)
		}
		if leads {
			points = slices.Concat(points, handOn)
		}
		return points
	}
}

// whenJoined lists those of a join. Of three members two get a vote.
func whenJoined(size int) []string {
	points := slices.Concat(proposed, joinPoints)
	if size == 2 {
		points = slices.Concat(points, promote)
	}
	return points
}

// A failure is one case: who fails, how, and when.
type failure struct {
	size int
	procedure
	point string
	// who are the letters of those that fail: M for the member that it is about, X for the one
	// that has taken over from it, else as in roles, before the procedure.
	who string
	how []string // for each of them: one of ways
}

// ways are how a server fails: it dies, nobody hears it and it hears nobody, or nobody hears it.
var ways = []string{"killed", "cut off", "mute"}

func (f failure) String() string {
	about := ""
	if f.about != 0 {
		about = " of " + string(f.about)
	}
	return strings.Join(strings.Fields(fmt.Sprintf("%d: %s%s, %s %s %s", f.size, f.name, about, f.point, f.who, strings.Join(f.how, "+"))), "_")
}

// failures lists all cases.
func failures() (all []failure) {
	for _, p := range procedures {
		for size := p.from; size <= 7; size++ {
			if p.about != 0 && !strings.Contains(kinds(size, p, ""), "M") {
				continue // three members have no stand-by
			}
			for _, point := range p.points(size) {
				for _, who := range upToTwo(kinds(size, p, point)) {
					for _, how := range hows(p, size, who) {
						all = append(all, failure{size, p, point, who, how})
					}
				}
			}
		}
	}
	return all
}

// kinds has a letter for each member: members of a kind have the same part to play.
func kinds(size int, p procedure, point string) string {
	limit := 3
	if p.before != "" {
		limit = 5
	}
	voters := odd(min(limit, size))
	standby := min(2, size-voters)
	letters := "L" + strings.Repeat("V", voters-1) + strings.Repeat("S", standby) + strings.Repeat("-", size-voters-standby)
	switch p.about {
	case 0:
	case joiner:
		letters += "M"
	default:
		letters = strings.Replace(letters, string(p.about), "M", 1)
	}
	if p.about == 'L' && slices.Contains(demote, point) { // another one leads by then
		heir := "V"
		if size == 2 {
			heir = "S"
		}
		letters = strings.Replace(letters, heir, "X", 1)
	}
	return letters
}

// upToTwo lists the different ones and pairs among letters.
func upToTwo(letters string) (out []string) {
	for i := range letters {
		out = append(out, letters[i:i+1])
		for j := range i {
			out = append(out, letters[j:j+1]+letters[i:i+1])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// hows lists the different ways in which who fail in a cluster of size. Nobody is there to be cut
// off from a single server.
func hows(p procedure, size int, who string) (out [][]string) {
	for i, first := range ways {
		switch {
		case size == 1 && first != "killed" && p.about != joiner:
		case len(who) == 1:
			out = append(out, []string{first})
		default:
			for j, second := range ways {
				if who[0] != who[1] || i <= j {
					out = append(out, []string{first, second})
				}
			}
		}
	}
	return out
}

// A trial is a cluster in which a failure happens.
type trial struct {
	*testing.T
	failure
	c       *clustertest.Cluster
	ids     map[string]string // by host
	subject *clustertest.Server
	token   string              // for the one that joins
	joined  bool                // it is to be a member by now
	by      *clustertest.Server // asks for the procedure
	down    []*clustertest.Server
	way     map[*clustertest.Server]string // how each of the victims fails
	written []string                       // keys whose write was acknowledged
	ended   chan struct{}                  // closed when the procedure's request has ended

	armed   atomic.Bool
	caught  chan *clustertest.Server
	release chan error
}

// newTrial returns a trial whose cluster is at rest.
func newTrial(t *testing.T, f failure) *trial {
	x := &trial{
		T: t, failure: f, c: &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}, ids: make(map[string]string),
		way: make(map[*clustertest.Server]string), ended: make(chan struct{}), caught: make(chan *clustertest.Server, 1), release: make(chan error, 1),
	}
	for i := range f.size {
		s := x.c.AddServer(x.prepare)
		if i == 0 {
			s.MustBootstrap()
			quickOffline(t, s)
			if f.before != "" {
				if err := set(s, "cluster.max_voters", f.before); err != nil {
					t.Fatal(err)
				}
			}
		} else {
			s.MustJoin(x.c.Servers()[0])
		}
	}
	x.await("rest", x.settled)
	return x
}

func (x *trial) prepare(s *clustertest.Server) {
	clustertest.OnReach(func(point string) error {
		if point != x.point || !x.armed.CompareAndSwap(true, false) {
			return nil
		}
		x.caught <- s
		return <-x.release
	})(s)
}

func (x *trial) run() {
	victims := x.cast()
	x.mustWrite("user.before")
	held := x.start()
	if i := slices.Index(victims, nil); i >= 0 { // who has taken over
		victims[i] = held
	}
	stopped := x.down
	x.down = append(x.down, victims...)
	x.learnIDs()
	configurations := x.configurations()
	x.fail(victims, held)
	time.Sleep(13 * time.Second) // longer than the threshold
	x.judge(configurations)
	for len(x.down) > 0 {
		i := max(0, slices.IndexFunc(x.down, func(s *clustertest.Server) bool { return x.votes(s, configurations) }))
		x.back(x.down[i], stopped)
		if quorate(configurations, x.down, x.ids) {
			x.await("right roles when enough are back", x.settled)
		}
	}
	<-x.ended
	if x.finish != nil {
		x.finish(x)
	}
	x.await("right roles in the end", x.settled)
	x.c.RequireConverged() // one that has no leader yet answers from what it had
	x.requireWritten()
	for _, s := range x.c.Servers() {
		s.Kill() // nothing is left to hand over
	}
}

// cast finds those who play in the trial, by their roles before it. It leaves who is known only
// when the failure happens as nil.
func (x *trial) cast() (victims []*clustertest.Server) {
	leader := x.c.Leader()
	letters := []byte(roles(leader))
	take := func(letter byte) *clustertest.Server {
		i := slices.Index(letters, letter)
		if i < 0 {
			x.Fatalf("no %c in %s", letter, letters)
		}
		letters[i] = '.'
		return x.c.Servers()[i]
	}
	switch x.about {
	case 0:
	case joiner:
		x.subject = x.c.AddServer(x.prepare)
		x.token = leader.MustToken(x.subject.Host)
	default:
		x.subject = take(x.about)
	}
	for i := range x.who {
		switch x.who[i] {
		case 'M':
			victims = append(victims, x.subject)
		case 'X':
			victims = append(victims, nil)
		default:
			victims = append(victims, take(x.who[i]))
		}
	}
	x.by = leader
	for _, s := range x.c.Servers() {
		if s != x.subject && s != leader && !slices.Contains(victims, s) {
			x.by = s
		}
	}
	return victims
}

// start begins the procedure, and returns who is held at the point, nil if nobody is to be.
func (x *trial) start() (held *clustertest.Server) {
	if x.begin == nil {
		close(x.ended)
		return nil
	}
	x.armed.Store(true)
	go func() {
		defer close(x.ended)
		x.Logf("the request: %v", x.begin(x))
	}()
	x.Cleanup(func() { close(x.release) })
	select {
	case held = <-x.caught:
	case <-x.c.Context().Done():
		x.Fatal("nobody came to the point")
	}
	if x.name == "handover" {
		x.down = append(x.down, x.subject)
	}
	time.Sleep(20 * time.Millisecond) // what goes on beside it
	return held
}

// fail lets the victims fail, and whoever is held go.
func (x *trial) fail(victims []*clustertest.Server, held *clustertest.Server) {
	for i, s := range victims {
		x.way[s] = x.how[i]
		x.cut(s)
	}
	dying := slices.DeleteFunc(slices.Clone(victims), func(s *clustertest.Server) bool { return x.way[s] != "killed" })
	var wg sync.WaitGroup
	for _, s := range dying {
		x.c.Net.Kill(s.Host) // one that stops has no daemon any more that could be killed
		wg.Go(s.Kill)
	}
	x.await("the victims are dead", func() error {
		if slices.ContainsFunc(dying, (*clustertest.Server).Runs) {
			return errors.New("one runs")
		}
		return nil
	})
	var crash error
	if slices.Contains(dying, held) {
		crash = errCrash
	}
	x.release <- crash
	wg.Wait()
}

// cut keeps a server from being heard, and unless it is mute from hearing.
func (x *trial) cut(s *clustertest.Server) {
	for _, other := range x.c.Servers() {
		switch {
		case other == s:
		case x.way[s] == "mute":
			x.c.Net.CutOneWay(s.Host, other.Host)
		default:
			x.c.Net.Cut(s.Host, other.Host)
		}
	}
}

// back ends the failure of s. Those in stopped were not cut off.
func (x *trial) back(s *clustertest.Server, stopped []*clustertest.Server) {
	if slices.Contains(stopped, s) {
		<-x.ended
	}
	x.down = slices.DeleteFunc(x.down, func(o *clustertest.Server) bool { return o == s })
	x.c.Net.Heal()
	for _, o := range x.down {
		if !slices.Contains(stopped, o) {
			x.cut(o)
		}
	}
	if !s.Runs() {
		s.MustStart()
	}
}

// judge checks what those do who are left, when they know that the others are not there.
func (x *trial) judge(configurations []map[string]bool) {
	if quorate(configurations, x.down, x.ids) || x.leader() != nil {
		x.await("right roles of those who are left", x.settled)
		x.awaitBy("those who fail are offline", x.downAreOffline)
		x.mustWrite("user.after")
		return
	}
	var left []*clustertest.Server
	for _, s := range x.left() {
		if s.View().Cluster().Enabled && !x.joins(s) {
			left = append(left, s)
		}
	}
	requireUnavailable(x.T, x.c, left)
}

// downAreOffline tells who is down and does not look so to those who are left.
func (x *trial) downAreOffline(by *clustertest.Server) error {
	for _, s := range x.down {
		if m, ok := by.View().MemberByName(s.Host); ok && m.State == state.MemberActive && !m.Offline {
			return fmt.Errorf("%s looks healthy", s.Host)
		}
	}
	return nil
}

// left lists the servers that neither fail nor stop.
func (x *trial) left() []*clustertest.Server {
	return slices.DeleteFunc(x.c.Running(), func(s *clustertest.Server) bool { return slices.Contains(x.down, s) })
}

// leader is who leads those who are left.
func (x *trial) leader() *clustertest.Server {
	for _, s := range x.left() {
		if s.Leads() && s.Do(x.c.Context(), "GET", "/1.0", nil, nil) == nil {
			return s
		}
	}
	return nil
}

// learnIDs notes the IDs of the members, and of those that are about to be.
func (x *trial) learnIDs() {
	for _, s := range x.c.Running() {
		v := s.View()
		for _, m := range slices.Concat(v.Members(), v.Joining()) {
			x.ids[m.Name] = m.ID
		}
	}
}

// configurations lists who votes, by ID, as each server's log has it, which counts before it is
// committed.
func (x *trial) configurations() (out []map[string]bool) {
	for _, s := range x.c.Running() {
		if s.View().Cluster().Enabled {
			voters := make(map[string]bool)
			for _, id := range s.Voters() {
				voters[id] = true
			}
			out = append(out, voters)
		}
	}
	return out
}

// quorate tells whether in each configuration most of the voters are not down.
func quorate(configurations []map[string]bool, down []*clustertest.Server, ids map[string]string) bool {
	return !slices.ContainsFunc(configurations, func(voters map[string]bool) bool {
		lost := 0
		for _, s := range down {
			if voters[ids[s.Host]] {
				lost++
			}
		}
		return len(voters)-lost <= len(voters)/2
	})
}

func (x *trial) votes(s *clustertest.Server, configurations []map[string]bool) bool {
	return slices.ContainsFunc(configurations, func(voters map[string]bool) bool { return voters[x.ids[s.Host]] })
}

// settled tells what is not as it shall be while some are down.
func (x *trial) settled() error {
	by := x.leader()
	if by == nil {
		return errors.New("nobody leads")
	}
	v := by.View()
	if !v.Cluster().Enabled {
		return errors.New("the leader has left")
	}
	var away []*clustertest.Server
	for _, m := range v.Members() {
		s := server(x.c, m.Name)
		switch {
		case slices.Contains(x.down, s):
			away = append(away, s)
		case m.Offline:
			return fmt.Errorf("%s is offline", m.Name)
		case m.Stopping:
			return fmt.Errorf("%s is said to stop", m.Name)
		case m.Maintenance != "":
			away = append(away, s)
		}
		if m.Removal != nil {
			return fmt.Errorf("%s is being removed", m.Name)
		}
	}
	if x.about == joiner && !x.joined {
		return nil // the rest of a join may be there
	}
	if len(v.Joining()) > 0 || len(v.Servers()) != len(v.Members()) {
		return fmt.Errorf("%d members, %d joining, %d servers in Raft", len(v.Members()), len(v.Joining()), len(v.Servers()))
	}
	for _, s := range v.Servers() {
		if m, ok := v.Member(s.ID); !ok || s.Voter != (m.Role == "voter") {
			return fmt.Errorf("Raft has %+v, and its member is %+v", s, m)
		}
	}
	return settledBy(by, away...)
}

// await waits in virtual time, and looks seldom: looking is what costs.
func (x *trial) await(what string, f func() error) {
	x.Helper()
	const limit, pause = 90 * time.Second, 100 * time.Millisecond
	for start := time.Now(); ; time.Sleep(pause) {
		err := f()
		if err == nil {
			return
		}
		if time.Since(start) > limit {
			x.Fatalf("%s: %v", what, err)
		}
	}
}

// awaitBy is await for what the leader shows.
func (x *trial) awaitBy(what string, f func(by *clustertest.Server) error) {
	x.Helper()
	x.await(what, func() error {
		if by := x.leader(); by != nil {
			return f(by)
		}
		return errors.New("nobody leads")
	})
}

func (x *trial) mustWrite(key string) {
	x.Helper()
	by := x.leader()
	if by == nil {
		x.Fatal("nobody leads")
	}
	if err := set(by, key, "1"); err != nil {
		x.Fatalf("write %s: %v", key, err)
	}
	x.written = append(x.written, key)
}

func (x *trial) requireWritten() {
	x.Helper()
	for _, s := range x.c.Servers() {
		if !s.View().Cluster().Enabled {
			continue
		}
		for _, key := range x.written {
			if got, err := get(s, key); err != nil || got != "1" {
				x.Errorf("%s reads %s as %q, %v", s.Host, key, got, err)
			}
		}
	}
}

// requireUnavailable checks that those who are left say what is wrong and change nothing.
func requireUnavailable(t *testing.T, c *clustertest.Cluster, left []*clustertest.Server) {
	t.Helper()
	for _, s := range left {
		before := s.View().Index()
		if err := set(s, "user.y", "1"); !errors.Is(err, api.NoQuorum) {
			t.Fatalf("%s takes a write without a quorum: %v", s.Host, err)
		}
		members, err := s.Members(c.Context())
		if err != nil || !strings.HasPrefix(members[0].Message, "No quorum") {
			t.Fatalf("%s says %+v, %v", s.Host, members, err)
		}
		if after := s.View().Index(); after != before {
			t.Fatalf("%s went from %d to %d without a quorum", s.Host, before, after)
		}
	}
}

// joins tells whether s is the one that joins.
func (x *trial) joins(s *clustertest.Server) bool { return x.about == joiner && s == x.subject }

func (x *trial) join() error { return x.subject.Join(x.c.Context(), x.token) }

// requireJoined does what an administrator does whose join failed: the same again, with the same
// token, as soon as the server lets him.
func (x *trial) requireJoined() {
	x.joined = true
	x.awaitBy("the join ends", func(by *clustertest.Server) error {
		if m, ok := by.View().MemberByName(x.subject.Host); ok && m.State == state.MemberActive {
			return nil
		}
		err := x.join()
		if err != nil && !errors.Is(err, api.JoinRunning) {
			x.Fatalf("the same join again: %v", err)
		}
		return err
	})
	requireCleanEnd(x.T, x.c, x.leader(), x.subject, x.token)
}

func (x *trial) remove() error { return remove(x.c.Context(), x.by, x.subject.Host, false) }

func (x *trial) requireRemoved() {
	x.awaitBy("the removal ends", func(by *clustertest.Server) error {
		if err := remove(x.c.Context(), by, x.subject.Host, false); !errors.Is(err, api.MemberNotFound) {
			return fmt.Errorf("removed: %v", err)
		}
		return nil
	})
	requireStandalone(x.T, x.c, x.subject)
}

func (x *trial) evacuate() error { return changeState(x.by, x.subject.Host, "evacuate") }

func (x *trial) requireEvacuatedAndRestored() {
	x.awaitBy("the member is evacuated", func(by *clustertest.Server) error {
		switch m, _ := by.View().MemberByName(x.subject.Host); m.Maintenance {
		case state.MaintenanceEvacuated:
			return nil
		case "":
			return x.evacuate()
		default:
			return errors.New(m.Maintenance)
		}
	})
	x.await("right roles without it", x.settled)
	x.await("the member is restored", func() error { return changeState(x.by, x.subject.Host, "restore") })
}

func (x *trial) stop() error {
	x.subject.Stop()
	return nil
}

func (x *trial) address() string { return x.subject.Host + ":9443" }

func (x *trial) move() error { return x.subject.MoveTo(x.c.Context(), x.address(), false) }

func (x *trial) requireMoved() {
	x.await("a move that was noted ends by itself", func() error {
		noted, err := get(x.subject, "cluster.https_address")
		if m, ok := x.subject.View().MemberByName(x.subject.Host); err == nil && noted == x.address() && (!ok || m.Address != noted) {
			err = errors.New("the cluster does not know of it")
		}
		return err
	})
	time.Sleep(time.Second) // the daemon's mutex is free: in a bubble nobody may wait for one
	x.await("the move ends", x.move)
	requireAddress(x.c, x.subject, x.address())
}

func wantVoters(n string) func(*trial) error {
	return func(x *trial) error { return set(x.by, "cluster.max_voters", n) }
}

func requireVoters(n string) func(*trial) {
	return func(x *trial) {
		x.await("the setting is taken", func() error { return wantVoters(n)(x) })
		if got := int(config.GetInt(x.by.View().Config(), "cluster.max_voters")); strconv.Itoa(got) != n {
			x.Errorf("cluster.max_voters is %d", got)
		}
	}
}

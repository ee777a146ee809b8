package clustertest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/config"
	"incusd/internal/raftstore"
)

// virtual runs a test in virtual time, in which waiting is free.
func virtual(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// roles says what each member is, as by sees it, in the order in which they joined: L for
// the leader, V for other voters, S for stand-bys and "-" for the rest; in lower case for
// those that are offline.
func roles(by *clustertest.Server) string {
	members, err := by.Members(by.C.Context())
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for _, m := range members {
		letter := "-"
		switch {
		case slices.Contains(m.Roles, api.RoleDatabaseLeader):
			letter = "L"
		case slices.Contains(m.Roles, api.RoleDatabase):
			letter = "V"
		case slices.Contains(m.Roles, api.RoleDatabaseStandby):
			letter = "S"
		}
		if by.Offline(m.ServerName) {
			letter = strings.ToLower(letter)
		}
		out.WriteString(letter)
	}
	return out.String()
}

// explained lists why members have their roles, as by says.
func explained(by *clustertest.Server) ([]api.ClusterMemberRole, error) {
	var list []api.ClusterMemberRole
	err := by.Do(by.C.Context(), "GET", "/internal/cluster/roles", nil, &list)
	return list, err
}

// requireSettled waits until nothing is left to do for the planner, and checks that the
// roles are those that size members, of which some are away, are good for.
func requireSettled(t *testing.T, c *clustertest.Cluster, away ...*clustertest.Server) {
	t.Helper()
	c.Eventually("roles have settled", func() error {
		by := leaderNow(c)
		if by == nil {
			return errors.New("nobody leads")
		}
		for _, s := range away {
			if !by.Offline(s.Host) {
				return fmt.Errorf("%s is not offline yet", s.Host)
			}
		}
		return settledBy(by, away...)
	})
}

// settledBy tells what is left to do for the planner, as by sees it, while some are away.
func settledBy(by *clustertest.Server, away ...*clustertest.Server) error {
	list, err := explained(by)
	if err != nil {
		return err
	}
	for _, r := range list {
		if strings.HasPrefix(r.Message, "about to") {
			return fmt.Errorf("%s: %s", r.ServerName, r.Message)
		}
	}
	limit := int(config.GetInt(by.View().Config(), "cluster.max_voters"))
	if got := roles(by); !right(got, limit, len(list), len(away)) {
		return fmt.Errorf("roles are %s", got)
	}
	return nil
}

// right tells whether roles fit a cluster of size members of which some are away. A member that
// was away when others took over is not among the voters that it was wanted with.
func right(roles string, limit, size, away int) bool {
	target := odd(min(limit, size))
	voters := strings.Count(roles, "L") + strings.Count(roles, "V")
	all := voters + strings.Count(roles, "v")
	live := size - away
	standby := strings.Count(roles, "S")
	return strings.Count(roles, "L") == 1 && all%2 == 1 && all <= target && voters >= odd(min(target, live)) &&
		(live < target || voters == target) && standby == max(0, min(2, live-voters))
}

func odd(n int) int { return n - 1 + n%2 }

// leaderNow is the running server that leads and is believed to by a majority, nil if none does.
func leaderNow(c *clustertest.Cluster) *clustertest.Server {
	for _, s := range c.Running() {
		if s.Leads() && s.Do(c.Context(), "GET", "/1.0", nil, nil) == nil {
			return s
		}
	}
	return nil
}

func server(c *clustertest.Cluster, host string) *clustertest.Server {
	i := slices.IndexFunc(c.Servers(), func(s *clustertest.Server) bool { return s.Host == host })
	return c.Servers()[i]
}

// pick finds a running server with one of the letters of roles, that is none of not.
func pick(t *testing.T, c *clustertest.Cluster, letter byte, not ...*clustertest.Server) *clustertest.Server {
	t.Helper()
	by := c.Leader()
	text := roles(by)
	for i, m := range by.View().Members() {
		s := server(c, m.Name)
		if text[i] == letter && !slices.Contains(not, s) {
			return s
		}
	}
	t.Fatalf("no %c in %s", letter, text)
	return nil
}

func TestVoterThatStopsHandsItsRoleOver(t *testing.T) {
	for _, tt := range []struct {
		size    int
		letter  byte
		after   string // roles without the stopped one's own
		replace bool
	}{
		{2, 'L', "L", true},
		{2, 'S', "L", false},
		{3, 'L', "LV", false},
		{3, 'V', "LV", false},
		{4, 'L', "LVV", true},
		{4, 'V', "LVV", true},
		{5, 'L', "LVVS", true},
	} {
		t.Run(fmt.Sprintf("%c of %d", tt.letter, tt.size), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, tt.size)
				requireSettled(t, c)
				victim := pick(t, c, tt.letter)
				start := time.Now()
				victim.Stop()
				// One second is HTTP/2's goodbye to the other members.
				if took := time.Since(start); took > 1500*time.Millisecond {
					t.Errorf("it took %s", took)
				}
				left := c.Running()[0]
				if err := set(left, "user.x", "1"); err != nil {
					t.Errorf("a write right after the stop: %v", err)
				}
				m, ok := left.View().MemberByName(victim.Host)
				if !ok || !m.Stopping {
					t.Errorf("the others do not know that it stops")
				}
				if votes := left.View().IsVoter(m.ID); tt.letter != 'S' && votes == tt.replace {
					t.Errorf("it votes: %v, roles are %s", votes, roles(left))
				}
				got := []byte(roles(left))
				for i, row := range left.View().Members() {
					if row.Name == victim.Host {
						got = slices.Delete(got, i, i+1)
					}
				}
				slices.Sort(got)
				want := []byte(tt.after)
				slices.Sort(want)
				if string(got) != string(want) {
					t.Errorf("the others are %s, expected %s", got, want)
				}
				victim.MustStart()
				requireSettled(t, c)
				requireNobodyStops(t, c)
				c.RequireConverged()
			})
		})
	}
}

func requireNobodyStops(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	c.Eventually("nobody is said to stop", func() error {
		for _, m := range c.Leader().View().Members() {
			if m.Stopping {
				return fmt.Errorf("%s is", m.Name)
			}
		}
		return nil
	})
}

func TestStopWaitsForNothingWhereNobodyCanTakeOver(t *testing.T) {
	limit := func(t *testing.T, s *clustertest.Server, most time.Duration) {
		t.Helper()
		start := time.Now()
		s.Stop()
		if took := time.Since(start); took > most {
			t.Errorf("it took %s", took)
		}
	}
	t.Run("standalone", func(t *testing.T) {
		virtual(t, func(t *testing.T) {
			c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
			limit(t, c.AddServer(), 200*time.Millisecond)
		})
	})
	t.Run("the only member", func(t *testing.T) {
		virtual(t, func(t *testing.T) {
			c := clustertest.New(t, 1)
			limit(t, c.Servers()[0], 200*time.Millisecond)
		})
	})
	t.Run("without a quorum", func(t *testing.T) {
		virtual(t, func(t *testing.T) {
			c := clustertest.New(t, 3)
			requireSettled(t, c)
			c.Servers()[1].Kill()
			c.Servers()[2].Kill()
			time.Sleep(5 * time.Second)
			limit(t, c.Servers()[0], 300*time.Millisecond)
		})
	})
	t.Run("all one after another", func(t *testing.T) {
		virtual(t, func(t *testing.T) {
			c := clustertest.New(t, 5)
			requireSettled(t, c)
			for _, s := range c.Servers() {
				limit(t, s, 4500*time.Millisecond)
			}
			for _, s := range c.Servers() {
				s.MustStart()
			}
			requireSettled(t, c)
			requireNobodyStops(t, c)
			c.RequireConverged()
		})
	})
}

func TestConcurrentStopsOfTwoVotersOfFour(t *testing.T) {
	for _, letters := range []string{"VV", "LV"} {
		t.Run(letters, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, 4)
				quickOffline(t, c.Servers()[0])
				requireSettled(t, c)
				first := pick(t, c, letters[0])
				second := pick(t, c, letters[1], first)
				var wg sync.WaitGroup
				wg.Go(first.Stop)
				wg.Go(second.Stop)
				wg.Wait()
				second.MustStart()
				requireSettled(t, c, first)
				if err := set(second, "user.x", "1"); err != nil {
					t.Errorf("a write when one is back: %v", err)
				}
				first.MustStart()
				requireSettled(t, c)
				requireNobodyStops(t, c)
				c.RequireConverged()
			})
		})
	}
}

// A member that says that it stops, and is cut off before it is done, comes back as any other.
func TestMemberCutOffOnItsWayDownTakesItsWordBack(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, trap := trapped(t, 4, raftstore.PointPromote)
		victim := pick(t, c, 'V')
		trap.armed.Store(true)
		ended := make(chan struct{})
		go func() { victim.Stop(); close(ended) }()
		<-trap.caught
		c.Net.Kill(victim.Host)
		close(trap.release)
		<-ended
		victim.MustStart()
		requireSettled(t, c)
		requireNobodyStops(t, c)
		c.RequireConverged()
	})
}

// trapped returns a cluster at rest, and a trap for its members that is not armed yet.
func trapped(t *testing.T, size int, point string) (*clustertest.Cluster, *trap) {
	t.Helper()
	c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
	trap := newTrap(point)
	trap.armed.Store(false)
	for i := range size {
		s := c.AddServer(clustertest.OnReach(trap.reach))
		if i == 0 {
			s.MustBootstrap()
		} else {
			s.MustJoin(c.Servers()[0])
		}
	}
	quickOffline(t, c.Servers()[0])
	requireSettled(t, c)
	return c, trap
}

func transfer(by *clustertest.Server, to string) (string, error) {
	var answer api.ClusterLeader
	err := by.Do(by.C.Context(), "POST", "/internal/cluster/transfer-leader", api.ClusterLeader{Member: to}, &answer)
	return answer.Member, err
}

func TestLeadershipIsTransferredOnDemand(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 4)
		quickOffline(t, c.Servers()[0])
		requireSettled(t, c)
		leader := c.Leader()
		other, standby := pick(t, c, 'V'), pick(t, c, 'S')
		for _, by := range []*clustertest.Server{standby, leader, other} {
			to := other.Host
			for range 2 { // the second finds it done
				if got, err := transfer(by, to); err != nil || got != to {
					t.Fatalf("asked %s: %s leads, %v", by.Host, got, err)
				}
				if !server(c, to).Leads() {
					t.Errorf("%s shows %s", by.Host, roles(by))
				}
			}
			if got, err := transfer(by, ""); err != nil || got == to || got == standby.Host {
				t.Fatalf("asked %s for any: %s leads, %v", by.Host, got, err)
			}
		}
		if _, err := transfer(leader, standby.Host); !errors.Is(err, api.CannotLead) || !strings.Contains(err.Error(), "no vote") {
			t.Errorf("to a stand-by: %v", err)
		}
		if _, err := transfer(leader, "m9"); !errors.Is(err, api.MemberNotFound) {
			t.Errorf("to nobody: %v", err)
		}
		by := c.Leader()
		gone := pick(t, c, 'V')
		gone.Kill()
		if _, err := transfer(by, gone.Host); !errors.Is(err, api.CannotLead) && !errors.Is(err, api.Unavailable) {
			t.Errorf("to one that has just died: %v", err)
		}
		if !by.Leads() {
			t.Error("leadership was given away all the same")
		}
		requireSettled(t, c, gone)
		if _, err := transfer(by, gone.Host); !errors.Is(err, api.MemberOffline) {
			t.Errorf("to one that is offline: %v", err)
		}
		gone.MustStart()
		requireSettled(t, c)
	})
}

// A member that hears and cannot speak, or speaks and cannot hear, neither deposes the
// leader nor looks healthy.
func TestHalfDeafMembersDoNotDeposeTheLeader(t *testing.T) {
	for _, mute := range []bool{true, false} {
		t.Run(fmt.Sprintf("mute: %v", mute), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, 4)
				quickOffline(t, c.Servers()[0])
				requireSettled(t, c)
				leader, victim := c.Leader(), pick(t, c, 'V')
				term := leader.View().Term()
				for _, s := range c.Servers() {
					switch {
					case s == victim:
					case mute:
						c.Net.CutOneWay(victim.Host, s.Host)
					default:
						c.Net.CutOneWay(s.Host, victim.Host)
					}
				}
				requireSettled(t, c, victim)
				time.Sleep(20 * time.Second)
				if m, _ := leader.View().MemberByName(victim.Host); !m.Offline {
					t.Error("it looks healthy")
				}
				if leader.View().IsVoter(memberID(leader, victim.Host)) {
					t.Errorf("it still votes: %s", roles(leader))
				}
				if !leader.Leads() || leader.View().Term() != term {
					t.Errorf("the leader was deposed: term %d, then %d", term, leader.View().Term())
				}
				c.Net.Heal()
				requireSettled(t, c)
				if leader.View().Term() != term {
					t.Errorf("the leader was deposed afterwards: term %d, then %d", term, leader.View().Term())
				}
				c.RequireConverged()
			})
		})
	}
}

func memberID(by *clustertest.Server, name string) string {
	m, _ := by.View().MemberByName(name)
	return m.ID
}

func changeState(by *clustertest.Server, name, action string) error {
	return by.Run(by.C.Context(), "POST", "/1.0/cluster/members/"+name+"/state", api.ClusterMemberStatePost{Action: action})
}

// statusOf is what by shows of a member.
func statusOf(by *clustertest.Server, name string) string {
	var m api.ClusterMember
	if err := by.Do(by.C.Context(), "GET", "/1.0/cluster/members/"+name, nil, &m); err != nil {
		return err.Error()
	}
	return m.Status
}

func TestEvacuatedMembersGiveTheirRoleAwayAndComeBack(t *testing.T) {
	for _, tt := range []struct {
		size     int
		letter   byte
		replaced bool
	}{{1, 'L', false}, {2, 'L', true}, {3, 'L', false}, {3, 'V', false}, {4, 'L', true}, {4, 'V', true}, {4, 'S', true}} {
		t.Run(fmt.Sprintf("%c of %d", tt.letter, tt.size), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, tt.size)
				requireSettled(t, c)
				m := pick(t, c, tt.letter)
				by := c.Running()[len(c.Running())-1]
				start := time.Now()
				if err := changeState(by, m.Host, "evacuate"); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > 3*time.Second {
					t.Errorf("it took %s", took)
				}
				if got := statusOf(by, m.Host); got != "Evacuated" {
					t.Errorf("it is shown as %s", got)
				}
				if votes := by.View().IsVoter(memberID(by, m.Host)); votes == tt.replaced {
					t.Errorf("it votes: %v, roles are %s", votes, roles(by))
				}
				if leads := c.Leader() == m; leads && tt.size > 1 {
					t.Error("it leads")
				}
				m.Stop() // the work on it
				m.MustStart()
				if got := statusOf(by, m.Host); tt.size > 1 && got != "Evacuated" {
					t.Errorf("after its restart it is shown as %s", got)
				}
				if err := changeState(c.Leader(), m.Host, "restore"); err != nil {
					t.Fatal(err)
				}
				requireSettled(t, c)
				if got := statusOf(c.Leader(), m.Host); got != "Online" {
					t.Errorf("restored it is shown as %s", got)
				}
				c.RequireConverged()
			})
		})
	}
}

// An evacuation ends also when the member that runs it, or the leader, dies in the middle.
func TestEvacuationIsEndedWhoeverDies(t *testing.T) {
	for _, who := range []string{"leader", "runner"} {
		t.Run(who, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c, trap := trapped(t, 5, raftstore.PointPromote)
				leader := c.Leader()
				victim := pick(t, c, 'V')
				runner := pick(t, c, 'S')
				trap.armed.Store(true)
				ended := make(chan error, 1)
				go func() { ended <- changeState(runner, victim.Host, "evacuate") }()
				<-trap.caught
				dead := runner
				if who == "leader" {
					dead = leader
					killHeld(c, leader, trap.release)
				} else {
					runner.Kill()
					close(trap.release)
				}
				<-ended
				c.Eventually("somebody leads", func() error {
					if leaderNow(c) == nil {
						return errors.New("nobody")
					}
					return nil
				})
				time.Sleep(61 * time.Second)
				c.Eventually("evacuated", func() error {
					if got := statusOf(c.Leader(), victim.Host); got != "Evacuated" {
						return errors.New(got)
					}
					return nil
				})
				dead.MustStart()
				if err := changeState(victim, victim.Host, "restore"); err != nil {
					t.Fatal(err)
				}
				requireSettled(t, c)
				c.RequireConverged()
			})
		})
	}
}

func TestOfflineMemberIsHealedAndStaysEvacuatedUntilItIsRestored(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 4)
		quickOffline(t, c.Servers()[0])
		if err := set(c.Servers()[0], "cluster.healing_threshold", "30"); err != nil {
			t.Fatal(err)
		}
		requireSettled(t, c)
		victim := pick(t, c, 'V')
		victim.Kill()
		requireSettled(t, c, victim)
		by := c.Leader()
		if got := statusOf(by, victim.Host); got != "Offline" {
			t.Errorf("before the threshold it is %s", got)
		}
		time.Sleep(30 * time.Second)
		if got := statusOf(by, victim.Host); got != "Evacuated" {
			t.Errorf("after the threshold it is %s", got)
		}
		victim.MustStart()
		c.Eventually("back", func() error {
			if by.Offline(victim.Host) {
				return errors.New("offline")
			}
			return nil
		})
		if got := statusOf(by, victim.Host); got != "Evacuated" {
			t.Errorf("when it is back it is %s", got)
		}
		if err := changeState(by, victim.Host, "restore"); err != nil {
			t.Fatal(err)
		}
		requireSettled(t, c)
		c.RequireConverged()
	})
}

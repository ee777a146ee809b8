package clustertest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
)

// doctorTime is how long a diagnosis may take, in virtual time.
const doctorTime = 2100 * time.Millisecond

// diagnose asks a server what is wrong, and leaves out what is about the disk of the machine
// that runs the test.
func diagnose(s *clustertest.Server) (api.Diagnosis, error) {
	var d api.Diagnosis
	began := time.Now()
	if err := s.Do(s.C.Context(), "GET", "/internal/cluster/doctor", nil, &d); err != nil {
		return d, err
	}
	if took := time.Since(began); took > doctorTime {
		return d, fmt.Errorf("the diagnosis took %s", took)
	}
	d.Findings = slices.DeleteFunc(d.Findings, func(f api.Finding) bool { return strings.HasPrefix(f.Code, "disk_") })
	return d, nil
}

func codesOf(d api.Diagnosis) []string {
	out := []string{}
	for _, f := range d.Findings {
		out = append(out, strings.TrimSpace(f.Severity+" "+f.Code+" "+strings.Join(f.Members, " ")))
	}
	return out
}

// requireFindings waits until a server finds exactly this.
func requireFindings(s *clustertest.Server, want ...string) api.Diagnosis {
	s.C.T.Helper()
	var last api.Diagnosis
	s.C.Eventually(s.Host+"'s findings", func() error {
		d, err := diagnose(s)
		if err != nil {
			return err
		}
		last = d
		if got := codesOf(d); !slices.Equal(got, append([]string{}, want...)) {
			return fmt.Errorf("it finds %q, want %q: %+v", got, want, d.Findings)
		}
		return nil
	})
	return last
}

func TestDoctorFindsNothingInAHealthyCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		for _, s := range c.Servers() {
			d := requireFindings(s)
			for _, m := range d.Members {
				r := m.Report
				if r == nil || r.Raft == nil || r.Raft.Leader == "" || len(r.Peers) != 2 || len(r.Certificates) != 2 || r.Disk.TotalBytes == 0 || r.Disk.Writes == 0 {
					t.Errorf("%s says of %s: %+v", s.Host, m.Name, m)
				}
			}
		}
	})
}

func TestDoctorNamesAMemberThatDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		c.Leader()
		victim := c.Servers()[2]
		victim.Kill()
		for _, s := range c.Running() {
			d := requireFindings(s, "error member_offline m3", "warning too_few_voters m1 m2 m3", "warning no_slack m1 m2")
			if cause := d.Findings[0].Cause; !strings.Contains(cause, "nothing listens at m3:8443") {
				t.Errorf("%s: %s", s.Host, cause)
			}
		}
	})
}

func TestDoctorNamesAMemberThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		victim := c.Servers()[2]
		victim.Kill()
		ln, err := c.Net.Listen(victim.Address()) // takes connections, and answers none
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c.Leader()
		d := requireFindings(c.Servers()[0], "error member_offline m3", "warning too_few_voters m1 m2 m3", "warning no_slack m1 m2")
		if cause := d.Findings[0].Cause; !strings.Contains(cause, "its daemon hangs") {
			t.Error(cause)
		}
	})
}

func TestDoctorSaysWhatTheQuorumLacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		c.Servers()[0].Kill()
		c.Servers()[1].Kill()
		d := requireFindings(c.Servers()[2], "error no_quorum m1 m2", "error member_offline m1", "error member_offline m2")
		if !d.Stale || !strings.Contains(d.Findings[0].Cause, "of 3 voters (m1, m2 and m3) m3 answers, and 2 are needed") ||
			!strings.Contains(d.Findings[0].NextStep, "start incusd on 1 of m1 and m2") {
			t.Errorf("stale %t: %+v", d.Stale, d.Findings[0])
		}
		c.Servers()[0].MustStart()
		requireFindings(c.Servers()[2], "error member_offline m2", "warning too_few_voters m1 m2 m3", "warning no_slack m1 m3")
	})
}

func TestDoctorSeesACutFromBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		c.Net.Isolate("m3", "m1", "m2")
		requireFindings(c.Servers()[2], "error no_quorum m1 m2", "error member_offline m1", "error member_offline m2")
		d := requireFindings(c.Servers()[0], "error member_offline m3", "warning too_few_voters m1 m2 m3", "warning no_slack m1 m2")
		if cause := d.Findings[0].Cause; !strings.Contains(cause, "Nothing comes back from m3") {
			t.Error(cause)
		}
		c.Net.Heal()
		for _, s := range c.Servers() {
			requireFindings(s)
		}
		c.RequireConverged()
	})
}

func TestDoctorTellsOneWayFromBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		leader := c.Leader()
		var rest []string
		for _, s := range c.Servers() {
			if s != leader {
				rest = append(rest, s.Host)
			}
		}
		a, b := rest[0], rest[1]
		c.Net.Block(a, b)
		d := requireFindings(leader, fmt.Sprintf("error one_way %s %s", b, a))
		if cause := d.Findings[0].Cause; !strings.Contains(cause, fmt.Sprintf("%s does not reach %s", a, b)) || !strings.Contains(cause, "and reaches "+a) {
			t.Error(cause)
		}
		c.Net.Cut(a, b)
		requireFindings(leader, fmt.Sprintf("error link_broken %s %s", a, b))
		c.Net.Heal()
		requireFindings(leader)
	})
}

func TestDoctorFindsTheClockThatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		wrong := c.Servers()[1]
		wrong.Stop()
		clustertest.WithClock(func() time.Time { return time.Now().Add(90 * time.Second) })(wrong)
		wrong.MustStart()
		for _, s := range c.Servers() {
			requireFindings(s, "error clock_skew m2")
		}
	})
}

func TestHealthIsTheSameFromEveryMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		leader := c.Leader()
		for _, s := range c.Servers() {
			c.Eventually("health from "+s.Host, func() error {
				var h api.ClusterHealth
				if err := s.Do(c.Context(), "GET", "/internal/cluster/health", nil, &h); err != nil {
					return err
				}
				if h.Leader != leader.Host || len(h.Members) != 3 {
					return fmt.Errorf("health %+v", h)
				}
				for _, m := range h.Members {
					if m.Lag == nil || *m.Lag > 0 || m.LastContactMS == nil || *m.LastContactMS > 5000 {
						return errors.New(m.Name + " is not well")
					}
				}
				return nil
			})
		}
	})
}

func TestDoctorOfAMemberThatARecoveryLeftBehindSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		withRoles(c, voters("m1", "m2", "m3"))
		survivor := c.Servers()[0]
		for _, s := range c.Servers()[1:] {
			s.Kill()
		}
		survivor.Stop()
		c.Eventually("the recovery", func() error { return survivor.Recover(c.Context(), false, nil) })
		survivor.MustStart()
		requireFindings(survivor, "error fenced m2", "error fenced m3", "notice no_slack m1")
		c.Servers()[1].MustStart()
		requireFindings(c.Servers()[1], "error fenced m2")
		requireFindings(survivor, "error fenced m2", "error fenced m3", "notice no_slack m1")
	})
}

func TestDoctorOfAMemberThatWasRemovedSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		gone := c.Servers()[2]
		gone.Kill()
		if err := c.Servers()[0].Run(c.Context(), "DELETE", "/1.0/cluster/members/m3?force=1", nil); err != nil {
			t.Fatal(err)
		}
		gone.MustStart()
		requireFindings(gone, "error removed m3")
	})
}

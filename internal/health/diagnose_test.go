package health

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"incusd/api"
)

// now is By's clock in all tests.
var now = time.Date(2026, 11, 28, 3, 0, 0, 0, time.UTC)

// healthy is a cluster of n members in which all is well: the first leads, the first three vote,
// and m1 looks.
func healthy(n int) *Evidence {
	e := &Evidence{Now: now, By: "m1", Wanted: min(n, 3)}
	for i := range n {
		m := Member{
			Name: fmt.Sprintf("m%d", i+1), ID: fmt.Sprintf("id%d", i+1), Address: fmt.Sprintf("10.0.0.%d:8443", i+1), Role: "spare", ClockKnown: true,
		}
		if i < e.Wanted {
			m.Role, m.Voter = "voter", true
		}
		e.Members = append(e.Members, m)
	}
	for i := range e.Members {
		m := &e.Members[i]
		m.Report = &api.MemberReport{
			Name: m.Name, ID: m.ID, Address: m.Address, Version: "7.3", CommandVersion: 1, Time: now,
			Raft: &api.MemberRaft{State: "follower", Term: 4, LastIndex: 5000, CommitIndex: 5000, AppliedIndex: 5000, Leader: "m1"},
			Disk: api.MemberDisk{Writes: 100, P50MS: 1, P99MS: 5, MaxMS: 9, FreeBytes: 50 << 30, TotalBytes: 100 << 30},
			Certificates: []api.MemberCertificate{
				{Kind: api.ServerCertificate, Fingerprint: m.Name, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(9 * 365 * 24 * time.Hour)},
				{Kind: api.ClusterCertificate, Fingerprint: "c", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(9 * 365 * 24 * time.Hour)},
			},
		}
		for _, other := range e.Members {
			if other.Name != m.Name {
				m.Report.Peers = append(m.Report.Peers, api.PeerReach{Name: other.Name, ID: other.ID, Address: other.Address, Reached: true, TookMS: 2})
			}
		}
	}
	e.Members[0].Report.Raft.State = "leader"
	return e
}

func (e *Evidence) member(name string) *Member {
	return &e.Members[slices.IndexFunc(e.Members, func(m Member) bool { return m.Name == name })]
}

// broken makes from not reach to.
func (e *Evidence) broken(from, to, problem string) {
	m := e.member(from)
	if m.Report == nil {
		return
	}
	i := slices.IndexFunc(m.Report.Peers, func(p api.PeerReach) bool { return p.Name == to })
	m.Report.Peers[i].Reached, m.Report.Peers[i].Problem, m.Report.Peers[i].Detail = false, problem, "it "+problem
	if from == e.By && problem != "" {
		t := e.member(to)
		t.Report, t.Problem, t.Detail = nil, problem, "it "+problem
		t.ClockKnown = false
	}
}

// down makes nobody reach a member, and takes its report away.
func (e *Evidence) down(name, problem string) {
	m := e.member(name)
	m.Report, m.Problem, m.Detail, m.ClockKnown = nil, problem, "it "+problem, false
	for _, other := range e.Members {
		if other.Name != name {
			e.broken(other.Name, name, problem)
		}
	}
}

// leaderless makes all members that answer follow nobody.
func (e *Evidence) leaderless(since time.Duration) {
	e.Stale = true
	for _, m := range e.Members {
		if m.Report != nil {
			m.Report.Raft.State, m.Report.Raft.Leader, m.Report.Raft.NoLeaderMS = "candidate", "", since.Milliseconds()
		}
	}
}

// cases change a healthy cluster of so many members, and say what must be found: severity,
// code and members, and what stands in cause and next step.
var cases = []struct {
	what string
	size int
	do   func(*Evidence)
	want []string
	says []string
}{
	{"nothing", 3, func(*Evidence) {}, nil, nil},
	{"nothing in a large cluster", 20, func(*Evidence) {}, nil, nil},
	{
		"one member", 1,
		func(*Evidence) {},
		[]string{"notice no_slack m1"}, []string{"add two more"},
	},
	{
		"two members", 2,
		func(e *Evidence) { e.Wanted, e.Members[1].Voter = 1, false },
		[]string{"notice no_slack m1"}, []string{"add a third"},
	},
	{
		"two of three members shall not vote", 3,
		func(e *Evidence) { e.Wanted, e.Members[1].Voter, e.Members[2].Voter = 1, false, false },
		[]string{"warning no_slack m1"}, []string{"1 of 1 voter is online, and 1 is needed", "let more members vote: incus cluster role explain"},
	},
	{
		"the only voter is down", 2,
		func(e *Evidence) {
			e.Wanted, e.Members[0].Voter, e.By = 1, false, "m1"
			e.down("m2", api.ReachRefused)
			e.leaderless(5 * time.Minute)
		},
		[]string{"error no_quorum m2", "error member_offline m2"}, []string{"of 1 voter (m2) none answer, and 1 is needed"},
	},
	{
		"two of three voters are down", 3,
		func(e *Evidence) {
			e.down("m2", api.ReachRefused)
			e.down("m3", api.ReachTimeout)
			e.member("m2").Offline, e.member("m2").Since = true, now.Add(-2*time.Hour)
			e.leaderless(5 * time.Minute)
		},
		[]string{"error no_quorum m2 m3", "error member_offline m2", "error member_offline m3"},
		[]string{
			"since 2026-11-28 02:55:00 UTC (5m ago): of 3 voters (m1, m2 and m3) m1 answers, and 2 are needed; m2 is missing since 2026-11-28 01:00:00 UTC (2h ago)",
			"start incusd on 1 of m2 and m3; if their disks are lost for ever, see docs/recover.md", "nothing listens at 10.0.0.2:8443", "nc -vz 10.0.0.3 8443",
		},
	},
	{
		"the only voter is down", 2,
		func(e *Evidence) {
			e.Wanted, e.Members[1].Voter, e.By = 1, false, "m2"
			e.down("m1", api.ReachRefused)
			e.leaderless(time.Minute)
		},
		[]string{"error no_quorum m1", "error member_offline m1"}, []string{"of 1 voter (m1) none answer", "start incusd on m1"},
	},
	{
		"an election", 3,
		func(e *Evidence) { e.leaderless(time.Second) },
		[]string{"error no_quorum m1 m2 m3"}, []string{"Nobody leads the cluster", "an election may be under way"},
	},
	{
		"a stale look while the rest follow a leader", 3,
		func(e *Evidence) {
			e.leaderless(time.Minute)
			for _, name := range []string{"m2", "m3"} {
				e.member(name).Report.Raft.Leader = "m2"
			}
			e.member("m2").Report.Raft.State = "leader"
		},
		[]string{"error partition m1"}, []string{"m1 follows nobody, while m2 and m3 follow m2: what m1 shows may be out of date"},
	},
	{
		"an old leader that does not know", 3,
		func(e *Evidence) {
			for _, name := range []string{"m2", "m3"} {
				e.member(name).Report.Raft.Leader, e.member(name).Report.Raft.Term = "m2", 5
			}
			e.member("m2").Report.Raft.State = "leader"
		},
		[]string{"error partition m1"}, []string{"m1 follows m1, while m2 and m3 follow m2"},
	},
	{
		"one of three is down", 3,
		func(e *Evidence) {
			e.down("m3", api.ReachRefused)
			e.member("m3").Offline, e.member("m3").Since = true, now.Add(-time.Minute)
		},
		[]string{"error member_offline m3", "warning too_few_voters m1 m2 m3", "warning no_slack m1 m2"},
		[]string{"m3 is down: its machine answers, but nothing listens at 10.0.0.3:8443, since 2026-11-28 02:59:00 UTC (1m ago)", "journalctl -u incusd", "2 of 3 voters are online, and 2 are needed"},
	},
	{
		"a spare that hangs for all", 4,
		func(e *Evidence) { e.down("m4", api.ReachSilent) },
		[]string{"error member_offline m4"}, []string{"its daemon hangs, or its machine is overloaded"},
	},
	{
		"a spare that was stopped", 4,
		func(e *Evidence) { e.down("m4", api.ReachRefused); e.member("m4").Stopping = true },
		[]string{"notice member_offline m4"}, []string{"stopped on purpose"},
	},
	{
		"a spare that is evacuated and off", 4,
		func(e *Evidence) {
			e.down("m4", api.ReachTimeout)
			e.member("m4").Maintenance, e.member("m4").MaintenanceSince = "evacuated", now.Add(-time.Hour)
		},
		[]string{"warning member_offline m4"}, []string{"it is evacuated"},
	},
	{
		"a name that is not resolved", 4,
		func(e *Evidence) { e.down("m4", api.ReachFailed) },
		[]string{"error member_offline m4"}, []string{"m4 is not reached at 10.0.0.4:8443: it failed", "name resolution"},
	},
	{
		"another server has the address", 4,
		func(e *Evidence) { e.down("m4", api.ReachWrongServer) },
		[]string{"error wrong_server m4"}, []string{"set-address"},
	},
	{
		"a refusal tells more than a time-out", 4,
		func(e *Evidence) { e.down("m4", api.ReachTimeout); e.broken("m2", "m4", api.ReachRefused) },
		[]string{"error member_offline m4"}, []string{"nothing listens"},
	},
	{
		"a daemon that takes connections and does not report", 4,
		func(e *Evidence) {
			m := e.member("m4")
			m.Report, m.Problem, m.Detail = nil, api.ReachTimeout, "time is up"
		},
		[]string{"error member_hangs m4"}, []string{"its daemon gave no report (time is up)"},
	},
	{
		"a member that does not know its caller", 4,
		func(e *Evidence) {
			m := e.member("m4")
			m.Report, m.Problem, m.Detail = nil, api.ReachRejected, "not authorized"
		},
		[]string{"error member_refuses m4 m1"}, []string{"does not take m1 for a member: not authorized", "compare the clocks"},
	},
	{
		"a member that shuts others out", 4,
		func(e *Evidence) { e.broken("m2", "m4", api.ReachRejected); e.broken("m3", "m4", api.ReachRejected) },
		[]string{"error member_refuses m4 m2 m3"}, []string{"does not take m2 and m3 for a member"},
	},
	{
		"the leader does not hear one that answers", 4,
		func(e *Evidence) { e.member("m4").Offline, e.member("m4").Since = true, now.Add(-time.Minute) },
		[]string{"warning member_unheard m4"}, []string{"has not heard it since"},
	},
	{
		"one way", 3,
		func(e *Evidence) { e.broken("m2", "m3", api.ReachTimeout) },
		[]string{"error one_way m3 m2"},
		[]string{"m2 does not reach m3 at 10.0.0.3:8443 (nothing comes back), though m3 runs and reaches m2", "on m2, try: nc -vz 10.0.0.3 8443"},
	},
	{
		"one way between spares", 5,
		func(e *Evidence) { e.broken("m4", "m5", api.ReachRefused) },
		[]string{"warning one_way m5 m4"}, []string{"connection refused"},
	},
	{
		"who looks does not reach one that others reach", 4,
		func(e *Evidence) { e.broken("m1", "m4", api.ReachTimeout) },
		[]string{"error one_way m4 m1"}, []string{"m1 does not reach m4"},
	},
	{
		"both ways", 4,
		func(e *Evidence) { e.broken("m2", "m4", api.ReachTimeout); e.broken("m4", "m2", api.ReachTimeout) },
		[]string{"warning link_broken m2 m4"}, []string{"m2 and m4 do not reach each other"},
	},
	{
		"one is cut off from two", 4,
		func(e *Evidence) {
			for _, other := range []string{"m2", "m3"} {
				e.broken(other, "m4", api.ReachTimeout)
				e.broken("m4", other, api.ReachTimeout)
			}
		},
		[]string{"warning link_broken m4 m2 m3"}, []string{"between m4 and m2 and m3"},
	},
	{
		"an address that one member resolves wrongly", 4,
		func(e *Evidence) { e.broken("m2", "m4", api.ReachWrongServer) },
		[]string{"error wrong_server m4"}, nil,
	},
	{
		"a clock ahead", 3,
		func(e *Evidence) { e.member("m2").Offset = 8 * time.Second },
		[]string{"warning clock_skew m2"}, []string{"The clock of m2 is 8s ahead of those of the others", "NTP"},
	},
	{
		"the clock of who looks is behind", 3,
		func(e *Evidence) { e.member("m2").Offset, e.member("m3").Offset = 2*time.Hour, 2*time.Hour },
		[]string{"error clock_skew m1"}, []string{"The clock of m1 is 2h behind those of the others"},
	},
	{
		"two clocks", 2,
		func(e *Evidence) { e.Wanted, e.Members[1].Voter, e.Members[1].Offset = 1, false, -2*time.Minute },
		[]string{"error clock_skew m1 m2", "notice no_slack m1"}, []string{"The clock of m2 is 2m behind that of m1"},
	},
	{
		"a clock that may be right", 3,
		func(e *Evidence) { e.member("m2").Offset, e.member("m2").Error = 6*time.Second, 2*time.Second },
		nil, nil,
	},
	{
		"an upgrade half-way", 3,
		func(e *Evidence) {
			e.member("m2").Report.Version, e.member("m2").Report.CommandVersion = "7.4", 2
		},
		[]string{"warning command_version m1 m3", "notice versions_differ m1 m3 m2"},
		[]string{"m1 and m3 know only commands up to version 1, others know 2", "7.3 on m1 and m3 and 7.4 on m2", "upgrade m1 and m3"},
	},
	{
		"a slow disk", 3,
		func(e *Evidence) { e.member("m2").Report.Disk.P99MS, e.member("m2").Report.Disk.MaxMS = 400, 900 },
		[]string{"warning disk_slow m2"}, []string{"took 400ms or more, the longest 900ms"},
	},
	{
		"two slow writes are not a slow disk", 3,
		func(e *Evidence) { e.member("m2").Report.Disk = api.MemberDisk{Writes: 2, P99MS: 400} },
		nil, nil,
	},
	{
		"a disk that hangs", 3,
		func(e *Evidence) { e.member("m2").Report.Disk.StalledMS = 4000 },
		[]string{"error disk_hangs m2"}, []string{"under way for 4s"},
	},
	{
		"a disk nearly full", 3,
		func(e *Evidence) { e.member("m2").Report.Disk.FreeBytes = 1 << 30 },
		[]string{"warning disk_low m2"}, []string{"1024 MiB of 102400 MiB are free"},
	},
	{
		"a full disk", 3,
		func(e *Evidence) { e.member("m2").Report.Disk.FreeBytes = 100 << 20 },
		[]string{"error disk_full m2"}, []string{"its daemon stops"},
	},
	{
		"a small disk that is empty", 3,
		func(e *Evidence) {
			e.member("m2").Report.Disk = api.MemberDisk{FreeBytes: 60 << 20, TotalBytes: 64 << 20}
		},
		nil, nil,
	},
	{
		"a member far behind", 3,
		func(e *Evidence) { e.member("m2").Report.Raft.AppliedIndex = 3000 },
		[]string{"warning lag m2"}, []string{"m2 is 2000 entries behind"},
	},
	{
		"a member that opens its store", 4,
		func(e *Evidence) { e.member("m4").Report.Raft = nil },
		nil, nil,
	},
	{
		"a server's certificate near its end", 3,
		func(e *Evidence) { e.member("m2").Report.Certificates[0].NotAfter = now.Add(10 * 24 * time.Hour) },
		[]string{"warning certificate_expires m2"}, []string{"The certificate of m2 expires on 2026-12-08 03:00:00 UTC, in 10 days"},
	},
	{
		"a server's certificate has expired", 3,
		func(e *Evidence) { e.member("m2").Report.Certificates[0].NotAfter = now },
		[]string{"error certificate_expired m2"}, []string{"its daemon renews it by itself"},
	},
	{
		"a server's certificate is not valid yet", 3,
		func(e *Evidence) { e.member("m2").Report.Certificates[0].NotBefore = now.Add(time.Hour) },
		[]string{"error certificate_not_yet_valid m2"}, []string{"valid only from 2026-11-28 04:00:00 UTC"},
	},
	{
		"the cluster's certificate is told of once", 3,
		func(e *Evidence) {
			for _, m := range e.Members {
				m.Report.Certificates[1].NotAfter = now.Add(-time.Hour)
			}
		},
		[]string{"error certificate_expired"}, []string{"The cluster's certificate expired"},
	},
	{
		"fewer voters than wanted", 5,
		func(e *Evidence) { e.Wanted = 5 },
		[]string{"warning too_few_voters m1 m2 m3"}, []string{"5 voters are wanted, and 3 of them are online"},
	},
	{
		"a fenced member is told of once", 4,
		func(e *Evidence) { e.down("m4", api.ReachRejected); e.member("m4").Fenced = true },
		[]string{"error fenced m4"}, []string{"docs/recover.md"},
	},
	{
		"members of a rival are told of together, and not as fenced ones", 5,
		func(e *Evidence) {
			for _, name := range []string{"m4", "m5"} {
				e.down(name, api.ReachRejected)
				e.member(name).Fenced, e.member(name).Rival = true, true
			}
		},
		[]string{"error rival m4 m5"}, []string{"m4 and m5 run in the other one", "choose the one to keep"},
	},
	{
		"all but one are fenced", 3,
		func(e *Evidence) {
			e.Wanted = 1
			for _, name := range []string{"m2", "m3"} {
				e.down(name, api.ReachRefused)
				e.member(name).Fenced, e.member(name).Voter = true, false
			}
		},
		[]string{"error fenced m2", "error fenced m3", "notice no_slack m1"}, []string{"add two more"},
	},
	{
		"the only voter was shut out by a recovery that is undone here", 2,
		func(e *Evidence) {
			e.leaderless(time.Hour)
			e.member("m1").Voter = false
			e.member("m2").Report.ShutOut = "This member was shut out when the cluster was recovered on member \"m1\""
			e.broken("m2", "m1", api.ReachRejected)
		},
		[]string{"error no_quorum m2", "error fenced m2"}, []string{"recover the cluster on a member that takes part", "recovered on member \"m1\""},
	},
	{
		"who looks was shut out by a recovery", 3,
		func(e *Evidence) { e.leaderless(time.Hour); e.Out = api.MemberFenced },
		[]string{"error fenced m1"}, []string{"goes on elsewhere", "incus admin cluster reset"},
	},
	{
		"who looks was removed", 3,
		func(e *Evidence) { e.down("m2", api.ReachRejected); e.leaderless(time.Hour); e.Out = api.MemberRemoved },
		[]string{"error removed m1"}, []string{"incus admin cluster reset"},
	},
	{
		"a removal that does not end", 3,
		func(e *Evidence) { e.member("m2").Removing = now.Add(-11 * time.Minute) },
		[]string{"warning removal_stuck m2"}, []string{"incus cluster remove --force m2"},
	},
	{
		"a removal under way", 3,
		func(e *Evidence) { e.member("m2").Removing = now.Add(-time.Minute) },
		nil, nil,
	},
	{
		"an evacuation that does not end", 3,
		func(e *Evidence) {
			e.member("m2").Maintenance, e.member("m2").MaintenanceSince = "evacuating", now.Add(-time.Hour)
		},
		[]string{"warning maintenance_long m2"}, []string{"m2 is evacuating since"},
	},
	{
		"evacuated and forgotten", 3,
		func(e *Evidence) {
			e.member("m2").Maintenance, e.member("m2").MaintenanceSince = "evacuated", now.Add(-75*time.Hour)
		},
		[]string{"notice maintenance_long m2"}, []string{"(3 days ago)", "incus cluster restore m2"},
	},
	{
		"evacuated today", 3,
		func(e *Evidence) {
			e.member("m2").Maintenance, e.member("m2").MaintenanceSince = "evacuated", now.Add(-time.Hour)
		},
		nil, nil,
	},
	{
		"all are evacuated", 3,
		func(e *Evidence) {
			for i := range e.Members {
				e.Members[i].Maintenance, e.Members[i].MaintenanceSince = "evacuated", now.Add(-time.Hour)
			}
		},
		[]string{"warning none_in_service m1 m2 m3"}, []string{"Every member that answers is evacuated", "incus cluster restore m1"},
	},
	{
		"a pool that could not be made", 3,
		func(e *Evidence) {
			e.Entities = []Entity{{Kind: "storage pool", Name: "local", Member: "m2", Errored: true, Reason: "no btrfs"}}
		},
		[]string{"error entity_errored m2"}, []string{"m2 could not make the storage pool local true: no btrfs"},
	},
	{
		"a network that is not made yet, here and on one that is away", 4,
		func(e *Evidence) {
			e.down("m4", api.ReachRefused)
			e.Entities = []Entity{{Kind: "network", Name: "br0", Member: "m2"}, {Kind: "network", Name: "br0", Member: "m4"}}
		},
		[]string{"error member_offline m4", "warning entity_pending m2", "notice entity_pending m4"}, []string{"catches up when it is back"},
	},
}

func TestDiagnose(t *testing.T) {
	for _, tt := range cases {
		t.Run(tt.what, func(t *testing.T) {
			e := healthy(tt.size)
			tt.do(e)
			var got []string
			var text strings.Builder
			for _, f := range Diagnose(*e) {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", f.Severity, f.Code, strings.Join(f.Members, " "))))
				fmt.Fprintf(&text, "%s\n%s\n", f.Cause, f.NextStep)
				if f.Cause == "" || f.NextStep == "" || strings.HasSuffix(f.Cause, ".") || strings.HasSuffix(f.NextStep, ".") {
					t.Errorf("%s: cause %q, next step %q: both are needed, without a full stop", f.Code, f.Cause, f.NextStep)
				}
				if f.Members == nil {
					t.Errorf("%s: members is null in JSON", f.Code)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("found\n  %s\nwant\n  %s\n%s", strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "), &text)
			}
			for _, part := range tt.says {
				if !strings.Contains(text.String(), part) {
					t.Errorf("nothing says %q:\n%s", part, &text)
				}
			}
		})
	}
}

func TestEveryCodeIsFoundInSomeCase(t *testing.T) {
	seen := make(map[Code]bool)
	for _, tt := range cases {
		e := healthy(tt.size)
		tt.do(e)
		for _, f := range Diagnose(*e) {
			seen[Code(f.Code)] = true
		}
	}
	for _, code := range Codes() {
		if !seen[code] {
			t.Errorf("no case finds %s", code)
		}
		delete(seen, code)
	}
	for code := range seen {
		t.Errorf("%s is found, and not in Codes", code)
	}
}

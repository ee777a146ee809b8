package health

import (
	"time"

	"incusd/api"
)

// Evidence is all that a diagnosis rests on.
type Evidence struct {
	// Now is the clock of By, the member that looked.
	Now time.Time
	By  string
	// Stale is true if By could not ask a leader: the state is what By last knew.
	Stale bool
	// Out is api.MemberRemoved or api.MemberFenced if By is out of the cluster; empty else.
	Out api.Reason
	// Wanted is how many voters there should be.
	Wanted   int
	Members  []Member
	Entities []Entity
}

// A Member is what the state says of a member, and what it says itself.
type Member struct {
	Name, ID, Address string
	// Role is voter, stand-by or spare; Voter is true while Raft gives it a vote.
	Role  string
	Voter bool
	// Offline is the leader's judgement, Since when it last heard the member.
	Offline bool
	Since   time.Time
	// Maintenance is empty, evacuating, evacuated or restoring.
	Maintenance      string
	MaintenanceSince time.Time
	// Stopping is true if the member said that it stops.
	Stopping bool
	// Removing is since when the member is being removed; zero if it is not.
	Removing time.Time
	// Fenced is true if a recovery went on without the member.
	Fenced bool
	// Rival is true if it runs as a member of another cluster that was recovered from the same one.
	Rival bool
	// Report is what the member said; without one, Problem is why, one of api's Reach constants.
	Report          *api.MemberReport
	Problem, Detail string
	// Offset is how far the member's clock is ahead of By's, give or take Error.
	Offset, Error time.Duration
	ClockKnown    bool
}

// An Entity is a pool, network or volume that is not what it should be on a member.
type Entity struct {
	// Kind is in words: "storage pool".
	Kind, Name string
	// Member is the name of the member, Errored false if there is only something to do yet.
	Member  string
	Errored bool
	Reason  string
}

// Checked names what Diagnose looks at.
func Checked() []string {
	return []string{
		"quorum", "members that do not answer", "reachability each way", "leaders that are followed", "clocks", "versions",
		"disks", "lag behind the leader", "certificates", "number of voters", "recovery, removal and maintenance",
		"storage pools, networks and volumes",
	}
}

// Bounds of the findings.
const (
	// electionTime is how long there may be no leader before that is worth a word.
	electionTime = 3 * time.Second
	// clockWarning is how far a clock may be off; beyond clockError servers cannot join.
	clockWarning = 5 * time.Second
	clockError   = time.Minute
	// slowWrite is what one write in a hundred may take; enoughWrites is how many it takes to say so.
	slowWrite    = 250 * time.Millisecond
	enoughWrites = 10
	// hangingWrite is how long a write may be under way.
	hangingWrite = 3 * time.Second
	// lagEntries is how far a member may be behind.
	lagEntries = 1000
	// certificateTime is how long before its end a certificate is worth a word.
	certificateTime = 60 * 24 * time.Hour
	// workTime is how long a removal, an evacuation or a restore may take; evacuatedTime how long
	// a member may stay evacuated.
	workTime      = 10 * time.Minute
	evacuatedTime = 24 * time.Hour
)

// A disk is nearly full if little is left of it in bytes and in parts: a small disk that is
// empty is not, nor a large one with much room in its last percent.
const (
	lowBytes, lowPercent   = 2 << 30, 10
	fullBytes, fullPercent = 200 << 20, 5
)

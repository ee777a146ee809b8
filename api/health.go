package api

import "time"

// What is in this file is not upstream's: how a cluster is, as its members see it.

// A MemberReport is how one member sees itself and reaches the others: GET
// /internal/cluster/report. Times that are compared between members are lengths, not
// moments: their clocks may differ.
type MemberReport struct {
	// Name is empty while the server is no member yet.
	Name    string `json:"name" yaml:"name"`
	ID      string `json:"id" yaml:"id"`
	Address string `json:"address" yaml:"address"`
	Version string `json:"version" yaml:"version"`
	// CommandVersion is the newest set of the store's commands that the member can apply.
	CommandVersion int `json:"command_version" yaml:"command_version"`
	// Time is the member's wall clock when it answered, TookMS how long it had worked on the
	// answer by then.
	Time          time.Time `json:"time" yaml:"time"`
	TookMS        float64   `json:"took_ms" yaml:"took_ms"`
	UptimeSeconds int64     `json:"uptime_seconds" yaml:"uptime_seconds"`
	// ShutOut is why the member takes no part in the cluster any more; empty while it does.
	ShutOut string `json:"shut_out,omitempty" yaml:"shut_out,omitempty"`
	// Raft is nil while the replicated store is being opened.
	Raft         *MemberRaft         `json:"raft" yaml:"raft"`
	Disk         MemberDisk          `json:"disk" yaml:"disk"`
	Certificates []MemberCertificate `json:"certificates" yaml:"certificates"`
	// Peers are the other members that were tried: all of a small cluster; of a larger one
	// voters, stand-bys and the member that asked.
	Peers []PeerReach `json:"peers" yaml:"peers"`
}

// MemberRaft is a member's part in Raft.
type MemberRaft struct {
	// State is leader, follower, candidate or shutdown.
	State         string `json:"state" yaml:"state"`
	Term          uint64 `json:"term" yaml:"term"`
	LastIndex     uint64 `json:"last_index" yaml:"last_index"`
	CommitIndex   uint64 `json:"commit_index" yaml:"commit_index"`
	AppliedIndex  uint64 `json:"applied_index" yaml:"applied_index"`
	SnapshotIndex uint64 `json:"snapshot_index" yaml:"snapshot_index"`
	// Leader is the name of the member that this one follows; empty if there is none, for
	// NoLeaderMS.
	Leader     string `json:"leader" yaml:"leader"`
	NoLeaderMS int64  `json:"no_leader_ms" yaml:"no_leader_ms"`
}

// MemberDisk is the disk of a member's state directory.
type MemberDisk struct {
	// Writes counts the recent writes to Raft's log that the other numbers are about.
	Writes int     `json:"writes" yaml:"writes"`
	P50MS  float64 `json:"p50_ms" yaml:"p50_ms"`
	P99MS  float64 `json:"p99_ms" yaml:"p99_ms"`
	MaxMS  float64 `json:"max_ms" yaml:"max_ms"`
	// StalledMS is how long the write under way has taken so far; 0 if there is none.
	StalledMS float64 `json:"stalled_ms" yaml:"stalled_ms"`
	// TotalBytes is 0 if the file system could not be asked.
	FreeBytes  uint64 `json:"free_bytes" yaml:"free_bytes"`
	TotalBytes uint64 `json:"total_bytes" yaml:"total_bytes"`
}

// Kinds of certificates in a MemberReport.
const (
	ServerCertificate  = "server"
	ClusterCertificate = "cluster"
)

// MemberCertificate is a certificate that a member shows.
type MemberCertificate struct {
	// Kind is ServerCertificate or ClusterCertificate.
	Kind        string    `json:"kind" yaml:"kind"`
	Fingerprint string    `json:"fingerprint" yaml:"fingerprint"`
	NotBefore   time.Time `json:"not_before" yaml:"not_before"`
	NotAfter    time.Time `json:"not_after" yaml:"not_after"`
}

// Kinds of problems on the way to a member.
const (
	// ReachRefused: the machine answers, and nothing listens there.
	ReachRefused = "refused"
	// ReachTimeout: nothing comes back at all.
	ReachTimeout = "timeout"
	// ReachSilent: the connection is taken, and nothing more comes.
	ReachSilent = "silent"
	// ReachWrongServer: another server has that address.
	ReachWrongServer = "wrong_server"
	// ReachRejected: it is the right server, and it does not take the caller for a member.
	ReachRejected = "rejected"
	// ReachFailed: something else, such as a name that cannot be resolved.
	ReachFailed = "failed"
)

// PeerReach is whether a member reaches another one at this moment.
type PeerReach struct {
	Name    string  `json:"name" yaml:"name"`
	ID      string  `json:"id" yaml:"id"`
	Address string  `json:"address" yaml:"address"`
	Reached bool    `json:"reached" yaml:"reached"`
	TookMS  float64 `json:"took_ms" yaml:"took_ms"`
	// Problem is one of the Reach constants and Detail the error's text; empty if it is reached.
	Problem string `json:"problem,omitempty" yaml:"problem,omitempty"`
	Detail  string `json:"detail,omitempty" yaml:"detail,omitempty"`
}

// Severities of a finding.
const (
	// SeverityError: something does not work, and somebody must act.
	SeverityError = "error"
	// SeverityWarning: something will stop working, or works badly.
	SeverityWarning = "warning"
	// SeverityNotice: something to know about.
	SeverityNotice = "notice"
)

// A Finding is something about a cluster that an administrator should know.
type Finding struct {
	Severity string `json:"severity" yaml:"severity"`
	// Code is stable; docs/doctor.md lists them.
	Code string `json:"code" yaml:"code"`
	// Members are the names of those concerned; none if it is the cluster as a whole.
	Members []string `json:"members" yaml:"members"`
	// Cause is one sentence, NextStep a command or an act.
	Cause    string `json:"cause" yaml:"cause"`
	NextStep string `json:"next_step" yaml:"next_step"`
}

// A DiagnosedMember is a member and what it reported, or why it did not.
type DiagnosedMember struct {
	Name    string `json:"name" yaml:"name"`
	ID      string `json:"id" yaml:"id"`
	Address string `json:"address" yaml:"address"`
	// Role is voter, stand-by or spare.
	Role    string `json:"role" yaml:"role"`
	Offline bool   `json:"offline" yaml:"offline"`
	// OfflineSince is when the leader last heard the member; absent while it is online.
	OfflineSince time.Time     `json:"offline_since,omitzero" yaml:"offline_since,omitempty"`
	Report       *MemberReport `json:"report" yaml:"report"`
	// Problem is one of the Reach constants and Detail the error's text; empty with a report.
	Problem string `json:"problem,omitempty" yaml:"problem,omitempty"`
	Detail  string `json:"detail,omitempty" yaml:"detail,omitempty"`
	// ClockOffsetMS is how far the member's clock is ahead of that of the member which looked,
	// give or take ClockErrorMS; null if it is not known.
	ClockOffsetMS *float64 `json:"clock_offset_ms" yaml:"clock_offset_ms"`
	ClockErrorMS  float64  `json:"clock_error_ms" yaml:"clock_error_ms"`
}

// A Diagnosis is GET /internal/cluster/doctor.
type Diagnosis struct {
	CheckedAt time.Time `json:"checked_at" yaml:"checked_at"`
	// By is the member that looked.
	By string `json:"by" yaml:"by"`
	// Stale is true if By could not ask a leader, and took its own replica for the state.
	Stale   bool              `json:"stale" yaml:"stale"`
	Members []DiagnosedMember `json:"members" yaml:"members"`
	// Findings has the worst first, and is empty if nothing is wrong.
	Findings []Finding `json:"findings" yaml:"findings"`
	// Checked names what was looked at.
	Checked []string `json:"checked" yaml:"checked"`
}

// ClusterHealth is GET /internal/cluster/health: what the leader knows of each member.
type ClusterHealth struct {
	// From is the member whose knowledge this is: the leader, or, if there is none, the one
	// that was asked. Leader is empty then.
	From   string `json:"from" yaml:"from"`
	Leader string `json:"leader" yaml:"leader"`
	Term   uint64 `json:"term" yaml:"term"`
	// LastIndex is the newest entry of From's log.
	LastIndex uint64         `json:"last_index" yaml:"last_index"`
	Members   []MemberHealth `json:"members" yaml:"members"`
}

// MemberHealth is what From knows of a member.
type MemberHealth struct {
	Name string `json:"name" yaml:"name"`
	// Role is leader, voter, stand-by or spare.
	Role string `json:"role" yaml:"role"`
	// MatchIndex is the newest entry known to be in the member's log, Lag how many entries are
	// missing there; null if that is not known.
	MatchIndex *uint64 `json:"match_index" yaml:"match_index"`
	Lag        *uint64 `json:"lag" yaml:"lag"`
	// LastContactMS is how long ago the member last answered; null if it never did.
	LastContactMS *int64 `json:"last_contact_ms" yaml:"last_contact_ms"`
	// OfflineSince is absent while the member is online.
	OfflineSince time.Time `json:"offline_since,omitzero" yaml:"offline_since,omitempty"`
}

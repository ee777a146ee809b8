package state

import (
	"encoding/json"
	"time"

	"incusd/api"
)

// A Command is one change of the tables. Several may share one entry of the log.
type Command struct {
	// Kind is table and verb, such as "token.claim"; one of the Kind constants.
	Kind string `json:"kind"`
	// Version is of Body's schema, from 1.
	Version int `json:"version"`
	// Request is chosen by the proposer; one request takes effect once. A command without
	// one takes effect as often as it is in the log.
	Request string `json:"request"`
	// Time is the proposer's clock, UTC; the leader stamps it. The only clock that Apply sees.
	Time time.Time `json:"time"`
	// Requestor is who asked; nil for what the cluster does by itself.
	Requestor *api.EventRequestor `json:"requestor,omitempty"`
	// Origin is the ID of the member that proposed it, for who reads its events.
	Origin string          `json:"origin,omitempty"`
	Body   json.RawMessage `json:"body"`
}

// A Result is what Apply answers to one command: a value, or a refusal which is the
// same on every member.
type Result struct {
	// Value is JSON of the command's result type; empty for those without.
	Value json.RawMessage `json:"value,omitempty"`
	Err   *api.Error      `json:"error,omitempty"`
}

// An Event follows from an applied command. Every member emits it.
type Event struct {
	Time time.Time
	// Action and Source are those of a lifecycle event, such as "cluster-member-added"
	// and "/1.0/cluster/members/node2".
	Action, Source string
	// Project is that of the object; empty means the default one.
	Project   string
	Context   map[string]any
	Requestor *api.EventRequestor
	// Origin is the ID of the member where it happened; empty for entries without one.
	Origin string
	// Token is set when the state of a token's operation changed. Action may then be empty.
	Token *Token
}

// Kinds of commands.
const (
	KindClusterInit       = "cluster.init"
	KindClusterEnable     = "cluster.enable"
	KindConfigSet         = "config.set"
	KindMemberUpdate      = "member.update"
	KindMemberCert        = "member.certificate"
	KindMemberAddress     = "member.address"
	KindMemberRename      = "member.rename"
	KindMemberLiveness    = "member.liveness"
	KindMemberRole        = "member.role"
	KindMemberStopping    = "member.stopping"
	KindMemberMaintenance = "member.maintenance"
	KindMemberAdmit       = "member.admit"
	KindMemberActivate    = "member.activate"
	KindMemberAbort       = "member.abort"
	KindMemberRemove      = "member.remove"
	KindMemberLeave       = "member.leave"
	KindClusterDisable    = "cluster.disable"
	KindClusterCert       = "cluster.certificate"
	KindClusterRecover    = "cluster.recover"
	KindClusterRestore    = "cluster.restore"
	KindMemberReadmit     = "member.readmit"
	KindTokenIssue        = "token.issue"
	KindTokenClaim        = "token.claim"
	KindTokenRevoke       = "token.revoke"
	KindTokenInvite       = "token.invite"
	KindTokenRedeem       = "token.redeem"
	KindLeaderElected     = "leader.elected"
	KindLeaderSweep       = "leader.sweep"
	KindCertificateAdd    = "certificate.add"
	KindCertificateUpdate = "certificate.update"
	KindCertificateRemove = "certificate.remove"
	KindEntityDefine      = "entity.define"
	KindEntityCreate      = "entity.create"
	KindEntityUpdate      = "entity.update"
	KindEntityRename      = "entity.rename"
	KindEntityDelete      = "entity.delete"
	KindEntityReport      = "entity.report"
	KindProfileCreate     = "profile.create"
	KindProfileUpdate     = "profile.update"
	KindProfileRename     = "profile.rename"
	KindProfileDelete     = "profile.delete"
	KindProjectCreate     = "project.create"
	KindProjectUpdate     = "project.update"
	KindProjectRename     = "project.rename"
	KindProjectDelete     = "project.delete"
	KindPasswordAttempt   = "password.attempt"
	KindTokenGrant        = "token.grant"
	KindGroupCreate       = "group.create"
	KindGroupUpdate       = "group.update"
	KindGroupRename       = "group.rename"
	KindGroupDelete       = "group.delete"
	KindWarningReport     = "warning.report"
	KindWarningStatus     = "warning.status"
	KindWarningDelete     = "warning.delete"
)

// CommandVersion is the newest set of commands that this build can apply. A member
// tells it when it joins; the leader proposes only what all members know.
const CommandVersion = 1

// Cluster is the one row about the cluster itself.
type Cluster struct {
	// ID is a UUID made with the store. Incarnation counts recoveries, from 1.
	ID          string `json:"id"`
	Incarnation int    `json:"incarnation"`
	// Enabled is false for a standalone server, which is a cluster of one without a name.
	Enabled bool `json:"enabled"`
	// Certificate and Key are the PEM of the cluster's key pair; empty while standalone.
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`
	// Supplied is true if an administrator gave the certificate; false if this program made it.
	Supplied bool `json:"supplied,omitempty"`
	// Fingerprint is that of Certificate; empty until the certificate is replaced for the first time.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Endorsements lead from earlier certificates to the present one, oldest first.
	Endorsements []Endorsement `json:"endorsements,omitempty"`
	// RotateKey is set when a member left that must not have the cluster's key any more; the
	// leader then makes another.
	RotateKey bool `json:"rotate_key,omitempty"`
	// NextNumber is the wire number of the next member.
	NextNumber int `json:"next_number"`
	// Leader and Term are those of the last "leader.elected".
	Leader string `json:"leader"`
	Term   uint64 `json:"term"`
}

// States of a member.
const (
	// MemberActive is a full member.
	MemberActive = "active"
	// MemberJoining has been admitted and has not finished; never shown.
	MemberJoining = "joining"
)

// Database roles that the planner gives. Raft's configuration follows them.
const (
	RoleVoter   = "voter"
	RoleStandby = "stand-by"
	RoleSpare   = "spare"
)

// Member is one server of the cluster.
type Member struct {
	// ID is the Raft server ID: a UUID, new at every join, never reused.
	ID string `json:"id"`
	// Number orders members as they came, from 1; the numeric ID of the wire. A join that
	// ends without a member leaves its number unused.
	Number int `json:"number"`
	// Name is "none" while standalone.
	Name string `json:"name"`
	// Address is host:port; empty while standalone.
	Address string `json:"address"`
	// Certificate is PEM, Fingerprint its SHA-256: the server's own key pair. Trust hangs on this row.
	Certificate string `json:"certificate"`
	Fingerprint string `json:"fingerprint"`
	// Former is the fingerprint of the certificate before it, which is as good as long as the
	// member may still show it; empty when it does not.
	Former string `json:"former,omitempty"`
	// Endorsements lead from the member's earlier certificates to the present one, oldest first:
	// for members that have not applied the entry yet.
	Endorsements []Endorsement `json:"endorsements,omitempty"`
	Architecture string        `json:"architecture"`
	// CommandVersion is the newest that this member can apply.
	CommandVersion int    `json:"command_version"`
	State          string `json:"state"`
	// Token is the hash of the token that admitted it; empty for the first member.
	Token string `json:"token,omitempty"`
	// Replacing is the ID of the member whose place a joining one takes; its name and address
	// may then be that member's.
	Replacing string `json:"replacing,omitempty"`
	// JoinDeadline is when a joining member that is not heard of may be removed.
	JoinDeadline time.Time `json:"join_deadline,omitzero"`
	JoinedAt     time.Time `json:"joined_at,omitzero"`
	// Role is what the planner wants: RoleVoter, RoleStandby or RoleSpare.
	Role string `json:"role"`
	// Offline is what the leader sees, Since when and Reason in words ("" when online).
	Offline bool      `json:"offline"`
	Since   time.Time `json:"since,omitzero"`
	Reason  string    `json:"reason,omitempty"`
	// Roles are those that an administrator gave: event-hub, ovn-chassis, database-client.
	Roles         []string          `json:"roles,omitempty"`
	FailureDomain string            `json:"failure_domain"`
	Description   string            `json:"description"`
	Config        map[string]string `json:"config,omitempty"`
	Groups        []string          `json:"groups"`
	// Maintenance is empty, MaintenanceEvacuating, MaintenanceEvacuated or MaintenanceRestoring,
	// and MaintenanceSince when that began.
	Maintenance      string    `json:"maintenance,omitempty"`
	MaintenanceSince time.Time `json:"maintenance_since,omitzero"`
	// Stopping is set by a member that is about to stop, and taken back at its next start: it
	// gives its database role to whoever can take it.
	Stopping bool `json:"stopping,omitempty"`
	// Removal is set while the member is being removed; nil otherwise.
	Removal *Removal `json:"removal,omitempty"`
	// Fenced is the incarnation from which on the member is shut out, because a recovery went on
	// without it; 0 if it is not. Its row stays until somebody removes or replaces it.
	Fenced int `json:"fenced,omitempty"`
}

// States of maintenance.
const (
	MaintenanceEvacuating = "evacuating"
	MaintenanceEvacuated  = "evacuated"
	MaintenanceRestoring  = "restoring"
)

// A Removal is what is known of the removal of a member that has begun.
type Removal struct {
	Since time.Time `json:"since"`
	// Force is set if the administrator asked for it: checks are left out, and a member that
	// does not take part is dropped.
	Force bool `json:"force,omitempty"`
	// RotateKey asks for another cluster key afterwards, which the member does not have.
	RotateKey bool `json:"rotate_key,omitempty"`
	// Requestor is who asked for it.
	Requestor *api.EventRequestor `json:"requestor,omitempty"`
}

// Ends of a token's life. A token without an end is live, or claimed.
const (
	TokenUsed    = "used"
	TokenRevoked = "revoked"
	TokenExpired = "expired"
)

// Token is a join token or, if Client is set, a certificate add token. Its key is the
// SHA-256 of the secret, in hex.
type Token struct {
	Hash string `json:"hash"`
	// Secret is kept while the token is live, since administrators may list it.
	Secret string `json:"secret,omitempty"`
	Name   string `json:"name"`
	// Operation is the UUID under which the token appears in /1.0/operations.
	Operation string `json:"operation"`
	// Issuer is the ID of the member that was asked for the token.
	Issuer      string    `json:"issuer"`
	Fingerprint string    `json:"fingerprint"`
	Addresses   []string  `json:"addresses"`
	CreatedAt   time.Time `json:"created_at"`
	// ExpiresAt is when it ends; zero means never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// Replaces is the ID of the member whose place the new one takes; empty for none.
	Replaces string `json:"replaces,omitempty"`
	// ClaimedBy is the fingerprint of the server that redeems it, until ClaimUntil; while
	// that server's joining row stands ClaimUntil is zero, and the claim has no end. An
	// ended token keeps ClaimedBy, so that this server can be told why.
	ClaimedBy   string    `json:"claimed_by,omitempty"`
	ClaimedCert string    `json:"claimed_cert,omitempty"`
	ClaimUntil  time.Time `json:"claim_until,omitzero"`
	// Ended is empty, TokenUsed, TokenRevoked or TokenExpired; EndedAt says when and
	// UsedBy is the ID of the member that was admitted.
	Ended   string    `json:"ended,omitempty"`
	EndedAt time.Time `json:"ended_at,omitzero"`
	UsedBy  string    `json:"used_by,omitempty"`
	// Client is what a client's certificate will be that is added by the token; nil for a
	// join token. UsedBy is then that certificate's fingerprint.
	Client *ClientGrant `json:"client,omitempty"`
}

// ClientGrant is what a certificate add token gives.
type ClientGrant struct {
	Restricted  bool     `json:"restricted"`
	Projects    []string `json:"projects"`
	Description string   `json:"description,omitempty"`
}

// Certificate is a trusted certificate of a client. Those of members are in their rows.
type Certificate struct {
	Fingerprint string    `json:"fingerprint"`
	Name        string    `json:"name"`
	Type        string    `json:"type"`
	Restricted  bool      `json:"restricted"`
	Projects    []string  `json:"projects"`
	PEM         string    `json:"pem"`
	Description string    `json:"description"`
	AddedAt     time.Time `json:"added_at"`
}

// A Server is one entry of Raft's committed configuration.
type Server struct {
	ID    string `json:"id"`
	Voter bool   `json:"voter"`
}

// Limits that Apply enforces. They are part of every member's arithmetic: changing one
// takes a new version of the commands that it bounds.
const (
	// ClaimTime is how long a claim holds without an admission.
	ClaimTime = 10 * time.Minute
	// JoinTime is how long an admitted member may take before the leader may remove it.
	JoinTime = 2 * time.Minute
	// TombstoneTime and MaxTombstones bound the memory of ended tokens.
	TombstoneTime = 7 * 24 * time.Hour
	MaxTombstones = 1000
	// MaxTokens bounds the live tokens.
	MaxTokens = 10000
	// MaxRequests bounds the memory of applied request IDs, oldest forgotten first.
	MaxRequests = 8192
	// MaxRetired bounds the memory of IDs that are no member's any more.
	MaxRetired = 10000
	// MaxCertificates bounds the trusted certificates of clients.
	MaxCertificates = 10000
	// MaxCertificateText bounds the name and the description of a trusted certificate, and
	// its projects together, in bytes.
	MaxCertificateText = 16 << 10
	// MaxEntities bounds pools and networks, MaxVolumes volumes, MaxProfiles and MaxProjects those.
	MaxEntities = 1000
	MaxVolumes  = 10000
	MaxProfiles = 10000
	MaxProjects = 1000
	// MaxGroups bounds the cluster groups.
	MaxGroups = 1000
	// MaxDevices bounds the devices of a profile.
	MaxDevices = 1000
	// MaxConfigKeys and MaxConfigValue (in bytes) bound the configuration, and each member's.
	MaxConfigKeys  = 10000
	MaxConfigValue = 64 << 10
	// MaxEntityConfig bounds the cluster-wide keys and the description of a pool, network or volume,
	// MaxPartConfig the keys that are one member's, in bytes of keys and values.
	MaxEntityConfig = 256 << 10
	MaxPartConfig   = 16 << 10
	// MaxReason bounds what a member reports about a failure, in bytes; longer texts are cut.
	MaxReason = 1000
	// MaxEntityRow bounds a pool, network or volume with the parts of all members, in bytes of JSON. It
	// leaves room below maxLine, or a snapshot with the row could not be read any more.
	MaxEntityRow = 4 << 20
	// maxKeyText bounds IDs, hashes, fingerprints, addresses and names of keys, in bytes.
	maxKeyText = 256
)

// ClusterInit is the body of "cluster.init", version 1: the first entry of every new store.
// Harmless when repeated; Conflict if the store belongs to another cluster. Of Member the ID,
// key pair, architecture and command version count, the rest follows.
type ClusterInit struct {
	ClusterID string `json:"cluster_id"`
	Member    Member `json:"member"`
}

// ClusterEnable is the body of "cluster.enable", version 1. It refuses with AlreadyClustered.
type ClusterEnable struct {
	MemberID    string `json:"member_id"`
	Name        string `json:"name"`
	Address     string `json:"address"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

// ConfigSet is the body of "config.set", version 1.
type ConfigSet struct {
	// Set gives new values; an empty one unsets the key.
	Set map[string]string `json:"set"`
	// Replace unsets every key that is not in Set.
	Replace bool `json:"replace,omitempty"`
	// Expect, if not empty, is View.ConfigHash as the proposer saw it; PreconditionFail if it differs now.
	Expect string `json:"expect,omitempty"`
}

// MemberUpdate is the body of "member.update", version 1: the writable part of a member.
type MemberUpdate struct {
	ID string `json:"id"`
	// Expect, if not empty, is Member.WritableHash as the proposer saw it.
	Expect        string            `json:"expect,omitempty"`
	Roles         []string          `json:"roles"`
	FailureDomain string            `json:"failure_domain"`
	Description   string            `json:"description"`
	Config        map[string]string `json:"config"`
	Groups        []string          `json:"groups"`
}

// MemberLiveness is the body of "member.liveness", version 1: what the leader saw.
type MemberLiveness struct {
	Changes []LivenessChange `json:"changes"`
}

// LivenessChange says that a member went offline or came back.
type LivenessChange struct {
	ID      string    `json:"id"`
	Offline bool      `json:"offline"`
	Since   time.Time `json:"since"`
	Reason  string    `json:"reason"`
}

// MemberRole is the body of "member.role", version 1. MemberNotFound if one of them is no
// active member, Conflict if no voter would be left.
type MemberRole struct {
	Changes []RoleChange `json:"changes"`
}

// RoleChange gives a member a database role.
type RoleChange struct {
	ID   string `json:"id"`
	Role string `json:"role"`
}

// MemberAdmit is the body of "member.admit", version 1. It needs a claim of a live token by
// Fingerprint for Name, and takes the certificate from that claim. A joining row of the same
// fingerprint is replaced. Refusals of name, address, certificate or version release the
// claim, and end a join under it. An ID that was used before is a Conflict, except that of
// the same join once more. The result is the Member.
type MemberAdmit struct {
	// ID is the new member's Raft ID.
	ID             string `json:"id"`
	Fingerprint    string `json:"fingerprint"`
	Name           string `json:"name"`
	Address        string `json:"address"`
	Architecture   string `json:"architecture"`
	CommandVersion int    `json:"command_version"`
}

// MemberActivate is the body of "member.activate", version 1: the joining member becomes a full
// one and its token is used up. Harmless when repeated. JoinAborted if the row is gone.
type MemberActivate struct {
	ID string `json:"id"`
	// Entities is what this server has of the cluster's pools and networks, by entity ID. Those
	// that are not in it are EntityPending on it, so that it makes them, and those that are being
	// deleted, so that it removes them; those that are no more are left out.
	Entities map[string]EntityMember `json:"entities,omitempty"`
}

// MemberAbort is the body of "member.abort", version 1: a join ends without a member. It
// removes the joining row of that fingerprint and releases its token's claim. Its result is an
// AbortResult: it decides, once for all, whether the join succeeded. ID is never admitted
// afterwards, unless it is a member's.
type MemberAbort struct {
	// ID is that of the attempt to end; a later attempt of the same server goes on. It may be
	// empty: then whatever attempt there is ends, be it a claim alone.
	ID          string `json:"id,omitempty"`
	Fingerprint string `json:"fingerprint"`
}

// AbortResult is the result of "member.abort".
type AbortResult struct {
	// Active is true when the join had been finished: the server is a member and stays one.
	Active bool `json:"active"`
}

// TokenIssue is the body of "token.issue", version 1. An earlier live token for Name is revoked
// and a join under it aborted in the same entry. NameTaken if an active member has the name that
// the token does not replace, MemberOnline if the replaced one is online.
type TokenIssue struct {
	Token Token `json:"token"`
}

// TokenClaim is the body of "token.claim", version 1. Its result is the Token without Secret.
// If Proved, a claim of the same server on another token is released, and a join under it
// ended; else such a claim stands, and CertTaken refuses this one.
type TokenClaim struct {
	Hash        string `json:"hash"`
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
	Certificate string `json:"certificate"`
	// Proved is true if whoever claims proved to have the certificate's key. Certificates
	// are public: without it, any token would end any other server's join.
	Proved bool `json:"proved,omitempty"`
}

// TokenRevoke is the body of "token.revoke", version 1. A join under the token is aborted.
type TokenRevoke struct {
	Operation string `json:"operation"`
}

// LeaderElected is the body of "leader.elected", version 1: the first entry of each leader.
// Conflict if a later term has begun. It may come before "cluster.init".
type LeaderElected struct {
	ID   string `json:"id"`
	Term uint64 `json:"term"`
}

// LeaderSweep is the body of "leader.sweep", version 1: it ends tokens past their expiry, releases
// claims past their deadline, forgets old tombstones and warnings resolved for long, and removes the given joining members if
// their deadline has passed.
type LeaderSweep struct {
	Lost []string `json:"lost,omitempty"`
}

// CertificateAdd is the body of "certificate.add", version 1. CertTaken if it is there.
type CertificateAdd struct {
	Certificate Certificate `json:"certificate"`
}

// CertificateUpdate is the body of "certificate.update", version 1. The certificate with that
// Fingerprint becomes Certificate, whose own fingerprint may be another; its type must not
// change. NotFound if it is not there, PreconditionFail if Expect is not empty and not its
// CertificateHash, CertTaken if the new fingerprint is trusted already.
type CertificateUpdate struct {
	Fingerprint string      `json:"fingerprint"`
	Certificate Certificate `json:"certificate"`
	Expect      string      `json:"expect,omitempty"`
}

// TokenInvite is the body of "token.invite", version 1: it issues a certificate add token. Several
// may have one name.
type TokenInvite struct {
	Token Token `json:"token"`
}

// TokenRedeem is the body of "token.redeem", version 1. The certificate add token of that Hash
// ends, and Certificate is trusted as the token says, in one step. Its result is the
// Certificate. The same certificate may redeem again, which changes nothing. TokenUnknown,
// TokenUsed, TokenRevoked, TokenExpired; CertTaken if the certificate is trusted
// already, and then the token stays.
type TokenRedeem struct {
	Hash string `json:"hash"`
	// Certificate has the Fingerprint and PEM of the client, which has proved to have its key.
	Certificate Certificate `json:"certificate"`
}

// CertificateRemove is the body of "certificate.remove", version 1. NotFound if it is not there.
type CertificateRemove struct {
	Fingerprint string `json:"fingerprint"`
}

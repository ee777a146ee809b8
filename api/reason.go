package api

import (
	"maps"
	"net/http"
	"slices"
)

// A Reason says why something was refused. It is a stable code: the same in the
// API, in the command line and in events. A Reason is itself an error, so that
// errors.Is(err, api.TokenExpired) sees through any wrapping.
type Reason string

// Reasons of the whole product. Each has its status, text and next step in reasons.
const (
	BadRequest        Reason = "bad_request"
	NotAuthorized     Reason = "not_authorized"
	NotFound          Reason = "not_found"
	Conflict          Reason = "conflict"
	PreconditionFail  Reason = "precondition_failed"
	NotImplemented    Reason = "not_implemented"
	TooLarge          Reason = "too_large"
	TooMany           Reason = "too_many"
	Internal          Reason = "internal"
	Unavailable       Reason = "unavailable"
	ShuttingDown      Reason = "shutting_down"
	NoQuorum          Reason = "no_quorum"
	OutcomeUnknown    Reason = "outcome_unknown"
	Timeout           Reason = "timeout"
	StoreDamaged      Reason = "store_damaged"
	StoreTooNew       Reason = "store_too_new"
	DiskFull          Reason = "disk_full"
	NotClustered      Reason = "not_clustered"
	AlreadyClustered  Reason = "already_clustered"
	NoAddress         Reason = "no_address"
	AddressInvalid    Reason = "address_invalid"
	AddressTaken      Reason = "address_taken"
	AddressUnreach    Reason = "address_unreachable"
	AddressInUse      Reason = "address_in_use"
	NameInvalid       Reason = "name_invalid"
	NameTaken         Reason = "name_taken"
	MemberNotFound    Reason = "member_not_found"
	MemberOffline     Reason = "member_offline"
	MemberRemoved     Reason = "member_removed"
	CannotLead        Reason = "cannot_lead"
	MemberOnline      Reason = "member_online"
	LastMember        Reason = "last_member"
	QuorumNeeded      Reason = "quorum_needed"
	MemberFenced      Reason = "member_fenced"
	ConfigInvalid     Reason = "config_invalid"
	TokenMalformed    Reason = "token_malformed"
	TokenUnknown      Reason = "token_unknown"
	TokenUsed         Reason = "token_used"
	TokenClaimed      Reason = "token_claimed"
	TokenRevoked      Reason = "token_revoked"
	TokenExpired      Reason = "token_expired"
	TokenWrongName    Reason = "token_wrong_name"
	TokenNotClaimed   Reason = "token_not_claimed"
	FingerprintMatch  Reason = "fingerprint_mismatch"
	NoMemberReachable Reason = "no_member_reachable"
	CertInvalid       Reason = "certificate_invalid"
	CertTaken         Reason = "certificate_taken"
	ClockSkew         Reason = "clock_skew"
	VersionTooOld     Reason = "version_too_old"
	JoinRunning       Reason = "join_running"
	JoinRefused       Reason = "join_refused"
	JoinAborted       Reason = "join_aborted"
	DriverUnavailable Reason = "driver_unavailable"
	InUse             Reason = "in_use"
	NotPermitted      Reason = "not_permitted"
	EntityFailed      Reason = "entity_failed"
	PasswordWrong     Reason = "password_wrong"
	PasswordUnset     Reason = "password_unset"
)

type reasonInfo struct {
	status     int
	text, hint string
}

// reasons gives each Reason its status, text and next step, here and nowhere else.
var reasons = map[Reason]reasonInfo{
	BadRequest:        {http.StatusBadRequest, "Bad request", "correct the request; the message names the part that is wrong"},
	NotAuthorized:     {http.StatusForbidden, "not authorized", "use the unix socket as root, or a client that the server trusts without restriction"},
	NotFound:          {http.StatusNotFound, "not found", "check the name or path"},
	Conflict:          {http.StatusConflict, "Conflict", "choose another name, or remove what is in the way"},
	PreconditionFail:  {http.StatusPreconditionFailed, "ETag doesn't match", "read the object again, apply your change to it, and send it with the new ETag"},
	NotImplemented:    {http.StatusNotImplemented, "not implemented", "see docs/compatibility.md for what this version answers"},
	TooLarge:          {http.StatusRequestEntityTooLarge, "Request too large", "send less: a body may have 1 MiB"},
	TooMany:           {http.StatusTooManyRequests, "Too many requests", "wait a moment and try again"},
	Internal:          {http.StatusInternalServerError, "Internal error", "look into the daemon's log on the member that answered"},
	Unavailable:       {http.StatusServiceUnavailable, "Service unavailable", "try again in a moment"},
	ShuttingDown:      {http.StatusServiceUnavailable, "Incus is shutting down", "try again when the daemon is back, or ask another member"},
	NoQuorum:          {http.StatusServiceUnavailable, "No quorum", "start the members that do not answer: incus cluster doctor names them; if they are lost for ever, see incusd cluster recover-from-quorum-loss --help"},
	OutcomeUnknown:    {http.StatusGatewayTimeout, "Outcome unknown", "look whether the change was made before you try again"},
	Timeout:           {http.StatusGatewayTimeout, "Timed out", "try again; if it stays, see incus cluster list for members that do not answer"},
	StoreDamaged:      {http.StatusInternalServerError, "The replicated store is damaged", "let it join anew with an empty INCUS_DIR and a token of: incus cluster replace NAME. Do not put an older copy of its files back: it has forgotten votes and changes that count. If no member is left: incus admin cluster restore"},
	StoreTooNew:       {http.StatusInternalServerError, "The replicated store was written by a newer version", "install at least the version that is named"},
	DiskFull:          {http.StatusInsufficientStorage, "No space left on the disk of the store", "free space on the disk that holds the state directory; if the daemon has ended, start it again"},
	NotClustered:      {http.StatusBadRequest, "This server is not clustered", "form a cluster first: incus admin init, or incus cluster enable NAME"},
	AlreadyClustered:  {http.StatusBadRequest, "This server is already clustered", "nothing to do; see incus cluster list"},
	NoAddress:         {http.StatusBadRequest, "No cluster.https_address config is set on this member", "set one: incus config set core.https_address=ADDRESS:8443"},
	AddressInvalid:    {http.StatusBadRequest, "Invalid address", "give an IP address or DNS name that other members can reach, and a port"},
	AddressTaken:      {http.StatusConflict, "The cluster already has a member with that address", "use another address or port"},
	AddressUnreach:    {http.StatusBadRequest, "The address cannot be reached", "check the address, the port and the firewalls between the servers"},
	AddressInUse:      {http.StatusBadRequest, "The address cannot be listened on", "choose a free address and port of this server"},
	NameInvalid:       {http.StatusBadRequest, "Invalid name", "use at most 64 letters, digits, dots, dashes and underscores, with a letter or digit at both ends"},
	NameTaken:         {http.StatusConflict, "The cluster already has a member with that name", "choose another name, or remove the old member first"},
	MemberNotFound:    {http.StatusNotFound, "Cluster member not found", "see incus cluster list for the names"},
	MemberOffline:     {http.StatusServiceUnavailable, "Cluster member is offline", "start that member, or ask another one"},
	CannotLead:        {http.StatusBadRequest, "The member cannot lead", "choose a member that votes and is online; incus cluster role explain says who votes and why"},
	MemberRemoved:     {http.StatusForbidden, "This server was removed from the cluster", "make it a standalone server: incus admin cluster reset; then it may join again with a new token"},
	MemberOnline:      {http.StatusConflict, "Cluster member is online", "stop that server for good, and wait until incus cluster list shows it as offline"},
	LastMember:        {http.StatusBadRequest, "Member is the only member in the cluster", "to turn clustering off on it and keep its data: incus admin cluster disable"},
	QuorumNeeded:      {http.StatusConflict, "The cluster would have no quorum", "start the members that the message names, or add another one, and try again"},
	MemberFenced:      {http.StatusServiceUnavailable, "This member was shut out by a recovery of its cluster", "make it a clean server with: incus admin cluster reset, and let it join again; see docs/recover.md"},
	ConfigInvalid:     {http.StatusBadRequest, "Invalid configuration", "see docs/configuration.md for keys and values; those of pools and networks are in docs/storage.md and docs/networks.md"},
	TokenMalformed:    {http.StatusBadRequest, "Invalid join token", "copy the whole token, as incus cluster add printed it"},
	TokenUnknown:      {http.StatusForbidden, "No matching cluster join operation found", "issue a token: incus cluster add NAME"},
	TokenUsed:         {http.StatusForbidden, "Join token has been used", "issue another: incus cluster add NAME"},
	TokenClaimed:      {http.StatusForbidden, "Join token is being used by another server", "wait until that join ends, or issue another: incus cluster add NAME"},
	TokenRevoked:      {http.StatusForbidden, "Join token has been revoked", "issue another: incus cluster add NAME"},
	TokenExpired:      {http.StatusForbidden, "Join token has expired", "issue another: incus cluster add NAME"},
	TokenWrongName:    {http.StatusForbidden, "Join token is for another member name", "join under the name that the token was issued for"},
	TokenNotClaimed:   {http.StatusForbidden, "No join token has been redeemed for this server's certificate", "join with a token: incus cluster add NAME"},
	FingerprintMatch:  {http.StatusForbidden, "Certificate fingerprint mismatch between join token and cluster member", "issue another token; if the certificate was not changed, somebody sits in between"},
	NoMemberReachable: {http.StatusServiceUnavailable, "Unable to connect to any of the cluster members specified in join token", "check that this server can reach the addresses named in the message"},
	CertInvalid:       {http.StatusBadRequest, "Invalid certificate", "send a PEM or base64 DER certificate that is valid now"},
	CertTaken:         {http.StatusConflict, "Certificate already in trust store", "nothing to do, or remove the certificate first"},
	ClockSkew:         {http.StatusBadRequest, "The clocks of the two servers differ too much", "set the clocks, for example with NTP"},
	VersionTooOld:     {http.StatusBadRequest, "The joining server is older than the cluster", "install the version that is named"},
	JoinRunning:       {http.StatusConflict, "Another bootstrap or join is running on this server", "wait until it ends: incus operation list"},
	JoinRefused:       {http.StatusBadRequest, "The cluster refused this server", "mend all problems that are named, then try again with the same token"},
	DriverUnavailable: {http.StatusBadRequest, "The driver isn't available on this machine", "install what the message names, or choose another driver; incus info lists those that work here"},
	InUse:             {http.StatusBadRequest, "It is in use", "remove what uses it first; used_by of the object lists that"},
	NotPermitted:      {http.StatusForbidden, "The daemon lacks the rights for it on this machine", "run incusd as root"},
	EntityFailed:      {http.StatusInternalServerError, "Some members could not make it", "mend what the message names on those members, then run the same command again"},
	PasswordWrong:     {http.StatusForbidden, "Wrong cluster trust password", "ask the cluster's administrator for the password, or for a token: incus cluster add NAME"},
	PasswordUnset:     {http.StatusForbidden, "The cluster has no trust password", "set one: incus config set core.trust_password=PASSWORD, or join with a token: incus cluster add NAME"},
	JoinAborted:       {http.StatusConflict, "The join was aborted", "try again; if the token was revoked, issue another: incus cluster add NAME"},
}

// Error is the reason's own text.
func (r Reason) Error() string {
	if info, ok := reasons[r]; ok {
		return info.text
	}
	return string(r)
}

// Status is the HTTP status that goes with the reason; 500 for an unknown one.
func (r Reason) Status() int {
	if info, ok := reasons[r]; ok {
		return info.status
	}
	return http.StatusInternalServerError
}

// Hint says what to do next.
func (r Reason) Hint() string { return reasons[r].hint }

// Reasons lists the whole catalogue in alphabetical order.
func Reasons() []Reason { return slices.Sorted(maps.Keys(reasons)) }

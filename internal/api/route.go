package api

import "net/http"

// Callers is a set of kinds of callers.
type Callers uint8

// Kinds of callers. Each request has exactly one of them.
const (
	// Stranger has shown no certificate that means anything here.
	Stranger Callers = 1 << iota
	// Joiner has a certificate for which a join token was redeemed; its join is not finished.
	Joiner
	// Metrics has a trusted certificate that opens the metrics only.
	Metrics
	// RestrictedClient has a trusted certificate that is limited to some projects.
	RestrictedClient
	// Client has a trusted certificate.
	Client
	// Member has the certificate of a member.
	Member
	// UnixSocket is a process on this machine that may open the socket.
	UnixSocket
)

// Sets of callers, as the routes use them.
const (
	// administrators may do everything.
	administrators = Client | Member | UnixSocket
	// trusted callers may look at the cluster, and change what is in their projects (confine.go).
	trusted = administrators | RestrictedClient
	// admitting is those that a join brings along, from its token to its end.
	admitting = Joiner | Member
	// anyone is everyone who reaches a listener.
	anyone = trusted | Metrics | Joiner | Stranger
	// local is for the administrator of this machine.
	local = UnixSocket
)

// Kinds lists the kinds of callers that there are.
func Kinds() []Callers {
	return []Callers{Stranger, Joiner, Metrics, RestrictedClient, Client, Member, UnixSocket}
}

// String names a single kind.
func (c Callers) String() string {
	switch c {
	case Stranger:
		return "stranger"
	case Joiner:
		return "joiner"
	case Metrics:
		return "metrics"
	case RestrictedClient:
		return "restricted client"
	case Client:
		return "client"
	case Member:
		return "member"
	case UnixSocket:
		return "unix socket"
	}
	return "several"
}

// A Route is one call of the API.
type Route struct {
	Method, Path string
	// Who is let in; all others are refused before the handler runs.
	Who Callers
	// Scope says what the route answers for.
	Scope  Scope
	handle handler
}

// A Scope says which member answers a call, and for how long it may take.
type Scope uint8

const (
	// anyMember: every member gives the same answer; target= is ignored.
	anyMember Scope = iota
	// thisMember: the answer is about one member, which target= may name.
	thisMember
	// lengthy: as anyMember, but members may have to make something, such as a file system.
	lengthy
	// patient: as anyMember, but the call takes as long as the caller is willing to wait.
	patient
	// streaming: as patient, and the handler reads a body of any size itself.
	streaming
)

// handler answers a call. It writes nothing itself and chooses no status.
type handler func(*Server, *call) (reply, error)

// Routes is the whole API: method, path, who may call, whose answer, handler.
func Routes() []Route {
	return []Route{
		{"GET", "/", anyone, anyMember, (*Server).rootGet},
		{"GET", "/1.0", anyone, thisMember, (*Server).serverGet},
		{"PUT", "/1.0", administrators, thisMember, (*Server).serverPut},
		{"PATCH", "/1.0", administrators, thisMember, (*Server).serverPatch},

		{"GET", "/1.0/cluster", trusted | Joiner, anyMember, (*Server).clusterGet},
		{"PUT", "/1.0/cluster", administrators, lengthy, (*Server).clusterPut},
		{"PUT", "/1.0/cluster/certificate", administrators, anyMember, (*Server).clusterCertificatePut},
		{"GET", "/1.0/cluster/members", trusted, anyMember, (*Server).membersGet},
		{"POST", "/1.0/cluster/members", administrators, anyMember, (*Server).membersPost},
		{"GET", "/1.0/cluster/members/{name}", trusted, anyMember, (*Server).memberGet},
		{"PUT", "/1.0/cluster/members/{name}", administrators, anyMember, (*Server).memberPut},
		{"PATCH", "/1.0/cluster/members/{name}", administrators, anyMember, (*Server).memberPatch},
		{"POST", "/1.0/cluster/members/{name}", administrators, anyMember, (*Server).memberPost},
		{"DELETE", "/1.0/cluster/members/{name}", administrators, lengthy, (*Server).memberDelete},
		{"GET", "/1.0/cluster/members/{name}/state", trusted, anyMember, (*Server).memberStateGet},
		{"POST", "/1.0/cluster/members/{name}/state", administrators, anyMember, (*Server).memberStatePost},
		{"GET", "/1.0/cluster/groups", trusted, anyMember, (*Server).groupsGet},
		{"POST", "/1.0/cluster/groups", administrators, anyMember, (*Server).groupsPost},
		{"GET", "/1.0/cluster/groups/{name}", trusted, anyMember, (*Server).groupGet},
		{"PUT", "/1.0/cluster/groups/{name}", administrators, anyMember, (*Server).groupPut},
		{"PATCH", "/1.0/cluster/groups/{name}", administrators, anyMember, (*Server).groupPut},
		{"POST", "/1.0/cluster/groups/{name}", administrators, anyMember, (*Server).groupPost},
		{"DELETE", "/1.0/cluster/groups/{name}", administrators, anyMember, (*Server).groupDelete},

		{"GET", "/1.0/certificates", trusted, anyMember, (*Server).certificatesGet},
		{"POST", "/1.0/certificates", anyone, anyMember, (*Server).certificatesPost},
		{"GET", "/1.0/certificates/{fingerprint}", trusted, anyMember, (*Server).certificateGet},
		{"PUT", "/1.0/certificates/{fingerprint}", trusted, anyMember, (*Server).certificatePut},
		{"PATCH", "/1.0/certificates/{fingerprint}", trusted, anyMember, (*Server).certificatePut},
		{"DELETE", "/1.0/certificates/{fingerprint}", trusted, anyMember, (*Server).certificateDelete},

		{"GET", "/1.0/operations", trusted, anyMember, (*Server).operationsGet},
		{"GET", "/1.0/operations/{id}", trusted, anyMember, (*Server).operationGet},
		{"DELETE", "/1.0/operations/{id}", administrators, anyMember, (*Server).operationDelete},
		{"GET", "/1.0/operations/{id}/wait", anyone, patient, (*Server).operationWait},
		{"GET", "/1.0/events", trusted, patient, (*Server).eventsGet},

		{"GET", "/1.0/storage-pools", trusted, anyMember, (*Server).poolsGet},
		{"POST", "/1.0/storage-pools", administrators, lengthy, (*Server).poolsPost},
		{"GET", "/1.0/storage-pools/{name}", trusted, anyMember, (*Server).poolGet},
		{"PUT", "/1.0/storage-pools/{name}", administrators, lengthy, (*Server).poolPut},
		{"PATCH", "/1.0/storage-pools/{name}", administrators, lengthy, (*Server).poolPut},
		{"DELETE", "/1.0/storage-pools/{name}", administrators, lengthy, (*Server).poolDelete},
		{"GET", "/1.0/storage-pools/{name}/resources", trusted, thisMember, (*Server).poolResourcesGet},
		{"GET", "/1.0/storage-pools/{name}/volumes", trusted, anyMember, (*Server).volumesGet},
		{"GET", "/1.0/storage-pools/{name}/volumes/{type}", trusted, anyMember, (*Server).volumesGet},
		{"POST", "/1.0/storage-pools/{name}/volumes", trusted, lengthy, (*Server).volumesPost},
		{"POST", "/1.0/storage-pools/{name}/volumes/{type}", trusted, lengthy, (*Server).volumesPost},
		{"GET", "/1.0/storage-pools/{name}/volumes/{type}/{volume}", trusted, anyMember, (*Server).volumeGet},
		{"PUT", "/1.0/storage-pools/{name}/volumes/{type}/{volume}", trusted, lengthy, (*Server).volumePut},
		{"PATCH", "/1.0/storage-pools/{name}/volumes/{type}/{volume}", trusted, lengthy, (*Server).volumePut},
		{"POST", "/1.0/storage-pools/{name}/volumes/{type}/{volume}", trusted, lengthy, (*Server).volumePost},
		{"DELETE", "/1.0/storage-pools/{name}/volumes/{type}/{volume}", trusted, lengthy, (*Server).volumeDelete},

		{"GET", "/1.0/networks", trusted, thisMember, (*Server).networksGet},
		{"POST", "/1.0/networks", trusted, lengthy, (*Server).networksPost},
		{"GET", "/1.0/networks/{name}", trusted, anyMember, (*Server).networkGet},
		{"PUT", "/1.0/networks/{name}", trusted, lengthy, (*Server).networkPut},
		{"PATCH", "/1.0/networks/{name}", trusted, lengthy, (*Server).networkPut},
		{"POST", "/1.0/networks/{name}", trusted, lengthy, (*Server).networkPost},
		{"DELETE", "/1.0/networks/{name}", trusted, lengthy, (*Server).networkDelete},
		{"GET", "/1.0/networks/{name}/state", trusted, thisMember, (*Server).networkStateGet},
		{"GET", "/1.0/networks/{name}/leases", trusted, thisMember, (*Server).networkLeasesGet},

		{"GET", "/1.0/profiles", trusted, anyMember, (*Server).profilesGet},
		{"POST", "/1.0/profiles", trusted, anyMember, (*Server).profilesPost},
		{"GET", "/1.0/profiles/{name}", trusted, anyMember, (*Server).profileGet},
		{"PUT", "/1.0/profiles/{name}", trusted, anyMember, (*Server).profilePut},
		{"PATCH", "/1.0/profiles/{name}", trusted, anyMember, (*Server).profilePut},
		{"POST", "/1.0/profiles/{name}", trusted, anyMember, (*Server).profilePost},
		{"DELETE", "/1.0/profiles/{name}", trusted, anyMember, (*Server).profileDelete},

		{"GET", "/1.0/projects", trusted, anyMember, (*Server).projectsGet},
		{"POST", "/1.0/projects", administrators, anyMember, (*Server).projectsPost},
		{"GET", "/1.0/projects/{name}", trusted, anyMember, (*Server).projectGet},
		{"PUT", "/1.0/projects/{name}", administrators, anyMember, (*Server).projectPut},
		{"PATCH", "/1.0/projects/{name}", administrators, anyMember, (*Server).projectPut},
		{"POST", "/1.0/projects/{name}", administrators, anyMember, (*Server).projectPost},
		{"DELETE", "/1.0/projects/{name}", administrators, anyMember, (*Server).projectDelete},
		{"GET", "/1.0/projects/{name}/state", trusted, anyMember, (*Server).projectStateGet},

		{"GET", "/1.0/metrics", trusted | Metrics | Joiner | Stranger, thisMember, (*Server).metricsGet},
		{"GET", "/1.0/resources", trusted, thisMember, (*Server).resourcesGet},
		{"GET", "/1.0/instances", trusted, anyMember, nothing},
		{"POST", "/1.0/instances", administrators, anyMember, noInstances},
		{"GET", "/1.0/images", trusted, anyMember, nothing},
		{"POST", "/1.0/images", administrators, anyMember, noInstances},
		{"GET", "/1.0/warnings", administrators, anyMember, (*Server).warningsGet},
		{"GET", "/1.0/warnings/{uuid}", administrators, anyMember, (*Server).warningGet},
		{"PUT", "/1.0/warnings/{uuid}", administrators, anyMember, (*Server).warningPut},
		{"PATCH", "/1.0/warnings/{uuid}", administrators, anyMember, (*Server).warningPut},
		{"DELETE", "/1.0/warnings/{uuid}", administrators, anyMember, (*Server).warningDelete},

		{"GET", "/internal/ready", local, anyMember, (*Server).readyGet},
		{"PUT", "/internal/shutdown", local, patient, (*Server).shutdownPut},
		{"PUT", "/internal/server-certificate", local, anyMember, (*Server).serverCertificatePut},
		{"GET", "/internal/cluster/database", local, anyMember, (*Server).databaseGet},
		{"DELETE", "/internal/cluster/raft-node/{address}", local, anyMember, (*Server).raftNodeDelete},
		{"GET", "/internal/cluster/backup", local, patient, (*Server).backupGet},
		{"PUT", "/internal/cluster/restore", local, streaming, (*Server).restorePut},
		{"POST", pathEvents, Member, anyMember, (*Server).eventsPost},
		{"GET", pathReport, Member | UnixSocket, anyMember, (*Server).reportGet},
		{"GET", "/internal/cluster/health", trusted, anyMember, (*Server).healthGet},
		{"GET", "/internal/cluster/doctor", administrators, anyMember, (*Server).doctorGet},
		{"PUT", "/internal/cluster/address", administrators, thisMember, (*Server).addressPut},
		{"GET", "/internal/cluster/roles", trusted, anyMember, (*Server).rolesGet},
		{"POST", "/internal/cluster/transfer-leader", administrators, anyMember, (*Server).leaderTransfer},
		{"POST", "/internal/cluster/rotate-key", administrators, anyMember, (*Server).rotateKeyPost},
		{"POST", "/internal/cluster/reset", local, lengthy, (*Server).resetPost},
		{"POST", "/internal/cluster/join/preflight", anyone, anyMember, (*Server).joinPreflight},
		{"POST", "/internal/cluster/join/admit", admitting, anyMember, (*Server).joinAdmit},
		{"POST", "/internal/cluster/join/abort", Stranger | admitting, anyMember, (*Server).joinAbort},
	}
}

// methods that a known path answers with 501 where it has no handler for them; any
// other method is not known at all (rest-basics.md §1).
var methods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPut: true, http.MethodPost: true,
	http.MethodDelete: true, http.MethodPatch: true,
}

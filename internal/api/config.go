package api

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"time"

	"incusd/api"
	"incusd/internal/events"
	"incusd/internal/membership"
	"incusd/internal/operations"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// Config is what a Server works with. All fields but Authority are needed.
type Config struct {
	Store  Store
	Tokens Tokens
	// Bootstrap makes this server the first member of a cluster, Join makes it a member of
	// another's. They block until it is one, or is what it was before, and tell progress
	// what they do, in words for people.
	Bootstrap func(ctx context.Context, name string, requestor *api.EventRequestor, progress func(string)) error
	Join      func(ctx context.Context, req api.ClusterPut, progress func(string)) error
	// Reset makes this server a clean standalone one, unless a working cluster counts on it, or,
	// without force, one that does not answer at present.
	Reset      func(ctx context.Context, force bool) error
	Admission  Admission
	Members    Members
	Leadership Leadership
	Settings   Settings
	TrustStore TrustStore
	Daemon     Daemon
	Recovery   Recovery
	Health     Health
	Operations *operations.Registry
	Events     *events.Hub
	Entities   Entities
	// Resources describes this machine; StorageDrivers lists what pools can be made of on it.
	Resources      func() (*api.Resources, error)
	StorageDrivers func() []api.StorageDriverInfo
	Facts          Facts
	Certificate    NetworkCertificate
	// Peer returns what reaches m with this server's own certificate and accepts
	// nobody but m. It is used with URLs of m.Address.
	Peer func(m *state.Member) http.RoundTripper
	// Authority must have signed the certificates of clients; nil if this server has none.
	Authority *trust.Authority
	// Now is the clock by which certificates and claims are judged.
	Now func() time.Time
	Log *slog.Logger
}

// Store reads the replicated tables. Views are immutable.
type Store interface {
	// ID is this server's member ID; another one after a join.
	ID() string
	// Read is linearizable. It fails with api.NoQuorum when no leader answers in time.
	Read(ctx context.Context) (*raftstore.View, error)
	// ReadOrStale is linearizable, or within a second the local view, which says so.
	ReadOrStale(ctx context.Context) (*raftstore.View, error)
	// Local is what this member knows; it may be stale. It is nil before the store is open.
	Local() *raftstore.View
}

// Health tells how this member is, and what the leader knows of the others.
type Health interface {
	// Report tries the other members, among them asker (an ID, which may be empty), and blocks
	// for less than a second.
	Report(ctx context.Context, asker string) api.MemberReport
	// Contacts are the leader's, or, without one that answers before ctx ends, this member's own.
	Contacts(ctx context.Context) (raftstore.Contacts, error)
}

// Tokens issues and redeems join tokens and certificate add tokens.
type Tokens interface {
	Issue(ctx context.Context, name string, requestor *api.EventRequestor) (*state.Token, error)
	IssueReplacement(ctx context.Context, name string, requestor *api.EventRequestor) (*state.Token, error)
	Claim(ctx context.Context, token *api.ClusterMemberJoinToken, cert *x509.Certificate, proved bool, requestor *api.EventRequestor) (*state.Token, error)
	Revoke(ctx context.Context, operation string, requestor *api.EventRequestor) error
	Verify(ctx context.Context, source, password string) error
	Invite(ctx context.Context, inv tokens.Invitation, requestor *api.EventRequestor) (*state.Token, error)
	Redeem(ctx context.Context, secret string, cert *x509.Certificate, requestor *api.EventRequestor) (*state.Certificate, error)
	Grant(ctx context.Context, name string, cert *x509.Certificate, proved bool, requestor *api.EventRequestor) (*state.Token, error)
}

// Admission is the cluster's side of a join. Callers are known by the fingerprint of
// the certificate whose key they proved to have; those of Preflight may have none, and
// show a token.
type Admission interface {
	Preflight(ctx context.Context, caller, source string, req membership.JoinRequest) (*membership.JoinReport, error)
	Admit(ctx context.Context, fingerprint string, req membership.AdmitRequest) (*membership.Admission, error)
	Abort(ctx context.Context, fingerprint, id string) (state.AbortResult, error)
}

// Members changes what administrators may change about members and groups of them. expect, if not empty,
// is the member's WritableHash as the caller saw it: it fails with api.PreconditionFail
// if that is another one by now.
type Members interface {
	// Evacuate takes the member with that ID out of service, Restore takes it back. They tell
	// progress what they do, in words for people.
	Evacuate(ctx context.Context, id string, progress func(string), requestor *api.EventRequestor) error
	Restore(ctx context.Context, id string, progress func(string), requestor *api.EventRequestor) error
	UpdateMember(ctx context.Context, id string, put api.ClusterMemberPut, expect string, requestor *api.EventRequestor) error
	RenameMember(ctx context.Context, name, newName string, requestor *api.EventRequestor) error
	CreateGroup(ctx context.Context, post api.ClusterGroupsPost, requestor *api.EventRequestor) error
	// UpdateGroup calls change with the group as it is, like those of Entities. With strict it refuses
	// to take a member out of its only group; else that member stays.
	UpdateGroup(ctx context.Context, name string, change func(api.ClusterGroup) (api.ClusterGroupPut, error), strict bool, requestor *api.EventRequestor) error
	RenameGroup(ctx context.Context, name, newName string, requestor *api.EventRequestor) error
	DeleteGroup(ctx context.Context, name string, requestor *api.EventRequestor) error
	// RemoveMember blocks until the member is gone, within a bound, and with rotate until the
	// cluster has another key. Leave is that for this
	// server, and turns clustering off on the last member. AbortJoin ends a join instead.
	RemoveMember(ctx context.Context, name string, force, rotate bool, requestor *api.EventRequestor) error
	Leave(ctx context.Context, requestor *api.EventRequestor) error
	AbortJoin(ctx context.Context, name string) error
	SetWarning(ctx context.Context, id, status string, requestor *api.EventRequestor) error
	DeleteWarning(ctx context.Context, id string, requestor *api.EventRequestor) error
	// UpdateCertificate replaces the cluster's certificate by another one, which the present key
	// endorses. RotateKey makes another key that it does not.
	UpdateCertificate(ctx context.Context, certPEM, keyPEM string, requestor *api.EventRequestor) error
	RotateKey(ctx context.Context, requestor *api.EventRequestor) error
}

// Settings is the configuration of this server: the cluster's keys and its own.
type Settings interface {
	// Effective gives all keys that are set, as seen from v; a fresh map.
	Effective(v *raftstore.View) map[string]string
	// Update sets keys; "" unsets one, and with replace all that set does not name are
	// unset. match, if not nil, judges the effective configuration that is changed: when
	// it fails, or when that configuration changes meanwhile, so does Update.
	Update(ctx context.Context, set map[string]string, replace bool, match func(map[string]string) error, requestor *api.EventRequestor) error
}

// TrustStore changes the replicated list of clients' certificates.
type TrustStore interface {
	AddCertificate(ctx context.Context, cert state.Certificate, requestor *api.EventRequestor) error
	// UpdateCertificate makes the certificate of that fingerprint another one. It fails with
	// api.PreconditionFail if its CertificateHash is not expect any more.
	UpdateCertificate(ctx context.Context, fingerprint string, cert state.Certificate, expect string, requestor *api.EventRequestor) error
	RemoveCertificate(ctx context.Context, fingerprint string, requestor *api.EventRequestor) error
}

// NetworkCertificate returns the PEM of the certificate that the listeners show, and
// its fingerprint: the cluster's, or this server's own while it is standalone.
type NetworkCertificate func() (pem, fingerprint string)

// Daemon is the life of the process.
type Daemon interface {
	// Started is closed when the store is open and requests can be answered.
	Started() <-chan struct{}
	// Ready is closed when nothing of the start-up is left to do.
	Ready() <-chan struct{}
	// Stopping tells whether a shutdown has begun.
	Stopping() bool
	// Shutdown stops everything but the listeners, which the daemon closes after the
	// answer was sent. With force it does not wait for operations. It fails with
	// api.TooMany if a shutdown has begun before.
	Shutdown(ctx context.Context, force bool) error
	// SetAddress moves this member to another address. unseen is set if the other members need
	// not reach it there yet.
	SetAddress(ctx context.Context, address string, unseen bool) error
	// UpdateCertificate replaces the certificate of this server, which is in no cluster.
	UpdateCertificate(ctx context.Context, certPEM, keyPEM string) error
}

// Entities changes what the cluster configures. change gets the object as a linearizable read shows it (with target=: as that
// member has it) and returns the new writable part; it is where the handler checks If-Match and merges a PATCH. It may be called more
// than once when the object changes meanwhile; If-Match then fails by itself. The service validates, decides in the replicated
// command, and for what members must make true it waits (bounded, 45 s) until all online members have reported; then it returns nil,
// or api.EntityFailed naming the members with their reasons.
type Entities interface {
	CreatePool(ctx context.Context, post api.StoragePoolsPost, target string, by *api.EventRequestor) error
	UpdatePool(ctx context.Context, name, target string, change func(api.StoragePool) (api.StoragePoolPut, error), by *api.EventRequestor) error
	DeletePool(ctx context.Context, name string, by *api.EventRequestor) error
	// PoolResources measures the pool on this member.
	PoolResources(ctx context.Context, name string) (*api.ResourcesStoragePool, error)

	CreateVolume(ctx context.Context, pool, project, target string, post api.StorageVolumesPost, by *api.EventRequestor) error
	UpdateVolume(ctx context.Context, pool, project, name string, change func(api.StorageVolume) (api.StorageVolumePut, error), by *api.EventRequestor) error
	RenameVolume(ctx context.Context, pool, project, name, newName string, by *api.EventRequestor) error
	DeleteVolume(ctx context.Context, pool, project, name string, by *api.EventRequestor) error

	CreateNetwork(ctx context.Context, project string, post api.NetworksPost, target string, by *api.EventRequestor) error
	UpdateNetwork(ctx context.Context, project, name, target string, change func(api.Network) (api.NetworkPut, error), by *api.EventRequestor) error
	RenameNetwork(ctx context.Context, project, name, newName string, by *api.EventRequestor) error
	DeleteNetwork(ctx context.Context, project, name string, by *api.EventRequestor) error
	// Interfaces lists this member's interfaces that are not managed networks; NetworkState and NetworkLeases are this member's.
	Interfaces(ctx context.Context) ([]api.Network, error)
	NetworkState(ctx context.Context, name string) (*api.NetworkState, error)
	NetworkLeases(ctx context.Context, project, name string) ([]api.NetworkLease, error)

	CreateProfile(ctx context.Context, project string, post api.ProfilesPost, by *api.EventRequestor) error
	UpdateProfile(ctx context.Context, project, name string, change func(api.Profile) (api.ProfilePut, error), by *api.EventRequestor) error
	RenameProfile(ctx context.Context, project, name, newName string, by *api.EventRequestor) error
	DeleteProfile(ctx context.Context, project, name string, by *api.EventRequestor) error

	CreateProject(ctx context.Context, post api.ProjectsPost, by *api.EventRequestor) error
	UpdateProject(ctx context.Context, name string, change func(api.Project) (api.ProjectPut, error), by *api.EventRequestor) error
	RenameProject(ctx context.Context, name, newName string, by *api.EventRequestor) error
	DeleteProject(ctx context.Context, name string, by *api.EventRequestor) error
}

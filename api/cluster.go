package api

import "time"

// Cluster is GET /1.0/cluster.
type Cluster struct {
	ServerName string `json:"server_name" yaml:"server_name"`
	Enabled    bool   `json:"enabled" yaml:"enabled"`
	// MemberConfig lists the member-specific keys that a joiner must give; never null.
	MemberConfig []ClusterMemberConfigKey `json:"member_config" yaml:"member_config"`
}

// ClusterMemberConfigKey is one member-specific key of a pool or network.
type ClusterMemberConfigKey struct {
	Entity      string `json:"entity" yaml:"entity"`
	Name        string `json:"name" yaml:"name"`
	Key         string `json:"key" yaml:"key"`
	Value       string `json:"value" yaml:"value"`
	Description string `json:"description" yaml:"description"`
}

// ClusterPut is PUT /1.0/cluster: bootstrap, join, or disable.
type ClusterPut struct {
	Cluster `yaml:",inline"`
	// ClusterAddress is an existing member's address. Not empty selects a join.
	ClusterAddress string `json:"cluster_address" yaml:"cluster_address"`
	// ClusterCertificate is the PEM of the certificate that the cluster must show.
	ClusterCertificate string `json:"cluster_certificate" yaml:"cluster_certificate"`
	// ServerAddress is the address under which others reach this server.
	ServerAddress string `json:"server_address" yaml:"server_address"`
	// ClusterToken is the text of a join token.
	ClusterToken string `json:"cluster_token" yaml:"cluster_token"`
	// ClusterCertificatePath is read by the command line and replaces ClusterCertificate.
	ClusterCertificatePath string `json:"-" yaml:"cluster_certificate_path,omitempty"`
	// ClusterPassword is the cluster's trust password, where there is no token. It is not upstream's.
	ClusterPassword string `json:"cluster_password,omitempty" yaml:"cluster_password,omitempty"`
}

// ClusterMembersPost is POST /1.0/cluster/members: ask for a join token.
type ClusterMembersPost struct {
	ServerName string `json:"server_name" yaml:"server_name"`
	// Replace asks for a token that admits a new server in place of the member of that name,
	// which is offline. It is not upstream's.
	Replace bool `json:"replace,omitempty" yaml:"replace,omitempty"`
}

// ClusterMemberPost is POST /1.0/cluster/members/NAME: rename.
type ClusterMemberPost struct {
	ServerName string `json:"server_name" yaml:"server_name"`
}

// ClusterAddressPut is PUT /internal/cluster/address: a member moves. It is not upstream's.
type ClusterAddressPut struct {
	// Address is host:port; the port may be left out.
	Address string `json:"address"`
	// Force takes an address that the other members do not reach yet.
	Force bool `json:"force,omitempty"`
}

// ClusterCertificatePut is PUT /1.0/cluster/certificate: PEM both.
type ClusterCertificatePut struct {
	ClusterCertificate    string `json:"cluster_certificate"`
	ClusterCertificateKey Secret `json:"cluster_certificate_key"`
}

// ServerCertificatePut is PUT /internal/server-certificate: PEM both.
type ServerCertificatePut struct {
	Certificate string `json:"certificate"`
	Key         Secret `json:"key"`
}

// ClusterMemberPut is the writable part of a member.
type ClusterMemberPut struct {
	Roles         []string  `json:"roles" yaml:"roles"`
	FailureDomain string    `json:"failure_domain" yaml:"failure_domain"`
	Description   string    `json:"description" yaml:"description"`
	Config        ConfigMap `json:"config" yaml:"config"`
	Groups        []string  `json:"groups" yaml:"groups"`
}

// ClusterMember is one member.
type ClusterMember struct {
	ClusterMemberPut `yaml:",inline"`
	ServerName       string `json:"server_name" yaml:"server_name"`
	URL              string `json:"url" yaml:"url"`
	// Database is true for the leader, voters and stand-bys.
	Database     bool   `json:"database" yaml:"database"`
	Status       string `json:"status" yaml:"status"`
	Message      string `json:"message" yaml:"message"`
	Architecture string `json:"architecture" yaml:"architecture"`
}

// Roles of a member on the wire.
const (
	RoleDatabase        = "database"
	RoleDatabaseLeader  = "database-leader"
	RoleDatabaseStandby = "database-standby"
	RoleDatabaseClient  = "database-client"
	RoleEventHub        = "event-hub"
	RoleOVNChassis      = "ovn-chassis"
)

// ClusterMemberRole is one member in GET /internal/cluster/roles: why it has its database
// role. It is not upstream's.
type ClusterMemberRole struct {
	ServerName string `json:"server_name" yaml:"server_name"`
	// Role is RoleDatabase, RoleDatabaseStandby, or empty.
	Role    string `json:"role" yaml:"role"`
	Leader  bool   `json:"leader" yaml:"leader"`
	Message string `json:"message" yaml:"message"`
}

// ClusterLeader is the body of POST /internal/cluster/transfer-leader, which moves
// leadership to Member (to any that can take it if empty), and its answer: who leads now.
// It is not upstream's.
type ClusterLeader struct {
	Member string `json:"member" yaml:"member"`
}

// ClusterMemberStatePost is POST /1.0/cluster/members/NAME/state: evacuate or restore.
type ClusterMemberStatePost struct {
	Action string `json:"action" yaml:"action"`
	Mode   string `json:"mode" yaml:"mode"`
}

// ClusterMemberState is GET /1.0/cluster/members/NAME/state.
type ClusterMemberState struct {
	SysInfo      ClusterMemberSysInfo            `json:"sysinfo" yaml:"sysinfo"`
	StoragePools map[string]ResourcesStoragePool `json:"storage_pools" yaml:"storage_pools"`
}

// ClusterMemberSysInfo is a member's sysinfo(2). RAM and swap are bytes, uptime is seconds.
type ClusterMemberSysInfo struct {
	Uptime       int64     `json:"uptime" yaml:"uptime"`
	LoadAverages []float64 `json:"load_averages" yaml:"load_averages"`
	TotalRAM     uint64    `json:"total_ram" yaml:"total_ram"`
	FreeRAM      uint64    `json:"free_ram" yaml:"free_ram"`
	SharedRAM    uint64    `json:"shared_ram" yaml:"shared_ram"`
	BufferRAM    uint64    `json:"buffered_ram" yaml:"buffered_ram"`
	TotalSwap    uint64    `json:"total_swap" yaml:"total_swap"`
	FreeSwap     uint64    `json:"free_swap" yaml:"free_swap"`
	Processes    uint16    `json:"processes" yaml:"processes"`
}

// ClusterGroupPut is the writable part of a cluster group.
type ClusterGroupPut struct {
	Description string    `json:"description" yaml:"description"`
	Members     []string  `json:"members" yaml:"members"`
	Config      ConfigMap `json:"config" yaml:"config"`
}

// ClusterGroupsPost is POST /1.0/cluster/groups: make a cluster group.
type ClusterGroupsPost struct {
	ClusterGroupPut `yaml:",inline"`
	Name            string `json:"name" yaml:"name"`
}

// ClusterGroupPost is POST /1.0/cluster/groups/NAME: rename.
type ClusterGroupPost struct {
	Name string `json:"name" yaml:"name"`
}

// ClusterGroup is a named set of members.
type ClusterGroup struct {
	ClusterGroupPut `yaml:",inline"`
	Name            string   `json:"name" yaml:"name"`
	UsedBy          []string `json:"used_by" yaml:"used_by"`
}

// ClusterMemberJoinToken is what a join token says: base64 of this object's JSON.
type ClusterMemberJoinToken struct {
	ServerName  string   `json:"server_name" yaml:"server_name"`
	Fingerprint string   `json:"fingerprint" yaml:"fingerprint"`
	Addresses   []string `json:"addresses" yaml:"addresses"`
	Secret      string   `json:"secret" yaml:"secret"`
	// ExpiresAt is zero in tokens of old servers; the server decides, not the text.
	ExpiresAt time.Time `json:"expires_at" yaml:"expires_at"`
}

// ClusterDatabase is GET /internal/cluster/database: a member's copy of the replicated state. It
// is not upstream's.
type ClusterDatabase struct {
	// LastIndex is that of the last entry of the copy's log.
	LastIndex uint64                  `json:"last_index" yaml:"last_index"`
	Members   []ClusterDatabaseMember `json:"members" yaml:"members"`
}

// ClusterDatabaseMember is one member as incusd cluster show lists it.
type ClusterDatabaseMember struct {
	ID      int    `json:"id" yaml:"id"`
	Name    string `json:"name" yaml:"name"`
	Address string `json:"address" yaml:"address"`
	// Role is voter, stand-by or spare.
	Role string `json:"role" yaml:"role"`
}

// ClusterRestored is the answer of PUT /internal/cluster/restore. It is not upstream's.
type ClusterRestored struct {
	// ServerName and Address are this server's in the restored cluster; "none" and empty for a
	// standalone server.
	ServerName string `json:"server_name"`
	Address    string `json:"address"`
	// Index is that of the last change in the backup, CreatedAt when it was made.
	Index     uint64    `json:"index"`
	CreatedAt time.Time `json:"created_at"`
	// Forgotten are the former members that are not part of the restored cluster.
	Forgotten []string `json:"forgotten"`
	// RevokedTokens are the names for which there was a live join token: it may have been used or
	// revoked after the backup.
	RevokedTokens []string `json:"revoked_tokens"`
	// Certificates are trusted again; some may have been removed after the backup.
	Certificates []RestoredCertificate `json:"certificates"`
}

// RestoredCertificate is a client's that a restored cluster trusts.
type RestoredCertificate struct {
	Fingerprint string `json:"fingerprint"`
	Name        string `json:"name"`
	Type        string `json:"type"`
}

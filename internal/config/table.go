package config

import "time"

const (
	noOIDC          = "OpenID Connect is not supported yet, so nobody could log in with it"
	noAuthorization = "authorization back-ends are not supported yet, so the rules would not be enforced"

	day = 24 * time.Hour

	expiryForm  = "expiry expression, such as `3H` or `1d 12H`"
	addressForm = "address or DNS name, with or without port"
	compressor  = "`bzip2`, `gzip`, `lz4`, `lzma`, `xz`, `zstd`, `none`, options may follow"
	eventTypes  = "comma list of `lifecycle`, `logging`, `network-acl`"
)

var eventTypesRule = listOf(oneOf("lifecycle", "logging", "network-acl"))

// table is the schema. Rows stand by scope and then by what they are about; first
// those that do something here.
var table = []Key{
	// One member's own.
	{Name: "cluster.https_address", Scope: Local, Doc: "Address under which other members reach this one; fixed once the server is clustered", Values: addressForm + ", no wildcard", Validate: listen(AddressOptions{AllowDNS: true})},
	{Name: "core.https_address", Scope: Local, Doc: "Address that the API listens on (HTTPS), default port 8443; takes effect at once", Values: addressForm + ", wildcard allowed", Validate: anyListener},

	{Name: "core.bgp_address", Scope: Local, Doc: "Address of the BGP server, default port 179", Values: addressForm, Validate: anyListener, Stored: true},
	{Name: "core.bgp_routerid", Scope: Local, Doc: "Identifier of the BGP server", Values: "IPv4 address", Validate: ipv4Rule, Stored: true},
	{Name: "core.debug_address", Scope: Local, Doc: "Address of the pprof server (HTTP), default port 8080", Values: addressForm, Validate: anyListener, Stored: true},
	{Name: "core.dns_address", Scope: Local, Doc: "Address of the DNS server, default port 53", Values: addressForm, Validate: anyListener, Stored: true},
	{Name: "core.metrics_address", Scope: Local, Doc: "Address of the metrics server (HTTPS), default port 9100", Values: addressForm, Validate: anyListener},
	{Name: "core.storage_buckets_address", Scope: Local, Doc: "Address of the storage object server (HTTPS), default port 9000", Values: addressForm, Validate: anyListener, Stored: true},
	{Name: "core.syslog_socket", Scope: Local, Type: Bool, Default: "false", Doc: "Whether to take log messages of other programs on a unix socket", Stored: true},
	{Name: "network.ovs.connection", Scope: Local, Default: "unix:/run/openvswitch/db.sock", Doc: "Socket of Open vSwitch", Stored: true},
	{Name: "storage.backups_volume", Scope: Local, Doc: "Volume for backups", Values: "`POOL/VOLUME`", Validate: volumeRule, Stored: true},
	{Name: "storage.images_volume", Scope: Local, Doc: "Volume for images", Values: "`POOL/VOLUME`", Validate: volumeRule, Stored: true},
	{Name: "storage.linstor.satellite.name", Scope: Local, Doc: "Name of the local LINSTOR satellite, if it is not the server's", Stored: true},
	{Name: "storage.logs_volume", Scope: Local, Doc: "Volume for instances' logs", Values: "`POOL/VOLUME`", Validate: volumeRule, Stored: true},

	// The cluster itself.
	{Name: "cluster.join_token_expiry", Scope: Cluster, Default: "3H", Doc: "Time after which a join token expires; a blank means never", Values: expiryForm, Validate: expiryRule},
	{Name: "cluster.max_standby", Scope: Cluster, Type: Int, Default: "2", Doc: "How many non-voting members have the role `database-standby`", Values: "0 to 5", Validate: between(0, 5)},
	{Name: "cluster.max_voters", Scope: Cluster, Type: Int, Default: "3", Doc: "How many members vote", Values: "odd, at least 3", Validate: maxVotersRule},
	{Name: offlineThreshold, Scope: Cluster, Type: Int, Default: "20", Unit: time.Second, Doc: "Seconds without an answer after which a member is offline", Values: "more than 10", Validate: offlineRule},
	{Name: healingThreshold, Scope: Cluster, Type: Int, Default: "0", Unit: time.Second, Doc: "Seconds after which an offline member is evacuated, at least the offline threshold; 0 means never", Values: "0 or more", Validate: atMost(time.Second)},
	{Name: "cluster.images_minimal_replica", Scope: Cluster, Type: Int, Default: "3", Doc: "How many members keep a copy of an image; -1 means all", Values: "at least 1, or -1", Validate: imageReplicaRule, Stored: true},
	{Name: "cluster.rebalance.batch", Scope: Cluster, Type: Int, Default: "1", Doc: "How many instances one rebalancing moves at most", Values: "0 or more", Validate: between(0, 1_000_000), Stored: true},
	{Name: "cluster.rebalance.cooldown", Scope: Cluster, Default: "6H", Doc: "Time during which an instance is not moved again", Values: expiryForm, Validate: expiryRule, Stored: true},
	{Name: "cluster.rebalance.interval", Scope: Cluster, Type: Int, Default: "0", Unit: time.Minute, Doc: "Minutes between two looks at the load; 0 means never", Values: "0 or more", Validate: atMost(time.Minute), Stored: true},
	{Name: "cluster.rebalance.threshold", Scope: Cluster, Type: Int, Default: "20", Doc: "Difference of load, in percent, from which instances are moved", Values: "10 to 100", Validate: between(10, 100), Stored: true},

	// The API.
	{Name: "core.https_allowed_credentials", Scope: Cluster, Type: Bool, Default: "false", Doc: "Whether the header `Access-Control-Allow-Credentials` is sent"},
	{Name: "core.https_allowed_headers", Scope: Cluster, Doc: "Value of the header `Access-Control-Allow-Headers`", Validate: headerRule},
	{Name: "core.https_allowed_methods", Scope: Cluster, Doc: "Value of the header `Access-Control-Allow-Methods`", Validate: headerRule},
	{Name: "core.https_allowed_origin", Scope: Cluster, Doc: "Value of the header `Access-Control-Allow-Origin`", Validate: headerRule},
	{Name: "core.https_allowed_websocket_origin", Scope: Cluster, Doc: "Origins from which browsers may open WebSockets", Values: "comma list of origins", Validate: headerRule},
	{Name: "core.shutdown_timeout", Scope: Cluster, Type: Int, Default: "5", Unit: time.Minute, Doc: "Minutes that a daemon which ends waits for its operations", Values: "0 or more", Validate: atMost(time.Minute)},
	{Name: "core.bgp_asn", Scope: Cluster, Type: Int, Default: "0", Doc: "BGP autonomous system number", Values: "0 to 4294967294", Validate: between(0, 4294967294), Stored: true},
	{Name: "core.https_trusted_proxy", Scope: Cluster, Doc: "Proxies that may tell a client's address", Values: "comma list of IP addresses"},
	{Name: "core.metrics_authentication", Scope: Cluster, Type: Bool, Default: "true", Doc: "Whether metrics are for trusted callers only"},
	{Name: "core.proxy_http", Scope: Cluster, Doc: "Proxy for HTTP; members never talk to each other through it", Stored: true},
	{Name: "core.proxy_https", Scope: Cluster, Doc: "Proxy for HTTPS; members never talk to each other through it", Stored: true},
	{Name: "core.proxy_ignore_hosts", Scope: Cluster, Doc: "Hosts that need no proxy", Values: "comma list", Stored: true},
	{Name: "core.remote_token_expiry", Scope: Cluster, Doc: "Time after which a certificate add token expires; unset means never", Values: expiryForm, Validate: expiryRule},
	{Name: "core.shutdown_action", Scope: Cluster, Default: "shutdown", Doc: "What happens to instances when the server shuts down", Values: "`shutdown` or `evacuate`", Validate: oneOf("shutdown", "evacuate"), Stored: true},
	{Name: "core.trust_password", Scope: Cluster, Doc: "Password with which servers may join without a token; stored as a hash, shown as `true`", Values: "text of one line, at most 256 bytes", Validate: passwordRule, Secret: true, Hashed: true},
	{Name: "core.trust_ca_certificates", Scope: Cluster, Type: Bool, Default: "false", Doc: "Whether clients are trusted whose certificate is for clients only and signed by the CA in `server.ca`"},

	// Users' own.
	{Name: userPrefix + "*", Scope: Cluster, Doc: "Free for users; `user.ui.*` can be read by anyone who can reach the API"},

	// Who may do what.
	{Name: "authorization.client.*", Scope: Cluster, Doc: "Authorization for a kind of client: `default`, `unix`, `tls`, `tls-restricted`, `oidc`", Refused: noAuthorization},
	{Name: "authorization.openfga.api.token", Scope: Cluster, Doc: "Token of the OpenFGA server", Refused: noAuthorization, Secret: true},
	{Name: "authorization.openfga.api.url", Scope: Cluster, Doc: "URL of the OpenFGA server", Refused: noAuthorization},
	{Name: "authorization.openfga.store.id", Scope: Cluster, Doc: "Identifier of the OpenFGA store", Refused: noAuthorization},
	{Name: "authorization.openfga.tls.identifier", Scope: Cluster, Default: "name", Doc: "How OpenFGA is told of a TLS client", Refused: noAuthorization},
	{Name: "authorization.scriptlet", Scope: Cluster, Doc: "Authorization scriptlet", Refused: noAuthorization},
	{Name: "oidc.audience", Scope: Cluster, Doc: "Audience that OpenID Connect tokens must have", Refused: noOIDC},
	{Name: "oidc.claim", Scope: Cluster, Doc: "OpenID Connect claim that is the user's name", Refused: noOIDC},
	{Name: "oidc.client.id", Scope: Cluster, Doc: "OpenID Connect client", Refused: noOIDC},
	{Name: "oidc.issuer", Scope: Cluster, Doc: "OpenID Connect provider", Refused: noOIDC},
	{Name: "oidc.scopes", Scope: Cluster, Default: "openid, offline_access", Doc: "OpenID Connect scopes", Refused: noOIDC},

	// Kept for compatibility.
	{Name: "acme.agree_tos", Scope: Cluster, Type: Bool, Default: "false", Doc: "Whether to agree to the terms of the ACME service", Stored: true},
	{Name: "acme.ca_url", Scope: Cluster, Default: "https://acme-v02.api.letsencrypt.org/directory", Doc: "Directory of the ACME service", Stored: true},
	{Name: "acme.challenge", Scope: Cluster, Default: "HTTP-01", Doc: "ACME challenge", Values: "`DNS-01` or `HTTP-01`", Validate: oneOf("DNS-01", "HTTP-01"), Stored: true},
	{Name: "acme.domain", Scope: Cluster, Doc: "Domain of the certificate", Stored: true},
	{Name: "acme.eab.hmac", Scope: Cluster, Doc: "Key for binding to an external ACME account", Stored: true, Secret: true},
	{Name: "acme.eab.kid", Scope: Cluster, Doc: "Identifier of an external ACME account", Stored: true},
	{Name: "acme.email", Scope: Cluster, Doc: "Address for the ACME account", Stored: true},
	{Name: "acme.http.port", Scope: Cluster, Default: ":80", Doc: "Address that answers the challenge HTTP-01", Values: addressForm, Validate: anyListener, Stored: true},
	{Name: "acme.provider", Scope: Cluster, Doc: "Provider for the challenge DNS-01", Stored: true},
	{Name: "acme.provider.environment", Scope: Cluster, Doc: "Environment for the challenge DNS-01, one `NAME=value` a line", Stored: true, Secret: true},
	{Name: "acme.provider.resolvers", Scope: Cluster, Doc: "DNS resolvers for the challenge DNS-01", Values: "comma list", Stored: true},
	{Name: "backups.compression_algorithm", Scope: Cluster, Default: "gzip", Doc: "Compression of backups", Values: compressor, Validate: compressorRule, Stored: true},
	{Name: "images.auto_update_cached", Scope: Cluster, Type: Bool, Default: "true", Doc: "Whether cached images are kept up to date", Stored: true},
	{Name: "images.auto_update_interval", Scope: Cluster, Type: Int, Default: "6", Unit: time.Hour, Doc: "Hours between two looks for newer images; 0 means never", Values: "0 or more", Validate: atMost(time.Hour), Stored: true},
	{Name: "images.compression_algorithm", Scope: Cluster, Default: "gzip", Doc: "Compression of new images", Values: compressor, Validate: compressorRule, Stored: true},
	{Name: "images.default_architecture", Scope: Cluster, Doc: "Architecture that is meant where members have several", Values: "such as `x86_64` or `aarch64`", Validate: oneOf(architectures...), Stored: true},
	{Name: "images.remote_cache_expiry", Scope: Cluster, Type: Int, Default: "10", Unit: day, Doc: "Days after which an unused cached image goes", Values: "0 or more", Validate: atMost(day), Stored: true},
	{Name: "instances.lxcfs.per_instance", Scope: Cluster, Type: Bool, Default: "false", Doc: "Whether each instance has an LXCFS of its own", Stored: true},
	{Name: "instances.nic.host_name", Scope: Cluster, Default: "random", Doc: "How network interfaces on the host are named", Values: "`random` or `mac`", Validate: oneOf("random", "mac"), Stored: true},
	{Name: "instances.placement.scriptlet", Scope: Cluster, Doc: "Scriptlet that places instances", Stored: true},
	{Name: "instances.tpm.platform_cert", Scope: Cluster, Doc: "Certificate for new TPM devices", Values: "PEM", Stored: true},
	{Name: "instances.tpm.platform_key", Scope: Cluster, Doc: "Private key of that certificate", Values: "PEM", Stored: true, Secret: true},
	{Name: "logging.*.lifecycle.projects", Scope: Cluster, Doc: "Projects of which a logger gets lifecycle events", Values: "comma list", Stored: true},
	{Name: "logging.*.lifecycle.types", Scope: Cluster, Doc: "Kinds of lifecycle events that a logger gets", Values: "comma list", Stored: true},
	{Name: "logging.*.logging.level", Scope: Cluster, Doc: "Lowest level that a logger gets", Values: "`debug`, `info`, `warning`, `error`", Validate: oneOf("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"), Stored: true},
	{Name: "logging.*.target.*", Scope: Cluster, Doc: "Where a logger sends to: `type`, `address`, `username`, `password`, `ca_cert`, `instance`, `labels`, `facility`, `retry`", Stored: true, Secret: true},
	{Name: "logging.*.types", Scope: Cluster, Doc: "Events that a logger gets", Values: eventTypes, Validate: eventTypesRule, Stored: true},
	{Name: "loki.api.ca_cert", Scope: Cluster, Doc: "Deprecated: `logging.*.target.ca_cert`", Stored: true},
	{Name: "loki.api.url", Scope: Cluster, Doc: "Deprecated: `logging.*.target.address`", Stored: true},
	{Name: "loki.auth.password", Scope: Cluster, Doc: "Deprecated: `logging.*.target.password`", Stored: true, Secret: true},
	{Name: "loki.auth.username", Scope: Cluster, Doc: "Deprecated: `logging.*.target.username`", Stored: true},
	{Name: "loki.instance", Scope: Cluster, Doc: "Deprecated: `logging.*.target.instance`", Stored: true},
	{Name: "loki.labels", Scope: Cluster, Doc: "Deprecated: `logging.*.target.labels`", Stored: true},
	{Name: "loki.loglevel", Scope: Cluster, Default: "info", Doc: "Deprecated: `logging.*.logging.level`", Stored: true},
	{Name: "loki.types", Scope: Cluster, Default: "lifecycle,logging", Doc: "Deprecated: `logging.*.types`", Values: eventTypes, Validate: eventTypesRule, Stored: true},
	{Name: "network.hwaddr_pattern", Scope: Cluster, Default: "10:66:6a:xx:xx:xx", Doc: "MAC addresses of new interfaces; each x is a random digit", Values: "MAC address with x", Validate: macPatternRule, Stored: true},
	{Name: "network.ovn.ca_cert", Scope: Cluster, Doc: "Certificate authority of OVN", Values: "PEM", Stored: true},
	{Name: "network.ovn.client_cert", Scope: Cluster, Doc: "Client certificate for OVN", Values: "PEM", Stored: true},
	{Name: "network.ovn.client_key", Scope: Cluster, Doc: "Private key of that certificate", Values: "PEM", Stored: true, Secret: true},
	{Name: "network.ovn.integration_bridge", Scope: Cluster, Default: "br-int", Doc: "Bridge for OVN networks", Stored: true},
	{Name: "network.ovn.northbound_connection", Scope: Cluster, Default: "unix:/run/ovn/ovnnb_db.sock", Doc: "Northbound database of OVN", Stored: true},
	{Name: "storage.linstor.ca_cert", Scope: Cluster, Doc: "Certificate authority of LINSTOR", Values: "PEM", Stored: true},
	{Name: "storage.linstor.client_cert", Scope: Cluster, Doc: "Client certificate for LINSTOR", Values: "PEM", Stored: true},
	{Name: "storage.linstor.client_key", Scope: Cluster, Doc: "Private key of that certificate", Values: "PEM", Stored: true, Secret: true},
	{Name: "storage.linstor.controller_connection", Scope: Cluster, Doc: "Controllers of LINSTOR", Stored: true},
}

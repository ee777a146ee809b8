package config

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheTableIsConsistent(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range table {
		if seen[k.Name] {
			t.Errorf("%s is there twice", k.Name)
		}
		seen[k.Name] = true
		if k.Doc == "" || strings.HasSuffix(k.Doc, ".") || strings.ContainsAny(k.Doc+k.Values+k.Refused, "|\n") {
			t.Errorf("%s: %q is no line of documentation", k.Name, k.Doc)
		}
		if k.Default != "" {
			if got, err := k.normalize(k.Default); err != nil || got != k.Default {
				t.Errorf("%s: the default %q is not normalized: %q, %v", k.Name, k.Default, got, err)
			}
			if k.Validate != nil && k.Validate(k.Default) != nil {
				t.Errorf("%s: the default %q is refused: %v", k.Name, k.Default, k.Validate(k.Default))
			}
		}
		if k.Type != String && k.Default == "" {
			t.Errorf("%s: a %s without default", k.Name, k.Type)
		}
		if k.Stored && k.Refused != "" {
			t.Errorf("%s is stored and refused", k.Name)
		}
		if found, ok := Lookup(k.Name); !ok || found.Name != k.Name {
			t.Errorf("%s is not found by its name, but as %q", k.Name, found.Name)
		}
	}
	if keys := Keys(); len(keys) != len(table) || !slices.IsSortedFunc(keys, func(a, b Key) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("Keys is not the table, sorted")
	}
	Keys()[0].Name = "changed"
	if Keys()[0].Name == "changed" {
		t.Error("Keys returns the table itself")
	}
}

// What the protocol lists, by scope; one name for each pattern.
func TestEveryKeyOfTheProtocolIsThere(t *testing.T) {
	local := `core.https_address cluster.https_address core.metrics_address core.debug_address core.dns_address core.bgp_address
		core.storage_buckets_address core.bgp_routerid core.syslog_socket network.ovs.connection storage.backups_volume
		storage.images_volume storage.logs_volume storage.linstor.satellite.name`
	cluster := `cluster.join_token_expiry cluster.max_voters cluster.max_standby cluster.offline_threshold cluster.healing_threshold
		cluster.images_minimal_replica cluster.rebalance.interval cluster.rebalance.batch cluster.rebalance.cooldown
		cluster.rebalance.threshold core.https_allowed_headers core.https_allowed_methods core.https_allowed_origin
		core.https_allowed_credentials core.https_allowed_websocket_origin core.https_trusted_proxy core.metrics_authentication
		core.proxy_http core.proxy_https core.proxy_ignore_hosts core.remote_token_expiry core.shutdown_action core.shutdown_timeout
		core.trust_ca_certificates core.bgp_asn backups.compression_algorithm images.compression_algorithm images.auto_update_cached
		images.auto_update_interval images.default_architecture images.remote_cache_expiry instances.lxcfs.per_instance
		instances.nic.host_name instances.placement.scriptlet instances.tpm.platform_cert instances.tpm.platform_key
		acme.agree_tos acme.ca_url acme.challenge acme.domain acme.email acme.eab.kid acme.eab.hmac acme.http.port acme.provider
		acme.provider.environment acme.provider.resolvers oidc.issuer oidc.client.id oidc.scopes oidc.audience oidc.claim
		authorization.client.default authorization.client.tls-restricted authorization.openfga.api.url authorization.openfga.api.token
		authorization.openfga.store.id authorization.openfga.tls.identifier authorization.scriptlet logging.x.target.address
		logging.x.target.type logging.x.types logging.x.logging.level logging.x.lifecycle.types logging.x.lifecycle.projects
		loki.api.url loki.types network.hwaddr_pattern network.ovn.ca_cert network.ovn.northbound_connection
		storage.linstor.controller_connection user.x user.a.b.c user.ui.title`
	for want, names := range map[Scope]string{Local: local, Cluster: cluster} {
		for _, name := range strings.Fields(names) {
			if scope, ok := ScopeOf(name); !ok || scope != want {
				t.Errorf("%s: got %s, %t, want %s", name, scope, ok, want)
			}
		}
	}
	for _, name := range []string{"", "core", "core.nokey", "core.https_address.x", "user", "users.x", "logging.types", "logging.x.y", "logging..types", "logging.x.types.y", "logging.x.target", "logging.x.target."} {
		if k, ok := Lookup(name); ok {
			t.Errorf("%q is taken for %s", name, k.Name)
		}
	}
}

func TestSplitGoesByScope(t *testing.T) {
	local, cluster := Split(map[string]string{"core.https_address": ":8443", "cluster.max_voters": "", "user.x": "1", "nokey": "2"})
	if !maps.Equal(local, map[string]string{"core.https_address": ":8443"}) || !maps.Equal(cluster, map[string]string{"cluster.max_voters": "", "user.x": "1", "nokey": "2"}) {
		t.Errorf("got %v and %v", local, cluster)
	}
	if local, cluster := Split(nil); local == nil || cluster == nil {
		t.Error("nil maps")
	}
}

func TestVisibleLeavesOutDefaultsAndUnknownKeys(t *testing.T) {
	values := map[string]string{"cluster.max_voters": "3", "cluster.max_standby": "1", "nokey": "x", "user.x": "", "user.y": "1", "core.https_address": ":8443"}
	want := map[string]string{"cluster.max_standby": "1", "user.y": "1", "core.https_address": ":8443"}
	if got := Visible(values); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(values) != 6 {
		t.Error("the argument was changed")
	}
}

func TestGetFallsBackToDefaults(t *testing.T) {
	values := map[string]string{"cluster.max_voters": "5", "core.metrics_authentication": "false", "cluster.max_standby": "many", "core.https_allowed_credentials": "perhaps", "core.shutdown_timeout": "9223372036854775807"}
	if got := Get(values, "cluster.max_voters"); got != "5" {
		t.Errorf("set: %q", got)
	}
	if got := Get(values, "cluster.join_token_expiry"); got != "3H" {
		t.Errorf("default: %q", got)
	}
	if got := Get(values, "core.https_address") + Get(values, "nokey"); got != "" {
		t.Errorf("without default: %q", got)
	}
	if got := GetInt(values, "cluster.max_voters"); got != 5 {
		t.Errorf("integer: %d", got)
	}
	if got := GetInt(values, "cluster.max_standby"); got != 2 {
		t.Errorf("no integer: %d", got)
	}
	if got := GetInt(nil, "nokey"); got != 0 {
		t.Errorf("unknown integer: %d", got)
	}
	if GetBool(values, "core.metrics_authentication") || !GetBool(nil, "core.metrics_authentication") || GetBool(values, "core.https_allowed_credentials") || GetBool(nil, "nokey") {
		t.Error("booleans")
	}
	if got := GetDuration(values, "cluster.offline_threshold"); got != 20*time.Second {
		t.Errorf("duration: %s", got)
	}
	if got := GetDuration(values, "core.shutdown_timeout"); got < 0 || got > longest {
		t.Errorf("an endless time became %s", got)
	}
	if got := GetDuration(values, "nokey") + GetDuration(values, "cluster.max_voters"); got != 0 {
		t.Errorf("no time: %s", got)
	}
}

func TestHealingThresholdIsNeverBelowTheOfflineThreshold(t *testing.T) {
	for _, test := range []struct{ healing, offline, want string }{
		{"", "", "0"}, {"0", "60", "0"}, {"15", "", "20"}, {"15", "60", "60"}, {"90", "60", "90"}, {"60", "60", "60"},
	} {
		values := map[string]string{"cluster.healing_threshold": test.healing, "cluster.offline_threshold": test.offline}
		if got := Get(values, "cluster.healing_threshold"); got != test.want {
			t.Errorf("healing %q, offline %q: got %s, want %s", test.healing, test.offline, got, test.want)
		}
	}
	values := map[string]string{"cluster.healing_threshold": "15"}
	if got := GetDuration(values, "cluster.healing_threshold"); got != 20*time.Second {
		t.Errorf("duration %s", got)
	}
}

func TestNoRuleLetsATimeOverflow(t *testing.T) {
	for _, k := range table {
		if k.Unit == 0 {
			continue
		}
		if k.Validate == nil || k.Validate("9223372036854775807") == nil {
			t.Errorf("%s can be larger than any duration", k.Name)
		}
		if int64(longest/k.Unit) > math.MaxInt64/int64(k.Unit) {
			t.Errorf("%s: %d units overflow", k.Name, maxUnits(k.Unit))
		}
	}
}

package config

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"incusd/api"
)

func TestValidateNormalizesAndJudges(t *testing.T) {
	long := strings.Repeat("9", 30)
	for _, test := range []struct{ key, value, want, wantErr string }{
		{key: "core.nokey", value: "1", wantErr: "unknown key"},
		{key: "core.nokey", value: "", wantErr: "unknown key"},
		{key: "cluster.max_voters", value: "", want: ""},
		{key: "oidc.issuer", value: "", want: ""},
		// Types.
		{key: "core.metrics_authentication", value: "OFF", want: "false"},
		{key: "core.https_allowed_credentials", value: "Yes", want: "true"},
		{key: "core.https_allowed_credentials", value: "1", want: "true"},
		{key: "core.https_allowed_credentials", value: "si", wantErr: "invalid boolean"},
		{key: "cluster.max_voters", value: "05", want: "5"},
		{key: "cluster.max_voters", value: "3.0", wantErr: "invalid integer"},
		{key: "cluster.max_voters", value: "0x3", wantErr: "invalid integer"},
		{key: "cluster.max_voters", value: long, wantErr: "invalid integer"},
		// Rules with the protocol's texts.
		{key: "cluster.max_voters", value: "4", wantErr: "Value must be an odd number equal to or higher than 3"},
		{key: "cluster.max_voters", value: "1", wantErr: "Value must be an odd number equal to or higher than 3"},
		{key: "cluster.max_standby", value: "0", want: "0"},
		{key: "cluster.max_standby", value: "6", wantErr: "Value must be between 0 and 5"},
		{key: "cluster.max_standby", value: "-1", wantErr: "Value must be between 0 and 5"},
		{key: "cluster.offline_threshold", value: "11", want: "11"},
		{key: "cluster.offline_threshold", value: "10", wantErr: "Value must be greater than '10'"},
		{key: "cluster.images_minimal_replica", value: "-1", want: "-1"},
		{key: "cluster.images_minimal_replica", value: "0", wantErr: "Invalid value for image replica count"},
		{key: "cluster.rebalance.threshold", value: "9", wantErr: "Value must be between 10 and 100"},
		{key: "cluster.join_token_expiry", value: "5sec", wantErr: "Invalid expiry expression"},
		{key: "cluster.join_token_expiry", value: "1d 12H", want: "1d 12H"},
		{key: "core.bgp_asn", value: "4294967295", wantErr: "Value must be between 0 and 4294967294"},
		{key: "core.shutdown_action", value: "halt", wantErr: "Value must be one of shutdown, evacuate"},
		{key: "core.bgp_routerid", value: "::1", wantErr: `Not an IPv4 address "::1"`},
		{key: "core.bgp_routerid", value: "10.0.0.1", want: "10.0.0.1"},
		{key: "network.hwaddr_pattern", value: "10:66:6A:xx:xx:xx", want: "10:66:6A:xx:xx:xx"},
		{key: "network.hwaddr_pattern", value: "10:66", wantErr: "Value must be a MAC address in which x stands for any digit"},
		{key: "images.compression_algorithm", value: "zstd -19", want: "zstd -19"},
		{key: "images.compression_algorithm", value: "rar", wantErr: "Value must be one of bzip2, gzip, lz4, lzma, none, pigz, pzstd, squashfs, tar2sqfs, xz, zstd"},
		{key: "images.compression_algorithm", value: " ", wantErr: "Value must be one of bzip2, gzip, lz4, lzma, none, pigz, pzstd, squashfs, tar2sqfs, xz, zstd"},
		{key: "images.default_architecture", value: "x86_64", want: "x86_64"},
		{key: "storage.images_volume", value: "pool/volume", want: "pool/volume"},
		{key: "storage.images_volume", value: "pool", wantErr: "Value must have the form POOL/VOLUME"},
		{key: "logging.a.types", value: "logging, lifecycle", want: "logging, lifecycle"},
		{key: "logging.a.types", value: "logging,x", wantErr: "Value must be one of lifecycle, logging, network-acl"},
		{key: "core.https_allowed_origin", value: "a\r\nX: y", wantErr: "Value cannot contain control characters"},
		// Addresses.
		{key: "core.https_address", value: "[::]:8443", want: "[::]:8443"},
		{key: "cluster.https_address", value: "[::]:8443", wantErr: "Wildcard addresses aren't allowed"},
		{key: "cluster.https_address", value: "node1.example:8443", want: "node1.example:8443"},
		{key: "core.metrics_address", value: "10.0.0.1:x", wantErr: `Invalid port "x"`},
		// Users' keys.
		{key: "user.x", value: " any\nthing ", want: " any\nthing "},
		{key: "user.größe-1_a.b/c", value: "1", want: "1"},
		{key: "user.a b", value: "1", wantErr: "Invalid key name"},
		{key: "user.a=b", value: "1", wantErr: "Invalid key name"},
		{key: "user.", value: "1", wantErr: "Invalid key name"},
		// What promises security that is not given.
		{key: "oidc.issuer", value: "https://x", wantErr: noOIDC},
		{key: "oidc.scopes", value: "openid, offline_access", want: "openid, offline_access"},
		{key: "authorization.client.tls", value: "allow", wantErr: noAuthorization},
		{key: "authorization.scriptlet", value: "x", wantErr: noAuthorization},
		{key: "core.trust_ca_certificates", value: "yes", want: "true"},
		{key: "core.trust_ca_certificates", value: "no", want: "false"},
		{key: "core.trust_ca_certificates", value: "maybe", wantErr: "invalid boolean"},
	} {
		got, err := Validate(nil, map[string]string{test.key: test.value})
		if test.wantErr == "" {
			if err != nil || !maps.Equal(got, map[string]string{test.key: test.want}) {
				t.Errorf("%s=%s: got %q, %v, want %q", test.key, test.value, got, err, test.want)
			}
			continue
		}
		want := "cannot set '" + test.key + "' to '" + test.value + "': " + test.wantErr
		if !errors.Is(err, api.ConfigInvalid) || err.Error() != want || got != nil {
			t.Errorf("%s=%s: got %v, want %s", test.key, test.value, err, want)
		}
	}
}

func TestValidateNamesTheFirstMistakeAndCountsTheOthers(t *testing.T) {
	_, err := Validate(nil, map[string]string{
		"user.x": "1", "cluster.max_voters": "4", "zzz": "1", "cluster.max_standby": "9", "core.https_address": ":8443",
	})
	want := "cannot set 'cluster.max_standby' to '9': Value must be between 0 and 5 (and 2 more errors)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if status := api.AsError(err).Status(); status != 400 {
		t.Errorf("status %d", status)
	}
}

func TestRefusedKeysSayWhereToLookAndKeepSecrets(t *testing.T) {
	_, err := Validate(nil, map[string]string{"authorization.openfga.api.token": "s3cret"})
	want := "cannot set 'authorization.openfga.api.token' to '[redacted]': " + noAuthorization
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if hint := api.AsError(err).NextStep(); !strings.Contains(hint, "docs/compatibility.md") {
		t.Errorf("hint %q", hint)
	}
}

func TestValidateLeavesAloneWhatDoesNotChange(t *testing.T) {
	// As an older or newer version may have left them.
	current := map[string]string{"gone.key": "x", "cluster.max_voters": "4", "user.x": "1"}
	got, err := Validate(current, map[string]string{"gone.key": "x", "cluster.max_voters": "4", "user.y": "2"})
	if err != nil || !maps.Equal(got, map[string]string{"gone.key": "x", "cluster.max_voters": "4", "user.y": "2"}) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err = Validate(current, map[string]string{"gone.key": ""}); err != nil || got["gone.key"] != "" {
		t.Errorf("unsetting an unknown key: %v, %v", got, err)
	}
	if _, err = Validate(current, map[string]string{"gone.key": "y"}); err == nil {
		t.Error("an unknown key was changed")
	}
	if _, err = Validate(current, map[string]string{"cluster.max_voters": "6"}); err == nil {
		t.Error("a wrong value was replaced by another")
	}
}

func TestValidateTwiceIsValidateOnce(t *testing.T) {
	changes := map[string]string{"core.syslog_socket": "on", "cluster.max_voters": "+07", "user.x": "On", "cluster.max_standby": ""}
	once, err := Validate(nil, changes)
	if err != nil {
		t.Fatal(err)
	}
	twice, err := Validate(nil, once)
	if err != nil || !maps.Equal(once, twice) {
		t.Errorf("got %v after %v, %v", twice, once, err)
	}
}

func FuzzValidate(f *testing.F) {
	for _, k := range table {
		f.Add(k.Name, k.Default)
	}
	f.Add("user.\xff", "")
	f.Add("logging.x.target.y", "1y 2m")
	f.Fuzz(func(t *testing.T, key, value string) {
		once, err := Validate(nil, map[string]string{key: value})
		if err != nil {
			if !errors.Is(err, api.ConfigInvalid) {
				t.Fatalf("error without its reason: %v", err)
			}
			return
		}
		if twice, err := Validate(nil, once); err != nil || !maps.Equal(once, twice) {
			t.Fatalf("%q is not normal: %q, %v", once, twice, err)
		}
		if GetDuration(once, key) < 0 && !strings.HasPrefix(value, "-") {
			t.Fatalf("%s=%s overflows", key, value)
		}
	})
}

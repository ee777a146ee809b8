package config

import (
	"errors"
	"maps"
	"testing"
)

func TestCanonicalAddress(t *testing.T) {
	for addr, want := range map[string]string{
		"":                     "",
		"10.0.0.1":             "10.0.0.1:8443",
		"10.0.0.1:":            "10.0.0.1:8443",
		"10.0.0.1:9000":        "10.0.0.1:9000",
		"node1":                "node1:8443",
		"node1.example:1":      "node1.example:1",
		"::":                   "[::]:8443",
		"[::]":                 "[::]:8443",
		"[::]:443":             "[::]:443",
		":8443":                "[::]:8443",
		"0.0.0.0":              "0.0.0.0:8443",
		"fd00::1":              "[fd00::1]:8443",
		"FD00:0::1":            "[fd00::1]:8443",
		"[fd00::1]":            "[fd00::1]:8443",
		"[FD00::1]:1":          "[fd00::1]:1",
		"fe80::1%eth0":         "[fe80::1%eth0]:8443",
		"[::ffff:10.0.0.1]:10": "10.0.0.1:10",
	} {
		got := CanonicalAddress(addr, DefaultPort)
		if got != want {
			t.Errorf("%q: got %q, want %q", addr, got, want)
		}
		if again := CanonicalAddress(got, 1); again != got {
			t.Errorf("%q: %q became %q", addr, got, again)
		}
	}
}

func TestValidateListenAddress(t *testing.T) {
	anything := AddressOptions{AllowDNS: true, AllowWildcard: true}
	port := AddressOptions{AllowDNS: true, AllowWildcard: true, RequirePort: true}
	lost := AddressOptions{AllowDNS: true, Resolve: func(string) error { return errors.New("no such host") }}
	found := AddressOptions{AllowDNS: true, Resolve: func(string) error { return nil }}
	const noPort, noWildcard, noDNS = "A port is required as part of the address", "Wildcard addresses aren't allowed", "DNS names not allowed in address"
	for _, test := range []struct {
		addr    string
		options AddressOptions
		want    string
	}{
		{"10.0.0.1", anything, ""},
		{"10.0.0.1:8443", AddressOptions{}, ""},
		{"[fe80::1%eth0]:8443", AddressOptions{}, ""},
		{"fd00::1", AddressOptions{}, ""},
		{"10.0.0.1", port, noPort},
		{"10.0.0.1:", port, noPort},
		{"::", port, noPort},
		{"[::1]:1", port, ""},
		{"::%[", anything, `Invalid interface "[" in address`},
		{"[fe80::1%an-interface-name]:1", anything, `Invalid interface "an-interface-name" in address`},
		{":8443", anything, ""},
		{"::", anything, ""},
		{"", anything, ""},
		{":8443", AddressOptions{}, noWildcard},
		{"0.0.0.0:8443", AddressOptions{AllowDNS: true}, noWildcard},
		{"[::]", AddressOptions{}, noWildcard},
		{"0:0::0", AddressOptions{}, noWildcard},
		{"node1", AddressOptions{}, noDNS},
		{"node1.example.:8443", anything, ""},
		{"node_1", anything, ""},
		{"node1:8443", lost, `Couldn't resolve "node1"`},
		{"10.0.0.1:8443", lost, ""},
		{"node1:8443", found, ""},
		{"10.0.0.256", anything, `Couldn't resolve "10.0.0.256"`},
		{"1:2:3", anything, `Couldn't resolve "1:2:3"`},
		{"no de", anything, `Couldn't resolve "no de"`},
		{"-a", anything, `Couldn't resolve "-a"`},
		{"a..b", anything, `Couldn't resolve "a..b"`},
		{"https://node1", anything, `Invalid port "//node1"`},
		{"10.0.0.1:65536", anything, `Invalid port "65536"`},
		{"10.0.0.1:0", anything, `Invalid port "0"`},
		{"10.0.0.1:https", anything, `Invalid port "https"`},
	} {
		got := ""
		if err := ValidateListenAddress(test.addr, test.options); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%q %+v: got %q, want %q", test.addr, test.options, got, test.want)
		}
	}
}

func TestIsWildcard(t *testing.T) {
	for addr, want := range map[string]bool{"": true, ":1": true, "::": true, "[::]:1": true, "0.0.0.0": true, "0.0.0.0:1": true, "10.0.0.1": false, "::1": false, "node1:1": false} {
		if got := IsWildcard(addr); got != want {
			t.Errorf("%q: %t", addr, got)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, test := range []struct {
		listen, addr string
		want         bool
	}{
		{"10.0.0.1:8443", "10.0.0.1:8443", true},
		{"10.0.0.1", "10.0.0.1:8443", true},
		{"10.0.0.1:8443", "10.0.0.1:8444", false},
		{"10.0.0.1:8443", "10.0.0.2:8443", false},
		{":8443", "10.0.0.1:8443", true},
		{"[::]:8443", "[fd00::1]:8443", true},
		{"::", "node1", true},
		{"[::]:8443", "0.0.0.0:8443", true},
		{"[::]:8444", "10.0.0.1:8443", false},
		{"0.0.0.0:8443", "10.0.0.1:8443", true},
		{"0.0.0.0:8443", "[fd00::1]:8443", false},
		{"0.0.0.0:8443", "[::]:8443", false},
		{"0.0.0.0:8443", "node1:8443", true},
		{"10.0.0.1:8443", "[::]:8443", false},
		{"Node1:8443", "node1", true},
		{"node1:8443", "10.0.0.1:8443", false},
		{"", "10.0.0.1:8443", false},
		{":8443", "", false},
	} {
		if got := Covers(test.listen, test.addr); got != test.want {
			t.Errorf("%q covers %q: %t", test.listen, test.addr, got)
		}
	}
}

func FuzzAddress(f *testing.F) {
	for _, addr := range []string{"10.0.0.1:8443", "[::]:1", "node1", ":", "[", "[]", "%", "[::1]]:5", "fe80::1%eth0", "::%["} {
		f.Add(addr)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		if ValidateListenAddress(addr, AddressOptions{AllowDNS: true, AllowWildcard: true}) != nil || addr == "" {
			return
		}
		canonical := CanonicalAddress(addr, DefaultPort)
		if err := ValidateListenAddress(canonical, AddressOptions{AllowDNS: true, AllowWildcard: true, RequirePort: true}); err != nil {
			t.Fatalf("%q became %q: %v", addr, canonical, err)
		}
		if CanonicalAddress(canonical, 1) != canonical || !Covers(addr, canonical) || !Covers(canonical, addr) || IsWildcard(addr) != IsWildcard(canonical) {
			t.Fatalf("%q and %q are not the same", addr, canonical)
		}
	})
}

func TestMovedAddresses(t *testing.T) {
	const cluster, core, now = "cluster.https_address", "core.https_address", "10.0.0.9:8443"
	tests := []struct {
		name, cluster, core, known string
		follows                    bool
	}{
		{"the same", "10.0.0.1:8443", "10.0.0.1:8443", "10.0.0.1:8443", true},
		{"the same, in another form", "10.0.0.1:8443", "10.0.0.1", "10.0.0.1:8443", true},
		{"the one that the cluster has", "10.0.0.9:8443", "10.0.0.1:8443", "10.0.0.1:8443", true},
		{"a move that was cut off", "10.0.0.5:8443", "10.0.0.5:8443", "10.0.0.1:8443", true},
		{"never set", "10.0.0.1:8443", "", "10.0.0.1:8443", false},
		{"neither was ever set", "", "", "10.0.0.1:8443", false},
		{"nothing is known", "", "", "", false},
		{"only this one was set", "", "10.0.0.1:8443", "10.0.0.1:8443", true},
		{"another address", "10.0.0.1:8443", "192.0.2.1:443", "10.0.0.1:8443", false},
		{"another port", "10.0.0.1:8443", "10.0.0.1:443", "10.0.0.1:8443", false},
		{"all addresses", "10.0.0.1:8443", ":8443", "10.0.0.1:8443", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := map[string]string{cluster: now}
			if tt.follows {
				want[core] = now
			}
			local := map[string]string{cluster: tt.cluster, core: tt.core, "storage.x": "1"}
			if got := MovedAddresses(local, tt.known, now); !maps.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
}

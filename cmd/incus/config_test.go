package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
)

func TestConfigSet(t *testing.T) {
	deprecated := "Warning: the “<key> <value>” syntax is deprecated; please switch to the “<key>=<value>” syntax\n"
	for _, tt := range []struct {
		args, stdin, warning, want string
	}{
		{"set user.y=2 user.z=", "", "", `{"config":{"user.x":"1","user.y":"2","user.z":""}}`},
		{"set local: core.https_address=[::]:8443", "", "", `{"config":{"core.https_address":"[::]:8443","user.x":"1"}}`},
		{"set user.y 2", "", deprecated, `{"config":{"user.x":"1","user.y":"2"}}`},
		{"set user.y=-", "long\ntext\n", "", `{"config":{"user.x":"1","user.y":"long\ntext"}}`},
		{"unset user.x", "", "", `{"config":{"user.x":""}}`},
		{"edit", "config: {user.n: 5}\n", "", `{"config":{"user.n":"5"}}`},
	} {
		s := standalone(t, api.ConfigMap{"user.x": "1"})
		if !s.run(tt.stdin, append([]string{"config"}, strings.Fields(tt.args)...)...) || s.stderr.String() != tt.warning {
			t.Errorf("%s: %s", tt.args, &s.stderr)
			continue
		}
		if diff := cmp.Diff(tt.want, s.body(t, "PUT /1.0")); diff != "" {
			t.Errorf("%s: %s", tt.args, diff)
		}
	}
	s := standalone(t, nil)
	s.Refuse("PUT /1.0", 400, "cannot set 'core.nokey' to '1': unknown key", nil)
	s.mustFail(t, golden(t, "config-set-badkey.err"), "", "config", "set", "core.nokey", "1")
	s.mustFail(t, "Error: Invalid key=value configuration: a\n", "", "config", "set", "a", "b=c", "d=e")
}

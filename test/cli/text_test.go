package cli

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// subst FILE...
func subst(ts *testscript.TestScript, neg bool, args []string) {
	positive(ts, "subst", neg, len(args) > 0)
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// let NAME
func let(ts *testscript.TestScript, neg bool, args []string) {
	positive(ts, "let", neg, len(args) == 1)
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// forge TOKEN KEY=VALUE changes a field of a token, as an attacker or a typing error would.
// A value for a list is its only element.
func forge(ts *testscript.TestScript, neg bool, args []string) {
	positive(ts, "forge", neg, len(args) == 2)
	data, err := base64.StdEncoding.DecodeString(ts.Getenv(args[0]))
	ts.Check(err)
	var fields map[string]any
	ts.Check(json.Unmarshal(data, &fields))
	key, value, _ := strings.Cut(args[1], "=")
	switch fields[key].(type) {
	case string:
		fields[key] = value
	case []any:
		fields[key] = []string{value}
	default:
		ts.Fatalf("the token has no field %s; it has %v", key, slices.Sorted(maps.Keys(fields)))
	}
	data, err = json.Marshal(fields)
	ts.Check(err)
	ts.Setenv(args[0], base64.StdEncoding.EncodeToString(data))
}

func compile(ts *testscript.TestScript, pattern string) *regexp.Regexp {
	re, err := regexp.Compile("(?m)" + pattern)
	ts.Check(err)
	return re
}

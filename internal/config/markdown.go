package config

import (
	"fmt"
	"strings"
)

const intro = `# Configuration keys

<!-- Written from internal/config/table.go by "make docs". Do not edit. -->

Set a key with ` + "`incus config set KEY=VALUE`" + `, unset it with ` + "`incus config unset KEY`" + `, and see what is set with
` + "`incus config show`" + `. A local key belongs to one server; ` + "`--target MEMBER`" + ` names another one than that which is
asked. A cluster key is the same on all members, whichever is asked. Setting a key to the empty value unsets it.

A boolean is ` + "`true`, `yes`, `on` or `1`, or `false`, `no`, `off` or `0`" + `. An expiry expression is a list of counts with a
unit, such as ` + "`1d 12H`" + `: ` + "`S M H d w m y`" + ` are seconds, minutes, hours, days, weeks, months and years by the calendar.

A value that a key cannot have is refused, and nothing is changed:

    $ incus config set cluster.max_voters=4
    Error: cannot set 'cluster.max_voters' to '4': Value must be an odd number equal to or higher than 3
`

// Markdown is the reference page of all keys, docs/configuration.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(intro)
	section := func(title, text string, belongs func(k Key) bool, row func(k Key) string, head string) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n%s\n", title, text, head)
		for _, k := range Keys() {
			if belongs(k) {
				b.WriteString(row(k))
			}
		}
	}
	works := func(scope Scope) func(Key) bool {
		return func(k Key) bool { return k.Scope == scope && !k.Stored && k.Refused == "" }
	}
	const head = "| key | type | default | values | what it does |\n|---|---|---|---|---|"
	const scopeHead = "| key | scope | type | default | values | what it means to Incus |\n|---|---|---|---|---|---|"
	section("Local keys", "They belong to one server.", works(Local), markdownRow, head)
	section("Cluster keys", "They are the same on all members.", works(Cluster), markdownRow, head)
	section("Keys without a function here", "They are checked, stored and shown, so that what was written for Incus works, and have no effect.",
		func(k Key) bool { return k.Stored }, scopedRow, scopeHead)
	section("Keys that are refused", "They promise security that this version does not give; see [compatibility.md](compatibility.md).",
		func(k Key) bool { return k.Refused != "" },
		func(k Key) string { return fmt.Sprintf("| %s | %s |\n", code(k.Name), k.Refused) }, "| key | why |\n|---|---|")
	return b.String()
}

func markdownRow(k Key) string {
	return fmt.Sprintf("| %s | %s | %s | %s | %s |\n", code(k.Name), k.Type, code(k.Default), k.Values, k.Doc)
}

func scopedRow(k Key) string {
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s |\n", code(k.Name), k.Scope, k.Type, code(k.Default), k.Values, k.Doc)
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

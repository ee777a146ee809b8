package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"incusd/api"
)

// A Scope says whose a key is.
type Scope int

// Scopes of a key.
const (
	// Local keys belong to one member, which keeps them in its local store.
	Local Scope = iota
	// Cluster keys are the same on all members: replicated state.
	Cluster
)

// String is the word for the scope in the documentation.
func (s Scope) String() string {
	if s == Local {
		return "local"
	}
	return "cluster"
}

// A Type says how a value is read.
type Type int

// Types of a key.
const (
	String Type = iota
	Bool
	Int
)

// String is the word for the type in the documentation.
func (t Type) String() string { return [...]string{"string", "bool", "integer"}[t] }

// A Key is one row of the schema, or a pattern that stands for many keys: each "*" is
// one dotted part, the last one any number of parts.
type Key struct {
	Name  string
	Scope Scope
	Type  Type
	// Default is what an unset key is taken for; empty means that there is none.
	Default string
	// Unit is what one of an integer is, for GetDuration; 0 for plain numbers.
	Unit time.Duration
	// Doc is one line of documentation, Values the values allowed, if not any.
	Doc, Values string
	// Stored marks a key that is kept for compatibility and has no function here.
	Stored bool
	// Refused says why the key cannot be set at all; empty for all others.
	Refused string
	// Secret values are not repeated in error messages.
	Secret bool
	// Hashed values are stored as a hash, and shown as "true"; see Masked.
	Hashed bool
	// Validate judges a normalized value that is not empty. Nil allows every value. Its
	// error is a reason in words, as a user sees it.
	Validate func(value string) error
}

func (k *Key) isPattern() bool { return strings.Contains(k.Name, "*") }

// matches tells whether the pattern k stands for a key.
func (k *Key) matches(key string) bool {
	want, have := strings.Split(k.Name, "."), strings.Split(key, ".")
	if len(have) < len(want) || slices.Contains(have, "") {
		return false
	}
	if len(have) > len(want) && want[len(want)-1] != "*" {
		return false
	}
	for i, part := range want {
		if part != "*" && part != have[i] {
			return false
		}
	}
	return true
}

// Keys is the whole schema, sorted by name; patterns included.
func Keys() []Key {
	keys := slices.Clone(table)
	slices.SortFunc(keys, func(a, b Key) int { return strings.Compare(a.Name, b.Name) })
	return keys
}

// Lookup finds the row of a key. It is false for an unknown one.
func Lookup(key string) (Key, bool) {
	k := find(key)
	if k == nil {
		return Key{}, false
	}
	return *k, true
}

func find(key string) *Key {
	if i, ok := exact[key]; ok {
		return &table[i]
	}
	if strings.HasPrefix(key, userPrefix) {
		return &table[exact[userPrefix+"*"]]
	}
	for i := range table {
		if k := &table[i]; k.isPattern() && k.matches(key) {
			return k
		}
	}
	return nil
}

// exact finds the row of a name in the table.
var exact = func() map[string]int {
	rows := make(map[string]int, len(table))
	for i, k := range table {
		rows[k.Name] = i
	}
	return rows
}()

// userPrefix begins the keys that are the user's own.
const userPrefix = "user."

// validUserKey tells whether a key of the user's has a name that can be printed.
func validUserKey(key string) bool {
	return len(key) > len(userPrefix) && strings.IndexFunc(key, func(r rune) bool {
		return r == unicode.ReplacementChar || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsPunct(r)
	}) < 0
}

// ScopeOf is the scope of a key. It is false for an unknown one.
func ScopeOf(key string) (Scope, bool) {
	k := find(key)
	if k == nil {
		return 0, false
	}
	return k.Scope, true
}

// Split parts values by the scope of their keys; unknown keys count as the cluster's.
// Neither map is nil.
func Split(values map[string]string) (local, cluster map[string]string) {
	local, cluster = map[string]string{}, map[string]string{}
	for key, value := range values {
		if scope, ok := ScopeOf(key); ok && scope == Local {
			local[key] = value
		} else {
			cluster[key] = value
		}
	}
	return local, cluster
}

// Visible is what a user is shown of values: known keys that are set to something else
// than their default.
func Visible(values map[string]string) map[string]string {
	shown := maps.Clone(values)
	maps.DeleteFunc(shown, func(key, value string) bool {
		k := find(key)
		return k == nil || value == "" || value == k.Default
	})
	for key := range shown {
		if IsHashed(key) {
			shown[key] = Masked
		}
	}
	return shown
}

// Masked is how a value is shown that is stored as a hash. Whoever sends it back means no change.
const Masked = "true"

// IsHashed tells whether the value of a key is stored as a hash.
func IsHashed(key string) bool {
	k := find(key)
	return k != nil && k.Hashed
}

// Get is a key's value, or its default if it is unset. A healing threshold below the
// offline threshold is raised to it, since nobody is healed before being offline.
func Get(values map[string]string, key string) string {
	value := values[key]
	if value == "" {
		if k := find(key); k != nil {
			value = k.Default
		}
	}
	if key == healingThreshold {
		return raised(values, value)
	}
	return value
}

const (
	healingThreshold = "cluster.healing_threshold"
	offlineThreshold = "cluster.offline_threshold"
)

func raised(values map[string]string, value string) string {
	n, err := strconv.ParseInt(value, 10, 64)
	if offline := GetInt(values, offlineThreshold); err == nil && n != 0 && n < offline {
		return strconv.FormatInt(offline, 10)
	}
	return value
}

// GetBool is Get for a boolean. What is none counts as the default.
func GetBool(values map[string]string, key string) bool {
	if b, ok := api.ParseBool(Get(values, key)); ok {
		return b
	}
	b, _ := api.ParseBool(Get(nil, key))
	return b
}

// GetInt is Get for an integer. What is none counts as the default, and 0 without one.
func GetInt(values map[string]string, key string) int64 {
	if n, err := strconv.ParseInt(Get(values, key), 10, 64); err == nil {
		return n
	}
	n, _ := strconv.ParseInt(Get(nil, key), 10, 64)
	return n
}

// GetDuration is GetInt times the key's unit.
func GetDuration(values map[string]string, key string) time.Duration {
	k := find(key)
	if k == nil {
		return 0
	}
	return time.Duration(min(GetInt(values, key), maxUnits(k.Unit))) * k.Unit
}

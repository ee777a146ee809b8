package state

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// setting is one key of the cluster-wide configuration.
type setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

var configTable = &table[setting]{
	name:    "config",
	topic:   topicOther,
	indexes: []index[setting]{{name: primary, key: func(s *setting) string { return s.Key }}},
	count:   func(c *counts, _ *setting, n int) { c.config += n },
}

// configHash is the SHA-256 of all keys and values, in hex.
func configHash(txn *memdb.Txn) string {
	h := sha256.New()
	var b []byte
	for _, s := range configTable.list(txn, primary) {
		b = appendText(appendText(b[:0], s.Key), s.Value)
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// appendText appends s with its length, so that what follows cannot be taken for it.
func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func applyConfigSet(tx *transaction, b *ConfigSet) (any, error) {
	if b.Expect != "" && b.Expect != configHash(tx.Txn) {
		return nil, refuse(api.PreconditionFail)
	}
	if err := checkConfig(b.Set); err != nil {
		return nil, err
	}
	changed := b.Replace && tx.keepSettings(b.Set)
	for _, key := range slices.Sorted(maps.Keys(b.Set)) {
		if tx.setSetting(key, b.Set[key]) {
			changed = true
		}
	}
	if tx.counts.config > MaxConfigKeys {
		return nil, api.Errorf(api.TooLarge, "the configuration would have %d keys, the limit is %d", tx.counts.config, MaxConfigKeys)
	}
	if changed {
		tx.emit("config-updated", "/1.0", nil)
	}
	return nil, nil
}

// keepSettings drops the settings whose key is not in keep, and tells whether there were any.
func (tx *transaction) keepSettings(keep map[string]string) (changed bool) {
	for _, s := range configTable.list(tx.Txn, primary) {
		if _, ok := keep[s.Key]; !ok {
			configTable.drop(tx, s)
			changed = true
		}
	}
	return changed
}

// setSetting gives key a value, or unsets it if value is empty. It tells whether
// anything changed.
func (tx *transaction) setSetting(key, value string) (changed bool) {
	old, ok := configTable.get(tx.Txn, primary, key)
	switch {
	case value == "" && ok:
		configTable.drop(tx, old)
		return true
	case value == "" || ok && old.Value == value:
		return false
	}
	configTable.put(tx, &setting{Key: key, Value: value})
	return true
}

// checkConfig refuses keys and values that no schema would allow. What a key means,
// package config has checked.
func checkConfig(set map[string]string) error {
	if len(set) > MaxConfigKeys {
		return api.Errorf(api.TooLarge, "there are %d keys, the limit is %d", len(set), MaxConfigKeys)
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		if key == "" || len(key) > maxKeyText || !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl) {
			return api.Errorf(api.ConfigInvalid, "Invalid configuration key %.80q", key)
		}
		if n := len(set[key]); n > MaxConfigValue {
			return api.Errorf(api.TooLarge, "The value of %q has %d bytes, the limit is %d", key, n, MaxConfigValue)
		}
	}
	return nil
}

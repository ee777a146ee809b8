package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"incusd/api"
)

// compatibilityHint is the next step for keys that are refused.
const compatibilityHint = "see docs/compatibility.md for what this version supports"

// Validate judges changes to the configuration current and returns them normalized. An
// empty value unsets its key. What a change leaves as it is now is not judged again, so
// that a value of an older version does not stand in the way of other changes. It fails
// with api.ConfigInvalid and the first refusal by order of keys.
func Validate(current, changes map[string]string) (map[string]string, error) {
	normalized := make(map[string]string, len(changes))
	var first *api.Error
	more := 0
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		value := changes[key]
		if now, ok := current[key]; ok && (now == value || value == "") {
			normalized[key] = value // also unsets what this version no longer knows
			continue
		}
		value, refusal := validate(key, value)
		switch {
		case refusal == nil:
			normalized[key] = value
		case first == nil:
			first = refusal
		default:
			more++
		}
	}
	if more > 0 {
		first.Message += fmt.Sprintf(" (and %d more errors)", more)
	}
	if first != nil {
		return nil, first
	}
	return normalized, nil
}

// validate judges and normalizes one value.
func validate(key, value string) (string, *api.Error) {
	k := find(key)
	switch {
	case k == nil:
		return "", refusal(key, value, "unknown key")
	case value == "":
		return "", nil
	}
	shown := value
	if k.Secret {
		shown = "[redacted]"
	}
	if strings.HasPrefix(key, userPrefix) && !validUserKey(key) {
		return "", refusal(key, shown, "Invalid key name")
	}
	normalized, err := k.normalize(value)
	if err != nil {
		return "", refusal(key, shown, err.Error())
	}
	if k.Refused != "" && normalized != k.Default {
		return "", refusal(key, shown, k.Refused).WithHint(compatibilityHint)
	}
	if k.Validate != nil {
		if err := k.Validate(normalized); err != nil {
			return "", refusal(key, shown, err.Error())
		}
	}
	return normalized, nil
}

func refusal(key, value, why string) *api.Error {
	return api.Errorf(api.ConfigInvalid, "cannot set '%s' to '%s': %s", key, value, why)
}

func (k *Key) normalize(value string) (string, error) {
	switch k.Type {
	case Bool:
		b, ok := api.ParseBool(value)
		if !ok {
			return "", errors.New("invalid boolean")
		}
		return strconv.FormatBool(b), nil
	case Int:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return "", errors.New("invalid integer")
		}
		return strconv.FormatInt(n, 10), nil
	}
	return value, nil
}

package api

import (
	"fmt"
	"strings"
	"unicode"
)

// MaxName is the longest name of a member or other object, in bytes.
const MaxName = 64

// ValidateName checks a name by the rules of the protocol: it becomes part of URLs
// and of file names.
func ValidateName(name string) error {
	if len(name) > MaxName {
		return fmt.Errorf("Maximum name length is %d characters", MaxName) //nolint // wire text
	}
	for _, r := range name {
		switch {
		case unicode.IsSpace(r):
			return fmt.Errorf("Name cannot contain white space")
		case strings.ContainsRune("$?&+\"'`*/", r), unicode.IsControl(r), r == unicode.ReplacementChar:
			return fmt.Errorf("Name contains invalid character %q", r)
		}
	}
	if name == "" || !isAlphanumeric(name[0]) || !isAlphanumeric(name[len(name)-1]) {
		return fmt.Errorf("Names must start and end with an alphanumeric character")
	}
	return nil
}

// ParseBool reads a boolean in the words of the protocol, in any case.
func ParseBool(text string) (value, ok bool) {
	switch strings.ToLower(text) {
	case "true", "1", "yes", "on":
		return true, true
	case "false", "0", "no", "off":
		return false, true
	}
	return false, false
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// ValidateMemberName checks the name of a member. It fails with NameInvalid.
func ValidateMemberName(name string) error {
	if name == "none" || name == "." || name == ".." {
		return Errorf(NameInvalid, "Invalid cluster member name: %q is reserved", name).WithHint("choose another name")
	}
	if err := ValidateName(name); err != nil {
		return Errorf(NameInvalid, "Invalid cluster member name: %v", err)
	}
	return nil
}

// ValidateGroupName checks the name of a cluster group. It fails with NameInvalid.
func ValidateGroupName(name string) error {
	if err := ValidateName(name); err != nil {
		return Errorf(NameInvalid, "Invalid cluster group name: %v", err)
	}
	return nil
}

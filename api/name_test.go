package api

import (
	"errors"
	"strings"
	"testing"
)

func TestNamesAreAsTheHintSays(t *testing.T) {
	for word, sign := range map[string]string{"dots": ".", "dashes": "-", "underscores": "_"} {
		if name := "a" + sign + "1"; ValidateMemberName(name) != nil || !strings.Contains(NameInvalid.Hint(), word) {
			t.Errorf("%q: %v, and the hint is %q", name, ValidateMemberName(name), NameInvalid.Hint())
		}
	}
	if err := errors.Join(ValidateMemberName("a"), ValidateMemberName(strings.Repeat("a", MaxName)), ValidateGroupName("1_g")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", "-a", "a.", "_a", "a b", "a/b", "é", strings.Repeat("a", MaxName+1), "none", ".", ".."} {
		err := ValidateMemberName(name)
		if !errors.Is(err, NameInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if got := AsError(ValidateMemberName("none")).NextStep(); got != "choose another name" {
		t.Errorf("a reserved name: %q", got)
	}
}

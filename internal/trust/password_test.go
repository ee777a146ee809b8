package trust

import (
	"strings"
	"testing"
)

func TestOnlyThePasswordFitsItsHash(t *testing.T) {
	t.Parallel()
	hash := HashPassword("correct horse")
	if strings.Contains(hash, "correct") || hash == HashPassword("correct horse") {
		t.Errorf("the hash tells something: %q", hash)
	}
	for password, want := range map[string]bool{"correct horse": true, "correct hors": false, "": false, hash: false} {
		if got, err := CheckPassword(hash, password); err != nil || got != want {
			t.Errorf("%q: %v, %v", password, got, err)
		}
	}
}

func TestDamagedHashFitsNoPassword(t *testing.T) {
	t.Parallel()
	hash := HashPassword("x")
	for _, damaged := range []string{"", "true", "x", hash[:20], strings.Replace(hash, "m=", "m=9", 1), hash + "!", passwordPrefix + "$"} {
		if ok, err := CheckPassword(damaged, "x"); ok {
			t.Errorf("%q fits (%v)", damaged, err)
		}
	}
}

//go:build !race

// These tests open files with damaged pages. The race detector also checks pointers, and ends the
// process where bbolt's lead astray in such a page.

package localstore

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"incusd/api"
)

func TestAChangedByteIsFoundOrDoesNotMatter(t *testing.T) {
	good := filled(t)
	path := newPath(t)
	for i, b := range good {
		if b == 0 && i%64 != 0 {
			continue // most of the file is empty; a sample of that is enough
		}
		for _, mask := range []byte{0x01, 0x80} {
			bad := append([]byte(nil), good...)
			bad[i] ^= mask
			openDamaged(t, path, fmt.Sprintf("byte %d ^ %#x", i, mask), bad)
		}
	}
}

func FuzzOpen(f *testing.F) {
	good := filled(f)
	f.Add(0, []byte{1})
	f.Add(4096*2+8, []byte{0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, at int, patch []byte) {
		bad := append([]byte(nil), good...)
		if at < 0 || at > len(bad) {
			return
		}
		copy(bad[at:], patch)
		path := newPath(t)
		must(t, os.WriteFile(path, bad, 0o600))
		s, err := Open(path)
		if err == nil {
			err = s.SetConfig(map[string]string{"user.after": "1"})
			if closeErr := s.Close(); closeErr != nil {
				t.Fatal(closeErr)
			}
		}
		if err != nil && !errors.Is(err, api.StoreDamaged) && !errors.Is(err, api.StoreTooNew) {
			t.Fatal(err)
		}
	})
}

package api

import (
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func FuzzParseJoinToken(f *testing.F) {
	token := ClusterMemberJoinToken{
		ServerName: "node2", Fingerprint: strings.Repeat("57", 32), Addresses: []string{"10.1.0.1:8443", "[fd00::1]:8443"},
		Secret: strings.Repeat("fd", 32), ExpiresAt: time.Date(2026, 1, 1, 15, 0, 0, 0, time.UTC),
	}
	f.Add(token.String())
	f.Add(" " + token.String()[:40] + "\n" + token.String()[40:])
	for _, text := range []string{
		`{}`, `null`, `[]`, `{"server_name":"a","server_name":"b","fingerprint":"c","addresses":["d"],"secret":"e"}`,
		`{"server_name":"a","fingerprint":"c","addresses":[],"secret":"e"}`, `{"server_name":"\u0000","fingerprint":"c","addresses":[null],"secret":"e"}`,
		`{"server_name":"a","fingerprint":"c","addresses":["d"],"secret":"e","expires_at":"9999-99-99T99:99:99Z"}`,
	} {
		f.Add(base64.StdEncoding.EncodeToString([]byte(text)))
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseJoinToken(text)
		if err != nil {
			if !errors.Is(err, TokenMalformed) {
				t.Fatalf("error without its reason: %v", err)
			}
			return
		}
		again, err := ParseJoinToken(got.String())
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("round trip: %+v became %+v, %v", got, again, err)
		}
	})
}

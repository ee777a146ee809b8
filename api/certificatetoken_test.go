package api_test

import (
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"incusd/api"
)

func TestCertificateAddTokenIsReadAsItWasWritten(t *testing.T) {
	token := &api.CertificateAddToken{
		ClientName: "laptop", Fingerprint: "ab", Addresses: []string{"10.0.0.1:8443"}, Secret: "s", ExpiresAt: time.Date(2026, 1, 1, 15, 0, 0, 5, time.UTC),
	}
	text := token.String()
	for _, wrapped := range []string{text, "  " + text + "\n", text[:10] + "\r\n " + text[10:]} {
		if got, err := api.ParseCertificateAddToken(wrapped); err != nil || !reflect.DeepEqual(got, token) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	join := (&api.ClusterMemberJoinToken{ServerName: "n", Fingerprint: "ab", Addresses: []string{"a"}, Secret: "s"}).String()
	for text, want := range map[string]string{
		"":                             "not a JSON object",
		"192.0.2.101":                  "not base64",
		"bm90IGEgdG9rZW4=":             "not a JSON object",
		join:                           "No client name in certificate add token",
		encoded(`{"client_name":"a"}`): "No server addresses in certificate add token",
		encoded(`{"client_name":"a","addresses":["b"]}`):              "No secret in certificate add token",
		encoded(`{"client_name":"a","addresses":["b"],"secret":"c"}`): "No certificate fingerprint in certificate add token",
		strings.Repeat("A", api.MaxJoinToken+1):                       "longer than",
		encoded(`{"client_name":"a","addresses":"b","secret":"c"}`):   "not a JSON object",
	} {
		if _, err := api.ParseCertificateAddToken(text); !errors.Is(err, api.TokenMalformed) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %s", text, err, want)
		}
	}
}

func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func TestOnlyTokensForClientsAreCertificateAddTokens(t *testing.T) {
	operation := func() *api.Operation {
		return &api.Operation{ID: "1", Class: "token", Metadata: map[string]any{
			"secret": "s", "fingerprint": "ab", "addresses": []any{"a:1"}, "request": map[string]any{"name": "laptop"}, "expiresAt": "2026-01-01T15:00:00Z",
		}}
	}
	want := &api.CertificateAddToken{ClientName: "laptop", Fingerprint: "ab", Addresses: []string{"a:1"}, Secret: "s", ExpiresAt: time.Date(2026, 1, 1, 15, 0, 0, 0, time.UTC)}
	if got, err := operation().CertificateAddToken(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, change := range map[string]func(*api.Operation){
		"a task":                  func(op *api.Operation) { op.Class = "task" },
		"a join token":            func(op *api.Operation) { delete(op.Metadata, "request") },
		"without a secret":        func(op *api.Operation) { delete(op.Metadata, "secret") },
		"an address of no text":   func(op *api.Operation) { op.Metadata["addresses"] = []any{1} },
		"addresses that are none": func(op *api.Operation) { op.Metadata["addresses"] = "a" },
		"a date that is none":     func(op *api.Operation) { op.Metadata["expiresAt"] = "soon" },
	} {
		op := operation()
		change(op)
		if got, err := op.CertificateAddToken(); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	forever := operation()
	delete(forever.Metadata, "expiresAt")
	if got, err := forever.CertificateAddToken(); err != nil || !got.ExpiresAt.IsZero() {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzParseCertificateAddToken(f *testing.F) {
	f.Add((&api.CertificateAddToken{ClientName: "laptop", Fingerprint: "ab", Addresses: []string{"10.0.0.1:8443"}, Secret: "s"}).String())
	f.Add(encoded(`{"client_name":"a","addresses":[""],"secret":"c","fingerprint":"d","expires_at":"x"}`))
	f.Fuzz(func(t *testing.T, text string) {
		token, err := api.ParseCertificateAddToken(text)
		if err != nil {
			if !errors.Is(err, api.TokenMalformed) {
				t.Errorf("no reason: %v", err)
			}
			return
		}
		again, err := api.ParseCertificateAddToken(token.String())
		if err != nil || !reflect.DeepEqual(again, token) {
			t.Errorf("%+v became %+v, %v", token, again, err)
		}
	})
}

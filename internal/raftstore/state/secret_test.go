package state

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretsAreNotPrinted(t *testing.T) {
	const secret = "TOPSECRET"
	token := Token{Name: "node2", Secret: secret}
	cluster := Cluster{ID: "c1", Key: secret}
	enable := ClusterEnable{Name: "node1", Key: secret}
	issue := TokenIssue{Token: token}
	invite := TokenInvite{Token: token}
	rotate := ClusterCertificate{Fingerprint: "fp", Key: secret, Reissue: []TokenReissue{{NewOperation: "op", NewSecret: secret}}}
	cmd, err := NewCommand(KindTokenIssue, "r", start, nil, issue)
	if err != nil {
		t.Fatal(err)
	}
	event := Event{Action: "x", Token: &token}
	values := []any{
		token, &token, cluster, &cluster, enable, &enable, rotate, &rotate, rotate.Reissue[0], issue, &issue, invite, &invite, cmd, &cmd, event, &event,
		[]Token{token}, []*Token{&token}, map[string]Token{"a": token}, struct{ T Token }{token}, []Command{cmd},
	}
	// A command's body also prints as numbers.
	asNumbers := strings.Trim(fmt.Sprint([]byte(secret)), "[]")
	check := func(how, out string) {
		t.Helper()
		if strings.Contains(out, secret) || strings.Contains(out, asNumbers) || strings.Contains(strings.ToLower(out), fmt.Sprintf("%x", secret)) {
			t.Errorf("%s prints the secret: %s", how, out)
		}
	}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			check(fmt.Sprintf("%s of %T", verb, v), fmt.Sprintf(verb, v))
		}
	}
	for _, v := range values[:17] {
		var out bytes.Buffer
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "value", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "value", v)
		check(fmt.Sprintf("slog of %T", v), out.String())
	}
}

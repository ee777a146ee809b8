package state

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"incusd/api"
)

// start is the time at which every test world begins.
var start = time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)

// A world is a store with a clock that tests turn by hand.
type world struct {
	t      testing.TB
	s      *Store
	now    time.Time
	index  uint64
	asked  int
	by     *api.EventRequestor // who asks; nil for root at the socket
	events []Event             // of the last command
}

func newWorld(t testing.TB) *world { return &world{t: t, s: New(), now: start} }

// newCluster is a world with the member node1 at 10.0.0.1:8443, enabled.
func newCluster(t testing.TB) *world {
	w := newWorld(t)
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
	w.must(KindClusterEnable, enableBody())
	return w
}

func firstBody() Member {
	return Member{ID: "id1", Certificate: "cert1", Fingerprint: "fp1", Architecture: "x86_64", CommandVersion: 1}
}

func enableBody() ClusterEnable {
	return ClusterEnable{MemberID: "id1", Name: "node1", Address: "10.0.0.1:8443", Certificate: "cluster-cert", Key: "cluster-key"}
}

// do applies a command with a request ID of its own.
func (w *world) do(kind string, body any) Result {
	w.t.Helper()
	w.asked++
	return w.ask(fmt.Sprintf("r%d", w.asked), kind, body)
}

func (w *world) ask(request, kind string, body any) Result {
	w.t.Helper()
	cmd, err := NewCommand(kind, request, w.now, cmp.Or(w.by, &api.EventRequestor{Username: "root", Protocol: "unix"}), body)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.entry(cmd)[0]
}

func (w *world) entry(cmds ...Command) []Result {
	w.t.Helper()
	data, err := EncodeEntry(cmds)
	if err != nil {
		w.t.Fatal(err)
	}
	w.index++
	results, events, err := w.s.Apply(w.index, 1, data)
	if err != nil {
		w.t.Fatal(err)
	}
	w.events = events
	return results
}

func (w *world) must(kind string, body any) json.RawMessage {
	w.t.Helper()
	res := w.do(kind, body)
	if res.Err != nil {
		w.t.Fatalf("%s: refused: %v", kind, res.Err)
	}
	return res.Value
}

// refused checks that the command is refused for reason; "" means that it is not.
func (w *world) refused(reason api.Reason, kind string, body any) *api.Error {
	w.t.Helper()
	res := w.do(kind, body)
	if reason == "" {
		if res.Err != nil {
			w.t.Fatalf("%s: refused: %s: %v", kind, res.Err.Reason, res.Err)
		}
		return nil
	}
	if res.Err == nil {
		w.t.Fatalf("%s: not refused, want %s", kind, reason)
	}
	if !errors.Is(res.Err, reason) {
		w.t.Fatalf("%s: refused for %s (%v), want %s", kind, res.Err.Reason, res.Err, reason)
	}
	return res.Err
}

func (w *world) says(reason api.Reason, text, kind string, body any) {
	w.t.Helper()
	if err := w.refused(reason, kind, body); err.Message != text {
		w.t.Fatalf("%s: says %q, want %q", kind, err.Message, text)
	}
}

// happened checks the events of the last command, each as "action source" and, with a
// token, " +token".
func (w *world) happened(want ...string) {
	w.t.Helper()
	var got []string
	for _, e := range w.events {
		s := strings.TrimSpace(e.Action + " " + e.Source)
		if e.Token != nil {
			s = strings.TrimSpace(s + " +" + e.Token.Hash)
		}
		if !e.Time.Equal(w.now) {
			w.t.Errorf("event %q has time %v, want the command's %v", s, e.Time, w.now)
		}
		if e.Requestor == nil || e.Requestor.Username != "root" {
			w.t.Errorf("event %q has requestor %v, want the command's", s, e.Requestor)
		}
		got = append(got, s)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Fatalf("events %q, want %q", got, want)
	}
}

// issue makes the token whose hash is hash, for name, that expires in three hours.
func (w *world) issue(hash, name string) {
	w.t.Helper()
	w.must(KindTokenIssue, w.tokenBody(hash, name))
}

func (w *world) tokenBody(hash, name string) TokenIssue {
	return TokenIssue{Token: Token{
		Hash: hash, Secret: "secret-" + hash, Name: name, Operation: "op-" + hash, Issuer: "id1", Fingerprint: "cluster-fp",
		Addresses: []string{"10.0.0.1:8443"}, CreatedAt: w.now, ExpiresAt: w.now.Add(3 * time.Hour),
	}}
}

// claimBody is a claim by the server that has the key.
func claimBody(hash, name, fp string) TokenClaim {
	return TokenClaim{Hash: hash, Name: name, Fingerprint: fp, Certificate: "cert-" + fp, Proved: true}
}

func (w *world) claim(hash, name, fp string) {
	w.t.Helper()
	w.must(KindTokenClaim, claimBody(hash, name, fp))
}

func admitBody(id, name, fp string) MemberAdmit {
	return MemberAdmit{ID: id, Fingerprint: fp, Name: name, Address: name + ":8443", Architecture: "aarch64", CommandVersion: 1}
}

func (w *world) admit(id, name, fp string) {
	w.t.Helper()
	w.must(KindMemberAdmit, admitBody(id, name, fp))
}

// join takes name through a whole join; its token has the hash "t-" and name.
func (w *world) join(id, name, fp string) {
	w.t.Helper()
	w.issue("t-"+name, name)
	w.claim("t-"+name, name, fp)
	w.admit(id, name, fp)
	w.must(KindMemberActivate, MemberActivate{ID: id})
}

func (w *world) token(hash string) *Token {
	w.t.Helper()
	t, ok := w.s.View().Token(hash)
	if !ok {
		w.t.Fatalf("there is no token %s", hash)
	}
	return t
}

func (w *world) member(id string) *Member {
	w.t.Helper()
	m, ok := w.s.View().Member(id)
	if !ok {
		w.t.Fatalf("there is no member %s", id)
	}
	return m
}

func (w *world) noMember(id string) {
	w.t.Helper()
	if m, ok := w.s.View().Member(id); ok {
		w.t.Fatalf("member %s is there, %s", id, m.State)
	}
}

// free checks that the token is live and claimed by nobody.
func (w *world) free(hash string) {
	w.t.Helper()
	if t := w.token(hash); t.Ended != "" || t.ClaimedBy != "" || t.Secret == "" {
		w.t.Fatalf("token %s: ended %q, claimed by %q, want it free", hash, t.Ended, t.ClaimedBy)
	}
}

func (w *world) ended(hash, how string) {
	w.t.Helper()
	t := w.token(hash)
	if t.Ended != how || !t.EndedAt.Equal(w.now) || t.Secret != "" || t.ClaimedCert != "" {
		w.t.Fatalf("token %s: ended %q at %v, secret %q, want %q now and no secret", hash, t.Ended, t.EndedAt, t.Secret, how)
	}
}

func persist(t testing.TB, v *View) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := v.Persist(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// content is a snapshot without what every command changes.
func content(t testing.TB, v *View) string {
	t.Helper()
	var kept []string
	for _, line := range strings.Split(string(persist(t, v)), "\n") {
		if strings.HasPrefix(line, `{"table":`) && !strings.HasPrefix(line, `{"table":"request"`) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

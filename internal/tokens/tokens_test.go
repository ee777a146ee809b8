package tokens

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// A cluster is the tables of one member, without Raft.
type cluster struct {
	t       *testing.T
	tables  *state.Store
	servers []state.Server
	index   uint64
	// now is the leader's clock, and that of this member unless skew says otherwise.
	now  time.Time
	skew time.Duration
	pair *trust.KeyPair
	logs bytes.Buffer
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, tables: state.New(), now: time.Now().UTC().Truncate(time.Second)}
	c.pair = c.newPair()
	own := c.newPair()
	c.must(state.KindClusterInit, state.ClusterInit{ClusterID: uuid.NewString(), Member: state.Member{
		ID: "id-1", Certificate: string(own.CertPEM), Fingerprint: own.Fingerprint(), CommandVersion: state.CommandVersion,
	}})
	c.servers = []state.Server{{ID: "id-1", Voter: true}}
	c.tables.SetServers(c.servers)
	return c
}

func (c *cluster) enable() {
	c.must(state.KindClusterEnable, state.ClusterEnable{
		MemberID: "id-1", Name: "node1", Address: "10.1.0.1:8443", Certificate: string(c.pair.CertPEM), Key: string(c.pair.KeyPEM),
	})
}

func (c *cluster) newPair() *trust.KeyPair {
	pair, err := trust.GenerateAt(c.now.Add(-time.Hour), trust.Server)
	if err != nil {
		c.t.Fatal(err)
	}
	return pair
}

func (c *cluster) must(kind string, body any) {
	c.t.Helper()
	cmd, err := state.NewCommand(kind, "", c.now, nil, body)
	if err == nil {
		_, err = c.Propose(c.t.Context(), cmd)
	}
	if err != nil {
		c.t.Fatalf("%s: %v", kind, err)
	}
}

// join makes a member by the way that every member takes.
func (c *cluster) join(s *Service, name, address string) *state.Member {
	c.t.Helper()
	token, err := s.Issue(c.t.Context(), name, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	pair := c.newPair()
	if _, err := s.Claim(c.t.Context(), Text(token), pair.Cert, true, nil); err != nil {
		c.t.Fatal(err)
	}
	id := "id-" + name
	c.must(state.KindMemberAdmit, state.MemberAdmit{ID: id, Fingerprint: pair.Fingerprint(), Name: name, Address: address, CommandVersion: state.CommandVersion})
	c.must(state.KindMemberActivate, state.MemberActivate{ID: id})
	m, _ := c.tables.View().Member(id)
	return m
}

func (c *cluster) clock() time.Time { return c.now.Add(c.skew) }

func (c *cluster) ID() string { return "id-1" }

func (c *cluster) Read(context.Context) (*raftstore.View, error) {
	return &raftstore.View{View: c.tables.View(), Leader: "id-1"}, nil
}

func (c *cluster) Basis(ctx context.Context) (*raftstore.View, error) { return c.Read(ctx) }

// Propose stamps the command with the leader's clock and applies it.
func (c *cluster) Propose(_ context.Context, cmd state.Command) (state.Result, error) {
	cmd.Time = c.now
	entry, err := state.EncodeEntry([]state.Command{cmd})
	if err != nil {
		return state.Result{}, err
	}
	c.index++
	results, _, err := c.tables.Apply(c.index, 1, entry)
	if err != nil {
		return state.Result{}, err
	}
	if results[0].Err != nil {
		return results[0], results[0].Err
	}
	return results[0], nil
}

func (c *cluster) service() *Service {
	return New(c, c.clock, slog.New(slog.NewTextHandler(&c.logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

func requireReason(t *testing.T, err error, want api.Reason) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, expected reason %s", err, want)
	}
}

func TestIssueGivesATokenThatAdmitsItsName(t *testing.T) {
	c := newCluster(t)
	c.enable()
	token, err := c.service().Issue(t.Context(), "node2", &api.EventRequestor{Username: "root", Protocol: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := api.ParseJoinToken(Text(token).String())
	if err != nil {
		t.Fatal(err)
	}
	want := &api.ClusterMemberJoinToken{
		ServerName: "node2", Fingerprint: c.pair.Fingerprint(), Addresses: []string{"10.1.0.1:8443"},
		Secret: token.Secret, ExpiresAt: c.now.Add(3 * time.Hour),
	}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("token text (-want +got):\n%s", diff)
	}
	if len(token.Secret) != 64 || strings.Trim(token.Secret, "0123456789abcdef") != "" {
		t.Errorf("the secret is %q, expected 64 hex digits", token.Secret)
	}
	stored, ok := c.tables.View().Token(Hash(token.Secret))
	if !ok || stored.Operation != token.Operation || stored.Issuer != "id-1" {
		t.Errorf("stored token is %v", stored)
	}
}

func TestIssueRefusals(t *testing.T) {
	c := newCluster(t)
	s := c.service()
	_, err := s.Issue(t.Context(), "node2", nil)
	requireReason(t, err, api.NotClustered)
	c.enable()
	_, err = s.Issue(t.Context(), "bad name", nil)
	requireReason(t, err, api.NameInvalid)
	_, err = s.Issue(t.Context(), "node1", nil)
	requireReason(t, err, api.NameTaken)
	if want := "The cluster already has a member with name: node1"; api.AsError(err).Message != want {
		t.Errorf("text is %q, expected %q", err, want)
	}
}

func TestNewestTokenOfANameWins(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	first, err := s.Issue(t.Context(), "node2", nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Issue(t.Context(), "node2", nil)
	if err != nil {
		t.Fatal(err)
	}
	joiner := c.newPair()
	_, err = s.Claim(t.Context(), Text(first), joiner.Cert, true, nil)
	requireReason(t, err, api.TokenRevoked)
	if _, err = s.Claim(t.Context(), Text(second), joiner.Cert, true, nil); err != nil {
		t.Fatal(err)
	}
}

func TestTokenAdmitsOneOfTwoJoiners(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	token, err := s.Issue(t.Context(), "node2", nil)
	if err != nil {
		t.Fatal(err)
	}
	first, second := c.newPair(), c.newPair()
	for range 2 { // once more, since an answer may be lost
		claimed, err := s.Claim(t.Context(), Text(token), first.Cert, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		if claimed.ClaimedBy != first.Fingerprint() || claimed.Secret != "" {
			t.Errorf("claimed token is %+v", claimed)
		}
		_, err = s.Claim(t.Context(), Text(token), second.Cert, true, nil)
		requireReason(t, err, api.TokenClaimed)
	}
	c.now = c.now.Add(state.ClaimTime)
	if _, err := s.Claim(t.Context(), Text(token), second.Cert, true, nil); err != nil {
		t.Fatalf("the claim ran out, but: %v", err)
	}
}

func TestUnprovedClaimDoesNotReplaceAnother(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	joiner := c.newPair()
	first, err1 := s.Issue(t.Context(), "node2", nil)
	second, err2 := s.Issue(t.Context(), "node3", nil)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(t.Context(), Text(first), joiner.Cert, true, nil); err != nil {
		t.Fatal(err)
	}
	_, err := s.Claim(t.Context(), Text(second), joiner.Cert, false, nil)
	requireReason(t, err, api.CertTaken)
	if _, err := s.Claim(t.Context(), Text(second), joiner.Cert, true, nil); err != nil {
		t.Fatal(err)
	}
}

func TestClaimRefusalsBurnNothing(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	token, err := s.Issue(t.Context(), "node2", nil)
	if err != nil {
		t.Fatal(err)
	}
	joiner := c.newPair()
	early, err := trust.GenerateAt(c.now.Add(time.Hour), trust.Server)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*api.ClusterMemberJoinToken)
		cert   *x509.Certificate
		reason api.Reason
	}{
		{"unknown secret", func(j *api.ClusterMemberJoinToken) { j.Secret = strings.Repeat("0", 64) }, joiner.Cert, api.TokenUnknown},
		{"wrong name", func(j *api.ClusterMemberJoinToken) { j.ServerName = "node3" }, joiner.Cert, api.TokenWrongName},
		{"wrong cluster", func(j *api.ClusterMemberJoinToken) { j.Fingerprint = strings.Repeat("ab", 32) }, joiner.Cert, api.FingerprintMatch},
		{"clock behind", func(*api.ClusterMemberJoinToken) {}, early.Cert, api.ClockSkew},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := c.index
			text := Text(token)
			tt.change(text)
			_, err := s.Claim(t.Context(), text, tt.cert, true, nil)
			requireReason(t, err, tt.reason)
			if c.index != before {
				t.Errorf("the refusal was written to the log")
			}
		})
	}
	if _, err := s.Claim(t.Context(), Text(token), joiner.Cert, true, nil); err != nil {
		t.Fatalf("after the refusals: %v", err)
	}
}

func TestOnlyTheHolderOfTheSecretIsToldWhatBecameOfAToken(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	revoked, err := s.Issue(t.Context(), "node2", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(t.Context(), revoked.Operation, nil); err != nil {
		t.Fatal(err)
	}
	expired, err := s.Issue(t.Context(), "node3", nil)
	if err != nil {
		t.Fatal(err)
	}
	used, err := s.Issue(t.Context(), "node4", nil)
	if err != nil {
		t.Fatal(err)
	}
	first := c.newPair()
	if _, err := s.Claim(t.Context(), Text(used), first.Cert, true, nil); err != nil {
		t.Fatal(err)
	}
	c.must(state.KindMemberAdmit, state.MemberAdmit{ID: "id-4", Fingerprint: first.Fingerprint(), Name: "node4", Address: "10.1.0.4:8443", CommandVersion: 1})
	c.must(state.KindMemberActivate, state.MemberActivate{ID: "id-4"})
	c.now = c.now.Add(3 * time.Hour)

	joiner := c.newPair()
	for reason, token := range map[api.Reason]*state.Token{api.TokenRevoked: revoked, api.TokenExpired: expired, api.TokenUsed: used} {
		_, err = s.Claim(t.Context(), Text(token), joiner.Cert, true, nil)
		requireReason(t, err, reason)
		guess := Text(token)
		guess.Secret = newSecret()
		_, err = s.Claim(t.Context(), guess, joiner.Cert, true, nil)
		requireReason(t, err, api.TokenUnknown)
	}
	requireReason(t, s.Revoke(t.Context(), revoked.Operation, nil), api.BadRequest)
	requireReason(t, s.Revoke(t.Context(), uuid.NewString(), nil), api.NotFound)
}

func TestLeadersClockJudgesExpiry(t *testing.T) {
	c := newCluster(t)
	c.enable()
	token, err := c.service().Issue(t.Context(), "node2", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.skew = 4 * time.Hour // this member's clock is ahead
	if _, err := c.service().Claim(t.Context(), Text(token), c.newPair().Cert, true, nil); err != nil {
		t.Fatalf("refused by the wrong clock: %v", err)
	}
}

func TestInspectNamesAllProblems(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	token, err := s.Issue(t.Context(), "node2", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(t.Context(), Text(token), c.newPair().Cert, true, nil); err != nil {
		t.Fatal(err)
	}
	text := Text(token)
	text.ServerName, text.Fingerprint = "node9", strings.Repeat("00", 32)
	view, _ := c.Read(t.Context())
	_, problems := Inspect(view, text, "another", c.now)
	var reasons []api.Reason
	for _, p := range problems {
		reasons = append(reasons, p.Reason)
	}
	if diff := cmp.Diff([]api.Reason{api.FingerprintMatch, api.TokenWrongName, api.TokenClaimed}, reasons); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

func TestTokenStaysSmallWithManyMembers(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	for i := 2; i <= 200; i++ {
		c.join(s, fmt.Sprintf("node%d", i), fmt.Sprintf("a-server-with-a-long-name-%03d.rack-7.datacentre.example.org:8443", i))
	}
	c.servers = append(c.servers, state.Server{ID: "id-node150", Voter: true}, state.Server{ID: "id-node160", Voter: true}, state.Server{ID: "id-node2"})
	c.tables.SetServers(c.servers)
	c.must(state.KindMemberRole, state.MemberRole{Changes: []state.RoleChange{{ID: "id-node100", Role: state.RoleStandby}}})
	c.must(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: "id-node160", Offline: true, Since: c.now}, {ID: "id-node2", Offline: true, Since: c.now}}})

	token, err := s.Issue(t.Context(), strings.Repeat("n", api.MaxName), nil)
	if err != nil {
		t.Fatal(err)
	}
	if size := len(Text(token).String()); size > MaxText || size < MaxText-120 {
		t.Errorf("the text has %d bytes, expected nearly %d", size, MaxText)
	}
	var numbers []string
	for _, a := range token.Addresses {
		numbers = append(numbers, strings.TrimSuffix(strings.TrimPrefix(a, "a-server-with-a-long-name-"), ".rack-7.datacentre.example.org:8443"))
	}
	if diff := cmp.Diff([]string{"10.1.0.1:8443", "150", "100", "003"}, numbers[:4]); diff != "" {
		t.Errorf("addresses: voters, then stand-bys, then others, all online (-want +got):\n%s", diff)
	}
}

func TestAddressesFallBackToOfflineMembers(t *testing.T) {
	c := newCluster(t)
	c.enable()
	c.must(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: "id-1", Offline: true, Since: c.now}}})
	token, err := c.service().Issue(t.Context(), "node2", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(token.Addresses) != 1 {
		t.Errorf("addresses are %q", token.Addresses)
	}
}

func TestOperationHasUpstreamsShape(t *testing.T) {
	at := time.Date(2026, 11, 22, 5, 57, 36, 453903969, time.UTC)
	token := &state.Token{
		Secret: "662a1e3548bd8ff48b10d3772141ab996e6c2bb614c1ee7c932848a2934932ce", Name: "goldC",
		Operation: "c7118616-9b31-468c-8b18-448d072698bc", Issuer: "id-1",
		Fingerprint: "16d8e5dc392d7d9866e731bc5dfad8f6af172c6964b5113e28ad3f3de9addc9c",
		Addresses:   []string{"127.0.0.11:8443", "127.0.0.12:8443", "127.0.0.13:8443"},
		CreatedAt:   at, ExpiresAt: time.Date(2026, 11, 22, 8, 57, 36, 448313321, time.UTC),
	}
	op := Operation(token, "node1", true)
	got, err := json.Marshal(op)
	if err != nil {
		t.Fatal(err)
	}
	// The metadata of spec/examples/http-get-token-op.out.
	const want = `{"id":"c7118616-9b31-468c-8b18-448d072698bc","class":"token","description":"Executing operation","created_at":"2026-11-22T05:57:36.453903969Z","updated_at":"2026-11-22T05:57:36.453903969Z","status":"Running","status_code":103,"resources":{"cluster":null},"metadata":{"addresses":["127.0.0.11:8443","127.0.0.12:8443","127.0.0.13:8443"],"expiresAt":"2026-11-22T08:57:36.448313321Z","fingerprint":"16d8e5dc392d7d9866e731bc5dfad8f6af172c6964b5113e28ad3f3de9addc9c","secret":"662a1e3548bd8ff48b10d3772141ab996e6c2bb614c1ee7c932848a2934932ce","serverName":"goldC"},"may_cancel":true,"err":"","location":"node1"}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("operation (-want +got):\n%s", diff)
	}
	text, err := op.JoinToken()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Text(token), text); diff != "" {
		t.Errorf("token of the operation (-want +got):\n%s", diff)
	}
	if hidden := Operation(token, "node1", false); hidden.Metadata["secret"] != nil {
		t.Error("the secret is shown to somebody who must not see it")
	}
}

func TestEndedTokensLingerAsOperations(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	revoked, err := s.Issue(t.Context(), "node2", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.join(s, "node3", "10.1.0.3:8443")
	if err := s.Revoke(t.Context(), revoked.Operation, nil); err != nil {
		t.Fatal(err)
	}
	view, _ := c.Read(t.Context())
	got := make(map[string]string)
	for _, op := range Operations(view, c.now.Add(Lingering-1)) {
		got[op.Metadata["serverName"].(string)] = op.Status + " at " + op.Location
		if op.Metadata["secret"] != nil {
			t.Errorf("the secret of an ended token is shown")
		}
	}
	if diff := cmp.Diff(map[string]string{"node2": "Cancelled at node1", "node3": "Success at node1"}, got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	if ops := Operations(view, c.now.Add(Lingering)); len(ops) != 0 {
		t.Errorf("%d operations are still there", len(ops))
	}
}

func TestSecretsDoNotReachTheLog(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	token, err := s.Issue(t.Context(), "node2", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(t.Context(), Text(token), c.newPair().Cert, true, nil); err != nil {
		t.Fatal(err)
	}
	_, err = s.Claim(t.Context(), Text(token), c.newPair().Cert, true, nil)
	requireReason(t, err, api.TokenClaimed)
	if err := s.Revoke(t.Context(), token.Operation, nil); err != nil {
		t.Fatal(err)
	}
	if text := c.logs.String(); text == "" || strings.Contains(text, token.Secret) {
		t.Errorf("log is %s", text)
	}
}

func TestAddressesLeaveOutMembersInMaintenance(t *testing.T) {
	c := newCluster(t)
	c.enable()
	s := c.service()
	c.join(s, "node2", "10.1.0.2:8443")
	c.join(s, "node3", "10.1.0.3:8443")
	c.must(state.KindMemberMaintenance, state.MemberMaintenance{ID: "id-1", To: state.MaintenanceEvacuating})
	c.must(state.KindMemberStopping, state.MemberStopping{ID: "id-node2", Stopping: true})
	token, err := s.Issue(t.Context(), "node4", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"10.1.0.3:8443"}, token.Addresses); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	c.must(state.KindMemberStopping, state.MemberStopping{ID: "id-node3", Stopping: true})
	if token, err = s.Issue(t.Context(), "node4", nil); err != nil || len(token.Addresses) != 3 {
		t.Errorf("with nobody else, addresses are %q, %v", token.Addresses, err)
	}
}

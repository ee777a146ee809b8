package state

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"incusd/api"
)

func TestTokenClaimTruthTable(t *testing.T) {
	tests := []struct {
		name  string
		given func(w *world) // the token "t" for node2 is there
		claim TokenClaim
		want  api.Reason
	}{
		{name: "live", claim: claimBody("t", "node2", "fp2")},
		{name: "unknown", claim: claimBody("x", "node2", "fp2"), want: api.TokenUnknown},
		{name: "wrong name", claim: claimBody("t", "node3", "fp2"), want: api.TokenWrongName},
		{name: "without certificate", claim: TokenClaim{Hash: "t", Name: "node2", Fingerprint: "fp2"}, want: api.CertInvalid},
		{name: "without fingerprint", claim: TokenClaim{Hash: "t", Name: "node2", Certificate: "c"}, want: api.BadRequest},
		{name: "same server again", given: func(w *world) { w.claim("t", "node2", "fp2") }, claim: claimBody("t", "node2", "fp2")},
		{name: "another server meanwhile", given: func(w *world) { w.claim("t", "node2", "fp3") },
			claim: claimBody("t", "node2", "fp2"), want: api.TokenClaimed},
		{name: "another server to the last moment", given: func(w *world) {
			w.claim("t", "node2", "fp3")
			w.now = w.now.Add(ClaimTime - 1)
		}, claim: claimBody("t", "node2", "fp2"), want: api.TokenClaimed},
		{name: "another server's claim has run out", given: func(w *world) {
			w.claim("t", "node2", "fp3")
			w.now = w.now.Add(ClaimTime)
		}, claim: claimBody("t", "node2", "fp2")},
		{name: "another server was admitted", given: func(w *world) {
			w.claim("t", "node2", "fp3")
			w.admit("id3", "node2", "fp3")
			w.now = w.now.Add(100 * ClaimTime)
		}, claim: claimBody("t", "node2", "fp2"), want: api.TokenClaimed},
		{name: "used", given: func(w *world) {
			w.claim("t", "node2", "fp3")
			w.admit("id3", "node2", "fp3")
			w.must(KindMemberActivate, MemberActivate{ID: "id3"})
		}, claim: claimBody("t", "node2", "fp2"), want: api.TokenUsed},
		{name: "used by the same server", given: func(w *world) {
			w.claim("t", "node2", "fp2")
			w.admit("id2", "node2", "fp2")
			w.must(KindMemberActivate, MemberActivate{ID: "id2"})
		}, claim: claimBody("t", "node2", "fp2"), want: api.TokenUsed},
		{name: "revoked", given: func(w *world) { w.must(KindTokenRevoke, TokenRevoke{Operation: "op-t"}) },
			claim: claimBody("t", "node2", "fp2"), want: api.TokenRevoked},
		{name: "revoked says so before the wrong name", given: func(w *world) { w.must(KindTokenRevoke, TokenRevoke{Operation: "op-t"}) },
			claim: claimBody("t", "node3", "fp2"), want: api.TokenRevoked},
		{name: "replaced", given: func(w *world) { w.issue("t2", "node2") }, claim: claimBody("t", "node2", "fp2"), want: api.TokenRevoked},
		{name: "the last moment before expiry", given: func(w *world) { w.now = w.now.Add(3*time.Hour - 1) }, claim: claimBody("t", "node2", "fp2")},
		{name: "expired, not swept", given: func(w *world) { w.now = w.now.Add(3 * time.Hour) },
			claim: claimBody("t", "node2", "fp2"), want: api.TokenExpired},
		{name: "expired, swept", given: func(w *world) {
			w.now = w.now.Add(3 * time.Hour)
			w.must(KindLeaderSweep, LeaderSweep{})
		}, claim: claimBody("t", "node2", "fp2"), want: api.TokenExpired},
		{name: "expired while the same server claims", given: func(w *world) {
			w.now = w.now.Add(3*time.Hour - 1)
			w.claim("t", "node2", "fp2")
			w.now = w.now.Add(time.Second)
		}, claim: claimBody("t", "node2", "fp2"), want: api.TokenExpired},
		{name: "expired after the same server's admission", given: func(w *world) {
			w.claim("t", "node2", "fp2")
			w.admit("id2", "node2", "fp2")
			w.now = w.now.Add(4 * time.Hour)
			w.must(KindLeaderSweep, LeaderSweep{})
		}, claim: claimBody("t", "node2", "fp2")},
		{name: "certificate of an active member", claim: claimBody("t", "node2", "fp1"), want: api.CertTaken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newCluster(t)
			w.issue("t", "node2")
			if tt.given != nil {
				tt.given(w)
			}
			before := content(t, w.s.View())
			if err := w.refused(tt.want, KindTokenClaim, tt.claim); err != nil {
				if after := content(t, w.s.View()); after != before {
					t.Errorf("the refusal changed the state:\n%s\n%s", before, after)
				}
				return
			}
			w.happened()
			if got := w.token("t"); got.ClaimedBy != "fp2" || got.ClaimedCert != "cert-fp2" || got.Ended != "" {
				t.Errorf("claimed by %q with %q, ended %q", got.ClaimedBy, got.ClaimedCert, got.Ended)
			}
		})
	}
}

func TestTokenClaimIsRenewedByTheSameServer(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	w.now = w.now.Add(ClaimTime - 1)
	w.claim("t", "node2", "fp2")
	if got := w.token("t").ClaimUntil; !got.Equal(w.now.Add(ClaimTime)) {
		t.Errorf("the claim holds until %v, want %v", got, w.now.Add(ClaimTime))
	}
}

func TestTokenClaimAnswersWithoutTheSecret(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	var got Token
	if err := json.Unmarshal(w.must(KindTokenClaim, claimBody("t", "node2", "fp2")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Secret != "" || got.Hash != "t" || got.ClaimedBy != "fp2" {
		t.Errorf("the answer is for %s, claimed by %s, and its secret is %q", got.Hash, got.ClaimedBy, got.Secret)
	}
	if w.token("t").Secret == "" {
		t.Error("the token lost its secret with the answer's")
	}
}

func TestTokenClaimReleasesTheServersOtherToken(t *testing.T) {
	w := newCluster(t)
	w.issue("t2", "node2")
	w.issue("t3", "node3")
	w.claim("t2", "node2", "fp")
	w.claim("t3", "node3", "fp")
	w.free("t2")
	if got, ok := w.s.View().TokenByClaim("fp"); !ok || got.Hash != "t3" {
		t.Errorf("the server claims %v", got)
	}
}

func TestTokenClaimEndsTheServersJoinUnderAnotherToken(t *testing.T) {
	w := newCluster(t)
	w.issue("t2", "node2")
	w.issue("t3", "node3")
	w.claim("t2", "node2", "fp")
	w.admit("idA", "node2", "fp")
	w.claim("t3", "node3", "fp")
	w.free("t2")
	w.noMember("idA")
	w.refused(api.JoinAborted, KindMemberActivate, MemberActivate{ID: "idA"})
}

// Certificates are public: whoever has some token must not end another server's join.
func TestUnprovedTokenClaimLeavesTheServersOtherClaim(t *testing.T) {
	w := newCluster(t)
	w.issue("t2", "node2")
	w.issue("t3", "node3")
	unproved := claimBody("t3", "node3", "fp")
	unproved.Proved = false

	w.claim("t2", "node2", "fp")
	w.refused(api.CertTaken, KindTokenClaim, unproved)
	w.admit("idA", "node2", "fp")
	w.now = w.now.Add(ClaimTime)
	w.refused(api.CertTaken, KindTokenClaim, unproved)
	w.free("t3")
	w.must(KindMemberActivate, MemberActivate{ID: "idA"})
}

func TestUnprovedTokenClaimTakesTheOneThatRanOut(t *testing.T) {
	w := newCluster(t)
	w.issue("t2", "node2")
	w.issue("t3", "node3")
	w.claim("t2", "node2", "fp")
	w.now = w.now.Add(ClaimTime)
	unproved := claimBody("t3", "node3", "fp")
	unproved.Proved = false
	w.must(KindTokenClaim, unproved)
	w.must(KindTokenClaim, unproved)
	w.free("t2")
}

func TestTokenOfRacingJoinersAdmitsOne(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.claim("t", "node2", "fpA")
	w.refused(api.TokenClaimed, KindTokenClaim, claimBody("t", "node2", "fpB"))
	w.refused(api.TokenNotClaimed, KindMemberAdmit, admitBody("idB", "node2", "fpB"))
	w.admit("idA", "node2", "fpA")
	w.must(KindMemberActivate, MemberActivate{ID: "idA"})
	w.refused(api.TokenUsed, KindTokenClaim, claimBody("t", "node2", "fpB"))
	if n := len(w.s.View().Members()); n != 2 {
		t.Errorf("%d members", n)
	}
}

func TestTokenIssue(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.happened("cluster-token-created /1.0/cluster/members +t")
	v := w.s.View()
	if got, ok := v.TokenByName("node2"); !ok || got.Secret != "secret-t" {
		t.Errorf("by name: %v", got)
	}
	if got, ok := v.TokenByOperation("op-t"); !ok || got.Hash != "t" {
		t.Errorf("by operation: %v", got)
	}
}

func TestTokenIssueTakesNoForgedFields(t *testing.T) {
	w := newCluster(t)
	b := w.tokenBody("t", "node2")
	b.Token.ClaimedBy, b.Token.ClaimedCert, b.Token.ClaimUntil = "fp9", "c", w.now
	b.Token.Ended, b.Token.EndedAt, b.Token.UsedBy = TokenUsed, w.now, "id9"
	w.must(KindTokenIssue, b)
	w.free("t")
}

func TestTokenIssueRefusals(t *testing.T) {
	w := newWorld(t)
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
	w.refused(api.NotClustered, KindTokenIssue, w.tokenBody("t", "node2"))
	w.must(KindClusterEnable, enableBody())
	w.says(api.NameTaken, "The cluster already has a member with name: node1", KindTokenIssue, w.tokenBody("t", "node1"))
	w.refused(api.NameInvalid, KindTokenIssue, w.tokenBody("t", "a/b"))
	w.refused(api.BadRequest, KindTokenIssue, w.tokenBody("", "node2"))
	w.refused(api.BadRequest, KindTokenIssue, w.tokenBody("a\x00b", "node2"))
	w.issue("t", "node2")
	w.refused(api.Conflict, KindTokenIssue, w.tokenBody("t", "node3"))
	b := w.tokenBody("t3", "node3")
	b.Token.Operation = "op-t"
	w.refused(api.Conflict, KindTokenIssue, b)
	w.free("t")
}

func TestTokenIssueReplacesTheEarlierTokenAndItsJoin(t *testing.T) {
	w := newCluster(t)
	w.issue("t1", "node2")
	w.claim("t1", "node2", "fp2")
	w.admit("id2", "node2", "fp2")
	w.issue("t2", "node2")
	w.happened("operation-cancelled /1.0/operations/op-t1 +t1", "cluster-token-created /1.0/cluster/members +t2")
	w.ended("t1", TokenRevoked)
	w.noMember("id2")
	w.refused(api.TokenRevoked, KindMemberAdmit, admitBody("id3", "node2", "fp2"))
	w.refused(api.JoinAborted, KindMemberActivate, MemberActivate{ID: "id2"})
	w.claim("t2", "node2", "fp2")
	w.admit("id3", "node2", "fp2")
}

func TestTokenIssueIsLimited(t *testing.T) {
	w := newCluster(t)
	for i := range MaxTokens {
		w.issue(fmt.Sprintf("t%d", i), fmt.Sprintf("m%d", i))
	}
	w.refused(api.TooMany, KindTokenIssue, w.tokenBody("t", "node2"))
	w.issue("again", "m7") // replaces one
	w.ended("t7", TokenRevoked)
	w.must(KindTokenRevoke, TokenRevoke{Operation: "op-t8"})
	w.issue("t", "node2")
}

func TestTokenRevoke(t *testing.T) {
	w := newCluster(t)
	w.says(api.NotFound, "Operation not found", KindTokenRevoke, TokenRevoke{Operation: "op-t"})
	w.says(api.NotFound, "Operation not found", KindTokenRevoke, TokenRevoke{})
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	w.admit("id2", "node2", "fp2")
	w.must(KindTokenRevoke, TokenRevoke{Operation: "op-t"})
	w.happened("operation-cancelled /1.0/operations/op-t +t")
	w.ended("t", TokenRevoked)
	w.noMember("id2")
	if _, ok := w.s.View().TokenByClaim("fp2"); ok {
		t.Error("the claim outlived the token")
	}
	w.says(api.BadRequest, "Only running operations can be cancelled", KindTokenRevoke, TokenRevoke{Operation: "op-t"})
	w.refused(api.TokenRevoked, KindMemberAdmit, admitBody("id3", "node2", "fp2"))
}

func TestSweepEndsExpiredTokensAndReleasesClaims(t *testing.T) {
	w := newCluster(t)
	w.issue("old", "node2")
	w.now = w.now.Add(time.Hour)
	w.issue("claimed", "node3")
	w.claim("claimed", "node3", "fp3")
	forever := w.tokenBody("forever", "node4")
	forever.Token.ExpiresAt = time.Time{}
	w.must(KindTokenIssue, forever)

	w.now = w.now.Add(ClaimTime)
	w.must(KindLeaderSweep, LeaderSweep{})
	w.happened()
	w.free("claimed")
	w.free("old")

	w.now = start.Add(3 * time.Hour)
	w.must(KindLeaderSweep, LeaderSweep{})
	w.happened("+old")
	w.ended("old", TokenExpired)
	w.free("claimed")

	w.now = start.Add(1000 * time.Hour)
	w.must(KindLeaderSweep, LeaderSweep{})
	w.free("forever")
	if _, ok := w.s.View().Token("old"); ok {
		t.Error("the tombstone is remembered for ever")
	}
}

func TestSweepRemovesLostJoinersOnly(t *testing.T) {
	w := newCluster(t)
	for _, name := range []string{"node2", "node3"} {
		w.issue("t-"+name, name)
		w.claim("t-"+name, name, "fp-"+name)
		w.admit("id-"+name, name, "fp-"+name)
	}
	lost := LeaderSweep{Lost: []string{"id-node2", "id-unknown", "id1"}}
	w.now = w.now.Add(JoinTime - 1)
	w.must(KindLeaderSweep, lost)
	w.member("id-node2")
	w.now = w.now.Add(1)
	w.must(KindLeaderSweep, lost)
	w.noMember("id-node2")
	w.free("t-node2")
	w.member("id-node3")
	w.member("id1")

	w.now = w.now.Add(24 * time.Hour) // the token's end does not matter while one joins under it
	w.must(KindLeaderSweep, LeaderSweep{})
	w.must(KindMemberActivate, MemberActivate{ID: "id-node3"})
}

func TestSweepExpiresTheTokenOfALostJoiner(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	w.admit("id2", "node2", "fp2")
	w.now = w.now.Add(4 * time.Hour)
	w.must(KindLeaderSweep, LeaderSweep{Lost: []string{"id2"}})
	w.happened("+t")
	w.ended("t", TokenExpired)
	w.noMember("id2")
}

func TestTombstonesAreBounded(t *testing.T) {
	w := newCluster(t)
	for i := range MaxTombstones + 5 {
		w.now = w.now.Add(time.Second)
		w.issue(fmt.Sprintf("t%d", i), "node2")
	}
	w.must(KindTokenRevoke, TokenRevoke{Operation: fmt.Sprintf("op-t%d", MaxTombstones+4)})
	v := w.s.View()
	if n := len(v.Tokens()); n != MaxTombstones {
		t.Errorf("%d tombstones, want %d", n, MaxTombstones)
	}
	if _, ok := v.Token("t4"); ok {
		t.Error("an old tombstone stayed")
	}
	if _, ok := v.Token("t5"); !ok {
		t.Error("a younger tombstone went")
	}
	w.refused(api.TokenUnknown, KindTokenClaim, claimBody("t4", "node2", "fp2"))
	w.refused(api.TokenRevoked, KindTokenClaim, claimBody("t5", "node2", "fp2"))
}

func TestTokensAreListedByCreation(t *testing.T) {
	w := newCluster(t)
	for _, hash := range []string{"c", "a", "b"} {
		w.issue(hash, "node-"+hash)
		if hash != "a" {
			w.now = w.now.Add(time.Second)
		}
	}
	var got []string
	for _, tok := range w.s.View().Tokens() {
		got = append(got, tok.Hash)
	}
	if fmt.Sprint(got) != "[c a b]" {
		t.Errorf("order %v", got)
	}
}

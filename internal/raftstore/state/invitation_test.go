package state

import (
	"strings"
	"testing"
	"time"

	"incusd/api"
)

func inviteBody(hash, client string) TokenInvite {
	return TokenInvite{Token: Token{
		Hash: hash, Secret: "secret-" + hash, Name: client, Operation: "op-" + hash, Issuer: "id1", Fingerprint: "f", Addresses: []string{"a"},
		CreatedAt: start, ExpiresAt: start.Add(time.Hour), Client: &ClientGrant{Restricted: true, Projects: []string{"default"}, Description: "text"},
	}}
}

func redeemBody(hash, fp string) TokenRedeem {
	return TokenRedeem{Hash: hash, Certificate: Certificate{Fingerprint: fp, PEM: "pem", Name: "mine", Type: api.CertificateServer, Projects: []string{"all"}}}
}

func TestInvitationGivesWhatItSaysToOneClient(t *testing.T) {
	w := newCluster(t)
	w.must(KindTokenInvite, inviteBody("t", "laptop"))
	w.must(KindTokenRedeem, redeemBody("t", "fp9"))
	w.happened("certificate-created /1.0/certificates/fp9", "+t")
	c, ok := w.s.View().Certificate("fp9")
	if !ok || c.Name != "laptop" || c.Type != api.CertificateClient || !c.Restricted || len(c.Projects) != 1 || c.Projects[0] != "default" || c.Description != "text" || c.PEM != "pem" {
		t.Errorf("certificate %+v", c)
	}
	token, _ := w.s.View().Token("t")
	if token.Ended != TokenUsed || token.UsedBy != "fp9" || token.Secret != "" {
		t.Errorf("token %+v", token)
	}
	w.must(KindTokenRedeem, redeemBody("t", "fp9")) // its answer was lost
	w.says(api.TokenUsed, "Certificate add token has been used", KindTokenRedeem, redeemBody("t", "fp8"))
	w.must(KindCertificateRemove, CertificateRemove{Fingerprint: "fp9"})
	w.refused(api.TokenUsed, KindTokenRedeem, redeemBody("t", "fp9")) // it does not come back by it
}

func TestRefusedRedemptionBurnsNothing(t *testing.T) {
	w := newCluster(t)
	w.must(KindTokenInvite, inviteBody("t", "laptop"))
	w.must(KindCertificateAdd, certBody("fp9"))
	w.refused(api.CertTaken, KindTokenRedeem, redeemBody("t", "fp9"))
	w.refused(api.CertTaken, KindTokenRedeem, redeemBody("t", "fp1")) // a member's
	w.refused(api.BadRequest, KindTokenRedeem, redeemBody("t", ""))
	if token, _ := w.s.View().Token("t"); token.Ended != "" || token.Secret == "" {
		t.Errorf("token %+v", token)
	}
	w.must(KindTokenRedeem, redeemBody("t", "fp8"))
}

func TestInvitationsEnd(t *testing.T) {
	w := newCluster(t)
	for _, hash := range []string{"revoked", "late", "swept"} {
		w.must(KindTokenInvite, inviteBody(hash, "laptop")) // one name, three tokens
	}
	w.must(KindTokenRevoke, TokenRevoke{Operation: "op-revoked"})
	w.says(api.TokenRevoked, "Certificate add token has been revoked", KindTokenRedeem, redeemBody("revoked", "fp9"))
	w.says(api.TokenUnknown, "No matching certificate add operation found", KindTokenRedeem, redeemBody("nothing", "fp9"))
	w.now = start.Add(time.Hour)
	w.says(api.TokenExpired, "Certificate add token has expired", KindTokenRedeem, redeemBody("late", "fp9"))
	w.must(KindLeaderSweep, LeaderSweep{})
	if token, _ := w.s.View().Token("swept"); token.Ended != TokenExpired || token.Secret != "" {
		t.Errorf("token %+v", token)
	}
}

// A token of one kind is nothing to the other, and does not stand in its way.
func TestInvitationsAndJoinTokensAreNothingToEachOther(t *testing.T) {
	w := newCluster(t)
	w.must(KindTokenInvite, inviteBody("client", "node2"))
	w.issue("t", "node2")
	w.refused(api.TokenUnknown, KindTokenClaim, claimBody("client", "node2", "fp2"))
	w.refused(api.TokenUnknown, KindTokenRedeem, redeemBody("t", "fp2"))
	if token, ok := w.s.View().TokenByName("node2"); !ok || token.Hash != "t" {
		t.Errorf("the live token of node2 is %+v", token)
	}
	w.must(KindTokenClaim, claimBody("t", "node2", "fp2"))
	w.must(KindTokenRedeem, redeemBody("client", "fp3"))
}

func TestInvitationRefusals(t *testing.T) {
	w := newWorld(t)
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
	w.must(KindTokenInvite, inviteBody("alone", "laptop")) // also by a standalone server
	w.says(api.BadRequest, "A client name is required", KindTokenInvite, inviteBody("t", ""))
	w.refused(api.Conflict, KindTokenInvite, inviteBody("alone", "laptop"))
	b := inviteBody("t", "laptop")
	b.Token.Client = nil
	w.refused(api.BadRequest, KindTokenInvite, b)
	b = inviteBody("t", strings.Repeat("x", MaxCertificateText+1))
	w.refused(api.TooLarge, KindTokenInvite, b)
	b = inviteBody("t", "laptop")
	b.Token.Client.Projects = make([]string, MaxCertificateText+1)
	w.refused(api.TooLarge, KindTokenInvite, b)
}

// A token stays what it is when the cluster's certificate or key is replaced.
func TestInvitationsOutliveARotation(t *testing.T) {
	w := newCluster(t)
	w.must(KindTokenInvite, inviteBody("t", "node2"))
	w.must(KindClusterCert, w.rotateBody("cert-a"))
	if token, _ := w.s.View().Token("t"); token.Fingerprint != "fp-of-cert-a" || token.Client == nil {
		t.Errorf("after an endorsed one: %+v", token)
	}
	w.must(KindClusterCert, w.freshBody("cert-b", "t"))
	w.happened("operation-cancelled /1.0/operations/op-t", "+t", "certificate-token-created /1.0/certificates", "+t-new", "cluster-certificate-updated /1.0/cluster/certificate")
	if token, _ := w.s.View().Token("t-new"); token.Fingerprint != "fp-of-cert-b" || token.Client == nil || !token.Client.Restricted {
		t.Errorf("after a new key: %+v", token)
	}
	w.refused(api.TokenUnknown, KindTokenClaim, claimBody("t-new", "node2", "fp2"))
	w.must(KindTokenRedeem, redeemBody("t-new", "fp9"))
	w.must(KindTokenInvite, inviteBody("late", "laptop"))
	if token, _ := w.s.View().Token("late"); token.Fingerprint != "fp-of-cert-b" {
		t.Errorf("the certificate was replaced before it was issued, and it names %s", token.Fingerprint)
	}
}

package state

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"incusd/api"
)

// rotateBody is a planned replacement of the certificate that the cluster has now.
func (w *world) rotateBody(name string) ClusterCertificate {
	return ClusterCertificate{
		Expect: w.s.View().Cluster().CertificateHash(), Certificate: name, Key: "key-of-" + name, Fingerprint: "fp-of-" + name,
		Endorsement: "endorsement-of-" + name, Until: w.now.AddDate(1, 0, 0),
	}
}

// freshBody is another key for the cluster, with the tokens of hashes issued anew.
func (w *world) freshBody(name string, hashes ...string) ClusterCertificate {
	b := w.rotateBody(name)
	b.Endorsement, b.Until = "", time.Time{}
	for _, h := range hashes {
		b.Reissue = append(b.Reissue, TokenReissue{Hash: h, NewHash: h + "-new", NewSecret: "secret-of-" + h, NewOperation: "new-op-" + h})
	}
	return b
}

func TestCertificateIsReplacedAndTheChainLeadsToIt(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	old := w.s.View().Cluster().Certificate
	b := w.rotateBody("cert-a")
	b.Supplied = true
	w.must(KindClusterCert, b)
	w.happened("+t", "cluster-certificate-updated /1.0/cluster/certificate")
	c := w.s.View().Cluster()
	if c.Certificate != "cert-a" || c.Key != "key-of-cert-a" || !c.Supplied {
		t.Errorf("the cluster has %q, %q, supplied %t", c.Certificate, c.Key, c.Supplied)
	}
	if len(c.Endorsements) != 1 || c.Endorsements[0] != (Endorsement{old, "endorsement-of-cert-a", b.Until}) {
		t.Errorf("endorsements: %+v", c.Endorsements)
	}
	// The token is the same one, and whoever lists it finds the certificate that is shown.
	if got, ok := w.s.View().Token("t"); !ok || got.Fingerprint != "fp-of-cert-a" || got.Ended != "" {
		t.Errorf("token: %+v", got)
	}
	w.must(KindClusterCert, w.rotateBody("cert-b"))
	if c := w.s.View().Cluster(); len(c.Endorsements) != 2 || c.Endorsements[1].Certificate != "cert-a" || c.Supplied {
		t.Errorf("after the second: supplied %t, %+v", c.Supplied, c.Endorsements)
	}
}

func TestChainForgetsWhatIsOverAndStaysShort(t *testing.T) {
	w := newCluster(t)
	for i := range MaxEndorsements + 2 {
		w.must(KindClusterCert, w.rotateBody(fmt.Sprintf("cert-%d", i)))
	}
	links := w.s.View().Cluster().Endorsements
	if len(links) != MaxEndorsements || links[0].Certificate != "cert-1" || links[3].Certificate != "cert-4" {
		t.Errorf("%d links: %+v", len(links), links)
	}
	// The one in the middle ends first: those before it lead nowhere.
	w = newCluster(t)
	w.must(KindClusterCert, w.rotateBody("cert-0"))
	short := w.rotateBody("cert-1")
	short.Until = w.now.Add(time.Hour)
	w.must(KindClusterCert, short)
	w.now = w.now.Add(2 * time.Hour)
	w.must(KindClusterCert, w.rotateBody("cert-2"))
	if links := w.s.View().Cluster().Endorsements; len(links) != 1 || links[0].Certificate != "cert-1" {
		t.Errorf("links: %+v", links)
	}
}

func TestCertificateRefusals(t *testing.T) {
	w := newWorld(t)
	w.must(KindClusterInit, ClusterInit{ClusterID: "c1", Member: firstBody()})
	w.refused(api.NotClustered, KindClusterCert, w.rotateBody("cert-a"))

	w = newCluster(t)
	w.issue("t", "node2")
	before := w.s.View().Cluster()
	stale := w.rotateBody("cert-a")
	w.must(KindClusterCert, w.rotateBody("cert-b"))
	w.says(api.Conflict, "The cluster's certificate was replaced meanwhile", KindClusterCert, stale)
	w.must(KindCertificateAdd, certBody("ab"))
	for _, fingerprint := range []string{"fp1", "ab"} {
		known := w.rotateBody("cert-c")
		known.Fingerprint = fingerprint
		w.says(api.CertInvalid, "The certificate is a member's or a client's own: with its key every member could pass for that one", KindClusterCert, known)
	}
	noKey := w.rotateBody("cert-c")
	noKey.Key = ""
	w.refused(api.BadRequest, KindClusterCert, noKey)
	w.says(api.Conflict, "The join tokens have changed meanwhile", KindClusterCert, w.freshBody("cert-c"))
	w.says(api.Conflict, "The join tokens have changed meanwhile", KindClusterCert, w.freshBody("cert-c", "other"))
	clash := w.freshBody("cert-c", "t")
	clash.Reissue[0].NewHash = "t"
	w.refused(api.Conflict, KindClusterCert, clash)
	if c := w.s.View().Cluster(); c.Certificate != "cert-b" || before.Certificate == "cert-b" {
		t.Errorf("a refusal changed the certificate: %s", c.Certificate)
	}
	if got, _ := w.s.View().Token("t"); got.Ended != "" {
		t.Errorf("a refusal ended the token: %+v", got)
	}
}

func TestFreshKeyLeadsNobodyOnAndChangesTheTokens(t *testing.T) {
	w := newCluster(t)
	w.must(KindClusterCert, w.rotateBody("cert-a"))
	w.issue("t", "node2")
	w.issue("t3", "node3")
	w.claim("t", "node2", "fp2")
	w.admit("id2", "node2", "fp2")
	w.now = w.now.Add(time.Minute)
	w.must(KindClusterCert, w.freshBody("cert-b", "t", "t3"))
	w.happened("operation-cancelled /1.0/operations/op-t +t", "cluster-token-created /1.0/cluster/members +t-new",
		"operation-cancelled /1.0/operations/op-t3 +t3", "cluster-token-created /1.0/cluster/members +t3-new",
		"cluster-certificate-updated /1.0/cluster/certificate")
	view := w.s.View()
	if c := view.Cluster(); len(c.Endorsements) != 0 {
		t.Errorf("endorsements: %+v", c.Endorsements)
	}
	if len(view.Joining()) != 0 {
		t.Error("a join under an old token goes on")
	}
	for _, hash := range []string{"t", "t3"} {
		if old, _ := view.Token(hash); old.Ended != TokenRevoked || old.Secret != "" {
			t.Errorf("the old token: %+v", old)
		}
		next, ok := view.Token(hash + "-new")
		if !ok || next.Ended != "" || next.Fingerprint != "fp-of-cert-b" || next.Secret != "secret-of-"+hash || next.ExpiresAt.IsZero() {
			t.Errorf("the new token: %+v", next)
		}
	}
	w.claim("t-new", "node2", "fp2")
}

// A token that was drafted before a rotation and applied after it names what is shown.
func TestTokenNamesTheCertificateThatIsShown(t *testing.T) {
	w := newCluster(t)
	w.must(KindClusterCert, w.freshBody("cert-a"))
	res := w.do(KindTokenIssue, TokenIssue{Token: Token{Hash: "t", Secret: "s", Name: "node2", Operation: "op", Fingerprint: "fp-of-before"}})
	if got, _ := w.s.View().Token("t"); res.Err != nil || got.Fingerprint != "fp-of-cert-a" || got.Secret != "s" {
		t.Errorf("%v, token %+v", res.Err, got)
	}
	if !strings.Contains(string(res.Value), "fp-of-cert-a") || strings.Contains(string(res.Value), `"secret"`) {
		t.Errorf("the answer is %s", res.Value)
	}
}

func TestRemovalMayAskForAnotherKey(t *testing.T) {
	w := newCluster(t)
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	w.admit("id2", "node2", "fp2")
	w.must(KindMemberActivate, MemberActivate{ID: "id2"})
	w.must(KindMemberRemove, MemberRemove{ID: "id2", RotateKey: true})
	w.must(KindMemberRemove, MemberRemove{ID: "id2"}) // the same command again, without it
	if w.s.View().Cluster().RotateKey {
		t.Error("the key is to be changed while the member is still there to receive it")
	}
	w.must(KindMemberLeave, MemberLeave{ID: "id2"})
	if !w.s.View().Cluster().RotateKey {
		t.Error("the removal asked for another key")
	}
	w.must(KindClusterCert, w.rotateBody("cert-a"))
	if !w.s.View().Cluster().RotateKey {
		t.Error("a key that the old one endorses is not what was asked for")
	}
	w.must(KindClusterCert, w.freshBody("cert-b"))
	if w.s.View().Cluster().RotateKey {
		t.Error("another key was made, and is still to be made")
	}
}

func TestMemberGetsAnotherCertificate(t *testing.T) {
	w := newCluster(t)
	body := func(expect, next string) MemberCertificate {
		return MemberCertificate{ID: "id1", Expect: expect, Certificate: "cert-of-" + next, Fingerprint: next, Endorsement: "e-" + next, Until: w.now.AddDate(10, 0, 0)}
	}
	w.must(KindMemberCert, body("fp1", "fp2"))
	w.happened("cluster-member-updated /1.0/cluster/members/node1")
	w.must(KindMemberCert, body("fp1", "fp2")) // the answer was lost
	w.happened()
	m := w.member("id1")
	if m.Certificate != "cert-of-fp2" || m.Fingerprint != "fp2" || m.Former != "fp1" || len(m.Endorsements) != 1 || m.Endorsements[0].Certificate != "cert1" {
		t.Errorf("the row is %+v", m)
	}
	for _, fp := range []string{"fp1", "fp2"} { // it may show either
		if got, ok := w.s.View().MemberByFingerprint(fp); !ok || got.ID != "id1" {
			t.Errorf("nobody is known by %s", fp)
		}
	}
	shown := body("", "fp2")
	shown.Shown = true
	w.must(KindMemberCert, shown)
	if _, ok := w.s.View().MemberByFingerprint("fp1"); ok || w.member("id1").Former != "" {
		t.Error("the former certificate is still good")
	}

	w.refused(api.Conflict, KindMemberCert, body("fp1", "fp3"))
	early := body("fp2", "fp3")
	early.Shown = true
	w.refused(api.Conflict, KindMemberCert, early)
	w.must(KindCertificateAdd, CertificateAdd{Certificate: Certificate{Fingerprint: "fp-laptop", Name: "laptop", Type: "client"}})
	w.refused(api.CertTaken, KindMemberCert, body("fp2", "fp-laptop"))
	other := body("fp2", "fp3")
	other.ID = "id9"
	w.refused(api.MemberNotFound, KindMemberCert, other)
	empty := body("fp2", "fp3")
	empty.Certificate = ""
	w.refused(api.BadRequest, KindMemberCert, empty)
}

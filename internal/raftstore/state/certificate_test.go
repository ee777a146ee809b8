package state

import (
	"fmt"
	"testing"

	"incusd/api"
)

func certBody(fp string) CertificateAdd {
	return CertificateAdd{Certificate: Certificate{Fingerprint: fp, Name: "laptop", Type: api.CertificateClient, PEM: "pem", AddedAt: start}}
}

func TestCertificateAddAndRemove(t *testing.T) {
	w := newCluster(t)
	v := w.s.View()
	w.must(KindCertificateAdd, certBody("ab"))
	w.happened("certificate-created /1.0/certificates/ab")
	if !closed(v.WatchMembers()) {
		t.Error("nobody was told")
	}
	if c, ok := w.s.View().Certificate("ab"); !ok || c.Name != "laptop" || c.Projects == nil {
		t.Errorf("certificate %+v", c)
	}
	w.says(api.CertTaken, "Certificate already in trust store", KindCertificateAdd, certBody("ab"))
	w.must(KindCertificateAdd, certBody("aa"))
	if list := w.s.View().Certificates(); len(list) != 2 || list[0].Fingerprint != "aa" {
		t.Errorf("list %v", list)
	}
	w.must(KindCertificateRemove, CertificateRemove{Fingerprint: "ab"})
	w.happened("certificate-deleted /1.0/certificates/ab")
	w.says(api.NotFound, "Certificate not found", KindCertificateRemove, CertificateRemove{Fingerprint: "ab"})
}

func TestCertificateAddRefusals(t *testing.T) {
	w := newCluster(t)
	w.refused(api.BadRequest, KindCertificateAdd, certBody(""))
	w.refused(api.CertTaken, KindCertificateAdd, certBody("fp1")) // a member's
	w.issue("t", "node2")
	w.claim("t", "node2", "fp2")
	w.admit("id2", "node2", "fp2")
	w.refused(api.CertTaken, KindCertificateAdd, certBody("fp2")) // that of one which is joining
	w.must(KindMemberCert, MemberCertificate{ID: "id1", Expect: "fp1", Certificate: "c", Fingerprint: "fp3", Endorsement: "e", Until: w.now.AddDate(1, 0, 0)})
	w.refused(api.CertTaken, KindCertificateAdd, certBody("fp1")) // a member may still show it
	w.must(KindClusterCert, w.rotateBody("cert-a"))
	w.refused(api.CertInvalid, KindCertificateAdd, certBody(w.s.View().Cluster().Fingerprint))
	b := certBody("ab")
	b.Certificate.Type = ""
	w.says(api.BadRequest, "Invalid certificate type", KindCertificateAdd, b)
	for i := range MaxCertificates {
		w.must(KindCertificateAdd, certBody(fmt.Sprint(i)))
	}
	w.refused(api.TooMany, KindCertificateAdd, certBody("ab"))
}

func TestCertificateUpdate(t *testing.T) {
	w := newCluster(t)
	w.must(KindCertificateAdd, certBody("ab"))
	w.must(KindCertificateAdd, certBody("taken"))
	update := func(from, to string) CertificateUpdate {
		return CertificateUpdate{Fingerprint: from, Certificate: Certificate{
			Fingerprint: to, Name: "desk", Type: api.CertificateClient, Restricted: true, PEM: "pem2", AddedAt: start}}
	}
	v := w.s.View()
	w.must(KindCertificateUpdate, update("ab", "ab"))
	w.happened("certificate-updated /1.0/certificates/ab")
	if !closed(v.WatchMembers()) {
		t.Error("nobody was told")
	}
	if c, _ := w.s.View().Certificate("ab"); c.Name != "desk" || !c.Restricted || c.PEM != "pem2" || c.Projects == nil {
		t.Errorf("certificate %+v", c)
	}
	w.must(KindCertificateUpdate, update("ab", "cd"))
	w.happened("certificate-updated /1.0/certificates/cd")
	if _, ok := w.s.View().Certificate("ab"); ok {
		t.Error("the old certificate is still trusted")
	}
	for _, test := range []struct {
		reason api.Reason
		body   func() CertificateUpdate
	}{
		{api.NotFound, func() CertificateUpdate { return update("ab", "ab") }},
		{api.CertTaken, func() CertificateUpdate { return update("cd", "taken") }},
		{api.CertTaken, func() CertificateUpdate { return update("cd", "fp1") }},
		{api.PreconditionFail, func() CertificateUpdate { b := update("cd", "cd"); b.Expect = "other"; return b }},
		{api.BadRequest, func() CertificateUpdate {
			b := update("cd", "cd")
			b.Certificate.Type = api.CertificateMetrics
			return b
		}},
		{api.TooLarge, func() CertificateUpdate {
			b := update("cd", "cd")
			b.Certificate.Name = string(make([]byte, MaxCertificateText+1))
			return b
		}},
	} {
		before := w.s.View().CertificateHash("cd")
		w.refused(test.reason, KindCertificateUpdate, test.body())
		if after := w.s.View().CertificateHash("cd"); after != before || before == "" {
			t.Errorf("%s: the certificate was changed all the same", test.reason)
		}
	}
	if n := len(w.s.View().Certificates()); n != 2 {
		t.Errorf("%d certificates", n)
	}
	b := update("cd", "ef")
	b.Expect = w.s.View().CertificateHash("cd")
	w.must(KindCertificateUpdate, b)
}

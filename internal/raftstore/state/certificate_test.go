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
	b := certBody("ab")
	b.Certificate.Type = ""
	w.says(api.BadRequest, "Invalid certificate type", KindCertificateAdd, b)
	for i := range MaxCertificates {
		w.must(KindCertificateAdd, certBody(fmt.Sprint(i)))
	}
	w.refused(api.TooMany, KindCertificateAdd, certBody("ab"))
}

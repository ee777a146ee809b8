package trust

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"incusd/api"
)

func TestCheckPairNamesWhatIsWrong(t *testing.T) {
	good, other, client := generate(t, Server), generate(t, Server), generate(t, Client)
	rsaCert, rsaKey := rsaPair(t)
	weakCert, weakKey := weakPair(t)
	now := time.Now() // making RSA keys takes its time
	past, err := GenerateAt(now.AddDate(-11, 0, 0), Server)
	if err != nil {
		t.Fatal(err)
	}
	future, err := GenerateAt(now.Add(time.Hour), Server)
	if err != nil {
		t.Fatal(err)
	}
	encrypted := string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}))
	for _, test := range []struct {
		name, cert, key string
		want            api.Reason
		text            string
	}{
		{name: "ECDSA", cert: string(good.CertPEM), key: string(good.KeyPEM)},
		{name: "RSA", cert: string(rsaCert), key: string(rsaKey)},
		{name: "with its issuer", cert: string(good.CertPEM) + string(other.CertPEM), key: string(good.KeyPEM)},
		{"empty", "", "", api.BadRequest, "Certificate must be base64 encoded PEM certificate: no PEM block was found in it"},
		{"no PEM", "garbage", string(good.KeyPEM), api.BadRequest, "Certificate must be base64 encoded PEM certificate: no PEM block"},
		{"no key", string(good.CertPEM), "garbage", api.BadRequest, "Private key must be base64 encoded PEM key: no PEM block"},
		{"swapped", string(good.KeyPEM), string(good.CertPEM), api.BadRequest, `Certificate must be base64 encoded PEM certificate: the first PEM block is "EC PRIVATE KEY"`},
		{"encrypted key", string(good.CertPEM), encrypted, api.BadRequest, "Private key must be base64 encoded PEM key: it is encrypted"},
		{"another's key", string(good.CertPEM), string(other.KeyPEM), api.CertInvalid, "cannot be used together: private key does not match public key"},
		{"damaged", strings.Replace(string(good.CertPEM), "MII", "MIJ", 1), string(good.KeyPEM), api.CertInvalid, "Invalid certificate material"},
		{"expired", string(past.CertPEM), string(past.KeyPEM), api.CertInvalid, "The provided certificate is expired"},
		{"not yet valid", string(future.CertPEM), string(future.KeyPEM), api.ClockSkew, "The provided certificate isn't valid yet"},
		{"weak", weakCert, weakKey, api.CertInvalid, "RSA key is too weak (minimum of 2048bit)"},
		{"a client's", string(client.CertPEM), string(client.KeyPEM), api.CertInvalid, "The provided certificate is not for servers"},
		{"huge", strings.Repeat("x", maxMaterial+1), "", api.TooLarge, "The certificate has 65537 bytes"},
		{"huge key", string(good.CertPEM), strings.Repeat("x", maxMaterial+1), api.TooLarge, "The private key has 65537 bytes"},
	} {
		pair, err := CheckPair(test.cert, test.key, now)
		switch {
		case test.want == "" && (err != nil || pair == nil):
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (!errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text)):
			t.Errorf("%s: got %v, want %s: %s", test.name, err, test.want, test.text)
		}
		if err != nil && strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("%s: the error shows what was sent: %v", test.name, err)
		}
	}
}

func weakPair(t *testing.T) (cert, key string) {
	t.Helper()
	weak := rsaKey(t, 1024)
	template, err := certificateTemplate(time.Now(), Server, nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, weak.Public(), weak)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)}))
}

func FuzzCheckPair(f *testing.F) {
	pair := generate(f, Server)
	f.Add(string(pair.CertPEM), string(pair.KeyPEM))
	f.Add(string(pair.KeyPEM), string(pair.CertPEM))
	f.Fuzz(func(t *testing.T, cert, key string) {
		if _, err := CheckPair(cert, key, time.Unix(0, 0)); err == nil {
			t.Error("a pair is valid in 1970")
		}
	})
}

package conf_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/cmd/incus/internal/conf"
)

// upstreams is a file as Incus 7.3 writes it, with two clusters.
const upstreams = `default-remote: prod
remotes:
  images:
    protocol: simplestreams
    public: true
    addr: https://images.linuxcontainers.org
  local:
    project: shop
    protocol: incus
    public: false
    addr: unix://
  prod:
    last_working_address: https://192.0.2.102:8443
    auth_type: tls
    project: default
    protocol: incus
    public: false
    addr: https://192.0.2.101:8443,https://192.0.2.102:8443
aliases:
  ll: list -c ns
defaults:
  list_format: ""
  console_type: ""
  console_spice_command: ""
`

func dirs(t *testing.T) conf.Dirs {
	t.Helper()
	return conf.Dirs{User: filepath.Join(t.TempDir(), "incus"), Global: filepath.Join(t.TempDir(), "global")}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, d conf.Dirs) *conf.Config {
	t.Helper()
	c, err := conf.Read(d)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func change(t *testing.T, d conf.Dirs, f func(*conf.Config)) {
	t.Helper()
	if _, err := conf.Change(d, func(c *conf.Config) error { f(c); return nil }); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// remotes are all remotes by name.
func remotes(c *conf.Config) map[string]conf.Remote {
	all := map[string]conf.Remote{}
	for _, name := range c.Names() {
		all[name], _ = c.Remote(name)
	}
	return all
}

func TestFileOfIncusIsReadAsItMeansIt(t *testing.T) {
	d := dirs(t)
	write(t, d.User, "config.yml", upstreams)
	c := read(t, d)
	want := map[string]conf.Remote{
		"images": {Addrs: []string{"https://images.linuxcontainers.org"}, Protocol: "simplestreams", Public: true},
		"local":  {Addrs: []string{"unix://"}, Protocol: "incus", Project: "shop", Static: true},
		"prod": {
			Addrs: []string{"https://192.0.2.101:8443", "https://192.0.2.102:8443"}, LastWorking: "https://192.0.2.102:8443",
			AuthType: "tls", Project: "default", Protocol: "incus",
		},
	}
	if diff := cmp.Diff(want, remotes(c)); diff != "" || c.Default() != "prod" {
		t.Errorf("default %s, -want +got:\n%s", c.Default(), diff)
	}
	if got := want["prod"].Rolling(); !slices.Equal(got, []string{"https://192.0.2.102:8443", "https://192.0.2.101:8443"}) {
		t.Errorf("tried in the order %q", got)
	}
}

func TestChangeLeavesTheRestOfTheFileAlone(t *testing.T) {
	d := dirs(t)
	path := write(t, d.User, "config.yml", "# mine\n"+strings.Replace(upstreams, "project: default", "project: default # for now", 1)+"later: {key: [1, 2]}\n")
	change(t, d, func(c *conf.Config) {
		c.Put("lab", conf.Remote{Addrs: []string{"https://lab:8443"}, AuthType: "tls", Protocol: "incus", KeepAlive: 30})
		c.SetProject("prod", "shop")
		c.SetDefault("lab")
	})
	want := "# mine\n" + strings.NewReplacer(
		"default-remote: prod", "default-remote: lab",
		"project: default", "project: shop # for now",
		"aliases:", "  lab:\n    auth_type: tls\n    keepalive: 30\n    protocol: incus\n    public: false\n    addr: https://lab:8443\naliases:",
	).Replace(upstreams) + "later: {key: [1, 2]}\n"
	if diff := cmp.Diff(want, content(t, path)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	change(t, d, func(c *conf.Config) { c.Rename("lab", "lab2"); c.SetProject("prod", "default"); c.SetDefault("prod") })
	change(t, d, func(c *conf.Config) { c.Remove("lab2") })
	want = "# mine\n" + strings.Replace(upstreams, "project: default", "project: default # for now", 1) + "later: {key: [1, 2]}\n"
	if diff := cmp.Diff(want, content(t, path)); diff != "" {
		t.Errorf("after all was undone, -want +got:\n%s", diff)
	}
}

func TestWithoutAFileThereAreTheRemotesOfIncus(t *testing.T) {
	d := dirs(t)
	if names := read(t, d).Names(); !slices.Equal(names, []string{"images", "local"}) {
		t.Errorf("got %q", names)
	}
	if _, err := os.Stat(d.User); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading made the folder: %v", err)
	}
	change(t, d, func(c *conf.Config) { c.SetDefault("images") })
	want := "default-remote: images\nremotes:\n" +
		"  images:\n    protocol: simplestreams\n    public: true\n    addr: https://images.linuxcontainers.org\n" +
		"  local:\n    protocol: incus\n    public: false\n    addr: unix://\n"
	if diff := cmp.Diff(want, content(t, filepath.Join(d.User, "config.yml"))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// What Incus refuses to read is a remote without addr.
func TestEveryWrittenRemoteHasItsAddressesInOneString(t *testing.T) {
	d := dirs(t)
	path := write(t, d.User, "config.yml", "remotes:\n  a:\n    addrs:\n      - https://a1:8443\n      - https://a2:8443\n  local: {project: p}\n")
	if a, _ := read(t, d).Remote("a"); !slices.Equal(a.Addrs, []string{"https://a1:8443", "https://a2:8443"}) || a.Protocol != "incus" {
		t.Errorf("got %+v", a)
	}
	change(t, d, func(c *conf.Config) { c.SetProject("a", "q"); c.SetProject("local", "r") })
	want := "remotes:\n  a:\n    project: q\n    protocol: incus\n    public: false\n    addr: https://a1:8443,https://a2:8443\n" +
		"  local: {project: r, protocol: incus, public: false, addr: 'unix://'}\n"
	if diff := cmp.Diff(want, content(t, path)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestBrokenFilesAreNamedWithTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"remotes: [local]":                    "line 1: a mapping is expected",
		"- a":                                 "line 1: a mapping is expected",
		"remotes:\n  a: here":                 "line 2: a mapping is expected",
		"remotes:\n  a:\n    public: maybe":   "line 3: cannot unmarshal !!str `maybe` into bool",
		"remotes:\n  a: {addr: [x, y]}":       "line 2: cannot unmarshal !!seq into string",
		"default-remote: [\n":                 "did not find expected node content",
		"remotes:\n  a: &x {addr: y}\n  b: *": "did not find expected alphabetic or numeric character",
	} {
		d := dirs(t)
		path := write(t, d.User, "config.yml", text)
		_, err := conf.Read(d)
		if !errors.Is(err, api.ConfigInvalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
		if _, err := conf.Change(d, func(c *conf.Config) error { return nil }); err == nil || content(t, path) != text {
			t.Errorf("%q: changed all the same: %v", text, err)
		}
	}
}

func TestRemotesOfTheAdministratorAreReadAndBecomeTheUsersOwn(t *testing.T) {
	d := dirs(t)
	global := write(t, d.Global, "config.yml", "default-remote: site\nremotes:\n  site: {addr: 'https://site:8443'}\n  prod: {addr: 'https://other:8443'}\n  local: {project: x, addr: 'unix:///x'}\n")
	write(t, d.Global, "servercerts/site.crt", "not really")
	write(t, d.User, "config.yml", upstreams)
	c := read(t, d)
	if site, _ := c.Remote("site"); !site.Global || site.Addrs[0] != "https://site:8443" {
		t.Errorf("got %+v", site)
	}
	if prod, _ := c.Remote("prod"); prod.Global || prod.Addrs[0] != "https://192.0.2.101:8443" {
		t.Errorf("the user's own does not win: %+v", prod)
	}
	if local, _ := c.Remote("local"); local.Global || local.Project != "shop" || local.Addrs[0] != "unix://" || c.Default() != "prod" {
		t.Errorf("got %+v, default %s", local, c.Default())
	}
	before := content(t, global)
	change(t, d, func(c *conf.Config) {
		if err := c.CopyFiles("site", "site"); err != nil {
			t.Error(err)
		}
		c.SetProject("site", "shop")
	})
	if site, _ := read(t, d).Remote("site"); site.Global || site.Project != "shop" {
		t.Errorf("got %+v", site)
	}
	if got := content(t, filepath.Join(d.User, "servercerts", "site.crt")); got != "not really" || content(t, global) != before {
		t.Errorf("copied %q", got)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	d := dirs(t)
	write(t, d.User, "config.yml", upstreams)
	d.Global = filepath.Join(d.User, "config.yml") // a file where a folder should be
	if names := read(t, d).Names(); len(names) != 3 {
		t.Errorf("got %q", names)
	}
	d.User = d.Global
	if _, err := conf.Read(d); err == nil || !strings.HasPrefix(err.Error(), "Unable to read the configuration file: open "+d.User) {
		t.Errorf("got %v", err)
	}
}

func TestChangesAtOnceAreAllKept(t *testing.T) {
	d := dirs(t)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			_, err := conf.Change(d, func(c *conf.Config) error {
				c.Put(fmt.Sprintf("r%d", i), conf.Remote{Addrs: []string{"https://a:8443"}, Protocol: "incus"})
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if names := read(t, d).Names(); len(names) != 22 {
		t.Errorf("got %q", names)
	}
	if left, _ := filepath.Glob(filepath.Join(d.User, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestFailedChangeWritesNothing(t *testing.T) {
	d := dirs(t)
	path := write(t, d.User, "config.yml", upstreams)
	refusal := errors.New("no")
	_, err := conf.Change(d, func(c *conf.Config) error { c.Remove("prod"); return refusal })
	if !errors.Is(err, refusal) || content(t, path) != upstreams {
		t.Errorf("%v, wrote:\n%s", err, content(t, path))
	}
	if _, err := conf.Change(conf.Dirs{}, func(*conf.Config) error { return nil }); !errors.Is(err, api.BadRequest) {
		t.Errorf("without a place: %v", err)
	}
}

func TestClientCertificateIsThatOfIncus(t *testing.T) {
	d := dirs(t)
	now := time.Date(2026, 11, 28, 6, 0, 0, 0, time.UTC)
	if own, err := read(t, d).ClientCert(""); own != nil || err != nil {
		t.Fatalf("got %v, %v", own, err)
	}
	// A crash has left a key without its certificate.
	write(t, d.User, "client.key", "half")
	if made, err := conf.MakeClientCert(d, now); !made || err != nil {
		t.Fatal(made, err)
	}
	if made, err := conf.MakeClientCert(d, now); made || err != nil {
		t.Fatal(made, err)
	}
	own, err := read(t, d).ClientCert("prod")
	if err != nil {
		t.Fatal(err)
	}
	cert := own.TLS.Leaf
	key, isECDSA := cert.PublicKey.(*ecdsa.PublicKey)
	if !isECDSA || key.Curve != elliptic.P384() || cert.Subject.Organization[0] != "Linux Containers" || !strings.Contains(cert.Subject.CommonName, "@") ||
		!slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || cert.IsCA ||
		!cert.NotBefore.Equal(now) || cert.NotAfter.Sub(cert.NotBefore) != 10*365*24*time.Hour {
		t.Errorf("got %+v", cert.Subject)
	}
	if block, _ := pem.Decode([]byte(content(t, filepath.Join(d.User, "client.key")))); block.Type != "EC PRIVATE KEY" {
		t.Errorf("key in the form %s", block.Type)
	}
	if string(own.PEM) != content(t, filepath.Join(d.User, "client.crt")) {
		t.Error("another certificate than in the file")
	}
	for name, mode := range map[string]fs.FileMode{"": 0o700, "client.key": 0o600, "client.crt": 0o644} {
		if info, err := os.Stat(filepath.Join(d.User, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
}

func TestRemoteMayHaveAPairOfItsOwn(t *testing.T) {
	d, other := dirs(t), dirs(t)
	for _, at := range []conf.Dirs{d, other} {
		if _, err := conf.MakeClientCert(at, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	write(t, d.User, "clientcerts/prod.crt", content(t, filepath.Join(other.User, "client.crt")))
	write(t, d.User, "clientcerts/prod.key", content(t, filepath.Join(other.User, "client.key")))
	write(t, d.User, "clientcerts/prod.ca", content(t, filepath.Join(other.User, "client.crt")))
	c := read(t, d)
	prod, err := c.ClientCert("prod")
	if err != nil || string(prod.PEM) != content(t, filepath.Join(other.User, "client.crt")) || prod.Roots == nil {
		t.Errorf("prod: %v", err)
	}
	if all, err := c.ClientCert("lab"); err != nil || string(all.PEM) != content(t, filepath.Join(d.User, "client.crt")) || all.Roots != nil {
		t.Errorf("lab: %v", err)
	}
}

func TestUselessKeysAreRefusedWithTheWayOut(t *testing.T) {
	d, other := dirs(t), dirs(t)
	for _, at := range []conf.Dirs{d, other} {
		if _, err := conf.MakeClientCert(at, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]string{
		"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n": "protected by a password",
		"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n":             "protected by a password",
		content(t, filepath.Join(other.User, "client.key")):                                              "private key does not match public key",
		"nothing": "failed to find any PEM data",
	} {
		write(t, d.User, "client.key", text)
		var refusal *api.Error
		_, err := read(t, d).ClientCert("")
		if !errors.As(err, &refusal) || refusal.Reason != api.CertInvalid || refusal.Hint == "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func TestFilesOfARemoteGoWithIt(t *testing.T) {
	d := dirs(t)
	for _, name := range []string{"servercerts/a.crt", "oidctokens/a.json", "jars/a", "clientcerts/a.crt", "clientcerts/a.key"} {
		write(t, d.User, name, name)
	}
	c := read(t, d)
	if err := c.CopyFiles("a", "b"); err != nil {
		t.Fatal(err)
	}
	if got := content(t, filepath.Join(d.User, "clientcerts", "b.key")); got != "clientcerts/a.key" {
		t.Errorf("got %q", got)
	}
	if info, err := os.Stat(filepath.Join(d.User, "clientcerts", "b.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if err := c.ForgetServer("a"); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(d.User, "*", "a*")); len(left) != 2 {
		t.Errorf("left: %q", left)
	}
	if err := c.RemoveFiles("a"); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(d.User, "*", "a*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestServerCertificateThatCannotBeReadIsAnError(t *testing.T) {
	d := dirs(t)
	write(t, d.User, "servercerts/a.crt", "rubbish")
	write(t, d.User, "servercerts/b.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	c := read(t, d)
	for name, want := range map[string]error{"a": api.CertInvalid, "b": api.CertInvalid, "c": nil, "../../c": nil} {
		if cert, err := c.ServerCert(name); cert != nil || !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNamesThatNoRemoteCanHave(t *testing.T) {
	for _, name := range []string{"", "a:b", "a/b", "..", ".a", "-f", "a b", "a=b", "a,b", "a\x00", "a\x7f"} {
		if err := conf.CheckName(name); !errors.Is(err, api.NameInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"prod", "192.0.2.1", "a_b", "größe"} {
		if err := conf.CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDirsAreThoseOfIncus(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want conf.Dirs
	}{
		{map[string]string{}, conf.Dirs{Global: "/etc/incus"}},
		{map[string]string{"HOME": "/h"}, conf.Dirs{User: "/h/.config/incus", Global: "/etc/incus"}},
		{map[string]string{"HOME": "/h", "INCUS_CONF": "/c", "INCUS_GLOBAL_CONF": "/g"}, conf.Dirs{User: "/c", Global: "/g"}},
	} {
		if got := conf.FindDirs(func(name string) string { return tt.env[name] }); got != tt.want {
			t.Errorf("%v: got %+v", tt.env, got)
		}
	}
}

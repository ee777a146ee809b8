package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/conf"
)

// localRemote is the daemon behind the unix socket.
const localRemote = conf.Local

// A usedRemote is one that a client was made for.
type usedRemote struct {
	name   string
	client *client.Client
	remote conf.Remote
	// secured says how it is reached over TLS; zero over a socket.
	secured client.Remote

	mu sync.Mutex
	// address is the one that was connected to, and cert what was shown there; empty over a socket.
	address string
	cert    *x509.Certificate
	// next is the certificate that took the place of the saved one; nil if none did. It is led if the
	// server has shown it, and not this command line supplied it.
	next *x509.Certificate
	led  bool
}

func (u *usedRemote) connected(address string, cert *x509.Certificate) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.address, u.cert = address, cert
}

func (u *usedRemote) moved(next *x509.Certificate) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next, u.led = next, true
}

// supplied notes a certificate that this command line gave to the servers itself.
func (u *usedRemote) supplied(next *x509.Certificate) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next, u.led = next, false
}

// successor is the certificate that took the place of the saved one.
func (u *usedRemote) successor() *x509.Certificate {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.next
}

// peer is what was connected to.
func (u *usedRemote) peer() (address string, cert *x509.Certificate) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.address, u.cert
}

// configure reads what the user has set for the command line.
func (a *app) configure() (err error) {
	a.dirs = conf.FindDirs(a.getenv)
	if a.forceLocal {
		a.conf = conf.Defaults()
		return nil
	}
	a.conf, err = conf.Read(a.dirs)
	return err
}

// settings is what the user has set. The shell asks for words before it is read; errors are for
// commands.
func (a *app) settings() *conf.Config {
	if a.conf == nil && a.configure() != nil {
		a.conf = conf.Defaults()
	}
	return a.conf
}

// change changes what the user has set, for all later commands.
func (a *app) change(change func(*conf.Config) error) error {
	changed, err := conf.Change(a.dirs, change)
	if err == nil && !a.forceLocal {
		a.conf = changed
	}
	return err
}

// defaultRemote is the one that commands mean which name none.
func (a *app) defaultRemote() string {
	if remote := a.getenv("INCUS_REMOTE"); remote != "" && !a.forceLocal {
		return remote
	}
	return a.settings().Default()
}

// split splits "[remote:]name". What has a slash or an equals sign before the colon names no remote.
func (a *app) split(arg string) (remote, name string, err error) {
	before, after, found := strings.Cut(arg, ":")
	if !found || strings.Contains(before, "=") {
		return a.defaultRemote(), arg, nil
	}
	if _, known := a.settings().Remote(before); known {
		return before, after, nil
	}
	if strings.Contains(before, "/") {
		return a.defaultRemote(), arg, nil
	}
	return "", "", a.unknownRemote(before)
}

func (a *app) unknownRemote(name string) error {
	err := api.Errorf(api.NotFound, "The remote %q doesn't exist", name)
	if a.forceLocal {
		return err.WithHint("--force-local leaves the remotes in config.yml aside")
	}
	return err.WithHint("those that there are: %s; add it: incus remote add %s ADDRESS", strings.Join(a.settings().Names(), ", "), cmp.Or(name, "NAME"))
}

// server splits "[remote:]name" and returns a client of the remote.
func (a *app) server(arg string) (*client.Client, string, error) {
	remote, name, err := a.split(arg)
	if err != nil {
		return nil, "", err
	}
	c, err := a.connectTo(remote)
	return c, name, err
}

// leadingRemote takes a first argument of the form "remote:" off args.
func (a *app) leadingRemote(args []string) (*client.Client, []string, error) {
	remote := ""
	if len(args) > 0 && strings.HasSuffix(args[0], ":") && !strings.Contains(args[0], "=") {
		remote, args = args[0], args[1:]
	}
	c, _, err := a.server(remote)
	return c, args, err
}

// onlyRemote returns a client of the remote that is the only argument, if there is any.
func (a *app) onlyRemote(args []string) (*client.Client, error) {
	c, rest, err := a.leadingRemote(args)
	if err == nil && len(rest) > 0 {
		err = api.Errorf(api.BadRequest, "%q is not a remote", rest[0]).WithHint("a remote ends with a colon: %s:", localRemote)
	}
	return c, err
}

// daemon returns a client of the daemon of this machine, whichever remote is the default one.
func (a *app) daemon() *client.Client { return a.connect(a.options()) }

func (a *app) options() client.Options {
	return client.Options{OnStale: a.warnStale, Logger: a.logger()}
}

// connectTo returns a client of a remote. It works in the project that is named for this command, or
// that the remote was switched to, or else that of the socket.
func (a *app) connectTo(name string) (*client.Client, error) {
	r, known := a.settings().Remote(name)
	if !known {
		return nil, a.unknownRemote(name)
	}
	c, err := a.reach(name, r)
	if err != nil {
		return nil, err
	}
	if project := cmp.Or(a.project, r.Project); project != "" {
		c = c.WithProject(project)
	}
	a.used.client = c
	return c, nil
}

// reach returns a client of the remote r, in no project of its own.
func (a *app) reach(name string, r conf.Remote) (*client.Client, error) {
	switch {
	case r.Public, r.Protocol != conf.ProtocolIncus:
		return nil, api.Errorf(api.BadRequest, "The remote isn't a private server").
			WithHint("%s serves images to anybody; this command needs a server that knows you", name)
	case r.AuthType != "" && r.AuthType != authTLS:
		return nil, noSuchAuth(r.AuthType)
	case len(r.Addrs) == 0:
		return nil, api.Errorf(api.ConfigInvalid, "The remote %q has no address", name).WithHint("give it one: incus remote set-urls %s ADDRESS", name)
	}
	a.used = &usedRemote{name: name, remote: r}
	switch {
	case r.Static:
		return a.connect(a.options()), nil
	case r.Unix():
		return a.overSocket(r.Addrs[0]), nil
	}
	cert, err := a.settings().ServerCert(name)
	if err != nil {
		return nil, err
	}
	own, err := a.clientCert(name)
	if err != nil {
		return nil, err
	}
	if a.used.secured, err = a.secured(a.used, cert, own); err != nil {
		return nil, err
	}
	return a.used.secured.Client(a.options()), nil
}

// overSocket returns a client of the daemon behind a socket; unix:// is the usual one.
func (a *app) overSocket(addr string) *client.Client {
	path := strings.TrimPrefix(strings.TrimPrefix(addr, "unix:"), "//")
	if path == "" {
		return a.connect(a.options())
	}
	return client.Unix(path, a.options())
}

// secured says how the servers at a remote's addresses are reached; pinned is nil where authorities
// vouch for them.
func (a *app) secured(used *usedRemote, pinned *x509.Certificate, own *conf.ClientCert) (client.Remote, error) {
	remote := client.Remote{Name: used.name, Pinned: pinned, Connected: used.connected, Moved: used.moved}
	for _, addr := range used.remote.Rolling() {
		address, err := hostOf(addr)
		if err != nil {
			return remote, err
		}
		remote.Addresses = append(remote.Addresses, address)
	}
	if own != nil {
		remote.Own, remote.Roots = &own.TLS, own.Roots
	}
	return remote, nil
}

// clientCert is what this client shows to a remote's servers.
func (a *app) clientCert(name string) (*conf.ClientCert, error) {
	cert, err := a.settings().ClientCert(name)
	if cert == nil && err == nil {
		err = api.Errorf(api.CertInvalid, "Missing TLS client certificate and key").
			WithHint("make them: incus remote generate-certificate; the server has to be told of the new certificate")
	}
	return cert, err
}

// hostOf is the host and port of a remote's URL.
func hostOf(addr string) (string, error) {
	u, err := url.Parse(addr)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return "", api.Errorf(api.AddressInvalid, "Invalid address %q of a remote", addr).WithHint("use https://HOST:PORT, or unix://PATH")
	}
	return client.CanonicalAddress(u.Host), nil
}

// remember notes what was learned of the remote, for the next command: the address that answered,
// where it is another one than last time, and the certificate that took the place of the saved one.
// It is a convenience: that it fails is no news.
func (a *app) remember() {
	used := a.used
	addr, next := used.answered(), used.successor()
	if addr == "" && next == nil {
		return
	}
	err := a.change(func(c *conf.Config) error {
		r, known := c.Remote(used.name)
		if !known || r.Global {
			return errors.New("it is not ours any longer")
		}
		if next != nil {
			if err := c.SaveServerCert(used.name, next); err != nil {
				return err
			}
		}
		if addr != "" && slices.Contains(r.Addrs, addr) {
			r.LastWorking = addr
			c.Put(used.name, r)
		}
		return nil
	})
	if err == nil && next != nil && used.wasLed() {
		a.warn("the certificate of remote %q was replaced, and its former key endorses the new one, which is kept from now on: %s", used.name, client.Fingerprint(next))
	}
}

func (u *usedRemote) wasLed() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.led
}

// keepCertificate saves the certificate that the servers of the remote in use have from now on, as
// they have said themselves over a connection that was judged, if there is a saved one.
func (a *app) keepCertificate(certificate string) {
	cert, err := parseCertificate(certificate)
	if err == nil && a.used.secured.Pinned != nil {
		a.used.supplied(cert)
	}
}

// answered is the URL of the address that was connected to, if it was not the first to be tried.
func (u *usedRemote) answered() string {
	address, _ := u.peer()
	for i, addr := range u.remote.Rolling() {
		if host, err := hostOf(addr); err == nil && host == address && i > 0 {
			return addr
		}
	}
	return ""
}

// trustLimit bounds the question why a server refused a command: the refusal is known already.
const trustLimit = 5 * time.Second

// explainTrust adds to a remote's refusal that the server does not trust this client at all, if that
// is why.
func (a *app) explainTrust(ctx context.Context, err error) error {
	address, _ := a.used.peer()
	if !errors.Is(err, api.NotAuthorized) || address == "" || a.used.client == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, trustLimit)
	defer cancel()
	server, _, asked := a.used.client.Server(ctx)
	if asked != nil || server.Auth == trusted {
		return err
	}
	fingerprint := "that it shows"
	if own, ownErr := a.settings().ClientCert(a.used.name); ownErr == nil && own != nil {
		fingerprint = client.Fingerprint(own.TLS.Leaf)
	}
	return api.Errorf(api.NotAuthorized, "%v: the server of remote %q does not trust this client (certificate %s)", err, a.used.name, fingerprint).
		WithHint("it was removed there, or never added, or has expired. Let an administrator run \"incus config trust add NAME\" and use the token here: "+
			"incus remote remove %s; incus remote add %s TOKEN", a.used.name, a.used.name)
}

// Words of GET /1.0.
const (
	trusted = "trusted"
	authTLS = "tls"
)

func noSuchAuth(kind string) error {
	return api.Errorf(api.NotImplemented, "Authentication type '%s' is not supported by this client", kind).
		WithHint("use tls, which needs a certificate and a token: incus config trust add NAME on the server")
}

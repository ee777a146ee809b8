package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/conf"
)

// addFlags are those of "incus remote add".
type addFlags struct {
	acceptCertificate, public bool
	token, protocol, authType string
	project, credentials      string
	keepAlive                 int
}

func (a *app) remoteAddCommand() *cobra.Command {
	var f addFlags
	cmd := &cobra.Command{
		Use:   "add [<remote>] <address>...|<token>",
		Short: "Add a server, or a cluster",
		Long: "Add a server, or a cluster.\n\n" +
			"With a token (from \"incus config trust add\" on the server) nothing is asked: it names the\n" +
			"addresses and the certificate of the server, and lets this client in. Without one, the\n" +
			"fingerprint of the server's certificate is shown and has to be confirmed; \"incus info\" on the\n" +
			"server shows it, too.\n\n" +
			"Several addresses are tried in turn, so give those of several members of a cluster. The name\n" +
			"may be left out if there is one address.",
		Example: "  incus remote add prod eyJjbGllbnRfbmFtZSI6…\n  incus remote add prod 192.0.2.101 192.0.2.102\n" +
			"  incus remote add prod https://192.0.2.101:8443 --token eyJjbGllbnRfbmFtZSI6…",
		Args:              argCount(1, -1),
		ValidArgsFunction: a.completeArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, targets := args[0], args[1:]
			if len(targets) == 0 {
				targets = args
			}
			add := &addition{app: a, prompter: a.prompter(), flags: f, name: name}
			return add.run(cmd.Context(), targets)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.acceptCertificate, "accept-certificate", false, "Accept the server's certificate without asking")
	flags.StringVar(&f.token, "token", "", "The trust `TOKEN` that lets this client in")
	flags.StringVar(&f.protocol, "protocol", conf.ProtocolIncus, "The server's `PROTOCOL` (incus, oci or simplestreams)")
	flags.StringVar(&f.authType, "auth-type", "", "How the server knows this client: `TYPE` tls")
	flags.BoolVar(&f.public, "public", false, "The server serves images to anybody")
	flags.StringVar(&f.project, "project", "", "Work in the project called `NAME` of that server")
	flags.IntVar(&f.keepAlive, "keepalive", 0, "Kept in config.yml for Incus, which keeps a connection open for so many `SECONDS`")
	flags.StringVar(&f.credentials, "credentials-helper", "", "Kept in config.yml for Incus: a `PROGRAM` that knows passwords of image servers")
	mustComplete(cmd, "protocol", cobra.FixedCompletions([]string{conf.ProtocolIncus, conf.ProtocolOCI, conf.ProtocolSimpleStreams}, noFiles))
	mustComplete(cmd, "auth-type", cobra.FixedCompletions([]string{authTLS}, noFiles))
	return cmd
}

// An addition is one "incus remote add". Nothing is written but this client's own key before the
// server trusts the client: what fails can be tried again, and what was cut off, too.
type addition struct {
	*app
	*prompter
	flags  addFlags
	name   string
	remote conf.Remote
	// pinned is the server's certificate, nil where an authority vouches for it; own is the client's.
	pinned *x509.Certificate
	own    *conf.ClientCert
	// fingerprint is that of the certificate which the server has to show; empty where that is not known.
	fingerprint string
	client      *client.Client
}

func (d *addition) run(ctx context.Context, targets []string) error {
	var token *api.CertificateAddToken
	if len(targets) == 1 {
		var err error
		if token, err = addToken(targets[0]); err != nil && tokenLike(targets[0]) {
			return err
		} // what else is no token is an address
	}
	if d.flags.token != "" {
		if _, err := addToken(d.flags.token); err != nil {
			return err
		}
	}
	if token == nil && strings.Contains(d.name, ":") && targets[0] == d.name {
		return api.Errorf(api.NameInvalid, "Remote names may not contain colons; please provide an explicit one").
			WithHint("incus remote add NAME %s", d.name)
	}
	if token != nil && targets[0] == d.name {
		return api.Errorf(api.NameInvalid, "A remote that is added by a token needs a name").WithHint("incus remote add NAME TOKEN")
	}
	if err := free(d.conf, d.name); err != nil {
		return err
	}
	d.remote = conf.Remote{
		Protocol: d.flags.protocol, AuthType: d.flags.authType, KeepAlive: d.flags.keepAlive, CredHelper: d.flags.credentials,
	}
	switch d.flags.protocol {
	case conf.ProtocolIncus:
	case conf.ProtocolOCI, conf.ProtocolSimpleStreams:
		return d.imageServer(targets)
	default:
		return api.Errorf(api.BadRequest, "Invalid protocol: %s", d.flags.protocol).WithHint("use incus, oci or simplestreams")
	}
	if d.flags.authType != "" && d.flags.authType != authTLS {
		return noSuchAuth(d.flags.authType)
	}
	if token != nil {
		return d.byToken(ctx, token, targets[0])
	}
	addrs, err := normalized(targets)
	if err != nil {
		return err
	}
	d.remote.Addrs = addrs
	if d.remote.Unix() {
		return d.bySocket(ctx)
	}
	return d.byAddress(ctx)
}

// addToken reads a token that lets a client in. Nobody else need see that a text is none, or is one
// for a server.
func addToken(text string) (*api.CertificateAddToken, error) {
	token, err := api.ParseCertificateAddToken(text)
	if err == nil {
		return token, nil
	}
	if _, notJoin := api.ParseJoinToken(text); notJoin == nil {
		return nil, api.Errorf(api.TokenMalformed, "A join token lets a server join the cluster, and no client in").
			WithHint("a client needs the token of: incus config trust add NAME")
	}
	return nil, err
}

// tokenLike tells whether a text can be no address: the parts of a DNS name have at most 63 bytes.
func tokenLike(text string) bool { return len(text) > 63 && !strings.ContainsAny(text, ".:/,") }

// imageServer adds a server of images. This client has no use for one; Incus has.
func (d *addition) imageServer(targets []string) error {
	addrs, err := imageURLs(targets)
	if err != nil {
		return err
	}
	d.remote.Addrs, d.remote.Public = addrs, true
	return d.save()
}

// bySocket adds a daemon behind a socket: who may open it needs no certificate.
func (d *addition) bySocket(ctx context.Context) error {
	d.client = d.overSocket(d.remote.Addrs[0])
	if _, _, err := d.client.Server(ctx); err != nil {
		return err
	}
	d.remote.AuthType = authTLS // as Incus writes it
	return d.finish(ctx)
}

// byAddress adds the servers at the addresses.
func (d *addition) byAddress(ctx context.Context) error {
	if err := d.makeOwn(!d.flags.public); err != nil {
		return err
	}
	server, err := d.meet(ctx)
	if err != nil {
		return err
	}
	if d.flags.public || server.Public {
		d.remote.Public, d.remote.AuthType = true, ""
		return d.save()
	}
	if d.remote.AuthType == "" {
		d.remote.AuthType = authTLS
	}
	if !slices.Contains(server.AuthMethods, d.remote.AuthType) {
		return api.Errorf(api.NotImplemented, "Authentication type '%s' not supported by server", d.remote.AuthType).
			WithHint("it supports: %s", strings.Join(server.AuthMethods, ", "))
	}
	if server.Auth != trusted {
		if err := d.introduce(ctx); err != nil {
			return err
		}
	}
	return d.finish(ctx)
}

// makeOwn makes sure that this client has a certificate, if it needs one.
func (d *addition) makeOwn(needed bool) (err error) {
	if !needed {
		return nil
	}
	if err := d.ensureClientCert(); err != nil {
		return err
	}
	d.own, err = d.clientCert(d.name)
	return err
}

// connect makes a client of the remote as it is known so far.
func (d *addition) connect() (err error) {
	d.used = &usedRemote{name: d.name, remote: d.remote}
	remote, err := d.secured(d.used, d.pinned, d.own)
	if err != nil {
		return err
	}
	remote.Fingerprint = d.fingerprint
	d.client = remote.Client(d.options())
	return nil
}

// meet connects to the server, after the user has accepted its certificate if no authority vouches
// for it.
func (d *addition) meet(ctx context.Context) (*api.Server, error) {
	if err := d.connect(); err != nil {
		return nil, err
	}
	server, _, err := d.client.Server(ctx)
	shown := client.Untrusted(err)
	if len(shown) == 0 {
		return server, unreached(err)
	}
	if err := d.accept(ctx, shown[0].Cert); err != nil {
		return nil, err
	}
	d.pinned = shown[0].Cert
	for _, other := range shown[1:] {
		if !other.Cert.Equal(d.pinned) {
			d.warn("%s shows another certificate (%s), and will not be used", other.Address, client.Fingerprint(other.Cert))
		}
	}
	if err := d.connect(); err != nil {
		return nil, err
	}
	server, _, err = d.client.Server(ctx)
	return server, err
}

// unreached says what to do where no address of a remote that is not there yet answers.
func unreached(err error) error {
	var refusal *api.Error
	if !errors.As(err, &refusal) || refusal.Reason != api.Unavailable {
		return err
	}
	return refusal.WithHint("check the address, that the server runs, and that this machine reaches it; nothing was added")
}

// accept asks whether the certificate is the server's.
func (d *addition) accept(ctx context.Context, cert *x509.Certificate) error {
	if d.flags.acceptCertificate {
		return nil
	}
	fingerprint := client.Fingerprint(cert)
	fmt.Fprintf(d.out, "Certificate fingerprint: %s\n", fingerprint)
	for {
		text, err := d.line(ctx, "ok (y/n/[fingerprint])? ")
		if err != nil {
			return err
		}
		switch yes, isAnswer := parseYesNo(text, false); {
		case isAnswer && yes, strings.EqualFold(text, fingerprint):
			return nil
		case isAnswer:
			return api.Errorf(api.FingerprintMatch, "Server certificate NACKed by user").
				WithHint("\"incus info\" on the server shows its fingerprint; nothing was added")
		case len(text) == len(fingerprint):
			return api.Errorf(api.FingerprintMatch, "The server shows certificate %s, not %s", fingerprint, text).
				WithHint("it is another server, or somebody sits in between; nothing was added")
		}
		fmt.Fprintln(d.err, "Please type 'y', 'n' or the fingerprint:")
	}
}

// introduce redeems a token, so that the server trusts this client.
func (d *addition) introduce(ctx context.Context) error {
	token := d.flags.token
	if token == "" {
		var err error
		if token, err = d.line(ctx, fmt.Sprintf("Trust token for %s: ", d.name)); err != nil {
			return err
		}
		if token == "" {
			return api.Errorf(api.NotAuthorized, "The server does not trust this client, and no token was given").
				WithHint("an administrator of the server makes one: incus config trust add NAME; nothing was added")
		}
		if _, err := addToken(token); err != nil {
			return err
		}
	}
	if err := d.redeem(ctx, api.CertificatesPost{Type: api.CertificateClient, TrustToken: compact(token)}); err != nil {
		return err
	}
	server, _, err := d.client.Server(ctx)
	if err != nil {
		return err
	}
	if server.Auth != trusted {
		return api.Errorf(api.NotAuthorized, "Server doesn't trust us after authentication").
			WithHint("it may have removed the certificate at once; see incus config trust list there")
	}
	d.say("Client certificate now trusted by server: %s", d.name)
	return nil
}

// compact takes out the white space of a token that came in several lines.
func compact(token string) string { return strings.Join(strings.Fields(token), "") }

// redeem lets the server trust this client. Where it does so already, an earlier try came through
// and its answer was lost.
func (d *addition) redeem(ctx context.Context, post api.CertificatesPost) error {
	err := d.client.CreateCertificate(ctx, post)
	if err == nil || ctx.Err() != nil {
		return err
	}
	server, _, asked := d.client.Server(ctx)
	if asked != nil || server.Auth != trusted {
		return err
	}
	d.warn("the server trusts this client already (%v)", err)
	return nil
}

// byToken adds the servers that a token names, and redeems it.
func (d *addition) byToken(ctx context.Context, token *api.CertificateAddToken, text string) error {
	if err := d.makeOwn(true); err != nil {
		return err
	}
	addrs, err := normalized(token.Addresses)
	if err != nil {
		return err
	}
	for {
		d.remote.Addrs = addrs
		err := d.recognize(ctx, token)
		if err == nil {
			break
		}
		if !errors.Is(err, api.Unavailable) {
			return err
		}
		fmt.Fprintf(d.err, "%v\n", err)
		fmt.Fprintln(d.out, "All server addresses are unavailable")
		line, lineErr := d.line(ctx, "Please provide alternate server addresses separated with commas (empty to abort): ")
		switch {
		case lineErr != nil && ctx.Err() == nil, line == "":
			return api.Errorf(api.Unavailable, "Failed to add remote: %v", err).
				WithHint("the token was not used: try again where the server can be reached, or give an address of it when asked")
		case lineErr != nil:
			return lineErr
		}
		if addrs, err = normalized([]string{line}); err != nil {
			return err
		}
	}
	if err := d.redeem(ctx, api.CertificatesPost{TrustToken: compact(text)}); err != nil {
		return fmt.Errorf("Failed to create certificate: %w", err)
	}
	d.remote.AuthType = authTLS
	return d.finish(ctx)
}

// recognize connects to the first address where the server is that the token names. Whom else
// authorities vouch for does not count, but where they vouch for that server nothing is pinned.
func (d *addition) recognize(ctx context.Context, token *api.CertificateAddToken) error {
	d.pinned, d.fingerprint = nil, ""
	if err := d.connect(); err != nil {
		return err
	}
	_, _, err := d.client.Server(ctx)
	if err == nil {
		if _, cert := d.used.peer(); strings.EqualFold(client.Fingerprint(cert), token.Fingerprint) {
			return nil
		}
	} else if len(client.Untrusted(err)) == 0 {
		return err
	}
	d.fingerprint = token.Fingerprint
	if err := d.connect(); err != nil {
		return err
	}
	_, _, err = d.client.Server(ctx)
	if others := client.Untrusted(err); len(others) > 0 {
		return api.Errorf(api.FingerprintMatch, "Certificate fingerprint mismatch between certificate token and server %q: it shows %s, and the token names %s",
			"https://"+others[0].Address, client.Fingerprint(others[0].Cert), token.Fingerprint).
			WithHint("it is another server, or has a new certificate (then issue another token: incus config trust add NAME), or somebody sits in between; the token was not sent")
	}
	_, d.pinned = d.used.peer()
	return err
}

// finish chooses a project and saves the remote.
func (d *addition) finish(ctx context.Context) error {
	project, err := d.chooseProject(ctx)
	if err != nil {
		return fmt.Errorf("Failed to find project: %w", err)
	}
	d.remote.Project = project
	return d.save()
}

// chooseProject finds the project to work in: the one that is asked for, or the only one, or else
// the default one. Who may not use that is asked.
func (d *addition) chooseProject(ctx context.Context) (string, error) {
	if d.flags.project != "" {
		_, _, err := d.client.Project(ctx, d.flags.project)
		return d.flags.project, err
	}
	projects, err := d.client.Projects(ctx)
	if err != nil {
		return "", err
	}
	names := namesOf(projects, func(p api.Project) string { return p.Name })
	switch {
	case len(names) == 0, len(names) > 1 && slices.Contains(names, api.DefaultProject):
		return "", nil
	case len(names) == 1:
		return names[0], nil
	}
	fmt.Fprintln(d.out, "Available projects:")
	for _, name := range names {
		fmt.Fprintf(d.out, " - %s\n", name)
	}
	return d.text(ctx, "Name of the project to use for this remote: ", "", func(name string) error {
		if !slices.Contains(names, name) {
			return fmt.Errorf("There is no project %q among them", name)
		}
		return nil
	})
}

// save writes the remote and its server's certificate. The certificate comes first: without the
// remote it means nothing.
func (d *addition) save() error {
	return d.change(func(c *conf.Config) error {
		if err := free(c, d.name); err != nil {
			return err
		}
		if err := c.SaveServerCert(d.name, d.pinned); err != nil {
			return err
		}
		c.Put(d.name, d.remote)
		return nil
	})
}

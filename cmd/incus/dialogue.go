package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

// dialogue asks the questions of "incus admin init", in the words of the
// documentation. It changes nothing: its result is a preseed, to be applied after
// the last answer.
type dialogue struct {
	*prompter
	app    *app
	client *client.Client
	server *api.Server
}

// ask leads the dialogue.
func (a *app) ask(ctx context.Context, c *client.Client, server *api.Server) (*preseed, error) {
	d := &dialogue{a.prompter(), a, c, server}
	clustering, err := d.yesNo(ctx, "Would you like to use Incus clustering? (yes/no) [default=no]: ", false)
	if err != nil {
		return nil, err
	}
	p := &preseed{}
	if clustering {
		if p, err = d.cluster(ctx); err != nil {
			return nil, err
		}
	}
	if !p.joins() {
		if err := d.machine(ctx, p, clustering); err != nil {
			return nil, err
		}
	}
	printed, err := d.yesNo(ctx, `Would you like a YAML "incus admin init" preseed to be printed? (yes/no) [default=no]: `, false)
	if err != nil {
		return nil, err
	}
	if printed {
		err = table.WriteYAML(a.stdout, p.printable())
	}
	return p, err
}

// cluster asks whether to form a cluster or to join one, and what that needs.
func (d *dialogue) cluster(ctx context.Context) (*preseed, error) {
	if d.server.Environment.ServerClustered {
		return nil, refuse(api.AlreadyClustered, "This server is already clustered, as %q", d.server.Environment.ServerName)
	}
	address, err := d.address(ctx)
	if err != nil {
		return nil, err
	}
	joining, err := d.yesNo(ctx, "Are you joining an existing cluster? (yes/no) [default=no]: ", false)
	if err != nil {
		return nil, err
	}
	if joining {
		return d.join(ctx, address)
	}
	return d.bootstrap(ctx, address)
}

// address asks for the address of this server and returns it with a port.
func (d *dialogue) address(ctx context.Context) (string, error) {
	var current, fallback string
	if addresses := d.server.Environment.Addresses; len(addresses) > 0 {
		current = addresses[0]
		fallback, _, _ = net.SplitHostPort(current)
	}
	if fallback == "" {
		fallback = d.app.localAddress()
	}
	question := "What IP address or DNS name should be used to reach this server?"
	if fallback != "" {
		question += " [default=" + fallback + "]"
	}
	address, err := d.text(ctx, question+": ", fallback, checkAddress)
	if err != nil {
		return "", err
	}
	// Without a port, the one that the server listens on at that address already.
	if host, _, err := net.SplitHostPort(current); err == nil && address == host {
		return current, nil
	}
	return client.CanonicalAddress(address), nil
}

// checkAddress refuses what no other server could connect to.
func checkAddress(text string) error {
	host, port, err := net.SplitHostPort(client.CanonicalAddress(text))
	if n, notNumber := strconv.Atoi(port); notNumber == nil && (n < 1 || n > 65535) {
		return errors.New("A port is a number from 1 to 65535")
	}
	if ip := net.ParseIP(host); err != nil || host == "" || strings.ContainsAny(host, " \t/") || ip != nil && ip.IsUnspecified() {
		return errors.New("Invalid IP address or DNS name")
	}
	return nil
}

// memberName asks what this server shall be called in the cluster.
func (d *dialogue) memberName(ctx context.Context) (string, error) {
	fallback := d.server.Environment.ServerName
	question := "What member name should be used to identify this server in the cluster? [default=" + fallback + "]: "
	return d.text(ctx, question, fallback, api.ValidateMemberName)
}

// bootstrap asks what the first member of a cluster needs.
func (d *dialogue) bootstrap(ctx context.Context, address string) (*preseed, error) {
	name, err := d.memberName(ctx)
	if err != nil {
		return nil, err
	}
	p := &preseed{
		Config:  api.ConfigMap{"core.https_address": address, "cluster.https_address": address},
		Cluster: &preseedCluster{},
	}
	p.Cluster.ServerName, p.Cluster.Enabled = name, true
	byPassword, err := d.yesNo(ctx, "Setup password authentication on the cluster? (yes/no) [default=no]: ", false)
	if err != nil || !byPassword {
		return p, err
	}
	password, err := d.newPassword(ctx)
	p.Config["core.trust_password"] = password
	return p, err
}

// newPassword asks for a password twice, until both are the same.
func (d *dialogue) newPassword(ctx context.Context) (string, error) {
	for {
		password, err := d.secret(ctx, "Trust password for new clients: ")
		if err != nil {
			return "", err
		}
		again, err := d.secret(ctx, "Again: ")
		switch {
		case err != nil:
			return "", err
		case password == "":
			d.invalid(errors.New("The password must not be empty"))
		case password != again:
			d.invalid(errors.New("The two differ"))
		default:
			return password, nil
		}
	}
}

// join asks what a joining server needs. It asks the cluster what is in the way before it asks
// for the consent to lose data, so that nobody agrees to that for nothing. Nothing is claimed.
func (d *dialogue) join(ctx context.Context, address string) (*preseed, error) {
	token, err := d.token(ctx)
	if err != nil {
		return nil, err
	}
	p := &preseed{Cluster: &preseedCluster{}, token: token}
	p.Cluster.Enabled, p.Cluster.ServerAddress = true, address
	var report *api.JoinReport
	if token != nil {
		report, err = d.byToken(ctx, p)
	} else {
		report, err = d.byPassword(ctx, p)
	}
	if err != nil {
		return nil, err
	}
	return p, d.consent(ctx, p, report)
}

// consent asks whether this server's data may be lost, and for what is its own in the cluster.
func (d *dialogue) consent(ctx context.Context, p *preseed, report *api.JoinReport) error {
	lose, err := d.yesNo(ctx, "All existing data is lost when joining a cluster, continue? (yes/no) [default=no] ", false)
	if err != nil {
		return err
	}
	if !lose {
		return errors.New("User aborted configuration")
	}
	p.Cluster.MemberConfig, err = d.memberConfig(ctx, report.MemberConfig)
	return err
}

// byToken finds the cluster that the token names.
func (d *dialogue) byToken(ctx context.Context, p *preseed) (*api.JoinReport, error) {
	member, certificate, err := d.app.findMember(ctx, p.token)
	if err != nil {
		return nil, err
	}
	p.Cluster.ServerName, p.Cluster.ClusterToken = p.token.ServerName, p.token.String()
	return d.preflight(ctx, p, member, certificate)
}

// byPassword asks for the cluster, lets the person recognize it, and asks for its password.
func (d *dialogue) byPassword(ctx context.Context, p *preseed) (*api.JoinReport, error) {
	name, err := d.memberName(ctx)
	if err != nil {
		return nil, err
	}
	p.Cluster.ServerName = name
	var certificate *x509.Certificate
	member, err := d.text(ctx, "IP address or FQDN of an existing cluster member (may include port): ", "", func(text string) (err error) {
		if err := checkAddress(text); err != nil {
			return err
		}
		certificate, err = d.app.remoteCertificate(ctx, text)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := d.recognize(ctx, client.Fingerprint(certificate)); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		password, err := d.secret(ctx, "Cluster trust password: ")
		switch {
		case err != nil:
			return nil, err
		case password == "":
			d.invalid(errors.New("Without a password or a join token no server joins"))
			try--
			continue
		}
		p.Cluster.ClusterPassword = password
		report, err := d.preflight(ctx, p, client.CanonicalAddress(member), certificate)
		if !errors.Is(err, api.PasswordWrong) || try == passwordTries {
			return report, err
		}
		d.invalid(err)
	}
}

// passwordTries is how often a wrong password is asked for again. The cluster has a limit of its own.
const passwordTries = 3

// recognize shows the fingerprint and asks whether it is the cluster's.
func (d *dialogue) recognize(ctx context.Context, fingerprint string) error {
	fmt.Fprintf(d.out, "Cluster fingerprint: %s\n", fingerprint)
	fmt.Fprintln(d.out, `You can validate this fingerprint by running "incus info" locally on an existing cluster member.`)
	for {
		text, err := d.line(ctx, "Is this the correct fingerprint? (yes/no/[fingerprint]) [default=no]: ")
		if err != nil {
			return err
		}
		yes, isAnswer := parseYesNo(text, false)
		switch {
		case isAnswer && yes, strings.EqualFold(text, fingerprint):
			return nil
		case isAnswer:
			return errors.New("User aborted configuration")
		}
		d.invalid(errors.New("That is not the fingerprint above"))
	}
}

// preflight asks the member what is in the way and what it wants to know.
func (d *dialogue) preflight(ctx context.Context, p *preseed, member string, certificate *x509.Certificate) (*api.JoinReport, error) {
	p.Cluster.ClusterAddress, p.Cluster.ClusterCertificate = member, certificatePEM(certificate)
	report, err := d.app.preflight(ctx, member, certificate, api.JoinRequest{
		Token: p.Cluster.ClusterToken, Password: api.Secret(p.Cluster.ClusterPassword), Name: p.Cluster.ServerName,
		Certificate: d.server.Environment.Certificate, Architecture: d.server.Environment.KernelArchitecture,
	})
	if err != nil {
		return nil, err
	}
	switch len(report.Problems) {
	case 0:
		return report, nil
	case 1:
		return nil, explained(&report.Problems[0])
	}
	for _, problem := range report.Problems {
		d.app.reportProblem(&problem)
	}
	return nil, refuse(api.JoinRefused, "The cluster refuses this server for the %d reasons above", len(report.Problems))
}

// memberConfig asks for the value of each key that is this member's own.
func (d *dialogue) memberConfig(ctx context.Context, keys []api.ClusterMemberConfigKey) ([]api.ClusterMemberConfigKey, error) {
	var given []api.ClusterMemberConfigKey
	for _, key := range keys {
		value, err := d.line(ctx, "Choose "+key.Description+": ")
		if err != nil {
			return nil, err
		}
		key.Value = value
		given = append(given, key)
	}
	return given, nil
}

// token asks for a join token; nil if there is none. The token itself is a valid answer to the first
// question already, as in the dialogue of Incus 7.3.
func (d *dialogue) token(ctx context.Context) (*api.ClusterMemberJoinToken, error) {
	for {
		text, err := d.line(ctx, "Do you have a join token? (yes/no/[token]) [default=no]: ")
		if err != nil {
			return nil, err
		}
		yes, isAnswer := parseYesNo(text, false)
		switch {
		case isAnswer && !yes:
			return nil, nil
		case isAnswer:
			return d.tokenText(ctx)
		}
		token, err := api.ParseJoinToken(text)
		if err == nil {
			return token, nil
		}
		d.invalid(err)
	}
}

// tokenText asks until the answer is a token.
func (d *dialogue) tokenText(ctx context.Context) (*api.ClusterMemberJoinToken, error) {
	var token *api.ClusterMemberJoinToken
	_, err := d.text(ctx, "Please provide join token: ", "", func(text string) (err error) {
		token, err = api.ParseJoinToken(text)
		return err
	})
	return token, err
}

// printable is a preseed without what can be found out again from the token.
func (p *preseed) printable() any {
	type cluster struct {
		ServerName         string                       `yaml:"server_name"`
		Enabled            bool                         `yaml:"enabled"`
		ServerAddress      string                       `yaml:"server_address,omitempty"`
		ClusterToken       string                       `yaml:"cluster_token,omitempty"`
		ClusterAddress     string                       `yaml:"cluster_address,omitempty"`
		ClusterCertificate string                       `yaml:"cluster_certificate,omitempty"`
		ClusterPassword    string                       `yaml:"cluster_password,omitempty"`
		MemberConfig       []api.ClusterMemberConfigKey `yaml:"member_config,omitempty"`
	}
	out := struct {
		Config       api.ConfigMap          `yaml:"config,omitempty"`
		StoragePools []api.StoragePoolsPost `yaml:"storage_pools,omitempty"`
		Networks     []preseedNetwork       `yaml:"networks,omitempty"`
		Profiles     []preseedProfile       `yaml:"profiles,omitempty"`
		Cluster      *cluster               `yaml:"cluster,omitempty"`
	}{Config: p.Config, StoragePools: p.StoragePools, Networks: p.Networks, Profiles: p.Profiles}
	if c := p.Cluster; c != nil {
		out.Cluster = &cluster{
			ServerName: c.ServerName, Enabled: c.Enabled, ServerAddress: c.ServerAddress, ClusterToken: c.ClusterToken,
			ClusterPassword: c.ClusterPassword, MemberConfig: c.MemberConfig,
		}
		if c.ClusterPassword != "" {
			out.Cluster.ClusterAddress, out.Cluster.ClusterCertificate = c.ClusterAddress, c.ClusterCertificate
		}
	}
	return out
}

package main

import (
	"context"
	"errors"
	"net"
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
	server *api.Server
}

// ask leads the dialogue.
func (a *app) ask(ctx context.Context, server *api.Server) (*preseed, error) {
	d := &dialogue{a.prompter(), a, server}
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
	host, _, err := net.SplitHostPort(client.CanonicalAddress(text))
	if ip := net.ParseIP(host); err != nil || host == "" || strings.ContainsAny(host, " \t/") || ip != nil && ip.IsUnspecified() {
		return errors.New("Invalid IP address or DNS name")
	}
	return nil
}

// bootstrap asks what the first member of a cluster needs.
func (d *dialogue) bootstrap(ctx context.Context, address string) (*preseed, error) {
	fallback := d.server.Environment.ServerName
	question := "What member name should be used to identify this server in the cluster? [default=" + fallback + "]: "
	name, err := d.text(ctx, question, fallback, api.ValidateMemberName)
	if err != nil {
		return nil, err
	}
	p := &preseed{
		Config:  api.ConfigMap{"core.https_address": address, "cluster.https_address": address},
		Cluster: &preseedCluster{},
	}
	p.Cluster.ServerName, p.Cluster.Enabled = name, true
	return p, nil
}

// join asks what a joining server needs. It looks for the cluster before it asks
// for the consent to lose data, so that nobody agrees to that for nothing.
func (d *dialogue) join(ctx context.Context, address string) (*preseed, error) {
	token, err := d.token(ctx)
	if err != nil {
		return nil, err
	}
	member, certificate, err := d.app.findMember(ctx, token)
	if err != nil {
		return nil, err
	}
	lose, err := d.yesNo(ctx, "All existing data is lost when joining a cluster, continue? (yes/no) [default=no] ", false)
	if err != nil {
		return nil, err
	}
	if !lose {
		return nil, errors.New("User aborted configuration")
	}
	p := &preseed{Cluster: &preseedCluster{}, token: token}
	p.Cluster.ClusterPut = api.ClusterPut{
		Cluster:            api.Cluster{ServerName: token.ServerName, Enabled: true},
		ClusterAddress:     member,
		ClusterCertificate: certificatePEM(certificate),
		ServerAddress:      address,
		ClusterToken:       token.String(),
	}
	return p, nil
}

// token asks for a join token. The token itself is a valid answer to the first
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
			return nil, api.Errorf(api.NotImplemented, "Joining without a join token, by a trust password, is not part of this version").
				WithHint("issue a token on a member with \"incus cluster add NAME\", then run this command again")
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
		ServerName    string `yaml:"server_name"`
		Enabled       bool   `yaml:"enabled"`
		ServerAddress string `yaml:"server_address,omitempty"`
		ClusterToken  string `yaml:"cluster_token,omitempty"`
	}
	out := struct {
		Config  api.ConfigMap `yaml:"config,omitempty"`
		Cluster *cluster      `yaml:"cluster,omitempty"`
	}{Config: p.Config}
	if c := p.Cluster; c != nil {
		out.Cluster = &cluster{c.ServerName, c.Enabled, c.ServerAddress, c.ClusterToken}
	}
	return out
}

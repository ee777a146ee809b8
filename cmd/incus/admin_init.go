package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

// initFlags are those of "incus admin init".
type initFlags struct {
	auto, minimal, dump bool
	preseed             string // empty: not given; "-": stdin
	networkAddress      string
	networkPort         int
	// later are flags of questions that this version does not ask.
	storageBackend, storageDevice, storageLoop, storagePool string
}

// configFlags say what --auto sets up.
var configFlags = []string{
	"network-address", "network-port", "storage-backend", "storage-create-device", "storage-create-loop", "storage-pool",
}

func (a *app) adminInitCommand() *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use:   "init [--preseed [<file>|-]]",
		Short: "Set up this server: alone, as the first of a cluster, or as one more member",
		Long: "Set up this server: alone, as the first of a cluster, or as one more member.\n\n" +
			"Without flags, it asks. Nothing is changed before the last question is answered.",
		Example: "  incus admin init\n  incus admin init --preseed < server1.yaml",
		Args:    argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd, args); err != nil {
				return err
			}
			return a.adminInit(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.auto, "auto", false, "Set up with the values of the flags, and ask nothing")
	flags.BoolVar(&f.minimal, "minimal", false, "Set up with as little as possible, and ask nothing")
	flags.BoolVar(&f.dump, "dump", false, "Print the present set-up as YAML")
	flags.StringVar(&f.preseed, "preseed", "", "Set up as a YAML `FILE` says; - or nothing is stdin")
	flags.Lookup("preseed").NoOptDefVal = "-"
	flags.StringVar(&f.networkAddress, "network-address", "", "The `ADDRESS` to listen on (with --auto)")
	flags.IntVar(&f.networkPort, "network-port", 0, "The `PORT` to listen on (with --auto; default 8443)")
	for name, value := range map[string]*string{
		"storage-backend": &f.storageBackend, "storage-create-device": &f.storageDevice,
		"storage-create-loop": &f.storageLoop, "storage-pool": &f.storagePool,
	} {
		flags.StringVar(value, name, "", "Not in this version")
	}
	return cmd
}

// check refuses flags that do not go together, before anything is read or touched.
func (f *initFlags) check(cmd *cobra.Command, args []string) error {
	preseed := cmd.Flags().Changed("preseed")
	if len(args) > 0 {
		if !preseed || f.preseed != "-" {
			return api.Errorf(api.BadRequest, "Invalid number of arguments").WithHint("usage: %s", cmd.UseLine())
		}
		f.preseed = args[0]
	}
	if !preseed {
		f.preseed = ""
	}
	isConfigured := ""
	for _, name := range configFlags {
		if cmd.Flags().Changed(name) {
			isConfigured = name
		}
	}
	switch {
	case f.auto && preseed:
		return errors.New("Can't use --auto and --preseed together")
	case f.minimal && preseed:
		return errors.New("Can't use --minimal and --preseed together")
	case f.minimal && f.auto:
		return errors.New("Can't use --minimal and --auto together")
	case !f.auto && isConfigured != "":
		return errors.New("Configuration flags require --auto")
	case f.dump && (f.auto || f.minimal || preseed):
		return errors.New("Can't use --dump with other flags")
	case f.networkPort != 0 && f.networkAddress == "":
		return errors.New("--network-port can't be used without --network-address")
	case f.networkPort < 0 || f.networkPort > 65535:
		return fmt.Errorf("Invalid port %d: use 1 to 65535", f.networkPort)
	}
	for _, name := range configFlags[2:] {
		if cmd.Flags().Changed(name) {
			return api.Errorf(api.NotImplemented, "--%s can't be used: storage pools are not part of this version", name).
				WithHint("leave the flag out; see docs/compatibility.md")
		}
	}
	return nil
}

func (a *app) adminInit(ctx context.Context, f initFlags) error {
	c := a.client()
	switch {
	case f.dump:
		return a.dump(ctx, c)
	case f.preseed != "":
		p, err := a.readPreseed(f.preseed)
		if err != nil {
			return err
		}
		return a.applyPreseed(ctx, c, p)
	case f.auto || f.minimal:
		return a.applyPreseed(ctx, c, f.automatic())
	}
	server, _, err := c.Server(ctx)
	if err != nil {
		return err
	}
	p, err := a.ask(ctx, server)
	if err != nil {
		return err
	}
	return a.applyPreseed(ctx, c, p)
}

// automatic is the set-up that --auto means.
func (f *initFlags) automatic() *preseed {
	p := &preseed{}
	if f.networkAddress != "" {
		address := client.CanonicalAddress(f.networkAddress)
		if f.networkPort != 0 {
			address = net.JoinHostPort(strings.Trim(f.networkAddress, "[]"), strconv.Itoa(f.networkPort))
		}
		p.Config = api.ConfigMap{"core.https_address": address}
	}
	return p
}

// readPreseed reads and checks the file called name; "-" is stdin.
func (a *app) readPreseed(name string) (*preseed, error) {
	var data []byte
	var err error
	if name == "-" {
		data, err = io.ReadAll(a.stdin)
	} else {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read preseed: %w", err)
	}
	return parsePreseed(data)
}

// applyPreseed makes the server what p says. Running it again is harmless.
func (a *app) applyPreseed(ctx context.Context, c *client.Client, p *preseed) error {
	if p.joins() {
		return a.join(ctx, c, p)
	}
	return a.bootstrap(ctx, c, p)
}

// bootstrap writes the configuration and, if p says so, makes the server the first
// member of a cluster.
func (a *app) bootstrap(ctx context.Context, c *client.Client, p *preseed) error {
	cluster, etag, err := c.Cluster(ctx)
	if err != nil {
		return err
	}
	if p.enables() && cluster.Enabled && cluster.ServerName != p.Cluster.ServerName {
		return refuse(api.AlreadyClustered, "This server is already clustered, as %q", cluster.ServerName)
	}
	if len(p.Config) > 0 {
		config := p.configFor(cluster.Enabled)
		err := updateConfig(ctx, c, func(current api.ConfigMap) {
			for key, value := range config {
				current[key] = value
			}
		})
		if err != nil {
			return err
		}
	}
	if !p.enables() || cluster.Enabled {
		return nil
	}
	put := api.ClusterPut{Cluster: api.Cluster{ServerName: p.Cluster.ServerName, Enabled: true}}
	op, err := c.UpdateCluster(ctx, put, etag)
	if err != nil {
		return err
	}
	_, err = a.await(ctx, c, op, "Creating the cluster")
	return err
}

// join makes the server a member of the cluster that p names. The daemon carries it
// out; a second try goes on where the first one stopped.
func (a *app) join(ctx context.Context, c *client.Client, p *preseed) error {
	isMember, err := alreadyJoined(ctx, c, p.token)
	if err != nil || isMember {
		if isMember && !a.quiet {
			fmt.Fprintf(a.stderr, "This server is already a member of that cluster, as %q\n", p.token.ServerName)
		}
		return err
	}
	put, err := a.resolveJoin(ctx, p)
	if err != nil {
		return err
	}
	if len(p.Config) > 0 {
		a.warn("the section config is ignored: a server that joins takes the configuration of the cluster")
	}
	op, err := c.UpdateCluster(ctx, *put, "")
	if err != nil {
		return err
	}
	_, err = a.await(ctx, c, op, "Joining cluster")
	return err
}

// alreadyJoined tells whether the join that token is for has been done: that makes
// a preseed harmless that is run again because the first answer was lost.
func alreadyJoined(ctx context.Context, c *client.Client, token *api.ClusterMemberJoinToken) (bool, error) {
	if token == nil {
		return false, nil
	}
	server, _, err := c.Server(ctx)
	if err != nil {
		return false, err
	}
	env := server.Environment
	return env.ServerClustered && env.ServerName == token.ServerName && env.CertificateFingerprint == token.Fingerprint, nil
}

// resolveJoin makes the daemon's request out of p: it finds the cluster, if p has
// only a token, and drops what is not the joiner's to say. Nothing is changed.
func (a *app) resolveJoin(ctx context.Context, p *preseed) (*api.ClusterPut, error) {
	put := p.Cluster.ClusterPut
	put.ServerAddress = client.CanonicalAddress(put.ServerAddress)
	put.MemberConfig = a.memberSpecific(put.MemberConfig)
	if p.token != nil {
		if put.ServerName != "" && put.ServerName != p.token.ServerName {
			a.warn("server_name %q is ignored: the token is for %q", put.ServerName, p.token.ServerName)
		}
		put.ServerName = p.token.ServerName
	}
	if put.ClusterCertificate == "" {
		address, certificate, err := a.findMember(ctx, p.token)
		if err != nil {
			return nil, err
		}
		put.ClusterAddress, put.ClusterCertificate = address, certificatePEM(certificate)
	}
	put.ClusterAddress = client.CanonicalAddress(put.ClusterAddress)
	return &put, nil
}

// dumped is the present set-up; its empty lists are those of sections that this
// version has nothing for.
type dumped struct {
	Config         api.ConfigMap   `yaml:"config"`
	Networks       []string        `yaml:"networks"`
	StoragePools   []string        `yaml:"storage_pools"`
	StorageVolumes []string        `yaml:"storage_volumes"`
	Profiles       []dumpedProfile `yaml:"profiles"`
	Projects       []dumpedProject `yaml:"projects"`
	Certificates   []string        `yaml:"certificates"`
	ClusterGroups  []string        `yaml:"cluster_groups"`
}

type dumpedProfile struct {
	Config      api.ConfigMap            `yaml:"config"`
	Description string                   `yaml:"description"`
	Devices     map[string]api.ConfigMap `yaml:"devices"`
	Name        string                   `yaml:"name"`
	Project     string                   `yaml:"project"`
}

type dumpedProject struct {
	Config      api.ConfigMap `yaml:"config"`
	Description string        `yaml:"description"`
	Name        string        `yaml:"name"`
}

// dump prints the present set-up in the form of a preseed.
func (a *app) dump(ctx context.Context, c *client.Client) error {
	server, _, err := c.Server(ctx)
	if err != nil {
		return err
	}
	profiles, err := c.Profiles(ctx)
	if err != nil {
		return err
	}
	projects, err := c.Projects(ctx)
	if err != nil {
		return err
	}
	d := dumped{Config: server.Config}
	for _, p := range profiles {
		d.Profiles = append(d.Profiles, dumpedProfile{Config: p.Config, Description: p.Description, Devices: p.Devices, Name: p.Name})
	}
	for _, p := range projects {
		d.Projects = append(d.Projects, dumpedProject{p.Config, p.Description, p.Name})
	}
	if err := table.WriteYAML(a.stdout, d); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout) // other tools rely on the empty line at the end
	return err
}

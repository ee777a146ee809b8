package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
)

// initFlags are those of "incus admin init".
type initFlags struct {
	auto, minimal, dump                        bool
	preseed                                    string // empty: not given; "-": stdin
	networkAddress                             string
	networkPort                                int
	storageBackend, storageDevice, storagePool string
	storageLoop                                int // GiB
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
	flags.StringVar(&f.storageBackend, "storage-backend", "", "Make the storage pool with this `DRIVER` (with --auto; default dir)")
	flags.StringVar(&f.storageDevice, "storage-create-device", "", "Make the storage pool on the block device `PATH` (with --auto)")
	flags.IntVar(&f.storageLoop, "storage-create-loop", 0, "Make the storage pool in a file of `GIB` (with --auto)")
	flags.StringVar(&f.storagePool, "storage-pool", "", "Use the existing pool or dataset `NAME` (with --auto)")
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
	if f.storageBackend == "" || f.storageBackend == "dir" {
		for _, name := range configFlags[3:] {
			if cmd.Flags().Changed(name) {
				return fmt.Errorf("None of --storage-pool, --storage-create-device or --storage-create-loop may be used with the 'dir' backend: --%s is given", name)
			}
		}
	}
	switch {
	case f.storageDevice != "" && f.storageLoop != 0, f.storagePool != "" && (f.storageDevice != "" || f.storageLoop != 0):
		return errors.New("Only one of --storage-create-device, --storage-create-loop or --storage-pool can be specified")
	case f.storageLoop < 0 || cmd.Flags().Changed("storage-create-loop") && f.storageLoop == 0:
		return errors.New("--storage-create-loop needs a whole number of GiB, at least 1")
	}
	return nil
}

func (a *app) adminInit(ctx context.Context, f initFlags) error {
	c := a.daemon().WithProject("") // the set-up is that of the server, whichever project one works in
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
		p, err := a.automatic(ctx, c, &f)
		if err != nil {
			return err
		}
		return a.applyPreseed(ctx, c, p)
	}
	server, _, err := c.Server(ctx)
	if err != nil {
		return err
	}
	p, err := a.ask(ctx, c, server)
	if err != nil {
		return err
	}
	return a.applyPreseed(ctx, c, p)
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
	run := &application{app: a, client: c, clustered: cluster.Enabled}
	if err := run.check(ctx, p); err != nil {
		return err
	}
	if config := p.configFor(cluster.Enabled); len(config) > 0 {
		err := run.step("config", func() error {
			return updateConfig(ctx, c, func(current api.ConfigMap) { maps.Copy(current, config) })
		})
		if err != nil {
			return err
		}
	}
	if err := run.entities(ctx, p); err != nil {
		return err
	}
	if err := run.certificates(ctx, p); err != nil {
		return err
	}
	if p.enables() && !cluster.Enabled {
		if err := run.step("cluster", func() error { return a.enable(ctx, c, p.Cluster.ServerName, etag) }); err != nil {
			return err
		}
	}
	return run.groups(ctx, p)
}

// enable makes the server the first member of a cluster.
func (a *app) enable(ctx context.Context, c *client.Client, name, etag string) error {
	op, err := c.UpdateCluster(ctx, api.ClusterPut{Cluster: api.Cluster{ServerName: name, Enabled: true}}, etag)
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
	if ignored := p.sections(); len(ignored) > 0 {
		a.warn("ignored: %s. A server that joins takes what the cluster has", strings.Join(ignored, ", "))
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

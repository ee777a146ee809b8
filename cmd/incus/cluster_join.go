package main

import (
	"context"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
)

func (a *app) clusterJoinCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "join <cluster>: [<server>:]",
		Short: "Let a server join a cluster",
		Long: "Let a server join a cluster, from a machine that may administer both.\n\nThe cluster is a remote, reached over HTTPS; the server is another one, or this machine's.\n" +
			"It asks for the address and the name of the new member. A token is issued, and used at once.",
		Example:           "  incus cluster join prod: newserver:\n  incus cluster join prod: local:",
		Args:              argCount(1, 2),
		ValidArgsFunction: a.completeArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			target := ""
			if len(args) > 1 {
				target = args[1]
			}
			return a.clusterJoin(cmd.Context(), args[0], target)
		},
	}
}

// aRemote returns a client of a remote and nothing behind it, and what is known of that remote.
func (a *app) aRemote(arg string) (*client.Client, *usedRemote, error) {
	c, name, err := a.server(arg)
	if err == nil && name != "" {
		err = api.Errorf(api.BadRequest, "%q is not a remote", arg).WithHint("a remote ends with a colon: %s:", localRemote)
	}
	return c, a.used, err
}

// clusterJoin leads the dialogue and lets the server join. Nothing is changed before the last
// question is answered, but that the cluster has issued a token; it is revoked if it is not used.
func (a *app) clusterJoin(ctx context.Context, clusterArg, serverArg string) error {
	cluster, clusterUsed, err := a.aRemote(clusterArg)
	if err != nil {
		return err
	}
	server, serverUsed, err := a.aRemote(serverArg)
	if err != nil {
		return err
	}
	c, _, err := cluster.Cluster(ctx)
	switch {
	case err != nil:
		return err
	case !c.Enabled:
		return refuse(api.NotClustered, "Target isn't a cluster")
	}
	joining, _, err := server.Server(ctx)
	switch {
	case err != nil:
		return err
	case joining.Environment.ServerClustered:
		return refuse(api.AlreadyClustered, "Target server is already clustered")
	}
	address, certificate := clusterUsed.peer()
	if address == "" {
		return api.Errorf(api.BadRequest, "The cluster is reached over a socket, where no other server could reach it").
			WithHint("add it as a remote by its address: incus remote add NAME ADDRESS; or issue a token there: incus cluster add NAME")
	}
	d := &dialogue{prompter: a.prompter(), app: a, client: server, server: joining}
	p := &preseed{Cluster: &preseedCluster{}}
	p.Cluster.Enabled = true
	if p.Cluster.ServerAddress, err = d.address(ctx); err != nil {
		return err
	}
	if p.Cluster.ServerName, err = d.memberName(ctx); err != nil {
		return err
	}
	token, err := cluster.CreateJoinToken(ctx, p.Cluster.ServerName)
	if err != nil {
		return err
	}
	p.token, p.Cluster.ClusterToken = &token.ClusterMemberJoinToken, token.String()
	report, err := d.preflight(ctx, p, address, certificate)
	if err == nil {
		err = d.consent(ctx, p, report)
	}
	if err != nil {
		// The refusal is what counts; a token that is left behind expires.
		_ = cluster.CancelOperation(context.WithoutCancel(ctx), token.Operation)
		return err
	}
	if secured := serverUsed.secured; secured.Name != "" {
		// The server shows the cluster's certificate as soon as it is a member. A connection that is
		// lost then must not look like an attack.
		secured.Successor = certificate
		server = secured.Client(a.options())
	}
	return a.join(ctx, server, p)
}

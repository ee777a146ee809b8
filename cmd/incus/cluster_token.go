package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

func (a *app) clusterAddCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "add [<remote>:]<name>",
		Short: "Issue the token with which a server called <name> may join",
		Long: "Issue the token with which a server called <name> may join.\n\nA token admits one server, once, before it expires. " +
			"Issuing another for the\nsame name revokes the earlier one.",
		Example: "  incus cluster add node2",
		Args:    argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			arg := name
			if len(args) > 0 {
				arg = args[0]
			}
			c, member, err := a.server(arg)
			if err != nil {
				return err
			}
			switch {
			case member == "" && name != "":
				member = name
			case name != "" && len(args) > 0 && member != name:
				return fmt.Errorf("Cannot use both an argument and --name")
			case member == "":
				return api.Errorf(api.NameInvalid, "No name for the new member").WithHint("usage: %s", cmd.UseLine())
			}
			token, err := c.CreateJoinToken(cmd.Context(), member)
			if err != nil {
				return err
			}
			a.say("Member %s join token:", member)
			fmt.Fprintln(a.stdout, token.String())
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "The `NAME` of the new member, in place of the argument")
	return cmd
}

func (a *app) tokenColumns(table.Format) []column[client.JoinToken] {
	return []column[client.JoinToken]{
		{'n', "NAME", func(t client.JoinToken) string { return t.ServerName }},
		{'t', "TOKEN", func(t client.JoinToken) string { return t.String() }},
		{'E', "EXPIRES AT", func(t client.JoinToken) string { return a.date(t.ExpiresAt) }},
	}
}

func (a *app) clusterListTokensCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:   "list-tokens [<remote>:]",
		Short: "List the join tokens that can still be used",
		Long:  "List the join tokens that can still be used.\n\n" + columnHelp(a.tokenColumns(table.Format{})),
		Args:  argCount(0, 1),
		RunE: listAll(a, &flags, a.tokenColumns, func(ctx context.Context, c *client.Client) ([]client.JoinToken, error) {
			if err := requireCluster(ctx, c); err != nil {
				return nil, err
			}
			return c.JoinTokens(ctx)
		}),
	}
	flags.add(cmd, "ntE")
	return cmd
}

func (a *app) clusterRevokeTokenCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "revoke-token [<remote>:]<name>",
		Short:             "Revoke the join token for the member called <name>",
		Args:              argCount(1, 1),
		ValidArgsFunction: a.completeTokens(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.member(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			tokens, err := c.JoinTokens(cmd.Context())
			if err != nil {
				return err
			}
			for _, token := range tokens {
				if token.ServerName != name {
					continue
				}
				if err := c.CancelOperation(cmd.Context(), token.Operation); err != nil {
					return err
				}
				a.say("Cluster join token for %s deleted", name)
				return nil
			}
			return a.notThere("No cluster join token for member %s on remote: %s", name, a.used.name)
		},
	}
}

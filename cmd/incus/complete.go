package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"incusd/client"
)

// completionLimit bounds what the shell waits for after a press of the tab key.
const completionLimit = 2 * time.Second

// A lister finds the words that may stand at some place of a command line.
type lister func(context.Context) ([]string, error)

// anywhere is the position of a word that may follow any number of arguments, as
// that of a flag.
const anywhere = -1

// complete offers the words of list for the argument number position. It stays
// silent on errors: the shell has no place for them.
func complete(position int, list lister) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		const noFiles = cobra.ShellCompDirectiveNoFileComp
		if position != anywhere && len(args) != position {
			return nil, noFiles
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
		defer cancel()
		words, err := list(ctx)
		if err != nil {
			return nil, noFiles
		}
		return slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, start) }), noFiles
	}
}

// An argLister finds the words that may follow args; of the first of those the remote is taken off.
type argLister func(ctx context.Context, c *client.Client, args []string) ([]string, error)

// completeArgs offers for the first arguments the words of the first listers, and so on.
func (a *app) completeArgs(listers ...argLister) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		at := len(args)
		if at >= len(listers) || listers[at] == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(at, func(ctx context.Context) ([]string, error) {
			before := slices.Clone(args)
			c := a.client()
			if at > 0 {
				var err error
				if c, before[0], err = a.server(args[0]); err != nil {
					return nil, err
				}
			}
			return listers[at](ctx, c, before)
		})(cmd, args, start)
	}
}

func (a *app) completeMembers(position int) cobra.CompletionFunc {
	return complete(position, func(ctx context.Context) ([]string, error) {
		members, err := a.client().Members(ctx, "")
		names := make([]string, len(members))
		for i, m := range members {
			names[i] = m.ServerName
		}
		return names, err
	})
}

func (a *app) completeTokens() cobra.CompletionFunc {
	return complete(0, func(ctx context.Context) ([]string, error) {
		tokens, err := a.client().JoinTokens(ctx)
		names := make([]string, len(tokens))
		for i, t := range tokens {
			names[i] = t.ServerName
		}
		return names, err
	})
}

func (a *app) completeOperations() cobra.CompletionFunc {
	return complete(0, func(ctx context.Context) ([]string, error) {
		operations, err := a.client().Operations(ctx, false)
		ids := make([]string, len(operations))
		for i, op := range operations {
			ids[i] = op.ID
		}
		return ids, err
	})
}

func (a *app) completeConfigKeys() cobra.CompletionFunc {
	return complete(0, func(ctx context.Context) ([]string, error) {
		server, _, err := a.client().Server(ctx)
		if err != nil {
			return nil, err
		}
		keys := make([]string, 0, len(server.Config))
		for key := range server.Config {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		return keys, nil
	})
}

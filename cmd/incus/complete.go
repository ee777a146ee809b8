package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
)

// completionLimit bounds what the shell waits for after a press of the tab key.
const completionLimit = 2 * time.Second

// A lister finds the words that may stand at some place of a command line.
type lister func(context.Context, *client.Client) ([]string, error)

// anywhere is the position of a word that may follow any number of arguments, as
// that of a flag.
const anywhere = -1

// complete offers the words of list for the argument number position. It stays
// silent on errors: the shell has no place for them. A word for an argument may begin with a remote,
// whose words are offered then; that for a flag belongs to the remote of the first argument.
func (a *app) complete(position int, list lister) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		switch {
		case position == anywhere && len(args) > 0:
			return a.words(cmd, args[0], start, false, list), noFiles
		case position == anywhere:
			return a.words(cmd, "", start, false, list), noFiles
		case len(args) != position:
			return nil, noFiles
		}
		return a.words(cmd, start, start, true, list), noFiles
	}
}

const noFiles = cobra.ShellCompDirectiveNoFileComp

// words are those of list that begin with start, found at the remote that of names. Prefixed ones
// have that remote in front if start has it.
func (a *app) words(cmd *cobra.Command, of, start string, prefixed bool, list lister) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
	defer cancel()
	c, _, err := a.server(of)
	if err != nil {
		return nil
	}
	words, err := list(ctx, c)
	if err != nil {
		return nil
	}
	prefix := ""
	if remote, _, found := strings.Cut(start, ":"); found && prefixed {
		prefix = remote + ":"
	}
	found := make([]string, 0, len(words))
	for _, w := range words {
		if w = prefix + w; strings.HasPrefix(w, start) {
			found = append(found, w)
		}
	}
	return found
}

// An argLister finds the words that may follow args; of the first of those the remote is taken off.
type argLister func(ctx context.Context, c *client.Client, args []string) ([]string, error)

// completeArgs offers for the first arguments the words of the first listers, and so on.
func (a *app) completeArgs(listers ...argLister) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		at := len(args)
		if at >= len(listers) || listers[at] == nil {
			return nil, noFiles
		}
		of, before := start, slices.Clone(args)
		if at > 0 {
			of = args[0]
			_, name, err := a.split(of)
			if err != nil {
				return nil, noFiles
			}
			before[0] = name
		}
		return a.words(cmd, of, start, at == 0, func(ctx context.Context, c *client.Client) ([]string, error) {
			return listers[at](ctx, c, before)
		}), noFiles
	}
}

// completeRemotes offers the names of the remotes for the first argument.
func (a *app) completeRemotes() cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, noFiles
		}
		return slices.DeleteFunc(a.settings().Names(), func(name string) bool { return !strings.HasPrefix(name, start) }), noFiles
	}
}

func (a *app) completeMembers(position int) cobra.CompletionFunc {
	return a.complete(position, func(ctx context.Context, c *client.Client) ([]string, error) {
		members, err := c.Members(ctx, "")
		return namesOf(members, func(m api.ClusterMember) string { return m.ServerName }), err
	})
}

func (a *app) completeTokens() cobra.CompletionFunc {
	return a.complete(0, func(ctx context.Context, c *client.Client) ([]string, error) {
		tokens, err := c.JoinTokens(ctx)
		return namesOf(tokens, func(t client.JoinToken) string { return t.ServerName }), err
	})
}

func (a *app) completeOperations() cobra.CompletionFunc {
	return a.complete(0, func(ctx context.Context, c *client.Client) ([]string, error) {
		operations, err := c.Operations(ctx, false)
		return namesOf(operations, func(op api.Operation) string { return op.ID }), err
	})
}

func (a *app) completeConfigKeys() cobra.CompletionFunc {
	return a.complete(0, func(ctx context.Context, c *client.Client) ([]string, error) {
		server, _, err := c.Server(ctx)
		if err != nil {
			return nil, err
		}
		return slices.Sorted(maps.Keys(server.Config)), nil
	})
}

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

// A noun is a kind of object that has a description and a configuration. What commands on
// all of them have in common stands here once: show, get, set, unset, edit, delete and rename. O is the object
// as the API shows it, P its writable part.
type noun[O, P any] struct {
	app *app
	// words is what people call it, such as "storage pool"; argument stands for its name in a
	// usage line.
	words, argument string
	get             func(context.Context, *client.Client, string) (*O, string, error)
	put             func(context.Context, *client.Client, string, P, string) error
	delete          func(context.Context, *client.Client, string) error
	rename          func(c context.Context, from *client.Client, name, to string) error
	part            func(*O) *P
	config          func(*P) *api.ConfigMap
	description     func(*P) *string
	// targets is true if members have keys of their own.
	targets bool
	// complete offers names.
	complete cobra.CompletionFunc
	// said is what a person is told when it was deleted or renamed, with the name.
	deleted, renamed string
}

// command makes a command whose first argument is an object's name.
func (n *noun[O, P]) command(use, short string, least, most int, run func(ctx context.Context, c *client.Client, name string, args []string) error) *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: argCount(least, most), ValidArgsFunction: n.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := n.app.server(args[0])
			if err != nil {
				return err
			}
			if c, err = aim(cmd.Context(), c, target); err != nil {
				return err
			}
			return run(cmd.Context(), c, name, args[1:])
		},
	}
	if n.targets {
		n.app.targetFlag(cmd, &target)
	}
	return cmd
}

func (n *noun[O, P]) showCommand() *cobra.Command {
	return n.command("show [<remote>:]"+n.argument, "Show a "+n.words, 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			object, _, err := n.get(ctx, c, name)
			if err != nil {
				return err
			}
			return table.WriteYAML(n.app.stdout, object)
		})
}

// property returns the writable property that key names. There is one.
func (n *noun[O, P]) property(part *P, key string) (*string, error) {
	if key != "description" {
		return nil, api.Errorf(api.BadRequest, "A %s has no property %q", n.words, key).WithHint("the property that can be changed is description")
	}
	return n.description(part), nil
}

func (n *noun[O, P]) propertyFlag(cmd *cobra.Command, isProperty *bool) *cobra.Command {
	cmd.Flags().BoolVarP(isProperty, "property", "p", false, "The key is a property (description), not a configuration key")
	return cmd
}

func (n *noun[O, P]) getCommand() *cobra.Command {
	var isProperty bool
	return n.propertyFlag(n.command("get [<remote>:]"+n.argument+" <key>", "Print a configuration key of a "+n.words, 2, 2,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			object, _, err := n.get(ctx, c, name)
			if err != nil {
				return err
			}
			part := n.part(object)
			value := (*n.config(part))[args[0]]
			if isProperty {
				found, err := n.property(part, args[0])
				if err != nil {
					return err
				}
				value = *found
			}
			fmt.Fprintln(n.app.stdout, value)
			return nil
		}), &isProperty)
}

func (n *noun[O, P]) setCommand() *cobra.Command {
	var isProperty bool
	return n.propertyFlag(n.command("set [<remote>:]"+n.argument+" <key>=<value>...", "Set configuration keys of a "+n.words, 2, -1,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			values, err := n.app.keyValues(args)
			if err != nil {
				return err
			}
			return n.change(ctx, c, name, values, isProperty)
		}), &isProperty)
}

func (n *noun[O, P]) unsetCommand() *cobra.Command {
	var isProperty bool
	return n.propertyFlag(n.command("unset [<remote>:]"+n.argument+" <key>...", "Unset configuration keys of a "+n.words, 2, -1,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			values := make(map[string]string, len(args))
			for _, key := range args {
				values[key] = ""
			}
			return n.change(ctx, c, name, values, isProperty)
		}), &isProperty)
}

// change sets keys, or unsets those without a value, of the object as it is.
func (n *noun[O, P]) change(ctx context.Context, c *client.Client, name string, values map[string]string, isProperty bool) error {
	return retryStale(func() error { return n.changeOnce(ctx, c, name, values, isProperty) })
}

func (n *noun[O, P]) changeOnce(ctx context.Context, c *client.Client, name string, values map[string]string, isProperty bool) error {
	object, etag, err := n.get(ctx, c, name)
	if err != nil {
		return err
	}
	part := n.part(object)
	config := maps.Clone(*n.config(part))
	if config == nil {
		config = api.ConfigMap{}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch value := values[key]; {
		case isProperty:
			found, err := n.property(part, key)
			if err != nil {
				return err
			}
			*found = value
		case value == "":
			delete(config, key)
		default:
			config[key] = value
		}
	}
	*n.config(part) = config
	return n.put(ctx, c, name, *part, etag)
}

func (n *noun[O, P]) editCommand() *cobra.Command {
	return n.command("edit [<remote>:]"+n.argument, "Edit a "+n.words+" as YAML", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			object, etag, err := n.get(ctx, c, name)
			if err != nil {
				return err
			}
			if !n.app.stdinTerminal {
				// What "show" printed is taken, too: its other fields are known, and ignored. It was not
				// made from what is there now.
				return editObject(ctx, n.app, *object, "", func(changed O) error { return n.put(ctx, c, name, *n.part(&changed), "") })
			}
			help := "# This is the " + n.words + " " + name + " as YAML. Lines that begin with # are left out."
			return editObject(ctx, n.app, *n.part(object), help, func(changed P) error { return n.put(ctx, c, name, changed, etag) })
		})
}

func (n *noun[O, P]) deleteCommand() *cobra.Command {
	cmd := n.command("delete [<remote>:]"+n.argument, "Delete a "+n.words, 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			if err := n.delete(ctx, c, name); err != nil {
				return err
			}
			n.app.say(n.deleted, name)
			return nil
		})
	cmd.Aliases = []string{"rm"}
	return cmd
}

func (n *noun[O, P]) renameCommand() *cobra.Command {
	cmd := n.command("rename [<remote>:]"+n.argument+" <new-name>", "Rename a "+n.words, 2, 2,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			if err := n.rename(ctx, c, name, args[0]); err != nil {
				return err
			}
			n.app.say(n.renamed, name, args[0])
			return nil
		})
	cmd.Aliases = []string{"mv"}
	return cmd
}

// common are the commands that every noun has.
func (n *noun[O, P]) common() []*cobra.Command {
	cmds := []*cobra.Command{n.showCommand(), n.getCommand(), n.setCommand(), n.unsetCommand(), n.editCommand(), n.deleteCommand()}
	if n.rename != nil {
		cmds = append(cmds, n.renameCommand())
	}
	return cmds
}

// newObject reads the writable part of something that is being made: from stdin as YAML, unless a
// person is there, then from the arguments and --description.
func newObject[P any](a *app, args []string, description string, part func(*P) (*api.ConfigMap, *string)) (P, error) {
	var object P
	if !a.stdinTerminal {
		data, err := io.ReadAll(a.stdin)
		if err != nil {
			return object, fmt.Errorf("read stdin: %w", err)
		}
		if object, err = decodeStrict[P](data); err != nil {
			return object, err
		}
	}
	config, text := part(&object)
	if len(args) > 0 {
		values, err := a.pairs(args)
		if err != nil {
			return object, err
		}
		if *config == nil {
			*config = api.ConfigMap{}
		}
		maps.Copy(*config, values)
	}
	if description != "" {
		*text = description
	}
	return object, nil
}

// pairs reads key=value arguments of a command whose standard input is YAML already.
func (a *app) pairs(args []string) (map[string]string, error) {
	for _, arg := range args {
		if !strings.Contains(arg, "=") {
			return nil, fmt.Errorf("Invalid key=value configuration: %s", arg)
		}
	}
	return a.keyValues(args)
}

// completeNames offers names that the server lists.
func (a *app) completeNames(list func(context.Context, *client.Client) ([]string, error)) cobra.CompletionFunc {
	return complete(0, func(ctx context.Context) ([]string, error) { return list(ctx, a.client()) })
}

// namesOf are the names of objects.
func namesOf[T any](objects []T, name func(T) string) []string {
	names := make([]string, len(objects))
	for i, o := range objects {
		names[i] = name(o)
	}
	return names
}

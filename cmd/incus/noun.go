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
// all of them have in common stands here once: show, get, set, unset, edit, delete and rename,
// and how a new one is read. O is the object as the API shows it, P its writable part.
type noun[O, P any] struct {
	app *app
	// path is what its commands stand under, such as "storage"; words is what people call it,
	// such as "storage pool"; argument stands for its name in a usage line.
	path, words, argument string
	// example is a name, and pair a key and value, for help texts.
	example, pair string
	// sample is its writable part as YAML, for who edits one.
	sample string

	// The calls have the client first, so that its methods fit.
	get         func(*client.Client, context.Context, string) (*O, string, error)
	put         func(*client.Client, context.Context, string, P, string) error
	delete      func(*client.Client, context.Context, string) error
	rename      func(c *client.Client, ctx context.Context, name, to string) error // nil if it cannot be
	part        func(*O) *P
	config      func(*P) *api.ConfigMap
	description func(*P) *string
	// measure is what show --resources prints; nil if there is nothing to measure.
	measure func(*client.Client, context.Context, string) (*api.ResourcesStoragePool, error)
	// targets is true if members have keys of their own.
	targets bool
	// names lists those that there are, for the shell.
	names argLister
	// missing is said of a key that is not set, with key and name; if empty, an empty line is printed.
	missing string
	// deleted and renamed are what a person is told then, with the name.
	deleted, renamed string
}

// action is what a command does with the object called name; args are what follows it.
type action func(ctx context.Context, c *client.Client, name string, args []string) error

// command makes a command whose first argument is an object's name.
func (n *noun[O, P]) command(use, short string, least, most int, run action) *cobra.Command {
	return n.build(use, short, least, most, nil, run)
}

// onMember is command for what one member may be asked about, if members differ.
func (n *noun[O, P]) onMember(use, short string, least, most int, run action) *cobra.Command {
	if !n.targets {
		return n.command(use, short, least, most, run)
	}
	target := new(string)
	cmd := n.build(use, short, least, most, target, run)
	n.app.targetFlag(cmd, target)
	return cmd
}

// build makes a command; target may be nil.
func (n *noun[O, P]) build(use, short string, least, most int, target *string, run action) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: argCount(least, most), ValidArgsFunction: n.app.completeArgs(n.names),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := n.app.server(args[0])
			if err != nil {
				return err
			}
			if name == "" {
				return api.Errorf(api.BadRequest, "Missing %s name", n.words).WithHint("usage: %s", cmd.UseLine())
			}
			if target != nil {
				if c, err = aim(cmd.Context(), c, *target); err != nil {
					return err
				}
			}
			return run(cmd.Context(), c, name, args[1:])
		},
	}
}

// usage is the beginning of a usage line.
func (n *noun[O, P]) usage(verb string) string { return verb + " [<remote>:]" + n.argument }

// line is an example of a command; rest follows the name.
func (n *noun[O, P]) line(verb, rest string) string {
	return strings.TrimRight("  incus "+n.path+" "+verb+" "+n.example+" "+rest, " ")
}

// lines adds an example that asks one member to that of onMember's commands.
func (n *noun[O, P]) lines(verb, rest string) string {
	text := n.line(verb, rest)
	if n.targets {
		text += "\n" + text + " --target server1"
	}
	return text
}

func (n *noun[O, P]) showCommand() *cobra.Command {
	measured := false
	cmd := n.onMember(n.usage("show"), "Show a "+n.words+" as YAML", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			if measured {
				found, err := n.measure(c, ctx, name)
				if err != nil {
					return err
				}
				return table.WriteYAML(n.app.stdout, found)
			}
			object, _, err := n.get(c, ctx, name)
			if err != nil {
				return err
			}
			return table.WriteYAML(n.app.stdout, object)
		})
	if n.targets {
		cmd.Long = cmd.Short + ".\n\nKeys that are each member's own are shown with --target only."
	}
	if n.measure != nil {
		cmd.Flags().BoolVar(&measured, "resources", false, "Show what it has room for and uses instead")
	}
	cmd.Example = n.lines("show", "")
	return cmd
}

// property returns the writable property that key names. There is one.
func (n *noun[O, P]) property(part *P, name, key string) (*string, error) {
	if key != "description" {
		return nil, api.Errorf(api.BadRequest, "The property %q does not exist on the %s %q", key, n.words, name).WithHint("the property that can be changed is description")
	}
	return n.description(part), nil
}

func (n *noun[O, P]) getCommand() *cobra.Command {
	var isProperty bool
	cmd := n.onMember(n.usage("get")+" <key>", "Print a configuration key of a "+n.words, 2, 2,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			object, _, err := n.get(c, ctx, name)
			if err != nil {
				return err
			}
			part := n.part(object)
			value, isSet := (*n.config(part))[args[0]]
			switch {
			case isProperty:
				found, err := n.property(part, name, args[0])
				if err != nil {
					return err
				}
				value = *found
			case !isSet && n.missing != "":
				return fmt.Errorf(n.missing, args[0], name)
			}
			fmt.Fprintln(n.app.stdout, value)
			return nil
		})
	if n.missing == "" {
		cmd.Long = cmd.Short + ".\n\nA key that is not set is printed as an empty line."
	}
	cmd.Example = n.lines("get", n.key()) + "\n" + n.line("get", "-p description")
	return n.withProperty(cmd, &isProperty)
}

func (n *noun[O, P]) setCommand() *cobra.Command {
	var isProperty bool
	cmd := n.onMember(n.usage("set")+" <key>=<value>...", "Set configuration keys of a "+n.words, 2, -1,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			values, err := n.app.keyValues(args)
			if err != nil {
				return err
			}
			return n.change(ctx, c, name, values, isProperty)
		})
	cmd.Long = cmd.Short + ".\n\nAn empty value unsets a key; the value - is read from stdin."
	if n.targets {
		cmd.Long += "\nKeys that are each member's own, and only those, are set with --target."
	}
	cmd.Example = n.line("set", n.pair) + "\n" + n.line("set", "-p description=\"The one beside the window\"")
	n.withProperty(cmd, &isProperty)
	cmd.ValidArgsFunction = n.app.completeArgs(n.names) // a key alone, with a space after it, is no argument
	return cmd
}

func (n *noun[O, P]) unsetCommand() *cobra.Command {
	var isProperty bool
	cmd := n.onMember(n.usage("unset")+" <key>...", "Unset configuration keys of a "+n.words, 2, -1,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			values := make(map[string]string, len(args))
			for _, key := range args {
				values[key] = ""
			}
			return n.change(ctx, c, name, values, isProperty)
		})
	cmd.Example = n.line("unset", n.key())
	return n.withProperty(cmd, &isProperty)
}

// withProperty adds --property to a command that reads or writes a key.
func (n *noun[O, P]) withProperty(cmd *cobra.Command, isProperty *bool) *cobra.Command {
	cmd.Flags().BoolVarP(isProperty, "property", "p", false, "The key is a property (description), not a configuration key")
	cmd.ValidArgsFunction = n.app.completeArgs(n.names, func(ctx context.Context, c *client.Client, args []string) ([]string, error) {
		if *isProperty {
			return []string{"description"}, nil
		}
		object, _, err := n.get(c, ctx, args[0])
		if err != nil {
			return nil, err
		}
		return slices.Sorted(maps.Keys(*n.config(n.part(object)))), nil
	})
	return cmd
}

// key is the key of the pair in examples.
func (n *noun[O, P]) key() string {
	key, _, _ := strings.Cut(n.pair, "=")
	return key
}

// change sets keys, or unsets those without a value, of the object as it is.
func (n *noun[O, P]) change(ctx context.Context, c *client.Client, name string, values map[string]string, isProperty bool) error {
	return retryStale(func() error { return n.changeOnce(ctx, c, name, values, isProperty) })
}

func (n *noun[O, P]) changeOnce(ctx context.Context, c *client.Client, name string, values map[string]string, isProperty bool) error {
	object, etag, err := n.get(c, ctx, name)
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
			found, err := n.property(part, name, key)
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
	return n.put(c, ctx, name, *part, etag)
}

func (n *noun[O, P]) editCommand() *cobra.Command {
	cmd := n.onMember(n.usage("edit"), "Edit a "+n.words+" as YAML", 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			object, etag, err := n.get(c, ctx, name)
			if err != nil {
				return err
			}
			if !n.app.stdinTerminal {
				// What "show" printed is taken, too: its other fields are known, and ignored. It was not
				// made from what is there now.
				return editObject(ctx, n.app, *object, "", func(changed O) error { return n.put(c, ctx, name, *n.part(&changed), "") })
			}
			return editObject(ctx, n.app, *n.part(object), n.help(), func(changed P) error { return n.put(c, ctx, name, changed, etag) })
		})
	cmd.Long = cmd.Short + ".\n\nWhen stdin is no terminal, the YAML is read from there."
	name := n.example[strings.LastIndexByte(n.example, ' ')+1:]
	cmd.Example = n.line("edit", "") + "\n" + n.line("edit", "< "+name+".yaml")
	return cmd
}

// help stands above what is edited.
func (n *noun[O, P]) help() string {
	text := "### This is the writable part of a " + n.words + ", as YAML.\n### Lines that begin with # are ignored.\n###\n### A sample:\n"
	for line := range strings.Lines(n.sample) {
		text += "###   " + line
	}
	return text
}

func (n *noun[O, P]) deleteCommand() *cobra.Command {
	cmd := n.command(n.usage("delete"), "Delete a "+n.words, 1, 1,
		func(ctx context.Context, c *client.Client, name string, _ []string) error {
			if err := n.delete(c, ctx, name); err != nil {
				return err
			}
			n.app.say(n.deleted, name)
			return nil
		})
	cmd.Aliases = []string{"rm"}
	cmd.Example = n.line("delete", "")
	return cmd
}

func (n *noun[O, P]) renameCommand() *cobra.Command {
	cmd := n.command(n.usage("rename")+" <new-name>", "Rename a "+n.words, 2, 2,
		func(ctx context.Context, c *client.Client, name string, args []string) error {
			if err := n.rename(c, ctx, name, args[0]); err != nil {
				return err
			}
			n.app.say(n.renamed, name, args[0])
			return nil
		})
	cmd.Aliases = []string{"mv"}
	cmd.Example = n.line("rename", "spare")
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

// describe adds --description to a command that makes one.
func (n *noun[O, P]) describe(cmd *cobra.Command, description *string) {
	cmd.Flags().StringVar(description, "description", "", "Describe the "+n.words+" as `TEXT`")
}

// fresh reads the writable part of one that is being made: from stdin as YAML, unless a person is
// there, then from key=value arguments and the description, which win. What "show" printed of
// another one is taken, too: its other fields are known, and ignored.
func (n *noun[O, P]) fresh(pairs []string, description string) (P, error) {
	object, err := n.read()
	if err != nil {
		return *n.part(&object), err
	}
	part := n.part(&object)
	values, err := literal(pairs)
	if err != nil {
		return *part, err
	}
	config := n.config(part)
	if *config == nil {
		*config = api.ConfigMap{}
	}
	maps.Copy(*config, values)
	if description != "" {
		*n.description(part) = description
	}
	return *part, nil
}

// read reads an object from stdin, or none where a person is.
func (n *noun[O, P]) read() (O, error) {
	var object O
	if n.app.stdinTerminal {
		return object, nil
	}
	data, err := io.ReadAll(n.app.stdin)
	if err != nil {
		return object, fmt.Errorf("read stdin: %w", err)
	}
	return decodeStrict[O](data)
}

// literal reads key=value arguments of a command that does not read values from stdin.
func literal(args []string) (map[string]string, error) {
	values := make(map[string]string, len(args))
	for _, arg := range args {
		key, value, found := strings.Cut(arg, "=")
		if !found || key == "" {
			return nil, fmt.Errorf("Invalid key=value configuration: %s", arg)
		}
		values[key] = value
	}
	return values, nil
}

// namesOf are the names of objects.
func namesOf[T any](objects []T, name func(T) string) []string {
	names := make([]string, len(objects))
	for i, o := range objects {
		names[i] = name(o)
	}
	return names
}

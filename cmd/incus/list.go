package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

// A column is one that a list can show.
type column[T any] struct {
	key   rune // its letter in --columns
	title string
	cell  func(T) string
}

// listFlags are the flags that all lists have.
type listFlags struct {
	format, columns string
	allProjects     bool
}

func (l *listFlags) add(cmd *cobra.Command, columns string) {
	flags := cmd.Flags()
	flags.StringVarP(&l.format, "format", "f", table.Table,
		"Print as `FORMAT` ("+strings.Join(table.Kinds(), "|")+"), with \",noheader\" or \",header\" after it")
	flags.StringVarP(&l.columns, "columns", "c", columns, "Show these `COLUMNS`")
	mustComplete(cmd, "format", cobra.FixedCompletions(table.Kinds(), cobra.ShellCompDirectiveNoFileComp))
	mustComplete(cmd, "columns", cobra.NoFileCompletions)
}

// addProjects adds --all-projects to a list that has a column e, the project.
func (l *listFlags) addProjects(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&l.allProjects, "all-projects", false, "List those of all projects")
}

// withProject shows the project first, where objects of all projects are listed and the user has
// not chosen columns.
func (l listFlags) withProject(cmd *cobra.Command) listFlags {
	if l.allProjects && !cmd.Flags().Changed("columns") {
		l.columns = "e" + l.columns
	}
	return l
}

// mustComplete registers the completion of a flag that cmd has for certain.
func mustComplete(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err)
	}
}

// columnHelp lists the letters of columns for a help text.
func columnHelp[T any](columns []column[T]) string {
	var b strings.Builder
	b.WriteString("Columns:\n")
	for _, c := range columns {
		fmt.Fprintf(&b, "  %c - %s\n", c.key, c.title)
	}
	return b.String()
}

// pick selects columns by their letters, in the order of the letters. Commas
// between letters are allowed.
func pick[T any](all []column[T], letters string) ([]column[T], error) {
	var picked []column[T]
	for group := range strings.SplitSeq(letters, ",") {
		if group == "" {
			return nil, fmt.Errorf("Empty column entry (redundant, leading or trailing comma) in '%s'", letters)
		}
	next:
		for _, letter := range group {
			for _, c := range all {
				if c.key == letter {
					picked = append(picked, c)
					continue next
				}
			}
			return nil, fmt.Errorf("Unknown column shorthand char '%c' in '%s'", letter, letters)
		}
	}
	return picked, nil
}

// A listing is a list ready to be printed; it is made before the server is asked,
// so that a wrong flag is told first.
type listing[T any] struct {
	format  table.Format
	columns []column[T]
}

// newListing checks the flags. Columns is called when the format is known, since
// some cells depend on it.
func newListing[T any](flags listFlags, columns func(table.Format) []column[T]) (*listing[T], error) {
	format, err := table.Parse(flags.format)
	if err != nil {
		return nil, err
	}
	picked, err := pick(columns(format), flags.columns)
	if err != nil {
		return nil, err
	}
	return &listing[T]{format, picked}, nil
}

// shows tells whether one of these columns was chosen, and is printed.
func (l *listing[T]) shows(columns []column[T]) bool {
	if l.format.Kind == table.JSON || l.format.Kind == table.YAML {
		return false // the objects themselves are printed
	}
	return slices.ContainsFunc(l.columns, func(c column[T]) bool {
		return slices.ContainsFunc(columns, func(other column[T]) bool { return c.key == other.key })
	})
}

// print writes items, which are also what JSON and YAML show.
func (l *listing[T]) print(a *app, items []T) error { return l.printAs(a, items, items) }

// printAs writes items, and as JSON and YAML the object that they were taken from.
func (l *listing[T]) printAs(a *app, items []T, object any) error {
	header := make([]string, len(l.columns))
	for i, c := range l.columns {
		header[i] = c.title
	}
	rows := make([][]string, len(items))
	for i, item := range items {
		for _, c := range l.columns {
			rows[i] = append(rows[i], c.cell(item))
		}
	}
	return table.Write(a.stdout, l.format, header, rows, object)
}

// listAll is what a list command without filters runs: it prints what fetch finds.
func listAll[T any](a *app, flags *listFlags, columns func(table.Format) []column[T], fetch func(context.Context, *client.Client) ([]T, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		list, err := newListing(flags.withProject(cmd), columns)
		if err != nil {
			return err
		}
		c, err := a.onlyRemote(args)
		if err != nil {
			return err
		}
		items, err := fetch(cmd.Context(), c)
		if err != nil {
			return err
		}
		return list.print(a, items)
	}
}

// yesOrNo prints a flag the way lists do.
func yesOrNo(b bool) string {
	if b {
		return "YES"
	}
	return "NO"
}

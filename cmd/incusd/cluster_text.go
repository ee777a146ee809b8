package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"

	"incusd/api"
	"incusd/internal/recovery"
)

// A databaseText is what edit takes and show prints.
type databaseText struct {
	Members []api.ClusterDatabaseMember `yaml:"members"`
}

// writeDatabase prints the members under the comment that upstream's users look at to find the
// freshest copy: the number of the last entry.
func writeDatabase(w io.Writer, db api.ClusterDatabase) error {
	if _, err := fmt.Fprintf(w, "# Latest cowsql segment ID: %d\n\n", db.LastIndex); err != nil {
		return err
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(databaseText{db.Members}); err != nil {
		return err
	}
	return enc.Close()
}

const editHelp = `# You should run this command only if the addresses of cluster members have changed, and
# you are *absolutely* sure all daemons are stopped. Give every member the same list.
#
# The edit is aborted if:
# - the number of members changes
# - the name of any member changes
# - the ID of any member changes
# - no changes are made
`

// edit lets the user change the list, read from stdin if that is no terminal.
func edit(cmd *cobra.Command, s *recovery.Server) error {
	db := s.Database()
	if len(db.Members) == 0 {
		return s.Edit(nil)
	}
	var before strings.Builder
	before.WriteString(editHelp)
	if err := writeDatabase(&before, db); err != nil {
		return err
	}
	text, err := editedText(cmd.InOrStdin(), before.String())
	if err != nil {
		return err
	}
	var edited databaseText
	dec := yaml.NewDecoder(strings.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&edited); err != nil && !errors.Is(err, io.EOF) {
		return api.Errorf(api.BadRequest, "the list of members cannot be read: %v", err)
	}
	if err := s.Edit(edited.Members); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), "Addresses noted. Give the same list to all other members while they are stopped, then start them.")
	return nil
}

func editedText(in io.Reader, before string) (string, error) {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return runEditor(before)
	}
	data, err := io.ReadAll(in)
	return string(data), err
}

func runEditor(before string) (string, error) {
	editor := "vi"
	for _, name := range []string{"EDITOR", "VISUAL"} {
		if e := os.Getenv(name); e != "" {
			editor = e
		}
	}
	file, err := os.CreateTemp("", "incusd_editor_*.yaml")
	if err != nil {
		return "", err
	}
	defer os.Remove(file.Name())
	_, err = file.WriteString(before)
	if err := errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	// An editor may be given with arguments, which a shell splits.
	cmd := exec.Command("sh", "-c", editor+` "$1"`, "sh", file.Name())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("editor %s: %w", editor, err)
	}
	after, err := os.ReadFile(file.Name())
	if err == nil && string(after) == before {
		return "", errors.New("no changes were made")
	}
	return string(after), err
}

// writeColumn prints a table of one column in any of the command line's formats.
func writeColumn(w io.Writer, format, title string, rows []string) error {
	switch format {
	case "table":
		return writeBox(w, title, rows)
	case "compact":
		_, err := fmt.Fprintf(w, "  %s  \n%s", title, each(rows, "  %s  \n"))
		return err
	case "markdown":
		_, err := fmt.Fprintf(w, "| %s |\n| --- |\n%s", title, each(rows, "| %s |\n"))
		return err
	case "csv":
		out := csv.NewWriter(w)
		for _, r := range rows {
			if err := out.Write([]string{r}); err != nil {
				return err
			}
		}
		out.Flush()
		return out.Error()
	case "json":
		return json.NewEncoder(w).Encode(append([]string{}, rows...))
	case "yaml":
		return yaml.NewEncoder(w).Encode(append([]string{}, rows...))
	}
	return api.Errorf(api.BadRequest, "Invalid format %q", format).WithHint("use csv, json, table, yaml, compact or markdown")
}

func each(rows []string, format string) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, format, r)
	}
	return b.String()
}

func writeBox(w io.Writer, title string, rows []string) error {
	width := utf8.RuneCountInString(title)
	for _, r := range rows {
		width = max(width, utf8.RuneCountInString(r))
	}
	line := "+" + strings.Repeat("-", width+2) + "+\n"
	left := (width - utf8.RuneCountInString(title)) / 2
	var b strings.Builder
	fmt.Fprintf(&b, "%s| %-*s |\n%s", line, width, strings.Repeat(" ", left)+title, line)
	for _, r := range rows {
		fmt.Fprintf(&b, "| %-*s |\n%s", width, r, line)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

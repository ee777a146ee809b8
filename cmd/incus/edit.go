package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"go.yaml.in/yaml/v3"

	"incusd/cmd/incus/internal/table"
)

// editObject lets the user change object, read from stdin if that is no terminal
// and else in an editor under the comment help, and hands the result to update.
// What cannot be read or is refused may be edited again.
func editObject[T any](ctx context.Context, a *app, object T, help string, update func(T) error) error {
	if !a.stdinTerminal {
		data, err := io.ReadAll(a.stdin)
		if err != nil {
			return fmt.Errorf("read stdin: %w", err)
		}
		changed, err := decodeStrict[T](data)
		if err != nil {
			return err
		}
		return update(changed)
	}
	var text bytes.Buffer
	text.WriteString(help + "\n")
	if err := table.WriteYAML(&text, object); err != nil {
		return err
	}
	p := a.prompter()
	content := text.Bytes()
	for {
		var err error
		if content, err = a.edit(ctx, content); err != nil {
			return err
		}
		changed, err := decodeStrict[T](content)
		if err == nil {
			err = update(changed)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		a.report(err)
		if _, err := p.line(ctx, "Press enter to open the editor again or ctrl+c to abort change"); err != nil {
			return err
		}
	}
}

// decodeStrict reads one YAML document in which every key must be known.
func decodeStrict[T any](data []byte) (T, error) {
	var object T
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&object); err != nil && !errors.Is(err, io.EOF) {
		return object, yamlError(err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return object, errors.New("more than one YAML document")
	}
	return object, nil
}

// yamlError words a YAML error for people, who know keys but not our types.
func yamlError(err error) error {
	var e *yaml.TypeError
	if !errors.As(err, &e) {
		return err
	}
	lines := make([]string, len(e.Errors))
	for i, text := range e.Errors {
		lines[i] = text
		place, rest, isField := strings.Cut(text, ": field ")
		if key, _, isUnknown := strings.Cut(rest, " not found in type "); isField && isUnknown {
			lines[i] = fmt.Sprintf("%s: unknown key %q", place, key)
		}
	}
	return errors.New(strings.Join(lines, "; "))
}

// runEditor opens text in the user's editor and returns what was saved.
func runEditor(ctx context.Context, getenv func(string) string, text []byte) ([]byte, error) {
	editor, err := findEditor(getenv)
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp("", "incus_editor_*.yaml")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(text)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	// An editor may be given with arguments, which a shell splits.
	cmd := exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "sh", file.Name())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("editor %s: %w", editor, err)
	}
	return os.ReadFile(file.Name())
}

func findEditor(getenv func(string) string) (string, error) {
	for _, name := range []string{"VISUAL", "EDITOR"} {
		if editor := getenv(name); editor != "" {
			return editor, nil
		}
	}
	for _, editor := range []string{"editor", "vi", "nano"} {
		if _, err := exec.LookPath(editor); err == nil {
			return editor, nil
		}
	}
	return "", errors.New("No text editor found, please set the EDITOR environment variable")
}

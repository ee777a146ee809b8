package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"incusd/api"
)

// A clientConfig is the file config.yml of Incus, of which this version uses one word: the project
// that was switched to. The rest belongs to others, and stays as it is, comments too.
type clientConfig struct {
	path string // empty if there is no place for it
	root yaml.Node
}

// clientConfigPath is where Incus keeps it.
func clientConfigPath(getenv func(string) string) string {
	dir := getenv("INCUS_CONF")
	if dir == "" && getenv("HOME") != "" {
		dir = filepath.Join(getenv("HOME"), ".config", "incus")
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "config.yml")
}

// readClientConfig reads the file; none is like an empty one.
func readClientConfig(path string) (*clientConfig, error) {
	conf := &clientConfig{path: path}
	if path == "" {
		return conf, nil
	}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return conf, nil
	case err != nil:
		return nil, fmt.Errorf("Unable to read the configuration file: %w", err)
	}
	if err := yaml.Unmarshal(data, &conf.root); err != nil {
		return nil, conf.broken(err.Error())
	}
	_, err = conf.local()
	return conf, err
}

func (c *clientConfig) broken(why string) error {
	return api.Errorf(api.ConfigInvalid, "Unable to decode the configuration %s: %s", c.path, why).
		WithHint("correct the file, or leave it aside with --force-local")
}

// local is the entry of the remote local; nil if there is none.
func (c *clientConfig) local() (*yaml.Node, error) {
	at := &c.root
	if at.Kind == yaml.DocumentNode {
		at = at.Content[0]
	}
	for _, key := range []string{"", "remotes", localRemote} {
		if key != "" {
			at = valueOf(at, key)
		}
		switch {
		case at == nil, at.IsZero(), at.Kind == yaml.ScalarNode && at.Tag == "!!null":
			return nil, nil
		case at.Kind != yaml.MappingNode:
			return nil, c.broken(fmt.Sprintf("line %d: a mapping is expected", at.Line))
		}
	}
	return at, nil
}

// valueOf is the value of a key of a mapping; nil if it has none.
func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// project is the one that was switched to; empty if that was never done.
func (c *clientConfig) project() string {
	local, err := c.local()
	if err != nil || local == nil {
		return ""
	}
	if project := valueOf(local, "project"); project != nil && project.Tag != "!!null" {
		return project.Value
	}
	return ""
}

// setProject writes the project into the file, which is made if need be.
func (c *clientConfig) setProject(project string) error {
	if c.path == "" {
		return api.Errorf(api.BadRequest, "There is no place for the configuration file").WithHint("set INCUS_CONF or HOME to a folder")
	}
	if c.root.IsZero() || c.root.Kind == yaml.DocumentNode && c.root.Content[0].Tag == "!!null" {
		c.root = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
		put(c.root.Content[0], "default-remote", word(localRemote))
	}
	remotes := mappingOf(c.root.Content[0], "remotes")
	local := mappingOf(remotes, localRemote)
	if len(local.Content) == 0 { // as Incus writes it
		put(local, "addrs", &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{word("unix://")}})
		put(local, "public", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "false"})
	}
	put(local, "project", word(project))
	var data bytes.Buffer
	enc := yaml.NewEncoder(&data)
	enc.SetIndent(2)
	if err := cmp.Or(enc.Encode(&c.root), enc.Close()); err != nil {
		return fmt.Errorf("write %s: %w", c.path, err)
	}
	return replaceFile(c.path, data.Bytes())
}

func word(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

// mappingOf is the mapping that a key has as its value, made if there is none.
func mappingOf(parent *yaml.Node, key string) *yaml.Node {
	if value := valueOf(parent, key); value != nil && value.Kind == yaml.MappingNode {
		return value
	}
	put(parent, key, &yaml.Node{Kind: yaml.MappingNode})
	return valueOf(parent, key)
}

// put sets a key of a mapping.
func put(mapping *yaml.Node, key string, value *yaml.Node) {
	if old := valueOf(mapping, key); old != nil {
		*old = *value
		return
	}
	mapping.Content = append(mapping.Content, word(key), value)
}

// replaceFile writes a file so that whoever reads it sees the old content or the new, never a part.
// A file that is there keeps its mode, and a link to it stays one.
func replaceFile(path string, data []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	mode := fs.FileMode(0o600)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
		if info, err := os.Stat(path); err == nil {
			mode = info.Mode().Perm()
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".config-*.yml")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	err = cmp.Or(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

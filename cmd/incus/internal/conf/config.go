package conf

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"incusd/api"
)

// A Config is what config.yml says.
type Config struct {
	dirs Dirs
	root yaml.Node
	// remotes are those of both files and Local, by name.
	remotes map[string]Remote
}

// Read reads the configuration. Without a file there are the remotes that Incus begins with.
func Read(d Dirs) (*Config, error) {
	c := &Config{dirs: d, remotes: map[string]Remote{}}
	found, err := readYAML(d.User, &c.root)
	switch {
	case errors.As(err, new(*fs.PathError)):
		return nil, fmt.Errorf("Unable to read the configuration file: %w", err)
	case err != nil:
		return nil, err
	}
	if !found {
		c.root = yaml.Node{Kind: yaml.MappingNode}
		put(&c.root, "default-remote", word(Local))
		remotes := mappingOf(&c.root, "remotes")
		imagesRemote().write(mappingOf(remotes, "images"))
		localRemote("").write(mappingOf(remotes, Local))
	}
	var global yaml.Node
	// What the administrator has, but not for this user, is not there, as for Incus.
	if _, err := readYAML(d.Global, &global); err != nil && !errors.As(err, new(*fs.PathError)) {
		return nil, err
	}
	return c, cmp.Or(c.collect(d.Global, &global, true), c.collect(d.User, &c.root, false))
}

// Defaults is the configuration of who has none, whatever there is.
func Defaults() *Config {
	return &Config{remotes: map[string]Remote{Local: localRemote(""), "images": imagesRemote()}}
}

// readYAML reads the file of a folder into the mapping root, and tells whether there is one.
func readYAML(dir string, root *yaml.Node) (bool, error) {
	if dir == "" {
		return false, nil
	}
	path := filepath.Join(dir, configFile)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return false, broken(dir, err.Error())
	}
	*root = document
	if document.Kind == yaml.DocumentNode {
		*root = *document.Content[0]
		root.HeadComment = cmp.Or(root.HeadComment, document.HeadComment)
		root.FootComment = cmp.Or(root.FootComment, document.FootComment)
	}
	if isEmpty(root) {
		*root = yaml.Node{Kind: yaml.MappingNode}
	}
	if root.Kind != yaml.MappingNode {
		return false, noMapping(dir, root)
	}
	return true, nil
}

func broken(dir, why string) error {
	return api.Errorf(api.ConfigInvalid, "Unable to decode the configuration %s: %s", filepath.Join(dir, configFile), why).
		WithHint("correct the file, or leave it aside with --force-local")
}

func noMapping(dir string, node *yaml.Node) error {
	return broken(dir, fmt.Sprintf("line %d: a mapping is expected", node.Line))
}

// collect adds the remotes of one file to those that are known; the user's own come last, and win.
func (c *Config) collect(dir string, root *yaml.Node, global bool) error {
	remotes := valueOf(root, "remotes")
	switch {
	case isEmpty(remotes):
		remotes = &yaml.Node{}
	case remotes.Kind != yaml.MappingNode:
		return noMapping(dir, remotes)
	}
	for i := 0; i+1 < len(remotes.Content); i += 2 {
		name, node := remotes.Content[i].Value, remotes.Content[i+1]
		var e entry
		switch {
		case isEmpty(node):
		case node.Kind != yaml.MappingNode:
			return noMapping(dir, node)
		default:
			if err := node.Decode(&e); err != nil {
				return broken(dir, err.Error())
			}
		}
		r := e.remote()
		r.Global = global
		c.remotes[name] = r
	}
	if !global {
		c.remotes[Local] = localRemote(c.remotes[Local].Project)
	}
	return nil
}

// Names are the names of the remotes, sorted.
func (c *Config) Names() []string { return slices.Sorted(maps.Keys(c.remotes)) }

// Remote is the remote of that name.
func (c *Config) Remote(name string) (Remote, bool) {
	r, ok := c.remotes[name]
	return r, ok
}

// Default is the remote that commands mean which name none.
func (c *Config) Default() string {
	if name := valueOf(&c.root, "default-remote"); !isEmpty(name) && name.Value != "" {
		return name.Value
	}
	return Local
}

// SetDefault makes a remote the one that commands mean which name none.
func (c *Config) SetDefault(name string) { put(&c.root, "default-remote", word(name)) }

// Put adds a remote, or replaces it. One of the administrator's becomes the user's own.
func (c *Config) Put(name string, r Remote) {
	r.Global = false
	r.write(mappingOf(mappingOf(&c.root, "remotes"), name))
	c.remotes[name] = r
}

// SetProject says in which project commands work that use the remote.
func (c *Config) SetProject(name, project string) {
	r := c.remotes[name]
	r.Project = project
	c.Put(name, r)
}

// Remove takes a remote of the user's out.
func (c *Config) Remove(name string) {
	remove(mappingOf(&c.root, "remotes"), name)
	delete(c.remotes, name)
}

// Rename gives a remote of the user's another name.
func (c *Config) Rename(name, to string) {
	rename(mappingOf(&c.root, "remotes"), name, to)
	c.Put(to, c.remotes[name])
	delete(c.remotes, name)
	if c.Default() == name {
		c.SetDefault(to)
	}
}

// Change reads the configuration anew, lets change work on it, and writes it, while no other
// process of ours does the same. Nothing is written if change fails.
func Change(d Dirs, change func(*Config) error) (*Config, error) {
	var c *Config
	err := locked(d, func() (err error) {
		if c, err = Read(d); err != nil {
			return err
		}
		if err := change(c); err != nil {
			return err
		}
		var data bytes.Buffer
		enc := yaml.NewEncoder(&data)
		enc.SetIndent(2)
		path := filepath.Join(d.User, configFile)
		if err := cmp.Or(enc.Encode(&c.root), enc.Close()); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		return replaceFile(path, data.Bytes(), modeOf(path, configMode))
	})
	return c, err
}

// Package imports holds the packages to their places: who may import whom, and which
// package stands between the project and each library. ARCHITECTURE.md draws the picture;
// the tables here are what counts. A new import is a decision: make it here first.
package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module is the project's own path.
const module = "incusd"

// allowed says which packages of the project each of its packages may import, tests
// aside. It is read from the top: everything points downwards.
var allowed = map[string][]string{
	// The daemon's side.
	"cmd/incusd": {"internal/daemon", "internal/recovery", "client", "internal/raftstore" /* its timing, from the environment */, "api"},
	"internal/daemon": {
		"internal/api", "internal/membership", "internal/entities", "internal/tokens", "internal/operations", "internal/events",
		"internal/config", "internal/localstore", "internal/trust", "internal/raftstore", "internal/raftstore/state", "api",
		"internal/storage", "internal/network", "internal/resources", "internal/recovery", "internal/health",
	},
	"internal/recovery": {"internal/config", "internal/localstore", "internal/trust", "internal/raftstore", "internal/raftstore/state", "api"},
	"internal/api": {
		"internal/membership", "internal/entities", "internal/tokens", "internal/operations", "internal/events", "internal/filter",
		"internal/config", "internal/trust", "internal/raftstore", "internal/raftstore/state", "internal/health", "api",
	},
	"internal/membership": {
		"internal/tokens", "internal/config", "internal/localstore", "internal/trust", "endorsement", "internal/raftstore", "internal/raftstore/state", "api",
	},
	"internal/entities":        {"internal/storage", "internal/network", "internal/localstore", "internal/raftstore", "internal/raftstore/state", "api"},
	"internal/tokens":          {"internal/config", "internal/trust", "internal/raftstore", "internal/raftstore/state", "api"},
	"internal/raftstore":       {"internal/raftstore/state", "endorsement", "api"},
	"internal/raftstore/state": {"api"},

	// Each of these does one thing, for whoever needs it, and knows of no other.
	"internal/config":     {"api"},
	"internal/events":     {"api"},
	"internal/filter":     {"api"},
	"internal/health":     {"api"},
	"internal/localstore": {"api"},
	"internal/network":    {"api"},
	"internal/operations": {"api"},
	"internal/resources":  {"api"},
	"internal/storage":    {"api"},
	"internal/trust":      {"endorsement", "api"},
	// What a fingerprint leads to is the same question on both sides.
	"endorsement": {},

	// The command line's side: it knows the daemon by the wire only.
	"cmd/incus":                {"client", "cmd/incus/internal/conf", "cmd/incus/internal/table", "api"},
	"cmd/incus/internal/conf":  {"api"},
	"cmd/incus/internal/table": {},
	"client":                   {"endorsement", "api"},
	"api":                      {},

	// For tests only; see TestWhatIsForTestsIsInNoProgram.
	"client/clienttest":    {"api"},
	"internal/clustertest": {"internal/daemon", "internal/recovery", "internal/localstore", "internal/membership", "internal/network", "internal/raftstore", "internal/storage", "api"},
	"test/bench":           {"test/crowd", "test/loopback", "client", "internal/trust", "api"},
	"test/binaries":        {},
	"test/cli":             {},
	"test/crowd":           {},
	"test/docs":            {},
	"test/histories":       {},
	"test/hosts":           {},
	"test/imports":         {},
	"test/loopback":        {},
}

// libraries says which packages may import each library, tests aside. What is not here
// may be imported by nobody.
var libraries = map[string][]string{
	"github.com/coder/websocket":       {"internal/api", "client", "client/clienttest", "internal/clustertest"},
	"github.com/coreos/go-systemd/v22": {"cmd/incusd"},
	"github.com/golang-jwt/jwt/v5":     {"internal/trust"},
	"github.com/google/uuid":           {"internal/daemon", "internal/entities", "internal/membership", "internal/operations", "internal/raftstore", "internal/recovery", "internal/tokens"},
	"github.com/gorilla/mux":           {"internal/api"},
	"github.com/hashicorp/go-hclog":    {"internal/raftstore"},
	"github.com/hashicorp/go-memdb":    {"internal/raftstore/state"},
	// The last two name the interface of Raft's log, and nothing else: see TestRaftStaysInTheStore.
	"github.com/hashicorp/raft":           {"internal/raftstore", "internal/daemon", "internal/clustertest"},
	"github.com/hashicorp/raft-boltdb/v2": {"internal/raftstore"},
	"github.com/pires/go-proxyproto":      {"internal/daemon"},
	"github.com/prometheus/procfs":        {"internal/resources"},
	"github.com/spf13/cobra":              {"cmd/incus", "cmd/incusd"},
	"github.com/vishvananda/netlink":      {"internal/network"},
	"go.etcd.io/bbolt":                    {"internal/localstore", "internal/raftstore"},
	"go.yaml.in/yaml/v3":                  {"api", "cmd/incus", "cmd/incus/internal/conf", "cmd/incus/internal/table", "cmd/incusd"},
	"golang.org/x/crypto":                 {"internal/trust"},
	"golang.org/x/sys":                    {"client", "cmd/incus", "internal/api", "internal/network", "internal/storage"},
	"golang.org/x/term":                   {"cmd/incus", "cmd/incusd"},
	"golang.org/x/time":                   {"internal/api"},
}

// programs are what is installed.
var programs = []string{"cmd/incus", "cmd/incusd"}

// A pkg is one package of the project, as go list describes it.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// packages are all packages of the project, by their path within it.
func packages(t *testing.T) map[string]pkg {
	t.Helper()
	watchFolders(t)
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Deps", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	all := map[string]pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		path, _ := own(p.ImportPath)
		all[path] = p
	}
}

// watchFolders looks into every folder of the project: go test remembers what a test has
// looked at, but not what go list has, and would otherwise call an old result this one's.
func watchFolders(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// own is a package's path within the project, if it is one of the project's.
func own(path string) (string, bool) { return strings.CutPrefix(path, module+"/") }

// library is the library that path belongs to, if it is neither ours nor of Go.
func library(path string) (string, bool) {
	first, _, _ := strings.Cut(path, "/")
	if !strings.Contains(first, ".") {
		return "", false
	}
	for lib := range libraries {
		if path == lib || strings.HasPrefix(path, lib+"/") {
			return lib, true
		}
	}
	return path, true
}

func TestImportsPointOneWay(t *testing.T) {
	all := packages(t)
	for path, p := range all {
		row, ok := allowed[path]
		if !ok {
			t.Errorf("%s has no row in allowed: say what it may import", path)
			continue
		}
		for _, imported := range p.Imports {
			if imported, ok := own(imported); ok && !slices.Contains(row, imported) {
				t.Errorf("%s imports %s; it may import %v", path, imported, row)
			}
		}
	}
	for path := range allowed {
		if _, ok := all[path]; !ok {
			t.Errorf("allowed has a row for %s, which does not exist", path)
		}
	}
}

// TestTheTableHasNoCircle: each way through the table ends at api.
func TestTheTableHasNoCircle(t *testing.T) {
	var visit func(path string, way []string)
	visit = func(path string, way []string) {
		if slices.Contains(way, path) {
			t.Fatalf("the table allows a circle: %v", append(way, path))
		}
		for _, next := range allowed[path] {
			visit(next, append(way, path))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(allowed)) {
		visit(path, nil)
	}
}

func TestEachLibraryHasItsPlace(t *testing.T) {
	for path, p := range packages(t) {
		for _, imported := range p.Imports {
			lib, ok := library(imported)
			switch {
			case !ok:
			case libraries[lib] == nil:
				t.Errorf("%s imports %s, which has no row in libraries: is it worth it?", path, imported)
			case !slices.Contains(libraries[lib], path):
				t.Errorf("%s imports %s; only %v may", path, imported, libraries[lib])
			}
		}
	}
}

func TestCommandLineIsFreeOfTheDaemon(t *testing.T) {
	all := packages(t)
	for _, path := range []string{"cmd/incus", "client", "api"} {
		for _, dep := range all[path].Deps {
			if strings.HasPrefix(dep, module+"/internal/") || strings.Contains(dep, "hashicorp/") {
				t.Errorf("%s depends on %s", path, dep)
			}
		}
	}
}

func TestWhatIsForTestsIsInNoProgram(t *testing.T) {
	all := packages(t)
	for _, program := range programs {
		for _, dep := range all[program].Deps {
			if dep, ok := own(dep); ok && (strings.HasPrefix(dep, "test/") || strings.HasSuffix(dep, "test")) {
				t.Errorf("%s depends on %s, which is for tests", program, dep)
			}
		}
	}
}

// TestRaftStaysInTheStore: the daemon and the test bed hand a wrapped log through to the
// store, and need its type for that. They use nothing else of Raft.
func TestRaftStaysInTheStore(t *testing.T) {
	const lib, name = "github.com/hashicorp/raft", "LogStore"
	all := packages(t)
	for _, path := range libraries[lib] {
		if path == "internal/raftstore" {
			continue
		}
		for _, file := range all[path].GoFiles {
			for _, used := range namesOf(t, filepath.Join(all[path].Dir, file), lib, "raft") {
				if used != name {
					t.Errorf("%s/%s uses raft.%s; only raft.%s may be named there", path, file, used, name)
				}
			}
		}
	}
}

// namesOf lists what a file uses of the package with that import path and name.
func namesOf(t *testing.T, file, path, name string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	imported := slices.ContainsFunc(parsed.Imports, func(s *ast.ImportSpec) bool {
		if s.Path.Value != `"`+path+`"` {
			return false
		}
		if s.Name != nil {
			t.Errorf("%s imports %s under another name", file, path)
		}
		return true
	})
	if !imported {
		return nil
	}
	var names []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == name {
				names = append(names, sel.Sel.Name)
			}
		}
		return true
	})
	return names
}

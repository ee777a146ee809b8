package state

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowedImports are the packages that know no clock, chance, network or disk. Of
// "time" only types and arithmetic are allowed.
var allowedImports = []string{
	"bufio", "bytes", "crypto/sha256", "encoding/binary", "encoding/hex", "encoding/json", "errors", "fmt", "hash", "io",
	"log/slog", "maps", "net/url", "slices", "strings", "sync", "sync/atomic", "time", "unicode", "unicode/utf8",
	"github.com/hashicorp/go-memdb", "incusd/api",
}

var forbiddenTime = []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep", "Local", "LoadLocation"}

// Apply must be a function of state and command. So the package has no clock, chance
// or goroutine, and never walks a map: Go's order of maps is random.
func TestPackageIsPure(t *testing.T) {
	fset := token.NewFileSet()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	for _, problem := range impurities(t, fset, files) {
		t.Error(problem)
	}
}

// The test of the test: everything that it looks for is found.
func TestPurityIsRecognized(t *testing.T) {
	const impure = `package state
import ("math/rand"; "time"; "maps"; "slices")
type rec struct { config map[string]string }
func bad(r *rec, ch chan int) {
	_ = time.Now()
	go func() {}()
	_ = rand.Int()
	for k := range r.config { _ = k }
	for k := range maps.Keys(r.config) { _ = k }
	_ = slices.Collect(maps.Values(r.config))
	select { case <-ch: }
	for i := range ch { _ = i }
}
func good(r *rec, list []string) {
	for range list {}
	for range 3 {}
	for range slices.Sorted(maps.Keys(r.config)) {}
	_ = maps.Clone(r.config)
}`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "bad.go", impure, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := impurities(t, fset, []*ast.File{f})
	if len(got) != 8 {
		t.Errorf("%d problems, want 8:\n%s", len(got), strings.Join(got, "\n"))
	}
}

func impurities(t *testing.T, fset *token.FileSet, files []*ast.File) []string {
	if build.Default.GOROOT == "" { // built with -trimpath
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			t.Fatal(err)
		}
		build.Default.GOROOT = strings.TrimSpace(string(root))
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	if build.Default.GOROOT == "" { // a test that was built with -trimpath
		if root, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
			build.Default.GOROOT = strings.TrimSpace(string(root))
		}
	}
	// Where a package cannot be loaded its types are unknown, and walking something of
	// unknown type is a problem, too. So errors may be passed over.
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil), Error: func(error) {}}
	_, _ = conf.Check("state", fset, files, info)
	p := &purity{fset: fset, info: info, sorted: map[ast.Node]bool{}}
	for _, f := range files {
		for _, imp := range f.Imports {
			if path := strings.Trim(imp.Path.Value, `"`); !slices.Contains(allowedImports, path) {
				p.problem(imp, "imports %s", path)
			}
		}
		ast.Inspect(f, p.visit)
	}
	return p.problems
}

type purity struct {
	fset     *token.FileSet
	info     *types.Info
	sorted   map[ast.Node]bool // calls whose order does not matter, since it is made
	problems []string
}

func (p *purity) problem(n ast.Node, format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf("%s: %s", p.fset.Position(n.Pos()), fmt.Sprintf(format, args...)))
}

func (p *purity) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		p.problem(n, "starts a goroutine")
	case *ast.SelectStmt:
		p.problem(n, "selects by chance")
	case *ast.RangeStmt:
		p.ranges(n)
	case *ast.SelectorExpr:
		if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "time" && slices.Contains(forbiddenTime, n.Sel.Name) {
			p.problem(n, "uses time.%s", n.Sel.Name)
		}
	case *ast.CallExpr:
		p.call(n)
	}
	return true
}

func (p *purity) ranges(n *ast.RangeStmt) {
	switch typ := p.info.Types[n.X].Type; under := underlying(typ).(type) {
	case *types.Slice, *types.Array, *types.Basic, *types.Pointer:
		if b, ok := under.(*types.Basic); ok && b.Kind() == types.Invalid {
			p.problem(n, "walks something of unknown type")
		}
	case *types.Signature: // an iterator; those over maps are found as calls
	default:
		p.problem(n, "walks a %v, in no order", typ)
	}
}

func underlying(t types.Type) types.Type {
	if t == nil {
		return types.Typ[types.Invalid]
	}
	return t.Underlying()
}

// call finds iterators over maps outside slices.Sorted.
func (p *purity) call(n *ast.CallExpr) {
	switch name := calledName(n); name {
	case "slices.Sorted":
		for _, arg := range n.Args {
			p.sorted[arg] = true
		}
	case "maps.Keys", "maps.Values", "maps.All":
		if !p.sorted[n] {
			p.problem(n, "%s in no order", name)
		}
	}
}

func calledName(n *ast.CallExpr) string {
	sel, ok := n.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	pkg, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return pkg.Name + "." + sel.Sel.Name
}

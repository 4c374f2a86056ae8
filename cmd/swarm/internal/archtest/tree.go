package archtest

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is the path that the module's own imports begin with.
const Module = "github.com/build-swarm/swarm"

// File is one Go source file.
type File struct {
	Path  string // below the module's root, with slashes
	Dir   string // of Path; the module's root is "."
	Test  bool   // its name ends in _test.go
	Lines int
	AST   *ast.File
}

// Tree is the source of a module. Findings of all checks come in the order of
// Files, which is sorted by path.
type Tree struct {
	Fset  *token.FileSet
	Files []*File
}

// Finding is one place that breaks a rule.
type Finding struct {
	Path string
	Line int
	Text string // what is wrong and why it is a rule
}

func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Text) }

// Root finds the module's root: the nearest directory at or above the working
// directory that holds a go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the module's root: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("find the module's root: no go.mod above the working directory: %w", fs.ErrNotExist)
		}
		dir = up
	}
}

// Load parses every Go file below root but what the go command ignores too:
// testdata, and names that begin with a dot or an underscore.
func Load(root string) (*Tree, error) {
	src := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		hidden := p != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_"))
		if d.IsDir() {
			if hidden || name == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if hidden || !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		src[filepath.ToSlash(rel)] = string(b)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the source below %s: %w", root, err)
	}
	return Parse(src)
}

// Parse makes a Tree of sources by path.
func Parse(src map[string]string) (*Tree, error) {
	t := &Tree{Fset: token.NewFileSet()}
	for _, p := range slices.Sorted(maps.Keys(src)) {
		f, err := parser.ParseFile(t.Fset, p, src[p], parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", p, err)
		}
		t.Files = append(t.Files, &File{
			Path: p, Dir: path.Dir(p), Test: strings.HasSuffix(p, "_test.go"), Lines: strings.Count(src[p], "\n"), AST: f,
		})
	}
	return t, nil
}

// Packages returns the directories that hold non-test files, sorted.
func (t *Tree) Packages() []string {
	dirs := map[string]bool{}
	for _, f := range t.Files {
		if !f.Test {
			dirs[f.Dir] = true
		}
	}
	return slices.Sorted(maps.Keys(dirs))
}

func (t *Tree) at(f *File, n ast.Node, format string, args ...any) Finding {
	return Finding{Path: f.Path, Line: t.Fset.Position(n.Pos()).Line, Text: fmt.Sprintf(format, args...)}
}

// support reports whether a directory holds help for tests, by the name that
// Go gives such packages: the tested package's, and "test".
func support(dir string) bool {
	base := path.Base(dir)
	return strings.HasSuffix(base, "test") && base != "test" && base != "archtest"
}

// production reports whether a file becomes part of the program.
func (f *File) production() bool { return !f.Test && !support(f.Dir) }

// imported is one import of a file.
type imported struct {
	spec *ast.ImportSpec
	path string
	own  string // the directory below the module's root, "" for others' packages
}

func (f *File) imports() []imported {
	var list []imported
	for _, s := range f.AST.Imports {
		p, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			continue // the parser has refused it
		}
		i := imported{spec: s, path: p}
		if own, ok := strings.CutPrefix(p, Module+"/"); ok {
			i.own = own
		}
		list = append(list, i)
	}
	return list
}

// names maps the names by which a file speaks of packages to their paths.
func (f *File) names() map[string]string {
	m := map[string]string{}
	for _, i := range f.imports() {
		name := path.Base(i.path)
		if isVersion(name) {
			name = path.Base(path.Dir(i.path))
		}
		if i.spec.Name != nil {
			name = i.spec.Name.Name
		}
		m[name] = i.path
	}
	return m
}

func isVersion(s string) bool {
	_, err := strconv.Atoi(strings.TrimPrefix(s, "v"))
	return strings.HasPrefix(s, "v") && err == nil
}

// selectors calls fn for every pkg.Name in the file where pkg is an import.
func (f *File) selectors(fn func(s *ast.SelectorExpr, pkg, name string)) {
	names := f.names()
	ast.Inspect(f.AST, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && names[x.Name] != "" {
				fn(s, names[x.Name], s.Sel.Name)
			}
		}
		return true
	})
}

// within reports whether dir is base, or below it when base ends in "/...".
func within(dir, base string) bool {
	below, ok := strings.CutSuffix(base, "/...")
	if !ok {
		return dir == base
	}
	return dir == below || strings.HasPrefix(dir, below+"/")
}

func oneOf(dir string, bases []string) bool {
	return slices.ContainsFunc(bases, func(b string) bool { return within(dir, b) })
}

// inOrder sorts findings by place, for checks that gather them otherwise.
func inOrder(list []Finding) []Finding {
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text))
	})
	return list
}

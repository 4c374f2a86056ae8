package archtest

import (
	"fmt"
	"go/ast"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxFile = 700 // lines, tests too
	maxNode = 400 // lines of the composition root, tests apart: beyond that it has begun to decide
	maxFunc = 100 // lines of a function in the program; aim at 80
)

// vague names say nothing about what is inside, so everything ends up inside.
var vague = []string{"util", "utils", "helper", "helpers", "common", "misc", "manager", "shared", "lib"}

// Comments finds packages without a package comment.
func Comments(t *Tree) []Finding {
	first, has := map[string]*File{}, map[string]bool{}
	var dirs []string
	for _, f := range t.Files {
		if f.Test {
			continue
		}
		if first[f.Dir] == nil {
			first[f.Dir] = f
			dirs = append(dirs, f.Dir)
		}
		want := "Package " + f.AST.Name.Name + " "
		if f.AST.Name.Name == "main" {
			want = "Command " + path.Base(f.Dir) + " "
		}
		if f.AST.Doc != nil && strings.HasPrefix(f.AST.Doc.Text(), want) {
			has[f.Dir] = true
		}
	}
	var found []Finding
	for _, d := range dirs {
		if !has[d] {
			f := first[d]
			found = append(found, t.at(f, f.AST.Name, "package %s has no comment that begins \"Package %s\" (\"Command\" for a program)", d, f.AST.Name.Name))
		}
	}
	return found
}

// Sizes finds files and functions that have grown beyond one concept, and
// names that promise none.
func Sizes(t *Tree) []Finding {
	var found []Finding
	node := 0
	for _, f := range t.Files {
		if f.Lines > maxFile {
			found = append(found, Finding{f.Path, maxFile, fmt.Sprintf("%d lines, at most %d: split it by concept", f.Lines, maxFile)})
		}
		if f.Dir == "cmd/swarm/internal/node" && !f.Test {
			if node += f.Lines; node > maxNode {
				found = append(found, Finding{f.Path, f.Lines, fmt.Sprintf("node has %d lines, at most %d: it composes and decides nothing", node, maxNode)})
			}
		}
		for _, part := range strings.Split(strings.TrimSuffix(f.Path, ".go"), "/") {
			if slices.Contains(vague, strings.TrimSuffix(part, "_test")) {
				found = append(found, Finding{f.Path, 1, "the name " + part + " says nothing of what is inside"})
			}
		}
		if !f.production() {
			continue
		}
		for _, d := range f.AST.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := t.Fset.Position(fn.End()).Line - t.Fset.Position(fn.Pos()).Line + 1; n > maxFunc {
				found = append(found, t.at(f, fn, "%s has %d lines, at most %d", fn.Name.Name, n, maxFunc))
			}
		}
	}
	return found
}

// topLevel is what the module's root holds, besides names with a leading dot.
var topLevel = []string{"LICENSE", "README.md", "build", "cas", "claims", "cmd", "go.mod", "go.sum", "httpgateway", "p2p"}

// TopLevel finds entries of the module's root that have no place there. What
// .gitignore names (a binary that was just built) does not count.
func TopLevel(root fs.FS) ([]Finding, error) {
	entries, err := fs.ReadDir(root, ".")
	if err != nil {
		return nil, fmt.Errorf("list the module's root: %w", err)
	}
	var ignored []string
	if b, err := fs.ReadFile(root, ".gitignore"); err == nil {
		ignored = strings.Fields(string(b))
	}
	var found []Finding
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || slices.Contains(topLevel, name) {
			continue
		}
		if slices.ContainsFunc(ignored, func(p string) bool { ok, err := path.Match(strings.TrimPrefix(p, "/"), name); return ok && err == nil }) {
			continue
		}
		found = append(found, Finding{name, 1, "the module's root holds build, cas, claims, cmd, httpgateway, p2p, go.mod, go.sum, README.md, LICENSE and dotfiles; nothing else"})
	}
	return found, nil
}

// rootFS is the module's root as a file system.
func rootFS(root string) fs.FS { return os.DirFS(filepath.Clean(root)) }

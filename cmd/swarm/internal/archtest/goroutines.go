package archtest

import (
	"go/ast"
	"maps"
	"slices"
)

// starters are the places that may start goroutines, each with the reason.
var starters = map[string]string{
	"claims/agent":              "the loop that owns a replica, and its senders",
	"cas/replicator":            "several copies at a time",
	"build/worker":              "several builds at a time, each with its log and its clock",
	"build/emerge":              "watches a build while it runs",
	"build/emerge/sandbox":      "reads what a program says while it runs, and as its init waits for what it leaves",
	"build/sources":             "asks several peers at once",
	"build/emerge/base":         "packs a directory while the store hashes what is packed",
	"build/guest/watch":         "reads input devices, which block",
	"build/shim":                "sleeps in the kernel until the daemon is gone",
	"p2p/...":                   "streams, dialling, discovery",
	"httpgateway/...":           "listeners",
	"cmd/swarm/internal/daemon": "asks several peers at once, and packs a tree while the store takes it",
	"cmd/swarm/internal/node":   "the one group of everything that runs",
	"cmd/swarm/internal/demo":   "waits for each process that it has started, or an early end would be noticed by a timeout only",
}

// Goroutines finds goroutines that are started where none should be: by a go
// statement, or by the Go method of a group, which is the same with a join.
// Tests and their support may start them anywhere.
func Goroutines(t *Tree) []Finding {
	allowed := slices.Collect(maps.Keys(starters))
	var found []Finding
	for _, f := range t.Files {
		if !f.production() || oneOf(f.Dir, allowed) {
			continue
		}
		for _, n := range f.starts() {
			found = append(found, t.at(f, n, "%s starts a goroutine; only what runs loops may: return the work as a function, or let the caller run it", f.Dir))
		}
	}
	return found
}

// Concurrent returns the directories with a file, tests included, that starts
// goroutines: what is worth the race detector. Sorted.
func Concurrent(t *Tree) []string {
	dirs := map[string]bool{}
	for _, f := range t.Files {
		if len(f.starts()) > 0 {
			dirs[f.Dir] = true
		}
	}
	return slices.Sorted(maps.Keys(dirs))
}

func (f *File) starts() []ast.Node {
	var list []ast.Node
	ast.Inspect(f.AST, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.GoStmt:
			list = append(list, n)
		case *ast.CallExpr:
			if s, ok := x.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Go" && len(x.Args) == 1 {
				list = append(list, n)
			}
		}
		return true
	})
	return list
}

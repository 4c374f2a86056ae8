package archtest

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// Pure lists the packages whose answers follow from their arguments: no clock,
// no global randomness, no goroutine, no file, no network, no logging. That is
// what lets a simulation replay them by a seed and two machines agree.
var Pure = []string{
	"build", "build/guest", "build/plan", "build/plan/replay", "build/release", "build/view", "cas", "cas/replication", "claims", "claims/hlc", "claims/wire", "httpgateway/binhost",
}

// impure maps imports to why a pure package has no use for them. An entry that
// ends in a slash covers all below it.
var impure = map[string]string{
	"os": "touches the machine", "os/": "touches the machine", "io/ioutil": "touches files", "path/filepath": "asks the machine",
	"net": "touches the network", "net/http": "touches the network", "net/http/": "touches the network", "net/rpc": "touches the network",
	"log": "logs", "log/": "logs", "syscall": "touches the machine", "golang.org/x/sys/": "touches the machine",
	"sync": "has no second goroutine to guard against", "sync/": "has no second goroutine to guard against",
	"golang.org/x/sync/": "starts goroutines", "crypto/rand": "draws global randomness", "math/rand": "draws global randomness",
	"runtime": "asks the machine", "runtime/": "asks the machine", "unsafe": "depends on the machine", "flag": "is global", "expvar": "is global",
	"time/tzdata": "depends on the machine", "reflect": "hides what it does",
}

// pureLibraries are the only others' packages that pure packages use.
var pureLibraries = []string{
	"github.com/ipfs/go-cid", "github.com/multiformats/go-multihash", "lukechampine.com/blake3", "github.com/fxamacker/cbor/v2", "github.com/mr-tron/base58",
	"golang.org/x/crypto/blake2b",
}

// contextIn are the pure packages that own an interface whose implementations
// do I/O, so that its signatures carry a context.
var contextIn = []string{"cas"}

// clocks are the functions of package time that read or wait for a clock.
var clocks = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker", "Local", "LoadLocation"}

// seeded is what math/rand/v2 has besides its global source.
var seeded = []string{"New", "NewPCG", "NewChaCha8", "NewZipf", "Rand", "Source", "PCG", "ChaCha8", "Zipf"}

// Purity finds what a pure package may not do.
func Purity(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if f.Test || !slices.Contains(Pure, f.Dir) {
			continue
		}
		for _, i := range f.imports() {
			if why := unfit(f.Dir, i); why != "" {
				found = append(found, t.at(f, i.spec, "pure package %s imports %s, which %s", f.Dir, i.path, why))
			}
		}
		f.selectors(func(s *ast.SelectorExpr, pkg, name string) {
			say := func(what string) {
				found = append(found, t.at(f, s, "pure package %s uses %s.%s: %s", f.Dir, pkg, name, what))
			}
			switch {
			case pkg == "time" && slices.Contains(clocks, name):
				say("now is a parameter")
			case pkg == "math/rand/v2" && !slices.Contains(seeded, name):
				say("a *rand.Rand is a parameter")
			case pkg == "crypto/ed25519" && name == "GenerateKey":
				say("it draws global randomness")
			case pkg == "context" && name != "Context":
				say("a signature may carry a context, nothing makes one")
			case pkg == "fmt" && strings.HasPrefix(name, "Print"):
				say("it prints")
			case pkg == "fmt" && strings.HasPrefix(name, "Scan"):
				say("it reads")
			}
		})
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.ChanType, *ast.SendStmt, *ast.SelectStmt:
				found = append(found, t.at(f, n, "pure package %s uses channels", f.Dir))
			case *ast.UnaryExpr:
				if x.Op == token.ARROW {
					found = append(found, t.at(f, n, "pure package %s uses channels", f.Dir))
				}
			case *ast.GoStmt:
				found = append(found, t.at(f, n, "pure package %s starts a goroutine", f.Dir))
			}
			return true
		})
	}
	return inOrder(found)
}

// unfit says why a pure package must not import i, or nothing.
func unfit(dir string, i imported) string {
	for p, why := range impure {
		if i.path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(i.path, p) {
			return why
		}
	}
	first, _, _ := strings.Cut(i.path, "/")
	switch {
	case i.path == "context" && !slices.Contains(contextIn, dir):
		return "is for what waits"
	case i.own != "" && !slices.Contains(Pure, i.own):
		return "is not pure"
	case i.own == "" && strings.Contains(first, ".") && !slices.ContainsFunc(pureLibraries, func(l string) bool { return i.path == l || strings.HasPrefix(i.path, l+"/") }):
		return "is not on the list of libraries known to be pure"
	}
	return ""
}

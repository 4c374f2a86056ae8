package archtest

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// bad is a small source that one check must complain of.
type bad struct {
	check, path, src string
	says             string // in a finding; empty: a good source, no finding
}

const own = `"github.com/build-swarm/swarm/`

// Each check is fed sources that break its rule, and their neighbours that do not.
func TestEachCheckSeesWhatItIsFor(t *testing.T) {
	for name, b := range map[string]bad{
		"upward import":                 {"arrows", "build/a.go", `package build; import _ ` + own + `claims"`, "build imports claims; it may import claims/hlc, cas"},
		"envelope knows a body":         {"arrows", "claims/wire/a.go", `package wire; import _ ` + own + `build"`, "none of ours"},
		"downward import":               {"arrows", "claims/a.go", `package claims; import _ ` + own + `build"`, ""},
		"network knows packages":        {"arrows", "p2p/gossip/a.go", `package gossip; import _ ` + own + `build"`, "carries bytes"},
		"exchange knows blobs":          {"arrows", "p2p/exchange/a.go", `package exchange; import _ ` + own + `cas"`, ""},
		"host knows blobs":              {"arrows", "p2p/a.go", `package p2p; import _ ` + own + `cas"`, "p2p imports cas"},
		"network's test knows packages": {"arrows", "p2p/a_test.go", `package p2p; import _ ` + own + `build"`, "p2p imports build"},
		"gateway sees the board":        {"arrows", "httpgateway/a.go", `package httpgateway; import _ ` + own + `claims"`, "httpgateway imports claims"},
		"gateway sees the network":      {"arrows", "httpgateway/a.go", `package httpgateway; import _ ` + own + `p2p/exchange"`, "httpgateway imports p2p/exchange"},
		"board sees a store":            {"arrows", "claims/agent/a.go", `package agent; import _ ` + own + `cas/disk"`, "claims/agent imports cas/disk"},
		"builder sees the board":        {"arrows", "build/emerge/a.go", `package emerge; import _ ` + own + `claims"`, "build/emerge imports claims"},
		"library imports a program":     {"arrows", "build/a_test.go", `package build; import _ ` + own + `cmd/swarm/internal/node"`, "nothing imports a program"},
		"program imports test support":  {"arrows", "cmd/swarm/internal/node/a.go", `package node; import _ ` + own + `p2p/p2ptest"`, "for tests"},
		"test imports test support":     {"arrows", "cas/replicator/a_test.go", `package replicator; import _ ` + own + `p2p/p2ptest"`, ""},
		"node sees everything":          {"arrows", "cmd/swarm/internal/node/a.go", `package node; import (_ ` + own + `p2p/gossip"; _ ` + own + `build/emerge")`, ""},
		"demo reuses what it measures":  {"arrows", "cmd/swarm/internal/demo/a.go", `package demo; import _ ` + own + `cas/disk"`, "takes its figures from effects"},
		"unknown package":               {"arrows", "build/extra/a.go", `package extra`, "no place in the table"},
		"package at the root":           {"arrows", "cas/a.go", `package cas; import _ "github.com/build-swarm/swarm"`, "root holds no package"},

		"libp2p away":    {"homes", "claims/agent/a.go", `package agent; import _ "github.com/libp2p/go-libp2p/core/peer"`, "peers are strings"},
		"libp2p at home": {"homes", "p2p/discovery/a.go", `package discovery; import _ "github.com/libp2p/go-libp2p/core/peer"`, ""},
		"flags in node":  {"homes", "cmd/swarm/internal/node/a.go", `package node; import _ "github.com/urfave/cli/v2"`, "its traps"},
		"old log":        {"homes", "p2p/a_test.go", `package p2p; import _ "log"`, "log/slog"},
		"slog":           {"homes", "p2p/a.go", `package p2p; import _ "log/slog"`, ""},
		"old rand":       {"homes", "p2p/a.go", `package p2p; import _ "math/rand"`, "math/rand/v2"},
		"new rand":       {"homes", "p2p/a.go", `package p2p; import _ "math/rand/v2"`, ""},
		"test library":   {"homes", "build/a.go", `package build; import _ "pgregory.net/rapid"`, "for tests alone"},
		"testing":        {"homes", "build/a.go", `package build; import _ "testing"`, "registers flags"},
		"testing inside": {"homes", "p2p/p2ptest/a.go", `package p2ptest; import _ "testing"`, ""},

		"pure clock":          {"purity", "claims/a.go", `package claims; import "time"; var t = time.Now()`, "now is a parameter"},
		"pure clock, renamed": {"purity", "claims/a.go", `package claims; import x "time"; var t = x.Since(x.Time{})`, "now is a parameter"},
		"pure timer":          {"purity", "build/plan/a.go", `package plan; import "time"; func f() { <-time.After(1) }`, "time.After"},
		"pure duration":       {"purity", "claims/a.go", `package claims; import "time"; const d = time.Second`, ""},
		"pure dice":           {"purity", "claims/a.go", `package claims; import "math/rand/v2"; var n = rand.IntN(3)`, "*rand.Rand is a parameter"},
		"pure seeded dice":    {"purity", "claims/a.go", `package claims; import "math/rand/v2"; func f(r *rand.Rand) int { return r.IntN(3) }`, ""},
		"pure key":            {"purity", "claims/wire/a.go", `package wire; import "crypto/ed25519"; func f() { ed25519.GenerateKey(nil) }`, "global randomness"},
		"pure goroutine":      {"purity", "build/plan/a.go", `package plan; func f() { go f() }`, "starts a goroutine"},
		"pure channel":        {"purity", "build/view/a.go", `package view; func f(c chan int) { }`, "channels"},
		"pure receive":        {"purity", "build/view/a.go", `package view; func f() { <-g() }`, "channels"},
		"pure file":           {"purity", "build/a.go", `package build; import _ "os"`, "touches the machine"},
		"pure network":        {"purity", "httpgateway/binhost/a.go", `package binhost; import _ "net/http"`, "touches the network"},
		"pure address":        {"purity", "build/a.go", `package build; import _ "net/url"`, ""},
		"pure log":            {"purity", "claims/a.go", `package claims; import _ "log/slog"`, "logs"},
		"pure mutex":          {"purity", "claims/a.go", `package claims; import _ "sync"`, "second goroutine"},
		"pure atomic":         {"purity", "claims/a.go", `package claims; import _ "sync/atomic"`, "second goroutine"},
		"pure group":          {"purity", "claims/a.go", `package claims; import _ "golang.org/x/sync/errgroup"`, "starts goroutines"},
		"pure context":        {"purity", "claims/a.go", `package claims; import _ "context"`, "for what waits"},
		"context of cas":      {"purity", "cas/a.go", `package cas; import "context"; type S interface{ Put(context.Context) }`, ""},
		"context by cas":      {"purity", "cas/a.go", `package cas; import "context"; var c = context.Background()`, "nothing makes one"},
		"pure print":          {"purity", "build/a.go", `package build; import "fmt"; func f() { fmt.Println() }`, "prints"},
		"pure uses impure":    {"purity", "build/view/a.go", `package view; import _ ` + own + `cas/disk"`, "is not pure"},
		"pure uses a library": {"purity", "build/a.go", `package build; import _ "go.etcd.io/bbolt"`, "known to be pure"},
		"impure may":          {"purity", "cas/disk/a.go", `package disk; import "os"; var _ = os.Args`, ""},
		"its test may":        {"purity", "cas/a_test.go", `package cas; import "time"; var t = time.Now()`, ""},

		"goroutine":            {"goroutines", "build/sample/a.go", `package sample; func f() { go f() }`, "starts a goroutine"},
		"group's goroutine":    {"goroutines", "cas/disk/a.go", `package disk; func f() { g.Go(f) }`, "starts a goroutine"},
		"goroutine of a loop":  {"goroutines", "claims/agent/a.go", `package agent; func f() { go f() }`, ""},
		"goroutine far down":   {"goroutines", "p2p/discovery/a.go", `package discovery; func f() { go f() }`, ""},
		"goroutine of a test":  {"goroutines", "build/sample/a_test.go", `package sample; func f() { go f() }`, ""},
		"goroutine of support": {"goroutines", "cas/castest/a.go", `package castest; func f() { go f() }`, ""},

		"no comment":      {"comments", "build/a.go", `package build`, "no comment"},
		"other comment":   {"comments", "build/a.go", "// Stuff.\npackage build", "no comment"},
		"comment":         {"comments", "build/a.go", "// Package build says it.\npackage build", ""},
		"program":         {"comments", "cmd/swarm/a.go", "// Command swarm runs.\npackage main", ""},
		"commented tests": {"comments", "build/a_test.go", "package build", ""},

		"long file":     {"sizes", "build/a_test.go", "package build\n" + strings.Repeat("//\n", 700), "split it"},
		"whole file":    {"sizes", "build/a_test.go", "package build\n" + strings.Repeat("//\n", 699), ""},
		"fat node":      {"sizes", "cmd/swarm/internal/node/a.go", "package node\n" + strings.Repeat("//\n", 400), "decides nothing"},
		"long function": {"sizes", "build/a.go", "package build\nfunc f() {\n" + strings.Repeat("//\n", 99) + "}\n", "f has 101 lines"},
		"vague package": {"sizes", "build/utils/a.go", "package utils", "says nothing"},
		"vague file":    {"sizes", "build/helpers_test.go", "package build", "says nothing"},

		"restart of a machine": {"power", "p2p/a.go", `package p2p; import "syscall"; func f() { syscall.Reboot(1) }`, "ends the life"},
		"its command":          {"power", "p2p/a_test.go", `package p2p; var s = "/sbin/shutdown -r now"`, "ends the life"},
		"end of a server":      {"power", "p2p/a.go", `package p2p; func f(s interface{ Shutdown() }) { s.Shutdown() }`, ""},
		"fork and exec":        {"power", "p2p/a.go", `package p2p; import "syscall"; var f = syscall.ForkExec`, ""},

		"init":                {"statements", "build/a.go", `package build; func init() {}`, "before anybody decides"},
		"method init":         {"statements", "build/a.go", `package build; type t int; func (t) init() {}`, ""},
		"panic":               {"statements", "build/a.go", `package build; func f() { panic(1) }`, "panic in f"},
		"panic in a variable": {"statements", "build/a.go", `package build; var v = func() int { panic(1) }()`, "panic in v"},
		"allowed panic":       {"statements", "cas/tree.go", `package cas; func Encode() { panic(1) }`, ""},
		"its neighbour":       {"statements", "cas/tree.go", `package cas; func Decode() { panic(1) }`, "panic in Decode"},
		"cut connection":      {"statements", "httpgateway/a.go", `package httpgateway; import "net/http"; func f() { panic(http.ErrAbortHandler) }`, ""},
		"panic of a test":     {"statements", "build/a_test.go", `package build; func f() { panic(1) }`, ""},
		"exit":                {"statements", "p2p/a.go", `package p2p; import "os"; func f() { os.Exit(1) }`, "only main"},
		"exit of main":        {"statements", "cmd/swarm/main.go", `package main; import "os"; func main() { os.Exit(1) }`, ""},
		"exit of a test":      {"statements", "p2p/a_test.go", `package p2p; import "os"; func TestX() { os.Exit(1) }`, "only main"},
		"exit of TestMain":    {"statements", "p2p/a_test.go", `package p2p; import "os"; func TestMain() { os.Exit(1) }`, ""},
		"sleep":               {"statements", "p2p/a.go", `package p2p; import "time"; func f() { time.Sleep(1) }`, "no sleep"},
		"sleep of a test":     {"statements", "p2p/a_test.go", `package p2p; import "time"; func f() { time.Sleep(1) }`, "no sleep"},
		"sleep in a bubble":   {"statements", "p2p/a_test.go", `package p2p; import ("time"; "testing/synctest"); func f() { synctest.Test(t, func() { time.Sleep(1) }) }`, ""},
		"sleep beside it":     {"statements", "p2p/a_test.go", `package p2p; import ("time"; "testing/synctest"); func f() { synctest.Test(t, g); time.Sleep(1) }`, "no sleep"},
		"sleep of a bubble's": {"statements", "p2p/a_test.go", `package p2p; import ("time"; "testing/synctest"); func f() { time.Sleep(1); synctest.Wait() }`, ""},
		"print":               {"statements", "cmd/swarm/internal/cli/a.go", `package cli; import "fmt"; func f() { fmt.Printf("") }`, "a writer is a parameter"},
		"stdout":              {"statements", "build/emerge/a.go", `package emerge; import "os"; var w = os.Stdout`, "a writer is a parameter"},
		"global logger":       {"statements", "p2p/a_test.go", `package p2p; import "log/slog"; var l = slog.Default()`, "passed to the constructor"},
		"logger":              {"statements", "p2p/a.go", `package p2p; import "log/slog"; var l = slog.New(nil)`, ""},
		"get without context": {"statements", "httpgateway/a.go", `package httpgateway; import "net/http"; func f() { http.Get("") }`, "no context"},
		"unbound process":     {"statements", "build/emerge/a.go", `package emerge; import "os/exec"; var c = exec.Command("ls")`, "CommandContext"},

		"empty global":    {"globals", "p2p/a.go", `package p2p; var n int`, "has no value"},
		"embedded global": {"globals", "p2p/a.go", "package p2p\nimport _ \"embed\"\n//go:embed a.txt\nvar n string", ""},
		"set global":      {"globals", "p2p/a.go", `package p2p; var n = 1; func f() { n = 2 }`, "f changes the package's variable n"},
		"filled global":   {"globals", "p2p/a.go", `package p2p; var n = map[int]int{}; func f() { n[1]++ }`, "f changes"},
		"field of global": {"globals", "p2p/a.go", `package p2p; var n = struct{ a int }{}; func f() { n.a = 1 }`, "f changes"},
		"shadow":          {"globals", "p2p/a.go", `package p2p; var n = 1; func f() { n := 2; n = 3 }`, ""},
		"blank":           {"globals", "p2p/a.go", `package p2p; var _ = 1; func f() { _ = f }`, ""},
		"global of tests": {"globals", "p2p/a_test.go", `package p2p; var n int`, ""},

		"compared error":   {"errors", "p2p/a.go", `package p2p; func f(err error) bool { return err == cas.ErrNotFound }`, "errors.Is"},
		"switched error":   {"errors", "p2p/a.go", `package p2p; func f(err error) { switch err { case ErrX: } }`, "errors.Is"},
		"canceled":         {"errors", "p2p/a.go", `package p2p; func f(err error) bool { return err != context.Canceled }`, "errors.Is"},
		"end of a reader":  {"errors", "p2p/a.go", `package p2p; func f(err error) bool { return err == io.EOF }`, ""},
		"field Err":        {"errors", "p2p/a.go", `package p2p; func f() bool { return x.Err != nil }`, ""},
		"asserted error":   {"errors", "p2p/a.go", `package p2p; func f(err error) { _ = err.(*T) }`, "errors.As"},
		"joined errors":    {"errors", "p2p/a.go", `package p2p; func f(err error) { _ = err.(interface{ Unwrap() []error }) }`, ""},
		"lost error":       {"errors", "p2p/a.go", `package p2p; import "fmt"; func f(err error) { fmt.Errorf("read x: %v", err) }`, "%w"},
		"kept error":       {"errors", "p2p/a.go", `package p2p; import "fmt"; func f(err error) { fmt.Errorf("read x: %w", err) }`, ""},
		"translated error": {"errors", "p2p/a.go", `package p2p; import "fmt"; func f(err error) { fmt.Errorf("%w: read x: %v", ErrX, err) }`, ""},
		"failed to":        {"errors", "p2p/a.go", `package p2p; import "errors"; var e = errors.New("failed to read")`, "what was attempted"},
	} {
		t.Run(name, func(t *testing.T) {
			tree, err := Parse(map[string]string{b.path: b.src})
			if err != nil {
				t.Fatal(err)
			}
			found := checks[b.check](tree)
			switch {
			case b.says == "" && len(found) > 0:
				t.Errorf("a good source is complained of: %v", found)
			case b.says != "" && !slices.ContainsFunc(found, func(f Finding) bool { return strings.Contains(f.Text, b.says) }):
				t.Errorf("found %v, want %q", found, b.says)
			case b.says != "" && found[0].Path != b.path:
				t.Errorf("found in %s, want %s", found[0].Path, b.path)
			}
		})
	}
}

func TestEveryCheckIsProved(t *testing.T) {
	tree, err := Parse(map[string]string{"cas/a.go": "package cas"})
	if err != nil {
		t.Fatal(err)
	}
	if found := StalePanics(tree); len(found) != len(panics) {
		t.Errorf("%d stale entries in a source without a panic, want all %d", len(found), len(panics))
	}
	list := []Deviation{{At: "cmd/swarm/internal/cli/run.go", Says: "imports build/emerge;"}, {At: "cas/a.go", Says: "something"}}
	stand, known, ended := sortBy(list, []Finding{{"cmd/swarm/internal/cli/run.go", 1, "cli imports build/emerge; it may not"}, {"p2p/a.go", 1, "something"}})
	if len(stand) != 1 || len(known) != 1 || len(ended) != 1 {
		t.Errorf("stand %v, known %v, ended %v", stand, known, ended)
	}
}

func TestTopLevelHoldsNothingElse(t *testing.T) {
	root := fstest.MapFS{}
	for _, name := range slices.Concat(topLevel, []string{".ci", ".gitignore"}) {
		root[name] = &fstest.MapFile{}
	}
	root[".gitignore"] = &fstest.MapFile{Data: []byte("/swarm\n*.test\n")}
	root["swarm"], root["p2p.test"] = &fstest.MapFile{}, &fstest.MapFile{}
	if found, err := TopLevel(root); err != nil || len(found) > 0 {
		t.Errorf("found %v, %v in a good root", found, err)
	}
	root["docs"], root["Makefile"] = &fstest.MapFile{}, &fstest.MapFile{}
	if found, err := TopLevel(root); err != nil || len(found) != 2 {
		t.Errorf("found %v, %v, want docs and Makefile", found, err)
	}
}

func TestConcurrentCountsTestsToo(t *testing.T) {
	tree, err := Parse(map[string]string{
		"p2p/a.go":          `package p2p; func f() { go f() }`,
		"cas/a_test.go":     `package cas; func f() { go f() }`,
		"claims/agent/a.go": `package agent; func f() { g.Go(f) }`,
		"build/a.go":        `package build; func f() { f() }`,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Concurrent(tree), []string{"cas", "claims/agent", "p2p"}; !slices.Equal(got, want) {
		t.Errorf("Concurrent = %v, want %v", got, want)
	}
}

func TestStartersNameTheirReason(t *testing.T) {
	for _, dir := range slices.Sorted(maps.Keys(starters)) {
		if starters[dir] == "" || oneOf(dir, Pure) {
			t.Errorf("%s starts goroutines without a reason, or is pure", dir)
		}
	}
}

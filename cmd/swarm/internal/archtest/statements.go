package archtest

import (
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"strings"
)

// panics are the places that may panic, "file function", each with why nothing
// that a peer, a file or a person does can lead there. (Everywhere allowed is
// panic(http.ErrAbortHandler), net/http's own way to cut a connection, so that
// half a file does not look whole.)
var panics = map[string]string{
	"build/encode.go modes":    "constant options: it would fail in the first test",
	"claims/wire/wire.go mode": "constant options: it would fail in the first test",
	"cas/tree.go Encode":       "the number of hashes is the caller's arithmetic, written in its contract",
}

// Statements finds what no code does (init, a panic, an exit or a sleep in the
// wrong place) in every file, and what only production code must not do.
func Statements(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		found = append(found, t.calls(f)...)
		for _, d := range f.AST.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if fn.Recv == nil && fn.Name.Name == "init" {
				found = append(found, t.at(f, fn, "init runs before anybody decides to: construct it where it is used"))
			}
		}
		if !f.production() {
			continue
		}
		eachFunc(f, func(name string, body ast.Node) {
			ast.Inspect(body, func(n ast.Node) bool {
				c, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				id, ok := c.Fun.(*ast.Ident)
				if !ok || id.Name != "panic" || panics[f.Path+" "+name] != "" || aborts(c) {
					return true
				}
				found = append(found, t.at(f, c, "panic in %s: return an error; what a peer, a file or a person can cause must not end the process", name))
				return true
			})
		})
	}
	return inOrder(found)
}

// aborts reports panic(http.ErrAbortHandler), which net/http documents.
func aborts(c *ast.CallExpr) bool {
	if len(c.Args) != 1 {
		return false
	}
	s, ok := c.Args[0].(*ast.SelectorExpr)
	if !ok || s.Sel.Name != "ErrAbortHandler" {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == "http"
}

// StalePanics finds entries of the table that no panic needs.
func StalePanics(t *Tree) []Finding {
	used := map[string]bool{}
	for _, f := range t.Files {
		eachFunc(f, func(name string, body ast.Node) {
			ast.Inspect(body, func(n ast.Node) bool {
				if c, ok := n.(*ast.CallExpr); ok {
					if id, ok := c.Fun.(*ast.Ident); ok && id.Name == "panic" && !aborts(c) {
						used[f.Path+" "+name] = true
					}
				}
				return true
			})
		})
	}
	var found []Finding
	for place := range panics {
		if !used[place] {
			path, _, _ := strings.Cut(place, " ")
			found = append(found, Finding{path, 1, "the table allows a panic in " + place + " and there is none: take the entry out"})
		}
	}
	return inOrder(found)
}

// eachFunc calls fn for every top-level function and initialised variable.
func eachFunc(f *File, fn func(name string, body ast.Node)) {
	for _, d := range f.AST.Decls {
		switch x := d.(type) {
		case *ast.FuncDecl:
			if x.Body != nil {
				fn(x.Name.Name, x.Body)
			}
		case *ast.GenDecl:
			for _, s := range x.Specs {
				if v, ok := s.(*ast.ValueSpec); ok {
					for _, e := range v.Values {
						fn(v.Names[0].Name, e)
					}
				}
			}
		}
	}
}

// calls finds calls of functions that have a better replacement everywhere.
func (t *Tree) calls(f *File) []Finding {
	var found []Finding
	bubbles := f.bubbles()
	program := f.AST.Name.Name == "main"
	f.selectors(func(s *ast.SelectorExpr, pkg, name string) {
		say := func(what string) { found = append(found, t.at(f, s, "%s.%s: %s", pkg, name, what)) }
		switch pkg {
		case "time":
			if name == "Sleep" && (!f.Test || !inside(bubbles, s)) {
				say("no sleep decides anything: wait for the event, or a timer and the context; in tests inside synctest.Test alone, or beside a synctest.Wait")
			}
		case "os":
			if name == "Exit" && !program && (f.production() || !exitsATest(f, s)) {
				say("only main ends the process: deferred calls do not run")
			}
			if name == "Stdout" && f.production() && !program {
				say("a writer is a parameter")
			}
		case "fmt":
			if strings.HasPrefix(name, "Print") && f.production() && !program {
				say("standard output belongs to main: a writer is a parameter")
			}
		case "log/slog":
			if slices.Contains([]string{"Default", "SetDefault", "Debug", "Info", "Warn", "Error", "Log", "DebugContext", "InfoContext", "WarnContext", "ErrorContext"}, name) {
				say("the logger is passed to the constructor")
			}
		case "net/http":
			if f.production() && slices.Contains([]string{"Get", "Head", "Post", "PostForm", "ListenAndServe", "ListenAndServeTLS", "Serve", "Handle", "HandleFunc", "DefaultServeMux"}, name) {
				say("it has no context, no limit, or is shared by the whole process")
			}
		case "os/exec":
			if name == "Command" && f.production() && !oneOf(f.Dir, []string{"cmd/swarm/internal/demo"}) {
				say("CommandContext: a process must end with what started it")
			}
		}
	})
	return found
}

// exitsATest reports whether an exit stands in TestMain, or in a file of a
// test's own that is a helper process (a test binary that runs itself).
func exitsATest(f *File, s ast.Node) bool {
	if support(f.Dir) {
		return false
	}
	ok := false
	eachFunc(f, func(name string, body ast.Node) {
		if body.Pos() <= s.Pos() && s.Pos() < body.End() {
			ok = name == "TestMain"
		}
	})
	return ok
}

type span struct{ from, to token.Pos }

// bubbles are where time is not real: the arguments of synctest.Test, and the
// functions that call synctest.Wait, which panics outside of a bubble.
func (f *File) bubbles() []span {
	names := f.names()
	var list []span
	calls := func(root ast.Node, fn string, at func(*ast.CallExpr)) {
		ast.Inspect(root, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				if s, ok := c.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == fn {
					if x, ok := s.X.(*ast.Ident); ok && names[x.Name] == "testing/synctest" {
						at(c)
					}
				}
			}
			return true
		})
	}
	calls(f.AST, "Test", func(c *ast.CallExpr) { list = append(list, span{c.Lparen, c.Rparen}) })
	for _, d := range f.AST.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
			calls(fn.Body, "Wait", func(*ast.CallExpr) { list = append(list, span{fn.Body.Lbrace, fn.Body.Rbrace}) })
		}
	}
	return list
}

func inside(spans []span, n ast.Node) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.from <= n.Pos() && n.Pos() < s.to })
}

// Globals finds package-level variables that change: what one test leaves
// there the next one finds. Tests and their support are free.
func Globals(t *Tree) []Finding {
	vars := map[string]map[string]bool{} // directory, name
	var found []Finding
	for _, f := range t.Files {
		for _, d := range f.AST.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR || !f.production() {
				continue
			}
			for _, s := range g.Specs {
				v, ok := s.(*ast.ValueSpec)
				if !ok {
					continue
				}
				if len(v.Values) == 0 && !embedded(g.Doc) && !embedded(v.Doc) {
					found = append(found, t.at(f, v, "variable %s has no value here, so something sets it later: make it a field", v.Names[0].Name))
				}
				for _, n := range v.Names {
					if vars[f.Dir] == nil {
						vars[f.Dir] = map[string]bool{}
					}
					vars[f.Dir][n.Name] = true
				}
			}
		}
	}
	for _, f := range t.Files {
		if !f.production() {
			continue
		}
		for _, d := range f.AST.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			local := locals(fn)
			check := func(e ast.Expr) {
				if id := base(e); id != nil && id.Name != "_" && vars[f.Dir][id.Name] && !local[id.Name] {
					found = append(found, t.at(f, id, "%s changes the package's variable %s: make it a field", fn.Name.Name, id.Name))
				}
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				switch x := n.(type) {
				case *ast.AssignStmt:
					if x.Tok != token.DEFINE {
						for _, e := range x.Lhs {
							check(e)
						}
					}
				case *ast.IncDecStmt:
					check(x.X)
				}
				return true
			})
		}
	}
	return inOrder(found)
}

func embedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// base is the variable that an assignment to e changes.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// locals are the names that a function declares anywhere: an approximation
// that can miss a finding and never makes one up.
func locals(fn *ast.FuncDecl) map[string]bool {
	m := map[string]bool{}
	add := func(e ast.Expr) {
		if id, ok := e.(*ast.Ident); ok {
			m[id.Name] = true
		}
	}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.Field:
			for _, id := range x.Names {
				m[id.Name] = true
			}
		case *ast.AssignStmt:
			if x.Tok == token.DEFINE {
				for _, e := range x.Lhs {
					add(e)
				}
			}
		case *ast.RangeStmt:
			if x.Tok == token.DEFINE {
				add(x.Key)
				add(x.Value)
			}
		case *ast.ValueSpec:
			for _, id := range x.Names {
				m[id.Name] = true
			}
		}
		return true
	})
	return m
}

// Errors finds errors that lose what they wrap, or that are compared as if
// nothing wrapped them.
func Errors(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		names := f.names()
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.BinaryExpr:
				if x.Op == token.EQL || x.Op == token.NEQ {
					for _, e := range []ast.Expr{x.X, x.Y} {
						if s := sentinel(e); s != "" && !isNil(x.X) && !isNil(x.Y) {
							found = append(found, t.at(f, x, "compare with errors.Is: %s may be wrapped", s))
						}
					}
				}
			case *ast.SwitchStmt:
				if id, ok := x.Tag.(*ast.Ident); ok && isErr(id.Name) {
					for _, s := range x.Body.List {
						c := s.(*ast.CaseClause) // a switch holds nothing else
						for _, e := range c.List {
							if s := sentinel(e); s != "" {
								found = append(found, t.at(f, e, "compare with errors.Is: %s may be wrapped", s))
							}
						}
					}
				}
			case *ast.TypeAssertExpr:
				if id, ok := x.X.(*ast.Ident); ok && isErr(id.Name) && !unwraps(x.Type) {
					found = append(found, t.at(f, x, "ask with errors.As: %s may be wrapped", id.Name))
				}
			case *ast.CallExpr:
				if text := t.message(f, names, x); text != "" {
					found = append(found, t.at(f, x, "%s", text))
				}
			}
			return true
		})
	}
	return inOrder(found)
}

// message says what is wrong with the text of a new error.
func (t *Tree) message(f *File, names map[string]string, c *ast.CallExpr) string {
	s, ok := c.Fun.(*ast.SelectorExpr)
	if !ok || len(c.Args) == 0 {
		return ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return ""
	}
	fn := names[x.Name] + "." + s.Sel.Name
	if fn != "fmt.Errorf" && fn != "errors.New" {
		return ""
	}
	lit, ok := c.Args[0].(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	text, err := strconv.Unquote(lit.Value)
	if err != nil {
		return ""
	}
	for _, p := range []string{"failed to ", "unable to ", "error ", "could not "} {
		if strings.HasPrefix(text, p) && f.production() {
			return "say what was attempted (\"fetch x from y: ...\"), not that it failed: an error says that already"
		}
	}
	for _, a := range c.Args[1:] {
		if id, ok := a.(*ast.Ident); ok && isErr(id.Name) && !strings.Contains(text, "%w") {
			return "wrap with %w, or the caller cannot tell what happened"
		}
	}
	return ""
}

func isErr(name string) bool { return name == "err" || name == "Err" || strings.HasSuffix(name, "Err") }

// unwraps reports an interface with an Unwrap method: who asks for it takes the
// chain apart, which errors.As would do for him.
func unwraps(e ast.Expr) bool {
	i, ok := e.(*ast.InterfaceType)
	if !ok {
		return false
	}
	return slices.ContainsFunc(i.Methods.List, func(m *ast.Field) bool { return len(m.Names) == 1 && m.Names[0].Name == "Unwrap" })
}

func isNil(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == "nil"
}

// sentinel returns the name of an exported error variable, or "". io.EOF is
// none: the contract of io.Reader is that it comes unwrapped.
func sentinel(e ast.Expr) string {
	name := ""
	switch x := e.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
		if p, ok := x.X.(*ast.Ident); ok && p.Name == "context" && (name == "Canceled" || name == "DeadlineExceeded") {
			return "context." + name
		}
	}
	if len(name) > 3 && strings.HasPrefix(name, "Err") && name[3] >= 'A' && name[3] <= 'Z' {
		return name
	}
	return ""
}

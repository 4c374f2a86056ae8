package release

import (
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// dep is one node of an evaluated dependency string: an atom, or a group of
// which all, or any one, has to be met.
type dep struct {
	atom build.Atom
	any  bool
	all  []dep // of a group
	text string
}

// parseDeps reads *DEPEND as it stands in a binary package: USE conditionals
// were decided when it was built and slot operators are bound. Blockers, and
// conditionals that are there all the same, ask for nothing here. What is not
// understood is taken to be met: Portage has the last word.
func parseDeps(text string) []dep {
	toks := strings.Fields(text)
	out, _ := parseGroup(toks, 0)
	return out
}

// maxNesting bounds what a hostile package can make parseGroup do.
const maxNesting = 64

func parseGroup(toks []string, depth int) (out []dep, rest []string) {
	any, skip := false, false
	for len(toks) > 0 {
		tok := toks[0]
		toks = toks[1:]
		switch {
		case tok == "||" || tok == "^^" || tok == "??":
			any = true
			continue
		case strings.HasSuffix(tok, "?"):
			skip = true
			continue
		case tok == ")":
			return out, toks
		case tok == "(":
			if depth >= maxNesting {
				return out, nil
			}
			var inner []dep
			inner, toks = parseGroup(toks, depth+1)
			if !skip && len(inner) > 0 {
				out = append(out, dep{any: any, all: inner, text: describe(inner, any)})
			}
		case tok[0] == '!':
		default:
			if a, err := build.ParseAtom(tok); err == nil && a.Category != "" {
				out = append(out, dep{atom: a, text: tok})
			}
		}
		any, skip = false, false
	}
	return out, nil
}

func describe(ds []dep, any bool) string {
	if any {
		return "one of " + join(ds)
	}
	return join(ds)
}

func join(ds []dep) string {
	var texts []string
	for i, d := range ds {
		if i == 4 {
			texts = append(texts, "...")
			break
		}
		texts = append(texts, d.text)
	}
	return strings.Join(texts, ", ")
}

// Asks reports whether the entry needs, when it is installed, some version of a
// package ("category/name").
func (e *Entry) Asks(cp string) bool {
	for _, name := range runtimeDeps {
		if asks(parseDeps(e.Meta(name)), cp) {
			return true
		}
	}
	return false
}

func asks(ds []dep, cp string) bool {
	return slices.ContainsFunc(ds, func(d dep) bool {
		return d.all != nil && asks(d.all, cp) || d.all == nil && d.atom.Category+"/"+d.atom.Name == cp
	})
}

// unmet returns the first of ds that has does not give, in words; "" when all
// are met.
func unmet(ds []dep, has func(*build.Atom) bool) string {
	for i := range ds {
		d := &ds[i]
		switch {
		case d.all == nil:
			if !has(&d.atom) {
				return d.text
			}
		case d.any:
			met := false
			for j := range d.all {
				met = met || unmet(d.all[j:j+1], has) == ""
			}
			if !met {
				return d.text
			}
		default:
			if u := unmet(d.all, has); u != "" {
				return u
			}
		}
	}
	return ""
}

// Matches reports whether a version in a slot satisfies an atom. USE
// dependencies and repositories are not looked at.
func Matches(a *build.Atom, c build.CPV, slot build.Slot) bool {
	if a.Name != c.Name || a.Category != "" && a.Category != c.Category {
		return false
	}
	if want := strings.TrimSuffix(strings.TrimSuffix(a.Slot, "="), "*"); want != "" {
		name, sub, bound := strings.Cut(want, "/")
		if name != slot.Slot || bound && sub != slot.Sub {
			return false
		}
	}
	order := CompareVersions(c.Version, strings.TrimSuffix(a.Version, "*"))
	switch a.Op {
	case "":
		return true
	case "=":
		if prefix, glob := strings.CutSuffix(a.Version, "*"); glob {
			rest, ok := strings.CutPrefix(c.Version, prefix)
			return ok && (rest == "" || !digit(rest[0]) || !digit(prefix[len(prefix)-1]))
		}
		return order == 0
	case "~":
		return CompareVersions(unrevised(c.Version), a.Version) == 0
	case ">=":
		return order >= 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case "<":
		return order < 0
	}
	return false
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// unrevised is a version without its -rN.
func unrevised(v string) string {
	if i := strings.LastIndex(v, "-r"); i >= 0 {
		return v[:i]
	}
	return v
}

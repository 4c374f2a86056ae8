package build

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrName is wrapped by every error about a name that breaks the PMS grammar.
var ErrName = errors.New("not a valid Portage name")

// CPV is category/package-version, the full name of one version of a package
// (PMS 3.1.1 to 3.1.3 and 3.2). The version carries its revision ("1.2-r1").
type CPV struct {
	Category string
	Name     string
	Version  string
}

// maxName bounds a CPV's text; Gentoo's longest is below 100 bytes and it has
// to fit into a file name.
const maxName = 200

var (
	categoryRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9+_.-]*$`)
	nameRE     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9+_-]*$`)
	versionRE  = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*[a-z]?((_alpha|_beta|_pre|_rc|_p)[0-9]*)*(-r[0-9]+)?$`)
	// splitRE finds the last "-<version>" of a PF.
	splitRE = regexp.MustCompile(`^(.+?)-([0-9]+(?:\.[0-9]+)*[a-z]?(?:(?:_alpha|_beta|_pre|_rc|_p)[0-9]*)*(?:-r[0-9]+)?)$`)
	slotRE  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9+_.-]*$`)
	useRE   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+_@-]*$`)
)

// ParseCPV reads "category/name-version". It is strict: a name that passes
// holds no path separator beyond the one, no "..", and no control character.
func ParseCPV(s string) (CPV, error) {
	if len(s) > maxName {
		return CPV{}, fmt.Errorf("parse CPV of %d bytes: %w: longer than %d", len(s), ErrName, maxName)
	}
	cat, pf, ok := strings.Cut(s, "/")
	if !ok {
		return CPV{}, fmt.Errorf("parse CPV %q: %w: no category", s, ErrName)
	}
	m := splitRE.FindStringSubmatch(pf)
	if m == nil {
		return CPV{}, fmt.Errorf("parse CPV %q: %w: no version", s, ErrName)
	}
	c := CPV{Category: cat, Name: m[1], Version: m[2]}
	if err := c.Validate(); err != nil {
		return CPV{}, fmt.Errorf("parse CPV %q: %w", s, err)
	}
	return c, nil
}

// Validate reports whether all three parts keep the grammar.
func (c CPV) Validate() error {
	switch {
	case !categoryRE.MatchString(c.Category) || strings.Contains(c.Category, ".."):
		return fmt.Errorf("%w: category %q", ErrName, c.Category)
	case !nameRE.MatchString(c.Name):
		return fmt.Errorf("%w: package %q", ErrName, c.Name)
	case hyphenDigit(c.Name) && splitRE.MatchString(c.Name):
		return fmt.Errorf("%w: package %q ends like a version", ErrName, c.Name)
	case !versionRE.MatchString(c.Version):
		return fmt.Errorf("%w: version %q", ErrName, c.Version)
	}
	return nil
}

// hyphenDigit reports whether s could end like a version: most names of packages
// cannot, and need not be matched against all that a version can be.
func hyphenDigit(s string) bool {
	for i := 1; i < len(s); i++ {
		if s[i-1] == '-' && '0' <= s[i] && s[i] <= '9' {
			return true
		}
	}
	return false
}

// String is "category/name-version".
func (c CPV) String() string { return c.Category + "/" + c.Name + "-" + c.Version }

// CP is "category/name".
func (c CPV) CP() string { return c.Category + "/" + c.Name }

// PF is "name-version", as PMS calls it.
func (c CPV) PF() string { return c.Name + "-" + c.Version }

// IsZero reports whether c names nothing.
func (c CPV) IsZero() bool { return c == CPV{} }

// MarshalText encodes a CPV as its usual text.
func (c CPV) MarshalText() ([]byte, error) {
	if c.IsZero() {
		return nil, nil
	}
	return []byte(c.String()), nil
}

// UnmarshalText is ParseCPV; empty text is the zero CPV.
func (c *CPV) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*c = CPV{}
		return nil
	}
	got, err := ParseCPV(string(b))
	if err != nil {
		return err
	}
	*c = got
	return nil
}

// Slot is SLOT: "slot" or "slot/subslot".
type Slot struct{ Slot, Sub string }

// ParseSlot reads "0" or "0/2". Without a subslot, the subslot is the slot,
// as PMS 7.2 has it.
func ParseSlot(s string) (Slot, error) {
	a, b, ok := strings.Cut(s, "/")
	if !ok {
		b = a
	}
	if !slotRE.MatchString(a) || !slotRE.MatchString(b) {
		return Slot{}, fmt.Errorf("parse slot %q: %w", s, ErrName)
	}
	return Slot{Slot: a, Sub: b}, nil
}

// String is "slot/subslot", or "slot" alone where they are equal.
func (s Slot) String() string {
	if s.Sub == "" || s.Sub == s.Slot {
		return s.Slot
	}
	return s.Slot + "/" + s.Sub
}

// ValidUSE reports whether flag is a USE flag by PMS 3.1.4.
func ValidUSE(flag string) bool { return len(flag) <= maxName && useRE.MatchString(flag) }

// Atom is a package dependency specification as a person types it:
// [op]category/name[-version][:slot][::repo][[use,...]]. The category may be
// missing; Portage then finds it.
type Atom struct {
	Op       string // "", "=", ">=", "<=", ">", "<", "~"
	Category string // may be empty
	Name     string
	Version  string // empty without Op
	Slot     string
	Repo     string
	USE      []string
}

var (
	atomRE = regexp.MustCompile(`^(>=|<=|=|>|<|~)?([^:\[]+)(?::([^:\[]+))?(?:::([A-Za-z0-9_-]+))?(?:\[([^\]]*)\])?$`)
	useDep = regexp.MustCompile(`^[-!]?[A-Za-z0-9][A-Za-z0-9+_@-]*(\([+-]\))?[=?]?$`)
)

// ParseAtom reads one atom. It accepts a subset of PMS 8.3 that a person
// asks for (no blockers), and nothing that could be taken for an option or a
// path.
func ParseAtom(s string) (Atom, error) {
	bad := func(why string) (Atom, error) {
		return Atom{}, fmt.Errorf("parse atom %q: %w: %s", s, ErrName, why)
	}
	if len(s) > 2*maxName {
		return bad("too long")
	}
	m := atomRE.FindStringSubmatch(s)
	if m == nil {
		return bad("want [op]category/package[-version][:slot][::repo]")
	}
	a := Atom{Op: m[1], Slot: m[3], Repo: m[4]}
	cat, rest, ok := strings.Cut(m[2], "/")
	if !ok {
		cat, rest = "", m[2]
	}
	a.Category, a.Name = cat, strings.TrimSuffix(rest, "*")
	if a.Op != "" {
		v := splitRE.FindStringSubmatch(strings.TrimSuffix(rest, "*"))
		if v == nil {
			return bad("an operator wants a version")
		}
		a.Name, a.Version = v[1], v[2]
		if rest != strings.TrimSuffix(rest, "*") {
			if a.Op != "=" {
				return bad("only = takes a trailing *")
			}
			a.Version += "*"
		}
	} else if splitRE.MatchString(rest) {
		return bad("a version wants an operator, as in =" + s)
	}
	if cat != "" && !categoryRE.MatchString(cat) || strings.Contains(cat, "..") {
		return bad("category")
	}
	if !nameRE.MatchString(a.Name) {
		return bad("package name")
	}
	if a.Slot != "" {
		sl := strings.TrimSuffix(a.Slot, "=")
		if sl != "" && sl != "*" {
			if _, err := ParseSlot(sl); err != nil {
				return bad("slot")
			}
		}
	}
	if m[5] != "" {
		a.USE = strings.Split(m[5], ",")
		for _, u := range a.USE {
			if !useDep.MatchString(u) {
				return bad("USE dependency")
			}
		}
	}
	return a, nil
}

// String writes the atom back as Portage reads it.
func (a Atom) String() string {
	var b strings.Builder
	b.WriteString(a.Op)
	if a.Category != "" {
		b.WriteString(a.Category + "/")
	}
	b.WriteString(a.Name)
	if a.Version != "" {
		b.WriteString("-" + a.Version)
	}
	if a.Slot != "" {
		b.WriteString(":" + a.Slot)
	}
	if a.Repo != "" {
		b.WriteString("::" + a.Repo)
	}
	if len(a.USE) > 0 {
		b.WriteString("[" + strings.Join(a.USE, ",") + "]")
	}
	return b.String()
}

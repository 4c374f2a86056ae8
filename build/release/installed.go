package release

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// Installed is what a subscribed consumer tells of itself, so that no release
// leaves it to compile: names, versions, slots, USE flags and dependencies of
// its packages, its world file, the packages that its owner provides without
// Portage, and those default options for emerge that decide what an update is. It
// holds no file, no other setting and nothing about the machine.
type Installed struct {
	Target   string             `cbor:"target" json:"target"`
	World    []string           `cbor:"world" json:"world"`       // atoms and sets, sorted
	Packages []InstalledPackage `cbor:"packages" json:"packages"` // sorted by CPV
	// Provided are the packages of package.provided, sorted: Portage takes them
	// to be there, in every slot.
	Provided []build.CPV `cbor:"provided,omitempty" json:"provided,omitempty"`
	// Options are words of EMERGE_DEFAULT_OPTS, each a WantOption.
	Options []string `cbor:"options,omitempty" json:"options,omitempty"`
}

// wantOptions are the options of emerge(1) that decide what an update is. No other
// is published, or heard from a peer: some of them name files and directories.
var wantOptions = []string{
	"backtrack", "changed-deps", "changed-slot", "changed-use", "complete-graph", "complete-graph-if-new-use", "complete-graph-if-new-ver", "deep",
	"dynamic-deps", "exclude", "ignore-built-slot-operator-deps", "ignore-soname-deps", "ignore-world", "implicit-system-deps", "newrepo", "newuse",
	"noreplace", "package-moves", "rebuild-exclude", "rebuild-ignore", "rebuild-if-new-rev", "rebuild-if-new-slot", "rebuild-if-new-ver",
	"rebuild-if-unbuilt", "reinstall-atoms", "selective", "update-if-installed", "use-ebuild-visibility", "with-bdeps", "with-bdeps-auto", "with-test-deps",
}

var optionValueRE = regexp.MustCompile(`^[A-Za-z0-9@/_.:=*<>~+\[\] -]{1,200}$`)

// WantOption reports whether a word is an option of emerge that decides what an
// update is, and nothing else: "--with-bdeps=y".
func WantOption(word string) bool {
	name, value, valued := strings.Cut(strings.TrimPrefix(word, "--"), "=")
	return strings.HasPrefix(word, "--") && slices.Contains(wantOptions, name) && (!valued || optionValueRE.MatchString(value))
}

// InstalledPackage is one entry of a consumer's /var/db/pkg.
type InstalledPackage struct {
	CPV  build.CPV `cbor:"cpv" json:"cpv"`
	Slot string    `cbor:"slot" json:"slot"` // "slot/subslot"
	// Meta holds those of InstalledMeta that the package has, sorted by name.
	Meta []build.Pair `cbor:"meta" json:"meta"`
}

// InstalledMeta reports whether a file of /var/db/pkg/CATEGORY/PF is part of an
// Installed: what Portage's resolver reads of an installed package.
func InstalledMeta(name string) bool {
	switch name {
	case "BDEPEND", "BUILD_ID", "BUILD_TIME", "CHOST", "DEFINED_PHASES", "DEPEND", "EAPI", "IDEPEND", "IUSE", "KEYWORDS", "LICENSE", "PDEPEND",
		"PROPERTIES", "PROVIDES", "RDEPEND", "REQUIRES", "RESTRICT", "SLOT", "USE", "repository":
		return true
	}
	return false
}

const (
	maxInstalled      = 20_000
	maxInstalledBytes = 64 << 20 // not compressed
	maxWorld          = 20_000
	maxWantOptions    = 200
)

// Value returns one of the package's metadata, or "".
func (p *InstalledPackage) Value(name string) string { return pairValue(p.Meta, name) }

// pairValue finds a name in sorted pairs.
func pairValue(ps []build.Pair, name string) string {
	i, ok := slices.BinarySearchFunc(ps, name, func(p build.Pair, n string) int { return strings.Compare(p.Name, n) })
	if !ok {
		return ""
	}
	return ps[i].Value
}

// Sort puts an Installed into its canonical order.
func (s *Installed) Sort() {
	slices.Sort(s.World)
	s.World = slices.Compact(s.World)
	slices.SortFunc(s.Packages, func(a, b InstalledPackage) int { return strings.Compare(a.CPV.String(), b.CPV.String()) })
	slices.SortFunc(s.Provided, func(a, b build.CPV) int { return strings.Compare(a.String(), b.String()) })
	s.Provided = slices.Compact(s.Provided)
	for i := range s.Packages {
		slices.SortFunc(s.Packages[i].Meta, func(a, b build.Pair) int { return cmp.Compare(a.Name, b.Name) })
	}
}

// Validate checks names, bounds and order.
func (s *Installed) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: installed set: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case !build.ValidTarget(s.Target):
		return bad("target %q", clip(s.Target))
	case len(s.Packages) > maxInstalled || len(s.World) > maxWorld || len(s.Provided) > maxInstalled:
		return bad("%d packages, %d provided ones and %d world entries", len(s.Packages), len(s.Provided), len(s.World))
	}
	for _, o := range s.Options {
		if !WantOption(o) || len(s.Options) > maxWantOptions {
			return bad("option %q", clip(o))
		}
	}
	for _, a := range s.World {
		if a == "" || len(a) > 400 || !printable(a) || strings.ContainsAny(a, " ") {
			return bad("world entry %q", clip(a))
		}
	}
	last := ""
	for _, c := range s.Provided {
		if err := c.Validate(); err != nil {
			return bad("provided: %v", err)
		}
		if c.String() <= last {
			return bad("provided %s is not in order, or twice", clip(c.String()))
		}
		last = c.String()
	}
	last = ""
	for i := range s.Packages {
		p := &s.Packages[i]
		if err := p.CPV.Validate(); err != nil {
			return bad("%v", err)
		}
		name := p.CPV.String()
		if name <= last {
			return bad("%s is not in order, or twice", clip(name))
		}
		last = name
		if _, err := build.ParseSlot(p.Slot); err != nil {
			return bad("%s: slot %q", clip(name), clip(p.Slot))
		}
		if err := validatePairs(p.Meta, maxPairs); err != nil {
			return bad("%s: %v", clip(name), err)
		}
		for _, m := range p.Meta {
			if !InstalledMeta(m.Name) {
				return bad("%s: %s is not published", clip(name), m.Name)
			}
		}
	}
	return nil
}

// Encode writes the set as compressed CBOR: about 200 bytes a package.
func (s *Installed) Encode() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	b, err := build.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode installed set: %w", err)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		return nil, fmt.Errorf("compress installed set: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress installed set: %w", err)
	}
	return out.Bytes(), nil
}

// DecodeInstalled reads what Encode wrote, and validates it. It is safe on
// anything a peer sends.
func DecodeInstalled(b []byte) (*Installed, error) {
	fail := func(err error) (*Installed, error) {
		return nil, fmt.Errorf("decode installed set: %w", errors.Join(ErrInvalid, err))
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return fail(err)
	}
	text, err := io.ReadAll(io.LimitReader(z, maxInstalledBytes+1))
	if err != nil {
		return fail(err)
	}
	if len(text) > maxInstalledBytes {
		return fail(errors.New("it is too large"))
	}
	var s Installed
	if err := build.Unmarshal(text, &s); err != nil {
		return fail(err)
	}
	if err := s.Validate(); err != nil {
		return fail(err)
	}
	return &s, nil
}

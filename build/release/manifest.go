package release

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
)

// ErrInvalid is wrapped by every error about a manifest or head that breaks a
// rule of this package, decoded or made.
var ErrInvalid = errors.New("invalid release")

// Bounds of what a peer may send.
const (
	// MaxBytes is the most an encoded Manifest may take: some 100,000 entries
	// of 2 KiB.
	MaxBytes = 256 << 20
	// MaxEntries is the most entries of a Manifest. Portage takes 7 s to read
	// an index of 60,000.
	MaxEntries = 100_000
	// MaxValue is the most bytes of one metadata or header value. PROVIDES and
	// REQUIRES of the largest packages are some tens of KiB.
	MaxValue = 256 << 10

	maxNeeds  = 4_000
	maxPairs  = 64
	maxHeader = 512
	maxTree   = 128
	maxSize   = 1 << 46
	maxTime   = 1 << 40 // seconds: far beyond any calendar, far below overflow
)

// Entry is one artifact of a release.
type Entry struct {
	Key      build.Key      `cbor:"key" json:"key"`
	CPV      build.CPV      `cbor:"cpv" json:"cpv"`
	Slot     string         `cbor:"slot" json:"slot"` // "slot/subslot"
	Artifact build.Artifact `cbor:"art" json:"artifact"`
	// Keywords is KEYWORDS of the release's tree, not of the artifact: a
	// package that was made stable since is not built again for it.
	Keywords string `cbor:"kw" json:"keywords"`
	// Needs are the keys this needs at run time, sorted. In a Manifest each is
	// the key of another entry.
	Needs []build.Key `cbor:"needs" json:"needs"`
}

// Manifest is a release: what a target's consumers are shown, whole.
type Manifest struct {
	Target string `cbor:"target" json:"target"`
	Tree   string `cbor:"tree" json:"tree"` // digest of the tree snapshot, may be empty
	// Repos are the repositories of that tree whose commits are known, by name:
	// consumers go to them, also back.
	Repos   []build.Revision `cbor:"repos,omitempty" json:"repos,omitempty"`
	Header  []build.Pair     `cbor:"header" json:"header"` // index header as Portage wrote it, sorted by name
	Entries []Entry          `cbor:"entries" json:"entries"`
}

// Meta returns the value of one metadata name, or "".
func (e *Entry) Meta(name string) string { return pairValue(e.Artifact.Meta, name) }

// USE is the sorted enabled flags, separated by one space.
func (e *Entry) USE() string {
	fs := strings.Fields(e.Meta("USE"))
	slices.Sort(fs)
	return strings.Join(slices.Compact(fs), " ")
}

// identity is what a consumer can ask for.
type identity struct {
	cpv build.CPV
	use string
}

func (e *Entry) identity() identity { return identity{e.CPV, e.USE()} }

func (a identity) compare(b identity) int {
	return cmp.Or(strings.Compare(a.cpv.String(), b.cpv.String()), strings.Compare(a.use, b.use))
}

// Sort puts a manifest into its canonical order.
func (m *Manifest) Sort() {
	slices.SortFunc(m.Header, func(a, b build.Pair) int { return strings.Compare(a.Name, b.Name) })
	type item struct {
		name, use string
		e         Entry
	}
	items := make([]item, len(m.Entries))
	for i := range m.Entries {
		e := &m.Entries[i]
		items[i] = item{e.CPV.String(), e.USE(), *e}
	}
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.use, b.use), strings.Compare(string(a.e.Key), string(b.e.Key)))
	})
	for i := range items {
		m.Entries[i] = items[i].e
	}
}

// Validate checks every rule of the package comment but the one about slots
// (which Compose keeps), so that a reader may rely on them. It names the first
// thing that is wrong.
func (m *Manifest) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if !build.ValidTarget(m.Target) {
		return bad("target %q", clip(m.Target))
	}
	if len(m.Tree) > maxTree || !printable(m.Tree) {
		return bad("tree digest %q", clip(m.Tree))
	}
	if !build.ValidRevisions(m.Repos) {
		return bad("repositories")
	}
	if err := validatePairs(m.Header, maxHeader); err != nil {
		return bad("header: %v", err)
	}
	if len(m.Entries) > MaxEntries {
		return bad("%d entries, at most %d", len(m.Entries), MaxEntries)
	}
	keys := make(map[build.Key]struct{}, len(m.Entries))
	prev := identity{}
	for i := range m.Entries {
		e := &m.Entries[i]
		if err := e.Validate(); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		id := e.identity()
		if i > 0 && prev.compare(id) >= 0 {
			return bad("entry %d, %s: not in order, or one CPV and USE twice", i, e.CPV)
		}
		prev = id
		if _, twice := keys[e.Key]; twice {
			return bad("%s: key %s twice", e.CPV, e.Key.Short())
		}
		keys[e.Key] = struct{}{}
	}
	for i := range m.Entries {
		for _, k := range m.Entries[i].Needs {
			if _, ok := keys[k]; !ok {
				return bad("%s needs %s, which is not in the release", m.Entries[i].CPV, k.Short())
			}
		}
	}
	return nil
}

// Validate checks one entry on its own.
func (e *Entry) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrInvalid, clip(e.CPV.String()), fmt.Sprintf(format, args...))
	}
	if err := e.CPV.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !e.Key.Valid() {
		return bad("build key %q", clip(string(e.Key)))
	}
	slot, err := build.ParseSlot(e.Slot)
	if err != nil {
		return bad("slot %q", clip(e.Slot))
	}
	a := &e.Artifact
	if _, err := Digest(a.CID); err != nil {
		return bad("%v", err)
	}
	switch {
	case a.Size <= 0 || a.Size > maxSize:
		return bad("size %d", a.Size)
	case a.MTime < 0 || a.MTime > maxTime:
		return bad("mtime %d", a.MTime)
	case !hexOf(a.MD5, 16):
		return bad("MD5 %q", clip(a.MD5))
	case !hexOf(a.SHA1, 20):
		return bad("SHA1 %q", clip(a.SHA1))
	case len(e.Keywords) > MaxValue || !printable(e.Keywords):
		return bad("KEYWORDS")
	case len(e.Needs) > maxNeeds:
		return bad("%d needs, at most %d", len(e.Needs), maxNeeds)
	}
	if err := validatePairs(a.Meta, maxPairs); err != nil {
		return bad("metadata: %v", err)
	}
	if s := e.Meta("SLOT"); s != "" {
		if got, err := build.ParseSlot(s); err != nil || got != slot {
			return bad("slot %s, but the package says %q", e.Slot, clip(s))
		}
	}
	for i, k := range e.Needs {
		if !k.Valid() || i > 0 && e.Needs[i-1] >= k {
			return bad("needs are not sorted build keys")
		}
	}
	return nil
}

func validatePairs(ps []build.Pair, max int) error {
	if len(ps) > max {
		return fmt.Errorf("%d names, at most %d", len(ps), max)
	}
	for i, p := range ps {
		switch {
		case !validName(p.Name):
			return fmt.Errorf("name %q", clip(p.Name))
		case i > 0 && ps[i-1].Name >= p.Name:
			return fmt.Errorf("%s is not in order, or twice", p.Name)
		case len(p.Value) > MaxValue || !printable(p.Value):
			return fmt.Errorf("%s: longer than %d bytes, or not one line of UTF-8", p.Name, MaxValue)
		}
	}
	return nil
}

// validName is a variable name of a Packages index: "USE_EXPAND_VALUES_ARCH",
// "repository".
func validName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9' || i == 0) && c != '_' {
			return false
		}
	}
	return true
}

// printable reports whether s is valid UTF-8 on one line without control
// characters.
func printable(s string) bool {
	ascii := true
	for i := range len(s) {
		c := s[i]
		if c < 0x20 || c == 0x7f {
			return false
		}
		ascii = ascii && c < 0x80
	}
	if ascii {
		return true
	}
	if !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029'
	})
}

func hexOf(s string, bytes int) bool {
	if len(s) != 2*bytes {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// clip makes hostile text fit for an error.
func clip(s string) string { return build.OneLine(s, 80) }

// Digest returns the BLAKE3 hash inside the text of a CID. Only the one form
// that package cas writes is accepted.
func Digest(text string) ([32]byte, error) {
	c, err := cas.Parse(text)
	if err != nil {
		return [32]byte{}, fmt.Errorf("%w: CID %q: %w", ErrInvalid, clip(text), err)
	}
	return cas.Digest(c)
}

// Encode writes a manifest as core deterministic CBOR. It fails on one that
// is not valid, so that what is stored can always be read.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	b, err := build.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest of %s: %w", m.Target, err)
	}
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("encode manifest of %s: %w: %d bytes, at most %d", m.Target, ErrInvalid, len(b), MaxBytes)
	}
	return b, nil
}

// Decode reads what Encode wrote and validates it. It is safe on anything a
// peer sends. Fields of later versions are passed over.
func Decode(b []byte) (*Manifest, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("decode manifest: %w: %d bytes, at most %d", ErrInvalid, len(b), MaxBytes)
	}
	var m Manifest
	if err := build.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("decode manifest: %w: %w", ErrInvalid, err)
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	return &m, nil
}

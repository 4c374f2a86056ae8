package binhost

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// DefaultTTL is the header's TTL in seconds where the target sets none.
const DefaultTTL = 1

// maxTTL bounds what a target may set: longer would hide a rollback.
const maxTTL = 3600

// Item is one package of an index: what its path names.
type Item struct {
	Path    string // as in PATH: "cat/pn/PF-BUILDID.gpkg.tar"
	BuildID uint32 // 1 to 2^31-1
	CID     string
	Size    int64
	MTime   int64 // seconds since 1970
}

// Index is a release with its paths. It is immutable and safe for concurrent
// use, and holds the Manifest it was made of.
type Index struct {
	manifest *release.Manifest
	chunks   []*Chunk
	items    []Item // beside manifest.Entries
}

// New gives every entry of m its BUILD_ID and path. It fails on a manifest
// that is not valid.
func New(m *release.Manifest) (*Index, error) {
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("index release of %s: %w", build.OneLine(m.Target, 64), err)
	}
	chunks, err := Chunks(m, nil)
	if err != nil {
		return nil, err
	}
	x := &Index{manifest: m, chunks: chunks, items: make([]Item, 0, len(m.Entries))}
	for _, c := range chunks {
		x.items = append(x.items, c.items...)
	}
	return x, nil
}

// buildIDs is how many BUILD_IDs one digest has to offer.
const buildIDs = 8

// buildID is the n-th run of 31 bits of a digest.
func buildID(d [32]byte, n int) uint32 {
	bit := 31 * n
	var b [8]byte
	copy(b[:], d[bit/8:])
	return uint32(binary.BigEndian.Uint64(b[:])<<(bit%8)>>33) & (1<<31 - 1)
}

// path is PATH in the layout of FEATURES=binpkg-multi-instance.
func path(c build.CPV, id uint32) string {
	return c.Category + "/" + c.Name + "/" + c.PF() + "-" + strconv.FormatUint(uint64(id), 10) + ".gpkg.tar"
}

// Items lists the packages in the order of the manifest's entries. The slice
// must not be written to.
func (x *Index) Items() []Item { return x.items }

// Manifest is the release the index was made of.
func (x *Index) Manifest() *release.Manifest { return x.manifest }

// Paths is the table from path to package. It is made anew by each call.
func (x *Index) Paths() map[string]Item {
	out := make(map[string]Item, len(x.items))
	for _, it := range x.items {
		out[it.Path] = it
	}
	return out
}

// Render writes the Packages file of m under head, byte for byte as Portage's
// own writer would.
func Render(m *release.Manifest, head release.Channel) ([]byte, error) {
	x, err := New(m)
	if err != nil {
		return nil, err
	}
	return x.Render(head), nil
}

// Render writes the Packages file under head.
func (x *Index) Render(head release.Channel) []byte {
	b := make([]byte, 0, 4<<10+len(x.items)<<10)
	b = AppendHeader(b, x.manifest, head)
	for _, c := range x.chunks {
		b = c.Append(b)
	}
	return b
}

// Inherited is what the header says for every entry that does not say
// otherwise.
type Inherited struct{ CHOST, Repo string }

func inherited(m *release.Manifest) Inherited {
	var out Inherited
	for _, p := range m.Header {
		switch p.Name {
		case "CHOST":
			out.CHOST = oneLine(p.Value)
		case "repository", "REPO":
			out.Repo = oneLine(p.Value)
		}
	}
	return out
}

// AppendHeader appends the header block of the Packages file of m under head.
func AppendHeader(b []byte, m *release.Manifest, head release.Channel) []byte {
	lines := []build.Pair{
		{Name: "PACKAGES", Value: strconv.Itoa(len(m.Entries))},
		{Name: "TIMESTAMP", Value: strconv.FormatInt(head.Timestamp, 10)},
		{Name: "TTL", Value: strconv.Itoa(DefaultTTL)},
		{Name: "VERSION", Value: "0"},
	}
	for _, p := range m.Header {
		v := oneLine(p.Value)
		switch {
		case p.Name == "TTL":
			if n, err := strconv.Atoi(v); err == nil && n > 0 && n <= maxTTL {
				lines[2].Value = strconv.Itoa(n)
			}
			continue
		case p.Name == "repository" || p.Name == "REPO":
			p.Name = "REPO"
		case p.Name != "CHOST" && !SafeHeader(p.Name):
			continue
		}
		lines = append(lines, build.Pair{Name: p.Name, Value: v})
	}
	return appendBlock(b, lines)
}

// rank puts last what Portage keeps under a lower-case name: _mtime_ and
// repository. (DESC is DESCRIPTION to it, which sorts to the same place.)
func rank(name string) int {
	switch name {
	case "MTIME":
		return 1
	case "REPO":
		return 2
	}
	return 0
}

// copied reports whether name is taken from the package's own metadata. The
// list is what a client keeps, less what this package sets itself and what
// would send the client elsewhere (BASE_URI, PKGINDEX_URI, FETCHCOMMAND,
// RESUMECOMMAND).
func copied(name string) bool {
	switch name {
	case "BDEPEND", "BUILD_TIME", "CHOST", "DEFINED_PHASES", "DEPEND", "DESC", "EAPI", "IDEPEND", "IUSE", "LICENSE", "PDEPEND",
		"PROPERTIES", "PROVIDES", "RDEPEND", "REPO", "REQUIRES", "RESTRICT", "SLOT", "USE":
		return true
	}
	return false
}

// SafeHeader reports whether a header line of a target's index may reach
// other machines. VERSION, TIMESTAMP, PACKAGES and TTL are not copied but set.
func SafeHeader(name string) bool {
	switch name {
	case "ARCH", "CHOST", "CBUILD", "ELIBC", "KERNEL", "PROFILE", "USE", "IUSE_IMPLICIT",
		"ACCEPT_KEYWORDS", "ACCEPT_LICENSE", "ACCEPT_PROPERTIES", "ACCEPT_RESTRICT",
		"CONFIG_PROTECT", "CONFIG_PROTECT_MASK", "REPO_REVISIONS",
		"USE_EXPAND", "USE_EXPAND_HIDDEN", "USE_EXPAND_IMPLICIT", "USE_EXPAND_UNPREFIXED":
		return true
	}
	return strings.HasPrefix(name, "USE_EXPAND_VALUES_")
}

// oneLine makes a value fit for one line. What was validated passes as it is;
// the rest is defence.
func oneLine(s string) string {
	plain := len(s) <= release.MaxValue
	for i := 0; plain && i < len(s); i++ {
		c := s[i]
		plain = c > 0x20 && c < 0x7f || c == ' ' && i > 0 && i < len(s)-1 && s[i-1] != ' '
	}
	if plain {
		return s
	}
	return build.OneLine(s, release.MaxValue)
}

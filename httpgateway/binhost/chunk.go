package binhost

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// Chunk is a run of a release's entries whose text depends on them and on what
// the header says for all, and not on the entries around them. Where a chunk
// ends is a function of the entries, so every peer cuts alike, and a package
// more or less changes one chunk. It is immutable to all but Chunks.
type Chunk struct {
	entries []release.Entry
	inherit Inherited
	items   []Item // beside entries
	order   []int  // of entries, as written
}

// perChunk is the mean number of entries of a chunk: some 75 KB of text, 10 KB
// packed. Fewer pack worse, more are made again for one that changed.
const perChunk = 64

// begins reports whether a chunk begins at the first entry of this name. It is
// FNV-1a of the name's text.
func begins(c build.CPV) bool {
	h := uint32(2166136261)
	for _, s := range [...]string{c.Category, "/", c.Name, "-", c.Version} {
		for i := range len(s) {
			h = (h ^ uint32(s[i])) * 16777619
		}
	}
	return (h^h>>15)%perChunk == 0
}

// Chunks cuts the entries of a valid manifest. Those of old, the chunks of the
// release before, that did not change are taken over: the same pointer means the
// same text. Nobody else may use them meanwhile.
func Chunks(m *release.Manifest, old []*Chunk) ([]*Chunk, error) {
	inherit := inherited(m)
	before := make(map[build.CPV]*Chunk, len(old))
	for _, c := range old {
		before[c.entries[0].CPV] = c
	}
	out := make([]*Chunk, 0, len(old)+1)
	for start := 0; start < len(m.Entries); {
		rest := m.Entries[start:]
		c := before[rest[0].CPV]
		if c != nil && c.inherit == inherit && c.sameAs(rest) {
			c.entries = rest[:len(c.entries)] // lets go of the old manifest
		} else {
			end := 1
			for end < len(rest) && !cut(rest, end) {
				end++
			}
			var err error
			if c, err = newChunk(rest[:end], inherit); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
		start += len(c.entries)
	}
	return out, nil
}

// cut reports whether a chunk begins at entry i.
func cut(entries []release.Entry, i int) bool {
	return entries[i].CPV != entries[i-1].CPV && begins(entries[i].CPV)
}

// sameAs reports whether rest begins with what would become this chunk.
func (c *Chunk) sameAs(rest []release.Entry) bool {
	n := len(c.entries)
	if len(rest) < n || len(rest) > n && !cut(rest, n) {
		return false
	}
	for i := range c.entries {
		if !c.entries[i].SameListing(&rest[i]) {
			return false
		}
	}
	return true
}

// newChunk gives every entry its BUILD_ID and path.
func newChunk(entries []release.Entry, inherit Inherited) (*Chunk, error) {
	c := &Chunk{entries: entries, inherit: inherit, items: make([]Item, len(entries)), order: make([]int, len(entries))}
	digests := make([][32]byte, len(entries))
	for i := range entries {
		d, err := release.Digest(entries[i].Artifact.CID)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", entries[i].CPV, err)
		}
		digests[i], c.order[i] = d, i
	}
	for start := 0; start < len(entries); {
		end := start + 1
		for end < len(entries) && entries[end].CPV == entries[start].CPV {
			end++
		}
		same := c.order[start:end]
		slices.SortFunc(same, func(a, b int) int { return slices.Compare(digests[a][:], digests[b][:]) })
		if err := c.number(same, digests); err != nil {
			return nil, err
		}
		start = end
	}
	return c, nil
}

// number gives the entries of one CPV, sorted by digest, their BUILD_IDs.
func (c *Chunk) number(same []int, digests [][32]byte) error {
	taken := make(map[uint32]string, len(same))
	for _, i := range same {
		e := &c.entries[i]
		id := uint32(0)
		for n := range buildIDs {
			try := buildID(digests[i], n)
			if holder, used := taken[try]; try != 0 && (!used || holder == e.Artifact.CID) {
				id = try
				break
			}
		}
		if id == 0 {
			return fmt.Errorf("index %s: %w: no BUILD_ID is left for %s", e.CPV, release.ErrInvalid, e.Artifact.CID)
		}
		taken[id] = e.Artifact.CID
		c.items[i] = Item{
			Path: path(e.CPV, id), BuildID: id,
			CID: e.Artifact.CID, Size: e.Artifact.Size, MTime: e.Artifact.MTime,
		}
	}
	return nil
}

// Items lists the packages in the order of the manifest's entries. The slice
// must not be written to.
func (c *Chunk) Items() []Item { return c.items }

// Append appends the chunk's part of the Packages file.
func (c *Chunk) Append(b []byte) []byte {
	for _, i := range c.order {
		b = c.appendEntry(b, i)
	}
	return b
}

// appendEntry appends the block of entry i.
func (c *Chunk) appendEntry(b []byte, i int) []byte {
	e, it := &c.entries[i], &c.items[i]
	lines := make([]build.Pair, 0, 32)
	lines = append(lines,
		build.Pair{Name: "BUILD_ID", Value: strconv.FormatUint(uint64(it.BuildID), 10)},
		build.Pair{Name: "CPV", Value: e.CPV.String()},
		build.Pair{Name: "KEYWORDS", Value: oneLine(e.Keywords)},
		build.Pair{Name: "MD5", Value: e.Artifact.MD5},
		build.Pair{Name: "MTIME", Value: strconv.FormatInt(it.MTime, 10)},
		build.Pair{Name: "PATH", Value: it.Path},
		build.Pair{Name: "SHA1", Value: e.Artifact.SHA1},
		build.Pair{Name: "SIZE", Value: strconv.FormatInt(it.Size, 10)},
	)
	for _, p := range e.Artifact.Meta {
		switch p.Name {
		case "DESCRIPTION":
			p.Name = "DESC"
		case "repository":
			p.Name = "REPO"
		}
		if !copied(p.Name) {
			continue
		}
		p.Value = oneLine(p.Value)
		switch {
		case p.Name == "CHOST" && p.Value == c.inherit.CHOST,
			p.Name == "REPO" && p.Value == c.inherit.Repo,
			p.Name == "EAPI" && p.Value == "0",
			p.Name == "SLOT" && p.Value == "0":
			continue
		}
		lines = append(lines, p)
	}
	return appendBlock(b, lines)
}

// appendBlock appends lines in Portage's order, then an empty line. Empty
// values and repeated names are left out.
func appendBlock(b []byte, lines []build.Pair) []byte {
	slices.SortStableFunc(lines, func(a, b build.Pair) int {
		return cmp.Or(cmp.Compare(rank(a.Name), rank(b.Name)), strings.Compare(a.Name, b.Name))
	})
	last := ""
	for _, p := range lines {
		if p.Value == "" || p.Name == last {
			continue
		}
		last = p.Name
		b = append(b, p.Name...)
		b = append(b, ": "...)
		b = append(b, p.Value...)
		b = append(b, '\n')
	}
	return append(b, '\n')
}

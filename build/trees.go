package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Snapshot is one ebuild repository of a plan as a blob, so that a build reads
// the very ebuilds that the plan was made of, wherever it runs.
type Snapshot struct {
	Name   string `cbor:"name" json:"name"`
	Digest string `cbor:"digest" json:"digest"` // of its content, lower-case hex SHA-256
	CID    string `cbor:"cid" json:"cid"`       // of the archive
}

// TreeOf names the content of all repositories of a configuration together. The
// order of the list does not count.
func TreeOf(list []Snapshot) string {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Snapshot) int { return strings.Compare(a.Name, b.Name) })
	h := sha256.New()
	for _, s := range list {
		fmt.Fprintf(h, "%s=%s\n", OneLine(s.Name, 200), s.Digest)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ValidSnapshots reports whether each is well formed, they are sorted by name and
// together they are the tree of that digest. Name and digest become paths.
func ValidSnapshots(list []Snapshot, tree string) bool {
	for i, s := range list {
		if !ValidRepo(s.Name) || !Key(s.Digest).Valid() || s.CID == "" || len(s.CID) > 128 || i > 0 && list[i-1].Name >= s.Name {
			return false
		}
	}
	return len(list) <= MaxRevisions && (len(list) == 0 || TreeOf(list) == tree)
}

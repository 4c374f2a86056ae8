package claims

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/claims/wire"
)

// Buckets is over how many sums the board is compared between peers.
const Buckets = 1024

// entry is one record of the board with what was derived from it on arrival.
type entry struct {
	rec  wire.Opened
	body Body  // nil for an unknown type
	seen int64 // boot milliseconds at which this peer first saw this version
	item itemID
}

// itemID names one version of one record in an anti-entropy listing: eight
// bytes of the key's hash, eight of the record's.
type itemID [16]byte

func newEntry(o wire.Opened, body Body, seen int64) *entry {
	e := &entry{rec: o, body: body, seen: seen}
	k := sha256.Sum256([]byte(o.Key()))
	h := o.Hash()
	copy(e.item[:8], k[:8])
	copy(e.item[8:], h[:8])
	return e
}

// bucket of a key, from the first bytes of its hash.
func (id itemID) bucket() int { return int(binary.BigEndian.Uint16(id[:]) % Buckets) }

// board is the map from key to record with an incremental sum for each
// bucket. The sums cover the records' hashes; Beats are never among them.
type board struct {
	bucket [Buckets]map[string]*entry
	sums   [Buckets]uint64
	count  int
	// sum is the digest while it is known; 0 = to be computed.
	sum   uint64
	byWho map[string]int // records by author
}

func newBoard() *board { return &board{byWho: map[string]int{}} }

func bucketOf(key string) int {
	h := sha256.Sum256([]byte(key))
	return int(binary.BigEndian.Uint16(h[:]) % Buckets)
}

func (b *board) get(key string) *entry { return b.bucket[bucketOf(key)][key] }

// put stores e if it wins against what is there, and reports whether it did.
func (b *board) put(e *entry) bool {
	key := e.rec.Key()
	n := e.item.bucket()
	if old := b.bucket[n][key]; old != nil {
		if !e.rec.Wins(old.rec) {
			return false
		}
		b.drop(n, old)
	}
	if b.bucket[n] == nil {
		b.bucket[n] = map[string]*entry{}
	}
	b.bucket[n][key] = e
	b.sums[n] += sumOf(e.rec)
	b.sum = 0
	b.count++
	b.byWho[e.rec.Author()]++
	return true
}

func (b *board) remove(key string) bool {
	n := bucketOf(key)
	old := b.bucket[n][key]
	if old == nil {
		return false
	}
	b.drop(n, old)
	return true
}

func (b *board) drop(n int, e *entry) {
	delete(b.bucket[n], e.rec.Key())
	b.sums[n] -= sumOf(e.rec)
	b.sum = 0
	b.count--
	if b.byWho[e.rec.Author()]--; b.byWho[e.rec.Author()] == 0 {
		delete(b.byWho, e.rec.Author())
	}
}

func sumOf(o wire.Opened) uint64 {
	h := o.Hash()
	return binary.BigEndian.Uint64(h[:])
}

// digest is one number over all sums, carried in Beats. It is asked for with
// every Beat that arrives, and the board changes less often.
func (b *board) digest() uint64 {
	if b.sum != 0 {
		return b.sum
	}
	var buf [8]byte
	h := sha256.New()
	for _, s := range b.sums {
		binary.BigEndian.PutUint64(buf[:], s)
		h.Write(buf[:])
	}
	b.sum = binary.BigEndian.Uint64(h.Sum(nil))
	return b.sum
}

// sorted returns a bucket's entries by key, so that map order never shows.
func (b *board) sorted(n int) []*entry {
	out := make([]*entry, 0, len(b.bucket[n]))
	for _, e := range b.bucket[n] {
		out = append(out, e)
	}
	slices.SortFunc(out, func(x, y *entry) int { return strings.Compare(x.rec.Key(), y.rec.Key()) })
	return out
}

// all returns every entry, sorted by key.
func (b *board) all() []*entry {
	out := make([]*entry, 0, b.count)
	for n := range b.bucket {
		for _, e := range b.bucket[n] {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(x, y *entry) int { return strings.Compare(x.rec.Key(), y.rec.Key()) })
	return out
}

func compareIDs(a, b itemID) int { return bytes.Compare(a[:], b[:]) }

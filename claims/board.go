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

// keyPart is the part of an item's ID that the key alone decides.
const keyPart = 8

func newEntry(o wire.Opened, body Body, seen int64) *entry {
	e := &entry{rec: o, body: body, seen: seen, item: keyItem(o.Key())}
	h := o.Hash()
	copy(e.item[keyPart:], h[:])
	return e
}

// keyItem is the lowest ID that an item of a key can have.
func keyItem(key string) (id itemID) {
	h := sha256.Sum256([]byte(key))
	copy(id[:keyPart], h[:])
	return id
}

// bucket of a key, from the first bytes of its hash.
func (id itemID) bucket() int { return int(binary.BigEndian.Uint16(id[:]) % Buckets) }

// board is the map from key to record with an incremental sum for each
// bucket. The sums cover the records' hashes; Beats are never among them. A
// bucket (20 records of 20,000) is kept in the order of its items' IDs, so that
// a comparison with another peer's list sorts nothing.
type board struct {
	bucket  [Buckets][]*entry
	sums    [Buckets]uint64
	count   int
	bytes   int // of all records
	most    int // of bytes; see maxBoardBytes
	byWho   map[string]share
	changes uint64 // grows with every record that came
	summed  uint64 // the digest, unless stale
	stale   bool
}

// share is what one author has on the board.
type share struct{ records, bytes int }

func newBoard() *board { return &board{byWho: map[string]share{}, most: maxBoardBytes, stale: true} }

// full reports whether a record is more than all peers together may have.
func (b *board) full(o wire.Opened) bool { return b.bytes+len(o.Raw()) > b.most }

// room reports whether a record's author may have it on the board, too.
func (b *board) room(o wire.Opened) bool {
	s := b.byWho[o.Author()]
	if s.records < maxPerAuthor && s.bytes+len(o.Raw()) <= maxAuthorBytes && !b.full(o) {
		return true
	}
	old := b.get(o.Key())
	return old != nil && len(o.Raw()) <= len(old.rec.Raw())
}

// account adds a record to its author's share, or takes it off again.
func (b *board) account(o wire.Opened, sign int) {
	s := b.byWho[o.Author()]
	s.records, s.bytes = s.records+sign, s.bytes+sign*len(o.Raw())
	b.count, b.bytes = b.count+sign, b.bytes+sign*len(o.Raw())
	if b.byWho[o.Author()] = s; s.records == 0 {
		delete(b.byWho, o.Author())
	}
}

// find returns where a key's entry stands in its bucket, or would stand.
func (b *board) find(id itemID, key string) (bucket, at int, found bool) {
	bucket = id.bucket()
	list := b.bucket[bucket]
	at, _ = slices.BinarySearchFunc(list, id, func(e *entry, id itemID) int { return bytes.Compare(e.item[:keyPart], id[:keyPart]) })
	// Two keys whose hashes begin alike stand beside one another.
	for n := at; n < len(list) && bytes.Equal(list[n].item[:keyPart], id[:keyPart]); n++ {
		if list[n].rec.Key() == key {
			return bucket, n, true
		}
	}
	return bucket, at, false
}

func (b *board) get(key string) *entry {
	if n, at, found := b.find(keyItem(key), key); found {
		return b.bucket[n][at]
	}
	return nil
}

// item returns the entry with an ID, or nil.
func (b *board) item(id itemID) *entry {
	list := b.bucket[id.bucket()]
	if at, found := slices.BinarySearchFunc(list, id, compareItem); found {
		return list[at]
	}
	return nil
}

// put stores e if it wins against what is there, and reports whether it did.
func (b *board) put(e *entry) bool {
	n, at, found := b.find(e.item, e.rec.Key())
	if found {
		if !e.rec.Wins(b.bucket[n][at].rec) {
			return false
		}
		b.drop(n, at)
	}
	at, _ = slices.BinarySearchFunc(b.bucket[n], e.item, compareItem)
	b.bucket[n] = slices.Insert(b.bucket[n], at, e)
	b.sums[n] += sumOf(e.rec)
	b.stale = true
	b.changes++
	b.account(e.rec, 1)
	return true
}

func (b *board) remove(key string) bool {
	n, at, found := b.find(keyItem(key), key)
	if found {
		b.drop(n, at)
	}
	return found
}

func (b *board) drop(n, at int) {
	e := b.bucket[n][at]
	b.bucket[n] = slices.Delete(b.bucket[n], at, at+1)
	b.sums[n] -= sumOf(e.rec)
	b.stale = true
	b.account(e.rec, -1)
}

func sumOf(o wire.Opened) uint64 {
	h := o.Hash()
	return binary.BigEndian.Uint64(h[:])
}

// digest is one number over all sums, carried in Beats.
func (b *board) digest() uint64 {
	if !b.stale {
		return b.summed
	}
	var buf [8]byte
	h := sha256.New()
	for _, s := range b.sums {
		binary.BigEndian.PutUint64(buf[:], s)
		h.Write(buf[:])
	}
	b.summed, b.stale = binary.BigEndian.Uint64(h.Sum(nil)), false
	return b.summed
}

// all returns every entry, sorted by key.
func (b *board) all() []*entry {
	out := make([]*entry, 0, b.count)
	for n := range b.bucket {
		out = append(out, b.bucket[n]...)
	}
	slices.SortFunc(out, compareKeys)
	return out
}

func compareKeys(a, b *entry) int { return strings.Compare(a.rec.Key(), b.rec.Key()) }

func compareIDs(a, b itemID) int { return bytes.Compare(a[:], b[:]) }

func compareItem(e *entry, id itemID) int { return compareIDs(e.item, id) }

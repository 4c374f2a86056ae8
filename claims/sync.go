package claims

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/wire"
)

// Bounds of one message of the exchange.
const (
	pageItems    = 4_000     // 16 bytes each
	pageRecords  = 192 << 10 // bytes
	MaxSyncBytes = 512 << 10
)

// SyncMessage is one message of anti-entropy. The exchange is stateless for
// the one that answers:
//
//	A: Sums            -> B: Items of each differing bucket, in pages
//	A: Want + Records  -> B: Records
//
// so both ends have everything that either had. Records are encoded as they
// travel and their signatures are checked before Step sees them.
type SyncMessage struct {
	Sums    []uint64 `cbor:"s,omitempty"`
	Items   []Bucket `cbor:"i,omitempty"`
	Final   bool     `cbor:"f,omitempty"` // the last page of Items
	Want    [][]byte `cbor:"w,omitempty"` // item IDs
	Records [][]byte `cbor:"r,omitempty"`
}

// Bucket lists the versions in one bucket.
type Bucket struct {
	N   int      `cbor:"n"`
	IDs [][]byte `cbor:"d"`
}

// EncodeSync and DecodeSync are the wire form, bounded by MaxSyncBytes.
func EncodeSync(m SyncMessage) ([]byte, error) { return build.Marshal(m) }

// DecodeSync refuses what could not have come from EncodeSync.
func DecodeSync(b []byte) (SyncMessage, error) {
	var m SyncMessage
	if len(b) > MaxSyncBytes {
		return m, fmt.Errorf("%w: sync message of %d bytes", ErrInvalid, len(b))
	}
	if err := build.Unmarshal(b, &m); err != nil {
		return SyncMessage{}, fmt.Errorf("%w: sync message: %v", ErrInvalid, err)
	}
	if len(m.Sums) != 0 && len(m.Sums) != Buckets {
		return SyncMessage{}, fmt.Errorf("%w: %d bucket sums", ErrInvalid, len(m.Sums))
	}
	for _, bk := range m.Items {
		if bk.N < 0 || bk.N >= Buckets {
			return SyncMessage{}, fmt.Errorf("%w: bucket %d", ErrInvalid, bk.N)
		}
		for _, id := range bk.IDs {
			if len(id) != len(itemID{}) {
				return SyncMessage{}, fmt.Errorf("%w: item of %d bytes", ErrInvalid, len(id))
			}
		}
	}
	for _, id := range m.Want {
		if len(id) != len(itemID{}) {
			return SyncMessage{}, fmt.Errorf("%w: item of %d bytes", ErrInvalid, len(id))
		}
	}
	return m, nil
}

// syncState says with whom this peer compares boards, and when next.
type syncState struct {
	with    string // the comparison under way; "" = none
	since   int64
	wanted  int // items asked for in it
	next    int64
	lastHit map[string]int64
	queue   string // a peer whose digest differs
}

func (s *syncState) forget(peer string) {
	if s.with == peer {
		s.with = ""
	}
	if s.queue == peer {
		s.queue = ""
	}
}

// differs notes that a peer's digest is not ours.
func (s *syncState) differs(now Now, peer string) {
	if s.queue == "" {
		s.queue = peer
		s.next = min(s.next, max(now.Boot, s.since+syncOnBeat))
	}
}

// nextSync is when dueSync wants to be asked again. It is never a time at which
// dueSync would do nothing: that would wake the peer every millisecond.
func (r *Replica) nextSync(now Now) int64 {
	s := &r.sync
	switch {
	case len(r.connected) == 0:
		return now.Boot + syncEvery // a connection is an event of its own
	case s.with != "":
		return max(s.next, s.since+aloneMillis)
	}
	return s.next
}

// dueSync starts a comparison: with the peer whose Beat differs, else with a
// random one every 30 s. One at a time, one per 2 s; an answer that does not
// come within 10 s is given up.
func (r *Replica) dueSync(now Now) {
	s := &r.sync
	if s.with != "" && now.Boot-s.since < aloneMillis {
		return
	}
	if now.Boot < s.next || len(r.connected) == 0 {
		return
	}
	peer := s.queue
	if !r.connected[peer] {
		ids := make([]string, 0, len(r.connected))
		for id := range r.connected {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		peer = ids[r.cfg.Rand.IntN(len(ids))]
	}
	r.startSync(now, peer)
}

func (r *Replica) startSync(now Now, peer string) {
	s := &r.sync
	s.with, s.since, s.wanted, s.queue = peer, now.Boot, 0, ""
	s.next = now.Boot + syncEvery
	r.emit(Send{peer, SyncMessage{Sums: slices.Clone(r.board.sums[:])}})
}

// onConnect compares at once and passes on the newest Beats.
func (r *Replica) onConnect(now Now, peer string) {
	r.connected[peer] = true
	r.sendRecords(peer, r.beats())
	if r.sync.with == "" || r.sync.with == peer {
		r.startSync(now, peer)
	} else {
		r.sync.differs(now, peer)
	}
	r.nextBeat = min(r.nextBeat, now.Boot+50)
}

func (r *Replica) onSync(now Now, ev Synced) {
	m := ev.Msg
	switch {
	case len(m.Sums) == Buckets:
		r.answerSums(ev.From, m.Sums)
	case len(m.Want) > 0:
		r.answerWant(ev.From, m.Want)
	}
	if len(m.Items) > 0 || m.Final {
		r.onItems(now, ev.From, m)
	}
}

// answerSums lists every bucket whose sum differs, in pages.
func (r *Replica) answerSums(to string, sums []uint64) {
	var page []Bucket
	n := 0
	for b := range Buckets {
		if sums[b] == r.board.sums[b] {
			continue
		}
		bk := Bucket{N: b}
		for _, e := range r.board.sorted(b) {
			bk.IDs = append(bk.IDs, e.item[:])
		}
		if n > 0 && n+len(bk.IDs) > pageItems {
			r.emit(Send{to, SyncMessage{Items: page}})
			page, n = nil, 0
		}
		page = append(page, bk)
		n += len(bk.IDs) + 1
	}
	r.emit(Send{to, SyncMessage{Items: page, Final: true}})
}

// onItems asks for what the other has and gives what it lacks.
func (r *Replica) onItems(now Now, from string, m SyncMessage) {
	var want [][]byte
	var give []wire.Opened
	for _, bk := range m.Items {
		theirs := make([]itemID, len(bk.IDs))
		for i, id := range bk.IDs {
			theirs[i] = itemID(id)
		}
		slices.SortFunc(theirs, compareIDs)
		mine := make(map[itemID]bool)
		for _, e := range r.board.sorted(bk.N) {
			mine[e.item] = true
			if _, found := slices.BinarySearchFunc(theirs, e.item, compareIDs); !found {
				give = append(give, e.rec)
			}
		}
		for _, id := range theirs {
			if !mine[id] {
				want = append(want, slices.Clone(id[:]))
			}
		}
	}
	for part := range slices.Chunk(want, pageItems) {
		r.emit(Send{from, SyncMessage{Want: part}})
	}
	r.sendRecords(from, give)
	if from != r.sync.with {
		return
	}
	r.sync.wanted += len(want)
	if m.Final {
		r.sync.with = ""
		if r.sync.wanted == 0 {
			if !r.synced {
				r.emit(Changed{})
			}
			r.synced = true // nothing that the other has is missing here
		} else {
			r.sync.queue = from // look once more when it has arrived
			r.sync.next = now.Boot + syncOnBeat/2
		}
	}
}

func (r *Replica) answerWant(to string, want [][]byte) {
	asked := make(map[itemID]bool, len(want))
	touched := make(map[int]bool)
	for _, id := range want {
		asked[itemID(id)] = true
		touched[itemID(id).bucket()] = true
	}
	var recs []wire.Opened
	for n := range touched {
		for _, e := range r.board.bucket[n] {
			if asked[e.item] {
				recs = append(recs, e.rec)
			}
		}
	}
	slices.SortFunc(recs, func(a, b wire.Opened) int { return cmp.Compare(a.Key(), b.Key()) })
	r.sendRecords(to, recs)
}

// sendRecords sends records in messages of at most pageRecords bytes.
func (r *Replica) sendRecords(to string, recs []wire.Opened) {
	var page [][]byte
	n := 0
	for _, o := range recs {
		if n > 0 && n+len(o.Raw()) > pageRecords {
			r.emit(Send{to, SyncMessage{Records: page}})
			page, n = nil, 0
		}
		page = append(page, o.Raw())
		n += len(o.Raw())
	}
	if n > 0 {
		r.emit(Send{to, SyncMessage{Records: page}})
	}
}

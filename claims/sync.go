package claims

import (
	"fmt"
	"slices"

	"github.com/build-swarm/swarm/build"
)

// syncMost is how long one comparison may take, in milliseconds.
const syncMost = 5 * 60_000

// Bounds of one message of the exchange.
const (
	pageItems    = 4_000     // 16 bytes each
	pageRecords  = 192 << 10 // bytes
	MaxSyncBytes = 512 << 10
)

// SyncMessage is one message of anti-entropy. Each peer pulls what it lacks;
// the one that answers keeps nothing:
//
//	A: Sums -> B: the Records of each bucket that is empty at A, and Items of
//	           every other that differs, in pages; the last is Final
//	A: Want -> B: Records; the last message is Done
//
// B, which sees the sums differ, compares in its turn, so that soon both ends
// have everything that either had. Nothing is pushed unasked: two peers that
// compare at once send no record twice. Records are encoded as they travel and
// their signatures are checked before Step sees them.
type SyncMessage struct {
	Sums    []uint64 `cbor:"s,omitempty"`
	Items   []Bucket `cbor:"i,omitempty"`
	Final   bool     `cbor:"f,omitempty"` // the last page of Items
	Want    [][]byte `cbor:"w,omitempty"` // item IDs
	Records [][]byte `cbor:"r,omitempty"`
	Done    bool     `cbor:"d,omitempty"` // the last Records of one Want
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
	if len(m.Want) > pageItems {
		return SyncMessage{}, fmt.Errorf("%w: %d items wanted at once", ErrInvalid, len(m.Want))
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
	began   int64
	heard   int64  // when it last brought something
	listed  bool   // the other has listed everything
	asked   int    // items asked for
	wants   int    // Want messages not yet answered
	before  uint64 // board.changes when it began
	changes uint64 // and when it was last heard
	next    int64
	queue   []string // connected peers whose boards differ, oldest first
	// answered is when each connected peer's sums were last answered: to list
	// a board costs more than to ask for it.
	answered map[string]int64
}

func (s *syncState) forget(peer string) {
	if s.with == peer {
		s.with = ""
	}
	delete(s.answered, peer)
	s.queue = slices.DeleteFunc(s.queue, func(p string) bool { return p == peer })
}

// differs notes that a peer's board is not ours. A peer that is not connected
// is reason enough to compare with one that is. A quiet peer compares in its time.
func (r *Replica) differs(now Now, peer string) {
	s := &r.sync
	if r.connected[peer] && !slices.Contains(s.queue, peer) {
		s.queue = append(s.queue, peer)
	}
	if !r.report.Quiet {
		s.next = min(s.next, max(now.Boot, s.began+syncOnBeat))
	}
}

// under reports whether a comparison is under way. One that brings nothing for
// 10 s is given up, and one that takes minutes starts afresh after others had
// their turn: nobody can keep this peer to itself.
func (s *syncState) under(now Now) bool {
	return s.with != "" && now.Boot < s.givenUp()
}

func (s *syncState) givenUp() int64 { return min(s.heard+aloneMillis, s.began+syncMost) }

// nextSync is when dueSync wants to be asked again. It is never a time at which
// dueSync would do nothing: that would wake the peer every millisecond.
func (r *Replica) nextSync(now Now) int64 {
	s := &r.sync
	switch {
	case len(r.connected) == 0:
		return now.Boot + syncEvery // a connection is an event of its own
	case s.under(now):
		return max(s.next, s.givenUp())
	}
	return s.next
}

// dueSync starts a comparison: with a peer that is known to differ, else with
// a random one every 30 s. One at a time, one per 2 s. A quiet peer is left alone.
func (r *Replica) dueSync(now Now) {
	s := &r.sync
	if s.under(now) || now.Boot < s.next || len(r.connected) == 0 {
		return
	}
	if len(s.queue) > 0 {
		r.startSync(now, s.queue[0])
		return
	}
	ids := make([]string, 0, len(r.connected))
	for id := range r.connected {
		if !r.quiet(id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		s.next = now.Boot + syncEvery
		return
	}
	slices.Sort(ids)
	r.startSync(now, ids[r.cfg.Rand.IntN(len(ids))])
}

// quiet reports whether a peer hears nothing but by comparisons.
func (r *Replica) quiet(peer string) bool {
	p := r.peers[peer]
	return p != nil && p.beat.Quiet
}

func (r *Replica) startSync(now Now, peer string) {
	s := &r.sync
	s.queue = slices.DeleteFunc(s.queue, func(p string) bool { return p == peer })
	s.with, s.began, s.heard = peer, now.Boot, now.Boot
	s.before, s.changes = r.board.changes, r.board.changes
	s.listed, s.asked, s.wants = false, 0, 0
	switch {
	case r.report.Quiet:
		s.next = now.Boot + QuietMillis + syncOnBeat // the Beat comes first, and takes this along
	case len(s.queue) > 0:
		s.next = now.Boot + syncOnBeat
	default:
		s.next = now.Boot + syncEvery
	}
	m := SyncMessage{Sums: slices.Clone(r.board.sums[:])}
	if me := r.peers[r.self]; me != nil && !me.rec.IsZero() {
		m.Records = [][]byte{me.rec.Raw()} // its newest Beat, which gossip may have lost
	}
	r.emit(Send{peer, m})
}

// onConnect compares at once and passes on the newest Beats.
func (r *Replica) onConnect(now Now, peer string) {
	r.connected[peer] = true
	r.sendRecords(peer, r.beats(), false)
	if r.sync.under(now) && r.sync.with != peer {
		r.differs(now, peer)
	} else {
		r.startSync(now, peer)
	}
	r.nextBeat = min(r.nextBeat, now.Boot+50)
}

func (r *Replica) onSync(now Now, ev Synced) {
	m, s := ev.Msg, &r.sync
	switch {
	case len(m.Sums) == Buckets:
		r.answerSums(now, ev.From, m.Sums)
	case len(m.Want) > 0:
		r.answerWant(ev.From, m.Want)
	}
	if ev.From != s.with {
		return // an answer that was given up
	}
	if s.changes != r.board.changes {
		s.heard, s.changes = now.Boot, r.board.changes
	}
	r.onItems(ev.From, m.Items)
	s.listed = s.listed || m.Final
	if m.Done && s.wants > 0 {
		s.wants--
	}
	if s.listed && s.wants == 0 {
		r.endSync(now)
	}
}

// endSync ends a comparison. While comparisons bring something, the next comes
// soon, with whomever: so news travels a link every 2 s though gossip is off,
// and not one every 30 s. What was asked for and refused here is no reason to
// ask again.
func (r *Replica) endSync(now Now) {
	s := &r.sync
	s.with = ""
	if s.asked > 0 && s.before != r.board.changes && !r.report.Quiet {
		s.next = min(s.next, max(now.Boot, s.began+syncOnBeat))
		return
	}
	if !r.synced {
		r.emit(Changed{})
	}
	r.synced = true // nothing that the other has is missing here
}

// answerSums sends the records of every bucket that is empty at the other and
// lists every other bucket whose sum differs, in pages. No honest peer asks
// twice within half a second.
func (r *Replica) answerSums(now Now, to string, sums []uint64) {
	if at, ok := r.sync.answered[to]; ok && now.Boot-at < syncOnBeat/4 {
		return
	}
	r.sync.answered[to] = now.Boot
	var page []Bucket
	var give []*entry
	n, differ := 0, false
	for b := range Buckets {
		if sums[b] == r.board.sums[b] {
			continue
		}
		differ = true
		if sums[b] == 0 {
			give = append(give, r.board.bucket[b]...)
			continue
		}
		bk := Bucket{N: b}
		for _, e := range r.board.bucket[b] {
			bk.IDs = append(bk.IDs, e.item[:])
		}
		if n > 0 && n+len(bk.IDs) > pageItems {
			r.emit(Send{to, SyncMessage{Items: page}})
			page, n = nil, 0
		}
		page = append(page, bk)
		n += len(bk.IDs) + 1
	}
	// A journal is ordered by key: what comes in that order is written once, what
	// comes in another rewrites most of the file every time.
	slices.SortFunc(give, compareKeys)
	r.sendEntries(to, give, false)
	last := SyncMessage{Items: page, Final: true}
	if r.quiet(to) { // it hears nobody's Beats otherwise, and each message wakes it up
		last.Records = firstOf(r.beats(), pageRecords)
	}
	r.emit(Send{to, last})
	if differ {
		r.differs(now, to)
	}
}

// firstOf returns as many of some records as room bytes take.
func firstOf(raws [][]byte, room int) [][]byte {
	for i, raw := range raws {
		if room -= len(raw); room < 0 {
			return raws[:i]
		}
	}
	return raws
}

// onItems asks for what the other has and this peer lacks.
func (r *Replica) onItems(from string, items []Bucket) {
	var want [][]byte
	for _, bk := range items {
		for _, id := range bk.IDs {
			if r.board.item(itemID(id)) == nil {
				want = append(want, id)
			}
		}
	}
	r.sync.asked += len(want)
	for part := range slices.Chunk(want, pageItems) {
		r.sync.wants++
		r.emit(Send{from, SyncMessage{Want: part}})
	}
}

// answerWant sends the items that are asked for and still here, each once.
func (r *Replica) answerWant(to string, want [][]byte) {
	ids := make([]itemID, len(want))
	for i, id := range want {
		ids[i] = itemID(id)
	}
	slices.SortFunc(ids, compareIDs)
	var give []*entry
	for _, id := range slices.Compact(ids) {
		if e := r.board.item(id); e != nil {
			give = append(give, e)
		}
	}
	slices.SortFunc(give, compareKeys)
	r.sendEntries(to, give, true)
}

func (r *Replica) sendEntries(to string, give []*entry, answer bool) {
	raws := make([][]byte, len(give))
	for i, e := range give {
		raws[i] = e.rec.Raw()
	}
	r.sendRecords(to, raws, answer)
}

// sendRecords sends records in messages of about pageRecords bytes, the last of
// them Done if they answer a Want.
func (r *Replica) sendRecords(to string, raws [][]byte, answer bool) {
	n, from := 0, 0
	for i, raw := range raws {
		if n > 0 && n+len(raw) > pageRecords {
			r.emit(Send{to, SyncMessage{Records: raws[from:i:i]}})
			n, from = 0, i
		}
		n += len(raw)
	}
	if n > 0 || answer {
		r.emit(Send{to, SyncMessage{Records: raws[from:], Done: answer}})
	}
}

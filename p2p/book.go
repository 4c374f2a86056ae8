package p2p

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// maxKnown bounds the peers of a book: a swarm has at most 100.
	maxKnown = 512
	// keepSeen is how long a peer is remembered that was once connected.
	keepSeen = 60 * 24 * time.Hour
	// keepTold is how long a peer is tried that never was.
	keepTold = time.Hour
	// firstRetry doubles with every failure up to lastRetry; for a peer that is
	// neither static nor was here within recently, up to lazyRetry.
	firstRetry = time.Second
	lastRetry  = time.Minute
	lazyRetry  = 5 * time.Minute
	recently   = time.Hour
	// maxBookFile bounds the file, in bytes: 512 peers with 8 addresses are 150 KB.
	maxBookFile = 1 << 20
)

// book is what a host knows about where peers are, and when to try them next. Its
// methods take the time and are safe for concurrent use. It knows nothing of the
// host itself, and not who is connected.
type book struct {
	self peer.ID

	mu    sync.Mutex
	peers map[peer.ID]*entry
	dirty bool // differs from the file in what the file holds
	// changed has a word for the one that writes the file whenever dirty was set.
	changed chan struct{}
}

type entry struct {
	static []ma.Multiaddr // configured: never dropped, names allowed
	addrs  []ma.Multiaddr // dialable, newest first
	seen   time.Time      // last known to be connected; zero if never
	told   time.Time      // last heard of

	rests   bool // it said so: it dials whom it wants
	fails   int
	next    time.Time // not dialled before
	dialing bool
	problem error     // of the last attempt, explained
	since   time.Time // of the first of the failures in a row
}

func newBook(self peer.ID) *book {
	return &book{self: self, peers: map[peer.ID]*entry{}, changed: make(chan struct{}, 1)}
}

// touch notes, with the book locked, that the file is no longer right.
func (b *book) touch() {
	b.dirty = true
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// addStatic notes a configured peer.
func (b *book) addStatic(info peer.AddrInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if info.ID == b.self {
		return // one list of static peers for all machines is fine
	}
	e := b.entry(info.ID)
	e.static = mergeAddrs(info.Addrs, e.static)
}

func (b *book) entry(id peer.ID) *entry {
	if b.peers[id] == nil {
		b.peers[id] = &entry{}
	}
	return b.peers[id]
}

// learn notes where a peer is said to be. fresh says that it was heard of itself
// at this moment (mDNS), so that it is worth a dial at once. The result says
// whether there is something new to try.
func (b *book) learn(info peer.AddrInfo, fresh bool, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	addrs := Dialable(info.Addrs)
	if info.ID == b.self || len(addrs) == 0 && fresh {
		return false
	}
	if b.peers[info.ID] == nil && len(b.peers) >= maxKnown {
		b.forget(now)
		if len(b.peers) >= maxKnown && !b.evict() {
			return false
		}
	}
	e, known := b.peers[info.ID], b.peers[info.ID] != nil
	if !known {
		e = b.entry(info.ID)
	}
	e.told = now
	isNew := !known || slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return !ma.Contains(e.addrs, a) && !ma.Contains(e.static, a) })
	if isNew {
		// Behind those that were good once: anybody can say anything.
		e.addrs = mergeAddrs(e.addrs[:min(len(e.addrs), maxAddrs/2)], mergeAddrs(addrs, e.addrs))
	}
	if isNew || fresh && !e.rests { // one that rests is known to be there
		e.next = now
		return true
	}
	return false
}

// connected notes that a peer is there now. addrs, what it listens on, may be nil
// when that is not known (yet).
func (b *book) connected(id peer.ID, addrs []ma.Multiaddr, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id == b.self {
		return
	}
	e := b.entry(id)
	merged := mergeAddrs(Dialable(addrs), e.addrs)
	if !slices.EqualFunc(merged, e.addrs, ma.Multiaddr.Equal) || now.Sub(e.seen) > recently {
		b.touch()
	}
	e.addrs, e.seen, e.fails, e.problem, e.since = merged, now, 0, nil, time.Time{}
}

// left notes that a peer's last connection is gone.
func (b *book) left(id peer.ID, now time.Time, jitter func(time.Duration) time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.peers[id]; e != nil {
		e.seen, e.fails = now, 0
		e.next = now.Add(jitter(firstRetry / 2)) // a restart takes a moment, and both sides may dial
		if e.rests {
			e.next = now.Add(jitter(restMost))
		}
		b.touch()
	}
}

// rests notes whether a peer rests.
func (b *book) rests(id peer.ID, on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.peers[id]; e != nil {
		e.rests = on
	}
}

// awake makes everybody due: this host comes back from a rest.
func (b *book) awake(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.peers {
		e.next, e.fails = now, 0
	}
}

// failed notes an attempt that came to nothing.
func (b *book) failed(id peer.ID, err error, now time.Time, jitter func(time.Duration) time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[id]
	if e == nil {
		return
	}
	e.dialing = false
	if e.problem == nil {
		e.since = now
	}
	e.problem = err
	limit := lazyRetry
	if len(e.static) > 0 || now.Sub(e.seen) < recently {
		limit = lastRetry
	}
	e.next = now.Add(jitter(min(limit, firstRetry<<min(e.fails, 16))))
	e.fails++
}

// succeeded notes an attempt that found the peer.
func (b *book) succeeded(id peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.peers[id]; e != nil {
		e.dialing = false
	}
}

// due returns whom to dial now, and marks them as being dialled until failed or
// succeeded, at most n of them; then the time at which to ask again (zero: not
// before something changes). skip names those that need no dial.
func (b *book) due(now time.Time, n int, skip func(id peer.ID, static bool) bool) ([]peer.AddrInfo, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(now)
	var out []peer.AddrInfo
	var again time.Time
	for id, e := range b.peers {
		switch {
		case e.dialing || skip(id, len(e.static) > 0):
		case now.Before(e.next):
			if again.IsZero() || e.next.Before(again) {
				again = e.next
			}
		case len(out) < n: // the rest: when one of these has ended
			e.dialing = true
			out = append(out, peer.AddrInfo{ID: id, Addrs: slices.Concat(e.static, e.addrs)})
		}
	}
	return out, again
}

// forget drops peers that were not heard of for too long; b is locked.
func (b *book) forget(now time.Time) {
	for id, e := range b.peers {
		gone := now.Sub(e.seen) > keepSeen && now.Sub(e.told) > keepTold
		if gone && len(e.static) == 0 && !e.dialing {
			delete(b.peers, id)
		}
	}
}

// evict makes room for one peer: the one that failed most often of those that were
// only heard of. Whoever shouts many names on a LAN pushes out his own. b is locked.
func (b *book) evict() bool {
	var worst peer.ID
	for id, e := range b.peers {
		only := e.seen.IsZero() && len(e.static) == 0 && !e.dialing && e.fails > 0
		if only && (worst == "" || e.fails > b.peers[worst].fails) {
			worst = id
		}
	}
	delete(b.peers, worst)
	return worst != ""
}

// get copies what is known of a peer.
func (b *book) get(id peer.ID) (entry, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.peers[id]; e != nil {
		return *e, true
	}
	return entry{}, false
}

// all lists the known peers, sorted by ID.
func (b *book) all() []peer.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]peer.ID, 0, len(b.peers))
	for id := range b.peers {
		out = append(out, id)
	}
	slices.SortFunc(out, func(x, y peer.ID) int { return bytes.Compare([]byte(x), []byte(y)) })
	return out
}

// bookFile is the file: peers that were connected once, last seen first.
type bookFile struct {
	Version int        `json:"version"`
	Swarm   string     `json:"swarm"` // fingerprint: the book of another swarm is none
	Peers   []bookPeer `json:"peers"`
}

type bookPeer struct {
	ID    string   `json:"id"`
	Addrs []string `json:"addrs"`
	Seen  int64    `json:"seen"` // unix seconds
}

var errBook = errors.New("not an address book of this swarm")

// load takes over what a file holds. Nothing there is no error; a damaged file is
// one, and changes nothing.
func (b *book) load(path, swarm string, now time.Time) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxBookFile+1))
	if err != nil {
		return fmt.Errorf("read the address book %s: %w", path, err)
	}
	if err := b.parse(text, swarm, now); err != nil {
		return fmt.Errorf("read the address book %s: %w", path, err)
	}
	return nil
}

func (b *book) parse(text []byte, swarm string, now time.Time) error {
	var file bookFile
	if len(text) > maxBookFile {
		return ErrTooLarge
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return fmt.Errorf("%w: %w", errBook, err)
	}
	if file.Version != 1 || file.Swarm != swarm {
		return fmt.Errorf("%w: version %d, swarm %.32q", errBook, file.Version, file.Swarm)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range file.Peers[:min(len(file.Peers), maxKnown)] {
		id, err := peer.Decode(p.ID)
		if err != nil || id == b.self {
			continue
		}
		var addrs []ma.Multiaddr
		for _, s := range p.Addrs[:min(len(p.Addrs), maxAddrs)] {
			if a, err := ma.NewMultiaddr(s); err == nil {
				addrs = append(addrs, a)
			}
		}
		if addrs = Dialable(addrs); len(addrs) == 0 {
			continue
		}
		e := b.entry(id)
		e.addrs = mergeAddrs(e.addrs, addrs)
		if seen := time.Unix(p.Seen, 0); seen.Before(now) { // from the future: the clock was wrong
			e.seen = seen
		} else {
			e.seen = now
		}
	}
	return nil
}

// save writes the book if it changed: to a new file, renamed over the old one.
func (b *book) save(path, swarm string) error {
	text, err := b.marshal(swarm)
	if err != nil || text == nil {
		return err
	}
	if err := replaceFile(path, text); err != nil {
		b.mu.Lock()
		b.touch()
		b.mu.Unlock()
		return fmt.Errorf("save the address book: %w", err)
	}
	return nil
}

// marshal returns nil when nothing changed since the last call.
func (b *book) marshal(swarm string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.dirty {
		return nil, nil
	}
	b.dirty = false
	file := bookFile{Version: 1, Swarm: swarm, Peers: []bookPeer{}}
	for id, e := range b.peers {
		if !e.seen.IsZero() && len(e.addrs) > 0 {
			file.Peers = append(file.Peers, bookPeer{ID: id.String(), Addrs: addrStrings(e.addrs), Seen: e.seen.Unix()})
		}
	}
	slices.SortFunc(file.Peers, func(x, y bookPeer) int {
		if x.Seen != y.Seen {
			return int(y.Seen - x.Seen)
		}
		return bytes.Compare([]byte(x.ID), []byte(y.ID))
	})
	return json.MarshalIndent(file, "", "  ")
}

// replaceFile writes path durably and at once: whole, or as it was before.
func replaceFile(path string, b []byte) error {
	tmp, err := writeTemp(filepath.Dir(path), b)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

package claims

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims/hlc"
)

// Result is one outcome with who reported it.
type Result struct {
	build.Outcome
	Peer  string
	Stamp hlc.Time

	digest digest32 // of the artifact, if it is good and
	named  bool     // its CID can be read
}

// roundState is a round with its plan, where that is known.
type roundState struct {
	round build.Round
	stamp hlc.Time
	plan  *build.Plan
}

// digest32 is a blob's BLAKE3 digest, the form in which holdings travel.
type digest32 [32]byte

// index is what is derived from the board record by record. It answers in
// constant time what would else be a scan.
type index struct {
	rounds  map[string]*roundState
	keys    map[build.Key]*keyState
	results map[build.Key][]Result   // sorted: good first, then oldest first
	names   map[digest32][]build.Key // keys whose good outcomes name a blob
	learned map[string]*history      // by category/name
	// deviation is what again found, or 0.
	deviation float64
	holders   map[digest32][]string    // sorted
	shards    map[string][]digest32    // by record key, what the shard listed
	lists     map[string][]string      // by peer, the record keys of its shards
	orders    map[string]directive     // by record key
	targets   map[string]*build.Target // that are there, by name
	decline   map[build.Key]map[string]Decline
	alerts    map[string]Alert // by cause
	dropped   []string         // keys that left the board, for the journal

	ready     []*keyState // candidates in the order of the schedule
	undone    int         // wanted jobs that can still come to be built
	unsorted  bool        // ready has to be made anew
	rewant    bool        // rounds or their urgency changed
	relearn   bool        // estimates changed, and with them ranks
	riseAt    int64       // wall time at which a background round rises; 0 = none
	recheckAt int64       // boot
	touched   map[build.Key]bool
	awayKeys  map[build.Key]*keyState
	authored  map[string][]build.Key // keys of good outcomes by who reported them
	failing   map[build.Key]bool     // keys with an outcome that may count against the package
}

type directive struct {
	Directive
	author string
	stamp  hlc.Time
}

func newIndex() *index {
	return &index{
		rounds: map[string]*roundState{}, keys: map[build.Key]*keyState{}, results: map[build.Key][]Result{},
		names: map[digest32][]build.Key{}, learned: map[string]*history{}, touched: map[build.Key]bool{}, awayKeys: map[build.Key]*keyState{},
		authored: map[string][]build.Key{}, failing: map[build.Key]bool{},
		holders: map[digest32][]string{}, shards: map[string][]digest32{}, lists: map[string][]string{},
		targets: map[string]*build.Target{}, orders: map[string]directive{}, decline: map[build.Key]map[string]Decline{}, alerts: map[string]Alert{},
	}
}

// add takes in an entry that the board has just accepted.
func (x *index) add(e *entry) {
	stamp := hlc.Time(e.rec.Stamp())
	switch b := e.body.(type) {
	case roundBody:
		x.addRound(b.Round, stamp)
	case outcomeBody:
		res := Result{Outcome: b.Outcome, Peer: e.rec.Author(), Stamp: stamp}
		if b.Class == build.Good {
			res.digest, res.named = digestOf(b.Artifact.CID)
		}
		rs := append(x.results[b.Key], res)
		slices.SortFunc(rs, func(p, q Result) int {
			if g := cmp.Compare(rankClass(p.Class), rankClass(q.Class)); g != 0 {
				return g
			}
			if c := cmp.Compare(p.Stamp, q.Stamp); c != 0 {
				return c
			}
			return cmp.Compare(p.Peer, q.Peer)
		})
		x.results[b.Key] = rs
		x.touched[b.Key] = true
		if b.Class == build.BadPackage {
			x.failing[b.Key] = true
		}
		if b.Class == build.BadMachine && b.ShortMiB > 0 {
			x.learnShort(b.Outcome)
		}
		if b.Class == build.Good {
			x.authored[e.rec.Author()] = append(x.authored[e.rec.Author()], b.Key)
			x.learn(b.Outcome)
			if res.named && !slices.Contains(x.names[res.digest], b.Key) {
				x.names[res.digest] = append(x.names[res.digest], b.Key)
			}
		}
	case Claim:
		x.state(b.Key).claim = e
	case Holdings:
		x.addShard(e.rec.Key(), e.rec.Author(), b)
	case Directive:
		x.orders[e.rec.Key()] = directive{b, e.rec.Author(), stamp}
		x.rewant = true
		for k := range x.results {
			x.touched[k] = true
		}
	case Alert:
		x.alerts[b.Cause] = b
	case targetBody:
		delete(x.targets, b.Name)
		if b.State == build.TargetLive {
			x.targets[b.Name] = &b.Target
		}
		for k := range x.failing { // who fits may be others now
			x.touched[k] = true
		}
	case Decline:
		if x.decline[b.Key] == nil {
			x.decline[b.Key] = map[string]Decline{}
		}
		x.decline[b.Key][b.Peer] = b
	}
}

func rankClass(c build.Class) int {
	if c == build.Good {
		return 0
	}
	return 1
}

func (x *index) addRound(r build.Round, stamp hlc.Time) {
	old := x.rounds[r.ID]
	rs := &roundState{round: r, stamp: stamp}
	if old != nil {
		rs.plan = old.plan
	}
	if r.Plan != nil {
		rs.plan = r.Plan
	}
	x.rounds[r.ID] = rs
	x.rewant = true
	if old == nil || old.plan == nil {
		x.listJobs(rs)
	}
}

func (x *index) planLoaded(id string) bool {
	rs := x.rounds[id]
	return rs != nil && rs.plan != nil
}

func (x *index) loadPlan(id string, p *build.Plan) {
	if rs := x.rounds[id]; rs != nil && rs.plan == nil && p != nil {
		rs.plan = p
		x.listJobs(rs)
	}
}

func (x *index) listJobs(rs *roundState) {
	if rs.plan == nil {
		return
	}
	x.rewant = true
	for i := range rs.plan.Jobs {
		j := &rs.plan.Jobs[i]
		ks := x.state(j.Key)
		x.touched[j.Key] = true
		if n, found := slices.BinarySearch(ks.rounds, rs.round.ID); !found {
			ks.rounds = slices.Insert(ks.rounds, n, rs.round.ID)
			ks.jobs = slices.Insert(ks.jobs, n, j)
		}
		if ks.job == nil {
			x.adopt(ks, rs, j)
		}
	}
}

// adopt makes a key's job the one that a round lists.
func (x *index) adopt(ks *keyState, rs *roundState, j *build.Job) {
	old := ks.job
	ks.job, ks.from, ks.target = j, rs.round.ID, rs.plan.Target
	ks.ground = Ground{Target: rs.plan.Target, Bundle: rs.plan.Bundle, Base: rs.plan.Base, Tree: rs.plan.Tree, Trees: rs.plan.Trees}
	if old != nil {
		if slices.Equal(old.Before(), j.Before()) {
			return
		}
		x.unlink(ks)
	}
	x.link(ks)
}

// newer reports whether of two rounds with a job a is the one to build it for:
// the last that was asked for.
func newer(a, b *roundState) bool {
	return cmp.Or(cmp.Compare(a.round.Created, b.round.Created), cmp.Compare(a.round.ID, b.round.ID)) > 0
}

// addShard replaces a peer's list of blobs. Lists are long and change by a few
// entries, so only those that differ are looked at.
func (x *index) addShard(key, author string, h Holdings) {
	old, known := x.shards[key]
	if !known {
		x.lists[author] = append(x.lists[author], key)
	}
	list := make([]digest32, len(h.CIDs))
	for i, c := range h.CIDs {
		list[i] = digest32(c)
	}
	if !slices.IsSortedFunc(list, compareDigests) {
		slices.SortFunc(list, compareDigests) // another peer's word
	}
	list = slices.Compact(list)
	n := 0
	for _, d := range list {
		for n < len(old) && compareDigests(old[n], d) < 0 {
			x.dropHolder(old[n], author)
			n++
		}
		if n < len(old) && old[n] == d {
			n++
			continue
		}
		x.touch(d)
		if at, found := slices.BinarySearch(x.holders[d], author); !found {
			x.holders[d] = slices.Insert(x.holders[d], at, author)
		}
	}
	for ; n < len(old); n++ {
		x.dropHolder(old[n], author)
	}
	x.shards[key] = list
}

func compareDigests(a, b digest32) int { return bytes.Compare(a[:], b[:]) }

func (x *index) dropHolder(d digest32, author string) {
	x.touch(d)
	hs := x.holders[d]
	at, found := slices.BinarySearch(hs, author)
	switch {
	case found && len(hs) == 1:
		delete(x.holders, d)
	case found:
		x.holders[d] = slices.Delete(hs, at, at+1)
	}
}

// touchPeer touches every key whose artifact a peer holds or has made: what
// can change when the peer comes or goes. It is far less than all keys, and in
// a large swarm somebody comes or goes all the time.
func (x *index) touchPeer(peer string) {
	for _, key := range x.lists[peer] {
		for _, d := range x.shards[key] {
			x.touch(d)
		}
	}
	for _, k := range x.authored[peer] {
		x.touched[k] = true
	}
}

func (x *index) touch(d digest32) {
	for _, k := range x.names[d] {
		x.touched[k] = true
	}
}

func (x *index) goodEpoch(k build.Key) uint64 {
	var e uint64
	for _, r := range x.results[k] {
		if r.Class == build.Good {
			e = max(e, r.Epoch)
		}
	}
	return e
}

// banned reports whether what a peer wrote at a time is ignored.
func (x *index) banned(peer string, stamp hlc.Time) bool {
	if len(x.orders) == 0 {
		return false
	}
	d, ok := x.orders[Directive{Verb: VerbBan, Scope: peer}.recordKey("", 0)]
	return ok && !d.Off && stamp > d.stamp
}

// order returns a directive in force.
func (x *index) order(v Verb, scope string) (directive, bool) {
	d, ok := x.orders[Directive{Verb: v, Scope: scope}.recordKey("", 0)]
	return d, ok && !d.Off
}

// forgiven is the time before which failures of a job do not count: the
// newest of unblock for it or for all, and reset of its target.
func (x *index) forgiven(k build.Key, target string) hlc.Time {
	var t hlc.Time
	for _, s := range []struct {
		v     Verb
		scope string
	}{{VerbUnblock, string(k)}, {VerbUnblock, "all"}, {VerbReset, target}} {
		if d, ok := x.order(s.v, s.scope); ok && s.scope != "" {
			t = max(t, d.stamp)
		}
	}
	return t
}

func digestOf(cidText string) (digest32, bool) {
	c, err := cas.Parse(cidText)
	if err != nil {
		return digest32{}, false
	}
	d, err := cas.Digest(c)
	return digest32(d), err == nil
}

// Holders lists the peers whose word it is that they hold a blob, sorted. With
// live set, only those whose lease runs.
func (r *Replica) Holders(cidText string, live bool, now Now) []string {
	d, ok := digestOf(cidText)
	if !ok {
		return nil
	}
	var out []string
	for _, p := range r.idx.holders[d] {
		if !live || r.live(p, now) {
			out = append(out, p)
		}
	}
	return out
}

// Blobs lists every blob that somebody holds, as hex digest to holders, for
// replication; sorted holders.
func (r *Replica) Blobs() map[[32]byte][]string {
	out := make(map[[32]byte][]string, len(r.idx.holders))
	for d, hs := range r.idx.holders {
		out[d] = slices.Clone(hs)
	}
	return out
}

// OwnHoldings is what this peer's own shard record on the board says.
func (r *Replica) OwnHoldings(shard int) [][32]byte {
	key := Holdings{Shard: shard}.recordKey(r.self, 0)
	out := make([][32]byte, 0, len(r.idx.shards[key]))
	for _, d := range r.idx.shards[key] {
		out = append(out, d)
	}
	return out
}

// Short is the end of a digest, for people.
func (d digest32) Short() string { return hex.EncodeToString(d[28:]) }

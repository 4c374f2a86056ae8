package claims

import (
	"cmp"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
)

// Now is the time of one step: Wall in milliseconds since 1970, Boot in
// milliseconds of a clock that goes on in suspend (CLOCK_BOOTTIME). Leases are
// judged by Boot alone.
type Now struct{ Wall, Boot int64 }

// Times of the protocol, in milliseconds.
const (
	BeatMillis     = 5_000  // while building or willing
	IdleBeatMillis = 60_000 // else
	beatPerPeer    = 50     // the period grows with the swarm
	QuietMillis    = 60_000 // between two comparisons of a quiet peer, each with its Beat
	LeasePeriods   = 6
	maxGrace       = 15 * 60_000
	AwayMillis     = 15 * 60_000 // a holder not seen for longer is not expected back
	quietHears     = 3           // comparisons within which a quiet peer hears of everybody
	syncEvery      = 30_000
	syncOnBeat     = 2_000
	aloneMillis    = 10_000 // a peer that hears nobody writes after this
	maxFrozen      = 24 * 3_600_000
	TwinMillis     = 30_000 // how long the word of a twin holds
	markAhead      = 1_000  // a mark is written at most once in that time
	SettleLAN      = 50
	SettleWAN      = 500
)

// What one peer may have on the board: records, and their bytes.
const (
	maxPerAuthor   = 200_000
	maxAuthorBytes = 128 << 20
)

// maxBoardBytes is what all peers together may have on it. A swarm of a hundred
// drones some years old has a tenth.
const maxBoardBytes = 1 << 30

// Config is what a Replica starts from.
type Config struct {
	Key      ed25519.PrivateKey
	Sign     func(msg []byte) []byte // instead of Key, which still names the peer; nil = by Key
	Instance uint64                  // random per process
	Settle   int64                   // milliseconds between claim and compile; 0 = SettleLAN
	Rand     *rand.Rand
	// Adopt are the jobs that this peer's last process left running: their
	// claims in the journal are held on.
	Adopt []build.Key
	// Mark is the newest of the marks that this peer was given to keep (see the
	// effect Mark): no stamp of an earlier life is above it.
	Mark hlc.Time
}

// Event is something that happened. See the types below.
type Event interface{ event() }

type (
	// Received carries records whose signatures held, by gossip or sync.
	Received struct {
		From    string
		Records []wire.Opened
	}
	// Validated is Received with what Validate made of each record, for a
	// caller that has asked it already: once for many replicas.
	Validated struct {
		From    string
		Records []wire.Opened
		Bodies  []Body
	}
	// Synced is a message of the anti-entropy exchange.
	Synced struct {
		From string
		Msg  SyncMessage
	}
	// Connected and Disconnected follow the network's peers.
	Connected    struct{ Peer string }
	Disconnected struct{ Peer string }
	// Tick gives the time a chance: timers are due by Now alone.
	Tick struct{}
	// Resumed says that this machine was suspended: nothing is judged until
	// the board is compared with another peer's.
	Resumed struct{}
	// Twin says that another process answers to this peer's identity now; it
	// comes again within TwinMillis for as long as that is so.
	Twin struct{}
	// Report renews what this peer's Beats say of the machine. Jobs, Digest,
	// Instance and PeriodMS are filled in by the replica.
	Report struct{ Beat Beat }
	// Take claims a job for this drone, if it is free.
	Take struct{ Key build.Key }
	// Progress tells how a held build stands.
	Progress struct{ Job BeatJob }
	// GiveBack returns a held claim.
	GiveBack struct {
		Key    build.Key
		Reason string
	}
	// Abandon gives back every claim of this peer on the board that this
	// process does not hold: a restarted daemon's builds died with it.
	Abandon struct{ Reason string }
	// Finished ends a held claim with its outcome.
	Finished struct{ Outcome build.Outcome }
	// Post puts a record of this peer on the board.
	Post struct{ Body Body }
	// PlanLoaded brings a round's plan that stood in a blob.
	PlanLoaded struct {
		Round string
		Plan  *build.Plan
	}
	// Leave says that this peer stops: claims go back, peers are told.
	Leave struct{}
)

func (Received) event()     {}
func (Validated) event()    {}
func (Synced) event()       {}
func (Connected) event()    {}
func (Disconnected) event() {}
func (Tick) event()         {}
func (Resumed) event()      {}
func (Twin) event()         {}
func (Report) event()       {}
func (Take) event()         {}
func (Progress) event()     {}
func (GiveBack) event()     {}
func (Abandon) event()      {}
func (Finished) event()     {}
func (Post) event()         {}
func (PlanLoaded) event()   {}
func (Leave) event()        {}

// Effect is something for the agent to do, in the order returned.
type Effect interface{ effect() }

type (
	// Persist writes changes to the journal before any later effect is done.
	Persist struct {
		Put  []wire.Opened
		Drop []string // keys
	}
	// Mark is to be kept like a record, before any later effect is done: all
	// stamps that this peer makes until the next one are below it. So the stamps
	// of a restarted peer are above all earlier ones, though its wall clock was
	// set back meanwhile; else its Beats would look old, and it would be mute.
	Mark struct{ Stamp hlc.Time }
	// Publish gossips one record or Beat.
	Publish struct{ Record wire.Opened }
	// Send gives a message of the anti-entropy exchange to one peer.
	Send struct {
		Peer string
		Msg  SyncMessage
	}
	// Won says that a claim settled and is still ours: compile.
	Won struct{ Key build.Key }
	// Stop ends a build of ours.
	Stop struct {
		Key    build.Key
		Reason string
	}
	// Alarm is a thing a person has to know. Code is stable, Text for people.
	Alarm struct{ Code, Text string }
	// Changed says that the board reads otherwise though no record came: a peer
	// fell silent, came back or says something new, or this peer may now claim.
	Changed struct{}
	// WantPlan asks for a round's plan, which stands in a blob.
	WantPlan struct{ Round, CID string }
)

func (Persist) effect()  {}
func (Mark) effect()     {}
func (Publish) effect()  {}
func (Send) effect()     {}
func (Won) effect()      {}
func (Stop) effect()     {}
func (Alarm) effect()    {}
func (Changed) effect()  {}
func (WantPlan) effect() {}

// own is a claim that this drone holds.
type own struct {
	claim    Claim
	settleAt int64 // boot; 0 once Won was sent
	job      BeatJob
	lost     bool // another claim won; only a compiling build goes on then
}

// Counters count the records that were refused since this process began, by
// reason. The first and the last are of what did not come as far as the replica:
// who owns it fills them in.
type Counters struct {
	Malformed uint64 `json:"malformed"` // messages with a record of a wrong form, size or signature
	Invalid   uint64 `json:"invalid"`   // the body breaks a rule, or the author may not write the key
	Future    uint64 `json:"future"`    // stamped too far ahead
	Banned    uint64 `json:"banned"`    // its author is banned
	Quota     uint64 `json:"quota"`     // its author has its share of the board
	Full      uint64 `json:"full"`      // all authors together have all of it
	Stale     uint64 `json:"stale"`     // claims of jobs that are done
	Flood     uint64 `json:"flood"`     // messages above what one peer or author may send
}

// Replica is one peer's board. It is not safe for concurrent use.
type Replica struct {
	cfg   Config
	self  string
	clock hlc.Clock
	board *board
	idx   *index
	peers map[string]*peerState
	byID  []*peerState // the same, sorted
	own   map[build.Key]*own
	// compiling counts, for each job, the newest Beats that say so.
	compiling map[build.Key]int
	endings   map[string][]ended // by drone, in the order of their stamps

	report   Beat
	nextBeat int64
	working  bool  // there is something to build
	toldFull bool  // that the board is full
	toldMay  bool  // the newest Beat said that this peer may claim
	judgeAt  int64 // boot at which the next lease may end
	cutOff   bool  // more than a third of the peers fell silent lately
	leaving  bool

	started   int64 // boot
	startHLC  hlc.Time
	synced    bool
	connected map[string]bool
	sync      syncState

	fitChanged  bool // a peer's abilities changed
	cloned      bool
	twinUntil   int64    // boot until which cloned holds
	twinStamp   hlc.Time // of the other process's newest Beat
	mark        hlc.Time // stamps below it may be made
	clockBehind int64    // ms that most peers look ahead; 0 = fine
	Refused     Counters

	out []Effect
}

// NewReplica makes a replica from the journal's records. Records that do not
// validate are left out: the journal may be of an older version.
func NewReplica(cfg Config, journal []wire.Opened, now Now) *Replica {
	if cfg.Settle == 0 {
		cfg.Settle = SettleLAN
	}
	if cfg.Sign == nil {
		cfg.Sign = func(msg []byte) []byte { return ed25519.Sign(cfg.Key, msg) }
	}
	r := &Replica{
		cfg: cfg, self: wire.PeerID(cfg.Key.Public().(ed25519.PublicKey)),
		board: newBoard(), idx: newIndex(),
		peers: map[string]*peerState{}, own: map[build.Key]*own{}, compiling: map[build.Key]int{}, endings: map[string][]ended{},
		connected: map[string]bool{}, sync: syncState{answered: map[string]int64{}}, started: now.Boot,
	}
	for _, o := range journal {
		if body, err := Validate(o); err == nil {
			if o.Author() == r.self {
				r.clock.Restore(hlc.Time(o.Stamp()))
			}
			r.mergeQuietly(o, body, now)
		}
	}
	r.clock.Restore(cfg.Mark)
	r.startHLC = r.clock.Now(now.Wall)
	r.adopt(cfg.Adopt)
	r.settle(now)
	r.out = nil
	return r
}

// Stamp returns a stamp of this peer above every one it has seen.
func (r *Replica) Stamp(now Now) hlc.Time { return r.clock.Now(now.Wall) }

// Self is this peer's ID.
func (r *Replica) Self() string { return r.self }

// Step takes in one event and returns what is to be done about it, in order.
// The returned slice is the caller's.
func (r *Replica) Step(now Now, ev Event) []Effect {
	r.out = nil
	switch ev := ev.(type) {
	case Received:
		r.receive(now, ev.From, ev.Records, nil)
	case Validated:
		r.receive(now, ev.From, ev.Records, ev.Bodies)
	case Synced:
		r.onSync(now, ev)
	case Connected:
		r.onConnect(now, ev.Peer)
	case Disconnected:
		delete(r.connected, ev.Peer)
		r.sync.forget(ev.Peer)
	case Report:
		changed := beatChanged(r.report, ev.Beat)
		woke := r.report.Quiet && !ev.Beat.Quiet
		r.report = ev.Beat
		if woke {
			r.resume(now)
		}
		if changed {
			r.nextBeat = now.Boot
			r.emit(Changed{})
		}
	case Resumed:
		r.resume(now)
	case Twin:
		r.noteTwin(now, TwinMillis, "")
	case Take:
		r.take(now, ev.Key)
	case Progress:
		r.progress(now, ev.Job)
	case GiveBack:
		r.giveBack(now, ev.Key, ev.Reason)
	case Abandon:
		r.abandon(now, ev.Reason)
	case Finished:
		r.finish(now, ev.Outcome)
	case Post:
		r.post(now, ev.Body)
	case PlanLoaded:
		r.idx.loadPlan(ev.Round, ev.Plan)
	case Leave:
		r.leave(now)
	}
	r.due(now)
	out := r.out
	r.out = nil
	return out
}

// resume begins to judge anew: what this peer did not hear meanwhile is no sign
// of anything.
func (r *Replica) resume(now Now) {
	for _, p := range r.peers {
		p.heard = now.Boot
	}
	r.judgeAt = now.Boot
	r.synced, r.started = false, now.Boot
	r.nextBeat = now.Boot
	r.emit(Changed{})
}

func (r *Replica) emit(e Effect) { r.out = append(r.out, e) }

// receive merges records of others. What is refused is counted, never fatal.
func (r *Replica) receive(now Now, from string, records []wire.Opened, bodies []Body) {
	var put []wire.Opened
	for i, o := range records {
		var body Body
		var err error
		if i < len(bodies) {
			body = bodies[i]
		} else {
			body, err = Validate(o)
		}
		if o.Type() == TypeBeat {
			r.onBeat(now, from, o, body, err)
			continue
		}
		if err := r.clock.Observe(hlc.Time(o.Stamp()), now.Wall); err != nil {
			r.Refused.Future++
			continue
		}
		switch {
		case err != nil:
			r.Refused.Invalid++
			continue
		case r.idx.banned(o.Author(), hlc.Time(o.Stamp())):
			r.Refused.Banned++
			continue
		case !r.board.room(o):
			if r.board.full(o) {
				r.Refused.Full++
				r.noteFull()
			} else {
				r.Refused.Quota++
			}
			continue
		}
		if r.merge(now, o, body) {
			if put == nil {
				put = make([]wire.Opened, 0, len(records)-i)
			}
			put = append(put, o)
		}
	}
	r.persist(put)
}

// noteFull tells a person once: there is no board so large that nobody made up.
func (r *Replica) noteFull() {
	if r.toldFull {
		return
	}
	r.toldFull = true
	r.emit(Alarm{"board", fmt.Sprintf("the board holds %d MiB of records by %d peers, and no more is taken: somebody floods it; swarm peers shows who is new, and swarm rekey shuts out whoever has the swarm's key",
		r.board.bytes>>20, len(r.board.byWho))})
}

// persist emits what changed; removals noted by the merge go along.
func (r *Replica) persist(put []wire.Opened) {
	drop := r.idx.dropped
	r.idx.dropped = nil
	if len(put) > 0 || len(drop) > 0 {
		// Before whatever this step already decided to tell others.
		r.out = slices.Insert(r.out, 0, Effect(Persist{Put: put, Drop: drop}))
	}
}

// merge is mergeQuietly and what follows from it for builds of our own.
func (r *Replica) merge(now Now, o wire.Opened, body Body) bool {
	if c, ok := body.(channelBody); ok {
		r.clash(c.Channel)
	}
	if !r.mergeQuietly(o, body, now) {
		return false
	}
	switch b := body.(type) {
	case Claim:
		r.contest(now, b)
	case outcomeBody:
		if b.Class == build.Good {
			r.endedElsewhere(now, b.Key, o.Author())
		}
	case Directive:
		r.obey(now, b)
	case roundBody:
		if b.Plan == nil && !r.idx.planLoaded(b.ID) && b.State == build.RoundOpen {
			r.emit(WantPlan{Round: b.ID, CID: b.PlanCID})
		}
		if b.State == build.RoundCancelled {
			r.stopUnwanted(now)
		}
	}
	return true
}

// mergeQuietly changes the board and the index derived from it.
func (r *Replica) mergeQuietly(o wire.Opened, body Body, now Now) bool {
	if c, ok := body.(Claim); ok && r.idx.goodEpoch(c.Key) >= c.Epoch {
		r.Refused.Stale++
		return false
	}
	e := newEntry(o, body, now.Boot)
	if !r.board.put(e) {
		return false
	}
	r.idx.add(e)
	if out, ok := body.(outcomeBody); ok {
		r.noteEnded(o.Author(), out.Outcome, hlc.Time(o.Stamp()))
	}
	if out, ok := body.(outcomeBody); ok && out.Class == build.Good {
		if ks := r.idx.state(out.Key); ks.claim != nil && ks.claim.body.(Claim).Epoch <= out.Epoch {
			key := ClaimKey(out.Key)
			r.board.remove(key)
			ks.claim = nil
			r.idx.dropped = append(r.idx.dropped, key)
		}
	}
	return true
}

// seal signs a body of this peer, above every stamp it has seen.
func (r *Replica) seal(now Now, body Body) (wire.Opened, error) {
	return r.sealAt(r.clock.Now(now.Wall), body)
}

func (r *Replica) sealAt(stamp hlc.Time, body Body) (wire.Opened, error) {
	if stamp >= r.mark {
		r.mark = hlc.New(stamp.Millis() + markAhead)
		r.emit(Mark{r.mark})
	}
	b, err := build.Marshal(body)
	if err != nil {
		return wire.Opened{}, fmt.Errorf("encode %s: %w", body.recordType(), err)
	}
	if err := body.check(r.self); err != nil {
		return wire.Opened{}, err
	}
	return wire.SealBy(r.cfg.Sign, wire.Record{
		Type: body.recordType(), Key: body.recordKey(r.self, stamp), Order: body.recordOrder(r.self, stamp),
		Author: r.self, Stamp: uint64(stamp), Body: b,
	})
}

// post puts a record of this peer on the board, persists it, then tells others.
func (r *Replica) post(now Now, body Body) {
	r.postAt(now, r.clock.Now(now.Wall), body)
}

func (r *Replica) postAt(now Now, stamp hlc.Time, body Body) {
	o, err := r.sealAt(stamp, body)
	if err != nil {
		r.emit(Alarm{"record", "a record could not be written: " + err.Error()})
		return
	}
	if !r.merge(now, o, body) {
		return
	}
	drop := r.idx.dropped
	r.idx.dropped = nil
	r.emit(Persist{Put: []wire.Opened{o}, Drop: drop})
	r.emit(Publish{o})
}

// due does what the time asks for: settled claims, Beats, comparisons.
func (r *Replica) due(now Now) {
	r.settle(now)
	for _, k := range r.ownKeys() {
		o := r.own[k]
		if o.settleAt > 0 && now.Boot >= o.settleAt && !o.lost {
			o.settleAt = 0
			r.emit(Won{k})
		}
	}
	if r.cloned && now.Boot >= r.twinUntil {
		r.cloned = false
		r.emit(Changed{})
	}
	if may, _ := r.MayClaim(); may != r.toldMay && r.report.Accepting {
		r.nextBeat = min(r.nextBeat, now.Boot)
	}
	if now.Boot >= r.nextBeat && !r.leaving {
		r.beat(now)
	}
	if !r.synced && len(r.connected) == 0 && now.Boot-r.started >= aloneMillis {
		r.synced = true
		r.emit(Changed{})
	}
	r.dueSync(now)
}

// NextWake is the boot time at which Step wants a Tick at the latest.
func (r *Replica) NextWake(now Now) int64 {
	next := min(r.nextBeat, r.nextSync(now))
	for _, o := range r.own {
		if o.settleAt > 0 && !o.lost {
			next = min(next, o.settleAt)
		}
	}
	if r.leaving {
		next = max(next, r.nextSync(now))
	}
	if !r.synced && len(r.connected) == 0 {
		next = min(next, r.started+aloneMillis)
	}
	if r.cloned {
		next = min(next, r.twinUntil)
	}
	return max(next, now.Boot+1)
}

// MayClaim says whether this drone may open claims now, and why not.
func (r *Replica) MayClaim() (bool, string) {
	switch {
	case r.leaving:
		return false, "this peer is stopping"
	case r.cloned:
		return false, "this identity also runs elsewhere"
	case r.idx.bans(r.self):
		return false, "the swarm has banned this peer"
	case r.clockBehind != 0:
		return false, fmt.Sprintf("the clock is %d s behind the other peers", r.clockBehind/1000)
	case !r.synced:
		return false, "the board is not yet compared with another peer"
	}
	return true, ""
}

func (r *Replica) ownKeys() []build.Key {
	keys := make([]build.Key, 0, len(r.own))
	for k := range r.own {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b build.Key) int { return cmp.Compare(a, b) })
	return keys
}

// Records returns every record of the board, sorted by key.
func (r *Replica) Records() []wire.Opened {
	all := r.board.all()
	out := make([]wire.Opened, len(all))
	for i, e := range all {
		out[i] = e.rec
	}
	return out
}

// Count is the number of records on the board.
func (r *Replica) Count() int { return r.board.count }

// Digest is one number over the board: equal boards, equal digests.
func (r *Replica) Digest() uint64 { return r.board.digest() }

// SetSettle sets the milliseconds between claim and compile.
func (r *Replica) SetSettle(ms int64) { r.cfg.Settle = ms }

// Channel returns a channel's head, or nil.
func (r *Replica) Channel(target, name string) *release.Channel {
	e := r.board.get(TypeChannel + "/" + target + "/" + name)
	if e == nil {
		return nil
	}
	c := e.body.(channelBody).Channel
	return &c
}

// Channels lists the heads of all channels, by target and name.
func (r *Replica) Channels() []release.Channel {
	var out []release.Channel
	for n := range r.board.bucket {
		for _, e := range r.board.bucket[n] {
			if c, ok := e.body.(channelBody); ok {
				out = append(out, c.Channel)
			}
		}
	}
	slices.SortFunc(out, func(a, b release.Channel) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Name, b.Name))
	})
	return out
}

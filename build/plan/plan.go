package plan

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

const (
	// defaultSpeed is a drone that has not measured itself: one core.
	defaultSpeed = 1000
	// waitPercent is by how much waiting for a busy drone must win.
	waitPercent = 10
	// passBeats is for how many Beats a drone is passed over.
	passBeats = 10
)

// Limit is how many ready jobs Next looks at: beyond them nothing could start.
func Limit(peers int) int { return 4*peers + 64 }

// View is what the next step of the schedule is computed from.
type View struct {
	// Ready are the jobs that are free, in the order of the schedule
	// (claims.Replica.Ready); Limit of them are enough.
	Ready []claims.Candidate
	Peers []claims.Peer
	// Excluded says that a drone will not take a job now: it declined, it
	// failed it before, or it was passed over. It is asked about scarred
	// candidates, and about those that Passed names.
	Excluded func(k build.Key, peer string) bool
	// Setup says how long a drone takes before it can compile a job, in
	// milliseconds; nil = no time.
	Setup func(k build.Key, peer string) int64
	// Passed says that somebody is passed over for a job; nil = nobody.
	Passed func(k build.Key) bool
}

// Assignment gives a job to a drone.
type Assignment struct {
	Key    build.Key
	Peer   string
	Start  int64 // milliseconds from now
	Finish int64
}

// drone is one peer with the time at which each of its slots is free.
type drone struct {
	id       string
	hash     uint64
	speed    int64   // core-milliseconds per second of one slot
	pace     int64   // in a forecast, how long builds take for that, in permille; 0 = as long as it says
	free     []int64 // milliseconds from now, per slot, sorted
	until    int64   // expected availability in ms; 0 = steady
	builders uint8   // bit set of builderBit
	accept   bool
	memory   int64 // MiB free; 0 = unknown
	disk     int64 // MiB that builds may take
	beat     *claims.Beat
	asked    uint64 // bit set over Scheduler.targets: whether it can build for them is known
	able     uint64 // and it can
}

func builderBit(b build.Builder) uint8 {
	switch b {
	case build.BuilderPortage:
		return 1
	case build.BuilderSample:
		return 2
	}
	return 0
}

// fits is claims.Replica.Fits in the form that costs nothing.
func (d *drone) fits(t *task) bool {
	return d.accept && d.builders&t.builder != 0 && (t.memory == 0 || d.memory == 0 || t.memory <= d.memory) && (t.disk == 0 || t.disk <= d.disk) && d.runs(t)
}

// runs reports whether the drone's processor can build for a task's target. It
// is found out once for each target: lists of CPU features are long.
func (d *drone) runs(t *task) bool {
	if t.target == nil || d.asked&t.bit != 0 {
		return t.target == nil || d.able&t.bit != 0
	}
	ok := t.target.Runs(d.beat.Arch, d.beat.Features)
	d.asked |= t.bit
	if ok {
		d.able |= t.bit
	}
	return ok
}

// task is a job in the form that the schedule compares.
type task struct {
	key      build.Key
	hash     uint64
	work     int64 // core-milliseconds
	costs    int64 // what it will turn out to cost, in a forecast that draws it; 0 = work
	setup    int64 // milliseconds that no core makes shorter
	memory   int64
	disk     int64
	builder  uint8
	excluded bool          // ask View.Excluded
	target   *build.Target // nil = any drone will do
	bit      uint64        // of the target; 0 when there are too many
}

// Scheduler computes schedules and keeps its memory between them. The zero
// Scheduler is ready; it is for one goroutine.
type Scheduler struct {
	drones []drone
	slots  []int64
	all    []Assignment
	// targets are those of the jobs seen since the drones were listed; each has
	// its bit in drone.asked.
	targets []*build.Target
}

// Next returns the job that self should claim now: the first that the schedule
// of all ready jobs gives to it on a slot that is free. ok is false if none.
// The list of all assignments is for Memory and valid until the next call.
func (s *Scheduler) Next(v *View, self string) (k build.Key, ok bool, all []Assignment) {
	s.load(v.Peers)
	s.all = s.all[:0]
	me := slices.IndexFunc(s.drones, func(d drone) bool { return d.id == self })
	if me < 0 || !s.drones[me].accept || s.drones[me].free[0] > 0 {
		return "", false, nil
	}
	limit := min(len(v.Ready), Limit(len(v.Peers)))
	for i := range v.Ready[:limit] {
		c := &v.Ready[i]
		t := s.taskOf(c.Job, c.For, c.Work, c.MemoryMiB, c.DiskMiB)
		t.excluded = c.Scarred || v.Passed != nil && v.Passed(t.key)
		a, found := s.place(v, &t, 0)
		if !found {
			continue
		}
		s.all = append(s.all, a)
		if a.Peer == self && a.Start == 0 && !ok {
			k, ok = a.Key, true
		}
	}
	return k, ok, s.all
}

func (s *Scheduler) taskOf(j *build.Job, target *build.Target, work, memory, disk int64) task {
	return task{key: j.Key, hash: hashKey(j.Key), work: max(1, work), memory: memory, disk: disk, builder: builderBit(j.Builder),
		target: target, bit: s.bit(target)}
}

// bit is a target's place in drone.asked; there are few targets.
func (s *Scheduler) bit(t *build.Target) uint64 {
	if t == nil {
		return 0
	}
	n := slices.Index(s.targets, t)
	if n < 0 {
		n = len(s.targets)
		s.targets = append(s.targets, t)
	}
	return 1 << n // beyond 64 it is no bit, and asked for each job
}

// hashKey takes eight bytes of a key's hex: it is a hash already.
func hashKey(k build.Key) uint64 {
	if len(k) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64([]byte(k[:8]))
}

// load lists the live peers that build, by ID, with what occupies them.
func (s *Scheduler) load(peers []claims.Peer) { s.loadWith(peers, remaining) }

// loadWith is load with another idea of how long each build still takes.
func (s *Scheduler) loadWith(peers []claims.Peer, left func(*claims.BeatJob) int64) {
	s.drones, s.slots, s.targets = s.drones[:0], s.slots[:0], s.targets[:0]
	need := 0
	for i := range peers {
		need += peers[i].Beat.Slots
	}
	s.slots = slices.Grow(s.slots, need)
	for i := range peers {
		p := &peers[i]
		b := &p.Beat
		if !p.Live || b.Slots == 0 || !b.Accepting && len(b.Jobs) == 0 {
			continue
		}
		d := drone{id: p.ID, speed: max(1, cmp.Or(b.Speed, int64(defaultSpeed))/int64(b.Slots)), accept: b.Accepting, memory: b.FreeMemMiB, disk: b.DiskMiB, beat: b}
		d.hash = hashPeer(p.ID)
		for _, x := range b.Builders {
			d.builders |= builderBit(x)
		}
		if !b.Steady && b.UntilS > 0 {
			d.until = max(1, b.UntilS*1000-p.AgeMS)
		}
		from := len(s.slots)
		for n := range b.Slots {
			free := int64(0)
			if n < len(b.Jobs) {
				free = max(1, left(&b.Jobs[n])-p.AgeMS)
			}
			s.slots = append(s.slots, free)
		}
		d.free = s.slots[from:len(s.slots):len(s.slots)]
		slices.Sort(d.free)
		s.drones = append(s.drones, d)
	}
	slices.SortFunc(s.drones, func(a, b drone) int { return cmp.Compare(a.id, b.id) })
}

// remaining time of a build: what its drone expects (claims.Left), or a quarter
// of what it took so far where it has no idea.
func remaining(j *claims.BeatJob) int64 {
	if j.LeftMS > 0 {
		return j.LeftMS
	}
	return j.InvestedMS/4 + 1000
}

// choice is a drone with when it would start and finish.
type choice struct {
	d             *drone
	start, finish int64
}

// Prefers reports whether the schedule gives a job to a rather than to b when both
// would finish it at the same time.
func Prefers(k build.Key, a, b string) bool {
	h := hashKey(k)
	return mix(h, hashPeer(a)) > mix(h, hashPeer(b))
}

func hashPeer(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails, by its contract
	return h.Sum64()
}

// mix spreads ties between equal drones over all of them (rendezvous hashing
// with the finalizer of SplitMix64).
func mix(a, b uint64) uint64 {
	z := a ^ b
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (c *choice) better(than *choice, t *task) bool {
	if than.d == nil || c.finish != than.finish {
		return than.d == nil || c.finish < than.finish
	}
	return mix(t.hash, c.d.hash) > mix(t.hash, than.d.hash)
}

// place gives a job to the drone that finishes it first, not before notBefore,
// and occupies that drone's slot. A drone that is busy must win by waitPercent
// against the best that is idle; an unsteady drone whose time runs out does not
// fit while a steady one would finish within twice as long.
func (s *Scheduler) place(v *View, t *task, notBefore int64) (Assignment, bool) {
	var idle, busy, late choice
	for i := range s.drones {
		d := &s.drones[i]
		if !d.fits(t) || t.excluded && v.Excluded != nil && v.Excluded(t.key, d.id) {
			continue
		}
		start := max(d.free[0], notBefore)
		c := choice{d, start, start + t.setup + t.work*1000/d.speed + 1}
		if v.Setup != nil {
			c.finish += v.Setup(t.key, d.id)
		}
		kind := &busy
		switch {
		case d.until > 0 && c.finish > d.until:
			kind = &late
		case start <= notBefore:
			kind = &idle
		}
		if c.better(kind, t) {
			*kind = c
		}
	}
	best := idle
	if busy.d != nil && (idle.d == nil || (busy.finish-notBefore)*(100+waitPercent) < (idle.finish-notBefore)*100) {
		best = busy
	}
	if late.d != nil && (best.d == nil || best.finish-notBefore > 2*(late.finish-notBefore)) {
		best = late
	}
	if best.d == nil {
		return Assignment{}, false
	}
	if t.costs > 0 {
		took := t.setup + t.costs*1000/best.d.speed + 1
		if best.d.pace > 0 {
			took = took * best.d.pace / 1000
		}
		best.finish = best.start + took
	}
	best.d.free[0] = best.finish
	for i := 1; i < len(best.d.free) && best.d.free[i] < best.d.free[i-1]; i++ {
		best.d.free[i], best.d.free[i-1] = best.d.free[i-1], best.d.free[i]
	}
	return Assignment{Key: t.key, Peer: best.d.id, Start: best.start, Finish: best.finish}, true
}

package guest_test

import (
	"bytes"
	"crypto/ed25519"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/guest"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/wire"
)

// A laptop and a server share the jobs of a round, by the real board, plan and
// guest. The laptop's owner comes and goes, closes the lid, pulls the plug,
// suspends it, and carries it from one network to another (silent for up to 25 s).

const step = 1000 // ms

var days = flag.Uint64("days", 60, "how many random days of a laptop to go through")

// drone is one machine with one slot.
type drone struct {
	r       *claims.Replica
	guest   *guest.Guest // nil: a server
	reading guest.Reading
	job     build.Key
	invest  int64
	won     bool
	verdict guest.Verdict
	offline int64 // ms for which nothing of it travels
	asleep  int64 // ms for which it does not run at all
	// deadline is the boot time until which it said it keeps its frozen build.
	deadline int64
	sched    plan.Scheduler
	kept     map[int][][]byte // digests, by shard
	lacks    [][32]byte
}

// keep adds a blob to those that the drone holds, and returns its shard.
func (d *drone) keep(sum [32]byte) [][]byte {
	if d.kept == nil {
		d.kept = map[int][][]byte{}
	}
	n := int(sum[0]) % claims.HoldShards
	d.kept[n] = append(d.kept[n], sum[:])
	slices.SortFunc(d.kept[n], bytes.Compare)
	return d.kept[n]
}

type house struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	now    claims.Now
	drones []*drone
	jobs   map[build.Key]int64 // work
	done   map[build.Key]int
	starts map[build.Key]int
	backs  map[build.Key]int // given back, by order of the guest or the board
	queue  []letter
}

type letter struct {
	to, from *drone
	ev       claims.Event
}

func newHouse(t *testing.T, seed uint64) *house {
	h := &house{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), now: claims.Now{Wall: 1_800_000_000_000, Boot: 1_000},
		jobs: map[build.Key]int64{}, done: map[build.Key]int{}, starts: map[build.Key]int{}, backs: map[build.Key]int{}}
	for n := range 2 {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(n + 1)}, ed25519.SeedSize))
		d := &drone{r: claims.NewReplica(claims.Config{Key: key, Instance: uint64(n + 1), Rand: rand.New(rand.NewPCG(seed, uint64(n)))}, nil, h.now)}
		h.drones = append(h.drones, d)
	}
	lap := h.drones[0]
	lap.guest = &guest.Guest{}
	lap.reading = guest.Reading{HasBattery: true, HasLid: true, ChargePercent: 50, IdleMS: 3_600_000, OthersPercent: 0, Cores: 4, FreeMemMiB: 8000, MemMiB: 8000}
	for _, d := range h.drones {
		for _, o := range h.drones {
			if o != d {
				h.step(d, claims.Connected{Peer: o.r.Self()})
			}
		}
	}
	plan := &build.Plan{Target: "t"}
	for n := range 2 + h.rng.IntN(5) {
		pre := []build.Facet{{Name: "CPV", Value: fmt.Sprintf("app-misc/p%d-1", n)}}
		k, err := build.KeyOf(pre)
		if err != nil {
			t.Fatal(err)
		}
		work := 20_000 + h.rng.Int64N(900_000)
		h.jobs[k] = work
		plan.Jobs = append(plan.Jobs, build.Job{Key: k, Builder: build.BuilderSample, CPV: build.CPV{Category: "app-misc", Name: fmt.Sprintf("p%d", n), Version: "1"},
			Slot: "0", Repo: "t", Preimage: pre, CoreMillis: work})
		plan.Want = append(plan.Want, k)
	}
	h.step(h.drones[1], claims.Post{Body: claims.NewRound(build.Round{ID: "r1", Target: "t", Priority: build.Normal, State: build.RoundOpen, Counter: 1, Jobs: len(plan.Jobs), Plan: plan})})
	return h
}

func (h *house) fatal(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("seed %d, at %d s: %s", h.seed, h.now.Boot/1000, fmt.Sprintf(format, args...))
}

// step steps one board and carries what it says, unless the way is cut.
func (h *house) step(d *drone, ev claims.Event) {
	h.effects(d, d.r.Step(h.now, ev))
	for len(h.queue) > 0 {
		l := h.queue[0]
		h.queue = h.queue[1:]
		h.effects(l.to, l.to.r.Step(h.now, l.ev))
	}
}

func (h *house) effects(d *drone, effects []claims.Effect) {
	cut := func(o *drone) bool { return d.offline > 0 || d.asleep > 0 || o.offline > 0 || o.asleep > 0 }
	for _, e := range effects {
		switch e := e.(type) {
		case claims.Publish:
			for _, o := range h.drones {
				if o != d && !cut(o) {
					h.queue = append(h.queue, letter{o, d, claims.Received{From: d.r.Self(), Records: []wire.Opened{e.Record}}})
				}
			}
		case claims.Send:
			for _, o := range h.drones {
				if o.r.Self() == e.Peer && !cut(o) {
					h.deliver(o, d, e.Msg)
				}
			}
		case claims.Won:
			d.won = d.won || e.Key == d.job
		case claims.Stop:
			if e.Key == d.job {
				h.backs[e.Key]++
				d.job = ""
			}
		}
	}
}

func (h *house) deliver(to, from *drone, m claims.SyncMessage) {
	var recs []wire.Opened
	for _, raw := range m.Records {
		o, err := wire.Open(raw)
		if err != nil {
			h.t.Fatal(err)
		}
		recs = append(recs, o)
	}
	m.Records = nil
	if len(recs) > 0 {
		h.queue = append(h.queue, letter{to, from, claims.Received{From: from.r.Self(), Records: recs}})
	}
	h.queue = append(h.queue, letter{to, from, claims.Synced{From: from.r.Self(), Msg: m}})
}

// happen is one thing that the laptop's owner does.
func (h *house) happen(d *drone) {
	r := &d.reading
	switch h.rng.IntN(7) {
	case 0, 1:
		r.IdleMS = 0
	case 2:
		r.LidClosed = !r.LidClosed
	case 3:
		r.OnBattery = !r.OnBattery
	case 4: // suspend: the sensors say so a moment before, and the board hears of it
		if d.offline > 0 {
			return
		}
		r.Sleeping = true
		h.run(d)
		d.asleep = 1 + h.rng.Int64N(40*60_000)
	case 5:
		d.offline = 1 + h.rng.Int64N(25_000)
		for _, o := range h.drones {
			if o != d {
				h.step(d, claims.Disconnected{Peer: o.r.Self()})
				h.step(o, claims.Disconnected{Peer: d.r.Self()})
			}
		}
	case 6:
		r.Inhibitor = map[bool]string{true: "", false: "a film"}[r.Inhibitor != ""]
	}
}

// run is one turn of a drone's daemon.
func (h *house) run(d *drone) {
	beat := claims.Beat{Nick: "server", Slots: 1, Cores: 1, Speed: 1000, Accepting: true, Steady: true, Stores: true, StoreFree: 1 << 40, DiskMiB: 1 << 20,
		Builders: []build.Builder{build.BuilderSample}}
	level := guest.Full
	if d.guest != nil {
		beat.Nick = "laptop"
		v := d.guest.Step(guest.Now{Wall: time.UnixMilli(h.now.Wall).UTC(), Boot: h.now.Boot}, d.reading, h.builds(d))
		d.verdict, d.deadline, level = v, h.now.Boot+v.KeepMS[d.job], v.Level
		if (!v.May || v.Level > guest.Full) && v.Why == "" {
			h.fatal("no reason: %+v", v)
		}
		for _, x := range v.Return {
			if x.Key != d.job || x.Reason == "" {
				h.fatal("gives back %q for %q", x.Key.Short(), x.Reason)
			}
			h.backs[x.Key]++
			d.job = ""
			h.step(d, claims.GiveBack{Key: x.Key, Reason: x.Reason})
		}
		beat.Accepting, beat.Why, beat.Steady, beat.UntilS = v.May, v.Why, v.Steady, v.UntilS
	}
	h.build(d, level)
	h.step(d, claims.Report{Beat: beat})
	if d.job == "" && beat.Accepting {
		h.take(d)
	}
}

func (h *house) builds(d *drone) []guest.Build {
	if d.job == "" {
		return nil
	}
	b := guest.Build{Key: d.job, InvestedMS: d.invest, LeftMS: h.jobs[d.job] - d.invest}
	for _, o := range h.drones {
		if o != d && o.job == "" && o.offline == 0 && d.offline == 0 {
			b.ElsewhereMS = h.jobs[d.job] + 1
		}
	}
	return []guest.Build{b}
}

// hold has a drone keep a blob; the other copies it as soon as both are there.
func (h *house) hold(d *drone, sum [32]byte) {
	h.step(d, claims.Post{Body: claims.Holdings{Shard: int(sum[0]) % claims.HoldShards, CIDs: d.keep(sum)}})
	for _, o := range h.drones {
		if o != d {
			o.lacks = append(o.lacks, sum)
		}
	}
}

// copy brings what a drone lacks.
func (h *house) copy(d *drone) {
	for _, o := range h.drones {
		if o.offline > 0 || o.asleep > 0 {
			return
		}
	}
	for _, sum := range d.lacks {
		h.step(d, claims.Post{Body: claims.Holdings{Shard: int(sum[0]) % claims.HoldShards, CIDs: d.keep(sum)}})
	}
	d.lacks = nil
}

// build goes on with what a drone has.
func (h *house) build(d *drone, level guest.Level) {
	if d.job == "" || !d.won {
		return
	}
	phase := "compile"
	switch level {
	case guest.Full:
		d.invest += step
	case guest.Shrunk:
		d.invest += step / 10
	default:
		phase = "frozen"
	}
	if d.invest >= h.jobs[d.job] {
		k := d.job
		d.job = ""
		h.done[k]++
		c := cas.Sum([]byte(k))
		sum, err := cas.Digest(c)
		if err != nil {
			h.t.Fatal(err)
		}
		h.hold(d, sum)
		h.step(d, claims.Finished{Outcome: build.Outcome{Key: k, CPV: d.r.Job(k).CPV, Target: "t", Class: build.Good, Artifact: &build.Artifact{CID: c.String(), Size: 1}}})
		return
	}
	h.step(d, claims.Progress{Job: claims.BeatJob{Key: d.job, Phase: phase, Compiling: true, InvestedMS: d.invest,
		LeftMS: h.jobs[d.job] - d.invest + d.verdict.WaitMS, FrozenMS: d.verdict.KeepMS[d.job]}})
}

func (h *house) take(d *drone) {
	if ok, _ := d.r.MayClaim(); !ok {
		return
	}
	v := plan.View{Ready: d.r.Ready(nil, 100, h.now), Peers: d.r.Peers(h.now)}
	k, ok, _ := d.sched.Next(&v, d.r.Self())
	if !ok {
		return
	}
	h.step(d, claims.Take{Key: k})
	for _, b := range d.r.Held() {
		if b.Key != k {
			continue
		}
		for _, o := range h.drones {
			// One that sleeps beyond the time for which it said it would keep
			// the build gives it back when it wakes.
			over := o.asleep > 0 && h.now.Boot >= o.deadline
			if o != d && o.job == k && o.invest > 0 && !over {
				h.fatal("%s is begun while the other has %d s of work in it (frozen for %d ms more)", k.Short(), o.invest/1000, o.verdict.KeepMS[k])
			}
		}
		d.job, d.invest, d.won = k, 0, false
		h.starts[k]++
	}
}

func (h *house) tick() {
	h.now.Boot += step
	h.now.Wall += step
	for _, d := range h.drones {
		switch {
		case d.asleep > 0:
			if d.asleep -= step; d.asleep <= 0 {
				d.asleep, d.reading.Sleeping = 0, false
				d.reading.IdleMS = 0 // somebody opened it
				h.step(d, claims.Resumed{})
				h.meet(d)
			}
			continue
		case d.offline > 0:
			if d.offline -= step; d.offline <= 0 {
				d.offline = 0
				h.meet(d)
			}
		}
		if d.reading.IdleMS += step; d.guest != nil && h.rng.IntN(120) == 0 && h.now.Boot < 3*3_600_000 {
			h.happen(d)
			if d.asleep > 0 {
				continue
			}
		}
		h.step(d, claims.Tick{})
		h.copy(d)
		h.run(d)
	}
}

// meet connects a drone that was away.
func (h *house) meet(d *drone) {
	for _, o := range h.drones {
		if o != d {
			h.step(d, claims.Disconnected{Peer: o.r.Self()})
			h.step(o, claims.Disconnected{Peer: d.r.Self()})
			h.step(d, claims.Connected{Peer: o.r.Self()})
			h.step(o, claims.Connected{Peer: d.r.Self()})
		}
	}
}

func TestRandomDaysOfALaptopLoseNoJobAndBuildNoneTwice(t *testing.T) {
	runs := *days
	var starts, backs, jobs, byLaptop int
	for seed := range runs {
		h := newHouse(t, seed)
		for len(h.done) < len(h.jobs) || h.drones[0].job != "" {
			h.tick()
			if h.now.Boot > 12*3_600_000 {
				for _, d := range h.drones {
					for _, i := range d.r.Survey(h.now) {
						h.t.Logf("%s: %s is %s, held by %s (%+v)", d.r.Name(d.r.Self()), i.Job.CPV, i.State, d.r.Name(i.Holder), i.Beat)
					}
					ok, why := d.r.MayClaim()
					h.t.Logf("%s: job %q, may %v %q, %+v", d.r.Name(d.r.Self()), d.job.Short(), ok, why, d.verdict)
				}
				h.fatal("%d of %d jobs are built", len(h.done), len(h.jobs))
			}
		}
		for k := range h.jobs {
			if h.done[k] != 1 || h.starts[k] != 1+h.backs[k] {
				h.fatal("%s was built %d times, begun %d times, given back %d times", k.Short(), h.done[k], h.starts[k], h.backs[k])
			}
			starts, backs, jobs = starts+h.starts[k], backs+h.backs[k], jobs+1
			for _, res := range h.drones[1].r.Results(k) {
				if res.Class == build.Good && res.Peer == h.drones[0].r.Self() {
					byLaptop++
				}
			}
		}
	}
	t.Logf("%d sequences: %d jobs, %d begun, %d given back, %d built by the laptop", runs, jobs, starts, backs, byLaptop)
}

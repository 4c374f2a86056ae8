package claimstest

import (
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

// The rhythm of build/worker, in ms.
const (
	debounce    = 20
	replanEvery = 5_000 // +-20 %
	declineFor  = 120_000
)

// Run is one build on one drone. A build is: fetch the root; wait until the
// claim has settled; compile; store; report.
type Run struct {
	spec    *Spec
	claimed int64 // when the claim was made
	fetched bool
	won     bool
	began   int64 // when it began to compile; 0 = not yet
	ends    int64 // when it will be done, as things stand
	left    int64 // with a frozen machine: ms still to do
	invest  int64 // ms compiled up to the last freeze
	since   int64 // last freeze or began
	est     int64 // what the drone thinks it takes, ms
	gen     int   // what was planned for another generation is void
}

// drone behaves as build/worker does, on virtual builds.
type drone struct {
	n     *Node
	auto  bool // takes what the plan gives it
	speed int64
	slots int

	memory    *plan.Memory
	scheduler plan.Scheduler
	affinity  plan.Affinity
	peers     []claims.Peer
	ready     []claims.Candidate
	seen      []int64 // with LazyBeats: the newest taken, per node

	running map[build.Key]*Run
	planAt  int64
	has     map[int][][]byte // own blobs by shard; survives a crash
	pending []build.Outcome  // stored but not on the journal; survives a crash
	serial  int              // outcomes so far, so that no two artifacts are equal
	idle    int64            // since when nothing runs; long ago = since it started
	// waiting is since when a job is given, by this drone's own schedule, to
	// drones that could start it at once; for the law of three Beats.
	waiting map[build.Key]int64

	cached []build.Key         // jobs whose roots it has, the last used at the end
	setups map[build.Key]int64 // what setup found
}

func newDrone(n *Node, speed int64, slots int) *drone {
	return &drone{n: n, auto: true, speed: speed, slots: slots, memory: plan.NewMemory(), idle: -1 << 40, running: map[build.Key]*Run{}, has: map[int][][]byte{}, waiting: map[build.Key]int64{}, setups: map[build.Key]int64{}}
}

func (d *drone) report() claims.Beat {
	b := claims.Beat{
		Nick: d.n.Name, Slots: d.slots, Cores: int(d.speed / 1000), Speed: d.speed, DiskMiB: 1 << 20, Accepting: d.slots > 0,
		Steady: true, Stores: true, StoreFree: 1 << 40, Builders: []build.Builder{build.BuilderSample},
	}
	if d.n.w.Affinity {
		b.Roots, b.InstallMS = d.kept(), rootEach
	}
	return b
}

// millis is how long a build takes here.
func (d *drone) millis(work, serial int64) int64 {
	return serial + work*1000*int64(d.slots)/d.speed + 1
}

// changed is what the worker does when the board has changed.
func (d *drone) changed() {
	if d.auto && len(d.running) < d.slots {
		d.kick(debounce)
	}
}

// kick sets the time of the next replan, as resetting a timer does.
func (d *drone) kick(ms int64) {
	if !d.auto || d.slots == 0 {
		return
	}
	t := d.n.w.now + ms
	d.planAt = t
	d.n.later(ms, func() {
		if d.planAt == t {
			d.replan()
		}
	})
}

// replan is worker.replan: claim jobs for the free slots, one after another.
func (d *drone) replan() {
	n := d.n
	life := n.life
	for range d.slots {
		if len(d.running) >= d.slots {
			return
		}
		k, ok := d.choose()
		if !ok {
			break
		}
		work := n.rep.Work(n.rep.Job(k))
		n.step(claims.Take{Key: k})
		if n.life != life {
			return
		}
		if !slices.ContainsFunc(n.rep.Held(), func(b claims.BeatJob) bool { return b.Key == k }) {
			break
		}
		d.start(k, work)
	}
	d.kick(replanEvery*4/5 + n.w.rng.Int64N(replanEvery*2/5))
}

// choose is worker.choose.
func (d *drone) choose() (build.Key, bool) {
	n, w := d.n, d.n.w
	r, now := n.rep, n.now()
	if w.LazyBeats {
		if w.nothingFree() || w.large() && w.inVain(d) {
			d.memory.Note(nil, nil, now.Boot)
			clear(d.waiting)
			return "", false // with nothing free there is nothing to look up
		}
		d.takeBeats()
	}
	if ok, _ := r.MayClaim(); !ok {
		clear(d.waiting)
		return "", false
	}
	if _, paused := r.Paused(n.ID); paused {
		clear(d.waiting)
		return "", false
	}
	k, ok, all := d.plan(now)
	d.memory.Note(all, d.peers, now.Boot)
	d.watch(all)
	return k, ok && d.running[k] == nil
}

// plan computes the schedule as this drone sees things.
func (d *drone) plan(now claims.Now) (build.Key, bool, []plan.Assignment) {
	n, w := d.n, d.n.w
	r := n.rep
	w.Stats.Plans++
	d.peers = r.AppendPeers(d.peers[:0], now)
	d.ready = r.Ready(d.ready[:0], plan.Limit(len(d.peers)), now)
	v := plan.View{
		Ready: d.ready, Peers: d.peers, Passed: d.memory.Scarred,
		Excluded: func(k build.Key, peer string) bool {
			if _, no := r.Declined(k, peer, now); no {
				return true
			}
			return r.FailedOn(k, peer) || d.memory.Passed(k, peer)
		},
	}
	if w.Affinity {
		v.Setup = d.affinity.Setup(d.peers, r.Job)
	}
	return d.scheduler.Next(&v, n.ID)
}

// takeBeats gives the replica the newest Beats that have arrived.
func (d *drone) takeBeats() {
	if len(d.seen) != len(d.n.w.Nodes) {
		d.seen = make([]int64, len(d.n.w.Nodes))
	}
	if beats := d.n.w.net.takeBeats(d.n, d.seen); len(beats) > 0 {
		d.n.receiveQuietly(beats)
	}
}

// takeOften takes them at the latest every four periods: a lease is six.
func (d *drone) takeOften() {
	d.n.later(4*d.n.w.beatPeriod(), func() {
		d.takeBeats()
		d.takeOften()
	})
}

// watch keeps since when a job could be started at once by somebody and is not.
func (d *drone) watch(all []plan.Assignment) {
	now := d.n.w.now
	idle := make(map[build.Key]bool, len(all))
	for _, a := range all {
		if a.Start == 0 {
			idle[a.Key] = true
			if _, ok := d.waiting[a.Key]; !ok {
				d.waiting[a.Key] = now
			}
		}
	}
	maps.DeleteFunc(d.waiting, func(k build.Key, _ int64) bool { return !idle[k] })
}

// start begins a build that was just claimed.
func (d *drone) start(k build.Key, work int64) {
	n, w := d.n, d.n.w
	r := &Run{spec: w.specs[k], claimed: w.now, est: work * 1000 * int64(d.slots) / d.speed}
	d.running[k] = r
	clear(d.waiting)
	r.spec.held = true
	w.Stats.Claims++
	w.Trace.add(w.now, n, "claim", r.spec.Name, "")
	fetch := int64(0)
	if w.Fetch > 0 {
		fetch = w.Fetch/10 + w.rng.Int64N(w.Fetch)
	}
	n.later(fetch, func() {
		if d.running[k] == r {
			r.fetched = true
			d.enter(r)
		}
	})
}

// take claims a job whatever the plan says: what scripts do.
func (d *drone) take(k build.Key) {
	n := d.n
	work := n.rep.Work(n.rep.Job(k))
	n.step(claims.Take{Key: k})
	if n.up && slices.ContainsFunc(n.rep.Held(), func(b claims.BeatJob) bool { return b.Key == k }) {
		d.start(k, work)
	}
}

// won is the board's word that a claim has settled.
func (d *drone) won(k build.Key) {
	n := d.n
	n.later(0, func() { // a message to another goroutine: never inside the step
		if r := d.running[k]; r != nil {
			r.won = true
			d.enter(r)
		}
	})
}

// enter begins to compile when everything is there.
func (d *drone) enter(r *Run) {
	if !r.won || !r.fetched || r.began > 0 {
		return
	}
	n, w := d.n, d.n.w
	r.began, r.since = w.now, w.now
	need := d.millis(r.spec.Work, r.spec.Serial)
	if w.Unpack {
		need = max(1, need-(w.now-r.claimed))
	}
	setup := d.setup(r.spec.Job.Key)
	need += setup
	r.est += setup
	d.keep(r.spec.Job.Key)
	w.compiles(n, r)
	d.finishIn(r, need)
	d.tell(r)
	d.tellOften(r)
}

func (d *drone) finishIn(r *Run, ms int64) {
	r.gen++
	gen := r.gen
	r.ends = d.n.w.now + ms
	d.n.later(ms, func() {
		if d.running[r.spec.Job.Key] == r && r.gen == gen {
			d.complete(r)
		}
	})
}

// invested is how long a build has compiled, in ms of its machine's being awake.
func (r *Run) invested(now int64) int64 {
	if r.began == 0 {
		return 0
	}
	if r.left > 0 {
		return r.invest
	}
	return r.invest + now - r.since
}

// tell gives the board this build's progress, as worker.tell does.
func (d *drone) tell(r *Run) {
	j := claims.BeatJob{Key: r.spec.Job.Key, Phase: "compile", Compiling: true, InvestedMS: r.invested(d.n.w.now)}
	expect := r.est
	if r.spec.Warp > 0 && r.began > 0 {
		e := d.n.rep.Estimate(&r.spec.Job)
		j.Done = min(990, int64(1000*r.spec.Scale*math.Pow(float64(j.InvestedMS)/float64(max(1, j.InvestedMS+r.ends-d.n.w.now)), r.spec.Warp)))
		expect = claims.Whole(r.est, j.InvestedMS, j.Done, e.Deviation(), e.Measured)
	}
	j.LeftMS = claims.Left(expect, j.InvestedMS)
	d.n.step(claims.Progress{Job: j})
}

func (d *drone) tellOften(r *Run) {
	if d.n.w.Progress <= 0 {
		return
	}
	gen := r.gen
	d.n.later(d.n.w.Progress, func() {
		if d.running[r.spec.Job.Key] == r && r.gen == gen {
			d.tell(r)
			d.tellOften(r)
		}
	})
}

// complete stores the artifact, says so, and then reports the outcome.
func (d *drone) complete(r *Run) {
	n, w, k := d.n, d.n.w, r.spec.Job.Key
	life := n.life
	took := r.invested(w.now)
	out := build.Outcome{Key: k, CPV: r.spec.Job.CPV, Target: "t", Class: build.Good,
		Started: uint64(hlc.New(epochWall + r.began + n.skew)), Millis: took, CoreMillis: r.spec.Work}
	if w.NoLearning {
		out.CoreMillis = 0
	}
	if r.spec.Class != "" {
		out.Class, out.Reason = r.spec.Class, "it does so in this script"
	}
	delete(d.running, k)
	d.idle = w.now
	w.built(n, r, took, out.Class)
	if out.Class == build.Good {
		d.serial++
		c := cas.Sum([]byte(string(k) + n.Name + strconv.Itoa(d.serial)))
		out.Artifact = &build.Artifact{CID: c.String(), Size: 1}
		d.pending = append(d.pending, out)
		d.announce(c.String())
		if n.life != life {
			return
		}
	}
	n.step(claims.Finished{Outcome: out})
	if n.life != life {
		return
	}
	d.pending = slices.DeleteFunc(d.pending, func(o build.Outcome) bool { return o.Key == k })
	if out.Class == build.BadMachine || out.Class == build.BadNetwork {
		n.step(claims.Post{Body: claims.Decline{Key: k, Peer: n.ID, Until: hlc.New(n.now().Wall + declineFor), Reason: out.Reason}})
	}
	if out.Artifact != nil {
		w.copies(n, out.Artifact.CID)
	}
	d.kick(0)
}

// announce puts a blob on this peer's list.
func (d *drone) announce(cidText string) {
	c, err := cas.Parse(cidText)
	if err != nil {
		return // made by cas.Sum above
	}
	sum, err := cas.Digest(c)
	if err != nil {
		return
	}
	shard := int(sum[0]) % claims.HoldShards
	d.has[shard] = append(d.has[shard], sum[:])
	slices.SortFunc(d.has[shard], slices.Compare[[]byte])
	d.n.step(claims.Post{Body: claims.Holdings{Shard: shard, CIDs: slices.Clone(d.has[shard])}})
}

// holds reports whether this machine has a blob, whatever the board says.
func (d *drone) holds(cidText string) bool {
	c, err := cas.Parse(cidText)
	if err != nil {
		return false
	}
	sum, err := cas.Digest(c)
	if err != nil {
		return false
	}
	_, found := slices.BinarySearchFunc(d.has[int(sum[0])%claims.HoldShards], sum[:], slices.Compare[[]byte])
	return found
}

// stop is the board's order to end a build.
func (d *drone) stop(k build.Key, reason string) {
	r := d.running[k]
	if r == nil {
		return
	}
	w := d.n.w
	delete(d.running, k)
	d.idle = w.now
	w.Trace.add(w.now, d.n, "stop", r.spec.Name, reason)
	if w.OnStop != nil {
		w.OnStop(d.n, r, reason)
	}
	if r.began > 0 {
		w.Stats.Stops++
	}
	w.release(d.n, r)
	w.waste(d, r)
	d.n.later(0, func() { d.kick(0) })
}

// stopAll ends every build because the daemon stops.
func (d *drone) stopAll() {
	for _, k := range slices.Sorted(maps.Keys(d.running)) {
		if d.running[k] == nil {
			return // it crashed on the way
		}
		d.n.w.waste(d, d.running[k])
		delete(d.running, k)
		d.n.step(claims.GiveBack{Key: k, Reason: "the daemon stops"})
	}
}

// adopt is worker.adopt: report what was finished and not reported, give back
// what was claimed and not finished.
func (d *drone) adopt() {
	life := d.n.life
	for _, out := range d.pending {
		d.n.step(claims.Finished{Outcome: out})
		if d.n.life != life {
			return
		}
	}
	d.pending = nil
	d.n.step(claims.Abandon{Reason: "the daemon was restarted"})
	if d.n.life == life {
		d.correct()
	}
}

// correct makes this peer's lists on the board say what its disk holds, as the
// daemon does again and again: a clone may have written them.
func (d *drone) correct() {
	life := d.n.life
	for shard := range claims.HoldShards {
		said := d.n.rep.OwnHoldings(shard)
		if slices.EqualFunc(said, d.has[shard], func(a [32]byte, b []byte) bool { return string(a[:]) == string(b) }) {
			continue
		}
		d.n.step(claims.Post{Body: claims.Holdings{Shard: shard, CIDs: slices.Clone(d.has[shard])}})
		if d.n.life != life {
			return
		}
	}
	d.n.later(60_000, d.correct)
}

func (d *drone) crash() {
	for _, k := range slices.Sorted(maps.Keys(d.running)) {
		r := d.running[k]
		d.n.w.Stats.Lost += d.cost(r)
		d.n.w.release(d.n, r)
	}
	clear(d.running)
	clear(d.waiting)
	d.memory = plan.NewMemory()
}

func (d *drone) freeze() {
	clear(d.waiting)
	for _, r := range d.running {
		if r.began > 0 {
			r.invest = r.invested(d.n.w.now)
			r.left = max(1, r.ends-d.n.w.now)
			r.gen++
		}
	}
}

func (d *drone) thaw() {
	for _, k := range slices.Sorted(maps.Keys(d.running)) {
		r := d.running[k]
		if r.began > 0 && r.left > 0 {
			left := r.left
			r.left, r.since = 0, d.n.w.now
			d.finishIn(r, left)
			d.tellOften(r)
		}
	}
}

// cost of a build so far, in core-milliseconds of its slot.
func (d *drone) cost(r *Run) int64 {
	return r.invested(d.n.w.now) * (d.speed / 1000) / int64(d.slots)
}

func (w *World) waste(d *drone, r *Run) { w.Stats.Wasted += d.cost(r) }

// release notes that a drone no longer holds a job.
func (w *World) release(n *Node, r *Run) {
	for _, o := range w.Nodes {
		if o != n && o.drone.running[r.spec.Job.Key] != nil {
			return
		}
	}
	r.spec.held = false
}

// compiles notes that a build began to compile.
func (w *World) compiles(n *Node, r *Run) {
	w.Stats.Compiles++
	k := r.spec.Job.Key
	twice := ""
	if _, built := w.done[k]; built {
		twice = "built already"
	}
	for _, o := range w.Nodes {
		if other := o.drone.running[k]; o != n && o.up && other != nil && other.began > 0 {
			twice = "also on " + o.Name
		}
	}
	if twice != "" {
		w.Stats.Twice++
	}
	w.Trace.add(w.now, n, "compile", r.spec.Name, twice)
}

// built notes the end of a build.
func (w *World) built(n *Node, r *Run, took int64, class build.Class) {
	k := r.spec.Job.Key
	cost := took * (n.drone.speed / 1000) / int64(n.drone.slots)
	w.Trace.add(w.now, n, "built", r.spec.Name, string(class))
	if class != build.Good {
		w.Stats.Wasted += cost
		return
	}
	if _, again := w.done[k]; again {
		w.Stats.Wasted += cost
		return
	}
	w.Stats.Useful += cost
	w.done[k] = w.now
	delete(w.open, r.spec)
	for _, u := range r.spec.users {
		if u.missing--; u.missing == 0 {
			w.open[u], u.opened = true, w.now
		}
	}
	w.Stats.Makespan = w.now
}

// copies lets other peers pull an artifact: those of another site first, then
// at random. What the replicator does, without its reasons.
func (w *World) copies(from *Node, cidText string) {
	if w.Copies == 0 {
		return
	}
	var there, here []*Node
	for _, n := range w.Nodes {
		switch {
		case n == from || !n.up:
		case n.Site != from.Site:
			there = append(there, n)
		default:
			here = append(here, n)
		}
	}
	left := w.Copies
	pick := func(from *Node, list []*Node, max int) []*Node {
		for ; max > 0 && left > 0 && len(list) > 0; max, left = max-1, left-1 {
			i := w.rng.IntN(len(list))
			n := list[i]
			list = slices.Delete(list, i, i+1)
			w.pull(from, n, cidText)
		}
		return list
	}
	there = pick(from, there, 1)
	pick(from, append(here, there...), w.Copies)
}

// pull brings a blob to a node, when the network allows.
func (w *World) pull(from, to *Node, cidText string) {
	wait := w.CopyDelay/4 + w.rng.Int64N(w.CopyDelay)
	life := to.life
	w.At(w.now+wait, func() {
		switch {
		case to.life != life || !from.up:
		case w.net.cut[from.n][to.n] || !to.Up() || !from.Up():
			w.pull(from, to, cidText)
		default:
			to.drone.announce(cidText)
		}
	})
}

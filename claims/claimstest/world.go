package claimstest

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/wire"
)

// heldLong is after how long everybody has surely heard of a claim that gossip
// did not bring to all: two periods of anti-entropy, in ms.
const heldLong = 60_000

// epochWall is the wall time at virtual time 0, in milliseconds since 1970.
const epochWall = 1_800_000_000_000

// Spec is one job with what it really costs, which no drone knows before.
type Spec struct {
	Job     build.Job
	Name    string
	Work    int64   // core-milliseconds that scale with the cores
	Serial  int64   // milliseconds that do not
	Warp    float64 // see Task, like Scale
	Scale   float64
	users   []*Spec
	missing int   // jobs before it that nobody has built
	held    bool  // by some drone
	heard   int64 // when all have heard of its newest claim
	most    int64 // when all but deaf have
	deaf    []*Node
	opened  int64 // since when it waits for nothing
	// Class is what its builds come to; "" = good.
	Class build.Class
}

// NewSpec makes a job of a sample package. estimate and work are in
// core-milliseconds; before are the jobs that must be available first.
func NewSpec(name string, estimate, work, serial int64, before ...build.Key) (Spec, error) {
	pre := []build.Facet{{Name: "CPV", Value: "app-misc/" + name + "-1"}}
	k, err := build.KeyOf(pre)
	if err != nil {
		return Spec{}, err
	}
	cpv, err := build.ParseCPV("app-misc/" + name + "-1")
	if err != nil {
		return Spec{}, err
	}
	j := build.Job{Key: k, Builder: build.BuilderSample, CPV: cpv, Slot: "0", Repo: "sim", Preimage: pre, CoreMillis: estimate}
	for _, b := range before {
		j.Needs = append(j.Needs, build.Edge{Key: b, Kind: build.Buildtime})
	}
	return Spec{Job: j, Name: name, Work: work, Serial: serial}, nil
}

// Stats are the figures of a run, taken from what happened in the world, not
// from what the drones say.
type Stats struct {
	Claims   int // claims opened
	Compiles int // builds that began to compile
	Twice    int // of these, begun while the job was built or compiled elsewhere
	// Useful and Wasted are core-milliseconds: of the first build that ended
	// well of each job, and of every other. Lost is what died with its drone.
	Useful, Wasted, Lost int64
	Makespan             int64 // when the last job was built
	Records, Beats       int   // published
	Plans                int   // times a drone computed the schedule
	Stops                int   // compiling builds ended by the board
}

// World is one simulated swarm. Make one with NewWorld, add peers, then Run.
// It is for one goroutine.
type World struct {
	// OnStop lets a law look on when the board ends a build; it may be nil.
	OnStop func(n *Node, r *Run, reason string)

	Nodes []*Node
	Stats Stats
	Trace Trace

	rng    *rand.Rand
	now    int64
	queue  queue
	byID   map[string]*Node
	net    *network
	specs  map[build.Key]*Spec
	order  []build.Key
	plan   *build.Plan
	posted bool                   // the round
	done   map[build.Key]int64    // first good outcome, virtual ms
	open   map[*Spec]bool         // not built, and waiting for nothing
	bodies map[*byte]opened       // by a record's raw bytes, which all peers share
	roots  map[build.Key]packages // with Roots

	Options
}

// Options say how the drones of a world go about it.
type Options struct {
	Net NetOptions
	// Progress is how often a drone notes how its build stands, in ms.
	Progress int64
	// Fetch is the longest time that fetching a root takes, in ms; the
	// shortest is a tenth of it.
	Fetch int64
	// Copies is how many peers beside the builder pull each artifact, and
	// CopyDelay how long that takes at the most, in ms.
	Copies    int
	CopyDelay int64
	// Unpack counts the settle delay as part of the build: fetching and
	// unpacking, which every build begins with, happen meanwhile.
	Unpack bool
	// LazyBeats hands a Beat to a drone only when it is about to look: see
	// doc.go.
	LazyBeats bool
	// Unsigned leaves records without a signature, which is most of the cost of
	// a long run in which nobody checks one.
	Unsigned bool
	// Roots makes every build set up a root first, which takes time; Affinity
	// lets drones say which they keep, and the schedule heed it.
	Roots, Affinity bool
	// NoLearning leaves the measured work out of outcomes: where each package
	// is built once there is nothing to learn from it.
	NoLearning bool
}

type opened struct {
	rec  wire.Opened
	body claims.Body
}

// NewWorld makes an empty world whose every choice follows from seed.
func NewWorld(seed uint64, opt Options, specs []Spec) *World {
	w := &World{
		rng: rand.New(rand.NewPCG(seed, 0x5eed)), byID: map[string]*Node{}, specs: map[build.Key]*Spec{},
		done: map[build.Key]int64{}, bodies: map[*byte]opened{}, open: map[*Spec]bool{}, Options: opt, plan: &build.Plan{Target: "t"},
	}
	w.net = newNetwork(w, opt.Net)
	for i := range specs {
		s := &specs[i]
		w.specs[s.Job.Key] = s
		w.order = append(w.order, s.Job.Key)
		w.plan.Jobs = append(w.plan.Jobs, s.Job)
		for _, k := range s.Job.Before() {
			w.specs[k].users = append(w.specs[k].users, s)
			s.missing++
		}
		if s.missing == 0 {
			w.open[s] = true
		}
	}
	if w.Roots {
		w.roots = w.closures()
		w.giveRoots()
	}
	return w
}

// Now is the virtual time in milliseconds.
func (w *World) Now() int64 { return w.now }

// At plans f for a time, at the earliest now.
func (w *World) At(t int64, f func()) { w.queue.push(max(t, w.now), f) }

// RunUntil runs to a virtual time, or until stop says so.
func (w *World) RunUntil(t int64, stop func() bool) {
	for len(w.queue.items) > 0 && w.queue.items[0].at <= t {
		h := w.queue.pop()
		w.now = h.at
		h.do()
		if stop != nil && stop() {
			return
		}
	}
	w.now = max(w.now, t)
}

// Done reports whether every job has been built by somebody.
func (w *World) Done() bool { return len(w.done) == len(w.order) }

// name of a job, for traces.
func (w *World) name(k build.Key) string {
	if s := w.specs[k]; s != nil {
		return s.Name
	}
	return k.Short()
}

// nothingFree says that no drone can find anything to claim, in whatever view:
// each job is built, or waits for one that is not, or is held by a drone whose
// claim has reached everybody. It knows more than a drone does, so it
// only ever saves a drone from looking in vain.
func (w *World) nothingFree() bool {
	if w.net.disturbed {
		return false
	}
	if !w.posted && w.large() {
		return true
	}
	for s := range w.open {
		if !s.held || w.now < s.heard {
			return false
		}
	}
	return true
}

// keyOf returns the key of a job by its name.
func (w *World) keyOf(name string) (build.Key, error) {
	for _, s := range w.specs {
		if s.Name == name {
			return s.Job.Key, nil
		}
	}
	return "", fmt.Errorf("no job %q", name)
}

// AddNode adds a peer that is not running yet.
func (w *World) AddNode(name string, speed int64, slots int, settle int64) *Node {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(len(w.Nodes)+1))
	key := ed25519.NewKeyFromSeed(seed[:])
	n := &Node{
		w: w, n: len(w.Nodes), Name: name, key: key, ID: wire.PeerID(key.Public().(ed25519.PublicKey)),
		journal: map[string]wire.Opened{}, settle: settle, boot0: w.rng.Int64N(1 << 40), Site: len(w.Nodes) % 2,
	}
	n.drone = newDrone(n, speed, slots)
	w.Nodes = append(w.Nodes, n)
	w.byID[n.ID] = n
	w.net.grow()
	return n
}

// addClone adds a second machine with the identity and the board of a peer.
// What is addressed to the peer goes to the first: over libp2p the two count as
// one, too. Gossip of both reaches everybody.
func (w *World) addClone(of *Node) *Node {
	c := w.AddNode(of.Name+"'", of.drone.speed, of.drone.slots, of.settle)
	c.key, c.ID, c.skew, c.journal = of.key, of.ID, of.skew, maps.Clone(of.journal)
	w.byID[of.ID] = of
	return c
}

// know remembers a record with its decoded body, so that it is decoded and its
// signature checked once for all peers: the bytes are shared.
func (w *World) know(o wire.Opened) opened {
	raw := &o.Raw()[0]
	if k, ok := w.bodies[raw]; ok {
		return k
	}
	body, err := claims.Validate(o)
	if err != nil {
		// Validated again, and refused, by whoever gets it.
		return opened{rec: o}
	}
	k := opened{o, body}
	w.bodies[raw] = k
	if n := w.byID[o.Author()]; n != nil && o.Type() == claims.TypeBeat {
		// An old Beat is news to nobody.
		old := &n.told[n.tells%len(n.told)]
		n.tells++
		if *old != nil {
			delete(w.bodies, *old)
		}
		*old = raw
	}
	return k
}

// PostRound makes a peer post the round of all jobs.
func (w *World) PostRound(n *Node) {
	w.posted = true
	n.step(claims.Post{Body: claims.NewRound(build.Round{
		ID: "r1", Target: "t", Priority: build.Normal, Requester: n.ID, State: build.RoundOpen, Counter: 1,
		Created: uint64(n.rep.Stamp(n.now())), Jobs: len(w.order), PlanCID: "plan",
	})})
}

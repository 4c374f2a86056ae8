package claimstest

import (
	"crypto/ed25519"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/wire"
)

// suspendNotice is the least suspend that a peer notices, as the agent's.
const suspendNotice = 5_000

// Node is one peer: the real Replica with a virtual machine around it. What
// the agent does with effects, step does here.
type Node struct {
	Name string
	ID   string
	Site int // copies of blobs are spread over sites

	w       *World
	n       int
	key     ed25519.PrivateKey
	rep     *claims.Replica
	journal map[string]wire.Opened
	drone   *drone
	settle  int64

	up   bool
	gone bool // for good: a clone that was switched off
	// restored counts how often the peer was set back to an older journal.
	restored int
	asleep   bool
	slept    int64 // when it fell asleep
	life     int   // counts starts and crashes; what was planned in another life is void
	skew     int64 // wall clock against the true one
	boot0    int64
	wakeAt   int64
	// crashAfterPersist makes the next write of the journal the last thing
	// this process does: nothing after it is told to anybody.
	crashAfterPersist bool

	told  [64]*byte // its newest Beats, in World.bodies
	tells int
}

// Replica is the running board; nil while the peer is down.
func (n *Node) Replica() *claims.Replica { return n.rep }

// Up reports whether the peer runs and is awake.
func (n *Node) Up() bool { return n.up && !n.asleep }

func (n *Node) now() claims.Now {
	return claims.Now{Wall: epochWall + n.w.now + n.skew, Boot: n.boot0 + n.w.now}
}

// Start runs the peer from its journal. Its builds of an earlier life are gone.
func (n *Node) Start() {
	n.life++
	n.up, n.asleep, n.crashAfterPersist = true, false, false
	n.wakeAt = 0
	keys := slices.Sorted(maps.Keys(n.journal))
	recs := make([]wire.Opened, len(keys))
	for i, k := range keys {
		recs[i] = n.journal[k]
	}
	rng := rand.New(rand.NewPCG(n.w.rng.Uint64(), 1))
	cfg := claims.Config{Key: n.key, Instance: rng.Uint64() | 1, Settle: n.settle, Rand: rng}
	if n.w.Unsigned {
		cfg.Sign = func([]byte) []byte { return make([]byte, ed25519.SignatureSize) }
	}
	n.rep = claims.NewReplica(cfg, recs, n.now())
	n.w.Trace.add(n.w.now, n, "start", "", "")
	n.step(claims.Report{Beat: n.drone.report()})
	n.loadPlans()
	n.w.net.started(n)
	n.drone.adopt()
	n.drone.kick(0)
	if n.w.LazyBeats {
		n.drone.takeOften()
	}
}

// Crash ends the process where it stands; the journal stays.
func (n *Node) Crash(why string) {
	if !n.up {
		return
	}
	n.w.Trace.add(n.w.now, n, "crash", "", why)
	n.life++
	n.up, n.asleep, n.rep = false, false, nil
	n.drone.crash()
	n.w.net.stopped(n)
}

// Leave stops the peer in an orderly way: claims go back first.
func (n *Node) Leave() {
	if !n.Up() {
		return
	}
	life := n.life
	n.drone.stopAll()
	if n.life != life {
		return // it crashed on the way
	}
	n.step(claims.Leave{})
	n.Crash("left")
}

// Suspend stops the machine; builds and clocks but BOOTTIME stand still.
func (n *Node) Suspend() {
	if !n.Up() {
		return
	}
	n.asleep, n.slept = true, n.w.now
	n.drone.freeze()
	n.w.Trace.add(n.w.now, n, "suspend", "", "")
}

// Resume lets it go on.
func (n *Node) Resume() {
	if !n.up || !n.asleep {
		return
	}
	n.asleep = false
	n.w.Trace.add(n.w.now, n, "resume", "", "")
	n.drone.thaw()
	if n.w.now-n.slept > suspendNotice {
		n.step(claims.Resumed{})
	} else {
		n.step(claims.Tick{})
	}
	n.drone.kick(0)
}

// SetSkew sets how wrong the wall clock is, in ms.
func (n *Node) SetSkew(ms int64) {
	n.skew = ms
	n.w.Trace.add(n.w.now, n, "clock", "", "")
}

// step gives the replica one event and carries its effects out.
func (n *Node) step(ev claims.Event) {
	life := n.life
	effects := n.rep.Step(n.now(), ev)
	for _, e := range effects {
		n.effect(e)
		if n.life != life {
			return // it crashed on the way
		}
	}
	if _, tick := ev.(claims.Tick); !tick || len(effects) > 0 {
		n.drone.changed()
	}
	n.sleepUntil(n.rep.NextWake(n.now()) - n.boot0)
}

func (n *Node) effect(e claims.Effect) {
	w := n.w
	switch e := e.(type) {
	case claims.Persist:
		for _, k := range e.Drop {
			delete(n.journal, k)
		}
		for _, o := range e.Put {
			n.journal[o.Key()] = o
		}
		if n.crashAfterPersist && len(e.Put) > 0 {
			n.Crash("between journal and network")
		}
	case claims.Publish:
		w.net.publish(n, w.know(e.Record))
	case claims.Send:
		w.net.send(n, e.Peer, e.Msg)
	case claims.Won:
		n.drone.won(e.Key)
	case claims.Stop:
		n.drone.stop(e.Key, e.Reason)
	case claims.Alarm:
		w.Trace.add(w.now, n, "alarm", "", e.Code)
	case claims.WantPlan:
		n.later(100, n.loadPlans)
	}
}

// later plans f unless this life of the peer ends before; a sleeper does it
// when it wakes.
func (n *Node) later(ms int64, f func()) {
	life := n.life
	n.w.At(n.w.now+ms, func() { n.whenAwake(life, f) })
}

func (n *Node) whenAwake(life int, f func()) {
	switch {
	case n.life != life:
	case n.asleep:
		n.w.At(n.w.now+1000, func() { n.whenAwake(life, f) })
	default:
		f()
	}
}

func (n *Node) loadPlans() {
	for _, rd := range n.rep.MissingPlans() {
		n.step(claims.PlanLoaded{Round: rd.ID, Plan: n.w.plan})
	}
}

// sleepUntil makes the peer step at a virtual time at the latest.
func (n *Node) sleepUntil(t int64) {
	if n.wakeAt > n.w.now && n.wakeAt <= t {
		return
	}
	n.wakeAt = t
	life := n.life
	n.w.At(t, func() {
		if n.wakeAt == t {
			n.whenAwake(life, func() { n.step(claims.Tick{}) })
		}
	})
}

// receive takes a record that arrived.
func (n *Node) receive(from string, o opened) {
	if !n.Up() {
		return
	}
	if o.body == nil {
		n.step(claims.Received{From: from, Records: []wire.Opened{o.rec}})
		return
	}
	n.step(claims.Validated{From: from, Records: []wire.Opened{o.rec}, Bodies: []claims.Body{o.body}})
}

// receiveSync takes a message of the exchange, as the agent does.
func (n *Node) receiveSync(from *Node, m claims.SyncMessage) {
	if !n.Up() {
		return
	}
	life := n.life
	if len(m.Records) > 0 {
		ev := claims.Validated{From: from.ID}
		for _, raw := range m.Records {
			k, ok := n.w.bodies[&raw[0]]
			if !ok {
				o, err := wire.Open(raw)
				if err != nil {
					continue // with Unsigned, a Beat too old to matter
				}
				if k = n.w.know(o); k.body == nil {
					continue
				}
			}
			ev.Records = append(ev.Records, k.rec)
			ev.Bodies = append(ev.Bodies, k.body)
		}
		n.step(ev)
	}
	m.Records = nil
	if n.life == life {
		n.step(claims.Synced{From: from.ID, Msg: m})
	}
}

// receiveQuietly takes Beats that had arrived before the drone looked: they
// are no reason to look again.
func (n *Node) receiveQuietly(beats []opened) {
	ev := claims.Validated{From: beats[0].rec.Author()}
	for _, o := range beats {
		ev.Records, ev.Bodies = append(ev.Records, o.rec), append(ev.Bodies, o.body)
	}
	for _, e := range n.rep.Step(n.now(), ev) {
		n.effect(e)
	}
}

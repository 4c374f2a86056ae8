package claimstest

import (
	"slices"

	"github.com/build-swarm/swarm/claims"
)

// NetOptions describe how messages travel.
type NetOptions struct {
	MinDelay, MaxDelay int64 // per hop, ms
	// Loss is how many of 1,000 messages a hop loses. On a mesh a lost one is
	// repaired by gossip after RepairDelay; between neighbours it is gone.
	Loss int
	// Miss is how many of 1,000 deliveries on a mesh only anti-entropy makes.
	Miss int
	// Duplicate is how many of 1,000 messages arrive twice.
	Duplicate int
	// Degree is the least number of neighbours in the gossip mesh; 0 = no
	// mesh: a message goes to every connected peer and is relayed by none,
	// which is worse than gossip and so the harder test.
	Degree      int
	RepairDelay int64
}

// mostConnected is up to how many nodes are all connected to one another; in a
// larger swarm each knows its neighbours in the mesh.
const mostConnected = 200

// network carries messages between the nodes of one world.
type network struct {
	w   *World
	opt NetOptions

	cut    [][]bool // cut[a][b]: nothing goes from a to b
	linked [][]bool // both think they are connected
	lastTo [][]int64
	mesh   [][]int
	// disturbed says that some cannot hear others, or that machines died:
	// for a while drones see different boards.
	disturbed bool
	latest    [][]beatAt // with LazyBeats: per sender, newest last

	dist []int64 // scratch of flood
}

type beatAt struct {
	at int64
	o  opened
}

func newNetwork(w *World, opt NetOptions) *network { return &network{w: w, opt: opt} }

func (t *network) grow() {
	for i := range t.cut {
		t.cut[i] = append(t.cut[i], false)
		t.linked[i] = append(t.linked[i], false)
		t.lastTo[i] = append(t.lastTo[i], 0)
	}
	n := len(t.cut) + 1
	t.cut = append(t.cut, make([]bool, n))
	t.linked = append(t.linked, make([]bool, n))
	t.lastTo = append(t.lastTo, make([]int64, n))
	t.latest = append(t.latest, nil)
}

// buildMesh links every node to Degree others at random, all of them to all
// where there are nine at the most.
func (t *network) buildMesh() {
	n := len(t.w.Nodes)
	t.mesh = make([][]int, n)
	link := func(a, b int) {
		for _, c := range t.mesh[a] {
			if c == b {
				return
			}
		}
		t.mesh[a] = append(t.mesh[a], b)
		t.mesh[b] = append(t.mesh[b], a)
	}
	for a := range n {
		if n <= 9 {
			for b := range a {
				link(a, b)
			}
			continue
		}
		link(a, (a+1)%n) // a ring, so that the mesh is connected
		for len(t.mesh[a]) < t.opt.Degree {
			if b := t.w.rng.IntN(n); b != a {
				link(a, b)
			}
		}
	}
}

func (t *network) delay() int64 {
	return t.opt.MinDelay + t.w.rng.Int64N(t.opt.MaxDelay-t.opt.MinDelay+1)
}

func (t *network) odds(perMille int) bool {
	return perMille > 0 && t.w.rng.IntN(1000) < perMille
}

// publish gossips a record.
func (t *network) publish(from *Node, o opened) {
	if o.rec.Type() == claims.TypeBeat {
		t.w.Stats.Beats++
		if t.w.LazyBeats && t.mesh != nil {
			t.keepBeat(from, o)
			return
		}
	} else {
		t.w.Stats.Records++
	}
	if t.mesh != nil {
		reached, last := map[*Node]bool{from: true}, t.w.now
		t.flood(from, func(to *Node, at int64) {
			t.deliver(from, to, at, o)
			reached[to], last = true, max(last, at)
		})
		if c, ok := o.body.(claims.Claim); ok {
			t.w.specs[c.Key].claimedBy(t.w, reached, last)
		}
		return
	}
	for _, to := range t.w.Nodes {
		if to == from || !t.linked[from.n][to.n] || t.odds(t.opt.Loss) {
			continue
		}
		t.deliver(from, to, t.w.now+t.delay(), o)
		if t.odds(t.opt.Duplicate) {
			t.deliver(from, to, t.w.now+t.delay()+t.w.rng.Int64N(5000), o)
		}
	}
}

func (t *network) deliver(from, to *Node, at int64, o opened) {
	life := to.life
	t.w.queue.push(at, func() {
		if to.life == life && (t.mesh != nil || !t.cut[from.n][to.n]) {
			to.receive(from.ID, o)
		}
	})
}

// flood finds when a message that starts now reaches each node over the mesh.
func (t *network) flood(from *Node, reach func(to *Node, at int64)) {
	n := len(t.w.Nodes)
	if len(t.dist) != n {
		t.dist = make([]int64, n)
	}
	const never = 1 << 62
	for i := range t.dist {
		t.dist[i] = never
	}
	var q queue
	t.dist[from.n] = t.w.now
	visit := func(a int) {
		for _, b := range t.mesh[a] {
			if t.cut[a][b] || !t.w.Nodes[b].Up() {
				continue
			}
			d := t.dist[a] + t.delay()
			if t.odds(t.opt.Loss) {
				d += t.opt.RepairDelay
			}
			if d < t.dist[b] {
				t.dist[b] = d
				q.items = append(q.items, happening{at: d, seq: uint64(b)})
				for i := len(q.items) - 1; i > 0; {
					up := (i - 1) / 2
					if !q.items[i].before(q.items[up]) {
						break
					}
					q.items[i], q.items[up] = q.items[up], q.items[i]
					i = up
				}
			}
		}
	}
	visit(from.n)
	for len(q.items) > 0 {
		h := q.pop()
		if b := int(h.seq); t.dist[b] == h.at {
			visit(b)
		}
	}
	for b, d := range t.dist {
		if b != from.n && d < never && !t.odds(t.opt.Miss) {
			reach(t.w.Nodes[b], d)
		}
	}
}

// keepBeat keeps a Beat for whoever looks for it.
func (t *network) keepBeat(from *Node, o opened) {
	list := append(t.latest[from.n], beatAt{t.w.now, o})
	if len(list) > 4 {
		list = append(list[:0], list[len(list)-4:]...)
	}
	t.latest[from.n] = list
}

// takeBeats returns for a node the newest Beat of every peer that has arrived.
func (t *network) takeBeats(to *Node, seen []int64) (recs []opened) {
	late := 3 * (t.opt.MinDelay + t.opt.MaxDelay) / 2 // three hops
	for from, list := range t.latest {
		if from == to.n || t.cut[from][to.n] {
			continue
		}
		for i := len(list) - 1; i >= 0; i-- {
			if list[i].at+late <= t.w.now {
				if list[i].at > seen[from] {
					seen[from] = list[i].at
					recs = append(recs, list[i].o)
				}
				break
			}
		}
	}
	return recs
}

// send carries a message of the exchange: a stream, so in order and without
// loss as long as the link stands.
func (t *network) send(from *Node, peer string, m claims.SyncMessage) {
	to := t.w.byID[peer]
	if to == nil || t.cut[from.n][to.n] || !t.linked[from.n][to.n] {
		return
	}
	at := max(t.lastTo[from.n][to.n], t.w.now+t.delay())
	t.lastTo[from.n][to.n] = at
	life := to.life
	t.w.queue.push(at, func() {
		if to.life == life && !t.cut[from.n][to.n] {
			to.receiveSync(from, m)
		}
	})
}

// started connects a node to all it can reach.
func (t *network) started(n *Node) {
	for _, o := range t.w.Nodes {
		if o != n && o.up && (!t.w.large() || slices.Contains(t.mesh[n.n], o.n)) {
			t.connectSoon(n, o)
		}
	}
}

func (t *network) stopped(n *Node) {
	for _, o := range t.w.Nodes {
		if t.linked[n.n][o.n] {
			t.unlink(n, o)
		}
	}
}

func (t *network) connectSoon(a, b *Node) {
	t.w.At(t.w.now+1+t.delay(), func() {
		if a.up && b.up && !t.linked[a.n][b.n] && !t.cut[a.n][b.n] && !t.cut[b.n][a.n] {
			if a.asleep || b.asleep {
				t.w.At(t.w.now+1000, func() { t.connectSoon(a, b) })
				return
			}
			t.linked[a.n][b.n], t.linked[b.n][a.n] = true, true
			a.step(claims.Connected{Peer: b.ID})
			if b.up {
				b.step(claims.Connected{Peer: a.ID})
			}
		}
	})
}

func (t *network) unlink(a, b *Node) {
	t.linked[a.n][b.n], t.linked[b.n][a.n] = false, false
	for _, p := range [2][2]*Node{{a, b}, {b, a}} {
		if p[0].Up() {
			p[0].step(claims.Disconnected{Peer: p[1].ID})
		}
	}
}

// Cut stops everything from a to b. When both directions are cut, both notice
// after some seconds, as TCP does.
func (w *World) Cut(a, b *Node) {
	w.net.cut[a.n][b.n] = true
	if !w.net.cut[b.n][a.n] {
		return
	}
	w.At(w.now+1000+w.rng.Int64N(15_000), func() {
		if w.net.cut[a.n][b.n] && w.net.cut[b.n][a.n] && w.net.linked[a.n][b.n] {
			w.net.unlink(a, b)
		}
	})
}

// Mend lets messages from a to b pass again.
func (w *World) Mend(a, b *Node) {
	w.net.cut[a.n][b.n] = false
	if !w.net.cut[b.n][a.n] && !w.net.linked[a.n][b.n] && a.up && b.up {
		w.At(w.now+w.rng.Int64N(5000), func() { w.net.connectSoon(a, b) })
	}
}

package p2ptest

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/build-swarm/swarm/p2p"
)

// ID is the n-th of a fixed series of real peer IDs; Identity(n) holds its key.
func ID(n int) string { return Identity(n).ID() }

// Identity is the n-th of a fixed series of identities: the same on every run.
func Identity(n int) p2p.Identity {
	var seed [32]byte
	for i := range 8 {
		seed[i] = byte(n >> (8 * i))
	}
	id, err := p2p.NewIdentity(rand.NewChaCha8(seed))
	if err != nil {
		panic(err) // a ChaCha8 never fails: only a broken p2p package comes here
	}
	return id
}

// Net is one in-memory swarm. Its methods may be called from any goroutine.
type Net struct {
	seed uint64

	mu      sync.Mutex
	hosts   map[string]*Host
	links   map[link]*linkState // what is special about a directed link
	latency time.Duration       // one way
	loss    float64
}

// link is a direction; cutting cuts both.
type link struct{ from, to string }

type linkState struct {
	cut     bool
	latency time.Duration // < 0: the net's
	loss    float64       // < 0: the net's
	rng     *rand.Rand
}

// NewNet makes an empty swarm without latency or loss.
func NewNet(seed uint64) *Net {
	return &Net{seed: seed, hosts: map[string]*Host{}, links: map[link]*linkState{}}
}

// Host adds a peer, linked with all others at once. Any text does for an id, as
// long as nothing decodes it; ID(n) gives real ones. The id of a closed host may
// be used again (a restart), that of a living one panics: it is the test's fault.
func (n *Net) Host(id string) *Host {
	n.mu.Lock()
	if n.hosts[id] != nil {
		n.mu.Unlock()
		panic("p2ptest: host " + id + " exists")
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &Host{
		net: n, id: id, ctx: ctx, cancel: cancel,
		handlers: map[string]func(p2p.Stream){}, streams: map[*stream]bool{}, topics: map[string]*topic{},
	}
	n.hosts[id] = h
	n.mu.Unlock()
	n.notify()
	return h
}

// SetLatency sets the one-way delay of every link without one of its own. What is
// on its way keeps the old one.
func (n *Net) SetLatency(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency = d
}

// SetLinkLatency sets the one-way delay between a and b, both ways.
func (n *Net) SetLinkLatency(a, b string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(a, b).latency, n.link(b, a).latency = d, d
}

// SetLoss sets the share of gossip messages that a hop loses, 0 to 1.
func (n *Net) SetLoss(p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = p
}

// SetLinkLoss sets the share of gossip messages lost from one peer to another,
// in this direction alone.
func (n *Net) SetLinkLoss(from, to string, p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(from, to).loss = p
}

// Cut ends the link between a and b: their streams are reset, gossip on its way
// is lost, and both see the other leave.
func (n *Net) Cut(a, b string) { n.setCut(true, [2]string{a, b}) }

// Heal makes the link between a and b again.
func (n *Net) Heal(a, b string) { n.setCut(false, [2]string{a, b}) }

// Partition cuts the hosts into groups that see only themselves; hosts in no
// group are alone. Earlier cuts are forgotten.
func (n *Net) Partition(groups ...[]string) {
	group := map[string]int{}
	for i, g := range groups {
		for _, id := range g {
			group[id] = i + 1
		}
	}
	n.mu.Lock()
	var pairs [][2]string
	for a := range n.hosts {
		for b := range n.hosts {
			if a < b && (group[a] == 0 || group[a] != group[b]) {
				pairs = append(pairs, [2]string{a, b})
			}
		}
	}
	n.mu.Unlock()
	n.HealAll()
	n.setCut(true, pairs...)
}

// HealAll makes every link again.
func (n *Net) HealAll() {
	n.mu.Lock()
	for _, l := range n.links {
		l.cut = false
	}
	n.mu.Unlock()
	n.notify()
}

func (n *Net) setCut(cut bool, pairs ...[2]string) {
	n.mu.Lock()
	var broken []*stream
	for _, p := range pairs {
		a, b := p[0], p[1]
		n.link(a, b).cut, n.link(b, a).cut = cut, cut
		if ha := n.hosts[a]; cut && ha != nil {
			for s := range ha.streams {
				if s.peer == b {
					broken = append(broken, s)
				}
			}
		}
	}
	n.mu.Unlock()
	for _, s := range broken {
		s.breakBoth(errLinkCut)
	}
	n.notify()
}

// link returns the state of a directed link, with the net locked.
func (n *Net) link(from, to string) *linkState {
	k := link{from, to}
	if n.links[k] == nil {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s\x00%s", from, to)
		n.links[k] = &linkState{latency: -1, loss: -1, rng: rand.New(rand.NewPCG(n.seed, h.Sum64()))}
	}
	return n.links[k]
}

// up says whether a message can pass now and how long it takes.
func (n *Net) up(from, to string) (time.Duration, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.upLocked(from, to)
}

func (n *Net) upLocked(from, to string) (time.Duration, bool) {
	l := n.link(from, to)
	if l.cut || n.hosts[from] == nil || n.hosts[to] == nil {
		return 0, false
	}
	if l.latency >= 0 {
		return l.latency, true
	}
	return n.latency, true
}

// loses draws whether the next gossip message on a link is lost.
func (n *Net) loses(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, p := n.link(from, to), n.loss
	if l.loss >= 0 {
		p = l.loss
	}
	return p > 0 && l.rng.Float64() < p
}

func (n *Net) peersOf(id string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for other := range n.hosts {
		if _, ok := n.upLocked(id, other); ok && other != id {
			out = append(out, other)
		}
	}
	slices.Sort(out)
	return out
}

// notify tells every watcher whose peers changed.
func (n *Net) notify() {
	n.mu.Lock()
	hosts := make([]*Host, 0, len(n.hosts))
	for _, h := range n.hosts {
		hosts = append(hosts, h)
	}
	n.mu.Unlock()
	for _, h := range hosts {
		h.changed(n.peersOf(h.id))
	}
}

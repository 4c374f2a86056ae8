package claimstest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/wire"
)

// claimWithin is the law of design 5: three Beats and the settle delay, and
// what a drone may take to look (replanEvery +20 %).
func claimWithin(settle int64) int64 {
	return 3*claims.BeatMillis + settle + replanEvery*6/5
}

// Violation is a broken law.
type Violation struct {
	Law  string
	Job  string
	Text string
}

func (v *Violation) Error() string { return fmt.Sprintf("%s: %s (job %s)", v.Law, v.Text, v.Job) }

// laws looks on at one world and keeps the first violation.
type laws struct {
	w     *World
	first *Violation
	// finished is, per node, the epoch of the best good outcome ever seen.
	finished []map[build.Key]uint64
	channel  []uint64
	digest   []uint64
	restored []int               // times that a node was made to forget, and may have
	compared map[uint64]bool     // digests whose boards were found equal
	double   map[build.Key]int64 // since when a job is compiled twice without cause
	calm     int64               // no fault is in force since
}

func newLaws(w *World) *laws {
	l := &laws{w: w, double: map[build.Key]int64{}, compared: map[uint64]bool{}}
	w.OnStop = l.onStop
	return l
}

func (l *laws) fail(law string, k build.Key, format string, args ...any) {
	if l.first == nil {
		l.first = &Violation{law, l.w.name(k), fmt.Sprintf("at %.3f s: ", float64(l.w.now)/1000) + fmt.Sprintf(format, args...)}
	}
}

// onStop is I7: no build with more work invested is stopped for one with less,
// up to what claims.Yields calls equal. A Beat tells of the past, so what it said can only have grown; the build
// that is stopped told of itself at most one progress ago.
func (l *laws) onStop(n *Node, r *Run, reason string) {
	if r.began == 0 || !strings.Contains(reason, "finishes it earlier") {
		return
	}
	if _, built := l.w.done[r.spec.Job.Key]; built {
		return // the rival has ended meanwhile, and the news of that are on their way
	}
	mine := r.invested(l.w.now)
	for _, o := range l.w.Nodes {
		rival := o.drone.running[r.spec.Job.Key]
		if o == n || rival == nil || rival.began == 0 {
			continue
		}
		if rival.invested(l.w.now)+claims.YieldInvested+l.w.Progress+1000 >= mine {
			return
		}
	}
	if l.w.now > l.calm+l.w.Net.MaxDelay { // else the rival may have died since it spoke
		l.fail("I7", r.spec.Job.Key, "%s is stopped with %d ms invested, and nobody else has as much", n.Name, mine)
	}
}

// quiet checks what holds at any time that no step is under way.
func (l *laws) quiet() {
	w := l.w
	for len(l.finished) < len(w.Nodes) {
		l.finished = append(l.finished, map[build.Key]uint64{})
		l.channel = append(l.channel, 0)
		l.digest = append(l.digest, 0)
		l.restored = append(l.restored, 0)
	}
	byDigest := map[uint64]*Node{}
	for i, n := range w.Nodes {
		if !n.up {
			continue
		}
		if n.restored != l.restored[i] {
			l.restored[i], l.channel[i] = n.restored, 0
			clear(l.finished[i])
		}
		if n.rep.Digest() != l.digest[i] {
			l.finality(i, n) // it follows from the board
			l.digest[i] = n.rep.Digest()
		}
		// I4: a channel's version never decreases on any node.
		if c := n.rep.Channel("t", "stable"); c != nil {
			if c.Version < l.channel[i] {
				l.fail("I4", "", "%s goes back from version %d to %d", n.Name, l.channel[i], c.Version)
			}
			l.channel[i] = c.Version
		} else if l.channel[i] > 0 {
			l.fail("I4", "", "%s has lost its channel", n.Name)
		}
		// I6: equal digests, equal bytes.
		if o := byDigest[n.rep.Digest()]; o != nil {
			if !l.compared[n.rep.Digest()] && !slices.EqualFunc(o.rep.Records(), n.rep.Records(), func(a, b wire.Opened) bool { return a.Hash() == b.Hash() }) {
				l.fail("I6", "", "%s and %s have one digest and two boards", o.Name, n.Name)
			}
			l.compared[n.rep.Digest()] = true
		} else {
			byDigest[n.rep.Digest()] = n
		}
		l.prompt(n)
	}
	l.single()
}

// finality is I2: a finished job never returns to unfinished in one epoch:
// good outcomes stay, and no claim of their epoch comes back.
func (l *laws) finality(i int, n *Node) {
	for _, k := range l.w.order {
		best := uint64(0)
		for _, r := range n.rep.Results(k) {
			if r.Class == build.Good {
				best = max(best, r.Epoch)
			}
		}
		if best < l.finished[i][k] {
			l.fail("I2", k, "%s forgot the good outcome of epoch %d", n.Name, l.finished[i][k])
		}
		l.finished[i][k] = best
		if c, ok := n.rep.Claim(k); ok && c.Epoch <= best {
			l.fail("I2", k, "%s holds a claim of epoch %d beside a good outcome of %d", n.Name, c.Epoch, best)
		}
	}
}

// prompt is the law of three Beats.
func (l *laws) prompt(n *Node) {
	if !n.Up() || !n.drone.auto || len(n.drone.running) >= n.drone.slots {
		return
	}
	for _, k := range l.w.order {
		if since, ok := n.drone.waiting[k]; ok && l.w.now-since > claimWithin(n.settle) {
			l.fail("three Beats", k, "%s has been free and could have started it since %.3f s", n.Name, float64(since)/1000)
		}
	}
}

// single is I5: among connected peers that have had time to talk, a job
// compiles once, unless the build that will end later has more work in it.
func (l *laws) single() {
	w := l.w
	if w.now < l.calm+20_000 {
		clear(l.double)
		return
	}
	for _, k := range w.order {
		a, b := l.pair(k)
		if a == nil {
			delete(l.double, k)
			continue
		}
		since, ok := l.double[k]
		if !ok {
			l.double[k] = w.now
		} else if w.now-since > 8*claims.BeatMillis {
			l.fail("I5", k, "%s and %s both compile it since %.3f s", a.Name, b.Name, float64(since)/1000)
		}
	}
}

// pair returns two nodes that compile a job though one of them should stop.
func (l *laws) pair(k build.Key) (a, b *Node) {
	w := l.w
	for i, a := range w.Nodes {
		ra := a.drone.running[k]
		if !a.Up() || ra == nil || ra.began == 0 {
			continue
		}
		for _, b := range w.Nodes[i+1:] {
			rb := b.drone.running[k]
			if !b.Up() || rb == nil || rb.began == 0 {
				continue
			}
			if w.shouldYield(ra, rb) || w.shouldYield(rb, ra) {
				return a, b
			}
		}
	}
	return nil, nil
}

// shouldYield says that a ought to stop for b, by more than what two peers can
// mistake about each other.
func (w *World) shouldYield(a, b *Run) bool {
	noise := w.Net.MaxDelay + w.Progress + 1000
	ia, ib := a.invested(w.now), b.invested(w.now)
	la, lb := claims.Left(a.est, ia), claims.Left(b.est, ib)
	return ia+noise <= ib && la >= lb || ia+noise <= ib+claims.YieldInvested && la > lb+claims.YieldEarlier+noise
}

// converged checks, at the end, that all boards are byte-equal.
func (l *laws) converged() {
	var first *Node
	for _, n := range l.w.Nodes {
		if !n.up {
			continue
		}
		if first == nil {
			first = n
			continue
		}
		if first.rep.Digest() != n.rep.Digest() {
			l.fail("convergence", "", "%s has %d records, %s %d, and they differ", first.Name, first.rep.Count(), n.Name, n.rep.Count())
		}
	}
}

// complete checks that no job was lost: each is built.
func (l *laws) complete() {
	for _, k := range l.w.order {
		if _, ok := l.w.done[k]; !ok {
			l.fail("every job is built", k, "it is not")
		}
	}
	if n, info := l.w.unseen(); n != nil {
		l.fail("every job is built", info.Job.Key, "%s sees it %s", n.Name, info.State)
	}
	l.held()
}

// held is what I1 comes to where nobody deletes: what a board calls available
// lies with a peer that is there.
func (l *laws) held() {
	w := l.w
	for _, n := range w.Nodes {
		if !n.up {
			continue
		}
		for _, k := range w.order {
			good, copies := n.rep.Good(k, n.now())
			if copies == 0 {
				continue
			}
			if !slices.ContainsFunc(w.Nodes, func(o *Node) bool { return o.up && o.drone.holds(good.Artifact.CID) }) {
				l.fail("I1", k, "%s sees %d copies of an artifact that nobody has", n.Name, copies)
			}
		}
	}
}

// unseen returns a node that does not see a job built, and what it sees.
func (w *World) unseen() (*Node, claims.JobInfo) {
	for _, n := range w.Nodes {
		if n.gone {
			continue
		}
		for _, info := range n.rep.Survey(n.now()) {
			if !info.State.Done() {
				return n, info
			}
		}
	}
	return nil, claims.JobInfo{}
}

// signed is I3: every record on every board carries its author's signature
// and follows from its body.
func (l *laws) signed() {
	for _, n := range l.w.Nodes {
		if n.gone {
			continue
		}
		for _, o := range n.rep.Records() {
			got, err := wire.Open(o.Raw())
			if err == nil {
				_, err = claims.Validate(got)
			}
			if err != nil {
				l.fail("I3", "", "%s holds %s: %v", n.Name, o.Key(), err)
			}
		}
	}
}

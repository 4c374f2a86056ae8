package replication

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/build-swarm/swarm/cas"
)

// schedulesEnv is how many schedules TestNoScheduleDropsTheLastCopies runs.
const schedulesEnv = "REPLICATION_TEST_SCHEDULES"

// swarm simulates the holders of one blob: ledgers, a board that spreads with
// delays, questions that are lost, peers that crash and come back without their
// promises, and somebody who begins to refer to the blob.
type swarm struct {
	rng   *rand.Rand
	now   time.Time
	queue events
	nodes []*node
	r     int
	// delay is the longest that a record takes to everybody.
	delay time.Duration
	// broken leaves a rule out, to see that its absence is found.
	broken string

	referenced time.Time // when somebody who saw a copy began to refer to the blob; zero: never
	law        string    // what was broken
	drops      int
}

type node struct {
	id     int
	ledger *Ledger
	up     bool
	disk   bool   // has the bytes
	says   []bool // of each node: its holdings, as known here
	refs   bool   // knows of the reference
}

type event struct {
	at time.Time
	n  int // order among equals
	do func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].n < q[j].n
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func (s *swarm) after(d time.Duration, do func()) {
	heap.Push(&s.queue, event{s.now.Add(d), len(s.queue), do})
}

func (s *swarm) run() {
	for len(s.queue) > 0 && s.law == "" {
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		e.do()
	}
}

// tell spreads a node's word about its copy, or the reference.
func (s *swarm) tell(f func(to *node)) {
	for _, n := range s.nodes {
		s.after(time.Duration(s.rng.Int64N(int64(s.delay))), func() { f(n) })
	}
}

func (s *swarm) announce(n *node, holds bool) {
	n.says[n.id] = holds
	s.tell(func(to *node) { to.says[n.id] = holds && n.says[n.id] })
}

var blob = cas.Sum([]byte("the blob"))

func (s *swarm) drop(n *node, why Reason) {
	if !n.up || !n.disk || why == Garbage && n.refs || !n.ledger.Intend(s.now, blob, why) {
		return
	}
	s.announce(n, false)
	ledger := n.ledger
	settle := Settle
	if s.broken == "settle" {
		settle = 0
		ledger.intents[blob] = intent{s.now.Add(-Settle), why}
	}
	s.after(settle, func() {
		if n.ledger == ledger && n.up {
			s.ask(n, why)
		}
	})
}

func (s *swarm) ask(n *node, why Reason) {
	d := Drop{Info: cas.Info{CID: blob}, Reason: why, R: s.r}
	asked, ledger := s.now, n.ledger
	var answers []Answer
	waiting := 0
	done := func(a Answer) {
		answers = append(answers, a)
		if waiting--; waiting > 0 || n.ledger != ledger || !n.up {
			return
		}
		if ledger.Decide(s.now, asked, d, n.refs, answers) {
			s.check(n, why)
			n.disk = false
			s.drops++
		} else {
			s.announce(n, true)
		}
		ledger.End(blob)
	}
	var others []*node
	for _, o := range s.nodes {
		if o != n && n.says[o.id] {
			others = append(others, o)
		}
	}
	if waiting = len(others); waiting == 0 {
		waiting = 1
		done(NotHeld)
		return
	}
	for _, o := range others {
		there := time.Duration(s.rng.Int64N(int64(20 * time.Second)))
		s.after(there, func() {
			a := Silent
			if o.up && s.rng.IntN(20) > 0 {
				a = o.ledger.Answer(s.now, blob, why, o.disk, o.refs)
				if s.broken == "promise" && a == Dropping {
					a = Kept
				}
			}
			s.after(time.Duration(s.rng.Int64N(int64(20*time.Second))), func() { done(a) })
		})
	}
}

// check holds a deletion against the law, by what lies on the disks.
func (s *swarm) check(n *node, why Reason) {
	left := 0
	for _, o := range s.nodes {
		if o != n && o.disk {
			left++
		}
	}
	switch {
	case why == Surplus && left < s.r:
		s.law = fmt.Sprintf("a surplus copy goes and %d of %d are left", left, s.r)
	case why == Garbage && !s.referenced.IsZero() && left == 0:
		s.law = fmt.Sprintf("the last copy goes as garbage %v after something referred to the blob", s.now.Sub(s.referenced))
	}
}

func schedule(seed uint64, broken string) *swarm {
	s := &swarm{rng: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(1e9, 0), r: 3, delay: Settle / 2, broken: broken}
	n := 4 + s.rng.IntN(4)
	for i := range n {
		s.nodes = append(s.nodes, &node{id: i, up: true, ledger: NewLedger(s.now.Add(-PromiseFor)), says: make([]bool, n)})
	}
	for i := range 3 + s.rng.IntN(n-2) {
		s.nodes[i].disk = true
		for _, o := range s.nodes {
			o.says[i] = true
		}
	}
	why := Reason(1 + s.rng.IntN(2))
	if why == Surplus { // its law holds however late the board is
		s.delay = 5 * time.Minute
	}
	span := func(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d))) }
	// Everybody wants to drop, some at the same moment, some again later.
	for _, x := range s.nodes {
		for range 1 + s.rng.IntN(3) {
			s.after(span(90*time.Second)+span(2)*time.Duration(s.rng.IntN(20)), func() { s.drop(x, why) })
		}
		if s.rng.IntN(4) == 0 {
			s.after(span(5*time.Minute), func() {
				if x.up = !x.up; !x.up { // its promises are gone
					s.after(span(2*time.Minute), func() {
						x.up, x.ledger = true, NewLedger(s.now)
						if x.disk {
							s.announce(x, true)
						}
					})
				}
			})
		}
	}
	if why == Garbage {
		s.after(span(4*time.Minute), func() {
			x := s.nodes[s.rng.IntN(n)]
			if !slices.Contains(x.says, true) {
				return // it sees no copy, so it has the package built again
			}
			s.referenced = s.now
			x.refs = true
			s.tell(func(to *node) { to.refs = true })
		})
	}
	s.run()
	return s
}

// Drop against reference against all-drop, in any order.
func TestNoScheduleDropsTheLastCopies(t *testing.T) {
	schedules := 3000
	if n, err := strconv.Atoi(os.Getenv(schedulesEnv)); err == nil {
		schedules = n
	}
	drops := 0
	for seed := range schedules {
		s := schedule(uint64(seed), "")
		if s.law != "" {
			t.Fatalf("schedule %d: %s", seed, s.law)
		}
		drops += s.drops
	}
	if drops < schedules/10 {
		t.Errorf("%d copies were dropped in %d schedules: that tests nothing", drops, schedules)
	}
	t.Logf("%d schedules, %d copies dropped", schedules, drops)
}

func TestTheSimulationSeesABrokenRule(t *testing.T) {
	for _, rule := range []string{"promise", "settle"} {
		found := ""
		for seed := 0; seed < 3000 && found == ""; seed++ {
			found = schedule(uint64(seed), rule).law
		}
		if found == "" {
			t.Errorf("3000 schedules without the rule %q break no law", rule)
		} else {
			t.Logf("without %q: %s", rule, found)
		}
	}
}

func TestARestartedHolderKeepsWhatItMayHavePromised(t *testing.T) {
	now := time.Unix(1e9, 0)
	l := NewLedger(now)
	if l.Intend(now.Add(PromiseFor-1), blob, Surplus) {
		t.Error("it drops what it may have promised before it was restarted")
	}
	if !l.Intend(now.Add(PromiseFor), blob, Surplus) {
		t.Error("it may not drop when every promise has run out")
	}
	if a := l.Answer(now.Add(PromiseFor), blob, Surplus, true, false); a != Dropping {
		t.Errorf("who drops answers %v", a)
	}
}

func TestOnlyWhatEnoughOthersHoldIsSurplus(t *testing.T) {
	in := Input{Self: "a", Now: time.Unix(1e9, 0)}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		p := steady(id, "")
		in.Peers = append(in.Peers, p)
	}
	for i := range 100 {
		in.Blobs = append(in.Blobs, Blob{CID: name(i), Size: 1, Holders: []string{"a", "b", "c", "d", "e"}})
	}
	perPeer := map[string]int{}
	for _, self := range []string{"a", "b", "c", "d", "e"} {
		in.Self = self
		for _, d := range Surpluses(in) {
			perPeer[self]++
			if len(d.Others) != 4 || d.R != 3 {
				t.Errorf("%+v", d)
			}
		}
	}
	sum := 0
	for id, n := range perPeer {
		sum += n
		if n == 0 || n == 100 {
			t.Errorf("%s gives up %d of 100", id, n)
		}
	}
	if sum != 200 {
		t.Errorf("%d copies are surplus, want two of each blob", sum)
	}
	in.Self = "a"
	in.Blobs = []Blob{{CID: name(1), Size: 1, Holders: []string{"a", "b", "c"}}}
	if got := Surpluses(in); len(got) != 0 {
		t.Errorf("one of the last R: %v", got)
	}
	// Who only builds gives up what R others have, and counts for nobody.
	in.Peers[0].BuildOnly = true
	in.Blobs[0].Holders = []string{"a", "b", "c", "d"}
	if got := Surpluses(in); len(got) != 1 {
		t.Errorf("a peer that only builds keeps %v", in.Blobs[0].Holders)
	}
	in.Blobs[0].Holders = []string{"a", "b", "c"}
	if n := Count(in)[name(1)]; n.Counts != 2 || n.Live != 3 {
		t.Errorf("%+v", n)
	}
}

package claims

import (
	"testing"

	"github.com/build-swarm/swarm/claims/wire"
)

// hush is three peers: one that is quiet, its neighbour, and one that the quiet
// peer is not connected to. What is gossiped reaches all but the quiet one.
type hush struct {
	t                    *testing.T
	now                  Now
	quiet, near, far     *Replica
	woken, sums, relayed int // of the quiet one: messages sent or received; comparisons begun; its Beats passed on
}

func newHush(t *testing.T) *hush {
	h := &hush{t: t, now: Now{Wall: testWall, Boot: 1000}}
	h.quiet, h.near, h.far = synced(1, h.now), synced(2, h.now), synced(3, h.now)
	h.step(h.near, Connected{h.far.self})
	h.step(h.far, Connected{h.near.self})
	h.step(h.quiet, Connected{h.near.self})
	h.step(h.near, Connected{h.quiet.self})
	h.step(h.near, Report{Beat{Nick: "near", Slots: 1, Accepting: true}})
	h.step(h.far, Report{Beat{Nick: "far", Slots: 1, Accepting: true}})
	h.step(h.quiet, Report{Beat{Nick: "quiet", Slots: 1, Why: "it runs on battery", Quiet: true}})
	return h
}

// step steps a peer and delivers what follows from it, all of it.
func (h *hush) step(r *Replica, ev Event) {
	h.t.Helper()
	for _, e := range r.Step(h.now, ev) {
		switch e := e.(type) {
		case Publish:
			if r == h.quiet {
				continue // it left the mesh
			}
			if e.Record.Author() == h.quiet.self {
				h.relayed++
			}
			for _, to := range []*Replica{h.near, h.far} {
				if to != r {
					h.step(to, Received{r.self, []wire.Opened{e.Record}})
				}
			}
		case Send:
			to := map[string]*Replica{h.quiet.self: h.quiet, h.near.self: h.near, h.far.self: h.far}[e.Peer]
			if !to.connected[r.self] {
				continue
			}
			if r == h.quiet && len(e.Msg.Sums) > 0 {
				h.sums++
			}
			if r == h.quiet || to == h.quiet {
				h.woken++
			}
			var list []wire.Opened
			for _, raw := range e.Msg.Records {
				o, err := wire.Open(raw)
				if err != nil {
					h.t.Fatal(err)
				}
				list = append(list, o)
			}
			m := e.Msg
			m.Records = nil
			if len(list) > 0 {
				h.step(to, Received{r.self, list})
			}
			h.step(to, Synced{r.self, m})
		}
	}
}

// pass lets time go by, each peer being stepped when it asks for it; the time that
// each asks for is looked at once a second.
func (h *hush) pass(ms int64, each func()) {
	for end := h.now.Boot + ms; h.now.Boot < end; {
		h.now.Boot, h.now.Wall = h.now.Boot+1000, h.now.Wall+1000
		for _, r := range []*Replica{h.quiet, h.near, h.far} {
			if r.NextWake(h.now) <= h.now.Boot+1 {
				h.step(r, Tick{})
			}
		}
		if each != nil {
			each()
		}
	}
}

func TestAQuietPeerComparesOnceAMinuteAndIsLeftAloneMeanwhile(t *testing.T) {
	h := newHush(t)
	h.step(h.far, Post{testRound(testJob("a"))}) // there is work: the others speak every 5 s
	h.pass(60_000, nil)
	h.woken, h.sums, h.relayed = 0, 0, 0
	h.pass(10*60_000, nil)
	if h.sums < 9 || h.sums > 11 {
		t.Errorf("it compares %d times in ten minutes", h.sums)
	}
	if h.woken > 3*h.sums {
		t.Errorf("%d messages wake it in ten minutes, for %d comparisons", h.woken, h.sums)
	}
	if h.relayed < h.sums-1 {
		t.Errorf("%d of its Beats are passed on", h.relayed)
	}
	if p := h.far.peers[h.quiet.self].beat.PeriodMS; p != QuietMillis {
		t.Errorf("it announces a Beat every %d ms", p)
	}
}

func TestNobodyTakesAQuietPeerForDeadNorItThem(t *testing.T) {
	h := newHush(t)
	h.step(h.near, Post{testRound(testJob("a"))})
	h.pass(30*60_000, func() {
		for _, r := range []*Replica{h.near, h.far} {
			if !r.live(h.quiet.self, h.now) {
				t.Fatalf("%s takes it for dead %d ms after its Beat", r.Name(r.self), h.now.Boot-r.peers[h.quiet.self].heard)
			}
			if !h.quiet.live(r.self, h.now) {
				t.Fatalf("it takes %s for dead %d ms after its Beat", h.quiet.Name(r.self), h.now.Boot-h.quiet.peers[r.self].heard)
			}
		}
	})
	if a, b := h.quiet.Digest(), h.far.Digest(); a != b {
		t.Errorf("the boards differ: %x, %x", a, b)
	}
	// One that dies is missed in its time.
	dead := h.quiet.self
	h.step(h.near, Disconnected{dead})
	h.quiet = synced(4, h.now)
	h.pass(LeasePeriods*QuietMillis+2000, nil)
	if h.near.live(dead, h.now) || h.far.live(dead, h.now) {
		t.Error("it is dead, and nobody noticed")
	}
}

func TestWhatAQuietPeerSaysReachesEverybody(t *testing.T) {
	h := newHush(t)
	h.pass(2*QuietMillis, nil)
	h.step(h.quiet, Post{testRound(testJob("a"))})
	h.pass(3*QuietMillis, nil)
	if a, b := h.quiet.Digest(), h.far.Digest(); a != b || h.far.Count() == 0 {
		t.Errorf("the boards differ: %x, %x, of %d records", a, b, h.far.Count())
	}
}

func TestAPeerThatIsQuietNoMoreJudgesAnew(t *testing.T) {
	h := newHush(t)
	h.pass(10*QuietMillis, nil)
	// Nothing reached it for half an hour.
	h.step(h.near, Disconnected{h.quiet.self})
	h.step(h.quiet, Disconnected{h.near.self})
	h.now.Boot, h.now.Wall = h.now.Boot+30*60_000, h.now.Wall+30*60_000
	for _, e := range h.quiet.Step(h.now, Report{Beat{Nick: "quiet", Slots: 1, Accepting: true}}) {
		if p, ok := e.(Publish); ok {
			b, err := Validate(p.Record)
			if err != nil || b.(Beat).Quiet {
				t.Errorf("its Beat says %+v, %v", b, err)
			}
		}
	}
	if ok, _ := h.quiet.MayClaim(); ok {
		t.Error("it claims before it has compared its board")
	}
	if !h.quiet.live(h.far.self, h.now) {
		t.Error("it takes for dead whom it did not hear while it was quiet")
	}
	h.near.connected[h.quiet.self] = true
	h.step(h.quiet, Connected{h.near.self})
	h.pass(3000, nil)
	if ok, why := h.quiet.MayClaim(); !ok {
		t.Errorf("after a comparison it may not claim: %s", why)
	}
}

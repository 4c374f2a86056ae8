package replication

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

var now = time.Unix(1_000_000, 0)

func steady(id, site string) Peer {
	return Peer{ID: id, Site: site, Steady: true, Stores: true, Live: true, Free: 100 << 30}
}

func name(i int) cid.Cid { return cas.Sum(fmt.Append(nil, i)) }

// takers are the peers that copy the blob, each asked for its own plan.
func takers(in Input) []string {
	var out []string
	for _, p := range in.Peers {
		in.Self = p.ID
		if len(Plan(in)) > 0 {
			out = append(out, p.ID)
		}
	}
	slices.Sort(out)
	return out
}

func TestAsManyPeersCopyAsCopiesAreMissing(t *testing.T) {
	four := []Peer{steady("a", ""), steady("b", ""), steady("c", ""), steady("d", "")}
	gone := func(id string, ago time.Duration) []Peer {
		p := slices.Clone(four)
		for i := range p {
			if p[i].ID == id {
				p[i].Live, p[i].Left = false, now.Add(-ago)
			}
		}
		return p
	}
	laptop := func(ago time.Duration) []Peer {
		p := gone("b", ago)
		p[1].Steady = false
		p[3].Stores = false // fewer than three steady peers: the laptop counts
		return p
	}
	for name, x := range map[string]struct {
		peers   []Peer
		holders []string
		r       int
		want    int
	}{
		"one copy of three":                   {four, []string{"a"}, 0, 2},
		"enough":                              {four, []string{"a", "b", "c"}, 0, 0},
		"R of its own":                        {four, []string{"a", "b", "c"}, 4, 1},
		"one holder just left":                {gone("b", time.Minute), []string{"a", "b", "c"}, 0, 0},
		"one holder left 16 minutes ago":      {gone("b", 16*time.Minute), []string{"a", "b", "c"}, 0, 1},
		"one of two left, one live remains":   {gone("b", time.Second), []string{"a", "b"}, 0, 1},
		"the only holder left":                {gone("b", time.Second), []string{"b"}, 0, 0},
		"nobody holds it":                     {four, nil, 0, 0},
		"unknown holders count for nothing":   {four, []string{"a", "x", "y"}, 0, 2},
		"a laptop left for an hour":           {laptop(time.Hour), []string{"a", "b", "c"}, 0, 0},
		"two peers are all there are":         {four[:2], []string{"a"}, 0, 1},
		"alone":                               {four[:1], []string{"a"}, 0, 0},
		"a holder that only builds is a copy": {[]Peer{four[0], {ID: "z", Steady: true, Live: true}}, []string{"z"}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			in := Input{Now: now, Peers: x.peers, Blobs: []Blob{{CID: cas.Sum(nil), Size: 1, Holders: x.holders, R: x.r}}}
			got := takers(in)
			if len(got) != x.want {
				t.Fatalf("%v copy, want %d", got, x.want)
			}
			for _, g := range got {
				if slices.Contains(x.holders, g) {
					t.Fatalf("%s has it already", g)
				}
			}
		})
	}
}

func TestALaptopIsNoArchiveAndNoEmergency(t *testing.T) {
	l1, l2 := steady("l1", ""), steady("l2", "")
	l1.Steady, l2.Steady = false, false
	s := []Peer{steady("s1", ""), steady("s2", ""), steady("s3", "")}
	blob := func(h ...string) []Blob { return []Blob{{CID: cas.Sum(nil), Holders: h}} }
	// With three steady peers the laptops' copies do not count, and they take none.
	got := takers(Input{Now: now, Peers: append(s, l1, l2), Blobs: blob("l1", "l2", "s1")})
	if !reflect.DeepEqual(got, []string{"s2", "s3"}) {
		t.Fatalf("%v copy", got)
	}
	// With two they do, and a laptop that left yesterday evening still counts.
	l1.Live, l1.Left = false, now.Add(-23*time.Hour)
	if got := takers(Input{Now: now, Peers: append(s[:2:2], l1, l2), Blobs: blob("l1", "s1", "s2")}); len(got) != 0 {
		t.Fatalf("%v copy", got)
	}
	l1.Left = now.Add(-25 * time.Hour)
	if got := takers(Input{Now: now, Peers: append(s[:2:2], l1, l2), Blobs: blob("l1", "s1", "s2")}); !reflect.DeepEqual(got, []string{"l2"}) {
		t.Fatalf("%v copy", got)
	}
}

func TestAMeteredLinkCarriesOnlyWhatIsUrgent(t *testing.T) {
	in := Input{Now: now, Peers: []Peer{steady("a", ""), steady("b", ""), steady("m", "")}}
	in.Peers[2].Metered = true
	in.Blobs = []Blob{{CID: name(1), Size: 1, Holders: []string{"a"}}}
	if got := takers(in); !slices.Equal(got, []string{"b"}) {
		t.Errorf("%v copy", got)
	}
	in.Blobs[0].Holders = []string{"a", "b"}
	if got := takers(in); len(got) != 0 || Count(in)[name(1)].R != 2 {
		t.Errorf("%v copy, R is %d", got, Count(in)[name(1)].R)
	}
	in.Blobs[0].Holders, in.Peers = []string{"a"}, []Peer{in.Peers[0], in.Peers[2]}
	if got := takers(in); !slices.Equal(got, []string{"m"}) {
		t.Errorf("of two peers one is metered, and %v copy", got)
	}
}

func TestSitesWithoutACopyComeFirst(t *testing.T) {
	for i := range 50 {
		in := Input{Now: now, Peers: []Peer{steady("a1", "A"), steady("a2", "A"), steady("a3", "A"), steady("b", "B"), steady("c", "C")},
			Blobs: []Blob{{CID: name(i), Holders: []string{"a1"}}}}
		if got := takers(in); !reflect.DeepEqual(got, []string{"b", "c"}) {
			t.Fatalf("%v copy", got)
		}
	}
}

func TestPeersWithoutRoomAreSkipped(t *testing.T) {
	small := steady("small", "")
	small.Free = headroom + 10
	in := Input{Now: now, Peers: []Peer{steady("a", ""), small, steady("c", "")}, Blobs: []Blob{{CID: name(0), Size: 11, Holders: []string{"a"}}}}
	if got := takers(in); !reflect.DeepEqual(got, []string{"c"}) {
		t.Fatalf("%v copy", got)
	}
	// Blobs that fit one by one and not together are taken as far as they fit.
	in.Self = "small"
	in.Blobs = nil
	for i := range 5 {
		in.Blobs = append(in.Blobs, Blob{CID: name(i), Size: 4, Holders: []string{"a"}})
	}
	if got := Plan(in); len(got) != 2 {
		t.Fatalf("%d copies of 4 bytes into 10", len(got))
	}
}

func TestTheMostUrgentIsFirst(t *testing.T) {
	peers := []Peer{steady("a", ""), steady("b", ""), steady("me", "")}
	in := Input{Self: "me", Now: now, Peers: peers, Blobs: []Blob{
		{CID: name(0), Size: 5, Holders: []string{"a", "b"}},
		{CID: name(1), Size: 9, Holders: []string{"a"}, Class: Other},
		{CID: name(2), Size: 9, Holders: []string{"b"}, Class: Released},
		{CID: name(3), Size: 1, Holders: []string{"b"}, Class: Other},
	}}
	got := Plan(in)
	want := []cid.Cid{name(2), name(3), name(1), name(0)}
	if len(got) != len(want) {
		t.Fatalf("%d actions", len(got))
	}
	for i := range want {
		if got[i].CID != want[i] || got[i].Urgent != (i < 3) {
			t.Fatalf("action %d: %+v", i, got[i])
		}
	}
}

// Laws: over any swarm, no blob gets more copies than are missing; whatever is
// missing is made if there is room; order of input does not show.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(rt, "peers")
		var in Input
		in.Now = now
		for i := range n {
			in.Peers = append(in.Peers, Peer{
				ID: fmt.Sprintf("p%d", i), Site: rapid.SampledFrom([]string{"", "A", "B"}).Draw(rt, "site"),
				Steady: rapid.Bool().Draw(rt, "steady"), Stores: rapid.Bool().Draw(rt, "stores"), Live: rapid.Bool().Draw(rt, "live"),
				Left: now.Add(-time.Duration(rapid.IntRange(0, 2000).Draw(rt, "left")) * time.Minute),
				Free: int64(rapid.IntRange(0, 300).Draw(rt, "free")) << 30,
			})
		}
		var held []string
		for _, p := range in.Peers {
			if rapid.Bool().Draw(rt, "holds") {
				held = append(held, p.ID)
			}
		}
		in.Blobs = []Blob{{CID: name(rapid.IntRange(0, 1000).Draw(rt, "blob")), Size: 1 << 20, Holders: held, R: rapid.IntRange(0, 4).Draw(rt, "R")}}
		got := takers(in)
		k := Count(in)[in.Blobs[0].CID]
		missing := 0
		if k.Live > 0 {
			missing = max(k.R-k.Counts, minLive-k.Live, 0)
		}
		room := 0
		for _, p := range in.Peers {
			if p.Live && p.Stores && p.Free >= 1<<30 && !slices.Contains(held, p.ID) {
				room++
			}
		}
		if len(got) != min(missing, room) {
			rt.Fatalf("%d copy, %d are missing, %d have room", len(got), missing, room)
		}
		other := in
		other.Peers = slices.Clone(in.Peers)
		slices.Reverse(other.Peers)
		other.Blobs = append(slices.Clone(in.Blobs), in.Blobs...)
		for _, p := range in.Peers {
			in.Self, other.Self = p.ID, p.ID
			if !reflect.DeepEqual(Plan(in), Plan(other)) {
				rt.Fatal("the order of the input shows")
			}
		}
	})
}

// The R peers that should hold a blob change by no more than what changed: a
// peer that goes costs its own copies, one that comes takes some for itself, free
// space counts when it doubles or halves, and then for that peer alone.
func TestAChangeMovesOnlyWhatItMust(t *testing.T) {
	place := func(c cid.Cid, peers []Peer) []string {
		var all []candidate
		for _, p := range peers {
			all = append(all, candidate{p, score(c, p)})
		}
		got := (&view{}).best(all, DefaultR)
		slices.Sort(got)
		return got
	}
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(DefaultR+1, 12).Draw(rt, "peers")
		var peers []Peer
		for i := range n {
			p := steady(fmt.Sprintf("p%d", i), "")
			p.Free = int64(rapid.IntRange(1, 500).Draw(rt, "free")) << 30
			peers = append(peers, p)
		}
		x := rapid.IntRange(0, n-1).Draw(rt, "changed")
		without := slices.Delete(slices.Clone(peers), x, x+1)
		moved := slices.Clone(peers)
		moved[x].Free = int64(rapid.IntRange(1, 500).Draw(rt, "free then")) << 30
		same := bits.Len64(uint64(peers[x].Free>>30)) == bits.Len64(uint64(moved[x].Free>>30))
		for i := range 20 {
			c := name(rapid.IntRange(0, 1<<20).Draw(rt, "blob") + i)
			was, less, then := place(c, peers), place(c, without), place(c, moved)
			for _, id := range was {
				if id != peers[x].ID && !slices.Contains(less, id) {
					rt.Fatalf("%s goes, and %s loses the blob: %v, %v", peers[x].ID, id, was, less)
				}
			}
			if same && !slices.Equal(was, then) {
				rt.Fatalf("%d GiB became %d, and %v %v", peers[x].Free>>30, moved[x].Free>>30, was, then)
			}
			out := 0
			for _, id := range was {
				if !slices.Contains(then, id) {
					out++
				}
			}
			if out > 1 || out == 1 && slices.Contains(was, peers[x].ID) == slices.Contains(then, peers[x].ID) {
				rt.Fatalf("%s has other room, and %v became %v", peers[x].ID, was, then)
			}
		}
	})
}

// A newcomer takes over its share of new blobs and moves nobody's old ones.
func TestShares(t *testing.T) {
	peers := []Peer{steady("a", ""), steady("b", ""), steady("c", ""), steady("d", "")}
	peers[3].Free = 400 << 30
	const blobs = 4000
	owner := func(i int, peers []Peer) string {
		best := slices.MinFunc(peers, func(x, y Peer) int {
			if score(name(i), x) < score(name(i), y) {
				return -1
			}
			return 1
		})
		return best.ID
	}
	got := map[string]int{}
	for i := range blobs {
		was, is := owner(i, peers[:3]), owner(i, peers)
		if was != is && is != "d" {
			t.Fatalf("blob %d moved from %s to %s", i, was, is)
		}
		got[is]++
	}
	// 100 GiB weigh 2^7, 400 GiB 2^9: shares of 1 1 1 4.
	for id, want := range map[string]float64{"a": 1. / 7, "b": 1. / 7, "c": 1. / 7, "d": 4. / 7} {
		if share := float64(got[id]) / blobs; math.Abs(share-want) > 0.03 {
			t.Errorf("%s has %.3f of the blobs, want %.3f", id, share, want)
		}
	}
}

func TestNegLog2(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 10_000 {
		u := r.Uint64() >> (i % 64)
		if u == 0 {
			continue
		}
		want := 64 - math.Log2(float64(u))
		if got := float64(negLog2(u)) / (1 << 32); math.Abs(got-want) > 1e-8 {
			t.Fatalf("negLog2(%d) = %v, want %v", u, got, want)
		}
	}
	if negLog2(math.MaxUint64) == 0 || negLog2(0)<<20>>20 != negLog2(0) {
		t.Fatal("out of bounds")
	}
}

func BenchmarkPlan(b *testing.B) {
	in := Input{Self: "p0", Now: now}
	for i := range 20 {
		in.Peers = append(in.Peers, steady(fmt.Sprintf("p%d", i), ""))
	}
	for i := range 20_000 {
		in.Blobs = append(in.Blobs, Blob{CID: name(i), Size: 1, Holders: []string{fmt.Sprintf("p%d", i%20), fmt.Sprintf("p%d", (i+1)%20), fmt.Sprintf("p%d", (i+7)%20)}})
	}
	for b.Loop() {
		Plan(in)
	}
}

// Package viewtest makes boards for tests and pictures of screens: a swarm in
// the middle of a round, as its real records would tell it, from a seed.
package viewtest

import (
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
)

// Wall is the present of every swarm here, in milliseconds since 1970.
const Wall = 1_800_000_000_000

// Options of a swarm. Zero values make a peer that is alone.
type Options struct {
	Drones   int     // besides the peer that looks
	Jobs     int     // of the open round
	Elapsed  float64 // how much of the round is over, 0 to 1; 0 = half
	Failures int     // packages that are blocked
	Away     int     // drones that fell silent
	Closed   bool    // the round is over
	Hostile  bool    // names and reasons carry HTML, escapes and bidirectional marks
}

// Nasty is what a hostile string carries, besides its length.
const Nasty = "<script>alert(1)</script>\x1b[31mred\u202egpj.exe\u200f\"'&"

// Swarm is the board of one peer with the means to go on from there.
type Swarm struct {
	*claims.Replica
	Now   claims.Now
	Round string
	Plan  *build.Plan
	Keys  []ed25519.PrivateKey // of the drones
	speak []*claims.Replica    // what the drones write with
	past  []wire.Opened        // not yet on the board: one step for each would take minutes
}

var nicks = []string{"anvil", "nas", "tower", "attic", "lathe", "kiln", "workbench", "cellar"}

var names = []string{
	"dev-libs/openssl", "sys-devel/gcc", "dev-lang/rust", "dev-qt/qtbase", "media-video/ffmpeg", "dev-lang/python", "sys-libs/glibc", "app-misc/jq",
	"dev-libs/boost", "net-libs/nodejs", "llvm-core/llvm", "llvm-core/clang", "www-client/firefox", "app-office/libreoffice", "media-libs/mesa", "sys-apps/systemd",
	"dev-libs/icu", "dev-db/sqlite", "net-misc/curl", "dev-vcs/git", "app-editors/vim", "sys-apps/util-linux", "x11-libs/gtk", "dev-cpp/abseil-cpp",
	"kde-plasma/kwin", "net-libs/webkit-gtk", "media-gfx/blender", "sys-kernel/linux-headers", "app-arch/zstd", "dev-util/cmake", "app-shells/bash", "dev-libs/glib",
}

func key(n int) ed25519.PrivateKey {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n+1))
	return ed25519.NewKeyFromSeed(seed[:])
}

// New makes a swarm. Equal options make equal boards.
func New(o Options) *Swarm {
	s := &Swarm{Now: claims.Now{Wall: Wall, Boot: 100_000_000}, Round: "r1"}
	s.Replica = claims.NewReplica(claims.Config{Key: key(0), Instance: 1, Rand: rand.New(rand.NewPCG(1, 1))}, nil, ago(s.Now, 60_000))
	s.Step(s.Now, claims.Tick{})
	s.Step(s.Now, claims.Report{Beat: claims.Beat{Nick: "desktop", Version: "v0.1.0", Cores: 8, Slots: 0, Stores: true, Steady: true,
		FreeMemMiB: 9000, DiskMiB: 120_000, StoreUsed: 3 << 30, StoreFree: 90 << 30}})
	for i := range o.Drones {
		s.Keys = append(s.Keys, key(i+1))
		d := claims.NewReplica(claims.Config{Key: key(i + 1), Instance: uint64(i + 2), Rand: rand.New(rand.NewPCG(1, uint64(i)))}, nil, ago(s.Now, 90_000_000))
		d.Step(ago(s.Now, 80_000_000), claims.Tick{})
		s.speak = append(s.speak, d)
	}
	if o.Jobs > 0 {
		s.round(o)
	} else {
		for i := range s.Keys {
			s.Beat(i, s.now(o, i), beat(o, i))
		}
	}
	s.settle()
	s.Step(s.Now, claims.Tick{})
	return s
}

func ago(now claims.Now, ms int64) claims.Now {
	return claims.Now{Wall: now.Wall - ms, Boot: now.Boot - ms}
}

// now is when drone i was heard last.
func (s *Swarm) now(o Options, i int) claims.Now {
	if i >= o.Drones-o.Away {
		return ago(s.Now, 7*60_000)
	}
	return ago(s.Now, 2_000)
}

// Nick is the nickname of drone i.
func Nick(o Options, i int) string {
	n := nicks[i%len(nicks)]
	if i >= len(nicks) {
		n = fmt.Sprintf("%s-%d", n, i/len(nicks)+1)
	}
	if o.Hostile {
		n += Nasty
	}
	return n
}

func beat(o Options, i int) claims.Beat {
	b := claims.Beat{Nick: Nick(o, i), Version: "v0.1.0", Slots: 1 + i%2, Cores: []int{16, 8, 12, 4}[i%4], Speed: []int64{24_000, 16_000, 14_000, 6_000}[i%4],
		Accepting: true, Steady: i%7 != 5, FreeMemMiB: 4_000 + int64(i%5)*3_000, DiskMiB: 40_000, Stores: i%3 != 2, StoreUsed: int64(i%9+1) << 30,
		StoreFree: int64(200-i%50) << 30, Builders: []build.Builder{build.BuilderPortage}, Site: []string{"home", "office"}[i/4%2]}
	if i%11 == 6 {
		b.Accepting, b.Why, b.Jobs = false, "somebody is at the machine", nil
		if o.Hostile {
			b.Why += Nasty
		}
	}
	return b
}

// Beat has drone i say something at a time.
func (s *Swarm) Beat(i int, at claims.Now, b claims.Beat) {
	b.PeriodMS, b.Instance = claims.BeatMillis, uint64(i+2)
	raw, err := build.Marshal(b)
	if err != nil {
		panic(err) // constants
	}
	id, stamp := s.speak[i].Self(), s.speak[i].Stamp(at)
	o, err := wire.Seal(s.Keys[i], wire.Record{Type: claims.TypeBeat, Key: claims.TypeBeat + "/" + id, Author: id, Stamp: uint64(stamp), Body: raw,
		Order: append(binary.BigEndian.AppendUint64(nil, uint64(stamp)), id...)})
	if err != nil {
		panic(err)
	}
	s.Step(at, claims.Received{From: id, Records: []wire.Opened{o}})
}

// Post has drone i put something on the board at a time.
func (s *Swarm) Post(i int, at claims.Now, body claims.Body) {
	for _, e := range s.speak[i].Step(at, claims.Post{Body: body}) {
		if p, ok := e.(claims.Publish); ok && p.Record.Type() != claims.TypeBeat {
			s.past = append(s.past, p.Record)
		}
	}
	if at.Boot >= s.Now.Boot {
		s.settle()
	}
}

// settle puts what the drones wrote on the board.
func (s *Swarm) settle() {
	if len(s.past) > 0 {
		s.Step(s.Now, claims.Received{From: s.past[0].Author(), Records: s.past})
		s.past = nil
	}
}

// Peer is the ID of drone i.
func (s *Swarm) Peer(i int) string { return s.speak[i].Self() }

func (s *Swarm) makePlan(n int, rng *rand.Rand) {
	s.Plan = &build.Plan{Target: "desktop", Command: "swarm build @world"}
	for i := range n {
		cat, name := "dev-libs", fmt.Sprintf("lib%d", i)
		cp := names[i%len(names)]
		if i < len(names) {
			cpv, err := build.ParseCPV(cp + "-1")
			if err != nil {
				panic(err)
			}
			cat, name = cpv.Category, cpv.Name
		}
		c := build.CPV{Category: cat, Name: name, Version: fmt.Sprintf("%d.%d.%d", 1+rng.IntN(9), rng.IntN(20), rng.IntN(10))}
		pre := []build.Facet{{Name: "cpv", Value: c.String()}, {Name: "use", Value: "ssl threads"}, {Name: "ebuild", Value: fmt.Sprint(rng.Uint64())}}
		k, err := build.KeyOf(pre)
		if err != nil {
			panic(err)
		}
		j := build.Job{Key: k, Builder: build.BuilderPortage, CPV: c, Slot: "0", Repo: "gentoo", USE: []string{"ssl", "threads"}, Preimage: pre,
			CoreMillis: int64(20_000 * (1 + rng.ExpFloat64()*rng.ExpFloat64()*20)), MemoryMiB: 512, DiskMiB: 100}
		// Fewer than one user each on average, or one failure blocks nearly all.
		if i > 0 && rng.IntN(100) < 55 {
			for range 1 + rng.IntN(2) {
				j.Needs = append(j.Needs, build.Edge{Key: s.Plan.Jobs[max(0, i-1-rng.IntN(min(i, 40)))].Key, Kind: build.Buildtime})
			}
			slices.SortFunc(j.Needs, func(a, b build.Edge) int { return cmp.Compare(a.Key, b.Key) })
			j.Needs = slices.CompactFunc(j.Needs, func(a, b build.Edge) bool { return a.Key == b.Key })
		}
		s.Plan.Jobs = append(s.Plan.Jobs, j)
	}
	s.Plan.Want = []build.Key{s.Plan.Jobs[n-1].Key}
}

// run is one build of the simulated past, times from the round's start.
type run struct {
	job, drone int
	from, to   int64
	failed     bool
}

// schedule runs the plan over the drones, a job after what it needs.
func (s *Swarm) schedule(o Options, rng *rand.Rand) (runs []run, span int64) {
	free := map[int][]int64{}
	var drones []int
	for i := range s.Keys {
		if b := beat(o, i); b.Accepting {
			free[i] = make([]int64, b.Slots)
			drones = append(drones, i)
		}
	}
	ends := make(map[build.Key]int64, len(s.Plan.Jobs))
	bad := map[build.Key]bool{}
	failures := o.Failures
	for i := range s.Plan.Jobs {
		j := &s.Plan.Jobs[i]
		var at int64
		skip := false
		for _, d := range j.Before() {
			at, skip = max(at, ends[d]), skip || bad[d]
		}
		if skip {
			bad[j.Key] = true
			continue
		}
		best, slot, end, from := -1, 0, int64(0), int64(0)
		for _, d := range drones {
			b := beat(o, d)
			for n, f := range free[d] {
				start := max(at, f) + 1_500
				if e := start + j.CoreMillis*1000*int64(b.Slots)/b.Speed; best < 0 || e < end {
					best, slot, end, from = d, n, e, start
				}
			}
		}
		free[best][slot] = end
		r := run{job: i, drone: best, from: from, to: end}
		if failures > 0 && i%9 == 4 && i >= len(s.Plan.Jobs)/3 {
			failures--
			r.failed, bad[j.Key] = true, true
			r.to = from + (end-from)/2
			free[best][slot] = r.to
		}
		ends[j.Key] = end
		runs = append(runs, r)
		span = max(span, end)
	}
	return runs, span
}

func (s *Swarm) round(o Options) {
	rng := rand.New(rand.NewPCG(7, uint64(o.Jobs)))
	s.makePlan(o.Jobs, rng)
	// Known before it began, or nothing could have been built.
	passed := 0.5
	if o.Elapsed > 0 {
		passed = o.Elapsed
	}
	var runs []run
	var span int64
	if len(s.Keys) > 0 {
		runs, span = s.schedule(o, rng)
	}
	if o.Closed {
		passed = 1.01
	}
	elapsed := int64(float64(span)*passed) + 60_000
	start := ago(s.Now, elapsed)
	rd := build.Round{ID: s.Round, Target: "desktop", Priority: build.Normal, Requester: s.Self(), State: build.RoundOpen, Counter: 1,
		Created: uint64(hlc.New(start.Wall)), Command: s.Plan.Command, Jobs: len(s.Plan.Jobs), PlanCID: cas.Sum([]byte("plan")).String()}
	if o.Hostile {
		rd.Command += Nasty
	}
	s.Step(start, claims.Post{Body: claims.NewRound(rd)})
	s.Step(start, claims.PlanLoaded{Round: s.Round, Plan: s.Plan})
	held := make([]map[int][][]byte, len(s.Keys))
	busy := make([][]claims.BeatJob, len(s.Keys))
	for _, r := range runs {
		if r.from+60_000 <= elapsed && r.to+60_000 > elapsed {
			busy[r.drone] = append(busy[r.drone], claims.BeatJob{Key: s.Plan.Jobs[r.job].Key, Epoch: 1, Phase: []string{"compile", "configure", "install"}[r.job%3],
				InvestedMS: elapsed - r.from - 60_000, LeftMS: r.to + 60_000 - elapsed, Compiling: true})
		}
		if r.to+60_000 > elapsed {
			continue
		}
		s.outcome(o, start, r, rng, held)
	}
	for i := range s.Keys {
		for shard, list := range held[i] {
			slices.SortFunc(list, slices.Compare)
			s.Post(i, ago(s.Now, 5_000), claims.Holdings{Shard: shard, CIDs: list})
		}
		b := beat(o, i)
		for n := range busy[i] {
			if s.now(o, i) == ago(s.Now, 2_000) {
				s.Post(i, ago(s.Now, busy[i][n].InvestedMS), claims.Claim{Key: busy[i][n].Key, Peer: s.Peer(i), Epoch: 1, Stamp: hlc.New(s.Now.Wall - busy[i][n].InvestedMS), State: claims.ClaimCompiling})
			}
		}
		b.Jobs = busy[i]
		s.Beat(i, s.now(o, i), b)
	}
	if o.Closed {
		rd.State, rd.Counter = build.RoundClosed, 2
		s.Step(s.Now, claims.Post{Body: claims.NewRound(rd)})
		s.Step(s.Now, claims.Post{Body: claims.NewChannel(release.Channel{Target: "desktop", Name: release.Stable, Version: 1, Release: cas.Sum([]byte("release")).String(), Timestamp: s.Now.Wall / 1000})})
	}
}

// outcome posts what a run came to, and who holds it.
func (s *Swarm) outcome(o Options, start claims.Now, r run, rng *rand.Rand, held []map[int][][]byte) {
	j := &s.Plan.Jobs[r.job]
	at := claims.Now{Wall: start.Wall + 60_000 + r.to, Boot: start.Boot + 60_000 + r.to}
	out := build.Outcome{Key: j.Key, CPV: j.CPV, Target: "desktop", Class: build.Good, Epoch: 1, Started: uint64(hlc.New(start.Wall + 60_000 + r.from)),
		Millis: r.to - r.from, CoreMillis: j.CoreMillis, PeakMiB: 200 + int64(rng.IntN(3000)), Inputs: "inputs", Content: "content",
		Log: cas.Sum([]byte("log " + j.Key)).String()}
	if r.failed {
		out.Class, out.Reason = build.BadPackage, "src/main.c:42:10: fatal error: 'foo.h' file not found"
		if o.Hostile {
			out.Reason += Nasty
		}
		s.Post(r.drone, at, claims.NewOutcome(out))
		other := (r.drone + 1) % len(s.Keys)
		out.Started = uint64(hlc.New(at.Wall + 1000))
		s.Post(other, claims.Now{Wall: at.Wall + 9000, Boot: at.Boot + 9000}, claims.NewOutcome(out))
		return
	}
	c := cas.Sum([]byte("artifact " + j.Key))
	out.Artifact = &build.Artifact{CID: c.String(), Size: 1000 + int64(rng.ExpFloat64()*4e6), MD5: fmt.Sprintf("%032x", rng.Uint64()), SHA1: fmt.Sprintf("%040x", rng.Uint64()), MTime: at.Wall / 1000}
	s.Post(r.drone, at, claims.NewOutcome(out))
	d, err := cas.Digest(c)
	if err != nil {
		panic(err)
	}
	for n := range min(3, len(s.Keys)) {
		h := (r.drone + n*n) % len(s.Keys)
		if n > 0 && (rng.IntN(20) == 0 || !beat(o, h).Stores) {
			continue
		}
		if held[h] == nil {
			held[h] = map[int][][]byte{}
		}
		shard := int(d[0]) % claims.HoldShards
		held[h][shard] = append(held[h][shard], d[:])
	}
}

package guest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/build-swarm/swarm/build"
)

// Level is what running builds get of the machine.
type Level int

const (
	Full   Level = iota // below everything a person does, and otherwise all there is
	Shrunk              // only what nobody else wants
	Frozen              // nothing: stopped, with its memory kept
)

func (l Level) String() string { return [...]string{"full", "shrunk", "frozen"}[l] }

// Times and figures of the policy. Durations are in milliseconds.
const (
	// FreezeAfter is how long builds are only shrunk after somebody came back.
	FreezeAfter = 1_000
	// KeepFrozen is how long a build stays frozen at least before it is given
	// back; a quarter of the work in it, if that is more.
	KeepFrozen = 10 * 60_000
	// DefaultIdleAfter is how long nobody must have touched the machine.
	DefaultIdleAfter = 5 * 60_000

	coolBy        = 5_000  // milli-degrees below a limit before a hold of heat ends
	shrinkHeat    = 12_000 // milli-degrees below the machine's own limit
	freezeHeat    = 4_000  //
	busyPercent   = 25     // of all cores, used by others: more is somebody's work
	calmPercent   = 15     // and below this it is over
	stallPerMille = 200    // of the last 10 s, somebody waited for memory
	memoryFloor   = 256    // MiB available, at the least
	memoryShare   = 32     // 1/32 of the memory, available, at the least
	returnEvery   = 30_000 // between two builds that are given back for memory
)

// When says when a machine builds.
type When string

const (
	Always   When = "always"
	WhenIdle When = "idle"
	Auto     When = "auto" // WhenIdle on what has a battery or a lid, else Always
)

// Policy is what a person set.
type Policy struct {
	When      When
	IdleAfter int64   // milliseconds
	Hours     []Hours // builds begin within these only; none: at any time
}

// Now is the time of a step: Wall with the location that Hours are meant in,
// Boot in milliseconds of the clock that counts suspend.
type Now struct {
	Wall time.Time
	Boot int64
}

// Unknown is what a reading has where no sensor tells.
const Unknown = -1

// Reading is what the sensors saw. The zero Reading is a server at rest, but
// for IdleMS.
type Reading struct {
	HasBattery, HasLid bool
	OnBattery          bool
	ChargePercent      int // of the battery; Unknown
	LidClosed          bool

	IdleMS    int64  // since somebody touched the machine; Unknown: nobody can tell
	Nobody    bool   // nobody is logged in at the machine
	Inhibitor string // who asks for no idling (a film, a presentation); "" = nobody

	Metered   bool   // the link to the world costs by the byte
	Sleeping  bool   // the machine is about to be suspended, or is just back
	HeatMilli int64  // milli-degrees Celsius of the hottest zone
	LimitHeat int64  // at which that zone is in danger; 0 = unknown
	Zone      string // its name

	Cores         int
	OthersPercent int   // of all cores, used by what is not a build; Unknown
	FreeMemMiB    int64 // available; 0 = unknown
	MemMiB        int64
	StallPerMille int64 // of the last 10 s, in which all work waited for memory
}

// Laptop reports whether a reading is of a machine that somebody carries.
func (r *Reading) Laptop() bool { return r.HasBattery || r.HasLid }

// Build is a build that runs here.
type Build struct {
	Key         build.Key
	Name        string // for people
	InvestedMS  int64  // work in it, without the time it was frozen
	LeftMS      int64  // expected, at full speed
	ElsewhereMS int64  // until a free drone would have it from the start; 0 = there is none
}

// Return is a build to give back.
type Return struct {
	Key    build.Key
	Reason string
}

// Verdict is what is so from now on.
type Verdict struct {
	May    bool   // builds may begin
	Level  Level  // of the running ones
	Why    string // not May, or the Level below Full; the worst reason first
	Steady bool   // this machine is always there
	UntilS int64  // expected seconds of being there; 0 = unknown or steady
	Quiet  bool   // the peer is to let this machine sleep
	// WaitMS is how long frozen builds wait yet, as far as can be said now.
	WaitMS int64
	// KeepMS is for how long each frozen build is kept yet.
	KeepMS map[build.Key]int64
	Return []Return
	// NextMS is when to step again at the latest, without any news.
	NextMS int64
}

// hold is one reason.
type hold struct {
	level Level  // of running builds
	new   bool   // whether builds may begin all the same
	away  bool   // it says that the machine is in use, or not to be had
	why   string //
}

// Guest is the state of one machine. The zero Guest is one that just started.
// It is for one goroutine.
type Guest struct {
	Policy  Policy
	History History

	pausedTil int64 // boot; 0 = not paused, forever = until resumed
	present   int64 // boot since which somebody is there; 0 = nobody
	hot       Level // of the heat, with hysteresis
	busy      bool  // others compute
	frozenAt  int64 // boot since which builds are frozen; 0 = they are not
	returned  int64 // boot of the last build given back for memory
	idleFrom  int64 // boot since which it may build; 0 = it may not
	awayFrom  int64 // boot since which it may not
	rest      Rest
}

const forever = int64(1) << 62

// Pause holds all builds of this machine for d, or until Resume with 0.
func (g *Guest) Pause(now Now, d time.Duration) {
	g.pausedTil = forever
	if d > 0 {
		g.pausedTil = now.Boot + d.Milliseconds()
	}
}

// Resume ends a pause.
func (g *Guest) Resume() { g.pausedTil = 0 }

// Paused says how long a pause lasts yet; 0 with true is until Resume.
func (g *Guest) Paused(now Now) (time.Duration, bool) {
	switch {
	case g.pausedTil == forever:
		return 0, true
	case g.pausedTil > now.Boot:
		return time.Duration(g.pausedTil-now.Boot) * time.Millisecond, true
	}
	return 0, false
}

// when resolves Auto.
func (g *Guest) when(r *Reading) When {
	if g.Policy.When == Always || g.Policy.When == WhenIdle {
		return g.Policy.When
	}
	if r.Laptop() {
		return WhenIdle
	}
	return Always
}

// Step takes in a reading and says what follows. builds are those that run
// here, in any order.
func (g *Guest) Step(now Now, r Reading, builds []Build) Verdict {
	v := Verdict{Level: Full, May: true, NextMS: 60_000, Steady: g.when(&r) == Always}
	holds := g.holds(now, &r, &v)
	slices.SortStableFunc(holds, func(a, b hold) int {
		return cmp.Or(cmp.Compare(b.level, a.level), cmp.Compare(btoi(a.new), btoi(b.new)))
	})
	away := false
	for _, h := range holds {
		v.May = v.May && h.new
		v.Level = max(v.Level, h.level)
		away = away || h.away
	}
	if len(holds) > 0 {
		v.Why = holds[0].why
	}
	g.span(now, away, v.Steady)
	if !v.Steady && !away {
		v.UntilS = g.History.remaining(now.Boot-g.idleFrom) / 1000
	}
	g.freeze(now, &r, builds, &v)
	g.wanted(now, &r, builds, &v)
	g.quiet(now, &r, len(builds), &v)
	return v
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// holds lists the reasons that hold now, and notes when to look again.
func (g *Guest) holds(now Now, r *Reading, v *Verdict) []hold {
	var out []hold
	add := func(level Level, new, away bool, format string, args ...any) {
		out = append(out, hold{level, new, away, fmt.Sprintf(format, args...)})
	}
	soon := func(ms int64) { v.NextMS = min(v.NextMS, max(1, ms)) }
	if left, paused := g.Paused(now); paused {
		if left > 0 {
			add(Frozen, false, false, "paused here for %s more; swarm resume --here ends it", Span(left))
			soon(left.Milliseconds())
		} else {
			add(Frozen, false, false, "paused here; swarm resume --here ends it")
		}
	}
	if r.Sleeping {
		add(Frozen, false, true, "this machine is about to sleep")
	}
	g.feelHeat(r)
	if g.hot > Full {
		add(g.hot, false, false, "it is hot: %s has %d °C, and its limit is %d °C", r.Zone, r.HeatMilli/1000, r.LimitHeat/1000)
		soon(5_000)
	}
	if r.Metered {
		add(Full, false, false, "the network is metered: nothing new is fetched for builds")
	}
	if left, out := outside(g.Policy.Hours, now.Wall); out {
		add(Shrunk, false, false, "outside the hours set for building (%s); they begin in %s", hoursText(g.Policy.Hours), Span(left))
		soon(left.Milliseconds())
	} else if left > 0 {
		soon(left.Milliseconds())
	}
	if g.when(r) == Always {
		g.present, g.busy = 0, false
		return out
	}
	if r.LidClosed {
		add(Frozen, false, true, "the lid is closed")
	}
	if r.OnBattery {
		charge := ""
		if r.ChargePercent >= 0 {
			charge = fmt.Sprintf(" (%d %%)", r.ChargePercent)
		}
		add(Frozen, false, true, "it runs on battery%s", charge)
	}
	return append(out, g.people(now, r, soon)...)
}

// people lists the reasons that are somebody who uses the machine.
func (g *Guest) people(now Now, r *Reading, soon func(int64)) (out []hold) {
	idleAfter := cmp.Or(g.Policy.IdleAfter, DefaultIdleAfter)
	why := ""
	switch {
	case r.Inhibitor != "":
		why = build.OneLine("it is not to be disturbed: "+r.Inhibitor, 120)
	case r.Nobody:
	case r.IdleMS == Unknown:
		why = "nobody can tell whether somebody uses it (no logind and no input devices to read); --build-when always builds all the same"
	case r.IdleMS < idleAfter:
		left := idleAfter - r.IdleMS
		soon(left)
		why = fmt.Sprintf("somebody uses it; builds begin when nobody did for %s", Span(time.Duration(idleAfter)*time.Millisecond))
	}
	if why != "" {
		if g.present == 0 {
			g.present = now.Boot
		}
		level := Frozen
		if d := now.Boot - g.present; d < FreezeAfter {
			level = Shrunk
			soon(FreezeAfter - d)
		}
		return append(out, hold{level, false, true, why})
	}
	g.present = 0
	switch {
	case r.OthersPercent == Unknown:
	case r.OthersPercent >= busyPercent:
		g.busy = true
	case r.OthersPercent < calmPercent:
		g.busy = false
	}
	if g.busy {
		soon(5_000)
		out = append(out, hold{Shrunk, false, false, fmt.Sprintf("other programs use %d %% of it", max(0, r.OthersPercent))})
	}
	return out
}

// feelHeat follows the temperature. What is too hot has to cool by some degrees
// before it counts as cool.
func (g *Guest) feelHeat(r *Reading) {
	if r.LimitHeat == 0 {
		g.hot = Full
		return
	}
	at := func(level Level, margin int64) bool {
		limit := r.LimitHeat - margin
		if g.hot >= level {
			limit -= coolBy
		}
		return r.HeatMilli >= limit
	}
	switch {
	case at(Frozen, freezeHeat):
		g.hot = Frozen
	case at(Shrunk, shrinkHeat):
		g.hot = Shrunk
	default:
		g.hot = Full
	}
}

// span notes how long the machine was to be had, and how long it was not.
func (g *Guest) span(now Now, away, steady bool) {
	switch {
	case steady:
		g.idleFrom, g.awayFrom = 0, 0
	case away && g.idleFrom > 0:
		g.History.Idle = note(g.History.Idle, now.Boot-g.idleFrom)
		g.idleFrom, g.awayFrom = 0, now.Boot
	case away && g.awayFrom == 0:
		g.awayFrom = now.Boot
	case !away && g.idleFrom == 0:
		if g.awayFrom > 0 {
			g.History.Away = note(g.History.Away, now.Boot-g.awayFrom)
		}
		g.idleFrom, g.awayFrom = now.Boot, 0
	}
}

// freeze says for how long builds are kept frozen, and which go back.
func (g *Guest) freeze(now Now, r *Reading, builds []Build, v *Verdict) {
	if v.Level != Frozen {
		g.frozenAt = 0
		return
	}
	if g.frozenAt == 0 {
		g.frozenAt = now.Boot
	}
	since := now.Boot - g.frozenAt
	if left, paused := g.Paused(now); paused {
		v.WaitMS = left.Milliseconds()
		if left == 0 {
			v.WaitMS = KeepFrozen
		}
	}
	if g.present > 0 {
		v.WaitMS = max(v.WaitMS, cmp.Or(g.Policy.IdleAfter, DefaultIdleAfter)-max(0, r.IdleMS))
	}
	if g.awayFrom > 0 {
		v.WaitMS = max(v.WaitMS, quartile(g.History.Away)-(now.Boot-g.awayFrom))
	}
	v.KeepMS = map[build.Key]int64{}
	for _, b := range builds {
		keep := Keep(b.InvestedMS) - since
		switch {
		case keep <= 0:
			v.Return = append(v.Return, Return{b.Key, fmt.Sprintf("frozen for %s: %s", Span(time.Duration(since)*time.Millisecond), v.Why)})
		case b.ElsewhereMS > 0 && b.ElsewhereMS < v.WaitMS+b.LeftMS:
			v.Return = append(v.Return, Return{b.Key, "a free drone finishes it earlier from the start; here: " + v.Why})
		default:
			v.KeepMS[b.Key] = keep
			v.NextMS = min(v.NextMS, keep)
		}
	}
}

// Keep is how long a build with so much work in it is kept frozen.
func Keep(investedMS int64) int64 { return max(KeepFrozen, investedMS/4) }

// wanted gives back one build after another while somebody wants the memory:
// those with the least work in them first.
func (g *Guest) wanted(now Now, r *Reading, builds []Build, v *Verdict) {
	floor := max(memoryFloor, r.MemMiB/memoryShare)
	short := r.FreeMemMiB > 0 && r.FreeMemMiB < floor
	if !short && r.StallPerMille < stallPerMille {
		return
	}
	why := fmt.Sprintf("memory is wanted: %d MiB are free of %d", r.FreeMemMiB, r.MemMiB)
	v.May = false
	if v.Why == "" {
		v.Why = why
	}
	v.NextMS = min(v.NextMS, 2_000)
	if g.returned > 0 && now.Boot-g.returned < returnEvery {
		return
	}
	var least *Build
	for i := range builds {
		b := &builds[i]
		gone := slices.ContainsFunc(v.Return, func(x Return) bool { return x.Key == b.Key })
		if !gone && (least == nil || b.InvestedMS < least.InvestedMS || b.InvestedMS == least.InvestedMS && b.Key < least.Key) {
			least = b
		}
	}
	if least == nil || len(v.Return) > 0 {
		return
	}
	g.returned = now.Boot
	delete(v.KeepMS, least.Key)
	v.Return = append(v.Return, Return{least.Key, why})
}

// Span writes a duration for people, in two units at the most, rounded up: an
// hour's pause is one hour when it begins.
func Span(d time.Duration) string {
	if d >= 2*time.Minute {
		d = (d + time.Minute - 1).Truncate(time.Minute)
	}
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", (d+time.Second-1)/time.Second)
}

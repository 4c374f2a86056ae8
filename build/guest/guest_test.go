package guest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/build-swarm/swarm/build"
)

// at is a time of a Monday.
func at(boot int64) Now {
	return Now{Wall: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).Add(time.Duration(boot) * time.Millisecond), Boot: boot}
}

// laptop is one on AC that nobody has touched for an hour.
func laptop() Reading {
	return Reading{HasBattery: true, HasLid: true, ChargePercent: 80, IdleMS: 3_600_000, Cores: 4, OthersPercent: 1, FreeMemMiB: 8000, MemMiB: 16000}
}

func TestEveryHoldSaysWhatIsSo(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Reading, *Guest)
		may    bool
		level  Level
		why    string
	}{
		"idle on AC":  {func(*Reading, *Guest) {}, true, Full, ""},
		"battery":     {func(r *Reading, _ *Guest) { r.OnBattery = true }, false, Frozen, "battery (80 %)"},
		"lid":         {func(r *Reading, _ *Guest) { r.LidClosed = true }, false, Frozen, "lid is closed"},
		"person":      {func(r *Reading, _ *Guest) { r.IdleMS = 2_000 }, false, Shrunk, "somebody uses it; builds begin when nobody did for 5 min"},
		"film":        {func(r *Reading, _ *Guest) { r.Inhibitor = "mpv: Playing a film" }, false, Shrunk, "mpv: Playing a film"},
		"unknown":     {func(r *Reading, _ *Guest) { r.IdleMS = Unknown }, false, Shrunk, "--build-when always"},
		"nobody":      {func(r *Reading, _ *Guest) { r.IdleMS, r.Nobody = Unknown, true }, true, Full, ""},
		"metered":     {func(r *Reading, _ *Guest) { r.Metered = true }, false, Full, "metered"},
		"sleep":       {func(r *Reading, _ *Guest) { r.Sleeping = true }, false, Frozen, "about to sleep"},
		"warm":        {func(r *Reading, _ *Guest) { r.HeatMilli, r.LimitHeat, r.Zone = 89_000, 100_000, "cpu" }, false, Shrunk, "cpu has 89 °C"},
		"hot":         {func(r *Reading, _ *Guest) { r.HeatMilli, r.LimitHeat, r.Zone = 97_000, 100_000, "cpu" }, false, Frozen, "limit is 100 °C"},
		"load":        {func(r *Reading, _ *Guest) { r.OthersPercent = 60 }, false, Shrunk, "other programs use 60 %"},
		"memory":      {func(r *Reading, _ *Guest) { r.FreeMemMiB = 200 }, false, Full, "memory is wanted: 200 MiB"},
		"paused":      {func(_ *Reading, g *Guest) { g.Pause(at(0), 2*time.Hour) }, false, Frozen, "paused here for 2 h 0 min more"},
		"paused ever": {func(_ *Reading, g *Guest) { g.Pause(at(0), 0) }, false, Frozen, "swarm resume --here"},
		"hours": {func(_ *Reading, g *Guest) {
			h, err := ParseHours("22:00-07:00")
			if err != nil {
				t.Error(err)
			}
			g.Policy.Hours = []Hours{h}
		}, false, Shrunk, "they begin in 10 h"},
	} {
		t.Run(name, func(t *testing.T) {
			r, g := laptop(), &Guest{}
			c.change(&r, g)
			v := g.Step(at(0), r, nil)
			if v.May != c.may || v.Level != c.level || !strings.Contains(v.Why, c.why) || c.why == "" && v.Why != "" {
				t.Errorf("may %v, level %v, why %q; want %v, %v, %q", v.May, v.Level, v.Why, c.may, c.level, c.why)
			}
		})
	}
}

func TestAServerBuildsWhoeverTypesOnIt(t *testing.T) {
	g := &Guest{}
	v := g.Step(at(0), Reading{IdleMS: 0, OthersPercent: 90, Cores: 4, FreeMemMiB: 5000, MemMiB: 8000}, nil)
	if !v.May || v.Level != Full || !v.Steady || v.Why != "" {
		t.Errorf("%+v", v)
	}
	r := laptop()
	r.IdleMS, r.OnBattery = 0, true
	g.Policy.When = Always
	if v := g.Step(at(1), r, nil); !v.May || !v.Steady {
		t.Errorf("a laptop that is set to always: %+v", v)
	}
}

func TestInputShrinksAtOnceAndFreezesASecondLater(t *testing.T) {
	g, r := &Guest{}, laptop()
	if v := g.Step(at(1_000), r, nil); v.Level != Full {
		t.Fatalf("at rest: %+v", v)
	}
	r.IdleMS = 0
	v := g.Step(at(2_000), r, nil)
	if v.Level != Shrunk || v.NextMS > FreezeAfter {
		t.Errorf("at the input: %v, looks again in %d ms", v.Level, v.NextMS)
	}
	r.IdleMS = v.NextMS
	if v = g.Step(at(2_000+v.NextMS), r, nil); v.Level != Frozen {
		t.Errorf("a second later: %v", v.Level)
	}
	r.IdleMS = DefaultIdleAfter - 1
	if v = g.Step(at(500_000), r, nil); v.Level != Frozen || v.NextMS != 1 {
		t.Errorf("just before the time is over: %v, looks again in %d ms", v.Level, v.NextMS)
	}
	r.IdleMS = DefaultIdleAfter
	if v = g.Step(at(500_001), r, nil); v.Level != Full || !v.May {
		t.Errorf("idle again: %+v", v)
	}
}

func TestAFrozenBuildIsKeptTenMinutesOrAQuarterOfItsWork(t *testing.T) {
	g, r := &Guest{}, laptop()
	r.OnBattery = true
	builds := []Build{{Key: "short", InvestedMS: 60_000}, {Key: "long", InvestedMS: 2 * 3_600_000}}
	v := g.Step(at(1_000), r, builds)
	if v.KeepMS["short"] != KeepFrozen || v.KeepMS["long"] != 30*60_000 || len(v.Return) > 0 {
		t.Fatalf("at once: %+v", v)
	}
	v = g.Step(at(1_000+KeepFrozen), r, builds)
	if len(v.Return) != 1 || v.Return[0].Key != "short" || !strings.Contains(v.Return[0].Reason, "frozen for 10 min: it runs on battery") {
		t.Errorf("after ten minutes: %+v", v.Return)
	}
	// It slept far beyond the time: what it kept goes back before it thaws.
	v = g.Step(at(10*3_600_000), r, builds[1:])
	if len(v.Return) != 1 || v.Return[0].Key != "long" {
		t.Errorf("after a night: %+v", v.Return)
	}
}

func TestAFreeDroneThatIsFasterFromTheStartGetsItAtOnce(t *testing.T) {
	g, r := &Guest{}, laptop()
	r.IdleMS = 0
	b := Build{Key: "k", InvestedMS: 600_000, LeftMS: 60_000}
	g.Step(at(1_000), r, nil)
	for elsewhere, goes := range map[int64]bool{0: false, DefaultIdleAfter + 59_000: true, DefaultIdleAfter + 70_000: false} {
		b.ElsewhereMS = elsewhere
		if v := g.Step(at(2_500), r, []Build{b}); len(v.Return) == 1 != goes {
			t.Errorf("elsewhere in %d ms: %+v", elsewhere, v.Return)
		}
	}
}

func TestMemoryThatIsWantedTakesTheYoungestBuildFirst(t *testing.T) {
	g, r := &Guest{Policy: Policy{When: Always}}, laptop()
	r.FreeMemMiB = 100
	builds := []Build{{Key: "old", InvestedMS: 900}, {Key: "young", InvestedMS: 100}}
	v := g.Step(at(1_000), r, builds)
	if len(v.Return) != 1 || v.Return[0].Key != "young" || v.Level != Full {
		t.Fatalf("%+v", v)
	}
	if v = g.Step(at(2_000), r, builds[:1]); len(v.Return) != 0 {
		t.Error("the next goes before the first can have given its memory back")
	}
	if v = g.Step(at(1_000+returnEvery), r, builds[:1]); len(v.Return) != 1 {
		t.Error("the next never goes")
	}
}

func TestHeatHasToFallSomeDegreesBeforeItIsOver(t *testing.T) {
	g, r := &Guest{}, laptop()
	r.LimitHeat, r.Zone = 100_000, "cpu"
	for _, c := range []struct {
		heat int64
		want Level
	}{{87_000, Full}, {88_000, Shrunk}, {84_000, Shrunk}, {96_000, Frozen}, {92_000, Frozen}, {90_000, Shrunk}, {82_000, Full}, {87_000, Full}} {
		r.HeatMilli = c.heat
		if v := g.Step(at(1_000), r, nil); v.Level != c.want {
			t.Errorf("%d: %v, want %v", c.heat, v.Level, c.want)
		}
	}
}

func TestUntilIsTheLowerQuartileOfWhatPastSpansHadLeft(t *testing.T) {
	g, boot := &Guest{}, int64(1_000)
	idle, used := laptop(), laptop()
	used.OnBattery = true
	for _, minutes := range []int64{10, 20, 60, 30, 480} {
		if v := g.Step(at(boot), idle, nil); v.Steady {
			t.Fatal("a laptop is steady")
		}
		boot += minutes * 60_000
		g.Step(at(boot), used, nil)
		boot += 3_600_000
	}
	if v := g.Step(at(boot), idle, nil); v.UntilS != 20*60 {
		t.Errorf("at the begin of a span: %d s", v.UntilS)
	}
	if v := g.Step(at(boot+25*60_000), idle, nil); v.UntilS != 5*60 {
		t.Errorf("after 25 minutes, when spans of 30, 60, 480 are left: %d s", v.UntilS)
	}
	if len(g.History.Idle) != 5 || len(g.History.Away) != 5 {
		t.Errorf("history %+v", g.History)
	}
}

func TestHoursAreReadAndCrossMidnight(t *testing.T) {
	monday := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		hours string
		at    time.Duration // since Monday 00:00
		out   bool
		left  time.Duration
	}{
		{"22:00-07:00", 6 * time.Hour, false, time.Hour},
		{"22:00-07:00", 12 * time.Hour, true, 10 * time.Hour},
		{"mon-fri 20:00-07:00", 3 * time.Hour, true, 17 * time.Hour}, // Sunday night is not Friday's
		{"mon-fri 20:00-07:00", 27 * time.Hour, false, 4 * time.Hour},
		{"sat-sun 00:00-24:00", 12 * time.Hour, true, 4*24*time.Hour + 12*time.Hour},
		{"fri 23:00-01:00", 5*24*time.Hour + 30*time.Minute, false, 30 * time.Minute},
	} {
		h, err := ParseHours(c.hours)
		if err != nil {
			t.Fatal(err)
		}
		if left, out := outside([]Hours{h}, monday.Add(c.at)); out != c.out || left != c.left {
			t.Errorf("%s at %v: out %v for %v, want %v for %v", c.hours, c.at, out, left, c.out, c.left)
		}
	}
	for _, bad := range []string{"", "22-7", "25:00-07:00", "xyz 20:00-21:00", "24:00-01:00", "20:00", "mon-fri", "20:0-21:00"} {
		if _, err := ParseHours(bad); err == nil {
			t.Errorf("%q is taken for hours", bad)
		}
	}
}

func FuzzParseHours(f *testing.F) {
	f.Add("mon-fri 20:00-07:00")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHours(s)
		if err == nil && (h.Days == 0 || h.From < 0 || h.From >= 24*60 || h.To > 24*60) {
			t.Errorf("%q: %+v", s, h)
		}
	})
}

func TestABuildIsAdmittedOnlyWithRoomForWhatOthersHaveYetToTake(t *testing.T) {
	room := Room{FreeMemMiB: 4000, FreeDiskMiB: 20_000, Running: []Booked{{Need: Need{3000, 15_000}, Used: Need{1000, 5_000}}}}
	for _, c := range []struct {
		need Need
		why  string
	}{
		{Need{2000, 8976}, ""},
		{Need{2001, 10}, "it wants 2001 MiB of memory, and 2000 are left here"},
		{Need{0, 8977}, "it wants 8977 MiB of disk, and 8976 are left here"},
	} {
		if why := Admit(c.need, room); why != c.why {
			t.Errorf("%+v: %q, want %q", c.need, why, c.why)
		}
	}
}

// Whatever the sensors say, in any order: there is a reason for every state
// below full, nothing is kept beyond its deadline, and time alone ends a hold
// that time alone can end.
func TestNoStateIsWithoutAReason(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, boot := &Guest{}, int64(1)
		g.Policy.When = rapid.SampledFrom([]When{Auto, Always, WhenIdle}).Draw(t, "when")
		builds := []Build{{Key: "a", InvestedMS: 1}, {Key: "b", InvestedMS: 5_000_000, LeftMS: 100}}
		frozen := int64(0)
		for n := range rapid.IntRange(1, 40).Draw(t, "steps") {
			r := Reading{
				HasBattery: rapid.Bool().Draw(t, "battery"), HasLid: rapid.Bool().Draw(t, "lid"), OnBattery: rapid.Bool().Draw(t, "on battery"),
				LidClosed: rapid.Bool().Draw(t, "closed"), IdleMS: rapid.SampledFrom([]int64{Unknown, 0, 1, DefaultIdleAfter - 1, DefaultIdleAfter, 1e9}).Draw(t, "idle"),
				Nobody: rapid.Bool().Draw(t, "nobody"), Metered: rapid.Bool().Draw(t, "metered"), Sleeping: rapid.Bool().Draw(t, "sleeping"),
				HeatMilli: rapid.Int64Range(20_000, 120_000).Draw(t, "heat"), LimitHeat: rapid.SampledFrom([]int64{0, 100_000}).Draw(t, "limit"),
				OthersPercent: rapid.IntRange(-1, 100).Draw(t, "others"), FreeMemMiB: rapid.Int64Range(0, 9000).Draw(t, "mem"), MemMiB: 8000,
				StallPerMille: rapid.SampledFrom([]int64{0, 0, 300}).Draw(t, "stall"),
			}
			boot += rapid.Int64Range(1, 2_000_000).Draw(t, "passed")
			v := g.Step(at(boot), r, builds)
			switch {
			case (!v.May || v.Level > Full) && v.Why == "":
				t.Fatalf("step %d: no reason: %+v", n, v)
			case v.May && v.Level > Full:
				t.Fatalf("step %d: builds begin while others are %v", n, v.Level)
			case v.NextMS < 1:
				t.Fatalf("step %d: looks again in %d ms", n, v.NextMS)
			case v.Level != Frozen && len(v.KeepMS) > 0:
				t.Fatalf("step %d: %v, and keeps %v", n, v.Level, v.KeepMS)
			}
			if v.Level != Frozen {
				frozen = 0
			} else if frozen == 0 {
				frozen = boot
			}
			for _, b := range builds {
				back := false
				for _, x := range v.Return {
					back = back || x.Key == b.Key && x.Reason != ""
				}
				if _, kept := v.KeepMS[b.Key]; v.Level == Frozen && kept == back {
					t.Fatalf("step %d: %s is kept %v and goes back %v", n, b.Key, kept, back)
				}
				if v.Level == Frozen && !back && boot-frozen >= Keep(b.InvestedMS) {
					t.Fatalf("step %d: %s is frozen for %d ms", n, b.Key, boot-frozen)
				}
			}
		}
	})
}

func BenchmarkStep(b *testing.B) {
	g, r := &Guest{}, laptop()
	var builds []Build
	for n := range 4 {
		builds = append(builds, Build{Key: build.Key(fmt.Sprint(n)), InvestedMS: 1000})
	}
	r.OnBattery = true
	for n := 0; b.Loop(); n++ {
		g.Step(at(int64(n)), r, builds)
	}
}

func TestOnBatteryWithNothingToDoItIsQuietAndAwakeForWhoAsks(t *testing.T) {
	g, r := &Guest{}, laptop()
	r.OnBattery = true
	quiet := func(ms int64, builds ...Build) bool { return g.Step(at(1+ms), r, builds).Quiet }
	if quiet(0) || quiet(QuietAfter-1) {
		t.Error("it is quiet as soon as the plug is out")
	}
	if v := g.Step(at(1+QuietAfter-5000), r, nil); v.NextMS > 5000 {
		t.Errorf("it looks again in %d ms; want when it is time to be quiet", v.NextMS)
	}
	if !quiet(QuietAfter) {
		t.Error("it is not quiet after a minute on battery")
	}
	if quiet(QuietAfter+1, Build{Key: "k"}) {
		t.Error("it is quiet with a frozen build, whose claim has to be renewed")
	}
	quiet(QuietAfter + 2)
	now := int64(3 * QuietAfter)
	if !quiet(now) {
		t.Error("it is not quiet after its build is gone")
	}
	g.Asked(at(1 + now))
	if quiet(now+1) || quiet(now+AwakeFor-1) || !quiet(now+AwakeFor) {
		t.Error("it is not awake for two minutes when its user asks")
	}
	r.OnBattery = false
	if quiet(now + AwakeFor + 1) {
		t.Error("it is quiet on AC")
	}
	// A machine that builds on battery, since it was told to, hears of work at once.
	g, r.OnBattery = &Guest{Policy: Policy{When: Always}}, true
	if quiet(0) || quiet(2*QuietAfter) {
		t.Error("it is quiet though it may build")
	}
}

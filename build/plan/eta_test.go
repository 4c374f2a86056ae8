package plan

import (
	"fmt"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// about is a job of round "r" that costs its estimate up to a factor.
func about(j *build.Job, s claims.JobState, factor int64) claims.JobInfo {
	i := info(j, s)
	i.Rounds = []string{"r"}
	i.Estimate = claims.Estimate{Low: j.CoreMillis / factor, Median: j.CoreMillis, High: j.CoreMillis * factor, Measured: true}
	return i
}

// tried are jobs behind builds that took what drone "p", of one core, was expected
// to take: what it is worth is known.
func tried(jobs ...claims.JobInfo) []claims.JobInfo {
	var out []claims.JobInfo
	for n := range int64(40) {
		i := about(job(fmt.Sprint("tried", n), 100_000+10_000*n), claims.JobSafe, 1)
		i.Others = i.Job.CoreMillis
		i.Good = &claims.Result{Peer: "p", Outcome: build.Outcome{Millis: i.Job.CoreMillis, CoreMillis: i.Job.CoreMillis}}
		out = append(out, i)
	}
	return append(out, jobs...)
}

func TestARangeIsAsWideAsTheEstimateIsUnsure(t *testing.T) {
	j := job("a", 600_000)
	peers := []claims.Peer{peer("p", 1000)}
	sure, unsure := Ends(tried(about(j, claims.JobReady, 1)), peers)["r"], Ends(tried(about(j, claims.JobReady, 3)), peers)["r"]
	if sure.Low < 480_000 || sure.High > 720_000 || sure.Low > 600_000 || sure.High < 600_000 {
		t.Errorf("a build of 600 s ends after %d to %d ms", sure.Low, sure.High)
	}
	if w, s := unsure.High-unsure.Low, sure.High-sure.Low; w < 3*s || unsure.Low > 400_000 || unsure.High < 900_000 {
		t.Errorf("unsure by a factor of three: %d to %d ms", unsure.Low, unsure.High)
	}
}

func TestErrorsOfManyJobsCancel(t *testing.T) {
	var jobs []claims.JobInfo
	for n := range 100 {
		jobs = append(jobs, about(job(fmt.Sprint(n), 6_000), claims.JobReady, 3))
	}
	got := Ends(tried(jobs...), []claims.Peer{peer("p", 1000)})["r"]
	if one := Ends(tried(jobs[0]), []claims.Peer{peer("p", 1000)})["r"]; (got.High-got.Low)*one.High > (one.High-one.Low)*got.High/2 {
		t.Errorf("a hundred jobs end after %d to %d ms, one after %d to %d", got.Low, got.High, one.Low, one.High)
	}
}

func TestABuildThatIsOverdueIsNotExpectedAtOnce(t *testing.T) {
	j := job("a", 600_000)
	i := about(j, claims.JobBuilding, 2)
	i.Holder = "p"
	i.Beat = claims.BeatJob{Key: j.Key, Compiling: true, InvestedMS: 900_000, LeftMS: claims.Left(600_000, 900_000)}
	got := Ends([]claims.JobInfo{i}, []claims.Peer{peer("p", 1000, i.Beat)})["r"]
	if got.Low < 1000 || got.High < 60_000 {
		t.Errorf("a build that took 900 s instead of 600 ends after %d to %d ms more", got.Low, got.High)
	}
}

// Its drone says that a quarter is left, which is for the schedule.
func TestABuildThatIsJustOverdueIsExpectedSoonIfItsEstimateIsSure(t *testing.T) {
	j := job("a", 600_000)
	i := about(j, claims.JobBuilding, 1)
	i.Holder, i.Work = "p", 600_000
	i.Estimate.Low, i.Estimate.High = 528_000, 682_000 // a deviation of 0.1
	i.Beat = claims.BeatJob{Key: j.Key, Compiling: true, InvestedMS: 606_000, LeftMS: claims.Left(600_000, 606_000)}
	got := Ends(tried(i), []claims.Peer{peer("p", 1000, i.Beat)})["r"]
	if mid := (got.Low + got.High) / 2; mid < 20_000 || mid > 120_000 || got.High > 240_000 {
		t.Errorf("a build took 606 s instead of 600 +-60: it ends after %d to %d ms more", got.Low, got.High)
	}
}

// What planners guess is corrected by what came of it.
func TestGuessesThatWereTooSmallMakeTheRestLonger(t *testing.T) {
	peers := []claims.Peer{peer("p", 1000)}
	jobs := []claims.JobInfo{}
	for n := range 60 {
		i := info(job(fmt.Sprint(n), 60_000), claims.JobReady)
		i.Rounds, i.Estimate = []string{"r"}, claims.Estimate{Low: 30_000, Median: 60_000, High: 120_000}
		jobs = append(jobs, i)
	}
	before := Ends(jobs[30:], peers)["r"]
	for n := range 30 {
		jobs[n].State = claims.JobSafe
		jobs[n].Good = &claims.Result{Peer: "p", Outcome: build.Outcome{Class: build.Good, CoreMillis: 120_000, Millis: 120_000}}
	}
	after := Ends(jobs, peers)["r"]
	if after.Low < before.Low*3/2 || after.High-after.Low > before.High-before.Low {
		t.Errorf("30 of 60 builds took twice as long as guessed: the rest ends after %d to %d ms, before that was known %d to %d", after.Low, after.High, before.Low, before.High)
	}
}

// A new compiler makes every package slower than it was the last time.
func TestEarlierBuildsThatWereFasterMakeTheRestLonger(t *testing.T) {
	peers := []claims.Peer{peer("p", 1000)}
	jobs := []claims.JobInfo{}
	for n := range 60 {
		i := info(job(fmt.Sprint(n), 60_000), claims.JobReady)
		i.Rounds, i.Estimate = []string{"r"}, claims.Estimate{Low: 50_000, Median: 60_000, High: 72_000, Measured: true}
		jobs = append(jobs, i)
	}
	before := Ends(jobs[30:], peers)["r"]
	for n := range 30 {
		jobs[n].State, jobs[n].Others = claims.JobSafe, 60_000
		jobs[n].Good = &claims.Result{Peer: "p", Outcome: build.Outcome{Class: build.Good, CoreMillis: 78_000, Millis: 78_000}}
	}
	after := Ends(jobs, peers)["r"]
	if after.Low < before.Low*11/10 || after.High-after.Low > (before.High-before.Low)*3/4 {
		t.Errorf("30 of 60 builds took a third longer than the last time: the rest ends after %d to %d ms, before that was known %d to %d", after.Low, after.High, before.Low, before.High)
	}
}

func TestARoundInWhichNothingCanBeBuiltHasNoEnd(t *testing.T) {
	i := info(job("a", 1000), claims.JobBlocked)
	i.Rounds = []string{"r"}
	if e := Ends([]claims.JobInfo{i}, []claims.Peer{peer("p", 1000)}); len(e) != 0 {
		t.Errorf("%v", e)
	}
}

func TestALaptopsTimeRunsOutWhileItIsNotHeardOf(t *testing.T) {
	j := job("a", 100_000)
	v := view{Jobs: []claims.JobInfo{info(j, claims.JobReady)}, Peers: []claims.Peer{peer("laptop", 1500), peer("nas", 1000)}}
	v.Peers[0].Beat.Steady, v.Peers[0].Beat.UntilS = false, 80
	if _, ok, _ := next(v.Jobs, v.Peers, "laptop", nil); !ok {
		t.Error("the laptop does not get what it can finish")
	}
	v.Peers[0].AgeMS = 20_000
	if _, ok, _ := next(v.Jobs, v.Peers, "nas", nil); !ok {
		t.Error("20 s later the laptop still gets what it cannot finish")
	}
}

func TestAnOverdueBuildOccupiesItsDrone(t *testing.T) {
	for _, c := range []struct{ estimate, invested, want int64 }{
		{100_000, 40_000, 60_000},
		{100_000, 100_000, 25_000},
		{100_000, 110_000, 25_000},
		{100_000, 180_000, 80_000},
	} {
		if got := claims.Left(c.estimate, c.invested); got != c.want {
			t.Errorf("of %d ms estimated, %d done: %d left, want %d", c.estimate, c.invested, got, c.want)
		}
	}
}

// One build of 600 s, known up to a factor, that went on for 300 s and whose log
// says that most of it is still to come.
func TestALogTellsMoreThanAnEstimate(t *testing.T) {
	j := job("a", 600_000)
	ends := func(done int64, measured bool) Range {
		i := about(j, claims.JobBuilding, 3)
		i.Holder, i.Work, i.Estimate.Measured = "p", 600_000, measured
		i.Beat = claims.BeatJob{Key: j.Key, Compiling: true, InvestedMS: 300_000, Done: done}
		i.Beat.LeftMS = claims.Left(claims.Whole(600_000, 300_000, done, i.Estimate.Deviation(), measured), 300_000)
		return Ends([]claims.JobInfo{i}, []claims.Peer{peer("p", 1000, i.Beat)})["r"]
	}
	blind, early, late := ends(0, true), ends(250, true), ends(900, true)
	if early.Low < 500_000 || early.High > 1_500_000 { // 900 s more
		t.Errorf("a quarter is done after 300 s: it ends after %d to %d ms more", early.Low, early.High)
	}
	if late.Low < 15_000 || late.High > 90_000 { // 33 s more
		t.Errorf("nine tenths are done after 300 s: it ends after %d to %d ms more", late.Low, late.High)
	}
	if b, l := blind.High-blind.Low, late.High-late.Low; l*3 > b {
		t.Errorf("with a log the range is %d ms wide, without one %d", l, b)
	}
	if counted := ends(500, false); counted.High-counted.Low <= ends(500, true).High-ends(500, true).Low {
		t.Error("steps that were only counted are believed as much as the course of an earlier log")
	}
}

// A machine that others use, or that measured itself wrongly: the first builds
// tell, and one that should be over tells before any has ended.
func TestSlowMachinesAreNoticed(t *testing.T) {
	peers := []claims.Peer{peer("p", 1000)}
	ends := func(jobs ...claims.JobInfo) Range { return Ends(jobs, peers)["r"] }
	var todo []claims.JobInfo
	for n := range 20 {
		todo = append(todo, about(job(fmt.Sprint(n), 30_000), claims.JobReady, 2))
	}
	if r := ends(todo...); r.High > 1_200_000 {
		t.Errorf("600 s of work end after %d to %d ms", r.Low, r.High)
	}
	var slow []claims.JobInfo
	for n := range int64(8) {
		i := about(job(fmt.Sprint("slow", n), 30_000), claims.JobSafe, 2)
		i.Others = 30_000
		i.Good = &claims.Result{Peer: "p", Outcome: build.Outcome{Millis: 150_000, CoreMillis: 30_000}}
		slow = append(slow, i)
	}
	if r := ends(append(slow, todo...)...); r.Low > 3_000_000 || r.High < 3_000_000 || r.Low < 1_800_000 {
		t.Errorf("where all builds took five times as long, 600 s of work end after %d to %d ms", r.Low, r.High)
	}
	late := todo[0]
	late.State, late.Holder = claims.JobBuilding, "p"
	late.Beat = claims.BeatJob{Key: late.Job.Key, Compiling: true, InvestedMS: 200_000, LeftMS: claims.Left(30_000, 200_000)}
	peers = []claims.Peer{peer("p", 1000, late.Beat)}
	if r := ends(append([]claims.JobInfo{late}, todo[1:]...)...); r.High < 1_200_000 {
		t.Errorf("with the first build at six times its estimate, 600 s of work end after %d to %d ms", r.Low, r.High)
	}
}

// Nobody knows anything of 600 packages: those that ended are small, since the
// large ones take longer, and still giants are to come.
func TestOfUnknownPackagesTheSmallEndFirst(t *testing.T) {
	var jobs []claims.JobInfo
	for n := range int64(200) {
		j := job(fmt.Sprint(n), 0)
		i := about(j, claims.JobReady, 1)
		i.Estimate, i.Work = claims.Estimate{Low: 100_000, Median: claims.DefaultWork, High: 2_000_000}, claims.DefaultWork
		if n < 60 {
			i.State = claims.JobSafe
			i.Good = &claims.Result{Peer: "p", Outcome: build.Outcome{Millis: 20_000 + n*500, CoreMillis: 20_000 + n*500}}
		}
		jobs = append(jobs, i)
	}
	r := Ends(jobs, []claims.Peer{peer("p", 1000)})["r"]
	small := int64(140 * 35_000)
	if r.Low < small/2 || r.Low > 10*small || r.High < 2*small || r.High > 140*claims.DefaultWork*8 {
		t.Errorf("140 of 200 packages, of which 60 took half a minute, end after %d to %d s", r.Low/1000, r.High/1000)
	}
}

// Whatever a board says, a forecast is one of numbers.
func TestAForecastOfNonsenseIsNoNonsense(t *testing.T) {
	i := about(job("a", 0), claims.JobBuilding, 1)
	i.Holder, i.Work = "p", claims.DefaultWork
	for _, b := range []claims.BeatJob{{InvestedMS: 1 << 40, LeftMS: 1}, {LeftMS: 1}, {InvestedMS: 1, LeftMS: 1 << 40, Done: 999}, {InvestedMS: 5, LeftMS: 5, Done: 1}} {
		for _, measured := range []bool{false, true} {
			b.Key = i.Job.Key
			i.Beat, i.Estimate.Measured = b, measured
			r := Ends([]claims.JobInfo{i}, []claims.Peer{peer("p", 1000, b)})["r"]
			if r.Low < 0 || r.Median < r.Low || r.High < r.Median {
				t.Errorf("%+v: %+v", b, r)
			}
		}
	}
}

// Of two drones that say that they are equal one takes three times as long.
func TestADroneThatIsSlowerThanItSaysIsKnown(t *testing.T) {
	peers := []claims.Peer{peer("fast", 1000), peer("slow", 1000)}
	build1 := func(id string, took int64) Range {
		var jobs []claims.JobInfo
		for n := range int64(20) {
			for p, f := range map[string]int64{"fast": 1, "slow": 3} {
				i := about(job(fmt.Sprint(p, n), 60_000+10_000*n), claims.JobSafe, 1)
				i.Others = i.Job.CoreMillis
				i.Good = &claims.Result{Peer: p, Outcome: build.Outcome{Millis: f * i.Job.CoreMillis, CoreMillis: i.Job.CoreMillis}}
				jobs = append(jobs, i)
			}
		}
		i := about(job("a", 600_000), claims.JobBuilding, 1)
		i.Holder = id
		i.Beat = claims.BeatJob{Key: i.Job.Key, Compiling: true, InvestedMS: took, LeftMS: claims.Left(600_000, took)}
		return Ends(append(jobs, i), peers)["r"]
	}
	if fast, slow := build1("fast", 60_000), build1("slow", 60_000); slow.Median < 2*fast.Median || fast.Median > 900_000 {
		t.Errorf("a build of 600 s has %d s left on the one, and %d s on the other", fast.Median/1000, slow.Median/1000)
	}
}

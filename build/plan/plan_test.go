package plan

import (
	"cmp"
	"slices"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

func peer(id string, speed int64, jobs ...claims.BeatJob) claims.Peer {
	return claims.Peer{ID: id, Live: true, Beat: claims.Beat{Slots: 1, Speed: speed, Accepting: true, Steady: true, PeriodMS: claims.BeatMillis,
		Builders: []build.Builder{build.BuilderSample}, Jobs: jobs}}
}

func job(name string, work int64, needs ...*build.Job) *build.Job {
	pre := []build.Facet{{Name: "n", Value: name}}
	k, err := build.KeyOf(pre)
	if err != nil {
		panic(err)
	}
	j := &build.Job{Key: k, Builder: build.BuilderSample, CoreMillis: work, Preimage: pre,
		CPV: build.CPV{Category: "c", Name: name, Version: "1"}}
	for _, n := range needs {
		j.Needs = append(j.Needs, build.Edge{Key: n.Key, Kind: build.Buildtime})
	}
	return j
}

type view struct {
	Jobs  []claims.JobInfo
	Peers []claims.Peer
}

// next schedules what is ready among jobs, as Replica.Ready would order it.
func next(jobs []claims.JobInfo, peers []claims.Peer, self string, excluded func(build.Key, string) bool) (build.Key, bool, []Assignment) {
	var ready []claims.Candidate
	g := graphOf(jobs)
	for n, i := range jobs {
		if i.State == claims.JobReady {
			ready = append(ready, claims.Candidate{Job: i.Job, Priority: g.prio[n], Rank: g.rank[n], Work: i.Work, Scarred: excluded != nil})
		}
	}
	slices.SortFunc(ready, func(a, b claims.Candidate) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(b.Rank, a.Rank), cmp.Compare(a.Job.Key, b.Job.Key))
	})
	var s Scheduler
	return s.Next(&View{Ready: ready, Peers: peers, Excluded: excluded}, self)
}

func info(j *build.Job, s claims.JobState, waits ...*build.Job) claims.JobInfo {
	i := claims.JobInfo{Job: j, State: s, Priority: build.Normal, Work: j.CoreMillis}
	for _, w := range waits {
		i.WaitsFor = append(i.WaitsFor, w.Key)
	}
	return i
}

func TestTheLongestRemainingPathGoesFirst(t *testing.T) {
	short, long := job("short", 9000), job("long", 1000)
	tail := job("tail", 60_000, long)
	v := view{Jobs: []claims.JobInfo{info(short, claims.JobReady), info(long, claims.JobReady), info(tail, claims.JobWaiting, long)}, Peers: []claims.Peer{peer("a", 1000)}}
	if k, ok, _ := next(v.Jobs, v.Peers, "a", nil); !ok || k != long.Key {
		t.Errorf("took %s, want the job with the long tail", k.Short())
	}
}

func TestAWaitedForJobGoesBeforeEverything(t *testing.T) {
	big, small := job("big", 900_000), job("small", 10)
	v := view{Jobs: []claims.JobInfo{info(big, claims.JobReady), info(small, claims.JobReady)}, Peers: []claims.Peer{peer("a", 1000)}}
	v.Jobs[1].Priority = build.WaitedFor
	if k, _, _ := next(v.Jobs, v.Peers, "a", nil); k != small.Key {
		t.Error("the waited-for job was not first")
	}
}

func TestAGiantWaitsForTheFastDrone(t *testing.T) {
	giant := job("giant", 3_600_000)
	busy := claims.BeatJob{Key: job("x", 1).Key, LeftMS: 60_000, Compiling: true}
	v := view{Jobs: []claims.JobInfo{info(giant, claims.JobReady)}, Peers: []claims.Peer{peer("fast", 24_000, busy), peer("slow", 2_000)}}
	if _, ok, all := next(v.Jobs, v.Peers, "slow", nil); ok || len(all) != 1 || all[0].Peer != "fast" {
		t.Errorf("the slow drone takes the giant: %+v", all)
	}
	// An overdue build counts for longer and longer: the slow one gets its turn.
	v.Peers[0].Beat.Jobs[0] = claims.BeatJob{Key: busy.Key, LeftMS: 7_200_000, Compiling: true}
	if _, ok, _ := next(v.Jobs, v.Peers, "slow", nil); !ok {
		t.Error("the slow drone waits for ever")
	}
}

func TestEveryReadyJobGoesToExactlyOneIdleDrone(t *testing.T) {
	var jobs []claims.JobInfo
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		jobs = append(jobs, info(job(n, 10_000), claims.JobReady))
	}
	v := view{Jobs: jobs, Peers: []claims.Peer{peer("p", 1000), peer("q", 1000), peer("r", 1000)}}
	taken := map[build.Key]string{}
	for _, id := range []string{"p", "q", "r"} {
		k, ok, _ := next(v.Jobs, v.Peers, id, nil)
		if !ok {
			t.Errorf("%s takes nothing though jobs are ready", id)
		}
		if by, twice := taken[k]; twice {
			t.Errorf("%s and %s both take %s", by, id, k.Short())
		}
		taken[k] = id
	}
}

func TestDronesThatDoNotTakeTheirJobArePassedOver(t *testing.T) {
	j := job("a", 10_000)
	v := view{Jobs: []claims.JobInfo{info(j, claims.JobReady)},
		Peers: []claims.Peer{peer("deaf", 9000), peer("dumb", 8000), peer("gone", 7000), peer("me", 1000)}}
	v.Peers[3].Self = true
	m := NewMemory()
	for boot := int64(0); boot <= 3*claims.BeatMillis; boot += 1000 {
		if _, ok, all := next(v.Jobs, v.Peers, "me", m.Passed); !ok {
			m.Note(all, v.Peers, boot)
			continue
		}
		if boot < 2*claims.BeatMillis {
			t.Errorf("took it after %d ms, before its owner had two Beats", boot)
		}
		return
	}
	t.Error("not taken within three Beats: the plan gives it to drones that do not hear")
}

func TestAnUnsteadyDroneGetsNothingItCannotFinish(t *testing.T) {
	j := job("a", 100_000)
	v := view{Jobs: []claims.JobInfo{info(j, claims.JobReady)}, Peers: []claims.Peer{peer("laptop", 1500), peer("nas", 1000)}}
	v.Peers[0].Beat.Steady = false
	v.Peers[0].Beat.UntilS = 30
	if _, ok, _ := next(v.Jobs, v.Peers, "nas", nil); !ok {
		t.Error("the steady drone does not get the job that the laptop cannot finish")
	}
	v.Peers = v.Peers[:1]
	if _, ok, _ := next(v.Jobs, v.Peers, "laptop", nil); !ok {
		t.Error("with nobody else, the laptop does not try")
	}
}

func TestForecastEndsNoEarlierThanTheCriticalPath(t *testing.T) {
	a, b := job("a", 10_000), job("b", 10_000)
	c := job("c", 20_000, a, b)
	v := view{Jobs: []claims.JobInfo{info(a, claims.JobReady), info(b, claims.JobReady), info(c, claims.JobWaiting, a, b)}, Peers: []claims.Peer{peer("p", 1000), peer("q", 1000)}}
	f := Forecast(v.Jobs, v.Peers)
	if got := f[c.Key].Finish; got < 30_000 || got > 30_100 {
		t.Errorf("the last job ends after %d ms, want 30,000", got)
	}
}

func TestForecastPutsWhatIsWaitedForFirst(t *testing.T) {
	big, base := job("big", 60_000), job("base", 1_000)
	small := job("small", 1_000, base)
	jobs := []claims.JobInfo{info(big, claims.JobReady), info(base, claims.JobReady), info(small, claims.JobWaiting, base)}
	jobs[2].Priority = build.WaitedFor
	f := Forecast(jobs, []claims.Peer{peer("p", 1000)})
	if got := f[small.Key].Finish; got > 2_100 {
		t.Errorf("what somebody waits for ends after %d ms, want 2,000: its dependency stood behind", got)
	}
	if got := f[big.Key].Finish; got < 62_000 {
		t.Errorf("the other ends after %d ms, on the same slot", got)
	}
}

func TestForecastLeavesOutWhatNobodyWillBuild(t *testing.T) {
	lost, gone := job("lost", 1_000), job("gone", 1_000)
	after, other := job("after", 1_000, lost), job("other", 1_000, gone)
	jobs := []claims.JobInfo{info(lost, claims.JobBlocked), info(after, claims.JobWaiting, lost), info(other, claims.JobWaiting, gone)}
	if f := Forecast(jobs, []claims.Peer{peer("p", 1000)}); len(f) != 0 {
		t.Errorf("%d forecasts of jobs behind a blocked or an unknown one", len(f))
	}
}

func TestAJobGoesToADroneThatItsTargetRunsOn(t *testing.T) {
	j := job("lib", 60_000)
	fast, old, able := peer("fast", 9000), peer("old", 5000), peer("able", 1000)
	fast.Beat.Arch = "arm64"
	old.Beat.Arch, old.Beat.Features = "amd64", []string{"sse2"}
	able.Beat.Arch, able.Beat.Features = "amd64", []string{"avx2", "sse2"}
	peers := []claims.Peer{able, fast, old}
	i := info(j, claims.JobReady)
	i.For = &build.Target{Name: "t", State: build.TargetLive, Arch: "amd64", CPU: []string{"avx2"}}
	if a := Forecast([]claims.JobInfo{i}, peers)[j.Key]; a.Peer != "able" {
		t.Errorf("the forecast gives it to %q", a.Peer)
	}
	var s Scheduler
	for _, self := range []string{"fast", "able", "old"} {
		_, ok, _ := s.Next(&View{Ready: []claims.Candidate{{Job: j, For: i.For, Work: i.Work}}, Peers: peers}, self)
		if ok != (self == "able") {
			t.Errorf("%s takes it: %v", self, ok)
		}
	}
	i.For = nil
	if a := Forecast([]claims.JobInfo{i}, peers)[j.Key]; a.Peer != "fast" {
		t.Errorf("without a target the fastest is %q", a.Peer)
	}
}

package claims

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
)

// JobState is where a job stands. It is derived, never written.
type JobState string

const (
	JobWaiting   JobState = "waiting"   // a dependency is not available yet
	JobReady     JobState = "ready"     // free to be claimed
	JobClaimed   JobState = "claimed"   // held, not compiling yet
	JobBuilding  JobState = "building"  // compiling
	JobAway      JobState = "away"      // built; its holders are expected back
	JobAvailable JobState = "available" // built, and a live peer holds it
	JobSafe      JobState = "safe"      // R copies
	JobBlocked   JobState = "blocked"   // failed where it fits, or waits for one that did
	JobUnfit     JobState = "unfit"     // ready, but no live drone can build it
)

// Done reports whether a state means that the artifact can be fetched.
func (s JobState) Done() bool { return s == JobAvailable || s == JobSafe }

// JobInfo is one job with all that is derived for it.
type JobInfo struct {
	Job      *build.Job
	Target   string
	For      *build.Target // Target as the board has it, which says who can build for it; nil = it says nothing
	Rounds   []string
	Priority build.Priority
	State    JobState
	Holder   string // who has it, if anybody
	Epoch    uint64
	Beat     BeatJob
	Copies   int   // live holders of the artifact
	Wanted   int   // copies that make it safe, once there is one
	Work     int64 // estimate in core-milliseconds; the median of Estimate
	Estimate Estimate
	// MemoryMiB and DiskMiB are what the build is expected to want; 0 = unknown.
	MemoryMiB, DiskMiB int64

	Good     *Result
	Others   int64       // median of the package's other builds, in core-milliseconds, once Good is there; 0 = none
	Failures []Result    // that count, newest last
	WaitsFor []build.Key // not available yet, of its own dependencies
	Cause    build.Key   // the blocked job at the root, if blocked
}

// Left is how much longer a build takes, in milliseconds, by its estimate and
// what it took so far. A build that is overdue was estimated wrongly, so the
// rest of its estimate says nothing: it will take a quarter of the estimate, or
// as long again as it is late already.
func Left(estimate, invested int64) int64 {
	if invested < estimate {
		return estimate - invested
	}
	return max(1, estimate/4, invested-estimate)
}

// DoneDeviation is the deviation of the logarithm of how long a build takes in
// all, told by which part of it is done (BeatJob.Done): the further it is, the
// surer. measured says that the package was built before, so that its log tells
// more than the steps it counts.
func DoneDeviation(done int64, measured bool) float64 {
	far := -math.Log(float64(min(999, max(1, done))) / 1000)
	each := doneCounted
	if measured {
		each = doneMeasured
	}
	return math.Hypot(doneLeast, each*far)
}

// What a log tells of a build that is done by a part x of its whole is wrong by
// these, the latter two for each factor of e that x is below 1.
const doneLeast, doneMeasured, doneCounted = 0.03, 0.12, 0.25

// Whole is how long a build takes in all, in milliseconds, by its estimate, which
// is off by a deviation of its logarithm, and by what its log tells (done, as in
// BeatJob): each counts as much as it is sure.
func Whole(estimate, invested, done int64, deviation float64, measured bool) int64 {
	if done <= 0 || done >= 1000 || invested <= 0 || estimate <= 0 {
		return estimate
	}
	far := DoneDeviation(done, measured)
	weight := deviation * deviation / (deviation*deviation + far*far)
	told := float64(invested) * 1000 / float64(done)
	return max(invested+1, int64(math.Exp((1-weight)*math.Log(float64(estimate))+weight*math.Log(told))))
}

// Good returns the canonical good outcome of a key: the oldest that a live
// peer holds, else the oldest that is expected back, else nil.
func (r *Replica) Good(k build.Key, now Now) (res *Result, copies int) {
	var away *Result
	rs := r.idx.results[k]
	for i := range rs {
		o := &rs[i]
		if o.Class != build.Good {
			break // good ones come first
		}
		var hs []string
		if o.named {
			hs = r.idx.holders[o.digest]
		}
		live := 0
		for _, h := range hs {
			if r.live(h, now) {
				live++
			} else if away == nil && r.expected(h, now) {
				away = o
			}
		}
		if live > 0 {
			return o, live
		}
		// Its builder has it, though its list of blobs is not here yet.
		if len(hs) == 0 && r.live(o.Peer, now) && now.Wall-o.Stamp.Millis() < LeasePeriods*BeatMillis {
			if away == nil {
				away = o
			}
		}
	}
	return away, 0
}

// Available reports whether a job's artifact can be fetched now.
func (r *Replica) Available(k build.Key, now Now) bool {
	_, copies := r.Good(k, now)
	return copies > 0
}

// Rounds lists the rounds, newest first.
func (r *Replica) Rounds() []build.Round {
	out := make([]build.Round, 0, len(r.idx.rounds))
	for _, rs := range r.idx.rounds {
		rd := rs.round
		rd.Plan = nil
		if _, open := r.open(rd.ID); !open && rd.State == build.RoundOpen {
			rd.State = build.RoundCancelled
		}
		out = append(out, rd)
	}
	slices.SortFunc(out, func(a, b build.Round) int {
		if c := cmp.Compare(b.Created, a.Created); c != 0 {
			return c
		}
		return cmp.Compare(a.ID, b.ID)
	})
	return out
}

// Round returns a round and its plan; the plan is nil until it is loaded.
func (r *Replica) Round(id string) (build.Round, *build.Plan, bool) {
	rs := r.idx.rounds[id]
	if rs == nil {
		return build.Round{}, nil, false
	}
	return rs.round, rs.plan, true
}

// MissingPlans lists open rounds whose plan stands in a blob not yet read.
func (r *Replica) MissingPlans() []build.Round {
	var out []build.Round
	for _, rd := range r.Rounds() {
		if rd.State == build.RoundOpen && !r.idx.planLoaded(rd.ID) {
			out = append(out, rd)
		}
	}
	return out
}

// Open reports whether a round still asks for its jobs.
func (r *Replica) open(id string) (build.Round, bool) {
	rs := r.idx.rounds[id]
	if rs == nil || rs.round.State != build.RoundOpen {
		return build.Round{}, false
	}
	for _, o := range []struct {
		verb  Verb
		scope string
	}{{VerbReset, rs.round.Target}, {VerbCancel, id}} {
		if d, ok := r.idx.order(o.verb, o.scope); ok && rs.stamp < d.stamp {
			return build.Round{}, false
		}
	}
	return rs.round, true
}

// Wanted reports whether an open round lists a job, and how urgently.
func (r *Replica) Wanted(k build.Key) (build.Priority, bool) {
	ks := r.idx.keys[k]
	if ks == nil || !ks.wanted {
		return 0, false
	}
	return ks.prio, true
}

// Results lists the outcomes of a key, good ones first.
func (r *Replica) Results(k build.Key) []Result { return slices.Clone(r.idx.results[k]) }

// Unequal finds two good builds of one key and equal inputs whose content is not
// the same, the earliest and the first that differs from it: a build that is not
// reproducible, or a drone that is not as the others. Nobody's failure, and worth
// knowing.
func (r *Replica) Unequal(k build.Key) (a, b Result, ok bool) {
	rs := r.idx.results[k]
	for i := range rs {
		if rs[i].Class != build.Good || rs[i].Inputs == "" || rs[i].Content == "" {
			continue
		}
		for j := i + 1; j < len(rs); j++ {
			if rs[j].Class == build.Good && rs[j].Inputs == rs[i].Inputs && rs[j].Content != "" && rs[j].Content != rs[i].Content {
				return rs[i], rs[j], true
			}
		}
	}
	return a, b, false
}

// Made lists the targets that a key was built for, or that open rounds want it
// for, and what it was built against.
func (r *Replica) Made(k build.Key) (out []build.Made) {
	for _, o := range r.idx.results[k] {
		if o.Class == build.Good {
			out = append(out, build.Made{Target: o.Target, Against: o.Against})
		}
	}
	if _, wanted := r.Wanted(k); wanted {
		if ks := r.idx.keys[k]; ks != nil && ks.job != nil {
			out = append(out, build.Made{Target: ks.ground.Target, Against: ks.job.Against})
		}
	}
	return out
}

// Job returns a job of any round by its key, or nil.
func (r *Replica) Job(k build.Key) *build.Job {
	if ks := r.idx.keys[k]; ks != nil {
		return ks.job
	}
	return nil
}

// TargetOf is the target that a job of any round is for.
func (r *Replica) TargetOf(k build.Key) string {
	if js := r.idx.keys[k]; js != nil {
		return js.target
	}
	return ""
}

// Ground is what a round was planned on.
type Ground struct {
	Target string
	Bundle string        // CID of the configuration; "" = the drone's own
	Base   build.BaseRef // zero = the drone's own root
	Tree   string        // digest of the repositories
	Trees  []build.Snapshot
}

// GroundOf is what the round of a job was planned on: of several open rounds with
// the job, the newest. The job's key says that the package is the same on all; but
// who asks anew, from a base that was mended, does not want the old one used.
func (r *Replica) GroundOf(k build.Key) Ground {
	if ks := r.idx.keys[k]; ks != nil {
		return ks.ground
	}
	return Ground{}
}

// Keys lists the jobs of open rounds, sorted by key.
func (r *Replica) Keys() []build.Key {
	var out []build.Key
	for k := range r.idx.keys {
		if _, ok := r.Wanted(k); ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// Fits says whether a drone could build a job at all, and why not. It looks at
// what the drone is, not at whether it is busy.
func (r *Replica) Fits(b *Beat, j *build.Job) (bool, string) {
	memory, disk := r.idx.memory(j), r.idx.disk(j)
	switch {
	case b.Slots == 0:
		return false, "it is not a drone"
	case !slices.Contains(b.Builders, j.Builder):
		return false, "it has no builder for " + string(j.Builder) + " packages"
	case memory > 0 && b.FreeMemMiB > 0 && memory > b.FreeMemMiB:
		return false, fmt.Sprintf("it has %d MiB of memory free, the build wants %d", b.FreeMemMiB, memory)
	case disk > 0 && disk > b.DiskMiB:
		return false, fmt.Sprintf("it has %d MiB of disk to build in, the build wants %d", b.DiskMiB, disk)
	}
	if t := r.builtFor(r.idx.keys[j.Key]); t != nil && !t.Runs(b.Arch, b.Features) {
		return false, t.Excludes(b.Arch, b.Features)
	}
	return true, ""
}

// builtFor is the target of a job as the board has it now, or nil.
func (r *Replica) builtFor(ks *keyState) *build.Target {
	if ks == nil {
		return nil
	}
	return r.idx.targets[ks.target]
}

// Declined says whether a drone will not take a job now, and why.
func (r *Replica) Declined(k build.Key, peer string, now Now) (string, bool) {
	d, ok := r.idx.decline[k][peer]
	if !ok || d.Until.Millis() <= now.Wall {
		return "", false
	}
	return d.Reason, true
}

// failures lists the outcomes that count against the package, one per peer at
// the most twice, and on how many peers it failed.
func (r *Replica) failures(k build.Key, target string) (list []Result, peers int) {
	since := r.idx.forgiven(k, target)
	seen := map[string]bool{}
	for _, o := range r.idx.results[k] {
		if o.Class != build.BadPackage || hlc.Time(o.Started) < since {
			continue
		}
		list = append(list, o)
		if !seen[o.Peer] {
			seen[o.Peer] = true
			peers++
		}
	}
	return list, peers
}

// failed reports whether a job is blocked by its own failures: on two drones,
// or on every one that fits where fewer do.
func (r *Replica) failed(js *keyState, now Now) ([]Result, bool) {
	list, peers := r.failures(js.job.Key, js.target)
	if len(list) == 0 {
		return nil, false
	}
	if peers >= 2 || len(list) >= 4 {
		return list, true
	}
	for id, p := range r.peers {
		if !r.live(id, now) || slices.ContainsFunc(list, func(o Result) bool { return o.Peer == id }) {
			continue
		}
		if ok, _ := r.Fits(&p.beat, js.job); ok {
			return list, false // another drone has not tried it
		}
	}
	return list, true
}

// FailedOn reports whether a peer's build of a job failed in a way that
// counts, so that another drone should try it first.
func (r *Replica) FailedOn(k build.Key, peer string) bool {
	js := r.idx.keys[k]
	if js == nil || js.job == nil || len(r.idx.results[k]) == 0 {
		return false
	}
	list, _ := r.failures(k, js.target)
	return slices.ContainsFunc(list, func(o Result) bool { return o.Peer == peer })
}

// Survey derives the state of every job that an open round lists, in an order
// in which they can be built.
func (r *Replica) Survey(now Now) []JobInfo {
	s := r.newSurvey(now)
	for _, rd := range slices.Backward(r.Rounds()) {
		if _, ok := r.open(rd.ID); ok {
			s.addRound(rd.ID)
		}
	}
	return s.list()
}

// SurveyRound is Survey of one round, open or not.
func (r *Replica) SurveyRound(id string, now Now) []JobInfo {
	s := r.newSurvey(now)
	s.addRound(id)
	return s.list()
}

type survey struct {
	r      *Replica
	now    Now
	takers []taker
	infos  map[build.Key]*JobInfo
	order  []build.Key
}

func (r *Replica) newSurvey(now Now) *survey {
	return &survey{r: r, now: now, takers: r.takers(now), infos: map[build.Key]*JobInfo{}}
}

func (s *survey) addRound(id string) {
	rs := s.r.idx.rounds[id]
	if rs == nil || rs.plan == nil {
		return
	}
	// A plan lists its jobs in an order in which they can be built, so each
	// dependency is derived before what waits for it.
	for i := range rs.plan.Jobs {
		s.derive(s.r.idx.keys[rs.plan.Jobs[i].Key])
	}
}

func (s *survey) list() []JobInfo {
	out := make([]JobInfo, 0, len(s.order))
	for _, k := range s.order {
		out = append(out, *s.infos[k])
	}
	return out
}

func (s *survey) derive(js *keyState) {
	r, k := s.r, js.job.Key
	if s.infos[k] != nil {
		return
	}
	info := &JobInfo{Job: js.job, Target: js.target, For: r.builtFor(js), Rounds: js.rounds, Estimate: r.idx.quantiles(js.job),
		MemoryMiB: r.idx.memory(js.job), DiskMiB: r.idx.disk(js.job)}
	info.Work = info.Estimate.Median
	s.infos[k] = info
	s.order = append(s.order, k)
	info.Priority, _ = r.Wanted(k)
	info.Good, info.Copies = r.Good(k, s.now)
	if info.Good != nil {
		info.Others = r.idx.others(&info.Good.Outcome)
	}
	if info.Copies > 0 {
		info.State = JobAvailable
		if info.Wanted = s.wanted(info.Good, info.Copies); info.Copies >= info.Wanted {
			info.State = JobSafe
		}
		return
	}
	h, held := r.Holder(k, s.now)
	if held {
		info.Holder, info.Epoch, info.Beat = h.Peer, h.Epoch, h.Job
	}
	var blocked bool
	info.Failures, blocked = r.failed(js, s.now)
	switch {
	case held && (h.Job.Compiling || h.State == ClaimCompiling):
		info.State = JobBuilding
	case held:
		info.State = JobClaimed
	case info.Good != nil:
		info.State = JobAway
	case blocked:
		info.State, info.Cause = JobBlocked, k
	default:
		s.deriveFree(info)
	}
}

// deriveFree settles the state of a job that nobody has and nothing blocks.
func (s *survey) deriveFree(info *JobInfo) {
	for _, k := range info.Job.Before() {
		dep := s.infos[k]
		if dep == nil {
			if s.r.Available(k, s.now) {
				continue
			}
			if js := s.r.idx.keys[k]; js != nil && js.job != nil {
				s.derive(js)
				dep = s.infos[k]
			}
		}
		if dep != nil && dep.State.Done() {
			continue
		}
		info.WaitsFor = append(info.WaitsFor, k)
		if dep != nil && dep.State == JobBlocked && info.Cause == "" {
			info.Cause = dep.Cause
		}
	}
	switch {
	case info.Cause != "":
		info.State = JobBlocked
	case len(info.WaitsFor) > 0:
		info.State = JobWaiting
	default:
		info.State = JobReady
		if !s.anyFits(info.Job) {
			info.State = JobUnfit
		}
	}
}

func (s *survey) anyFits(j *build.Job) bool {
	for id, p := range s.r.peers {
		if s.r.live(id, s.now) {
			if ok, _ := s.r.Fits(&p.beat, j); ok {
				return true
			}
		}
	}
	return false
}

// Paused says whether new claims of a peer are held by a directive, by whom and why.
func (r *Replica) Paused(peer string) (reason string, ok bool) {
	for _, v := range []Verb{VerbPause, VerbDrain} {
		for _, scope := range []string{"all", peer} {
			if d, on := r.idx.order(v, scope); on {
				reason = fmt.Sprintf("%s by %s", v, r.Name(d.author))
				if d.Reason != "" {
					reason += ": " + build.OneLine(d.Reason, 80)
				}
				return reason, true
			}
		}
	}
	return "", false
}

// Outcomes lists every outcome, in no order.
func (r *Replica) Outcomes() []build.Outcome {
	var out []build.Outcome
	for _, rs := range r.idx.results {
		for _, o := range rs {
			out = append(out, o.Outcome)
		}
	}
	return out
}

// Artifacts lists the artifact of every good outcome.
func (r *Replica) Artifacts() []build.Artifact {
	var out []build.Artifact
	for _, rs := range r.idx.results {
		for _, o := range rs {
			if o.Class == build.Good {
				out = append(out, *o.Artifact)
			}
		}
	}
	slices.SortFunc(out, func(a, b build.Artifact) int { return cmp.Compare(a.CID, b.CID) })
	return out
}

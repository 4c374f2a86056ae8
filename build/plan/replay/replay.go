// Package replay keeps how a round went, and asks afterwards how good its
// forecast was: at each moment of a recording it computes the forecast from what
// was known then, and compares it with what came of it.
//
// A Recording is what the schedule and the forecast are computed from (jobs with
// their estimates and what they wait for, drones with what they build and how far
// they say that it is), as one peer's board had it, moment by moment. `swarm
// record` writes one; it is text, made to be sent with a report of a schedule or a
// forecast that was bad, and read by people. It holds names of packages and of
// peers, and nothing of logs, settings or keys.
//
// It is a pure function of what it is given, so that a recording of a year ago
// tells what the code of today would have said.
package replay

import (
	"math"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

// Moment is all that a forecast is computed from, at one time.
type Moment struct {
	AtMS    int64    `json:"at_unix_ms"`
	Rounds  []Round  `json:"rounds"`
	Targets []Target `json:"targets,omitempty"`
	Peers   []Peer   `json:"peers"`
	Jobs    []Job    `json:"jobs"` // in an order in which they can be built
}

// Round is an open round.
type Round struct {
	ID        string `json:"id"`
	CreatedMS int64  `json:"created_unix_ms"`
}

// Target is what a machine must have to build for a target.
type Target struct {
	Name string   `json:"name"`
	Arch string   `json:"arch"`
	CPU  []string `json:"cpu,omitempty"`
}

// Peer is a peer with what it builds. Memory is rounded down to 256 MiB and disk
// to GiB.
type Peer struct {
	ID        string          `json:"id"`
	Nick      string          `json:"nick,omitempty"`
	Live      bool            `json:"live,omitempty"`
	AgeMS     int64           `json:"age_ms,omitempty"` // since its Beat
	Accepting bool            `json:"accepting,omitempty"`
	Steady    bool            `json:"steady,omitempty"`
	UntilS    int64           `json:"until_s,omitempty"`
	Slots     int             `json:"slots,omitempty"`
	Cores     int             `json:"cores,omitempty"`
	Speed     int64           `json:"speed,omitempty"` // core-milliseconds per second
	MemoryMiB int64           `json:"memory_mib,omitempty"`
	DiskMiB   int64           `json:"disk_mib,omitempty"`
	Arch      string          `json:"arch,omitempty"`
	CPU       []string        `json:"cpu,omitempty"` // of what some target wants
	Builders  []build.Builder `json:"builders,omitempty"`
	Builds    []Build         `json:"builds,omitempty"`
	// More says that this is a change in the text of a recording: what is not said
	// is as it was before.
	More bool `json:"more,omitempty"`
}

// Build is a build that a drone has under way: claims.BeatJob.
type Build struct {
	Key        string `json:"key"`
	Phase      string `json:"phase"`
	InvestedMS int64  `json:"invested_ms"`
	LeftMS     int64  `json:"left_ms"`
	Compiling  bool   `json:"compiling,omitempty"`
	Done       int64  `json:"done_permille,omitempty"`
	FrozenMS   int64  `json:"frozen_ms,omitempty"`
}

// Job is a job as claims.JobInfo has it. Keys are the first 16 digits of build
// keys.
type Job struct {
	Key       string          `json:"key"`
	CPV       string          `json:"cpv,omitempty"`
	Builder   build.Builder   `json:"builder,omitempty"`
	Target    string          `json:"target,omitempty"`
	Rounds    []string        `json:"rounds,omitempty"`
	Priority  build.Priority  `json:"priority,omitempty"`
	Guess     int64           `json:"guess_core_ms,omitempty"` // the planner's
	MemoryMiB int64           `json:"memory_mib,omitempty"`
	DiskMiB   int64           `json:"disk_mib,omitempty"`
	State     claims.JobState `json:"state"`
	Holder    string          `json:"holder,omitempty"`
	// Low, Median and High are the estimate (claims.Estimate).
	Low      int64    `json:"low_core_ms"`
	Median   int64    `json:"core_ms"`
	High     int64    `json:"high_core_ms"`
	Measured bool     `json:"measured,omitempty"`
	Waits    []string `json:"waits,omitempty"`
	// Of what is built: by whom, when, in what time, for how much work, and what
	// the package's other builds took.
	By      string `json:"by,omitempty"`
	BeganMS int64  `json:"began_unix_ms,omitempty"`
	TookMS  int64  `json:"took_ms,omitempty"`
	CoreMS  int64  `json:"took_core_ms,omitempty"`
	Others  int64  `json:"others_core_ms,omitempty"`
	// More is as in Peer: what a job is, and who wants it, is as it was before.
	More bool `json:"more,omitempty"`
}

// keyDigits of a key are enough to tell the jobs of a round apart.
const keyDigits = 16

func short(k build.Key) string { return string(k[:min(keyDigits, len(k))]) }

// Observe notes what a board says now.
func Observe(r *claims.Replica, now claims.Now) Moment {
	m := Note(r.Survey(now), r.Peers(now), now.Wall)
	for _, rd := range r.Rounds() {
		if rd.State == build.RoundOpen {
			m.Rounds = append(m.Rounds, Round{ID: rd.ID, CreatedMS: hlc.Time(rd.Created).Millis()})
		}
	}
	return m
}

// Note notes jobs and peers at a time, without rounds.
func Note(jobs []claims.JobInfo, peers []claims.Peer, atMS int64) Moment {
	m := Moment{AtMS: atMS, Rounds: []Round{}, Peers: make([]Peer, 0, len(peers)), Jobs: make([]Job, 0, len(jobs))}
	var wanted []string // CPU features
	for i := range jobs {
		info := &jobs[i]
		m.Jobs = append(m.Jobs, jobOf(info))
		if t := info.For; t != nil && !slices.ContainsFunc(m.Targets, func(x Target) bool { return x.Name == t.Name }) {
			m.Targets = append(m.Targets, Target{Name: t.Name, Arch: t.Arch, CPU: t.CPU})
			wanted = append(wanted, t.CPU...)
		}
	}
	for i := range peers {
		m.Peers = append(m.Peers, peerOf(&peers[i], wanted))
	}
	return m
}

func jobOf(info *claims.JobInfo) Job {
	j := Job{
		Key: short(info.Job.Key), CPV: info.Job.CPV.String(), Builder: info.Job.Builder, Rounds: info.Rounds, Priority: info.Priority,
		Guess: info.Job.CoreMillis, MemoryMiB: info.Job.MemoryMiB, DiskMiB: info.Job.DiskMiB, State: info.State, Holder: info.Holder,
		Low: info.Estimate.Low, Median: info.Work, High: info.Estimate.High, Measured: info.Estimate.Measured,
	}
	if info.For != nil {
		j.Target = info.For.Name
	}
	if j.State == claims.JobSafe {
		j.State = claims.JobAvailable // copies make no difference to a schedule
	}
	for _, k := range info.WaitsFor {
		j.Waits = append(j.Waits, short(k))
	}
	if g := info.Good; g != nil {
		j.By, j.BeganMS, j.TookMS, j.CoreMS, j.Others = g.Peer, hlc.Time(g.Started).Millis(), g.Millis, g.CoreMillis, info.Others
	}
	return j
}

func peerOf(p *claims.Peer, wanted []string) Peer {
	b := &p.Beat
	out := Peer{
		ID: p.ID, Nick: b.Nick, Live: p.Live, AgeMS: p.AgeMS, Accepting: b.Accepting, Steady: b.Steady, UntilS: b.UntilS, Slots: b.Slots, Cores: b.Cores,
		Speed: b.Speed, MemoryMiB: b.FreeMemMiB &^ 255, DiskMiB: b.DiskMiB &^ 1023, Arch: b.Arch, Builders: b.Builders,
	}
	for _, f := range b.Features {
		if slices.Contains(wanted, f) {
			out.CPU = append(out.CPU, f)
		}
	}
	for i := range b.Jobs {
		j := &b.Jobs[i]
		out.Builds = append(out.Builds, Build{short(j.Key), j.Phase, j.InvestedMS, j.LeftMS, j.Compiling, j.Done, j.FrozenMS})
	}
	return out
}

// Board is the moment in the form that the schedule and the forecast want.
func (m *Moment) Board() ([]claims.JobInfo, []claims.Peer) {
	targets := map[string]*build.Target{}
	for _, t := range m.Targets {
		targets[t.Name] = &build.Target{Name: t.Name, Arch: t.Arch, CPU: t.CPU}
	}
	builds := map[string]claims.BeatJob{}
	peers := make([]claims.Peer, 0, len(m.Peers))
	for _, p := range m.Peers {
		b := claims.Beat{
			Nick: p.Nick, Accepting: p.Accepting, Steady: p.Steady, UntilS: p.UntilS, Slots: p.Slots, Cores: p.Cores, Speed: p.Speed,
			FreeMemMiB: p.MemoryMiB, DiskMiB: p.DiskMiB, Arch: p.Arch, Features: p.CPU, Builders: p.Builders,
		}
		for _, x := range p.Builds {
			j := claims.BeatJob{Key: build.Key(x.Key), Phase: x.Phase, InvestedMS: x.InvestedMS, LeftMS: x.LeftMS, Compiling: x.Compiling, Done: x.Done, FrozenMS: x.FrozenMS}
			b.Jobs = append(b.Jobs, j)
			builds[p.ID+"/"+x.Key] = j
		}
		peers = append(peers, claims.Peer{ID: p.ID, Beat: b, AgeMS: p.AgeMS, Live: p.Live})
	}
	jobs := make([]claims.JobInfo, 0, len(m.Jobs))
	for _, j := range m.Jobs {
		cpv, _ := build.ParseCPV(j.CPV) // a name to show: what is none shows as nothing
		info := claims.JobInfo{
			Job:    &build.Job{Key: build.Key(j.Key), CPV: cpv, Builder: j.Builder, CoreMillis: j.Guess, MemoryMiB: j.MemoryMiB, DiskMiB: j.DiskMiB},
			Target: j.Target, For: targets[j.Target], Rounds: j.Rounds, Priority: j.Priority, State: j.State, Holder: j.Holder, Beat: builds[j.Holder+"/"+j.Key],
			Work: j.Median, Estimate: claims.Estimate{Low: j.Low, Median: j.Median, High: j.High, Measured: j.Measured}, Others: j.Others,
		}
		for _, k := range j.Waits {
			info.WaitsFor = append(info.WaitsFor, build.Key(k))
		}
		if j.By != "" {
			info.Good = &claims.Result{Peer: j.By, Outcome: build.Outcome{Key: info.Job.Key, CPV: cpv, Class: build.Good, Started: uint64(hlc.New(j.BeganMS)), Millis: j.TookMS, CoreMillis: j.CoreMS}}
		}
		jobs = append(jobs, info)
	}
	return jobs, peers
}

// over reports whether nothing of a round is left to build at a moment.
func (m *Moment) over(round string) bool {
	if m.created(round) == 0 {
		return true
	}
	jobs := 0
	for i := range m.Jobs {
		j := &m.Jobs[i]
		if !slices.Contains(j.Rounds, round) {
			continue
		}
		if jobs++; !j.State.Done() && j.State != claims.JobBlocked && j.State != claims.JobUnfit {
			return false
		}
	}
	return jobs > 0 // before its plan is known a round has none
}

// Look is one forecast of a round's end, and what came of it.
type Look struct {
	Share     float64 // of the round that was over
	Low, High int64   // ms, as forecast
	Truth     int64   // ms
}

// Holds reports whether the truth lies in the range.
func (l Look) Holds() bool { return l.Low <= l.Truth && l.Truth <= l.High }

// Width of the range, as a part of the time that was left.
func (l Look) Width() float64 { return float64(l.High-l.Low) / float64(l.Truth) }

// Look computes the forecast of a round that began and ended at these times; ok is
// false where there is none.
func (m *Moment) Look(round string, began, ended int64) (l Look, ok bool) {
	end, ok := plan.Ends(m.Board())[round]
	return Look{Share: float64(m.AtMS-began) / float64(ended-began), Low: end.Low, High: end.High, Truth: ended - m.AtMS}, ok && m.AtMS < ended
}

// Looks computes the forecast of a round at the end of each of parts equal parts
// of its time but the last, from the newest moment by then. It is empty where the
// recording does not reach from the round's first tenth to its end.
func (r Recording) Looks(round string, parts int) []Look {
	first := slices.IndexFunc(r, func(m Moment) bool { return m.created(round) > 0 })
	if first < 0 {
		return nil
	}
	last := slices.IndexFunc(r[first:], func(m Moment) bool { return m.over(round) })
	if last < 0 {
		return nil
	}
	began, ended := r[first].created(round), r[first+last].AtMS
	if took := ended - began; took <= 0 || r[first].AtMS-began > took/10 {
		return nil
	}
	var out []Look
	for n, i := 1, first; n < parts; n++ {
		for at := began + (ended-began)*int64(n)/int64(parts); i+1 < first+last && r[i+1].AtMS <= at; {
			i++
		}
		if l, ok := r[i].Look(round, began, ended); ok {
			out = append(out, l)
		}
	}
	return out
}

// created is when an open round was made; 0 = it is not among those of the moment.
func (m *Moment) created(round string) int64 {
	for _, rd := range m.Rounds {
		if rd.ID == round {
			return rd.CreatedMS
		}
	}
	return 0
}

// Rounds lists the rounds of a recording in the order in which they came.
func (r Recording) Rounds() []string {
	var out []string
	for _, m := range r {
		for _, rd := range slices.Backward(m.Rounds) {
			if !slices.Contains(out, rd.ID) {
				out = append(out, rd.ID)
			}
		}
	}
	return out
}

// early looks are not held against a forecast: it wants a tenth of the round.
const early = 0.1

// Figures are the share of ranges that hold the truth, and the median width, of
// the looks from a tenth of their rounds on; NaN without any.
func Figures(looks []Look) (holds, width float64) {
	var widths []float64
	for _, l := range looks {
		if l.Share < early {
			continue
		}
		if l.Holds() {
			holds++
		}
		widths = append(widths, l.Width())
	}
	if len(widths) == 0 {
		return math.NaN(), math.NaN()
	}
	slices.Sort(widths)
	return holds / float64(len(widths)), widths[len(widths)/2]
}

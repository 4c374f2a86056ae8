// Package view is the one snapshot that every screen shows: status, monitor,
// the web page, metrics and alerts read it, so they cannot disagree.
//
// A Snapshot is a function of the replica and the time. Its JSON form is the
// written contract of `--json` (schema 1): times in milliseconds, sizes in
// bytes, lists never null, unknown fields to be ignored by readers.
package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

// Schema is the version of the JSON form.
const Schema = 1

// Verdict is the swarm's health in a word.
type Verdict string

const (
	Healthy  Verdict = "healthy"
	Degraded Verdict = "degraded" // something wants attention; work goes on
	Blocked  Verdict = "blocked"  // wanted work does not go on
)

// Snapshot is the swarm as one peer sees it.
type Snapshot struct {
	Schema   int       `json:"schema"`
	Self     string    `json:"self"`
	Verdict  Verdict   `json:"verdict"`
	Sentence string    `json:"sentence"`
	Next     string    `json:"next_action"` // a command to type
	Peers    []Peer    `json:"peers"`
	Rounds   []Round   `json:"rounds"`
	Releases []Release `json:"releases"`
	// Staging is what would be released now, of each target with an open round.
	// The board alone does not know it: Of leaves it empty, and the daemon fills
	// it in.
	Staging []Staging `json:"staging"`
	Orders  []Order   `json:"orders"` // in force, newest first
	Blobs   Blobs     `json:"blobs"`
	Records int       `json:"records"`
	// Refused counts what peers sent and this one did not take, since it began.
	Refused  claims.Counters `json:"refused"`
	Warnings []string        `json:"warnings"`
	// Issues are the root causes that want attention, the gravest first. AtMS
	// is when the snapshot was taken, on this peer's wall clock.
	Issues []Issue `json:"issues"`
	AtMS   int64   `json:"at_unix_ms"`
}

// Peer is one line about a peer.
type Peer struct {
	ID       string   `json:"id"`
	Nick     string   `json:"nick"`
	Self     bool     `json:"self"`
	State    string   `json:"state"` // building, idle, held, away, gone, banned, storing
	Doing    []Build  `json:"doing"`
	Why      string   `json:"why"` // why it takes no jobs
	Cores    int      `json:"cores"`
	Slots    int      `json:"slots"`
	AgeMS    int64    `json:"last_heard_ms"`
	Stores   bool     `json:"stores"`
	Blobs    int      `json:"blobs"`
	UsedB    int64    `json:"store_used_bytes"`
	FreeB    int64    `json:"store_free_bytes"`
	DiskMiB  int64    `json:"work_free_mib"`
	MemMiB   int64    `json:"memory_free_mib"`
	Builders []string `json:"builders"`
	Version  string   `json:"version"`
	AheadMS  int64    `json:"clock_ahead_ms"`
	Site     string   `json:"site"`
	Speed    int64    `json:"speed"`   // core-milliseconds per second
	Steady   bool     `json:"steady"`  // expected to stay
	Alerts   bool     `json:"alerts"`  // it can tell a person
	New      bool     `json:"new"`     // nobody has acknowledged it yet
	Ordered  bool     `json:"ordered"` // a person's pause or drain keeps it from taking jobs
}

// Build is a build under way.
type Build struct {
	Key        build.Key `json:"key"`
	CPV        string    `json:"cpv"`
	Phase      string    `json:"phase"`
	InvestedMS int64     `json:"invested_ms"`
	LeftMS     int64     `json:"left_ms"`
	WorkMS     int64     `json:"estimate_core_ms"`
	Compiling  bool      `json:"compiling"` // work is invested; before that it fetches
}

// Round is a round and the counts of its jobs.
type Round struct {
	ID        string `json:"id"`
	Target    string `json:"target"`
	State     string `json:"state"`
	Priority  string `json:"priority"`
	Requester string `json:"requester"`
	Command   string `json:"command"`
	CreatedMS int64  `json:"created_unix_ms"`
	Jobs      int    `json:"jobs"`
	Done      int    `json:"done"`
	Building  int    `json:"building"`
	Ready     int    `json:"ready"`
	Waiting   int    `json:"waiting"`
	Blocked   int    `json:"blocked"`
	Unfit     int    `json:"unfit"`
	LeftMS    int64  `json:"left_ms"` // as likely more as less; 0 when done or unknown
	// Of ten forecasts one ends before LeftLowMS and one after LeftHighMS.
	LeftLowMS  int64 `json:"left_low_ms"`
	LeftHighMS int64 `json:"left_high_ms"`
	PlanKnown  bool  `json:"plan_known"`
	// PerHour and Impulse are builds that ended well per hour: since the round
	// began, and in the last ten minutes.
	PerHour float64 `json:"per_hour"`
	Impulse float64 `json:"per_hour_now"`
	Manual  bool    `json:"manual"` // a person releases it: swarm finalize
}

// Job is one job for `swarm jobs`.
type Job struct {
	Key      build.Key `json:"key"`
	CPV      string    `json:"cpv"`
	USE      []string  `json:"use"`
	Target   string    `json:"target"`
	Round    string    `json:"round"`
	State    string    `json:"state"`
	Peer     string    `json:"peer"` // who builds or built it, as a nickname
	Phase    string    `json:"phase"`
	Copies   int       `json:"copies"`
	Epoch    uint64    `json:"epoch"`
	Failures int       `json:"failures"`
	Reason   string    `json:"reason"`
	Log      string    `json:"log"` // CID of the newest log
	CID      string    `json:"cid"`
	Size     int64     `json:"size"`
	LeftMS   int64     `json:"left_ms"`
	WaitsFor []string  `json:"waits_for"`
	// StartedMS and EndedMS are wall times of the newest build, 0 where there is
	// none or it is not over; CostMS is how long it took; PeerID is Peer's.
	StartedMS int64  `json:"started_unix_ms"`
	EndedMS   int64  `json:"ended_unix_ms"`
	CostMS    int64  `json:"took_ms"`
	PeerID    string `json:"peer_id"`
	HoldsUp   int    `json:"holds_up"` // jobs that wait for it, directly or not; of blocked and unfit ones
	// Provisional: built in place, or on a machine's own root.
	Provisional bool `json:"provisional"`
	// Differs says of two builds from equal inputs that came out differently;
	// "" = there are none.
	Differs string `json:"differs"`
}

// Release is what a channel shows.
type Release struct {
	Target    string `json:"target"`
	Channel   string `json:"channel"`
	Version   uint64 `json:"version"`
	CID       string `json:"cid"`
	Timestamp int64  `json:"timestamp_unix_s"`
	Previous  string `json:"previous_cid"` // what it showed before, "" for the first
	Number    uint64 `json:"number"`       // of the release that is shown; less than version after a rollback; 0 = not listed
	Packages  int    `json:"packages"`     // 0 = not listed
}

// Staging is what a release of a target would bring now: packages that are new,
// changed and gone against what is shown, and packages that it would hold back.
type Staging struct {
	Target  string `json:"target"`
	New     int    `json:"new"`
	Changed int    `json:"changed"`
	Gone    int    `json:"gone"`
	Held    int    `json:"held_back"`
	// Why says of the first of those why they stay out, MaxHeldWhy at the most.
	Why     []HeldBack `json:"held_back_why"`
	Problem string     `json:"problem"` // why it cannot be composed
}

// HeldBack is a package that would stay out of a release, and why, in a line.
type HeldBack struct {
	CPV    string `json:"cpv"` // "" = of the release as a whole
	Reason string `json:"reason"`
}

// MaxHeldWhy bounds how many packages that would stay out a snapshot tells of.
const MaxHeldWhy = 20

// Blobs counts copies over the live peers.
type Blobs struct {
	Total  int         `json:"total"`
	Wanted int         `json:"copies_wanted"`
	Copies map[int]int `json:"copies"` // live copies to number of blobs
	// Classes tells the same by how much the blobs matter. The board alone does
	// not know it: Of leaves it empty, and the daemon fills it in.
	Classes []BlobClass `json:"classes"`
}

// BlobClass counts the blobs of one class: released (or pinned), wanted (by an
// open or the newest round), other (logs, plans). Few have fewer copies than they
// should, Single one and Lost none on the peers that are here; the rest is well.
type BlobClass struct {
	Class  string `json:"class"`
	Total  int    `json:"total"`
	Few    int    `json:"few"`
	Single int    `json:"single"`
	Lost   int    `json:"lost"`
}

// look is what one snapshot is derived from, each part computed once.
type look struct {
	r        *claims.Replica
	now      claims.Now
	peers    []claims.Peer
	infos    []claims.JobInfo // of open rounds, in an order in which they can be built
	forecast map[build.Key]plan.Assignment
	recent   []recent // closed rounds that are still shown
}

type recent struct {
	round build.Round
	infos []claims.JobInfo
}

// ShownRounds is how many closed rounds a snapshot shows, the newest.
const ShownRounds = 8

func take(r *claims.Replica, now claims.Now) *look {
	l := &look{r: r, now: now, peers: r.Peers(now), infos: r.Survey(now)}
	l.forecast = plan.Forecast(l.infos, l.peers)
	return l
}

// Of takes the snapshot.
func Of(r *claims.Replica, now claims.Now) Snapshot {
	return take(r, now).snapshot()
}

func (l *look) snapshot() Snapshot {
	r := l.r
	s := Snapshot{Schema: Schema, Self: r.Self(), Peers: []Peer{}, Rounds: []Round{}, Releases: []Release{}, Staging: []Staging{}, Warnings: []string{}, Records: r.Count(), Refused: r.Refused,
		Issues: []Issue{}, Orders: l.inForce(), AtMS: l.now.Wall}
	holdings := blobCounts(r, l.peers, &s)
	strangers := r.Strangers()
	for _, p := range l.peers {
		line := peerLine(r, p, holdings[p.ID])
		line.New = slices.Contains(strangers, p.ID)
		s.Peers = append(s.Peers, line)
	}
	slices.SortStableFunc(s.Peers, func(a, b Peer) int {
		if a.Self != b.Self {
			if a.Self {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Nick, b.Nick), cmp.Compare(a.ID, b.ID))
	})
	s.Rounds = l.rounds()
	for _, c := range r.Channels() {
		line := releaseLine(r, c)
		line.Previous = c.Previous
		s.Releases = append(s.Releases, line)
	}
	s.judge(r, l.peers)
	s.Issues = l.issues(&s)
	if len(s.Issues) > 0 && s.Issues[0].Severity == Blocked && s.Verdict != Blocked {
		s.Verdict, s.Next = Blocked, s.Issues[0].Do
		s.Sentence += "; " + s.Issues[0].Title
	}
	if s.Verdict == Degraded && s.Next == watchIt && len(s.Issues) > 0 && s.Issues[0].Severity != Healthy {
		s.Next = s.Issues[0].Do // watching mends nothing
	}
	return s
}

// rounds counts the jobs of the open rounds and of the newest closed ones.
func (l *look) rounds() []Round {
	out := []Round{}
	open := map[string]*Round{}
	counts := map[string]*counted{}
	for _, rd := range l.r.Rounds() {
		if rd.State != build.RoundOpen {
			if len(l.recent) >= ShownRounds {
				continue
			}
			l.recent = append(l.recent, recent{rd, l.r.SurveyRound(rd.ID, l.now)})
		}
		out = append(out, roundHead(l.r, rd))
	}
	for i := range out {
		if out[i].State == string(build.RoundOpen) {
			open[out[i].ID], counts[out[i].ID] = &out[i], &counted{}
		}
	}
	for i := range l.infos {
		info := &l.infos[i]
		for _, id := range info.Rounds {
			if rd := open[id]; rd != nil {
				rd.LeftMS = max(rd.LeftMS, l.forecast[info.Job.Key].Finish)
				counts[id].add(rd, info)
			}
		}
	}
	for id, end := range plan.Ends(l.infos, l.peers) {
		if rd := open[id]; rd != nil {
			rd.LeftLowMS, rd.LeftMS, rd.LeftHighMS = end.Low, end.Median, end.High
		}
	}
	for i := range l.recent {
		at := slices.IndexFunc(out, func(r Round) bool { return r.ID == l.recent[i].round.ID })
		c := &counted{}
		for n := range l.recent[i].infos {
			c.add(&out[at], &l.recent[i].infos[n])
		}
		counts[out[at].ID] = c
	}
	for i := range out {
		if c := counts[out[i].ID]; c != nil {
			out[i].PerHour, out[i].Impulse = c.rates(&out[i], l.now.Wall)
		}
	}
	return out
}

func releaseLine(r *claims.Replica, c release.Channel) Release {
	out := Release{Target: c.Target, Channel: c.Name, Version: c.Version, CID: c.Release, Timestamp: c.Timestamp}
	for _, l := range r.Releases(c.Target) {
		if l.Release == c.Release {
			out.Number, out.Packages = l.Number, l.Packages
		}
	}
	return out
}

// counted is when the builds of a round ended that ended well.
type counted struct{ ends []int64 }

func (c *counted) add(rd *Round, info *claims.JobInfo) {
	switch info.State {
	case claims.JobAvailable, claims.JobSafe:
		rd.Done++
		if end := info.Good.Stamp.Millis(); end >= rd.CreatedMS {
			c.ends = append(c.ends, end)
		}
	case claims.JobBuilding, claims.JobClaimed:
		rd.Building++
	case claims.JobReady:
		rd.Ready++
	case claims.JobBlocked:
		rd.Blocked++
	case claims.JobUnfit:
		rd.Unfit++
	default:
		rd.Waiting++
	}
}

const (
	hour = 3_600_000
	// impulse is how far back "now" reaches in a rate.
	impulse = hour / 6
)

func (c *counted) rates(rd *Round, now int64) (all, lately float64) {
	last := now
	if rd.State != string(build.RoundOpen) && len(c.ends) > 0 {
		last = slices.Max(c.ends)
	}
	if span := last - rd.CreatedMS; span > 0 {
		all = float64(len(c.ends)) * hour / float64(max(span, 60_000))
	}
	n := 0
	for _, e := range c.ends {
		if e > now-impulse {
			n++
		}
	}
	return all, float64(n) * hour / float64(min(impulse, max(60_000, now-rd.CreatedMS)))
}

// releaseWarnings tells of channels that were rolled back, and of releases that
// were made at once.
func (s *Snapshot) releaseWarnings(r *claims.Replica) {
	for _, c := range s.Releases {
		if c.Number > 0 && c.Number < c.Version {
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s/%s was rolled back to release %d; nothing is released by itself until swarm finalize --target %s", c.Target, c.Channel, c.Number, c.Target))
		}
	}
	var last claims.Listed
	for _, l := range claims.Contested(r.Releases("")) {
		if l.Target == last.Target && l.Number == last.Number {
			continue // told with the first
		}
		last = l
		if s.Verdict == Healthy {
			s.Verdict = Degraded
		}
		s.Warnings = append(s.Warnings, fmt.Sprintf("release %d of %s was made twice at once; swarm finalize --target %s takes in what the shown one lacks, then swarm releases prune forgets the other", l.Number, l.Target, l.Target))
	}
}

func blobCounts(r *claims.Replica, peers []claims.Peer, s *Snapshot) map[string]int {
	live := map[string]bool{}
	storing, metered := 0, 0
	for _, p := range peers {
		live[p.ID] = p.Live
		switch {
		case !p.Live:
		case p.Beat.Takes(0, 2):
			storing++
		case p.Beat.Takes(0, 1):
			metered++
		}
	}
	if storing < 2 { // these take what would else be on one peer
		storing = min(2, storing+metered)
	}
	s.Blobs = Blobs{Wanted: max(1, min(claims.CopiesWanted, storing)), Copies: map[int]int{}, Classes: []BlobClass{}}
	held := map[string]int{}
	for _, holders := range r.Blobs() {
		n := 0
		for _, h := range holders {
			held[h]++
			if live[h] {
				n++
			}
		}
		s.Blobs.Total++
		s.Blobs.Copies[n]++
	}
	return held
}

func peerLine(r *claims.Replica, p claims.Peer, blobs int) Peer {
	b := p.Beat
	out := Peer{
		ID: p.ID, Nick: r.Name(p.ID), Self: p.Self, Doing: []Build{}, Why: build.OneLine(b.Why, 120), Cores: b.Cores, Slots: b.Slots,
		AgeMS: p.AgeMS, Stores: b.Stores, Blobs: blobs, UsedB: b.StoreUsed, FreeB: b.StoreFree, DiskMiB: b.DiskMiB, MemMiB: b.FreeMemMiB,
		Builders: []string{}, Version: build.OneLine(b.Version, 40), AheadMS: p.AheadMS,
		Site: build.OneLine(b.Site, 40), Speed: b.Speed, Steady: b.Steady, Alerts: b.Alerts,
	}
	for _, x := range b.Builders {
		out.Builders = append(out.Builders, build.OneLine(string(x), 20))
	}
	for _, j := range b.Jobs {
		out.Doing = append(out.Doing, buildLine(r, j))
	}
	if reason, paused := r.Paused(p.ID); paused {
		out.Why, out.Ordered = reason, true
	}
	_, banned := r.Banned(p.ID)
	switch {
	case banned:
		out.State = "banned"
	case b.Leaving:
		out.State = "gone"
	case !p.Live:
		out.State = "away"
	case len(b.Jobs) > 0:
		out.State = "building"
	case b.Slots == 0 && b.Stores:
		out.State = "storing"
	case b.Slots == 0:
		out.State = "consumer"
	case !b.Accepting || out.Why != "":
		out.State = "held"
	default:
		out.State = "idle"
	}
	return out
}

func buildLine(r *claims.Replica, j claims.BeatJob) Build {
	b := Build{j.Key, nameOf(r, j.Key), build.OneLine(j.Phase, 24), j.InvestedMS, j.LeftMS, 0, j.Compiling}
	if job := r.Job(j.Key); job != nil {
		b.WorkMS = r.Work(job)
	}
	return b
}

func nameOf(r *claims.Replica, k build.Key) string {
	if j := r.Job(k); j != nil {
		return j.CPV.String()
	}
	return k.Short()
}

func roundHead(r *claims.Replica, rd build.Round) Round {
	out := Round{
		ID: rd.ID, Target: rd.Target, State: string(rd.State), Priority: rd.Priority.String(), Requester: r.Name(rd.Requester),
		Command: build.OneLine(rd.Command, 200), CreatedMS: hlc.Time(rd.Created).Millis(), Jobs: rd.Jobs, Manual: rd.Manual,
	}
	_, p, _ := r.Round(rd.ID)
	out.PlanKnown = p != nil
	return out
}

// judge finds the verdict, the sentence and what to type next. The worst thing
// is said first; there is one next action.
func (s *Snapshot) judge(r *claims.Replica, peers []claims.Peer) {
	s.Verdict = Healthy
	if ok, why := r.MayClaim(); !ok {
		s.Warnings = append(s.Warnings, "this peer claims nothing: "+why)
	}
	var open, still *Round
	for i := range s.Rounds {
		rd := &s.Rounds[i]
		if rd.State != string(build.RoundOpen) {
			continue
		}
		if open == nil {
			open = rd
		}
		if rd.Blocked > 0 {
			s.Verdict = Degraded
			s.Warnings = append(s.Warnings, fmt.Sprintf("round %s: %d of %d jobs are blocked", rd.ID, rd.Blocked, rd.Jobs))
		}
		if rd.Unfit > 0 {
			s.Verdict = Degraded
			s.Warnings = append(s.Warnings, fmt.Sprintf("round %s: no live drone can build %d jobs", rd.ID, rd.Unfit))
		}
		if rd.Done < rd.Jobs && rd.Building == 0 && rd.Ready == 0 && rd.PlanKnown {
			s.Verdict = Blocked
			if still == nil {
				still = rd
			}
		}
	}
	if still != nil {
		open = still
	}
	drones, away := 0, []string{}
	for _, p := range s.Peers {
		if p.State == "away" {
			away = append(away, p.Nick)
		}
		if p.Slots > 0 && p.State != "away" && p.State != "gone" && p.State != "banned" {
			drones++
		}
	}
	if lost := s.Blobs.Copies[0]; lost > 0 {
		if s.Verdict == Healthy {
			s.Verdict = Degraded
		}
		s.Warnings = append(s.Warnings, fmt.Sprintf("%d blobs are on no peer that is here", lost))
	}
	if len(away) > 0 {
		s.Warnings = append(s.Warnings, "not heard of: "+strings.Join(away, ", "))
	}
	nicks := map[string]string{}
	for _, p := range s.Peers {
		if other, twice := nicks[p.Nick]; twice && p.State != "gone" {
			s.Warnings = append(s.Warnings, fmt.Sprintf("two peers are called %q (%s and %s); give one another name: --nick", p.Nick, short(other), short(p.ID)))
		}
		nicks[p.Nick] = p.ID
	}
	s.releaseWarnings(r)
	live := 0
	for _, p := range peers {
		if p.Live {
			live++
		}
	}
	s.say(open, drones, live)
}

// watchIt is what there is to do when all goes well.
const watchIt = "swarm status --watch"

func (s *Snapshot) say(open *Round, drones, live int) {
	switch {
	case open != nil && s.Verdict == Blocked:
		s.Sentence = fmt.Sprintf("round %s stands still: %d of %d built, nothing more can start", open.ID, open.Done, open.Jobs)
		s.Next = "swarm jobs"
		if open.Blocked > 0 {
			s.Next = "swarm jobs --state blocked"
		}
	case open != nil && drones == 0:
		s.Verdict = Blocked
		s.Sentence = fmt.Sprintf("%d jobs wait and no drone is here", open.Jobs-open.Done)
		s.Next = "swarm run"
	case open != nil && open.PlanKnown && open.Done == open.Jobs && (open.Manual || s.rolledBack(open.Target)):
		s.Sentence = fmt.Sprintf("all %d of round %s are built, and you release them", open.Jobs, open.ID)
		s.Next = "swarm finalize --target " + open.Target
	case open != nil:
		s.Sentence = fmt.Sprintf("%d of %d built, %d building on %s", open.Done, open.Jobs, open.Building, count(drones, "drone"))
		s.Next = watchIt
	case len(s.Releases) > 0:
		s.Sentence = fmt.Sprintf("nothing to build; %s here", count(live, "peer"))
		s.Next = nextUpdate
	case live < 2:
		s.Sentence = "this peer is alone"
		s.Next = "swarm invite"
	default:
		s.Sentence = fmt.Sprintf("%s here, nothing asked for yet", count(live, "peer"))
		s.Next = nextWorld
	}
}

// What there is to do next on a machine with Portage.
const (
	nextUpdate = "swarm update"
	nextWorld  = "swarm build @world"
)

// WithoutPortage makes the next step one that a machine without Portage can take,
// which the board does not know of.
func (s *Snapshot) WithoutPortage() {
	switch s.Next {
	case nextUpdate:
		s.Next = "swarm releases"
	case nextWorld:
		s.Next = "swarm build @samples"
	}
}

func (s *Snapshot) rolledBack(target string) bool {
	return slices.ContainsFunc(s.Releases, func(c Release) bool { return c.Target == target && c.Number > 0 && c.Number < c.Version })
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func short(id string) string {
	if len(id) > 8 {
		return id[len(id)-8:]
	}
	return id
}

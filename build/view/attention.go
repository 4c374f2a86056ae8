package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// IssueKind says what kind of thing is wrong. The words are stable.
type IssueKind string

const (
	IssueFailed  IssueKind = "failed"   // a package that failed wherever it fits
	IssueUnfit   IssueKind = "unfit"    // jobs that no live drone can build, for one reason
	IssueNoDrone IssueKind = "no-drone" // work waits and no drone is here
	IssueHeld    IssueKind = "held"     // work is ready and every drone takes nothing
	IssuePlan    IssueKind = "plan"     // a round whose plan nobody here can read
	IssueLost    IssueKind = "lost"     // packages that no peer here holds
	IssueAway    IssueKind = "away"     // a steady peer that fell silent
	IssueSelf    IssueKind = "self"     // this peer itself may claim nothing
	IssueNames   IssueKind = "names"    // two peers go by one name
	IssueLink    IssueKind = "link"     // a peer that cannot be reached, or a stranger
	IssueGateway IssueKind = "gateway"  // a release that the gateway cannot serve yet
)

// Issue is one root cause with how much it holds up. ID names the cause and
// stays the same, on every peer, as long as it lasts: it is what alerts and
// events go by.
type Issue struct {
	ID       string    `json:"id"`
	Kind     IssueKind `json:"kind"`
	Severity Verdict   `json:"severity"` // blocked: nothing can go on; degraded; healthy: worth knowing
	Title    string    `json:"title"`
	Detail   string    `json:"detail"`
	Key      build.Key `json:"key"`      // of the job, if it is one
	Peer     string    `json:"peer"`     // ID of the peer, if it is one
	Drones   []string  `json:"drones"`   // nicknames of those that it failed on
	HoldsUp  int       `json:"holds_up"` // jobs that wait because of it
	SinceMS  int64     `json:"since_unix_ms"`
	Do       string    `json:"next_action"` // a command
	Local    bool      `json:"local"`       // only this peer can know it
}

// farAway is after how long an absent peer is no issue any more: it is gone,
// though nobody said so.
const farAway = 7 * 24 * hour

// maxIssues bounds the list; the gravest stay.
const maxIssues = 200

// issues finds the root causes. Nothing that waits for another is listed: it
// counts in HoldsUp of what it waits for.
func (l *look) issues(s *Snapshot) []Issue {
	out := append([]Issue{}, l.failures()...)
	out = append(out, l.unfit()...)
	out = append(out, l.standing(s)...)
	out = append(out, l.missing(s)...)
	if ok, why := l.r.MayClaim(); !ok && !strings.Contains(why, "not yet compared") && !strings.Contains(why, "is stopping") {
		out = append(out, Issue{ID: "self/" + s.Self, Kind: IssueSelf, Severity: Degraded, Title: "this peer claims nothing", Detail: why, Peer: s.Self,
			Do: "swarm why --drone " + short(s.Self), Local: true})
	}
	SortIssues(out)
	if len(out) > maxIssues {
		out = out[:maxIssues]
	}
	for i := range out {
		if out[i].Drones == nil {
			out[i].Drones = []string{}
		}
	}
	return out
}

// SortIssues puts the gravest first.
func SortIssues(list []Issue) {
	slices.SortFunc(list, func(a, b Issue) int {
		return cmp.Or(cmp.Compare(weight(b.Severity), weight(a.Severity)), cmp.Compare(b.HoldsUp, a.HoldsUp), cmp.Compare(a.ID, b.ID))
	})
}

func weight(v Verdict) int {
	switch v {
	case Blocked:
		return 2
	case Degraded:
		return 1
	}
	return 0
}

// failures lists the jobs that failed where they fit.
func (l *look) failures() []Issue {
	var out []Issue
	held := holdUps(l.infos)
	for i := range l.infos {
		info := &l.infos[i]
		k := info.Job.Key
		if info.State != claims.JobBlocked || info.Cause != k {
			continue
		}
		is := Issue{ID: "job/" + string(k), Kind: IssueFailed, Severity: Degraded, Title: info.Job.CPV.String() + " does not build", Key: k, HoldsUp: held[k],
			Do: "swarm logs " + k.Short()}
		for _, f := range info.Failures {
			if n := l.r.Name(f.Peer); !slices.Contains(is.Drones, n) {
				is.Drones = append(is.Drones, n)
			}
			if at := f.Stamp.Millis(); at >= is.SinceMS {
				is.SinceMS, is.Detail = at, build.OneLine(f.Reason, 300)
			}
		}
		out = append(out, is)
	}
	return out
}

// unfit lists what no live drone can build, one issue for each reason.
func (l *look) unfit() []Issue {
	held := holdUps(l.infos)
	byWhy := map[string]*Issue{}
	var order []string
	for i := range l.infos {
		info := &l.infos[i]
		if info.State != claims.JobUnfit {
			continue
		}
		id, title := l.misfit(info)
		is := byWhy[id]
		if is == nil {
			is = &Issue{ID: "unfit/" + id, Kind: IssueUnfit, Severity: Degraded, Title: title, Key: info.Job.Key, Do: "swarm why " + info.Job.Key.Short()}
			byWhy[id] = is
			order = append(order, id)
		}
		is.HoldsUp += 1 + held[info.Job.Key]
		if n := is.HoldsUp; n > 0 && len(is.Drones) == 0 {
			is.Detail = "first of them: " + info.Job.CPV.String()
		}
	}
	var out []Issue
	for _, id := range order {
		out = append(out, *byWhy[id])
	}
	return out
}

// misfit finds what the drones that come nearest lack.
func (l *look) misfit(info *claims.JobInfo) (id, title string) {
	drones, builders, able := 0, 0, 0
	memory, excluded := false, ""
	want := l.r.Memory(info.Job)
	for i := range l.peers {
		b := &l.peers[i].Beat
		if !l.peers[i].Live || b.Slots == 0 {
			continue
		}
		drones++
		if slices.Contains(b.Builders, info.Job.Builder) {
			builders++
			if info.For != nil && !info.For.Runs(b.Arch, b.Features) {
				excluded = info.For.Excludes(b.Arch, b.Features)
				continue
			}
			able++
			memory = memory || want > 0 && b.FreeMemMiB > 0 && want > b.FreeMemMiB
		}
	}
	switch {
	case drones == 0:
		return "drone", "no drone is here"
	case builders == 0:
		return "builder-" + build.OneLine(string(info.Job.Builder), 20), "no drone here can build " + build.OneLine(string(info.Job.Builder), 20) + " packages"
	case able == 0:
		return "cpu-" + build.OneLine(info.Target, 40), "no drone here can build for target " + build.OneLine(info.Target, 80) + ": " + build.OneLine(excluded, 200)
	case memory:
		return "memory", "no drone here has the memory for some packages"
	}
	return "disk", "no drone here has the disk space for some packages"
}

// standing finds rounds that do not go on though nothing in them failed.
func (l *look) standing(s *Snapshot) []Issue {
	var out []Issue
	ready, waiting, running := 0, 0, 0
	for _, rd := range s.Rounds {
		if rd.State != string(build.RoundOpen) {
			continue
		}
		if !rd.PlanKnown {
			out = append(out, Issue{ID: "plan/" + rd.ID, Kind: IssuePlan, Severity: Degraded, Title: "the plan of round " + rd.ID + " cannot be read here",
				Detail: "the peers that hold it are away", HoldsUp: rd.Jobs, SinceMS: rd.CreatedMS, Do: "swarm peers"})
		}
		ready, waiting, running = ready+rd.Ready, waiting+rd.Waiting, running+rd.Building
	}
	if ready == 0 || running > 0 {
		return out
	}
	drones, why, do := 0, []string{}, ""
	for _, p := range s.Peers {
		if p.Slots == 0 || p.State == "away" || p.State == "gone" {
			continue
		}
		drones++
		if p.State != "held" {
			return out
		}
		why = append(why, p.Nick+": "+cmp.Or(p.Why, "it takes nothing"))
		if do == "" || strings.HasPrefix(do, "swarm why") {
			do = l.release(p)
		}
	}
	is := Issue{ID: "drones", Kind: IssueHeld, Severity: Blocked, Title: count(ready, "job") + " could start and every drone holds back",
		Detail: build.OneLine(strings.Join(why, "; "), 600), HoldsUp: ready + waiting, Do: do}
	if drones == 0 {
		is.Kind, is.Title, is.Detail, is.Do = IssueNoDrone, count(ready, "job")+" could start and no drone is here", "no live peer builds", "swarm run"
	}
	return append(out, is)
}

// release is what to type so that a drone that takes nothing takes jobs again:
// it undoes what holds it, or tells more where nothing that can be typed does.
func (l *look) release(p Peer) string {
	switch {
	case p.Ordered:
		return "swarm resume all"
	case l.r.Trial(p.ID, l.now).Held():
		return "swarm unblock all"
	}
	return "swarm why --drone " + short(p.ID)
}

// missing finds what is gone: peers, and blobs with them.
func (l *look) missing(s *Snapshot) []Issue {
	var out []Issue
	only := map[string]int{} // blobs that only this absent peer holds
	live := map[string]bool{}
	for _, p := range l.peers {
		live[p.ID] = p.Live
	}
	if s.Blobs.Copies[0] > 0 {
		for _, holders := range l.r.Blobs() {
			if !slices.ContainsFunc(holders, func(h string) bool { return live[h] }) {
				for _, h := range holders {
					only[h]++
				}
			}
		}
		var names []string
		for _, p := range s.Peers {
			if only[p.ID] > 0 {
				names = append(names, p.Nick)
			}
		}
		is := Issue{ID: "lost", Kind: IssueLost, Severity: Degraded, Title: count(s.Blobs.Copies[0], "blob") + " on no peer that is here", Do: "swarm peers"}
		if len(names) > 0 {
			is.Detail = "last held by " + build.OneLine(strings.Join(names, ", "), 200) + ": switch one on, or let them be built again"
		}
		for i := range l.infos {
			if l.infos[i].State == claims.JobAway {
				is.HoldsUp++
			}
		}
		out = append(out, is)
	}
	nicks := map[string]string{}
	for _, p := range s.Peers {
		if p.State == "away" && p.Steady && p.AgeMS < farAway {
			is := Issue{ID: "peer/" + p.ID, Kind: IssueAway, Severity: Healthy, Title: p.Nick + " fell silent", Detail: "not heard of for " + span(p.AgeMS),
				Peer: p.ID, SinceMS: s.AtMS - p.AgeMS, Do: "swarm peers"}
			if only[p.ID] > 0 {
				is.Detail += fmt.Sprintf("; of %s it has the last copy", count(only[p.ID], "blob"))
			}
			out = append(out, is)
		}
		if other, twice := nicks[p.Nick]; twice && p.State != "gone" {
			out = append(out, Issue{ID: "names/" + p.Nick, Kind: IssueNames, Severity: Healthy, Title: fmt.Sprintf("two peers are called %q", p.Nick),
				Detail: "they are " + short(other) + " and " + short(p.ID), Peer: p.ID, Do: "swarm run --nick NAME"})
		}
		nicks[p.Nick] = p.ID
	}
	return out
}

package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/claims"
)

// Why answers "why does this job not run?": what it waits for, who could take
// it, each drone's reason, and what happens next.
type Why struct {
	Schema   int         `json:"schema"`
	Key      build.Key   `json:"key"`
	CPV      string      `json:"cpv"`
	State    string      `json:"state"`
	Sentence string      `json:"sentence"`
	WaitsFor []Wait      `json:"waits_for"`
	HoldsUp  int         `json:"holds_up"` // jobs that wait for it, directly or not
	Drones   []DroneWord `json:"drones"`
	Next     string      `json:"next_event"`
	NextMS   int64       `json:"next_event_ms"` // from now; 0 = unknown
	Do       string      `json:"next_action"`   // a command, where a person can help
	// Differs says of two builds from equal inputs that came out differently, and
	// where; "" = there are none. Artifacts are the CIDs of the two.
	Differs string `json:"differs"`
	// Phases and Provisional are those of the good build, as in PastBuild.
	Phases      []build.Phase `json:"phases"`
	Provisional bool          `json:"provisional"`
	Artifacts   []string      `json:"differing_artifacts"`
	// MemoryMiB and DiskMiB are what its build is expected to want; 0 = unknown.
	MemoryMiB int64 `json:"memory_mib"`
	DiskMiB   int64 `json:"disk_mib"`
}

// Wait is a dependency that is not available yet.
type Wait struct {
	Key    build.Key `json:"key"`
	CPV    string    `json:"cpv"`
	State  string    `json:"state"`
	LeftMS int64     `json:"left_ms"`
}

// DroneWord is what one drone has to say of a job.
type DroneWord struct {
	Peer   string `json:"peer"`
	Nick   string `json:"nick"`
	Could  bool   `json:"could"` // it would take the job if the plan gave it
	Reason string `json:"reason"`

	paused bool
}

// notADrone is what claims.Replica.Fits says of a peer that builds nothing.
const notADrone = "it is not a drone"

// DroneWhy answers "why does this drone do nothing?".
type DroneWhy struct {
	Schema   int    `json:"schema"`
	Peer     string `json:"peer"`
	Nick     string `json:"nick"`
	Sentence string `json:"sentence"`
	Jobs     []Wait `json:"jobs"` // what the plan would give it, in order
	// Unfit are jobs that are ready and beyond what it is, the first of them.
	Unfit []Misfit `json:"unfit"`
}

// Misfit is a job that a drone cannot build, and why.
type Misfit struct {
	Key    build.Key `json:"key"`
	CPV    string    `json:"cpv"`
	Reason string    `json:"reason"`
}

// maxUnfit bounds what is told of them.
const maxUnfit = 10

// Explain derives Why from the board. ok is false for a job nobody asked for.
func Explain(r *claims.Replica, k build.Key, now claims.Now) (w Why, ok bool) {
	infos := r.Survey(now)
	at := slices.IndexFunc(infos, func(i claims.JobInfo) bool { return i.Job.Key == k })
	if at < 0 {
		if r.Job(k) == nil {
			return Why{}, false
		}
		return Why{Schema: 1, Key: k, CPV: r.Job(k).CPV.String(), State: "not wanted", Sentence: "no open round asks for it any more",
			WaitsFor: []Wait{}, Drones: []DroneWord{}, Artifacts: []string{}, Phases: []build.Phase{}}, true
	}
	peers := r.Peers(now)
	forecast := plan.Forecast(infos, peers)
	info := &infos[at]
	w = Why{Schema: 1, Key: k, CPV: info.Job.CPV.String(), State: string(info.State), WaitsFor: []Wait{}, Drones: []DroneWord{}, HoldsUp: holdsUp(infos, k), MemoryMiB: info.MemoryMiB, DiskMiB: info.DiskMiB, Artifacts: []string{}, Phases: []build.Phase{}}
	byKey := make(map[build.Key]*claims.JobInfo, len(infos))
	for i := range infos {
		byKey[infos[i].Job.Key] = &infos[i]
	}
	for _, d := range info.WaitsFor {
		if dep := byKey[d]; dep != nil {
			w.WaitsFor = append(w.WaitsFor, Wait{d, dep.Job.CPV.String(), string(dep.State), forecast[d].Finish})
		}
	}
	for i := range peers {
		w.Drones = append(w.Drones, word(r, &peers[i], info, forecast, now))
	}
	w.say(r, info, byKey, forecast)
	if a, b, unequal := r.Unequal(k); unequal {
		w.Differs, w.Artifacts = differs(r, k), []string{a.Artifact.CID, b.Artifact.CID}
	}
	return w, true
}

// holdsUp counts what waits for a job, directly or not.
func holdsUp(infos []claims.JobInfo, k build.Key) int {
	held := map[build.Key]bool{k: true}
	for i := range infos { // dependencies come first
		for _, d := range infos[i].WaitsFor {
			if held[d] {
				held[infos[i].Job.Key] = true
			}
		}
	}
	return len(held) - 1
}

// word is one drone's reason, the strongest first.
func word(r *claims.Replica, p *claims.Peer, info *claims.JobInfo, forecast map[build.Key]plan.Assignment, now claims.Now) DroneWord {
	k := info.Job.Key
	d := DroneWord{Peer: p.ID, Nick: r.Name(p.ID)}
	no := func(format string, args ...any) DroneWord {
		d.Reason = build.OneLine(fmt.Sprintf(format, args...), 200)
		return d
	}
	if !p.Live {
		return no("not heard of for %s", span(p.AgeMS))
	}
	if ok, why := r.Fits(&p.Beat, info.Job); !ok {
		return no("%s", why)
	}
	if why, paused := r.Paused(p.ID); paused {
		d.paused = true
		return no("%s", why)
	}
	if why, declined := r.Declined(k, p.ID, now); declined {
		return no("it declined: %s", why)
	}
	if r.FailedOn(k, p.ID) {
		return no("it failed here before; another drone is to try")
	}
	if info.Holder == p.ID {
		return no("it has it (%s)", info.Beat.Phase)
	}
	if !p.Beat.Accepting {
		return no("it takes nothing: %s", p.Beat.Why)
	}
	d.Could = true
	a, planned := forecast[k]
	switch {
	case planned && a.Peer == p.ID && a.Start > 0:
		return no("the plan gives it to this drone, in %s", span(a.Start))
	case planned && a.Peer == p.ID:
		return no("the plan gives it to this drone now")
	case len(p.Beat.Jobs) >= p.Beat.Slots && p.Beat.Slots > 0:
		return no("it is busy with %s for about %s", nameOf(r, p.Beat.Jobs[0].Key), span(p.Beat.Jobs[0].LeftMS))
	case planned:
		return no("%s finishes it earlier", r.Name(a.Peer))
	}
	return no("it could take it")
}

func span(ms int64) string {
	return (time.Duration(ms) * time.Millisecond).Round(time.Second).String()
}

// say finds the sentence, the next event and what a person could do.
func (w *Why) say(r *claims.Replica, info *claims.JobInfo, byKey map[build.Key]*claims.JobInfo, forecast map[build.Key]plan.Assignment) {
	switch info.State {
	case claims.JobSafe, claims.JobAvailable:
		w.Sentence = fmt.Sprintf("it is built, by %s, and on %d peers", r.Name(info.Good.Peer), info.Copies)
		if w.Phases, w.Provisional = phasesOf(info.Good), info.Good.Provisional; w.Provisional {
			w.Sentence += "; provisional: on that machine's own root"
		}
	case claims.JobAway:
		w.Sentence = "it is built, and the peers that hold it are away"
		w.Next = "they come back, or it is built again 15 minutes after they were last heard of"
	case claims.JobClaimed:
		w.Sentence = fmt.Sprintf("%s has claimed it and prepares the build (%s)", r.Name(info.Holder), cmp.Or(info.Beat.Phase, "fetch"))
		w.Next, w.NextMS = "it compiles, and the build ends", forecast[w.Key].Finish
	case claims.JobBuilding:
		w.Sentence = fmt.Sprintf("%s has it (%s)", r.Name(info.Holder), info.Beat.Phase)
		w.Next, w.NextMS = "the build ends", forecast[w.Key].Finish
		w.Do = "swarm logs -f " + w.CPV
	case claims.JobBlocked:
		w.blockedBy(r, byKey[info.Cause])
	case claims.JobUnfit:
		w.Sentence = "no drone that is here can build it"
		if i := slices.IndexFunc(w.Drones, func(d DroneWord) bool { return d.Reason != notADrone }); i >= 0 {
			w.Sentence += "; " + w.Drones[i].Nick + ": " + w.Drones[i].Reason
		}
		w.Do = "swarm peers"
		w.Next = "a drone that can joins, or frees memory or disk"
	case claims.JobReady:
		a, planned := forecast[w.Key]
		w.Sentence = "it is ready and waits for a free drone"
		if planned {
			w.Next, w.NextMS = "the plan gives it to "+r.Name(a.Peer), a.Start
		}
		if could := slices.ContainsFunc(w.Drones, func(d DroneWord) bool { return d.Could }); !could {
			w.Sentence = "it is ready, and every drone has a reason not to take it"
			if i := slices.IndexFunc(w.Drones, func(d DroneWord) bool { return d.paused }); i >= 0 {
				w.Do = "swarm resume"
				if !allPaused(r) {
					w.Do += " " + w.Drones[i].Nick
				}
			}
		}
	case claims.JobWaiting:
		w.waiting(forecast)
	}
}

// allPaused reports whether an order holds all drones back, not one by its name.
func allPaused(r *claims.Replica) bool {
	return slices.ContainsFunc(r.Directives(), func(d claims.Ordered) bool {
		return !d.Off && d.Scope == claims.ScopeAll && (d.Verb == claims.VerbPause || d.Verb == claims.VerbDrain)
	})
}

func (w *Why) waiting(forecast map[build.Key]plan.Assignment) {
	names := make([]string, 0, len(w.WaitsFor))
	var last Wait
	for _, x := range w.WaitsFor {
		names = append(names, x.CPV)
		if x.LeftMS >= last.LeftMS {
			last = x
		}
	}
	w.Sentence = "it waits for " + strings.Join(names, ", ")
	if last.CPV != "" {
		w.Next, w.NextMS = last.CPV+" is built", last.LeftMS
	}
}

func (w *Why) blockedBy(r *claims.Replica, root *claims.JobInfo) {
	if root == nil {
		w.Sentence = "something that it needs is blocked"
		return
	}
	reason := "it failed"
	if n := len(root.Failures); n > 0 {
		f := root.Failures[n-1]
		reason = fmt.Sprintf("failed on %s: %s", r.Name(f.Peer), f.Reason)
	}
	if root.Job.Key == w.Key {
		w.Sentence = "it is blocked: " + reason
	} else {
		w.Sentence = fmt.Sprintf("it waits for %s, which is blocked: %s", root.Job.CPV, reason)
	}
	w.Next = "nothing, until somebody mends it"
	w.Do = fmt.Sprintf("swarm logs %s, then swarm unblock %s", root.Job.Key.Short(), root.Job.Key.Short())
}

// ExplainDrone says what a drone does, or why it does nothing, and what the
// plan has for it.
func ExplainDrone(r *claims.Replica, peer string, now claims.Now) (w DroneWhy, ok bool) {
	peers := r.Peers(now)
	at := slices.IndexFunc(peers, func(p claims.Peer) bool { return p.ID == peer })
	if at < 0 {
		return DroneWhy{}, false
	}
	p := &peers[at]
	w = DroneWhy{Schema: 1, Peer: peer, Nick: r.Name(peer), Jobs: []Wait{}, Unfit: []Misfit{}}
	infos := r.Survey(now)
	forecast := plan.Forecast(infos, peers)
	ready, could := 0, 0
	for i := range infos {
		a, planned := forecast[infos[i].Job.Key]
		if planned && a.Peer == peer && infos[i].Holder != peer {
			w.Jobs = append(w.Jobs, Wait{infos[i].Job.Key, infos[i].Job.CPV.String(), string(infos[i].State), a.Start})
		}
		if s := infos[i].State; (s == claims.JobReady || s == claims.JobUnfit) && p.Live && p.Beat.Slots > 0 && len(w.Unfit) < maxUnfit {
			if fits, why := r.Fits(&p.Beat, infos[i].Job); !fits {
				w.Unfit = append(w.Unfit, Misfit{infos[i].Job.Key, infos[i].Job.CPV.String(), build.OneLine(why, 200)})
			}
		}
		if infos[i].State == claims.JobReady {
			ready++
			if word(r, p, &infos[i], forecast, now).Could {
				could++
			}
		}
	}
	slices.SortStableFunc(w.Jobs, func(a, b Wait) int { return int(min(1, max(-1, a.LeftMS-b.LeftMS))) })
	paused, isPaused := r.Paused(peer)
	switch {
	case !p.Live:
		w.Sentence = "not heard of for " + span(p.AgeMS)
	case p.Beat.Slots == 0:
		w.Sentence = "it is not a drone (--slots 0)"
	case len(p.Beat.Jobs) > 0:
		w.Sentence = "it builds " + nameOf(r, p.Beat.Jobs[0].Key)
		if isPaused {
			w.Sentence += ", and takes no more: " + paused
		}
	case isPaused:
		w.Sentence = paused
	case !p.Beat.Accepting:
		w.Sentence = "it takes nothing: " + build.OneLine(p.Beat.Why, 160)
	case ready == 0:
		w.Sentence = "nothing is ready to be built"
	case could == 0:
		w.Sentence = fmt.Sprintf("%d jobs are ready and none of them is for it", ready)
	case len(w.Jobs) == 0:
		w.Sentence = fmt.Sprintf("of %d ready jobs, others finish each one earlier", ready)
	default:
		w.Sentence = fmt.Sprintf("it is about to take %s", w.Jobs[0].CPV)
	}
	return w, true
}

package view

import (
	"fmt"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

// Jobs lists the jobs of the open rounds, or of one round.
func Jobs(r *claims.Replica, round string, now claims.Now) []Job {
	infos := r.Survey(now)
	if round != "" {
		infos = r.SurveyRound(round, now)
	}
	l := &look{r: r, now: now, infos: infos, peers: r.Peers(now)}
	l.forecast = plan.Forecast(infos, l.peers)
	return l.jobs(infos)
}

func (l *look) jobs(infos []claims.JobInfo) []Job {
	out := make([]Job, 0, len(infos))
	held := holdUps(infos)
	for i := range infos {
		out = append(out, l.job(&infos[i], held))
	}
	return out
}

func (l *look) job(info *claims.JobInfo, held map[build.Key]int) Job {
	r := l.r
	j := Job{
		Key: info.Job.Key, CPV: info.Job.CPV.String(), USE: slices.Concat([]string{}, info.Job.USE), Target: info.Target,
		State: string(info.State), Phase: build.OneLine(info.Beat.Phase, 24), Copies: info.Copies, Epoch: info.Epoch,
		Failures: len(info.Failures), LeftMS: l.forecast[info.Job.Key].Finish, WaitsFor: []string{}, HoldsUp: held[info.Job.Key],
	}
	if len(info.Rounds) > 0 {
		j.Round = info.Rounds[len(info.Rounds)-1]
	}
	if info.Holder != "" {
		j.Peer, j.PeerID = r.Name(info.Holder), info.Holder
		j.StartedMS = l.now.Wall - info.Beat.InvestedMS
	}
	if info.Good != nil {
		g := info.Good
		j.Peer, j.PeerID, j.CID, j.Size, j.Log, j.Epoch = r.Name(g.Peer), g.Peer, g.Artifact.CID, g.Artifact.Size, g.Log, g.Epoch
		j.Provisional = g.Provisional
		j.times(g)
	} else if rs := r.Results(info.Job.Key); len(rs) > 0 {
		last := rs[len(rs)-1]
		j.Reason, j.Log = build.OneLine(last.Reason, 200), last.Log
		if j.Peer == "" {
			j.Peer, j.PeerID = r.Name(last.Peer), last.Peer
			j.times(&last)
		}
	}
	j.Differs = differs(r, info.Job.Key)
	for _, k := range info.WaitsFor {
		j.WaitsFor = append(j.WaitsFor, nameOf(r, k))
	}
	return j
}

// differs names the drones whose builds of a job from equal inputs came out
// differently; "" if none did.
func differs(r *claims.Replica, k build.Key) string {
	a, b, ok := r.Unequal(k)
	if !ok {
		return ""
	}
	return fmt.Sprintf("built from equal inputs by %s and %s, and the content is not the same", r.Name(a.Peer), r.Name(b.Peer))
}

func (j *Job) times(o *claims.Result) {
	j.StartedMS, j.EndedMS, j.CostMS = hlc.Time(o.Started).Millis(), o.Stamp.Millis(), o.Millis
}

// holdUps counts for each blocked or unfit job at the root of a hold-up the
// jobs that wait for it, directly or not. Dependencies come first in infos.
func holdUps(infos []claims.JobInfo) map[build.Key]int {
	roots := map[build.Key]int{}
	unfit := map[build.Key][]build.Key{} // what a job waits for that nobody fits
	for i := range infos {
		info := &infos[i]
		k := info.Job.Key
		switch info.State {
		case claims.JobUnfit:
			unfit[k] = []build.Key{k}
		case claims.JobBlocked:
			if info.Cause != k && info.Cause != "" {
				roots[info.Cause]++
			}
		case claims.JobWaiting:
			var all []build.Key
			for _, d := range info.WaitsFor {
				all = append(all, unfit[d]...)
			}
			if len(all) == 0 {
				continue
			}
			slices.Sort(all)
			all = slices.Compact(all)
			if len(all) > 16 {
				all = all[:16] // one is as good a reason as the next
			}
			unfit[k] = all
			for _, d := range all {
				roots[d]++
			}
		}
	}
	return roots
}

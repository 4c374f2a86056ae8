package view

import (
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

// Package is what is known of one package, in any version.
type Package struct {
	CP     string      `json:"cp"`
	Jobs   []Job       `json:"jobs"`   // that some known round lists, newest state
	Builds []PastBuild `json:"builds"` // newest first, at most MaxBuilds
	More   int         `json:"more"`   // older builds that are not listed
}

// MaxBuilds bounds a package's history.
const MaxBuilds = 60

// PastBuild is one outcome with where it came from.
type PastBuild struct {
	Key       build.Key `json:"key"`
	CPV       string    `json:"cpv"`
	Target    string    `json:"target"`
	Class     string    `json:"class"`
	Reason    string    `json:"reason"`
	Peer      string    `json:"peer"` // nickname
	Epoch     uint64    `json:"epoch"`
	StartedMS int64     `json:"started_unix_ms"`
	EndedMS   int64     `json:"ended_unix_ms"`
	TookMS    int64     `json:"took_ms"`
	CoreMS    int64     `json:"core_ms"`
	PeakMiB   int64     `json:"peak_mib"`
	DiskMiB   int64     `json:"disk_mib"` // the most of its work directory
	Size      int64     `json:"size"`
	CID       string    `json:"cid"`
	MD5       string    `json:"md5"`
	SHA1      string    `json:"sha1"`
	Inputs    string    `json:"inputs"`  // digest of the exact toolchain, root and tree
	Content   string    `json:"content"` // digest of what is inside, times masked
	Log       string    `json:"log"`
	Holders   []string  `json:"holders"` // nicknames of live peers that hold it
	Away      []string  `json:"away"`    // of peers that hold it and are not here
	Because   []string  `json:"because"` // what differs from the good build before
	AskedBy   []string  `json:"asked_by"`
	USE       []string  `json:"use"`
	// Phases are what it went through and how long each took; RootMS of that went
	// into its root.
	Phases []build.Phase `json:"phases"`
	RootMS int64         `json:"root_ms"`
	// Provisional: built in place, or on a machine's own root, which nothing keeps
	// from changing.
	Provisional bool `json:"provisional"`
}

// PackageOf collects what the board knows of category/name; ok is false when
// that is nothing.
func PackageOf(r *claims.Replica, cp string, now claims.Now) (p Package, ok bool) {
	p = Package{CP: cp, Jobs: []Job{}, Builds: []PastBuild{}}
	l := take(r, now)
	known := map[build.Key]bool{}
	for i := range l.infos {
		if l.infos[i].Job.CPV.CP() == cp {
			p.Jobs = append(p.Jobs, l.job(&l.infos[i], holdUps(l.infos)))
			known[l.infos[i].Job.Key] = true
		}
	}
	history := r.History(cp)
	var good *claims.Result
	for i := range history {
		o := &history[i]
		p.Builds = append(p.Builds, l.past(o, good))
		if o.Class == build.Good {
			good = o
		}
	}
	slices.Reverse(p.Builds)
	if p.More = len(p.Builds) - MaxBuilds; p.More > 0 {
		p.Builds = p.Builds[:MaxBuilds]
	}
	p.More = max(0, p.More)
	return p, len(p.Jobs)+len(p.Builds) > 0
}

func (l *look) past(o, before *claims.Result) PastBuild {
	r := l.r
	b := PastBuild{
		Key: o.Key, CPV: o.CPV.String(), Target: build.OneLine(o.Target, 64), Class: string(o.Class), Reason: build.OneLine(o.Reason, 300), Peer: r.Name(o.Peer), Epoch: o.Epoch,
		StartedMS: hlc.Time(o.Started).Millis(), EndedMS: o.Stamp.Millis(), TookMS: o.Millis, CoreMS: o.CoreMillis, PeakMiB: o.PeakMiB, DiskMiB: o.DiskMiB,
		Inputs: build.OneLine(o.Inputs, 128), Content: build.OneLine(o.Content, 128), Log: o.Log,
		Holders: []string{}, Away: []string{}, Because: []string{}, AskedBy: []string{}, USE: []string{},
		Phases: phasesOf(o), RootMS: o.RootMillis, Provisional: o.Provisional,
	}
	job := r.Job(o.Key)
	if job != nil {
		b.USE = append(b.USE, job.USE...)
	}
	for _, rd := range r.Rounds() {
		if _, p, _ := r.Round(rd.ID); p != nil && len(b.AskedBy) < 4 && listed(p, o.Key) {
			b.AskedBy = append(b.AskedBy, fmt.Sprintf("%s on %s: %s", "round "+rd.ID, r.Name(rd.Requester), build.OneLine(rd.Command, 120)))
		}
	}
	if o.Class != build.Good {
		return b
	}
	b.Size, b.CID, b.MD5, b.SHA1 = o.Artifact.Size, o.Artifact.CID, build.OneLine(o.Artifact.MD5, 40), build.OneLine(o.Artifact.SHA1, 48)
	live := r.Holders(o.Artifact.CID, true, l.now)
	for _, h := range r.Holders(o.Artifact.CID, false, l.now) {
		if slices.Contains(live, h) {
			b.Holders = append(b.Holders, r.Name(h))
		} else {
			b.Away = append(b.Away, r.Name(h))
		}
	}
	b.Because = because(r, o, before)
	return b
}

// maxPhases bounds what is shown of a peer's word.
const maxPhases = 32

func phasesOf(o *claims.Result) []build.Phase {
	out := []build.Phase{}
	for _, p := range o.Phases[:min(len(o.Phases), maxPhases)] {
		out = append(out, build.Phase{Name: build.OneLine(p.Name, 24), Millis: p.Millis})
	}
	return out
}

func listed(p *build.Plan, k build.Key) bool {
	return slices.ContainsFunc(p.Jobs, func(j build.Job) bool { return j.Key == k })
}

// because says what differs between a good build and the one before it.
func because(r *claims.Replica, o, before *claims.Result) []string {
	switch {
	case before == nil:
		return []string{"the first build of this package here"}
	case before.Key == o.Key && before.Inputs == o.Inputs && before.Content != "" && o.Content != "":
		what := "the content is the same"
		if before.Content != o.Content {
			what = "the content is not the same (swarm why " + string(o.Key[:min(8, len(o.Key))]) + " says where)"
		}
		return []string{"the same key was built before, from equal inputs: " + what}
	case before.Key == o.Key:
		return []string{"the same key was built before: that artifact was away, or two drones built it at once"}
	}
	var out []string
	if before.CPV.Version != o.CPV.Version {
		out = append(out, "version "+before.CPV.Version+" to "+o.CPV.Version)
	}
	a, b := r.Job(before.Key), r.Job(o.Key)
	if a == nil || b == nil {
		return append(out, "what else went into the earlier build is not known here any more")
	}
	out = append(out, Differences(a.Preimage, b.Preimage)...)
	if before.Target != o.Target {
		out = append(out, "target "+before.Target+" to "+o.Target)
	}
	return out
}

// maxDifferences bounds a list of differing facets.
const maxDifferences = 12

// Differences names the facets in which two preimages of a build key differ:
// flags that came and went, short values in full, digests by name alone.
func Differences(a, b []build.Facet) []string {
	old, now := map[string]string{}, map[string]string{}
	var names []string
	for _, f := range a {
		old[f.Name] = f.Value
		names = append(names, f.Name)
	}
	for _, f := range b {
		now[f.Name] = f.Value
		names = append(names, f.Name)
	}
	slices.Sort(names)
	var out []string
	for _, n := range slices.Compact(names) {
		x, hadX := old[n]
		y, hasY := now[n]
		if x == y && hadX == hasY || n == "cpv" {
			continue
		}
		if len(out) == maxDifferences {
			return append(out, "and more")
		}
		out = append(out, build.OneLine(difference(n, x, y), 200))
	}
	return out
}

const shortValue = 40 // longer ones are digests, or as good as that to a reader

func difference(name, x, y string) string {
	if strings.EqualFold(name, "use") || strings.HasSuffix(name, "FLAGS") || strings.Contains(x, " ") || strings.Contains(y, " ") {
		if d := wordDiff(strings.Fields(x), strings.Fields(y)); d != "" {
			return name + ": " + d
		}
		return name + ": another order"
	}
	if len(x) <= shortValue && len(y) <= shortValue {
		return fmt.Sprintf("%s: %s to %s", name, orNone(x), orNone(y))
	}
	return name + " changed"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// wordDiff is "+new -old", at most eight of each.
func wordDiff(x, y []string) string {
	var plus, minus []string
	for _, w := range y {
		if !slices.Contains(x, w) {
			plus = append(plus, "+"+w)
		}
	}
	for _, w := range x {
		if !slices.Contains(y, w) {
			minus = append(minus, "-"+w)
		}
	}
	return strings.Join(append(plus[:min(8, len(plus))], minus[:min(8, len(minus))]...), " ")
}

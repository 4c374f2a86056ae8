package daemon

import (
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// minKeyEnd is how much of a key's end has to be given, in characters.
const minKeyEnd = 6

// longestName is more than any name of a job, in bytes.
const longestName = 200

// findJob is the one job of the newest round that knows the name: a package, with
// its category or its version or neither, as people type it and as Portage prints
// it ("=category/name-version"), or a key or the end of one.
func findJob(r *claims.Replica, name string, now claims.Now) (*build.Job, error) {
	name = strings.TrimPrefix(strings.TrimSpace(name), "=")
	if name == "" {
		return nil, &control.Error{Kind: control.KindUsage, Message: "the name of a job is empty", Hint: "swarm jobs lists them"}
	}
	var hits []*build.Job
	var known []string
	for _, rd := range r.Rounds() {
		for _, info := range r.SurveyRound(rd.ID, now) {
			j := info.Job
			names := []string{j.CPV.Name, j.CPV.CP(), j.CPV.String()}
			if slices.Contains(names, name) || string(j.Key) == name || len(name) >= minKeyEnd && strings.HasSuffix(string(j.Key), name) {
				hits = append(hits, j)
			}
			known = append(known, names...)
		}
		if len(hits) > 0 {
			break
		}
	}
	switch len(hits) {
	case 0:
		e := &control.Error{Kind: control.KindNotFound, Message: "no job " + build.OneLine(name, 80), Hint: "swarm jobs lists them"}
		if len(name) <= longestName {
			if best := control.Nearest(strings.ToLower(name), known); best != "" {
				e.Hint = "did you mean: " + best + " (swarm jobs lists them)"
			}
		}
		return nil, e
	case 1:
		return hits[0], nil
	}
	var list []string
	for _, j := range hits {
		list = append(list, fmt.Sprintf("%s %s (USE=%q)", j.Key.Short(), j.CPV, strings.Join(j.USE, " ")))
	}
	slices.Sort(list)
	return nil, &control.Error{Kind: control.KindUsage, Message: build.OneLine(name+" names several jobs: "+strings.Join(list, ", "), 400),
		Hint: "give a key instead of the name, such as " + list[0][:strings.Index(list[0], " ")]}
}

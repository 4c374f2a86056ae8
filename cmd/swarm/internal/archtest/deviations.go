package archtest

import "strings"

// Deviation is a place that is known to break a rule which stands.
type Deviation struct {
	At   string // how the finding's path begins
	Says string // a part of the finding's text
	Mend string // what would end it
}

// Deviations are printed by the tests and let pass; one that has ended must be
// taken out.
var Deviations = []Deviation{}

// Sort divides findings into those that stand, and the deviations that they
// show; ended are the deviations that nothing shows any more.
func Sort(all []Finding) (stand []Finding, known map[Deviation][]Finding, ended []Deviation) {
	return sortBy(Deviations, all)
}

func sortBy(list []Deviation, all []Finding) (stand []Finding, known map[Deviation][]Finding, ended []Deviation) {
	known = map[Deviation][]Finding{}
next:
	for _, f := range all {
		for _, d := range list {
			if strings.HasPrefix(f.Path, d.At) && strings.Contains(f.Text, d.Says) {
				known[d] = append(known[d], f)
				continue next
			}
		}
		stand = append(stand, f)
	}
	for _, d := range list {
		if len(known[d]) == 0 {
			ended = append(ended, d)
		}
	}
	return stand, known, ended
}

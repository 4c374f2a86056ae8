package claims

import (
	"slices"
	"testing"

	"github.com/build-swarm/swarm/build"
)

func TestTheDiskThatABuildWantsIsLearned(t *testing.T) {
	good := func(mib int64) build.Outcome { return build.Outcome{Class: build.Good, DiskMiB: mib} }
	short := func(had int64) build.Outcome {
		return build.Outcome{Class: build.BadMachine, DiskMiB: had, ShortMiB: had * 3 / 2}
	}
	for _, c := range []struct {
		name     string
		planned  int64
		outcomes []build.Outcome
		want     int64
	}{
		{"nobody built it and nobody guesses", 0, nil, 0},
		{"the planner's guess", 700, nil, 700},
		{"what was measured, and an eighth", 700, []build.Outcome{good(6400), good(8000)}, 9000},
		{"less than the guess", 5000, []build.Outcome{good(80)}, 90},
		{"one that ran out", 700, []build.Outcome{short(4000)}, 6000},
		{"one that ran out of less than is guessed", 7000, []build.Outcome{short(400)}, 7000},
		{"a newer version that ran out", 700, []build.Outcome{good(1000), short(4000)}, 6000},
		{"one that ran out and one that did not", 700, []build.Outcome{short(4000), good(4800)}, 5400},
		{"measured by a drone that does not measure", 700, []build.Outcome{good(0)}, 700},
		{"a liar", 700, []build.Outcome{good(1 << 60)}, maxDisk + maxDisk/8},
	} {
		for range 2 { // whatever the order
			slices.Reverse(c.outcomes)
			x := newIndex()
			job := testJob("a")
			job.DiskMiB = c.planned
			for _, o := range c.outcomes {
				o.CPV = job.CPV
				if o.Class == build.Good {
					x.learn(o)
				} else {
					x.learnShort(o)
				}
			}
			if got := x.disk(&job); got != c.want {
				t.Errorf("%s: %d MiB, want %d", c.name, got, c.want)
			}
		}
	}
}

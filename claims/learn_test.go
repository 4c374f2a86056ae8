package claims

import (
	"testing"

	"github.com/build-swarm/swarm/build"
)

func TestAnOutcomeIsHeldAgainstTheOtherBuildsOfItsPackage(t *testing.T) {
	job := testJob("a")
	for name, x := range map[string]struct {
		earlier []int64
		want    int64
	}{
		"the first":          {nil, 0},
		"one before":         {[]int64{90}, 90},
		"as long as before":  {[]int64{100}, 100},
		"slower than all":    {[]int64{70, 80, 90}, 80},
		"faster than all":    {[]int64{170, 180, 190}, 180},
		"between them, even": {[]int64{80, 120}, 120}, // as Work takes the median of two
	} {
		i := &index{learned: map[string]*history{}}
		for _, ms := range append(x.earlier, 100) {
			i.learn(build.Outcome{CPV: job.CPV, CoreMillis: ms})
		}
		if got := i.others(&build.Outcome{CPV: job.CPV, CoreMillis: 100}); got != x.want {
			t.Errorf("%s: %d, want %d", name, got, x.want)
		}
	}
}

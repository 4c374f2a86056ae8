package claims

import (
	"slices"
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

func TestTheNewestCourseOfAPackageCounts(t *testing.T) {
	job := &build.Job{CPV: build.CPV{Category: "sys-devel", Name: "gcc", Version: "15"}}
	course := func(bytes int64) *build.Course { return &build.Course{Bytes: bytes, At: make([]int64, 15)} }
	outcomes := []build.Outcome{
		{CPV: job.CPV, Key: "a", Started: 3, Course: course(3)},
		{CPV: job.CPV, Key: "b", Started: 9, Course: course(9)},
		{CPV: job.CPV, Key: "c", Started: 10, Course: &build.Course{Bytes: 10}}, // of a stranger
		{CPV: job.CPV, Key: "d", Started: 12},
		{CPV: job.CPV, Key: "e", Started: 5, Course: course(5)},
	}
	for range 2 { // whatever the order
		slices.Reverse(outcomes)
		x := newIndex()
		for _, o := range outcomes {
			x.learn(o)
		}
		if got := (&Replica{idx: x}).Course(job); got == nil || got.Bytes != 9 {
			t.Errorf("course %v", got)
		}
	}
	if got := (&Replica{idx: newIndex()}).Course(job); got != nil {
		t.Errorf("of a package that nobody built: %v", got)
	}
}

func TestAnEstimateGivesWayToTheLogAsItGrows(t *testing.T) {
	// 100 s were estimated; the log says that it will be 200.
	last := int64(100_000)
	for _, done := range []int64{10, 100, 300, 500, 800, 950} {
		got := Whole(100_000, done*200, done, 0.25, true)
		if got < last || got > 200_000 {
			t.Errorf("%d permille done: %d ms in all, before it was %d", done, got, last)
		}
		last = got
	}
	if last < 190_000 {
		t.Errorf("near its end it is taken for %d ms", last)
	}
	for _, done := range []int64{0, 1000} {
		if got := Whole(100_000, 50_000, done, 0.25, true); got != 100_000 {
			t.Errorf("a log that says nothing made it %d ms", got)
		}
	}
}

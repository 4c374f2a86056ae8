package build

import (
	"math"
	"testing"
)

// grown is the course of a build of 160 s whose log has size(s) bytes after s
// seconds.
func grown(size func(s int64) int64) *Course {
	var g Growth
	for s := int64(2); s <= 160; s += 2 {
		g.Add(s*1000, size(s))
	}
	return g.Course(160_000, size(160))
}

func TestALogTellsHowFarABuildIs(t *testing.T) {
	even := grown(func(s int64) int64 { return s * 100 })
	if got := even.Done(8000, 100); got < 480 || got > 520 {
		t.Errorf("half of an even log is there: %d permille are done", got)
	}
	// It configures for half of the time and prints a tenth of its log.
	late := grown(func(s int64) int64 { return s*20 + max(0, s-80)*160 })
	if got := late.Done(1600, 900); got < 470 || got > 530 {
		t.Errorf("a tenth of the log, which is there after half of the time: %d permille are done", got)
	}
}

func TestWhileALogStandsStillTheExpectedPartCounts(t *testing.T) {
	// Nothing is printed from 40 to 120 s.
	c := grown(func(s int64) int64 { return min(s, 40)*100 + max(0, s-120)*100 })
	for _, x := range []struct{ expect, least, most int64 }{{500, 500, 500}, {100, 220, 280}, {900, 720, 780}} {
		if got := c.Done(4000, x.expect); got < x.least || got > x.most {
			t.Errorf("expected to be at %d permille: taken for %d, want %d to %d", x.expect, got, x.least, x.most)
		}
	}
}

func TestAStrangersCourseIsNotBelieved(t *testing.T) {
	ok := grown(func(s int64) int64 { return s * 100 })
	if !ok.Valid() {
		t.Fatal("an even course is not valid")
	}
	for name, c := range map[string]*Course{
		"empty":     {},
		"no points": {Bytes: 10},
		"too many":  {Bytes: 10, At: make([]int64, 1000)},
		"backwards": {Bytes: 10, At: []int64{5, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}},
		"above all": {Bytes: 10, At: []int64{5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 1001}},
		"negative":  {Bytes: -10, At: ok.At},
	} {
		if c.Valid() || c.Done(5, 500) != 0 {
			t.Errorf("%s: valid, and tells %d", name, c.Done(5, 500))
		}
	}
}

func TestALogThatIsLongerThanTheLast(t *testing.T) {
	c := grown(func(s int64) int64 { return s * 100 })
	for bytes, want := range map[int64]int64{0: 0, 16_000: nearEnd, 18_000: nearEnd, 32_000: 0} {
		if got := c.Done(bytes, 500); got != want {
			t.Errorf("%d bytes: %d, want %d", bytes, got, want)
		}
	}
}

func TestTheCourseOfALongBuildIsKeptInLittle(t *testing.T) {
	var g Growth
	for s := int64(0); s < 100_000; s += 2 {
		g.Add(s*1000, s)
	}
	c := g.Course(100_000_000, 100_000)
	if len(g.points) > growthMost || c == nil {
		t.Fatalf("%d points, course %v", len(g.points), c)
	}
	if got := c.Done(50_000, 0); got < 490 || got > 510 {
		t.Errorf("half of it: %d permille", got)
	}
	if short := new(Growth); short.Course(1000, 10) != nil {
		t.Error("a build that was never looked at has a course")
	}
}

// How the logs of git 2.39.5 and 2.47.3 grew (make V=1 -j2), by CPU time. Two
// years are between them, and 11 % more to print.
func TestARecordedBuildIsFoundInTheLogOfAnOlderVersion(t *testing.T) {
	older := Course{Bytes: 366_956, At: []int64{38, 74, 115, 177, 213, 266, 306, 342, 405, 477, 532, 582, 636, 677, 828}}
	newer := Course{Bytes: 409_313, At: []int64{40, 80, 137, 175, 224, 259, 290, 342, 409, 462, 515, 564, 605, 680, 872}}
	for i, at := range newer.At {
		truth := int64(i+1) * 1000 / 16
		done := older.Done(newer.Bytes*at/1000, 500)
		if off := math.Abs(math.Log(float64(done) / float64(truth))); off > 0.1-0.13*math.Log(float64(truth)/1000) {
			t.Errorf("%d permille are done, and it is taken for %d", truth, done)
		}
	}
}

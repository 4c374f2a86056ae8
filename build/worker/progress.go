package worker

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/build-swarm/swarm/build"
)

// course is how far a build is, told by its log: by how the log of an earlier
// build of the package grew, and without one by the steps that build tools count
// ([12/345] of ninja, [ 45%] of cmake's make). run.mu guards it.
type course struct {
	log    *logFile // nil until there is one
	last   *build.Course
	growth build.Growth
	steps  steps
}

// stepsTail is how much of a log's end is searched for steps, in bytes.
const stepsTail = 8 << 10

// look takes in how the log stands after a build has worked for so long. expect
// is how long such a build takes in all. The result is what is done, in permille
// of the build's time; 0 = that cannot be said.
func (c *course) look(worked, expect time.Duration) int64 {
	if c.log == nil || worked <= 0 {
		return 0
	}
	size := c.log.size()
	c.growth.Add(worked.Milliseconds(), size)
	if c.last != nil {
		return c.last.Done(size, int64(1000*worked/max(worked, expect, 1)))
	}
	c.steps.see(c.log.tail(stepsTail), worked)
	return c.steps.done(worked)
}

// wholeCourse is how the log grew of a build that has ended; nil of one that an
// earlier process began.
func (r *run) wholeCourse(log *logFile) *build.Course {
	if r.resumed != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.course.growth.Course(r.worked(time.Now()).Milliseconds(), log.size())
}

// tail reads the end of the log, which another process may write; nil when it
// cannot be read.
func (lf *logFile) tail(n int64) []byte {
	f, err := os.Open(lf.path)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	p := make([]byte, min(n, st.Size()))
	got, err := f.ReadAt(p, st.Size()-int64(len(p)))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return p[:got]
}

// steps are those that a build tool counts. A build may run several tools, one
// after another (for each ABI, for a bundled library): the newest counts.
type steps struct {
	all, from, now int           // of the tool that runs
	began, seen    time.Duration // when from and now were
}

const (
	stepsLeast = 20               // a tool with fewer tells nothing
	stepsPause = 10 * time.Minute // nothing was counted for so long: it does something else
)

func (s *steps) see(log []byte, worked time.Duration) {
	now, all, ok := lastStep(log)
	switch {
	case !ok || all < stepsLeast:
	case all != s.all || now < s.now:
		*s = steps{all: all, from: now, now: now, began: worked, seen: worked}
	case now > s.now:
		s.now, s.seen = now, worked
	}
}

// done is the build's part in permille, if the rest of the steps take as long
// as those that were seen.
func (s *steps) done(worked time.Duration) int64 {
	ran := s.now - s.from
	if ran < stepsLeast || s.now >= s.all || worked-s.seen > stepsPause {
		return 0
	}
	left := float64(worked-s.began) / float64(ran) * float64(s.all-s.now)
	return min(999, max(1, int64(1000*float64(worked)/(float64(worked)+left))))
}

// lastStep finds the last line that counts steps.
func lastStep(log []byte) (now, all int, ok bool) {
	for len(log) > 0 {
		log = bytes.TrimRight(log, "\n\r")
		i := bytes.LastIndexAny(log, "\n\r")
		line := log[i+1:]
		if now, all, ok = stepOf(line); ok {
			return now, all, true
		}
		log = log[:max(0, i)]
	}
	return 0, 0, false
}

// stepOf reads "[12/345] " or "[ 45%] " at the beginning of a line.
func stepOf(line []byte) (now, all int, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte("["))
	if !ok {
		return 0, 0, false
	}
	count, _, ok := bytes.Cut(rest[:min(len(rest), 24)], []byte("]"))
	if !ok {
		return 0, 0, false
	}
	if share, ok := bytes.CutSuffix(count, []byte("%")); ok {
		now, err := strconv.Atoi(string(bytes.TrimSpace(share)))
		return now, 100, err == nil && now >= 0 && now <= 100
	}
	a, b, ok := bytes.Cut(count, []byte("/"))
	if !ok {
		return 0, 0, false
	}
	now, err := strconv.Atoi(string(bytes.TrimSpace(a)))
	all, err2 := strconv.Atoi(string(b))
	return now, all, err == nil && err2 == nil && now >= 0 && now <= all && all < 1<<24
}

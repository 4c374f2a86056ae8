package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
)

func TestStepsThatABuildToolCountsAreRead(t *testing.T) {
	for log, want := range map[string]string{
		"[1/8] a\n[12/345] cc -o [13/345]\n":       "12/345",
		"[ 45%] Building C object\nwarning: x\n":   "45/100",
		"[ 7/2345] x\nlong output of a\n test\n":   "7/2345",
		"[12/345] one line that is not at its end": "12/345",
		"no steps\n":                "",
		"[346/345] more than all\n": "",
		"[-1/345] fewer than none\n[a/b] c\n[] d\n[1/\n[": "",
		"[99999999999999999999/99999999999999999999]\n":   "",
		" [3/4] indented is somebody's own\n":             "",
		"[100%] Built target\r[101%] no\r\n":              "100/100",
	} {
		got := ""
		if now, all, ok := lastStep([]byte(log)); ok {
			got = fmt.Sprintf("%d/%d", now, all)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", log, got, want)
		}
	}
}

func FuzzLastStep(f *testing.F) {
	f.Add([]byte("[12/345] cc\n[ 45%] x\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		if now, all, ok := lastStep(log); ok && (now < 0 || now > all || all <= 0 && now != 0) {
			t.Errorf("%d of %d", now, all)
		}
	})
}

// logOf makes the log of a build under way.
func logOf(t *testing.T) *logFile {
	t.Helper()
	lf, err := openLog(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lf.f.Close() })
	return lf
}

func TestABuildThatNobodyDidBeforeIsToldByItsSteps(t *testing.T) {
	c := course{log: logOf(t)}
	done := int64(0)
	for s := range 40 { // ten seconds of configure, then a step each second of 60
		line := "checking for x\n"
		if s >= 10 {
			line = fmt.Sprintf("[%d/60] cc\n", s-9)
		}
		if _, err := c.log.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		done = c.look(time.Duration(s+1)*time.Second, 0)
		if s < 30 && done != 0 {
			t.Errorf("after %d steps it is taken for %d permille", s-9, done)
		}
	}
	if done < 550 || done > 590 { // 40 of 70 s
		t.Errorf("40 of 70 s: %d permille", done)
	}
	// Another tool begins: what the first one said is of no use.
	_, _ = c.log.Write([]byte("[1/500] cc\n"))
	if got := c.look(41*time.Second, 0); got != 0 {
		t.Errorf("a second tool has just begun: %d permille", got)
	}
}

func TestABuildIsToldByTheLogOfTheLastOne(t *testing.T) {
	first := course{log: logOf(t)}
	write := func(c *course, s int64) int64 {
		if _, err := c.log.Write([]byte(strings.Repeat("x", 99) + "\n")); err != nil {
			t.Fatal(err)
		}
		return c.look(time.Duration(s)*time.Second, 100*time.Second)
	}
	for s := int64(1); s <= 100; s++ {
		write(&first, s)
	}
	again := course{log: logOf(t), last: first.growth.Course(100_000, first.log.size())}
	if again.last == nil {
		t.Fatal("no course")
	}
	done := int64(0)
	for s := int64(1); s <= 50; s++ { // on a machine of half the speed
		done = write(&again, 2*s)
	}
	if done < 480 || done > 520 {
		t.Errorf("half of the log is there: %d permille", done)
	}
}

func TestALogThatIsGoneTellsNothing(t *testing.T) {
	c := course{log: logOf(t), last: &build.Course{Bytes: 10}}
	if err := os.Remove(c.log.path); err != nil {
		t.Fatal(err)
	}
	if got := c.look(time.Second, time.Second); got != 0 {
		t.Errorf("%d", got)
	}
	c.last = nil
	if got := c.look(time.Second, time.Second); got != 0 {
		t.Errorf("%d", got)
	}
}

package render

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/build/progress"
)

func TestAPipeGetsALineForWhatIsNewAndEveryTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		w := NewWaiting(&b)
		for n := range int64(50) {
			w.Tell(progress.Step{What: "check", Done: n, All: 100})
			time.Sleep(500 * time.Millisecond)
		}
		w.Tell(progress.Step{What: "release\x1b[2J"})
		time.Sleep(12 * time.Second)
		w.Tell(progress.Step{What: "release\x1b[2J", Done: 3, All: 3})
		w.End()
		time.Sleep(time.Minute)
		want := "check: 0 of 100\ncheck: 20 of 100, about 40s left\ncheck: 40 of 100, about 30s left\nrelease[2J\nrelease[2J, for 10s\nrelease[2J: 3 of 3, for 12s\n"
		if got := b.String(); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}

func TestATerminalHasOneLineThatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		w := &Waiting{out: Out{W: &b, TTY: true, Width: 30}}
		for n := range int64(1000) {
			w.Tell(progress.Step{What: "check", Done: n, All: 1000, Note: strings.Repeat("long ", 20)})
			time.Sleep(5 * time.Millisecond)
		}
		if n := strings.Count(b.String(), "\r"); n > 60 {
			t.Errorf("drawn %d times in 5 s", n)
		}
		if strings.Contains(b.String(), "\n") {
			t.Error("more than a line")
		}
		for _, l := range strings.Split(b.String(), "\r\x1b[K") {
			if len([]rune(l)) > 29 {
				t.Errorf("too wide: %q", l)
			}
		}
		b.Reset()
		time.Sleep(10 * time.Second)
		if n := strings.Count(b.String(), "\r"); n < 9 || n > 11 {
			t.Errorf("drawn %d times in 10 s in which nothing was told", n)
		}
		b.Reset()
		w.End()
		time.Sleep(time.Minute)
		if b.String() != "\r\x1b[K" {
			t.Errorf("at the end: %q", b.String())
		}
	})
}

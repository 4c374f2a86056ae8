package monitor

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/build/view/viewtest"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

var update = flag.Bool("update", false, "record the screens anew")

// swarm answers from a board in memory, and remembers what it was told to do.
type swarm struct {
	*viewtest.Swarm
	mu     sync.Mutex
	dead   bool
	orders []control.Order
	log    string
	hold   chan struct{} // the log goes on when it is closed
}

var errDead = &control.Error{Kind: control.KindUnreachable, Message: "no swarm daemon answers on /run/swarm/control.sock", Hint: "start it: swarm run"}

// answered asks the board, one question at a time.
func answered[T any](s *swarm, f func() T) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		var none T
		return none, errDead
	}
	return f(), nil
}

func (s *swarm) die(dead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = dead
}

func (s *swarm) told() []control.Order {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]control.Order{}, s.orders...)
}

func (s *swarm) Status(context.Context) (view.Snapshot, error) {
	return answered(s, func() view.Snapshot { return view.Of(s.Replica, s.Now) })
}

func (s *swarm) Jobs(context.Context, string) ([]view.Job, error) {
	return answered(s, func() []view.Job { return view.Jobs(s.Replica, "", s.Now) })
}

func (s *swarm) Events(context.Context, int64, int) (control.Events, error) {
	list := control.Events{Events: []view.Event{
		{AtMS: viewtest.Wall - 60_000, Kind: view.EventJoined, Who: "nas", Text: "nas joined the swarm"},
		{AtMS: viewtest.Wall - 30_000, Kind: view.EventFailed, Who: "nas", Text: "dev-libs/x-1 failed on nas: " + viewtest.Nasty, Bad: true}}}
	return answered(s, func() control.Events { return list })
}

func (s *swarm) Releases(_ context.Context, target string) (control.ReleasesReply, error) {
	l := release.Listing{Target: target, Number: 7, Created: viewtest.Wall / 1000, Packages: 412, Bytes: 3 << 30, New: 3, Changed: 9, Gone: 1}
	return answered(s, func() control.ReleasesReply {
		return control.ReleasesReply{Target: target, Releases: []control.Release{{Listing: l, By: "desktop", Shown: true}}}
	})
}

func (s *swarm) Why(_ context.Context, job string) (view.Why, error) {
	return answered(s, func() view.Why {
		w, _ := view.Explain(s.Replica, build.Key(job), s.Now)
		return w
	})
}

func (s *swarm) WhyDrone(_ context.Context, peer string) (view.DroneWhy, error) {
	return answered(s, func() view.DroneWhy {
		w, _ := view.ExplainDrone(s.Replica, peer, s.Now)
		return w
	})
}

func (s *swarm) Log(ctx context.Context, w io.Writer, _ string, _ bool) error {
	if _, err := io.WriteString(w, s.log); err != nil || s.hold == nil {
		return err
	}
	select {
	case <-s.hold:
	case <-ctx.Done():
	}
	return ctx.Err()
}

func (s *swarm) Order(_ context.Context, o control.Order) (control.OrderReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, o)
	return control.OrderReply{Verb: o.Verb, Scope: o.Scope, Name: o.Scope, Off: o.Off}, nil
}

func (s *swarm) Finalize(_ context.Context, r control.FinalizeRequest) (control.FinalizeReply, error) {
	return control.FinalizeReply{Target: r.Target, Released: true, Number: 8, Packages: 12}, nil
}

// terminal is a pseudo-terminal with a screen behind it.
type terminal struct {
	t      *testing.T
	tty    *os.File
	drawn  chan struct{}
	mu     sync.Mutex
	screen *vt.Emulator
	ended  chan error
}

// open runs the monitor on a terminal of a size.
func open(t *testing.T, d Daemon, width, height int) *terminal {
	t.Helper()
	if raced {
		t.Skip("bubbletea closes its reader while it reads")
	}
	t.Setenv("TERM", "xterm-256color")
	t.Setenv("LC_ALL", "C.UTF-8")
	ptm, tty, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	if err := pty.Setsize(ptm, &pty.Winsize{Rows: uint16(height), Cols: uint16(width)}); err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, tty: ptm, screen: vt.NewEmulator(width, height), drawn: make(chan struct{}, 1), ended: make(chan error, 1)}
	go func() { _, _ = io.Copy(ptm, x.screen) }() // what a terminal answers
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := ptm.Read(b)
			if err != nil {
				return
			}
			x.mu.Lock()
			_, _ = x.screen.Write(b[:n])
			x.mu.Unlock()
			select {
			case x.drawn <- struct{}{}:
			default:
			}
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(x.ended)
		x.ended <- Run(ctx, d, tty, tty)
	}()
	t.Cleanup(func() {
		cancel()
		for range x.ended { // it still writes to the terminal
		}
		_ = ptm.Close() // the other side stays: bubbletea does not say when its reader is gone
	})
	return x
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []string
	for _, l := range strings.Split(x.screen.String(), "\n") {
		out = append(out, strings.TrimRight(l, " \r"))
	}
	return strings.Join(out, "\n")
}

// until waits for a screen that matches.
func (x *terminal) until(pattern string) string {
	x.t.Helper()
	re := regexp.MustCompile(pattern)
	s, ok := x.wait(re.MatchString)
	if !ok {
		x.t.Fatalf("no screen matches %q; the last:\n%s", pattern, s)
	}
	return s
}

// wait waits for a screen that is as it should be; else it returns the last.
func (x *terminal) wait(good func(string) bool) (string, bool) {
	late := time.After(20 * time.Second)
	for {
		s := x.text()
		if good(s) {
			return s, true
		}
		select {
		case <-x.drawn:
		case <-late:
			return s, false
		}
	}
}

func (x *terminal) keys(s string) {
	x.t.Helper()
	if _, err := x.tty.WriteString(s); err != nil {
		x.t.Fatal(err)
	}
}

var clock = regexp.MustCompile(`\d\d:\d\d:\d\d(\n|$)`)

// recorded waits for the screen on file: it may be drawn in pieces. Recorded
// anew is what matches the pattern, half a second later.
func (x *terminal) recorded(name, pattern string) {
	x.t.Helper()
	path := filepath.Join("testdata", name+".txt")
	masked := func(s string) string {
		return strings.TrimRight(clock.ReplaceAllString(s, "HH:MM:SS$1"), "\n") + "\n"
	}
	if *update {
		x.until(pattern)
		settled := time.After(500 * time.Millisecond)
		<-settled
		if err := os.WriteFile(path, []byte(masked(x.text())), 0o644); err != nil {
			x.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		x.t.Fatal(err)
	}
	if s, ok := x.wait(func(s string) bool { return masked(s) == string(want) }); !ok {
		x.t.Errorf("%s (-want +got):\n%s", name, cmp.Diff(string(want), masked(s)))
	}
}

func TestEveryTabOnATerminal(t *testing.T) {
	time.Local = time.UTC
	for _, size := range [][2]int{{80, 24}, {200, 50}} {
		d := &swarm{Swarm: viewtest.New(viewtest.Options{Drones: 4, Jobs: 60})}
		x := open(t, d, size[0], size[1])
		for i, want := range []string{"PEER +STATE", "PACKAGE +STATE", "PACKAGE +PEER", "TARGET +RELEASE", "PEER +STATE +BLOBS", "nas joined"} {
			x.keys(fmt.Sprint(i + 1))
			x.recorded(fmt.Sprintf("%dx%d-%s", size[0], size[1], tabNames[i]), want)
		}
		x.keys("?")
		x.recorded(fmt.Sprintf("%dx%d-help", size[0], size[1]), "balance: what")
		x.keys("\x1b")
		x.until("nas joined")
		x.keys("q")
		if err := <-x.ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	}
}

func TestItStaysWhenTheDaemonDiesAndGoesOnWhenItIsBack(t *testing.T) {
	d := &swarm{Swarm: viewtest.New(viewtest.Options{Drones: 4, Jobs: 60})}
	x := open(t, d, 100, 30)
	x.until("PEER +STATE")
	d.die(true)
	s := x.until("no answer for .*no swarm daemon answers")
	if !strings.Contains(s, "desktop *") {
		t.Errorf("what was known is gone:\n%s", s)
	}
	d.die(false)
	x.until("NEXT ACTION")
}

func TestALogIsFollowedAndTheFirstErrorFound(t *testing.T) {
	log := ">>> Unpacking source...\nhello \x1b[31mred\x1b[0m\n>>> Compiling source in /x ...\n" + strings.Repeat("cc -c a.c\n", 100) +
		"a.c:1:2: error: no such thing\nmake: *** [all] Error 1\n" + strings.Repeat("after\n", 100)
	d := &swarm{Swarm: viewtest.New(viewtest.Options{Drones: 4, Jobs: 60}), log: log, hold: make(chan struct{})}
	x := open(t, d, 80, 24)
	x.keys("3")
	x.until("PACKAGE +PEER")
	x.keys("l")
	x.until("(?s)log of .*after")
	x.keys("e")
	x.recorded("log-error", "a.c:1:2: error")
	close(d.hold)
	x.keys("G")
	x.until("end of the log")
	x.keys("\x1b")
	x.until("PACKAGE +PEER")
}

func TestResetWantsTheTargetsNameTyped(t *testing.T) {
	d := &swarm{Swarm: viewtest.New(viewtest.Options{Drones: 4, Jobs: 60})}
	x := open(t, d, 80, 24)
	x.until("PEER +STATE")
	x.keys("R")
	x.until("Type its name")
	x.keys("laptop\r")
	x.until("laptop")
	x.keys("\x1b")
	x.until("nothing was done")
	if got := d.told(); len(got) != 0 {
		t.Fatalf("a wrong name ordered %v", got)
	}
	x.keys("R")
	x.until("Type its name")
	x.keys("desktop\r")
	x.until("starts afresh")
	if diff := cmp.Diff([]control.Order{{Verb: string(claims.VerbReset), Scope: "desktop"}}, d.told()); diff != "" {
		t.Error(diff)
	}
}

func TestPauseIsLiftedByTheSameKey(t *testing.T) {
	s := newState(time.UnixMilli(viewtest.Wall))
	s.takeAnswer(answer{snap: &view.Snapshot{Peers: []view.Peer{{ID: "a", Nick: "nas"}, {ID: "b", Nick: "vm", Ordered: true, Why: "pause by nas"}}}})
	if got := s.press("p", 10); cmp.Diff(askOrders{[]control.Order{{Verb: "pause", Scope: "a"}}}, got, cmp.AllowUnexported(askOrders{})) != "" {
		t.Errorf("p on a free peer asks %+v", got)
	}
	s.press("down", 10)
	want := askOrders{[]control.Order{{Verb: "pause", Scope: "b", Off: true}, {Verb: "drain", Scope: "b", Off: true}}}
	if diff := cmp.Diff(want, s.press("p", 10), cmp.AllowUnexported(askOrders{})); diff != "" {
		t.Error(diff)
	}
}

func TestTheFilterNarrowsAndTheCursorFollows(t *testing.T) {
	s := newState(time.UnixMilli(viewtest.Wall))
	s.takeAnswer(answer{snap: &view.Snapshot{}, jobs: []view.Job{{Key: "k1", CPV: "app-misc/jq-1"}, {Key: "k2", CPV: "dev-libs/oniguruma-6"}, {Key: "k3", CPV: "dev-libs/x-1"}}})
	s.press("2", 10)
	for _, k := range []string{"/", "D", "e", "v", "enter"} {
		s.press(k, 10)
	}
	if rows := s.table().rows; len(rows) != 2 || rows[0].key != "k2" {
		t.Fatalf("rows %v", rows)
	}
	if got := s.press("enter", 10); got != (askWhy{"k2"}) {
		t.Errorf("Enter asks %+v", got)
	}
	s.press("esc", 10)
	s.press("esc", 10)
	if n := len(s.table().rows); n != 3 {
		t.Errorf("%d rows after the filter is forgotten", n)
	}
}

func TestALateAnswerAboutAnotherJobIsNotShown(t *testing.T) {
	s := newState(time.UnixMilli(viewtest.Wall))
	s.takeAnswer(answer{snap: &view.Snapshot{}, jobs: []view.Job{{Key: "k1", CPV: "a/a-1"}, {Key: "k2", CPV: "b/b-1"}}})
	s.press("2", 10)
	s.press("enter", 10)
	s.takeWhy(view.Why{Key: "k2", Sentence: "of another"})
	if strings.Contains(s.screen(look{width: 80, height: 24}), "of another") {
		t.Error("the panel of k1 shows k2")
	}
}

// Whatever is typed on whatever terminal: as many lines as it has, none wider,
// nothing that steers it.
func TestNoKeysAndNoSizeBreakTheScreen(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	sw := &swarm{Swarm: viewtest.New(viewtest.Options{Drones: 30, Jobs: 300, Hostile: true})}
	snap, _ := sw.Status(t.Context())
	jobs, _ := sw.Jobs(t.Context(), "")
	events, _ := sw.Events(t.Context(), 0, 10)
	keys := []string{"1", "2", "3", "4", "5", "6", "tab", "down", "up", "pgdown", "pgup", "g", "G", "/", "a", "enter", "esc", "l", "w", "e", "b", "u", "r", "+", "p", "D", "F", "R", "y", "?", "space", "backspace", "left", "right"}
	for range 60 {
		s := newState(time.UnixMilli(viewtest.Wall))
		l := look{width: 20 + rng.IntN(200), height: 5 + rng.IntN(60), ascii: rng.IntN(2) == 0}
		for range 40 {
			switch rng.IntN(12) {
			case 0:
				s.takeAnswer(answer{snap: &snap, jobs: jobs, events: events.Events})
			case 1:
				s.takeTrouble(viewtest.Nasty)
			case 2:
				if s.panel != nil && s.panel.log != nil {
					s.panel.log.take(viewtest.Nasty + "\n>>> Compiling source\n" + strings.Repeat("x", 5000) + "\nerror: y\n")
				}
			}
			s.press(keys[rng.IntN(len(keys))], l.page())
			screen := s.screen(l)
			if l.width < leastWidth || l.height < leastHeight {
				continue
			}
			lines := strings.Split(screen, "\n")
			if len(lines) != l.height {
				t.Fatalf("%d lines on %dx%d", len(lines), l.width, l.height)
			}
			for _, line := range lines {
				if w := ansi.StringWidth(line); w > l.width {
					t.Fatalf("a line of %d columns on %d: %q", w, l.width, line)
				}
				for _, r := range ansi.Strip(line) {
					if r < 0x20 || r == 0x202e {
						t.Fatalf("%U on the screen: %q", r, line)
					}
					if l.ascii && strings.ContainsRune("█░▁▂▃▄▅▆▇▾▸", r) {
						t.Fatalf("%q on a terminal without Unicode", r)
					}
				}
			}
		}
	}
}

func TestALogOfManyLinesStaysBounded(t *testing.T) {
	l := newLogText()
	for range 30 {
		l.take(strings.Repeat("line\n", 5_000))
	}
	l.take(strings.Repeat("x", 10<<20))
	if n := len(l.rows()); n > logLines+10 {
		t.Errorf("%d rows are kept", n)
	}
	if l.part.Len() > lineBytes {
		t.Errorf("%d bytes of one line are kept", l.part.Len())
	}
	l.end(howEnded(errors.New("cut")))
	if rows := l.rows(); !strings.Contains(rows[len(rows)-1].line.text, "10.0 MiB more on this line") {
		t.Errorf("the last line is %.80q", rows[len(rows)-1].line.text)
	}
}

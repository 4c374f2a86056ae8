package emerge

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestOnlyPortagesThatHaveTheStreamAreAskedForIt(t *testing.T) {
	for version, want := range map[string]bool{"3.0.82": true, "3.0.82+": true, "3.0.83-5-g1234": true, "3.1": true, "3.0.81": false, "3.0.9": false, "2.3.103": false, "": false, "HEAD": false} {
		if p := (&Portage{Version: version}); p.observes() != want {
			t.Errorf("%q: %t", version, !want)
		}
	}
	env := []string{"A=b", "FEATURES=-sandbox"}
	if got := observing(env); got[1] != "FEATURES=-sandbox observability" || env[1] != "FEATURES=-sandbox" {
		t.Errorf("%q of %q", got, env)
	}
}

func TestTheLaterWordOnAPhaseCounts(t *testing.T) {
	var told []string
	c := &course{tell: func(p string) { told = append(told, p) }}
	at := time.Now().Add(time.Hour) // of a snapshot made after all that is logged
	for _, step := range []struct {
		say  func()
		want string
	}{
		{func() { c.logged("unpack") }, "unpack"},
		{func() { c.streamed("setup", c.since.Add(-time.Second)) }, "unpack"}, // on its way since before
		{func() { c.logged("compile") }, "compile"},                           // the package prints what it likes
		{func() { c.streamed("prepare", at) }, "prepare"},
		{func() { c.logged("unpack") }, "prepare"}, // the log does not go back any more
		{func() { c.logged("configure") }, "configure"},
		{func() { c.streamed("configure", at) }, "configure"},
		{func() { c.streamed("test", at) }, "test"},
		{func() { c.logged("package") }, "package"},
	} {
		step.say()
		if c.now != step.want {
			t.Errorf("after %v it is %s, want %s", told, c.now, step.want)
		}
	}
	if want := []string{"unpack", "compile", "prepare", "configure", "test", "package"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

func TestASnapshotSaysOnlyAPhase(t *testing.T) {
	line := func(kind string, schema int, cpv, phase string) string {
		return fmt.Sprintf(`{"type":%q,"schema":%d,"timestamp":1700000000.25,"tasks":[{"cpv":"x/other-1","kind":"build","phase":"test"},{"cpv":%q,"kind":"build","phase":%q}]}`, kind, schema, cpv, phase)
	}
	for text, want := range map[string]string{
		line("snapshot", 1, "x/y-1", "compile"): "compile", line("snapshot", 1, "x/y-1", "pretend"): "setup",
		line("snapshot", 1, "x/y-1", "merge-wait"): "", line("snapshot", 1, "x/y-1", "\x1b[31m"): "", line("snapshot", 2, "x/y-1", "compile"): "",
		line("event", 1, "x/y-1", "compile"): "", line("snapshot", 1, "x/y-10", "compile"): "", `{"type":"snapshot","schema":1,"timestamp":1e300,"tasks":[]}`: "",
		"": "", "[]": "", `{"tasks":7}`: "",
	} {
		phase, at := phaseIn([]byte(text), "x/y-1")
		if phase != want || want != "" && at.UnixMilli() != 1700000000250 {
			t.Errorf("%s: %q at %v, want %q", text, phase, at, want)
		}
	}
}

// FuzzSnapshots holds whatever a socket says to naming phases.
func FuzzSnapshots(f *testing.F) {
	f.Add(`{"type":"snapshot","schema":1,"timestamp":1.5,"tasks":[{"cpv":"x/y-1","kind":"build","phase":"compile"}]}`)
	f.Fuzz(func(t *testing.T, line string) {
		if phase, _ := phaseIn([]byte(line), "x/y-1"); phase != "" && !slices.Contains(ebuildPhases, phase) {
			t.Errorf("%q is no phase", phase)
		}
	})
}

// TestTheStreamIsFollowedFromRunToRun has sockets come and go, and some that are
// none of emerge's.
func TestTheStreamIsFollowedFromRunToRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30)) // longer than an address may be
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	elsewhere, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	lured := make(chan struct{}, 1)
	go func() {
		if c, err := elsewhere.Accept(); err == nil {
			lured <- struct{}{}
			_ = c.Close()
		}
	}()
	if err := os.Symlink(elsewhere.Addr().String(), filepath.Join(dir, "emerge-1.sock")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "emerge-2.sock"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { follow(ctx, dir, "x/y-1", func(p string, _ time.Time) { told <- p }) })
	for _, phase := range []string{"unpack", "compile"} {
		l := listenIn(t, dir, "emerge-77.sock")
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, `{"type":"snapshot","schema":1,"timestamp":1,"tasks":[{"cpv":"x/y-1","kind":"build","phase":%q}]}`+"\n", phase)
		if got := <-told; got != phase {
			t.Errorf("heard %q, want %q", got, phase)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("something was sent to emerge")
		}
		_ = c.Close()
		if c, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		// A line without end is no reason to hoard it.
		_, _ = c.Write(make([]byte, 2*maxSnapshot))
		_, _ = c.Read(make([]byte, 1)) // until it is closed
		_ = c.Close()
		_ = l.Close()
	}
	cancel()
	done.Wait()
	select {
	case <-lured:
		t.Error("a link to a socket elsewhere was followed")
	default:
	}
}

// listenIn listens on a socket of a directory with a long name.
func listenIn(t *testing.T, dir, name string) net.Listener {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	t.Cleanup(func() { _ = l.Close() })
	return unlinking{l, filepath.Join(dir, name)}
}

type unlinking struct {
	net.Listener
	path string
}

func (u unlinking) Close() error {
	err := u.Listener.Close()
	_ = os.Remove(u.path)
	return err
}

// TestRealPhasesComeFromTheStream builds a package that says nothing of its setup
// and tells a lie about its unpacking.
func TestRealPhasesComeFromTheStream(t *testing.T) {
	l := newLab(t)
	if !l.p.observes() {
		t.Skipf("SKIPPED: Portage %s has no stream", l.p.Version)
	}
	l.ebuild(t, "slow", "S=\"${WORKDIR}\"\npkg_setup() { sleep 3; }\nsrc_unpack() { echo '>>> Compiling source in /nowhere ...'; sleep 5; }\nsrc_compile() { sleep 1; }\nsrc_install() { insinto /usr/share; newins - slow <<<x; }\n")
	plan := l.plan(t, "sw-hostile/slow")
	req := request(t, plan.Jobs[0], l.files)
	req.Base = l.ref
	type moment struct {
		phase string
		at    time.Time
	}
	var course []moment
	req.Phase = func(p string) { course = append(course, moment{p, time.Now()}) }
	if _, err := l.roots.Build(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	took := map[string]time.Duration{}
	var names []string
	for i, m := range course {
		names = append(names, m.phase)
		if i+1 < len(course) {
			took[m.phase] += course[i+1].at.Sub(m.at)
		}
	}
	t.Logf("%v: %v", names, took)
	if !slices.Contains(names, "setup") {
		t.Error("the stream was not heard: nobody told of pkg_setup")
	}
	if took["unpack"] < 2*time.Second || took["unpack"] < took["compile"] {
		t.Errorf("the package's lie about its phase stood: %v", took)
	}
}

package watch

import (
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/guest"
)

// machine is an emulated one: sysfs, procfs and input devices in a directory,
// and, where there is a dbus-daemon, a logind and a NetworkManager on a bus of
// its own.
type machine struct {
	t     testing.TB
	root  string
	bus   string
	conn  *dbus.Conn
	props *prop.Properties
	sess  *prop.Properties
	input *os.File

	mu         sync.Mutex
	inhibitors []inhibitor
	delays     []*os.File // our ends of the delay locks
}

type inhibitor struct {
	What, Who, Why, Mode string
	UID, PID             uint32
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text+"\n"), 0o644)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// newLaptop is on AC, cool, and has one keyboard.
func newLaptop(t testing.TB) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir()}
	for path, text := range map[string]string{
		"sys/class/power_supply/BAT0/type": "Battery", "sys/class/power_supply/BAT0/status": "Full", "sys/class/power_supply/BAT0/capacity": "91",
		"sys/class/power_supply/AC/type": "Mains", "sys/class/power_supply/AC/online": "1",
		"sys/class/power_supply/mouse/type": "Battery", "sys/class/power_supply/mouse/scope": "Device", "sys/class/power_supply/mouse/capacity": "3",
		"sys/class/thermal/thermal_zone0/type": "x86_pkg_temp", "sys/class/thermal/thermal_zone0/temp": "45000",
		"sys/class/thermal/thermal_zone0/trip_point_0_type": "critical", "sys/class/thermal/thermal_zone0/trip_point_0_temp": "100000",
		"proc/acpi/button/lid/LID/state": "state:      open", "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 9000000 kB",
		"proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0",
		"proc/stat":            "cpu  1 0 0 1 0 0 0 0\ncpu0 1 0 0 1 0 0 0 0",
	} {
		m.write(path, text)
	}
	path := filepath.Join(m.root, "dev/input/event0")
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = syscall.Mkfifo(path, 0o600)
	}
	if err == nil {
		m.input, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.input.Close() })
	return m
}

// press is a key.
func (m *machine) press() {
	m.t.Helper()
	event := make([]byte, eventSize)
	binary.NativeEndian.PutUint16(event[eventSize-8:], 1)
	if _, err := m.input.Write(event); err != nil {
		m.t.Fatal(err)
	}
}

// withBus starts a bus with logind and NetworkManager on it, or skips.
func (m *machine) withBus() {
	m.t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		m.t.Skip("no dbus-daemon here")
	}
	conf := filepath.Join(m.root, "bus.conf")
	socket := filepath.Join(m.t.TempDir(), "bus")
	m.write("bus.conf", `<busconfig><type>system</type><listen>unix:path=`+socket+`</listen><policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "--config-file="+conf, "--nofork", "--nopidfile", "--print-address=1")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	line := make([]byte, 512)
	if _, err := out.Read(line); err != nil { // it speaks when it listens
		m.t.Fatal(err)
	}
	m.bus = "unix:path=" + socket
	if m.conn, err = dbus.Connect(m.bus); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = m.conn.Close() })
	value := func(v any) *prop.Prop { return &prop.Prop{Value: v, Writable: true, Emit: prop.EmitTrue} }
	const sessionPath = dbus.ObjectPath("/org/freedesktop/login1/session/_1")
	m.props, err = prop.Export(m.conn, loginPath, prop.Map{manager: {"LidClosed": value(false), "Docked": value(false), "PreparingForSleep": value(false)}})
	if err == nil {
		m.sess, err = prop.Export(m.conn, sessionPath, prop.Map{login + ".Session": {"Class": value("user"), "State": value("active"), "IdleHint": value(true),
			"IdleSinceHint": value(uint64(time.Now().Add(-time.Hour).UnixMicro()))}})
	}
	if err == nil {
		err = m.conn.Export(m, loginPath, manager)
	}
	if err == nil {
		_, err = prop.Export(m.conn, netPath, prop.Map{network: {"Metered": value(uint32(2))}})
	}
	for _, name := range []string{login, network} {
		if err == nil {
			_, err = m.conn.RequestName(name, 0)
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// ListSessions, ListInhibitors and Inhibit are logind's.
func (m *machine) ListSessions() ([]session, *dbus.Error) {
	return []session{{"1", 1000, "somebody", "seat0", "/org/freedesktop/login1/session/_1"}}, nil
}

func (m *machine) ListInhibitors() ([]inhibitor, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]inhibitor{}, m.inhibitors...), nil
}

func (m *machine) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delays = append(m.delays, r)
	m.t.Cleanup(func() { _ = r.Close() })
	fd := w.Fd()
	// The reply carries a copy; this one goes when that is on its way.
	time.AfterFunc(200*time.Millisecond, func() { _ = w.Close() })
	return dbus.UnixFD(fd), nil
}

// set changes a property of logind's, which tells those who listen.
func (m *machine) set(p *prop.Properties, iface, name string, v any) { p.SetMust(iface, name, v) }

// fake is a drone with builds that only note what happens to them.
type fake struct {
	mu      sync.Mutex
	builds  []guest.Build
	level   guest.Level
	held    string
	at      map[guest.Level]time.Time // when each level came last
	back    []string
	changed chan struct{}
}

func newFake(builds ...guest.Build) *fake {
	return &fake{builds: builds, at: map[guest.Level]time.Time{}, changed: make(chan struct{}, 1)}
}

func (f *fake) Builds(context.Context) []guest.Build {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.builds)
}

func (f *fake) SetHeld(why string) { f.note(func() { f.held = why }) }

func (f *fake) Restrain(guest.Level, map[build.Key]int64, int64) {}

func (f *fake) Return(k build.Key, reason string) {
	f.note(func() {
		f.back = append(f.back, reason)
		f.builds = slices.DeleteFunc(f.builds, func(b guest.Build) bool { return b.Key == k })
	})
}

func (f *fake) setLevel(l guest.Level) error {
	f.note(func() {
		f.level = l
		f.at[l] = time.Now()
	})
	return nil
}

func (f *fake) now() guest.Level {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.level
}

func (f *fake) note(do func()) {
	f.mu.Lock()
	do()
	f.mu.Unlock()
	f.poke()
}

// poke has until look again.
func (f *fake) poke() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// until waits until something is so.
func (f *fake) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		f.mu.Lock()
		good := ok()
		f.mu.Unlock()
		if good {
			return
		}
		select {
		case <-f.changed:
		case <-late:
			t.Fatalf("never: %s (level %v, held %q)", what, f.level, f.held)
		}
	}
}

func (f *fake) is(l guest.Level, why string) func() bool {
	return func() bool { return f.level == l && (why == "") == (f.held == "") && strings.Contains(f.held, why) }
}

// idleAfter is longer than it takes to freeze.
const idleAfter = 1500 * time.Millisecond

// start runs a watch on the machine until the test ends.
func (m *machine) start(f *fake, change func(*Config)) *Watch {
	began := time.Now()
	cfg := Config{Root: m.root, Bus: m.bus, Drone: f, SetLevel: f.setLevel, Policy: guest.Policy{IdleAfter: idleAfter.Milliseconds()},
		Boot: func() int64 { return 1_000 + time.Since(began).Milliseconds() }, Log: slog.New(slog.DiscardHandler)}
	if m.bus == "" {
		cfg.Bus = "unix:path=/nonexistent"
	}
	if change != nil {
		change(&cfg)
	}
	w := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	m.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			m.t.Error(err)
		}
	})
	w.Report(ctx) // the first step is made
	return w
}

// The three times that count, on an emulated laptop with a key pressed on its
// keyboard. They are reported, not judged: BenchmarkInput prints them.
func TestAKeyShrinksThenFreezesAndQuietLetsBuildsGoOn(t *testing.T) {
	m, f := newLaptop(t), newFake(guest.Build{Key: "k", InvestedMS: 1})
	m.start(f, nil)
	f.until(t, "idle", f.is(guest.Full, ""))
	pressed := time.Now()
	m.press()
	f.until(t, "frozen", f.is(guest.Frozen, "somebody uses it"))
	f.until(t, "goes on", f.is(guest.Full, ""))
	t.Logf("shrunk after %v, frozen after %v, on again after %v", f.at[guest.Shrunk].Sub(pressed), f.at[guest.Frozen].Sub(pressed), f.at[guest.Full].Sub(pressed))
	if !f.at[guest.Shrunk].Before(f.at[guest.Frozen]) || f.at[guest.Shrunk].Before(pressed) {
		t.Error("it is not shrunk before it is frozen")
	}
}

func TestEachSensorIsHeard(t *testing.T) {
	m := newLaptop(t)
	m.withBus()
	f := newFake(guest.Build{Key: "k", InvestedMS: 1})
	m.start(f, func(c *Config) { c.Policy.IdleAfter = 1 })
	f.until(t, "idle", f.is(guest.Full, ""))
	for _, c := range []struct {
		what     string
		on, off  func()
		level    guest.Level
		sentence string
	}{
		{"battery", func() { m.write("sys/class/power_supply/AC/online", "0") }, func() { m.write("sys/class/power_supply/AC/online", "1") }, guest.Frozen, "battery (91 %)"},
		{"heat", func() { m.write("sys/class/thermal/thermal_zone0/temp", "97000") }, func() { m.write("sys/class/thermal/thermal_zone0/temp", "45000") }, guest.Frozen, "x86_pkg_temp has 97 °C"},
		{"lid", func() { m.set(m.props, manager, "LidClosed", true) }, func() { m.set(m.props, manager, "LidClosed", false) }, guest.Frozen, "lid"},
		{"film", func() { m.film(true) }, func() { m.film(false) }, guest.Frozen, "mpv (playing)"},
	} {
		c.on()
		f.until(t, c.what, f.is(c.level, c.sentence))
		c.off()
		f.until(t, c.what+" over", f.is(guest.Full, ""))
	}
}

func (m *machine) film(on bool) {
	m.mu.Lock()
	m.inhibitors = nil
	if on {
		m.inhibitors = []inhibitor{{"sleep", "NetworkManager", "x", "delay", 0, 1}, {"idle:sleep", "mpv", "playing", "block", 1000, 2}}
	}
	m.mu.Unlock()
	m.set(m.props, manager, "Docked", on) // some change that is told of
}

func TestWithoutInputDevicesTheDesktopsOwnWordCounts(t *testing.T) {
	m := newLaptop(t)
	if err := os.Remove(filepath.Join(m.root, "dev/input/event0")); err != nil {
		t.Fatal(err)
	}
	m.withBus()
	f := newFake()
	m.start(f, nil)
	f.until(t, "idle for an hour", f.is(guest.Full, ""))
	m.set(m.sess, login+".Session", "IdleHint", false)
	f.until(t, "in use", f.is(guest.Frozen, "somebody uses it"))
}

func TestWithNothingToTellFromALaptopDoesNotBuildAndSaysWhatIsMissing(t *testing.T) {
	m := newLaptop(t)
	if err := os.Remove(filepath.Join(m.root, "dev/input/event0")); err != nil {
		t.Fatal(err)
	}
	f := newFake()
	w := m.start(f, nil)
	f.until(t, "held", f.is(guest.Frozen, "nobody can tell"))
	if r := w.Report(t.Context()); r.May || len(r.Lacks) != 1 || !strings.Contains(r.Lacks[0], "no logind") {
		t.Errorf("%+v", r)
	}
}

func TestAMachineSleepsOnlyWhenItsBuildsAreFrozenAndOthersKnow(t *testing.T) {
	m := newLaptop(t)
	m.withBus()
	f := newFake(guest.Build{Key: "k", InvestedMS: 1})
	told := make(chan guest.Level, 16)
	m.start(f, func(c *Config) {
		c.Policy.IdleAfter = 1
		c.Tell = func(context.Context) { told <- f.now() }
	})
	f.until(t, "idle", f.is(guest.Full, ""))
	m.mu.Lock()
	lock := m.delays[0]
	m.mu.Unlock()
	if err := m.conn.Emit(loginPath, manager+".PrepareForSleep", true); err != nil {
		t.Fatal(err)
	}
	// The other end is closed when this daemon has nothing against it any more.
	if _, err := lock.Read(make([]byte, 1)); err == nil {
		t.Fatal("the lock speaks")
	}
	if f.now() != guest.Frozen || f.held != "this machine is about to sleep" {
		t.Errorf("level %v, held %q", f.level, f.held)
	}
	for l := range told {
		if l == guest.Frozen {
			break
		}
	}
	if err := m.conn.Emit(loginPath, manager+".PrepareForSleep", false); err != nil {
		t.Fatal(err)
	}
	f.until(t, "awake", f.is(guest.Full, ""))
	f.until(t, "the next sleep is delayed, too", func() bool {
		f.poke() // logind's side tells nobody: look again
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.delays) > 1
	})
}

func TestAPauseIsRememberedOverRestarts(t *testing.T) {
	m := newLaptop(t)
	state := filepath.Join(m.root, "guest.json")
	set := func(c *Config) { c.State, c.Policy.When = state, guest.Always }
	f := newFake()
	w := m.start(f, set)
	if err := w.Pause(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	f.until(t, "paused", f.is(guest.Frozen, "paused here for 1 h 0 min more"))
	again := newFake()
	w = m.start(again, set)
	again.until(t, "still paused", again.is(guest.Frozen, "paused here"))
	if err := w.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	again.until(t, "resumed", again.is(guest.Full, ""))
}

func TestLoadOfOthersIsWhatBuildsDoNotUse(t *testing.T) {
	m := newLaptop(t)
	w := New(Config{Root: m.root, Boot: func() int64 { return 1 }, Log: slog.New(slog.DiscardHandler)})
	var builds time.Duration
	w.cfg.CPU = func() time.Duration { return builds }
	var r guest.Reading
	w.load(&r)
	if r.OthersPercent != guest.Unknown {
		t.Errorf("after one look: %d %%", r.OthersPercent)
	}
	// Two seconds of one core, of which builds had one.
	w.sample.at = w.sample.at.Add(-2 * time.Second)
	m.write("proc/stat", "cpu  201 0 0 1 0 0 0 0\ncpu0 201 0 0 1 0 0 0 0")
	builds = time.Second
	w.load(&r)
	if r.OthersPercent < 45 || r.OthersPercent > 50 {
		t.Errorf("%d %%, want about 50", r.OthersPercent)
	}
}

func TestAMouseWithABatteryMakesNoLaptop(t *testing.T) {
	m := newLaptop(t)
	if err := os.RemoveAll(filepath.Join(m.root, "sys/class/power_supply/BAT0")); err != nil {
		t.Fatal(err)
	}
	var r guest.Reading
	files{m.root}.power(&r)
	if r.HasBattery || r.OnBattery {
		t.Errorf("%+v", r)
	}
}

// BenchmarkInput measures, on an emulated laptop, from a key to shrunk, to
// frozen, and from the end of the idle time to building again, in milliseconds:
// the worst of all rounds.
func BenchmarkInput(b *testing.B) {
	m, f := newLaptop(b), newFake(guest.Build{Key: "k", InvestedMS: 1})
	m.start(f, nil)
	f.until(b, "idle", f.is(guest.Full, ""))
	var worst [3]time.Duration
	for b.Loop() {
		pressed := time.Now()
		m.press()
		f.until(b, "frozen", f.is(guest.Frozen, "somebody"))
		f.until(b, "goes on", f.is(guest.Full, ""))
		for i, d := range []time.Duration{f.at[guest.Shrunk].Sub(pressed), f.at[guest.Frozen].Sub(pressed), f.at[guest.Full].Sub(pressed) - idleAfter} {
			worst[i] = max(worst[i], d)
		}
	}
	for i, name := range []string{"shrunk-ms", "frozen-ms", "on-again-ms"} {
		b.ReportMetric(float64(worst[i].Microseconds())/1000, name)
	}
}

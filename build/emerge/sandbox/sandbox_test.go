package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if code, hidden := Main(os.Args, map[string]Op{"remove": func(_ context.Context, arg string, _ io.Reader, _ io.Writer) error { return os.RemoveAll(arg) }}); hidden {
		os.Exit(code)
	}
	if dir := os.Getenv("SWARM_TEST_CALLER"); dir != "" {
		// A caller that will be killed.
		_, err := Run(context.Background(), shell(dir, "setsid sh -c 'touch /tmp/up; while :; do sleep 1; done' & wait"), Streams{Out: os.Stdout})
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// shell is a sandbox on the machine's own root, below dir.
func shell(dir, script string) Spec {
	for _, d := range []string{"upper", "mnt", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return Spec{}
		}
	}
	work, err := os.MkdirTemp(dir, "work-")
	if err != nil {
		return Spec{}
	}
	lower, binds := "/", []Bind{}
	if os.Geteuid() != 0 { // an ordinary user's overlay takes no root that others are mounted in
		lower, binds = filepath.Join(dir, "lower"), []Bind{{Source: "/usr", Target: "/usr"}}
		if os.MkdirAll(filepath.Join(lower, "etc"), 0o755) != nil || os.WriteFile(filepath.Join(lower, "etc/hostname"), nil, 0o644) != nil {
			return Spec{}
		}
		for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
			if err := os.Symlink("usr/"+d, filepath.Join(lower, d)); err != nil && !errors.Is(err, os.ErrExist) {
				return Spec{}
			}
		}
	}
	return Spec{
		Lower: []string{lower}, Upper: filepath.Join(dir, "upper"), Work: work, Mount: filepath.Join(dir, "mnt"),
		Binds: append(binds, Bind{Source: filepath.Join(dir, "tmp"), Target: "/tmp", Write: true}),
		Args:  []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
	}
}

// sandboxed runs a script, or skips the test where there can be no sandbox.
func sandboxed(t *testing.T, change func(*Spec), script string) (Result, string) {
	t.Helper()
	dir := place(t)
	s := shell(dir, script)
	if change != nil {
		change(&s)
	}
	res, out, err := Output(t.Context(), s, nil, 1<<20)
	if errors.Is(err, ErrSetup) {
		t.Skipf("SKIPPED, NO SANDBOXES HERE: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return res, string(out)
}

// place is a directory that the test removes with the ids of sandboxes.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "swarm-sandbox-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			if err = Do(context.Background(), "remove", dir, nil, nil); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}

func TestWhatAProgramChangesStaysInItsRoot(t *testing.T) {
	dir := ""
	res, out := sandboxed(t, func(s *Spec) { dir = filepath.Dir(s.Upper) },
		"echo hello > /etc/swarm-was-here; mkdir -p /opt/swarm; rm -f /etc/hostname; echo tmp > /tmp/x; uname -n; id -u; chown 250:250 /opt/swarm && stat -c %u /opt/swarm")
	if res.Exit != 0 || out != "swarm\n0\n250\n" {
		t.Errorf("exit %d, said %q", res.Exit, out)
	}
	if _, err := os.Stat("/etc/swarm-was-here"); err == nil {
		t.Error("it wrote into the machine's own root")
	}
	if _, err := os.Stat("/etc/hostname"); err != nil {
		t.Error("it removed a file of the machine's own root")
	}
	if b, err := os.ReadFile(filepath.Join(dir, "upper/etc/swarm-was-here")); err != nil || string(b) != "hello\n" {
		t.Errorf("the upper directory has %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "tmp/x")); err != nil || string(b) != "tmp\n" {
		t.Errorf("the bound directory has %q, %v", b, err)
	}
}

func TestAProgramIsContained(t *testing.T) {
	var script strings.Builder
	attempts := []struct{ name, script string }{
		{"mount", "mount -t tmpfs x /mnt"},
		{"unmount", "umount /proc/sys"},
		{"kernel settings", "echo 1 > /proc/sys/kernel/panic"},
		{"magic keys", "echo h > /proc/sysrq-trigger"},
		{"make a device", "mknod /tmp/sda b 8 0"},
		{"raw devices", "ls /dev/sd* /dev/vd* /dev/mem /dev/kmsg"},
		{"other processes", "test -e /proc/" + pidText() + "/stat"},
		{"init", "kill -9 1; ls -l /proc/1/exe /proc/1/fd/0"},
		{"network", "exec 3<>/dev/tcp/127.0.0.1/22 || cat < /dev/null > /dev/udp/192.0.2.1/9"},
		{"new rights", "grep -q 'NoNewPrivs:.*0' /proc/self/status"},
		{"root from outside", "ls /proc/1/root/etc"},
		{"clock", "date -s 2001-01-01"},
		{"host name", "hostname other"},
		{"nothing", "true"}, // the one that is allowed: the test can fail
	}
	for _, a := range attempts {
		script.WriteString("( " + a.script + " ) >/dev/null 2>&1 && echo '" + a.name + "'\n")
	}
	_, out := sandboxed(t, func(s *Spec) { s.Args[0] = "/bin/bash" }, script.String()+"true")
	if out != "nothing\n" {
		t.Errorf("it could: %s", out)
	}
}

func pidText() string { return strings.TrimPrefix(must(os.Readlink("/proc/self")), "/proc/") }

func must(s string, err error) string {
	if err != nil {
		return "1"
	}
	return s
}

func TestWhatIsLeftRunningIsToldAndEnded(t *testing.T) {
	res, out := sandboxed(t, nil, "setsid sleep 1000 >/dev/null 2>&1 & echo done")
	if res.Exit != 0 || out != "done\n" || !slices.Equal(res.Left, []string{"sleep"}) {
		t.Errorf("exit %d, %q, left %v", res.Exit, out, res.Left)
	}
}

func TestItCostsWhatItCosts(t *testing.T) {
	res, _ := sandboxed(t, nil, "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	if res.CPU < 20*time.Millisecond || res.CPU > time.Minute || res.PeakMiB <= 0 {
		t.Errorf("%v of CPU, %d MiB", res.CPU, res.PeakMiB)
	}
	t.Logf("%+v", res)
}

func TestForkingWithoutEndEnds(t *testing.T) {
	res, out := sandboxed(t, func(s *Spec) { s.Limits.Processes = 400 },
		"i=0; while sleep 1000 & do i=$((i+1)); if [ $i -gt 5000 ]; then echo free; exit 0; fi; done")
	if strings.Contains(out, "free") || res.Exit == 0 {
		t.Errorf("exit %d: %.300s", res.Exit, out)
	}
	t.Logf("%.200s left %v", out, res.Left)
}

func TestCancelEndsWhatIgnoresIt(t *testing.T) {
	sandboxed(t, nil, "true") // or skips
	dir := place(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &firstWrite{do: cancel}
	_, err := Run(ctx, shell(dir, "trap '' TERM INT; setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" & echo up; while :; do sleep 1; done"), Streams{Out: w})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := using(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

type firstWrite struct {
	do  func()
	buf bytes.Buffer
}

func (w *firstWrite) Write(b []byte) (int, error) {
	w.do()
	return w.buf.Write(b)
}

// TestNothingIsLeftOfACallerThatWasKilled kills a caller by SIGKILL in the
// middle of a run.
func TestNothingIsLeftOfACallerThatWasKilled(t *testing.T) {
	sandboxed(t, nil, "true") // or skips
	dir := place(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "SWARM_TEST_CALLER="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the program runs", func() bool { _, err := os.Stat(filepath.Join(dir, "tmp/up")); return err == nil })
	if len(using(t, dir)) == 0 {
		t.Error("no process was found while there is one: the test cannot see them")
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	until(t, "every process is gone", func() bool { return len(using(t, dir)) == 0 })
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(b), dir) {
		t.Errorf("mounts are left: %v", err)
	}
}

// until waits for what the kernel does in its own time.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
		timer := time.NewTimer(5 * time.Millisecond)
		<-timer.C
	}
}

// using lists the processes that have a mount below dir.
func using(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range all {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), filepath.Base(dir)) {
			out = append(out, f)
		}
	}
	return out
}

func TestASandboxThatCannotBeSaysWhy(t *testing.T) {
	sandboxed(t, nil, "true") // or skips
	dir := place(t)
	s := shell(dir, "true")
	s.Lower = []string{filepath.Join(dir, "absent")}
	_, err := Run(t.Context(), s, Streams{})
	if !errors.Is(err, ErrSetup) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("got %v", err)
	}
	s = shell(dir, "true")
	s.Args[0] = "/no/such/program"
	if _, err = Run(t.Context(), s, Streams{}); !errors.Is(err, ErrSetup) || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("got %v", err)
	}
	s.Mount = "relative"
	if _, err = Run(t.Context(), s, Streams{}); !errors.Is(err, ErrSetup) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkRun(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		if _, err := Run(b.Context(), shell(dir, "true"), Streams{}); err != nil {
			b.Skip(err)
		}
	}
}

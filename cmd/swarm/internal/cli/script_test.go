package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/emerge/emergetest"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/daemon"
	"github.com/build-swarm/swarm/cmd/swarm/internal/node"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// TestMain makes this test binary be `swarm` where a script, or a test that
// wants real processes, runs it under that name.
func TestMain(m *testing.M) {
	if emergetest.IsEmerge() { // see the command emulate
		emergetest.Exit(emergetest.Main())
	}
	testscript.Main(m, map[string]func(){
		"swarm": func() { os.Exit(Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) },
		// What a daemon starts to look whether builds can be isolated.
		"swarm-sandbox": func() { os.Exit(Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) },
		"bare":          func() { os.Exit(bare()) },
		"sensed": func() {
			e := &env{in: os.Stdin, out: render.To(os.Stdout), err: os.Stderr, adjust: feel}
			os.Exit(e.run(os.Args, os.Stdin, os.Stdout, os.Stderr))
		},
		// A swarm whose builds wait for the test: see gatedBuilder.
		"gated": func() {
			e := &env{in: os.Stdin, out: render.To(os.Stdout), err: os.Stderr, adjust: gateBuilders}
			os.Exit(e.run(os.Args, os.Stdin, os.Stdout, os.Stderr))
		},
		// A swarm with the laboratory's ebuilds, and a machine that wants some of all:
		// see layOutLab.
		"lab": func() {
			e := &env{in: os.Stdin, out: render.To(os.Stdout), err: os.Stderr, adjust: layOutLab}
			os.Exit(e.run(os.Args, os.Stdin, os.Stdout, os.Stderr))
		},
		// A swarm that tells of trouble at once: see TestAlertsThroughRealDaemons.
		"hasty": func() {
			e := &env{in: os.Stdin, out: render.To(os.Stdout), err: os.Stderr, adjust: func(cfg *node.Config) { cfg.Alerts.Grace = hastyGrace }}
			os.Exit(e.run(os.Args, os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// layOutLab lets a peer plan and build with the emerge in EMERGE for the directory
// LAB, in Prefixes there: the sample ebuilds and those of the laboratory, and a world
// that wants some of all.
func layOutLab(cfg *node.Config) {
	dir := os.Getenv("LAB")
	c, err := emerge.DemoConfig(dir)
	at := func(name string) string { return filepath.Join(dir, "repos", name) }
	if err == nil {
		err = errors.Join(emergetest.WriteLab(at("swarm-lab")), emerge.WriteConfig(dir, []emerge.Repository{
			{Name: "swarm-demo", Path: at("swarm-demo")}, {Name: "swarm-lab", Path: at("swarm-lab")},
		}), os.WriteFile(filepath.Join(dir, "var/lib/portage/world"), []byte(emergetest.ChainWorld), 0o644))
	}
	c.Emerge = os.Getenv("EMERGE")
	var p *emerge.Portage
	if err == nil {
		p, err = emerge.Detect(context.Background(), c)
	}
	if err != nil {
		panic(fmt.Sprintf("lay out the laboratory: %v", err))
	}
	planner := daemon.PortagePlanner{Portage: p, Target: "desktop", Snapshots: &daemon.Snapshots{Shelf: cfg.Ground.Shelf}}
	cfg.Builders, cfg.Pool = map[build.Builder]worker.Builder{build.BuilderPortage: emerge.NewBuilder(p, cfg.Log)}, nil
	cfg.Planners, cfg.Default, cfg.Ground.Own = map[build.Builder]daemon.Planner{build.BuilderPortage: planner}, build.BuilderPortage, p
}

func gateBuilders(cfg *node.Config) {
	for name, b := range cfg.Builders {
		cfg.Builders[name] = gatedBuilder{b, os.Getenv("GATE")}
	}
}

// patience bounds every wait of a script; nothing is measured by it.
const testPatience = 30 * time.Second

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			// Without a compiler on PATH every machine runs the same test, and
			// a daemon starts at once. The samples that are scripts want
			// /bin/sh alone.
			bin, _, _ := strings.Cut(env.Getenv("PATH"), string(os.PathListSeparator))
			env.Setenv("PATH", bin)
			env.Setenv("HOME", env.WorkDir)
			for _, name := range []string{"XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"} {
				env.Setenv(name, filepath.Join(env.WorkDir, strings.ToLower(name)))
			}
			// No daemon of a script opens a fixed port or speaks to the network.
			for name, value := range map[string]string{
				"CONFIG": os.DevNull, "LISTEN": "/ip4/127.0.0.1/tcp/0", "GATEWAY": "127.0.0.1:0", "DIRECT": "127.0.0.1:0",
				"MDNS": "false", "DHT": "false", "BUILDER": "sample", "JOBS": "1", "KEEP_BUILDS": "0",
			} {
				env.Setenv("SWARM_"+name, value)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": cmdDaemon, "until": cmdUntil, "untilone": cmdUntilOne, "nonull": cmdNoNull, "info": cmdInfo, "exits": cmdExits, "get": cmdGet, "newer": cmdNewer, "damage": cmdDamage, "flip": cmdFlip, "gone": cmdGone, "copytree": cmdCopyTree, "terminate": cmdTerminate, "reload": cmdReload, "empty": cmdEmpty, "listenaddr": cmdListenAddr, "emulate": cmdEmulate,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

// emulate DIR puts a program emerge into a directory, which replays recorded
// runs of the real one.
func cmdEmulate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: emulate DIR")
	}
	self, err := os.Executable()
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.Symlink(self, filepath.Join(dir, "emerge")))
}

// daemon SOCKET waits until the daemon behind a socket answers.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: daemon SOCKET...")
	}
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	for _, s := range args {
		client := control.NewClient(ts.MkAbs(s))
		err := poll(ctx, func() error {
			_, err := client.Info(ctx)
			return err
		})
		if err != nil {
			ts.Fatalf("no daemon on %s: %v", s, err)
		}
	}
}

// gone SOCKET waits until nobody answers behind a socket.
func cmdGone(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	ts.Check(poll(ctx, func() error {
		if _, err := control.NewClient(ts.MkAbs(args[0])).Info(ctx); err == nil {
			return fmt.Errorf("%s still answers", args[0])
		}
		return nil
	}))
}

// poll calls f until it returns nil or ctx has ended.
func poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// until PATTERN COMMAND... runs a command again and again until its stdout
// matches, and leaves that in the file "got".
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND [ARG...]")
	}
	re, err := regexp.Compile(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	last := ""
	err = poll(ctx, func() error {
		out, stderr, _ := runIn(ctx, ts, nil, args[1:])
		if ctx.Err() == nil {
			last = out + stderr
		}
		if re.MatchString(out) {
			return os.WriteFile(ts.MkAbs("got"), []byte(out), 0o644)
		}
		return fmt.Errorf("no match")
	})
	if err != nil {
		ts.Fatalf("%s: %v for %q; last:\n%s", strings.Join(args[1:], " "), err, args[0], last)
	}
}

// untilone PATTERN SOCKET... waits until the status of one of several daemons
// matches, and leaves that in the file "got".
func cmdUntilOne(ts *testscript.TestScript, neg bool, args []string) {
	re, err := regexp.Compile(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	ts.Check(poll(ctx, func() error {
		all := ""
		for _, socket := range args[1:] {
			out, _, _ := runIn(ctx, ts, nil, []string{"swarm", "status", "--socket", socket})
			if re.MatchString(out) {
				return os.WriteFile(ts.MkAbs("got"), []byte(out), 0o644)
			}
			all += out
		}
		return fmt.Errorf("no match for %q in:\n%s", args[0], all)
	}))
}

// runIn runs a command of the script's PATH, in its environment.
func runIn(ctx context.Context, ts *testscript.TestScript, stdin io.Reader, args []string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(ts.Getenv("PATH"), args[0]), args[1:]...)
	cmd.Dir, cmd.Stdin = ts.MkAbs("."), stdin
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "SWARM_CONFIG",
		"SWARM_LISTEN", "SWARM_GATEWAY", "SWARM_MDNS", "SWARM_DHT", "SWARM_BUILDER", "SWARM_JOBS", "SWARM_TARGET"} {
		if ts.Getenv(name) == "" {
			continue
		}
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// get URL FILE [TEXT] downloads, until the answer is 200 and has the text (with
// !TEXT: has it not).
func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: get URL FILE [TEXT | !TEXT]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	ts.Check(poll(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s answers %s", args[0], res.Status)
		}
		if err == nil && len(args) == 3 {
			text, without := strings.CutPrefix(args[2], "!")
			if bytes.Contains(b, []byte(text)) == without {
				err = fmt.Errorf("%s: %s is not so", args[0], args[2])
			}
		}
		if err != nil {
			return err
		}
		return os.WriteFile(ts.MkAbs(args[1]), b, 0o644)
	}))
}

// newer OLD NEW checks that one index has a later TIMESTAMP than another.
func cmdNewer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: newer OLD NEW")
	}
	var stamps [2]int64
	for i, name := range args {
		_, rest, _ := strings.Cut(ts.ReadFile(name), "\nTIMESTAMP: ")
		line, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.ParseInt(line, 10, 64)
		ts.Check(err)
		stamps[i] = n
	}
	if stamps[1] <= stamps[0] {
		ts.Fatalf("%s is of %d, %s of %d", args[0], stamps[0], args[1], stamps[1])
	}
}

// damage FILE makes bad copies of a join code: short, typo, and loud (which is
// still good).
func cmdDamage(ts *testscript.TestScript, neg bool, args []string) {
	code := strings.TrimSpace(ts.ReadFile(args[0]))
	typo := []byte(code)
	if typo[40]++; typo[40] == 'z'+1 || typo[40] == '8' {
		typo[40] -= 2
	}
	loud := strings.ToUpper(code[:30] + "\n  " + code[30:])
	for name, text := range map[string]string{"short": code[:len(code)-9], "typo": string(typo), "loud": loud} {
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// flip STATE flips a bit in a package that the store of a peer keeps.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	found := false
	ts.Check(filepath.WalkDir(ts.MkAbs(filepath.Join(args[0], "blobs", "blobs")), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || found {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) < 4096 {
			return err
		}
		found = true
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o644)
	}))
	if found == neg {
		ts.Fatalf("found a package to damage: %v", found)
	}
}

// listenaddr ADDRESS NAME puts an address without its /p2p/ID into a variable.
func cmdListenAddr(ts *testscript.TestScript, neg bool, args []string) {
	addr, _, _ := strings.Cut(args[0], "/p2p/")
	ts.Setenv(args[1], addr)
}

// copytree FROM TO clones a directory.
func cmdCopyTree(ts *testscript.TestScript, neg bool, args []string) {
	to := ts.MkAbs(args[1])
	ts.Check(os.CopyFS(to, os.DirFS(ts.MkAbs(args[0]))))
	ts.Check(filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = os.Chmod(path, 0o600) // secrets are refused where others can read them
		}
		return err
	}))
}

// terminate SOCKET TIME sends SIGTERM to a daemon, and fails when the process is
// still there after that time.
func cmdTerminate(ts *testscript.TestScript, neg bool, args []string) {
	bound, err := time.ParseDuration(args[1])
	ts.Check(err)
	i, err := control.NewClient(ts.MkAbs(args[0])).Info(context.Background())
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	ts.Check(syscall.Kill(i.PID, syscall.SIGTERM))
	ts.Check(poll(ctx, func() error {
		if err := syscall.Kill(i.PID, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d is there %s after SIGTERM", i.PID, bound)
		}
		return nil
	}))
}

// reload SOCKET has a daemon go on in a new process, which has the same number
// and makes a socket of its own, and waits for that.
func cmdReload(ts *testscript.TestScript, neg bool, args []string) {
	client := control.NewClient(ts.MkAbs(args[0]))
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	was, err := client.Info(ctx)
	ts.Check(err)
	old, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(syscall.Kill(was.PID, syscall.SIGHUP))
	ts.Check(poll(ctx, func() error {
		now, err := os.Stat(ts.MkAbs(args[0]))
		if err == nil && os.SameFile(old, now) && now.ModTime().Equal(old.ModTime()) {
			err = errors.New("the old process is still there")
		}
		if err != nil {
			return err
		}
		is, err := client.Info(ctx)
		if err == nil && is.PID != was.PID {
			ts.Fatalf("process %d follows %d", is.PID, was.PID)
		}
		return err
	}))
}

// empty DIR fails when a file lies anywhere below it.
func cmdEmpty(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = fmt.Errorf("%s was left behind", path)
		}
		return err
	}))
}

// exits CODE [<FILE] COMMAND... runs a command that ends with a code; stdout and
// stderr are matched as after exec.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	var stdin io.Reader
	if name, ok := strings.CutPrefix(args[1], "<"); ok {
		stdin, args = strings.NewReader(ts.ReadFile(name)), slices.Delete(args, 1, 2)
	}
	out, stderr, err := runIn(context.Background(), ts, stdin, args[1:])
	_, werr := io.WriteString(ts.Stdout(), out)
	_, werr2 := io.WriteString(ts.Stderr(), stderr)
	ts.Check(errors.Join(werr, werr2))
	code := 0
	if ee, ok := errors.AsType[*exec.ExitError](err); ok {
		code = ee.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("%s: exit code %d, want %s\n%s%s", strings.Join(args[1:], " "), code, args[0], out, stderr)
	}
}

// nonull FILE... checks that a JSON document has the schema and no null in it.
func cmdNoNull(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		var doc map[string]any
		if err := json.Unmarshal([]byte(ts.ReadFile(name)), &doc); err != nil {
			ts.Fatalf("%s is not one JSON document: %v\n%s", name, err, ts.ReadFile(name))
		}
		if doc["schema"] != 1.0 {
			ts.Fatalf("%s: schema %v", name, doc["schema"])
		}
		if at := findNull("", doc); at != "" {
			ts.Fatalf("%s: null at %s", name, at)
		}
	}
}

func findNull(at string, v any) string {
	switch v := v.(type) {
	case nil:
		return at
	case map[string]any:
		for _, k := range slices.Sorted(mapKeys(v)) {
			if bad := findNull(at+"."+k, v[k]); bad != "" {
				return bad
			}
		}
	case []any:
		for i, x := range v {
			if bad := findNull(fmt.Sprintf("%s[%d]", at, i), x); bad != "" {
				return bad
			}
		}
	}
	return ""
}

func mapKeys(m map[string]any) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// info SOCKET FIELD NAME puts what a daemon says of itself into a variable:
// id, gateway or addr.
func cmdInfo(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: info SOCKET FIELD NAME")
	}
	i, err := control.NewClient(ts.MkAbs(args[0])).Info(context.Background())
	ts.Check(err)
	switch args[1] {
	case "id":
		ts.Setenv(args[2], i.ID)
	case "gateway":
		ts.Setenv(args[2], i.Gateway[0])
	case "addr":
		ts.Setenv(args[2], i.Addrs[0])
	default:
		ts.Fatalf("no field %s", args[1])
	}
}

// gatedBuilder wraps a builder. GATE is a directory; what lies in it decides:
// hold = a build waits, with a process of its own, until it is stopped; term =
// the process gets SIGTERM in the moment in which its build has finished.
type gatedBuilder struct {
	worker.Builder
	gate string
}

func (b gatedBuilder) Build(ctx context.Context, req worker.Request) (worker.Result, error) {
	if _, err := os.Stat(filepath.Join(b.gate, "hold")); err == nil {
		req.Phase("hold")
		fmt.Fprintln(req.Log, "the build waits")
		<-ctx.Done()
		return worker.Result{}, &build.Failure{Class: build.Cancelled, Reason: "stopped"}
	}
	res, err := b.Builder.Build(ctx, req)
	if _, serr := os.Stat(filepath.Join(b.gate, "term")); serr == nil && err == nil {
		err = terminateSelf()
		<-ctx.Done()
	}
	return res, err
}

func terminateSelf() error { return syscall.Kill(os.Getpid(), syscall.SIGTERM) }

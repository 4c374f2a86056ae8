package emerge

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/build-swarm/swarm/build"
)

//go:embed planner.py
var plannerSource string

var (
	// ErrNoPortage is wrapped where there is no emerge to drive.
	ErrNoPortage = errors.New("no Portage here")
	// ErrUnusable is wrapped where emerge is there but cannot be driven.
	ErrUnusable = errors.New("unusable Portage")
	// ErrNoPackage is wrapped where an atom that a person typed names nothing
	// that Portage could build.
	ErrNoPackage = errors.New("no such package")
	// ErrAmbiguous is wrapped where a short name fits several packages.
	ErrAmbiguous = errors.New("ambiguous package name")
	// ErrResolve is wrapped where Portage's resolver finds no plan.
	ErrResolve = errors.New("no plan")
)

// Config says which Portage is driven and on which configuration and root.
// The zero Config is the machine's own: emerge from PATH, /etc/portage, /.
type Config struct {
	// Emerge is the program; "" = the first emerge on PATH.
	Emerge string
	// ConfigRoot holds etc/portage; "" = EPrefix, or / without one.
	ConfigRoot string
	// EPrefix is the offset of a Prefix (a Portage that an ordinary user may
	// run, everything below one directory); "" = none.
	EPrefix string
	// BuildPrefix, if set, is a directory of the Builder's own: a Prefix that
	// it lays out, fills with a job's root and nothing else, and empties again.
	// Packages built there belong to a relocatable target: Portage adjusts
	// their paths to the root that installs them. "" = builds happen in place,
	// in EPrefix or /.
	BuildPrefix string
	// Replace allows a build in place to replace installed packages by the
	// versions that a job's root names. Without it only missing ones are added
	// and a job that needs another version is the machine's failure.
	Replace bool
}

// Portage is a Portage that answered Detect. Its methods may be called
// concurrently; it keeps nothing but what Detect found.
type Portage struct {
	cfg     Config
	Emerge  string // absolute path of the program
	Python  string // the interpreter that runs it
	Version string // Portage's
	PyVer   string // Python's

	globals string // directory of make.globals
	who     identity
	trees   *treeCache
	plans   planCache
	moved   map[string]string // see fileReader
	offset  *string           // that packages are planned for, where it is not this Prefix's (StandIn)
	places  struct {
		mu    sync.Mutex
		known bool
		Places
	}
}

// identity is how Portage is told who runs it.
type identity struct {
	uid, gid    int
	user, group string
	portageUser bool   // the machine has a user "portage"
	sandbox     bool   // the machine has the sandbox program
	script      string // what that Python was given as emerge
}

// Detect finds emerge and the Python that runs it, and makes that Python load
// Portage's resolver once. The error wraps ErrNoPortage or ErrUnusable and is
// one line that says why. It takes about half a second.
func Detect(ctx context.Context, cfg Config) (*Portage, error) {
	name := cfg.Emerge
	if name == "" {
		name = "emerge"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("find emerge: %w: no program %q on PATH", ErrNoPortage, name)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("find emerge: %w", err)
	}
	p := &Portage{cfg: cfg, Emerge: path, who: whoami(), trees: newTreeCache()}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	script, err := p.interpreter(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its Python: %w: %w", path, ErrUnusable, err)
	}
	var doc struct {
		reply
		Python  string `json:"python"`
		Portage string `json:"portage"`
		Globals string `json:"globals"`
	}
	env := append(p.plainEnv(), "SWARM_EMERGE="+script)
	if err := p.ask(ctx, env, map[string]any{"mode": "probe"}, &doc); err != nil {
		return nil, fmt.Errorf("load Portage with %s: %w: %w", p.Python, ErrUnusable, err)
	}
	p.Version, p.PyVer, p.globals = build.OneLine(doc.Portage, 40), build.OneLine(doc.Python, 40), doc.Globals
	p.Emerge = path
	p.who.script = script
	return p, nil
}

// Found is what Detect found, for a process that is to drive the same Portage
// without looking again.
type Found struct {
	Config                                          Config
	Emerge, Python, Version, PyVer, Globals, Script string
}

// Found tells what was found.
func (p *Portage) Found() Found {
	return Found{p.cfg, p.Emerge, p.Python, p.Version, p.PyVer, p.globals, p.who.script}
}

// Portage is the Portage that was found, without looking whether it still is
// there.
func (f Found) Portage() *Portage {
	p := &Portage{cfg: f.Config, Emerge: f.Emerge, Python: f.Python, Version: f.Version, PyVer: f.PyVer, globals: f.Globals, who: whoami(), trees: newTreeCache()}
	p.who.script = f.Script
	return p
}

// probe is imported by whatever Python starts emerge, and says which it is.
const probe = `import os, sys, json
if os.environ.get("SWARM_PROBE") == "1":
    argv = getattr(sys, "orig_argv", None) or []
    script = ""
    for a in argv[1:]:
        if not a.startswith("-"):
            script = a
            break
    os.write(1, (json.dumps({"python": sys.executable, "script": os.path.abspath(script)}) + "\n").encode())
    os._exit(0)
`

// interpreter starts emerge with a module in PYTHONPATH that tells which
// Python runs and which script it was given. It works through shell wrappers
// and Gentoo's python-exec alike, where reading "#!" lines does not.
func (p *Portage) interpreter(ctx context.Context) (script string, err error) {
	dir, err := os.MkdirTemp("", "swarm-probe-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.WriteFile(filepath.Join(dir, "sitecustomize.py"), []byte(probe), 0o644); err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, p.Emerge, "--version")
	cmd.Env = append(p.plainEnv(), "PYTHONPATH="+dir, "SWARM_PROBE=1", "PYTHONDONTWRITEBYTECODE=1")
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &capped{buf: &stderr, max: 4 << 10}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	b, readErr := io.ReadAll(io.LimitReader(out, 4<<10))
	if err := errors.Join(readErr, cmd.Wait()); err != nil {
		return "", fmt.Errorf("%w: %s", err, build.OneLine(stderr.String(), 300))
	}
	var doc struct{ Python, Script string }
	line, _, _ := strings.Cut(string(b), "\n")
	if err := json.Unmarshal([]byte(line), &doc); err != nil || !filepath.IsAbs(doc.Python) {
		return "", fmt.Errorf("it is not run by Python: %q", build.OneLine(string(b), 100))
	}
	p.Python = doc.Python
	return doc.Script, nil
}

func whoami() identity {
	id := identity{uid: os.Getuid(), gid: os.Getgid(), user: "root", group: "root"}
	if u, err := user.LookupId(strconv.Itoa(id.uid)); err == nil {
		id.user = u.Username
	}
	if g, err := user.LookupGroupId(strconv.Itoa(id.gid)); err == nil {
		id.group = g.Name
	}
	if _, err := user.Lookup("portage"); err == nil {
		id.portageUser = true
	}
	_, err := os.Stat("/usr/bin/sandbox")
	id.sandbox = err == nil
	return id
}

// plainEnv is the environment for questions that touch no configuration.
func (p *Portage) plainEnv() []string {
	env := []string{
		"PATH=" + systemPath, "HOME=/", "TERM=dumb", "NO_COLOR=1",
		"LC_ALL=C.UTF-8", "PYTHONUTF8=1",
	}
	return append(env, p.who.env()...)
}

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (id identity) env() []string {
	switch {
	case id.uid != 0:
		return []string{
			"PORTAGE_USERNAME=" + id.user, "PORTAGE_GRPNAME=" + id.group,
			"PORTAGE_INST_UID=" + strconv.Itoa(id.uid), "PORTAGE_INST_GID=" + strconv.Itoa(id.gid),
		}
	case !id.portageUser:
		return []string{"PORTAGE_USERNAME=root", "PORTAGE_GRPNAME=root"}
	}
	return nil
}

// environment is the whole environment of a run on a configuration: nothing
// of the caller's comes in, since Portage writes its environment into the
// packages that it builds.
func (p *Portage) environment(configRoot, eprefix string) []string {
	path := systemPath
	if eprefix != "" {
		path = eprefix + "/usr/sbin:" + eprefix + "/usr/bin:" + eprefix + "/sbin:" + eprefix + "/bin:" + path
	}
	env := []string{
		"PATH=" + path, "HOME=/", "TERM=dumb", "NO_COLOR=1", "LC_ALL=C.UTF-8", "PYTHONUTF8=1",
	}
	if eprefix != "" {
		env = append(env, "PORTAGE_OVERRIDE_EPREFIX="+eprefix, "EPREFIX="+eprefix)
	}
	if configRoot == "" {
		configRoot = eprefix
	}
	if configRoot != "" {
		env = append(env, "PORTAGE_CONFIGROOT="+configRoot)
	}
	return append(env, p.who.env()...)
}

// Environ is the whole environment in which emerge sees this configuration, for
// a run of one's own.
func (p *Portage) Environ() []string { return p.environment(p.cfg.ConfigRoot, p.cfg.EPrefix) }

// reply is what every answer of the planner begins with.
type reply struct {
	OK     bool   `json:"ok"`
	Schema int    `json:"schema"`
	Kind   string `json:"kind"`
	Error  string `json:"error"`
	Atom   string `json:"atom"`
}

func (r *reply) head() *reply { return r }

// schema is the version of the planner's answers that this code reads.
const schema = 1

// maxAnswer bounds what the planner may print: a plan of 1,400 tasks is about
// 4 MiB.
const maxAnswer = 256 << 20

// ask runs the planner with one request and decodes its answer.
func (p *Portage) ask(ctx context.Context, env []string, request any, into interface{ head() *reply }) error {
	in, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, p.Python, "-c", plannerSource)
	cmd.Env = env
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(in)
	out := &capped{buf: &stdout, max: maxAnswer}
	cmd.Stdout = out
	cmd.Stderr = &capped{buf: &stderr, max: 64 << 10, tail: true}
	cmd.WaitDelay = 5 * time.Second
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("run the planner: %w", ctx.Err())
	}
	return answer(out, stderr.String(), runErr, into)
}

// answer decodes what a run of the planner printed.
func answer(out *capped, stderr string, runErr error, into interface{ head() *reply }) error {
	if out.full {
		return fmt.Errorf("read the planner's answer: longer than %d MiB", maxAnswer>>20)
	}
	if err := json.Unmarshal(out.buf.Bytes(), into); err != nil {
		if runErr == nil {
			runErr = err
		}
		return fmt.Errorf("run the planner: %w: %s", runErr, lastLine(stderr))
	}
	head := into.head()
	if head.Schema != schema {
		return fmt.Errorf("read the planner's answer: schema %d, want %d", head.Schema, schema)
	}
	if !head.OK {
		if said := complaint(stderr); (head.Kind == "portage" || head.Kind == "config") && said != "" {
			head.Error += " (" + said + ")"
		}
		return plannerError(head)
	}
	return nil
}

// plannerError turns the planner's own error into one that callers branch on.
func plannerError(r *reply) error {
	text := build.OneLine(r.Error, 1000)
	switch r.Kind {
	case "missing", "atom":
		return fmt.Errorf("%w: %s", ErrNoPackage, text)
	case "ambiguous":
		return fmt.Errorf("%w: %s", ErrAmbiguous, text)
	case "resolve":
		return fmt.Errorf("%w: %s", ErrResolve, text)
	}
	return fmt.Errorf("%w: %s", ErrUnusable, text)
}

// complaint is the last line that Portage itself marks as an error.
func complaint(stderr string) string {
	said := ""
	for l := range strings.Lines(stderr) {
		if t, ok := strings.CutPrefix(string(stripANSI([]byte(l))), "!!! "); ok {
			said = t
		}
	}
	return build.OneLine(said, 200)
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return build.OneLine(lines[len(lines)-1], 300)
}

// capped keeps the first max bytes, or the last ones, and drops the rest.
type capped struct {
	buf  *bytes.Buffer
	max  int
	tail bool
	full bool
}

func (c *capped) Write(b []byte) (int, error) {
	n := len(b)
	if c.tail {
		c.buf.Write(b)
		if c.buf.Len() > 2*c.max {
			c.buf.Next(c.buf.Len() - c.max)
		}
		return n, nil
	}
	if room := c.max - c.buf.Len(); len(b) > room {
		c.full = true
		b = b[:max(room, 0)]
	}
	c.buf.Write(b)
	return n, nil
}

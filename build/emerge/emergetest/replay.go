package emergetest

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

//go:embed recorded
var recorded embed.FS

// Run is one recorded run.
type Run struct {
	Ask    Ask               `json:"ask"`
	Exit   int               `json:"exit"`
	Stdout string            `json:"stdout,omitempty"`
	Stderr string            `json:"stderr,omitempty"`
	Files  map[string]string `json:"files,omitempty"` // path with placeholders -> content
	Blobs  map[string]string `json:"blobs,omitempty"` // the same, content in a recorded file

	dir string // of the recording
}

// Ask is what selects a recording.
type Ask struct {
	Program string          `json:"program"` // "emerge", "quickpkg" or "planner"
	Args    []string        `json:"args,omitempty"`
	Stdin   json.RawMessage `json:"stdin,omitempty"`
	Repos   []string        `json:"repos,omitempty"`
	USE     string          `json:"use,omitempty"`
}

func (a Ask) key() string {
	b, err := json.Marshal(a)
	if err != nil {
		return "unmarshalable: " + err.Error()
	}
	return string(b)
}

// places maps placeholders to the directories of this run: $CONF holds the
// configuration and repositories, $JOB is the job's, $EROOT is installed into, $PORTAGE is where Portage stands.
type places struct{ conf, job, eroot, portage string }

func placesOf(env map[string]string, portage string) places {
	p := places{eroot: env["EPREFIX"], portage: portage}
	if conf := env["PORTAGE_CONFIGROOT"]; p.eroot == "" && !strings.HasSuffix(conf, "/config") {
		p.eroot = conf // a question about a configuration alone
	}
	p.conf = strings.TrimSuffix(p.eroot, "/buildroot")
	if job, ok := strings.CutSuffix(env["PORTAGE_CONFIGROOT"], "/config"); ok {
		p.job = job
	}
	if programName() == quickpkg {
		p.job = env["PKGDIR"]
	}
	return p
}

// hide puts placeholders for directories, longest first.
func (p places) hide(s string) string {
	for _, r := range p.pairs() {
		s = strings.ReplaceAll(s, r[1], r[0])
	}
	return s
}

func (p places) show(s string) string {
	for _, r := range p.pairs() {
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

func (p places) pairs() [][2]string {
	var out [][2]string
	for _, r := range [][2]string{{"$JOB", p.job}, {"$EROOT", p.eroot}, {"$CONF", p.conf}, {"$PORTAGE", p.portage}} {
		if r[1] != "" {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b [2]string) int { return len(b[1]) - len(a[1]) })
	return out
}

// environ is the environment of this process as a map.
func environ() map[string]string {
	m := make(map[string]string)
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		m[k] = v
	}
	return m
}

// ask describes a run of this process.
func ask(args []string, stdin []byte, env map[string]string, p places) (Ask, error) {
	a := Ask{Program: programName(), Args: args}
	if len(args) > 0 && args[0] == "-c" {
		a.Program, a.Args = "planner", nil
		var doc any
		if err := json.Unmarshal(stdin, &doc); err != nil {
			return Ask{}, fmt.Errorf("read the planner's request: %w", err)
		}
		b, err := json.Marshal(doc) // sorted keys, no blanks
		if err != nil {
			return Ask{}, fmt.Errorf("read the planner's request: %w", err)
		}
		a.Stdin = json.RawMessage(p.hide(string(b)))
	}
	etc := filepath.Join(env["PORTAGE_CONFIGROOT"], "etc/portage")
	if env["PORTAGE_CONFIGROOT"] == "" {
		return a, nil
	}
	repos, err := os.ReadFile(filepath.Join(etc, "repos.conf/swarm.conf"))
	if err != nil {
		return Ask{}, fmt.Errorf("read configuration: %w", err)
	}
	for l := range strings.Lines(string(repos)) {
		l = strings.TrimSpace(l)
		if strings.HasPrefix(l, "[") && l != "[DEFAULT]" {
			a.Repos = append(a.Repos, strings.Trim(l, "[]"))
		}
	}
	use, err := os.ReadFile(filepath.Join(etc, "package.use/zzzz-swarm-job"))
	if err == nil {
		a.USE = strings.TrimSpace(string(use))
	}
	return a, nil
}

// IsEmerge reports whether a program was started as emerge, by its name. A
// test binary asks at its start, and calls Main if so.
func IsEmerge() bool { return programName() == "emerge" || programName() == quickpkg }

// quickpkg packs an installed package into PKGDIR.
const quickpkg = "quickpkg"

func programName() string { return filepath.Base(os.Args[0]) }

// Exit ends this process with Main's code, without the second that a program
// built for the race detector waits in os.Exit.
func Exit(code int) { syscall.Exit(code) }

// Main is the emulated emerge (and, started with -c, the Python of it). It
// returns the exit code. With a file record.json beside the program it records
// instead.
func Main() int {
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "emulated emerge:", err)
		return 99
	}
	if conf, err := os.ReadFile(filepath.Join(filepath.Dir(self), "record.json")); err == nil {
		return record(self, conf)
	}
	if os.Getenv("SWARM_PROBE") == "1" {
		fmt.Printf("{\"python\": %q, \"script\": %q}\n", self, self)
		return 0
	}
	if programName() == "emerge" && wantsBinaries(os.Args[1:]) {
		if err := consume(os.Args[1:], environ(), os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "!!!", err)
			return 1
		}
		return 0
	}
	code, err := replay(self, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "emulated emerge:", err)
		return 99
	}
	return code
}

func replay(self string, args []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	var in []byte
	var err error
	if len(args) > 0 && args[0] == "-c" {
		if in, err = io.ReadAll(stdin); err != nil {
			return 0, fmt.Errorf("read request: %w", err)
		}
	}
	env := environ()
	p := placesOf(env, filepath.Dir(self))
	a, err := ask(args, in, env, p)
	if err != nil {
		return 0, err
	}
	run, err := find(a)
	if err != nil {
		merged, merr := merge(a)
		if merr != nil {
			return 0, merr
		}
		if merged == nil {
			return 0, err
		}
		run = merged
	}
	for file, content := range run.Files {
		if err := write(p.show(file), []byte(p.show(content))); err != nil {
			return 0, err
		}
	}
	for file, name := range run.Blobs {
		b, err := recorded.ReadFile(run.dir + "/" + name)
		if err != nil {
			return 0, fmt.Errorf("read recording: %w", err)
		}
		if err := write(p.show(file), b); err != nil {
			return 0, err
		}
	}
	if _, err := io.WriteString(stdout, p.show(run.Stdout)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(stderr, p.show(run.Stderr)); err != nil {
		return 0, err
	}
	return run.Exit, nil
}

func write(path string, b []byte) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("write %q: the recording names no directory of this run", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write what emerge wrote: %w", err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("write what emerge wrote: %w", err)
	}
	return nil
}

// find looks a run up in all recordings.
func find(a Ask) (*Run, error) {
	want := a.key()
	files, err := fs.Glob(recorded, "recorded/*/runs.json")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		runs, err := read(f)
		if err != nil {
			return nil, err
		}
		for i := range runs {
			if runs[i].Ask.key() == want {
				return &runs[i], nil
			}
		}
	}
	return nil, fmt.Errorf("this run was never recorded: %s", want)
}

// merge puts a run that installs packages without their dependencies together of
// recorded ones: of each package the entry that a run has written which installed
// it, whatever else that installed. Which packages a root lacks depends on what was
// built in it before, and so on who builds what. nil where it is no such run, or one
// of the packages was never installed.
func merge(a Ask) (*Run, error) {
	if !slices.Contains(a.Args, "--usepkgonly") || !slices.Contains(a.Args, "--nodeps") {
		return nil, nil
	}
	files, err := fs.Glob(recorded, "recorded/*/runs.json")
	if err != nil {
		return nil, err
	}
	out := &Run{Ask: a, Files: map[string]string{}}
	for _, arg := range a.Args {
		cpv, ok := strings.CutPrefix(arg, "=")
		if !ok {
			continue
		}
		entry := "$EROOT/var/db/pkg/" + cpv + "/"
		found := false
		for _, f := range files {
			runs, err := read(f)
			if err != nil {
				return nil, err
			}
			for i := range runs {
				r := &runs[i]
				if found || r.Exit != 0 || !slices.Contains(r.Ask.Args, arg) || !slices.Contains(r.Ask.Args, "--usepkgonly") || !slices.Equal(r.Ask.Repos, a.Repos) {
					continue
				}
				for path, text := range r.Files {
					if strings.HasPrefix(path, entry) {
						out.Files[path], found = text, true
					}
				}
				out.Stdout += r.Stdout
			}
		}
		if !found {
			return nil, nil
		}
	}
	return out, nil
}

func read(name string) ([]Run, error) {
	b, err := recorded.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	var runs []Run
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&runs); err != nil {
		return nil, fmt.Errorf("read recording %s: %w", name, err)
	}
	for i := range runs {
		runs[i].dir = path.Dir(name)
		if len(runs[i].Ask.Stdin) > 0 {
			var doc any
			if err := json.Unmarshal(runs[i].Ask.Stdin, &doc); err != nil {
				return nil, fmt.Errorf("read recording %s: %w", name, err)
			}
			if runs[i].Ask.Stdin, err = json.Marshal(doc); err != nil {
				return nil, fmt.Errorf("read recording %s: %w", name, err)
			}
		}
	}
	return runs, nil
}

package emergetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Recorder is the content of record.json, which stands beside a program that
// is to record what the real emerge does.
type Recorder struct {
	Emerge string `json:"emerge"` // the real one
	Dir    string `json:"dir"`    // of the scenario: runs.json and packages
	Python string `json:"python,omitempty"`
	Script string `json:"script,omitempty"` // what that Python runs as emerge
}

// record runs the real program and adds what it did to the recording.
func record(self string, conf []byte) int {
	var r Recorder
	if err := json.Unmarshal(conf, &r); err != nil {
		fmt.Fprintln(os.Stderr, "record emerge: read record.json:", err)
		return 99
	}
	if os.Getenv("SWARM_PROBE") == "1" {
		return r.probe(self)
	}
	code, err := r.run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "record emerge:", err)
		return 99
	}
	return code
}

// probe lets the real emerge say which Python it is, remembers that, and names
// this program in its place.
func (r *Recorder) probe(self string) int {
	cmd := exec.Command(r.Emerge, os.Args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var doc struct{ Python, Script string }
	line, _, _ := strings.Cut(string(out), "\n")
	if err == nil {
		err = json.Unmarshal([]byte(line), &doc)
	}
	if err == nil {
		r.Python, r.Script = doc.Python, doc.Script
		var b []byte
		if b, err = json.Marshal(r); err == nil {
			err = os.WriteFile(filepath.Join(filepath.Dir(self), "record.json"), b, 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "record emerge: probe:", err)
		return 99
	}
	fmt.Printf("{\"python\": %q, \"script\": %q}\n", self, doc.Script)
	return 0
}

func (r *Recorder) run(args []string) (int, error) {
	var in []byte
	var err error
	program := filepath.Join(filepath.Dir(r.Emerge), programName())
	if programName() == "emerge" {
		program = r.Emerge
	}
	if len(args) > 0 && args[0] == "-c" {
		program = r.Python
		if in, err = io.ReadAll(os.Stdin); err != nil {
			return 0, fmt.Errorf("read request: %w", err)
		}
	}
	env := environ()
	p := placesOf(env, filepath.Dir(filepath.Dir(r.Script)))
	a, err := ask(args, in, env, p)
	if err != nil {
		return 0, err
	}
	before, err := wrote(p)
	if err != nil {
		return 0, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, os.Stdout), io.MultiWriter(&stderr, os.Stderr)
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("run %s: %w", program, err)
	}
	run := Run{
		Ask: a, Exit: cmd.ProcessState.ExitCode(), Stdout: p.hide(stdout.String()), Stderr: p.hide(stderr.String()),
		Files: map[string]string{}, Blobs: map[string]string{},
	}
	after, err := wrote(p)
	if err != nil {
		return 0, err
	}
	for path := range after {
		if before[path] {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, fmt.Errorf("read what emerge wrote: %w", err)
		}
		if !strings.HasSuffix(path, ".gpkg.tar") {
			run.Files[p.hide(path)] = p.hide(string(b))
			continue
		}
		name := filepath.Base(path)
		for n := 2; ; n++ { // another build of the same version
			if _, err := os.Stat(filepath.Join(r.Dir, name)); errors.Is(err, fs.ErrNotExist) {
				break
			}
			name = fmt.Sprintf("%d-%s", n, filepath.Base(path))
		}
		run.Blobs[p.hide(path)] = name
		if err := os.WriteFile(filepath.Join(r.Dir, name), b, 0o644); err != nil {
			return 0, fmt.Errorf("record package: %w", err)
		}
	}
	return run.Exit, r.add(run)
}

// add appends a run to the scenario's recording.
func (r *Recorder) add(run Run) error {
	path := filepath.Join(r.Dir, "runs.json")
	var runs []Run
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("add to recording: %w", err)
	default:
		if err := json.Unmarshal(b, &runs); err != nil {
			return fmt.Errorf("add to recording %s: %w", path, err)
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(append(runs, run)); err != nil {
		return fmt.Errorf("add to recording: %w", err)
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// wrote lists the files that matter afterwards: packages, and the entries of
// the package database that the builder reads.
func wrote(p places) (map[string]bool, error) {
	out := make(map[string]bool)
	if p.job != "" {
		dir := filepath.Join(p.job, "out")
		if programName() == quickpkg {
			dir = p.job
		}
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".gpkg.tar") {
				out[path] = true
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look at what emerge wrote: %w", err)
		}
	}
	if p.eroot == "" {
		return out, nil
	}
	for _, name := range []string{"SLOT", "USE", "IUSE", "repository", "BUILD_TIME"} {
		found, err := filepath.Glob(filepath.Join(p.eroot, "var/db/pkg/*/*", name))
		if err != nil {
			return nil, fmt.Errorf("look at what emerge wrote: %w", err)
		}
		for _, f := range found {
			out[f] = true
		}
	}
	return out, nil
}

package cli

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func testApp() *cli.App {
	return newApp(&env{}, strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
}

func TestTheManualNamesEveryCommandFlagAndSetting(t *testing.T) {
	app := testApp()
	page := manSwarm(app)
	eachCommand(app.Commands, "", func(path string, cmd *cli.Command) {
		if !strings.Contains(page, ".SS swarm "+roff(path)) {
			t.Errorf("no section for swarm %s", path)
		}
		for _, f := range cmd.Flags {
			if !strings.Contains(page, roff("--"+f.Names()[0])) {
				t.Errorf("no word of --%s", f.Names()[0])
			}
		}
	})
	settings := manSettings(app)
	for _, f := range runFlags() {
		if name := f.Names()[0]; name != "config" && !strings.Contains(settings, `\fB`+roff(name)+`\fR`) {
			t.Errorf("no word of the setting %s", name)
		}
	}
	for line := range strings.Lines(page + settings) {
		// A line that begins with a dot is a request, of those that are used here.
		if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(word, ".") &&
			!strings.Contains(" .TH .SH .SS .TP .PP .B .I .nf .fi ", " "+word+" ") {
			t.Errorf("request %q", word)
		}
	}
}

func TestBashCompletesCommandsAndFlags(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	script := completeBash(testApp())
	for words, want := range map[string]string{"swarm sta": "status", "swarm run --build-w": "--build-when", "swarm portage se": "setup", "swarm pause --h": "--help --here"} {
		list := strings.Fields(words)
		text := script + "COMP_WORDS=(" + words + "); COMP_CWORD=" + string(rune('0'+len(list)-1)) + "; _swarm; echo ${COMPREPLY[@]}"
		out, err := exec.CommandContext(t.Context(), bash, "-euc", text).CombinedOutput()
		got := strings.TrimSpace(string(out))
		if err != nil || got != want && got != strings.TrimPrefix(want, "--help ") {
			t.Errorf("%s: %q, %v; want %q", words, got, err, want)
		}
	}
}

// What is installed beside the program names flags and commands that it has.
func TestUnitsAndEbuildsUseWhatTheProgramHas(t *testing.T) {
	app := testApp()
	names := map[string]bool{"--help": true}
	eachCommand(app.Commands, "", func(_ string, cmd *cli.Command) {
		for _, f := range cmd.Flags {
			for _, n := range f.Names() {
				names["--"+n] = true
			}
		}
	})
	dist := filepath.Join("..", "..", "dist")
	found := 0
	err := filepath.WalkDir(dist, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		found++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if _, after, ok := strings.Cut(line, "swarm run"); ok {
				for w := range strings.FieldsSeq(after) {
					if strings.HasPrefix(w, "--") && !names[w] {
						t.Errorf("%s: swarm run has no %s", path, w)
					}
				}
			}
		}
		if ext := filepath.Ext(path); ext == ".initd" || ext == ".ebuild" || ext == ".confd" {
			bash, err := exec.LookPath("bash")
			if err != nil {
				return nil //nolint:nilerr // nothing to ask here
			}
			if out, err := exec.CommandContext(t.Context(), bash, "-n", path).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", path, err, out)
			}
		}
		return nil
	})
	if err != nil || found < 7 {
		t.Errorf("%d files, %v", found, err)
	}
}

func TestSystemdTakesTheUnit(t *testing.T) {
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze here")
	}
	b, err := os.ReadFile(filepath.Join("..", "..", "dist", "systemd", "swarm.service"))
	if err != nil {
		t.Fatal(err)
	}
	// It wants the program to be there; any will do.
	unit := filepath.Join(t.TempDir(), "swarm.service")
	text := strings.ReplaceAll(string(b), "/usr/bin/swarm", "/bin/true")
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, "verify", "--man=no", unit).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skip(err)
	}
	for line := range strings.Lines(string(out)) {
		// What an older systemd does not know it passes over.
		old := strings.Contains(line, "Unknown key") || strings.Contains(line, "parse service type")
		if strings.Contains(line, "swarm.service") && !old {
			t.Errorf("systemd-analyze: %s", line)
		}
	}
}

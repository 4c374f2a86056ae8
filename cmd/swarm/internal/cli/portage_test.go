package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

func testSetup(t *testing.T) (portageSetup, *bytes.Buffer) {
	t.Helper()
	etc := filepath.Join(t.TempDir(), "etc/portage")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	return portageSetup{etc: etc, target: "default", gateway: "127.0.0.1:8090", env: &env{out: render.To(&said), err: &said}}, &said
}

func TestPortageUndoRestoresEveryByte(t *testing.T) {
	for name, text := range map[string]string{
		"ordinary": "A=1\nB=2\n", "no last line break": "A=1\nB=2", "empty": "", "blank lines at the end": "A=1\n\n\n",
		"only a line break": "\n", "DOS line ends": "A=1\r\nB=2\r\n", "a mark inside a line": "# see # begin: written by swarm portage setup\n",
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := testSetup(t)
			conf := filepath.Join(s.etc, "make.conf")
			if err := os.WriteFile(conf, []byte(text), 0o640); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := s.do(false); err != nil {
					t.Fatal(err)
				}
			}
			set, err := os.ReadFile(conf)
			if err != nil || bytes.Count(set, []byte("getbinpkg\"")) != 1 {
				t.Fatalf("after setup twice: %q, %v", set, err)
			}
			if err := s.undo(); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(conf)
			if err != nil || string(got) != text {
				t.Errorf("after undo %q, want %q (%v)", got, text, err)
			}
			st, err := os.Stat(conf)
			if err != nil || st.Mode().Perm() != 0o640 {
				t.Errorf("mode %v, %v; want 0640", st.Mode(), err)
			}
			left, err := filepath.Glob(filepath.Join(s.etc, "*"))
			if err != nil || len(left) != 1 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestPortageSetupKeepsWhatStandsAfterItsMarks(t *testing.T) {
	s, _ := testSetup(t)
	conf := filepath.Join(s.etc, "make.conf")
	if err := os.WriteFile(conf, []byte("A=1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.do(false); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(conf, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("B=2\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.undo(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(conf)
	if err != nil || string(got) != "A=1\nB=2\n" {
		t.Errorf("got %q, %v: a line break that somebody needs by now must stay", got, err)
	}
}

func TestPortageSetupWritesThroughALink(t *testing.T) {
	s, _ := testSetup(t)
	dest := filepath.Join(t.TempDir(), "make.conf.shared")
	if err := os.WriteFile(dest, []byte("A=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(s.etc, "make.conf")
	if err := os.Symlink(dest, conf); err != nil {
		t.Fatal(err)
	}
	if err := s.do(false); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(conf); err != nil || st.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link became %v, %v", st.Mode(), err)
	}
	if b, err := os.ReadFile(dest); err != nil || !bytes.Contains(b, []byte("getbinpkg")) {
		t.Errorf("behind the link: %q, %v", b, err)
	}
}

func TestTheGatewayIsAskedWhereEmergeReachesIt(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:8090": "127.0.0.1:8090", "0.0.0.0:80": "127.0.0.1:80", ":8090": "127.0.0.1:8090", "[::]:8090": "127.0.0.1:8090",
		"[fd00::1]:8090": "[fd00::1]:8090", "nas.lan:8090": "nas.lan:8090",
	} {
		if got, err := reachable([]string{in}); err != nil || got != want {
			t.Errorf("reachable(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "8090", "nas", "nas:", "nas:0", "nas:http", "nas:99999"} {
		if got, err := reachable([]string{bad}); err == nil {
			t.Errorf("reachable(%q) = %q, want an error", bad, got)
		}
	}
}

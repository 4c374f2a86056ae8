package httpgatewaytest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/gpkg"
	"github.com/build-swarm/swarm/build/release"
)

// Machine is a consumer with the real Portage: a Prefix of its own with one
// more repository, "tree", that is a git checkout. Nothing outside of its
// directory is read or changed.
type Machine struct {
	t       testing.TB
	Dir     string
	Tree    string // the checkout of the repository "tree"
	Emerge  string
	Environ []string
	Portage *emerge.Portage
	env     []byte // environment.bz2 of the packages that it installs
}

// NewMachine makes one, or skips the test, so that it shows, where there is no
// emerge on PATH, or no git.
func NewMachine(t testing.TB) *Machine {
	if testing.Short() {
		t.Skip("SKIPPED: runs of the real emerge are not short")
	}
	t.Helper()
	dir := t.TempDir()
	cfg, err := emerge.DemoConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{t: t, Dir: dir, Tree: filepath.Join(dir, "repos/tree")}
	for name, text := range map[string]string{
		"metadata/layout.conf": "masters = swarm-demo\nthin-manifests = true\n", "profiles/repo_name": "tree\n", "profiles/eapi": "8\n", "profiles/categories": "sw-test\n",
	} {
		m.write(filepath.Join(m.Tree, name), text)
	}
	if err := emerge.WriteConfig(dir, []emerge.Repository{{Name: "swarm-demo", Path: filepath.Join(dir, "repos/swarm-demo")}, {Name: "tree", Path: m.Tree}}); err != nil {
		t.Fatal(err)
	}
	p, err := emerge.Detect(t.Context(), cfg)
	if errors.Is(err, emerge.ErrNoPortage) || errors.Is(err, emerge.ErrUnusable) {
		t.Skipf("SKIPPED, REAL PORTAGE NOT TESTED HERE: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIPPED: no git on PATH")
	}
	// It completes the Prefix.
	if _, err := p.Plan(t.Context(), emerge.PlanRequest{Target: "t", Atoms: []string{"app-misc/wordwrap"}}); err != nil {
		t.Fatal(err)
	}
	m.Emerge, m.Environ, m.Portage = p.Emerge, p.Environ(), p
	m.git("init", "--quiet", "--initial-branch=main")
	return m
}

func (m *Machine) write(path, text string) {
	m.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *Machine) git(args ...string) string {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), "git", append([]string{"-C", m.Tree, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + m.Dir, "GIT_CONFIG_NOSYSTEM=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Commit puts ebuilds ("sw-test/thing-1.0") into the tree, instead of what was
// there, and returns the commit.
func (m *Machine) Commit(ebuilds ...Ebuild) string {
	m.t.Helper()
	if err := os.RemoveAll(filepath.Join(m.Tree, "sw-test")); err != nil {
		m.t.Fatal(err)
	}
	for _, e := range ebuilds {
		c := m.cpv(e.CPV)
		m.write(filepath.Join(m.Tree, c.CP(), c.PF()+".ebuild"), e.text())
	}
	m.git("add", "--all")
	m.git("commit", "--quiet", "--allow-empty", "--message", "tree")
	return m.git("rev-parse", "HEAD")
}

// Checkout moves the tree to a commit.
func (m *Machine) Checkout(commit string) {
	m.t.Helper()
	m.git("reset", "--quiet", "--hard", commit)
}

// Ebuild is a package that installs one text file.
type Ebuild struct {
	CPV, Slot, IUSE, RDEPEND string
}

func (e Ebuild) slot() string {
	if e.Slot == "" {
		return "0"
	}
	return e.Slot
}

func (e Ebuild) text() string {
	return fmt.Sprintf("EAPI=8\nDESCRIPTION=\"test\"\nHOMEPAGE=\"https://example.org\"\nLICENSE=\"public-domain\"\nSLOT=\"%s\"\nKEYWORDS=\"~amd64 amd64\"\nIUSE=\"%s\"\nRDEPEND=\"%s\"\nDEPEND=\"%s\"\nS=\"${WORKDIR}\"\nsrc_compile() { :; }\nsrc_install() { :; }\n",
		e.slot(), e.IUSE, e.RDEPEND, e.RDEPEND)
}

func (m *Machine) cpv(s string) build.CPV {
	m.t.Helper()
	c, err := build.ParseCPV(s)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// Build is one build of an Ebuild.
type Build struct {
	Ebuild
	USE     string // enabled flags
	Bound   string // RDEPEND as it came out, := bound; "" = as in the ebuild
	Time    int64  // BUILD_TIME
	Content string // of the file it installs
}

// Package makes the package that emerge would have built, and its entry.
func (m *Machine) Package(b Build) ([]byte, release.Entry) {
	m.t.Helper()
	c := m.cpv(b.CPV)
	rdepend := b.Bound
	if rdepend == "" {
		rdepend = b.RDEPEND
	}
	meta := map[string]string{
		"EAPI": "8", "SLOT": b.slot(), "DESCRIPTION": "test", "LICENSE": "public-domain", "KEYWORDS": "~amd64 amd64", "repository": "tree", "DEFINED_PHASES": "compile install",
		"IUSE": b.IUSE, "USE": b.USE, "CHOST": "x86_64-pc-linux-gnu", "BUILD_TIME": strconv.FormatInt(b.Time, 10), "SIZE": "10", "EPREFIX": m.Dir,
		"RDEPEND": rdepend, "DEPEND": rdepend, c.PF() + ".ebuild": b.text(), "environment.bz2": m.environment(),
	}
	for k, v := range meta {
		if v == "" {
			delete(meta, k)
		}
	}
	text := []byte(b.Content)
	var out bytes.Buffer
	err := gpkg.Write(&out, gpkg.Spec{CPV: c, BuildID: 1, Metadata: meta, MTime: b.Time, TempDir: m.t.TempDir(), Image: []gpkg.SourceFile{{
		File: gpkg.File{Name: strings.TrimPrefix(m.Dir, "/") + "/usr/share/" + c.Name, Mode: 0o644, MTime: b.Time, User: "root", Group: "root", Kind: gpkg.Regular, Size: int64(len(text))},
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil },
	}}})
	if err != nil {
		m.t.Fatal(err)
	}
	p, err := gpkg.Open(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		m.t.Fatal(err)
	}
	e := Entry(m.t, b.CPV, out.Bytes(), gpkg.IndexMeta(p)...)
	key := sha256.Sum256([]byte(fmt.Sprint(b)))
	e.Key, e.Slot, e.Keywords = build.Key(hex.EncodeToString(key[:])), b.slot(), "~amd64 amd64"
	return out.Bytes(), e
}

// environment is a saved environment that Portage can source.
func (m *Machine) environment() string {
	m.t.Helper()
	if m.env == nil {
		cmd := exec.CommandContext(m.t.Context(), "bzip2", "-c")
		cmd.Stdin = strings.NewReader("declare -x EAPI=\"8\"\nsrc_compile () \n{ \n    :\n}\nsrc_install () \n{ \n    :\n}\n")
		out, err := cmd.Output()
		if err != nil {
			m.t.Skipf("SKIPPED: bzip2: %v", err)
		}
		m.env = out
	}
	return string(m.env)
}

// Uses lets it install from a binhost at uri (http://HOST/TARGET/stable).
func (m *Machine) Uses(uri string) {
	m.write(filepath.Join(m.Dir, "etc/portage/binrepos.conf/swarm.conf"),
		"[swarm]\npriority = 9999\nsync-uri = "+uri+"\nverify-signature = false\nlocation = "+m.Dir+"/var/cache/binhost/swarm\n")
}

// Run runs emerge, which has five minutes, and returns what it printed and its
// exit code: -1 when it had to be killed.
func (m *Machine) Run(args ...string) (string, int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.Emerge, append([]string{"--ignore-default-opts", "--color=n", "--nospinner", "--jobs=1"}, args...)...)
	cmd.Env = m.Environ
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(out), 0
	case errors.As(err, &exit):
		return string(out), exit.ExitCode()
	}
	m.t.Fatal(err)
	return "", 0
}

// Age lets the TTL of the indexes that it has cached run out.
func (m *Machine) Age() {
	m.t.Helper()
	err := filepath.WalkDir(filepath.Join(m.Dir, "var/cache/edb/binhost"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has cached none
		}
		if err != nil || d.Name() != "Packages" {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		before, rest, ok := strings.Cut(string(text), "DOWNLOAD_TIMESTAMP: ")
		if !ok {
			return nil
		}
		_, after, _ := strings.Cut(rest, "\n")
		if err := os.WriteFile(path, []byte(before+"DOWNLOAD_TIMESTAMP: 1\n"+after), 0o644); err != nil {
			return err
		}
		return os.Chtimes(path, time.Time{}, info.ModTime()) // Portage sets it to TIMESTAMP
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// Installed is the content of the file that a package installed, "" if none.
func (m *Machine) Installed(name string) string {
	b, err := os.ReadFile(filepath.Join(m.Dir, "usr/share", name))
	if err != nil {
		return ""
	}
	return string(b)
}

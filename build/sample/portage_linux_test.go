package sample

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRealPortageInstallsTheSamples gives samples to emerge -K, with a ROOT and
// a configuration of its own; nothing of the machine's is read or changed.
func TestRealPortageInstallsTheSamples(t *testing.T) {
	emerge, err := exec.LookPath("emerge")
	if err != nil {
		t.Skip("SKIPPED: no emerge on PATH")
	}
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can install into a ROOT")
	}
	if out, err := exec.Command("unshare", "-m", "sh", "-ec", "mount --bind /etc/portage /etc/portage").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no mount namespace with a bound /etc/portage: %v %s", err, out)
	}
	b := newBench(t, detect(t), Options{})
	root := t.TempDir()
	portageConfig(t, root, b.b.tools)
	for i := range b.plan.Jobs {
		j := &b.plan.Jobs[i]
		if j.CPV.Name == "sample-spectrum" || j.CPV.Name == "sample-sums" || j.CPV.Name == "sample-all" {
			continue // slow, or needs these
		}
		_, res := b.build(j)
		dir := filepath.Join(root, "pkgdir", j.CPV.Category, j.CPV.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(res.Path, filepath.Join(dir, filepath.Base(res.Path))); err != nil {
			t.Fatal(err)
		}
		b.paths[j.Key] = filepath.Join(dir, filepath.Base(res.Path))
	}
	run := func(name string, args ...string) string {
		t.Helper()
		// Portage reads the configuration of "/" too: it is shown this one, in a
		// mount namespace.
		cmd := exec.Command("unshare", append([]string{"-m", "sh", "-ec", `mount --bind "$ROOT/etc/portage" /etc/portage; exec "$0" "$@"`,
			filepath.Join(filepath.Dir(emerge), name)}, args...)...)
		cmd.Env = append(baseEnv("/root"), "PATH="+os.Getenv("PATH"), "ROOT="+root, "SYSROOT="+root, "PORTAGE_CONFIGROOT="+root,
			"PORTAGE_USERNAME=root", "PORTAGE_GRPNAME=root", "LC_ALL=C.UTF-8", "PYTHONUTF8=1", "NO_COLOR=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	run("emaint", "binhost", "--fix")
	run("emerge", "--ignore-default-opts", "-K", "--oneshot", "app-misc/sample-calc", "app-misc/sample-hello[color]",
		"app-misc/sample-menu")
	for _, want := range []struct {
		argv []string
		says string
	}{
		{[]string{"sample-calc", "1,2,3", "0,1,0"}, "3 1 2\n"},
		{[]string{"sample-hello", "you"}, "\x1b[1;32m"},
	} {
		cmd := exec.Command(filepath.Join(root, "usr/bin", want.argv[0]), want.argv[1:]...)
		cmd.Env = append(baseEnv(root), "LD_LIBRARY_PATH="+filepath.Join(root, "usr", b.b.tools.LibDir))
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want.says) {
			t.Errorf("%v: %v, %q", want.argv, err, out)
		}
	}
	// Taking a package away runs its saved environment again.
	run("emerge", "--ignore-default-opts", "--ask=n", "-C", "app-misc/sample-menu")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/sample-menu")); !os.IsNotExist(err) {
		t.Errorf("sample-menu is still there: %v", err)
	}
}

// portageConfig lays out the smallest configuration that Portage works with.
func portageConfig(t *testing.T, root string, tc Toolchain) {
	t.Helper()
	repo := filepath.Join(root, "repo")
	arch := "ARCH=\"" + tc.Arch + "\"\nACCEPT_KEYWORDS=\"" + tc.Arch + "\"\nCHOST=\"" + tc.CHOST + "\"\n"
	for name, text := range map[string]string{
		"repo/metadata/layout.conf":        "masters =\nthin-manifests = true\n",
		"repo/profiles/repo_name":          "empty\n",
		"repo/profiles/eapi":               "8\n",
		"repo/profiles/arch.list":          tc.Arch + "\n",
		"repo/profiles/categories":         "app-misc\n",
		"repo/profiles/base/make.defaults": arch,
		"repo/profiles/base/eapi":          "8\n",
		"repo/profiles/profiles.desc":      tc.Arch + " base stable\n",
		"repo/profiles/base/packages":      "",
		"etc/portage/repos.conf":           "[DEFAULT]\nmain-repo = empty\n[empty]\nlocation = " + repo + "\n",
		"etc/portage/make.conf": arch + "FEATURES=\"-sandbox -usersandbox -userpriv -userfetch -usersync -merge-sync -news -network-sandbox " +
			"-ipc-sandbox -pid-sandbox -mount-sandbox binpkg-multi-instance\"\nACCEPT_LICENSE=\"*\"\nCLEAN_DELAY=0\n" +
			"PKGDIR=\"" + root + "/pkgdir\"\nDISTDIR=\"" + root + "/distdir\"\nPORTAGE_TMPDIR=\"" + root + "/tmp\"\n",
		"tmp/.keep": "",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(repo, "profiles/base"), filepath.Join(root, "etc/portage/make.profile")); err != nil {
		t.Fatal(err)
	}
}

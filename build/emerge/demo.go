package emerge

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// The sample repository: a handful of small C packages as real ebuilds.
//
//go:embed demorepo
var demoRepository embed.FS

// DemoAtoms are the packages of the sample repository that ask for all of it.
func DemoAtoms() []string {
	return []string{"app-misc/tally-tools", "app-misc/tally-report", "app-misc/wordwrap"}
}

// DemoConfig lays out a Portage configuration below dir, which it makes if
// need be, with the sample repository: a Prefix that an ordinary user may use
// as well as root. It asks for nothing but emerge, Python, bash and a C
// compiler on the machine. The Config builds in a root of its own below dir.
func DemoConfig(dir string) (Config, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Config{}, fmt.Errorf("lay out sample configuration: %w", err)
	}
	if strings.ContainsAny(dir, " \t\n\"'$\\`:") {
		return Config{}, fmt.Errorf("lay out sample configuration: Portage cannot work below %q: no blanks, quotes or colons", dir)
	}
	if err := layOutPrefix(dir, ""); err != nil {
		return Config{}, err
	}
	repo := filepath.Join(dir, "repos", "swarm-demo")
	if err := writeTree(demoRepository, "demorepo", repo); err != nil {
		return Config{}, fmt.Errorf("lay out sample configuration: %w", err)
	}
	if err := WriteConfig(dir, []Repository{{Name: "swarm-demo", Path: repo}}); err != nil {
		return Config{}, err
	}
	return Config{ConfigRoot: dir, EPrefix: dir, BuildPrefix: filepath.Join(dir, "buildroot")}, nil
}

// sampleMark begins a make.conf that WriteConfig wrote.
const sampleMark = "# Written by swarm for its sample packages."

// HoldsConfig reports whether dir has a Portage configuration of somebody's own,
// one that WriteConfig did not write.
func HoldsConfig(dir string) (bool, error) {
	path := filepath.Join(dir, "etc/portage/make.conf")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if info, serr := os.Stat(path); serr == nil && info.IsDir() {
		return true, nil // it may be a directory, too
	}
	if err != nil {
		return false, fmt.Errorf("look for a Portage configuration: %w", err)
	}
	return !strings.HasPrefix(string(text), sampleMark), nil
}

// Repository is an ebuild repository of a configuration.
type Repository struct{ Name, Path string }

// WriteConfig writes etc/portage below dir for repositories of which the first
// has the profile "default". It overwrites what it wrote before. The machine's
// own ::gentoo is not among them: Portage knows it by default, so that an empty
// repository takes its name.
func WriteConfig(dir string, repos []Repository) error {
	if len(repos) == 0 {
		return errors.New("write Portage configuration: no repository")
	}
	etc := filepath.Join(dir, "etc/portage")
	if err := os.MkdirAll(filepath.Join(etc, "repos.conf"), 0o755); err != nil {
		return fmt.Errorf("write Portage configuration: %w", err)
	}
	empty := filepath.Join(dir, "repos/gentoo")
	for name, text := range map[string]string{
		"profiles/repo_name": "gentoo\n", "profiles/eapi": "8\n", "metadata/layout.conf": "masters =\nthin-manifests = true\n",
	} {
		path := filepath.Join(empty, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write Portage configuration: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write Portage configuration: %w", err)
		}
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, "[DEFAULT]\nmain-repo = %s\n", repos[0].Name)
	for _, r := range append(repos, Repository{Name: "gentoo", Path: empty}) {
		fmt.Fprintf(&conf, "\n[%s]\nlocation = %s\n", r.Name, r.Path)
	}
	arch, chost := machineArch()
	makeConf := fmt.Sprintf(sampleMark+`
ARCH="%s"
ACCEPT_KEYWORDS="%s"
CHOST="%s"
CFLAGS="-O2 -pipe"
ACCEPT_LICENSE="*"
FEATURES="-sandbox -usersandbox -userpriv -userfetch -usersync -news -merge-sync -merge-wait -network-sandbox -ipc-sandbox -pid-sandbox -mount-sandbox"
DISTDIR="%s/var/distfiles"
PKGDIR="%s/var/packages"
PORTAGE_TMPDIR="%s/var/tmp"
PORTAGE_LOGDIR="%s/var/log/portage"
`, arch, arch, chost, dir, dir, dir, dir)
	for name, text := range map[string]string{"repos.conf/swarm.conf": conf.String(), "make.conf": makeConf} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write Portage configuration: %w", err)
		}
	}
	profile := filepath.Join(etc, "make.profile")
	if err := os.Remove(profile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write Portage configuration: %w", err)
	}
	if err := os.Symlink(filepath.Join(repos[0].Path, "profiles/default"), profile); err != nil {
		return fmt.Errorf("write Portage configuration: %w", err)
	}
	return nil
}

// MachineArch is this machine's architecture, as Portage names it.
func MachineArch() string {
	arch, _ := machineArch()
	return arch
}

// machineArch is Gentoo's name of this architecture and its usual CHOST.
func machineArch() (arch, chost string) {
	switch runtime.GOARCH {
	case "amd64":
		return "amd64", "x86_64-pc-linux-gnu"
	case "386":
		return "x86", "i686-pc-linux-gnu"
	case "arm64":
		return "arm64", "aarch64-unknown-linux-gnu"
	case "arm":
		return "arm", "armv7a-unknown-linux-gnueabihf"
	case "riscv64":
		return "riscv", "riscv64-unknown-linux-gnu"
	case "ppc64le":
		return "ppc64", "powerpc64le-unknown-linux-gnu"
	case "loong64":
		return "loong", "loongarch64-unknown-linux-gnu"
	}
	return runtime.GOARCH, runtime.GOARCH + "-unknown-linux-gnu"
}

// HasCompiler reports whether the sample ebuilds find a C compiler.
func HasCompiler() bool {
	_, err := exec.LookPath("cc")
	return err == nil
}

// writeTree copies a directory of an embedded file system.
func writeTree(from fs.FS, root, to string) error {
	return fs.WalkDir(from, root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		b, err := fs.ReadFile(from, path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
}

package base

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build/emerge/sandbox"
)

// hostTools are the directories whose files, by name and size, are a host's
// state as far as builds see it.
var hostTools = []string{"/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/include", "/usr/local/bin", "/usr/local/lib", "/lib", "/lib64", "/bin", "/sbin"}

// HostState is a digest of what a machine's own root offers to builds: its
// programs and libraries by name and size, where they lie, and its installed
// packages. Two machines of one state are one base.
func HostState() (string, error) {
	h := sha256.New()
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		fmt.Fprintf(h, "release %q\n", b)
	}
	dirs := hostTools
	more, err := filepath.Glob("/usr/lib/*-linux-gnu*")
	if err != nil {
		return "", fmt.Errorf("look at this machine: %w", err)
	}
	compilers, err := filepath.Glob("/usr/lib/gcc/*/*")
	if err != nil {
		return "", fmt.Errorf("look at this machine: %w", err)
	}
	for _, dir := range slices.Concat(dirs, more, compilers) {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("look at this machine: %w", err)
		}
		for _, e := range entries {
			info, err := os.Stat(filepath.Join(dir, e.Name()))
			if err == nil && info.Mode().IsRegular() {
				fmt.Fprintf(h, "%s %d\n", filepath.Join(dir, e.Name()), info.Size())
			}
		}
	}
	packages, err := Packages("/")
	if err != nil {
		return "", err
	}
	for _, p := range List(packages) {
		fmt.Fprintf(h, "%s %s %s %s\n", p.CPV, p.Slot, p.Repo, strings.Join(p.USE, " "))
	}
	return "host:" + hex.EncodeToString(h.Sum(nil)[:20]), nil
}

// covered are the directories of a machine that no build has any business in.
var covered = []string{
	"/root", "/home", "/srv", "/boot", "/mnt", "/media", "/lost+found", "/tmp", "/run", "/var/tmp", "/var/log", "/var/mail", "/var/spool",
	"/var/lib/swarm", "/var/lib/private", "/etc/swarm", "/etc/ssh", "/etc/ssl/private", "/etc/portage", "/etc/sudoers.d", "/etc/NetworkManager",
	"/etc/wireguard", "/etc/openvpn", "/etc/letsencrypt", "/var/cache/distfiles", "/var/cache/binpkgs", "/var/db/repos",
}

// machine is this machine's root as a layer: without what is covered and what
// the caller hides, and with password files that hold no passwords.
func machine(hide []string) (*sandbox.Machine, error) {
	m := &sandbox.Machine{Hide: slices.Concat(covered, hide, []string{"/etc/shadow-", "/etc/gshadow-"})}
	for _, f := range []struct{ names, secrets, rest string }{{"/etc/passwd", "/etc/shadow", ":*:19000:0:99999:7:::\n"}, {"/etc/group", "/etc/gshadow", ":*::\n"}} {
		text, err := locked(f.names, f.rest)
		if err != nil {
			return nil, fmt.Errorf("cover %s: %w", f.secrets, err)
		}
		m.Files = append(m.Files, sandbox.File{Path: f.secrets, Data: []byte(text), Mode: 0o640})
	}
	return m, nil
}

// locked makes a password file with an entry for each name, and no password.
func locked(names, rest string) (string, error) {
	f, err := os.Open(names)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b strings.Builder
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, _, ok := strings.Cut(lines.Text(), ":"); ok && name != "" {
			b.WriteString(name + rest)
		}
	}
	return b.String(), lines.Err()
}

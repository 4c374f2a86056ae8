package update

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Left is what an update leaves for the machine's owner, a line each, with the
// command that deals with it.
func Left(eroot string, protect []string, updated []string) []string {
	var out []string
	if n := configs(eroot, protect); n > 0 {
		out = append(out, fmt.Sprintf("%d configuration files wait to be merged: dispatch-conf, or etc-update", n))
	}
	if libs := preserved(eroot); libs > 0 {
		out = append(out, fmt.Sprintf("%d old libraries are kept for packages that still use them: emerge --usepkgonly @preserved-rebuild", libs))
	}
	if n := news(eroot); n > 0 {
		out = append(out, fmt.Sprintf("%d news items are unread: eselect news read", n))
	}
	if k := kernels(updated); len(k) > 0 {
		running := "another one"
		var u unix.Utsname
		if unix.Uname(&u) == nil {
			running = unix.ByteSliceToString(u.Release[:])
		}
		out = append(out, fmt.Sprintf("a kernel came with it (%s) and %s runs: build and start it when it suits you", strings.Join(k, ", "), running))
	}
	return out
}

var cfgFile = regexp.MustCompile(`^\._cfg\d{4}_`)

// configs counts the files that emerge put beside protected ones.
func configs(eroot string, protect []string) int {
	n := 0
	seen := map[string]bool{}
	for _, dir := range protect {
		root := filepath.Join(eroot, dir)
		// What cannot be read is somebody else's.
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && cfgFile.MatchString(d.Name()) && !seen[path] {
				seen[path] = true
				n++
			}
			return nil
		})
	}
	return n
}

// preserved counts the libraries in Portage's registry of those it kept.
func preserved(eroot string) int {
	b, err := os.ReadFile(filepath.Join(eroot, "var/lib/portage/preserved_libs_registry"))
	if err != nil {
		return 0
	}
	// {"cat/name:slot": ["cpv", "counter", ["/usr/lib/libx.so.1", ...]]}
	var reg map[string]json.RawMessage
	if json.Unmarshal(b, &reg) != nil {
		return 0
	}
	n := 0
	for _, raw := range reg {
		var e []json.RawMessage
		var paths []string
		if json.Unmarshal(raw, &e) == nil && len(e) == 3 && json.Unmarshal(e[2], &paths) == nil {
			n += len(paths)
		}
	}
	return n
}

// news counts unread items of all repositories.
func news(eroot string) int {
	files, err := filepath.Glob(filepath.Join(eroot, "var/lib/gentoo/news/news-*.unread"))
	if err != nil {
		return 0
	}
	n := 0
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			if strings.TrimSpace(sc.Text()) != "" {
				n++
			}
		}
		if errors.Join(sc.Err(), f.Close()) != nil {
			return n
		}
	}
	return n
}

// kernels are the updated packages that are one: sources, or a built one.
func kernels(updated []string) []string {
	var out []string
	for _, name := range updated {
		pf, ok := strings.CutPrefix(name, "sys-kernel/")
		if ok && !strings.HasPrefix(pf, "linux-headers") && !strings.HasPrefix(pf, "linux-firmware") && !strings.HasPrefix(pf, "installkernel") && !strings.HasPrefix(pf, "dracut") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

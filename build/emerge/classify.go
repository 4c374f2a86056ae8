package emerge

import (
	"bytes"
	"cmp"
	"regexp"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// Portage ends with 1 whatever went wrong, so that its output is all there is
// to tell a broken package from a full disk. The table is read top to bottom;
// what the machine did wrong stands first, since a full disk also prints
// compiler errors.
var signs = []struct {
	class  build.Class
	re     *regexp.Regexp
	reason string // "" = the matching line itself
}{
	{build.BadMachine, regexp.MustCompile(`No space left on device|Disk quota exceeded`), "no space left on the device"},
	{build.BadMachine, regexp.MustCompile(`(?i)illegal instruction`), "illegal instruction: this processor lacks one that the build runs"},
	{build.BadMachine, regexp.MustCompile(`virtual memory exhausted|Cannot allocate memory|out of memory allocating|Killed signal terminated program|\bfatal error: Killed\b|LLVM ERROR: out of memory|std::bad_alloc`), "out of memory"},
	{build.BadMachine, regexp.MustCompile(`There is NOT at least|Build requirements not met|Space constraints set in the ebuild were not met`), ""},
	{build.BadMachine, regexp.MustCompile(`Too many open files|Resource temporarily unavailable|Cannot fork|Read-only file system|Input/output error`), ""},
	{build.BadMachine, regexp.MustCompile(`unable to find kernel sources|Kernel config does not exist|ERROR: .*\(pretend phase\)`), ""},
	{build.BadMachine, regexp.MustCompile(`superuser access is required|portage group access is required|Permission denied: '|Operation not permitted: '`), ""},
	{build.BadMachine, regexp.MustCompile(`bash process substitution doesn't work|Failed to validate a sane '/dev'`), ""},
	{build.BadMachine, regexp.MustCompile(`requires all dependencies to be merged|there are no (ebuilds|binary packages) to satisfy|have been masked|not in this machine's repositories`), ""},
	{build.BadNetwork, regexp.MustCompile(`Couldn't download|Fetch failed for|Failed to fetch|!!! Fetched file:|Unable to resolve host|Temporary failure in name resolution`), ""},
}

// fullDisk is the place of that sign.
const fullDisk = 0

// spaceRE is how check-reqs.eclass says what an ebuild wants.
var spaceRE = regexp.MustCompile(`There is NOT at least ([0-9]{1,7}) ([MGT])iB disk space`)

// spaceOf is how much disk a line says is wanted, in MiB; 0 = it says no such thing.
func spaceOf(line string) int64 {
	m := spaceRE.FindStringSubmatch(line)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0
	}
	return n << map[string]int{"M": 0, "G": 10, "T": 20}[m[2]]
}

// portageLine matches lines by which Portage or an ebuild says what failed.
var (
	diedRE  = regexp.MustCompile(`^ ?\* ERROR: (\S+) failed \((\S+) phase\):`)
	errorRE = regexp.MustCompile(`(?i)(\berror:|^make(\[\d+\])?: \*\*\*|undefined reference|: command not found$|^!!! )`)
	noiseRE = regexp.MustCompile(`^!!! (Section|Repository|Invalid Repository|Set 'masters|CONFIG_PROTECT is empty)`)
)

// saidNothing is what Portage prints for a bare "die".
const saidNothing = "(no error message)"

// classify says what a failed run of emerge came to, from the end of its
// output: a class and one line that quotes the first real error.
func classify(output []byte) *build.Failure {
	var died, first, before, after, last string
	wantAfter := false
	fail := func(c build.Class, reason string) *build.Failure {
		return &build.Failure{Class: c, Reason: build.OneLine(reason, 300)}
	}
	found := make([]string, len(signs))
	for raw := range bytes.Lines(output) {
		line := strings.TrimSpace(string(stripANSI(raw)))
		if line == "" || noiseRE.MatchString(line) {
			continue
		}
		prior := last
		last = line
		for i, s := range signs {
			if found[i] == "" && s.re.MatchString(line) {
				found[i] = line
			}
		}
		switch {
		case wantAfter:
			if t := strings.TrimSpace(strings.TrimPrefix(line, "*")); t != "" && after == "" {
				after = t
			}
			wantAfter = false
		case died == "" && diedRE.MatchString(line):
			died, before, wantAfter = line, prior, true
		case first == "" && died == "" && errorRE.MatchString(line):
			first = line
		}
	}
	for i, s := range signs {
		if found[i] == "" {
			continue
		}
		f := fail(s.class, cmp.Or(s.reason, strings.TrimSpace(strings.TrimLeft(found[i], "*! "))))
		if f.SpaceMiB = spaceOf(found[i]); i == fullDisk {
			f.SpaceMiB = build.Unsaid
		}
		return f
	}
	phase := ""
	if m := diedRE.FindStringSubmatch(died); m != nil {
		phase = m[2] + " phase: "
	}
	switch {
	case first != "":
		return fail(build.BadPackage, phase+strings.TrimLeft(first, "*! "))
	case before != "" && after == saidNothing:
		return fail(build.BadPackage, phase+before) // what failed has spoken for itself
	case after != "":
		return fail(build.BadPackage, phase+after)
	case last != "":
		return fail(build.BadPackage, last)
	}
	return fail(build.BadMachine, "emerge failed without a word")
}

// ansiRE matches terminal escapes; NO_COLOR keeps most away, not all.
var ansiRE = regexp.MustCompile("\x1b(\\[[0-9;?]*[ -/]*[@-~]|\\][^\x07\x1b]*(\x07|\x1b\\\\)|[@-Z\\\\-_])")

func stripANSI(b []byte) []byte {
	if bytes.IndexByte(b, 0x1b) < 0 {
		return b
	}
	return ansiRE.ReplaceAll(b, nil)
}

// phaseOf names the phase that begins with a line of Portage's output, or "".
func phaseOf(line []byte) string {
	s, ok := bytes.CutPrefix(line, []byte(">>> "))
	if !ok {
		return ""
	}
	for _, p := range phases {
		if bytes.HasPrefix(s, []byte(p.prefix)) {
			return p.name
		}
	}
	return ""
}

var phases = []struct{ prefix, name string }{
	{"Downloading", "fetch"}, {"Unpacking source", "unpack"}, {"Preparing source", "prepare"},
	{"Configuring source", "configure"}, {"Compiling source", "compile"}, {"Test phase:", "test"},
	{"Install ", "install"}, {"Creating binpkg", "package"}, {"Building (", "package"},
}

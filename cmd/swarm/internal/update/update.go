// Package update is what `swarm update` does on a machine that installs from
// the swarm: it reads what emerge says it would do and does, follows a
// release's tree, reads what is installed, and finds what is left for the
// machine's owner. emerge itself decides and installs; nothing of it is done
// again here.
//
// What emerge prints is read by patterns that it has had for twenty years
// ("[binary", "[ebuild", ">>> Completed (3 of 83)"). A line that is not
// understood is only not counted.
package update

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// Task is one line of `emerge --pretend`.
type Task struct {
	Name   string // category/name-version
	Binary bool   // else it would be compiled here
	Down   bool   // to an older version
}

var taskLine = regexp.MustCompile(`^\[(ebuild|binary)\s+([^\]]*)\]\s+(\S+)`)

// Tasks reads the list that emerge --pretend prints.
func Tasks(text string) []Task {
	var out []Task
	for line := range strings.Lines(text) {
		m := taskLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		name, _, _ := strings.Cut(m[3], "::")
		name, _, _ = strings.Cut(name, ":")
		out = append(out, Task{Name: withoutBuildID(name), Binary: m[1] == "binary", Down: strings.Contains(m[2], "D")})
	}
	return out
}

// withoutBuildID takes the "-BUILD_ID" off that a binary package's version has.
func withoutBuildID(name string) string {
	if _, err := build.ParseCPV(name); err == nil {
		return name
	}
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		if _, err := build.ParseCPV(name[:i]); err == nil {
			return name[:i]
		}
	}
	return name
}

// Step is how far a running emerge is.
type Step struct {
	Done, Total int
	Name        string // what it is at, or has just done
	Completed   bool   // Name is done
	Compiled    bool   // with Completed false: it is compiled, not unpacked
}

var stepLine = regexp.MustCompile(`^>>> (Emerging binary|Emerging|Completed) \((\d+) of (\d+)\) (\S+)`)

// ParseStep reads one line of a running emerge; false for all but those that
// tell of progress.
func ParseStep(line string) (Step, bool) {
	m := stepLine.FindStringSubmatch(line)
	if m == nil {
		return Step{}, false
	}
	n, err1 := strconv.Atoi(m[2])
	total, err2 := strconv.Atoi(m[3])
	if err1 != nil || err2 != nil {
		return Step{}, false
	}
	name, _, _ := strings.Cut(m[4], "::")
	s := Step{Done: n - 1, Total: total, Name: name, Completed: m[1] == "Completed", Compiled: m[1] == "Emerging"}
	if s.Completed {
		s.Done = n
	}
	return s, true
}

package view

import (
	"strings"

	"github.com/build-swarm/swarm/build"
)

// logPhases are Portage's own words for where a build is, and what they are
// called here.
var logPhases = []struct{ begins, name string }{
	{"Unpacking source", "unpack"}, {"Preparing source", "prepare"}, {"Configuring source", "configure"}, {"Compiling source", "compile"},
	{"Test phase", "test"}, {"Install ", "install"}, {"Building package", "package"}, {"Verifying", "verify"}, {"Downloading", "fetch"},
}

// LogPhase is the phase that a line of a build log begins, or "": Portage's
// messages, and the built-in builder's ">>> CPV: phase".
func LogPhase(line string) string {
	s, ok := strings.CutPrefix(line, ">>> ")
	if !ok {
		return ""
	}
	for _, p := range logPhases {
		if strings.HasPrefix(s, p.begins) {
			return p.name
		}
	}
	if name, phase, ok := strings.Cut(s, ": "); ok && phase != "" && len(phase) <= 24 && !strings.Contains(phase, " ") {
		if _, err := build.ParseCPV(name); err == nil {
			return phase
		}
	}
	return ""
}

// errorSigns are what compilers, linkers, make and the kernel write before the
// reason.
var errorSigns = []string{"error: ", "Error: ", "ERROR: ", "undefined reference to", "No space left on device", "Killed signal", "internal compiler error", "*** ["}

// LogError reports whether a line of a build log reads as the reason why the
// build failed. Only the first thousand bytes are looked at.
func LogError(line string) bool {
	line = line[:min(len(line), 1000)]
	for _, s := range []string{" * ERROR:", "FAILED: ", "CMake Error", "Traceback (most recent"} {
		if strings.HasPrefix(line, s) {
			return true
		}
	}
	for _, s := range errorSigns {
		if i := strings.Index(line, s); i >= 0 && !strings.Contains(line, "-Werror: ") {
			return i == 0 || !isLetter(line[i-1])
		}
	}
	return false
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }

package view_test

import (
	"testing"

	"github.com/build-swarm/swarm/build/view"
)

func TestALogLineBeginsAPhaseOrNames(t *testing.T) {
	for line, want := range map[string]string{
		">>> Compiling source in /var/tmp/portage/app-misc/jq-1.7/work ...": "compile",
		">>> Install app-misc/jq-1.7 into /var/tmp/image":                   "install",
		">>> dev-libs/sample-dft-0.9: compile":                              "compile",
		">>> Emerging (1 of 1) app-misc/jq-1.7::gentoo":                     "",
		"Compiling source":  "",
		">>> x: not a name": "",
	} {
		if got := view.LogPhase(line); got != want {
			t.Errorf("%q begins %q, want %q", line, got, want)
		}
	}
}

func TestALogLineReadsAsTheReason(t *testing.T) {
	for line, want := range map[string]bool{
		"main.c:3:10: error: unknown type name 'foo'":                        true,
		" * ERROR: app-misc/jq-1.7::gentoo failed (compile phase):":          true,
		"make: *** [Makefile:12: all] Error 2":                               true,
		"ld: main.o: undefined reference to `swlib_new'":                     true,
		"cp: write error: No space left on device":                           true,
		"gcc -Werror: -o x":                                                  false,
		"checking for strerror: yes":                                         false,
		"test_error: ok":                                                     false,
		"0 errors, 3 warnings":                                               false,
		"cc1: warning: command-line option '-Wno-error' ignored for Fortran": false,
	} {
		if got := view.LogError(line); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}

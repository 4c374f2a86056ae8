package cli

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestMakeConfIsReadAsPortageReadsIt(t *testing.T) {
	for text, want := range map[string]string{
		"FEATURES=\"a getbinpkg\"\n":                                    "a getbinpkg",
		"# FEATURES=getbinpkg\nCFLAGS='-O2 # no'\n":                     "",
		"FEATURES=\"getbinpkg\"\nFEATURES=\"ccache\"\n":                 "ccache",
		"FEATURES=\"getbinpkg\"\nFEATURES=\"${FEATURES} ccache\"\n":     "getbinpkg ccache",
		"FEATURES=\"getbinpkg\"\nFEATURES=\"$FEATURES -getbinpkg b\"\n": "b",
		"FEATURES=\"\n  getbinpkg\n  test\n\"\n":                        "getbinpkg test",
		"FEATURES=one\\ getbinpkg USE=\"a b\"\nsource /etc/x\n":         "one getbinpkg",
		"X='it''s' FEATURES=\"-* getbinpkg\"":                           "getbinpkg",
		"A=b#c FEATURES=d":                                              "d",
	} {
		list, err := assignments(text)
		if got := strings.Join(featuresIn(list, nil), " "); err != nil || got != want {
			t.Errorf("%q: FEATURES %q, %v, want %q", text, got, err, want)
		}
	}
	for text, line := range map[string]int{"CFLAGS=\"-O2\n": 1, "A=1\n\nB='x\ny\n": 3} {
		if _, err := assignments(text); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("line %d", line)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzMakeConf(f *testing.F) {
	f.Add("FEATURES=\"a ${FEATURES}\" X='y'\n# z\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := assignments(text)
		if err != nil {
			return
		}
		if on := featuresIn(list, nil); slices.Contains(on, "") || len(strings.Join(on, "")) > len(text)*len(text)+len(text) {
			t.Errorf("%q", on)
		}
	})
}

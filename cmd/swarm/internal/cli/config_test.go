package cli

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAPeerHasAtMostTwentyFiveSettings(t *testing.T) {
	var names []string
	for _, f := range runFlags() {
		if name := f.Names()[0]; name != "config" { // which says where they are
			names = append(names, name)
		}
	}
	if slices.Sort(names); len(names) > maxSettings || len(slices.Compact(names)) != len(names) {
		t.Errorf("%d settings, at most %d: %s", len(names), maxSettings, strings.Join(names, " "))
	}
	// Completion and the manual are made of the same list.
	app := newApp(&env{}, nil, io.Discard, io.Discard)
	for shell, script := range map[string]string{"bash": completeBash(app), "fish": completeFish(app)} {
		for _, name := range names {
			if !strings.Contains(script, name) {
				t.Errorf("the completion of %s does not know --%s", shell, name)
			}
		}
	}
}

func TestSettingsThatSayTwoThings(t *testing.T) {
	for in, want := range map[string][2][]string{
		"127.0.0.1:8090":            {{"127.0.0.1:8090"}, nil},
		"0.0.0.0:8090 nas.lan":      {{"0.0.0.0:8090"}, {"nas.lan"}},
		"nas.lan":                   {{defaultGateway}, {"nas.lan"}},
		"[::1]:80 nas:8090 a b.lan": {{"[::1]:80", "nas:8090"}, {"a", "b.lan"}},
		"":                          {nil, nil},
	} {
		listen, names := gatewayAddrs(strings.Split(in, " "))
		if d := cmp.Diff(want, [2][]string{listen, names}); d != "" {
			t.Errorf("--gateway %q: %s", in, d)
		}
	}
	for in, want := range map[string]struct {
		rate    int64
		metered bool
		ok      bool
	}{"0": {0, false, true}, "5M": {5 << 20, false, true}, "metered": {0, true, true}, "metered:5M": {5 << 20, true, true}, "metred": {}, "metered:": {}, "metered:x": {}} {
		rate, metered, err := parseCopyRate(in)
		if (err == nil) != want.ok || want.ok && (rate != want.rate || metered != want.metered) {
			t.Errorf("--copy-rate %q: %d, %v, %v", in, rate, metered, err)
		}
	}
	for in, want := range map[string]struct {
		quota  int64
		stores bool
		ok     bool
	}{"0": {0, true, true}, "50G": {50 << 30, true, true}, "none": {0, false, true}, "nothing": {}} {
		quota, stores, err := parseQuota(in)
		if (err == nil) != want.ok || want.ok && (quota != want.quota || stores != want.stores) {
			t.Errorf("--quota %q: %d, %v, %v", in, quota, stores, err)
		}
	}
}

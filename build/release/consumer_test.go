package release

import (
	"errors"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
)

// has makes a consumer's set: "category/name-version slot/sub RDEPEND".
func has(t testing.TB, name string, lines ...string) Consumer {
	t.Helper()
	s := &Installed{Target: "desktop", World: []string{"app-misc/app"}}
	for _, l := range lines {
		f := strings.SplitN(l, " ", 3)
		c, err := build.ParseCPV(f[0])
		if err != nil {
			t.Fatal(err)
		}
		p := InstalledPackage{CPV: c, Slot: f[1]}
		if len(f) == 3 {
			p.Meta = []build.Pair{{Name: "RDEPEND", Value: f[2]}}
		}
		s.Packages = append(s.Packages, p)
	}
	s.Sort()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return Consumer{Name: name, Set: s}
}

func TestALibraryInAnotherSubslotEntersWithAllItsRebuiltDependantsOrNotAtAll(t *testing.T) {
	desktop := has(t, "desktop", "dev-libs/lib-1 0/1", "app-misc/app-1 0 dev-libs/lib:0/1=", "app-misc/other-3 0 dev-libs/lib:0/1=")
	lib := entry(t, "lib2", "dev-libs/lib-2", "0/2", "", "")
	app := entry(t, "app@2", "app-misc/app-1", "0", "", "dev-libs/lib:0/2=", "lib2")
	other := entry(t, "other@2", "app-misc/other-4", "0", "", ">=dev-libs/lib-1:0/2=", "lib2")

	opt := Options{Consumers: []Consumer{desktop}}
	m, held := compose(t, nil, opt, lib, app)
	equal(t, len(m.Entries), 0)
	equal(t, reasons(held), []string{
		"app-misc/app-1: needs dev-libs/lib-2, which is not in the release",
		"dev-libs/lib-2: app-misc/other-3, installed on desktop, was built against dev-libs/lib:0/1 and its rebuild is not in the release",
	})
	m, held = compose(t, nil, opt, lib, app, other)
	equal(t, names(m), []string{"app-misc/app-1", "app-misc/other-4", "dev-libs/lib-2"})
	equal(t, len(held), 0)

	// Built for other flags than the installed one has, it is no rebuild of it.
	ssl := entry(t, "other@2ssl", "app-misc/other-3", "0", "ssl", "dev-libs/lib:0/2=", "lib2")
	ssl.Artifact.Meta = append(ssl.Artifact.Meta[:2:2], append([]build.Pair{{Name: "IUSE", Value: "ssl"}}, ssl.Artifact.Meta[2:]...)...)
	m, _ = compose(t, nil, opt, lib, app, ssl)
	equal(t, len(m.Entries), 0)
}

// A kernel that its owner builds by hand, say: the consumer needs no package for
// it, in whichever slot it is asked for.
func TestWhatAConsumerProvidesItselfHoldsNothingBack(t *testing.T) {
	app := entry(t, "app", "app-misc/app-2", "0", "", ">=dev-libs/byhand-2:3/4")
	for version, want := range map[string]int{"": 0, "1": 0, "2": 1, "2.5-r1": 1} {
		c := has(t, "desktop", "app-misc/app-1 0")
		if version != "" {
			c.Set.Provided = []build.CPV{{Category: "dev-libs", Name: "byhand", Version: version}}
		}
		m, held := compose(t, nil, Options{Consumers: []Consumer{c}}, app)
		if len(m.Entries) != want || len(held) != 1-want {
			t.Errorf("provided in version %q: %v is released, %v held back", version, names(m), reasons(held))
		}
	}
}

func TestARebuildThatStandsInTheReleaseAlreadyLetsTheLibraryIn(t *testing.T) {
	prev, _ := compose(t, nil, Options{}, entry(t, "lib2", "dev-libs/lib-2", "0/2", "", ""), entry(t, "app@2", "app-misc/app-2", "0", "", "dev-libs/lib:0/2=", "lib2"))
	laptop := has(t, "laptop", "dev-libs/lib-1 0/1", "app-misc/app-1 0 dev-libs/lib:0/1=")
	m, held := compose(t, &prev, Options{Consumers: []Consumer{laptop}}, entry(t, "lib2.1", "dev-libs/lib-2.1", "0/2", "", ""))
	equal(t, len(held), 0)
	equal(t, len(m.Entries), 3)
}

func TestWhatAConsumerHasInstalledMeetsNeeds(t *testing.T) {
	desktop := has(t, "desktop", "dev-libs/lib-1 0/1", "dev-libs/alt-3 0", "app-misc/app-1 0")
	for dep, why := range map[string]string{
		">=dev-libs/lib-1:0/1=":                      "",
		"dev-libs/lib:0/2=":                          "needs dev-libs/lib:0/2=, which neither the release nor desktop has",
		">=dev-libs/lib-2":                           "needs >=dev-libs/lib-2, which neither the release nor desktop has",
		"|| ( dev-libs/none dev-libs/alt )":          "",
		"|| ( dev-libs/none <dev-libs/alt-3 )":       "needs one of dev-libs/none, <dev-libs/alt-3, which neither the release nor desktop has",
		"!dev-libs/lib ssl? ( dev-libs/none )":       "",
		"( dev-libs/lib ( dev-libs/none ) )":         "needs dev-libs/none, which neither the release nor desktop has",
		"=dev-libs/lib-1* ~dev-libs/alt-3":           "",
		"virtual/nothing[ssl] ||":                    "needs virtual/nothing[ssl], which neither the release nor desktop has",
		strings.Repeat("( ", 5000) + "dev-libs/none": "",
	} {
		m, held := compose(t, nil, Options{Consumers: []Consumer{desktop}}, entry(t, "app", "app-misc/app-2", "0", "", dep))
		got := ""
		if len(held) > 0 {
			got = held[0].Reason
		}
		if got != why {
			t.Errorf("%.60s: held back: %q, want %q", dep, got, why)
		}
		if (got == "") != (len(m.Entries) == 1) {
			t.Errorf("%.60s: %d entries", dep, len(m.Entries))
		}
	}
}

func TestANewPackageNeedsOneConsumerThatCanTakeIt(t *testing.T) {
	desktop, laptop := has(t, "desktop", "dev-libs/lib-1 0/1"), has(t, "laptop", "dev-libs/zlib-1 0")
	app := entry(t, "app", "app-misc/app-2", "0", "", "dev-libs/lib:0/1=")
	_, held := compose(t, nil, Options{Consumers: []Consumer{laptop, desktop}}, app)
	equal(t, len(held), 0)
	_, held = compose(t, nil, Options{Consumers: []Consumer{laptop}}, app)
	equal(t, reasons(held), []string{"app-misc/app-2: needs dev-libs/lib:0/1=, which neither the release nor laptop has"})
	// One that has an older one installed will get it, so it has to be able to.
	laptop = has(t, "laptop", "dev-libs/zlib-1 0", "app-misc/app-1 0")
	_, held = compose(t, nil, Options{Consumers: []Consumer{desktop, laptop}}, app)
	equal(t, len(held), 1)
}

func TestAnInstalledSetIsWrittenReadAndChecked(t *testing.T) {
	set := has(t, "desktop", "dev-libs/lib-1 0/1", "app-misc/app-1 0 dev-libs/lib:0/1=").Set
	b, err := set.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeInstalled(b)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, back, set)
	bad := *set
	bad.Packages = append([]InstalledPackage(nil), set.Packages...)
	bad.Packages[0].Meta = []build.Pair{{Name: "CONTENTS", Value: "obj /etc/shadow"}}
	if _, err := bad.Encode(); !errors.Is(err, ErrInvalid) {
		t.Errorf("a file list is published: %v", err)
	}
}

func FuzzDecodeInstalled(f *testing.F) {
	set := Installed{Target: "t", World: []string{"a/b"}, Packages: []InstalledPackage{{CPV: build.CPV{Category: "a", Name: "b", Version: "1"}, Slot: "0"}}}
	b, err := set.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeInstalled(b)
		if err == nil {
			if err := s.Validate(); err != nil {
				t.Error(err)
			}
		}
	})
}

package daemon

import (
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/httpgateway/binhost"
)

func TestADoctorNamesWhatThePackageOfAReleaseDiffersIn(t *testing.T) {
	p := agenttest.Start(t, t.TempDir())
	want := agenttest.Job(t, "app")
	want.IUSE, want.USE = []string{"doc", "gui"}, []string{"gui"}
	entry := func(change func(*release.Entry)) *release.Manifest {
		e := release.Entry{Key: build.Key(strings.Repeat("1", 64)), CPV: want.CPV, Slot: want.Slot,
			Artifact: build.Artifact{Meta: []build.Pair{{Name: "IUSE", Value: "doc gui"}, {Name: "USE", Value: "gui"}}}}
		change(&e)
		return &release.Manifest{Entries: []release.Entry{e}}
	}
	for name, c := range map[string]struct {
		change   func(*release.Entry)
		kind, do string
	}{
		"the same":       {func(e *release.Entry) { e.Key = want.Key }, "", ""},
		"USE":            {func(e *release.Entry) { e.Artifact.Meta[1].Value = "doc" }, "use", "in package.use: =app-misc/app-1 doc -gui"},
		"version":        {func(e *release.Entry) { e.CPV.Version = "0.9" }, "version", "swarm sync-verify, or swarm fresh"},
		"slot":           {func(e *release.Entry) { e.CPV.Version, e.Slot = "0.9", "5" }, "slot", "swarm fresh"},
		"configuration":  {func(*release.Entry) {}, "configuration", "swarm fresh"},
		"something else": {func(e *release.Entry) { e.CPV.Name = "other" }, "never", "swarm fresh"},
	} {
		p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
			l, served := lack(r, now, entry(c.change), &want)
			if l.Kind != c.kind || l.Do != c.do || served != (c.kind == "") {
				t.Errorf("%s: %+v, served %t", name, l, served)
			}
			return nil
		})
	}
}

func TestOfOneVersionTheBuildThatIsNewerWins(t *testing.T) {
	entry := func(name, built string) release.Entry {
		return release.Entry{CPV: build.CPV{Category: "cat", Name: name, Version: "1"}, Artifact: build.Artifact{Meta: []build.Pair{{Name: "BUILD_TIME", Value: built}}}}
	}
	m := &release.Manifest{Entries: []release.Entry{entry("newer", "100"), entry("older", "100"), entry("same", "100"), entry("two", "100"), entry("two", "300")}}
	own := &binhost.Packages{Entries: []binhost.Block{
		{"CPV": "cat/newer-1", "BUILD_TIME": "200", "PATH": "cat/newer/newer-1-1.gpkg.tar"},
		{"CPV": "cat/older-1", "BUILD_TIME": "50", "PATH": "p"},
		{"CPV": "cat/same-1", "BUILD_TIME": "100", "PATH": "p"},
		{"CPV": "cat/two-1", "BUILD_TIME": "200", "PATH": "p"},
		{"CPV": "cat/other-1", "BUILD_TIME": "200", "PATH": "p"},
		{"CPV": "cat/newer-1", "BUILD_TIME": "300", "PATH": "../../etc/passwd"},
	}}
	got := winners(own, m, "/pkg")
	want := []control.Winner{{CPV: "cat/newer-1", Path: "/pkg/cat/newer/newer-1-1.gpkg.tar", NewerMS: 100_000}, {CPV: "cat/newer-1", Path: "/pkg/etc/passwd", NewerMS: 200_000}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

package httpgateway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/httpgateway/binhost"
	"github.com/build-swarm/swarm/httpgateway/httpgatewaytest"
)

// requests is a log handler that keeps "STATUS PATH" of each request.
type requests struct {
	mu   sync.Mutex
	list []string
}

func (r *requests) Enabled(context.Context, slog.Level) bool { return true }
func (r *requests) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *requests) WithGroup(string) slog.Handler            { return r }
func (r *requests) Handle(_ context.Context, rec slog.Record) error {
	if rec.Message != "request" {
		return nil
	}
	var path, status string
	rec.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "path":
			path = a.Value.String()
		case "status":
			status = a.Value.String()
		}
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, status+" "+strings.TrimPrefix(path, "/desktop/stable/"))
	return nil
}

// take returns what was asked since it was called last.
func (r *requests) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.list
	r.list = nil
	return out
}

// The real emerge against the gateway. Each step is what a person or a machine
// of the swarm does; what emerge must never do is hang, print a traceback, or
// compile.
func TestRealEmergeInstallsFollowsAndGoesBack(t *testing.T) {
	m := httpgatewaytest.NewMachine(t)
	cat := httpgatewaytest.New(t)
	asked := &requests{}
	g, addr, stop := serve(t, cat, func(c *httpgateway.Config) {
		c.Log, c.CacheDir = slog.New(asked), filepath.Join(m.Dir, "cache")
		c.Patience, c.Stall = 5*time.Second, 5*time.Second
	})
	defer func() { _ = stop() }()
	m.Uses("http://" + addr + "/desktop/stable")
	now := time.Now().Add(-time.Hour)
	tick := func() time.Time { now = now.Add(time.Minute); return now }

	thing1, thing2 := httpgatewaytest.Ebuild{CPV: "sw-test/thing-1.0"}, httpgatewaytest.Ebuild{CPV: "sw-test/thing-2.0"}
	flags := httpgatewaytest.Ebuild{CPV: "sw-test/flags-1.0", IUSE: "extra"}
	m.Commit(thing1, flags)
	put := func(b httpgatewaytest.Build) release.Entry {
		data, e := m.Package(b)
		cat.PutLocal(data)
		return e
	}
	one := put(httpgatewaytest.Build{Ebuild: thing1, Time: 1000, Content: "one"})
	plainUSE := put(httpgatewaytest.Build{Ebuild: flags, Time: 1000, Content: "plain"})
	extraUSE := put(httpgatewaytest.Build{Ebuild: flags, USE: "extra", Time: 1001, Content: "extra"})
	emerge := func(step string, rc int, args ...string) string {
		t.Helper()
		out, code := m.Run(args...)
		if code != rc || strings.Contains(out, "Traceback") {
			t.Fatalf("%s: emerge %v ended with %d, want %d:\n%s\n%v", step, args, code, rc, out, asked.take())
		}
		return out
	}
	update := []string{"--update", "--deep", "--newuse", "--getbinpkg", "--binpkg-respect-use=y", "--binpkg-changed-deps=y"}
	first := cat.Publish("desktop", tick(), one, plainUSE, extraUSE)

	t.Log("a release is installed")
	asked.take()
	emerge("install", 0, append(update, "sw-test/thing")...)
	equal(t, m.Installed("thing"), "one")
	if got := asked.take(); len(got) != 2 || got[0] != "200 Packages.gz" || !strings.HasPrefix(got[1], "200 sw-test/thing/thing-1.0-") {
		t.Errorf("it asked %v", got)
	}

	t.Log("the index is asked for again and not sent again")
	m.Age()
	emerge("cached index", 0, append(update, "sw-test/thing")...)
	if got := asked.take(); len(got) != 1 || got[0] != "304 Packages.gz" {
		t.Errorf("it asked %v", got)
	}

	t.Log("of two USE variants the one that fits is taken")
	emerge("variant", 0, append(update, "sw-test/flags")...)
	equal(t, m.Installed("flags"), "plain")
	if err := os.WriteFile(filepath.Join(m.Dir, "etc/portage/package.use"), []byte("sw-test/flags extra\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	emerge("other variant", 0, append(update, "sw-test/flags")...)
	equal(t, m.Installed("flags"), "extra")

	t.Log("the same CPV, built anew under another key, is another file")
	again := put(httpgatewaytest.Build{Ebuild: flags, USE: "extra", Time: 2000, Content: "extra again"})
	cat.Publish("desktop", tick(), one, plainUSE, again)
	g.Kick()
	m.Age()
	emerge("rebuilt", 0, "--oneshot", "--getbinpkg", "--binpkg-respect-use=y", "sw-test/flags")
	equal(t, m.Installed("flags"), "extra again")

	t.Log("a new release with its tree, then back to the old one with its tree")
	old := m.Commit(thing1, flags)
	m.Commit(thing2, flags)
	two := put(httpgatewaytest.Build{Ebuild: thing2, Time: 3000, Content: "two"})
	cat.Publish("desktop", tick(), two, plainUSE, again)
	g.Kick()
	m.Age()
	emerge("update", 0, append(update, "sw-test/thing")...)
	equal(t, m.Installed("thing"), "two")
	back := cat.Rollback("desktop", first.Release, tick())
	g.Kick()
	m.Checkout(old)
	m.Age()
	asked.take()
	out := emerge("rollback", 0, append(update, "sw-test/thing")...)
	equal(t, m.Installed("thing"), "one")
	if !strings.Contains(out, "Emerging binary") || back.Timestamp <= first.Timestamp {
		t.Errorf("it did not go back by a binary package:\n%s", out)
	}

	t.Log("a holder that breaks off in the middle is no failure")
	big := fmt.Sprint(strings.Repeat("a holder that breaks off ", 100_000), now)
	data, far := m.Package(httpgatewaytest.Build{Ebuild: httpgatewaytest.Ebuild{CPV: "sw-test/far-1.0"}, Time: 4000, Content: big})
	m.Commit(thing1, flags, httpgatewaytest.Ebuild{CPV: "sw-test/far-1.0"})
	id, _ := cas.Parse(far.Artifact.CID) // just made
	var mu sync.Mutex
	broke := false
	cat.PutRemote(id, &httpgatewaytest.Holder{Data: data, Serve: func(_ context.Context, at int64, n int) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if !broke && at > int64(len(data)/2) {
			broke = true
			return 0, fmt.Errorf("the holder is gone")
		}
		return min(n, 4096), nil
	}})
	cat.Publish("desktop", tick(), one, plainUSE, again, far)
	g.Kick()
	m.Age()
	emerge("failing holder", 0, "--oneshot", "--getbinpkgonly", "sw-test/far")
	if !broke || m.Installed("far") != big {
		t.Errorf("broke off: %v, and installed %d bytes", broke, len(m.Installed("far")))
	}

	t.Log("what nobody holds any more fails, at once and cleanly")
	lost, gone := m.Package(httpgatewaytest.Build{Ebuild: httpgatewaytest.Ebuild{CPV: "sw-test/gone-1.0"}, Time: 5000, Content: "gone"})
	goneID, _ := cas.Parse(gone.Artifact.CID) // just made
	cat.PutRemote(goneID, &httpgatewaytest.Holder{Data: lost})
	cat.Publish("desktop", tick(), one, gone)
	g.Kick()
	eventually(t, func() bool { s := g.Status(); return len(s) == 1 && s[0].Packages == 2 })
	cat.PutRemote(goneID, nil)
	m.Age()
	asked.take()
	emerge("nobody holds it", 1, "--oneshot", "--getbinpkgonly", "sw-test/gone")
	if got := strings.Join(asked.take(), " "); !strings.Contains(got, "503 sw-test/gone/") {
		t.Errorf("it asked %s", got)
	}

	t.Log("an index that is not there, and one whose file was taken away, end in a word")
	m.Uses("http://" + addr + "/laptop/stable")
	emerge("no release", 1, "--oneshot", "--getbinpkgonly", "sw-test/thing")
	m.Uses("http://" + addr + "/desktop/stable")
	if err := os.RemoveAll(filepath.Join(m.Dir, "cache")); err != nil {
		t.Fatal(err)
	}
	cat.PutRemote(goneID, &httpgatewaytest.Holder{Data: lost})
	emerge("made again", 0, "--oneshot", "--getbinpkgonly", "sw-test/gone")
	equal(t, m.Installed("gone"), "gone")
}

// 200 packages by --getbinpkgonly: what a machine that comes back after a while
// fetches in one go, half of it from elsewhere.
func TestRealEmergeFetchesTwoHundredPackages(t *testing.T) {
	m := httpgatewaytest.NewMachine(t)
	cat := httpgatewaytest.New(t)
	_, addr, stop := serve(t, cat, nil)
	defer func() { _ = stop() }()
	m.Uses("http://" + addr + "/desktop/stable")
	var entries []release.Entry
	var ebuilds []httpgatewaytest.Ebuild
	args := []string{"--getbinpkgonly", "--fetchonly", "--oneshot"}
	for i := range 200 {
		e := httpgatewaytest.Ebuild{CPV: fmt.Sprintf("sw-test/pkg%03d-1.0", i)}
		data, entry := m.Package(httpgatewaytest.Build{Ebuild: e, Time: 1000, Content: strings.Repeat(fmt.Sprint(i), 3000)})
		if i%2 == 0 {
			cat.PutLocal(data)
		} else {
			id, _ := cas.Parse(entry.Artifact.CID) // just made
			cat.PutRemote(id, &httpgatewaytest.Holder{Data: data})
		}
		entries, ebuilds, args = append(entries, entry), append(ebuilds, e), append(args, strings.TrimSuffix(e.CPV, "-1.0"))
	}
	m.Commit(ebuilds...)
	cat.Publish("desktop", time.Now().Add(-time.Hour), entries...)
	if out, code := m.Run(args...); code != 0 {
		t.Fatalf("emerge ended with %d:\n%.4000s", code, out)
	}
	files, err := filepath.Glob(filepath.Join(m.Dir, "var/cache/binhost/swarm/sw-test/*/*.gpkg.tar"))
	if err != nil || len(files) != len(entries) {
		t.Errorf("%d files were fetched: %v", len(files), err)
	}
}

// Before a release is shown, Portage says what it would have a consumer compile.
func TestRealEmergeSaysWhatAReleaseWouldHaveAConsumerCompile(t *testing.T) {
	m := httpgatewaytest.NewMachine(t)
	lib2 := httpgatewaytest.Ebuild{CPV: "sw-test/lib-2.0", Slot: "0/2"}
	app := httpgatewaytest.Ebuild{CPV: "sw-test/app-1.0", RDEPEND: "sw-test/lib:="}
	m.Commit(lib2, app, httpgatewaytest.Ebuild{CPV: "sw-test/unbuilt-2.0"})
	_, lib := m.Package(httpgatewaytest.Build{Ebuild: lib2, Time: 2000})
	_, rebuilt := m.Package(httpgatewaytest.Build{Ebuild: app, Bound: "sw-test/lib:0/2=", Time: 2000})
	set := &release.Installed{Target: "desktop", World: []string{"sw-test/app", "sw-test/unbuilt"}}
	for cpv, meta := range map[string][2]string{"sw-test/lib-1.0": {"0/1", ""}, "sw-test/app-1.0": {"0", "sw-test/lib:0/1="}, "sw-test/unbuilt-1.0": {"0", ""}} {
		c, err := build.ParseCPV(cpv)
		if err != nil {
			t.Fatal(err)
		}
		p := release.InstalledPackage{CPV: c, Slot: meta[0], Meta: []build.Pair{{Name: "EAPI", Value: "8"}, {Name: "KEYWORDS", Value: "amd64"}, {Name: "SLOT", Value: meta[0]}, {Name: "repository", Value: "tree"}}}
		if meta[1] != "" {
			p.Meta = append(p.Meta, build.Pair{Name: "RDEPEND", Value: meta[1]})
		}
		set.Packages = append(set.Packages, p)
	}
	set.Sort()
	would := func(entries ...release.Entry) string {
		t.Helper()
		man := &release.Manifest{Target: "desktop", Entries: entries}
		man.Sort()
		text, err := binhost.Render(man, release.Channel{Target: "desktop", Name: release.Stable, Version: 1, Timestamp: 1_700_000_000})
		if err != nil {
			t.Fatal(err)
		}
		list, err := m.Portage.WouldCompile(t.Context(), man, text, set)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, c := range list {
			out = append(out, fmt.Sprintf("%s for %s", c.CPV, c.Because))
		}
		return strings.Join(out, " ")
	}
	equal(t, would(lib), "sw-test/app-1.0 for sw-test/lib-2.0")
	equal(t, would(lib, rebuilt), "") // what the swarm has not built is no fault of the release
	if _, err := m.Portage.WouldCompile(t.Context(), &release.Manifest{Target: "desktop", Tree: "another"}, nil, set); !errors.Is(err, emerge.ErrOtherTree) {
		t.Errorf("of another tree: %v", err)
	}
}

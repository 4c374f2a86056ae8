package cli

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/httpgateway/httpgatewaytest"
)

// consumerDaemon answers what swarm update asks; its gateway is a real one.
type consumerDaemon struct {
	control.Daemon // asked for nothing but what follows
	reply          control.ReleasesReply
	published      []*release.Installed
}

func (d *consumerDaemon) Asked() {}

func (d *consumerDaemon) Releases(context.Context, string) (control.ReleasesReply, error) {
	return d.reply, nil
}

func (d *consumerDaemon) Subscribe(_ context.Context, set []byte) error {
	s, err := release.DecodeInstalled(set)
	d.published = append(d.published, s)
	return err
}

func (d *consumerDaemon) Unsubscribe(context.Context, string) error { return nil }

// consumer is a machine with the real Portage, a gateway and a control socket.
type consumer struct {
	*httpgatewaytest.Machine
	t      *testing.T
	cat    *httpgatewaytest.Catalog
	daemon *consumerDaemon
	socket string
	now    time.Time
}

func newConsumer(t *testing.T) *consumer {
	c := &consumer{Machine: httpgatewaytest.NewMachine(t), t: t, cat: httpgatewaytest.New(t), daemon: &consumerDaemon{}, now: time.Now().Add(-time.Hour)}
	log := slog.New(slog.DiscardHandler)
	g, err := httpgateway.New(httpgateway.Config{Catalog: c.cat, CacheDir: t.TempDir(), Log: log, Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "swarm") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	c.socket = filepath.Join(dir, "s")
	srv, err := control.NewServer(c.socket, c.daemon, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- g.Run(ctx) }()
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for _, kv := range c.Environ {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	t.Setenv("EMERGE_DEFAULT_OPTS", "--jobs=1")
	c.run(0, "portage", "setup", "--root", c.Dir, "--target", "desktop", "--gateway", g.Addrs()[0])
	// The Prefix has a place of its own for what it downloads.
	c.Uses("http://" + g.Addrs()[0] + "/desktop/stable")
	return c
}

// run is `swarm ARGS` in this process.
func (c *consumer) run(code int, args ...string) (stdout, stderr string) {
	c.t.Helper()
	var out, errOut bytes.Buffer
	if args[0] == "update" {
		args = append([]string{"update", "--config", os.DevNull, "--emerge", c.Emerge, "--target", "desktop", "--state", filepath.Join(c.Dir, "state")}, args[1:]...)
	}
	i := 1
	if args[0] == "portage" {
		i = 2
	}
	args = slices.Insert(args, i, "--socket", c.socket)
	if got := Main(append([]string{"swarm"}, args...), strings.NewReader(""), &out, &errOut); got != code {
		c.t.Fatalf("swarm %v ended with %d, want %d\n%s%s", args, got, code, out.String(), errOut.String())
	}
	return out.String(), errOut.String()
}

// shows releases entries, with the commit that they were built from.
func (c *consumer) shows(number uint64, commit string, entries ...release.Entry) {
	c.now = c.now.Add(time.Minute)
	head := c.cat.Publish("desktop", c.now, entries...)
	c.daemon.reply = control.ReleasesReply{Schema: 1, Target: "desktop", Head: &head, Repos: []build.Revision{{Name: "tree", Commit: commit}},
		Releases: []control.Release{{Listing: release.Listing{Number: number, Release: head.Release}, Shown: true}}}
	c.Age()
}

func (c *consumer) built(b httpgatewaytest.Build) release.Entry {
	data, e := c.Package(b)
	c.cat.PutLocal(data)
	return e
}

func (c *consumer) cidOf(e release.Entry) cid.Cid {
	id, err := cas.Parse(e.Artifact.CID)
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

// The whole of swarm update with the real emerge: setup publishes, a release is
// installed with its tree, what would be compiled is refused, a cut is taken up,
// and a rollback goes down with its tree.
func TestRealUpdateFollowsReleasesAndTheirTrees(t *testing.T) {
	c := newConsumer(t)
	if len(c.daemon.published) != 1 || len(c.daemon.published[0].Packages) != 0 {
		t.Errorf("portage setup published %+v", c.daemon.published)
	}
	lib1 := httpgatewaytest.Ebuild{CPV: "sw-test/lib-1.0", Slot: "0/1"}
	lib2 := httpgatewaytest.Ebuild{CPV: "sw-test/lib-2.0", Slot: "0/2"}
	app := httpgatewaytest.Ebuild{CPV: "sw-test/app-1.0", RDEPEND: "sw-test/lib:="}
	extra := httpgatewaytest.Ebuild{CPV: "sw-test/extra-1.0"}
	if err := os.MkdirAll(filepath.Join(c.Dir, "var/lib/portage"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "var/lib/portage/world"), []byte("sw-test/app\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	one := c.Commit(lib1, app)
	libOne := c.built(httpgatewaytest.Build{Ebuild: lib1, Time: 1000, Content: "lib 1"})
	appOne := c.built(httpgatewaytest.Build{Ebuild: app, Bound: "sw-test/lib:0/1=", Time: 1000, Content: "app on lib 1"})
	two := c.Commit(lib2, app, extra)
	libTwo := c.built(httpgatewaytest.Build{Ebuild: lib2, Time: 2000, Content: "lib 2"})
	appTwo := c.built(httpgatewaytest.Build{Ebuild: app, Bound: "sw-test/lib:0/2=", Time: 2000, Content: "app on lib 2"})

	c.shows(1, one, libOne, appOne)
	out, notes := c.run(0, "update")
	if c.Installed("app") != "app on lib 1" || !strings.Contains(out, "updating from the swarm: [2 packages], 2 from the swarm, 0 compiled here") ||
		!strings.Contains(out, "[2/2] sw-test/app-1.0\n") || !strings.Contains(out, "2 packages, 2 from the swarm, 0 compiled, ") || !strings.Contains(notes, "tree: tree moved to "+one[:12]) {
		t.Fatalf("%s%s%s", out, notes, c.Installed("app"))
	}
	if p := c.daemon.published; len(p) != 2 || len(p[1].Packages) != 2 || !slices.Equal(p[1].World, []string{"sw-test/app"}) {
		t.Errorf("the update published %+v", p)
	}
	if out, _ := c.run(0, "update"); !strings.Contains(out, "up to date:") {
		t.Errorf("again: %s", out)
	}

	t.Log("half of a library's change is released: it would be compiled, and is refused")
	c.shows(2, two, libTwo)
	_, notes = c.run(1, "update")
	if !strings.Contains(notes, "1 package would be compiled on this machine: sw-test/app-1.0") || !strings.Contains(notes, "swarm build =sw-test/app-1.0") || c.Installed("lib") != "lib 1" {
		t.Errorf("%s%s", notes, c.Installed("lib"))
	}
	out, _ = c.run(0, "update", "--dry-run", "--json")
	if !strings.Contains(out, `"compiled": 1,`) || !strings.Contains(out, `"done": false`) {
		t.Errorf("%s", out)
	}

	t.Log("all of it, after a cut: the last package cannot be had at first")
	if err := os.Remove(c.cat.Path(c.cidOf(appTwo))); err != nil {
		t.Fatal(err)
	}
	c.shows(3, two, libTwo, appTwo)
	_, notes = c.run(1, "update")
	if !strings.Contains(notes, "the update stopped after ") || c.Installed("app") != "app on lib 1" {
		t.Errorf("%s%s", notes, c.Installed("app"))
	}
	data, _ := c.Package(httpgatewaytest.Build{Ebuild: app, Bound: "sw-test/lib:0/2=", Time: 2000, Content: "app on lib 2"})
	c.cat.PutLocal(data)
	out, notes = c.run(0, "update")
	if c.Installed("app") != "app on lib 2" || c.Installed("lib") != "lib 2" || !strings.Contains(out, "2 packages, 2 from the swarm, 0 compiled, ") {
		t.Errorf("%s%s%s", out, notes, c.Installed("app"))
	}

	t.Log("and back, with the tree")
	if err := os.WriteFile(filepath.Join(c.Dir, "etc/._cfg0000_thing"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c.shows(1, one, libOne, appOne)
	out, notes = c.run(0, "update")
	if c.Installed("app") != "app on lib 1" || c.Installed("lib") != "lib 1" || !strings.Contains(notes, "goes down: sw-test/lib-1.0") || !strings.Contains(out, "for you: 1 configuration files wait") {
		t.Errorf("%s%s%s", out, notes, c.Installed("app"))
	}
}

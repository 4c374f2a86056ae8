package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build/emerge/emergetest"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/httpgateway/binhost"
	"github.com/build-swarm/swarm/httpgateway/httpgatewaytest"
)

// exports writes releases into one directory, as `swarm export` does again and
// again.
type exports struct {
	t     *testing.T
	dir   string // that is served
	blobs string // what a daemon would have
	at    int64  // TIMESTAMP of the last
}

func newExports(t *testing.T) *exports {
	dir := t.TempDir()
	return &exports{t, filepath.Join(dir, "out"), dir, time.Now().Add(-time.Hour).Unix()}
}

// write exports a release of these packages, made at a time.
func (x *exports) write(at int64, packages map[*release.Entry][]byte) (sent []byte) {
	x.t.Helper()
	m := &release.Manifest{Target: "desktop"}
	for e, data := range packages {
		m.Entries = append(m.Entries, *e)
		if err := os.WriteFile(filepath.Join(x.blobs, e.Artifact.CID), data, 0o644); err != nil {
			x.t.Fatal(err)
		}
	}
	m.Sort()
	index, err := binhost.New(m)
	if err != nil {
		x.t.Fatal(err)
	}
	r := control.ExportReply{Timestamp: at, Index: index.Render(release.Channel{Target: "desktop", Name: release.Stable, Timestamp: at})}
	for i, it := range index.Items() {
		r.Files = append(r.Files, control.ExportFile{Path: it.Path, CID: it.CID, Size: it.Size, SHA1: m.Entries[i].Artifact.SHA1, MTime: it.MTime, Local: filepath.Join(x.blobs, it.CID)})
	}
	out := &exporter{dir: x.dir}
	if err := out.run(x.t.Context(), r); err != nil {
		x.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(x.dir, "Packages"))
	if err != nil {
		x.t.Fatal(err)
	}
	if at > x.at && !bytes.Equal(text, r.Index) {
		x.t.Error("the index is not the gateway's")
	}
	x.at = max(at, x.at)
	return text
}

// serving is a web server that knows nothing of us, over a directory.
func serving(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(files.Close)
	out := map[string]string{"files": files.URL}
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Log("SKIPPED, NGINX NOT TESTED HERE:", err)
		return out
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	own := t.TempDir()
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // else its workers cannot enter a directory of tests
	}
	conf := fmt.Sprintf("%s daemon off; master_process off; pid %[2]s/pid; error_log stderr crit; events {}\nhttp { access_log off; client_body_temp_path %[2]s/1; proxy_temp_path %[2]s/2; fastcgi_temp_path %[2]s/3; uwsgi_temp_path %[2]s/4; scgi_temp_path %[2]s/5;\nserver { listen %[3]s; root %[4]s; } }\n", user, own, addr, dir)
	if err := os.WriteFile(filepath.Join(own, "conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-p", own, "-c", filepath.Join(own, "conf")) // ended below
	var says bytes.Buffer
	cmd.Stderr = &says
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for ctx, end := context.WithTimeout(t.Context(), 20*time.Second); ; {
		defer end()
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = c.Close()
			break
		}
		if ctx.Err() != nil {
			t.Fatal("nginx does not start: ", says.String())
		}
	}
	out["nginx"] = "http://" + addr
	return out
}

func named(idx *emergetest.Index) []string {
	var out []string
	for _, e := range idx.Entries {
		out = append(out, e["CPV"])
	}
	slices.Sort(out)
	return out
}

// What the emulated emerge asks of a binary host, of plain web servers over an
// export: a newer release is seen, and so is an older one after it.
func TestAnExportIsABinhostOfAnyWebServer(t *testing.T) {
	x := newExports(t)
	packages := func(cpvs ...string) map[*release.Entry][]byte {
		out := map[*release.Entry][]byte{}
		for _, cpv := range cpvs {
			data := []byte("content of " + cpv)
			e := httpgatewaytest.Entry(t, cpv, data)
			out[&e] = data
		}
		return out
	}
	first := x.at
	x.write(first, packages("x/a-1", "x/b-1"))
	clients := map[string]*emergetest.Client{}
	now := time.Now()
	for name, uri := range serving(t, x.dir) {
		clients[name] = &emergetest.Client{URI: uri, Dir: t.TempDir(), Now: func() time.Time { return now }}
	}
	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{"the first", func() {}, []string{"x/a-1", "x/b-1"}},
		{"the same again", func() { x.write(first, packages("x/a-1", "x/b-1")) }, []string{"x/a-1", "x/b-1"}},
		{"a newer release", func() { x.write(first+60, packages("x/a-2", "x/b-1")) }, []string{"x/a-2", "x/b-1"}},
		{"the older one", func() { x.write(first, packages("x/a-1", "x/b-1")) }, []string{"x/a-1", "x/b-1"}},
		{"the newer one again", func() { x.write(first+60, packages("x/a-2", "x/b-1")) }, []string{"x/a-2", "x/b-1"}},
	} {
		step.do()
		now = now.Add(time.Hour) // beyond any TTL
		for name, c := range clients {
			idx, err := c.Index(t.Context())
			if err != nil {
				t.Fatalf("%s, %s: %v", step.name, name, err)
			}
			if got := named(idx); !slices.Equal(got, step.want) {
				t.Errorf("%s, %s: it sees %v, want %v", step.name, name, got, step.want)
			}
			for _, e := range idx.Entries {
				if _, err := c.Fetch(t.Context(), idx, e); err != nil {
					t.Errorf("%s, %s: %v", step.name, name, err)
				}
			}
		}
	}
}

// The real emerge installs from an export, follows it, and goes back with it.
func TestRealEmergeInstallsFromAnExport(t *testing.T) {
	m := httpgatewaytest.NewMachine(t)
	x := newExports(t)
	thing1, thing2 := httpgatewaytest.Ebuild{CPV: "sw-test/thing-1.0"}, httpgatewaytest.Ebuild{CPV: "sw-test/thing-2.0"}
	built := func(b httpgatewaytest.Build) map[*release.Entry][]byte {
		data, e := m.Package(b)
		return map[*release.Entry][]byte{&e: data}
	}
	one, two := built(httpgatewaytest.Build{Ebuild: thing1, Time: 1000, Content: "one"}), built(httpgatewaytest.Build{Ebuild: thing2, Time: 2000, Content: "two"})
	first := x.at
	x.write(first, one)
	old := m.Commit(thing1)
	servers := serving(t, x.dir)
	uri, ok := servers["nginx"]
	if !ok {
		uri = servers["files"]
	}
	m.Uses(uri)
	for _, step := range []struct {
		name, want string
		do         func()
	}{
		{"installed", "one", func() {}},
		{"updated", "two", func() { m.Commit(thing2); x.write(first+60, two) }},
		{"and back", "one", func() { m.Checkout(old); x.write(first, one) }},
	} {
		step.do()
		m.Age()
		out, code := m.Run("--update", "--deep", "--newuse", "--getbinpkgonly", "sw-test/thing")
		if got := m.Installed("thing"); code != 0 || got != step.want {
			t.Fatalf("%s: %q is installed, want %q; emerge ended with %d:\n%s", step.name, got, step.want, code, out)
		}
	}
}

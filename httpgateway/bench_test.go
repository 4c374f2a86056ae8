package httpgateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/disk"
	"github.com/build-swarm/swarm/httpgateway"
)

// benchDir in the environment makes the test binary a gateway over the files
// of that directory, so that it is measured as nginx is: from another process.
const benchDir = "SWARM_TEST_GATEWAY_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(benchDir); dir != "" {
		if err := benchServer(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func benchServer(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	store, err := disk.Open(filepath.Join(dir, "store"), disk.Options{})
	if err != nil {
		return err
	}
	cat, err := newBenchCatalog(ctx, dir, store)
	if err != nil {
		return err
	}
	g, err := httpgateway.New(httpgateway.Config{
		Catalog: cat, CacheDir: filepath.Join(dir, "cache"), Listen: []string{"127.0.0.1:0"}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	if err := g.Listen(ctx); err != nil {
		return err
	}
	fmt.Println(g.Addrs()[0])
	return errors.Join(g.Run(ctx), store.Close())
}

// benchFiles are the packages of target "files", by size.
var benchFiles = map[string]int64{"large": 512 << 20, "medium": 64 << 10, "small": 4 << 10}

const benchEntries = 20_000

// benchCatalog shows target "files" with one package per size, out of a real
// store, and target "index" with 20,000 entries that nobody fetches.
type benchCatalog struct {
	store *disk.Store
	shown map[string]*release.Manifest
}

// newBenchCatalog takes the files of dir into the store, and leaves the store's
// own in their places, so that nginx serves the same ones.
func newBenchCatalog(ctx context.Context, dir string, store *disk.Store) (*benchCatalog, error) {
	files := &release.Manifest{Target: "files"}
	for name, size := range benchFiles {
		path := filepath.Join(dir, name)
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		info, err := store.Put(ctx, f, cid.Undef)
		if err = errors.Join(err, f.Close(), os.Remove(path)); err != nil {
			return nil, err
		}
		b, err := store.Open(info.CID)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(os.Link(b.(httpgateway.LocalBlob).File().Name(), path), b.Close()); err != nil {
			return nil, err
		}
		e := benchEntry("bench/"+name+"-1", 0, size)
		e.Artifact.CID = info.CID.String()
		files.Entries = append(files.Entries, e)
	}
	files.Sort()
	index := &release.Manifest{Target: "index"}
	for i := range benchEntries {
		index.Entries = append(index.Entries, benchEntry(fmt.Sprintf("cat%d/package%d-%d.%d", i%150, i, i%9, i%30), i, 1000))
	}
	index.Sort()
	return &benchCatalog{store, map[string]*release.Manifest{"files": files, "index": index}}, nil
}

func benchEntry(cpv string, i int, size int64) release.Entry {
	sum := sha256.Sum256([]byte(cpv))
	name, _ := build.ParseCPV(cpv) // written above
	deps := ""
	for j := range 12 {
		deps += fmt.Sprintf(" >=dev-libs/library%d-%d.%d:0/%d=", binary.BigEndian.Uint16(sum[j:])%3000, sum[j]%9, sum[j+1]%30, sum[j+2]%5)
	}
	return release.Entry{
		Key: build.Key(hex.EncodeToString(sum[:])), CPV: name, Slot: "0", Keywords: "amd64 ~arm64",
		Artifact: build.Artifact{
			CID: cas.NewCID(sum).String(), Size: size, MTime: 1700000000 + int64(i),
			MD5: hex.EncodeToString(sum[:16]), SHA1: hex.EncodeToString(sum[:20]),
			Meta: []build.Pair{
				{Name: "BUILD_TIME", Value: strconv.Itoa(1700000000 + i)}, {Name: "DEFINED_PHASES", Value: "compile configure install"}, {Name: "DEPEND", Value: deps},
				{Name: "EAPI", Value: "8"}, {Name: "IUSE", Value: "debug doc +ssl test zlib"}, {Name: "LICENSE", Value: "GPL-2+"}, {Name: "RDEPEND", Value: deps},
				{Name: "REPO", Value: "gentoo"}, {Name: "USE", Value: "amd64 elibc_glibc kernel_linux ssl"},
			},
		},
	}
}

func (c *benchCatalog) Targets() []string { return []string{"files", "index"} }

func (c *benchCatalog) Head(target, _ string) (release.Channel, *release.Manifest, error) {
	m := c.shown[target]
	if m == nil {
		return release.Channel{}, nil, httpgateway.ErrNoRelease
	}
	return release.Channel{Target: target, Name: release.Stable, Version: 1, Release: cas.Sum(nil).String(), Timestamp: 1700000000}, m, nil
}

func (c *benchCatalog) Available(cid.Cid) bool { return true }

func (c *benchCatalog) Local(id cid.Cid) (httpgateway.LocalBlob, error) {
	b, err := c.store.Open(id)
	if err != nil {
		return nil, err
	}
	return b.(httpgateway.LocalBlob), nil
}

func (c *benchCatalog) Open(_ context.Context, id cid.Cid, _ int64) (io.ReadSeekCloser, error) {
	return c.store.Open(id)
}

// BenchmarkGateway compares with nginx (sendfile, gzip_static, two workers)
// on the same files: requests per second over ours, the median of five
// interleaved pairs. 1 is as fast as nginx.
func BenchmarkGateway(b *testing.B) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		b.Skip("nginx is not installed")
	}
	dir := b.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // nginx' workers may be another user
		b.Fatal(err)
	}
	for name, size := range benchFiles {
		writeFile(b, filepath.Join(dir, name), size)
	}
	ours, gateway := startGateway(b, dir)
	paths := map[string]string{}
	for _, e := range benchIndex(b, ours) {
		paths[strings.TrimSuffix(strings.TrimPrefix(e["CPV"], "bench/"), "-1")] = "/files/stable/" + e["PATH"]
	}
	for _, name := range []string{"Packages", "Packages.gz"} {
		_, text, err := fetch(b, "http://"+ours+"/index/stable/"+name)
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			b.Fatal(err)
		}
		paths[name] = "/index/stable/" + name
	}
	theirs, master := startNginx(b, nginx, dir)
	for _, c := range []struct {
		file     string
		conns    int
		requests int // of each connection
	}{{"large", 2, 2}, {"Packages", 2, 20}, {"Packages.gz", 2, 100}, {"medium", 16, 1000}, {"small", 16, 2000}} {
		b.Run(c.file, func(b *testing.B) {
			for range b.N {
				var us, them, ratio []float64
				var cost, theirCost float64
				for range 5 {
					start, theirStart := cpu(b, gateway), cpu(b, master)
					o := load(b, ours, paths[c.file], c.conns, c.requests)
					t := load(b, theirs, "/"+c.file, c.conns, c.requests)
					us, them, ratio = append(us, o), append(them, t), append(ratio, o/t)
					cost, theirCost = cost+cpu(b, gateway)-start, theirCost+cpu(b, master)-theirStart
				}
				for _, s := range [][]float64{us, them, ratio} {
					slices.Sort(s)
				}
				b.ReportMetric(ratio[2], "x-nginx")
				b.ReportMetric(us[2], "req/s")
				// What else the machine does moves these two less.
				n := float64(5 * c.conns * c.requests)
				b.ReportMetric(cost/n*1e6, "us-cpu/req")
				b.ReportMetric(theirCost/n*1e6, "nginx-us-cpu/req")
			}
		})
	}
}

func writeFile(b *testing.B, name string, size int64) {
	b.Helper()
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	block := content(1<<20, 7)
	for left := size; left > 0 && err == nil; left -= int64(len(block)) {
		_, err = f.Write(block[:min(left, int64(len(block)))])
	}
	if err := errors.Join(err, f.Close()); err != nil {
		b.Fatal(err)
	}
}

// cpu is what a process and its children have used, in seconds. It needs
// Linux, and says 0 elsewhere.
func cpu(b *testing.B, pid int) float64 {
	b.Helper()
	pids := []string{strconv.Itoa(pid)}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range tasks {
		children, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		pids = append(pids, strings.Fields(string(children))...)
	}
	ticks := 0
	for _, p := range pids {
		stat, err := os.ReadFile("/proc/" + p + "/stat")
		if err != nil {
			continue
		}
		fs := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		user, err1 := strconv.Atoi(fs[11])
		system, err2 := strconv.Atoi(fs[12])
		if err := errors.Join(err1, err2); err != nil {
			b.Fatal(err)
		}
		ticks += user + system
	}
	return float64(ticks) / 100 // USER_HZ
}

func startGateway(b *testing.B, dir string) (string, int) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self) // ended by the cleanup: b.Context would kill it, and nginx' workers would stay
	cmd.Env = append(os.Environ(), benchDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line), cmd.Process.Pid
}

func benchIndex(b *testing.B, addr string) []map[string]string {
	b.Helper()
	_, text, err := fetch(b, "http://"+addr+"/files/stable/Packages")
	if err != nil {
		b.Fatal(err)
	}
	var out []map[string]string
	for block := range strings.SplitSeq(string(text), "\n\n") {
		e := map[string]string{}
		for line := range strings.SplitSeq(block, "\n") {
			if k, v, ok := strings.Cut(line, ": "); ok {
				e[k] = v
			}
		}
		if e["PATH"] != "" {
			out = append(out, e)
		}
	}
	return out
}

func startNginx(b *testing.B, nginx, dir string) (string, int) {
	b.Helper()
	l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	conf := fmt.Sprintf(`%s
daemon off; worker_processes 2; pid %[2]s/nginx.pid; error_log stderr crit;
events { worker_connections 256; }
http {
	access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; default_type application/octet-stream;
	client_body_temp_path %[2]s/t1; proxy_temp_path %[2]s/t2; fastcgi_temp_path %[2]s/t3; uwsgi_temp_path %[2]s/t4; scgi_temp_path %[2]s/t5;
	server { listen %[3]s; root %[2]s; }
}`, user, dir, addr)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(nginx, "-p", dir, "-c", file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		if c, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", addr); err == nil {
			_ = c.Close()
			return addr, cmd.Process.Pid
		}
		if time.Now().After(deadline) {
			b.Fatal("nginx does not start: ", stderr.String())
		}
	}
}

// load asks for path over conns kept-alive connections and returns requests
// per second. The client is as thin as it can be, so that the server shows.
func load(b *testing.B, addr, path string, conns, requests int) float64 {
	b.Helper()
	start := time.Now()
	eg, ctx := errgroup.WithContext(b.Context())
	for range conns {
		eg.Go(func() error {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			r := bufio.NewReaderSize(c, 256<<10)
			request := []byte("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
			for range requests {
				if _, err := c.Write(request); err != nil {
					return err
				}
				if err := discard(r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		b.Fatal(err)
	}
	return float64(conns*requests) / time.Since(start).Seconds()
}

// discard reads one response with a Content-Length.
func discard(r *bufio.Reader) error {
	size := -1
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
			return fmt.Errorf("%s", line)
		}
		if len(line) == 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && strings.EqualFold(string(name), "Content-Length") {
			if size, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if size < 0 {
		return errors.New("a response without Content-Length")
	}
	_, err := r.Discard(size)
	return err
}

package emerge

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha1"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build/gpkg"
)

// binhost serves recorded packages and writes down what it is asked.
type binhost struct {
	mu    sync.Mutex
	stamp int64             // TIMESTAMP, seconds
	ttl   string            // header TTL
	files map[string][]byte // by PATH
	fail  map[string]func(http.ResponseWriter) bool
	log   []string
}

// newBinhost serves packages of the recorded build of the samples.
func newBinhost(t *testing.T, names ...string) *binhost {
	t.Helper()
	h := &binhost{stamp: 1_790_000_000, files: map[string][]byte{}, fail: map[string]func(http.ResponseWriter) bool{}}
	for _, n := range names {
		b, err := os.ReadFile("emergetest/recorded/sample-build/" + n + "-1.gpkg.tar")
		if err != nil {
			t.Fatal(err)
		}
		p, err := gpkg.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		h.files[p.CPV.CP()+"/"+p.CPV.PF()+"-1.gpkg.tar"] = b
	}
	return h
}

func (h *binhost) index() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ARCH: amd64\nCHOST: x86_64-pc-linux-gnu\nPACKAGES: %d\nTIMESTAMP: %d\n", len(h.files), h.stamp)
	if h.ttl != "" {
		fmt.Fprintf(&b, "TTL: %s\n", h.ttl)
	}
	b.WriteString("VERSION: 0\n\n")
	names := make([]string, 0, len(h.files))
	for n := range h.files {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		data := h.files[n]
		p, err := gpkg.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			panic(err) // a recorded package
		}
		fmt.Fprintf(&b, "BUILD_ID: 1\nCPV: %s\n", p.CPV)
		for _, m := range gpkg.IndexMeta(p) {
			fmt.Fprintf(&b, "%s: %s\n", m.Name, m.Value)
		}
		fmt.Fprintf(&b, "MD5: %x\nMTIME: 1700000000\nPATH: %s\nSHA1: %x\nSIZE: %d\n\n", md5.Sum(data), n, sha1.Sum(data), len(data))
	}
	return b.String()
}

func (h *binhost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	agent, _, _ := strings.Cut(r.UserAgent(), "/")
	line := fmt.Sprintf("%s %s by %q accepting %q", r.Method, r.URL.Path, agent, r.Header.Get("Accept-Encoding"))
	since := int64(0)
	if v := r.Header.Get("If-Modified-Since"); v != "" {
		t, err := mail.ParseDate(v)
		if err != nil {
			line += " since " + v
		} else {
			since = t.Unix()
			line += fmt.Sprintf(" since T%+d", since-h.stamp)
		}
	}
	if v := r.Header.Get("Range"); v != "" {
		line += " range " + v
	}
	h.log = append(h.log, line)
	name := strings.TrimPrefix(r.URL.Path, "/t/stable/")
	if f := h.fail[name]; f != nil && f(w) {
		return
	}
	if !strings.HasPrefix(name, "Packages") {
		data, ok := h.files[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Unix(1_700_000_000, 0), bytes.NewReader(data))
		return
	}
	w.Header().Set("Last-Modified", time.Unix(h.stamp, 0).UTC().Format(http.TimeFormat))
	if since > 0 && h.stamp <= since-5 {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if name == "Packages" {
		_, _ = w.Write([]byte(h.index())) // the client's end of it is under test
		return
	}
	z := gzip.NewWriter(w)
	_, _ = z.Write([]byte(h.index()))
	_ = z.Close()
}

func status(code int) func(http.ResponseWriter) bool {
	return func(w http.ResponseWriter) bool { w.WriteHeader(code); return true }
}

// cut sends half of the body, once.
func (h *binhost) cut(name string) func(http.ResponseWriter) bool {
	done := false
	return func(w http.ResponseWriter) bool {
		if done {
			return false
		}
		done = true
		data := h.files[name]
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		panic(http.ErrAbortHandler)
	}
}

// TestBinaryHostRequests compares what the real emerge and the emulated one
// ask a binary host, request by request, and how they end.
func TestBinaryHostRequests(t *testing.T) {
	realEmerge, err := exec.LookPath("emerge")
	if err != nil {
		t.Log("REAL PORTAGE NOT TESTED HERE: no emerge on PATH; the emulated one stands in")
	}
	type step struct {
		change func(h *binhost)
		atoms  string
	}
	same := func(*binhost) {}
	const lib, app = "dev-libs/libtally/libtally-2.0-1.gpkg.tar", "app-misc/tally/tally-1.0-1.gpkg.tar"
	for name, steps := range map[string][]step{
		"fresh-then-current": {{same, "app-misc/tally"}, {same, "app-misc/tally"}},
		"newer-index":        {{same, "dev-libs/libtally"}, {func(h *binhost) { h.stamp += 60 }, "dev-libs/libtally"}},
		"newer-by-a-moment":  {{same, "dev-libs/libtally"}, {func(h *binhost) { h.stamp += 3 }, "dev-libs/libtally"}},
		"ttl":                {{func(h *binhost) { h.ttl = "3600" }, "dev-libs/libtally"}, {same, "dev-libs/libtally"}},
		"no-gz":              {{func(h *binhost) { h.fail["Packages.gz"] = status(404) }, "dev-libs/libtally"}},
		"index-error":        {{func(h *binhost) { h.fail["Packages.gz"] = status(500) }, "dev-libs/libtally"}},
		"package-missing":    {{func(h *binhost) { h.fail[lib] = status(404) }, "app-misc/tally"}},
		"package-cut":        {{func(h *binhost) { h.fail[lib] = h.cut(lib) }, "dev-libs/libtally"}},
		"package-wrong": {{func(h *binhost) {
			h.fail[lib] = func(w http.ResponseWriter) bool {
				_, _ = w.Write(bytes.Repeat([]byte("x"), len(h.files[lib])))
				return true
			}
		}, "dev-libs/libtally"}},
		"no-such-package": {{same, "app-misc/absent"}},
	} {
		t.Run(name, func(t *testing.T) {
			golden := filepath.Join("testdata/contract", "http-"+name+".golden")
			play := func(t *testing.T, emerge string) string {
				h := newBinhost(t, "libtally-2.0", "tally-1.0")
				srv := httptest.NewServer(h)
				defer srv.Close()
				cfg, err := DemoConfig(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				cfg.Emerge = emerge
				p := real(t, cfg)
				put(t, cfg, "binrepos.conf/swarm.conf", "[swarm]\npriority = 9999\nsync-uri = "+srv.URL+"/t/stable\n"+
					"verify-signature = false\nlocation = "+filepath.Join(cfg.EPrefix, "var/cache/binhost/swarm")+"\n")
				var out strings.Builder
				for _, s := range steps {
					h.mu.Lock()
					s.change(h)
					h.log = nil
					h.mu.Unlock()
					text, err := emergeRun(t, p, cfg, filepath.Join(cfg.EPrefix, "var/packages"), "--getbinpkgonly", "--oneshot", "--fetchonly", "--jobs=1", s.atoms)
					code := 0
					var exit *exec.ExitError
					if errors.As(err, &exit) {
						code = exit.ExitCode()
					} else if err != nil {
						t.Fatal(err)
					}
					t.Logf("%s", text)
					h.mu.Lock()
					fmt.Fprintf(&out, "emerge -G %s: %d\n%s\n", s.atoms, code, strings.Join(h.log, "\n"))
					h.mu.Unlock()
					// What --fetchonly downloaded would satisfy the next step.
					if err := os.RemoveAll(filepath.Join(cfg.EPrefix, "var/cache/binhost/swarm/dev-libs")); err != nil {
						t.Fatal(err)
					}
				}
				return out.String()
			}
			if *recordFlag {
				if realEmerge == "" {
					t.Fatal("-record wants emerge on PATH")
				}
				if err := os.WriteFile(golden, []byte(play(t, realEmerge)), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			for who, emerge := range map[string]string{"emulated": emulated(t, nil), "real": realEmerge} {
				if emerge == "" || who == "real" && testing.Short() {
					continue
				}
				t.Run(who, func(t *testing.T) {
					if diff := lineDiff(string(want), play(t, emerge)); diff != "" {
						t.Errorf("the %s emerge asks otherwise:\n%s", who, diff)
					}
				})
			}
		})
	}
}

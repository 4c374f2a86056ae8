package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/build-swarm/swarm/cmd/swarm/internal/alert"
)

// hastyGrace is how long trouble has to last before a hasty swarm tells of it.
const hastyGrace = 2 * time.Second

// webhook keeps what it was told.
type webhook struct {
	mu   sync.Mutex
	told []alert.Message
	odd  []string // requests that are no message
}

func (h *webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	var m alert.Message
	if err = errors.Join(err, json.Unmarshal(b, &m)); err == nil && (r.Method != http.MethodPost || m.Schema != 1 || r.URL.Path != "/hook/secret") {
		err = errors.New("not as documented")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.odd = append(h.odd, fmt.Sprintf("%s %s %.200s: %v", r.Method, r.URL.Path, b, err))
		return
	}
	h.told = append(h.told, m)
}

// about lists the messages of a state about a package.
func (h *webhook) about(state, pkg string) (out []alert.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.told {
		if m.State == state && strings.Contains(m.Title, pkg) {
			out = append(out, m)
		}
	}
	return out
}

func (h *webhook) all() []alert.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.told)
}

// Three real daemons, one of which is killed once it has told.
func TestAlertsThroughRealDaemons(t *testing.T) {
	t.Parallel()
	hook := &webhook{}
	srv := httptest.NewServer(hook)
	defer srv.Close()
	dir := t.TempDir()
	env := []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "TMPDIR=" + os.TempDir()}
	peers := map[string]*real{}
	code := filepath.Join(dir, "code")
	names := []string{"alpha", "beta", "gamma"}
	for _, name := range names {
		r := &real{t: t, as: "hasty", dir: filepath.Join(dir, name), env: env,
			args: []string{"--listen", "/ip4/127.0.0.1/tcp/0", "--direct", "127.0.0.1:0", "--mdns=false", "--dht=false", "--nick", name, "--alert", srv.URL + "/hook/secret"}}
		if err := os.Mkdir(r.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		state := filepath.Join(r.dir, "state")
		if len(peers) == 0 {
			r.run("init", "--config", os.DevNull, "--state", state)
		} else {
			r.run("join", "--config", os.DevNull, "--state", state, "--file", code)
		}
		r.start()
		defer r.stop(os.Interrupt)
		if len(peers) == 0 {
			if err := os.WriteFile(code, []byte(r.run("invite", "--socket", filepath.Join(r.dir, "s"))), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		peers[name] = r
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	await := func(what string, f func() error) {
		t.Helper()
		if err := poll(ctx, f); err != nil {
			for _, name := range names {
				log, _ := os.ReadFile(filepath.Join(peers[name].dir, "log")) // the first error counts
				t.Logf("the log of %s: %s", name, log)
			}
			t.Fatalf("%s: %v; told %+v", what, err, hook.all())
		}
	}
	for _, r := range peers {
		await("three peers", func() error {
			s, err := r.client.Status(ctx)
			if err == nil && len(s.Peers) < 3 {
				err = fmt.Errorf("%d peers", len(s.Peers))
			}
			return err
		})
	}
	const pkg = "sample-broken-script"
	told := func(state string, n int) func() error {
		return func() error {
			if got := hook.about(state, pkg); len(got) < n {
				return fmt.Errorf("told %q %d times of %d", state, len(got), n)
			}
			return nil
		}
	}
	socket := func(name string) string { return filepath.Join(peers[name].dir, "s") }
	round := func(name string) string {
		return strings.TrimSuffix(strings.Fields(peers[name].run("build", "--socket", socket(name), pkg))[1], ":")
	}
	first := round("alpha")
	await("the package fails", told("open", 1))
	m := hook.about("open", pkg)[0]
	if m.Severity == "" || len(m.Causes) != 1 || m.Do == "" || len(m.Drones) == 0 || !slices.Contains(names, m.Peer) {
		t.Errorf("told %+v", m)
	}
	for _, name := range names {
		checkNumbers(ctx, t, peers[name])
	}

	// It tells no more; the others know what was told.
	sender := m.Peer
	others := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == sender })
	peers[sender].stop(os.Kill)
	peers[others[0]].run("cancel", "--socket", socket(others[0]), first)
	await("nobody waits for it any more", told("resolved", 1))
	second := round(others[1])
	await("it fails again", told("open", 2))
	peers[others[1]].run("cancel", "--socket", socket(others[1]), second)
	await("nor now", told("resolved", 2))
	pause(ctx, 3*hastyGrace) // whoever would tell it twice has had the time
	for _, state := range []string{"open", "resolved"} {
		got := hook.about(state, pkg)
		if len(got) != 2 {
			t.Errorf("%q was told %d times: %+v", state, len(got), got)
		}
	}
	for _, m := range slices.Concat(hook.about("resolved", pkg), hook.about("open", pkg)[1:]) {
		if m.Peer == sender {
			t.Errorf("%s is dead and told %+v", sender, m)
		}
	}
	hook.mu.Lock()
	defer hook.mu.Unlock()
	if len(hook.odd) > 0 {
		t.Errorf("odd requests: %q", hook.odd)
	}
	peers[sender].start() // for stop
}

// checkNumbers holds what a peer tells programs against what is documented.
func checkNumbers(ctx context.Context, t *testing.T, r *real) {
	t.Helper()
	info, err := r.client.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) string {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+info.Gateway[0]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s, %v: %s", path, res.Status, err, b)
		}
		return string(b)
	}
	get("/livez")
	get("/readyz")
	text := get("/metrics")
	doc, err := os.ReadFile("../metrics/metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^//\t(swarm_[a-z_]+)`).FindAllStringSubmatch(string(doc), -1) {
		documented[m[1]] = true
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(swarm_[a-z_]+)[{ ]`).FindAllStringSubmatch(text, -1) {
		told[m[1]] = true
		if !documented[m[1]] {
			t.Errorf("%s is not documented", m[1])
		}
	}
	for name := range documented {
		// Nothing is released here, and a round that stands still has no end.
		if !told[name] && !strings.HasPrefix(name, "swarm_release_") && !strings.HasPrefix(name, "swarm_round_") {
			t.Errorf("%s is documented and not told", name)
		}
	}
	if !regexp.MustCompile(`(?m)^swarm_issues\{kind="failed",severity="[a-z]+"\} 1$`).MatchString(text) || !strings.Contains(text, "\ngo_goroutines ") {
		t.Errorf("one package fails, and the numbers say: %s", text)
	}
}

package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/build/view"
)

// board is what five peers share.
type board struct {
	mu   sync.Mutex
	told map[string]bool
}

func (b *board) Told(context.Context) (map[string]bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]bool{}
	for k, v := range b.told {
		out[k] = v
	}
	return out, nil
}

func (b *board) Tell(_ context.Context, causes []string, open bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range causes {
		b.told[c] = open
	}
	return nil
}

// sink is where messages arrive.
type sink struct {
	mu     sync.Mutex
	got    []Message
	pulses [][]string
	fail   error
}

func (s *sink) Send(_ context.Context, m Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.got = append(s.got, m)
	return nil
}

func (s *sink) Pulse(_ context.Context, open []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulses = append(s.pulses, open)
	return nil
}

func (s *sink) messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message{}, s.got...)
}

// world is a swarm as its peers see it.
type world struct {
	mu     sync.Mutex
	peers  []view.Peer
	issues []view.Issue
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) seenBy(id string) func(context.Context) (*view.Detail, error) {
	return func(context.Context) (*view.Detail, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		d := &view.Detail{Snapshot: view.Snapshot{Self: id, Issues: append([]view.Issue{}, w.issues...)}}
		for _, p := range w.peers {
			p.Self = p.ID == id
			d.Peers = append(d.Peers, p)
		}
		return d, nil
	}
}

func five() *world {
	w := &world{}
	for i := range 5 {
		w.peers = append(w.peers, view.Peer{ID: fmt.Sprintf("peer%d", i), Nick: fmt.Sprintf("nick%d", i), State: "idle", Alerts: true})
	}
	return w
}

var gcc = view.Issue{ID: "job/gcc", Kind: view.IssueFailed, Severity: view.Degraded, Title: "sys-devel/gcc-14 does not build", Detail: "no space", HoldsUp: 41, Drones: []string{"nas"}, Do: "swarm logs gcc"}

// start runs an alerter for each peer; stop ends one.
func (w *world) start(ctx context.Context, t *testing.T, b Board, s Sender) (stop map[string]context.CancelFunc) {
	stop = map[string]context.CancelFunc{}
	for _, p := range w.peers {
		ctx, cancel := context.WithCancel(ctx)
		stop[p.ID] = cancel
		a := New(Config{Latest: w.seenBy(p.ID), Board: b, Senders: []Sender{s}, Log: slog.New(slog.DiscardHandler)})
		go func() {
			if err := a.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	return stop
}

func TestFivePeersTellOnceAndAnotherGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w, b, s := five(), &board{told: map[string]bool{}}, &sink{}
		stop := w.start(ctx, t, b, s)
		time.Sleep(2 * time.Minute)
		if len(s.messages()) != 0 || len(s.pulses) < 2 {
			t.Fatalf("all is well: %+v, %d pulses", s.got, len(s.pulses))
		}
		w.set(func() { w.issues = []view.Issue{gcc} })
		time.Sleep(30 * time.Second)
		if len(s.messages()) != 0 {
			t.Fatal("told before it lasted")
		}
		time.Sleep(20 * time.Minute)
		got := s.messages()
		if len(got) != 1 || got[0].HoldsUp != 41 || got[0].State != "open" || got[0].Do != "swarm logs gcc" {
			t.Fatalf("want it once, with all that it holds up: %+v", got)
		}
		// The one that told goes; nobody repeats it, and another tells the end.
		first := w.first(t)
		stop[first]()
		w.set(func() {
			for i := range w.peers {
				if w.peers[i].ID == first {
					w.peers[i].State = "away"
				}
			}
		})
		time.Sleep(20 * time.Minute)
		if n := len(s.messages()); n != 1 {
			t.Fatalf("%d messages after the teller is gone", n)
		}
		w.set(func() { w.issues = nil })
		time.Sleep(20 * time.Minute)
		if got = s.messages(); len(got) != 2 || got[1].State != "resolved" || !strings.Contains(got[1].Title, "gcc") || got[1].Peer == got[0].Peer {
			t.Fatalf("%+v", got)
		}
		// A new cause is told by the other, and nobody waits for the first.
		w.set(func() {
			w.issues = []view.Issue{{ID: "drones", Kind: view.IssueHeld, Severity: view.Blocked, Title: "every drone holds back"}}
		})
		time.Sleep(3 * time.Minute)
		if n := len(s.messages()); n != 3 {
			t.Errorf("%d messages", n)
		}
		cancel()
		synctest.Wait()
	})
}

// first is the peer that tells.
func (w *world) first(t *testing.T) string {
	t.Helper()
	for _, p := range w.peers {
		if d, err := w.seenBy(p.ID)(t.Context()); err == nil && Rank(d) == 0 {
			return p.ID
		}
	}
	t.Fatal("nobody is of rank 0")
	return ""
}

// A peer that has just died is still taken for one that is here; so is one that
// reaches no webhook.
func TestTheSecondTellsWhatTheFirstDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w, b, s := five(), &board{told: map[string]bool{}}, &sink{}
		stop := w.start(ctx, t, b, s)
		first := w.first(t)
		stop[first]()
		w.set(func() { w.issues = []view.Issue{gcc} })
		time.Sleep(90 * time.Second)
		if n := len(s.messages()); n != 0 {
			t.Fatalf("%d messages before the first had its time", n)
		}
		time.Sleep(time.Minute)
		if got := s.messages(); len(got) != 1 || got[0].Peer == strings.Replace(first, "peer", "nick", 1) {
			t.Fatalf("%+v", got)
		}
		w.set(func() { w.issues = nil })
		time.Sleep(90 * time.Second)
		if n := len(s.messages()); n != 1 {
			t.Fatalf("%d messages before the first had its time to tell the end", n)
		}
		time.Sleep(20 * time.Minute)
		if got := s.messages(); len(got) != 2 || got[1].State != "resolved" {
			t.Fatalf("%+v", got)
		}
		cancel()
		synctest.Wait()
	})
}

func TestWhatFlickersWakesNobody(t *testing.T) {
	b := NewBook(defaultGrace)
	d := &view.Detail{}
	told := map[string]bool{}
	for at := int64(1); at < 3_600_000; at += 10_000 {
		d.Issues = nil
		if at/30_000%2 == 0 {
			d.Issues = []view.Issue{gcc}
		}
		if due := b.Step(d, told, at, 0); len(due) != 0 {
			t.Fatalf("at %d: %+v", at, due)
		}
	}
	// A silent peer is told of after five minutes, and one that is merely worth
	// knowing never.
	d.Issues = []view.Issue{{ID: "peer/x", Kind: view.IssueAway, Severity: view.Healthy, Title: "nas fell silent"}, {ID: "names/x", Kind: view.IssueNames, Severity: view.Healthy}}
	b.Step(d, told, 4_000_000, 0)
	if due := b.Step(d, told, 4_000_000+4*60_000, 0); len(due) != 0 {
		t.Errorf("%+v", due)
	}
	if due := b.Step(d, told, 4_000_000+5*60_000, 0); len(due) != 1 || due[0].Causes[0] != "peer/x" {
		t.Errorf("%+v", due)
	}
}

func TestManyAtOnceAreOneMessage(t *testing.T) {
	b := NewBook(defaultGrace)
	d := &view.Detail{}
	for i := range 40 {
		x := gcc
		x.ID, x.HoldsUp = fmt.Sprintf("job/%02d", i), 2
		d.Issues = append(d.Issues, x)
	}
	b.Step(d, nil, 1000, 0)
	due := b.Step(d, nil, 100_000, 0)
	if len(due) != 1 || len(due[0].Causes) != 40 || due[0].HoldsUp != 80 || due[0].Title != "40 things want attention" {
		t.Errorf("%+v", due)
	}
}

func TestWhatOnePeerAloneKnowsItTellsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w, b, s := five(), &board{told: map[string]bool{}}, &sink{}
		local := view.Issue{ID: "link/x", Kind: view.IssueLink, Severity: view.Degraded, Title: "a stranger", Local: true}
		w.issues = []view.Issue{local}
		w.start(ctx, t, b, s)
		time.Sleep(5 * time.Minute)
		got := s.messages()
		if len(got) != 5 { // each of the five says that it sees one
			t.Errorf("%d messages", len(got))
		}
		seen := map[string]bool{}
		for _, m := range got {
			seen[m.Peer] = true
		}
		if len(seen) != 5 {
			t.Errorf("%v", seen)
		}
		cancel()
		synctest.Wait()
	})
}

func TestWhatIsNotDeliveredIsTriedAgainAndRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w, b, s := five(), &board{told: map[string]bool{}}, &sink{fail: errors.New("no route")}
		w.peers = w.peers[:1]
		w.issues = []view.Issue{gcc}
		w.start(ctx, t, b, s)
		time.Sleep(10 * time.Minute)
		if len(b.told) != 0 {
			t.Error("noted as told, and nobody heard it")
		}
		s.mu.Lock()
		s.fail = nil
		s.mu.Unlock()
		time.Sleep(15 * time.Minute)
		if len(s.messages()) != 1 || !b.told["job/gcc"] {
			t.Errorf("%+v", s.got)
		}
		cancel()
		synctest.Wait()
	})
}

// request is what a webhook got.
type request struct {
	method, path, query string
	body                string
}

func server(t *testing.T, code int) (string, func() []request) {
	t.Helper()
	var mu sync.Mutex
	var got []request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		got = append(got, request{r.Method, r.URL.Path, r.URL.RawQuery, string(b)})
		mu.Unlock()
		w.WriteHeader(code)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() []request { mu.Lock(); defer mu.Unlock(); return got }
}

func TestWebhooksSpeakWhatTheirServersRead(t *testing.T) {
	m := Message{Schema: 1, State: "open", Severity: "blocked", Title: "gcc does not build", Detail: "no\x1b[31m space\n<b>", HoldsUp: 41, Drones: []string{"nas"}, Do: "swarm logs gcc", Causes: []string{"job/gcc"}}
	base, got := server(t, 200)
	for _, u := range []string{base + "/hook", "ntfy+" + base + "/mytopic", base + "/api/push/secret?status=up&msg=OK&ping="} {
		s, err := ParseURL(u)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if err := s.Pulse(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	r := got()
	if len(r) != 4 {
		t.Fatalf("%+v", r)
	}
	var back Message
	if err := json.Unmarshal([]byte(r[0].body), &back); err != nil || r[0].path != "/hook" || back.HoldsUp != 41 || back.Title != m.Title {
		t.Errorf("JSON: %+v", r[0])
	}
	var n map[string]any
	if err := json.Unmarshal([]byte(r[1].body), &n); err != nil || r[1].path != "/" || n["topic"] != "mytopic" || n["priority"] != 4.0 || !strings.Contains(fmt.Sprint(n["message"]), "41 jobs wait") || strings.ContainsAny(fmt.Sprint(n["message"]), "\x1b\n") {
		t.Errorf("ntfy: %+v", r[1])
	}
	if r[2].method != http.MethodGet || r[2].path != "/api/push/secret" || !strings.Contains(r[2].query, "status=down") || !strings.Contains(r[3].query, "status=up") || !strings.Contains(r[3].query, "msg=OK") {
		t.Errorf("kuma: %+v %+v", r[2], r[3])
	}
}

func TestErrorsNameNoSecret(t *testing.T) {
	base, _ := server(t, 500)
	for _, u := range []string{base + "/api/push/secret", "http://127.0.0.1:1/secret", "ntfy+" + base + "/secret"} {
		s, err := ParseURL(u)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), Message{State: "open"}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
	for _, u := range []string{"", "nas", "ftp://x/y", "ntfy+https://ntfy.sh", "/no/such/program", "https://"} {
		if s, err := Parse([]string{u}); err == nil {
			t.Errorf("%q is taken: %+v", u, s)
		}
	}
}

func TestACommandGetsTheMessageAndNoShell(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "hook")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncat > "+dir+"/got\nprintf %s \"$SWARM_ALERT\" > "+dir+"/state\n[ -z \"$SECRET\" ]\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SECRET", "x")
	s, err := Parse([]string{script})
	if err != nil {
		t.Fatal(err)
	}
	if err := s[0].Send(t.Context(), Message{State: "open", Title: "$(touch " + dir + "/owned); `id`"}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "got"))
	if err != nil || !strings.Contains(string(b), "$(touch") {
		t.Errorf("%s %v", b, err)
	}
	if state, err := os.ReadFile(filepath.Join(dir, "state")); err != nil || string(state) != "open" {
		t.Errorf("%s %v", state, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "owned")); err == nil {
		t.Error("a title was run")
	}
	bad := &Command{"/bin/false"}
	if err := bad.Send(t.Context(), Message{}); err == nil {
		t.Error("a failing program is no delivery")
	}
}

package ui_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/build/view/viewtest"
	"github.com/build-swarm/swarm/httpgateway/ui"
)

// everyPage lists a path of each kind.
func everyPage(s *source) []string {
	out := []string{"/", "/?span=all&lanes=all&peers=all", "/-/packages", "/-/packages?q=lib&state=blocked&page=9", "/-/releases", "/-/storage", "/-/events?hours=168"}
	if t := s.detail.Timeline; t.StartMS > 0 {
		out = append(out, fmt.Sprintf("/?at=%d", (t.StartMS+t.NowMS)/2))
	}
	for _, p := range s.detail.Peers[:min(3, len(s.detail.Peers))] {
		out = append(out, "/-/peer/"+url.PathEscape(p.ID))
	}
	if k := s.key("blocked"); k != "" {
		out = append(out, "/-/log/"+k, "/-/order?verb=unblock&scope="+k, "/-/order?verb=reset&scope=desktop", "/-/package/dev-libs/openssl")
	}
	return out
}

func TestPagesOfEverySizeAreWhole(t *testing.T) {
	for _, o := range []viewtest.Options{{}, {Drones: 4, Jobs: 60, Failures: 2, Away: 1}, {Drones: 4, Jobs: 40, Closed: true}, {Drones: 100, Jobs: 600, Failures: 3, Away: 2}} {
		s := newSource(o)
		u := newUI(t, s)
		for _, p := range everyPage(s) {
			w := get(t, u, p)
			body := w.Body.String()
			if w.Code != http.StatusOK || !strings.HasSuffix(body, "</html>\n") || strings.Contains(body, "ZgotmplZ") || strings.Contains(body, "<no value>") {
				t.Errorf("%+v %s: %d, %d bytes", o, p, w.Code, len(body))
			}
			if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: policy %q", p, csp)
			}
			for _, bad := range []string{"style=\"", "onclick", "<style", "http://", "https://", "//"} {
				for _, attr := range []string{"src=\"" + bad, "href=\"" + bad, bad + "\""} {
					if (bad == "style=\"" || bad == "onclick" || bad == "<style") && strings.Contains(body, bad) || bad != "style=\"" && attr != bad+"\"" && strings.Contains(body, attr) {
						t.Errorf("%s has %s: inline code or something from outside", p, attr)
					}
				}
			}
		}
	}
	s := newSource(viewtest.Options{})
	for path, code := range map[string]int{"/-/nothing": 404, "/-/package/../x": 404, "/-/package/a/b": 404, "/-/log/xyz": 404, "/-/order?verb=destroy&scope=all": 400, "/-/order": 400} {
		if w := get(t, newUI(t, s), path); w.Code != code && w.Code/100 != 3 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestWhatOthersSayIsShownAsText(t *testing.T) {
	s := newSource(viewtest.Options{Drones: 4, Jobs: 60, Failures: 4, Away: 1, Hostile: true})
	s.log = ">>> Compiling source in /x ...\nerror: " + viewtest.Nasty + "\x1b]0;title\x07\x9b31m\xff\n" + strings.Repeat("long", 300_000) + "\nafter\n"
	s.rails = []ui.Rail{{Target: "desktop", Channel: "stable" + viewtest.Nasty, Heads: []ui.Head{{Version: 1, CID: viewtest.Nasty, Packages: 1, Current: true}}}}
	s.changes = []ui.Change{{Kind: viewtest.Nasty, CPV: viewtest.Nasty, CP: viewtest.Nasty, Old: viewtest.Nasty, New: viewtest.Nasty}}
	s.gateway = ui.Gateway{Misses: []ui.Miss{{CPV: viewtest.Nasty, Times: 1}}, Served: []ui.Served{{Target: viewtest.Nasty, Problem: viewtest.Nasty}}}
	s.events = append(s.events, view.Event{AtMS: viewtest.Wall - 1, Kind: view.EventKind(viewtest.Nasty), Text: viewtest.Nasty, Bad: true})
	s.change(func(d *view.Detail) {
		d.Sentence, d.Next = viewtest.Nasty, viewtest.Nasty
		d.Issues = append(slices.Clone(d.Issues), view.Issue{ID: "x", Title: viewtest.Nasty, Detail: viewtest.Nasty, Drones: []string{viewtest.Nasty}, Do: viewtest.Nasty})
		d.Jobs, d.Peers = slices.Clone(d.Jobs), slices.Clone(d.Peers)
		d.Jobs[0].Phase, d.Jobs[0].Peer, d.Jobs[0].Target = viewtest.Nasty, viewtest.Nasty, viewtest.Nasty
		d.Jobs[1].Reason, d.Jobs[1].State = viewtest.Nasty+strings.Repeat("x", 1<<20), viewtest.Nasty
		d.Staging = []view.Staging{{Target: viewtest.Nasty, Problem: viewtest.Nasty}, {Target: viewtest.Nasty}}
		d.Blobs.Classes = []view.BlobClass{{Class: viewtest.Nasty, Total: 3, Lost: 1}}
		d.Timeline.Lanes = slices.Clone(d.Timeline.Lanes)
		for i := range d.Timeline.Lanes {
			l := &d.Timeline.Lanes[i]
			l.Nick, l.Bars = viewtest.Nasty, slices.Clone(l.Bars)
			for n := range l.Bars {
				b := &l.Bars[n]
				b.CPV, b.CP, b.Note, b.EndMS = viewtest.Nasty, `x" onclick="alert(1)`+viewtest.Nasty, viewtest.Nasty, b.StartMS+3_600_000
			}
		}
		d.Peers[1].Why, d.Peers[1].Site, d.Peers[1].Nick = viewtest.Nasty, viewtest.Nasty, viewtest.Nasty
	})
	u := newUI(t, s)
	for _, p := range append(everyPage(s), "/-/packages?q="+url.QueryEscape(viewtest.Nasty), "/-/events?q="+url.QueryEscape(viewtest.Nasty), "/-/"+url.PathEscape(viewtest.Nasty),
		"/-/order?verb=pause&scope="+url.QueryEscape(viewtest.Nasty)) {
		body := get(t, u, p).Body.String()
		for _, bad := range []string{"<script>alert", `" onclick="`, "\x1b", "\u202e", "\u200f", "\x07", "\u009b", "\xff"} {
			if i := strings.Index(body, bad); i >= 0 {
				t.Errorf("%s lets %q through: %q", p, bad, body[max(0, i-80):min(len(body), i+80)])
			}
		}
		if len(body) > 1<<20 {
			t.Errorf("%s: %d bytes of page for a line of a megabyte", p, len(body))
		}
	}
	// The raw text keeps its bytes, and no browser takes it for a page.
	w := get(t, u, "/-/log/"+s.key("blocked")+"/raw")
	if w.Header().Get("Content-Type") != "text/plain; charset=utf-8" || w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Body.String() != s.log {
		t.Errorf("raw: %v, %d bytes", w.Header(), w.Body.Len())
	}
	// And the stream says nothing else.
	stream := listen(t, u, "/")
	stream.until(t, "sections", func(data string) bool {
		for _, bad := range []string{"<script>alert", "\x1b", "\u202e"} {
			if strings.Contains(data, bad) {
				t.Errorf("the stream lets %q through", bad)
			}
		}
		return true
	})
}

// post gives an order as a form, with headers in pairs.
func post(t *testing.T, u *ui.UI, form url.Values, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:8090"+ui.OrderPath, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	u.Orders(w, r)
	return w
}

func TestAnOrderWantsItsTokenAndItsOrigin(t *testing.T) {
	s := newSource(viewtest.Options{Drones: 4, Jobs: 60, Failures: 2})
	u := newUI(t, s)
	form := func(kv ...string) url.Values {
		v := url.Values{"verb": {"unblock"}, "scope": {s.key("blocked")}, "token": {goodToken}}
		for i := 0; i+1 < len(kv); i += 2 {
			v.Set(kv[i], kv[i+1])
		}
		return v
	}
	own := []string{"Origin", "http://127.0.0.1:8090", "Sec-Fetch-Site", "same-origin"}
	for name, c := range map[string]struct {
		form   url.Values
		header []string
		code   int
	}{
		"no token":            {form("token", ""), own, 403},
		"a wrong token":       {form("token", goodToken+"x"), own, 403},
		"another site":        {form(), []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		"an old browser":      {form(), []string{"Origin", "https://evil.example"}, 403},
		"a sandboxed frame":   {form(), []string{"Origin", "null"}, 403},
		"another port here":   {form(), []string{"Origin", "http://127.0.0.1:9999", "Sec-Fetch-Site", "same-site"}, 403},
		"JSON":                {form(), append([]string{"Content-Type", "application/json"}, own...), 415},
		"plain text":          {form(), append([]string{"Content-Type", "text/plain"}, own...), 415},
		"an unknown verb":     {form("verb", "destroy"), own, 400},
		"ban is not for here": {form("verb", "ban"), own, 400},
		"reset, not typed":    {form("verb", "reset", "scope", "desktop"), own, 400},
		"lifting unblock":     {form("off", "1"), own, 400},
	} {
		if w := post(t, u, c.form, c.header...); w.Code != c.code {
			t.Errorf("%s: %d, want %d", name, w.Code, c.code)
		}
	}
	if len(s.orders) != 0 {
		t.Fatalf("orders were given: %+v", s.orders)
	}
	// A token in the address is no token: it would be in logs and histories.
	if w := get(t, u, ui.OrderPath+"?verb=unblock&scope="+s.key("blocked")+"&token="+goodToken); w.Code != 200 || len(s.orders) != 0 {
		t.Errorf("GET: %d, %+v", w.Code, s.orders)
	}
	for _, h := range [][]string{own, nil} { // a browser, and a program
		if w := post(t, u, form("reason", "mended"), h...); w.Code != 200 || !strings.Contains(w.Body.String(), "unblock it is") {
			t.Errorf("%d %s", w.Code, w.Body.String())
		}
	}
	if w := post(t, u, form("verb", "reset", "scope", "desktop", "typed", "desktop"), own...); w.Code != 200 {
		t.Errorf("reset: %d", w.Code)
	}
	if len(s.orders) != 3 || s.orders[0].Verb != "unblock" || s.orders[0].Scope != s.key("blocked") || s.orders[0].Reason != "mended" || s.orders[2].Verb != "reset" {
		t.Errorf("%+v", s.orders)
	}
	if strings.Contains(strings.Join(headers(get(t, u, "/")), " "), "Set-Cookie") {
		t.Error("a cookie is set")
	}
}

func headers(w *httptest.ResponseRecorder) []string {
	var out []string
	for k := range w.Header() {
		out = append(out, k)
	}
	return out
}

func TestAnotherSiteMayLinkAndReadNothing(t *testing.T) {
	u := newUI(t, newSource(viewtest.Options{Drones: 1}))
	for _, c := range []struct {
		site, mode string
		code       int
	}{
		{"cross-site", "navigate", 200}, {"none", "navigate", 200}, {"same-origin", "cors", 200}, {"", "", 200},
		{"cross-site", "no-cors", 403}, {"cross-site", "cors", 403}, {"same-site", "cors", 403}, {"cross-site", "websocket", 403},
	} {
		w := get(t, u, "/", "Sec-Fetch-Site", c.site, "Sec-Fetch-Mode", c.mode)
		if w.Code != c.code {
			t.Errorf("%+v: %d", c, w.Code)
		}
		if h := w.Header(); h.Get("X-Frame-Options") != "DENY" || h.Get("Cross-Origin-Resource-Policy") != "same-origin" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%+v: %v", c, h)
		}
	}
}

// stream is an open stream of events.
type stream struct {
	r   *bufio.Reader
	end func()
}

func listen(t *testing.T, u http.Handler, path string) *stream {
	t.Helper()
	srv := httptest.NewServer(u)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if ct := res.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/event-stream") {
		t.Fatalf("%s: %s", path, ct)
	}
	s := &stream{bufio.NewReader(res.Body), func() { cancel(); _ = res.Body.Close(); srv.Close() }}
	t.Cleanup(s.end)
	return s
}

// until reads events until one of a name satisfies f.
func (s *stream) until(t *testing.T, name string, f func(data string) bool) {
	t.Helper()
	event, data := "", []string{}
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended before %s: %v", name, err)
		}
		line = strings.TrimSuffix(line, "\n")
		switch key, value, _ := strings.Cut(line, ": "); {
		case line == "":
			if event == name && f(strings.Join(data, "\n")) {
				return
			}
			event, data = "", nil
		case key == "event":
			event = value
		case key == "data":
			data = append(data, value)
		}
	}
}

func TestThePageTellsWhenARoundEndsAndWhatIsStaged(t *testing.T) {
	s := newSource(viewtest.Options{Drones: 4, Jobs: 200})
	s.change(func(d *view.Detail) {
		d.Rounds = slices.Clone(d.Rounds)
		d.Rounds[0].LeftLowMS, d.Rounds[0].LeftHighMS = 60_000, 30*3_600_000
		d.Staging = []view.Staging{{Target: "default", New: 12, Changed: 3, Held: 7, Why: []view.HeldBack{{CPV: "x/twin-1.0", Reason: "beta could not install it: it collides at /usr/bin/<x>"}}}}
		d.Blobs.Classes = []view.BlobClass{{Class: "released", Total: 40}, {Class: "wanted", Total: 9, Lost: 1, Single: 2}}
	})
	u := newUI(t, s)
	low, high := time.UnixMilli(s.detail.AtMS+60_000), time.UnixMilli(s.detail.AtMS+30*3_600_000)
	for path, all := range map[string][]string{
		"/":           {low.Format("15:04") + "–" + high.Format("Mon 15:04"), "+12", "7 held back"},
		"/-/releases": {"Held back", `<a href="/-/package/x/twin">x/twin-1.0</a>`, "beta could not install it: it collides at /usr/bin/&lt;x&gt;", "and more: "},
		"/-/storage":  {"in releases", "all well", "1 on no peer here", "2 with one copy"},
	} {
		body := get(t, u, path).Body.String()
		for _, want := range all {
			if !strings.Contains(body, want) {
				t.Errorf("%s does not say %q", path, want)
			}
		}
	}
}

func TestEveryPeerHasAPage(t *testing.T) {
	s := newSource(viewtest.Options{Drones: 4, Jobs: 60, Failures: 2, Away: 1})
	u := newUI(t, s)
	for _, p := range s.detail.Peers {
		body := get(t, u, "/").Body.String()
		if !strings.Contains(body, `href="/-/peer/`+p.ID+`"`) {
			t.Errorf("the first page leads to no page of %s", p.Nick)
		}
		for _, name := range []string{p.ID, p.Nick} {
			w := get(t, u, "/-/peer/"+name)
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), p.ID) || !strings.Contains(w.Body.String(), "<h1>"+p.Nick+"</h1>") {
				t.Errorf("%s: %d", name, w.Code)
			}
			for _, b := range p.Doing {
				if !strings.Contains(w.Body.String(), b.CPV) {
					t.Errorf("%s builds %s, and its page does not say so", p.Nick, b.CPV)
				}
			}
		}
		built := 0
		for _, j := range s.detail.Jobs {
			if j.PeerID == p.ID && j.EndedMS > 0 {
				built++
			}
		}
		if n := strings.Count(get(t, u, "/-/peer/"+p.ID).Body.String(), `<th scope="row"><a href="/-/log/`); n != min(built, 60) {
			t.Errorf("%s built %d, and its page lists %d", p.Nick, built, n)
		}
	}
	if w := get(t, u, "/-/peer/nobody"); w.Code != http.StatusNotFound {
		t.Errorf("of nobody: %d", w.Code)
	}
}

func TestAStreamSendsWhatChangedAlone(t *testing.T) {
	s := newSource(viewtest.Options{Drones: 4, Jobs: 60})
	st := listen(t, newUI(t, s), "/")
	ids := func(data string) []string {
		var m map[string]string
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			t.Fatal(err)
		}
		var out []string
		for id := range m {
			out = append(out, id)
		}
		slices.Sort(out)
		return out
	}
	st.until(t, "sections", func(data string) bool {
		if got := fmt.Sprint(ids(data)); got != "[attention peers recent rounds timeline verdict]" {
			t.Errorf("at first: %s", got)
		}
		return true
	})
	s.change(func(d *view.Detail) { d.Sentence = "something else" })
	st.until(t, "sections", func(data string) bool {
		if got := fmt.Sprint(ids(data)); got != "[verdict]" || !strings.Contains(data, "something else") {
			t.Errorf("then: %s", got)
		}
		return true
	})
	st.end()
	for deadline := time.Now().Add(10 * time.Second); ; {
		s.mu.Lock()
		n := len(s.watchers)
		s.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody looks, and the page is still made")
		}
	}
}

func TestALogIsFollowedFromWhereThePageEnds(t *testing.T) {
	s := newSource(viewtest.Options{Drones: 4, Jobs: 60})
	s.log = ">>> Compiling source in /x ...\nfirst\nsec"
	s.logMore = make(chan string)
	u := newUI(t, s)
	key := s.key("building")
	body := get(t, u, "/-/log/"+key).Body.String()
	from := fmt.Sprintf(`data-from="%d"`, len(">>> Compiling source in /x ...\nfirst\n"))
	if !strings.Contains(body, from) || !strings.Contains(body, "first") || strings.Contains(body, ">sec") || !strings.Contains(body, "data-follow") {
		t.Errorf("want %s and whole lines alone:\n%s", from, body)
	}
	st := listen(t, u, "/-/log/"+key+fmt.Sprintf("?from=%d&line=2", len(">>> Compiling source in /x ...\nfirst\n")))
	go func() {
		s.logMore <- "ond\n>>> Install a/b-1 into /y\nmake: *** [x] <b>Error</b>\n"
		close(s.logMore)
	}()
	all := ""
	st.until(t, "lines", func(data string) bool { all += data; return strings.Contains(all, "second") })
	if strings.Contains(all, "first") {
		t.Errorf("sent again: %q", all)
	}
	st.until(t, "phase", func(data string) bool { return data == "install" })
	st.until(t, "lines", func(data string) bool {
		if !strings.Contains(data, "&lt;b&gt;Error") || !strings.Contains(data, `class="ln err"`) {
			t.Errorf("%q", data)
		}
		return true
	})
	st.until(t, "end", func(string) bool { return true })
}

func TestALogIsFoldedAndItsFirstErrorFound(t *testing.T) {
	s := newSource(viewtest.Options{Drones: 4, Jobs: 60, Failures: 2})
	s.log = buildLog()
	body := get(t, newUI(t, s), "/-/log/"+s.key("blocked")).Body.String()
	for _, want := range []string{`id="first-error"`, "fatal error: foo.h: No such file", "configure <small>", "compile <small>", "lines are left out", "First error, line 2"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	if strings.Contains(body, "[1;31m") || strings.Contains(body, "[32m") {
		t.Error("terminal colours are left as text")
	}
	if n := strings.Count(body, `<details class="phase" open`); n != 1 {
		t.Errorf("%d phases are open: the one that failed should be", n)
	}
}

func TestPackagesAreFilteredByTheServer(t *testing.T) {
	s := newSource(viewtest.Options{Drones: 20, Jobs: 600, Failures: 5})
	u := newUI(t, s)
	rows := func(path string) int { return strings.Count(get(t, u, path).Body.String(), `<th scope="row">`) }
	if n := rows("/-/packages"); n != 150 {
		t.Errorf("%d rows on the first page", n)
	}
	if n := rows("/-/packages?q=openssl"); n != 1 {
		t.Errorf("%d rows for openssl", n)
	}
	blocked := 0
	for _, j := range s.Newest().Jobs {
		if j.State == "blocked" {
			blocked++
		}
	}
	if n := rows("/-/packages?state=blocked"); n != blocked || n == 0 {
		t.Errorf("%d rows, %d blocked", n, blocked)
	}
	if n := rows("/-/packages?page=4"); n != 150 {
		t.Errorf("%d rows on the last page", n)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The bar of a page of a round of 3,000 jobs on 100 drones, snapshot and all.
const pageBar = 50 * time.Millisecond

func BenchmarkPage(b *testing.B) {
	s := newSource(viewtest.Options{Drones: 100, Jobs: 3000, Failures: 12, Away: 3})
	u := newUI(b, s)
	for _, path := range []string{"/", "/?span=all&lanes=all&peers=all", "/-/packages"} {
		b.Run(strings.NewReplacer("/", "_", "?", "_").Replace(path), func(b *testing.B) {
			var took []time.Duration
			size := 0
			for b.Loop() {
				t := cpuTime()
				d := view.Look(s.swarm.Replica, s.swarm.Now)
				s.change(func(x *view.Detail) { *x = *d })
				size = get(b, u, path).Body.Len()
				took = append(took, cpuTime()-t)
			}
			slices.Sort(took)
			med := took[len(took)/2]
			b.ReportMetric(float64(med.Microseconds())/1000, "cpu-ms/op")
			b.ReportMetric(float64(med)/float64(pageBar), "x-bar")
			b.ReportMetric(float64(size)/1000, "kB")
		})
	}
}

// BenchmarkOpenPage measures what a page that is open costs while the board
// changes all the time: the rendering, paced by what it takes. (Snapshots have a
// bound of their own, half a percent.)
func BenchmarkOpenPage(b *testing.B) {
	s := newSource(viewtest.Options{Drones: 100, Jobs: 3000, Failures: 12})
	srv := httptest.NewServer(newUI(b, s))
	defer srv.Close()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/", nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := srv.Client().Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	news := make(chan struct{}, 1)
	go func() {
		sc := bufio.NewScanner(res.Body)
		sc.Buffer(nil, 8<<20)
		for sc.Scan() {
			if strings.HasPrefix(sc.Text(), "event: sections") {
				news <- struct{}{}
			}
		}
	}()
	<-news
	start, used := time.Now(), cpuTime()
	n := 0
	for b.Loop() {
		n++
		s.change(func(d *view.Detail) { d.Sentence = fmt.Sprint("change ", n); d.AtMS++ })
		<-news
	}
	b.ReportMetric(100*float64(cpuTime()-used)/float64(time.Since(start)), "percent-of-core")
}

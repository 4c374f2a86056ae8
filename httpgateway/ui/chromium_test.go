package ui_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/build/view/viewtest"
	"github.com/build-swarm/swarm/httpgateway/ui"
)

// pictures is where TestPictures leaves what it sees, for people to look at.
var pictures = flag.String("pictures", "", "write pictures of the pages to this `directory`")

// browser starts a headless Chromium with a profile of its own, or skips.
func browser(t *testing.T) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser takes seconds to start")
	}
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("no Chromium on PATH: the page is not clicked through here (Debian: apt-get install chromium)")
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true))...)
	ctx, end := chromedp.NewContext(alloc)
	ctx, late := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(func() { late(); end(); stop() })
	return ctx
}

// colours sets what the page is told of the reader's taste.
func colours(scheme string) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return chromedp.Void{}, err
	}
}

func TestPictures(t *testing.T) {
	if *pictures == "" {
		t.Skip("no -pictures directory given")
	}
	ctx := browser(t)
	shoot := func(name string, url string, width int64, dark bool) {
		scheme := "light"
		if dark {
			scheme = "dark"
		}
		err := chromedp.Do(ctx, chromedp.EmulateViewport(width, 900), colours(scheme), chromedp.Navigate(url), chromedp.WaitReady("main"))
		var png []byte
		if err == nil {
			png, err = chromedp.Run(ctx, chromedp.FullScreenshot(100))
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(*pictures, fmt.Sprintf("%s-%d-%s.png", name, width, scheme)), png, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, sc := range []struct {
		name  string
		o     viewtest.Options
		pages []string
	}{
		{"0", viewtest.Options{}, []string{"/", "/-/packages", "/-/releases", "/-/storage", "/-/events"}},
		{"4", viewtest.Options{Drones: 4, Jobs: 60, Failures: 2, Away: 1}, []string{"/", "/-/packages", "/-/releases", "/-/storage", "/-/events", "/-/package/dev-libs/openssl", "LOG", "ORDER", "BLOCKED", "/-/peer/nas", fmt.Sprintf("/?at=%d", viewtest.Wall-90_000)}},
		{"100", viewtest.Options{Drones: 100, Jobs: 3000, Failures: 12, Away: 3}, []string{"/", "/-/packages", "/-/storage"}},
		{"hostile", viewtest.Options{Drones: 4, Jobs: 60, Failures: 4, Hostile: true}, []string{"/", "/-/packages"}},
	} {
		s := newSource(sc.o)
		s.log = buildLog()
		if sc.name == "4" {
			s.gateway = ui.Gateway{Index: 12, NotModified: 340, Local: 71, Streamed: 12, Missing: 3, PackageBytes: 812_000_000, SinceMS: viewtest.Wall - 7_200_000,
				Misses: []ui.Miss{{CPV: "app-editors/vim-9.1.0", Times: 3, LastMS: viewtest.Wall - 600_000}}, Served: []ui.Served{{Target: "desktop", Version: 3, Packages: 412}}}
			s.rails = []ui.Rail{{Target: "desktop", Channel: "stable", Heads: []ui.Head{
				{Version: 3, CID: "bafkr4ihdp2iyoqvtn7k4rj4eclmhisrhopovn7smtsw6gsoxiwlyeyuoym", AtMS: viewtest.Wall - 1e7, Packages: 412, Current: true, By: "desktop", New: 2, Changed: 40},
				{Version: 2, CID: "bafkr4ihsiszfa5kgulmnkyomhmzntc3rzcbbpicypezt6l4man7nb3iwsm", AtMS: viewtest.Wall - 9e7, Packages: 410, Pinned: true, By: "nas", New: 11, Gone: 1},
				{Version: 1, CID: "bafkr4ia22ekf6psnijaohidgcn23khdbsbsm7e5phs5f6rfoqlagmxnoqi", AtMS: viewtest.Wall - 3e8, Packages: 400, Pruned: true}}}}
			s.changes = []ui.Change{{Kind: "new", CPV: "app-misc/jq-1.7.1", CP: "app-misc/jq", New: "USE oniguruma", Size: 400_000},
				{Kind: "changed", CPV: "dev-libs/openssl-3.5.0", CP: "dev-libs/openssl", Old: "3.4.1", New: "3.5.0", Size: 9_000_000}, {Kind: "gone", CPV: "dev-libs/foo-1", CP: "dev-libs/foo", Old: "USE ssl"}}
		}
		srv := httptest.NewServer(newUI(t, s))
		for i, p := range sc.pages {
			switch p {
			case "LOG":
				p = "/-/log/" + s.key("blocked")
			case "ORDER":
				p = "/-/order?verb=unblock&scope=" + s.key("blocked")
			case "BLOCKED":
				for _, j := range s.Newest().Jobs {
					if j.State == "blocked" {
						p = "/-/package/" + cpOf(j.CPV)
					}
				}
			}
			for _, width := range []int64{1400, 390} {
				for _, dark := range []bool{false, true} {
					if i == 0 || dark == (width == 390) {
						shoot(fmt.Sprintf("%s-%d", sc.name, i), srv.URL+p, width, dark)
					}
				}
			}
		}
		srv.CloseClientConnections() // the page that is open still listens
		srv.Close()
	}
}

// text is what a reader sees in an element.
func text(sel string) string {
	return fmt.Sprintf("(document.querySelector(%q)?.innerText ?? '')", sel)
}

// seen waits until an expression is true in the page, whichever page that is.
func seen(ctx context.Context, t *testing.T, what, expr string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expr))
		if err == nil && ok {
			return
		}
		select {
		case <-tick.C: // a page that is being left has no answer
		case <-late:
			t.Fatalf("never seen: %s (%v)", what, err)
		}
	}
}

func do(ctx context.Context, t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// TestAPersonAtTheBrowser goes the ways of somebody who has the page open: looks,
// clicks, filters, follows a log, gives an order, and sits through a restart.
func TestAPersonAtTheBrowser(t *testing.T) {
	ctx := browser(t)
	s := newSource(viewtest.Options{Drones: 4, Jobs: 120, Failures: 3})
	handler := newUI(t, s)
	mux := http.NewServeMux()
	mux.Handle("/", handler)
	mux.HandleFunc("POST "+ui.OrderPath, handler.Orders)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	serve := func(l net.Listener) *http.Server {
		srv := &http.Server{Handler: mux}
		go func() { _ = srv.Serve(l) }() // until it is closed
		return srv
	}
	srv := serve(ln)
	base := "http://" + addr

	// Looks: it comes alive, and a change shows by itself.
	do(ctx, t, chromedp.Navigate(base+"/#token="+goodToken), chromedp.WaitReady("#verdict h1"))
	seen(ctx, t, "the page says that it is live", text("#link")+" === 'live'")
	seen(ctx, t, "the token left the address", "location.hash === '' && sessionStorage.getItem('token') === '"+goodToken+"'")
	s.change(func(d *view.Detail) { d.Sentence = "the sentence has changed" })
	seen(ctx, t, "a change shows", text("#verdict")+".includes('the sentence has changed')")

	// The peer restarts: the page says so, and comes back by itself.
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	seen(ctx, t, "the page says that nobody answers", text("#link")+".includes('does not answer')")
	s.change(func(d *view.Detail) { d.Sentence = "after the restart" })
	if ln, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	srv = serve(ln)
	defer srv.Close()
	seen(ctx, t, "the page comes back", text("#link")+" === 'live' && "+text("#verdict")+".includes('after the restart')")

	// Keys and the filter.
	do(ctx, t, chromedp.KeyEvent("2"))
	seen(ctx, t, "key 2 opens the packages", "location.pathname === '/-/packages' && !!document.querySelector('#matrix table')")
	seen(ctx, t, "its script runs", text("#link")+" === 'live'")
	do(ctx, t, chromedp.KeyEvent("/"))
	seen(ctx, t, "key / goes to the filter", "document.activeElement?.id === 'q'")
	// The driver sends a key and its character one after the other: the "/" may
	// have come into the field, as it does not when a person types.
	seen(ctx, t, "what is in it is selected", "document.activeElement.select() === undefined")
	do(ctx, t, chromedp.KeyEvent("openssl"))
	seen(ctx, t, "the filter acts as one types", "document.querySelectorAll('#matrix tbody tr').length === 1 && "+text("#matrix")+".includes('dev-libs/openssl')")
	do(ctx, t, chromedp.Click("#matrix tbody a"))
	seen(ctx, t, "a click opens the package", "location.pathname === '/-/package/dev-libs/openssl'")

	// A log that grows is followed.
	s.mu.Lock()
	s.log, s.logMore = ">>> Compiling source in /x ...\nfirst line\n", make(chan string)
	more := s.logMore
	s.mu.Unlock()
	do(ctx, t, chromedp.Navigate(base+"/-/log/"+s.key("building")))
	seen(ctx, t, "the log is there", text("#phases")+".includes('first line')")
	for _, piece := range []string{"second line\nthi", "rd line <b>bold</b>\n", ">>> Install x into /y\nlast line\n"} {
		select {
		case more <- piece:
		case <-time.After(20 * time.Second):
			t.Fatal("nobody follows the log")
		}
	}
	close(more)
	seen(ctx, t, "what is written shows, as text", "['third line <b>bold</b>', 'last line'].every(x => document.querySelector('#phases').textContent.includes(x))")
	seen(ctx, t, "the phase it is in is the one that is open", "[...document.querySelectorAll('details.phase[open] summary')].at(-1).textContent.startsWith('install')")
	seen(ctx, t, "its end is said", text("#follow")+".includes('has ended')")

	// An order, with the token that came with the address.
	do(ctx, t, chromedp.Navigate(base+ui.OrderPath+"?verb=unblock&scope="+s.key("blocked")))
	seen(ctx, t, "the token is filled in", "document.querySelector('[data-token]').value === '"+goodToken+"'")
	do(ctx, t, chromedp.Click("button.go"))
	seen(ctx, t, "the order is given", text("#order")+".includes('unblock it is')")
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.orders) != 1 || s.orders[0].Verb != "unblock" {
		t.Errorf("%+v", s.orders)
	}
}

package demo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/md5"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
	"github.com/build-swarm/swarm/httpgateway/binhost"
)

// world is what a demo leaves behind, made by the real board: alpha, beta and
// gamma built three packages, gamma was lost in the middle of the third. A test
// changes one thing in it and sees which figure moves.
type world struct {
	t       *testing.T
	now     claims.Now
	peers   []*claims.Replica // alpha, beta, gamma
	lost    map[int]bool
	jobs    []build.Job
	blobs   [][]byte // by job
	history *history
	dirs    []string // of the survivors
	serve   func(name string, w http.ResponseWriter, body []byte)
	index   []binhost.Block
}

const gamma = 2

func key(n int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(n + 1)}, ed25519.SeedSize))
}

func id(n int) string { return wire.PeerID(key(n).Public().(ed25519.PublicKey)) }

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: claims.Now{Wall: 1_800_000_000_000, Boot: 1}, lost: map[int]bool{}, history: newHistory()}
	for n := range 3 {
		w.peers = append(w.peers, claims.NewReplica(claims.Config{Key: key(n), Instance: uint64(n + 1), Rand: rand.New(rand.NewPCG(uint64(n), 1))}, nil, w.now))
	}
	w.pass(11_000) // a peer that hears nobody waits before it writes
	for n := range w.peers {
		w.step(n, claims.Report{Beat: claims.Beat{Nick: fmt.Sprint(n), Slots: 1, Speed: 1000, Accepting: true, Stores: true, StoreFree: 1 << 40, Builders: []build.Builder{build.BuilderSample}}})
	}
	for n := range 3 {
		pre := []build.Facet{{Name: "n", Value: fmt.Sprint(n)}}
		k, err := build.KeyOf(pre)
		if err != nil {
			t.Fatal(err)
		}
		w.jobs = append(w.jobs, build.Job{Key: k, Builder: build.BuilderSample, CPV: build.CPV{Category: "app-misc", Name: fmt.Sprintf("p%d", n), Version: "1"}, Slot: "0", Repo: "t", Preimage: pre})
		w.blobs = append(w.blobs, bytes.Repeat([]byte{byte('a' + n)}, 1000+n))
	}
	w.step(0, claims.Post{Body: claims.NewRound(build.Round{ID: "r1", Target: "t", Priority: build.Normal, State: build.RoundOpen, Counter: 1, Requester: id(0),
		Created: uint64(w.peers[0].Stamp(w.now)), Jobs: 3, Plan: &build.Plan{Target: "t", Jobs: w.jobs}})})
	for range 2 {
		dir := t.TempDir()
		w.dirs = append(w.dirs, dir)
		for n := range w.blobs {
			w.keep(dir, w.blobs[n])
		}
	}
	for n, b := range w.blobs {
		m, s := md5.Sum(b), sha1.Sum(b)
		w.index = append(w.index, binhost.Block{"CPV": w.jobs[n].CPV.String(), "PATH": fmt.Sprint(n), "SIZE": fmt.Sprint(len(b)),
			"MD5": hex.EncodeToString(m[:]), "SHA1": hex.EncodeToString(s[:])})
	}
	w.serve = func(_ string, rw http.ResponseWriter, body []byte) {
		if _, err := rw.Write(body); err != nil {
			t.Error(err)
		}
	}
	return w
}

func (w *world) blob(dir string, b []byte) string { return filepath.Join(dir, cas.Sum(b).String()) }

func (w *world) keep(dir string, b []byte) {
	if err := os.WriteFile(w.blob(dir, b), b, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// pass lets time go by for everybody.
func (w *world) pass(ms int64) {
	w.now.Wall += ms
	w.now.Boot += ms
	for n := range w.peers {
		w.step(n, claims.Tick{})
	}
}

// step has one peer do something; the others hear of it, and the demo looks.
func (w *world) step(n int, ev claims.Event) {
	if w.lost[n] {
		return
	}
	var heard []wire.Opened
	for _, e := range w.peers[n].Step(w.now, ev) {
		if p, ok := e.(claims.Publish); ok {
			heard = append(heard, p.Record)
		}
	}
	for m := range w.peers {
		if m != n && !w.lost[m] && len(heard) > 0 {
			w.peers[m].Step(w.now, claims.Received{From: id(n), Records: heard})
		}
	}
	for m := range gamma {
		var raws [][]byte
		for _, o := range w.peers[m].Records() {
			raws = append(raws, o.Raw())
		}
		w.history.see(raws)
	}
}

func (w *world) outcome(job int) build.Outcome {
	b := w.blobs[job]
	m, s := md5.Sum(b), sha1.Sum(b)
	return build.Outcome{Key: w.jobs[job].Key, CPV: w.jobs[job].CPV, Target: "t", Class: build.Good, Started: uint64(hlc.New(w.now.Wall)),
		Artifact: &build.Artifact{CID: cas.Sum(b).String(), Size: int64(len(b)), MD5: hex.EncodeToString(m[:]), SHA1: hex.EncodeToString(s[:]), MTime: 1}}
}

func (w *world) build(peer, job int) {
	w.step(peer, claims.Take{Key: w.jobs[job].Key})
	w.pass(1000)
	w.step(peer, claims.Finished{Outcome: w.outcome(job)})
}

// play is the usual run; first is who begins the job that gamma is lost in.
func (w *world) play(first int) {
	w.build(0, 0)
	w.build(1, 1)
	w.step(first, claims.Take{Key: w.jobs[2].Key})
	w.pass(1000)
	w.lost[gamma] = true
	for range 20 { // until gamma's lease is over
		w.pass(5000)
	}
	if first == gamma {
		w.step(0, claims.Take{Key: w.jobs[2].Key})
	}
	w.step(0, claims.Finished{Outcome: w.outcome(2)})
}

// result downloads everything and takes the figures, as the demo does.
func (w *world) result() (*Result, error) {
	w.t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var n int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &n); err != nil {
			w.t.Error(err)
		}
		w.serve(w.jobs[n].CPV.Name, rw, bytes.Clone(w.blobs[n]))
	}))
	defer srv.Close()
	var files []received
	for _, e := range w.index {
		f, err := download(context.Background(), srv.URL+"/"+e["PATH"], e)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	r := &Result{Jobs: 3, Killed: "gamma"}
	if err := r.tally(w.history, id(gamma), w.dirs, files); err != nil {
		return nil, err
	}
	return r, r.Check()
}

func TestTheFiguresOfAGoodRunHold(t *testing.T) {
	w := newWorld(t)
	w.play(gamma)
	r, err := w.result()
	if err != nil {
		t.Fatal(err)
	}
	want := Result{Jobs: 3, Built: 3, BuiltTwice: 0, TakenOver: 1, ReplicasMin: 2, Served: 3, Bytes: 3003, Killed: "gamma", counted: true}
	if fmt.Sprint(*r) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", *r, want)
	}
}

func TestEveryFigureMovesWhenWhatItCountsIsBroken(t *testing.T) {
	for name, x := range map[string]struct {
		first int // who begins the job that gamma is lost in
		spoil func(w *world)
		moved func(r *Result) bool
		says  string
	}{
		"a second good outcome": {gamma, func(w *world) {
			w.step(1, claims.Post{Body: claims.NewOutcome(w.outcome(0))})
		}, func(r *Result) bool { return r.BuiltTwice == 1 && r.Built == 3 }, "1 jobs were built twice"},
		"the first epoch was another's": {1, func(*world) {},
			func(r *Result) bool { return r.TakenOver == 0 && r.Built == 3 }, "no job of the killed peer was taken over"},
		"a job without a good outcome": {gamma, func(w *world) {
			delete(w.history.outcomes, w.jobs[1].Key)
		}, func(r *Result) bool { return r.Built == 2 }, "2 of 3 jobs were built"},
		"a flipped byte on a survivor's disk": {gamma, func(w *world) {
			b := bytes.Clone(w.blobs[1])
			b[500] ^= 1
			if err := os.WriteFile(w.blob(w.dirs[0], w.blobs[1]), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}, func(r *Result) bool { return r.ReplicasMin == 1 && r.Served == 3 }, "a package has 1 copies"},
		"a file gone from a survivor's disk": {gamma, func(w *world) {
			if err := os.Remove(w.blob(w.dirs[1], w.blobs[0])); err != nil {
				t.Fatal(err)
			}
		}, func(r *Result) bool { return r.ReplicasMin == 1 }, "a package has 1 copies"},
		"gone from both": {gamma, func(w *world) {
			for _, dir := range w.dirs {
				if err := os.Remove(w.blob(dir, w.blobs[0])); err != nil {
					t.Fatal(err)
				}
			}
		}, func(r *Result) bool { return r.ReplicasMin == 0 }, "a package has 0 copies"},
		"the same copy twice on one disk": {gamma, func(w *world) {
			if err := os.Rename(w.blob(w.dirs[1], w.blobs[0]), filepath.Join(w.dirs[0], "again")); err != nil {
				t.Fatal(err)
			}
		}, func(r *Result) bool { return r.ReplicasMin == 1 }, "a package has 1 copies"},
		"a flipped byte on the way": {gamma, func(w *world) {
			good := w.serve
			w.serve = func(name string, rw http.ResponseWriter, body []byte) {
				if name == "p1" {
					body[10] ^= 0x80
				}
				good(name, rw, body)
			}
		}, func(r *Result) bool { return r.Served == 2 && r.Bytes == 2002 && r.ReplicasMin == 2 }, "2 of 3 packages came over HTTP"},
		"a body that ends early": {gamma, func(w *world) {
			good := w.serve
			w.serve = func(name string, rw http.ResponseWriter, body []byte) {
				if name == "p2" {
					body = body[:len(body)-1]
				}
				good(name, rw, body)
			}
		}, func(r *Result) bool { return r.Served == 2 }, "2 of 3 packages came over HTTP"},
		"a wrong SIZE in the index": {gamma, func(w *world) { w.index[0]["SIZE"] = "999" },
			func(r *Result) bool { return r.Served == 2 }, "2 of 3 packages came over HTTP"},
		"a wrong SHA1 in the index": {gamma, func(w *world) { w.index[0]["SHA1"] = w.index[1]["SHA1"] },
			func(r *Result) bool { return r.Served == 2 }, "2 of 3 packages came over HTTP"},
		"a wrong MD5 in the index": {gamma, func(w *world) { w.index[0]["MD5"] = w.index[1]["MD5"] },
			func(r *Result) bool { return r.Served == 2 }, "2 of 3 packages came over HTTP"},
		"a package that nobody built": {gamma, func(w *world) {
			b := []byte("a stranger's")
			m, s := md5.Sum(b), sha1.Sum(b)
			w.blobs[0] = b
			w.index[0]["SIZE"], w.index[0]["MD5"], w.index[0]["SHA1"] = fmt.Sprint(len(b)), hex.EncodeToString(m[:]), hex.EncodeToString(s[:])
		}, func(r *Result) bool { return r.Served == 2 }, "2 of 3 packages came over HTTP"},
		"a package missing from the index": {gamma, func(w *world) { w.index = w.index[1:] },
			func(r *Result) bool { return r.Served == 2 }, "2 of 3 packages came over HTTP"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.play(x.first)
			x.spoil(w)
			r, err := w.result()
			if r == nil {
				t.Fatal(err)
			}
			if !x.moved(r) {
				t.Errorf("the figures are %+v", *r)
			}
			if err == nil || !strings.Contains(err.Error(), x.says) {
				t.Errorf("Check says %v, want %q", err, x.says)
			}
		})
	}
}

func TestARecordThatDoesNotOpenIsNoFigure(t *testing.T) {
	w := newWorld(t)
	w.play(gamma)
	raw := bytes.Clone(w.peers[0].Records()[0].Raw())
	raw[len(raw)/2] ^= 1
	w.history.see([][]byte{raw})
	if r, err := w.result(); err == nil || r != nil {
		t.Errorf("a forged record was counted: %+v, %v", r, err)
	}
}

func TestTwoClaimsOfOneEpochBelongToTheOneThatWon(t *testing.T) {
	w := newWorld(t)
	// Both claim before either hears of the other.
	var raws [][]byte
	for n := range 2 {
		for _, e := range w.peers[n].Step(w.now, claims.Take{Key: w.jobs[0].Key}) {
			if p, ok := e.(claims.Publish); ok && p.Record.Type() == claims.TypeClaim {
				raws = append(raws, p.Record.Raw())
			}
		}
	}
	if len(raws) != 2 {
		t.Fatalf("%d claims", len(raws))
	}
	a, b := newHistory(), newHistory()
	a.see(raws)
	b.see([][]byte{raws[1], raws[0]})
	if x, y := a.first[w.jobs[0].Key].Author(), b.first[w.jobs[0].Key].Author(); x != y || x == "" {
		t.Errorf("the winner depends on who was seen first: %s, %s", x, y)
	}
}

func TestNothingPlannedIsNoSuccess(t *testing.T) {
	if err := (&Result{}).Check(); err == nil {
		t.Error("a demo of nothing succeeds")
	}
}

func TestWhatIsLeftOutIsSaidOnceForEachReason(t *testing.T) {
	r := Result{leftOut: []build.Note{{Atom: "=a/b-1", Reason: "no cc"}, {Atom: "=a/c-1", Reason: "no cc"}, {Atom: "=a/d-1", Reason: "needs a/c"}}}
	if got := r.LeftOutWhy(); len(got) != 2 || got[0] != "no cc: a/b-1 and 1 more" || got[1] != "needs a/c: a/d-1" {
		t.Errorf("got %q", got)
	}
}

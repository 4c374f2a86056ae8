package worker

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/gpkg"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
)

// bench is one peer with a drone whose builder the test supplies.
type bench struct {
	*agenttest.Peer
	t      *testing.T
	dir    string
	worker *Worker
	stop   func()
}

// builderFunc is a Builder.
type builderFunc func(ctx context.Context, req Request) (Result, error)

func (f builderFunc) Build(ctx context.Context, req Request) (Result, error) { return f(ctx, req) }

// pack writes a true gpkg for the job, with what change makes of its metadata.
func pack(t testing.TB, req Request, change func(map[string]string)) Result {
	t.Helper()
	meta := map[string]string{"SLOT": req.Job.Slot, "USE": strings.Join(req.Job.USE, " "), "IUSE": strings.Join(req.Job.IUSE, " "),
		"repository": req.Job.Repo, "EAPI": "8", "KEYWORDS": "amd64", "BUILD_TIME": "1", "DEFINED_PHASES": "-"}
	if change != nil {
		change(meta)
	}
	path := filepath.Join(req.Dir, "p.gpkg.tar")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(gpkg.Write(f, gpkg.Spec{CPV: req.Job.CPV, Metadata: meta, MTime: 1}), f.Close())
	}
	if err != nil {
		t.Error(err)
	}
	return Result{Path: path, CoreMillis: 1}
}

// newBench starts a peer whose state survives in dir.
func newBench(t *testing.T, dir string, b Builder, change ...func(*Config)) *bench {
	t.Helper()
	x := &bench{Peer: agenttest.Start(t, dir), t: t, dir: dir}
	var err error
	cfg := Config{Self: x.Self, Board: x.Board, Store: x.Store, Builders: map[build.Builder]Builder{build.BuilderSample: b},
		Fetch:    func(context.Context, cid.Cid, []string) error { return errors.New("no other peer") },
		Announce: x.Announce, Dir: filepath.Join(dir, "work"), Pending: filepath.Join(dir, "pending"), Slots: 1, Jobs: 1, Speed: 1000, Log: x.Log}
	for _, f := range change {
		f(&cfg)
	}
	x.worker, err = New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- x.worker.Run(ctx) }()
	x.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		x.Stop()
	})
	t.Cleanup(x.stop)
	return x
}

// await looks after every change of the board until the jobs are as wanted.
func (x *bench) await(what string, ok func([]claims.JobInfo) bool) (infos []claims.JobInfo) {
	x.t.Helper()
	x.Until(what, func(r *claims.Replica, now claims.Now) bool {
		infos = r.SurveyRound("r1", now)
		return ok(infos)
	})
	return infos
}

func allDone(infos []claims.JobInfo) bool {
	return len(infos) > 0 && !slices.ContainsFunc(infos, func(i claims.JobInfo) bool { return !i.State.Done() })
}

func TestDependenciesAreBuiltFirstAndHandedToTheBuild(t *testing.T) {
	lib := agenttest.Job(t, "lib")
	app := agenttest.Job(t, "app", lib)
	var order []string
	x := newBench(t, t.TempDir(), builderFunc(func(_ context.Context, req Request) (Result, error) {
		order = append(order, req.Job.CPV.Name)
		for _, f := range req.Root {
			p, err := os.Open(f.Path)
			if err != nil {
				t.Error(err)
				continue
			}
			order = append(order, "with "+f.Entry.CPV.Name)
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := io.WriteString(req.Log, "building "+req.Job.CPV.Name+"\n"); err != nil {
			t.Error(err)
		}
		return pack(t, req, nil), nil
	}))
	x.Ask(lib, app)
	infos := x.await("both jobs are built", allDone)
	x.stop()
	if want := []string{"lib", "app", "with lib"}; !slices.Equal(order, want) {
		t.Errorf("built %v, want %v", order, want)
	}
	for _, i := range infos {
		c, err := cas.Parse(i.Good.Artifact.CID)
		if err != nil || i.Good.Artifact.SHA1 == "" || len(i.Good.Artifact.Meta) == 0 || i.Good.Log == "" {
			t.Errorf("%s: outcome %+v, %v", i.Job.CPV, i.Good, err)
		}
		if i.Epoch > 1 {
			t.Errorf("%s was given out %d times", i.Job.CPV, i.Epoch)
		}
		_ = c
	}
	left, err := os.ReadDir(filepath.Join(x.dir, "work"))
	if err != nil || len(left) != 1 || left[0].Name() != "logs" {
		t.Errorf("the work directory holds %v, %v", left, err)
	}
}

// keeper is a builder that keeps roots, and takes 40 s to add a package to one.
type keeper struct {
	builderFunc
	jobs []build.Key
}

func (k keeper) KeptRoots() ([]build.Key, time.Duration) { return k.jobs, 40 * time.Second }

func TestARootThatIsNotKeptMakesABuildLonger(t *testing.T) {
	lib := agenttest.Job(t, "lib")
	app := agenttest.Job(t, "app", lib)
	leftWith := func(kept ...build.Key) (left int64) {
		var x *bench
		b := keeper{jobs: kept}
		b.builderFunc = func(_ context.Context, req Request) (Result, error) {
			x.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
				left = r.Held()[0].LeftMS
				return nil
			})
			return pack(t, req, nil), nil
		}
		x = newBench(t, t.TempDir(), b)
		x.Do(func(*claims.Replica, claims.Now) []claims.Event {
			report := claims.Beat{Nick: "me", Slots: 1, Speed: 1000, Accepting: true, Stores: true, StoreFree: 1 << 40, Builders: []build.Builder{build.BuilderSample}}
			report.Roots, report.InstallMS = x.worker.KeptRoots()
			return []claims.Event{claims.Report{Beat: report}}
		})
		x.Ask(lib, app)
		x.await("both jobs are built", allDone)
		x.stop()
		return left
	}
	without, with := leftWith(), leftWith(app.Key)
	if d := without - with; d < 35_000 || d > 45_000 {
		t.Errorf("it says %d ms are left without the root, and %d with it; want 40 s between them", without, with)
	}
}

func TestABeatTellsOfSoManyRootsAndOfNothingElse(t *testing.T) {
	var keys []build.Key
	for n := range claims.MaxRoots + 5 {
		keys = append(keys, agenttest.Job(t, fmt.Sprint("p", n)).Key)
	}
	keys[1] = "no key"
	w := &Worker{cfg: Config{Builders: map[build.Builder]Builder{build.BuilderPortage: keeper{jobs: keys}}}}
	roots, install := w.KeptRoots()
	if len(roots) != claims.MaxRoots-1 || hex.EncodeToString(roots[1]) != string(keys[2]) || install != 40_000 {
		t.Errorf("%d roots, %d ms for a package", len(roots), install)
	}
}

func TestAPackageThatIsNotWhatTheJobAsksForIsNeverGood(t *testing.T) {
	for name, change := range map[string]func(map[string]string){
		"slot":  func(m map[string]string) { m["SLOT"] = "0/2" },
		"repo":  func(m map[string]string) { m["repository"] = "other" },
		"bound": func(m map[string]string) { m["RDEPEND"] = "dev-libs/x:0/1=" },
	} {
		t.Run(name, func(t *testing.T) {
			x := newBench(t, t.TempDir(), builderFunc(func(_ context.Context, req Request) (Result, error) { return pack(t, req, change), nil }))
			j := agenttest.Job(t, "app")
			x.Ask(j)
			var results []claims.Result
			x.Until("an outcome", func(r *claims.Replica, _ claims.Now) bool {
				results = r.Results(j.Key)
				return len(results) > 0
			})
			x.stop()
			if results[0].Class != build.Mismatch || results[0].Artifact != nil {
				t.Errorf("outcome %+v", results[0].Outcome)
			}
			for info := range x.Store.All() {
				b, err := x.Store.Open(info.CID)
				if err != nil {
					continue
				}
				if _, err := gpkg.Open(b, b.Size()); err == nil {
					t.Error("the wrong package is still in the store")
				}
				_ = b.Close()
			}
		})
	}
}

func TestAFailingPackageIsBlockedAndTheRestGoesOn(t *testing.T) {
	bad, fine := agenttest.Job(t, "bad"), agenttest.Job(t, "fine")
	needs := agenttest.Job(t, "needs", bad)
	x := newBench(t, t.TempDir(), builderFunc(func(_ context.Context, req Request) (Result, error) {
		if req.Job.CPV.Name == "bad" {
			return Result{}, &build.Failure{Class: build.BadPackage, Reason: "it does\nnot \x1b[31mcompile"}
		}
		return pack(t, req, nil), nil
	}))
	x.Ask(bad, fine, needs)
	infos := x.await("one is built, two are blocked", func(is []claims.JobInfo) bool {
		return len(is) == 3 && is[0].State == claims.JobBlocked && is[1].State.Done() && is[2].State == claims.JobBlocked
	})
	if infos[2].Cause != bad.Key || infos[0].Failures[0].Reason != "it does not [31mcompile" {
		t.Errorf("cause %s, reason %q", infos[2].Cause.Short(), infos[0].Failures[0].Reason)
	}
}

func TestABrokenDronePausesInsteadOfFailingTheWholeQueue(t *testing.T) {
	var jobs []build.Job
	for i := range 30 {
		jobs = append(jobs, agenttest.Job(t, "p"+string(rune('a'+i%26))+strings.Repeat("x", i/26)))
	}
	x := newBench(t, t.TempDir(), builderFunc(func(context.Context, Request) (Result, error) {
		return Result{}, &build.Failure{Class: build.BadMachine, Reason: "no compiler"}
	}))
	x.Ask(jobs...)
	x.Until("the drone is held", func(r *claims.Replica, now claims.Now) bool { return r.Trial(x.Self, now).Held() })
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); ; {
		if ok, why := x.worker.Accepting(); !ok && strings.Contains(why, "3 builds in a row failed here (the last: no compiler); tries a small one at") {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it does not say that it is held")
		}
	}
	n := 0
	x.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, j := range jobs {
			n += len(r.Results(j.Key))
		}
		return nil
	})
	if n != claims.TrialAfter {
		t.Errorf("%d builds failed before it paused, want %d", n, claims.TrialAfter)
	}
}

func TestADroneThatFailedComesBackByASmallJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var jobs []build.Job
		for i, work := range []int64{500, 400, 300, 10, 200} {
			j := agenttest.Job(t, "p"+string(rune('a'+i)))
			j.CoreMillis = work * 1000
			jobs = append(jobs, j)
		}
		var mu sync.Mutex
		var built []string
		broken := true
		x := newBench(t, t.TempDir(), builderFunc(func(_ context.Context, req Request) (Result, error) {
			mu.Lock()
			defer mu.Unlock()
			built = append(built, req.Job.CPV.Name)
			if broken {
				return Result{}, &build.Failure{Class: build.BadMachine, Reason: "no compiler"}
			}
			return pack(t, req, nil), nil
		}))
		x.Ask(jobs...)
		time.Sleep(30 * time.Second) // of the bubble
		synctest.Wait()
		mu.Lock()
		if got := strings.Join(built, " "); got != "pa pb pc" {
			t.Errorf("in half a minute it failed %s, want the longest three and then nothing", got)
		}
		broken = false // somebody installs a compiler
		mu.Unlock()
		time.Sleep(40 * time.Second)
		synctest.Wait()
		mu.Lock()
		if len(built) < 4 || built[3] != "pd" {
			t.Errorf("it comes back by %v, want the smallest job", built)
		}
		mu.Unlock()
		if ok, why := x.worker.Accepting(); !ok {
			t.Errorf("after a success it is still held: %s", why)
		}
		x.stop()
	})
}

func TestABuildThatEndsWhileTheDaemonStopsIsKept(t *testing.T) {
	dir := t.TempDir()
	j := agenttest.Job(t, "app")
	building, goOn := make(chan struct{}), make(chan struct{})
	x := newBench(t, dir, builderFunc(func(ctx context.Context, req Request) (Result, error) {
		close(building)
		<-goOn // finishes although it is told to stop meanwhile
		return pack(t, req, nil), nil
	}))
	x.Ask(j)
	<-building
	stopped := make(chan struct{})
	go func() { x.stop(); close(stopped) }()
	close(goOn)
	<-stopped
	again := newBench(t, dir, builderFunc(func(context.Context, Request) (Result, error) {
		t.Error("it is built a second time")
		return Result{}, errors.New("no")
	}))
	again.await("the finished build is on the board", allDone)
}

func TestACrashBetweenStoreAndReportLosesNoBuild(t *testing.T) {
	dir := t.TempDir()
	j := agenttest.Job(t, "app")
	x := newBench(t, dir, builderFunc(func(_ context.Context, req Request) (Result, error) { return pack(t, req, nil), nil }))
	x.Ask(j)
	infos := x.await("it is built", allDone)
	out := infos[0].Good.Outcome
	// As after step 2 of the order in pending.go: the file is there, the
	// board of the next life does not know the outcome.
	x.stop()
	if err := x.worker.pend(out); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "board.db")); err != nil {
		t.Fatal(err)
	}
	again := newBench(t, dir, builderFunc(func(context.Context, Request) (Result, error) {
		t.Error("it is built a second time")
		return Result{}, errors.New("no")
	}))
	again.Ask(j)
	again.await("the stored build is on the board", allDone)
	again.stop()
	if _, err := os.Stat(again.worker.pendPath(j.Key)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pending file stays: %v", err)
	}
}

func TestARunningLogCanBeReadAndIsBounded(t *testing.T) {
	l := newLogs(t.TempDir())
	lf, err := l.create("k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lf.Write([]byte("hello ")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := l.ReadAt("k", buf, 2); !errors.Is(err, io.EOF) || string(buf[:n]) != "llo " {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	lf.n = MaxLog - 3
	if n, err := lf.Write([]byte("world")); n != 5 || err != nil {
		t.Errorf("write at the bound: %d, %v", n, err)
	}
	if err := lf.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(lf.path)
	if err != nil || !strings.HasPrefix(string(b), "hello wor\n[2 more bytes") {
		t.Errorf("log %q, %v", b, err)
	}
	l.remove("k")
	if _, err := l.ReadAt("k", buf, 0); !errors.Is(err, ErrNoLog) {
		t.Errorf("a log that ended: %v", err)
	}
}

func TestSourcesAreSharedAsSoonAsTheyAreFetchedAndAtTheEnd(t *testing.T) {
	var x *bench
	shared := make(chan string, 10)
	x = newBench(t, t.TempDir(), builderFunc(func(_ context.Context, req Request) (Result, error) {
		path := filepath.Join(req.Dir, SourceDir, "a.tar")
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("source"), 0o644)); err != nil {
			t.Error(err)
		}
		req.Phase("fetch")
		req.Phase("compile")
		if got := <-shared; got != "source" { // while it compiles
			t.Errorf("shared %q", got)
		}
		return pack(t, req, nil), nil
	}))
	x.worker.cfg.Fetched = func(_ context.Context, req *Request) {
		b, err := os.ReadFile(filepath.Join(req.Dir, SourceDir, "a.tar"))
		if err != nil {
			t.Error(err)
		}
		shared <- string(b)
	}
	x.Ask(agenttest.Job(t, "app"))
	x.await("the job is built", allDone)
	x.stop()
	if len(shared) != 1 {
		t.Errorf("shared %d times more, want once: at the end", len(shared))
	}
}

func TestAJobForWhichThereIsNoRoomGoesElsewhereAndTheDroneSaysWhy(t *testing.T) {
	builds := 0
	x := newBench(t, t.TempDir(), builderFunc(func(context.Context, Request) (Result, error) {
		builds++
		return Result{}, &build.Failure{Class: build.BadMachine, Reason: "no space left on the device"}
	}))
	job := agenttest.Job(t, "app")
	x.Ask(job)
	var why string
	x.Until("the drone declines the job", func(r *claims.Replica, now claims.Now) (declined bool) {
		why, declined = r.Declined(job.Key, x.Self, now)
		return declined
	})
	if why != "no space left on the device" {
		t.Errorf("it says %q", why)
	}
	x.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
		info := r.SurveyRound("r1", now)[0]
		if info.State == claims.JobBlocked || info.State.Done() || info.Holder != "" || len(info.Failures) > 0 {
			t.Errorf("others find it %s, held by %q, with %d failures of the package", info.State, info.Holder, len(info.Failures))
		}
		return nil
	})
	if builds != 1 {
		t.Errorf("it was tried %d times", builds)
	}
}

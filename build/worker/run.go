package worker

import (
	"context"
	"crypto/md5"  //nolint:gosec // Portage's index wants it
	"crypto/sha1" //nolint:gosec // Portage's index wants it
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/gpkg"
	"github.com/build-swarm/swarm/build/guest"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

var errStopped = errors.New("stopped by the board")

// reportTimeout bounds what a build still says after the daemon was told to
// stop.
const (
	reportTimeout = 3 * time.Second
	graceTime     = 3 * time.Second
)

// run is one build of one job.
type run struct {
	w      *Worker
	job    build.Job
	target string
	work   int64 // estimate, core-milliseconds
	setup  int64 // what its root is expected to take first, ms
	// measured says that work comes from builds of the package.
	measured bool
	unsure   float64 // deviation of the logarithm of work
	cancel   context.CancelCauseFunc
	began    time.Time

	wonOnce sync.Once
	won     chan struct{}
	stopped string     // why the board ended it; under Worker.mu
	need    guest.Need // what it was admitted with
	space   *space

	resumed *Survivor // the build that an earlier process began, or nil

	mu        sync.Mutex
	phase     string
	since     time.Time     // of the phase
	phases    []build.Phase // that are over
	compiling time.Time     // zero until the build itself runs
	held      restraint
	course    course
}

func (r *run) win() { r.wonOnce.Do(func() { close(r.won) }) }

// build carries the job through and reports what came of it. Whatever it was,
// the scratch directory is gone afterwards.
func (r *run) build(ctx context.Context) {
	w := r.w
	dir := filepath.Join(w.cfg.Dir, "job-"+string(r.job.Key[:16]))
	out := build.Outcome{Key: r.job.Key, CPV: r.job.CPV, Target: r.target}
	kept := false
	defer func() {
		if kept {
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			w.cfg.Log.Warn("work directory not removed", "dir", dir, "error", err)
		}
	}()
	stop := r.report(ctx)
	err := r.carry(ctx, dir, &out)
	stop()
	var f *build.Failure
	switch {
	case err == nil:
		out.Class = build.Good // also when it was stopped meanwhile: late results count
	case errors.Is(err, ErrDetached):
		kept = true
		w.cfg.Log.Info("a build goes on without the daemon", "package", r.job.CPV.String())
		return
	case errors.Is(context.Cause(ctx), errReturned):
		w.mu.Lock()
		why := r.stopped
		w.mu.Unlock()
		w.cfg.Log.Info("build given back", "package", r.job.CPV.String(), "reason", why)
		r.drop(why)
		return
	case errors.Is(context.Cause(ctx), errStopped):
		r.drop("") // the board already knows
		return
	case ctx.Err() != nil:
		r.drop("the daemon stops")
		return
	case errors.As(err, &f):
		out.Class, out.Reason = f.Class, build.OneLine(f.Reason, 300)
		out.ShortMiB = shortOf(f, out.DiskMiB)
	default:
		out.Class, out.Reason = build.BadMachine, build.OneLine(err.Error(), 300)
		if errors.Is(err, syscall.ENOSPC) {
			out.ShortMiB = shortOf(&build.Failure{Class: build.BadMachine, SpaceMiB: build.Unsaid}, out.DiskMiB)
		}
	}
	if out.Class != build.Good {
		w.cfg.Log.Warn("build failed", "package", r.job.CPV.String(), "class", string(out.Class), "reason", out.Reason)
	}
	ctx, cancel := grace(ctx)
	defer cancel()
	r.finish(ctx, out)
	w.unpend(out.Key)
}

// grace is a context that outlives ctx by graceTime: a finished build is kept
// and reported though the daemon was told to stop.
func grace(ctx context.Context) (context.Context, context.CancelFunc) {
	c, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(graceTime, cancel) })
	return c, func() { stop(); cancel() }
}

// carry does the work; out gets what is known of it.
func (r *run) carry(ctx context.Context, dir string, out *build.Outcome) error {
	w := r.w
	builder := w.cfg.Builders[r.job.Builder]
	if builder == nil {
		return &build.Failure{Class: build.BadMachine, Reason: "no builder for " + string(r.job.Builder)}
	}
	req, started, err := r.prepare(ctx, dir)
	if err != nil {
		return err
	}
	log, err := w.logs.create(r.job.Key)
	if err != nil {
		return &build.Failure{Class: build.BadMachine, Reason: err.Error()}
	}
	r.mu.Lock()
	r.course.log = log
	r.mu.Unlock()
	r.enter("prepare", true)
	out.Started = uint64(hlc.New(started.UnixMilli()))
	req.Log, req.LogPath = log, log.path
	fetched := r.fetched(ctx, &req)
	req.Phase = func(p string) {
		r.enter(build.OneLine(p, 24), true)
		r.space.ended()
		fetched(p)
	}
	bctx, unwatch := r.watchStuck(ctx, log)
	measured := r.measure(ctx, dir)
	var res Result
	if r.resumed == nil {
		res, err = builder.Build(bctx, req)
	} else if again, ok := builder.(Resumer); ok {
		res, err = again.Resume(bctx, req)
	} else {
		err = fmt.Errorf("builds of %s do not outlive the daemon", r.job.Builder)
	}
	if err != nil && ctx.Err() == nil {
		if stuck := stuckFailure(bctx); stuck != nil {
			err = stuck
		}
	}
	unwatch()
	measured()
	if errors.Is(err, ErrDetached) {
		return errors.Join(err, log.Close())
	}
	fetched("")
	out.Millis = time.Since(started).Milliseconds()
	out.CoreMillis, out.PeakMiB, out.Inputs, out.Against = res.CoreMillis, res.PeakMiB, res.Inputs, r.job.Against
	out.RootMillis, out.Provisional, out.Phases = res.RootMillis, res.Provisional, r.steps()
	_, out.DiskMiB = r.space.mib()
	ctx, cancel := grace(ctx)
	defer cancel()
	if err == nil {
		out.Course = r.wholeCourse(log)
		r.enter("store", true)
		out.Artifact, out.Content, err = r.store(ctx, res.Path)
	}
	r.keepLog(ctx, log, out)
	if err == nil {
		err = w.pend(*out)
	}
	return err
}

// fetched returns what is to be told of a build's phases, and of its end with "":
// when its sources are there, others get them at once, hours before it ends. The
// end waits for that, since the directory goes then.
func (r *run) fetched(ctx context.Context, req *Request) func(phase string) {
	if r.w.cfg.Fetched == nil {
		return func(string) {}
	}
	var sharing sync.WaitGroup
	last := ""
	return func(phase string) {
		if last == "fetch" && phase != "fetch" && phase != "" {
			sharing.Go(func() { r.w.cfg.Fetched(ctx, req) })
		}
		if last = phase; phase == "" {
			sharing.Wait()
			r.w.cfg.Fetched(ctx, req)
		}
	}
}

// prepare makes the request of a build, once its claim has settled; of one that
// an earlier process began, it is there.
func (r *run) prepare(ctx context.Context, dir string) (Request, time.Time, error) {
	if r.resumed != nil {
		return r.resumed.Request, r.resumed.Began, nil
	}
	scratch := filepath.Join(dir, "build")
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return Request{}, time.Time{}, &build.Failure{Class: build.BadMachine, Reason: err.Error()}
	}
	// Fetch at once, compile only when the claim has settled: the wait costs
	// nothing, and a lost race costs no compile.
	root, err := r.fetchRoot(ctx)
	if err != nil {
		return Request{}, time.Time{}, err
	}
	select {
	case <-r.won:
	case <-ctx.Done():
		return Request{}, time.Time{}, ctx.Err()
	}
	req := Request{Job: r.job, Target: r.target, Dir: scratch, Root: root, Jobs: r.w.cfg.Jobs}
	if err := r.ground(ctx, &req); err != nil {
		return Request{}, time.Time{}, err
	}
	return req, time.Now(), nil
}

// ground has what the round was planned on brought here.
func (r *run) ground(ctx context.Context, req *Request) error {
	if r.w.cfg.Prepare == nil {
		return nil
	}
	var on claims.Ground
	err := r.w.cfg.Board.Do(ctx, func(rep *claims.Replica, _ claims.Now) []claims.Event {
		on = rep.GroundOf(r.job.Key)
		return nil
	})
	if err != nil {
		return err
	}
	return r.w.cfg.Prepare(ctx, on, req)
}

// fetchRoot brings what the root adds to the base into the store.
func (r *run) fetchRoot(ctx context.Context) ([]RootFile, error) {
	var files []RootFile
	for _, e := range r.job.Root.All() {
		if e.Seed != "" {
			path, err := r.fetchSeed(ctx, e)
			if err != nil {
				return nil, err
			}
			files = append(files, RootFile{Entry: e, Path: path})
			continue
		}
		if e.Key == "" || e.Key == r.job.Key {
			continue
		}
		var artifact *build.Artifact
		var holders []string
		err := r.w.cfg.Board.Do(ctx, func(rep *claims.Replica, now claims.Now) []claims.Event {
			if res, copies := rep.Good(e.Key, now); res != nil && copies > 0 {
				artifact = res.Artifact
				holders = rep.Holders(artifact.CID, true, now)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if artifact == nil {
			return nil, &build.Failure{Class: build.BadNetwork, Reason: fmt.Sprintf("%s, which it needs, is not available any more", e.CPV)}
		}
		c, err := cas.Parse(artifact.CID)
		if err != nil {
			return nil, err
		}
		if _, err := r.w.cfg.Store.Stat(c); errors.Is(err, cas.ErrNotFound) {
			if err := r.w.cfg.Fetch(ctx, c, holders); err != nil {
				return nil, &build.Failure{Class: build.BadNetwork, Reason: fmt.Sprintf("fetch %s: %v", e.CPV, err)}
			}
		}
		path, err := r.localPath(c)
		if err != nil {
			return nil, err
		}
		files = append(files, RootFile{Entry: e, Path: path})
	}
	return files, nil
}

// fetchSeed brings a package that the requester lent.
func (r *run) fetchSeed(ctx context.Context, e build.RootEntry) (string, error) {
	c, err := cas.Parse(e.Seed)
	if err != nil {
		return "", err
	}
	if _, err := r.w.cfg.Store.Stat(c); errors.Is(err, cas.ErrNotFound) {
		var holders []string
		err := r.w.cfg.Board.Do(ctx, func(rep *claims.Replica, now claims.Now) []claims.Event {
			holders = rep.Holders(e.Seed, true, now)
			return nil
		})
		if err == nil {
			err = r.w.cfg.Fetch(ctx, c, holders)
		}
		if err != nil {
			return "", &build.Failure{Class: build.BadNetwork, Reason: fmt.Sprintf("fetch %s, which its requester lent: %v", e.CPV, err)}
		}
	}
	return r.localPath(c)
}

// localPath is where the store keeps a blob; opening it verified it.
func (r *run) localPath(c cid.Cid) (string, error) {
	b, err := r.w.cfg.Store.Open(c)
	if err != nil {
		return "", err
	}
	defer b.Close()
	f, ok := b.(interface{ File() *os.File })
	if !ok {
		return "", fmt.Errorf("blob %s does not lie in a file", c)
	}
	return f.File().Name(), nil
}

// enter notes a phase and tells the board.
func (r *run) enter(phase string, compiling bool) {
	r.mu.Lock()
	r.turn(phase, time.Now())
	if compiling && r.compiling.IsZero() {
		r.compiling = time.Now()
	}
	r.mu.Unlock()
	r.tell()
}

// maxPhases bounds what an outcome says of a build's course.
const maxPhases = 32

// turn ends the phase under way. Those of one name are added up.
func (r *run) turn(phase string, now time.Time) {
	if r.phase != "" {
		ms := now.Sub(r.since).Milliseconds()
		i := slices.IndexFunc(r.phases, func(p build.Phase) bool { return p.Name == r.phase })
		switch {
		case i >= 0:
			r.phases[i].Millis += ms
		case len(r.phases) < maxPhases:
			r.phases = append(r.phases, build.Phase{Name: r.phase, Millis: ms})
		}
	}
	r.phase, r.since = phase, now
}

// steps are the phases that the build went through.
func (r *run) steps() []build.Phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(r.phase, time.Now())
	return slices.Clone(r.phases)
}

// tell gives the board this build's progress.
func (r *run) tell() {
	j := r.beatJob()
	ctx, cancel := context.WithTimeout(context.Background(), reportTimeout)
	defer cancel()
	err := r.w.cfg.Board.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Progress{Job: j}}
	})
	if err != nil {
		r.w.cfg.Log.Debug("progress not told", "package", r.job.CPV.String(), "error", err)
	}
}

// report tells the board how the build stands, every two seconds, until the
// returned function is called.
func (r *run) report(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(progressEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				r.tell()
			}
		}
	}()
	return func() { cancel(); <-done }
}

// store verifies the package and keeps it: the bytes that were checked are the
// bytes that are stored, since the CID binds both.
func (r *run) store(ctx context.Context, path string) (*build.Artifact, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", &build.Failure{Class: build.Mismatch, Reason: "the build left no package: " + err.Error()}
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	md, sh := md5.New(), sha1.New() //nolint:gosec // Portage's index wants them
	info, err := r.w.cfg.Store.Put(ctx, io.TeeReader(io.NewSectionReader(f, 0, st.Size()), io.MultiWriter(md, sh)), cid.Undef)
	if err != nil {
		return nil, "", storeFailure(err)
	}
	a := &build.Artifact{CID: info.CID.String(), Size: info.Size, MD5: hex.EncodeToString(md.Sum(nil)), SHA1: hex.EncodeToString(sh.Sum(nil)), MTime: st.ModTime().Unix()}
	content, err := r.check(ctx, info.CID, a)
	if err != nil {
		return nil, "", errors.Join(err, r.w.cfg.Store.Delete(info.CID))
	}
	if err := r.w.cfg.Announce(ctx, info.CID); err != nil {
		return nil, "", err
	}
	return a, content, nil
}

// check reads the package back from the store and holds it against the job.
func (r *run) check(ctx context.Context, c cid.Cid, a *build.Artifact) (string, error) {
	b, err := r.w.cfg.Store.Open(c)
	if err != nil {
		return "", err
	}
	defer b.Close()
	p, err := gpkg.Open(b, b.Size())
	if err == nil {
		err = p.Verify(ctx)
	}
	if err == nil {
		err = gpkg.Check(p, &r.job)
	}
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", &build.Failure{Class: build.Mismatch, Reason: err.Error()}
	}
	a.Meta = gpkg.IndexMeta(p)
	return p.ContentDigest(ctx)
}

func storeFailure(err error) error {
	if errors.Is(err, cas.ErrFull) || errors.Is(err, syscall.ENOSPC) {
		return &build.Failure{Class: build.BadMachine, Reason: "no room to keep the package: " + err.Error()}
	}
	return err
}

// keepLog makes the log a blob. A log that cannot be kept loses no build.
func (r *run) keepLog(ctx context.Context, log *logFile, out *build.Outcome) {
	if err := log.Close(); err != nil {
		r.w.cfg.Log.Warn("log not closed", "package", r.job.CPV.String(), "error", err)
	}
	defer r.w.logs.remove(r.job.Key)
	f, err := os.Open(log.path)
	if err == nil {
		defer f.Close()
		var info cas.Info
		if info, err = r.w.cfg.Store.Put(ctx, f, cid.Undef); err == nil {
			if err = r.w.cfg.Announce(ctx, info.CID); err == nil {
				out.Log = info.CID.String()
				return
			}
		}
	}
	r.w.cfg.Log.Warn("log not kept", "package", r.job.CPV.String(), "error", err)
}

// finish posts the outcome, and what only this drone knows of a failure.
func (r *run) finish(ctx context.Context, out build.Outcome) {
	err := r.w.cfg.Board.Do(ctx, func(rep *claims.Replica, now claims.Now) []claims.Event {
		evs := []claims.Event{claims.Finished{Outcome: out}}
		switch out.Class {
		case build.BadMachine, build.BadNetwork, build.Mismatch, build.Stuck:
			n := 0
			for _, old := range rep.Results(r.job.Key) {
				if old.Peer == r.w.cfg.Self && old.Class != build.Good {
					n++
				}
			}
			until := now.Wall + min(declineMost, declineFirst<<min(n, 10)).Milliseconds()
			evs = append(evs, claims.Post{Body: claims.Decline{Key: r.job.Key, Peer: r.w.cfg.Self, Until: hlc.New(until), Reason: out.Reason}})
		}
		return evs
	})
	if err != nil {
		r.w.cfg.Log.Warn("outcome not posted", "package", r.job.CPV.String(), "error", err)
	}
}

// drop gives the claim back; reason "" when the board ended it itself.
func (r *run) drop(reason string) {
	r.w.mu.Lock()
	why := r.stopped
	r.w.mu.Unlock()
	if reason == "" {
		r.w.cfg.Log.Info("build stopped", "package", r.job.CPV.String(), "reason", why)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), reportTimeout)
	defer cancel()
	err := r.w.cfg.Board.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.GiveBack{Key: r.job.Key, Reason: reason}}
	})
	if err != nil {
		r.w.cfg.Log.Debug("claim not given back", "package", r.job.CPV.String(), "error", err)
	}
}

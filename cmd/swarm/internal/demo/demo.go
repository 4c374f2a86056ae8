// Package demo is `swarm demo`: a whole swarm on one machine, of real processes
// of this binary under production settings, that builds packages, loses a peer
// in the middle of a build, and serves what it built to a consumer.
//
// It proves by effects. What it reports is computed in figures.go from signed
// records, from bytes on the survivors' disks, and from bytes received over
// HTTP; the daemons are asked for nothing but where they are and how far. The
// checks live in Result.Check: a figure that is off makes the command fail.
package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/httpgateway/binhost"
)

// Options of a demo.
type Options struct {
	Self    string // the binary that the peers run
	Keep    bool   // leave the swarm running
	Portage bool   // build real ebuilds with the emerge on PATH
	Show    *Show
}

// Result is the JSON document of `swarm demo --json`.
type Result struct {
	Schema      int      `json:"schema"`
	Peers       int      `json:"peers"`
	Jobs        int      `json:"jobs"`
	Built       int      `json:"built"`
	BuiltTwice  int      `json:"built_twice"`
	TakenOver   int      `json:"taken_over"`
	ReplicasMin int      `json:"replicas_min"`
	Served      int      `json:"served"`
	Bytes       int64    `json:"bytes"`
	Seconds     float64  `json:"seconds"`
	IndexURL    string   `json:"index_url"`
	LeftOut     []string `json:"left_out"`
	Killed      string   `json:"killed"`        // name of the peer; "" when no build was long enough to be interrupted
	Dir         string   `json:"dir,omitempty"` // with Keep
	Sockets     []string `json:"sockets,omitempty"`
	PIDs        []int    `json:"pids,omitempty"`
	Example     string   `json:"-"` // one of the packages

	leftOut []build.Note
	counted bool
}

// Counted reports whether the run came so far that the figures were taken.
func (r *Result) Counted() bool { return r.counted }

// LeftOutWhy says in a line for each reason what was left out.
func (r *Result) LeftOutWhy() []string {
	var out []string
	names := map[string][]string{}
	for _, n := range r.leftOut {
		if names[n.Reason] == nil {
			out = append(out, n.Reason)
		}
		names[n.Reason] = append(names[n.Reason], strings.TrimPrefix(n.Atom, "="))
	}
	for i, why := range out {
		list := names[why]
		out[i] = fmt.Sprintf("%s: %s", why, list[0])
		if len(list) > 1 {
			out[i] = fmt.Sprintf("%s: %s and %d more", why, list[0], len(list)-1)
		}
	}
	return out
}

// Check holds the figures against what must be true; nil if all holds.
func (r *Result) Check() error {
	var errs []error
	say := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	say(r.Jobs == 0, "nothing was planned")
	say(r.Built != r.Jobs, "%d of %d jobs were built", r.Built, r.Jobs)
	say(r.BuiltTwice != 0, "%d jobs were built twice", r.BuiltTwice)
	say(r.Killed != "" && r.TakenOver < 1, "no job of the killed peer was taken over")
	say(r.ReplicasMin < 2, "a package has %d copies on the survivors' disks", r.ReplicasMin)
	say(r.Served != r.Built, "%d of %d packages came over HTTP as the index says", r.Served, r.Built)
	return errors.Join(errs...)
}

// demo is one run.
type demo struct {
	opt     Options
	self    string
	dir     string
	target  string
	began   time.Time
	peers   []*peer // alpha, beta, gamma
	history *history
	victim  *peer
	round   string
	files   []received
	result  Result
}

// Run plays the demo. The result is filled as far as it went, also with an
// error.
func Run(ctx context.Context, opt Options) (*Result, error) {
	dir, err := os.MkdirTemp("", "swarm-demo-")
	if err != nil {
		return &Result{}, fmt.Errorf("make a directory for the demo: %w", err)
	}
	d := &demo{opt: opt, self: opt.Self, dir: dir, target: "demo", began: time.Now(), history: newHistory()}
	d.result = Result{Schema: 1, LeftOut: []string{}}
	err = d.play(ctx)
	d.result.Seconds = float64(time.Since(d.began).Milliseconds()) / 1000
	if err == nil {
		err = d.result.Check()
	}
	if err == nil && opt.Keep {
		d.keep()
		return &d.result, nil
	}
	stop(d.peers)
	if err == nil || ctx.Err() != nil { // an interrupt is no failure to look into
		return &d.result, errors.Join(err, os.RemoveAll(dir))
	}
	return &d.result, fmt.Errorf("%w (the peers' logs are in %s)", err, dir)
}

// keep notes how to speak to the peers that go on, and how to end them.
func (d *demo) keep() {
	d.result.Dir = d.dir
	for _, p := range d.peers {
		if p.running() {
			d.result.Sockets = append(d.result.Sockets, p.socket)
			d.result.PIDs = append(d.result.PIDs, p.cmd.Process.Pid)
		}
	}
}

func (d *demo) play(ctx context.Context) error {
	for _, step := range []func(context.Context) error{d.form, d.ask, d.lose, d.finish, d.consume} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return d.count(ctx)
}

func (d *demo) newPeer(name string) *peer {
	base := filepath.Join(d.dir, name)
	p := &peer{name: name, state: base, socket: filepath.Join(d.dir, name+".sock"), logs: filepath.Join(d.dir, name+".log")}
	d.peers = append(d.peers, p)
	return p
}

// settings that differ between builders.
func (d *demo) builderArgs(p *peer) []string {
	if d.opt.Portage {
		return []string{"--builder", "portage", "--portage-config", filepath.Join(d.dir, "portage-"+p.name)}
	}
	return []string{"--builder", "sample"}
}

// form starts three peers: the first makes the swarm, the others join it by
// code, from standard input.
func (d *demo) form(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	first := d.newPeer("alpha")
	if _, err := swarm(ctx, d.self, "", "init", "--state", first.state); err != nil {
		return err
	}
	if err := d.start(ctx, first, d.builderArgs(first)...); err != nil {
		return err
	}
	code, err := first.client.Invite(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{"beta", "gamma"} {
		p := d.newPeer(name)
		if _, err := swarm(ctx, d.self, code, "join", "--state", p.state); err != nil {
			return err
		}
		if err := d.start(ctx, p, d.builderArgs(p)...); err != nil {
			return err
		}
	}
	d.opt.Show.Step("three peers started, two joined with the code of the first")
	for _, p := range d.peers {
		err := d.await(ctx, p, func(s view.Snapshot) bool {
			n := 0
			for _, q := range s.Peers {
				if q.State == "idle" {
					n++
				}
			}
			return n == len(d.peers)
		})
		if err != nil {
			return fmt.Errorf("the peers do not find one another: %w", err)
		}
	}
	d.opt.Show.Step("all three know one another and wait for work")
	return nil
}

// pollEvery is how often the peers are asked how far they are.
const pollEvery = 200 * time.Millisecond

// await polls a peer's status until it is as wanted.
func (d *demo) await(ctx context.Context, p *peer, ok func(view.Snapshot) bool) error {
	for {
		s, err := p.client.Status(ctx)
		if err != nil {
			return p.explain(err)
		}
		d.opt.Show.Progress(s)
		if err := d.look(ctx); err != nil {
			return err
		}
		if ok(s) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// look reads the boards of the peers that are there, but for those that do not
// answer: claims leave the board when their job is built, so they are collected
// while they stand there.
func (d *demo) look(ctx context.Context, silent ...*peer) error {
	for _, p := range d.peers {
		if p == d.victim || !p.running() || slices.Contains(silent, p) {
			continue
		}
		raws, err := p.client.Board(ctx)
		if err != nil {
			return p.explain(err)
		}
		d.history.see(raws)
	}
	return nil
}

// ask has the first peer plan and post the round.
func (d *demo) ask(ctx context.Context) error {
	atoms := []string{"@samples"}
	reply, err := d.peers[0].client.Build(ctx, control.BuildRequest{Atoms: atoms, Command: "swarm build " + strings.Join(atoms, " ")})
	if err != nil {
		return err
	}
	d.round, d.result.Jobs = reply.Round, reply.Jobs
	d.result.leftOut = append(reply.Missing, reply.Dropped...)
	for _, n := range d.result.leftOut {
		d.result.LeftOut = append(d.result.LeftOut, n.Atom+": "+n.Reason)
	}
	for _, why := range d.result.LeftOutWhy() {
		d.opt.Show.Step("left out: %s", why)
	}
	d.opt.Show.Step("%s asked for %d packages: %s", d.peers[0].name, reply.Jobs, "swarm build "+strings.Join(atoms, " "))
	return nil
}

// longBuild is how much estimated work a build must have to be interrupted, in
// core-milliseconds: enough to be still at it when the signal arrives.
const longBuild = 2500

// lose kills the second or third peer in the middle of a build, in a moment in
// which whatever it built has a second copy: what had none would be waited for,
// for as long as its holder may come back, and only then be built again.
func (d *demo) lose(ctx context.Context) error {
	for {
		p, job, err := d.interruptible(ctx)
		if err != nil {
			return err
		}
		if p == nil {
			d.opt.Show.Step("no build was long enough to be interrupted")
			return nil
		}
		// Held first, so that the build is not done between the look and the
		// signal: then another one is waited for.
		if err := p.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		if err := d.look(ctx, p); err != nil {
			return err
		}
		copied, err := d.copied(ctx, p)
		if err != nil {
			return err
		}
		if copied && len(d.history.good(job.Key)) == 0 {
			d.victim, d.result.Killed = p, p.name
			if err := p.kill(); err != nil {
				return err
			}
			d.opt.Show.Lost(p.name)
			d.opt.Show.Step("killed %s (SIGKILL) while it was building %s", p.name, job.CPV)
			return nil
		}
		if err := p.signal(syscall.SIGCONT); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// copied reports whether all that a peer has built has a second copy.
func (d *demo) copied(ctx context.Context, p *peer) (bool, error) {
	jobs, err := d.peers[0].client.Jobs(ctx, d.round)
	if err != nil {
		return false, err
	}
	for _, j := range jobs {
		if j.CID != "" && j.Copies < 2 && slices.ContainsFunc(d.history.good(j.Key), func(o outcome) bool { return o.peer == p.info.ID }) {
			return false, nil
		}
	}
	return true, nil
}

// interruptible waits until the second or third peer compiles something that
// takes a while; nil when the round ends before.
func (d *demo) interruptible(ctx context.Context) (found *peer, job view.Build, err error) {
	err = d.await(ctx, d.peers[0], func(s view.Snapshot) bool {
		for _, q := range s.Peers {
			i := slices.IndexFunc(d.peers[1:], func(p *peer) bool { return p.info.ID == q.ID })
			for _, b := range q.Doing {
				if i >= 0 && b.Compiling && b.WorkMS >= longBuild && len(d.history.good(b.Key)) == 0 {
					found, job = d.peers[1+i], b
					return true
				}
			}
		}
		return d.ended(s)
	})
	return found, job, err
}

// ended reports whether the demo's round is over.
func (d *demo) ended(s view.Snapshot) bool {
	return slices.ContainsFunc(s.Rounds, func(r view.Round) bool { return r.ID == d.round && r.State != "open" })
}

// finish waits until everything is built, copied and released.
func (d *demo) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	over := 0
	err := d.await(ctx, d.peers[0], func(s view.Snapshot) bool {
		if d.victim != nil && over < d.history.takenOver(d.victim.info.ID) {
			over = d.history.takenOver(d.victim.info.ID)
			d.opt.Show.Step("a job that %s had begun was taken over and built by another peer", d.victim.name)
		}
		return d.ended(s) && len(s.Releases) > 0
	})
	if err != nil {
		return fmt.Errorf("the round does not end: %w", err)
	}
	d.opt.Show.Step("everything is built, copied and released")
	return nil
}

// consume joins a fourth peer, which builds and keeps nothing, and downloads
// everything through its gateway.
func (d *demo) consume(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	code, err := d.peers[0].client.Invite(ctx)
	if err != nil {
		return err
	}
	p := d.newPeer("consumer")
	if _, err := swarm(ctx, d.self, code, "join", "--state", p.state); err != nil {
		return err
	}
	if err := d.start(ctx, p, "--builder", "sample", "--slots", "0", "--quota", "none"); err != nil {
		return err
	}
	d.result.Peers = len(d.peers)
	d.result.IndexURL = fmt.Sprintf("http://%s/%s/stable/Packages", p.info.Gateway[0], d.target)
	index, err := d.readIndex(ctx)
	if err != nil {
		return err
	}
	d.opt.Show.Step("a fourth peer joined as a consumer; its binhost lists %d packages", len(index.Entries))
	held := d.history.artifacts()
	before, err := replicasMin(held, []string{filepath.Join(p.state, "blobs")})
	if err != nil {
		return err
	}
	if before != 0 {
		return errors.New("the consumer had a package on its disk before it asked for it")
	}
	for _, e := range index.Entries {
		if cpv, err := build.ParseCPV(e["CPV"]); err == nil && d.result.Example == "" {
			d.result.Example = cpv.CP()
		}
		f, err := download(ctx, strings.TrimSuffix(d.result.IndexURL, "Packages")+e["PATH"], e)
		if err != nil {
			return err
		}
		d.files = append(d.files, f)
	}
	return nil
}

// readIndex waits until the consumer's gateway shows the release.
func (d *demo) readIndex(ctx context.Context) (*binhost.Packages, error) {
	for {
		res, err := get(ctx, d.result.IndexURL)
		if err != nil {
			return nil, err
		}
		if res.StatusCode == http.StatusOK {
			index, err := binhost.Parse(res.Body)
			if err = errors.Join(err, res.Body.Close()); err != nil {
				return nil, fmt.Errorf("read %s: %w", d.result.IndexURL, err)
			}
			return index, nil
		}
		if err := res.Body.Close(); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s answers %s: %w", d.result.IndexURL, res.Status, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(req)
}

// download fetches one entry of the index and hashes what comes.
func download(ctx context.Context, url string, e binhost.Block) (received, error) {
	res, err := get(ctx, url)
	if err != nil {
		return received{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return received{}, fmt.Errorf("%s answers %s", url, res.Status)
	}
	f, err := receive(res.Body)
	if err != nil {
		return received{}, fmt.Errorf("download %s: %w", url, err)
	}
	if _, err := fmt.Sscan(e["SIZE"], &f.wantSize); err != nil {
		return received{}, fmt.Errorf("the index has no SIZE for %s", e["CPV"])
	}
	f.wantMD5, f.wantSHA1 = e["MD5"], e["SHA1"]
	return f, nil
}

// count takes the figures from what the survivors hold.
func (d *demo) count(ctx context.Context) error {
	if err := d.look(ctx); err != nil {
		return err
	}
	killed := ""
	var dirs []string
	for _, p := range d.peers[:3] {
		if p == d.victim {
			killed = p.info.ID
		} else {
			dirs = append(dirs, filepath.Join(p.state, "blobs"))
		}
	}
	return d.result.tally(d.history, killed, dirs, d.files)
}

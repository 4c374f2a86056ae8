// Package daemon answers the control socket from the parts of a running peer.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/publish"
	"github.com/build-swarm/swarm/build/request"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/replication"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/p2p"
)

// ProtoLog reads a running build's log from the peer that runs it.
const ProtoLog = "/swarm/log/1"

const (
	logChunk = 64 << 10
	logPoll  = 300 * time.Millisecond
	// planTimeout bounds how long Portage may think about a plan.
	planTimeout = 30 * time.Minute
)

// Planner makes a plan of what somebody asks for.
type Planner interface {
	Plan(ctx context.Context, atoms []string) (*build.Plan, error)
}

// Daemon implements control.Daemon.
type Daemon struct {
	Storage
	Agent     *agent.Agent
	Host      *p2p.Host
	Store     cas.Store
	Requester *request.Requester
	Publisher *publish.Publisher
	Planners  map[build.Builder]Planner
	Default   build.Builder
	Ground    *Ground
	Logs      *worker.Logs // nil on a peer that builds nothing
	Guest     Guest
	Quiet     *Quiet
	Rate      func(peer string) int64 // see exchange.Fetcher
	About     control.Info            // all but the addresses
	Gateway   func() []string

	staging staging
	took    took
	screens *Screens // set by NewScreens, before anybody asks
}

// Info says who this peer is.
func (d *Daemon) Info(context.Context) (control.Info, error) {
	i := d.About
	i.ID, i.Addrs, i.Gateway, i.PID = d.Host.Self(), d.Host.Addrs(), d.Gateway(), os.Getpid()
	return i, nil
}

// Status takes the snapshot, and adds what the board does not know: what this
// peer suffers from, and links that cannot be made.
func (d *Daemon) Status(ctx context.Context) (s view.Snapshot, err error) {
	var why string
	var in replication.Input
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		s = view.Of(r, now)
		in = Copies(r, now, d.Collector.Sort)
		_, why = r.MayClaim()
		return nil
	})
	if err != nil {
		return s, err
	}
	d.adorn(ctx, &s, in, why)
	return s, nil
}

// adorn adds to a snapshot what the board does not know. in is the copies, why
// says why this peer may not claim.
func (d *Daemon) adorn(ctx context.Context, s *view.Snapshot, in replication.Input, why string) {
	s.Blobs.Classes = classes(in)
	if d.Planners[build.BuilderPortage] == nil {
		s.WithoutPortage()
	}
	s.Staging = d.staged(ctx, s.Rounds)
	links := linkIssues(d.Host.Known(), s.Peers, time.Since(started))
	warnings := slices.Concat(details(links), clockWarnings(s.Peers), d.lacks(context.Background()), d.warnings())
	if cure := remedy(why); cure != "" {
		warnings = append(warnings, cure)
	}
	if w := d.rekeyed(); w != "" {
		warnings = append(warnings, w)
	}
	if len(warnings) > 0 && s.Verdict == view.Healthy {
		s.Verdict = view.Degraded
	}
	s.Warnings = append(s.Warnings, warnings...)
	s.Issues = append(s.Issues, links...)
	view.SortIssues(s.Issues)
}

// remedy says what to do when this peer may not claim for a reason that does
// not pass by itself.
func remedy(why string) string {
	switch {
	case strings.Contains(why, "runs elsewhere"):
		return "two machines run with this identity: stop both, run swarm init --new-identity on one of them, and start them again"
	case strings.Contains(why, "clock"):
		return "set this machine's clock (chronyc makestep, or ntpdate): it claims and publishes nothing until then"
	}
	return ""
}

const (
	// clockAhead is how far ahead of ours a peer's clock may be before what it
	// says is refused, in milliseconds.
	clockAhead = hlc.MaxAheadMillis
	// clockBehind tells a fast clock of our own from Beats that were a while on
	// their way: a quiet peer's is up to a minute old when it is first heard.
	clockBehind = 120_000
)

// clockWarnings tells of clocks that are wrong: a peer's that is ahead, and
// ours when most peers look as far behind. (One of ours that is behind, the
// board itself finds.)
func clockWarnings(peers []view.Peer) []string {
	var ahead, out []string
	var behind []int64
	others := 0
	for _, p := range peers {
		if p.Self || p.State == "gone" {
			continue
		}
		others++
		if p.AheadMS > clockAhead {
			ahead = append(ahead, build.OneLine(fmt.Sprintf("the clock of %s is %d s ahead of this machine's: nothing it says is believed until it is set", p.Nick, p.AheadMS/1000), 200))
		}
		if p.AheadMS < -clockBehind {
			behind = append(behind, -p.AheadMS)
		}
	}
	if len(ahead)*2 <= others { // else it is ours that is behind
		out = ahead
	}
	if len(behind)*2 > others {
		slices.Sort(behind)
		out = append(out, fmt.Sprintf("this machine's clock is %d s ahead of most peers: they believe nothing it says; set it (chronyc makestep, or ntpdate)", behind[len(behind)/2]/1000))
	}
	return out
}

// started is when this process began.
var started = time.Now()

// silence is how long a connected peer may say nothing before that is odd: it
// answers the first Beat that it hears at once.
const silence = 10 * time.Second

// linkWarnings tells of peers that cannot be reached though somebody wanted
// them to be, and why, and of those that are connected and say nothing. One
// that is merely off is not among them: the peers' own lines say so.
//
// Two machines with one identity fall silent: whoever knows both takes them for
// one peer with two connections, and speaks over one of them.
func linkWarnings(known []p2p.PeerInfo, peers []view.Peer, up time.Duration) []string {
	return details(linkIssues(known, peers, up))
}

func details(issues []view.Issue) []string {
	var out []string
	for _, i := range issues {
		out = append(out, i.Detail)
	}
	return out
}

func linkIssues(known []p2p.PeerInfo, peers []view.Peer, up time.Duration) []view.Issue {
	var out []view.Issue
	for _, p := range known {
		onBoard := slices.ContainsFunc(peers, func(q view.Peer) bool { return q.ID == p.ID })
		wrong := errors.Is(p.Problem, p2p.ErrSwarmKeyMismatch) || errors.Is(p.Problem, p2p.ErrWrongPeer) || errors.Is(p.Problem, p2p.ErrSameIdentity)
		is := view.Issue{ID: "link/" + p.ID, Kind: view.IssueLink, Severity: view.Degraded, Peer: p.ID, Drones: []string{}, Do: "swarm peers", Local: true}
		switch {
		case p.Banned:
			continue // it is to be out
		case p.Twins:
			name := p.ID
			for _, q := range peers {
				if q.ID == p.ID && q.Nick != "" {
					name = q.Nick
				}
			}
			is.Title = "two machines run with one identity"
			is.Detail = build.OneLine("two machines run as "+name+": stop both, run swarm init --new-identity on one of them, and start them again", 200)
		case p.Problem != nil && (wrong || p.Static && !onBoard):
			is.Title, is.Detail = "a peer cannot be reached", build.OneLine("no connection to "+p.ID+": "+problem(p.Problem), 300)
			if errors.Is(p.Problem, p2p.ErrSwarmKeyMismatch) {
				is.Title = "a stranger: its swarm key is another"
			}
		case p.Connected && !onBoard && up > silence:
			is.Title = "a peer is connected and says nothing"
			is.Detail = "connected to " + p.ID + ", and it says nothing to this machine; if a copy of this machine runs elsewhere, stop both, run swarm init --new-identity on one of them, and start them again"
		default:
			continue
		}
		out = append(out, is)
	}
	return out
}

// problem is a link's error for people. A wrong key is named first: it is what
// libp2p hides best.
func problem(err error) string {
	text := strings.TrimPrefix(err.Error(), p2p.ErrUnreachable.Error()+": ")
	if errors.Is(err, p2p.ErrSwarmKeyMismatch) {
		return "swarm key mismatch: " + text
	}
	return text
}

// Jobs lists jobs.
func (d *Daemon) Jobs(ctx context.Context, round string) (jobs []view.Job, err error) {
	var unknown error
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		if round != "" {
			if _, _, ok := r.Round(round); !ok {
				unknown = &control.Error{Kind: control.KindNotFound, Message: "no round " + round, Hint: "swarm status lists the rounds"}
				return nil
			}
		}
		jobs = view.Jobs(r, round, now)
		return nil
	})
	if err = errors.Join(err, unknown); err != nil {
		return nil, err
	}
	for i := range jobs {
		if jobs[i].USE == nil {
			jobs[i].USE = []string{} // lists are never null
		}
	}
	return jobs, nil
}

// Peers joins the board's view of peers with the network's. Peers that are
// configured and never came on the board follow, with what is wrong.
func (d *Daemon) Peers(ctx context.Context) ([]control.Peer, error) {
	s, err := d.Status(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]control.Peer, 0, len(s.Peers))
	for _, p := range s.Peers {
		c := control.Peer{Peer: p, Addrs: []string{}}
		if p.Self {
			c.Addrs = append(c.Addrs, d.Host.Addrs()...)
		} else if i, ok := d.Host.PeerInfo(p.ID); ok {
			c.Connected, c.Via, c.RTTMicros, c.Rate = i.Connected, i.Kind, i.RTT.Microseconds(), d.Rate(p.ID)
			c.Addrs = append(c.Addrs, i.Addrs...)
			if i.Problem != nil {
				c.Problem = problem(i.Problem)
			}
		}
		out = append(out, c)
	}
	for _, i := range d.Host.Known() {
		if !i.Static && !i.Connected || slices.ContainsFunc(s.Peers, func(p view.Peer) bool { return p.ID == i.ID }) {
			continue
		}
		c := control.Peer{Connected: i.Connected, Via: i.Kind, RTTMicros: i.RTT.Microseconds(), Addrs: append([]string{}, i.Addrs...)}
		c.ID, c.State, c.Doing, c.Builders = i.ID, "unreached", []view.Build{}, []string{}
		if i.Connected {
			c.State = "silent"
		}
		if i.Problem != nil {
			c.Problem = problem(i.Problem)
		}
		out = append(out, c)
	}
	return out, nil
}

// Invite makes a join code of this peer's addresses and the swarm key.
func (d *Daemon) Invite(context.Context) (string, error) {
	key, err := p2p.ReadSwarmKey(d.keyPath()) // not the one in use: see Rekey
	if err != nil {
		return "", err
	}
	code, err := p2p.NewJoinCode(key, "", d.Host.Addrs())
	if err != nil {
		return "", &control.Error{Kind: control.KindInternal, Message: err.Error(), Hint: "give the daemon an address that others reach: swarm run --listen"}
	}
	return code.String(), nil
}

// Build plans and publishes a round.
func (d *Daemon) Build(ctx context.Context, req control.BuildRequest) (control.BuildReply, error) {
	name := req.Builder
	if name == "" {
		name = d.Default
	}
	planner := d.Planners[name]
	switch {
	case planner == nil && name != build.BuilderPortage && name != build.BuilderSample:
		return control.BuildReply{}, &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("nothing plans with %q", name), Hint: "swarm build --with portage, or --with sample"}
	case planner == nil:
		return control.BuildReply{}, &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("this peer cannot plan with %s", name), Hint: "swarm version shows what it found of Portage"}
	case len(req.Atoms) == 0:
		return control.BuildReply{}, &control.Error{Kind: control.KindUsage, Message: "nothing is asked for", Hint: "for example: swarm build app-misc/jq"}
	}
	for _, a := range req.Atoms {
		if strings.HasPrefix(a, "@") && len(a) > 1 {
			continue
		}
		if _, err := build.ParseAtom(a); err != nil {
			return control.BuildReply{}, &control.Error{Kind: control.KindUsage, Message: err.Error(), Hint: "for example: swarm build app-misc/jq"}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	var p *build.Plan
	words := strings.Join(req.Atoms, " ")
	err := d.took.tell(ctx, "plan "+build.OneLine(words, 60), "plan "+words, func() (err error) {
		p, err = planner.Plan(ctx, req.Atoms)
		return err
	})
	if err != nil {
		return control.BuildReply{}, err
	}
	p.Command = req.Command
	if _, err := d.cross(ctx, p); err != nil {
		return control.BuildReply{}, err
	}
	reply := summary(p)
	if len(p.Jobs) == 0 {
		return control.BuildReply{}, nothingPlanned(p)
	}
	prio := build.Normal
	if len(p.Want) <= request.SmallRound {
		prio = build.WaitedFor
	}
	reply.Round, err = d.Requester.Submit(ctx, p, prio)
	return reply, err
}

// nothingPlanned says why a plan is empty, by the first of its notes.
func nothingPlanned(p *build.Plan) error {
	e := &control.Error{Kind: control.KindNotFound, Message: "nothing to build"}
	notes := slices.Concat(p.Missing, p.Dropped)
	if len(notes) > 0 {
		e.Message = build.OneLine(notes[0].Atom+": "+notes[0].Reason, 400)
	}
	if len(notes) > 1 {
		e.Message += fmt.Sprintf(" (and %d more)", len(notes)-1)
	}
	if len(p.Missing) > 0 {
		e.Hint = "swarm build @samples builds what is built in"
		if d := p.Missing[0]; !strings.Contains(d.Reason, "sample") {
			e.Hint = "emerge --search NAME finds the full name"
		}
	}
	return e
}

// Board returns every record's bytes.
func (d *Daemon) Board(ctx context.Context) (out [][]byte, err error) {
	out = [][]byte{}
	err = d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, o := range r.Records() {
			out = append(out, o.Raw())
		}
		return nil
	})
	return out, err
}

// found is where a job's log is now.
type found struct {
	key    build.Key
	name   string // of the package
	holder string // peer that builds it now, if any
	nick   string // of the holder
	log    string // CID of the newest log
	author string // peer that built with that log
}

// find resolves a key, the end of one, or a package name to one job of the
// newest round that knows the name.
func (d *Daemon) find(ctx context.Context, name string) (f found, err error) {
	var unknown error
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		var job *build.Job
		if job, unknown = findJob(r, name, now); unknown != nil {
			return nil
		}
		f.key, f.name = job.Key, job.CPV.String()
		if h, held := r.Holder(f.key, now); held {
			f.holder, f.nick = h.Peer, r.Name(h.Peer)
		}
		var newest uint64
		for _, o := range r.Results(f.key) {
			if o.Log != "" && uint64(o.Stamp) >= newest {
				newest, f.log, f.author = uint64(o.Stamp), o.Log, o.Peer
			}
		}
		return nil
	})
	return f, errors.Join(err, unknown)
}

// Log copies a job's log: live from whoever builds it, else the kept blob.
func (d *Daemon) Log(ctx context.Context, w io.Writer, name string, follow bool) error {
	off, from := int64(0), "" // what was copied, and whose log it was
	for {
		f, err := d.find(ctx, name)
		if err != nil {
			return err
		}
		name = string(f.key)
		switch {
		case f.holder != "":
			if from != f.holder && off > 0 {
				if _, err := fmt.Fprintf(w, "\n[%s builds it now]\n", f.nick); err != nil {
					return err
				}
				off = 0
			}
			from = f.holder
			n, err := d.copyLive(ctx, w, f, off, follow)
			off += n
			switch {
			case err == nil:
				return nil
			case errors.Is(err, worker.ErrNoLog): // not begun, or just ended
			case !follow:
				return &control.Error{Kind: control.KindInternal, Message: fmt.Sprintf("read the log of %s from %s, which builds it: %v", f.name, f.nick, problem(err)), Hint: "swarm logs -f waits until it is there"}
			}
		case f.log != "":
			if from != f.author {
				off = 0
			}
			return d.copyBlob(ctx, w, f.log, off)
		case !follow:
			return &control.Error{Kind: control.KindNotFound, Message: "no log of " + f.name + " yet: nobody has built it", Hint: "swarm logs -f waits for it"}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(logPoll):
		}
	}
}

// copyLive copies what a running build has written from off on. With follow it
// goes on until worker.ErrNoLog says that the build has ended.
func (d *Daemon) copyLive(ctx context.Context, w io.Writer, f found, off int64, follow bool) (int64, error) {
	var n int64
	for {
		chunk, err := d.readLog(ctx, f, off+n)
		if err != nil {
			return n, err
		}
		if len(chunk) > 0 {
			if _, err := w.Write(chunk); err != nil {
				return n, err
			}
			n += int64(len(chunk))
			continue
		}
		if !follow {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return n, ctx.Err()
		case <-time.After(logPoll):
		}
	}
}

func (d *Daemon) readLog(ctx context.Context, f found, off int64) ([]byte, error) {
	if f.holder == d.Host.Self() {
		return localLog(d.Logs, f.key, off)
	}
	req, err := build.Marshal(logRequest{f.key, off})
	if err != nil {
		return nil, err
	}
	chunk, err := p2p.Request(ctx, d.Host, f.holder, ProtoLog, req, logChunk)
	if remote, ok := errors.AsType[*p2p.RemoteError](err); ok && strings.Contains(remote.Text, worker.ErrNoLog.Error()) {
		return nil, worker.ErrNoLog
	}
	return chunk, err
}

type logRequest struct {
	Key build.Key `cbor:"k"`
	Off int64     `cbor:"o"`
}

func localLog(logs *worker.Logs, k build.Key, off int64) ([]byte, error) {
	if logs == nil || off < 0 {
		return nil, worker.ErrNoLog
	}
	buf := make([]byte, logChunk)
	n, err := logs.ReadAt(k, buf, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buf[:n], nil
}

// Serve answers other peers: about the logs of this one's builds, and about its
// ebuild repositories.
func (d *Daemon) Serve() {
	if d.Logs != nil {
		ServeLogs(d.Host, d.Logs)
	}
	d.ServeTrees()
}

// ServeLogs answers other peers who read a log of this one.
func ServeLogs(n p2p.Network, logs *worker.Logs) {
	p2p.Serve(n, ProtoLog, 1024, func(_ context.Context, _ string, req []byte) ([]byte, error) {
		var r logRequest
		if err := build.Unmarshal(req, &r); err != nil {
			return nil, fmt.Errorf("decode log request: %w", err)
		}
		return localLog(logs, r.Key, r.Off)
	})
}

// copyBlob copies a kept log from off on, fetching it first if need be.
func (d *Daemon) copyBlob(ctx context.Context, w io.Writer, cidText string, off int64) error {
	c, err := cas.Parse(cidText)
	if err != nil {
		return err
	}
	if err := d.Requester.Fetch(ctx, c); err != nil {
		return fmt.Errorf("fetch the log: %w", err)
	}
	b, err := d.Store.Open(c)
	if err != nil {
		return err
	}
	defer b.Close()
	if off < b.Size() {
		if _, err := b.Seek(off, io.SeekStart); err != nil {
			return err
		}
		_, err = io.Copy(w, b)
	}
	return err
}

var _ control.Daemon = (*Daemon)(nil)

// Fetch brings a blob into the store from peers that hold it, if it is not
// there yet.
func Fetch(board *agent.Agent, store cas.Store, fetch func(context.Context, cid.Cid, []string) error) func(context.Context, cid.Cid) error {
	return func(ctx context.Context, c cid.Cid) error {
		if _, err := store.Stat(c); err == nil {
			return nil
		}
		var holders []string
		err := board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
			holders = r.Holders(c.String(), true, now)
			return nil
		})
		if err != nil {
			return err
		}
		if len(holders) == 0 {
			return fmt.Errorf("blob %s: %w on any peer that is here", c, cas.ErrNotFound)
		}
		return fetch(ctx, c, holders)
	}
}

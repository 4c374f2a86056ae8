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
	"github.com/build-swarm/swarm/build/request"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
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
	Agent     *agent.Agent
	Host      *p2p.Host
	Store     cas.Store
	Requester *request.Requester
	Planners  map[build.Builder]Planner
	Default   build.Builder
	Logs      *worker.Logs // nil on a peer that builds nothing
	Key       p2p.SwarmKey
	About     control.Info // all but the addresses
	Gateway   func() []string
}

// Info says who this peer is.
func (d *Daemon) Info(context.Context) (control.Info, error) {
	i := d.About
	i.ID, i.Addrs, i.Gateway, i.PID = d.Host.Self(), d.Host.Addrs(), d.Gateway(), os.Getpid()
	return i, nil
}

// Status takes the snapshot.
func (d *Daemon) Status(ctx context.Context) (s view.Snapshot, err error) {
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		s = view.Of(r, now)
		return nil
	})
	if err == nil {
		s.Warnings = append(s.Warnings, d.linkWarnings()...)
	}
	return s, err
}

// linkWarnings tells of peers that cannot be reached, and why.
func (d *Daemon) linkWarnings() []string {
	var out []string
	for _, p := range d.Host.Known() {
		if p.Problem != nil && p.Static {
			out = append(out, build.OneLine(fmt.Sprintf("no connection to %s: %v", p.ID, p.Problem), 300))
		}
	}
	return out
}

// Jobs lists jobs.
func (d *Daemon) Jobs(ctx context.Context, round string) (jobs []view.Job, err error) {
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		if round != "" {
			if _, _, ok := r.Round(round); !ok {
				err = &control.Error{Kind: control.KindNotFound, Message: "no round " + round, Hint: "swarm status lists the rounds"}
				return nil
			}
		}
		jobs = view.Jobs(r, round, now)
		return nil
	})
	return jobs, err
}

// Peers joins the board's view of peers with the network's.
func (d *Daemon) Peers(ctx context.Context) ([]control.Peer, error) {
	s, err := d.Status(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]control.Peer, 0, len(s.Peers))
	for _, p := range s.Peers {
		c := control.Peer{Peer: p, Addrs: []string{}}
		if p.Self {
			c.Addrs = d.Host.Addrs()
		} else if i, ok := d.Host.PeerInfo(p.ID); ok {
			c.Connected, c.Via, c.RTTMicros = i.Connected, i.Kind, i.RTT.Microseconds()
			c.Addrs = slices.Concat([]string{}, i.Addrs)
		}
		out = append(out, c)
	}
	return out, nil
}

// Invite makes a join code of this peer's addresses and the swarm key.
func (d *Daemon) Invite(context.Context) (string, error) {
	code, err := p2p.NewJoinCode(d.Key, "", d.Host.Addrs())
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
	if planner == nil {
		return control.BuildReply{}, &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("this peer cannot plan %s packages", name), Hint: "swarm version shows what it found of Portage"}
	}
	for _, a := range req.Atoms {
		if strings.HasPrefix(a, "@") {
			continue
		}
		if _, err := build.ParseAtom(a); err != nil {
			return control.BuildReply{}, &control.Error{Kind: control.KindUsage, Message: err.Error(), Hint: "for example: swarm build app-misc/jq"}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	p, err := planner.Plan(ctx, req.Atoms)
	if err != nil {
		return control.BuildReply{}, err
	}
	p.Command = req.Command
	reply := control.BuildReply{Jobs: len(p.Jobs), Wanted: []string{}, Dropped: slices.Concat([]build.Note{}, p.Dropped), Missing: slices.Concat([]build.Note{}, p.Missing)}
	for _, k := range p.Want {
		for i := range p.Jobs {
			if p.Jobs[i].Key == k {
				reply.Wanted = append(reply.Wanted, p.Jobs[i].CPV.String())
			}
		}
	}
	if len(p.Jobs) == 0 {
		e := &control.Error{Kind: control.KindNotFound, Message: "nothing to build"}
		for _, n := range slices.Concat(p.Missing, p.Dropped) {
			e.Message = build.OneLine(n.Atom+": "+n.Reason, 400)
			break
		}
		return control.BuildReply{}, e
	}
	prio := build.Normal
	if len(p.Want) <= request.SmallRound {
		prio = build.WaitedFor
	}
	reply.Round, err = d.Requester.Submit(ctx, p, prio)
	return reply, err
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
	holder string // peer that builds it now, if any
	log    string // CID of the newest log
	live   []string
}

// find resolves a key, the end of one, or a package name to one job.
func (d *Daemon) find(ctx context.Context, name string) (f found, err error) {
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		var hits []build.Key
		names := map[string]bool{}
		for _, rd := range r.Rounds() {
			for _, info := range r.SurveyRound(rd.ID, now) {
				j := info.Job
				if string(j.Key) == name || len(name) >= 6 && strings.HasSuffix(string(j.Key), name) || j.CPV.String() == name || j.CPV.CP() == name || j.CPV.Name == name {
					if !slices.Contains(hits, j.Key) {
						hits = append(hits, j.Key)
						names[fmt.Sprintf("%s (%s)", j.CPV, j.Key.Short())] = true
					}
				}
			}
			if len(hits) > 0 {
				break // the newest round that knows the name
			}
		}
		switch {
		case len(hits) == 0:
			err = &control.Error{Kind: control.KindNotFound, Message: "no job " + build.OneLine(name, 80), Hint: "swarm jobs lists them"}
			return nil
		case len(hits) > 1:
			list := make([]string, 0, len(names))
			for n := range names {
				list = append(list, n)
			}
			slices.Sort(list)
			err = &control.Error{Kind: control.KindUsage, Message: name + " names several jobs: " + strings.Join(list, ", "), Hint: "give the key's end instead of the name"}
			return nil
		}
		f.key = hits[0]
		if h, held := r.Holder(f.key, now); held {
			f.holder = h.Peer
		}
		var newest uint64
		for _, o := range r.Results(f.key) {
			if o.Log != "" && uint64(o.Stamp) >= newest {
				newest, f.log = uint64(o.Stamp), o.Log
			}
		}
		if f.log != "" {
			f.live = r.Holders(f.log, true, now)
		}
		return nil
	})
	return f, err
}

// Log copies a job's log: live from whoever builds it, else the kept blob.
func (d *Daemon) Log(ctx context.Context, w io.Writer, name string, follow bool) error {
	off := int64(0)
	for {
		f, err := d.find(ctx, name)
		if err != nil {
			return err
		}
		name = string(f.key)
		if f.holder != "" {
			n, err := d.copyLive(ctx, w, f, off, follow)
			off += n
			switch {
			case err == nil && !follow:
				return nil
			case err != nil && !errors.Is(err, worker.ErrNoLog):
				return err
			}
		} else if f.log != "" {
			return d.copyBlob(ctx, w, f.log, off)
		} else if !follow {
			return &control.Error{Kind: control.KindNotFound, Message: "no log of " + f.key.Short() + " yet: nobody has built it", Hint: "swarm logs -f waits for it"}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(logPoll):
		}
	}
}

// copyLive copies what a running build has written from off on. It returns
// worker.ErrNoLog when the build has ended.
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

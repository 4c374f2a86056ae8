package claimstest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// ErrScript is wrapped by errors of a script's form.
var ErrScript = errors.New("bad script")

// divider parts a script from what came of it.
const divider = "----"

// RunScript carries out a script and returns what happened, line by line. A
// script is lines of
//
//	peers NAME[:CORES]...        peers, running and connected before time 0
//	delay MS                     of every message (default 10)
//	job NAME SECONDS [NEEDS...]  SECONDS on one core; posted at time 0
//	TIME NAME take JOB           claim it, whatever the plan says
//	TIME NAME auto               from now on take what the plan gives
//	TIME NAME crash | crash-unsaid | start | leave | suspend | resume
//	TIME cut NAME NAME | mend NAME NAME    both directions
//	TIME states                  what each peer makes of each job
//	TIME end
//
// with times as Go writes them (1m30s), "#" for comments, and after a line of
// four dashes what happened when it was recorded. crash-unsaid kills the peer
// between its next write of the journal and the network.
func RunScript(r io.Reader) (got []string, err error) {
	s := &script{delay: 10}
	in := bufio.NewScanner(r)
	for n := 1; in.Scan(); n++ {
		text, _, _ := strings.Cut(in.Text(), "#")
		f := strings.Fields(text)
		if len(f) == 0 {
			continue
		}
		if f[0] == divider {
			break
		}
		if err := s.line(f); err != nil {
			return nil, fmt.Errorf("line %d: %w: %w", n, ErrScript, err)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read script: %w", err)
	}
	return s.run()
}

type script struct {
	peers []string
	cores []int64
	delay int64
	specs []Spec
	acts  []act
}

type act struct {
	at   int64
	args []string
}

// scriptStart is the virtual time of a script's time 0: by then the peers have
// compared their boards.
const scriptStart = 20_000

func (s *script) line(f []string) error {
	switch f[0] {
	case "peers":
		for _, p := range f[1:] {
			name, cores, found := strings.Cut(p, ":")
			n := int64(1)
			if found {
				var err error
				if n, err = strconv.ParseInt(cores, 10, 64); err != nil {
					return err
				}
			}
			s.peers, s.cores = append(s.peers, name), append(s.cores, n)
		}
		return nil
	case "delay":
		if len(f) != 2 {
			return errors.New("want delay MS")
		}
		var err error
		s.delay, err = strconv.ParseInt(f[1], 10, 64)
		return err
	case "job":
		return s.job(f[1:])
	}
	at, err := time.ParseDuration(f[0])
	if err != nil {
		return err
	}
	if len(f) < 2 {
		return errors.New("a time and nothing to do")
	}
	s.acts = append(s.acts, act{scriptStart + at.Milliseconds(), f[1:]})
	return nil
}

func (s *script) job(f []string) error {
	if len(f) < 2 {
		return errors.New("want job NAME SECONDS [NEEDS...]")
	}
	seconds, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return err
	}
	var before []build.Key
	for _, need := range f[2:] {
		i := slices.IndexFunc(s.specs, func(x Spec) bool { return x.Name == need })
		if i < 0 {
			return fmt.Errorf("no job %q", need)
		}
		before = append(before, s.specs[i].Job.Key)
	}
	spec, err := NewSpec(f[0], seconds*1000, seconds*1000, 0, before...)
	if err != nil {
		return err
	}
	s.specs = append(s.specs, spec)
	return nil
}

func (s *script) run() ([]string, error) {
	w := NewWorld(1, Options{Net: NetOptions{MinDelay: s.delay, MaxDelay: s.delay}, Progress: 2000}, s.specs)
	w.Trace.Keep = true
	for i, name := range s.peers {
		n := w.AddNode(name, s.cores[i]*1000, 1, claims.SettleLAN)
		n.drone.auto = false
		w.At(int64(i), n.Start)
	}
	if len(w.Nodes) == 0 {
		return nil, fmt.Errorf("%w: no peers", ErrScript)
	}
	w.At(scriptStart-5000, func() { w.PostRound(w.Nodes[0]) })
	w.RunUntil(scriptStart, nil)
	w.Trace.lines = nil
	for _, a := range s.acts {
		w.RunUntil(a.at, nil)
		if a.args[0] == "end" {
			break
		}
		if err := s.do(w, a.args); err != nil {
			return nil, fmt.Errorf("%w: %v: %w", ErrScript, a.args, err)
		}
	}
	out := make([]string, 0, len(w.Trace.lines))
	for _, l := range w.Trace.lines {
		l.at -= scriptStart
		out = append(out, l.String())
	}
	return out, nil
}

func (s *script) do(w *World, args []string) error {
	node := func(name string) (*Node, error) {
		for _, n := range w.Nodes {
			if n.Name == name {
				return n, nil
			}
		}
		return nil, fmt.Errorf("no peer %q", name)
	}
	switch args[0] {
	case "states":
		w.states()
		return nil
	case "cut", "mend":
		if len(args) != 3 {
			return errors.New("want two peers")
		}
		a, err := node(args[1])
		if err != nil {
			return err
		}
		b, err := node(args[2])
		if err != nil {
			return err
		}
		f := w.Cut
		if args[0] == "mend" {
			f = w.Mend
		}
		f(a, b)
		f(b, a)
		w.Trace.add(w.now, a, args[0], b.Name, "")
		return nil
	}
	n, err := node(args[0])
	if err != nil {
		return err
	}
	if len(args) < 2 {
		return errors.New("a peer and nothing to do")
	}
	return n.do(args[1:])
}

func (n *Node) do(args []string) error {
	switch args[0] {
	case "take":
		if len(args) != 2 {
			return errors.New("want take JOB")
		}
		k, err := n.w.keyOf(args[1])
		if err != nil {
			return err
		}
		n.drone.take(k)
	case "auto":
		n.drone.auto = true
		n.drone.kick(0)
	case "crash":
		n.Crash("")
	case "crash-unsaid":
		n.crashAfterPersist = true
	case "start":
		n.Start()
	case "leave":
		n.Leave()
	case "suspend":
		n.Suspend()
	case "resume":
		n.Resume()
	default:
		return fmt.Errorf("unknown verb %q", args[0])
	}
	return nil
}

// states traces what each peer that is up makes of each job.
func (w *World) states() {
	for _, n := range w.Nodes {
		if !n.Up() {
			continue
		}
		for _, info := range n.rep.Survey(n.now()) {
			note := string(info.State)
			if info.Holder != "" {
				note += " by " + w.byID[info.Holder].Name + ", epoch " + strconv.FormatUint(info.Epoch, 10)
			}
			w.Trace.add(w.now, n, "sees", w.name(info.Job.Key), note)
		}
	}
}

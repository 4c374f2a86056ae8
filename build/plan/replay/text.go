package replay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/build-swarm/swarm/build"
)

// Recording is moments, the oldest first.
type Recording []Moment

// head is the first line of a recording.
type head struct {
	Schema int `json:"swarm_recording"`
}

const schema = 1

// line is a moment as it is written: what has changed since the one before.
// Whole says that it is all there is.
type line struct {
	Moment
	Whole bool `json:"whole,omitempty"`
}

// Bounds of a recording that is read: a line, in bytes, moments, the slots of a
// drone, and times, in ms, with which sums do not overflow.
const (
	maxLine    = 64 << 20
	maxMoments = 100_000
	maxSlots   = 1024
	maxTime    = 1 << 50
)

// Writer writes a recording, a line of JSON for each moment.
type Writer struct {
	w      io.Writer
	before *Moment
}

// NewWriter writes to w, from the next moment on.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write adds a moment.
func (w *Writer) Write(m Moment) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	if w.before == nil {
		if err := e.Encode(head{schema}); err != nil {
			return fmt.Errorf("encode the head of a recording: %w", err)
		}
	}
	if err := e.Encode(since(w.before, m)); err != nil {
		return fmt.Errorf("encode a moment: %w", err)
	}
	if _, err := w.w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write a moment: %w", err)
	}
	w.before = &m
	return nil
}

// since is what a moment changes.
func since(before *Moment, m Moment) line {
	if before == nil || !slices.EqualFunc(before.Jobs, m.Jobs, func(a, b Job) bool { return a.Key == b.Key }) ||
		!slices.EqualFunc(before.Peers, m.Peers, func(a, b Peer) bool { return a.ID == b.ID }) || !same(before.Targets, m.Targets) {
		return line{m, true}
	}
	out := line{Moment: Moment{AtMS: m.AtMS, Rounds: m.Rounds, Peers: []Peer{}, Jobs: []Job{}}}
	for i := range m.Jobs {
		if a, b := before.Jobs[i], m.Jobs[i]; !same(a, b) {
			if b.is() == a.is() && slices.Equal(a.Rounds, b.Rounds) {
				b.set(what{})
				b.Rounds, b.More = nil, true
			}
			out.Jobs = append(out.Jobs, b)
		}
	}
	for i := range m.Peers {
		// That a Beat grows older follows from the time.
		a, b := before.Peers[i], m.Peers[i]
		a.AgeMS, b.AgeMS = 0, 0
		builds := same(a.Builds, b.Builds)
		a.Builds, b.Builds = nil, nil
		switch {
		case !same(a, b):
			out.Peers = append(out.Peers, m.Peers[i])
		case !builds:
			p := m.Peers[i]
			out.Peers = append(out.Peers, Peer{ID: p.ID, AgeMS: p.AgeMS, Builds: p.Builds, More: true})
		}
	}
	return out
}

// what is what a job is, and does not become.
type what struct {
	cpv, target            string
	builder                build.Builder
	priority               build.Priority
	guess, memory, diskMiB int64
}

func (j *Job) is() what {
	return what{j.CPV, j.Target, j.Builder, j.Priority, j.Guess, j.MemoryMiB, j.DiskMiB}
}

func (j *Job) set(w what) {
	j.CPV, j.Target, j.Builder, j.Priority, j.Guess, j.MemoryMiB, j.DiskMiB = w.cpv, w.target, w.builder, w.priority, w.guess, w.memory, w.diskMiB
}

// same compares what is written.
func same(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// Read reads a recording.
func Read(r io.Reader) (Recording, error) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxLine)
	var h head
	if !sc.Scan() || json.Unmarshal(sc.Bytes(), &h) != nil || h.Schema == 0 {
		return nil, errors.Join(errors.New("no recording of a round: its first line is not the head of one"), sc.Err())
	}
	if h.Schema != schema {
		return nil, fmt.Errorf("a recording of schema %d; this program reads %d", h.Schema, schema)
	}
	var out Recording
	for n := 2; sc.Scan(); n++ {
		var l line
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("line %d of the recording: %w", n, err)
		}
		if err := l.check(); err != nil {
			return nil, fmt.Errorf("line %d of the recording: %w", n, err)
		}
		switch {
		case len(out) == maxMoments:
			return nil, fmt.Errorf("the recording has more than %d moments", maxMoments)
		case len(out) > 0 && l.AtMS < out[len(out)-1].AtMS:
			return nil, fmt.Errorf("line %d of the recording is of a time before line %d", n, n-1)
		case l.Whole:
			out = append(out, l.Moment)
		case len(out) == 0:
			return nil, errors.New("the recording begins with a change")
		default:
			m, err := after(&out[len(out)-1], l.Moment)
			if err != nil {
				return nil, fmt.Errorf("line %d of the recording: %w", n, err)
			}
			out = append(out, m)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read the recording: %w", err)
	}
	return out, nil
}

// check refuses what no board can say: whoever sent a recording may have written
// anything.
func (m *Moment) check() error {
	if m.AtMS < 0 || m.AtMS > maxTime {
		return fmt.Errorf("time %d", m.AtMS)
	}
	for _, rd := range m.Rounds {
		if rd.CreatedMS < 0 || rd.CreatedMS > maxTime {
			return fmt.Errorf("round %q was made at %d", rd.ID, rd.CreatedMS)
		}
	}
	for _, p := range m.Peers {
		if p.Slots < 0 || p.Slots > maxSlots || len(p.Builds) > maxSlots || p.Speed < 0 || p.Speed > maxTime || p.AgeMS < 0 || p.AgeMS > maxTime {
			return fmt.Errorf("peer %q has %d slots with %d builds, speed %d", p.ID, p.Slots, len(p.Builds), p.Speed)
		}
		for _, b := range p.Builds {
			if b.InvestedMS < 0 || b.InvestedMS > maxTime || b.LeftMS < 0 || b.LeftMS > maxTime || b.Done < 0 || b.Done > 1000 {
				return fmt.Errorf("a build of peer %q has taken %d ms, %d are left", p.ID, b.InvestedMS, b.LeftMS)
			}
		}
	}
	for _, j := range m.Jobs {
		for _, v := range []int64{j.Guess, j.Low, j.Median, j.High, j.BeganMS, j.TookMS, j.CoreMS, j.Others} {
			if v < 0 || v > maxTime {
				return fmt.Errorf("job %q has an estimate or a cost of %d ms", j.Key, v)
			}
		}
	}
	return nil
}

// after is the moment that a change makes of the one before.
func after(before *Moment, change Moment) (Moment, error) {
	m := change
	m.Targets, m.Peers, m.Jobs = before.Targets, slices.Clone(before.Peers), slices.Clone(before.Jobs)
	for i := range m.Peers {
		m.Peers[i].AgeMS += m.AtMS - before.AtMS
	}
	for _, p := range change.Peers {
		i := slices.IndexFunc(m.Peers, func(x Peer) bool { return x.ID == p.ID })
		if i < 0 {
			return m, fmt.Errorf("peer %q changes and was not there", p.ID)
		}
		if p.More {
			age, builds := p.AgeMS, p.Builds
			p = before.Peers[i]
			p.AgeMS, p.Builds = age, builds
		}
		m.Peers[i] = p
	}
	for _, j := range change.Jobs {
		i := slices.IndexFunc(m.Jobs, func(x Job) bool { return x.Key == j.Key })
		if i < 0 {
			return m, fmt.Errorf("job %q changes and was not there", j.Key)
		}
		if j.More {
			j.set(before.Jobs[i].is())
			j.Rounds, j.More = before.Jobs[i].Rounds, false
		}
		m.Jobs[i] = j
	}
	return m, nil
}

package claimstest

import (
	"fmt"
	"hash/fnv"
	"io"
	"strings"
)

// line is one thing that happened.
type line struct {
	at         int64
	node, what string
	job, note  string
}

// Trace is what happened in a world. The zero Trace keeps nothing but a hash
// of it, by which two runs are compared.
type Trace struct {
	Keep  bool
	lines []line
	sum   uint64
}

func (t *Trace) add(at int64, n *Node, what, job, note string) {
	h := fnv.New64a()
	fmt.Fprintf(h, "%x %d %s %s %s %s", t.sum, at, n.Name, what, job, note)
	t.sum = h.Sum64()
	if t.Keep {
		t.lines = append(t.lines, line{at, n.Name, what, job, note})
	}
}

// Sum is a hash of everything that happened, in order.
func (t *Trace) Sum() uint64 { return t.sum }

func (l line) String() string {
	return strings.TrimRight(fmt.Sprintf("%9.3f %s %-8s %s %s", float64(l.at)/1000, l.node, l.what, l.job, l.note), " ")
}

// Print writes the last lines that concern a job (or all jobs, for ""), and
// what befell the machines.
func (t *Trace) Print(w io.Writer, job string, most int) {
	var out []line
	for _, l := range t.lines {
		if job == "" || l.job == job || l.job == "" {
			out = append(out, l)
		}
	}
	if len(out) > most {
		out = out[len(out)-most:]
	}
	for _, l := range out {
		fmt.Fprintln(w, l)
	}
}

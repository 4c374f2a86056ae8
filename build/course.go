package build

import "sort"

// Course is how the log of a build grew. Two builds of a package print much the
// same, so that the log of one that is under way tells how far it is.
type Course struct {
	Bytes int64 `cbor:"n" json:"bytes"` // of the whole log
	// At is how much of the log, in permille, was there after each sixteenth of
	// the build's time but the last.
	At []int64 `cbor:"at" json:"at"`
}

// nearEnd is the most that a log tells, in permille.
const nearEnd = 990

// courseParts is into how many parts a course divides a build's time.
const courseParts = 16

// Valid reports whether a course can be one: what a peer sent need not be.
func (c *Course) Valid() bool {
	if c.Bytes <= 0 || len(c.At) != courseParts-1 {
		return false
	}
	before := int64(0)
	for _, at := range c.At {
		if at < before || at > 1000 {
			return false
		}
		before = at
	}
	return true
}

// Done is which part of its time a build has behind it, in permille, when its
// log has so many bytes. Where the log of the other build stood still, one part
// is as likely as the next, and that nearest to expect is taken. A log that is a
// little longer than all of the other is near its end. 0 = it cannot be told:
// nothing is written yet, or much more than all.
func (c *Course) Done(bytes, expect int64) int64 {
	switch {
	case bytes <= 0 || !c.Valid() || bytes-c.Bytes > c.Bytes/4:
		return 0
	case bytes >= c.Bytes:
		return nearEnd
	}
	share := bytes * 1000 / c.Bytes
	return min(nearEnd, max(1, min(max(expect, c.when(share, true)), c.when(share, false))))
}

// when is the first or the last moment, in permille of the time, at which so
// much of the log was there, with a straight line between two points.
func (c *Course) when(share int64, first bool) int64 {
	at := func(i int) int64 { // after i parts
		switch {
		case i <= 0:
			return 0
		case i >= courseParts:
			return 1000
		}
		return c.At[i-1]
	}
	i := sort.Search(courseParts, func(i int) bool { return at(i+1) >= share })
	if !first {
		i = sort.Search(courseParts-1, func(i int) bool { return at(i+1) > share })
	}
	from, to := at(i), at(i+1)
	part := int64(1000)
	if to > from {
		part = min(1000, max(0, (share-from)*1000/(to-from)))
	} else if !first {
		part = 0
	}
	return (int64(i)*1000 + part) / courseParts
}

// Growth records a course as the build goes. The zero value is ready.
type Growth struct {
	points []growthPoint
	every  int // of the points that are told, so many are one that is kept
	told   int
}

type growthPoint struct{ ms, bytes int64 }

// growthMost bounds the points that are kept: of a longer build every second
// one is dropped, again and again.
const growthMost = 512

// Add tells how long the log is after so much of the build's time.
func (g *Growth) Add(ms, bytes int64) {
	g.every = max(1, g.every)
	g.told++
	if g.told%g.every != 0 {
		return
	}
	g.points = append(g.points, growthPoint{ms, bytes})
	if len(g.points) < growthMost {
		return
	}
	for i := range growthMost / 2 {
		g.points[i] = g.points[2*i+1]
	}
	g.points = g.points[:growthMost/2]
	g.every *= 2
}

// Course is that of the whole build, which took ms and left bytes of log. It is
// nil of a build too short to have one.
func (g *Growth) Course(ms, bytes int64) *Course {
	if bytes <= 0 || len(g.points) < courseParts {
		return nil
	}
	c := &Course{Bytes: bytes}
	for part := int64(1); part < courseParts; part++ {
		t := ms * part / courseParts
		i := sort.Search(len(g.points), func(i int) bool { return g.points[i].ms > t })
		at := int64(0)
		if i > 0 {
			at = g.points[i-1].bytes
		}
		c.At = append(c.At, min(1000, at*1000/bytes))
	}
	if !c.Valid() {
		return nil // the log was cut
	}
	return c
}

package release

import (
	"cmp"
	"strings"
)

// CompareVersions orders two versions by PMS 3.3: negative when a is older.
// Text that is not a version orders in some fixed way.
func CompareVersions(a, b string) int {
	pa, pb := split(a), split(b)
	if c := compareNumbers(pa.numbers, pb.numbers); c != 0 {
		return c
	}
	if c := strings.Compare(pa.letter, pb.letter); c != 0 {
		return c
	}
	for i := range max(len(pa.suffixes), len(pb.suffixes)) {
		var sa, sb suffix
		if i < len(pa.suffixes) {
			sa = pa.suffixes[i]
		}
		if i < len(pb.suffixes) {
			sb = pb.suffixes[i]
		}
		if c := cmp.Or(cmp.Compare(sa.rank, sb.rank), compareInt(sa.number, sb.number)); c != 0 {
			return c
		}
	}
	return compareInt(pa.revision, pb.revision)
}

type suffix struct {
	rank   int // _alpha < _beta < _pre < _rc < none < _p
	number string
}

type version struct {
	numbers  []string
	letter   string
	suffixes []suffix
	revision string
}

func split(s string) version {
	var v version
	if i := strings.LastIndex(s, "-r"); i >= 0 {
		s, v.revision = s[:i], s[i+2:]
	}
	parts := strings.Split(s, "_")
	head := parts[0]
	if n := len(head); n > 0 && head[n-1] >= 'a' && head[n-1] <= 'z' {
		head, v.letter = head[:n-1], head[n-1:]
	}
	v.numbers = strings.Split(head, ".")
	for _, p := range parts[1:] {
		name := strings.TrimRight(p, "0123456789")
		v.suffixes = append(v.suffixes, suffix{suffixRank(name), p[len(name):]})
	}
	return v
}

func suffixRank(name string) int {
	switch name {
	case "alpha":
		return -4
	case "beta":
		return -3
	case "pre":
		return -2
	case "rc":
		return -1
	}
	return 1 // p
}

// compareNumbers is PMS algorithm 3.2 and 3.3: the first component is an
// integer; a later one that begins with 0 on either side compares as a
// fraction; then the longer list wins.
func compareNumbers(a, b []string) int {
	for i := range min(len(a), len(b)) {
		var c int
		if i > 0 && (strings.HasPrefix(a[i], "0") || strings.HasPrefix(b[i], "0")) {
			c = strings.Compare(strings.TrimRight(a[i], "0"), strings.TrimRight(b[i], "0"))
		} else {
			c = compareInt(a[i], b[i])
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// compareInt compares decimal digits of any length; empty is 0.
func compareInt(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

package gpkg

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/build-swarm/swarm/build"
)

// quote makes a hostile name fit for a one-line error.
func quote(s string) string { return `"` + build.OneLine(s, 120) + `"` }

// plainName reports whether s is one path element of printable ASCII.
func plainName(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '/' {
			return false
		}
	}
	return true
}

// cleanText reports whether s can stand on one line of the index: UTF-8, and
// no control character but white space.
func cleanText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r < 0x20 && r != '\n' && r != '\t' && r != '\r' || r == 0x7f
	})
}

// isNumber reports whether s is decimal digits, of 19 at most.
func isNumber(s string) bool {
	if s == "" || len(s) > 19 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

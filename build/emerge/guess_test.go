package emerge

import (
	"testing"

	"github.com/build-swarm/swarm/build"
)

func TestAGuessTellsGiantsFromDwarfs(t *testing.T) {
	of := func(sizes ...int64) (out []build.Source) {
		for _, n := range sizes {
			out = append(out, build.Source{Size: n})
		}
		return out
	}
	for _, c := range []struct {
		name     string
		sources  []build.Source
		from, to int64 // seconds
	}{
		{"virtual", nil, 1, 10},
		{"gzip", of(800 << 10), 20, 60},
		{"rsync and a patch", of(1_100<<10, 2<<10), 25, 75},
		{"gcc", of(85 << 20), 1200, 7200},
		{"firefox", of(600 << 20), 7200, 40_000},
		{"the largest", of(1<<40, 1<<40), 1, 1 << 40},
	} {
		if got := guessWork(c.sources) / 1000; got < c.from || got > c.to {
			t.Errorf("%s: %d s, want %d to %d", c.name, got, c.from, c.to)
		}
	}
}

package monitor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/build/view/viewtest"
)

// However much there is to say, it fits, and what wants attention comes first.
func TestTheRoomBelowThePeersIsUsedAndNoMore(t *testing.T) {
	s := newState(time.Unix(10_000, 0))
	for n := range 20 {
		s.snap.Issues = append(s.snap.Issues, view.Issue{Title: fmt.Sprintf("package %d does not build %s", n, viewtest.Nasty), HoldsUp: 20 - n, Do: "swarm logs x"})
		s.snap.Peers = append(s.snap.Peers, view.Peer{Nick: viewtest.Nasty, State: "building", Doing: []view.Build{{CPV: "a/b-1"}, {CPV: "a/c-1", Phase: "compile"}}})
		s.events = append(s.events, view.Event{Text: fmt.Sprintf("event %d %s", n, viewtest.Nasty)})
	}
	s.snap.Releases = []view.Release{{Target: "desktop", Channel: "stable", Version: 7, Number: 6, Packages: 412, Timestamp: 6400}}
	s.snap.Staging = []view.Staging{{Target: "desktop", New: 3, Changed: 9, Held: 1}, {Target: "nas", Problem: viewtest.Nasty}}
	for n := range 60 {
		for _, width := range []int{40, 80, 200} {
			out := s.overview(look{width: width, height: 70}, n)
			text := strings.Join(out, "\n")
			if len(out) > n || n >= 3 && !strings.Contains(text, "NEEDS ATTENTION") || strings.ContainsAny(text, "\u202e\x07") {
				t.Fatalf("in %d lines of %d columns:\n%s", n, width, text)
			}
		}
	}
	all := strings.Join(s.overview(look{width: 200, height: 70}, 60), "\n")
	for _, want := range []string{"desktop/stable shows 7 (back at release 6), 412 packages, 1h00m old; staging: 3 new, 9 changed, 1 held back", "nas has no release yet; staging: cannot be composed", "ALSO BUILDING", "event 19", "and 9 more: swarm status"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
}

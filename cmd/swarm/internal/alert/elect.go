package alert

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/build-swarm/swarm/build/view"
)

// Rank is how many of the peers that are here and can tell come before this
// one, by rendezvous hashing: all agree without a word. The one of rank 0 tells.
func Rank(d *view.Detail) int {
	weight := func(id string) uint64 {
		sum := sha256.Sum256([]byte("alerts\x00" + id))
		return binary.BigEndian.Uint64(sum[:])
	}
	n, own := 0, weight(d.Self)
	for _, p := range d.Peers {
		if p.ID != d.Self && p.Alerts && p.State != "away" && p.State != "gone" && weight(p.ID) > own {
			n++
		}
	}
	return n
}

func several(n int, state string) string {
	if state == "resolved" {
		return fmt.Sprintf("%d things are over", n)
	}
	return fmt.Sprintf("%d things want attention", n)
}

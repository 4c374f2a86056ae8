package alert

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/build-swarm/swarm/build/view"
)

// Elected is the peer that tells: of those that are here and can, the one of
// the greatest weight (rendezvous hashing), so that all agree without a word
// and another takes over when it is gone. "" when nobody can.
func Elected(d *view.Detail) string {
	best, most := "", uint64(0)
	for _, p := range d.Peers {
		if !p.Alerts || p.State == "away" || p.State == "gone" {
			continue
		}
		sum := sha256.Sum256([]byte("alerts\x00" + p.ID))
		if w := binary.BigEndian.Uint64(sum[:]); best == "" || w > most {
			best, most = p.ID, w
		}
	}
	return best
}

func several(n int, state string) string {
	if state == "resolved" {
		return fmt.Sprintf("%d things are over", n)
	}
	return fmt.Sprintf("%d things want attention", n)
}

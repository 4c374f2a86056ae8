package daemon

import (
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/replication"
	"github.com/build-swarm/swarm/claims"
)

// Copies is what replication plans from: the blobs that peers say they hold,
// and who these peers are. sort says how much a blob matters, and whether it is
// to be kept at all; a copy of garbage that one peer has dropped must not come
// back from the next.
func Copies(r *claims.Replica, now claims.Now, sort func(d [32]byte) (replication.Class, bool)) replication.Input {
	in := replication.Input{Self: r.Self(), Now: time.UnixMilli(now.Wall)}
	for _, p := range r.Peers(now) {
		in.Peers = append(in.Peers, replication.Peer{
			ID: p.ID, Site: p.Beat.Site, Steady: p.Beat.Steady, Stores: p.Beat.Stores, Live: p.Live, BuildOnly: p.Beat.BuildOnly, Metered: p.Beat.Metered,
			Left: in.Now.Add(-time.Duration(p.AgeMS) * time.Millisecond), Free: p.Beat.StoreFree,
		})
	}
	size := map[[32]byte]int64{}
	for _, a := range r.Artifacts() {
		if c, err := cas.Parse(a.CID); err == nil {
			d, _ := cas.Digest(c) // of our form: Parse said so
			size[d] = a.Size
		}
	}
	for d, holders := range r.Blobs() {
		class, keep := sort(d)
		if !keep {
			continue
		}
		if class == replication.Other && size[d] > 0 {
			class = replication.Wanted // built since the roots were looked for
		}
		in.Blobs = append(in.Blobs, replication.Blob{CID: cas.NewCID(d), Size: size[d], Holders: holders, Class: class})
	}
	return in
}

package daemon

import (
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/replication"
	"github.com/build-swarm/swarm/claims"
)

// Copies is what replication plans from: the blobs that peers say they hold,
// and who these peers are. Built packages come before logs.
func Copies(r *claims.Replica, now claims.Now) replication.Input {
	in := replication.Input{Self: r.Self(), Now: time.UnixMilli(now.Wall)}
	for _, p := range r.Peers(now) {
		in.Peers = append(in.Peers, replication.Peer{
			ID: p.ID, Site: p.Beat.Site, Steady: p.Beat.Steady, Stores: p.Beat.Stores, Live: p.Live,
			Left: in.Now.Add(-time.Duration(p.AgeMS) * time.Millisecond), Free: p.Beat.StoreFree,
		})
	}
	size := map[[32]byte]int64{}
	released := map[[32]byte]bool{}
	for _, a := range r.Artifacts() {
		if c, err := cas.Parse(a.CID); err == nil {
			if d, err := cas.Digest(c); err == nil {
				size[d] = a.Size
			}
		}
	}
	for _, ch := range r.Channels() {
		if c, err := cas.Parse(ch.Release); err == nil {
			if d, err := cas.Digest(c); err == nil {
				released[d] = true
			}
		}
	}
	for d, holders := range r.Blobs() {
		b := replication.Blob{CID: cas.NewCID(d), Size: size[d], Holders: holders, Class: replication.Other}
		switch {
		case released[d]:
			b.Class = replication.Released
		case size[d] > 0:
			b.Class = replication.Wanted
		}
		in.Blobs = append(in.Blobs, b)
	}
	return in
}

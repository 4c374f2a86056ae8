package agent

// How many records may come by gossip: in a burst, and for each second after it.
// An author's share is more than the busiest drone says; what exceeds it is not
// passed on either, and comes with the next comparison of boards, which nobody
// can hurry. A peer's share holds a neighbour that makes up authors.
const (
	authorBurst  = 1_024
	authorPerSec = 256
	peerBurst    = 4_096
	peerPerSec   = 1_024
	// rateEntries is how many meters are kept before those that are full again
	// are forgotten.
	rateEntries = 4_096
)

// rates meters who says how much. An author's records are counted apart for each
// neighbour that hands them over: else a member could use up an honest author's
// share by sending its old records again. The author "" stands for the neighbour
// itself, and is asked before any signature is checked.
type rates struct{ meters map[rateKey]meter }

type rateKey struct{ from, author string }

// meter is a bucket of tokens: what was left at a time, in thousandths.
type meter struct{ left, at int64 }

func (k rateKey) limits() (burst, perSec int64) {
	if k.author == "" {
		return peerBurst, peerPerSec
	}
	return authorBurst, authorPerSec
}

// take reports whether n more records are within the limit at a boot time in
// milliseconds, and counts them if so.
func (r *rates) take(from, author string, n int, now int64) bool {
	k := rateKey{from, author}
	burst, perSec := k.limits()
	m, known := r.meters[k]
	switch {
	case !known:
		if len(r.meters) >= rateEntries {
			r.forget(now)
		}
		m = meter{burst * 1000, now}
	case now > m.at:
		m.left, m.at = min(burst*1000, m.left+(now-m.at)*perSec), now
	}
	ok := int64(n)*1000 <= m.left
	if ok {
		m.left -= int64(n) * 1000
	}
	if r.meters == nil {
		r.meters = map[rateKey]meter{}
	}
	r.meters[k] = m
	return ok
}

// forget drops the meters that say no more than a new one would.
func (r *rates) forget(now int64) {
	for k, m := range r.meters {
		if burst, perSec := k.limits(); m.left+(now-m.at)*perSec >= burst*1000 {
			delete(r.meters, k)
		}
	}
}

package agent

import (
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/wire"
	"github.com/build-swarm/swarm/p2p/gossip"
)

const (
	// checkPart is how many records one worker checks at a time.
	checkPart = 16
	// peerShare is how much of one peer may wait for the loop, in bytes, and
	// leastCharge what the smallest message counts for. So a peer that floods
	// fills its own share, never the inbox.
	peerShare   = 2 << 20
	leastCharge = 4 << 10
)

// letter is one message of a peer that waits for the loop.
type letter struct {
	evs  []claims.Event
	from string
	size int
}

// intake checks what peers send, on as many goroutines as there are CPUs, and
// keeps the account of what waits for the loop.
type intake struct {
	busy chan struct{} // one for each check under way

	mu   sync.Mutex
	used map[string]int // bytes waiting, by peer
}

func newIntake() *intake {
	return &intake{busy: make(chan struct{}, runtime.GOMAXPROCS(0)), used: map[string]int{}}
}

// admit counts a message against its sender's share; false = it is full.
func (in *intake) admit(from string, size int) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.used[from] > 0 && in.used[from]+size > peerShare {
		return false
	}
	in.used[from] += size
	return true
}

// release gives back what admit took.
func (in *intake) release(from string, size int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.used[from] -= size; in.used[from] <= 0 {
		delete(in.used, from)
	}
}

// checked is what became of one record: invalid says that its signature holds
// and its body breaks a rule.
type checked struct {
	rec     wire.Opened
	body    claims.Body
	invalid bool
}

// check opens and validates records. The error is of a record that no honest
// peer passes on: one whose form or signature is wrong.
func (in *intake) check(raws [][]byte) ([]checked, error) {
	out := make([]checked, len(raws))
	part := func(from, to int) error {
		for i := from; i < to; i++ {
			o, err := wire.Open(raws[i])
			if err != nil {
				return err
			}
			body, err := claims.Validate(o)
			out[i] = checked{o, body, err != nil}
		}
		return nil
	}
	if len(raws) <= checkPart {
		return out, part(0, len(raws))
	}
	var g errgroup.Group
	for from := 0; from < len(raws); from += checkPart {
		in.busy <- struct{}{}
		g.Go(func() error {
			defer func() { <-in.busy }()
			return part(from, min(from+checkPart, len(raws)))
		})
	}
	return out, g.Wait()
}

// events are what the loop is told of checked records. Those that break a rule
// go to the replica unvalidated, which refuses and counts them.
func events(from string, list []checked) (evs []claims.Event, invalid int) {
	good := claims.Validated{From: from}
	var bad []wire.Opened
	for _, c := range list {
		if c.invalid {
			bad = append(bad, c.rec)
			continue
		}
		good.Records, good.Bodies = append(good.Records, c.rec), append(good.Bodies, c.body)
	}
	if len(good.Records) > 0 {
		evs = append(evs, good)
	}
	if len(bad) > 0 {
		evs = append(evs, claims.Received{From: from, Records: bad})
	}
	return evs, len(bad)
}

// validate checks a gossip message before it is relayed and hands its records
// to the loop. A message for which there is no room is dropped: the
// anti-entropy exchange repairs that.
func (a *Agent) validate(from string, data []byte) gossip.Verdict {
	var raws [][]byte
	if err := build.Unmarshal(data, &raws); err != nil || len(raws) == 0 {
		return gossip.Reject
	}
	size := max(leastCharge, len(data))
	if !a.intake.admit(from, size) {
		return gossip.Ignore
	}
	list, err := a.intake.check(raws)
	if err != nil {
		a.intake.release(from, size)
		return gossip.Reject
	}
	evs, invalid := events(from, list)
	select {
	case a.inbox <- letter{evs, from, size}:
	default:
		a.intake.release(from, size)
		return gossip.Ignore
	}
	if invalid > 0 {
		return gossip.Ignore // not ours to pass on
	}
	return gossip.Accept
}

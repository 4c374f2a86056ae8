package agent

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

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
	// fills its own share, never another's.
	peerShare   = 2 << 20
	leastCharge = 4 << 10
	// mostWaiting is how many messages of one peer wait for room in its share;
	// an honest one sends the next when the last has arrived.
	mostWaiting = 4
)

// letter is one message of a peer that waits for the loop.
type letter struct {
	evs  []claims.Event
	from string
	size int
}

// intake checks what peers send, on as many goroutines as there are CPUs, and
// keeps what waits for the loop. The loop takes of each peer in turn, so that
// what an honest one sends waits for one message of every other, however many
// those have sent.
type intake struct {
	busy  chan struct{} // one for each check under way
	ready chan struct{} // has a word when letters wait

	malformed, flood atomic.Uint64 // messages refused

	mu     sync.Mutex
	peers  map[string]*account // of peers with something waiting
	turns  []*account          // of those with letters, in the order of their turns
	rates  rates
	later  sync.WaitGroup // checks that nobody waits for; none begins when closed
	closed bool
}

// account is one peer's part of what waits.
type account struct {
	used    int           // bytes
	waiting int           // messages that wait for room
	freed   chan struct{} // closed when room was made
	letters []letter
	last    chan struct{} // closed when the last message that inOrder took is done
}

func newIntake() *intake {
	return &intake{busy: make(chan struct{}, runtime.GOMAXPROCS(0)), ready: make(chan struct{}, 1), peers: map[string]*account{}}
}

// count fills in what the replica does not see.
func (in *intake) count(c *claims.Counters) {
	c.Malformed, c.Flood = in.malformed.Load(), in.flood.Load()
}

// put queues a letter that was admitted.
func (in *intake) put(l letter) {
	in.mu.Lock()
	acc := in.account(l.from)
	if len(acc.letters) == 0 {
		in.turns = append(in.turns, acc)
	}
	acc.letters = append(acc.letters, l)
	in.mu.Unlock()
	in.wake()
}

func (in *intake) wake() {
	select {
	case in.ready <- struct{}{}:
	default:
	}
}

// next takes a letter of the peer whose turn it is.
func (in *intake) next() (letter, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.turns) == 0 {
		return letter{}, false
	}
	acc := in.turns[0]
	in.turns = in.turns[1:]
	l := acc.letters[0]
	if acc.letters = acc.letters[1:]; len(acc.letters) > 0 {
		in.turns = append(in.turns, acc)
	}
	return l, true
}

// gossiped reports whether a message of so many records may come in from a
// peer, and later whether each author's may: see rates.
func (in *intake) gossiped(from string, records int, now int64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.rates.take(from, "", records, now)
}

func (in *intake) authored(from string, list []checked, now int64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	ok := true
	for _, c := range list {
		ok = in.rates.take(from, c.rec.Author(), 1, now) && ok
	}
	return ok
}

// admit counts a message against its sender's share; false = there is no room.
func (in *intake) admit(from string, size int) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	acc := in.account(from)
	if acc.used > 0 && acc.used+size > peerShare {
		return false
	}
	acc.used += size
	return true
}

// await is admit for a sender that may be held up: it waits for room until ctx
// ends. Not so when others of that peer wait already.
func (in *intake) await(ctx context.Context, from string, size int) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	acc := in.account(from)
	for acc.used > 0 && acc.used+size > peerShare {
		if acc.waiting >= mostWaiting {
			return errBusy
		}
		acc.waiting++
		freed := acc.freed
		in.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
		}
		in.mu.Lock()
		acc.waiting--
		if err := ctx.Err(); err != nil {
			in.forget(from, acc)
			return err
		}
	}
	acc.used += size
	return nil
}

// inOrder runs f for a message of a peer that was admitted: at once and, if later
// is set, without waiting for it; then f's error is nobody's. What f does after
// its turn has come is done in the order of the messages.
func (in *intake) inOrder(from string, later bool, f func(turn <-chan struct{}) error) error {
	in.mu.Lock()
	acc := in.account(from)
	turn, done := acc.last, make(chan struct{})
	if turn == nil {
		turn = make(chan struct{})
		close(turn)
	}
	acc.last = done
	if later = later && !in.closed; later {
		in.later.Add(1)
	}
	in.mu.Unlock()
	if !later {
		defer close(done)
		return f(turn)
	}
	go func() {
		defer in.later.Done()
		defer close(done)
		_ = f(turn) // counted there
	}()
	return nil
}

// close waits for the checks that nobody waits for.
func (in *intake) close() {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	in.later.Wait()
}

// account of a peer, made if need be, with the intake locked.
func (in *intake) account(from string) *account {
	acc := in.peers[from]
	if acc == nil {
		acc = &account{freed: make(chan struct{})}
		in.peers[from] = acc
	}
	return acc
}

// release gives back what admit took.
func (in *intake) release(from string, size int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	acc := in.peers[from]
	acc.used -= size
	if acc.waiting > 0 {
		close(acc.freed)
		acc.freed = make(chan struct{})
	}
	in.forget(from, acc)
}

// forget drops an account that nothing stands on, with the intake locked.
func (in *intake) forget(from string, acc *account) {
	if acc.used == 0 && acc.waiting == 0 {
		delete(in.peers, from)
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
	good := claims.Validated{From: from, Records: make([]wire.Opened, 0, len(list)), Bodies: make([]claims.Body, 0, len(list))}
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
		a.intake.malformed.Add(1)
		return gossip.Reject
	}
	size, now := max(leastCharge, len(data)), a.cfg.Clock.Now().Boot
	if !a.intake.gossiped(from, len(raws), now) || !a.intake.admit(from, size) {
		a.intake.flood.Add(1)
		return gossip.Ignore
	}
	list, err := a.intake.check(raws)
	if err != nil {
		a.intake.malformed.Add(1)
		a.intake.release(from, size)
		return gossip.Reject
	}
	if !a.intake.authored(from, list, now) {
		a.intake.flood.Add(1)
		a.intake.release(from, size)
		return gossip.Ignore
	}
	evs, invalid := events(from, list)
	a.intake.put(letter{evs, from, size})
	if invalid > 0 {
		return gossip.Ignore // not ours to pass on
	}
	return gossip.Accept
}

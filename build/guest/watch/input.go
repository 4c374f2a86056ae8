package watch

import (
	"context"
	"encoding/binary"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	// quiet is how long input devices are not read after somebody touched one: a
	// mouse speaks a thousand times a second, and once is enough.
	quiet = 500 * time.Millisecond
	// rescan is how often it is looked for devices that were plugged in.
	rescan = 30 * time.Second
)

// touches tells when somebody touches the machine, from its input devices. The
// channel has room for one; last is when that was.
type touches struct {
	f    files
	c    chan struct{}
	mu   sync.Mutex
	last time.Time
	open int
}

func newTouches(f files) *touches { return &touches{f: f, c: make(chan struct{}, 1), last: time.Now()} }

// since is how long ago somebody touched the machine; ok is false when no device
// can be read. Before the first touch that is counted from the start.
func (t *touches) since(now time.Time) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return now.Sub(t.last), t.open > 0
}

// run reads devices until ctx ends. What was touched before it began nobody
// knows: it counts as touched then.
func (t *touches) run(ctx context.Context) {
	opened := sync.OnceFunc(t.touch)
	var wg sync.WaitGroup
	defer wg.Wait()
	reading := map[string]bool{}
	var mu sync.Mutex
	for {
		for _, path := range t.f.glob("dev/input/event*") {
			mu.Lock()
			busy := reading[path]
			mu.Unlock()
			if busy {
				continue
			}
			f, err := os.Open(t.f.root + path)
			if err != nil {
				continue // not for us to read; logind has to do
			}
			mu.Lock()
			reading[path] = true
			mu.Unlock()
			t.count(1)
			wg.Go(func() {
				t.read(ctx, f)
				t.count(-1)
				mu.Lock()
				delete(reading, path)
				mu.Unlock()
			})
		}
		opened()
		timer := time.NewTimer(rescan)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// read follows one device until it is gone or ctx ends.
func (t *touches) read(ctx context.Context, f *os.File) {
	stop := context.AfterFunc(ctx, func() { _ = f.Close() }) // which ends the read
	defer func() {
		if stop() {
			_ = f.Close() // it was read only
		}
	}()
	buf := make([]byte, 64*eventSize)
	for {
		n, err := f.Read(buf)
		if err != nil || ctx.Err() != nil {
			return
		}
		if !byHand(buf[:n]) {
			continue
		}
		t.touch()
		timer := time.NewTimer(quiet)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// struct input_event: two words of time, type, code, value.
const eventSize = 2*strconv.IntSize/8 + 8

// byHand reports whether some event is of a key, a button or a motion. Lids,
// docks and accelerometers speak of other things.
func byHand(events []byte) bool {
	const key, rel = 1, 2
	for ; len(events) >= eventSize; events = events[eventSize:] {
		if kind := binary.NativeEndian.Uint16(events[eventSize-8:]); kind == key || kind == rel {
			return true
		}
	}
	return false
}

func (t *touches) count(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open += n
}

func (t *touches) touch() {
	t.mu.Lock()
	t.last = time.Now()
	t.mu.Unlock()
	select {
	case t.c <- struct{}{}:
	default:
	}
}

package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/build-swarm/swarm/build/progress"
)

// took remembers how long things took the last time, in this process: of what
// tells nothing of itself while it goes on, that is what can be said. Its
// methods may be called from any goroutine.
type took struct {
	mu   sync.Mutex
	last map[string]time.Duration
}

// tell does something and says to whoever listens what, and how long the last
// such took. what names it for people, like names such for the memory.
func (t *took) tell(ctx context.Context, what, like string, do func() error) error {
	t.mu.Lock()
	ms := t.last[like].Milliseconds()
	t.mu.Unlock()
	progress.Tell(ctx, progress.Step{What: what, LowMS: ms, HighMS: ms})
	began := time.Now()
	if err := do(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last = map[string]time.Duration{}
	}
	t.last[like] = time.Since(began)
	return nil
}

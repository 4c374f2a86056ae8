package agent

import "sync"

// mailbox is a queue between the loop, which must never wait, and one reader.
type mailbox[T any] struct {
	mu    sync.Mutex
	items []T
	ready chan struct{}
}

func newMailbox[T any]() *mailbox[T] { return &mailbox[T]{ready: make(chan struct{}, 1)} }

// put adds v. Above most it empties the box instead and returns false: what is
// in it is useful only whole. most 0 is no bound.
func (m *mailbox[T]) put(v T, most int) bool {
	m.mu.Lock()
	full := most > 0 && len(m.items) >= most
	if full {
		m.items = nil
	} else {
		m.items = append(m.items, v)
	}
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
	return !full
}

// take returns everything that waits; wait on ready first.
func (m *mailbox[T]) take() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.items
	m.items = nil
	return out
}

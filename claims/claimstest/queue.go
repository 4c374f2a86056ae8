package claimstest

// happening is something due at a time; among equals the earlier planned goes
// first, so that a run depends on its seed alone.
type happening struct {
	at  int64 // virtual milliseconds
	seq uint64
	do  func()
}

// queue is a binary heap of happenings. (container/heap costs an interface
// call per comparison, and this is the simulator's inner loop.)
type queue struct {
	items []happening
	seq   uint64
}

func (h happening) before(o happening) bool {
	return h.at < o.at || h.at == o.at && h.seq < o.seq
}

func (q *queue) push(at int64, do func()) {
	q.seq++
	q.items = append(q.items, happening{at, q.seq, do})
	i := len(q.items) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !q.items[i].before(q.items[up]) {
			return
		}
		q.items[i], q.items[up] = q.items[up], q.items[i]
		i = up
	}
}

func (q *queue) pop() happening {
	top := q.items[0]
	last := len(q.items) - 1
	q.items[0] = q.items[last]
	q.items[last] = happening{}
	q.items = q.items[:last]
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < last; c++ {
			if q.items[c].before(q.items[least]) {
				least = c
			}
		}
		if least == i {
			return top
		}
		q.items[i], q.items[least] = q.items[least], q.items[i]
		i = least
	}
}

package view

import (
	"fmt"
	"slices"

	"github.com/build-swarm/swarm/claims"
)

// lasting are the orders that go on having an effect; others are over when they
// have been obeyed.
var lasting = []claims.Verb{claims.VerbPause, claims.VerbDrain, claims.VerbBan}

// Lasts reports whether an order goes on having an effect.
func (o Order) Lasts() bool { return !o.Off && slices.Contains(lasting, claims.Verb(o.Verb)) }

// String is an order for people, without its age.
func (o Order) String() string {
	s := fmt.Sprintf("%s of %s, by %s", o.Verb, o.Name, o.By)
	if o.Reason != "" {
		s += ": " + o.Reason
	}
	return s
}

// inForce lists the orders that nobody has lifted. An acknowledgement is shown by
// what is missing: the peer is not new any more.
func (l *look) inForce() []Order {
	return slices.DeleteFunc(l.orders(), func(o Order) bool { return o.Off || claims.Verb(o.Verb) == claims.VerbAck })
}

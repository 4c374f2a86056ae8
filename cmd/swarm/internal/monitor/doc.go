// Package monitor is `swarm monitor`: the swarm on a full terminal, in the
// grammar that people know from k9s. Tabs are tables; a row is chosen with the
// arrows, a filter narrows what is listed, Enter opens what the row is about.
//
// A state is everything that is shown, and changes only by what was typed and
// what the daemon answered: press and the take methods are functions of it and
// do no I/O. What a key asks for comes back as an ask, which Program carries to
// the daemon. Screen draws a state for a size; it never asks anybody.
//
// The monitor outlives the daemon that it is attached to: what was known last
// stays on the screen, with the time since, until a daemon answers again.
//
// Everything from peers, packages and logs goes through render.Clean before it
// is drawn.
package monitor

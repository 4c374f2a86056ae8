package build

// Priority is the class of a round or a job; the lower number goes first.
type Priority uint8

const (
	WaitedFor  Priority = 1 // a person waits: `swarm build` of a few packages, or bumped
	Normal     Priority = 2
	Background Priority = 3
)

// String is the word people see.
func (p Priority) String() string {
	switch p {
	case WaitedFor:
		return "waited-for"
	case Normal:
		return "normal"
	}
	return "background"
}

// RoundState is where a round's request stands. Whether its jobs are built is
// derived from the board, never written.
type RoundState string

const (
	RoundOpen      RoundState = "open"
	RoundCancelled RoundState = "cancelled"
	RoundClosed    RoundState = "closed" // its result was published
)

// Round is one request and its plan. The plan stands inline up to
// MaxInlinePlan encoded bytes, else PlanCID names a blob that two peers hold
// before the round is published (one, in a swarm of one).
type Round struct {
	ID        string     `cbor:"id" json:"id"`
	Target    string     `cbor:"target" json:"target"`
	Priority  Priority   `cbor:"prio" json:"priority"`
	Requester string     `cbor:"by" json:"requester"` // peer ID
	State     RoundState `cbor:"state" json:"state"`
	Counter   uint64     `cbor:"n" json:"counter"` // grows with every change of state
	Created   uint64     `cbor:"hlc" json:"created"`
	Command   string     `cbor:"cmd" json:"command"`
	// Manual rounds are released by a person (`swarm finalize`), others by
	// themselves when they have ended.
	Manual  bool   `cbor:"manual,omitempty" json:"manual,omitempty"`
	Jobs    int    `cbor:"jobs" json:"jobs"`
	Plan    *Plan  `cbor:"plan,omitempty" json:"-"`
	PlanCID string `cbor:"plancid,omitempty" json:"plan_cid,omitempty"`
}

// MaxInlinePlan is the most bytes of encoded plan that stand in a Round.
const MaxInlinePlan = 16 << 10

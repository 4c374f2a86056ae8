package claims

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
)

// TypeTarget is the record of a target, by its name. Its order is version,
// stamp, author: of two machines that change a target at once the later one
// wins, and a removal is a version like any other.
const TypeTarget = "target"

type targetBody struct{ build.Target }

// NewTarget lets a target stand on the board.
func NewTarget(t build.Target) Body { return targetBody{t} }

func (targetBody) recordType() string                  { return TypeTarget }
func (t targetBody) recordKey(string, hlc.Time) string { return TypeTarget + "/" + t.Name }
func (t targetBody) recordOrder(a string, s hlc.Time) []byte {
	return append(be(t.Version), lww(a, s)...)
}

func (t targetBody) check(string) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	return nil
}

// Target is a target as the board has it.
type Target struct {
	build.Target
	Author string   // peer that wrote this version
	Stamp  hlc.Time // when
}

// Target returns a target by its name, a removed one too (its State says so),
// or nil if there never was one.
func (r *Replica) Target(name string) *Target {
	e := r.board.get(TypeTarget + "/" + name)
	if e == nil {
		return nil
	}
	return targetOf(e)
}

// Targets lists the targets that are there, by name.
func (r *Replica) Targets() []Target {
	var out []Target
	for n := range r.board.bucket {
		for _, e := range r.board.bucket[n] {
			if t := targetOf(e); t != nil && t.State == build.TargetLive {
				out = append(out, *t)
			}
		}
	}
	slices.SortFunc(out, func(a, b Target) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func targetOf(e *entry) *Target {
	t, ok := e.body.(targetBody)
	if !ok {
		return nil
	}
	return &Target{Target: t.Target, Author: e.rec.Author(), Stamp: hlc.Time(e.rec.Stamp())}
}

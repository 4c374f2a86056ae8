package claims

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/claims/hlc"
)

// TypeAlert is the record of what people were told.
const TypeAlert = "alert"

// maxCause bounds the name of a root cause, in bytes.
const maxCause = 200

// Alert says that people were told of a root cause, or that it is over. It is
// written after the telling, so that whoever is to tell next knows: five peers
// tell once, and when the one that told is gone, another tells the end.
type Alert struct {
	Cause string `cbor:"cause" json:"cause"` // view.Issue's ID
	Open  bool   `cbor:"open" json:"open"`
}

func (Alert) recordType() string { return TypeAlert }

// recordKey hashes the cause: it may hold what a key may not.
func (a Alert) recordKey(string, hlc.Time) string {
	sum := sha256.Sum256([]byte(a.Cause))
	return TypeAlert + "/" + hex.EncodeToString(sum[:16])
}
func (Alert) recordOrder(a string, s hlc.Time) []byte { return lww(a, s) }

func (a Alert) check(string) error {
	if a.Cause == "" || len(a.Cause) > maxCause {
		return fmt.Errorf("%w: alert of a cause of %d bytes", ErrInvalid, len(a.Cause))
	}
	return nil
}

// Alerts lists what people were told, sorted by cause.
func (r *Replica) Alerts() []Alert {
	out := make([]Alert, 0, len(r.idx.alerts))
	for _, a := range r.idx.alerts {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Alert) int { return strings.Compare(a.Cause, b.Cause) })
	return out
}

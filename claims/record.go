package claims

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"crypto/sha256"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
)

// Record types. A type that is not among them is kept and passed on by its
// order alone, so that old and new versions can mix.
const (
	TypeRound     = "round"
	TypeClaim     = "claim"
	TypeOutcome   = "outcome"
	TypeDecline   = "decline"
	TypeDirective = "directive"
	TypeHoldings  = "holds"
	TypeChannel   = "channel"
	TypeBeat      = "beat" // never on the board
)

// Errors of Validate. All wrap ErrInvalid.
var (
	ErrInvalid = errors.New("invalid record")
	ErrAuthor  = fmt.Errorf("%w: the author may not write this key", ErrInvalid)
	ErrOrder   = fmt.Errorf("%w: the order does not follow from the body", ErrInvalid)
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// ClaimState is how far a claim has come.
type ClaimState string

const (
	ClaimHeld      ClaimState = "held"      // fetching, unpacking, settling
	ClaimCompiling ClaimState = "compiling" // work is invested
	ClaimReturned  ClaimState = "returned"  // given back; the next epoch may open
)

// Claim is a drone's leased intent to build a job. Stamp is when the claim was
// first made and stays; Update counts the claimant's own changes of it.
type Claim struct {
	Key    build.Key  `cbor:"key" json:"key"`
	Peer   string     `cbor:"peer" json:"peer"`
	Epoch  uint64     `cbor:"epoch" json:"epoch"`
	Stamp  hlc.Time   `cbor:"stamp" json:"stamp"`
	Update uint64     `cbor:"update" json:"update"`
	State  ClaimState `cbor:"state" json:"state"`
	Reason string     `cbor:"reason,omitempty" json:"reason,omitempty"` // of a give-back
}

// BeatJob is what a drone says of a build it holds.
type BeatJob struct {
	Key        build.Key `cbor:"k" json:"key"`
	Epoch      uint64    `cbor:"e" json:"epoch"`
	Phase      string    `cbor:"p" json:"phase"`
	InvestedMS int64     `cbor:"i" json:"invested_ms"` // work done, wall time of the build
	LeftMS     int64     `cbor:"l" json:"left_ms"`     // expected remaining wall time
	Compiling  bool      `cbor:"c" json:"compiling"`
	// Done is which part of the build's time is over, in permille, by what its
	// log says; 0 = it says nothing.
	Done int64 `cbor:"d,omitempty" json:"done_permille,omitempty"`
	// FrozenMS is for how long yet the holder keeps the build stopped before it
	// gives it back; 0 = it runs.
	FrozenMS int64 `cbor:"f,omitempty" json:"frozen_ms,omitempty"`
}

// Beat is a peer's sign of life: the latest per peer counts. It renews all
// leases of its author and carries what the schedule needs to know of it.
type Beat struct {
	Instance   uint64          `cbor:"inst" json:"instance"` // random per process
	Nick       string          `cbor:"nick" json:"nick"`
	Version    string          `cbor:"ver" json:"version"`
	PeriodMS   int64           `cbor:"period" json:"period_ms"`
	Leaving    bool            `cbor:"leaving,omitempty" json:"leaving,omitempty"`
	Jobs       []BeatJob       `cbor:"jobs,omitempty" json:"jobs,omitempty"`
	Slots      int             `cbor:"slots" json:"slots"` // builds at once; 0 = not a drone
	Cores      int             `cbor:"cores" json:"cores"`
	Speed      int64           `cbor:"speed" json:"speed"` // core-milliseconds per second of this whole machine
	FreeMemMiB int64           `cbor:"mem" json:"free_mem_mib"`
	DiskMiB    int64           `cbor:"disk" json:"free_disk_mib"` // that builds may take, those that run included
	Arch       string          `cbor:"arch" json:"arch"`
	Features   []string        `cbor:"cpu,omitempty" json:"cpu_features,omitempty"`
	Builders   []build.Builder `cbor:"builders,omitempty" json:"builders,omitempty"`
	Accepting  bool            `cbor:"accept" json:"accepting"`
	Why        string          `cbor:"why,omitempty" json:"why,omitempty"` // why not
	Steady     bool            `cbor:"steady" json:"steady"`
	UntilS     int64           `cbor:"until,omitempty" json:"until_s,omitempty"`   // expected seconds of availability; 0 = unknown
	Stores     bool            `cbor:"stores" json:"stores"`                       // takes copies of blobs
	BuildOnly  bool            `cbor:"bo,omitempty" json:"build_only,omitempty"`   // keeps its blobs until others have them
	Metered    bool            `cbor:"metered,omitempty" json:"metered,omitempty"` // its link costs
	StoreFree  int64           `cbor:"free" json:"store_free_bytes"`
	StoreUsed  int64           `cbor:"used" json:"store_used_bytes"`
	Site       string          `cbor:"site,omitempty" json:"site,omitempty"`
	Digest     uint64          `cbor:"digest" json:"digest"` // of the author's board
	Heads      []string        `cbor:"heads,omitempty" json:"heads,omitempty"`
	Alerts     bool            `cbor:"alerts,omitempty" json:"alerts,omitempty"` // it can tell a person
	Quiet      bool            `cbor:"quiet,omitempty" json:"quiet,omitempty"`   // off the gossip: it hears and speaks once in QuietMillis
	// Roots are the build keys, in bytes, of jobs whose roots it keeps, the last
	// used first; MaxRoots at the most. InstallMS is what adding a package to one
	// takes; 0 = it keeps none.
	Roots     [][]byte `cbor:"roots,omitempty" json:"-"`
	InstallMS int64    `cbor:"install,omitempty" json:"install_ms,omitempty"`
}

// MaxRoots bounds the kept roots that a Beat tells of. MaxInstallMS is the
// longest time that adding a package may be said to take, in milliseconds.
const (
	MaxRoots     = 16
	MaxInstallMS = 600_000
)

// Decline says that a drone will not take a job until a time, for a reason
// that other peers could not know.
type Decline struct {
	Key    build.Key `cbor:"key" json:"key"`
	Peer   string    `cbor:"peer" json:"peer"`
	Until  hlc.Time  `cbor:"until" json:"until"`
	Reason string    `cbor:"reason" json:"reason"`
}

// HoldShards is how many records a peer's list of blobs is split over, by the
// first byte of the digest: about 57,000 blobs fit.
const HoldShards = 64

// Holdings is a peer's word that it holds these blobs, fsynced: a receipt.
type Holdings struct {
	Shard int      `cbor:"shard" json:"shard"`
	CIDs  [][]byte `cbor:"cids" json:"-"` // BLAKE3 digests, sorted
}

// Body is a value that can stand on the board: it knows its type, its key, and
// the order that its record must have.
type Body interface {
	recordType() string
	recordKey(author string, stamp hlc.Time) string
	recordOrder(author string, stamp hlc.Time) []byte
	check(author string) error
}

type (
	roundBody   struct{ build.Round }
	outcomeBody struct{ build.Outcome }
	channelBody struct{ release.Channel }
)

// NewRound, NewOutcome and NewChannel let values of other packages stand on
// the board.
func NewRound(r build.Round) Body       { return roundBody{r} }
func NewOutcome(o build.Outcome) Body   { return outcomeBody{o} }
func NewChannel(c release.Channel) Body { return channelBody{c} }

func be(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// lww is the order of last-writer-wins records.
func lww(author string, stamp hlc.Time) []byte { return append(be(uint64(stamp)), author...) }

func (Claim) recordType() string       { return TypeClaim }
func (Decline) recordType() string     { return TypeDecline }
func (Holdings) recordType() string    { return TypeHoldings }
func (roundBody) recordType() string   { return TypeRound }
func (outcomeBody) recordType() string { return TypeOutcome }
func (channelBody) recordType() string { return TypeChannel }
func (Beat) recordType() string        { return TypeBeat }

// ClaimKey and the others build board keys from checked parts.
func ClaimKey(k build.Key) string { return TypeClaim + "/" + string(k) }

func (c Claim) recordKey(string, hlc.Time) string { return ClaimKey(c.Key) }
func (d Decline) recordKey(author string, _ hlc.Time) string {
	return TypeDecline + "/" + string(d.Key) + "/" + author
}
func (h Holdings) recordKey(author string, _ hlc.Time) string {
	return fmt.Sprintf("%s/%s/%02d", TypeHoldings, author, h.Shard)
}
func (r roundBody) recordKey(string, hlc.Time) string { return TypeRound + "/" + r.ID }
func (o outcomeBody) recordKey(author string, stamp hlc.Time) string {
	return TypeOutcome + "/" + string(o.Key) + "/" + author + "/" + stamp.String()
}
func (c channelBody) recordKey(string, hlc.Time) string {
	return TypeChannel + "/" + c.Target + "/" + c.Name
}
func (Beat) recordKey(author string, _ hlc.Time) string { return TypeBeat + "/" + author }

// recordOrder of a claim: the later epoch; in it the earlier claim, then the
// rendezvous hash, then the peer; among one claimant's own records, the later
// update. So nothing a loser writes can beat the winner.
func (c Claim) recordOrder(author string, _ hlc.Time) []byte {
	b := be(c.Epoch)
	b = append(b, be(^uint64(c.Stamp))...)
	b = append(b, be(Rendezvous(string(c.Key), author))...)
	b = append(b, author...)
	return append(b, be(c.Update)...)
}
func (Decline) recordOrder(a string, s hlc.Time) []byte  { return lww(a, s) }
func (Holdings) recordOrder(a string, s hlc.Time) []byte { return lww(a, s) }
func (Beat) recordOrder(a string, s hlc.Time) []byte     { return lww(a, s) }
func (r roundBody) recordOrder(a string, s hlc.Time) []byte {
	return append(be(r.Counter), lww(a, s)...)
}
func (outcomeBody) recordOrder(string, hlc.Time) []byte { return nil }
func (c channelBody) recordOrder(string, hlc.Time) []byte {
	return append(append(be(c.Version), be(uint64(c.Timestamp))...), c.Release...)
}

// Rendezvous is the weight of a peer for a key (highest random weight): equal
// on every machine, and evenly spread.
func Rendezvous(key, peer string) uint64 {
	h := sha256.Sum256([]byte(key + "\x00" + peer))
	return binary.BigEndian.Uint64(h[:])
}

func (c Claim) check(author string) error {
	switch {
	case !c.Key.Valid():
		return fmt.Errorf("%w: claim of %q", ErrInvalid, c.Key)
	case c.Peer != author:
		return ErrAuthor
	case c.Epoch == 0:
		return fmt.Errorf("%w: claim of epoch 0", ErrInvalid)
	case c.State != ClaimHeld && c.State != ClaimCompiling && c.State != ClaimReturned:
		return fmt.Errorf("%w: claim state %q", ErrInvalid, c.State)
	}
	return nil
}

func (d Decline) check(author string) error {
	if d.Peer != author {
		return ErrAuthor
	}
	if !d.Key.Valid() {
		return fmt.Errorf("%w: decline of %q", ErrInvalid, d.Key)
	}
	return nil
}

func (h Holdings) check(string) error {
	if h.Shard < 0 || h.Shard >= HoldShards {
		return fmt.Errorf("%w: shard %d", ErrInvalid, h.Shard)
	}
	for _, c := range h.CIDs {
		if len(c) != 32 || int(c[0])%HoldShards != h.Shard {
			return fmt.Errorf("%w: a digest that is not of shard %d", ErrInvalid, h.Shard)
		}
	}
	return nil
}

func (b Beat) check(string) error {
	if b.PeriodMS < 1000 || b.PeriodMS > 3_600_000 {
		return fmt.Errorf("%w: beat period %d ms", ErrInvalid, b.PeriodMS)
	}
	if b.Slots < 0 || b.Slots > 1024 || b.Speed < 0 || b.Cores < 0 || len(b.Jobs) > 1024 {
		return fmt.Errorf("%w: beat figures", ErrInvalid)
	}
	if len(b.Roots) > MaxRoots || b.InstallMS < 0 || b.InstallMS > MaxInstallMS ||
		slices.ContainsFunc(b.Roots, func(k []byte) bool { return len(k) != sha256.Size }) {
		return fmt.Errorf("%w: beat roots", ErrInvalid)
	}
	for _, j := range b.Jobs {
		if j.InvestedMS < 0 || j.LeftMS < 0 || j.FrozenMS < 0 || j.FrozenMS > maxFrozen || j.Done < 0 || j.Done > 1000 {
			return fmt.Errorf("%w: beat job times", ErrInvalid)
		}
	}
	return nil
}

func (r roundBody) check(string) error {
	if r.ID == "" || len(r.ID) > 64 || strings.ContainsAny(r.ID, "/ .") {
		return fmt.Errorf("%w: round %q", ErrInvalid, r.ID)
	}
	if !build.ValidTarget(r.Target) || r.Priority < build.WaitedFor || r.Priority > build.Background {
		return fmt.Errorf("%w: round %s: target or priority", ErrInvalid, r.ID)
	}
	switch r.State {
	case build.RoundOpen, build.RoundCancelled, build.RoundClosed:
	default:
		return fmt.Errorf("%w: round state %q", ErrInvalid, r.State)
	}
	if (r.Plan == nil) == (r.PlanCID == "") {
		return fmt.Errorf("%w: round %s wants a plan or its CID", ErrInvalid, r.ID)
	}
	if r.Plan != nil {
		if err := r.Plan.Validate(); err != nil {
			return fmt.Errorf("%w: round %s: %v", ErrInvalid, r.ID, err)
		}
	}
	return nil
}

func (o outcomeBody) check(string) error {
	if !o.Key.Valid() {
		return fmt.Errorf("%w: outcome of %q", ErrInvalid, o.Key)
	}
	if err := o.CPV.Validate(); err != nil {
		return fmt.Errorf("%w: outcome: %v", ErrInvalid, err)
	}
	switch o.Class {
	case build.Good:
		if o.Artifact == nil || o.Artifact.CID == "" || o.Artifact.Size <= 0 {
			return fmt.Errorf("%w: good outcome of %s without an artifact", ErrInvalid, o.CPV)
		}
	case build.BadPackage, build.BadMachine, build.BadNetwork, build.Mismatch, build.Stuck, build.Cancelled:
		if o.Artifact != nil {
			return fmt.Errorf("%w: outcome %s of %s with an artifact", ErrInvalid, o.Class, o.CPV)
		}
	default:
		return fmt.Errorf("%w: outcome class %q", ErrInvalid, o.Class)
	}
	return nil
}

func (c channelBody) check(string) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	return nil
}

// decode reads the body of a record of a known type; nil, nil for an unknown.
func decode(o wire.Opened) (Body, error) {
	switch o.Type() {
	case TypeClaim:
		return decodeAs[Claim](o)
	case TypeDirective:
		return decodeAs[Directive](o)
	case TypeDecline:
		return decodeAs[Decline](o)
	case TypeHoldings:
		return decodeAs[Holdings](o)
	case TypeBeat:
		return decodeAs[Beat](o)
	case TypeRound:
		r, err := decodeAs[roundBody](o)
		return r, err
	case TypeOutcome:
		return decodeAs[outcomeBody](o)
	case TypeAlert:
		return decodeAs[Alert](o)
	case TypeChannel:
		return decodeAs[channelBody](o)
	case TypeTarget:
		return decodeAs[targetBody](o)
	case TypeRelease:
		return decodeAs[listingBody](o)
	case TypeConsumer:
		return decodeAs[subscriptionBody](o)
	case TypeHeldBack:
		return decodeAs[heldBackBody](o)
	}
	return nil, nil
}

func decodeAs[B Body](o wire.Opened) (Body, error) {
	var b B
	if err := build.Unmarshal(o.Body(), &b); err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrInvalid, o.Key(), err)
	}
	return b, nil
}

// Validate decodes a record and checks what a merge relies on. The Body is nil
// for an unknown type, which is accepted as it is unless it takes the key of a
// known one.
func Validate(o wire.Opened) (Body, error) {
	b, err := decode(o)
	if err != nil {
		return nil, err
	}
	if b == nil {
		if !strings.HasPrefix(o.Key(), o.Type()+"/") {
			return nil, fmt.Errorf("%w: key %s of type %s", ErrInvalid, o.Key(), o.Type())
		}
		return nil, nil
	}
	stamp := hlc.Time(o.Stamp())
	if err := b.check(o.Author()); err != nil {
		return nil, fmt.Errorf("%s by %s: %w", o.Key(), o.Author(), err)
	}
	if want := b.recordKey(o.Author(), stamp); want != o.Key() {
		return nil, fmt.Errorf("%s by %s: %w", o.Key(), o.Author(), ErrAuthor)
	}
	if want := b.recordOrder(o.Author(), stamp); string(want) != string(o.Record().Order) {
		return nil, fmt.Errorf("%s by %s: %w", o.Key(), o.Author(), ErrOrder)
	}
	if c, ok := b.(Claim); ok && c.Stamp > stamp {
		return nil, fmt.Errorf("%s by %s: %w: claimed after it was written", o.Key(), o.Author(), ErrInvalid)
	}
	return b, nil
}

// OutcomeOf returns the outcome that a validated body is, if it is one.
func OutcomeOf(b Body) (build.Outcome, bool) {
	o, ok := b.(outcomeBody)
	return o.Outcome, ok
}

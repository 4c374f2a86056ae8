package build

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ErrTarget is wrapped by every error about a target that cannot be used.
var ErrTarget = errors.New("invalid target")

// TargetState is whether a target is there. A removed one keeps its record, so
// that it does not come back from a peer that was away.
type TargetState string

const (
	TargetLive TargetState = "live"
	TargetGone TargetState = "gone"
)

// Rebuild is the policy of when a package is built anew.
type Rebuild string

const (
	// RebuildPortage builds what "emerge -uDN --changed-deps" would: an eclass
	// or a compiler of the same slot changes no key.
	RebuildPortage Rebuild = "portage"
	// RebuildStrict puts eclasses and the exact toolchain into the key.
	RebuildStrict Rebuild = "strict"
)

// BaseRef names the base that a target's builds start from: a name for people
// and the digest that decides.
type BaseRef struct {
	Name   string `cbor:"name" json:"name"`
	Digest string `cbor:"digest" json:"digest"` // of its manifest's blob, see Base; lower-case hex of BLAKE3-256; "" = none
}

// IsZero reports whether no base is named: builds are then in place.
func (r BaseRef) IsZero() bool { return r.Digest == "" }

var digestRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Validate reports whether the reference keeps the grammar of its parts.
func (r BaseRef) Validate() error {
	if r == (BaseRef{}) {
		return nil
	}
	if !ValidTarget(r.Name) || !digestRE.MatchString(r.Digest) {
		return fmt.Errorf("%w: base %q %q", ErrTarget, OneLine(r.Name, 80), OneLine(r.Digest, 80))
	}
	return nil
}

// Target is a named build configuration that consumers want packages for. It
// is small and moves; the configuration itself is the Bundle that it names, an
// immutable blob, and so is the base. A plan carries both, so that it stays
// what it was when the target moves on.
type Target struct {
	Name    string      `cbor:"name" json:"name"`
	Version uint64      `cbor:"version" json:"version"` // grows with every change
	State   TargetState `cbor:"state" json:"state"`
	Arch    string      `cbor:"arch" json:"arch"` // as Portage names it: amd64, arm64, x86
	CHOST   string      `cbor:"chost" json:"chost"`
	Profile string      `cbor:"profile" json:"profile"` // repository:path, for people
	// CPU is the least that a drone's processor has to know, as the kernel
	// names it (avx2, sse4_1), sorted: what is built is also run while others
	// are built.
	CPU     []string `cbor:"cpu,omitempty" json:"cpu"`
	Bundle  string   `cbor:"bundle" json:"bundle"` // CID of the encoded Bundle
	Base    BaseRef  `cbor:"base" json:"base"`
	Rebuild Rebuild  `cbor:"rebuild,omitempty" json:"rebuild"` // "" = RebuildPortage
}

// Validate checks the grammar of every part. A target from a peer is validated
// before anything else looks at it.
func (t *Target) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrTarget, fmt.Sprintf(format, args...))
	}
	switch {
	case !ValidTarget(t.Name):
		return bad("name %q", OneLine(t.Name, 80))
	case t.Version == 0:
		return bad("%s: version 0", t.Name)
	case t.State == TargetGone:
		return nil
	case t.State != TargetLive:
		return bad("%s: state %q", t.Name, OneLine(string(t.State), 40))
	case !archRE.MatchString(t.Arch):
		return bad("%s: arch %q", t.Name, OneLine(t.Arch, 40))
	case t.Bundle == "" || len(t.Bundle) > 128:
		return bad("%s: no bundle", t.Name)
	case t.Rebuild != "" && t.Rebuild != RebuildPortage && t.Rebuild != RebuildStrict:
		return bad("%s: rebuild policy %q", t.Name, OneLine(string(t.Rebuild), 40))
	case len(t.CHOST) > 100 || len(t.Profile) > 300:
		return bad("%s: a CHOST or profile that long", t.Name)
	}
	if err := checkFeatures(t.CPU); err != nil {
		return bad("%s: %v", t.Name, err)
	}
	return t.Base.Validate()
}

var (
	archRE    = regexp.MustCompile(`^[a-z0-9_-]{1,40}$`)
	featureRE = regexp.MustCompile(`^[a-z0-9_.]{1,40}$`)
)

const maxFeatures = 512

func checkFeatures(cpu []string) error {
	if len(cpu) > maxFeatures || !slices.IsSorted(cpu) {
		return fmt.Errorf("%d CPU features, sorted and at most %d", len(cpu), maxFeatures)
	}
	for _, f := range cpu {
		if !featureRE.MatchString(f) {
			return fmt.Errorf("CPU feature %q", OneLine(f, 40))
		}
	}
	return nil
}

// kernelArch is the machine's name, as Go has it, of Portage's architectures
// whose names differ.
var kernelArch = map[string]string{"x86": "386", "riscv": "riscv64", "ppc64": "ppc64le", "loong": "loong64"}

// Excludes says in one line why a machine cannot build for the target: another
// architecture (as runtime.GOARCH names it) or what its processor lacks; "" if
// it can. A machine that does not tell its architecture or its features is
// believed.
func (t *Target) Excludes(goarch string, features []string) string {
	switch {
	case t.Runs(goarch, features):
		return ""
	case !t.sameArch(goarch):
		return fmt.Sprintf("it is %s, the target %s", goarch, t.Arch)
	}
	var lacks []string
	for _, f := range t.CPU {
		if !slices.Contains(features, f) {
			lacks = append(lacks, f)
		}
	}
	return "its processor lacks " + strings.Join(lacks, ", ")
}

// Runs reports whether a machine can build for the target: Excludes in the form
// that costs nothing, since a schedule asks it of each drone again and again.
func (t *Target) Runs(goarch string, features []string) bool {
	if !t.sameArch(goarch) {
		return false
	}
	if len(t.CPU) == 0 || len(features) == 0 {
		return true
	}
	sorted := slices.IsSorted(features) // as every honest machine tells them
	for _, f := range t.CPU {
		found := false
		if sorted {
			_, found = slices.BinarySearch(features, f)
		} else {
			found = slices.Contains(features, f)
		}
		if !found {
			return false
		}
	}
	return true
}

func (t *Target) sameArch(goarch string) bool {
	want := t.Arch
	if k, ok := kernelArch[want]; ok {
		want = k
	}
	return goarch == "" || goarch == want || want == "386" && goarch == "amd64"
}

// Installed is one package that a root holds: what a plan compares with what
// it needs, and what a drone compares with what it was told to make.
type Installed struct {
	CPV  CPV      `cbor:"cpv" json:"cpv"`
	Slot string   `cbor:"slot" json:"slot"` // "slot/subslot"
	Repo string   `cbor:"repo" json:"repo"`
	USE  []string `cbor:"use" json:"use"` // enabled flags of its IUSE, sorted
}

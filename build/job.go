package build

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ErrPlan is wrapped by every error about a plan that cannot be carried out.
var ErrPlan = errors.New("invalid plan")

// Key is a build key: the lower-case hex of 32 bytes.
type Key string

// Valid reports whether k has the form of a build key.
func (k Key) Valid() bool {
	if len(k) != 64 {
		return false
	}
	for i := range len(k) {
		if c := k[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Short is the last eight digits, for people.
func (k Key) Short() string {
	if len(k) < 8 {
		return string(k)
	}
	return string(k[len(k)-8:])
}

// Facet is one named thing that decides a build's content: "USE", "EAPI",
// "ebuild", "env:CFLAGS" and so on. Value is text or the hex digest of it.
type Facet struct {
	Name  string `cbor:"n" json:"name"`
	Value string `cbor:"v" json:"value"`
}

// keyVersion is hashed first: a change of what the key covers changes it.
const keyVersion = "swarm build key 1"

// KeyOf hashes a preimage: SHA-256 over the version and each facet, sorted by
// name, every string preceded by its length (so that no two preimages can
// read the same). The order of facets does not count; a repeated name is an
// error.
func KeyOf(preimage []Facet) (Key, error) {
	fs := slices.Clone(preimage)
	slices.SortFunc(fs, func(a, b Facet) int { return strings.Compare(a.Name, b.Name) })
	h := sha256.New()
	write := func(s string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	write(keyVersion)
	for i, f := range fs {
		if f.Name == "" || i > 0 && fs[i-1].Name == f.Name {
			return "", fmt.Errorf("hash build key: facet %q twice or without a name", f.Name)
		}
		write(f.Name)
		write(f.Value)
	}
	return Key(hex.EncodeToString(h.Sum(nil))), nil
}

// EdgeKind says when a dependency is needed, as bits of one edge.
type EdgeKind uint8

const (
	// Buildtime is DEPEND or BDEPEND: it must be in the root before the build.
	Buildtime EdgeKind = 1 << iota
	// Runtime is RDEPEND or IDEPEND.
	Runtime
	// RuntimePost is PDEPEND: needed some time after the merge. It may close
	// a cycle and orders nothing.
	RuntimePost
	// SlotOp marks a bound := dependency, whose rebuild follows a subslot.
	SlotOp
)

// Edge says that a job needs another job of the plan.
type Edge struct {
	Key  Key      `cbor:"k" json:"key"`
	Kind EdgeKind `cbor:"t" json:"kind"`
}

// Builder names a way of building: which program reads the job.
type Builder string

const (
	// BuilderPortage is real emerge on real ebuilds.
	BuilderPortage Builder = "portage"
	// BuilderSample is the built-in builder of the sample packages.
	BuilderSample Builder = "sample"
)

// Job is one entry of a plan: one package to build for the plan's target.
type Job struct {
	Key      Key      `cbor:"key" json:"key"`
	Builder  Builder  `cbor:"builder" json:"builder"`
	CPV      CPV      `cbor:"cpv" json:"cpv"`
	Slot     string   `cbor:"slot" json:"slot"` // "slot/subslot"
	Repo     string   `cbor:"repo" json:"repo"`
	USE      []string `cbor:"use" json:"use"`                       // enabled flags, sorted
	IUSE     []string `cbor:"iuse" json:"iuse"`                     // all flags without defaults, sorted
	Preimage []Facet  `cbor:"pre" json:"preimage,omitempty"`        // what Key hashes
	Needs    []Edge   `cbor:"needs" json:"needs"`                   // sorted by Key
	Root     Root     `cbor:"root,omitzero" json:"root"`            // in merge order
	Bound    []string `cbor:"bound,omitempty" json:"bound"`         // bound := atoms the result must show, sorted
	Tree     string   `cbor:"tree,omitempty" json:"tree,omitempty"` // digest of the tree snapshot
	// Sources are the files that the build unpacks, where their hashes are known.
	Sources []Source `cbor:"src,omitempty" json:"sources,omitempty"`
	// Seed marks a bootstrap build: with flags changed to break a cycle, it enters
	// the roots of others and never a release.
	Seed bool `cbor:"boot,omitempty" json:"seed,omitempty"`
	// Against is a digest of the direct build dependencies, by their facets: see
	// Plan.Cross. "" = not known.
	Against string `cbor:"against,omitempty" json:"against,omitempty"`
	// Keywords is KEYWORDS in that tree: it changes no build, and a release
	// shows it. "" where the planner knows no tree.
	Keywords string `cbor:"kw,omitempty" json:"keywords,omitempty"`
	// CoreMillis is the planner's estimate in core-milliseconds; 0 = unknown.
	CoreMillis int64 `cbor:"est,omitempty" json:"estimate_core_ms,omitempty"`
	// MemoryMiB is the peak memory a build is expected to want; 0 = unknown.
	MemoryMiB int64 `cbor:"mem,omitempty" json:"memory_mib,omitempty"`
	// DiskMiB is the planner's guess of what its work directory takes, which gives
	// way to what was measured; 0 = unknown.
	DiskMiB int64 `cbor:"disk,omitempty" json:"disk_mib,omitempty"`
}

// Revision is an ebuild repository at a commit, so that another machine's
// checkout can follow. Repositories that are no git checkouts, or that somebody
// changed, have none.
type Revision struct {
	Name   string `cbor:"n" json:"name"`
	Commit string `cbor:"c" json:"commit"` // lower-case hex, 40 or 64 digits
}

var (
	repoRE   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$`)
	commitRE = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

// MaxRevisions bounds the repositories of one tree.
const MaxRevisions = 100

// ValidRevisions reports whether each is well formed and they are sorted by
// name, which becomes an argument of git and of portageq.
func ValidRevisions(rs []Revision) bool {
	for i, r := range rs {
		if !repoRE.MatchString(r.Name) || !commitRE.MatchString(r.Commit) || i > 0 && rs[i-1].Name >= r.Name {
			return false
		}
	}
	return len(rs) <= MaxRevisions
}

// Note names a package that a plan leaves out, and why.
type Note struct {
	Atom   string `cbor:"a" json:"atom"`
	Reason string `cbor:"r" json:"reason"`
}

// Plan is what a round wants built: jobs with their edges. Jobs stand in an
// order in which they can be built one after another.
type Plan struct {
	Target string  `cbor:"target" json:"target"`
	Bundle string  `cbor:"bundle,omitempty" json:"bundle,omitempty"` // CID of the configuration; "" = the drone's own
	Base   BaseRef `cbor:"base" json:"base"`                         // what builds start from; zero = in place
	Tree   string  `cbor:"tree,omitempty" json:"tree,omitempty"`
	// Trees are the repositories of that tree as blobs, by name; none = a drone
	// needs the same of its own.
	Trees []Snapshot `cbor:"trees,omitempty" json:"trees,omitempty"`
	// Repos are the repositories of that tree whose commits are known, by name.
	Repos   []Revision `cbor:"repos,omitempty" json:"repos,omitempty"`
	Jobs    []Job      `cbor:"jobs" json:"jobs"`
	Want    []Key      `cbor:"want" json:"want"`                       // what was asked for, the rest is needed by it
	Dropped []Note     `cbor:"dropped,omitempty" json:"dropped"`       // could not be resolved
	Missing []Note     `cbor:"missing,omitempty" json:"missing"`       // does not exist
	Header  []Pair     `cbor:"header,omitempty" json:"header"`         // the target's index header, from Portage
	Command string     `cbor:"cmd,omitempty" json:"command,omitempty"` // what was asked, for people
}

// Pair is a header line of a Packages index: "Name: Value".
type Pair struct {
	Name  string `cbor:"n" json:"name"`
	Value string `cbor:"v" json:"value"`
}

// Bounds of a plan that came from elsewhere.
const (
	MaxJobs  = 50_000
	maxEdges = 4_000 // of one job
)

// Validate checks what every reader of a plan relies on: names keep their
// grammar, keys are hashes of their preimages, edges name jobs of the plan,
// and the edges that order builds have no cycle. A plan from a peer is
// validated before anything else looks at it.
func (p *Plan) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrPlan, fmt.Sprintf(format, args...))
	}
	if !ValidTarget(p.Target) {
		return bad("target %q", p.Target)
	}
	if !ValidRevisions(p.Repos) {
		return bad("repositories")
	}
	if !ValidSnapshots(p.Trees, p.Tree) {
		return bad("snapshots of the repositories")
	}
	if len(p.Jobs) > MaxJobs {
		return bad("%d jobs, at most %d", len(p.Jobs), MaxJobs)
	}
	index := make(map[Key]int, len(p.Jobs))
	for i := range p.Jobs {
		j := &p.Jobs[i]
		if err := j.CPV.Validate(); err != nil {
			return bad("job %d: %v", i, err)
		}
		if _, err := ParseSlot(j.Slot); err != nil {
			return bad("job %s: slot %q", j.CPV, j.Slot)
		}
		want, err := KeyOf(j.Preimage)
		if err != nil {
			return bad("job %s: %v", j.CPV, err)
		}
		if want != j.Key {
			return bad("job %s: key is not the hash of its preimage", j.CPV)
		}
		if _, twice := index[j.Key]; twice {
			return bad("job %s: key %s twice", j.CPV, j.Key.Short())
		}
		if len(j.Needs) > maxEdges || j.Root.Len() > maxEdges {
			return bad("job %s: more than %d edges", j.CPV, maxEdges)
		}
		for _, u := range slices.Concat(j.USE, j.IUSE) {
			if !ValidUSE(u) {
				return bad("job %s: USE flag %q", j.CPV, u)
			}
		}
		if len(j.Sources) > maxEdges {
			return bad("job %s: more than %d sources", j.CPV, maxEdges)
		}
		for _, s := range j.Sources {
			if !s.Valid() {
				return bad("job %s: source %q", j.CPV, OneLine(s.Name, 100))
			}
		}
		index[j.Key] = i
	}
	var checked []RootEntry
	for i := range p.Jobs {
		j := &p.Jobs[i]
		for _, e := range j.Needs {
			if _, ok := index[e.Key]; !ok {
				return bad("job %s needs %s, which is not in the plan", j.CPV, e.Key.Short())
			}
		}
		if !j.Root.check() {
			return bad("job %s: a root entry that is not in the table", j.CPV)
		}
		if sameTable(j.Root.table, checked) {
			continue
		}
		checked = j.Root.table
		for _, r := range checked {
			if r.Key != "" && !r.Key.Valid() || r.Key != "" && r.Seed != "" || len(r.Seed) > 128 {
				return bad("job %s: root entry %s: key", j.CPV, r.CPV)
			}
			if err := r.CPV.Validate(); err != nil {
				return bad("job %s: root entry: %v", j.CPV, err)
			}
		}
	}
	for _, k := range p.Want {
		if _, ok := index[k]; !ok {
			return bad("wanted job %s is not in the plan", k.Short())
		}
	}
	if cyc := p.cycle(index); cyc >= 0 {
		return bad("job %s waits for itself", p.Jobs[cyc].CPV)
	}
	return nil
}

// Before lists the jobs that must be available before j starts: everything in
// its root that is a job of the plan, and its build-time needs.
func (j *Job) Before() []Key {
	out := make([]Key, 0, len(j.Needs)+j.Root.Len())
	for _, e := range j.Needs {
		if e.Kind&Buildtime != 0 {
			out = append(out, e.Key)
		}
	}
	for _, r := range j.Root.All() {
		if r.Key != "" && r.Key != j.Key {
			out = append(out, r.Key)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// cycle returns the index of a job on a cycle of Before, or -1.
func (p *Plan) cycle(index map[Key]int) int {
	const (
		unseen = iota
		open
		done
	)
	state := make([]uint8, len(p.Jobs))
	type frame struct {
		job  int
		next []Key
	}
	for start := range p.Jobs {
		if state[start] != unseen {
			continue
		}
		stack := []frame{{start, p.Jobs[start].Before()}}
		state[start] = open
		for len(stack) > 0 {
			f := &stack[len(stack)-1]
			if len(f.next) == 0 {
				state[f.job] = done
				stack = stack[:len(stack)-1]
				continue
			}
			k := f.next[0]
			f.next = f.next[1:]
			n, ok := index[k]
			if !ok {
				continue
			}
			switch state[n] {
			case open:
				return n
			case unseen:
				state[n] = open
				stack = append(stack, frame{n, p.Jobs[n].Before()})
			}
		}
	}
	return -1
}

// ValidTarget reports whether name may name a target: it becomes part of URLs
// and board keys, so it is a short word of [a-z0-9._-].
func ValidTarget(name string) bool {
	if name == "" || len(name) > 64 || name[0] == '.' || name[0] == '-' || strings.Contains(name, "..") {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

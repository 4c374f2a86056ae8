package build

import "strings"

// Class says what a build came to. Only Package counts against the package.
type Class string

const (
	Good       Class = "good"      // an artifact that passed every check
	BadPackage Class = "package"   // the package itself does not build
	BadMachine Class = "machine"   // space, memory, SIGILL, check-reqs, no rights
	BadNetwork Class = "network"   // a fetch failed
	Mismatch   Class = "mismatch"  // it built, but not what the job asks for
	Stuck      Class = "stuck"     // no output and no CPU beyond its limit
	Cancelled  Class = "cancelled" // given up by will; counts against nobody
)

// Artifact names the gpkg of a good outcome. MD5, SHA1 and Size are computed
// once, where it was built, since the Packages index wants them (MD5 alone
// costs twice what the CID does).
type Artifact struct {
	CID  string `cbor:"cid" json:"cid"` // text of a CIDv1, raw, BLAKE3-256
	Size int64  `cbor:"size" json:"size"`
	MD5  string `cbor:"md5" json:"md5"`   // lower-case hex
	SHA1 string `cbor:"sha1" json:"sha1"` // lower-case hex
	// MTime is seconds since 1970, the same on every gateway.
	MTime int64 `cbor:"mtime" json:"mtime"`
	// Meta is what the index copies from the gpkg's metadata (USE, SLOT,
	// RDEPEND, BUILD_TIME and so on), names as in the Packages file, sorted.
	Meta []Pair `cbor:"meta" json:"meta"`
}

// Failure is the error of a build that did not end well: which class, and one
// line for people.
type Failure struct {
	Class  Class
	Reason string
	// SpaceMiB is how much disk a build says that it wants, where it failed for
	// want of it; Unsaid if it does not say, 0 if that was not why.
	SpaceMiB int64
}

// Unsaid stands for an amount of disk that a build ran out of without a figure.
const Unsaid = -1

// Error is the reason with its class.
func (f *Failure) Error() string { return string(f.Class) + ": " + f.Reason }

// Outcome says what one build of one job came to. It is immutable.
type Outcome struct {
	Key     Key    `cbor:"key" json:"key"`
	CPV     CPV    `cbor:"cpv" json:"cpv"`
	Target  string `cbor:"target" json:"target"`
	Class   Class  `cbor:"class" json:"class"`
	Reason  string `cbor:"reason,omitempty" json:"reason,omitempty"` // one line for people
	Epoch   uint64 `cbor:"epoch" json:"epoch"`                       // of the claim it was built under
	Started uint64 `cbor:"started" json:"started"`                   // HLC at which the build began
	// Millis and CoreMillis are what it cost: wall time and CPU time.
	Millis     int64     `cbor:"ms" json:"ms"`
	CoreMillis int64     `cbor:"core_ms" json:"core_ms"`
	PeakMiB    int64     `cbor:"peak,omitempty" json:"peak_mib,omitempty"`
	DiskMiB    int64     `cbor:"disk,omitempty" json:"disk_mib,omitempty"`     // the most that its work directory was seen to take
	ShortMiB   int64     `cbor:"short,omitempty" json:"short_mib,omitempty"`   // it failed for want of disk: so much is to be tried next
	Artifact   *Artifact `cbor:"artifact,omitempty" json:"artifact,omitempty"` // only if Good
	// RootMillis is how much of Millis went into setting up the root.
	RootMillis int64 `cbor:"root_ms,omitempty" json:"root_ms,omitempty"`
	// Phases are what the build went through, in order, and how long each took.
	Phases []Phase `cbor:"phases,omitempty" json:"phases,omitempty"`
	// Course is how its log grew; nil = that is not known.
	Course *Course `cbor:"course,omitempty" json:"course,omitempty"`
	// Provisional says that the result is not to be relied on as what its target
	// asks for: it was built in place, or on a machine's own root.
	Provisional bool   `cbor:"prov,omitempty" json:"provisional,omitempty"`
	Log         string `cbor:"log,omitempty" json:"log,omitempty"` // CID of the log blob
	// Inputs is the digest of what decided the content but stands outside the
	// key (exact toolchain, root list, tree, eclasses): content digests are
	// comparable only where key and Inputs agree.
	Inputs string `cbor:"inputs,omitempty" json:"inputs,omitempty"`
	// Against is that of the job.
	Against string `cbor:"against,omitempty" json:"against,omitempty"`
	// Content is the content digest of the artifact: times masked.
	Content string `cbor:"content,omitempty" json:"content,omitempty"`
}

// Phase is one step of a build: "root", "fetch", "compile" and so on.
type Phase struct {
	Name   string `cbor:"n" json:"name"`
	Millis int64  `cbor:"ms" json:"ms"`
}

// OneLine makes text from a log or a peer fit for one line of a terminal: no
// control characters or escapes, at most max bytes of valid UTF-8.
func OneLine(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029',
			r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == '\ufffd':
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "")
	}
	return s
}

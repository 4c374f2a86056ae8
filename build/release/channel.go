package release

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build"
)

// Stable is the channel that consumers are given.
const Stable = "stable"

// Step is the least number of seconds between the timestamps of two heads of
// a channel. Portage asks with If-Modified-Since = TIMESTAMP + 5 s, so an
// index within 5 s of the last would be hidden by any plain 304 rule.
const Step = 6

// Channel is a head: which release a channel shows now. Its place on the
// board decides which of two heads holds; see Compare.
type Channel struct {
	Target    string `cbor:"target" json:"target"`
	Name      string `cbor:"name" json:"name"`
	Version   uint64 `cbor:"version" json:"version"`              // 1 is the first
	Previous  string `cbor:"previous" json:"previous"`            // CID of the release before this, "" for the first
	Release   string `cbor:"release" json:"release"`              // CID of the Manifest
	Timestamp int64  `cbor:"timestamp" json:"timestamp_unix_sec"` // seconds since 1970; TIMESTAMP of the index
}

// Next is the head that follows prev and shows release (the CID of a
// Manifest, newer or older): one version on, its timestamp now, but Step
// seconds after prev's at the least. The first head of a channel follows a
// Channel that has a Target and a Name only.
func Next(prev *Channel, release string, now time.Time) Channel {
	next := Channel{Release: release, Version: 1, Timestamp: now.Unix()}
	if prev == nil {
		return next
	}
	next.Target, next.Name = prev.Target, prev.Name
	next.Version = prev.Version + 1
	next.Previous = prev.Release
	if prev.Version > 0 {
		next.Timestamp = max(prev.Timestamp+Step, next.Timestamp)
	}
	return next
}

// Follows reports whether c is a head that Next could have made from prev.
// Where it is not and c is newer, two people finalized at once, or in a
// partition: an alarm, though the greater head still holds.
func (c Channel) Follows(prev Channel) bool {
	return c.Target == prev.Target && c.Name == prev.Name && c.Version == prev.Version+1 &&
		c.Previous == prev.Release && c.Timestamp >= prev.Timestamp+Step
}

// Compare orders heads of one channel by version, timestamp and CID: the
// greatest holds. It is negative when c gives way to d.
func (c Channel) Compare(d Channel) int {
	return cmp.Or(cmp.Compare(c.Version, d.Version), cmp.Compare(c.Timestamp, d.Timestamp), strings.Compare(c.Release, d.Release))
}

// IsZero reports whether c is the head of nothing.
func (c Channel) IsZero() bool { return c == Channel{} }

// Validate checks the form of a head.
func (c Channel) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: channel head: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case !build.ValidTarget(c.Target):
		return bad("target %q", clip(c.Target))
	case !build.ValidTarget(c.Name):
		return bad("channel %q", clip(c.Name))
	case c.Version == 0:
		return bad("version 0")
	case c.Timestamp <= 0 || c.Timestamp > maxTime:
		return bad("timestamp %d", c.Timestamp)
	case (c.Version == 1) != (c.Previous == ""):
		return bad("version %d with previous release %q", c.Version, clip(c.Previous))
	}
	if _, err := Digest(c.Release); err != nil {
		return bad("release: %v", err)
	}
	if c.Previous != "" {
		if _, err := Digest(c.Previous); err != nil {
			return bad("previous release: %v", err)
		}
	}
	return nil
}

// Encode writes a head as core deterministic CBOR.
func (c Channel) Encode() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("encode channel head: %w", err)
	}
	b, err := build.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode channel head of %s/%s: %w", c.Target, c.Name, err)
	}
	return b, nil
}

// DecodeChannel reads and validates a head.
func DecodeChannel(b []byte) (Channel, error) {
	const most = 4 << 10
	if len(b) > most {
		return Channel{}, fmt.Errorf("decode channel head: %w: %d bytes", ErrInvalid, len(b))
	}
	var c Channel
	if err := build.Unmarshal(b, &c); err != nil {
		return Channel{}, fmt.Errorf("decode channel head: %w: %w", ErrInvalid, err)
	}
	if err := c.Validate(); err != nil {
		return Channel{}, fmt.Errorf("decode channel head: %w", err)
	}
	return c, nil
}

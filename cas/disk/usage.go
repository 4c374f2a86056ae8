package disk

import (
	"fmt"

	"github.com/build-swarm/swarm/cas"
	"golang.org/x/sys/unix"
)

// Level says what a store's fill refuses. Each level refuses what those before
// it do.
type Level int

// The watermarks, in percent of the quota.
const (
	Roomy      Level = iota // everything is welcome
	NoReplicas              // from 85: no copies of others' blobs
	NoBuilds                // from 90: no new builds
	ReadOnly                // from 95: no blob at all; Put is ErrFull
)

var watermarks = [...]int64{NoReplicas: 85, NoBuilds: 90, ReadOnly: 95}

func (l Level) String() string {
	switch l {
	case Roomy:
		return "roomy"
	case NoReplicas:
		return "no replicas"
	case NoBuilds:
		return "no builds"
	default:
		return "read only"
	}
}

// Usage is how full a store is.
type Usage struct {
	Blobs int
	Bytes int64 // of blobs, and of those on their way in
	Quota int64 // 0: none
	Free  int64 // bytes that may still come: of the quota up to 95 %, or of the disk
	Level Level
}

// Usage reports how full the store is. Without a quota the level is Roomy until
// the disk itself says otherwise.
func (s *Store) Usage() (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return Usage{}, fmt.Errorf("usage of %s: %w", s.dir, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := Usage{Blobs: len(s.index), Bytes: s.used + s.reserved, Quota: s.opts.Quota,
		Free: int64(st.Bavail) * st.Bsize} //nolint:unconvert // Bsize has another type elsewhere
	if u.Quota > 0 {
		u.Free = max(0, min(u.Free, s.limit()-u.Bytes))
		for l := NoReplicas; l <= ReadOnly; l++ {
			if u.Bytes >= u.Quota/100*watermarks[l] {
				u.Level = l
			}
		}
	}
	return u, nil
}

// limit is where Put ends.
func (s *Store) limit() int64 { return s.opts.Quota / 100 * watermarks[ReadOnly] }

// reserve sets n bytes aside, or says ErrFull.
func (s *Store) reserve(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.used + s.reserved; s.opts.Quota > 0 && n > s.limit()-have {
		return fmt.Errorf("%d bytes more than %d, quota %d: %w", n, have, s.opts.Quota, cas.ErrFull)
	}
	s.reserved += n
	return nil
}

func (s *Store) release(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= n
}

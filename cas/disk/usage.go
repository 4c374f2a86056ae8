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
	Quota int64 // the setting, or what the disk would give, whichever is less
	Free  int64 // bytes that may still come: up to 95 %
	Level Level
}

// workRoom is the least that a build wants of the disk, in bytes.
const workRoom = 512 << 20

// NoBuild says, for people, why no build should begin; "" when it may. free is
// what the disk that builds work on has left, in bytes.
func (u Usage) NoBuild(free int64) string {
	switch {
	case u.Level >= NoBuilds:
		return fmt.Sprintf("the store is at %d %% of %d MiB: no builds from %d %% on; swarm gc, a larger --quota or disk make room", u.Bytes*100/max(u.Quota, 1), u.Quota>>20, watermarks[NoBuilds])
	case free < workRoom:
		return fmt.Sprintf("%d MiB of disk are left to build in, a build wants %d", free>>20, int64(workRoom)>>20)
	}
	return ""
}

// Usage reports how full the store is. It also sees to the spare room: the
// caller asks every few seconds.
func (s *Store) Usage() (Usage, error) {
	avail, err := s.available()
	if err != nil {
		return Usage{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := Usage{Blobs: len(s.index), Bytes: s.used + s.reserved, Quota: s.quota(avail)}
	u.Free = max(0, u.Quota/100*watermarks[ReadOnly]-u.Bytes)
	for l := NoReplicas; l <= ReadOnly; l++ {
		if u.Bytes >= u.Quota/100*watermarks[l] {
			u.Level = l
		}
	}
	s.keepSpare(avail + s.opts.Room)
	return u, nil
}

// available is what the disk would still take of blobs, in bytes. It is below 0
// when others took some of the room that blobs must leave.
func (s *Store) available() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, fmt.Errorf("usage of %s: %w", s.dir, err)
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // Bsize has 32 bits on some machines
	return free - s.opts.Room, nil
}

// quota is the most that the store may come to with so much available: the
// setting, or less when other files take the disk. s.mu is held.
func (s *Store) quota(avail int64) int64 {
	disk := max(0, s.used+s.reserved+avail)
	if s.opts.Quota > 0 {
		return min(s.opts.Quota, disk)
	}
	return disk
}

// reserve sets n bytes aside, or says ErrFull.
func (s *Store) reserve(n int64) error {
	avail, err := s.available()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, quota := s.used+s.reserved, s.quota(avail)
	if n > quota/100*watermarks[ReadOnly]-have {
		return fmt.Errorf("%d bytes more than %d, at most %d %% of %d: %w", n, have, watermarks[ReadOnly], quota, cas.ErrFull)
	}
	s.reserved += n
	return nil
}

func (s *Store) release(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= n
}

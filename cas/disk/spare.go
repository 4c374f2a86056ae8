package disk

import (
	"errors"
	"os"
	"path/filepath"
)

// The spare is a file of Options.Room bytes that holds nothing. A disk that
// somebody else filled has room again once it is gone: enough for the board's
// journal, a pending outcome and the log to go on until a person has cleaned up.
// It comes back when there is plenty.

func (s *Store) sparePath() string { return filepath.Join(s.dir, "spare") }

// keepSpare removes the spare when less than a quarter of Options.Room is free,
// and makes it anew when four times as much is. A file system that cannot
// allocate without writing has none. s.mu is held.
func (s *Store) keepSpare(free int64) {
	room := s.opts.Room
	switch {
	case room <= 0:
	case s.spare && free < room/4:
		if err := s.fs.Remove(s.sparePath()); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.opts.Log.Error("the disk is full, and its spare room cannot be given back", "error", err)
			return
		}
		s.spare = false
		s.opts.Log.Error("the disk is full; the spare room is given back so that state can still be written", "bytes", room, "dir", s.dir)
	case !s.spare && free > 4*room:
		if err := allocate(s.sparePath(), room); err != nil {
			s.opts.Log.Debug("no spare room is kept", "error", err)
			return
		}
		s.spare = true
	}
}

package watch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/build-swarm/swarm/build/view"
)

// MaxHistory is the most bytes that a history takes on disk, in two files: when
// the newer one is full, it replaces the older.
const MaxHistory = 4 << 20

const (
	newerName = "events.jsonl"
	olderName = "events.1.jsonl"
	// recentEvents are kept in memory: what a page shows.
	recentEvents = 2000
	// maxLine bounds a line that is read: of a file that somebody damaged.
	maxLine = 16 << 10
)

// History keeps events on disk, a line of JSON each, oldest first. It is
// written without fsync: a crash may cost the last seconds of it, and nothing
// is decided by it.
type History struct {
	dir string

	mu     sync.Mutex
	file   *os.File
	size   int64
	recent []view.Event
	whole  bool // recent holds all there is
}

// OpenHistory opens the history in a directory, made when missing. A line that
// a crash tore is cut off.
func OpenHistory(dir string) (*History, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of events: %w", err)
	}
	h := &History{dir: dir}
	all, err := h.read(0)
	if err != nil {
		return nil, err
	}
	h.whole = len(all) <= recentEvents
	h.recent = slices.Clone(all[max(0, len(all)-recentEvents):])
	return h, h.open()
}

func (h *History) open() (err error) {
	path := filepath.Join(h.dir, newerName)
	if h.file, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return fmt.Errorf("open the history of events: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(h.file, MaxHistory))
	if err != nil {
		return errors.Join(fmt.Errorf("read %s: %w", path, err), h.file.Close())
	}
	h.size = int64(bytes.LastIndexByte(b, '\n') + 1)
	if err := h.file.Truncate(h.size); err != nil {
		return errors.Join(fmt.Errorf("mend %s: %w", path, err), h.file.Close())
	}
	return nil
}

// Append adds events. On an error those of this call may be partly kept.
func (h *History) Append(list []view.Event) error {
	if len(list) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var b bytes.Buffer
	for i := range list {
		line, err := json.Marshal(&list[i])
		if err != nil {
			return fmt.Errorf("encode an event: %w", err)
		}
		if len(line) >= maxLine {
			continue // its parts are bounded where it is made
		}
		if h.size+int64(b.Len()+len(line)+1) > MaxHistory/2 {
			if err := h.write(&b); err != nil {
				return err
			}
			if err := h.rotate(); err != nil {
				return err
			}
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	if err := h.write(&b); err != nil {
		return err
	}
	h.recent = append(h.recent, list...)
	if n := len(h.recent) - recentEvents; n > 0 {
		h.whole = false
		h.recent = slices.Delete(h.recent, 0, n)
	}
	return nil
}

func (h *History) write(b *bytes.Buffer) error {
	n, err := h.file.Write(b.Bytes())
	h.size += int64(n)
	b.Reset()
	if err != nil {
		return fmt.Errorf("write events to %s: %w", h.file.Name(), err)
	}
	return nil
}

func (h *History) rotate() error {
	if err := h.file.Close(); err != nil {
		return fmt.Errorf("close the full history of events: %w", err)
	}
	if err := os.Rename(filepath.Join(h.dir, newerName), filepath.Join(h.dir, olderName)); err != nil {
		return fmt.Errorf("turn the history of events over: %w", err)
	}
	return h.open()
}

// Since returns the events of a time (milliseconds since 1970) and later, the
// oldest first, the newest limit of them.
func (h *History) Since(ms int64, limit int) ([]view.Event, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.recent
	if !h.whole && limit > len(list) && (len(list) == 0 || list[0].AtMS >= ms) {
		var err error
		if list, err = h.read(ms); err != nil {
			return nil, err
		}
	}
	out := make([]view.Event, 0, min(limit, len(list)))
	for i := len(list) - 1; i >= 0 && len(out) < limit; i-- {
		if list[i].AtMS >= ms {
			out = append(out, list[i])
		}
	}
	slices.Reverse(out)
	slices.SortStableFunc(out, func(a, b view.Event) int { return int(min(1, max(-1, a.AtMS-b.AtMS))) })
	return out, nil
}

// read reads what is on disk. Lines that are no events are passed over.
func (h *History) read(ms int64) ([]view.Event, error) {
	var out []view.Event
	for _, name := range []string{olderName, newerName} {
		f, err := os.Open(filepath.Join(h.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the history of events: %w", err)
		}
		sc := bufio.NewScanner(io.LimitReader(f, MaxHistory))
		sc.Buffer(make([]byte, 0, 4096), maxLine)
		for sc.Scan() {
			var e view.Event
			if json.Unmarshal(sc.Bytes(), &e) == nil && e.AtMS >= ms && e.Kind != "" {
				out = append(out, e)
			}
		}
		err = sc.Err()
		if errors.Is(err, bufio.ErrTooLong) {
			err = nil // the rest of that file is no history
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("read the history of events: %w", err)
		}
	}
	return out, nil
}

// Close closes the file.
func (h *History) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file.Close()
}

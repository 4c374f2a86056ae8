package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/build-swarm/swarm/build"
)

// MaxLog bounds a build's log, in bytes. What comes after is counted, not kept:
// a package that prints without end must not fill the disk.
const MaxLog = 64 << 20

// ErrNoLog is returned for a job that does not run here.
var ErrNoLog = errors.New("no build of this job runs here")

// Logs holds the logs of the builds that run now. It is safe for concurrent
// use.
type Logs struct {
	dir  string
	mu   sync.Mutex
	open map[build.Key]*logFile
}

func newLogs(dir string) *Logs { return &Logs{dir: dir, open: map[build.Key]*logFile{}} }

// logFile is written by one build and read by anybody.
type logFile struct {
	path string
	f    *os.File
	mu   sync.Mutex
	n    int64
	over int64
}

// AppendLog opens a build's log for a builder in another process.
func AppendLog(path string) (io.WriteCloser, error) { return openLog(path) }

func openLog(path string) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open build log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open build log: %w", err), f.Close())
	}
	return &logFile{path: path, f: f, n: st.Size()}, nil
}

// create makes the log of a build, or opens that of one that outlived an earlier
// process.
func (l *Logs) create(k build.Key) (*logFile, error) {
	lf, err := openLog(filepath.Join(l.dir, string(k)+".log"))
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.open[k] = lf
	l.mu.Unlock()
	return lf, nil
}

// size is how much the build has written, here or in a process of its own; what
// came after MaxLog counts only if it was written here.
func (lf *logFile) size() int64 {
	lf.mu.Lock()
	defer lf.mu.Unlock()
	n := lf.n
	if st, err := os.Stat(lf.path); err == nil {
		n = max(n, st.Size())
	}
	return n + lf.over
}

func (l *Logs) remove(k build.Key) {
	l.mu.Lock()
	lf := l.open[k]
	delete(l.open, k)
	l.mu.Unlock()
	if lf != nil {
		// A log that stays is litter of the work directory, removed at start.
		_ = os.Remove(lf.path)
	}
}

// Write never fails for want of room in the bound: it drops, and Close says
// how much.
func (lf *logFile) Write(p []byte) (int, error) {
	lf.mu.Lock()
	defer lf.mu.Unlock()
	room := MaxLog - lf.n
	if int64(len(p)) > room {
		lf.over += int64(len(p)) - room
		if _, err := lf.f.Write(p[:room]); err != nil {
			return 0, err
		}
		lf.n = MaxLog
		return len(p), nil
	}
	n, err := lf.f.Write(p)
	lf.n += int64(n)
	return n, err
}

// Close ends the log.
func (lf *logFile) Close() error {
	lf.mu.Lock()
	defer lf.mu.Unlock()
	if lf.over > 0 {
		if _, err := fmt.Fprintf(lf.f, "\n[%d more bytes of log were left out]\n", lf.over); err != nil {
			return errors.Join(err, lf.f.Close())
		}
	}
	return lf.f.Close()
}

// ReadAt reads the log of a running build from an offset, at most len(p)
// bytes. It returns io.EOF at the end of what is written now, and ErrNoLog when
// the job does not run here any more.
func (l *Logs) ReadAt(k build.Key, p []byte, off int64) (int, error) {
	l.mu.Lock()
	lf := l.open[k]
	l.mu.Unlock()
	if lf == nil {
		return 0, ErrNoLog
	}
	f, err := os.Open(lf.path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, ErrNoLog
	}
	if err != nil {
		return 0, fmt.Errorf("read build log: %w", err)
	}
	defer f.Close()
	n, err := f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("read build log: %w", err)
	}
	return n, err
}

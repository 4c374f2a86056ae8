package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// ErrLocked: another process has the store open.
var ErrLocked = errors.New("blob store is in use by another process")

const (
	outboardExt    = ".bao"
	defaultFresh   = 24 * time.Hour
	partialKept    = 24 * time.Hour // how long an unfinished transfer waits to be resumed
	quarantineKept = 8              // damaged blobs kept for a person to look at
	bufferSize     = 256 << 10
)

// Options of a store. The zero value is usable.
type Options struct {
	// Quota bounds the bytes of blobs, partial and whole; 0 means none but
	// the disk's. See Usage for the watermarks.
	Quota int64
	// Room is how many bytes of the disk blobs leave free, so that the peer can
	// still write its state. As much again lies in the file spare, and is given
	// back when other programs have filled the disk all the same. 0: none.
	Room int64
	// VerifiedFor is how long a verification of a blob's bytes counts; 0 means
	// 24 hours, below 0 that every Open verifies.
	VerifiedFor time.Duration
	// OnCorrupt is told of each blob that the store held and lost: it went to
	// quarantine, the disk would not give it, somebody removed its file. It must
	// not block; nil is allowed.
	OnCorrupt func(cas.Info)
	Log       *slog.Logger     // nil discards
	Now       func() time.Time // nil means time.Now
}

// Store is a cas.Store, cas.Source and cas.Assembler over a directory. Its
// methods may be called from any goroutine.
type Store struct {
	dir   string
	opts  Options
	fs    files
	lock  *os.File
	clean bool // the last process closed the store in order

	// stripe[b] is held while files of blobs/<b> appear or vanish, so that a
	// name and the index change together.
	stripe [256]sync.Mutex

	buffers sync.Pool // *[]byte of bufferSize

	mu       sync.Mutex
	index    map[cid.Cid]entry
	used     int64             // bytes of the index's blobs
	reserved int64             // bytes of partials and of Puts under way
	partials map[cid.Cid]int64 // reservation of each file in partial/
	open     map[cid.Cid]bool  // partials that somebody holds
	checks   map[cid.Cid]*check
	hot      map[cid.Cid]*hotFile // at most maxHot, of the index's blobs
	uses     uint64               // counts what hot is asked for
	seq      uint64               // names of temp files
	spare    bool                 // the file spare is there
}

// entry is what the store knows of a blob without looking.
type entry struct {
	size     int64
	verified time.Time // zero when unknown
	scrubbed time.Time // the last verification that is known of, also of before a crash
	mtime    time.Time // the blob file's when verified
	outboard bool      // the outboard was checked by this process
}

// check is one verification under way; others wait for it.
type check struct {
	done  chan struct{}
	hurry chan struct{} // closed when a reader waits for it
	once  sync.Once
	err   error
}

var (
	_ cas.Source    = (*Store)(nil)
	_ cas.Assembler = (*Store)(nil)
)

// Open opens the store in dir, which it creates when it is missing, and
// recovers from whatever ended the last process. ErrLocked when another
// process has it.
func Open(dir string, opts Options) (*Store, error) { return openWith(dir, opts, newOSFiles()) }

func openWith(dir string, opts Options, fs files) (*Store, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.VerifiedFor == 0 {
		opts.VerifiedFor = defaultFresh
	}
	s := &Store{dir: dir, opts: opts, fs: fs, index: map[cid.Cid]entry{}, partials: map[cid.Cid]int64{},
		open: map[cid.Cid]bool{}, checks: map[cid.Cid]*check{}, hot: map[cid.Cid]*hotFile{}}
	if err := s.recover(); err != nil {
		if s.lock != nil {
			_ = s.lock.Close()
		}
		_ = fs.Close() // err is what matters
		return nil, fmt.Errorf("open blob store %s: %w", dir, err)
	}
	return s, nil
}

// Close marks the store as closed in order and lets the next process in. Blobs
// that are open stay readable.
func (s *Store) Close() error {
	f, err := s.fs.Create(filepath.Join(s.dir, "clean"))
	if err == nil {
		err = f.Close()
	}
	s.mu.Lock()
	for c := range s.hot {
		s.coolLocked(c)
	}
	s.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("close blob store %s: %w", s.dir, err)
	}
	return errors.Join(err, s.fs.Close(), s.lock.Close())
}

func (s *Store) path(c cid.Cid) (dir, blob string, stripe *sync.Mutex, err error) {
	sum, err := cas.Digest(c)
	if err != nil {
		return "", "", nil, err
	}
	dir = s.shard(int(sum[0]))
	return dir, filepath.Join(dir, c.String()), &s.stripe[sum[0]], nil
}

// buffer takes a copy buffer; give it back to s.buffers.
func (s *Store) buffer() *[]byte {
	if b, ok := s.buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, bufferSize)
	return &b
}

func (s *Store) lookup(c cid.Cid) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.index[c]
	return e, ok
}

// Stat implements cas.Store.
func (s *Store) Stat(c cid.Cid) (cas.Info, error) {
	e, ok := s.lookup(c)
	if !ok {
		return cas.Info{}, fmt.Errorf("stat %s: %w", c, cas.ErrNotFound)
	}
	return cas.Info{CID: c, Size: e.size}, nil
}

// All implements cas.Store.
func (s *Store) All() iter.Seq2[cas.Info, error] {
	s.mu.Lock()
	list := make([]cas.Info, 0, len(s.index))
	for c, e := range s.index {
		list = append(list, cas.Info{CID: c, Size: e.size})
	}
	s.mu.Unlock()
	return func(yield func(cas.Info, error) bool) {
		for _, i := range list {
			if !yield(i, nil) {
				return
			}
		}
	}
}

// Put implements cas.Store.
func (s *Store) Put(ctx context.Context, r io.Reader, want cid.Cid) (cas.Info, error) {
	if want.Defined() {
		if _, err := cas.Digest(want); err != nil {
			return cas.Info{}, err
		}
		if info, err := s.Stat(want); err == nil {
			return info, nil
		}
	}
	info, err := s.put(ctx, r, want)
	if err != nil {
		return cas.Info{}, fmt.Errorf("store blob: %w", err)
	}
	return info, nil
}

// ErrGone says that a blob should be here and its file is not. It wraps
// cas.ErrNotFound, and is said once: then the store knows that it has it no more.
var ErrGone = fmt.Errorf("%w: its file is gone", cas.ErrNotFound)

// openBlob opens the file of a blob of the index. A blob whose file somebody
// removed, or the disk does not give, leaves the index.
func (s *Store) openBlob(c cid.Cid) (*os.File, error) {
	_, path, stripe, err := s.path(c)
	if err != nil {
		return nil, err
	}
	if _, ok := s.lookup(c); !ok {
		return nil, cas.ErrNotFound
	}
	f, err := s.fs.OpenRead(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		s.lose(c, path, stripe, "its file is gone")
		return nil, ErrGone
	case failing(err):
		s.unreadable(c, err)
	}
	return f, err
}

// lose takes a blob that cannot be had any more out of the index, unless a new
// copy took its place meanwhile, and says so.
func (s *Store) lose(c cid.Cid, path string, stripe *sync.Mutex, why string) {
	stripe.Lock()
	e, held := s.lookup(c)
	if fi, err := os.Lstat(path); !held || err == nil && !fi.ModTime().Equal(e.mtime) {
		stripe.Unlock()
		return
	}
	s.forget(c)
	stripe.Unlock()
	s.opts.Log.Error("blob is lost", "cid", c, "bytes", e.size, "reason", why)
	if s.opts.OnCorrupt != nil {
		s.opts.OnCorrupt(cas.Info{CID: c, Size: e.size})
	}
}

// fresh reports whether the last verification of a blob still counts for the
// file that fi describes.
func (s *Store) fresh(c cid.Cid, fi os.FileInfo) bool {
	e, ok := s.lookup(c)
	return ok && e.fresh(fi, s.opts.Now(), s.opts.VerifiedFor)
}

func (e entry) fresh(fi os.FileInfo, now time.Time, verifiedFor time.Duration) bool {
	age := now.Sub(e.verified)
	return !e.verified.IsZero() && age >= 0 && age < verifiedFor && fi.Size() == e.size && fi.ModTime().Equal(e.mtime)
}

// Outboard implements cas.Source. The outboard is checked before its first use
// and made anew when it is missing or damaged.
func (s *Store) Outboard(c cid.Cid) (cas.Outboard, error) {
	e, ok := s.lookup(c)
	if !ok {
		return nil, fmt.Errorf("outboard of %s: %w", c, cas.ErrNotFound)
	}
	if cas.Groups(e.size) == 1 {
		_, out := cas.Encode(e.size, make([][32]byte, 1))
		return memory{bytes.NewReader(out)}, nil
	}
	_, path, _, err := s.path(c)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path + outboardExt)
	if err == nil && !e.outboard {
		if _, err = cas.CheckOutboard(f, c, e.size); err != nil {
			_ = f.Close()
		} else {
			s.update(c, func(e *entry) { e.outboard = true })
		}
	}
	if err == nil {
		return f, nil
	}
	s.opts.Log.Warn("outboard is made anew", "cid", c, "err", err)
	s.update(c, func(e *entry) { e.outboard = false })
	if err := s.verify(context.Background(), c, 0); err != nil {
		return nil, fmt.Errorf("outboard of %s: %w", c, err)
	}
	if f, err = os.Open(path + outboardExt); err != nil {
		return nil, fmt.Errorf("outboard of %s: %w", c, err)
	}
	return f, nil
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// Delete implements cas.Store. After a power cut the blob may be there again,
// which harms nobody.
func (s *Store) Delete(c cid.Cid) error {
	_, path, stripe, err := s.path(c)
	if err != nil {
		return err
	}
	stripe.Lock()
	defer stripe.Unlock()
	if _, ok := s.lookup(c); !ok {
		return nil
	}
	// The blob first: an outboard alone is litter, a blob without one is whole.
	for _, p := range []string{path, path + outboardExt} {
		if err := s.fs.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("delete blob %s: %w", c, err)
		}
	}
	s.forget(c)
	return nil
}

// forget takes c out of the index. The stripe is held.
func (s *Store) forget(c cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= s.index[c].size
	delete(s.index, c)
	s.coolLocked(c)
}

// update changes c's entry when there is one.
func (s *Store) update(c cid.Cid, f func(*entry)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.index[c]; ok {
		f(&e)
		s.index[c] = e
	}
}

// remember puts c into the index.
func (s *Store) remember(c cid.Cid, e entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used += e.size - s.index[c].size
	s.index[c] = e
}

// acquire makes sure that the process is the only one and creates the
// directories.
func (s *Store) acquire() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"blobs", "tmp", "partial", "quarantine"} {
		if err := s.fs.Mkdir(filepath.Join(s.dir, d)); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	s.lock = f
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrLocked
		}
		return fmt.Errorf("lock: %w", err)
	}
	return s.fs.SyncDir(s.dir)
}

// shard is the directory of the blobs whose digest begins with b.
func (s *Store) shard(b int) string { return filepath.Join(s.dir, "blobs", fmt.Sprintf("%02x", b)) }

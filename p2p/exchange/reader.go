package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
)

// Reader reads a blob that lies with other peers. It hands out verified bytes
// only, stores nothing, and keeps one group in memory. Not for several
// goroutines.
type Reader struct {
	f       *Fetcher
	ctx     context.Context // of Open: ends reads that wait
	c       cid.Cid
	size    int64
	holders []string       // the first is the one in use
	fails   map[string]int // in a row
	errs    []error        // why holders were given up

	pos    int64
	s      *session
	r      *cas.SliceReader // nil between slices
	at     int64            // where r goes on
	closed bool
}

// hedgeAfter is how long Open waits for one holder before it asks another too.
const hedgeAfter = 500 * time.Millisecond

// Open finds a holder of the blob c of size bytes and returns a reader over it.
// That nobody has it is an error here (ErrNoHolder), not at the first Read. ctx
// bounds the reader's life. A wrong size is found out by the reads.
func (f *Fetcher) Open(ctx context.Context, c cid.Cid, size int64, holders []string) (*Reader, error) {
	if _, err := cas.Digest(c); err != nil {
		return nil, err
	}
	if size == 0 && c != cas.Sum(nil) {
		return nil, fmt.Errorf("open remote blob %s: it is not empty: %w", c, cas.ErrCorrupt)
	}
	r := &Reader{f: f, ctx: ctx, c: c, size: size, holders: f.usable(c, holders), fails: map[string]int{}}
	if err := r.probe(); err != nil {
		return nil, fmt.Errorf("open remote blob %s: %w", c, err)
	}
	return r, nil
}

// probe asks the holders, each next one hedgeAfter later or when one has failed,
// and keeps the session of the first that says it has the blob. Those that
// cannot help are left out from then on.
func (r *Reader) probe() error {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	type answer struct {
		i   int
		s   *session
		err error
	}
	answers := make(chan answer)
	asked, waiting := 0, 0
	ask := func() {
		if asked < len(r.holders) {
			i := asked
			asked++
			waiting++
			go func() {
				s, err := r.f.probe(ctx, r.ctx, r.holders[i], r.c, r.size)
				answers <- answer{i, s, err}
			}()
		}
	}
	bad := map[int]bool{}
	var best *answer
	hedge := time.NewTicker(hedgeAfter)
	defer hedge.Stop()
	for ask(); waiting > 0; {
		select {
		case <-hedge.C:
			if best == nil {
				ask()
			}
		case a := <-answers:
			waiting--
			switch {
			case a.err == nil && best == nil:
				best = &a
				cancel() // the others need not answer
			case a.err == nil:
				a.s.drop()
			case best == nil:
				bad[a.i] = true
				r.errs = append(r.errs, fmt.Errorf("%s: %w", r.holders[a.i], a.err))
				ask()
			}
		}
	}
	if best == nil {
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		return r.nobody()
	}
	r.s = best.s
	if r.size >= bulkLeast && r.f.bulk != Opener(r.f.net) {
		r.drop() // the answer came the common way, the bytes have their own
	}
	order := []string{r.holders[best.i]}
	for i, h := range r.holders {
		if i != best.i && !bad[i] {
			order = append(order, h)
		}
	}
	r.holders = order
	return nil
}

// probe asks a holder whether it has a blob of this size. Asking ends with ctx,
// the session lives as long as life.
func (f *Fetcher) probe(ctx, life context.Context, holder string, c cid.Cid, size int64) (*session, error) {
	s, err := f.dial(ctx, life, holder)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, s.drop)
	got, err := s.has(c)
	if !stop() {
		return nil, ctx.Err() // dropped already
	}
	if err == nil && got != size {
		err = fmt.Errorf("it says %d bytes, not %d: %w", got, size, errSize)
	}
	if err != nil {
		s.drop()
		return nil, err
	}
	return s, nil
}

// errSize: holder and caller differ about the size. Nobody knows yet who is
// right, so the holder is left alone and not called a liar.
var errSize = errors.New("another size")

// Size is the size that was given to Open.
func (r *Reader) Size() int64 { return r.size }

// Read yields the next verified bytes. When a holder fails the next one goes
// on; ErrNoHolder when none is left.
func (r *Reader) Read(p []byte) (int, error) {
	if r.closed {
		return 0, fmt.Errorf("read remote blob %s: reader is closed", r.c)
	}
	if r.pos >= r.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.holders) > 0 {
		n, err := r.read(p)
		if n > 0 {
			r.pos += int64(n)
			r.at = r.pos
			r.fails[r.holders[0]] = 0
			return n, nil
		}
		if err := r.failed(err); err != nil {
			return 0, fmt.Errorf("read remote blob %s: %w", r.c, err)
		}
	}
	return 0, fmt.Errorf("read remote blob %s at %d: %w", r.c, r.pos, r.nobody())
}

// read reads from the first holder, on a slice that begins at pos.
func (r *Reader) read(p []byte) (int, error) {
	if r.r != nil && r.at != r.pos {
		r.drop()
	}
	if r.s == nil {
		s, err := r.f.dialFor(r.ctx, r.ctx, r.holders[0], r.size-r.pos)
		if err != nil {
			return 0, err
		}
		r.s = s
	}
	if r.r == nil {
		sl, err := r.s.get(r.c, r.pos, r.size-r.pos)
		if err != nil {
			return 0, err
		}
		size, err := sl.Size()
		if err != nil {
			return 0, err
		}
		if size != r.size {
			return 0, fmt.Errorf("it says %d bytes, not %d: %w", size, r.size, errSize)
		}
		r.r, r.at = sl, r.pos
	}
	if err := r.s.extend(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	if errors.Is(err, io.EOF) { // pos < size: the slice cannot end here
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// failed notes that the first holder failed, and puts it last, or away when it
// is no use. It returns the context's error when that is the cause.
func (r *Reader) failed(err error) error {
	r.drop()
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	h := r.holders[0]
	r.holders = r.holders[1:]
	if errors.Is(err, cas.ErrCorrupt) {
		r.f.blame(r.c, h, err)
	}
	r.fails[h]++
	if errors.Is(err, errSize) || hopeless(err) || r.fails[h] >= maxFailures {
		r.f.log.Info("holder is given up", "peer", h, "cid", r.c, "err", err)
		r.errs = append(r.errs, fmt.Errorf("%s: %w", h, err))
		return nil
	}
	// At once with the next one; with the same again only after a pause.
	r.holders = append(r.holders, h)
	if r.holders[0] == h {
		return pause(r.ctx, retryAfter<<r.fails[h])
	}
	return nil
}

func (r *Reader) nobody() error { return errors.Join(append([]error{ErrNoHolder}, r.errs...)...) }

// Seek moves the next Read. It talks to nobody.
func (r *Reader) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += r.pos
	case io.SeekEnd:
		off += r.size
	}
	if off < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return 0, fmt.Errorf("seek remote blob %s to %d: %w", r.c, off, cas.ErrRange)
	}
	r.pos = off
	return off, nil
}

func (r *Reader) drop() {
	if r.s != nil {
		r.s.drop()
	}
	r.s, r.r = nil, nil
}

// Close ends the stream.
func (r *Reader) Close() error {
	r.closed = true
	r.drop()
	return nil
}

package gpkg

import (
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// Compression is how the metadata and the image of a package are packed, named
// as in BINPKG_COMPRESS.
type Compression string

const (
	Zstd  Compression = "zstd" // Portage's default
	Gzip  Compression = "gzip"
	Bzip2 Compression = "bzip2" // read only
	XZ    Compression = "xz"    // read only
	None  Compression = "none"
)

// suffix is what stands after "image" or "metadata".
func (c Compression) suffix() string {
	switch c {
	case Zstd:
		return ".tar.zst"
	case Gzip:
		return ".tar.gz"
	case Bzip2:
		return ".tar.bz2"
	case XZ:
		return ".tar.xz"
	}
	return ".tar"
}

// compressionOf reads the suffix of a member's name.
func compressionOf(s string) (Compression, error) {
	for _, c := range []Compression{Zstd, Gzip, Bzip2, XZ, None} {
		if s == c.suffix() {
			return c, nil
		}
	}
	switch s {
	case ".tar.lz4", ".tar.lz", ".tar.lzo":
		return "", fmt.Errorf("%w: compression %s; use zstd (BINPKG_COMPRESS)", ErrUnsupported, s)
	}
	return "", damaged("member suffix %s", quote(s))
}

// newDecompressor reads r unpacked. Its errors wrap ErrDamaged or
// ErrUnsupported unless they come from r itself.
func newDecompressor(r io.Reader, c Compression) (io.ReadCloser, error) {
	src := &sourceReader{r: r}
	d := &decompressor{src: src}
	switch c {
	case None:
		d.r = src
	case Gzip:
		z, err := gzip.NewReader(src)
		if err != nil {
			return nil, d.wrap(err)
		}
		d.r = z
	case Bzip2:
		d.r = bzip2.NewReader(src)
	case XZ:
		z, err := xz.NewReader(src, maxXZDict)
		if err != nil {
			return nil, d.wrap(err)
		}
		d.r = z
	case Zstd:
		// One goroutine's worth of work, in the caller's: Verify shares the
		// machine with builds.
		z, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, d.wrap(err)
		}
		d.r, d.close = z, z.Close
	default:
		return nil, fmt.Errorf("%w: compression %q", ErrUnsupported, c)
	}
	return d, nil
}

// decompressor gives every error its class.
type decompressor struct {
	r     io.Reader
	src   *sourceReader
	close func()
}

// Read turns a panic of a decompressor into damage: its input is a stranger's,
// and three of the five are other people's code.
func (d *decompressor) Read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, damaged("unpack: the decompressor gave up: %v", r)
		}
	}()
	n, err = d.r.Read(p)
	if err != nil && err != io.EOF {
		err = d.wrap(err)
	}
	return n, err
}

func (d *decompressor) Close() error {
	if d.close != nil {
		d.close()
	}
	return nil
}

func (d *decompressor) wrap(err error) error {
	switch {
	case d.src.err != nil:
		return &sourceError{d.src.err}
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("%w: zstd window above %d MiB", ErrUnsupported, maxWindow>>20)
	case errors.Is(err, xz.ErrMemlimit):
		return fmt.Errorf("%w: xz dictionary above %d MiB", ErrUnsupported, maxXZDict>>20)
	}
	return damaged("unpack: %v", err)
}

// sourceReader remembers an error of the source, so that a failing disk is not
// taken for a damaged package.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// sourceError is an error of the file that a package is read from: it says
// nothing about the package.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "read package: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// limitReader ends with ErrDamaged when more than left bytes come.
type limitReader struct {
	r    io.Reader
	left int64
	what string
}

func (l *limitReader) Read(p []byte) (int, error) {
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if l.left < 0 {
		return 0, damaged("%s is too large unpacked", l.what)
	}
	return n, err
}

// ctxReader ends when ctx does.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// drain reads what follows the end of a tar: zeros, and not many.
func drain(r io.Reader, what string) error {
	buf := make([]byte, 4096)
	total := 0
	for {
		n, err := r.Read(buf)
		total += n
		if total > maxTail {
			return damaged("%s: more than %d bytes after its end", what, maxTail)
		}
		for _, b := range buf[:n] {
			if b != 0 {
				return damaged("%s: data after its end", what)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

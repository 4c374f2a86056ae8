package httpgateway

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// generation is one head of a channel, rendered to files. It is immutable but
// for broken.
type generation struct {
	head     release.Channel
	packages int
	plain    file
	gzip     file
	// broken is set when a file could not be opened: somebody cleared the
	// cache, so the generation has to be made again.
	broken atomic.Bool
}

// file is one rendered index: parts of a file that holds those of generations
// before it, too.
type file struct {
	path  string
	size  int64 // of the index
	end   int64 // what the file has at the least
	parts []part
	sum   [sha256.Size]byte // of its pieces' sums
}

// part is n bytes of an index from at on, and where the file has them.
type part struct{ at, off, n int64 }

// etag names the bytes, so that it is the same on every gateway.
func (f *file) etag() string { return `"` + hex.EncodeToString(f.sum[:16]) + `"` }

// description is the file "head" of a shelf: its newest generation.
type description struct {
	Head     release.Channel `cbor:"head"`
	Packages int             `cbor:"packages"`
	Turn     int64           `cbor:"turn"`
	Plain    []written       `cbor:"plain"` // the header, then the chunks
	Gzip     []written       `cbor:"gzip"`  // each a gzip member
	Paths    written         `cbor:"paths"`
}

// written is what was written at once.
type written struct {
	Off  int64  `cbor:"off"`
	Size int64  `cbor:"size"`
	Sum  []byte `cbor:"sha256"`
}

const (
	plainName = "Packages"
	gzipName  = "Packages.gz"
	pathsName = "paths"
	headName  = "head"
	prefix    = "g-"  // of a shelf: g-TIMESTAMP of its first generation
	unready   = "new" // the shelf, or the head, that is being written
	keepDirs  = 2     // a request may have read the path of the last but one
	gzipLevel = 6
)

// channelDir is where a target's generations are kept. A target's name comes
// from the board, so it is hashed.
func channelDir(cache, target string) string {
	sum := sha256.Sum256([]byte(target + "/" + release.Stable))
	return filepath.Join(cache, hex.EncodeToString(sum[:16]))
}

func (d *description) generation(dir string) *generation {
	return &generation{
		head: d.Head, packages: d.Packages,
		plain: described(filepath.Join(dir, plainName), d.Plain), gzip: described(filepath.Join(dir, gzipName), d.Gzip),
	}
}

// described joins what lies side by side.
func described(path string, pieces []written) file {
	f := file{path: path}
	h := sha256.New()
	for _, p := range pieces {
		_, _ = h.Write(p.Sum)
		if last := len(f.parts) - 1; last >= 0 && f.parts[last].off+f.parts[last].n == p.Off {
			f.parts[last].n += p.Size
		} else {
			f.parts = append(f.parts, part{f.size, p.Off, p.Size})
		}
		f.size += p.Size
		f.end = max(f.end, p.Off+p.Size)
	}
	h.Sum(f.sum[:0])
	return f
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// stored lists the shelves of a channel, newest first.
func stored(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	type gen struct {
		name string
		time int64
	}
	var gens []gen
	for _, e := range list {
		if n, ok := strings.CutPrefix(e.Name(), prefix); ok {
			if t, err := strconv.ParseInt(n, 10, 64); err == nil {
				gens = append(gens, gen{e.Name(), t})
			}
		}
	}
	slices.SortFunc(gens, func(a, b gen) int { return int(min(1, max(-1, b.time-a.time))) })
	out := make([]string, len(gens))
	for i, g := range gens {
		out[i] = g.name
	}
	return out, nil
}

// load takes up the newest generation on disk that is whole, with its table.
// os.ErrNotExist means that there is none.
func load(dir, target string) (*generation, *paths, error) {
	names, err := stored(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("load index of %s: %w", target, err)
	}
	err = os.ErrNotExist
	for _, name := range names {
		var g *generation
		var t *paths
		if g, t, err = loadOne(filepath.Join(dir, name), target); err == nil {
			return g, t, nil
		}
	}
	return nil, nil, fmt.Errorf("load index of %s: %w", target, err)
}

var errDamaged = errors.New("kept index is damaged")

func loadOne(dir, target string) (*generation, *paths, error) {
	enc, err := readAtMost(filepath.Join(dir, headName), maxHead)
	if err != nil {
		return nil, nil, err
	}
	var d description
	if err := build.Unmarshal(enc, &d); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err := d.Head.Validate(); err != nil || d.Head.Target != target {
		return nil, nil, fmt.Errorf("%w: head of %q: %v", errDamaged, build.OneLine(d.Head.Target, 64), err)
	}
	if len(d.Plain) == 0 || len(d.Plain) != len(d.Gzip) {
		return nil, nil, fmt.Errorf("%w: %d and %d pieces", errDamaged, len(d.Plain), len(d.Gzip))
	}
	if err := errors.Join(check(filepath.Join(dir, plainName), d.Plain), check(filepath.Join(dir, gzipName), d.Gzip),
		check(filepath.Join(dir, pathsName), []written{d.Paths})); err != nil {
		return nil, nil, err
	}
	table, err := loadPaths(filepath.Join(dir, pathsName), d.Paths.Size, d.Turn)
	if err != nil {
		return nil, nil, err
	}
	return d.generation(dir), table, nil
}

// maxHead bounds the file "head": some 60 bytes for each piece, of which there
// is at most one for each entry of a release.
const maxHead = 16 << 20

// check reads what was written and compares it with its sums.
func check(name string, pieces []written) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	h := sha256.New()
	for _, p := range pieces {
		h.Reset()
		n, err := io.Copy(h, io.NewSectionReader(f, p.Off, p.Size))
		if err != nil {
			return errors.Join(fmt.Errorf("read %s: %w", name, err), f.Close())
		}
		if n != p.Size || string(h.Sum(nil)) != string(p.Sum) {
			return errors.Join(fmt.Errorf("%w: %s at %d", errDamaged, name, p.Off), f.Close())
		}
	}
	return f.Close()
}

func readAtMost(name string, n int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, n))
	return b, errors.Join(err, f.Close())
}

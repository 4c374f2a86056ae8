package httpgateway

import (
	"bufio"
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

	"github.com/ipfs/go-cid"
	"github.com/klauspost/compress/gzip"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/httpgateway/binhost"
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

// file is one rendered index.
type file struct {
	path string
	size int64
	sum  [sha256.Size]byte
}

// etag names the bytes, so that it is the same on every gateway.
func (f *file) etag() string { return `"` + hex.EncodeToString(f.sum[:16]) + `"` }

// description is the file "head" of a generation's directory, written last.
type description struct {
	Head     release.Channel `cbor:"head"`
	Packages int             `cbor:"packages"`
	Plain    fileSum         `cbor:"plain"`
	Gzip     fileSum         `cbor:"gzip"`
	Paths    fileSum         `cbor:"paths"`
}

type fileSum struct {
	Size int64  `cbor:"size"`
	Sum  []byte `cbor:"sha256"`
}

const (
	plainName = "Packages"
	gzipName  = "Packages.gz"
	pathsName = "paths"
	headName  = "head"
	prefix    = "g-"  // of a generation's directory: g-TIMESTAMP
	unready   = "new" // the directory of one that is being written
	keepDirs  = 2     // a request may have read the path of the last but one
	gzipLevel = 6
)

// channelDir is where a target's generations are kept. A target's name comes
// from the board, so it is hashed.
func channelDir(cache, target string) string {
	sum := sha256.Sum256([]byte(target + "/" + release.Stable))
	return filepath.Join(cache, hex.EncodeToString(sum[:16]))
}

// store writes a generation and makes it the newest on disk:
//  1. everything into a directory of its own, each file synced, "head" last;
//  2. sync that directory, rename it to its name, sync the parent;
//  3. remove what is older than the last two.
//
// A crash before 2 leaves a directory that the next store clears; after it,
// the generation is whole.
func store(dir string, head release.Channel, x *binhost.Index, table *paths) (*generation, error) {
	fail := func(err error) (*generation, error) {
		return nil, fmt.Errorf("write index of %s at %d: %w", head.Target, head.Timestamp, err)
	}
	tmp := filepath.Join(dir, unready)
	if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o755)); err != nil {
		return fail(err)
	}
	text := x.Render(head)
	plain, err1 := write(tmp, plainName, func(w io.Writer) error { _, err := w.Write(text); return err })
	packed, err2 := write(tmp, gzipName, func(w io.Writer) error { return compress(w, text) })
	listed, err3 := write(tmp, pathsName, table.writeTo)
	if err := errors.Join(err1, err2, err3); err != nil {
		return fail(err)
	}
	d := description{head, len(x.Items()), plain.describe(), packed.describe(), listed.describe()}
	enc, err := build.Marshal(d)
	if err != nil {
		return fail(err)
	}
	if _, err := write(tmp, headName, func(w io.Writer) error { _, err := w.Write(enc); return err }); err != nil {
		return fail(err)
	}
	final := filepath.Join(dir, prefix+strconv.FormatInt(head.Timestamp, 10))
	if err := errors.Join(syncDir(tmp), os.RemoveAll(final)); err != nil {
		return fail(err)
	}
	if err := errors.Join(os.Rename(tmp, final), syncDir(dir)); err != nil {
		return fail(err)
	}
	names, err := stored(dir)
	if err != nil {
		return fail(err)
	}
	for _, old := range names[min(keepDirs, len(names)):] {
		if err := os.RemoveAll(filepath.Join(dir, old)); err != nil {
			return fail(err)
		}
	}
	return d.generation(final), nil
}

func (d *description) generation(dir string) *generation {
	g := &generation{head: d.Head, packages: d.Packages}
	g.plain = file{path: filepath.Join(dir, plainName), size: d.Plain.Size}
	g.gzip = file{path: filepath.Join(dir, gzipName), size: d.Gzip.Size}
	copy(g.plain.sum[:], d.Plain.Sum)
	copy(g.gzip.sum[:], d.Gzip.Sum)
	return g
}

func (f file) describe() fileSum { return fileSum{f.size, f.sum[:]} }

// compress is deterministic: no name, no time, one level.
func compress(w io.Writer, text []byte) error {
	z, err := gzip.NewWriterLevel(w, gzipLevel)
	if err != nil {
		return fmt.Errorf("compress index: %w", err)
	}
	if _, err := z.Write(text); err != nil {
		return fmt.Errorf("compress index: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress index: %w", err)
	}
	return nil
}

// write writes one file of a generation and syncs it.
func write(dir, name string, content func(io.Writer) error) (file, error) {
	out := file{path: filepath.Join(dir, name)}
	f, err := os.OpenFile(out.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return file{}, err
	}
	h := sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(f, h), 256<<10)
	err = content(buf)
	if err == nil {
		err = buf.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		var info os.FileInfo
		if info, err = f.Stat(); err == nil {
			out.size = info.Size()
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return file{}, fmt.Errorf("write %s: %w", name, err)
	}
	copy(out.sum[:], h.Sum(nil))
	return out, nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// stored lists the generation directories of a channel, newest first.
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
	enc, err := readSmall(filepath.Join(dir, headName))
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
	g := d.generation(dir)
	var table *paths
	for name, want := range map[string]fileSum{plainName: d.Plain, gzipName: d.Gzip, pathsName: d.Paths} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, nil, err
		}
		h := sha256.New()
		if name == pathsName {
			table, err = readPaths(io.TeeReader(f, h))
		} else {
			_, err = io.Copy(h, f)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", name, err)
		}
		if string(h.Sum(nil)) != string(want.Sum) {
			return nil, nil, fmt.Errorf("%w: %s", errDamaged, name)
		}
	}
	return g, table, nil
}

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return b, errors.Join(err, f.Close())
}

// paths is the table from path to blob, of this generation and those before
// it. It is immutable.
type paths struct {
	turn  int64 // counts generations
	table map[string]known
}

type known struct {
	item binhost.Item
	cid  cid.Cid // item.CID
	etag string
	turn int64 // the last generation that listed it
}

func newKnown(it binhost.Item, turn int64) (known, error) {
	c, err := cas.Parse(it.CID)
	if err != nil {
		return known{}, err
	}
	return known{item: it, cid: c, etag: `"` + it.CID + `"`, turn: turn}, nil
}

// maxPaths bounds the table over all generations.
const maxPaths = 4 * release.MaxEntries

// with returns the table of the next generation.
func (p *paths) with(items []binhost.Item) (*paths, error) {
	next := &paths{turn: p.turn + 1, table: make(map[string]known, len(items)+len(p.table)/8)}
	for _, it := range items {
		k, err := newKnown(it, next.turn)
		if err != nil {
			return nil, err
		}
		next.table[it.Path] = k
	}
	if len(p.table)+len(items) > maxPaths {
		return next, nil // some 400,000 paths: only a hostile board gets here
	}
	for path, k := range p.table {
		if _, again := next.table[path]; !again && k.turn > next.turn-generations {
			next.table[path] = k
		}
	}
	return next, nil
}

// writeTo writes one line per path: turn, CID, size, mtime and path, sorted
// by path.
func (p *paths) writeTo(w io.Writer) error {
	keys := make([]string, 0, len(p.table))
	for path := range p.table {
		keys = append(keys, path)
	}
	slices.Sort(keys)
	for _, path := range keys {
		k := p.table[path]
		if _, err := fmt.Fprintln(w, k.turn, k.item.CID, k.item.Size, k.item.MTime, path); err != nil {
			return err
		}
	}
	return nil
}

// readPaths reads what writeTo wrote.
func readPaths(r io.Reader) (*paths, error) {
	p := &paths{table: map[string]known{}}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		fs := strings.Split(sc.Text(), " ")
		if len(fs) != 5 || len(p.table) >= maxPaths+release.MaxEntries {
			return nil, fmt.Errorf("%w: table of paths", errDamaged)
		}
		turn, err1 := strconv.ParseInt(fs[0], 10, 64)
		size, err2 := strconv.ParseInt(fs[2], 10, 64)
		mtime, err3 := strconv.ParseInt(fs[3], 10, 64)
		k, err4 := newKnown(binhost.Item{Path: fs[4], CID: fs[1], Size: size, MTime: mtime}, turn)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return nil, fmt.Errorf("%w: table of paths: %w", errDamaged, err)
		}
		p.table[fs[4]] = k
		p.turn = max(p.turn, turn)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%w: table of paths: %w", errDamaged, err)
	}
	return p, nil
}

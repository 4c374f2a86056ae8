package httpgateway

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ipfs/go-cid"
	"github.com/klauspost/compress/gzip"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/httpgateway/binhost"
)

// shelf is a directory that generations of a channel are added to. Its files
// only grow, so a generation that is being served stays as it is, and a new one
// writes its header and the chunks that changed. A shelf is for one process: the
// next begins one of its own.
type shelf struct {
	dir    string
	chunks []*binhost.Chunk // of its newest generation
	placed map[*binhost.Chunk]*placed
	paths  hash.Hash // of the file of paths
	z      *gzip.Writer
	parts  int // of the newest plain index
}

// placed is what is known of a chunk beside its text.
type placed struct {
	cids        []cid.Cid
	plain, gzip written
}

// chunk is one of a generation that is being made.
type chunk struct {
	*binhost.Chunk
	*placed
	fresh bool // it has to be written
}

// cut makes the chunks of a valid manifest. What did not change since the
// shelf's newest generation is taken over. A shelf may be nil.
func (s *shelf) cut(m *release.Manifest) ([]chunk, error) {
	var old []*binhost.Chunk
	if s != nil {
		old = s.chunks
	}
	list, err := binhost.Chunks(m, old)
	if err != nil {
		return nil, err
	}
	out := make([]chunk, len(list))
	for i, c := range list {
		if s != nil && s.placed[c] != nil {
			out[i] = chunk{c, s.placed[c], false}
			continue
		}
		p := &placed{cids: make([]cid.Cid, len(c.Items()))}
		for j, it := range c.Items() {
			if p.cids[j], err = cas.Parse(it.CID); err != nil {
				return nil, err
			}
		}
		out[i] = chunk{c, p, true}
	}
	return out, nil
}

// change is what a new generation lists that the shelf's newest did not, and
// the other way round.
func (s *shelf) change(chunks []chunk) (added []known, gone []string) {
	kept := map[*binhost.Chunk]bool{}
	for _, c := range chunks {
		if !c.fresh {
			kept[c.Chunk] = true
			continue
		}
		for i, it := range c.Items() {
			added = append(added, newKnown(it, c.cids[i]))
		}
	}
	if s == nil {
		return added, nil
	}
	for _, c := range s.chunks {
		if !kept[c] {
			for _, it := range c.Items() {
				gone = append(gone, it.Path)
			}
		}
	}
	return added, gone
}

// When a shelf is left for a new one: its file is mostly what nobody shows any
// more, or its newest index lies in too many parts.
const (
	maxIndexParts = 1024
	freeGarbage   = 1 << 20
)

// takes reports whether a shelf can take another generation.
func (s *shelf) takes(now *generation) bool {
	return s != nil && now != nil && !now.broken.Load() && s.parts < maxIndexParts && now.plain.end <= 2*now.plain.size+freeGarbage
}

// store writes a generation and makes it the newest on disk. Onto s, where it
// is not nil:
//  1. append the header, the chunks that changed and the change of paths;
//     sync the three files;
//  2. write "head" beside the one there is, sync it, rename it over that one,
//     sync the directory.
//
// Or else onto a new shelf:
//  1. everything into a directory of its own, each file synced, "head" last;
//  2. sync that directory, rename it to its name, sync the parent;
//  3. remove what is older than the last two.
//
// A crash before 2 leaves bytes that no head names, or a directory that the next
// store clears; after it, the generation is whole.
func store(dir string, s *shelf, m *release.Manifest, head release.Channel, chunks []chunk, table *paths) (*generation, *shelf, error) {
	fail := func(err error) (*generation, *shelf, error) {
		return nil, nil, fmt.Errorf("write index of %s at %d: %w", head.Target, head.Timestamp, err)
	}
	grow := s != nil
	next := &shelf{placed: make(map[*binhost.Chunk]*placed, len(chunks)), chunks: make([]*binhost.Chunk, len(chunks)), paths: sha256.New()}
	final := filepath.Join(dir, prefix+strconv.FormatInt(head.Timestamp, 10))
	if grow {
		next.dir, next.paths, next.z = s.dir, s.paths, s.z
	} else {
		next.dir = filepath.Join(dir, unready)
		if err := errors.Join(os.RemoveAll(next.dir), os.MkdirAll(next.dir, 0o755)); err != nil {
			return fail(err)
		}
	}
	d, err := next.write(m, head, chunks, table, grow)
	if err != nil {
		return fail(err)
	}
	enc, err := build.Marshal(d)
	if err != nil {
		return fail(err)
	}
	name := headName
	if grow {
		name = unready
	}
	if err := writeSynced(filepath.Join(next.dir, name), enc); err != nil {
		return fail(err)
	}
	if grow {
		if err := errors.Join(os.Rename(filepath.Join(next.dir, unready), filepath.Join(next.dir, headName)), syncDir(next.dir)); err != nil {
			return fail(err)
		}
	} else {
		if err := errors.Join(syncDir(next.dir), os.RemoveAll(final)); err != nil {
			return fail(err)
		}
		if err := errors.Join(os.Rename(next.dir, final), syncDir(dir)); err != nil {
			return fail(err)
		}
		next.dir = final
		names, err := stored(dir)
		if err != nil {
			return fail(err)
		}
		for _, old := range names[min(keepDirs, len(names)):] {
			if err := os.RemoveAll(filepath.Join(dir, old)); err != nil {
				return fail(err)
			}
		}
	}
	g := d.generation(next.dir)
	next.parts = len(g.plain.parts)
	return g, next, nil
}

// write does step 1 of store.
func (s *shelf) write(m *release.Manifest, head release.Channel, chunks []chunk, table *paths, grow bool) (*description, error) {
	plain, err1 := appendTo(filepath.Join(s.dir, plainName), grow)
	packed, err2 := appendTo(filepath.Join(s.dir, gzipName), grow)
	listed, err3 := appendTo(filepath.Join(s.dir, pathsName), grow)
	w := &writer{plain: plain, packed: packed, z: s.z}
	d := &description{Head: head, Packages: len(m.Entries), Turn: table.turn}
	err := errors.Join(err1, err2, err3)
	if err == nil {
		err = w.all(s, d, binhost.AppendHeader(nil, m, head), chunks, grow)
	}
	if err == nil {
		err = table.writeTo(io.MultiWriter(listed, s.paths), grow)
		d.Paths, s.z = written{0, listed.end, s.paths.Sum(nil)}, w.z
	}
	return d, errors.Join(err, plain.finish(err), packed.finish(err), listed.finish(err))
}

// writer writes pieces of both indexes.
type writer struct {
	plain, packed *appended
	z             *gzip.Writer
	text          []byte
	member        bytes.Buffer
}

func (w *writer) all(s *shelf, d *description, header []byte, chunks []chunk, grow bool) error {
	plain, packed, err := w.put(header)
	if err != nil {
		return err
	}
	d.Plain, d.Gzip = append(make([]written, 0, len(chunks)+1), plain), append(make([]written, 0, len(chunks)+1), packed)
	for i, c := range chunks {
		p := c.placed
		if c.fresh || !grow {
			w.text = c.Append(w.text[:0])
			p = &placed{cids: c.cids}
			if p.plain, p.gzip, err = w.put(w.text); err != nil {
				return err
			}
		}
		s.chunks[i], s.placed[c.Chunk] = c.Chunk, p
		d.Plain, d.Gzip = append(d.Plain, p.plain), append(d.Gzip, p.gzip)
	}
	return nil
}

// put writes text, and a gzip member of it. The member is a function of the
// text: no name, no time, one level.
func (w *writer) put(text []byte) (plain, packed written, err error) {
	if plain, err = w.plain.put(text); err != nil {
		return plain, packed, err
	}
	w.member.Reset()
	if w.z == nil {
		if w.z, err = gzip.NewWriterLevel(&w.member, gzipLevel); err != nil {
			return plain, packed, fmt.Errorf("compress index: %w", err)
		}
	} else {
		w.z.Reset(&w.member)
	}
	if _, err := w.z.Write(text); err != nil {
		return plain, packed, fmt.Errorf("compress index: %w", err)
	}
	if err := w.z.Close(); err != nil {
		return plain, packed, fmt.Errorf("compress index: %w", err)
	}
	packed, err = w.packed.put(w.member.Bytes())
	return plain, packed, err
}

// appended is a file that grows.
type appended struct {
	*bufio.Writer
	f   *os.File
	end int64 // with what is buffered
}

// appendTo opens a file to write at its end. One that is not there is made,
// unless it should be.
func appendTo(name string, there bool) (*appended, error) {
	flags := os.O_WRONLY | os.O_APPEND
	if !there {
		flags |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(name, flags, 0o644)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &appended{bufio.NewWriterSize(f, 64<<10), f, info.Size()}, nil
}

// Write writes at the end.
func (a *appended) Write(b []byte) (int, error) {
	n, err := a.Writer.Write(b)
	a.end += int64(n)
	return n, err
}

func (a *appended) put(b []byte) (written, error) {
	sum := sha256.Sum256(b)
	p := written{a.end, int64(len(b)), sum[:]}
	_, err := a.Write(b)
	return p, err
}

// finish flushes and syncs, unless writing failed before, and closes.
func (a *appended) finish(failed error) error {
	if a == nil {
		return nil
	}
	var err error
	if failed == nil {
		if err = a.Flush(); err == nil {
			err = a.f.Sync()
		}
	}
	return errors.Join(err, a.f.Close())
}

func writeSynced(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

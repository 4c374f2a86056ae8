package httpgateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/httpgateway/binhost"
)

// paths is the table from path to blob, of this generation and those before it.
// It is immutable. Most of it is shared with the table before: base is made
// anew only when an eighth of it has changed.
type paths struct {
	turn int64 // counts generations
	base map[string]known
	more map[string]known // listed since base was made
	gone map[string]int64 // not listed any more: the turn of the last generation that did

	// What the last turn changed, for the file.
	added   []known
	removed []string
}

type known struct {
	item binhost.Item
	cid  cid.Cid // item.CID
	etag string
}

func newKnown(it binhost.Item, c cid.Cid) known { return known{it, c, `"` + it.CID + `"`} }

// maxPaths bounds the table over all generations.
const maxPaths = 4 * release.MaxEntries

// find returns what a path names, if one of the last generations listed it.
func (p *paths) find(path string) (known, bool) {
	k, ok := p.more[path]
	if !ok {
		k, ok = p.base[path]
	}
	return k, ok && !p.forgotten(path)
}

func (p *paths) forgotten(path string) bool {
	last, gone := p.gone[path]
	return gone && last <= p.turn-generations
}

// next is the table of the next generation: it lists added and lists removed no
// more. A path may be in both.
func (p *paths) next(added []known, removed []string) *paths {
	n := &paths{turn: p.turn + 1, base: p.base, more: maps.Clone(p.more), gone: maps.Clone(p.gone), added: added, removed: removed}
	if n.more == nil {
		n.more = make(map[string]known, len(added))
	}
	if n.gone == nil {
		n.gone = map[string]int64{}
	}
	for _, path := range removed {
		n.gone[path] = p.turn
	}
	for _, k := range added {
		n.more[k.item.Path] = k
		delete(n.gone, k.item.Path)
	}
	if len(n.more)+len(n.gone) > len(n.base)/8+perRebuild {
		n.rebuild()
	}
	return n
}

// replace is next for a generation that is not known to follow p's: all it
// lists is given.
func (p *paths) replace(all []known) *paths {
	n := p.next(all, nil)
	listed := make(map[string]bool, len(all))
	for _, k := range all {
		listed[k.item.Path] = true
	}
	for path := range n.each() {
		if _, gone := n.gone[path]; !gone && !listed[path] {
			n.gone[path] = p.turn
		}
	}
	n.rebuild()
	return n
}

// perRebuild is how much a small table may change before its base is made anew.
const perRebuild = 256

// rebuild makes base of all that is not forgotten.
func (p *paths) rebuild() {
	full := len(p.base)+len(p.more) > maxPaths // only a hostile board gets here
	base := make(map[string]known, len(p.base)+len(p.more))
	for path, k := range p.each() {
		_, gone := p.gone[path]
		if p.forgotten(path) || full && gone {
			delete(p.gone, path)
			continue
		}
		base[path] = k
	}
	p.base, p.more = base, nil
}

// each yields all paths, in any order, some of them twice.
func (p *paths) each() func(yield func(string, known) bool) {
	return func(yield func(string, known) bool) {
		for path, k := range p.base {
			if !yield(path, k) {
				return
			}
		}
		for path, k := range p.more {
			if !yield(path, k) {
				return
			}
		}
	}
}

// writeTo writes what the last turn changed, or all: a line "+ CID SIZE MTIME
// PATH" for what is listed, "- TURN PATH" for what is not any more.
func (p *paths) writeTo(w io.Writer, change bool) error {
	b := make([]byte, 0, 64<<10)
	flush := func(least int) error {
		if len(b) < least {
			return nil
		}
		_, err := w.Write(b)
		b = b[:0]
		return err
	}
	line := func(k known) error {
		b = fmt.Appendln(b, "+", k.item.CID, k.item.Size, k.item.MTime, k.item.Path)
		return flush(60 << 10)
	}
	dash := func(path string, turn int64) error {
		b = fmt.Appendln(b, "-", turn, path)
		return flush(60 << 10)
	}
	if change {
		for _, path := range p.removed {
			if err := dash(path, p.turn-1); err != nil {
				return err
			}
		}
		for _, k := range p.added {
			if err := line(k); err != nil {
				return err
			}
		}
		return flush(1)
	}
	all := maps.Collect(p.each())
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if err := line(all[path]); err != nil {
			return err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(p.gone)) {
		if err := dash(path, p.gone[path]); err != nil {
			return err
		}
	}
	return flush(1)
}

// loadPaths reads the first n bytes of what writeTo wrote.
func loadPaths(name string, n, turn int64) (*paths, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	p, err := readPaths(io.LimitReader(f, n), turn)
	return p, errors.Join(err, f.Close())
}

func readPaths(r io.Reader, turn int64) (*paths, error) {
	p := &paths{turn: turn, base: map[string]known{}, gone: map[string]int64{}}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		fs := strings.Split(sc.Text(), " ")
		switch {
		case len(fs) == 5 && fs[0] == "+" && len(p.base) <= maxPaths+release.MaxEntries:
			c, err1 := cas.Parse(fs[1])
			size, err2 := strconv.ParseInt(fs[2], 10, 64)
			mtime, err3 := strconv.ParseInt(fs[3], 10, 64)
			if err := errors.Join(err1, err2, err3); err != nil {
				return nil, fmt.Errorf("%w: table of paths: %w", errDamaged, err)
			}
			p.base[fs[4]] = newKnown(binhost.Item{Path: fs[4], CID: fs[1], Size: size, MTime: mtime}, c)
			delete(p.gone, fs[4])
		case len(fs) == 3 && fs[0] == "-":
			last, err := strconv.ParseInt(fs[1], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%w: table of paths: %w", errDamaged, err)
			}
			p.gone[fs[2]] = last
		default:
			return nil, fmt.Errorf("%w: table of paths", errDamaged)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%w: table of paths: %w", errDamaged, err)
	}
	return p, nil
}

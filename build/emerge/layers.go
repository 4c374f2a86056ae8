package emerge

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
)

// Roots are cached as layers: what installing some packages above a base, or
// above another layer, changed. A job starts from the largest layer whose
// packages all belong to its root, never from one that holds a package more:
// what is there is found by builds. The order of packages within a layer is
// that of the job that made it.
const (
	// maxPerLayer packages are installed into one layer, so that jobs whose
	// lists begin alike share the beginning.
	maxPerLayer = 10
	// maxDepth layers stand over one another; one more, and they become one.
	maxDepth = 20
)

// layerEntry is one installed package of a root, by what it was built from.
type layerEntry struct {
	CPV  build.CPV `json:"cpv"`
	Slot string    `json:"slot"`
	From string    `json:"from"` // build key, or CID of a seed
}

func entryOf(e build.RootEntry) layerEntry {
	return layerEntry{CPV: e.CPV, Slot: e.Slot, From: cmp.Or(string(e.Key), e.Seed)}
}

// layer is one cached layer.
type layer struct {
	ID      string       `json:"id"`
	Base    string       `json:"base"`             // digest
	Parent  string       `json:"parent,omitempty"` // ID of the layer below; "" = the base
	Entries []layerEntry `json:"entries"`          // all that the root has above the base, in order
	Bytes   int64        `json:"bytes"`
	Millis  int64        `json:"ms"` // what installing took

	used time.Time
	job  build.Key // the newest whose whole root it is; "" = of none
}

// layerID names the root that a base and a list make.
func layerID(baseDigest string, list []layerEntry) string {
	h := sha256.New()
	fmt.Fprintf(h, "root %s\n", baseDigest)
	for _, e := range list {
		fmt.Fprintf(h, "%s %s %s\n", e.CPV, e.Slot, e.From)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// chooseLayer picks the layer to start from: the one with the most packages of
// those whose packages all stand in want; nil if none does. Among equals the
// one that was used last.
func chooseLayer(layers []*layer, baseDigest string, want []layerEntry) *layer {
	wanted := make(map[layerEntry]bool, len(want))
	for _, e := range want {
		wanted[e] = true
	}
	var best *layer
	for _, l := range layers {
		if l.Base != baseDigest || len(l.Entries) > len(want) || slices.ContainsFunc(l.Entries, func(e layerEntry) bool { return !wanted[e] }) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(len(l.Entries), len(best.Entries)), l.used.Compare(best.used), cmp.Compare(best.ID, l.ID)) > 0 {
			best = l
		}
	}
	return best
}

// evictLayers picks the next layer to remove so that the rest fits quota bytes:
// of those that nothing stands on and nobody uses, the longest unused; nil if
// the rest fits, or if there is none.
func evictLayers(layers []*layer, quota int64, busy map[*layer]bool) *layer {
	var sum int64
	for _, l := range layers {
		sum += l.Bytes
	}
	if sum <= quota {
		return nil
	}
	var oldest *layer
	for _, l := range layers {
		if busy[l] || slices.ContainsFunc(layers, func(o *layer) bool { return o.Parent == l.ID }) {
			continue
		}
		if oldest == nil || cmp.Or(l.used.Compare(oldest.used), cmp.Compare(l.ID, oldest.ID)) < 0 {
			oldest = l
		}
	}
	return oldest
}

// layerCache keeps layers below a directory, for all builds of a peer, each of
// which may be a process of its own:
//
//	DIR/ID/layer.json   what it is
//	DIR/ID/lock         held (shared) while a build stands on the layer
//	DIR/ID/job          the newest job whose whole root it is, if it is of one
//	DIR/ID/fs/          what changed, as overlayfs keeps it
//	DIR/turn            held while a layer is made or removed: one at a time
//	DIR/tmp-*           on its way in or out; whoever has the turn removes others'
type layerCache struct {
	dir   string
	quota int64 // bytes
}

// held is a layer with those below it, kept from being removed until give.
type held struct {
	chain []*layer // the topmost first
	locks []*os.File
}

// top is the layer that a root ends with; nil = it is the base alone.
func (h *held) top() *layer {
	if h == nil || len(h.chain) == 0 {
		return nil
	}
	return h.chain[0]
}

func (h *held) give() {
	if h == nil {
		return
	}
	now := time.Now()
	for _, f := range h.locks {
		_ = os.Chtimes(f.Name(), now, now) // when it was used last; a hint
		_ = f.Close()                      // unlocks
	}
	h.chain, h.locks = nil, nil
}

// list reads what is cached. Layers whose parent is gone are not in it.
func (c *layerCache) list() ([]*layer, error) {
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read cache of roots: %w", err)
	}
	byID := map[string]*layer{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(c.dir, e.Name(), "layer.json"))
		l := &layer{}
		if err != nil || json.Unmarshal(b, l) != nil || l.ID != e.Name() {
			continue
		}
		if info, err := os.Stat(filepath.Join(c.dir, l.ID, "lock")); err == nil {
			l.used = info.ModTime()
		}
		if k, err := os.ReadFile(filepath.Join(c.dir, l.ID, "job")); err == nil {
			l.job = build.Key(k)
		}
		byID[l.ID] = l
	}
	var out []*layer
	for _, l := range byID {
		if chain := chainOf(byID, l); chain != nil {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *layer) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// chainOf is a layer and those below it; nil if one is missing.
func chainOf(byID map[string]*layer, l *layer) []*layer {
	var out []*layer
	for n := 0; ; n++ {
		if l == nil || n > 2*maxDepth {
			return nil
		}
		out = append(out, l)
		if l.Parent == "" {
			return out
		}
		l = byID[l.Parent]
	}
}

// take finds the layer to start from, and holds it and those below it.
func (c *layerCache) take(baseDigest string, want []layerEntry) (*held, error) {
	for {
		all, err := c.list()
		if err != nil {
			return nil, err
		}
		l := chooseLayer(all, baseDigest, want)
		if l == nil {
			return &held{}, nil
		}
		byID := map[string]*layer{}
		for _, o := range all {
			byID[o.ID] = o
		}
		h, err := c.hold(chainOf(byID, l))
		if h != nil || err != nil {
			return h, err
		}
		// One was removed in between: look again.
	}
}

// hold locks layers; nil if one is gone.
func (c *layerCache) hold(chain []*layer) (*held, error) {
	h := &held{chain: chain}
	for _, l := range chain {
		path := filepath.Join(c.dir, l.ID, "lock")
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			h.locks = append(h.locks, f)
			err = flock(f, unix.LOCK_SH)
		}
		if err == nil {
			// Whoever removes a layer renames it first.
			_, err = os.Stat(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			h.give()
			return nil, nil
		}
		if err != nil {
			h.give()
			return nil, fmt.Errorf("hold layer: %w", err)
		}
	}
	return h, nil
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// takeTurn waits until no other build makes a layer, and removes what a killed
// one left.
func (c *layerCache) takeTurn(ctx context.Context) (release func(), err error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("open cache of roots: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(c.dir, "turn"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open cache of roots: %w", err)
	}
	for {
		err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock cache of roots: %w", err), f.Close())
		}
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, errors.Join(cancelled(ctx), f.Close())
		}
	}
	release = func() { _ = f.Close() } // closing unlocks
	left, err := filepath.Glob(filepath.Join(c.dir, "tmp-*"))
	for _, d := range left {
		err = errors.Join(err, removeTree(ctx, d))
	}
	if err != nil {
		release()
		return nil, fmt.Errorf("clean cache of roots: %w", err)
	}
	return release, nil
}

// stack lists the directories of held layers, the topmost first.
func (c *layerCache) stack(h *held) []string {
	if h == nil {
		return nil
	}
	var out []string
	for _, l := range h.chain {
		out = append(out, filepath.Join(c.dir, l.ID, "fs"))
	}
	return out
}

// temp makes a directory for a layer on its way in. The caller has the turn.
func (c *layerCache) temp() (string, error) {
	dir, err := os.MkdirTemp(c.dir, "tmp-")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "fs"), 0o755))
	}
	if err != nil {
		return "", fmt.Errorf("make layer: %w", err)
	}
	return dir, nil
}

// keep takes a directory of temp's into the cache, above the held ones, and
// holds it too. What was held below stays so. The caller has the turn.
func (c *layerCache) keep(ctx context.Context, tmp string, l *layer, on *held) (*held, error) {
	l.ID = layerID(l.Base, l.Entries)
	if below := on.top(); below != nil {
		l.Parent = below.ID
	}
	if len(on.chain) >= maxDepth {
		if err := c.flatten(tmp, l, on); err != nil {
			return nil, err
		}
	}
	var err error
	if l.Bytes, err = base.Usage(ctx, filepath.Join(tmp, "fs")); err != nil {
		return nil, fmt.Errorf("measure layer: %w", err)
	}
	b, err := json.Marshal(l)
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(tmp, "lock"), nil, 0o644), os.WriteFile(filepath.Join(tmp, "layer.json"), b, 0o644))
	}
	// The overlay that wrote it was told not to sync: a layer with a name is
	// whole, also after a power cut.
	if err == nil {
		err = syncTree(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(c.dir, l.ID))
	}
	if err != nil {
		return nil, fmt.Errorf("keep layer: %w", err)
	}
	chain := []*layer{l}
	if l.Parent != "" {
		chain = append(chain, on.chain...)
	}
	h, err := c.hold(chain)
	if err != nil || h == nil {
		return nil, fmt.Errorf("keep layer: it is gone: %w", err)
	}
	on.give()
	return h, c.evict(ctx)
}

// evict removes layers until the rest fits the quota. The caller has the turn.
func (c *layerCache) evict(ctx context.Context) error {
	all, err := c.list()
	if err != nil {
		return err
	}
	busy := map[*layer]bool{}
	for {
		out := evictLayers(all, c.quota, busy)
		if out == nil {
			return nil
		}
		gone, err := c.remove(ctx, out)
		if err != nil {
			return fmt.Errorf("make room in the cache of roots: %w", err)
		}
		if gone {
			all = slices.DeleteFunc(all, func(l *layer) bool { return l == out })
		} else {
			busy[out] = true
		}
	}
}

// remove removes a layer that nobody holds.
func (c *layerCache) remove(ctx context.Context, l *layer) (bool, error) {
	dir := filepath.Join(c.dir, l.ID)
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, nil // somebody stands on it
	}
	trash := filepath.Join(c.dir, "tmp-gone-"+l.ID)
	if err := os.Rename(dir, trash); err != nil {
		return false, err
	}
	return true, removeTree(ctx, trash)
}

// flatten makes the layer in tmp hold what those below it hold too, so that it
// stands on the base alone. Files are linked, not copied: layers are not
// written to.
func (c *layerCache) flatten(tmp string, l *layer, on *held) error {
	flat := filepath.Join(tmp, "flat")
	if err := os.Mkdir(flat, 0o755); err != nil {
		return fmt.Errorf("flatten layers: %w", err)
	}
	dirs := append([]string{filepath.Join(tmp, "fs")}, c.stack(on)...)
	for _, d := range slices.Backward(dirs) {
		if err := base.Overlay(d, flat); err != nil {
			return fmt.Errorf("flatten layers: %w", err)
		}
	}
	top := filepath.Join(tmp, "fs")
	if err := errors.Join(os.RemoveAll(top), os.Rename(flat, top)); err != nil {
		return fmt.Errorf("flatten layers: %w", err)
	}
	l.Parent = ""
	return nil
}

// sizes says how many layers there are and what they take.
func (c *layerCache) sizes() (n int, bytes int64, err error) {
	all, err := c.list()
	for _, l := range all {
		bytes += l.Bytes
	}
	return len(all), bytes, err
}

func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// removeTree removes a directory that builds wrote into, whose files may belong
// to ids that only a sandbox has.
func removeTree(ctx context.Context, dir string) error {
	err := os.RemoveAll(dir)
	if errors.Is(err, fs.ErrPermission) {
		return sandbox.Do(context.WithoutCancel(ctx), base.OpRemove, dir, nil, nil)
	}
	return err
}

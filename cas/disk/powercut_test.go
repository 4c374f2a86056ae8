package disk

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
)

// cutting records what a power cut would leave: the bytes of files as of their
// last fsync, the names in directories as of theirs.
type cutting struct {
	faulty
	root    string
	files   map[string]*inode            // now, by path
	durable map[string]map[string]*inode // directory -> name -> file
	dirs    map[string]bool              // exist now
}

type inode struct {
	synced []byte
	ever   bool // was fsynced
}

func newCutting(root string, step func()) *cutting {
	c := &cutting{root: root, files: map[string]*inode{}, durable: map[string]map[string]*inode{}, dirs: map[string]bool{}}
	c.osFiles = newOSFiles()
	c.before = func(string, string) error { step(); return nil }
	return c
}

type cuttingFile struct {
	file
	path string
	node *inode
	c    *cutting
}

func (c *cutting) Create(path string) (file, error) {
	f, err := c.faulty.Create(path)
	if err != nil {
		return nil, err
	}
	n := &inode{}
	c.files[path] = n
	return &cuttingFile{f, path, n, c}, nil
}

func (c *cutting) Mkdir(path string) error {
	c.dirs[path] = true
	return c.faulty.Mkdir(path)
}

func (c *cutting) Rename(from, to string) error {
	if err := c.faulty.Rename(from, to); err != nil {
		return err
	}
	c.files[to] = c.files[from]
	delete(c.files, from)
	return nil
}

func (c *cutting) Remove(path string) error {
	if err := c.faulty.Remove(path); err != nil {
		return err
	}
	delete(c.files, path)
	return nil
}

func (c *cutting) SyncDir(path string) error {
	if err := c.faulty.SyncDir(path); err != nil {
		return err
	}
	c.durable[path] = c.names(path)
	return nil
}

// names are the entries of a directory now; directories have no inode.
func (c *cutting) names(dir string) map[string]*inode {
	m := map[string]*inode{}
	for p, n := range c.files {
		if filepath.Dir(p) == dir {
			m[filepath.Base(p)] = n
		}
	}
	for p := range c.dirs {
		if filepath.Dir(p) == dir {
			m[filepath.Base(p)] = nil
		}
	}
	return m
}

func (f *cuttingFile) Sync() error {
	if err := f.file.Sync(); err != nil {
		return err
	}
	for p, n := range f.c.files { // it may have another name by now
		if n == f.node {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			f.node.synced, f.node.ever = b, true
		}
	}
	return nil
}

// cut builds the directory that the machine finds when it is on again. pick
// says of each name that differs from the durable one whether it got there, and
// garbage what is in a file that was never fsynced.
func (c *cutting) cut(to string, pick func() bool, garbage func() []byte) error {
	var build func(from, to string) error
	build = func(from, to string) error {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		got, now := maps.Clone(c.durable[from]), c.names(from)
		if got == nil {
			got = map[string]*inode{}
		}
		for name, n := range now {
			if old, ok := got[name]; (!ok || old != n) && pick() {
				got[name] = n
			}
		}
		for name := range got {
			if _, ok := now[name]; !ok && pick() {
				delete(got, name)
			}
		}
		for name, n := range got {
			var err error
			switch path := filepath.Join(to, name); {
			case n == nil:
				err = build(filepath.Join(from, name), path)
			case n.ever:
				err = os.WriteFile(path, n.synced, 0o644)
			default:
				err = os.WriteFile(path, garbage(), 0o644)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return build(c.root, to)
}

type powerCut struct{}

// A power cut before each change to the file system, with nothing, everything
// or some of what was not fsynced on the disk, in turn. The second half of the work runs
// in a store that was closed in order and opened again.
func TestAPowerCutLosesNothingAcknowledged(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	garbage := func() []byte {
		switch r.IntN(3) {
		case 0:
			return nil
		case 1:
			return make([]byte, r.IntN(300_000))
		default:
			return fmt.Appendf(nil, "old bytes of another file %d", r.Int())
		}
	}
	picks := []struct {
		name string
		pick func() bool
	}{
		{"nothing", func() bool { return false }}, {"everything", func() bool { return true }},
		{"some", func() bool { return r.IntN(2) == 0 }},
	}
	step := stride(4)
	for k, done := 0, false; !done; k += step {
		dir, acked, gone := t.TempDir(), map[cid.Cid]bool{}, map[cid.Cid]bool{}
		n := 0
		c := newCutting(dir, func() {
			if n++; n > k {
				panic(powerCut{})
			}
		})
		func() {
			defer func() {
				if e := recover(); e != nil {
					if _, ok := e.(powerCut); !ok {
						panic(e)
					}
				}
			}()
			for range 2 {
				s, err := openWith(dir, quiet(Options{}), c)
				if err != nil {
					t.Fatal(err)
				}
				defer s.lock.Close()
				if errs := work(s, func(c cid.Cid) { acked[c] = true }, func(c cid.Cid) { delete(acked, c); gone[c] = true }); len(errs) > 0 {
					t.Fatal(errs)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			done = true
		}()
		name, pick := picks[k%3].name, picks[k%3].pick
		after := filepath.Join(t.TempDir(), "after")
		if err := c.cut(after, pick, garbage); err != nil {
			t.Fatal(err)
		}
		// A moment later: times of this machine must not matter.
		s, err := Open(after, quiet(Options{Now: func() time.Time { return time.Now().Add(time.Second) }}))
		if err != nil {
			t.Fatalf("cut %d, %s got to the disk: %v", k, name, err)
		}
		abandonPartials(t, s)
		audit(t, s, acked)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("cut %d, %s got to the disk", k, name)
		}
	}
}

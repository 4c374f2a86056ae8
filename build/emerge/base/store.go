package base

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
	"github.com/build-swarm/swarm/cas"
)

var (
	// ErrNoBase is wrapped where a name or digest means no base here.
	ErrNoBase = errors.New("no such base")
	// ErrOtherHost is wrapped where a host base is another machine's.
	ErrOtherHost = errors.New("the base is another machine's own root")
)

// Blobs is where manifests and archives are kept: with the other blobs of the
// swarm.
type Blobs interface {
	// Open opens a blob, which is fetched from its holders if it is not here.
	Open(ctx context.Context, c cid.Cid) (io.ReadCloser, error)
	// Put stores a blob, and says so to the swarm.
	Put(ctx context.Context, r io.Reader) (cas.Info, error)
}

// Store keeps the bases of one peer. It may be used concurrently.
type Store struct {
	dir   string
	blobs Blobs
	hide  []string
	arch  string

	mu   sync.Mutex // one base is made or unpacked at a time
	made map[string]*Root
}

// Root is a base that builds can start from.
type Root struct {
	Ref      build.BaseRef
	Manifest *build.Base
	// Lower are its directories for an overlay, the topmost first, and Machine
	// what is below them: for a host base there is nothing else.
	Lower   []string
	Machine *sandbox.Machine
}

// Database lists the directories in which its installed packages are found, the
// topmost first: what Packages takes.
func (r *Root) Database() []string {
	if r.Machine != nil {
		return append(slices.Clone(r.Lower), "/")
	}
	return r.Lower
}

// New makes a Store below dir. hide are directories of this machine that no
// build may see in a host base, beside those that are known. arch is this
// machine's, as Portage names it. It does no I/O.
func New(dir string, blobs Blobs, arch string, hide ...string) *Store {
	return &Store{dir: dir, blobs: blobs, hide: hide, arch: arch, made: map[string]*Root{}}
}

// Sweep removes what a process that was killed left half made.
func (s *Store) Sweep(ctx context.Context) error {
	left, err := filepath.Glob(filepath.Join(s.dir, "tmp-*"))
	if err != nil {
		return fmt.Errorf("look for half-made bases: %w", err)
	}
	for _, d := range left {
		if err := removeAll(ctx, d); err != nil {
			return fmt.Errorf("remove half-made base: %w", err)
		}
	}
	return nil
}

// removeAll removes a directory whose files may belong to ids of sandboxes.
func removeAll(ctx context.Context, dir string) error {
	err := os.RemoveAll(dir)
	if errors.Is(err, fs.ErrPermission) {
		return sandbox.Do(ctx, OpRemove, dir, nil, nil)
	}
	return err
}

// Named is a base by the name that it has here.
type Named struct {
	Name        string       `json:"name"`
	Generations []Generation `json:"generations"` // oldest first
}

// Newest is what the name means now.
func (n Named) Newest() build.BaseRef {
	return build.BaseRef{Name: n.Name, Digest: n.Generations[len(n.Generations)-1].Digest}
}

// Names lists the bases that have a name here, sorted.
func (s *Store) Names() ([]Named, error) {
	files, err := os.ReadDir(filepath.Join(s.dir, "names"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list bases: %w", err)
	}
	var out []Named
	for _, f := range files {
		if !build.ValidTarget(f.Name()) {
			continue
		}
		n, err := s.Named(f.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// Named finds a base by its name; ErrNoBase if it means nothing here.
func (s *Store) Named(name string) (Named, error) {
	if !build.ValidTarget(name) {
		return Named{}, fmt.Errorf("find base %q: %w: a name is a short word of a-z, 0-9, dot, dash", name, ErrNoBase)
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "names", name))
	if errors.Is(err, fs.ErrNotExist) {
		return Named{}, fmt.Errorf("find base %s: %w", name, ErrNoBase)
	}
	n := Named{Name: name}
	if err == nil {
		err = json.Unmarshal(b, &n.Generations)
	}
	if err == nil && len(n.Generations) == 0 {
		err = ErrNoBase
	}
	if err != nil {
		return Named{}, fmt.Errorf("read base %s: %w", name, err)
	}
	return n, nil
}

// name lets a name mean a digest from now on.
func (s *Store) name(ref build.BaseRef) error {
	n, err := s.Named(ref.Name)
	if err != nil && !errors.Is(err, ErrNoBase) {
		return err
	}
	if len(n.Generations) > 0 && n.Newest().Digest == ref.Digest {
		return nil
	}
	return s.write(ref.Name, append(n.Generations, Generation{Digest: ref.Digest, Added: time.Now().UTC().Truncate(time.Second)}))
}

// write says which generations a name means.
func (s *Store) write(name string, list []Generation) error {
	b, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("name base %s: %w", name, err)
	}
	dir := filepath.Join(s.dir, "names")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("name base %s: %w", name, err)
	}
	tmp := filepath.Join(s.dir, "tmp-name-"+name)
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("name base %s: %w", name, err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("name base %s: %w", name, err)
	}
	return nil
}

// Forget takes a name away, and the unpacked directories that no other name
// means. The blobs stay as long as the swarm has a use for them.
func (s *Store) Forget(ctx context.Context, name string) error {
	gone, err := s.Named(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Remove(filepath.Join(s.dir, "names", name)); err != nil {
		return fmt.Errorf("forget base %s: %w", name, err)
	}
	for _, g := range gone.Generations {
		if err := s.discard(ctx, g.Digest); err != nil {
			return fmt.Errorf("forget base %s: %w", name, err)
		}
	}
	return nil
}

func validDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && strings.ToLower(s) == s
}

// Manifest reads the manifest of a base, which is fetched if it is not here.
func (s *Store) Manifest(ctx context.Context, ref build.BaseRef) (*build.Base, error) {
	if !validDigest(ref.Digest) {
		return nil, fmt.Errorf("find base %s: %w: digest %q", ref.Name, ErrNoBase, build.OneLine(ref.Digest, 80))
	}
	b, err := os.ReadFile(filepath.Join(s.dir, ref.Digest, "manifest"))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = s.fetchManifest(ctx, ref)
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest of base %s: %w", ref.Name, err)
	}
	man, err := build.ReadBase(b)
	if err != nil {
		return nil, fmt.Errorf("read manifest of base %s: %w", ref.Name, err)
	}
	// The directory's name is a promise; the hash keeps it.
	if got, err := man.Ref(ref.Name); err != nil || got.Digest != ref.Digest {
		return nil, fmt.Errorf("read manifest of base %s: %w: it is that of another base", ref.Name, build.ErrBase)
	}
	return man, nil
}

func (s *Store) fetchManifest(ctx context.Context, ref build.BaseRef) ([]byte, error) {
	c, err := ref.CID()
	if err != nil {
		return nil, err
	}
	r, err := s.blobs.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, build.MaxBase+1))
}

// Open brings a base to this machine and unpacks it, if that is not done, and
// says where it lies. It may take minutes the first time.
func (s *Store) Open(ctx context.Context, ref build.BaseRef) (*Root, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.made[ref.Digest]; r != nil {
		return r, s.touch(ref.Digest)
	}
	man, err := s.Manifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	if man.Kind == build.BaseHost {
		if err := sameHost(man); err != nil {
			return nil, fmt.Errorf("open base %s: %w", ref.Name, err)
		}
	}
	dir := filepath.Join(s.dir, ref.Digest)
	if err = s.touch(ref.Digest); errors.Is(err, fs.ErrNotExist) {
		err = s.layOut(ctx, ref, man, "")
	}
	if err != nil {
		return nil, fmt.Errorf("open base %s: %w", ref.Name, err)
	}
	r := &Root{Ref: ref, Manifest: man, Lower: []string{filepath.Join(dir, "root")}}
	if man.Kind == build.BaseHost {
		r.Lower = nil
		if r.Machine, err = machine(s.hide); err != nil {
			return nil, fmt.Errorf("open base %s: %w", ref.Name, err)
		}
	}
	s.made[ref.Digest] = r
	return r, nil
}

func sameHost(man *build.Base) error {
	if os.Geteuid() != 0 {
		return errors.New("a host base wants the daemon to run as root")
	}
	state, err := HostState()
	if err != nil {
		return err
	}
	if state != man.Host {
		return ErrOtherHost
	}
	return nil
}

// layOut lays a base out under its digest. from is a directory that holds its
// files already and is taken; "" = the archives are unpacked.
func (s *Store) layOut(ctx context.Context, ref build.BaseRef, man *build.Base, from string) (err error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(s.dir, "tmp-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeAll(context.WithoutCancel(ctx), tmp))
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	root := filepath.Join(tmp, "root")
	switch {
	case man.Kind == build.BaseHost:
		// The machine has it.
	case from != "":
		err = os.Rename(from, root)
	default:
		err = s.unpack(ctx, man, root)
	}
	if err != nil {
		return err
	}
	b, err := build.Marshal(man)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "manifest"), b, 0o644); err != nil {
		return err
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	err = os.Rename(tmp, filepath.Join(s.dir, ref.Digest))
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return removeAll(ctx, tmp) // it was there already
	}
	return err
}

// syncDir makes durable what was written into the file system of dir: a base
// that has its name is whole, also after a power cut.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

func (s *Store) unpack(ctx context.Context, man *build.Base, root string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, l := range man.Layers {
		c, err := cas.Parse(l.CID)
		if err != nil {
			return err
		}
		r, err := s.blobs.Open(ctx, c)
		if err != nil {
			return err
		}
		if os.Geteuid() == 0 {
			err = Unpack(ctx, r, root, l.Files)
		} else {
			err = sandbox.Do(ctx, OpUnpack, fmt.Sprintf("%d %s", l.Files, root), r, nil)
		}
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Operations for sandbox.Main: what takes the ids that builds have.
const (
	OpUnpack = "base-unpack" // "LIMIT DIR", archive on standard input
	OpRemove = "remove"      // DIR
	OpUsage  = "usage"       // DIR; bytes on standard output
)

// Ops are the operations, by name.
func Ops() map[string]sandbox.Op {
	return map[string]sandbox.Op{
		OpUnpack: func(ctx context.Context, arg string, in io.Reader, _ io.Writer) error {
			var limit int64
			n, dir, _ := strings.Cut(arg, " ")
			if _, err := fmt.Sscan(n, &limit); err != nil {
				return fmt.Errorf("unpack: limit %q", n)
			}
			return Unpack(ctx, in, dir, limit)
		},
		OpUsage:  opUsage,
		OpRemove: func(_ context.Context, arg string, _ io.Reader, _ io.Writer) error { return os.RemoveAll(arg) },
	}
}

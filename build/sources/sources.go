package sources

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/p2p"
)

// ErrRestricted is wrapped where a source that no program may download is with
// nobody.
var ErrRestricted = errors.New("it may not be downloaded by a program (RESTRICT=fetch)")

// Config is what a Sharer is made of.
type Config struct {
	Net   p2p.Network
	Store cas.Store
	// Fetch brings a blob into Store from the peers that hold it, Announce says
	// that it is there.
	Fetch    func(ctx context.Context, c cid.Cid, holders []string) error
	Announce func(ctx context.Context, c cid.Cid) error
	// Distdir is where this machine's Portage keeps what it downloaded; "" = none.
	Distdir func(context.Context) string
	// File remembers across restarts which blob a source is.
	File string
	// Poll is how often one that another downloads is asked for (0 = 1 s), and
	// Patience how long (0 = 15 min).
	Poll, Patience time.Duration
	Log            *slog.Logger
}

// Sharer shares the sources of one peer. It may be used concurrently.
type Sharer struct {
	cfg Config

	importing sync.Mutex // one file of DISTDIR is read at a time

	mu    sync.Mutex
	index map[string]cid.Cid // by hash
	marks map[string]*mark   // by hash: what this peer is about to download, or does
}

// mark is a source that a build here asks for or downloads.
type mark struct {
	by       build.Key
	download bool            // false: it is being asked for
	rivals   map[string]bool // peers that asked for it meanwhile
}

// Open reads what File remembers.
func Open(cfg Config) (*Sharer, error) {
	if cfg.Poll == 0 {
		cfg.Poll = time.Second
	}
	if cfg.Patience == 0 {
		cfg.Patience = 15 * time.Minute
	}
	s := &Sharer{cfg: cfg, index: map[string]cid.Cid{}, marks: map[string]*mark{}}
	f, err := os.Open(cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what sources are here: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		hash, name, _ := strings.Cut(lines.Text(), " ")
		c, err := cas.Parse(name)
		if err != nil {
			continue // half a line, of a power cut
		}
		if _, err := cfg.Store.Stat(c); err == nil {
			s.index[hash] = c
		}
	}
	return s, s.save()
}

// save writes the whole index.
func (s *Sharer) save() error {
	var b strings.Builder
	for hash, c := range s.index {
		fmt.Fprintf(&b, "%s %s\n", hash, c)
	}
	err := os.WriteFile(s.cfg.File+".tmp", []byte(b.String()), 0o644)
	if err == nil {
		err = os.Rename(s.cfg.File+".tmp", s.cfg.File)
	}
	if err != nil {
		return fmt.Errorf("note what sources are here: %w", err)
	}
	return nil
}

// know remembers which blob a source is.
func (s *Sharer) know(src build.Source, c cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index[src.Hash] == c {
		return
	}
	s.index[src.Hash] = c
	f, err := os.OpenFile(s.cfg.File, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err == nil {
		_, err = fmt.Fprintf(f, "%s %s\n", src.Hash, c)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		s.cfg.Log.Warn("what sources are here is forgotten by a restart", "error", err)
	}
}

// blobOf is the blob of a source that is in the store.
func (s *Sharer) blobOf(src build.Source) (cid.Cid, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.index[src.Hash]
	if !ok {
		return cid.Undef, false
	}
	if _, err := s.cfg.Store.Stat(c); err != nil {
		delete(s.index, src.Hash)
		return cid.Undef, false
	}
	return c, true
}

// Here is the blob of a source, if this peer has had it and it is still here.
func (s *Sharer) Here(src build.Source) (cid.Cid, bool) { return s.blobOf(src) }

// Bring puts into dir, which is made, what the swarm has of a job's sources. What
// it leaves out is the caller's to download, and others wait for it until Keep.
// The error wraps ErrRestricted, naming the file, where nobody may.
func (s *Sharer) Bring(ctx context.Context, job build.Key, list []build.Source, dir string) error {
	if err := os.MkdirAll(dir, 0o775); err != nil {
		return fmt.Errorf("fetch sources: %w", err)
	}
	began := time.Now()
	left := slices.DeleteFunc(slices.Clone(list), func(src build.Source) bool { return !src.Valid() })
	for {
		left = slices.DeleteFunc(left, func(src build.Source) bool { return s.here(ctx, src, dir) })
		waiting, err := s.contend(ctx, job, left, dir, time.Since(began) > s.cfg.Patience)
		if err != nil {
			s.unmark(job)
			return err
		}
		if len(waiting) == 0 {
			return nil
		}
		left = waiting
		timer := time.NewTimer(s.cfg.Poll)
		select {
		case <-ctx.Done():
			timer.Stop()
			s.unmark(job)
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// here puts a source into dir that the round brings or this machine has.
func (s *Sharer) here(ctx context.Context, src build.Source, dir string) bool {
	if c, ok := s.blobOf(src); ok && s.place(src, c, dir) {
		return true
	}
	if c, err := cas.Parse(src.CID); err == nil && s.take(ctx, src, c, nil, dir) {
		return true
	}
	c, ok := s.fromDistdir(ctx, src)
	return ok && s.place(src, c, dir)
}

// contend asks the peers for sources, fetches what they have and marks for download
// what is this peer's to download. It returns what somebody else is downloading,
// unless there is no patience left.
func (s *Sharer) contend(ctx context.Context, job build.Key, list []build.Source, dir string, impatient bool) (waiting []build.Source, err error) {
	var ours []build.Source
	s.mu.Lock()
	for _, src := range list {
		if m := s.marks[src.Hash]; m != nil && m.by != job {
			if !impatient {
				waiting = append(waiting, src) // another build here
			}
			continue
		}
		if _, ok := s.index[src.Hash]; ok { // it has come since it was looked for
			waiting = append(waiting, src)
			continue
		}
		s.marks[src.Hash] = &mark{by: job, rivals: map[string]bool{}}
		ours = append(ours, src)
	}
	s.mu.Unlock()
	if len(ours) == 0 {
		return waiting, nil
	}
	answers := s.ask(ctx, ours)
	for i, src := range ours {
		if s.fromPeers(ctx, src, i, answers, dir) {
			s.lift(job, src)
			continue
		}
		if src.Restricted {
			return nil, fmt.Errorf("%s: %w, and no peer has it: put it into DISTDIR of the machine that asks", src.Name, ErrRestricted)
		}
		if s.yields(src, i, answers, impatient) {
			waiting = append(waiting, src)
		}
	}
	return waiting, ctx.Err()
}

// fromPeers brings a source that some peer says it has.
func (s *Sharer) fromPeers(ctx context.Context, src build.Source, i int, answers map[string]reply, dir string) bool {
	for peer, a := range answers {
		if i < len(a.Answers) && a.Answers[i].State == held {
			if c, err := cas.Parse(a.Answers[i].CID); err == nil && s.take(ctx, src, c, []string{peer}, dir) {
				return true
			}
		}
	}
	return false
}

// yields decides, once everybody was asked, whether another peer downloads a
// source; if not, this one does from now on.
func (s *Sharer) yields(src build.Source, i int, answers map[string]reply, impatient bool) bool {
	self := s.cfg.Net.Self()
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.marks[src.Hash]
	another := false
	for peer, a := range answers {
		if i < len(a.Answers) {
			another = another || a.Answers[i].State == downloading || a.Answers[i].State == asking && peer < self
		}
	}
	for peer := range m.rivals {
		another = another || peer < self
	}
	if another && !impatient {
		delete(s.marks, src.Hash)
		return true
	}
	m.download = true
	return false
}

// lift ends the mark of a source.
func (s *Sharer) lift(job build.Key, src build.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.marks[src.Hash]; m != nil && m.by == job {
		delete(s.marks, src.Hash)
	}
}

// unmark ends all marks of a job.
func (s *Sharer) unmark(job build.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash, m := range s.marks {
		if m.by == job {
			delete(s.marks, hash)
		}
	}
}

// take fetches a blob that is said to be a source, and puts it into dir if it is.
func (s *Sharer) take(ctx context.Context, src build.Source, c cid.Cid, holders []string, dir string) bool {
	if _, err := s.cfg.Store.Stat(c); err != nil {
		if err := s.cfg.Fetch(ctx, c, holders); err != nil {
			s.cfg.Log.Info("a source could not be fetched from its holder", "file", src.Name, "error", err)
			return false
		}
	}
	if !s.place(src, c, dir) {
		return false
	}
	s.know(src, c)
	return true
}

// place copies a blob into dir under the source's name, if it is the source. A
// link would let Portage change owner and mode of the blob.
func (s *Sharer) place(src build.Source, c cid.Cid, dir string) bool {
	err := s.copyOut(src, c, dir)
	if err == nil {
		return true
	}
	s.cfg.Log.Warn("a blob is not used as a source", "file", src.Name, "cid", c.String(), "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index[src.Hash] == c {
		delete(s.index, src.Hash)
	}
	return false
}

func (s *Sharer) copyOut(src build.Source, c cid.Cid, dir string) (err error) {
	in, err := s.cfg.Store.Open(c)
	if err != nil {
		return err
	}
	defer in.Close()
	path := filepath.Join(dir, src.Name)
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	err = src.Check(io.TeeReader(in, out))
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Keep shares what a job has downloaded into dir, and lets nobody wait for it any
// longer. It may be called again.
func (s *Sharer) Keep(ctx context.Context, job build.Key, list []build.Source, dir string) {
	defer s.unmark(job)
	for _, src := range list {
		if !src.Valid() {
			continue
		}
		if _, ok := s.blobOf(src); ok {
			continue
		}
		switch _, err := s.store(ctx, src, filepath.Join(dir, src.Name)); {
		case err == nil || errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil:
		default:
			s.cfg.Log.Info("a source is not shared", "file", src.Name, "error", err)
		}
	}
}

// store keeps a file as the blob of a source, if it is the source.
func (s *Sharer) store(ctx context.Context, src build.Source, path string) (cid.Cid, error) {
	f, err := os.Open(path)
	if err != nil {
		return cid.Undef, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() != src.Size {
		return cid.Undef, errors.Join(err, fs.ErrNotExist)
	}
	if err := src.Check(f); err != nil {
		return cid.Undef, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return cid.Undef, err
	}
	// Whoever takes it checks it again: a file that is changed under our hands
	// becomes no source of anybody's.
	info, err := s.cfg.Store.Put(ctx, io.LimitReader(f, src.Size), cid.Undef)
	if err != nil {
		return cid.Undef, err
	}
	s.know(src, info.CID)
	return info.CID, s.cfg.Announce(ctx, info.CID)
}

// Distfile keeps a file of this machine's DISTDIR, for a round to bring; undefined
// if it is not there.
func (s *Sharer) Distfile(ctx context.Context, src build.Source) (cid.Cid, bool) {
	if c, ok := s.blobOf(src); ok {
		return c, true
	}
	return s.fromDistdir(ctx, src)
}

// Find is Distfile, and asks the peers too: what no program may download need not
// be on the machine that plans.
func (s *Sharer) Find(ctx context.Context, src build.Source) (cid.Cid, bool, error) {
	if c, ok := s.Distfile(ctx, src); ok {
		return c, true, nil
	}
	dir, err := os.MkdirTemp("", "swarm-source-")
	if err != nil {
		return cid.Undef, false, fmt.Errorf("look for %s: %w", src.Name, err)
	}
	defer os.RemoveAll(dir)
	found := s.fromPeers(ctx, src, 0, s.ask(ctx, []build.Source{src}), dir)
	c, ok := s.blobOf(src)
	return c, found && ok, ctx.Err()
}

// fromDistdir keeps what this machine's Portage has downloaded.
func (s *Sharer) fromDistdir(ctx context.Context, src build.Source) (cid.Cid, bool) {
	if s.cfg.Distdir == nil || !src.Valid() {
		return cid.Undef, false
	}
	dir := s.cfg.Distdir(ctx)
	if dir == "" {
		return cid.Undef, false
	}
	s.importing.Lock()
	defer s.importing.Unlock()
	if c, ok := s.blobOf(src); ok {
		return c, true
	}
	c, err := s.store(ctx, src, filepath.Join(dir, src.Name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Log.Info("a file of DISTDIR is not shared", "file", src.Name, "error", err)
	}
	return c, err == nil
}

// Package httpgatewaytest is a catalog in memory, for tests of the gateway and
// of what is built on it: releases are composed and published as in the
// product, blobs lie in files (local) or come from holders that can be told
// to fail (remote).
package httpgatewaytest

import (
	"bytes"
	"context"
	"crypto/md5"  //nolint:gosec // the index wants it
	"crypto/sha1" //nolint:gosec // the index wants it
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/httpgateway"
)

// Catalog is an httpgateway.Catalog. Its methods may be called from any
// goroutine.
type Catalog struct {
	t   testing.TB
	dir string

	mu     sync.Mutex
	heads  map[string]release.Channel
	shown  map[string]*release.Manifest
	past   map[string]*release.Manifest // by CID
	local  map[cid.Cid]string
	remote map[cid.Cid]*Holder
	opened map[cid.Cid]int
	sizes  map[cid.Cid]int64 // of blobs that fail
}

var _ httpgateway.Catalog = (*Catalog)(nil)

// Holder is a peer that holds one blob. Its fields are set before it is used.
type Holder struct {
	Data []byte
	Err  error // of Open, where it is set
	// Serve, where it is set, decides about each read: at is its offset, n how
	// much there is to give. It returns how much to give, or an error. It may
	// block until ctx ends.
	Serve func(ctx context.Context, at int64, n int) (int, error)
}

// New makes an empty catalog; local blobs lie in t.TempDir.
func New(t testing.TB) *Catalog {
	return &Catalog{
		t: t, dir: t.TempDir(), heads: map[string]release.Channel{}, shown: map[string]*release.Manifest{},
		past: map[string]*release.Manifest{}, local: map[cid.Cid]string{}, remote: map[cid.Cid]*Holder{}, opened: map[cid.Cid]int{},
		sizes: map[cid.Cid]int64{},
	}
}

// Entry makes a release entry of a package with this content.
func Entry(t testing.TB, cpv string, content []byte, meta ...build.Pair) release.Entry {
	t.Helper()
	c, err := build.ParseCPV(cpv)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(meta, func(a, b build.Pair) int { return strings.Compare(a.Name, b.Name) })
	key := sha256.Sum256(append([]byte(cpv), content...))
	md := md5.Sum(content)  //nolint:gosec // the index wants it
	sh := sha1.Sum(content) //nolint:gosec // the index wants it
	return release.Entry{
		Key: build.Key(hex.EncodeToString(key[:])), CPV: c, Slot: "0", Keywords: "amd64",
		Artifact: build.Artifact{
			CID: cas.Sum(content).String(), Size: int64(len(content)), MTime: 1700000000,
			MD5: hex.EncodeToString(md[:]), SHA1: hex.EncodeToString(sh[:]), Meta: meta,
		},
	}
}

// Publish composes a release of entries alone and moves target's head to it.
func (c *Catalog) Publish(target string, now time.Time, entries ...release.Entry) release.Channel {
	c.t.Helper()
	m, held, err := release.Compose(nil, entries, release.Options{Target: target})
	if err != nil || len(held) > 0 {
		c.t.Fatal("compose release:", err, held)
	}
	enc, err := m.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	id := cas.Sum(enc).String()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.past[id] = &m
	return c.move(target, id, now)
}

// Rollback moves target's head back to an earlier release.
func (c *Catalog) Rollback(target, id string, now time.Time) release.Channel {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.past[id] == nil {
		c.t.Fatal("no such release:", id)
	}
	return c.move(target, id, now)
}

func (c *Catalog) move(target, id string, now time.Time) release.Channel {
	prev, ok := c.heads[target]
	if !ok {
		prev = release.Channel{Target: target, Name: release.Stable}
	}
	c.heads[target] = release.Next(&prev, id, now)
	c.shown[target] = c.past[id]
	return c.heads[target]
}

// Force sets a head as it is, as a board does that was restored or lies.
func (c *Catalog) Force(head release.Channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heads[head.Target] = head
	c.shown[head.Target] = c.past[head.Release]
}

// PutLocal stores a blob in a file.
func (c *Catalog) PutLocal(content []byte) cid.Cid {
	c.t.Helper()
	id := cas.Sum(content)
	path := filepath.Join(c.dir, id.String())
	if err := os.WriteFile(path, content, 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.local[id] = path
	return id
}

// PutRemote gives a blob to a holder; nil takes it away.
func (c *Catalog) PutRemote(id cid.Cid, h *Holder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h == nil {
		delete(c.remote, id)
		return
	}
	c.remote[id] = h
}

// Opened counts how often a blob was opened.
func (c *Catalog) Opened(id cid.Cid) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened[id]
}

// Path is the file of a local blob.
func (c *Catalog) Path(id cid.Cid) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.local[id]
}

// Targets implements httpgateway.Catalog.
func (c *Catalog) Targets() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for t := range c.heads {
		out = append(out, t)
	}
	return out
}

// Head implements httpgateway.Catalog.
func (c *Catalog) Head(target, channel string) (release.Channel, *release.Manifest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shown[target] == nil || channel != release.Stable {
		return release.Channel{}, nil, fmt.Errorf("head of %s/%s: %w", target, channel, httpgateway.ErrNoRelease)
	}
	return c.heads[target], c.shown[target], nil
}

// Available implements httpgateway.Catalog.
func (c *Catalog) Available(id cid.Cid) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.local[id] != "" || c.remote[id] != nil
}

// Local implements httpgateway.Catalog.
func (c *Catalog) Local(id cid.Cid) (httpgateway.LocalBlob, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	path := c.local[id]
	if path == "" {
		return nil, fmt.Errorf("open %s: %w", id, cas.ErrNotFound)
	}
	c.opened[id]++
	return c.open(id, path)
}

// open opens a local blob. What its file is said not to give is not local any
// more.
func (c *Catalog) open(id cid.Cid, path string) (*local, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	size, failing := c.sizes[id]
	if !failing {
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &local{SectionReader: io.NewSectionReader(f, 0, size), f: f, failed: func() { c.forget(id) }}, nil
}

// Fail makes a local blob one that opens well and cannot be read.
func (c *Catalog) Fail(id cid.Cid) {
	c.t.Helper()
	const unreadable = "/proc/self/mem" // opens, and gives EIO
	if _, err := os.Stat(unreadable); err != nil {
		c.t.Skip("needs a file that gives EIO:", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.local[id])
	if err != nil {
		c.t.Fatal(err)
	}
	c.local[id], c.sizes[id] = unreadable, info.Size()
}

func (c *Catalog) forget(id cid.Cid) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.local, id)
}

// local is a blob in a file.
type local struct {
	*io.SectionReader
	f      *os.File
	failed func()
}

func (l *local) Close() error   { return l.f.Close() }
func (l *local) File() *os.File { return l.f }
func (l *local) Failed(error)   { l.failed() }

// Open implements httpgateway.Catalog.
func (c *Catalog) Open(ctx context.Context, id cid.Cid, _ int64) (io.ReadSeekCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened[id]++
	if path := c.local[id]; path != "" {
		return c.open(id, path)
	}
	h := c.remote[id]
	switch {
	case h == nil:
		return nil, fmt.Errorf("open %s: %w", id, cas.ErrNotFound)
	case h.Err != nil:
		return nil, h.Err
	}
	return &stream{r: bytes.NewReader(h.Data), ctx: ctx, serve: h.Serve}, nil
}

// stream is what a holder sends.
type stream struct {
	r     *bytes.Reader
	ctx   context.Context
	serve func(context.Context, int64, int) (int, error)
}

func (s *stream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if s.serve != nil && s.r.Len() > 0 {
		n, err := s.serve(s.ctx, s.r.Size()-int64(s.r.Len()), min(len(p), s.r.Len()))
		if err != nil {
			return 0, err
		}
		p = p[:n]
	}
	return s.r.Read(p)
}

func (s *stream) Seek(off int64, whence int) (int64, error) { return s.r.Seek(off, whence) }

// Close ends the stream.
func (s *stream) Close() error { return nil }

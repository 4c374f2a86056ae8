package exchange

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/castest"
	"github.com/build-swarm/swarm/cas/disk"
	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/direct"
	"github.com/build-swarm/swarm/p2p/p2ptest"
	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// tcpSwarm makes hosts over TCP with the private-network key, on loopback: one
// that fetches, and n that hold.
func tcpSwarm(b *testing.B, n int) (me *p2p.Host, holders []*p2p.Host) {
	b.Helper()
	key := p2p.NewSwarmKey()
	var static []string
	for i := range n + 1 {
		h, err := p2p.NewHost(p2p.Config{Identity: p2ptest.Identity(i), SwarmKey: key,
			Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Static: static})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = h.Close() })
		if i == n {
			return h, holders
		}
		holders = append(holders, h)
		static = append(static, h.Addrs()...)
	}
	return nil, nil
}

// pairs runs x and y in turn and reports the median of y's time over x's, which
// is x's speed as a multiple of y's. Each prepares something and returns the part
// that is timed; what was written before is on the disk by then.
func pairs(b *testing.B, unit string, x, y func() func()) {
	b.Helper()
	var ratios []float64
	for b.Loop() {
		var took [2]time.Duration
		for i, side := range []func() func(){x, y} {
			work := side()
			unix.Sync()
			took[i] = elapsed(work)
		}
		ratios = append(ratios, took[1].Seconds()/took[0].Seconds())
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], unit)
}

func elapsed(f func()) time.Duration {
	t := time.Now()
	f()
	return time.Since(t)
}

func openDisk(b *testing.B, dir string) *disk.Store {
	b.Helper()
	s, err := disk.Open(dir, disk.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func putBlob(b *testing.B, s cas.Store, data []byte) cid.Cid {
	b.Helper()
	info, err := s.Put(b.Context(), bytes.NewReader(data), cid.Undef)
	if err != nil {
		b.Fatal(err)
	}
	return info.CID
}

const rawProto = "/test/raw/1"

// raw sends a blob without proofs, by its CID's digest.
func raw(s cas.Source) func(p2p.Stream) {
	return func(st p2p.Stream) {
		defer st.Close()
		q, err := readRequest(st)
		if err != nil {
			return
		}
		b, err := s.Open(q.cid)
		if err != nil {
			return
		}
		defer b.Close()
		_ = binary.Write(st, binary.BigEndian, b.Size())
		_, _ = io.CopyBuffer(struct{ io.Writer }{st}, struct{ io.Reader }{b}, make([]byte, cas.GroupSize))
	}
}

// fetchRaw receives it, writes it and fsyncs it: what the same stream costs
// without verification.
func fetchRaw(n Opener, peer string, c cid.Cid, path string) error {
	st, err := n.Open(context.Background(), peer, rawProto)
	if err != nil {
		return err
	}
	defer st.Close()
	q, err := request{opGet, c, 0, 0}.encode()
	if err != nil {
		return err
	}
	if _, err := st.Write(q); err != nil {
		return err
	}
	var size int64
	if err := binary.Read(st, binary.BigEndian, &size); err != nil {
		return err
	}
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	defer f.Close()
	// Written behind as the store does it, or the comparison is of that.
	for at := int64(0); at < size; at += 8 << 20 {
		n := min(8<<20, size-at)
		if k, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(st, n), make([]byte, cas.GroupSize)); err != nil || k != n {
			return fmt.Errorf("%d of %d bytes: %w", at+k, size, err)
		}
		if err := unix.SyncFileRange(int(f.Fd()), at, n, unix.SYNC_FILE_RANGE_WRITE); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func BenchmarkTransfer(b *testing.B) {
	b.Run("512MiB", benchBig)
	b.Run("2000x64KiB", benchSmall)
	b.Run("3holders", benchThree)
	b.Run("3holdersLimited", benchThreeLimited)
	b.Run("direct512MiB", benchDirect)
}

func benchBig(b *testing.B) {
	const size = 512 << 20
	me, h := tcpSwarm(b, 1)
	from := openDisk(b, b.TempDir())
	c := putBlob(b, from, castest.Blob(size, 1))
	Serve(h[0], from, nil)
	h[0].Handle(rawProto, raw(from))
	compare(b, "x-unverified", NewFetcher(me, nil), me, h[0].Self(), c, size)
}

// benchDirect is benchBig on the direct carrier: against a TLS 1.3 connection of
// the same make.
func benchDirect(b *testing.B) {
	const size = 512 << 20
	me, h := tcpSwarm(b, 1)
	from := openDisk(b, b.TempDir())
	c := putBlob(b, from, castest.Blob(size, 1))
	s := Serve(h[0], from, nil)
	f, carriers := beside(b, me, h[0], s)
	compare(b, "x-tls", f, carriers, h[0].Self(), c, size)
}

// beside starts direct carriers beside two hosts, and makes a Fetcher that uses
// them as a running peer does.
func beside(b *testing.B, me, holder *p2p.Host, s *Server) (*Fetcher, *direct.Carrier) {
	b.Helper()
	var mine *direct.Carrier
	for i, host := range []*p2p.Host{holder, me} {
		d, err := direct.New(direct.Config{Home: host, Key: p2ptest.Identity(i).PrivateKey(), Listen: []string{"127.0.0.1:0"}})
		if err != nil {
			b.Fatal(err)
		}
		d.Handle(Protocol, s.Handle)
		d.Handle(rawProto, raw(s.src))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		b.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
		mine = d
	}
	// The first stream connects the hosts, and finds the port.
	st, err := mine.Open(b.Context(), holder.Self(), Protocol)
	if err != nil {
		b.Fatal(err)
	}
	_ = st.Close()
	if st, err = me.Open(b.Context(), holder.Self(), Protocol); err != nil {
		b.Fatal(err)
	}
	_ = st.Close()
	f := NewFetcher(me, nil)
	f.UseForBulk(mine)
	return f, mine
}

// compare runs Fetch against the same bytes on a stream of the same kind, written
// and fsynced by the same code without verification.
func compare(b *testing.B, unit string, f *Fetcher, plain Opener, holder string, c cid.Cid, size int64) {
	into, dir := openDisk(b, b.TempDir()), b.TempDir()
	b.SetBytes(2 * size)
	path := filepath.Join(dir, "blob")
	pairs(b, unit, func() func() {
		if err := into.Delete(c); err != nil {
			b.Fatal(err)
		}
		return func() {
			if err := f.Fetch(b.Context(), c, []string{holder}, into); err != nil {
				b.Fatal(err)
			}
		}
	}, func() func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			b.Fatal(err)
		}
		return func() {
			if err := fetchRaw(plain, holder, c, path); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// fetchesAtOnce is how many small blobs the replicator has under way.
const fetchesAtOnce = 32

// benchSmall compares with writing, fsyncing and renaming the same files
// locally by four workers. A blob is fsynced twice (file and directory) after a
// round trip, so there are as many fetches at once as the replicator makes.
func benchSmall(b *testing.B) {
	const count, size = 2000, 64 << 10
	me, h := tcpSwarm(b, 1)
	from := openDisk(b, b.TempDir())
	var names []cid.Cid
	data := make([][]byte, count)
	for i := range data {
		data[i] = castest.Blob(size, 1)
		binary.BigEndian.PutUint64(data[i], uint64(i))
		names = append(names, putBlob(b, from, data[i]))
	}
	f, _ := beside(b, me, h[0], Serve(h[0], from, nil))
	b.SetBytes(2 * count * size)
	pairs(b, "x-local", func() func() {
		into := openDisk(b, b.TempDir())
		return func() {
			spread(fetchesAtOnce, count, func(i int) {
				if err := f.Fetch(b.Context(), names[i], []string{h[0].Self()}, into); err != nil {
					b.Error(err)
				}
			})
		}
	}, func() func() {
		dir := b.TempDir()
		return func() {
			spread(4, count, func(i int) {
				if err := writeDurable(filepath.Join(dir, names[i].String()), data[i]); err != nil {
					b.Error(err)
				}
			})
		}
	})
}

func writeDurable(path string, data []byte) error {
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// benchThree asks three holders for one blob, and then one of them.
func benchThree(b *testing.B) { benchHolders(b, 512<<20, 0) }

// benchThreeLimited has each of three holders limited to a third of what a link
// of 90 MB/s would carry: together they are to fill it.
func benchThreeLimited(b *testing.B) { benchHolders(b, 128<<20, 30<<20) }

func benchHolders(b *testing.B, size int, limit int64) {
	me, h := tcpSwarm(b, 3)
	from := openDisk(b, b.TempDir()) // one store for all: the disk is one anyway
	c := putBlob(b, from, castest.Blob(size, 1))
	var all []string
	for _, x := range h {
		Serve(x, from, nil).Limit(limit)
		all = append(all, x.Self())
	}
	into := openDisk(b, b.TempDir())
	f := NewFetcher(me, nil)
	fetch := func(holders []string) func() func() {
		return func() func() {
			if err := into.Delete(c); err != nil {
				b.Fatal(err)
			}
			return func() {
				if err := f.Fetch(b.Context(), c, holders, into); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.SetBytes(2 * int64(size))
	pairs(b, "x-one-holder", fetch(all), fetch(all[:1]))
}

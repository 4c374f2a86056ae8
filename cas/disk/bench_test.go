package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/build-swarm/swarm/cas/castest"
	"github.com/ipfs/go-cid"
)

// BenchmarkPut64KiB compares Put with writing, fsyncing and renaming plain files
// in one directory, whose own fsync is left out. Both with the same workers.
func BenchmarkPut64KiB(b *testing.B) {
	for _, workers := range []int{1, 4, 16} {
		b.Run(strconv.Itoa(workers), func(b *testing.B) {
			const count = 500
			data := make([][]byte, count)
			for i := range data {
				data[i] = castest.Blob(64<<10, 1)
				binary.BigEndian.PutUint64(data[i], uint64(i))
			}
			var ratios []float64
			for b.Loop() {
				s := open(b, b.TempDir(), Options{})
				ours := spread(workers, count, func(i int) error {
					_, err := s.Put(b.Context(), bytes.NewReader(data[i]), cid.Undef)
					return err
				})
				dir := b.TempDir()
				plain := spread(workers, count, func(i int) error {
					return plainWrite(filepath.Join(dir, strconv.Itoa(i)), data[i])
				})
				for _, t := range []timed{ours, plain} {
					if t.err != nil {
						b.Fatal(t.err)
					}
				}
				ratios = append(ratios, plain.took.Seconds()/ours.took.Seconds())
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "x-plain")
		})
	}
}

type timed struct {
	took time.Duration
	err  error
}

func spread(workers, n int, work func(int) error) timed {
	begin := time.Now()
	next := make(chan int)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range next {
				errs[w] = errors.Join(errs[w], work(i))
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return timed{time.Since(begin), errors.Join(errs...)}
}

func plainWrite(path string, data []byte) error {
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

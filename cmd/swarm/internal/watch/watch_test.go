package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/build/view"
)

func open(t *testing.T, dir string) *History {
	t.Helper()
	h, err := OpenHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() }) // again, where a test has closed it
	return h
}

func events(from, n int) []view.Event {
	var out []view.Event
	for i := range n {
		out = append(out, view.Event{AtMS: int64(from + i), Kind: view.EventBuilt, Text: fmt.Sprintf("event %d %s", from+i, strings.Repeat("x", 150))})
	}
	return out
}

func TestHistoryIsBoundedAndSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	const n = 30_000 // of 200 bytes each: more than fits
	for i := 0; i < n; i += 500 {
		if err := h.Append(events(i, 500)); err != nil {
			t.Fatal(err)
		}
	}
	var size int64
	for _, name := range []string{newerName, olderName} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
	if size > MaxHistory || size < MaxHistory/2 {
		t.Errorf("%d bytes on disk, at most %d", size, MaxHistory)
	}
	check := func(h *History) {
		t.Helper()
		got, err := h.Since(n-10, 100)
		if err != nil || len(got) != 10 || got[9].AtMS != n-1 {
			t.Errorf("%d events, %v", len(got), err)
		}
		got, err = h.Since(0, 5000)
		if err != nil || len(got) != 5000 || got[0].AtMS != n-5000 || got[4999].AtMS != n-1 {
			t.Errorf("of the last 5000: %d events, %v", len(got), err)
		}
	}
	check(h)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, dir))
}

func TestATornOrStrangeLineIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	if err := h.Append(events(1, 3)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, newerName), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("no json\n{\"at_unix_ms\":5,\"kind\":\"bu")
	if err = errors.Join(err, f.Close(), h.Close()); err != nil {
		t.Fatal(err)
	}
	h = open(t, dir)
	if err := h.Append(events(9, 1)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // from memory, then from disk
		got, err := h.Since(0, 100)
		if err != nil || len(got) != 4 || got[3].AtMS != 9 {
			t.Errorf("%+v %v", got, err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		h = open(t, dir)
	}
}

// A look that takes 50 ms must not be had twice a second because a board is
// busy: half a percent of a core is what it may cost.
func TestLookingIsPacedByWhatItCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changed := make(chan struct{}, 1)
		looks, pairs := 0, 0
		w := New(Config{Changed: changed, Log: slog.New(slog.DiscardHandler),
			Take: func(context.Context) (*view.Detail, error) {
				looks++
				time.Sleep(50 * time.Millisecond)
				return &view.Detail{}, nil
			},
			Follow: []func(before, after *view.Detail){func(before, after *view.Detail) {
				if after == nil || before == after {
					t.Error("not a pair")
				}
				pairs++
			}}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		go func() {
			for ctx.Err() == nil {
				select {
				case changed <- struct{}{}:
				case <-ctx.Done():
				}
			}
		}()
		seen, end := w.Watch()
		defer end()
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
		if share := float64(looks) * 0.05 / 600; share > 0.0051 || share < 0.004 || pairs != looks {
			t.Errorf("%d looks of 50 ms in ten minutes are %.2f %% of a core; %d were followed", looks, share*100, pairs)
		}
		select {
		case <-seen:
		default:
			t.Error("who watches was not told")
		}
		looks = 0
		for range 3 {
			if _, err := w.Latest(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if looks > 1 {
			t.Errorf("%d looks for three who ask at once", looks)
		}
	})
}

package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
)

// A good outcome is written to a file between the moment its package is stored
// and the moment the board has it in its journal: a crash in between loses no
// finished build. The order is
//
//  1. the package is in the store, durably
//  2. the outcome's file is written, synced and renamed into place
//  3. the outcome is on the board's journal
//  4. the file is removed
//
// A file found at start is an outcome between 2 and 4; posting it twice would
// only be a second good outcome of the same bytes.

func (w *Worker) pendPath(k build.Key) string {
	return filepath.Join(w.cfg.Pending, string(k)+".outcome")
}

// pend does step 2.
func (w *Worker) pend(out build.Outcome) error {
	out.Class = build.Good
	b, err := build.Marshal(out)
	if err != nil {
		return fmt.Errorf("encode outcome of %s: %w", out.CPV, err)
	}
	path := w.pendPath(out.Key)
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return fmt.Errorf("keep outcome of %s: %w", out.CPV, err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return fmt.Errorf("keep outcome of %s: %w", out.CPV, err)
	}
	return nil
}

// unpend does step 4; a file that stays is posted again at the next start.
func (w *Worker) unpend(k build.Key) {
	if err := os.Remove(w.pendPath(k)); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.cfg.Log.Warn("pending outcome not removed", "error", err)
	}
}

// adopt posts what an earlier process had finished and not reported, and gives
// back what it had claimed and not finished: its builds died with it.
func (w *Worker) adopt(ctx context.Context) error {
	files, err := os.ReadDir(w.cfg.Pending)
	if err != nil {
		return fmt.Errorf("read pending outcomes: %w", err)
	}
	var found []build.Outcome
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".outcome") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(w.cfg.Pending, f.Name()))
		var out build.Outcome
		if err == nil {
			err = build.Unmarshal(b, &out)
		}
		if err == nil {
			err = w.stillStored(ctx, out)
		}
		if err != nil {
			w.cfg.Log.Warn("pending outcome passed over", "file", f.Name(), "error", err)
			continue
		}
		found = append(found, out)
	}
	err = w.cfg.Board.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
		var evs []claims.Event
		for _, out := range found {
			evs = append(evs, claims.Finished{Outcome: out})
		}
		return append(evs, claims.Abandon{Reason: "the daemon was restarted"})
	})
	if err != nil {
		return err
	}
	for _, out := range found {
		w.cfg.Log.Info("finished build of the last run reported", "package", out.CPV.String())
		w.unpend(out.Key)
	}
	return nil
}

func (w *Worker) stillStored(ctx context.Context, out build.Outcome) error {
	if out.Artifact == nil || !out.Key.Valid() {
		return errors.New("not a good outcome")
	}
	c, err := cas.Parse(out.Artifact.CID)
	if err != nil {
		return err
	}
	if _, err := w.cfg.Store.Stat(c); err != nil {
		return err
	}
	return w.cfg.Announce(ctx, c)
}

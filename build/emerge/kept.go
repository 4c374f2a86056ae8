package emerge

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/worker"
)

// The schedule prefers a drone that has a job's root, so each Beat names jobs
// whose whole roots are cached here. A job's name says more than a list of
// packages would in as many bytes: everybody has the plan that it stands in.

const (
	// keptFor is for how long what the directory held is believed: builds are
	// other processes, so it is read again and again, for a Beat every 5 s.
	keptFor = 10 * time.Second
	// unmeasured is what installing a package into a root takes while no layer
	// was made here; measured with real Portage, 4.6 to 5.3 s.
	unmeasured = 5 * time.Second
)

var _ worker.RootKeeper = (*Roots)(nil)

// kept is what KeptRoots last found.
type kept struct {
	mu      sync.Mutex
	at      time.Time
	jobs    []build.Key
	install time.Duration
}

// KeptRoots lists jobs whose whole roots are cached, the last used first, and what
// installing one more package into a root takes. What it says is up to ten seconds old.
func (r *Roots) KeptRoots() ([]build.Key, time.Duration) {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	if now := time.Now(); r.kept.at.IsZero() || now.Sub(r.kept.at) >= keptFor {
		all, err := r.layers.list()
		if err != nil {
			r.cfg.Log.Warn("the cache of roots cannot be told of", "error", err)
		}
		r.kept.at, r.kept.jobs, r.kept.install = now, keptJobs(all), installTime(all)
	}
	return r.kept.jobs, r.kept.install
}

// keptJobs names the jobs of the layers that are the root of one.
func keptJobs(all []*layer) []build.Key {
	all = slices.DeleteFunc(slices.Clone(all), func(l *layer) bool { return !l.job.Valid() })
	slices.SortFunc(all, func(a, b *layer) int { return cmp.Or(b.used.Compare(a.used), cmp.Compare(a.ID, b.ID)) })
	var out []build.Key
	for _, l := range all {
		out = append(out, l.job)
	}
	return out
}

// installTime is the median of what a package took, over the layers.
func installTime(all []*layer) time.Duration {
	size := map[string]int{}
	for _, l := range all {
		size[l.ID] = len(l.Entries)
	}
	var each []int64
	for _, l := range all {
		// A layer of more was made one with those below it, which took their own time.
		if n := len(l.Entries) - size[l.Parent]; n > 0 && n <= maxPerLayer && l.Millis > 0 {
			each = append(each, l.Millis/int64(n))
		}
	}
	if len(each) == 0 {
		return unmeasured
	}
	slices.Sort(each)
	return time.Duration(max(1, each[len(each)/2])) * time.Millisecond
}

// rootOf notes that a layer is the root of a job. The newest job counts, since its
// round is known to every drone. The layer must be held.
func (c *layerCache) rootOf(l *layer, k build.Key) error {
	if l.job == k {
		return nil
	}
	dir := filepath.Join(c.dir, l.ID)
	tmp, err := os.CreateTemp(dir, "job-")
	if err != nil {
		return fmt.Errorf("note whose root a layer is: %w", err)
	}
	_, err = tmp.WriteString(string(k))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(dir, "job"))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("note whose root a layer is: %w", err), os.Remove(tmp.Name()))
	}
	l.job = k
	return nil
}

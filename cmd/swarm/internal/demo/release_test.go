package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// visibleBar is how soon every connected gateway shows a release that was
// finalized, or gone back to, on one peer.
const visibleBar = 2 * time.Second

// BenchmarkRelease runs five real peers under production settings, finalizes on
// one, rolls back on another, and takes the time until the index of every one
// has the other release. The bytes have to be equal on all.
func BenchmarkRelease(b *testing.B) {
	self := filepath.Join(b.TempDir(), "swarm")
	if out, err := exec.Command("go", "build", "-o", self, "github.com/build-swarm/swarm/cmd/swarm").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	d := &demo{opt: Options{Show: NewShow(io.Discard)}, self: self, dir: b.TempDir(), target: "demo", began: time.Now(), history: newHistory()}
	defer func() { stop(d.peers) }()
	if err := d.form(ctx); err != nil {
		b.Fatal(err)
	}
	code, err := d.peers[0].client.Invite(ctx)
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"delta", "epsilon"} {
		p := d.newPeer(name)
		if _, err := swarm(ctx, d.self, code, "join", "--state", p.state); err != nil {
			b.Fatal(err)
		}
		if err := d.start(ctx, p, "--builder", "sample"); err != nil {
			b.Fatal(err)
		}
	}
	// Two releases, by rounds that end, so that there is something to go back to.
	for n, atom := range []string{"sample-greet", "sample-doc"} {
		reply, err := d.peers[0].client.Build(ctx, control.BuildRequest{Atoms: []string{atom}, Command: "swarm build " + atom})
		if err != nil {
			b.Fatal(err)
		}
		d.round = reply.Round
		if err := d.await(ctx, d.peers[0], func(s view.Snapshot) bool {
			return d.ended(s) && len(s.Releases) == 1 && s.Releases[0].Number == uint64(n+1) && len(s.Peers) == 5
		}); err != nil {
			b.Fatal(err)
		}
	}
	var took [2]time.Duration // back, and on again
	for b.Loop() {
		for i, number := range []string{"1", "2"} {
			old, err := d.settled(ctx)
			if err != nil {
				b.Fatal(err)
			}
			began := time.Now()
			if _, err := d.peers[1+i].client.Rollback(ctx, control.RollbackRequest{Target: d.target, Release: number}); err != nil {
				b.Fatal(err)
			}
			now, err := d.indexes(ctx, old[0])
			if err != nil {
				b.Fatal(err)
			}
			took[i] += time.Since(began)
			for _, text := range now {
				if !bytes.Equal(text, now[0]) {
					b.Fatal("two gateways show different bytes")
				}
			}
		}
	}
	worst := max(took[0], took[1]) / time.Duration(b.N)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took[0].Milliseconds())/float64(b.N), "ms-back")
	b.ReportMetric(float64(took[1].Milliseconds())/float64(b.N), "ms-on")
	b.ReportMetric(worst.Seconds()/visibleBar.Seconds(), "x-bar")
}

// settled fetches the index of every peer once all show the same.
func (d *demo) settled(ctx context.Context) ([][]byte, error) {
	for {
		out, err := d.indexes(ctx, nil)
		if err != nil || !slices.ContainsFunc(out, func(text []byte) bool { return !bytes.Equal(text, out[0]) }) {
			return out, err
		}
	}
}

// indexes fetches the index of every peer as soon as it is another than old.
func (d *demo) indexes(ctx context.Context, old []byte) ([][]byte, error) {
	out := make([][]byte, len(d.peers))
	g, ctx := errgroup.WithContext(ctx)
	for i, p := range d.peers {
		g.Go(func() error {
			for {
				res, err := get(ctx, fmt.Sprintf("http://%s/%s/stable/Packages", p.info.Gateway[0], d.target))
				if err != nil {
					return err
				}
				text, err := io.ReadAll(res.Body)
				if err = errors.Join(err, res.Body.Close()); err != nil {
					return err
				}
				if res.StatusCode == http.StatusOK && !bytes.Equal(text, old) {
					out[i] = text
					return nil
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
	return out, g.Wait()
}

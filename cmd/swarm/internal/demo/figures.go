package demo

import (
	"crypto/md5"  //nolint:gosec // what Portage checks
	"crypto/sha1" //nolint:gosec // what Portage checks
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/wire"
)

// The figures are taken from effects, not from what the program says of
// itself: signed records of the survivors' boards, bytes on the survivors'
// disks, bytes that came over HTTP.

// history collects every claim and outcome that was ever on a survivor's
// board: claims leave it when their job is built.
type history struct {
	first    map[build.Key]wire.Opened        // the claim that won the first epoch
	outcomes map[build.Key]map[string]outcome // key, record key
	bad      int                              // records that did not open
}

type outcome struct {
	build.Outcome
	peer string
}

func newHistory() *history {
	return &history{first: map[build.Key]wire.Opened{}, outcomes: map[build.Key]map[string]outcome{}}
}

// see takes in the encoded records of one board.
func (h *history) see(raws [][]byte) {
	for _, raw := range raws {
		o, err := wire.Open(raw)
		if err != nil {
			h.bad++
			continue
		}
		body, err := claims.Validate(o)
		if err != nil {
			h.bad++
			continue
		}
		if c, ok := body.(claims.Claim); ok && c.Epoch == 1 {
			// Two drones may claim at once: the merge says whose the epoch is.
			if old, known := h.first[c.Key]; !known || o.Wins(old) {
				h.first[c.Key] = o
			}
		}
		if out, ok := claims.OutcomeOf(body); ok {
			if h.outcomes[out.Key] == nil {
				h.outcomes[out.Key] = map[string]outcome{}
			}
			h.outcomes[out.Key][o.Key()] = outcome{out, o.Author()}
		}
	}
}

// good lists the good outcomes of a key.
func (h *history) good(k build.Key) []outcome {
	var out []outcome
	for _, o := range h.outcomes[k] {
		if o.Class == build.Good {
			out = append(out, o)
		}
	}
	return out
}

// builtTwice counts the keys with more than one good outcome.
func (h *history) builtTwice() int {
	n := 0
	for k := range h.outcomes {
		if len(h.good(k)) > 1 {
			n++
		}
	}
	return n
}

// takenOver counts the jobs whose first epoch belongs to the killed peer and
// whose good outcome to another.
func (h *history) takenOver(killed string) int {
	n := 0
	for k, claim := range h.first {
		if claim.Author() == killed && slices.ContainsFunc(h.good(k), func(o outcome) bool { return o.peer != killed }) {
			n++
		}
	}
	return n
}

// tally fills in the figures: from the records of the survivors' boards, from
// the directories that they keep blobs in, and from what came over HTTP.
func (r *Result) tally(h *history, killed string, dirs []string, files []received) (err error) {
	if h.bad > 0 {
		return fmt.Errorf("%d records of the survivors' boards do not open", h.bad)
	}
	r.Built = 0
	for k := range h.outcomes {
		if len(h.good(k)) > 0 {
			r.Built++
		}
	}
	r.BuiltTwice = h.builtTwice()
	r.TakenOver = 0
	if killed != "" {
		r.TakenOver = h.takenOver(killed)
	}
	held := h.artifacts()
	r.Served, r.Bytes = served(files, held)
	r.ReplicasMin, err = replicasMin(held, dirs)
	r.counted = err == nil
	return err
}

// artifacts lists the artifacts of all good outcomes by CID.
func (h *history) artifacts() map[string]build.Artifact {
	out := map[string]build.Artifact{}
	for k := range h.outcomes {
		for _, o := range h.good(k) {
			out[o.Artifact.CID] = *o.Artifact
		}
	}
	return out
}

// replicasMin re-hashes every file below each directory and returns the least
// number of directories in which an artifact really lies.
func replicasMin(artifacts map[string]build.Artifact, dirs []string) (int, error) {
	count := map[string]int{}
	for _, dir := range dirs {
		here := map[string]bool{}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			c, _, err := hashFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a temporary file that was just renamed
			}
			here[c] = true
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("hash what lies in %s: %w", dir, err)
		}
		for c := range here {
			count[c]++
		}
	}
	least := len(dirs)
	for c := range artifacts {
		least = min(least, count[c])
	}
	if len(artifacts) == 0 {
		least = 0
	}
	return least, nil
}

func hashFile(path string) (cidText string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := cas.NewHasher()
	n, err := io.Copy(h, f)
	if err != nil {
		return "", 0, err
	}
	c, _ := h.Finish()
	return c.String(), n, nil
}

// received is what came over HTTP for one entry of the index.
type received struct {
	size              int64
	md5, sha1         string
	cid               string
	wantSize          int64
	wantMD5, wantSHA1 string // of the index
}

// receive reads a body to its end and hashes it every way that counts.
func receive(r io.Reader) (received, error) {
	m, s, h := md5.New(), sha1.New(), cas.NewHasher() //nolint:gosec // what Portage checks
	n, err := io.Copy(io.MultiWriter(m, s, h), r)
	c, _ := h.Finish()
	return received{size: n, md5: hex.EncodeToString(m.Sum(nil)), sha1: hex.EncodeToString(s.Sum(nil)), cid: c.String()}, err
}

// served counts the files whose bytes match SIZE, SHA1 and MD5 of the index
// and the CID of a good outcome, and their bytes.
func served(files []received, artifacts map[string]build.Artifact) (n int, bytes int64) {
	for _, f := range files {
		a, known := artifacts[f.cid]
		if known && f.size == f.wantSize && f.sha1 == f.wantSHA1 && f.md5 == f.wantMD5 && a.Size == f.size {
			n++
			bytes += f.size
		}
	}
	return n, bytes
}

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Storage is the part of a Daemon that looks after blobs.
type Storage interface {
	// Fsck reads every blob and tells of each step; what is damaged is fetched
	// again from peers. The last step has Done set.
	Fsck(ctx context.Context, tell func(FsckStep) error) error
	// GC lists what nothing refers to any more, and with dry unset has what is
	// due dropped.
	GC(ctx context.Context, dry bool) (GCReply, error)
}

// FsckStep is how far a check of all blobs is. Blobs and Bytes of the whole
// store, Checked and CheckedBytes so far.
type FsckStep struct {
	Schema       int      `json:"schema"`
	Blobs        int      `json:"blobs"`
	Bytes        int64    `json:"bytes"`
	Checked      int      `json:"checked"`
	CheckedBytes int64    `json:"checked_bytes"`
	Mended       []Damage `json:"mended"` // damaged; a sound copy was fetched
	Lost         []Damage `json:"lost"`   // damaged; no peer that is here has a sound copy
	Unread       []Damage `json:"unread"` // the disk would not give it
	Done         bool     `json:"done"`
}

// Damage is a blob that is not as it should be.
type Damage struct {
	CID    string `json:"cid"`
	Name   string `json:"name"` // the package, where it is one
	Size   int64  `json:"size"`
	Reason string `json:"reason"`
}

// GCReply is what a collection found.
type GCReply struct {
	Schema  int      `json:"schema"`
	Kept    int      `json:"kept"`       // blobs that something refers to
	KeptB   int64    `json:"kept_bytes"` //
	Garbage []GCBlob `json:"garbage"`
	DryRun  bool     `json:"dry_run"`
}

// GCBlob is a blob that nothing refers to, or, with Surplus set, one of which
// enough others hold copies.
type GCBlob struct {
	CID   string `json:"cid"`
	Name  string `json:"name"`
	Size  int64  `json:"size"`
	Why   string `json:"why"`
	ForMS int64  `json:"unreferenced_ms"`
	// Surplus: something refers to it, and this peer need not keep its copy.
	Surplus bool `json:"surplus"`
	Due     bool `json:"due"` // long enough to be dropped
	// Dropped: the other holders agreed, and it is gone.
	Dropped bool `json:"dropped"`
}

func storageRoutes(mux *http.ServeMux, d Storage) {
	get(mux, "POST /v1/gc", func(r *http.Request) (any, error) { return d.GC(r.Context(), r.URL.Query().Has("dry")) })
	mux.HandleFunc("POST /v1/fsck", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		fw := &flushWriter{w: w}
		enc := json.NewEncoder(fw)
		err := d.Fsck(r.Context(), func(s FsckStep) error { return enc.Encode(s) })
		if err == nil {
			return
		}
		if !fw.wrote {
			fail(w, err)
			return
		}
		panic(http.ErrAbortHandler) // cut the connection: the last step is missing
	})
}

// Fsck has the daemon check every blob; see Storage.
func (c *Client) Fsck(ctx context.Context, tell func(FsckStep) error) error {
	res, err := c.do(ctx, "/v1/fsck", struct{}{})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for dec := json.NewDecoder(res.Body); ; {
		var s FsckStep
		if err := dec.Decode(&s); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("the daemon stopped checking: %w", err)
		}
		if err := tell(s); err != nil || s.Done {
			return err
		}
	}
}

// GC lists and drops what nothing refers to; see Storage.
func (c *Client) GC(ctx context.Context, dry bool) (GCReply, error) {
	path := "/v1/gc"
	if dry {
		path += "?dry"
	}
	return ask[GCReply](ctx, c, path, struct{}{})
}

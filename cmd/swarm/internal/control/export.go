package control

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Exporter is the part of a daemon that lays a release out as files.
type Exporter interface {
	// Export says which files make a release (a number, the end of a CID; "" for
	// what the channel shows) a binhost.
	Export(ctx context.Context, target, release string) (ExportReply, error)
	// Blob copies a blob to w, fetching it first if need be.
	Blob(ctx context.Context, cid string, w io.Writer) error
}

// ExportReply is a release as files. The index comes in it, whole.
type ExportReply struct {
	Schema    int          `json:"schema"`
	Target    string       `json:"target"`
	Release   string       `json:"release"`
	Version   uint64       `json:"version"`
	Timestamp int64        `json:"timestamp_unix_s"`
	Index     []byte       `json:"index"`
	Files     []ExportFile `json:"files"`
}

// ExportFile is one package.
type ExportFile struct {
	Path  string `json:"path"` // in the binhost
	CID   string `json:"cid"`
	Size  int64  `json:"size"`
	SHA1  string `json:"sha1"`
	MTime int64  `json:"mtime_unix_s"`
	// Local is where the daemon keeps it, verified lately; "" when it has it not.
	Local string `json:"local"`
}

func exportRoutes(mux *http.ServeMux, d Exporter) {
	// A POST: to verify what lies here may take longer than a question may.
	get(mux, "POST /v1/export", func(r *http.Request) (any, error) {
		q := r.URL.Query()
		return d.Export(r.Context(), q.Get("target"), q.Get("release"))
	})
	mux.HandleFunc("GET /v1/blob", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		n := &countWriter{w: w}
		if err := d.Blob(r.Context(), r.URL.Query().Get("cid"), n); err != nil {
			if n.n == 0 {
				fail(w, err)
				return
			}
			panic(http.ErrAbortHandler) // cut the connection: half a blob is no blob
		}
	})
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Export asks for a release as files; see Exporter.
func (c *Client) Export(ctx context.Context, target, release string) (ExportReply, error) {
	return ask[ExportReply](ctx, c, "/v1/export?target="+url.QueryEscape(target)+"&release="+url.QueryEscape(release), struct{}{})
}

// Blob copies a blob to w; see Exporter.
func (c *Client) Blob(ctx context.Context, cid string, w io.Writer) error {
	res, err := c.do(ctx, "/v1/blob?cid="+url.QueryEscape(cid), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("copy blob %s: %w", cid, err)
	}
	return nil
}

package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1" //nolint:gosec // what Portage's index has
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

func exportCmd(e *env) *cli.Command {
	flags := clientFlags(&cli.StringFlag{Name: "release", Usage: "the release `NAME` (a number, or the end of its CID); what the channel shows if empty"},
		&cli.BoolFlag{Name: "copy", Usage: "copy the packages, also where a hard link would do"}, jsonFlag())
	return &cli.Command{
		Name: "export", Usage: "write a release as a directory that any web server can serve", ArgsUsage: "TARGET DIR", Flags: flags, Before: settings(flags),
		Description: "DIR gets Packages, Packages.gz and the packages: a binhost for nginx, a USB stick, PKGDIR.\n" +
			"Packages that lie in the same file system are hard links: do not write into them. The same DIR\n" +
			"again gets what changed; the index comes last, then goes what it does not name any more.",
		Action: func(c *cli.Context) error {
			args, err := positional(c, 2, 2, "a TARGET and a DIR")
			if err != nil {
				return err
			}
			client := control.NewClient(c.String("socket"))
			x, err := client.Export(c.Context, args[0], c.String("release"))
			if err != nil {
				return err
			}
			dir, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			out := &exporter{dir: dir, client: client, copy: c.Bool("copy")}
			ctx, end := e.waiting(c.Context)
			err = out.run(ctx, x)
			end()
			if err != nil {
				return failure("the same command again goes on from there", "export to %s: %v", dir, err)
			}
			if c.Bool("json") {
				return e.out.JSON(struct {
					Schema  int    `json:"schema"`
					Target  string `json:"target"`
					Release string `json:"release"`
					Version uint64 `json:"version"`
					Dir     string `json:"dir"`
					exported
				}{1, x.Target, x.Release, x.Version, dir, out.exported})
			}
			e.out.Printf("release %d of %s in %s: %d packages, %s (%d linked, %d copied, %d there already, %d removed)\n", x.Version, x.Target, render.Clean(dir),
				len(x.Files), render.Bytes(out.Bytes), out.Linked, out.Copied, out.Kept, out.Removed)
			return nil
		},
	}
}

// exported counts what was done.
type exported struct {
	Linked  int   `json:"linked"`
	Copied  int   `json:"copied"`
	Kept    int   `json:"kept"`
	Removed int   `json:"removed"`
	Bytes   int64 `json:"bytes"` // of all packages
}

type exporter struct {
	dir    string
	client *control.Client
	copy   bool
	exported
}

// marker stands in a directory that an export may tidy up: anything else may be
// somebody's own.
const marker = ".swarm-export"

func (x *exporter) run(ctx context.Context, r control.ExportReply) error {
	if err := x.claim(); err != nil {
		return err
	}
	all := int64(0)
	for _, f := range r.Files {
		all += f.Size
	}
	named := map[string]bool{"Packages": true, "Packages.gz": true, marker: true}
	for _, f := range r.Files {
		if !filepath.IsLocal(f.Path) {
			return fmt.Errorf("package path %q leads out of the directory", f.Path)
		}
		named[f.Path] = true
		progress.Tell(ctx, progress.Step{What: "write the packages", Done: x.Bytes, All: all, Bytes: true})
		if err := x.file(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		x.Bytes += f.Size
	}
	if err := x.later(&r); err != nil {
		return err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(r.Index); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	// A web server takes Last-Modified from the file, and Portage compares it
	// with the index's own time.
	at := time.Unix(r.Timestamp, 0)
	for _, i := range []struct {
		name string
		b    []byte
	}{{"Packages.gz", packed.Bytes()}, {"Packages", r.Index}} {
		if err := x.write(i.name, at, func(w io.Writer) error { _, err := w.Write(i.b); return err }); err != nil {
			return err
		}
	}
	return x.tidy(named)
}

// later gives an index that goes back (export --release of an older one) a time
// after that of the index it replaces: a client that has that one would not look
// at an older one.
func (x *exporter) later(r *control.ExportReply) error {
	old, err := os.ReadFile(filepath.Join(x.dir, "Packages"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	had := timestamp(old)
	if had < r.Timestamp || had == r.Timestamp && bytes.Equal(old, r.Index) {
		return nil
	}
	const apart = 6 // seconds: Portage asks with 5 more than it has
	line := func(t int64) []byte { return fmt.Appendf(nil, "\nTIMESTAMP: %d\n", t) }
	r.Index = bytes.Replace(r.Index, line(r.Timestamp), line(had+apart), 1)
	r.Timestamp = had + apart
	return nil
}

// timestamp reads TIMESTAMP of an index, 0 when it has none.
func timestamp(index []byte) int64 {
	header, _, _ := bytes.Cut(index, []byte("\n\n"))
	_, after, _ := bytes.Cut(header, []byte("\nTIMESTAMP: "))
	value, _, _ := bytes.Cut(after, []byte("\n"))
	t, _ := strconv.ParseInt(string(value), 10, 64)
	return t
}

// claim makes the directory, or takes one that is empty or was exported to.
func (x *exporter) claim() error {
	if err := os.MkdirAll(x.dir, 0o755); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(x.dir, marker)); err == nil {
		return nil
	}
	list, err := os.ReadDir(x.dir)
	if err != nil {
		return err
	}
	if len(list) > 0 {
		return fmt.Errorf("it is not empty, and no export was written there before (%s is missing)", marker)
	}
	return os.WriteFile(filepath.Join(x.dir, marker), []byte("swarm export writes and removes files here\n"), 0o644)
}

// file puts one package in its place. A path names one CID for ever, so that one
// of the right size that is there already is it.
func (x *exporter) file(ctx context.Context, f control.ExportFile) error {
	path := filepath.Join(x.dir, filepath.FromSlash(f.Path))
	if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() && st.Size() == f.Size {
		x.Kept++
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f.Local != "" && !x.copy && os.Link(f.Local, path) == nil {
		x.Linked++
		return nil
	}
	sum := sha1.New() //nolint:gosec // as above
	n := int64(0)
	err := x.write(f.Path, time.Unix(f.MTime, 0), func(w io.Writer) error {
		counted := writerFunc(func(p []byte) (int, error) { n += int64(len(p)); return w.Write(p) })
		if err := x.client.Blob(ctx, f.CID, io.MultiWriter(counted, sum)); err != nil {
			return err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); n != f.Size || got != f.SHA1 {
			return fmt.Errorf("got %d bytes with SHA1 %s, want %d with %s", n, got, f.Size, f.SHA1)
		}
		return nil
	})
	x.Copied++
	return err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// write makes a file whole or not at all.
func (x *exporter) write(name string, at time.Time, content func(io.Writer) error) error {
	path := filepath.Join(x.dir, filepath.FromSlash(name))
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	err = content(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Chtimes(path+".tmp", time.Time{}, at)
	}
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(path+".tmp"))
	}
	return nil
}

// tidy removes packages and remainders that the index does not name.
func (x *exporter) tidy(named map[string]bool) error {
	return filepath.WalkDir(x.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(x.dir, path)
		if err != nil || named[filepath.ToSlash(rel)] {
			return err
		}
		if !strings.HasSuffix(rel, ".gpkg.tar") && !strings.HasSuffix(rel, ".tmp") {
			return nil
		}
		x.Removed++
		return os.Remove(path)
	})
}

package daemon

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/build-swarm/swarm/build/publish"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/httpgateway/binhost"
)

// Export lays a release out as files. What the channel shows has the very index
// that every gateway serves; another release has one of its own time.
func (d *Daemon) Export(ctx context.Context, target, name string) (control.ExportReply, error) {
	var reply control.ExportReply
	head, all, err := d.released(ctx, target)
	if err != nil {
		return reply, err
	}
	if head == nil {
		return reply, &control.Error{Kind: control.KindNotFound, Message: "nothing is released for " + target, Hint: "swarm releases " + target}
	}
	shown := *head
	if name != "" {
		l, err := publish.Find(all, head, name)
		if err != nil {
			return reply, releaseError(err)
		}
		if l.Release != head.Release {
			shown.Release, shown.Version, shown.Timestamp = l.Release, l.Number, l.Created
		}
	}
	m, err := publish.LoadManifest(ctx, d.Store, d.Requester.Fetch, shown.Release)
	if err != nil {
		return reply, err
	}
	x, err := binhost.New(m)
	if err != nil {
		return reply, err
	}
	reply = control.ExportReply{Schema: 1, Target: target, Release: shown.Release, Version: shown.Version, Timestamp: shown.Timestamp, Index: x.Render(shown), Files: []control.ExportFile{}}
	for i, it := range x.Items() {
		f := control.ExportFile{Path: it.Path, CID: it.CID, Size: it.Size, SHA1: m.Entries[i].Artifact.SHA1, MTime: it.MTime}
		if f.Local, err = d.localFile(it.CID); err != nil {
			return reply, err
		}
		reply.Files = append(reply.Files, f)
	}
	return reply, ctx.Err()
}

// localFile is where the store keeps a blob; opening it verified it. "" when it
// is not here.
func (d *Daemon) localFile(text string) (string, error) {
	c, err := cas.Parse(text)
	if err != nil {
		return "", err
	}
	b, err := d.Store.Open(c)
	if errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer b.Close() // only read
	if f, ok := b.(interface{ File() *os.File }); ok {
		return f.File().Name(), nil
	}
	return "", nil
}

// Blob copies a blob to w.
func (d *Daemon) Blob(ctx context.Context, text string, w io.Writer) error {
	if _, err := cas.Parse(text); err != nil {
		return &control.Error{Kind: control.KindUsage, Message: err.Error()}
	}
	return d.copyBlob(ctx, w, text, 0)
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/disk"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// Storage answers the commands that look after blobs.
type Storage struct {
	Board     Board
	Disk      *disk.Store
	Mend      func(context.Context, cid.Cid) error // fetches a blob into Disk, and puts it on this peer's holdings
	Collector *Collector
}

// fsckTellEvery is how often a person hears of a check's progress.
const fsckTellEvery = time.Second

// Fsck reads every blob and fetches what is damaged from peers.
func (s Storage) Fsck(ctx context.Context, tell func(control.FsckStep) error) error {
	var names map[[32]byte]string
	err := s.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		names = blobNames(r)
		return nil
	})
	if err != nil {
		return err
	}
	return Fsck(ctx, s.Disk, func(c cid.Cid) string {
		d, _ := cas.Digest(c) // the store has no others
		return names[d]
	}, s.Mend, tell)
}

// Fsck checks a store. mend fetches a blob that the store has no more: it was
// damaged, its file is gone, or the disk does not give it.
func Fsck(ctx context.Context, store *disk.Store, name func(cid.Cid) string, mend func(context.Context, cid.Cid) error, tell func(control.FsckStep) error) error {
	u, err := store.Usage()
	if err != nil {
		return err
	}
	step := control.FsckStep{Schema: 1, Blobs: u.Blobs, Bytes: u.Bytes, Mended: []control.Damage{}, Lost: []control.Damage{}, Unread: []control.Damage{}}
	last := time.Now()
	for i, err := range store.Checks(ctx, 0) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		step.Checked++
		step.CheckedBytes += i.Size
		d := control.Damage{CID: i.CID.String(), Name: name(i.CID), Size: i.Size}
		_, there := store.Stat(i.CID)
		switch {
		case err == nil:
		case errors.Is(err, cas.ErrCorrupt), errors.Is(err, disk.ErrGone), errors.Is(there, cas.ErrNotFound):
			if err := mend(ctx, i.CID); err != nil {
				d.Reason = build.OneLine(err.Error(), 300)
				step.Lost = append(step.Lost, d)
			} else {
				step.Mended = append(step.Mended, d)
			}
		default:
			d.Reason = build.OneLine(err.Error(), 300)
			step.Unread = append(step.Unread, d)
		}
		if now := time.Now(); now.Sub(last) >= fsckTellEvery {
			last = now
			if err := tell(step); err != nil {
				return err
			}
		}
	}
	step.Done = true
	return tell(step)
}

// warnings tells of a store that refuses something.
func (s Storage) warnings() []string {
	u, err := s.Disk.Usage()
	if err != nil || u.Level == disk.Roomy {
		return nil
	}
	what := map[disk.Level]string{disk.NoReplicas: "takes no copies for others", disk.NoBuilds: "takes no copies and builds nothing", disk.ReadOnly: "takes nothing at all"}[u.Level]
	return []string{fmt.Sprintf("this peer's store holds %d of %d MiB (%d %%): it %s; swarm gc, or a larger --quota or disk", u.Bytes>>20, u.Quota>>20, u.Bytes*100/max(u.Quota, 1), what)}
}

// ErrStoreInUse: a daemon has the store open.
var ErrStoreInUse = disk.ErrLocked

// OfflineFsck checks the store of a state directory whose daemon does not run.
// What is damaged goes to quarantine; there is nobody to fetch it from.
func OfflineFsck(ctx context.Context, state string, tell func(control.FsckStep) error) error {
	dir := filepath.Join(state, StoreDir)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("find the store: %w", err)
	}
	store, err := disk.Open(dir, disk.Options{})
	if err != nil {
		return err
	}
	nobody := func(context.Context, cid.Cid) error {
		return errors.New("in quarantine; a running daemon fetches it from other holders")
	}
	err = Fsck(ctx, store, func(cid.Cid) string { return "" }, nobody, tell)
	return errors.Join(err, store.Close())
}

// RoomForState is what blobs leave free on the disk, in bytes.
const RoomForState = 64 << 20

// StoreDir is where the store lies in the state directory.
const StoreDir = "blobs"

// GC lists and drops what nothing refers to.
func (s Storage) GC(ctx context.Context, dry bool) (control.GCReply, error) {
	if !dry {
		progress.Tell(ctx, progress.Step{What: "ask the other holders and drop"})
	}
	reply, err := s.Collector.Collect(ctx, dry)
	if err != nil {
		return reply, fmt.Errorf("collect garbage: %w", err)
	}
	return reply, nil
}

// blobNames names the packages and logs that outcomes know, for people.
func blobNames(r *claims.Replica) map[[32]byte]string {
	out := map[[32]byte]string{}
	note := func(text, name string) {
		if c, err := cas.Parse(text); err == nil {
			d, _ := cas.Digest(c) // of our form: Parse said so
			out[d] = name
		}
	}
	for _, o := range r.Outcomes() {
		if o.Log != "" {
			note(o.Log, "log of "+o.CPV.String())
		}
		if o.Artifact != nil {
			note(o.Artifact.CID, o.CPV.String())
		}
	}
	for _, ch := range r.Channels() {
		note(ch.Release, fmt.Sprintf("release of %s/%s", ch.Target, ch.Name))
	}
	for _, l := range r.Releases("") {
		note(l.Release, fmt.Sprintf("release %d of %s", l.Number, l.Target))
	}
	for _, rd := range r.Rounds() {
		if rd.PlanCID != "" {
			note(rd.PlanCID, "plan of round "+rd.ID)
		}
	}
	return out
}

// pinned finds what a pin is about: a CID, a package by its name, a channel, or a
// release as TARGET/NUMBER.
func (d *Daemon) pinned(ctx context.Context, name string) (c cid.Cid, called string, err error) {
	if c, err := cas.Parse(name); err == nil {
		return c, name, nil
	}
	var text string
	err = d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, ch := range r.Channels() {
			if name == ch.Target || name == ch.Target+"/"+ch.Name {
				text, called = ch.Release, fmt.Sprintf("release %d of %s/%s", ch.Version, ch.Target, ch.Name)
			}
		}
		for _, l := range r.Releases("") {
			if name == fmt.Sprintf("%s/%d", l.Target, l.Number) {
				text, called = l.Release, fmt.Sprintf("release %d of %s", l.Number, l.Target)
			}
		}
		return nil
	})
	if err != nil {
		return cid.Undef, "", err
	}
	if text == "" {
		f, err := d.find(ctx, name)
		if err != nil {
			return cid.Undef, "", &control.Error{Kind: control.KindNotFound, Message: fmt.Sprintf("no package, target or blob %q", build.OneLine(name, 80)), Hint: "swarm jobs lists packages; a release is TARGET/NUMBER, from swarm releases; a CID works, too"}
		}
		err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
			if o, _ := r.Good(f.key, now); o != nil {
				text, called = o.Artifact.CID, o.CPV.String()
			}
			return nil
		})
		if err != nil {
			return cid.Undef, "", err
		}
		if text == "" {
			return cid.Undef, "", &control.Error{Kind: control.KindNotFound, Message: f.name + " is not built", Hint: "swarm why " + f.name}
		}
	}
	c, err = cas.Parse(text)
	return c, called, err
}

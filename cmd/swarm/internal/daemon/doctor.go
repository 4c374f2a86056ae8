package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/publish"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/httpgateway/binhost"
)

// Diagnose plans what this machine wants, as Fresh would and without asking for
// it, and compares it with what the channel shows.
func (d *Daemon) Diagnose(ctx context.Context, target string) (control.Diagnosis, error) {
	pp, err := d.portage()
	if err != nil {
		return control.Diagnosis{}, err
	}
	if target == "" {
		target = pp.Target
	}
	out := control.Diagnosis{Schema: view.Schema, Target: target, Lacks: []control.Lack{}, BDeps: []string{}, Notes: []string{}, Winners: []control.Winner{}, Portage: pp.Portage.Version}
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	ask := emerge.PlanRequest{Target: target, Atoms: []string{"@world"}, Update: true, Cache: true}
	t, err := d.target(ctx, target)
	if err != nil {
		return out, err
	}
	if t == nil || t.State != build.TargetLive {
		out.Notes = append(out.Notes, "no target "+target+" is known: swarm target ls lists them, swarm target add "+target+" makes it of this machine's configuration")
	}
	if t != nil && t.State == build.TargetLive {
		ask.Bundle, ask.Base, ask.Strict = t.Bundle, t.Base, t.Rebuild == build.RebuildStrict
		if !t.Base.IsZero() {
			if ask.BaseHas, err = d.base(ctx, t.Base); err != nil {
				return out, err
			}
		}
		b, err := d.evaluate(ctx, "")
		if err != nil {
			return out, err
		}
		if was, err := d.bundle(ctx, t.Bundle); err == nil {
			if diff := b.Diff(was); len(diff) > 0 {
				out.Notes = append(out.Notes, build.OneLine(fmt.Sprintf("this machine's configuration is not the target's: %s (%s); swarm target diff %s shows it", diff[0].What, plural(len(diff), "difference"), target), 300))
			}
		}
	}
	plan, err := pp.ask(ctx, ask)
	if err == nil {
		_, err = d.cross(ctx, plan)
	}
	if err != nil {
		return out, err
	}
	ask.Options = []string{"--with-bdeps=y"}
	more, err := pp.ask(ctx, ask)
	if err != nil {
		return out, err
	}
	has := summary(plan).Wanted
	for _, w := range summary(more).Wanted {
		if !slices.Contains(has, w) {
			out.BDeps = append(out.BDeps, w)
		}
	}
	head, err := d.shown(ctx, target)
	if err != nil {
		return out, err
	}
	if head == nil {
		out.Notes = append(out.Notes, "nothing is released for target "+target+" yet: swarm fresh asks for it")
		head = &release.Manifest{}
	}
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		want := map[build.Key]bool{}
		for _, k := range plan.Want {
			want[k] = true
		}
		for i := range plan.Jobs {
			j := &plan.Jobs[i]
			if !want[j.Key] {
				continue
			}
			out.Wanted++
			l, served := lack(r, now, head, j)
			if served {
				out.Served++
				continue
			}
			out.Lacks = append(out.Lacks, l)
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	if out.Winners, err = d.winners(ctx, pp, head); err != nil {
		return out, err
	}
	for _, n := range slices.Concat(plan.Dropped, plan.Missing) {
		out.Wanted++
		out.Lacks = append(out.Lacks, control.Lack{CPV: n.Atom, Kind: "refused", Why: n.Reason})
	}
	slices.SortStableFunc(out.Lacks, func(a, b control.Lack) int { return strings.Compare(a.CPV, b.CPV) })
	return out, err
}

// winners lists packages of this machine's own PKGDIR that emerge takes before the
// release's, since of one version the one built last wins, wherever it lies.
func (d *Daemon) winners(ctx context.Context, pp PortagePlanner, m *release.Manifest) ([]control.Winner, error) {
	at, err := pp.Portage.Places(ctx)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(at.Pkgdir, "Packages"))
	if errors.Is(err, fs.ErrNotExist) || at.Pkgdir == "" {
		return []control.Winner{}, nil // Portage goes by its index
	}
	if err != nil {
		return nil, fmt.Errorf("look into PKGDIR: %w", err)
	}
	defer f.Close()
	index, err := binhost.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("read the index of %s: %w", at.Pkgdir, err)
	}
	return winners(index, m, at.Pkgdir), nil
}

func winners(own *binhost.Packages, m *release.Manifest, pkgdir string) []control.Winner {
	built := map[string]int64{}
	for i := range m.Entries {
		e := &m.Entries[i]
		n, _ := strconv.ParseInt(e.Meta("BUILD_TIME"), 10, 64) // without one it loses to all
		built[e.CPV.String()] = max(built[e.CPV.String()], n)
	}
	out := []control.Winner{}
	for _, b := range own.Entries {
		cpv := b["CPV"]
		n, _ := strconv.ParseInt(b["BUILD_TIME"], 10, 64) // as above
		if shown, ok := built[cpv]; ok && n > shown {
			out = append(out, control.Winner{CPV: build.OneLine(cpv, 200), Path: build.OneLine(filepath.Join(pkgdir, filepath.Clean("/"+b["PATH"])), 400), NewerMS: (n - shown) * 1000})
		}
	}
	slices.SortFunc(out, func(a, b control.Winner) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// shown is the release that a target's channel shows; nil = none.
func (d *Daemon) shown(ctx context.Context, target string) (*release.Manifest, error) {
	var head *release.Channel
	err := d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		head = r.Channel(target, release.Stable)
		return nil
	})
	if err != nil || head == nil {
		return nil, err
	}
	return publish.LoadManifest(ctx, d.Store, d.Requester.Fetch, head.Release)
}

// lack says why a release does not serve a package that is wanted, by what it
// has that comes nearest; served if it does.
func lack(r *claims.Replica, now claims.Now, m *release.Manifest, j *build.Job) (l control.Lack, served bool) {
	l.CPV = j.CPV.String()
	use := strings.Join(j.USE, " ")
	slot, _, _ := strings.Cut(j.Slot, "/")
	var same, version, other *release.Entry
	for i := range m.Entries {
		e := &m.Entries[i]
		es, _, _ := strings.Cut(e.Slot, "/")
		switch {
		case e.Key == j.Key:
			return l, true
		case e.CPV == j.CPV && (same == nil || e.USE() == use):
			same = e
		case e.CPV.CP() == j.CPV.CP() && es == slot:
			version = e
		case e.CPV.CP() == j.CPV.CP():
			other = e
		}
	}
	switch {
	case r.Available(j.Key, now):
		l.Kind, l.Why, l.Do = "built", "it is built and not released yet", "swarm finalize"
	case same != nil && same.USE() != use:
		l.Kind, l.Why = "use", fmt.Sprintf("the release has it with USE=%q, you want USE=%q", same.USE(), use)
		l.Do = "in package.use: =" + l.CPV + " " + flagsTo(j, strings.Fields(same.USE()))
	case same != nil:
		l.Kind, l.Why, l.Do = "configuration", "the release has it built for another configuration", "swarm fresh"
		if old := r.Job(same.Key); old != nil {
			if diff := emerge.Differ(j.Preimage, old.Preimage); diff != "" {
				l.Why += ": " + build.OneLine(diff, 200)
			}
		}
	case version != nil:
		l.Kind, l.Why, l.Do = "version", "the release has "+version.CPV.PF()+", your tree asks for "+j.CPV.PF(), "swarm sync-verify, or swarm fresh"
	case other != nil:
		l.Kind, l.Why, l.Do = "slot", fmt.Sprintf("the release has slot %s, you want slot %s", other.Slot, j.Slot), "swarm fresh"
	default:
		l.Kind, l.Why, l.Do = "never", "the swarm has not built it for this target", "swarm fresh"
	}
	return l, false
}

// flagsTo are the flags that would make a job what is there already.
func flagsTo(j *build.Job, use []string) string {
	var out []string
	for _, f := range j.IUSE {
		on, wanted := slices.Contains(use, f), slices.Contains(j.USE, f)
		switch {
		case on && !wanted:
			out = append(out, f)
		case wanted && !on:
			out = append(out, "-"+f)
		}
	}
	return strings.Join(out, " ")
}

package monitor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// table is what a tab shows.
type table struct {
	header []string
	rows   []row
	empty  string // what to say when there is nothing
}

// row is one line; key names what it is about.
type row struct {
	key   string
	cells []cell
}

type cell struct {
	text  string
	style render.Style
	bar   int // a bar of so many permille before the text; -1 = none
}

func text(s string) cell                       { return cell{render.Clean(s), render.Plain, -1} }
func styled(style render.Style, s string) cell { return cell{render.Clean(s), style, -1} }

// table lists the tab's rows that the filter lets through.
func (s *state) table() table {
	var t table
	switch s.tab {
	case tabSwarm:
		t = s.swarmTable()
	case tabQueue:
		t = s.queueTable()
	case tabBuilds:
		t = s.buildsTable()
	case tabReleases:
		t = s.releasesTable()
	case tabStorage:
		t = s.storageTable()
	case tabEvents:
		t = s.eventsTable()
	}
	if s.filter == "" {
		return t
	}
	want := strings.ToLower(s.filter)
	t.rows = slices.DeleteFunc(t.rows, func(r row) bool {
		return !slices.ContainsFunc(r.cells, func(c cell) bool { return strings.Contains(strings.ToLower(c.text), want) })
	})
	t.empty = "nothing matches " + s.filter + "; Esc forgets the filter"
	return t
}

// stateStyle is how a state of a peer or a job looks.
func stateStyle(state string) render.Style {
	switch state {
	case "building", "safe", "available", "storing":
		return render.Good
	case "away", "held", "claimed", "unfit", "silent":
		return render.Warn
	case "blocked", "gone", "banned", "failed":
		return render.Bad
	case "idle", "waiting", "consumer":
		return render.Dim
	}
	return render.Plain
}

func (s *state) swarmTable() table {
	t := table{header: []string{"PEER", "STATE", "CORES", "HEARD", "DOING"}, empty: "no peer is known yet"}
	for i := range s.snap.Peers {
		p := &s.snap.Peers[i]
		name, heard := p.Nick, span(p.AgeMS)
		if p.Self {
			name, heard = name+" *", "-"
		}
		t.rows = append(t.rows, row{p.ID, []cell{text(name), styled(stateStyle(p.State), p.State), text(fmt.Sprint(p.Cores)), text(heard), doing(p)}})
	}
	return t
}

func doing(p *view.Peer) cell {
	if len(p.Doing) == 0 {
		return text(p.Why)
	}
	b := &p.Doing[0]
	c := text(buildText(b))
	if p.State == "away" || p.State == "gone" {
		return text("was building " + b.CPV)
	}
	if more := len(p.Doing) - 1; more > 0 {
		c.text += fmt.Sprintf(" and %d more", more)
	}
	c.bar = permille(b)
	return c
}

// buildText is one build in words.
func buildText(b *view.Build) string {
	return render.Clean(fmt.Sprintf("%s (%s %s%s)", b.CPV, b.Phase, span(b.InvestedMS), left(b.LeftMS)))
}

func left(ms int64) string {
	if ms <= 0 {
		return ""
	}
	return ", about " + span(ms) + " left"
}

// permille is how far a build is, by its estimate.
func permille(b *view.Build) int {
	if b.InvestedMS+b.LeftMS <= 0 {
		return 0
	}
	return int(1000 * b.InvestedMS / (b.InvestedMS + b.LeftMS))
}

func (s *state) queueTable() table {
	t := table{header: []string{"PACKAGE", "STATE", "PEER", "LEFT", "NOTE"}, empty: "nothing is asked for: swarm build ATOM..., or swarm build @world"}
	for i := range s.jobs {
		j := &s.jobs[i]
		t.rows = append(t.rows, row{string(j.Key), []cell{text(j.CPV), styled(stateStyle(j.State), j.State), text(j.Peer), text(about(j.LeftMS)), text(jobNote(j))}})
	}
	return t
}

func about(ms int64) string {
	if ms <= 0 {
		return ""
	}
	return span(ms)
}

func jobNote(j *view.Job) string {
	switch {
	case j.Phase != "":
		return j.Phase
	case j.State == "blocked" && j.HoldsUp > 0:
		return fmt.Sprintf("holds up %d: %s", j.HoldsUp, j.Reason)
	case j.State == "available" || j.State == "safe":
		return copies(j.Copies) + ", " + render.Bytes(j.Size)
	case len(j.WaitsFor) > 0:
		return "waits for " + strings.Join(j.WaitsFor, ", ")
	}
	return j.Reason
}

func copies(n int) string {
	if n == 1 {
		return "1 copy"
	}
	return fmt.Sprintf("%d copies", n)
}

// buildsTable is what is built now, then what was built, the newest first.
func (s *state) buildsTable() table {
	t := table{header: []string{"PACKAGE", "PEER", "PHASE", "SPENT", "PROGRESS"}, empty: "nothing is being built"}
	for i := range s.snap.Peers {
		p := &s.snap.Peers[i]
		for n := range p.Doing {
			b := &p.Doing[n]
			c := text(strings.TrimPrefix(left(b.LeftMS), ", "))
			c.bar = permille(b)
			t.rows = append(t.rows, row{string(b.Key), []cell{text(b.CPV), text(p.Nick), styled(render.Good, b.Phase), text(span(b.InvestedMS)), c}})
		}
	}
	ended := slices.DeleteFunc(slices.Clone(s.jobs), func(j view.Job) bool { return j.EndedMS == 0 || j.State == "building" })
	slices.SortStableFunc(ended, func(a, b view.Job) int { return int(min(1, max(-1, b.EndedMS-a.EndedMS))) })
	for i := range ended {
		j := &ended[i]
		how, style, note := "built", render.Dim, render.Bytes(j.Size)
		if j.CID == "" {
			how, style, note = "failed", render.Bad, j.Reason
		}
		t.rows = append(t.rows, row{string(j.Key), []cell{text(j.CPV), text(j.Peer), styled(style, how), text(about(j.CostMS)), text(time.UnixMilli(j.EndedMS).Format("15:04:05") + "  " + note)}})
	}
	return t
}

// releasesTable has a target's releases with gbp's letters: P the one in
// production, B what rollback goes back to, K pinned, ! contested.
func (s *state) releasesTable() table {
	t := table{header: []string{"TARGET", "RELEASE", "", "MADE", "PACKAGES", "CHANGES", "BY"}, empty: "nothing is released yet: swarm finalize"}
	for _, reply := range s.releases {
		for _, r := range reply.Releases {
			mark := ""
			for _, m := range []struct {
				is   bool
				mark string
			}{{r.Shown, "P"}, {r.Before, "B"}, {r.Pin, "K"}, {r.Contested, "!"}} {
				if m.is {
					mark += m.mark
				}
			}
			style := render.Plain
			if r.Shown {
				style = render.Good
			}
			t.rows = append(t.rows, row{fmt.Sprintf("%s %d", r.Target, r.Number), []cell{
				text(r.Target), styled(style, fmt.Sprint(r.Number)), styled(style, mark), text(time.Unix(r.Created, 0).Format("Jan _2 15:04")),
				text(fmt.Sprintf("%d, %s", r.Packages, render.Bytes(r.Bytes))), text(fmt.Sprintf("+%d ~%d -%d", r.New, r.Changed, r.Gone)), text(r.By)}})
		}
	}
	return t
}

// releaseText says all of one release.
func (s *state) releaseText(key string) []string {
	for _, reply := range s.releases {
		for _, r := range reply.Releases {
			if fmt.Sprintf("%s %d", r.Target, r.Number) != key {
				continue
			}
			lines := []string{fmt.Sprintf("release %d of %s, made %s by %s", r.Number, r.Target, time.Unix(r.Created, 0).Format(time.DateTime), r.By),
				fmt.Sprintf("%d packages, %s: %d new, %d changed, %d gone", r.Packages, render.Bytes(r.Bytes), r.New, r.Changed, r.Gone), "CID " + r.Release, ""}
			switch {
			case r.Shown:
				lines = append(lines, "It is in production. Back to the one before: swarm rollback --target "+r.Target)
			default:
				lines = append(lines, fmt.Sprintf("Differences: swarm diff --target %s %d; back to it: swarm rollback --target %s %d", r.Target, r.Number, r.Target, r.Number))
			}
			for _, c := range reply.Consumers {
				lines = append(lines, fmt.Sprintf("  %s told what it has installed: %d packages", c.Nick, c.Packages))
			}
			return lines
		}
	}
	return nil
}

func (s *state) storageTable() table {
	t := table{header: []string{"PEER", "STATE", "BLOBS", "USED", "FREE", "FOR BUILDS"}, empty: "no peer is known yet"}
	for i := range s.snap.Peers {
		p := &s.snap.Peers[i]
		used := text(render.Bytes(p.UsedB))
		if p.UsedB+p.FreeB > 0 {
			used.bar = int(1000 * p.UsedB / (p.UsedB + p.FreeB))
		}
		name := p.Nick
		if !p.Stores {
			name += " (keeps none)"
		}
		t.rows = append(t.rows, row{p.ID, []cell{text(name), styled(stateStyle(p.State), p.State), text(fmt.Sprint(p.Blobs)), used, text(render.Bytes(p.FreeB)), text(render.Bytes(p.DiskMiB << 20))}})
	}
	return t
}

func (s *state) eventsTable() table {
	t := table{header: []string{"WHEN", "WHAT", ""}, empty: "nothing happened yet, as far as this peer knows"}
	for i := range s.events {
		e := &s.events[len(s.events)-1-i] // the newest first
		style := render.Plain
		if e.Bad {
			style = render.Warn
		}
		t.rows = append(t.rows, row{fmt.Sprint(len(s.events) - i), []cell{text(time.UnixMilli(e.AtMS).Format("Jan _2 15:04:05")), styled(style, string(e.Kind)), text(e.Text)}})
	}
	return t
}

package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

func statusCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(), &cli.BoolFlag{Name: "watch", Usage: "show it again every two seconds"})
	return &cli.Command{
		Name: "status", Usage: "show the whole swarm, and what to type next", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			client := control.NewClient(c.String("socket"))
			for {
				s, err := client.Status(c.Context)
				if err != nil {
					return err
				}
				if c.Bool("json") {
					if err := e.out.JSON(s); err != nil {
						return err
					}
				} else {
					if c.Bool("watch") && e.out.TTY {
						e.out.Printf("\x1b[H\x1b[2J")
					}
					showStatus(e.out, s)
				}
				if !c.Bool("watch") {
					return nil
				}
				select {
				case <-c.Context.Done():
					return nil
				case <-time.After(2 * time.Second):
				}
			}
		},
	}
}

// showStatus writes the snapshot: verdict, rounds, peers, copies, releases,
// warnings, and the next command.
func showStatus(o render.Out, s view.Snapshot) {
	style := render.Good
	switch s.Verdict {
	case view.Degraded:
		style = render.Warn
	case view.Blocked:
		style = render.Bad
	}
	o.Labeled(style, strings.ToUpper(string(s.Verdict))+":", s.Sentence)
	for _, r := range s.Rounds {
		if r.State == "open" {
			showRound(o, r)
		}
	}
	o.Printf("\n")
	t := o.NewTable("PEER", "STATE", "CORES", "HEARD", "DOING")
	for _, p := range s.Peers {
		name := p.Nick
		if p.Self {
			name += " *"
		}
		t.Row(name, stateCell(p.State), p.Cores, heard(p), doing(p))
	}
	t.Flush()
	showIssues(o, s.Issues)
	o.Printf("\ncopies: %s\n", copies(s.Blobs))
	if text := classes(s.Blobs.Classes); text != "" {
		o.Printf("  %s\n", text)
	}
	if text := disks(s.Peers); text != "" {
		o.Printf("  %s\n", text)
	}
	for _, r := range s.Releases {
		o.Labeled(render.Plain, "release:", releaseLine(r, s.AtMS))
	}
	for _, x := range s.Staging {
		o.Labeled(render.Plain, "staging:", stagingLine(x))
	}
	showOrders(o, s)
	for _, w := range s.Warnings {
		o.Labeled(render.Warn, "warning:", w)
	}
	o.Printf("\nNEXT ACTION: %s\n", o.Styled(render.Strong, s.Next))
}

// shownCommand is how much of a round's command a terminal shows.
const shownCommand = 50

func showRound(o render.Out, r view.Round) {
	left := ""
	if r.LeftMS > 0 {
		left = ", " + eta(r)
	}
	more := ""
	for _, x := range []struct {
		n    int
		word string
	}{{r.Blocked, "blocked"}, {r.Unfit, "without a drone"}} {
		if x.n > 0 {
			more += fmt.Sprintf(", %d %s", x.n, x.word)
		}
	}
	if r.Impulse > 0 {
		left = fmt.Sprintf(", %.0f/h", r.Impulse) + left
	}
	command := r.Command
	if o.TTY { // one line of a terminal; what was asked for is on the page, and in a pipe
		command = render.Fit(command, shownCommand)
	}
	o.Labeled(render.Strong, "round "+r.ID+":", fmt.Sprintf("%s (%s): needed %d, building %d, done %d%s%s", command, r.Priority, r.Jobs, r.Building, r.Done, more, left))
}

// shownIssues is how many root causes status lists; the page has them all.
const shownIssues = 8

// showIssues lists the root causes that hold jobs up, the gravest first. Others
// stand among the warnings.
func showIssues(o render.Out, list []view.Issue) {
	n := 0
	for _, i := range list {
		if i.HoldsUp == 0 && i.Kind != view.IssueFailed {
			continue
		}
		if n++; n > shownIssues {
			continue
		}
		if n == 1 {
			o.Printf("\n")
		}
		text := i.Title
		if i.HoldsUp > 0 {
			text += fmt.Sprintf(", holds up %d", i.HoldsUp)
		}
		if len(i.Drones) > 0 {
			text += ", tried on " + strings.Join(i.Drones, ", ")
		}
		if i.Detail != "" {
			text += ": " + i.Detail
		}
		style := render.Warn
		if i.Severity == view.Blocked {
			style = render.Bad
		}
		o.Labeled(style, "attention:", text+" ("+i.Do+")")
	}
	if n > shownIssues {
		o.Printf("  and %d more\n", n-shownIssues)
	}
}

// lowDisk is how little space for builds or blobs is worth a word.
const lowDisk = 10 << 30

// disks names the peers that run out of room, as long as they are here.
func disks(peers []view.Peer) string {
	var low []string
	for _, p := range peers {
		if p.State == "away" || p.State == "gone" {
			continue
		}
		switch {
		case p.Slots > 0 && p.DiskMiB > 0 && p.DiskMiB<<20 < lowDisk:
			low = append(low, p.Nick+" has "+render.Bytes(p.DiskMiB<<20)+" for builds")
		case p.Stores && p.UsedB+p.FreeB > 0 && p.FreeB < lowDisk:
			low = append(low, p.Nick+" has "+render.Bytes(p.FreeB)+" for copies")
		}
	}
	if len(low) == 0 {
		return ""
	}
	return "low on disk: " + strings.Join(low, ", ")
}

// releaseLine is what a channel shows, how old it is, and whether it was rolled
// back.
func releaseLine(r view.Release, nowMS int64) string {
	text := fmt.Sprintf("%s/%s version %d", r.Target, r.Channel, r.Version)
	if r.Number > 0 && r.Number != r.Version {
		text += fmt.Sprintf(", back at release %d", r.Number)
	}
	if r.Packages > 0 {
		text += fmt.Sprintf(", %d packages", r.Packages)
	}
	text += ", of " + time.Unix(r.Timestamp, 0).UTC().Format(time.RFC3339)
	if age := nowMS/1000 - r.Timestamp; nowMS > 0 && age >= 0 {
		text += " (" + render.Duration(time.Duration(age)*time.Second) + " ago)"
	}
	return text
}

// stagingLine is what a release would bring now.
func stagingLine(s view.Staging) string {
	if s.Problem != "" {
		return s.Target + ": cannot be composed: " + s.Problem
	}
	var parts []string
	for _, x := range []struct {
		n    int
		word string
	}{{s.New, "new"}, {s.Changed, "changed"}, {s.Gone, "gone"}, {s.Held, "held back"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.word))
		}
	}
	if len(parts) == 0 {
		return s.Target + ": nothing new"
	}
	return s.Target + ": " + strings.Join(parts, ", ") + " (swarm diff --target " + s.Target + ")"
}

// eta is when a round will be done: a range, as far as there is one.
func eta(r view.Round) string {
	span := func(ms int64) string { return render.Duration(time.Duration(ms) * time.Millisecond) }
	low, high := span(r.LeftLowMS), span(r.LeftHighMS)
	switch {
	case r.LeftHighMS <= 0:
		return "about " + span(r.LeftMS) + " left"
	case low == high:
		return "ETA " + low
	}
	return "ETA " + low + " - " + high
}

// heard is how long ago a peer was heard of; nobody hears himself.
func heard(p view.Peer) string {
	if p.Self || p.State == "unreached" || p.State == "silent" {
		return "-"
	}
	return render.Duration(time.Duration(p.AgeMS) * time.Millisecond)
}

func doing(p view.Peer) string {
	var parts []string
	if p.State == "away" || p.State == "gone" { // what it did when it was heard of
		for _, b := range p.Doing {
			parts = append(parts, b.CPV)
		}
		if len(parts) == 0 {
			return ""
		}
		return "was building " + strings.Join(parts, ", ")
	}
	for _, b := range p.Doing {
		part := b.CPV + " (" + b.Phase + " " + render.Duration(time.Duration(b.InvestedMS)*time.Millisecond)
		if b.LeftMS > 0 {
			part += ", about " + render.Duration(time.Duration(b.LeftMS)*time.Millisecond) + " left"
		}
		parts = append(parts, part+")")
	}
	if len(parts) == 0 && p.Why != "" {
		return p.Why
	}
	return strings.Join(parts, ", ")
}

func copies(b view.Blobs) string {
	if b.Total == 0 {
		return "nothing kept yet"
	}
	full, few := 0, 0
	for n, count := range b.Copies {
		if n >= b.Wanted {
			full += count
		} else {
			few += count
		}
	}
	line := fmt.Sprintf("all %d blobs on %d peers or more", full, b.Wanted)
	if few > 0 {
		line = fmt.Sprintf("%d of %d blobs on %d peers or more, %d still being copied", full, b.Total, b.Wanted, few)
	}
	return line
}

// classes says what is not well, by how much it matters.
func classes(all []view.BlobClass) string {
	var parts []string
	for _, c := range all {
		var bad []string
		for _, x := range []struct {
			n    int
			word string
		}{{c.Lost, "on no peer that is here"}, {c.Single, "with a single copy"}, {c.Few, "waiting for a third copy"}} {
			if x.n > 0 {
				bad = append(bad, fmt.Sprintf("%d %s", x.n, x.word))
			}
		}
		if c.Total > 0 && len(bad) > 0 {
			parts = append(parts, fmt.Sprintf("%s: %s of %d", c.Class, strings.Join(bad, ", "), c.Total))
		} else if c.Total > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d, all well", c.Class, c.Total))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return strings.Join(parts, "; ")
}

func jobsCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(), &cli.StringFlag{Name: "round", Usage: "the jobs of the round `ID`, open or not"}, &cli.StringFlag{Name: "state", Usage: "only jobs in this `STATE`"})
	return &cli.Command{
		Name: "jobs", Usage: "list the jobs of the open rounds", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			all, err := control.NewClient(c.String("socket")).Jobs(c.Context, c.String("round"))
			if err != nil {
				return err
			}
			jobs := make([]view.Job, 0, len(all))
			for _, j := range all {
				if s := c.String("state"); s == "" || s == j.State {
					jobs = append(jobs, j)
				}
			}
			if c.Bool("json") {
				return e.out.JSON(map[string]any{"schema": view.Schema, "jobs": jobs})
			}
			if len(jobs) == 0 {
				e.note("no jobs: no round is open (swarm status lists the rounds, swarm jobs --round ID their jobs)")
				return nil
			}
			showJobs(e.out, jobs)
			return nil
		},
	}
}

// showJobs writes the table. A terminal has no room for a column of its own for
// the copies: they stand in the note.
func showJobs(o render.Out, jobs []view.Job) {
	t := o.NewTable("PACKAGE", "STATE", "PEER", "COPIES", "KEY", "NOTE")
	if o.TTY {
		t = o.NewTable("PACKAGE", "STATE", "PEER", "KEY", "NOTE")
	}
	for _, j := range jobs {
		if !o.TTY {
			t.Row(j.CPV, stateCell(j.State), j.Peer, j.Copies, j.Key.Short(), jobNote(j))
			continue
		}
		note := jobNote(j)
		switch {
		case j.Copies == 1:
			note = strings.TrimSpace("1 copy " + note)
		case j.Copies > 1:
			note = strings.TrimSpace(fmt.Sprintf("%d copies %s", j.Copies, note))
		}
		t.Row(j.CPV, stateCell(j.State), j.Peer, j.Key.Short(), note)
	}
	t.Flush()
}

func jobNote(j view.Job) string {
	switch {
	case j.Phase != "":
		return j.Phase
	case len(j.WaitsFor) > 0:
		return "waits for " + strings.Join(j.WaitsFor, ", ")
	case j.Reason != "":
		return j.Reason
	case j.Provisional:
		return "provisional: built on the drone's own root"
	case len(j.USE) > 0:
		return "USE=" + strings.Join(j.USE, " ")
	}
	return ""
}

func logsCmd(e *env) *cli.Command {
	flags := clientFlags(&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "wait for more until the build has ended"})
	return &cli.Command{
		Name: "logs", Usage: "print a job's build log, from whichever peer has it", ArgsUsage: "JOB", Flags: flags, Before: settings(flags),
		Description: "JOB is a package (category/name, or with its version) or the end of a job's key.",
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 1, "one JOB")
			if err != nil {
				return err
			}
			return control.NewClient(c.String("socket")).Log(c.Context, render.NewCleanWriter(e.out.W), args[0], c.Bool("follow"))
		},
	}
}

func buildCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(), &cli.StringFlag{Name: "with", Usage: "`WHAT` to plan with: portage or sample; else the daemon's own choice"},
		&cli.StringFlag{Name: "target", Usage: "build for the target `NAME`, from its base; of another machine's, as that would"},
		&cli.StringFlag{Name: "for", Usage: "with --target: as the machine `PEER` would, of what it has published of itself"},
		&cli.BoolFlag{Name: "wait", Usage: "wait until the round has ended and show how it goes"})
	return &cli.Command{
		Name: "build", Usage: "have the swarm build packages, and what they need", ArgsUsage: "ATOM...", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			atoms, err := positional(c, 1, -1, "at least one ATOM")
			if err != nil {
				return err
			}
			switch {
			case c.String("for") != "" && c.String("target") == "":
				return usage("swarm build --target NAME --for "+shellWords([]string{c.String("for")})+" "+shellWords(atoms), "--for goes with --target")
			case c.String("with") == string(build.BuilderSample) && c.String("target") != "":
				return usage("", "--target is for packages of Portage")
			}
			return runBuild(c, e, atoms)
		},
	}
}

func runBuild(c *cli.Context, e *env, atoms []string) error {
	client := control.NewClient(c.String("socket"))
	ctx, end := e.waiting(c.Context)
	var reply control.BuildReply
	var err error
	if target := c.String("target"); target == "" {
		reply, err = client.Build(ctx, control.BuildRequest{Atoms: atoms, Builder: build.Builder(c.String("with")), Command: "swarm build " + strings.Join(atoms, " ")})
	} else {
		var fresh control.FreshReply
		fresh, err = client.Fresh(ctx, control.FreshRequest{
			Target: target, For: c.String("for"), Atoms: atoms, Named: true, Command: "swarm build --target " + target + " " + strings.Join(atoms, " "),
		}, func(s control.FreshStep) { showStep(e, s) })
		reply = fresh.BuildReply
	}
	end()
	if err != nil {
		return err
	}
	e.noteOmitted(reply)
	if c.Bool("wait") {
		err = waitRound(c, e, client, reply)
	} else if c.Bool("json") {
		err = e.out.JSON(reply)
	} else {
		wanted := reply.Wanted
		if most := 5; e.out.TTY && len(wanted) > most {
			wanted = append(slices.Clone(wanted[:most]), fmt.Sprintf("and %d more", len(wanted)-most))
		}
		e.out.Labeled(render.Strong, "round "+reply.Round+":", fmt.Sprintf("%d jobs for %s", reply.Jobs, strings.Join(wanted, " ")))
		e.note("watch it: swarm status --watch")
	}
	if err == nil && len(reply.Missing) > 0 {
		return errPartial // of what was asked for by name
	}
	return err
}

// noteOmitted tells what a plan does not build, and why, on stderr.
func (e *env) noteOmitted(reply control.BuildReply) {
	for _, n := range reply.Missing {
		e.note("swarm: left out: %s: %s", render.Clean(n.Atom), render.Clean(n.Reason))
	}
	for _, n := range reply.Dropped {
		e.note("swarm: dropped: %s: %s", render.Clean(n.Atom), render.Clean(n.Reason))
	}
}

// waitRound follows a round until it is released, or can go no further.
func waitRound(c *cli.Context, e *env, client *control.Client, reply control.BuildReply) error {
	ctx, end := e.waiting(c.Context)
	defer end()
	since := time.Time{} // since when no drone fits the rest
	for {
		s, err := client.Status(c.Context)
		if err != nil {
			return err
		}
		for _, r := range s.Rounds {
			if r.ID != reply.Round {
				continue
			}
			progress.Tell(ctx, roundStep(r))
			switch {
			case r.State != string(build.RoundOpen), r.Manual && r.PlanKnown && r.Done == r.Jobs:
				end()
				return roundEnded(c, e, r)
			case !stuck(r):
				since = time.Time{}
			case since.IsZero():
				since = time.Now()
			}
			if stuck(r) && (r.Unfit == 0 && r.Done < r.Jobs || time.Since(since) > unfitPatience) {
				end()
				return roundEnded(c, e, r)
			}
		}
		select {
		case <-c.Context.Done():
			return c.Context.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// unfitPatience is how long a job may fit no drone before waiting for it ends
// (a drone that starts says only in its second Beat what it can build), and how
// long what is built may wait to be released (for its copies).
const unfitPatience = 30 * time.Second

// stuck reports whether nothing of a round will move by itself: what is not
// built is blocked, fits no drone, or waits for such; or all is built.
func stuck(r view.Round) bool {
	return r.PlanKnown && (r.Blocked+r.Unfit > 0 || r.Done == r.Jobs) && r.Building == 0 && r.Ready == 0
}

func roundEnded(c *cli.Context, e *env, r view.Round) error {
	if c.Bool("json") {
		err := e.out.JSON(struct {
			Schema int `json:"schema"`
			view.Round
		}{view.Schema, r})
		if err != nil {
			return err
		}
	} else if r.Done == r.Jobs && r.State != string(build.RoundOpen) {
		e.out.Printf("round %s: %d of %d built and released\n", r.ID, r.Done, r.Jobs)
	} else {
		e.out.Printf("round %s: %d of %d built\n", r.ID, r.Done, r.Jobs)
	}
	if r.Done < r.Jobs {
		e.note("swarm: the rest is not built: swarm jobs --round %s says why, swarm logs JOB shows a log", r.ID)
		return errPartial
	}
	if r.State == string(build.RoundOpen) {
		e.note("not released yet: swarm finalize --target %s releases it, or says why not", r.Target)
	}
	return nil
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
	"github.com/build-swarm/swarm/cmd/swarm/internal/update"
)

func updateCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(), stateFlag(), targetFlag(),
		&cli.StringFlag{Name: "emerge", Usage: "the emerge to update with, a `FILE`; empty looks on PATH"},
		&cli.BoolFlag{Name: "compile", Usage: "go on though packages have to be compiled on this machine"},
		&cli.BoolFlag{Name: "dry-run", Usage: "say what would be installed, and install nothing"},
		&cli.BoolFlag{Name: "no-sync", Usage: "leave the ebuild repositories as they are"})
	return &cli.Command{
		Name: "update", Usage: "update this machine from the release that its target shows", Flags: flags, Before: settings(flags),
		Description: "It moves git checkouts of ebuild repositories to the release's commits, asks emerge what it would do, refuses when something would be compiled here, and then runs emerge -uDN -g @world. After a cut it goes on where it was.",
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			u := &updater{
				env: e, client: control.NewClient(c.String("socket")), target: c.String("target"), state: c.String("state"),
				compile: c.Bool("compile"), dry: c.Bool("dry-run"), sync: !c.Bool("no-sync"), json: c.Bool("json"),
			}
			return u.run(c.Context, c.String("emerge"))
		},
	}
}

// updater is one `swarm update`.
type updater struct {
	env                      *env
	client                   *control.Client
	portage                  *update.Portage
	target, state            string
	compile, dry, sync, json bool
}

// updated is the JSON document of `swarm update`.
type updated struct {
	Schema    int      `json:"schema"`
	Target    string   `json:"target"`
	Release   uint64   `json:"release"` // number of the release
	Packages  int      `json:"packages"`
	FromSwarm int      `json:"from_swarm"`
	Compiled  int      `json:"compiled"`
	Seconds   float64  `json:"seconds"`
	Tasks     []string `json:"tasks"` // what was, or would be, installed
	Left      []string `json:"left"`  // for the owner
	Done      bool     `json:"done"`
}

// began is the file in the state directory that outlives a cut.
type began struct {
	Target string    `json:"target"`
	At     time.Time `json:"at"`
	Binary []string  `json:"binary"` // done so far
	Built  []string  `json:"built"`
}

func (u *updater) run(ctx context.Context, emerge string) error {
	p, err := update.Find(ctx, emerge)
	if errors.Is(err, update.ErrNone) {
		return failure("swarm update runs on Gentoo; put emerge on PATH, or name it with --emerge", "%v", err)
	}
	if err != nil {
		return err
	}
	u.portage = p
	if err := u.ready(ctx); err != nil {
		return err
	}
	number, err := u.follow(ctx)
	if err != nil {
		return err
	}
	tasks, said, err := p.Pretend(ctx)
	if err != nil {
		return failure("emerge --pretend --update --deep --newuse --getbinpkg @world says more", "emerge cannot plan the update: %v: %s", err, lastLines(said))
	}
	doc := updated{Schema: 1, Target: u.target, Release: number, Tasks: []string{}, Left: []string{}}
	if err := u.forecast(&doc, tasks); err != nil || u.dry {
		if u.json && err == nil {
			return u.env.out.JSON(doc)
		}
		return err
	}
	return u.install(ctx, &doc, tasks)
}

// ready refuses where emerge would not ask the swarm, or find it.
func (u *updater) ready(ctx context.Context) error {
	conf := filepath.Join(u.portage.Config, "etc/portage/binrepos.conf/swarm.conf")
	text, err := os.ReadFile(conf)
	if errors.Is(err, fs.ErrNotExist) {
		return failure("swarm portage setup", "emerge on this machine does not ask the swarm: there is no %s", conf)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", conf, err)
	}
	uri := ""
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "sync-uri = "); ok {
			uri = v
		}
	}
	if !strings.HasSuffix(uri, "/"+u.target+"/stable") {
		return failure("swarm portage setup --target "+u.target, "emerge on this machine installs from %s, which is not target %s", uri, u.target)
	}
	// Without a binhost emerge -g compiles, and says nothing.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, uri+"/Packages.gz", nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", uri, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return failure("start it: swarm run", "the binhost does not answer, and emerge would compile everything: %v", err)
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return failure("swarm releases --target "+u.target+" lists what there is", "the binhost has no index at %s (%s)", uri, res.Status)
	}
	return nil
}

// follow moves the repositories to the release's tree and returns the number
// of the release.
func (u *updater) follow(ctx context.Context) (uint64, error) {
	rel, err := u.client.Releases(ctx, u.target)
	if err != nil {
		return 0, err
	}
	var number uint64
	for _, r := range rel.Releases {
		if r.Shown {
			number = r.Number
		}
	}
	u.note("release %d of %s", number, u.target)
	if !u.sync {
		return number, nil
	}
	if len(rel.Repos) == 0 {
		u.note("no tree is recorded with this release: the repositories stay as they are")
	}
	for _, r := range rel.Repos {
		moved, err := u.portage.Follow(ctx, update.Repo{Name: r.Name, Commit: r.Commit})
		switch {
		case err != nil:
			u.note("%v; emerge --sync brings its newest", err)
		case moved:
			u.note("tree: %s moved to %.12s", r.Name, r.Commit)
		default:
			u.note("tree: %s is at %.12s already", r.Name, r.Commit)
		}
	}
	return number, nil
}

func (u *updater) note(format string, args ...any) {
	u.env.note("%s", render.Clean(fmt.Sprintf(format, args...)))
}

// forecast says what will happen, and refuses to compile unless told.
func (u *updater) forecast(doc *updated, tasks []update.Task) error {
	var compile, down []string
	for _, t := range tasks {
		doc.Tasks = append(doc.Tasks, t.Name)
		if !t.Binary {
			compile = append(compile, t.Name)
		}
		if t.Down {
			down = append(down, t.Name)
		}
	}
	doc.Packages, doc.Compiled = len(tasks), len(compile)
	doc.FromSwarm = doc.Packages - doc.Compiled
	if !u.json {
		u.env.out.Labeled(render.Strong, "updating from the swarm:", fmt.Sprintf("[%s], %d from the swarm, %d compiled here", plural(len(tasks), "package"), doc.FromSwarm, len(compile)))
		if u.dry {
			for _, t := range tasks {
				how := "binary"
				if !t.Binary {
					how = "compile"
				}
				u.env.out.Printf("%s\t%s\n", how, render.Clean(t.Name))
			}
		}
	}
	if len(down) > 0 {
		u.note("%s: %s", downs(len(down)), few(down))
	}
	if len(compile) > 0 && !u.compile && !u.dry {
		return failure("swarm build "+few(atoms(compile))+" has the swarm build them; --compile does it here", "%s would be compiled on this machine: %s", plural(len(compile), "package"), few(compile))
	}
	return nil
}

// few names the first of a list.
func few(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, " ")
	}
	return strings.Join(names[:most], " ") + fmt.Sprintf(" and %d more", len(names)-most)
}

func atoms(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = "=" + n
	}
	return out
}

func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return build.OneLine(strings.Join(lines[max(0, len(lines)-4):], " "), 600)
}

func (u *updater) install(ctx context.Context, doc *updated, tasks []update.Task) error {
	binary := map[string]bool{}
	for _, t := range tasks {
		binary[t.Name] = t.Binary
	}
	b := u.resume()
	if len(tasks) > 0 {
		if err := u.merge(ctx, &b, binary); err != nil {
			return err
		}
	}
	doc.Packages, doc.FromSwarm, doc.Compiled = len(b.Binary)+len(b.Built), len(b.Binary), len(b.Built)
	took := time.Since(b.At)
	doc.Seconds, doc.Done = float64(took.Milliseconds())/1000, true
	doc.Left = append(doc.Left, update.Left(u.portage.EROOT, u.portage.Protect, slices.Concat(b.Binary, b.Built))...)
	if err := os.Remove(u.file()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget that an update ran: %w", err)
	}
	u.publish(ctx)
	if u.json {
		return u.env.out.JSON(doc)
	}
	o := u.env.out
	if doc.Packages == 0 {
		o.Labeled(render.Good, "up to date:", "this machine has what the release has")
	} else {
		o.Printf("%s, %d from the swarm, %d compiled, %s\n", plural(doc.Packages, "package"), doc.FromSwarm, doc.Compiled, spelled(took))
	}
	for _, l := range doc.Left {
		o.Labeled(render.Warn, "for you:", render.Clean(l))
	}
	return nil
}

// spelled is a duration as in "4 m 32 s".
func spelled(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d m %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d m", int(d.Hours()), int(d.Minutes())%60)
}

func (u *updater) file() string { return filepath.Join(u.state, "update.json") }

// resume takes up what an update that was cut had done.
func (u *updater) resume() began {
	b := began{Target: u.target, At: time.Now()}
	text, err := os.ReadFile(u.file())
	var old began
	if err != nil || json.Unmarshal(text, &old) != nil || old.Target != u.target || old.At.After(b.At) {
		return b
	}
	if n := len(old.Binary) + len(old.Built); n > 0 {
		u.note("going on with the update of %s: %s are in already", old.At.Local().Format("2006-01-02 15:04"), plural(n, "package"))
	}
	return old
}

func (u *updater) keep(b began) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(u.state, 0o700); err != nil {
		return fmt.Errorf("keep how far the update is: %w", err)
	}
	tmp := u.file() + ".new"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return fmt.Errorf("keep how far the update is: %w", err)
	}
	return os.Rename(tmp, u.file())
}

// merge runs emerge and shows how far it is.
func (u *updater) merge(ctx context.Context, b *began, binary map[string]bool) error {
	if err := u.keep(*b); err != nil {
		return failure("run it as root: sudo swarm update", "%v", err)
	}
	path := filepath.Join(u.state, "update.log")
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write emerge's output: %w", err)
	}
	var kept error
	var last update.Step
	shown, end := u.env.waiting(ctx)
	runErr := u.portage.Run(ctx, log, func(s update.Step) {
		last = s
		u.show(shown, s)
		if !s.Completed {
			return
		}
		if from, known := binary[s.Name]; known && !from {
			b.Built = append(b.Built, s.Name)
		} else {
			b.Binary = append(b.Binary, s.Name)
		}
		if err := u.keep(*b); err != nil && kept == nil {
			kept = err
		}
	})
	end()
	if err := errors.Join(kept, log.Close()); err != nil {
		u.note("%v", err) // the update itself is what counts
	}
	switch {
	case ctx.Err() != nil:
		u.note("cut off after %d of %d; what is installed stays, and swarm update goes on from there", last.Done, last.Total)
		return ctx.Err()
	case runErr != nil:
		text, _ := os.ReadFile(path) // the hint names it
		return failure("all of it is in "+path+"; swarm update goes on from there", "the update stopped after %d of %d: %v: %s", last.Done, last.Total, runErr, why(string(text)))
	}
	return nil
}

// why finds the line of emerge's output that says what went wrong.
func why(text string) string {
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "!!!") || strings.HasPrefix(line, "* ERROR") || strings.HasPrefix(line, ">>> Failed") {
			last = strings.TrimLeft(line, "!*> ")
		}
	}
	if last == "" {
		return lastLines(text)
	}
	return build.OneLine(last, 300)
}

// show tells of a step: on a terminal as any progress is, elsewhere by a line of
// data for each package.
func (u *updater) show(ctx context.Context, s update.Step) {
	switch {
	case u.json:
	case u.env.out.TTY:
		progress.Tell(ctx, progress.Step{What: "update", Done: int64(s.Done), All: int64(s.Total), Note: s.Name})
	case s.Completed:
		u.env.out.Printf("[%d/%d] %s\n", s.Done, s.Total, render.Clean(s.Name))
	}
}

// publish tells the swarm what is installed now, so that the next release
// leaves nothing to compile here. An update does not fail for it.
func (u *updater) publish(ctx context.Context) {
	text, err := os.ReadFile(filepath.Join(u.portage.Config, "etc/portage/binrepos.conf/swarm.conf"))
	if err != nil || strings.Contains(string(text), notPublished) {
		return
	}
	if _, err := publishInstalled(ctx, u.client, u.portage.EROOT, u.portage.Config, u.target); err != nil {
		u.note("what is installed here was not published: %v", err)
	}
}

// publishInstalled sends what is installed below an EROOT, and what the owner
// provides, to the daemon, which passes it on, and returns how many packages are
// installed.
func publishInstalled(ctx context.Context, client *control.Client, eroot, config, target string) (int, error) {
	set, err := update.Installed(eroot, config, target)
	if err != nil {
		return 0, err
	}
	b, err := set.Encode()
	if err != nil {
		return 0, err
	}
	return len(set.Packages), client.Subscribe(ctx, b)
}

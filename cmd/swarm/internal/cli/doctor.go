package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// consumerDoctor is `swarm doctor` on a machine that installs: what the swarm
// can serve of what it wants, and what stands in the way of the rest.
func consumerDoctor(c *cli.Context, e *env) error {
	s := portageSetup{root: "/", etc: "/etc/portage", target: c.String("target"), env: e}
	var err error
	if s.gateway, err = reachable(noEmpty(c.StringSlice("gateway"))); err != nil {
		return err
	}
	s.asWritten(c.IsSet("target"), c.IsSet("gateway"))
	d, err := control.NewClient(c.String("socket")).Diagnose(c.Context, s.target)
	if err != nil {
		return err
	}
	s.target = d.Target
	checks := slices.Concat(s.check(c.Context), portageAge(d.Portage), pkgdirFound(d.Winners))
	if c.Bool("json") {
		return errors.Join(e.out.JSON(struct {
			control.Diagnosis
			Checks []finding `json:"checks"`
		}{d, checks}), unwell(checks))
	}
	showDiagnosis(e.out, d)
	showFindings(e.out, checks)
	return unwell(checks)
}

// unwell is an error for scripts where something found is bad.
func unwell(list []finding) error {
	if slices.ContainsFunc(list, func(f finding) bool { return f.State == badFound }) {
		return errUnwell
	}
	return nil
}

func showDiagnosis(o render.Out, d control.Diagnosis) {
	switch {
	case d.Wanted == 0:
		o.Labeled(render.Good, "up to date:", "emerge -uDN @world has nothing to do")
	default:
		style := render.Good
		if d.Served < d.Wanted {
			style = render.Warn
		}
		o.Labeled(style, fmt.Sprintf("%d of %d", d.Served, d.Wanted), fmt.Sprintf("packages that emerge -uDN @world wants come from %s/stable", render.Clean(d.Target)))
	}
	for _, l := range d.Lacks {
		o.Labeled(render.Bad, render.Clean(l.CPV)+" ("+l.Kind+"):", render.Clean(l.Why))
		if l.Do != "" {
			o.Printf("    %s\n", render.Clean(l.Do))
		}
	}
	if n := len(d.BDeps); n > 0 {
		o.Printf("--with-bdeps=y would add %s: %s\n", plural(n, "package"), render.Clean(strings.Join(d.BDeps, " ")))
	}
	for _, n := range d.Notes {
		o.Printf("note: %s\n", render.Clean(n))
	}
}

// pkgdirFound says what of PKGDIR would win over the release.
func pkgdirFound(list []control.Winner) []finding {
	if len(list) == 0 {
		return []finding{{Check: "PKGDIR", State: wellFound, Note: "nothing in it is newer than what is released"}}
	}
	names := make([]string, 0, len(list))
	for _, w := range list {
		names = append(names, render.Clean(w.CPV))
	}
	return []finding{{
		Check: "PKGDIR", State: lessFound, Note: "your own builds are newer than what is released, and emerge takes the newer one: " + shortList(names, 5),
		Do: "rm " + render.Clean(list[0].Path) + " (and so on), then: emaint binhost --fix",
	}}
}

// shortList names the first few.
func shortList(names []string, most int) string {
	if len(names) > most {
		return strings.Join(names[:most], " ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, " ")
}

// portageAge says what an old Portage lacks (facts of its NEWS).
func portageAge(version string) []finding {
	f := finding{Check: "portage", State: wellFound, Note: version}
	var major, minor, patch int
	if n, _ := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); n < 3 || major != 3 || minor != 0 {
		return []finding{f}
	}
	switch {
	case patch < 58:
		f.State, f.Note, f.Do = badFound, version+" does not read the packages that drones write by default (gpkg)", "emerge --oneshot sys-apps/portage"
	case patch < 77:
		f.State, f.Note, f.Do = lessFound, version+" puts fetched packages into PKGDIR, beside your own", "emerge --oneshot sys-apps/portage"
	case patch < 78:
		f.State, f.Note, f.Do = lessFound, version+" knows no getbinpkg-exclude: another binary host cannot be kept from winning", "emerge --oneshot sys-apps/portage"
	}
	return []finding{f}
}

// check compares what setup wrote with what it would write now, and looks at
// what emerge will meet.
func (s *portageSetup) check(ctx context.Context) []finding {
	const mend = "swarm portage setup"
	var out []finding
	add := func(check, state, note, do string) { out = append(out, finding{check, state, note, do}) }
	text, err := os.ReadFile(s.binrepo())
	now := *s
	now.publish = !strings.Contains(string(text), notPublished)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		add("binrepos.conf", badFound, s.binrepo()+" is not there: emerge does not ask the swarm", mend)
	case err != nil:
		add("binrepos.conf", badFound, err.Error(), "")
	case string(text) != now.section(strings.Contains(string(text), madeDir)):
		add("binrepos.conf", badFound, s.binrepo()+" is not as setup would write it now (another target, gateway or version)", mend+" --target "+s.target+" --gateway "+s.gateway)
	default:
		add("binrepos.conf", wellFound, s.binrepo(), "")
	}
	switch on, err := s.getbinpkg(); {
	case err != nil:
		add("make.conf", badFound, err.Error()+": emerge cannot read it, either", "")
	case !on && strings.Contains(readText(s.makeConf()), markBegin):
		add("make.conf", badFound, "another FEATURES of "+s.makeConfBase()+" takes back the getbinpkg that setup wrote: plain emerge compiles", "write it as FEATURES=\"${FEATURES} ...\", without -getbinpkg")
	case !on:
		add("make.conf", badFound, s.makeConf()+" has no FEATURES=getbinpkg: plain emerge compiles", mend)
	default:
		add("make.conf", wellFound, s.makeConf(), "")
	}
	switch others, err := s.others(); {
	case err != nil:
		add("other hosts", badFound, err.Error(), "")
	case len(others) > 0:
		add("other hosts", lessFound, "the newer build wins, whatever the priorities: "+strings.Join(others, ", "), "comment them out, or add getbinpkg-exclude = */* to their sections")
	default:
		add("other hosts", wellFound, "none is active", "")
	}
	url := fmt.Sprintf("http://%s/%s/stable/Packages", s.gateway, s.target)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // emerge's own patience
	defer cancel()
	switch code, err := head(ctx, url); {
	case err != nil:
		add("gateway", badFound, url+" does not answer: emerge would compile without a word", "start it: swarm run; and let it start at boot")
	case code == http.StatusNotFound:
		add("gateway", lessFound, "nothing is released for target "+s.target+" yet", "swarm fresh --target "+s.target)
	case code != http.StatusOK:
		add("gateway", badFound, fmt.Sprintf("%s answers %d", url, code), "swarm status")
	default:
		add("gateway", wellFound, url, "")
	}
	return append(out, bootFound(s.root)...)
}

// service is how a machine's init starts the daemon at boot.
type service struct {
	init    string   // "" where none is known
	enabled bool     // it is started at boot
	start   []string // what enables it
	order   string   // what makes another service that runs emerge wait for it
}

// serviceOf looks which init a system has, and whether it starts the daemon.
func serviceOf(root string) service {
	there := func(pattern string) bool {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		return err == nil && len(found) > 0
	}
	switch {
	case there("run/systemd/system"), !there("etc/runlevels") && there("etc/systemd/system"):
		return service{
			"systemd", there("etc/systemd/system/*.wants/swarm.service") || there("usr/lib/systemd/system/*.wants/swarm.service"),
			[]string{"systemctl enable --now swarm"}, "in a timer or service that runs emerge: [Unit] Wants=swarm.service After=swarm.service",
		}
	case there("etc/runlevels"):
		return service{
			"openrc", there("etc/runlevels/*/swarm"),
			[]string{"rc-update add swarm default", "rc-service swarm start"}, "in the depend() of a service that runs emerge: need swarm",
		}
	}
	return service{}
}

// bootFound says whether the gateway is there before anything runs emerge.
func bootFound(root string) []finding {
	f := finding{Check: "boot", State: wellFound}
	switch v := serviceOf(root); {
	case v.init == "":
		f.State, f.Note = lessFound, "neither systemd nor OpenRC is here: have something start swarm run at boot, before emerge runs"
	case !v.enabled:
		f.State, f.Note, f.Do = lessFound, v.init+" does not start swarm at boot: until somebody does, emerge compiles without a word", strings.Join(v.start, " && ")
	default:
		f.Note = v.init + " starts swarm at boot; " + v.order
	}
	return []finding{f}
}

func head(ctx context.Context, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// portageCheckCmd and portageRemoveCmd stand beside setup.
func portageCheckCmd(e *env, flags []cli.Flag) *cli.Command {
	flags = append(slices.Clone(flags), jsonFlag())
	return &cli.Command{
		Name: "check", Usage: "look whether emerge on this machine would install from the swarm", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			s, err := setupOf(c, e)
			if err != nil {
				return err
			}
			list := s.check(c.Context)
			if c.Bool("json") {
				err = e.out.JSON(struct {
					Schema int       `json:"schema"`
					Checks []finding `json:"checks"`
				}{1, list})
			} else {
				showFindings(e.out, list)
			}
			return errors.Join(err, unwell(list))
		},
	}
}

func portageRemoveCmd(e *env, flags []cli.Flag) *cli.Command {
	return &cli.Command{
		Name: "remove", Usage: "take away what setup wrote, and nothing else", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			s, err := setupOf(c, e)
			if err != nil {
				return err
			}
			return s.undo()
		},
	}
}

// writtenURI is the line of our section that says what setup was told.
var writtenURI = regexp.MustCompile(`(?m)^sync-uri = http://([^/\s]+)/([^/\s]+)/stable$`)

// asWritten takes target and gateway, unless somebody has named them, from what setup
// wrote: to look whether it is well is not to want the defaults.
func (s *portageSetup) asWritten(target, gateway bool) {
	m := writtenURI.FindStringSubmatch(readText(s.binrepo()))
	if m == nil {
		return
	}
	if !gateway {
		s.gateway = m[1]
	}
	if !target && build.ValidTarget(m[2]) {
		s.target = m[2]
	}
}

// readText is what a file holds; "" for one that cannot be read.
func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

// setupOf is what setup, check and remove work on.
func setupOf(c *cli.Context, e *env) (*portageSetup, error) {
	s := &portageSetup{ctx: c.Context, root: c.String("root"), client: control.NewClient(c.String("socket")), publish: c.Bool("publish"), etc: filepath.Join(c.String("root"), "etc/portage"),
		target: c.String("target"), dry: c.Bool("dry-run"), env: e}
	if c.Command.Name != "remove" { // which needs none
		var err error
		if s.gateway, err = reachable(noEmpty(c.StringSlice("gateway"))); err != nil {
			return nil, err
		}
	}
	if c.Command.Name == "check" {
		s.asWritten(c.IsSet("target"), c.IsSet("gateway"))
	}
	if st, err := os.Stat(s.etc); err != nil || !st.IsDir() {
		return nil, failure("run it on a Gentoo machine, or name its root with --root", "no Portage configuration in %s", s.etc)
	}
	return s, nil
}

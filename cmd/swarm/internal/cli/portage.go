package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

func portageCmd(e *env) *cli.Command {
	flags := []cli.Flag{
		configFlag(),
		&cli.StringFlag{Name: "root", Value: "/", Usage: "the system whose etc/portage is written, a `DIR`"},
		stringFlag("target", "default", "`NAME` of the target whose packages this machine installs"),
		listFlag("gateway", "`HOST:PORT` of the binhost; the first one counts", "127.0.0.1:8090"),
		&cli.BoolFlag{Name: "allow-other", Usage: "leave other binary package hosts active: packages may then come from them"},
		&cli.BoolFlag{Name: "publish", Value: true, Usage: "tell the swarm what is installed here (--publish=false refuses): names, versions, USE flags, dependencies, world"},
		socketFlag(),
		&cli.BoolFlag{Name: "undo", Usage: "take away what setup wrote"},
		&cli.BoolFlag{Name: "dry-run", Usage: "say what would be written, and write nothing"},
	}
	return &cli.Command{
		Name: "portage", Usage: "Portage's side of the swarm",
		Subcommands: []*cli.Command{{
			Name: "setup", Usage: "let emerge on this machine install from the local binhost", Flags: flags, Before: settings(flags),
			Description: "It writes a file of its own in binrepos.conf, and FEATURES=getbinpkg between two marks in make.conf. --undo restores both byte for byte.",
			Action: func(c *cli.Context) error {
				if _, err := positional(c, 0, 0, ""); err != nil {
					return err
				}
				if t := c.String("target"); !build.ValidTarget(t) {
					return usage("for example: swarm portage setup --target desktop", "target %q: want a short word of a-z, 0-9, dot, dash", t)
				}
				s, err := setupOf(c, e)
				if err != nil {
					return err
				}
				if c.Bool("undo") {
					return s.undo()
				}
				return s.do(c.Bool("allow-other"))
			},
		}, portageCheckCmd(e, flags), portageRemoveCmd(e, flags)},
	}
}

// reachable is the address at which emerge on this machine finds the gateway:
// what the daemon listens on, with any address meaning loopback.
func reachable(gateways []string) (string, error) {
	if len(gateways) == 0 {
		return "", usage("swarm portage setup --gateway 127.0.0.1:8090", "no gateway is configured")
	}
	host, port, err := net.SplitHostPort(gateways[0])
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 {
		return "", usage("swarm portage setup --gateway 127.0.0.1:8090", "gateway %q: want HOST:PORT", gateways[0])
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// portageSetup writes two things and nothing else: a section of its own in
// binrepos.conf, and FEATURES=getbinpkg between two marks in make.conf. What
// undo needs to restore every byte stands in the marks.
type portageSetup struct {
	ctx     context.Context // of the command
	client  *control.Client
	root    string
	publish bool
	etc     string // .../etc/portage
	target  string
	gateway string
	dry     bool
	env     *env
}

const (
	markBegin = "# begin: written by swarm portage setup; swarm portage setup --undo removes it"
	markEnd   = "# end: swarm portage setup"
	// notPublished stands in our section where somebody refused; swarm update
	// keeps to it.
	notPublished = "# What is installed here is not published (--publish=false)."

	// Said at the end of the first mark: what was not there before.
	madeFile    = " (and this file)"
	madeNewline = " (and the line break before it)"

	ownHeader = "# Written by: swarm portage setup. To undo: swarm portage setup --undo"
	madeDir   = "# The directory was made for it."
)

func (s *portageSetup) binrepos() string { return filepath.Join(s.etc, "binrepos.conf") }
func (s *portageSetup) binrepo() string  { return filepath.Join(s.binrepos(), "swarm.conf") }

// makeConf is the file that gets FEATURES: make.conf itself, or a file of our
// own where it is a directory.
func (s *portageSetup) makeConf() string {
	path := s.makeConfBase()
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return filepath.Join(path, "zz-swarm.conf")
	}
	return path
}

func (s *portageSetup) makeConfBase() string { return filepath.Join(s.etc, "make.conf") }

func (s *portageSetup) section(newDir bool) string {
	head := ownHeader + "\n"
	if newDir {
		head += madeDir + "\n"
	}
	if !s.publish {
		head += notPublished + "\n"
	}
	return head + fmt.Sprintf(`[swarm]
# The daemon that fetches what it does not have from the peers, and verifies
# every byte before Portage gets it.
sync-uri = http://%s/%s/stable
priority = 9999
# A place of its own: another binhost's files are never taken for these.
location = /var/cache/binhost/swarm
# The packages carry no OpenPGP signature: what vouches for them is the swarm
# key and the peers' own signatures, which the daemon has checked. Portage
# 3.0.78 and later would refuse them otherwise.
verify-signature = false
`, s.gateway, s.target)
}

func (s *portageSetup) do(allowOther bool) error {
	others, err := s.others()
	if err != nil {
		return err
	}
	if len(others) > 0 && !allowOther {
		return failure("comment these out, or add 'getbinpkg-exclude = */*' to their sections (Portage 3.0.78 or later), or use --allow-other",
			"other binary package hosts are active and their packages would be mixed with the swarm's: %s", strings.Join(others, ", "))
	}
	if _, err := s.getbinpkg(); err != nil {
		// What is written behind it would be part of the quote.
		return failure("mend it first: emerge cannot read it, either", "read make.conf: %v", err)
	}
	dir, err := os.Stat(s.binrepos())
	if err == nil && !dir.IsDir() {
		return failure(fmt.Sprintf("make it a directory: cd %s && mv binrepos.conf x && mkdir binrepos.conf && mv x binrepos.conf/mine.conf", s.etc), "%s is a file", s.binrepos())
	}
	newDir := errors.Is(err, fs.ErrNotExist)
	switch old, err := os.ReadFile(s.binrepo()); {
	case err == nil && !strings.HasPrefix(string(old), ownHeader):
		return failure("move it away, or give it another name", "%s is there and swarm portage setup did not write it", s.binrepo())
	case err == nil:
		newDir = strings.Contains(string(old), madeDir) // as it was the first time
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read what an earlier setup wrote: %w", err)
	}
	conf := s.makeConf()
	text, err := s.withFeatures(conf)
	if err != nil {
		return err
	}
	if err := s.write(s.binrepo(), s.section(newDir)); err != nil {
		return err
	}
	if err := s.write(conf, text); err != nil {
		return err
	}
	if !s.dry {
		s.explain(conf)
		s.subscribe()
		s.env.out.Printf("next: swarm update\n")
	}
	return nil
}

// subscribe publishes what is installed, or says how to do it later.
func (s *portageSetup) subscribe() {
	o := s.env.out
	if !s.publish {
		if err := s.client.Unsubscribe(s.ctx, s.target); err != nil {
			s.env.note("swarm: what was published of this machine before is still there: %v", render.Clean(err.Error()))
		}
		o.Printf("nothing about what is installed here is published: a release may leave this machine\nto compile something.\n")
		return
	}
	const what = "names, versions, USE flags and dependencies of\nwhat is installed here, the world file, package.provided and those default options of emerge that\ndecide what an update is; peers of this swarm can read it and plan for this machine (swarm fresh --target),\nand no release then leaves it to compile. To refuse: swarm portage setup --publish=false\n"
	n, err := publishInstalled(s.ctx, s.client, s.root, s.root, s.target)
	if err != nil {
		o.Printf("swarm update publishes to the swarm: " + what)
		s.env.note("swarm: not published yet: %s", render.Clean(err.Error()))
		return
	}
	o.Printf("published to the swarm, for %d packages: "+what, n)
}

// withFeatures is make.conf with our lines at its end: the last word on
// FEATURES, which they extend.
func (s *portageSetup) withFeatures(conf string) (string, error) {
	old, err := os.ReadFile(conf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read make.conf: %w", err)
	}
	text, made := without(string(old))
	mark := markBegin
	switch {
	case err != nil || made:
		mark += madeFile
	case text != "" && !strings.HasSuffix(text, "\n"):
		text, mark = text+"\n", mark+madeNewline
	}
	return text + mark + "\nFEATURES=\"${FEATURES} getbinpkg\"\n" + markEnd + "\n", nil
}

func (s *portageSetup) explain(conf string) {
	o := s.env.out
	o.Printf("FEATURES=getbinpkg was added to %s between two marks.\n", conf)
	o.Printf("emerge now asks http://%s/%s/stable before it compiles.\n", s.gateway, s.target)
	o.Printf("verify-signature is false for this one host: its packages carry no OpenPGP\nsignature; the daemon has verified them against the swarm's own records.\n")
	if v := serviceOf(s.root); v.init != "" {
		if !v.enabled {
			o.Printf("The daemon has to run before emerge does, or emerge compiles without a word. At boot:\n    %s\n", strings.Join(v.start, "\n    "))
		}
		o.Printf("%s\n", v.order)
	}
	o.Printf("to undo: swarm portage setup --undo\n")
}

// write puts a file in place whole, with the owner and the mode that it had, or
// says what it would write. A link stays a link: what it names is written.
func (s *portageSetup) write(path, text string) error {
	if s.dry {
		s.env.out.Printf("would write %s:\n%s\n", path, text)
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return s.denied(err)
	}
	dest, err := filepath.EvalSymlinks(path)
	if err != nil {
		dest = path // it is not there yet
	}
	// A name with a dot is one that Portage passes over in its directories.
	tmp := filepath.Join(filepath.Dir(dest), "."+filepath.Base(dest)+".swarm-new")
	if err := writeLike(tmp, dest, text); err != nil {
		return s.denied(errors.Join(err, gone(os.Remove(tmp))))
	}
	if err := os.Rename(tmp, dest); err != nil {
		return s.denied(errors.Join(err, gone(os.Remove(tmp))))
	}
	s.env.out.Printf("wrote %s\n", path)
	return nil
}

// writeLike writes a new file, durably, with owner and mode of an old one.
func writeLike(path, old, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if st, serr := os.Stat(old); serr == nil {
		err = errors.Join(err, f.Chmod(st.Mode().Perm()))
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
			err = errors.Join(err, f.Chown(int(sys.Uid), int(sys.Gid)))
		}
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// gone lets a file be away that was to be removed.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (s *portageSetup) denied(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return failure("run it as root: sudo swarm portage setup", "%v", err)
	}
	return err
}

// without removes what an earlier setup wrote between its marks, and reports
// whether it had made the whole file.
func without(text string) (rest string, made bool) {
	before, rest, ok := strings.Cut(text, markBegin)
	if !ok || before != "" && !strings.HasSuffix(before, "\n") {
		return text, false
	}
	note, rest, ok := strings.Cut(rest, "\n")
	if !ok {
		return text, false
	}
	_, after, ok := strings.Cut(rest, markEnd+"\n")
	if !ok {
		return text, false // somebody edited the marks: nothing is guessed
	}
	if note == madeNewline && after == "" { // somebody's lines below need it
		before = strings.TrimSuffix(before, "\n")
	}
	return before + after, note == madeFile
}

func (s *portageSetup) undo() error {
	done := false
	switch old, err := os.ReadFile(s.binrepo()); {
	case err == nil && strings.HasPrefix(string(old), ownHeader):
		done = true
		if err := s.remove(s.binrepo()); err != nil {
			return err
		}
		if strings.Contains(string(old), madeDir) && !s.dry {
			// Somebody else's file in it keeps the directory.
			if err := os.Remove(s.binrepos()); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
				return s.denied(err)
			}
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return s.denied(err)
	}
	conf := s.makeConf()
	old, err := os.ReadFile(conf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.denied(err)
	}
	if text, made := without(string(old)); text != string(old) {
		done = true
		put := func() error { return s.write(conf, text) }
		if made && text == "" {
			put = func() error { return s.remove(conf) }
		}
		if err := put(); err != nil {
			return err
		}
	} else if strings.Contains(string(old), markBegin) {
		return failure("remove the lines from "+markBegin[:8]+" on by hand", "the marks in %s were edited, so nothing was taken out of it", conf)
	}
	if !done {
		s.env.out.Printf("nothing of swarm portage setup is in %s\n", s.etc)
		return nil
	}
	if !s.dry {
		if err := s.client.Unsubscribe(s.ctx, s.target); err != nil {
			s.env.note("swarm: what was published of this machine stays with the swarm until its daemon runs: swarm portage setup --undo takes it back then")
		}
	}
	return nil
}

func (s *portageSetup) remove(path string) error {
	if s.dry {
		s.env.out.Printf("would remove %s\n", path)
		return nil
	}
	if err := os.Remove(path); err != nil {
		return s.denied(err)
	}
	s.env.out.Printf("removed %s\n", path)
	return nil
}

// others lists the binary package hosts that are active beside ours: sections
// of binrepos.conf, and PORTAGE_BINHOST in make.conf.
func (s *portageSetup) others() ([]string, error) {
	var out []string
	err := confFiles(s.binrepos(), func(path string) error {
		if path == s.binrepo() {
			return nil
		}
		names, err := activeSections(path)
		for _, n := range names {
			out = append(out, "["+n+"] in "+path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for other binary package hosts: %w", err)
	}
	err = confFiles(filepath.Join(s.etc, "make.conf"), func(path string) error {
		text, err := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			value, ok := strings.CutPrefix(strings.TrimSpace(line), "PORTAGE_BINHOST=")
			if ok && strings.Trim(value, `"' `) != "" {
				out = append(out, "PORTAGE_BINHOST in "+path)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for other binary package hosts: %w", err)
	}
	slices.Sort(out)
	return out, nil
}

// confFiles visits a file, or the files of a directory that Portage would read.
func confFiles(base string, visit func(path string) error) error {
	return filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == base {
			return nil
		}
		if err != nil {
			return err
		}
		hidden := path != base && (strings.HasPrefix(d.Name(), ".") || strings.HasSuffix(d.Name(), "~"))
		switch {
		case d.IsDir() && hidden:
			return fs.SkipDir
		case d.IsDir() || hidden:
			return nil
		}
		if st, err := os.Stat(path); err != nil || st.IsDir() {
			return err // a link to a directory is not followed
		}
		return visit(path)
	})
}

// activeSections lists the sections of an ini file that name a sync-uri and do
// not exclude everything.
func activeSections(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	name, active := "", false
	end := func() {
		if active && name != "" && name != "DEFAULT" {
			out = append(out, name)
		}
	}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			end()
			name, active = line[1:len(line)-1], false
		default:
			key, value, _ := strings.Cut(line, "=")
			switch strings.TrimSpace(key) {
			case "sync-uri":
				active = true
			case "getbinpkg-exclude":
				if strings.Contains(value, "*/*") {
					name = ""
				}
			}
		}
	}
	end()
	return out, sc.Err()
}

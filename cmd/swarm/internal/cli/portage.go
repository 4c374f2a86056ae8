package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build"
)

func portageCmd(e *env) *cli.Command {
	flags := []cli.Flag{
		configFlag(),
		&cli.StringFlag{Name: "root", Value: "/", Usage: "the system whose /etc/portage is written"},
		stringFlag("target", "default", "the target whose packages this machine installs"),
		listFlag("gateway", "address of the binhost, host:port; the first one counts", "127.0.0.1:8090"),
		&cli.BoolFlag{Name: "allow-other", Usage: "leave other binary package hosts active: packages may then come from them"},
		&cli.BoolFlag{Name: "undo", Usage: "take away what setup wrote"},
		&cli.BoolFlag{Name: "dry-run", Usage: "say what would be written, and write nothing"},
	}
	return &cli.Command{
		Name: "portage", Usage: "Portage's side of the swarm",
		Subcommands: []*cli.Command{{
			Name: "setup", Usage: "let emerge on this machine install from the local binhost", Flags: flags, Before: settings(flags),
			Action: func(c *cli.Context) error {
				if _, err := positional(c, 0, 0, ""); err != nil {
					return err
				}
				s := portageSetup{etc: filepath.Join(c.String("root"), "etc/portage"), target: c.String("target"), dry: c.Bool("dry-run"), env: e}
				if !build.ValidTarget(s.target) {
					return usage("--target desktop", "target %q: want a short word of a-z, 0-9, dot, dash", s.target)
				}
				if g := noEmpty(c.StringSlice("gateway")); len(g) > 0 {
					s.gateway = g[0]
				}
				if c.Bool("undo") {
					return s.undo()
				}
				return s.do(c.Bool("allow-other"))
			},
		}},
	}
}

// portageSetup writes two things and nothing else: a section of its own in
// binrepos.conf, and FEATURES=getbinpkg between two marks in make.conf.
type portageSetup struct {
	etc     string // .../etc/portage
	target  string
	gateway string
	dry     bool
	env     *env
}

const (
	markBegin = "# begin: written by swarm portage setup; swarm portage setup --undo removes it"
	markEnd   = "# end: swarm portage setup"
)

func (s *portageSetup) binrepo() string { return filepath.Join(s.etc, "binrepos.conf", "swarm.conf") }

// makeConf is the file that gets FEATURES: make.conf itself, or a file of our
// own where it is a directory.
func (s *portageSetup) makeConf() string {
	path := filepath.Join(s.etc, "make.conf")
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return filepath.Join(path, "zz-swarm.conf")
	}
	return path
}

func (s *portageSetup) section() string {
	return fmt.Sprintf(`# Written by: swarm portage setup. To undo: swarm portage setup --undo
[swarm]
# The daemon on this machine. It fetches what is not here from the peers and
# verifies every byte before Portage gets it.
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
	if st, err := os.Stat(s.etc); err != nil || !st.IsDir() {
		return failure("run it on a Gentoo machine, or name its root with --root", "no Portage configuration in %s", s.etc)
	}
	others, err := s.others()
	if err != nil {
		return err
	}
	if len(others) > 0 && !allowOther {
		return failure("comment these sections out, or add 'getbinpkg-exclude = */*' to them (Portage 3.0.78 or later), or use --allow-other",
			"other binary package hosts are active and their packages would be mixed with the swarm's: %s", strings.Join(others, ", "))
	}
	if st, err := os.Stat(filepath.Join(s.etc, "binrepos.conf")); err == nil && !st.IsDir() {
		return failure("make it a directory: mv binrepos.conf x; mkdir binrepos.conf; mv x binrepos.conf/", "%s is a file", filepath.Join(s.etc, "binrepos.conf"))
	}
	conf := s.makeConf()
	old, err := os.ReadFile(conf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", conf, err)
	}
	text := without(string(old))
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	text += markBegin + "\nFEATURES=\"${FEATURES} getbinpkg\"\n" + markEnd + "\n"
	if err := s.write(s.binrepo(), s.section()); err != nil {
		return err
	}
	if err := s.write(conf, text); err != nil {
		return err
	}
	o := s.env.out
	o.Printf("FEATURES=getbinpkg was added to %s between two marks.\n", conf)
	o.Printf("emerge now asks http://%s/%s/stable, the daemon on this machine, before it compiles.\n", s.gateway, s.target)
	o.Printf("verify-signature is false for this one host: packages of the swarm carry no OpenPGP signature; the daemon has verified them against the swarm's records.\n")
	o.Printf("to undo: swarm portage setup --undo\n")
	o.Printf("next: emerge --ask --update --deep --newuse --getbinpkg --binpkg-respect-use=y --binpkg-changed-deps=y @world\n")
	return nil
}

// write puts a file in place whole, or says what it would write.
func (s *portageSetup) write(path, text string) error {
	if s.dry {
		s.env.out.Printf("would write %s:\n%s\n", path, text)
		return nil
	}
	mode := fs.FileMode(0o644)
	if st, err := os.Stat(path); err == nil {
		mode = st.Mode().Perm()
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return s.denied(err)
	}
	tmp := path + ".swarm-new"
	if err := os.WriteFile(tmp, []byte(text), mode); err != nil {
		return s.denied(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return s.denied(errors.Join(err, os.Remove(tmp)))
	}
	s.env.out.Printf("wrote %s\n", path)
	return nil
}

func (s *portageSetup) denied(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return failure("run it as root: sudo swarm portage setup", "%v", err)
	}
	return err
}

// without removes what an earlier setup wrote between its marks.
func without(text string) string {
	before, rest, ok := strings.Cut(text, markBegin+"\n")
	if !ok {
		return text
	}
	_, after, ok := strings.Cut(rest, markEnd+"\n")
	if !ok {
		return text // somebody edited the marks: nothing is guessed
	}
	return before + after
}

func (s *portageSetup) undo() error {
	done := false
	if _, err := os.Stat(s.binrepo()); err == nil {
		if !s.dry {
			if err := os.Remove(s.binrepo()); err != nil {
				return s.denied(err)
			}
		}
		s.env.out.Printf("removed %s\n", s.binrepo())
		done = true
	}
	conf := s.makeConf()
	old, err := os.ReadFile(conf)
	if err == nil && without(string(old)) != string(old) {
		text := without(string(old))
		if text == "" && filepath.Base(conf) == "zz-swarm.conf" && !s.dry {
			if err := os.Remove(conf); err != nil {
				return s.denied(err)
			}
			s.env.out.Printf("removed %s\n", conf)
		} else if err := s.write(conf, text); err != nil {
			return err
		}
		done = true
	}
	if !done {
		s.env.out.Printf("nothing of swarm portage setup is in %s\n", s.etc)
	}
	return nil
}

// others lists the sections of binrepos.conf that are active beside ours.
func (s *portageSetup) others() ([]string, error) {
	var out []string
	base := filepath.Join(s.etc, "binrepos.conf")
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == base {
			return nil
		}
		if err != nil || d.IsDir() || path == s.binrepo() {
			return err
		}
		names, err := activeSections(path)
		for _, n := range names {
			out = append(out, n+" in "+path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", base, err)
	}
	slices.Sort(out)
	return out, nil
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

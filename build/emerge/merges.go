package emerge

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// merges follows the log of an emerge that installs packages, and keeps apart what
// was said while each was installed: emerge goes on after a failure, so one log
// tells of several.
type merges struct {
	to    io.Writer
	names map[string]string // as emerge names the packages, with a build ID or without
	of    map[string]*said  // by CPV
	last  *said             // whose lines come now; nil = nobody's
}

// said is what was said while a package was installed.
type said struct {
	cpv  string
	died string // phase
	text []byte // the end of it, maxSaid bytes or twice that
}

const maxSaid = 32 << 10

var (
	// mergeRE begins what is about one package.
	mergeRE = regexp.MustCompile(`^>>> (?:\w[\w ]*\(\d+ of \d+\)|Failed to \w+) ([^\s:,]+)`)
	// dropRE is said of what needs a package that failed.
	dropRE = regexp.MustCompile(`emerge --keep-going: (\S+)`)
	// sumRE begins what repeats all that was said before.
	sumRE = regexp.MustCompile(`^ ?\* (?:Messages for package|The following (?:\d+ )?packages? ha)`)
)

// reset forgets all, for the next run.
func (m *merges) reset(planned []Offered) {
	m.names, m.of, m.last = map[string]string{}, map[string]*said{}, nil
	for i := range planned {
		cpv := planned[i].CPV.String()
		m.names[cpv] = cpv
		m.names[strings.TrimPrefix(planned[i].atom(), "=")] = cpv
	}
}

// at names what is being installed.
func (m *merges) at() string {
	if m.last == nil {
		return "it"
	}
	return m.last.cpv
}

// Write takes one line: so output gives them.
func (m *merges) Write(b []byte) (int, error) {
	line := strings.TrimRight(string(b), "\n")
	switch {
	case sumRE.MatchString(line):
		m.last = nil
	default:
		for _, re := range []*regexp.Regexp{mergeRE, diedRE, dropRE} {
			if x := re.FindStringSubmatch(line); x != nil {
				name, _, _ := strings.Cut(x[1], "::")
				m.begin(name)
				if re == diedRE && m.last != nil {
					m.last.died = x[2]
				}
				break
			}
		}
	}
	if m.last != nil {
		if m.last.text = append(m.last.text, b...); len(m.last.text) > 2*maxSaid {
			m.last.text = slices.Delete(m.last.text, 0, len(m.last.text)-maxSaid)
		}
	}
	return m.to.Write(b)
}

func (m *merges) begin(name string) {
	cpv, ok := m.names[name]
	if !ok {
		return
	}
	if m.of[cpv] == nil {
		m.of[cpv] = &said{cpv: cpv}
	}
	m.last = m.of[cpv]
}

// fault is why a package was not installed.
type fault struct {
	class  build.Class
	reason string
	owners []string // CPVs of those whose files it would have replaced
	waits  bool     // something that it needs failed
}

// fault reads what was said; nil says that nothing was.
func (s *said) fault() *fault {
	if s == nil {
		return nil
	}
	flat := unwrap(s.text)
	if strings.Contains(flat, " NOT merged ") {
		return collision(s.text, flat)
	}
	if _, needs, ok := strings.Cut(flat, "dropped because it "); ok && s.died == "" {
		needs, _, _ = strings.Cut(needs, ">>>")
		needs = strings.TrimPrefix(strings.TrimSpace(needs), "requires ")
		return &fault{class: build.BadPackage, reason: "needs " + needs + ", which could not be installed", waits: true}
	}
	f := classify(s.text)
	return &fault{class: f.Class, reason: f.Reason}
}

// lastWords is what a phase died with.
func (s *said) lastWords() string {
	died := false
	for raw := range bytes.Lines(s.text) {
		line := strings.TrimRight(string(raw), "\n")
		if died {
			return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "*"))
		}
		died = diedRE.MatchString(line)
	}
	return saidNothing
}

// unwrap makes one line of what Portage broke into several, also after a hyphen.
func unwrap(text []byte) string {
	var out strings.Builder
	for raw := range bytes.Lines(text) {
		line := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(string(raw)), "*"))
		out.WriteString(line)
		if !strings.HasSuffix(line, "-") {
			out.WriteByte(' ')
		}
	}
	return out.String()
}

var ownerRE = regexp.MustCompile(`^ ?\* (\S+/\S+?):\S+$`)

// collision is the fault of a package that would have replaced others' files.
func collision(text []byte, flat string) *fault {
	if strings.Contains(flat, "read-only file system") {
		return &fault{class: build.BadMachine, reason: "a read-only file system"}
	}
	f := &fault{class: build.BadPackage}
	var paths []string
	owned := false
	for raw := range bytes.Lines(text) {
		line := strings.TrimRight(string(raw), " \n")
		bare := strings.TrimPrefix(strings.TrimPrefix(line, " "), "* ")
		switch x := ownerRE.FindStringSubmatch(line); {
		case strings.Contains(line, "Searching all installed"):
			owned = true
		case strings.HasPrefix(bare, "\t") && !strings.HasPrefix(bare, "\t\t") && !owned:
			paths = append(paths, strings.TrimSpace(bare))
		case owned && x != nil:
			f.owners = append(f.owners, x[1])
		}
	}
	what := "its files collide"
	if len(paths) > 0 {
		what = "it collides at " + paths[0]
	}
	if len(f.owners) > 0 {
		what += " with " + strings.Join(f.owners, ", ")
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(paths)))); n > 1 {
		what += fmt.Sprintf(" (%d paths in all)", n)
	}
	f.reason = what
	return f
}

// verdict is what one root of an install test came to.
type verdict struct {
	installed       int
	failed, untried []Tested
}

// judge says what became of each package that emerge was to install. there says in
// which slot one is installed, and ended is why emerge ended, nil if well. An error
// is this machine's fault.
func judge(planned, want []Offered, log *merges, there func(*Offered) (string, bool), ended *build.Failure) (v verdict, err error) {
	wanted := map[build.Key]*Offered{}
	for i := range want {
		wanted[want[i].Key] = &want[i]
	}
	var waiting []Tested
	var refusing []string // category/name of those whose pkg_pretend died
	mistaken := false     // one that was there before failed for a file of a new one
	for i := range planned {
		o := &planned[i]
		said := log.of[o.CPV.String()]
		slot, ok := there(o)
		if ok && (said == nil || said.died == "") {
			if slot == o.slot() {
				v.installed++
			} else {
				v.failed = append(v.failed, o.tested("it is installed in slot %s, the release says %s", slot, o.Slot))
			}
			continue
		}
		if said != nil && said.died == "pretend" {
			// It asks something of the machine, and this one is not a consumer's.
			refusing = append(refusing, o.CPV.CP())
			v.untried = append(v.untried, o.tested("pretend phase: %s", said.lastWords()))
			continue
		}
		f := said.fault()
		switch {
		case f == nil && ended != nil:
			f = &fault{class: ended.Class, reason: ended.Reason}
		case f == nil:
			f = &fault{class: build.BadPackage, reason: "it is not there after emerge ended well"}
		}
		if f.class != build.BadPackage {
			return verdict{}, machine("%s (while %s was installed)", f.reason, o.CPV)
		}
		if newcomer := ownerAmong(f.owners, want); wanted[o.Key] == nil && newcomer != nil {
			mistaken = true
			v.failed = append(v.failed, newcomer.tested("with it %s cannot be installed: %s", o.CPV, f.reason))
			continue
		}
		if f.waits {
			waiting = append(waiting, o.tested("%s", f.reason))
		} else {
			v.failed = append(v.failed, o.tested("%s", f.reason))
		}
	}
	for _, x := range waiting {
		switch {
		case slices.ContainsFunc(refusing, func(cp string) bool { return strings.Contains(x.Reason, cp) }):
			v.untried = append(v.untried, x)
		case !mistaken: // else it has another chance without that one
			v.failed = append(v.failed, x)
		}
	}
	return v, nil
}

func ownerAmong(owners []string, want []Offered) *Offered {
	for i := range want {
		if slices.Contains(owners, want[i].CPV.String()) {
			return &want[i]
		}
	}
	return nil
}

// slot is the form in which the package database has it.
func (o *Offered) slot() string {
	s, err := build.ParseSlot(o.Slot)
	if err != nil {
		return o.Slot
	}
	return s.String()
}

package emerge

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
)

// sayings are the packages of a report with what is said of them, sorted.
func sayings(list []Tested) string {
	var out []string
	for _, x := range list {
		out = append(out, x.CPV.Name+": "+x.Reason+"\n")
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

// TestRealInstallTestNamesWhatFailsAndInstallsTheRest has one release with all that
// can go wrong in a fresh root.
func TestRealInstallTestNamesWhatFailsAndInstallsTheRest(t *testing.T) {
	l := newLab(t)
	file := func(name string) string {
		return "src_install() { insinto /usr/share/trial; echo ${PN} > file || die; newins file " + name + "; }\n"
	}
	names := map[string]string{
		"hub":     file("hub"),
		"twin":    "src_install() { insinto /usr/share/trial; echo ${PN} > file || die; newins file hub; newins file twin; }\n",
		"sour":    file("sour") + "pkg_preinst() { die 'no such user'; }\n",
		"needy":   "RDEPEND=\"sw-hostile/sour\"\n" + file("needy"),
		"late":    file("late") + "pkg_postinst() { die 'sour by nature'; }\n",
		"strict":  file("strict") + "pkg_pretend() { [[ ${MERGE_TYPE} == binary ]] && die 'another kernel is needed'; true; }\n",
		"blocker": "RDEPEND=\"!!sw-hostile/blocked\"\n" + file("blocker"),
		"blocked": file("blocked"),
		"gone":    file("gone"),
		"lost":    "RDEPEND=\"sw-hostile/gone\"\n" + file("lost"),
		"good":    file("good"),
	}
	h := &binhost{stamp: 1_790_000_000, files: map[string][]byte{}}
	test := InstallTest{Base: l.ref}
	for name, body := range names {
		l.ebuild(t, name, body)
	}
	for name := range names {
		for _, j := range l.plan(t, "sw-hostile/"+name).Jobs {
			if l.files[j.Key] != "" {
				continue
			}
			if err := l.build(t, j); err != nil {
				t.Fatal(err)
			}
			if j.CPV.Name == "gone" {
				continue // a consumer has it installed
			}
			b, err := os.ReadFile(l.files[j.Key])
			if err != nil {
				t.Fatal(err)
			}
			path := j.CPV.CP() + "/" + j.CPV.PF() + "-1.gpkg.tar"
			h.files[path] = b
			test.Offered = append(test.Offered, Offered{Key: j.Key, CPV: j.CPV, Slot: j.Slot, BuildID: 1, Path: path, Want: true})
		}
	}
	slices.SortFunc(test.Offered, func(a, b Offered) int { return strings.Compare(a.Path, b.Path) })
	test.Index = []byte(h.index())
	test.Bring = func(_ context.Context, path, file string) error { return os.WriteFile(file, h.files[path], 0o644) }
	var log strings.Builder
	test.Log = &log
	rep, err := l.roots.TryInstall(t.Context(), test)
	t.Log(log.String())
	if err != nil {
		t.Fatal(err)
	}
	if *recordFlag {
		if err := os.WriteFile(recordedInstall, []byte(log.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := sayings(rep.Failed); got != wantFailed {
		t.Errorf("failed:\n%s", got)
	}
	if got := sayings(rep.Untried); got != wantUntried {
		t.Errorf("untried:\n%s", got)
	}
	if rep.Installed != 4 { // hub, good, blocker and blocked, which has a root of its own
		t.Errorf("%d are installed", rep.Installed)
	}
}

// recordedInstall is the log of that test.
const recordedInstall = "testdata/contract/install-test.log"

const (
	wantFailed = "late: postinst phase: sour by nature\n" +
		"needy: needs sw-hostile/sour, which could not be installed\n" +
		"sour: preinst phase: no such user\n" +
		"twin: it collides at /usr/share/trial/hub with sw-hostile/hub-1.0\n"
	wantUntried = "lost: it does not resolve in a fresh root: emerge: there are no binary packages to satisfy \"sw-hostile/gone\".\n" +
		"strict: pretend phase: another kernel is needed\n"
)

// offers are packages of the recorded test, all wanted but for those of the release
// before.
func offers(before string, names ...string) (planned, want []Offered) {
	for _, n := range names {
		sum := fmt.Sprintf("%064x", n)
		o := Offered{Key: build.Key(sum[len(sum)-64:]), CPV: build.CPV{Category: "sw-hostile", Name: n, Version: "1.0"}, Slot: "0/0", BuildID: 1, Want: n != before}
		if planned = append(planned, o); o.Want {
			want = append(want, o)
		}
	}
	return planned, want
}

// replayed feeds a recorded run to merges, line by line.
func replayed(t *testing.T, planned []Offered, text string) *merges {
	t.Helper()
	m := &merges{to: io.Discard}
	m.reset(planned)
	for line := range strings.Lines(text) {
		if _, err := m.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// There is no emerge on most machines: what the real one said is judged there.
func TestARecordedInstallTestIsJudgedPackageByPackage(t *testing.T) {
	b, err := os.ReadFile(recordedInstall)
	if err != nil {
		t.Fatal(err)
	}
	log := string(b)
	planned, want := offers("", "blocked", "good", "hub", "strict", "sour", "needy", "late", "twin", "lost")
	lacks, blocks, install := strings.Index(log, "swarm: not all"), strings.LastIndex(log, "swarm: not all"), strings.LastIndex(log, "swarm: installing")
	if lacking, _, rest := splitOff(want, []byte(log[lacks:blocks])); len(lacking) != 1 || lacking[0].CPV.Name != "lost" || len(rest) != len(want)-1 {
		t.Errorf("lacking: %v", lacking)
	}
	if _, blocking, rest := splitOff(append(want, Offered{CPV: build.CPV{Category: "sw-hostile", Name: "blocker", Version: "1.0"}, BuildID: 1}), []byte(log[blocks:])); len(blocking) != 1 || blocking[0].CPV.Name != "blocker" || len(rest) != len(want) {
		t.Errorf("blocking: %v", blocking)
	}
	there := func(o *Offered) (string, bool) {
		return "0", slices.Contains([]string{"blocked", "good", "hub", "late"}, o.CPV.Name)
	}
	planned, want = planned[:len(planned)-1], want[:len(want)-1]
	ended := &build.Failure{Class: build.BadPackage, Reason: "preinst phase: no such user"}
	v, err := judge(planned, want, replayed(t, planned, log[install:]), there, ended)
	if err != nil || v.installed != 3 || sayings(v.failed) != wantFailed || sayings(v.untried) != "strict: pretend phase: another kernel is needed\n" {
		t.Errorf("%d installed, %v; failed:\n%suntried:\n%s", v.installed, err, sayings(v.failed), sayings(v.untried))
	}

	// A file of a new package that one of the release before has, too, is the new
	// one's fault, and what waited for the old one is not judged yet.
	planned, want = offers("twin", "blocked", "good", "hub", "strict", "sour", "needy", "late", "twin")
	v, err = judge(planned, want, replayed(t, planned, log[install:]), there, ended)
	blamed := "hub: with it sw-hostile/twin-1.0 cannot be installed: it collides at /usr/share/trial/hub with sw-hostile/hub-1.0\n"
	if got := sayings(v.failed); err != nil || got != blamed+"late: postinst phase: sour by nature\nsour: preinst phase: no such user\n" {
		t.Errorf("failed:\n%s%v", got, err)
	}

	// A full disk is the machine's.
	full := strings.Replace(log[install:], "*   no such user", "*   /usr/share/x: No space left on device", 1)
	planned, want = offers("", "sour", "good")
	if _, err = judge(planned, want, replayed(t, planned, full), there, ended); err == nil || !strings.Contains(err.Error(), "no space left on the device (while sw-hostile/sour-1.0 was installed)") {
		t.Errorf("a full disk: %v", err)
	}
	// What emerge says nothing about has the reason that it ended with.
	planned, want = offers("", "silent")
	if v, err = judge(planned, want, replayed(t, planned, log[install:]), there, ended); err != nil || sayings(v.failed) != "silent: preinst phase: no such user\n" {
		t.Errorf("silent: %v %v", v, err)
	}
	if v, err = judge(planned, want, replayed(t, planned, ""), there, nil); err != nil || sayings(v.failed) != "silent: it is not there after emerge ended well\n" {
		t.Errorf("silent: %v %v", v, err)
	}
}

func FuzzMerges(f *testing.F) {
	f.Add([]byte(">>> Installing (1 of 1) sw-hostile/a-1.0::r\n * ERROR: sw-hostile/a-1.0::r failed (preinst phase):\n *   no\n"))
	f.Add([]byte(">>> Emerging binary (1 of 1) sw-hostile/a-1.0-1::r\n * Detected file collision(s):\n * \n * \t/x\n * Package 'x' NOT merged due\n"))
	f.Add([]byte(" * emerge --keep-going: sw-hostile/a-1.0 dropped because it requires sw-\n * hostile/b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		planned, want := offers("", "a")
		v, err := judge(planned, want, replayed(t, planned, string(b)), func(*Offered) (string, bool) { return "", false }, nil)
		for _, x := range slices.Concat(v.failed, v.untried) {
			if x.Reason == "" || len(x.Reason) > 300 || strings.ContainsAny(x.Reason, "\n\x1b") {
				t.Errorf("reason %q", x.Reason)
			}
		}
		if err == nil && len(v.failed)+len(v.untried) != 1 {
			t.Errorf("one package, and the verdict is %+v", v)
		}
	})
}

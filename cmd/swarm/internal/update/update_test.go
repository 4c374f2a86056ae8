package update

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What emerge 3.0.82 prints.
const pretended = `
These are the packages that would be merged, in order:

Calculating dependencies ... done!
Dependency resolution took 0.68 s (backtrack: 0/20).

[binary  N     ] dev-libs/libtally-2.0-1  USE="cache -static-libs" 
[binary   R   g  ] app-misc/wordwrap-1.2-r1-164761935::tree [1.2::tree] to /p/ 
[ebuild     UD ] app-misc/tally-1.0:0/2::tree [2.0] USE="-color" 
[binary  gUD   ] dev-lang/tool-3-1784285824
[blocks B      ] app-misc/x ("app-misc/x" is blocking app-misc/y-1)
[ebuild  r  U  ] media-libs/mesa-25.1.2  ABI_X86="32 (64)"
`

func TestTheListOfPretendIsRead(t *testing.T) {
	want := []Task{{"dev-libs/libtally-2.0", true, false}, {"app-misc/wordwrap-1.2-r1", true, false}, {"app-misc/tally-1.0", false, true},
		{"dev-lang/tool-3", true, true}, {"media-libs/mesa-25.1.2", false, false}}
	if got := Tasks(pretended); !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestStepsAreReadAndNothingElse(t *testing.T) {
	for line, want := range map[string]Step{
		">>> Emerging binary (1 of 2) dev-libs/libtally-2.0::swarm-demo": {0, 2, "dev-libs/libtally-2.0", false, false},
		">>> Emerging (2 of 2) app-misc/tally-1.0::tree":                 {1, 2, "app-misc/tally-1.0", false, true},
		">>> Completed (2 of 2) app-misc/tally-1.0::tree":                {2, 2, "app-misc/tally-1.0", true, false},
	} {
		if got, ok := ParseStep(line); !ok || got != want {
			t.Errorf("%s: %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", ">>> Installing (1 of 2) a/b-1", ">>> Completed (x of 2) a/b-1", ">>> Completed (99999999999999999999 of 2) a/b-1"} {
		if s, ok := ParseStep(line); ok {
			t.Errorf("%q is taken for %+v", line, s)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsInstalledIsReadAndNoMoreThanThat(t *testing.T) {
	root := t.TempDir()
	db := filepath.Join(root, "var/db/pkg/")
	for name, text := range map[string]string{
		"dev-libs/lib-1.0/SLOT": "0/1\n", "dev-libs/lib-1.0/RDEPEND": ">=sys-libs/glibc-2.40\n", "dev-libs/lib-1.0/CONTENTS": "obj /etc/shadow 1 2\n",
		"dev-libs/lib-1.0/environment.bz2": "AWS_SECRET", "dev-libs/-MERGING-lib-2.0/SLOT": "0/2\n", "app-misc/app-3-r1/USE": "ssl  amd64\n", "notes.txt": "x",
	} {
		write(t, filepath.Join(db, name), text)
	}
	write(t, filepath.Join(root, "var/lib/portage/world"), "app-misc/app\n# a comment\n\n")
	write(t, filepath.Join(root, "var/lib/portage/world_sets"), "@mine\n")
	write(t, filepath.Join(root, "etc/portage/profile/package.provided/mine"), "sys-kernel/gentoo-sources-6.12.1 # built by hand\n\n>=not/a-cpv-1\n")
	write(t, filepath.Join(root, "etc/portage/profile/package.provided/sub/more"), "app-misc/tool-1-r2\napp-misc/tool-1-r2\n")
	write(t, filepath.Join(root, "etc/portage/profile/package.provided/old~"), "app-misc/old-1\n")
	s, err := Installed(root, root, "desktop")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Packages) != 2 || s.Packages[0].CPV.String() != "app-misc/app-3-r1" || s.Packages[1].Slot != "0/1" || s.Packages[0].Value("USE") != "ssl amd64" ||
		!slices.Equal(s.World, []string{"@mine", "app-misc/app"}) {
		t.Errorf("%+v", s)
	}
	if len(s.Provided) != 2 || s.Provided[0].String() != "app-misc/tool-1-r2" || s.Provided[1].String() != "sys-kernel/gentoo-sources-6.12.1" {
		t.Errorf("provided: %v", s.Provided)
	}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Packages {
		for _, m := range p.Meta {
			if strings.Contains(m.Value, "shadow") || strings.Contains(m.Value, "AWS") {
				t.Errorf("%s is published (%d bytes)", m.Name, len(b))
			}
		}
	}
	if s, err := Installed(filepath.Join(root, "none"), filepath.Join(root, "none"), "desktop"); err != nil || len(s.Packages) != 0 {
		t.Errorf("an empty machine: %v, %v", s, err)
	}
}

func TestWhatIsLeftForTheOwnerIsNamedWithItsCommand(t *testing.T) {
	root := t.TempDir()
	if l := Left(root, []string{"/etc"}, []string{"app-misc/app-1", "sys-kernel/linux-headers-6"}); len(l) != 0 {
		t.Errorf("nothing is left, and it says %v", l)
	}
	write(t, filepath.Join(root, "etc/conf.d/._cfg0000_net"), "")
	write(t, filepath.Join(root, "etc/._cfg0001_hosts"), "")
	write(t, filepath.Join(root, "etc/._cfg_notone"), "")
	write(t, filepath.Join(root, "var/lib/portage/preserved_libs_registry"), `{"dev-libs/lib:0": ["dev-libs/lib-2.0", "7", ["/usr/lib/liba.so.1", "/usr/lib/libb.so.1"]], "x": 3}`)
	write(t, filepath.Join(root, "var/lib/gentoo/news/news-gentoo.unread"), "2026-01-01-one\n2026-02-02-two\n")
	got := strings.Join(Left(root, []string{"/etc", "/etc/conf.d"}, []string{"sys-kernel/gentoo-kernel-6.18.1"}), "\n")
	for _, want := range []string{"2 configuration files wait to be merged: dispatch-conf", "2 old libraries are kept", "2 news items are unread: eselect news read", "a kernel came with it (sys-kernel/gentoo-kernel-6.18.1) and "} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

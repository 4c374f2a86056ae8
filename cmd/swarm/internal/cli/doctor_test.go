package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

func TestDoctorLooksWhetherTheGatewayIsThereAtBoot(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		state string
		says  string // in note or mend
	}{
		"systemd, not enabled":                      {[]string{"run/systemd/system/x"}, lessFound, "systemctl enable --now swarm"},
		"systemd, enabled":                          {[]string{"run/systemd/system/x", "etc/systemd/system/multi-user.target.wants/swarm.service"}, wellFound, "After=swarm.service"},
		"OpenRC, not enabled":                       {[]string{"etc/runlevels/default/sshd"}, lessFound, "rc-update add swarm default"},
		"OpenRC, enabled":                           {[]string{"etc/runlevels/default/swarm", "etc/runlevels/boot/x"}, wellFound, "need swarm"},
		"OpenRC, with units of systemd lying there": {[]string{"etc/runlevels/default/swarm", "etc/systemd/system/x"}, wellFound, "openrc"},
		"neither": {nil, lessFound, "at boot"},
	} {
		root := t.TempDir()
		for _, f := range c.files {
			path := filepath.Join(root, f)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		got := bootFound(root)
		if len(got) != 1 || got[0].State != c.state || !strings.Contains(got[0].Note+" "+got[0].Do, c.says) {
			t.Errorf("%s: %+v, want %s, ...%s...", name, got, c.state, c.says)
		}
	}
}

func TestDoctorNamesWhatOfPKGDIRWouldWin(t *testing.T) {
	if got := pkgdirFound(nil); got[0].State != wellFound {
		t.Errorf("nothing newer: %+v", got)
	}
	var list []control.Winner
	for _, n := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		list = append(list, control.Winner{CPV: "cat/" + n + "-1", Path: "/var/cache/binpkgs/cat/" + n + "/" + n + "-1-1.gpkg.tar"})
	}
	got := pkgdirFound(list)
	if got[0].State != lessFound || !strings.Contains(got[0].Note, "cat/e-1 and 2 more") || !strings.HasPrefix(got[0].Do, "rm /var/cache/binpkgs/cat/a/a-1-1.gpkg.tar") {
		t.Errorf("got %+v", got)
	}
}

func TestDoctorSaysWhatAnOldPortageLacks(t *testing.T) {
	for version, state := range map[string]string{"3.0.49": badFound, "3.0.65": lessFound, "3.0.77.1": lessFound, "3.0.82+": wellFound, "3.1.0": wellFound, "HEAD": wellFound} {
		if got := portageAge(version); got[0].State != state {
			t.Errorf("%s: %+v, want %s", version, got, state)
		}
	}
}

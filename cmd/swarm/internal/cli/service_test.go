package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A service that runs as a user of its own names the system's places.
func TestTheSystemsSettingsMayBeMissingThoughAServiceNamesThem(t *testing.T) {
	dir := t.TempDir()
	was := system
	t.Cleanup(func() { system = was })
	system.config = filepath.Join(dir, "swarm.toml")
	run := func(config string) string {
		var out, errs bytes.Buffer
		code := Main([]string{"swarm", "init", "--config", config, "--state", filepath.Join(dir, "state-"+filepath.Base(config))}, strings.NewReader(""), &out, &errs)
		if code == 0 {
			return ""
		}
		return errs.String()
	}
	if got := run(system.config); got != "" {
		t.Errorf("the system's: %s", got)
	}
	if got := run(filepath.Join(dir, "other.toml")); !strings.Contains(got, "read settings") {
		t.Errorf("another that was named is passed over: %q", got)
	}
}

func TestRootLeavesTheKeysToTheUserOfTheStateDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	state := filepath.Join(t.TempDir(), "state")
	const somebody = 12345
	err := os.Mkdir(state, 0o700)
	if err == nil {
		err = os.Chown(state, somebody, somebody)
	}
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := Main([]string{"swarm", "init", "--config", os.DevNull, "--state", state}, strings.NewReader(""), &out, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	for _, name := range []string{"identity.pem", "swarm.key"} {
		st, err := os.Stat(filepath.Join(state, name))
		if err != nil {
			t.Fatal(err)
		}
		if owner := st.Sys().(*syscall.Stat_t).Uid; owner != somebody || st.Mode().Perm() != 0o600 {
			t.Errorf("%s is %d's, mode %v", name, owner, st.Mode())
		}
	}
}

// Found by running them: these take from every build what its sandbox does first.
func TestNoUnitForbidsWhatSandboxesDo(t *testing.T) {
	for _, name := range []string{"swarm.service", "rootless.conf"} {
		b, err := os.ReadFile(filepath.Join("../../dist/systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			for _, word := range []string{"ProtectHostname=yes", "RestrictNamespaces=yes", "NoNewPrivileges=yes", "ProtectProc=", "ProcSubset=", "ProtectKernelTunables=yes"} {
				if strings.HasPrefix(line, word) {
					t.Errorf("%s: %s", name, word)
				}
			}
		}
	}
}

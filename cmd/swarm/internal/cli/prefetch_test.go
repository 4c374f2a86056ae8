package cli

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/httpgateway/binhost"
)

// A machine that keeps no copies for others has on its own disk what a release
// brings for it, and installs it when nobody else is there any more.
func TestAConsumerHasWhatItWillInstallAlsoOffline(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + os.TempDir()}
	near := []string{"--listen", "/ip4/127.0.0.1/tcp/0", "--direct", "127.0.0.1:0", "--mdns=false", "--dht=false", "--keep-builds", "0"}
	drone := &real{t: t, dir: filepath.Join(dir, "a"), env: env, args: append([]string{"--nick", "drone"}, near...)}
	consumer := &real{t: t, dir: filepath.Join(dir, "b"), env: env, args: append([]string{"--nick", "consumer", "--slots", "0", "--quota", "none"}, near...)}
	for _, r := range []*real{drone, consumer} {
		if err := os.Mkdir(r.dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	drone.run("init", "--config", os.DevNull, "--state", drone.state())
	drone.start()
	running := true
	defer func() {
		if running {
			drone.stop(os.Interrupt)
		}
	}()
	code := filepath.Join(dir, "code")
	if err := os.WriteFile(code, []byte(drone.run("invite", "--config", os.DevNull, "--socket", drone.socket())), 0o600); err != nil {
		t.Fatal(err)
	}
	consumer.run("join", "--config", os.DevNull, "--state", consumer.state(), "--file", code)
	consumer.start()
	defer consumer.stop(os.Interrupt)

	// It has one of the two packages of the release installed, in an older version.
	root := filepath.Join(dir, "root")
	installed := filepath.Join(root, "var/db/pkg/app-shells/sample-greet-0.1")
	err := errors.Join(os.MkdirAll(installed, 0o755), os.WriteFile(filepath.Join(installed, "SLOT"), []byte("0\n"), 0o644),
		os.MkdirAll(filepath.Join(root, "etc/portage"), 0o755), os.WriteFile(filepath.Join(root, "etc/portage/make.conf"), nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	info, err := consumer.client.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	consumer.run("portage", "setup", "--config", os.DevNull, "--socket", consumer.socket(), "--root", root, "--gateway", info.Gateway[0])
	drone.run("build", "--config", os.DevNull, "--socket", drone.socket(), "sample-greet", "sample-doc")

	ctx, cancel := context.WithTimeout(t.Context(), 2*testPatience)
	defer cancel()
	url := "http://" + info.Gateway[0] + "/default/stable/"
	var greet, doc map[string]string
	err = poll(ctx, func() error {
		text, err := fetch(ctx, url+"Packages")
		if err != nil {
			return err
		}
		index, err := binhost.Parse(bytes.NewReader(text))
		if err != nil {
			return err
		}
		greet, doc = nil, nil
		for _, e := range index.Entries {
			switch {
			case strings.Contains(e["CPV"], "/sample-greet-"):
				greet = e
			case strings.Contains(e["CPV"], "/sample-doc-"):
				doc = e
			}
		}
		if greet == nil || doc == nil {
			return fmt.Errorf("the release shows %d packages", len(index.Entries))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := poll(ctx, func() error { return consumer.stores(greet["MD5"]) }); err != nil {
		t.Fatal(err)
	}
	if consumer.stores(doc["MD5"]) == nil {
		t.Error("it fetched what it has not installed, too")
	}
	// On a machine that keeps nothing for others what others hold is surplus, but
	// for this.
	if out := consumer.run("gc", "--config", os.DevNull, "--socket", consumer.socket(), "--dry-run", "--json"); strings.Contains(out, "sample-greet") {
		t.Errorf("gc would drop it: %s", out)
	}
	drone.stop(os.Interrupt)
	running = false
	got, err := fetch(ctx, url+greet["PATH"])
	if sum := md5.Sum(got); err != nil || hex.EncodeToString(sum[:]) != greet["MD5"] {
		t.Errorf("alone it serves %d bytes: %v", len(got), err)
	}
}

// fetch gets a whole file over HTTP.
func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// stores says whether a file with that MD5 is on the peer's disk.
func (r *real) stores(sum string) error {
	found := errors.New("found")
	err := filepath.WalkDir(r.state(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil //nolint:nilerr // files come and go
		}
		b, err := os.ReadFile(path)
		if got := md5.Sum(b); err == nil && hex.EncodeToString(got[:]) == sum {
			return found
		}
		return nil
	})
	if errors.Is(err, found) {
		return nil
	}
	return errors.New("it is not on the consumer's disk")
}

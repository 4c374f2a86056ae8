package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/emerge/emergetest"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// wholeChain is for machines on which minutes do not matter: five when nothing else
// runs.
var wholeChain = flag.Bool("chain", false, "build, release and install what a machine needs with the real emerge, as root")

// chain is two drones and a consumer, real processes, with the real emerge. The
// consumer has a root of its own: an overlay over this machine's, in a mount
// namespace, so that it installs packages as any Gentoo machine does.
type chain struct {
	t           *testing.T
	dir         string
	path        string // PATH of everything
	alpha, beta *real
	consumer    *real
}

// inRoot is what the consumer's namespace is made by: it stays for as long as
// its standard input does.
const inRoot = `set -e
mount --make-rprivate /
mount -t tmpfs none "$1/disk"
mkdir "$1/disk/upper" "$1/disk/work" "$1/disk/root"
mount -t overlay -o lowerdir=/,upperdir="$1/disk/upper",workdir="$1/disk/work" none "$1/disk/root"
cd "$1/disk/root"
mount --rbind /proc proc
mount --rbind /dev dev
mount --bind "$2" ".$2"
echo ready
exec chroot . cat
`

// labWorld is what the consumer's owner asked for: subslots, a USE_EXPAND pair of
// interpreters, REQUIRED_USE, PDEPEND with a cycle behind it, two USE cycles, one of
// them installed in part, a choice, a package that needs its older slot, an
// account, a user's patch and a libc.
var labWorld = []string{"sw-lab/user", "sw-lab/doc", "sw-lab/python:3.13", "sw-lab/pymod", "sw-lab/ring", "sw-lab/self:2", "sw-lab/either",
	"sw-lab/owned", "sw-lab/patched", "sw-lab/tool", "sw-lab/knot-b", "sw-lab/loop-b"}

// refusedClasses are what no swarm builds for its owner; each has to be named.
var refusedClasses = []string{"sw-lab/live", "sw-lab/module", "sw-lab/fails"}

func newChain(t *testing.T) *chain {
	t.Helper()
	if !*wholeChain {
		t.Skip("SKIPPED: wants -chain: with the real emerge it takes minutes")
	}
	if _, err := emerge.Detect(t.Context(), emerge.Config{}); err != nil {
		t.Skipf("SKIPPED, REAL PORTAGE NOT TESTED HERE: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: a machine of its own wants root")
	}
	for _, p := range []string{"nsenter", "unshare", "chroot"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
	program, err := exec.LookPath("emerge")
	if err != nil {
		t.Fatal(err)
	}
	c := &chain{t: t, dir: t.TempDir(), path: filepath.Dir(program) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	c.lay(filepath.Join(c.dir, "conf"), filepath.Join(c.dir, "conf/repos"))
	env := []string{"PATH=" + c.path, "HOME=" + c.dir, "TMPDIR=" + os.TempDir()}
	peer := func(name string, args ...string) *real {
		r := &real{t: t, dir: filepath.Join(c.dir, name), env: env, args: append([]string{"--nick", name, "--builder", "portage", "--jobs", "1",
			"--keep-builds", "0", "--listen", "/ip4/127.0.0.1/tcp/0", "--direct", "127.0.0.1:0", "--mdns=false", "--dht=false", "--target", "desktop"}, args...)}
		if err := os.Mkdir(r.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return r
	}
	c.alpha = peer("alpha", "--portage-config", filepath.Join(c.dir, "conf"))
	c.beta = peer("beta", "--portage-config", filepath.Join(c.dir, "conf"))
	c.consumer = peer("consumer", "--slots", "0")
	c.consumer.inside = c.machine()
	c.join(c.alpha, c.beta, c.consumer)
	return c
}

func (c *chain) join(peers ...*real) {
	c.t.Helper()
	peers[0].run("init", "--config", os.DevNull, "--state", peers[0].state())
	peers[0].start()
	c.t.Cleanup(func() { peers[0].stop(os.Interrupt) })
	code := filepath.Join(c.dir, "code")
	for _, p := range peers[1:] {
		if err := os.WriteFile(code, []byte(peers[0].run("invite", "--config", os.DevNull, "--socket", peers[0].socket())), 0o600); err != nil {
			c.t.Fatal(err)
		}
		p.run("join", "--config", os.DevNull, "--state", p.state(), "--file", code)
		p.start()
		c.t.Cleanup(func() { p.stop(os.Interrupt) })
	}
}

// lay writes a Portage configuration below root, whose repositories are to stand
// in repos, an absolute path there, and the repositories themselves.
func (c *chain) lay(root, repos string) {
	c.t.Helper()
	made := c.t.TempDir()
	if _, err := emerge.DemoConfig(made); err != nil {
		c.t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(made, "repos", name) }
	if err := errors.Join(emergetest.WriteLab(at("swarm-lab")), emerge.WriteConfig(made, []emerge.Repository{
		{Name: "swarm-demo", Path: filepath.Join(repos, "swarm-demo")}, {Name: "swarm-lab", Path: filepath.Join(repos, "swarm-lab")},
	})); err != nil {
		c.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(made, "etc/portage/make.conf"))
	if err != nil {
		c.t.Fatal(err)
	}
	var conf strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, made) && !strings.HasPrefix(line, "#") { // its directories are those of a Prefix
			conf.WriteString(line)
		}
	}
	conf2, err := os.ReadFile(filepath.Join(made, "etc/portage/repos.conf/swarm.conf"))
	if err != nil {
		c.t.Fatal(err)
	}
	to := filepath.Join(root, repos)
	if root == filepath.Dir(repos) {
		to = repos
	}
	etc := filepath.Join(root, "etc/portage")
	err = errors.Join(os.MkdirAll(to, 0o755), os.MkdirAll(filepath.Join(etc, "repos.conf"), 0o755), os.MkdirAll(filepath.Join(etc, "patches/sw-lab/patched"), 0o755),
		os.CopyFS(to, os.DirFS(filepath.Join(made, "repos"))),
		os.WriteFile(filepath.Join(etc, "make.conf"), []byte(conf.String()), 0o644),
		os.WriteFile(filepath.Join(etc, "repos.conf/swarm.conf"), []byte(strings.ReplaceAll(string(conf2), filepath.Join(made, "repos"), repos)), 0o644),
		os.WriteFile(filepath.Join(etc, "patches/sw-lab/patched/text.patch"), []byte("--- a/text\n+++ b/text\n@@ -1 +1 @@\n-plain\n+patched by the owner\n"), 0o644),
		os.Symlink(filepath.Join(repos, "swarm-lab/profiles/lab"), filepath.Join(etc, "make.profile")))
	if err != nil {
		c.t.Fatal(err)
	}
}

// machine makes the consumer's root and returns the process that holds it.
func (c *chain) machine() int {
	t := c.t
	t.Helper()
	if err := os.Mkdir(filepath.Join(c.dir, "disk"), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), "unshare", "-m", "--", "bash", "-c", inRoot, "machine", c.dir, os.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = t.Output()
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // cat ends
		_ = cmd.Wait() // how is no matter
	})
	ready := make([]byte, 6)
	if n, err := out.Read(ready); err != nil || string(ready[:n]) != "ready\n" {
		t.Skipf("SKIPPED: no overlay over this machine's root: %q %v", ready[:n], err)
	}
	c.lay(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "root"), "/var/db/repos")
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "root", self)); err != nil {
		t.Fatalf("the consumer does not see this program: %v", err)
	}
	return cmd.Process.Pid
}

// root is a path of the consumer.
func (c *chain) root(path ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(c.consumer.inside), "root"}, path...)...)
}

func (c *chain) write(name, text string) {
	c.t.Helper()
	path := c.root(name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		c.t.Fatal(err)
	}
}

// sh runs a program of the consumer.
func (c *chain) sh(env []string, args ...string) (string, error) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), "nsenter", append([]string{"-t", strconv.Itoa(c.consumer.inside), "-m", "-r", "--wdns=/", "--"}, args...)...)
	cmd.Env = append([]string{"PATH=" + c.path, "HOME=/root", "TERM=dumb", "NO_COLOR=1", "LC_ALL=C.UTF-8"}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// emerge runs emerge on the consumer, which has to end well.
func (c *chain) emerge(args ...string) string {
	c.t.Helper()
	out, err := c.sh(nil, append([]string{"emerge", "--color=n", "--nospinner"}, args...)...)
	if err != nil {
		c.t.Fatalf("emerge %v: %v\n%s", args, err, out)
	}
	return out
}

// swarm runs a command on the consumer, and returns what it printed.
func (c *chain) swarm(code int, args ...string) (stdout, stderr string) {
	c.t.Helper()
	return c.on(c.consumer, code, args...)
}

func (c *chain) on(r *real, code int, args ...string) (stdout, stderr string) {
	c.t.Helper()
	n := 1
	if len(args) > 1 && slices.Contains([]string{"portage", "target", "base"}, args[0]) {
		n = 2
	}
	cmd := r.program(slices.Concat(args[:n], []string{"--config", os.DevNull, "--socket", r.socket()}, args[n:])...)
	cmd.Env = append(slices.Clone(r.env), "SWARM_STATE="+r.state(), "SWARM_TARGET=desktop")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code {
		c.t.Fatalf("swarm %v: %v, want exit %d\n%s%s", args, err, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// fresh asks for a round and waits until its release is there: one after the
// release before.
func (c *chain) fresh(code int, before uint64, args ...string) (control.FreshReply, control.ReleasesReply, string) {
	c.t.Helper()
	out, said := c.swarm(code, append([]string{"fresh", "--json"}, args...)...)
	var reply control.FreshReply
	if err := json.Unmarshal([]byte(out), &reply); err != nil {
		c.t.Fatalf("%v: %s%s", err, out, said)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Minute)
	defer cancel()
	var rel control.ReleasesReply
	err := poll(ctx, func() (err error) {
		if rel, err = c.consumer.client.Releases(ctx, "desktop"); err != nil {
			return err
		}
		if rel.Head == nil || rel.Head.Version <= before {
			return errors.New("no release")
		}
		return nil
	})
	if err != nil {
		jobs, _ := c.on(c.consumer, 0, "jobs")
		c.t.Fatalf("%v\n%s%s", err, said, jobs)
	}
	return reply, rel, said
}

var taskLine = regexp.MustCompile(`(?m)^\[(ebuild|binary)[^\]]*\] (\S+?)-[0-9][^ :]*`)

// tasks are what emerge would do, by how.
func tasks(out string) (ebuild, binary []string) {
	for _, m := range taskLine.FindAllStringSubmatch(out, -1) {
		if m[1] == "ebuild" {
			ebuild = append(ebuild, m[2])
		} else {
			binary = append(binary, m[2])
		}
	}
	slices.Sort(ebuild)
	slices.Sort(binary)
	return ebuild, binary
}

// elsewhere has another peer plan what the consumer needs, of what that has published:
// it comes to what the consumer says itself, with the seeds that it has lent before.
func (c *chain) elsewhere() {
	t := c.t
	t.Helper()
	ask := func(r *real, args ...string) (reply control.FreshReply) {
		out, _ := c.on(r, exitPartial, append([]string{"fresh", "--json", "--dry-run"}, args...)...)
		if err := json.Unmarshal([]byte(out), &reply); err != nil {
			t.Fatal(err)
		}
		return reply
	}
	own := ask(c.consumer)
	err := poll(t.Context(), func() error {
		rel, err := c.alpha.client.Releases(t.Context(), "desktop")
		if err == nil && len(rel.Consumers) == 0 {
			err = errors.New("nothing is published yet")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got := ask(c.alpha, "--for", "consumer")
	if !slices.Equal(got.Wanted, own.Wanted) || got.Jobs != own.Jobs || got.Have != own.Have || !slices.Equal(got.Seeds, own.Seeds) || !slices.Equal(got.Bootstrap, own.Bootstrap) || len(got.Dropped) != len(own.Dropped) {
		t.Errorf("planned on alpha for the consumer:\n%+v\nit says itself:\n%+v", got, own)
	}
	if got.Have == 0 {
		t.Error("the swarm has nothing of what alpha plans: the keys are others")
	}
}

// TestRealTwoDronesBuildWhatAConsumerNeeds is the whole chain: an empty swarm, a
// base, a machine that is behind; everything that its owner's update wants is
// built in given roots by two drones, and the update compiles nothing.
func TestRealTwoDronesBuildWhatAConsumerNeeds(t *testing.T) {
	c := newChain(t)
	began := time.Now()
	lap := func(what string) { t.Logf("%4.0f s  %s", time.Since(began).Seconds(), what) }

	// What the machine has, it once compiled itself: an old library with its
	// user, and a cycle.
	c.write("/etc/portage/package.mask", ">=sw-lab/lib-2\n>=sw-lab/loop-b-2\n")
	c.write("/etc/portage/package.use", "sw-lab/loop-a -loop\n")
	c.emerge("--oneshot", "sw-lab/app", "sw-lab/loop-b")
	c.write("/etc/portage/package.use", "")
	c.emerge("--oneshot", "--nodeps", "sw-lab/loop-a")
	c.write("/etc/portage/package.mask", "")
	c.write("/var/lib/portage/world", strings.Join(append(slices.Clone(labWorld), refusedClasses...), "\n")+"\n")
	lap("the consumer has installed what it is behind with")

	c.on(c.alpha, 0, "base", "add", "--host", "host")
	c.swarm(0, "target", "add", "--base", "host", "desktop")
	reply, rel, said := c.fresh(exitPartial, 0)
	t.Logf("%s%d jobs, wanted %v", said, reply.Jobs, reply.Wanted)
	if len(reply.Seeds) == 0 || len(reply.Bootstrap) == 0 {
		t.Errorf("seeds %v, bootstrap builds %v: want some of both", reply.Seeds, reply.Bootstrap)
	}
	c.jobs()
	lap(fmt.Sprintf("release %d with %d packages", rel.Head.Version, rel.Releases[0].Packages))

	info, err := c.consumer.client.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.swarm(0, "portage", "setup", "--gateway", info.Gateway[0])
	c.elsewhere()
	lap("another peer has planned for the consumer what it plans itself")
	compiled, _ := tasks(c.emerge("-puDNg", "@world"))
	if want := slices.Sorted(slices.Values(refusedClasses)); !slices.Equal(compiled, want) {
		t.Errorf("the consumer would compile %v, want %v alone", compiled, want)
	}
	for _, cp := range refusedClasses {
		jobs, _ := c.swarm(0, "jobs")
		if !strings.Contains(said, cp) && !strings.Contains(jobs, cp) {
			t.Errorf("nothing says why %s is not built", cp)
		}
	}
	lap("emerge -puDNg @world has no ebuild task but for the refused classes")

	c.write("/var/lib/portage/world", strings.Join(labWorld, "\n")+"\n")
	out, notes := c.swarm(0, "update")
	t.Log(out, notes)
	if !strings.Contains(out, " 0 compiled, ") {
		t.Errorf("the update: %s%s", out, notes)
	}
	lap("swarm update")
	if ebuilds, binaries := tasks(c.emerge("-puDNg", "@world")); len(ebuilds)+len(binaries) != 0 {
		t.Errorf("after the update emerge would do %v %v", ebuilds, binaries)
	}
	for name, want := range map[string]string{
		"patched": "patched by the owner", "user": "saw lib 2.0", "self-2": "saw self 1.0", "knot-b": "saw knot-a 1.0", "loop-b": "saw loop-a 1.0", "extras": "saw tool 1.0", "pymod": "saw python 3.13",
	} {
		text, err := os.ReadFile(c.root("/usr/share/lab", name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s is installed with %q, want %s (%v)", name, text, want, err)
		}
	}
	lap("what is installed saw what it had to see")
	c.logged("install test", "packages into a fresh root")

	t.Log("one USE flag changed")
	c.write("/etc/portage/package.use", "sw-lab/app extra\n")
	// Without binary packages emerge wants build-time needs, too, that came with none.
	said, err = c.sh([]string{"FEATURES=-getbinpkg"}, "emerge", "--color=n", "-puDN", "@world")
	wanted, _ := tasks(said)
	rebuilt, _ := tasks(c.emerge("-puDN", "@world"))
	reply, rel, _ = c.fresh(exitOK, rel.Head.Version)
	if got := packages(reply.Wanted); err != nil || !slices.Equal(got, wanted) {
		t.Errorf("the swarm takes %v to be wanted, emerge -puDN %v (%v)", got, wanted, err)
	}
	if got := c.news(rel.Head.Version); !slices.Equal(got, rebuilt) || reply.Jobs-reply.Have != len(rebuilt) {
		t.Errorf("the release brings %v, emerge -puDN would rebuild %v; %d jobs, of which the swarm had %d", got, rebuilt, reply.Jobs, reply.Have)
	}
	ebuilds, binaries := tasks(c.emerge("-puDNg", "@world"))
	if len(ebuilds) != 0 || !slices.Equal(binaries, rebuilt) {
		t.Errorf("emerge would compile %v and install %v, want %v installed", ebuilds, binaries, rebuilt)
	}
	lap(fmt.Sprintf("one flag: %d package rebuilt, %d of %d jobs were there", len(rebuilt), reply.Have, reply.Jobs))

	t.Log("another target, which differs in that flag")
	c.swarm(exitOK, "update")
	c.write("/etc/portage/package.use", "")
	c.swarm(exitOK, "target", "add", "--base", "host", "laptop")
	out, said = c.swarm(exitOK, "fresh", "--json", "--dry-run", "--full", "--target", "laptop")
	var laptop control.FreshReply
	if err := json.Unmarshal([]byte(out), &laptop); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	// What was built before the flag changed crosses, with all that was built
	// against it. What a lent package or a bootstrap build broke a cycle for was
	// built against that: here, where more is installed, the cycle breaks elsewhere.
	cyclic := []string{"sw-lab/knot-a", "sw-lab/knot-b", "sw-lab/loop-b"}
	if got := packages(laptop.Own); !slices.Equal(got, cyclic) || laptop.Have != len(laptop.Crossed) || laptop.Jobs-laptop.Have != len(cyclic)+1 {
		t.Errorf("of %d jobs the swarm has %d; %d cross, these not: %v", laptop.Jobs, laptop.Have, len(laptop.Crossed), laptop.Own)
	}
	lap(fmt.Sprintf("another target: %d jobs, %d cross, %d do not: %v, and sw-lab/loop-a, which was lent", laptop.Jobs, len(laptop.Crossed), laptop.Jobs-laptop.Have, laptop.Own))
	c.write("/etc/portage/package.use", "sw-lab/lib far\n")
	c.swarm(exitOK, "target", "add", "--base", "host", "laptop")
	out, said = c.swarm(exitOK, "fresh", "--json", "--dry-run", "--full", "--target", "laptop")
	laptop = control.FreshReply{}
	if err := json.Unmarshal([]byte(out), &laptop); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	// A library with another flag is another package, and its direct users are the
	// target's own though their keys agree; whoever does not build against it crosses.
	if got := packages(laptop.Own); !slices.Equal(got, slices.Sorted(slices.Values(append(cyclic, "sw-lab/app", "sw-lab/ring", "sw-lab/user")))) || laptop.Jobs-laptop.Have != len(cyclic)+5 {
		t.Errorf("of %d jobs the swarm has %d; %d cross, these not: %v", laptop.Jobs, laptop.Have, len(laptop.Crossed), laptop.Own)
	}
	lap(fmt.Sprintf("another target with another flag: %d jobs, %d cross, %d do not: %v and the library itself", laptop.Jobs, len(laptop.Crossed), laptop.Jobs-laptop.Have, laptop.Own))
	c.write("/etc/portage/package.use", "sw-lab/app extra\n")

	t.Log("everything, into an empty root")
	reply, rel, _ = c.fresh(exitOK, rel.Head.Version, "--full")
	lap(fmt.Sprintf("--full: %d jobs of which the swarm had %d, release of %d packages", reply.Jobs, reply.Have, rel.Releases[0].Packages))
	out = c.emerge(append([]string{"--root=/mnt/new", "--oneshot", "--getbinpkgonly", "--ignore-default-opts"}, labWorld...)...)
	have, err := filepath.Glob(c.root("/mnt/new/var/db/pkg/*/*"))
	if err != nil || len(have) < len(labWorld) {
		t.Errorf("%d packages are in the new root (%v)\n%s", len(have), err, out)
	}
	if text, err := os.ReadFile(c.root("/mnt/new/usr/share/lab/user")); err != nil || !strings.Contains(string(text), "saw lib 2.0") {
		t.Errorf("in the new root: %q %v", text, err)
	}
	lap(fmt.Sprintf("%d packages in the new root", len(have)))

	t.Log("a package that builds and cannot be installed, and one that can")
	c.write("/var/lib/portage/world", strings.Join(append(slices.Clone(labWorld), "sw-lab/sour", "sw-lab/python:3.12"), "\n")+"\n")
	_, rel, _ = c.fresh(exitOK, rel.Head.Version)
	if got := c.news(rel.Head.Version); !slices.Equal(got, []string{"sw-lab/python"}) {
		t.Errorf("the release brings %v", got)
	}
	const sour = "could not install it: postinst phase: sour by nature"
	out, _ = c.swarm(exitOK, "releases")
	if !strings.Contains(out, "sw-lab/sour-1.0") || !strings.Contains(out, sour) {
		t.Errorf("swarm releases says %s", out)
	}
	out, _ = c.swarm(exitOK, "finalize", "--dry-run")
	if !strings.Contains(out, "nothing to release") || !strings.Contains(out, sour) {
		t.Errorf("what is staged: %s", out)
	}
	out, notes = c.swarm(exitError, "finalize") // tries it again
	if !strings.Contains(notes, sour) {
		t.Errorf("finalize says %s%s", out, notes)
	}
	lap("the one is released, the other held back by the drone that tried it: " + notes)

	t.Log("a package that a consumer would compile")
	c.write("/etc/portage/package.use", "sw-lab/app extra\nsw-lab/picky x\n")
	c.write("/var/lib/portage/world", strings.Join(append(slices.Clone(labWorld), "sw-lab/sour", "sw-lab/picky", "sw-lab/python:3.12"), "\n")+"\n")
	c.swarm(0, "portage", "setup", "--gateway", info.Gateway[0]) // tells the swarm of its world
	c.swarm(exitOK, "fresh")
	c.write("/etc/portage/package.use", "sw-lab/app extra\nsw-lab/picky y\n") // while it is built
	c.built("sw-lab/picky-1.0")
	out, notes = c.swarm(exitError, "finalize")
	if !strings.Contains(notes, "sw-lab/picky-1.0: consumer would compile sw-lab/picky-1.0") {
		t.Errorf("finalize says %s%s", out, notes)
	}
	c.write("/etc/portage/package.use", "sw-lab/app extra\nsw-lab/picky x\n")
	out, _ = c.swarm(exitOK, "finalize")
	if !strings.Contains(out, "1 new, 0 changed, 0 gone") || !strings.Contains(out, "install test: ") || !strings.Contains(out, sour) {
		t.Errorf("finalize says %s", out)
	}
	lap("with that wish withdrawn, it is released: " + out)
}

// built waits until a package is safe.
func (c *chain) built(cpv string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Minute)
	defer cancel()
	err := poll(ctx, func() error {
		list, err := c.consumer.client.Jobs(ctx, "")
		for _, j := range list {
			if j.CPV == cpv && j.State == "safe" {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("%s is not built", cpv))
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// logged looks for a line of the consumer's log with all words.
func (c *chain) logged(words ...string) {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.consumer.dir, "log"))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			c.t.Log(line)
			return
		}
	}
	c.t.Errorf("the log has no line with %q", words)
}

// packages are CPVs without their versions, sorted.
func packages(cpvs []string) []string {
	var out []string
	for _, c := range cpvs {
		if cpv, err := build.ParseCPV(c); err == nil {
			out = append(out, cpv.CP())
		}
	}
	slices.Sort(out)
	return out
}

// news lists the packages that a release has and the one before has not.
func (c *chain) news(release uint64) (out []string) {
	c.t.Helper()
	d, err := c.consumer.client.Diff(c.t.Context(), "desktop", fmt.Sprint(release-1), fmt.Sprint(release))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, x := range d.Changes {
		if x.Kind != "gone" {
			out = append(out, x.CPV)
		}
	}
	return packages(out)
}

// jobs logs what each job came to.
func (c *chain) jobs() {
	c.t.Helper()
	list, err := c.consumer.client.Jobs(c.t.Context(), "")
	if err != nil {
		c.t.Fatal(err)
	}
	by := map[string]int{}
	for _, j := range list {
		by[j.Peer]++
		c.t.Logf("%s %s by %s in %d ms %s", j.CPV, j.State, j.Peer, j.CostMS, j.Reason)
	}
	if by["alpha"] == 0 || by["beta"] == 0 {
		c.t.Errorf("built by %v: want both drones", by)
	}
}

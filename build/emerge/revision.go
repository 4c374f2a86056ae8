package emerge

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// revisions names the commits of those repositories that are git checkouts
// without changes, by name: a consumer's checkout follows a release by them.
// That one is missing costs only that.
func (p *Portage) revisions(ctx context.Context, repos []repo) []build.Revision {
	git, err := exec.LookPath("git")
	if err != nil {
		return nil
	}
	var out []build.Revision
	for _, r := range repos {
		if _, err := os.Stat(filepath.Join(r.Path, ".git")); err != nil {
			continue
		}
		ask := func(args ...string) (string, bool) {
			cmd := exec.CommandContext(ctx, git, append([]string{"-c", "safe.directory=" + r.Path, "-C", r.Path}, args...)...)
			cmd.Env = p.plainEnv()
			b, err := cmd.Output()
			return strings.TrimSpace(string(b)), err == nil
		}
		if changed, ok := ask("status", "--porcelain", "--untracked-files=no"); !ok || changed != "" {
			continue
		}
		if commit, ok := ask("rev-parse", "HEAD"); ok {
			out = append(out, build.Revision{Name: r.Name, Commit: commit})
		}
	}
	slices.SortFunc(out, func(a, b build.Revision) int { return strings.Compare(a.Name, b.Name) })
	if !build.ValidRevisions(out) {
		return nil
	}
	return out
}

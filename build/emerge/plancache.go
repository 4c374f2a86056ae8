package emerge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// planCache remembers what the resolver said, as long as everything that it read is
// as it was: the repositories, the configuration as Portage evaluates it with the
// files below etc/portage, the installed packages and the world. It holds the last
// few answers, in memory.
type planCache struct {
	mu   sync.Mutex
	kept []keptAnswer // the last used first
}

type keptAnswer struct {
	state   string // of everything
	request string
	answer  []byte
}

// maxAnswers bounds the cache: fresh and doctor ask three questions. 1,400 packages
// are about 5 MiB.
const maxAnswers = 4

func (c *planCache) find(state, request string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, k := range c.kept {
		if k.state == state && k.request == request {
			copy(c.kept[1:i+1], c.kept[:i])
			c.kept[0] = k
			return k.answer
		}
	}
	return nil
}

func (c *planCache) keep(k keptAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append([]keptAnswer{k}, c.kept[:min(len(c.kept), maxAnswers-1)]...)
}

// resolve asks the resolver, or the cache. A state that cannot be told is no error:
// the resolver is asked then.
func (p *Portage) resolve(ctx context.Context, env []string, request any, doc *document) error {
	text, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	before, err := p.state(ctx, env)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return p.ask(ctx, env, request, doc)
	}
	if b := p.plans.find(before, string(text)); b != nil {
		return json.Unmarshal(b, doc)
	}
	var raw bytes.Buffer
	if err := p.ask(ctx, env, request, &telling{doc, &raw}); err != nil {
		return err
	}
	// What changed meanwhile may be in the answer or not.
	if after, err := p.state(ctx, env); err == nil && after == before {
		p.plans.keep(keptAnswer{before, string(text), raw.Bytes()})
	}
	return nil
}

// telling decodes an answer and keeps its text.
type telling struct {
	*document
	raw *bytes.Buffer
}

// UnmarshalJSON is json.Unmarshaler.
func (t *telling) UnmarshalJSON(b []byte) error {
	t.raw.Write(b)
	return json.Unmarshal(b, t.document)
}

// state is a digest of everything that a plan is made of.
func (p *Portage) state(ctx context.Context, env []string) (string, error) {
	var doc document
	if err := p.ask(ctx, env, map[string]any{"mode": "facts", "keyed": keyedGlobals(), "packages": []string{}}, &doc); err != nil {
		return "", err
	}
	h := sha256.New()
	evaluated, err := json.Marshal(doc.Env)
	if err != nil {
		return "", err
	}
	tree, err := p.treeOf(ctx, doc.Env.Repos)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(h, "%s\n%s\n", evaluated, tree)
	root := p.cfg.ConfigRoot
	if root == "" {
		root = "/"
	}
	eroot := doc.Env.ERoot
	err = errors.Join(
		mix(ctx, h, filepath.Join(root, "etc/portage"), 0), mix(ctx, h, filepath.Join(eroot, "var/lib/portage"), 0),
		mixNames(h, filepath.Join(eroot, "var/db/pkg")),
	)
	return hex.EncodeToString(h.Sum(nil)), err
}

// mix adds the files below a directory, links followed, by name and content.
func mix(ctx context.Context, h hash.Hash, path string, depth int) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(h, "%q is not there\n", path)
		return nil
	}
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case depth > 16:
		return fmt.Errorf("%s: links that lead in a circle", path)
	case info.Mode().IsRegular():
		sum, err := sumFile(path)
		fmt.Fprintf(h, "%q %x\n", path, sum)
		return err
	case !info.IsDir():
		return nil
	case filepath.Base(path) == "make.profile":
		// It is in a repository.
		real, err := filepath.EvalSymlinks(path)
		fmt.Fprintf(h, "%q is %q\n", path, real)
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := mix(ctx, h, filepath.Join(path, e.Name()), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// mixNames adds the installed packages by name and time: Portage writes an entry
// whole and renames it.
func mixNames(h hash.Hash, db string) error {
	categories, err := os.ReadDir(db)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, c := range categories {
		packages, err := os.ReadDir(filepath.Join(db, c.Name()))
		if err != nil {
			continue // a file of Portage's own
		}
		for _, e := range packages {
			info, err := e.Info()
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%s/%s %d\n", c.Name(), e.Name(), info.ModTime().UnixNano())
		}
	}
	return nil
}

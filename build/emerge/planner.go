package emerge

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// PlanRequest says what is wanted.
type PlanRequest struct {
	Target string
	// Atoms are package atoms and sets ("@world"), as a person types them.
	Atoms []string
	// Update plans "emerge -uDN ATOMS": what is installed and current stays.
	// Without it the plan is that of "emerge ATOMS", which builds the named
	// packages although they are installed.
	Update bool
	// Options are further options of emerge for the wanted set.
	Options []string
	// Bundle is the CID of the target's configuration, which the plan carries.
	Bundle string
	// Base is what builds start from, and BaseHas what it holds; without one
	// it is what is installed here.
	Base    build.BaseRef
	BaseHas []build.Installed
	// Strict puts eclasses and the exact toolchain into keys.
	Strict bool
	// Keep stores a package that is installed here and breaks a cycle, and
	// returns its CID. Without it there are no seeds.
	Keep func(ctx context.Context, path string) (string, error)
	// Lent is the CID of an installed package that the machine has lent before, "" if it
	// has not: in place of Keep, for a machine that others plan for.
	Lent func(build.CPV) string
	// KeepSource stores a file that no program may download, and returns its CID;
	// "" if neither this machine nor the swarm has it. Without it such packages
	// are planned as all others.
	KeepSource func(ctx context.Context, s build.Source) (string, error)
	// Built says that the swarm has the package of a key: then a file that nobody has
	// is no reason to leave it out. nil = nobody knows.
	Built func(ctx context.Context, key build.Key) (bool, error)
	// Cache takes the resolver's last answer where nothing that it read has changed.
	Cache bool
	// KeepTree stores a snapshot of a repository and returns its CID. Without it
	// drones need the same repositories of their own.
	KeepTree func(ctx context.Context, t Tree) (string, error)
}

// maxAtoms bounds a request.
const maxAtoms = 10_000

// Plan asks Portage's resolver twice on one configuration: WANT is what
// emerge would do, NEED the complete graph (--emptytree --with-bdeps=y) on the
// same installed packages. The plan's jobs are WANT and what NEED says their
// builds need. What is installed here exactly as NEED has it counts as the
// base: it stands in root lists, without a key, and is no job.
//
// Cycles of build-time needs are broken by seeds (packages installed here) and
// bootstrap builds; see cycles.go. A package that cannot be resolved is left out, with everything that needs it
// for its build, and stands in Dropped or Missing with its reason. The error
// wraps ErrNoPackage when an atom that was named (not one of a set) does not
// exist or is masked, ErrAmbiguous, ErrResolve or ErrUnusable.
func (p *Portage) Plan(ctx context.Context, req PlanRequest) (*build.Plan, error) {
	if len(req.Atoms) == 0 || len(req.Atoms) > maxAtoms {
		return nil, fmt.Errorf("plan: %w: %d atoms, want 1 to %d", ErrNoPackage, len(req.Atoms), maxAtoms)
	}
	for _, a := range req.Atoms {
		if err := checkAtom(a); err != nil {
			return nil, fmt.Errorf("plan: %w: %w", ErrNoPackage, err)
		}
	}
	options := req.Options
	if req.Update {
		options = append([]string{"--update", "--deep", "--newuse"}, options...)
	}
	if p.cfg.BuildPrefix != "" && p.cfg.EPrefix != "" {
		if err := layOutPrefix(p.cfg.EPrefix, p.globals); err != nil {
			return nil, fmt.Errorf("plan: %w", err)
		}
	}
	var doc document
	env := append(p.environment(p.cfg.ConfigRoot, p.cfg.EPrefix), "SWARM_EMERGE="+p.who.script)
	ask := map[string]any{"mode": "plan", "atoms": req.Atoms, "options": options, "max_tries": 10, "keyed": keyedGlobals()}
	var err error
	if req.Cache {
		err = p.resolve(ctx, env, ask, &doc)
	} else {
		err = p.ask(ctx, env, ask, &doc)
	}
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", describe(req.Atoms), err)
	}
	for _, m := range doc.Missing {
		for _, a := range req.Atoms {
			if a == m.Atom {
				return nil, fmt.Errorf("plan %s: %w: %s: %s", describe(req.Atoms), ErrNoPackage, a,
					build.OneLine(m.Reason, 300))
			}
		}
	}
	trees, err := p.treesOf(ctx, doc.Env.Repos)
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", describe(req.Atoms), err)
	}
	plan, err := convert(&doc, p.files(), p.conversion(ctx, req, build.TreeOf(trees)))
	if err != nil {
		return nil, fmt.Errorf("plan %s: read the planner's answer: %w", describe(req.Atoms), err)
	}
	if req.KeepTree != nil && len(plan.Jobs) > 0 {
		if plan.Trees, err = p.keepTrees(ctx, trees, doc.Env.Repos, req.KeepTree); err != nil {
			return nil, fmt.Errorf("plan %s: %w", describe(req.Atoms), err)
		}
	}
	// A log that cannot be read costs the guesses and no plan.
	if past, err := p.pastBuilds(); err == nil {
		guessByPast(plan, past, runtime.NumCPU())
	}
	plan.Command = command(req)
	plan.Repos = p.revisions(ctx, doc.Env.Repos)
	return plan, nil
}

func checkAtom(a string) error {
	if set, ok := strings.CutPrefix(a, "@"); ok {
		if set == "" || strings.ContainsFunc(set, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.+-", r))
		}) {
			return fmt.Errorf("%q is not a package set", build.OneLine(a, 60))
		}
		return nil
	}
	_, err := build.ParseAtom(a)
	return err
}

func describe(atoms []string) string {
	return build.OneLine(strings.Join(atoms, " "), 100)
}

func command(req PlanRequest) string {
	words := []string{"emerge"}
	if req.Update {
		words = append(words, "-uDN")
	}
	words = append(append(words, req.Options...), req.Atoms...)
	return build.OneLine(strings.Join(words, " "), 500)
}

// document is the planner's answer to "plan" and "facts".
type document struct {
	reply
	Nodes     []node `json:"nodes"`
	Want      []int  `json:"want"`
	WantEdges []edge `json:"want_edges"`
	Need      []int  `json:"need"`
	NeedEdges []edge `json:"need_edges"`
	// NeedMillis is the CPU that NEED took beside WANT; 0 where it is the same.
	NeedMillis int64 `json:"need_cpu_ms"`
	// Bootstraps are nodes with other flags, outside of both orders.
	Bootstraps []struct {
		Node int `json:"node"`
		For  int `json:"for"`
	} `json:"bootstraps"`
	Dropped []note      `json:"dropped"`
	Missing []note      `json:"missing"`
	Header  stringMap   `json:"header"`
	Env     environment `json:"env"`
}

type stringMap map[string]string

type note struct {
	Atom   string `json:"atom"`
	Reason string `json:"reason"`
}

// edge says that node From needs node To.
type edge struct {
	From  int      `json:"from"`
	To    int      `json:"to"`
	Kinds []string `json:"kinds"`
}

// node is one ebuild with what decides its build.
type node struct {
	CPV           string   `json:"cpv"`
	Slot          string   `json:"slot"`
	SubSlot       string   `json:"sub_slot"`
	Repo          string   `json:"repo"`
	Root          string   `json:"root"`
	EAPI          string   `json:"eapi"`
	USE           []string `json:"use"`
	UseEffective  []string `json:"use_effective"`
	IUSE          []string `json:"iuse"`
	IUSEEffective []string `json:"iuse_effective"`
	Keywords      string   `json:"keywords"`
	Restrict      []string `json:"restrict"`
	Properties    []string `json:"properties"`
	Deps          struct {
		Text    stringMap `json:"text"`
		SlotOps []slotOp  `json:"slot_ops"`
	} `json:"deps"`
	Vars      stringMap  `json:"vars"`
	Features  []string   `json:"features"` // nil: as the environment's
	Ebuild    string     `json:"ebuild"`
	Files     string     `json:"files"`
	Distfiles []distfile `json:"distfiles"`
	Patches   []string   `json:"patches"`
	Bashrcs   []string   `json:"bashrcs"`
	Eclasses  []eclass   `json:"eclasses"`
	Installed bool       `json:"installed"`
}

type distfile struct {
	Name       string `json:"name"`
	Size       int64  `json:"size"`
	Hashes     string `json:"hashes"` // "KIND:hex", blank-separated
	Restricted bool   `json:"restricted"`
}

// slotOp is one atom with a := and, in a plan, what it is bound to.
type slotOp struct {
	Kind  string `json:"kind"` // DEPEND, RDEPEND, ...
	Atom  string `json:"atom"`
	Bound string `json:"bound"`
	To    *int   `json:"to"` // index of the node; nil: not bound
}

type eclass struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// environment is what all nodes share.
type environment struct {
	Vars      stringMap `json:"vars"`
	Features  []string  `json:"features"`
	UseExpand []string  `json:"use_expand"`
	Repos     []repo    `json:"repos"`
	MainRepo  string    `json:"main_repo"`
	EPrefix   string    `json:"eprefix"`
	ERoot     string    `json:"eroot"`
	CHOST     string    `json:"chost"`
	Arch      string    `json:"arch"`
	Libc      string    `json:"elibc"`
	Profile   string    `json:"profile"`
	Toolchain stringMap `json:"toolchain"`
	// Versions are the exact versions of compilers and libc.
	Versions stringMap `json:"versions"`
	Portage  string    `json:"portage"`
	Distdir  string    `json:"distdir"`
	Pkgdir   string    `json:"pkgdir"`
}

type repo struct {
	Name    string   `json:"name"`
	Path    string   `json:"path"`
	Masters []string `json:"masters"`
	// Priority is asked for by "target" alone.
	Priority int `json:"priority"`
}

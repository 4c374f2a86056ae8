package sample

import (
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// Repo is the repository name that the samples carry.
const Repo = "swarm-samples"

// pkg is one sample package, in one version and slot.
type pkg struct {
	cat, name, version string
	slot               string
	desc               string
	iuse               []string
	deps               []dep
	compiled           bool     // needs a C compiler
	hidden             bool     // planned on request only
	variants           []string // USE of each job, space-separated; nil = one without flags
	estimate           int64    // core-milliseconds
	memory             int64    // MiB
}

// dep is one dependency of a package on another of the catalog.
type dep struct {
	cp    string
	build bool   // BDEPEND: runs during the build
	link  bool   // DEPEND and RDEPEND, bound by :=
	run   bool   // RDEPEND alone
	use   string // flag that must be on
}

// catalog lists all samples, dependencies first.
func catalog() []pkg {
	gen := dep{cp: "dev-util/sample-gen", build: true}
	text := dep{cp: "dev-libs/sample-text", link: true}
	dft := dep{cp: "dev-libs/sample-dft", link: true}
	run := func(cp string) dep { return dep{cp: cp, run: true} }
	return []pkg{
		{cat: "dev-util", name: "sample-gen", version: "1.4", slot: "0", compiled: true, estimate: 400, memory: 64,
			desc: "Writes straight-line C code for other samples"},
		{cat: "dev-libs", name: "sample-text", version: "1.2.0", slot: "0/2", compiled: true, estimate: 400, memory: 64,
			desc: "Library for text in columns"},
		{cat: "dev-libs", name: "sample-dft", version: "0.9", slot: "0/1", compiled: true, estimate: 3_000, memory: 128,
			desc: "Library of small Fourier transforms, generated", deps: []dep{gen}},
		{cat: "sci-mathematics", name: "sample-spectrum", version: "3.0", slot: "0", compiled: true, estimate: 11_000, memory: 128,
			desc: "Spectrum of a list of numbers", deps: []dep{gen, dft}},
		{cat: "app-crypt", name: "sample-sums", version: "1.1", slot: "0", compiled: true, estimate: 4_000, memory: 128,
			desc: "Checksums by generated mixing functions", deps: []dep{gen}},
		{cat: "app-misc", name: "sample-hello", version: "2.1", slot: "0", compiled: true, estimate: 300, memory: 64,
			desc: "Greets in the middle of the line", iuse: []string{"color"}, variants: []string{"", "color"}, deps: []dep{text}},
		{cat: "app-text", name: "sample-wrap", version: "1.0-r1", slot: "0", compiled: true, estimate: 300, memory: 64,
			desc: "Fills paragraphs", deps: []dep{text}},
		{cat: "app-misc", name: "sample-calc", version: "1.3", slot: "0", compiled: true, estimate: 300, memory: 64,
			desc: "Convolution of two short lists", deps: []dep{text, dft}},
		{cat: "dev-util", name: "sample-doc", version: "1.0", slot: "0", estimate: 100, memory: 16,
			desc: "Manual pages from plain text"},
		{cat: "app-shells", name: "sample-greet", version: "1.0", slot: "0", estimate: 100, memory: 16,
			desc: "Greets by the hour"},
		{cat: "app-misc", name: "sample-menu", version: "1.1", slot: "0", estimate: 100, memory: 16,
			desc: "Lists the samples that are installed", deps: []dep{run("app-shells/sample-greet")}},
		{cat: "app-backup", name: "sample-backup", version: "0.3", slot: "0", estimate: 100, memory: 16,
			desc: "Packs a directory and reads it back", deps: []dep{{cp: "dev-util/sample-doc", build: true}}},
		{cat: "app-misc", name: "sample-all", version: "1", slot: "0", estimate: 50, memory: 16,
			desc: "All samples", deps: []dep{
				{cp: "app-misc/sample-hello", run: true, use: "color"}, run("app-text/sample-wrap"), run("app-misc/sample-calc"),
				run("sci-mathematics/sample-spectrum"), run("app-crypt/sample-sums"), run("app-misc/sample-menu"),
				run("app-backup/sample-backup"),
			}},
		{cat: "app-misc", name: "sample-broken", version: "1.0", slot: "0", compiled: true, hidden: true, estimate: 100, memory: 64,
			desc: "Does not compile"},
		{cat: "app-misc", name: "sample-broken-script", version: "1.0", slot: "0", hidden: true, estimate: 50, memory: 16,
			desc: "Fails without a compiler, too"},
	}
}

func (p *pkg) cp() string { return p.cat + "/" + p.name }

func (p *pkg) cpv() build.CPV { return build.CPV{Category: p.cat, Name: p.name, Version: p.version} }

// uses lists the USE of each job of p.
func (p *pkg) uses() [][]string {
	if len(p.variants) == 0 {
		return [][]string{{}}
	}
	var out [][]string
	for _, v := range p.variants {
		out = append(out, strings.Fields(v))
	}
	return out
}

// depAtoms writes p's dependencies as Portage does after binding: by variable.
func (p *pkg) depAtoms(byCP map[string]*pkg) map[string]string {
	vars := map[string][]string{}
	for _, d := range p.deps {
		on := byCP[d.cp]
		switch {
		case d.build:
			vars["BDEPEND"] = append(vars["BDEPEND"], fmt.Sprintf(">=%s-%s", d.cp, on.version))
		case d.link:
			vars["DEPEND"] = append(vars["DEPEND"], d.bound(on))
			vars["RDEPEND"] = append(vars["RDEPEND"], d.bound(on))
		case d.use != "":
			vars["RDEPEND"] = append(vars["RDEPEND"], d.cp+"["+d.use+"]")
		default:
			vars["RDEPEND"] = append(vars["RDEPEND"], d.cp)
		}
	}
	out := map[string]string{}
	for k, v := range vars {
		slices.Sort(v)
		out[k] = strings.Join(v, " ")
	}
	return out
}

// bound is the bound := atom on a library.
func (d dep) bound(on *pkg) string { return d.cp + ":" + on.slot + "=" }

// rawDeps are p's dependencies as its ebuild has them, := not bound.
func (p *pkg) rawDeps(byCP map[string]*pkg) map[string]string {
	out := p.depAtoms(byCP)
	for _, d := range p.deps {
		if d.link {
			for _, k := range []string{"DEPEND", "RDEPEND"} {
				out[k] = strings.ReplaceAll(out[k], d.bound(byCP[d.cp]), d.cp+":=")
			}
		}
	}
	return out
}

func byCP(all []pkg) map[string]*pkg {
	m := make(map[string]*pkg, len(all))
	for i := range all {
		m[all[i].cp()] = &all[i]
	}
	return m
}

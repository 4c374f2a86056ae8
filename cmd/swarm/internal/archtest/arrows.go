package archtest

import (
	"slices"
	"strings"
)

// arrow says which of the module's packages a package may import. "x/..." is x
// and all below it.
type arrow struct {
	from string
	to   []string
	why  string
}

// The vocabulary, lowest first: each may import what stands before it.
var (
	belowBuild   = []string{"claims/hlc", "cas"}
	belowRelease = slices.Concat(belowBuild, []string{"build"})
	belowClaims  = slices.Concat(belowRelease, []string{"build/release"})
	belowPlan    = slices.Concat(belowClaims, []string{"claims"})
	belowView    = slices.Concat(belowPlan, []string{"build/plan"})
)

// arrows is the whole of who imports whom. A package that is not here is a
// finding: a new package is given its place, and the reason, first.
var arrows = []arrow{
	{"claims/hlc", nil, "a clock needs no other word"},
	{"claims/wire", nil, "the envelope is carried and never understood, so that unknown records merge too"},
	{"cas", nil, "a blob has a name and bytes; what is in it is nobody's business here"},
	{"build", belowBuild, "the vocabulary of packages stands below whatever uses it"},
	{"build/release", belowRelease, "a release is a list of artifacts; it knows no board"},
	{"claims", append(slices.Clone(belowClaims), "claims/wire"), "the board speaks of builds and releases, and nothing that does I/O"},
	{"build/plan", belowPlan, "who builds what is a function of the board"},
	{"build/plan/replay", belowView, "what a board said once, for the plan to look at again"},
	{"build/guest", []string{"build"}, "when a machine may build follows from its sensors, not from the board"},
	{"build/progress", nil, "what somebody waits for, told by whoever does it to whoever listens; neither knows the other"},
	{"build/view", belowView, "what screens show is a function of the board and the plan"},

	{"build/view/viewtest", append(slices.Clone(belowView), "build/view", "claims/wire"), "boards for pictures, made of real records"},

	{"cas/disk", []string{"cas"}, "a store of blobs knows blobs alone"},
	{"cas/castest", []string{"cas"}, "the suite speaks of the interface and of no store"},
	{"cas/replication", []string{"cas"}, "placement knows blobs and peer names, not what the blobs are for"},
	{"cas/replicator", []string{"cas", "cas/replication"}, "carries plans out through an interface of its own, so that it runs without a network"},

	{"p2p", nil, "knows bytes, topics, streams and peers; never packages or leases"},
	{"p2p/discovery", []string{"p2p"}, "an address book; never packages or leases"},
	{"p2p/gossip", []string{"p2p"}, "carries bytes"},
	{"p2p/direct", []string{"p2p"}, "carries bytes"},
	{"p2p/exchange", []string{"p2p", "cas"}, "the one place where streams and blobs meet"},
	{"p2p/p2ptest", []string{"p2p", "p2p/gossip"}, "a network in memory is still only a network"},

	{"claims/agent", append(slices.Clone(belowPlan), "claims/wire", "p2p", "p2p/gossip"), "the one owner of a replica: the board on one side, the network on the other"},
	{"claims/agent/agenttest", append(slices.Clone(belowPlan), "claims/agent", "claims/wire", "cas/disk", "p2p", "p2p/gossip", "p2p/p2ptest"), "whole agents over a network in memory"},
	{"claims/claimstest", append(slices.Clone(belowView), "build/plan/replay", "claims/wire"), "simulates the pure code and nothing else, or it could not be replayed by a seed"},

	{"build/gpkg", []string{"build", "cas"}, "a file format"},
	{"build/worker", append(slices.Clone(belowView), "build/gpkg", "build/guest", "claims/agent"), "takes a job from the board to an artifact; who compiles and who copies comes through its interfaces"},
	{"build/guest/watch", []string{"build", "build/guest"}, "sensors and the loop that steps a guest; builds come through its interface"},
	{"build/shim", []string{"build", "build/guest", "build/worker"}, "implements the worker's interface by another process, and knows no board"},
	{"build/emerge", []string{"build", "build/emerge/base", "build/emerge/sandbox", "build/gpkg", "build/release", "build/worker"}, "compares versions, implements the worker's interface and knows no board"},
	{"build/emerge/sandbox", nil, "runs a program in a root of its own; what program, and why, is nobody's business here"},
	{"build/emerge/base", []string{"build", "build/emerge/sandbox", "cas"}, "a base is a directory and the blobs it is made of; what is built in it is not known here"},
	{"build/emerge/emergetest", nil, "stands in for a program that knows nothing of us"},
	{"build/sample", []string{"build", "build/gpkg", "build/worker"}, "implements the worker's interface and knows no board"},
	{"build/sources", []string{"build", "cas", "p2p"}, "shares files by their hashes; who builds what with them is not known here"},
	{"build/request", append(slices.Clone(belowPlan), "claims/agent"), "from a plan to a round on the board"},
	{"build/publish", append(slices.Clone(belowPlan), "build/progress", "claims/agent", "httpgateway/binhost"), "from ended rounds to releases on the board; a gate writes the index and reads it back"},

	{"httpgateway/binhost", []string{"build", "build/release"}, "an index is a function of a release"},
	{"httpgateway", append(slices.Clone(belowRelease), "build/release", "build/view", "httpgateway/binhost"), "serves releases and blobs from a Catalog; it must not see the board or the network"},
	{"httpgateway/httpgatewaytest", append(slices.Clone(belowRelease), "build/release", "build/emerge", "build/gpkg", "httpgateway", "httpgateway/binhost"), "a Catalog in memory, and a machine with the real Portage that installs from it"},
	{"httpgateway/ui", []string{"build", "build/view"}, "shows the one snapshot; what it shows comes from a Source, so that it runs without a swarm"},

	{"cmd/swarm", []string{"cmd/swarm/internal/cli"}, "main hands over the arguments and the exit code"},
	{"cmd/swarm/internal/cli", []string{"build", "build/emerge/base", "build/emerge/sandbox", "build/guest/...", "build/plan/replay", "build/progress", "build/release", "build/shim", "build/view", "build/worker", "claims/agent", "p2p", "cmd/swarm/internal/..."},
		"flags in, answers out: names and errors of others, no part of the composition"},
	{"cmd/swarm/internal/control", []string{"build", "build/plan/replay", "build/progress", "build/release", "build/view"}, "the client's half is used by programs without a peer inside"},
	{"cmd/swarm/internal/update", []string{"build", "build/release"}, "drives the emerge of a machine that installs; it needs no daemon"},
	{"cmd/swarm/internal/monitor", []string{"build", "build/view", "cmd/swarm/internal/control", "cmd/swarm/internal/render"}, "draws what the daemon's API says, and asks it"},
	{"cmd/swarm/internal/render", []string{"build", "build/progress", "build/view"}, "prints"},
	{"cmd/swarm/internal/alert", []string{"build", "build/view"}, "tells people of the snapshot's issues; the board comes through its interface"},
	{"cmd/swarm/internal/metrics", []string{"build", "build/view"}, "tells Prometheus what the snapshot says"},
	{"cmd/swarm/internal/watch", []string{"build", "build/view"}, "looks at the one snapshot again and again, and keeps what happened"},
	{"cmd/swarm/internal/machine", nil, "measures this machine"},
	{"cmd/swarm/internal/demo", []string{"build", "build/view", "cas", "claims", "claims/wire", "httpgateway/binhost", "cmd/swarm/internal/control", "cmd/swarm/internal/render"},
		"starts processes and takes its figures from effects (blobs, records, indexes): it reads the formats, and none of the code that made them"},
	{"cmd/swarm/internal/daemon", []string{"build/...", "cas/...", "claims/...", "httpgateway/...", "p2p/...", "cmd/swarm/internal/control", "cmd/swarm/internal/machine", "cmd/swarm/internal/watch", "cmd/swarm/internal/alert", "cmd/swarm/internal/metrics"},
		"node's adapters between parts: with node, the only one to see everything"},
	{"cmd/swarm/internal/node", []string{"build/...", "cas/...", "claims/...", "httpgateway/...", "p2p/...", "cmd/swarm/internal/control", "cmd/swarm/internal/machine", "cmd/swarm/internal/daemon"},
		"the composition root sees everything"},
	{"cmd/swarm/internal/archtest", nil, "reads source and runs none of it"},
	{"cmd/swarm/internal/archtest/racelist", []string{"cmd/swarm/internal/archtest"}, "prints what archtest finds"},
}

// Arrows finds imports that the table does not allow, in code and in tests.
// Tests may import what their package may, test support, and for the rest
// anything but programs and what Strict keeps apart.
func Arrows(t *Tree) []Finding {
	var found []Finding
	told := map[string]bool{}
	for _, f := range t.Files {
		k := slices.IndexFunc(arrows, func(a arrow) bool { return a.from == f.Dir })
		if k < 0 {
			if !told[f.Dir] {
				told[f.Dir] = true
				found = append(found, Finding{f.Path, 1, "package " + f.Dir + " has no place in the table of arrows: give it one, with the reason"})
			}
			continue
		}
		a := arrows[k]
		for _, i := range f.imports() {
			switch {
			case i.path == Module:
				found = append(found, t.at(f, i.spec, "the module's root holds no package"))
			case i.own == "":
			case within(i.own, "cmd/...") && !within(f.Dir, "cmd/..."):
				found = append(found, t.at(f, i.spec, "imports %s: nothing imports a program", i.own))
			case i.own == f.Dir || oneOf(i.own, a.to):
				if f.production() && support(i.own) {
					found = append(found, t.at(f, i.spec, "imports %s, which is for tests", i.own))
				}
			case f.Test && (support(i.own) || !within(f.Dir, "p2p/...")):
			case f.Test && within(i.own, "p2p/..."), f.Test && f.Dir == "p2p/exchange" && within(i.own, "cas/..."):
			default:
				found = append(found, t.at(f, i.spec, "%s imports %s; it may import %s: %s", f.Dir, i.own, list(a.to), a.why))
			}
		}
	}
	return found
}

func list(to []string) string {
	if len(to) == 0 {
		return "none of ours"
	}
	return strings.Join(to, ", ")
}

// home says which packages may import a library. A library that is named here
// shapes whatever imports it, so it is kept where it can be exchanged.
type home struct {
	prefix string
	in     []string // besides tests; empty: tests alone
	why    string
}

var homes = []home{
	{"github.com/libp2p/", []string{"p2p/..."}, "peers are strings everywhere else"},
	{"github.com/multiformats/go-multiaddr", []string{"p2p/..."}, "addresses are strings everywhere else"},
	{"github.com/multiformats/go-multistream", []string{"p2p/..."}, "a detail of libp2p"},
	{"go.etcd.io/bbolt", []string{"claims/agent"}, "the journal is the agent's"},
	{"github.com/urfave/cli", []string{"cmd/swarm/internal/cli"}, "its traps are closed in one place"},
	{"github.com/godbus/dbus", []string{"build/guest/watch"}, "what the desktop says is heard in one place"},
	{"github.com/BurntSushi/toml", []string{"cmd/swarm/internal/cli"}, "one file of settings, read in one place"},
	{"github.com/fxamacker/cbor", []string{"build", "build/release", "claims", "claims/wire"}, "canonical encoding is part of what is signed and hashed"},
	{"lukechampine.com/blake3", []string{"cas/..."}, "a name is made and checked by cas alone"},
	{"github.com/google/go-cmp", nil, "it panics by design: for tests alone"},
	{"github.com/prometheus/", []string{"cmd/swarm/internal/metrics"}, "one place says what is counted, and how it is called"},
	{"github.com/chromedp/", nil, "drives a browser: for tests alone"},
	{"pgregory.net/rapid", nil, "for tests alone"},
	{"github.com/rogpeppe/go-internal", nil, "for tests alone"},
	{"github.com/stretchr/testify", []string{"none"}, "the testing package is enough"},
	{"testing", nil, "registers flags: for tests alone"},
	{"log", []string{"none"}, "log/slog, passed in by the constructor"},
	{"math/rand", []string{"none"}, "math/rand/v2"},
}

// Homes finds libraries away from home.
func Homes(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		for _, i := range f.imports() {
			for _, h := range homes {
				if i.path != h.prefix && (!strings.HasPrefix(i.path, strings.TrimSuffix(h.prefix, "/")+"/") || !strings.Contains(h.prefix, ".")) {
					continue
				}
				if !oneOf(f.Dir, h.in) && (f.production() || slices.Contains(h.in, "none")) {
					found = append(found, t.at(f, i.spec, "imports %s: %s", i.path, h.why))
				}
			}
		}
	}
	return found
}

"""Asks Portage's own resolver for plans and facts, and prints them as JSON.

Run by the Python that runs emerge, with Portage's own modules. The request is
one JSON document on standard input, the answer one on standard output; what
Portage itself prints goes to standard error. The names used here (parse_opts,
load_emerge_config, adjust_configs, create_depgraph_params, backtrack_depgraph,
altlist, schedulerGraph) are internal to Portage, but have had these arguments
since 2009; "probe" checks that they are there.

Request: {"mode": "probe"}
         {"mode": "plan", "atoms": [...], "options": [...], "max_tries": 10, "keyed": [...]}
         {"mode": "system"}
         {"mode": "facts", "packages": [{"cpv": ..., "repo": ...}, ...], "keyed": [...]}
         {"mode": "target", "keyed": [...]}
         {"mode": "seeds", "packages": [{"cpv": ..., "slot": ..., "atoms": [...]}, ...]}
"""

import configparser
import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
import traceback

SCHEMA = 1
answer_fd = os.dup(1)
os.dup2(2, 1)  # Portage prints to standard output; the answer must stand alone


def find_portage():
    """A checkout is not on sys.path: take it from where emerge stands."""
    script = os.environ.get("SWARM_EMERGE", "")
    base = os.path.dirname(os.path.dirname(os.path.realpath(script)))
    if script and os.path.isfile(os.path.join(base, ".portage_not_installed")):
        sys.path.insert(0, os.path.join(base, "lib"))


class Problem(Exception):
    """An error for people, with a kind that the caller branches on."""

    def __init__(self, kind, text, atom=""):
        super().__init__(text)
        self.kind, self.text, self.atom = kind, text, atom


# Options of the user's default options that choose how emerge works, not what
# it wants: they would turn builds into binary packages or wait for a person.
DROP = frozenset((
    "--alphabetical", "--ask", "--autounmask", "--autounmask-continue", "--autounmask-write",
    "--binpkg-changed-deps", "--binpkg-respect-use", "--buildpkg", "--buildpkg-exclude",
    "--buildpkgonly", "--color", "--columns", "--fetch-all-uri", "--fetchonly", "--getbinpkg",
    "--getbinpkg-exclude", "--getbinpkg-include", "--getbinpkgonly", "--jobs", "--keep-going",
    "--load-average", "--nospinner", "--pretend", "--quiet", "--quiet-build", "--quiet-fail",
    "--rebuilt-binaries", "--resume", "--skipfirst", "--tree", "--unordered-display", "--usepkg",
    "--usepkg-exclude", "--usepkg-include", "--usepkgonly", "--verbose", "--verbose-conflicts",
))


# What may be run to say its version: a compiler, and what wraps one.
COMPILER = re.compile(r"(/usr/[A-Za-z0-9_./+-]*/)?([A-Za-z0-9_.]+-)*(gcc|cc|clang|ccache|distcc|sccache)(-[0-9.]+)?")


def strip_options(opts):
    """Takes the options of DROP out of what parse_opts returned."""
    return {k: v for k, v in opts.items() if k not in DROP}


def option_words(opts):
    """Options as words that parse_opts reads as the same."""
    words = []
    for name, value in sorted(opts.items()):
        for v in value if isinstance(value, (list, tuple)) else [value]:
            if v is True:
                words.append(name)
            elif v is not None and v is not False:
                words.append(f"{name}={v}")
    return words


class Session:
    """One loaded configuration."""

    def __init__(self):
        find_portage()
        import portage

        portage._internal_caller = True
        portage._disable_legacy_globals()
        import portage.output

        portage.output.havecolor = 0
        from _emerge import actions, main
        from _emerge.create_depgraph_params import create_depgraph_params
        from _emerge.depgraph import backtrack_depgraph
        from _emerge.stdout_spinner import stdout_spinner

        self.portage, self.actions, self.main = portage, actions, main
        self.keyed = []  # variables that count although make.globals sets them
        self.create_params, self.backtrack = create_depgraph_params, backtrack_depgraph
        self.spinner = stdout_spinner()
        self.spinner.mode = self.spinner.QUIET
        os.umask(0o22)

    def load(self, action, args, opts):
        try:
            config = self.actions.load_emerge_config(action=action, args=args, opts=opts)
        except (ValueError, self.portage.exception.ParseError) as e:
            where = os.environ.get("PORTAGE_CONFIGROOT", "") + "/etc/portage/make.conf"
            raise Problem("config", f"the configuration cannot be read: {e} (look at {where} and what it sources)")
        self.actions.adjust_configs(config.opts, config.trees)
        self.config = config
        self.settings = config.target_config.settings
        self.trees = config.trees
        self.root = self.settings["EROOT"]
        self.portdb = self.trees[self.root]["porttree"].dbapi
        self.vardb = self.trees[self.root]["vartree"].dbapi
        if not self.settings.get("ARCH"):
            raise Problem("config", "the profile sets no ARCH: is make.profile a valid profile?")
        return config

    # --- the resolver -----------------------------------------------------

    def resolve(self, args, opts):
        """One run of the resolver, with a copy of the options."""
        opts = dict(opts)
        params = self.create_params(opts, None)
        ok, graph, _ = self.backtrack(
            self.settings, self.trees, opts, params, None, list(args), self.spinner
        )
        return ok, graph

    def expand(self, args):
        """Sets become atoms, since an atom can be dropped and a set cannot."""
        out = []
        sets = self.config.target_config.setconfig
        for a in args:
            if not a.startswith("@"):
                out.append(a)
                continue
            for atom in sorted(str(x) for x in sets.getSetAtoms(a[1:])):
                if atom not in out:
                    out.append(atom)
        return out

    def plan(self, args, opts, tries, dropped, missing):
        """Resolves args; what cannot be resolved is dropped with its reason.

        A cycle of build-time needs is no reason to drop anything: the graph is
        complete, only Portage has no order for it. Ours comes from seeds and
        bootstrap builds.
        """
        current = list(args)
        for _ in range(tries):
            if not current:
                return current, None
            try:
                ok, graph = self.resolve(current, opts)
            except self.portage.exception.AmbiguousPackageName as e:
                names = ", ".join(sorted(str(x) for x in e.args[0]))
                raise Problem("ambiguous", f"the name is short for several packages: {names}")
            except self.portage.exception.PackageSetNotFound as e:
                raise Problem("missing", f"there is no package set {e.value}", f"@{e.value}")
            absent, bad = self.problems(graph, ok)
            for atom, why in absent:
                if all(m["atom"] != atom for m in missing):
                    missing.append({"atom": atom, "reason": why})
            if ok or not bad and self.circular(graph):
                return current, graph
            current = self.expand(current)
            gone = {atom for atom, _ in absent}
            for atom, why in bad:
                gone.add(atom)
                if all(d["atom"] != atom for d in dropped):
                    dropped.append({"atom": atom, "reason": why})
            left = [a for a in current if not (gone & self.spellings(a))]
            if len(left) == len(current):
                # Nothing in the resolver's records leads back to an atom.
                with contextlib.redirect_stdout(io.StringIO()) as text:
                    graph.display_problems()
                last = [x.strip() for x in text.getvalue().splitlines() if x.strip()]
                raise Problem("resolve", " ".join(last[:4])[:800] or "the resolver gave no reason")
            current = left
        raise Problem("resolve", f"still unresolved after {tries} attempts")

    def spellings(self, atom):
        """An argument may lack its category; the resolver's record has it."""
        out = {atom}
        if "/" not in atom:
            with contextlib.suppress(Exception):
                out.add(str(self.portage.dep_expand(atom, mydb=self.portdb, settings=self.settings)))
        return out

    def problems(self, graph, ok):
        """(missing, dropped) as pairs (atom, reason) from the resolver's records."""
        dyn = graph._dynamic_config
        missing, dropped = [], []
        for arg, atom in getattr(dyn, "_missing_args", ()):
            missing.append((str(arg.arg) if not str(arg.arg).startswith("@") else str(atom),
                            self.why_not(atom)))
        for pargs, kwargs in getattr(dyn, "_unsatisfied_deps_for_display", ()):
            atom, parent = pargs[1], kwargs.get("myparent")
            pkg = kwargs.get("show_req_use")
            if pkg is not None:
                why = f"{pkg.cpv}: REQUIRED_USE is not met: {pkg._metadata['REQUIRED_USE']}"
                roots = self.roots(graph, parent) or self.roots(graph, pkg)
                roots = roots or [str(kwargs.get("arg") or atom)]
            else:
                why = self.why_not(atom)
                if parent is not None and hasattr(parent, "cpv"):
                    why = f"{parent.cpv} needs {atom}: {why}"
                roots = self.roots(graph, parent)
                if not hasattr(parent, "cpv") or not roots:
                    # The argument itself: it does not exist, or is masked.
                    name = str(kwargs["arg"].arg) if kwargs.get("arg") is not None else str(atom)
                    name = str(atom) if name.startswith("@") else name
                    missing.append((name.removeprefix("null/"), why))
                    continue
            dropped.extend((r, why) for r in roots)
        if ok:
            return missing, dropped
        for conflict in dyn._package_tracker.slot_conflicts():
            pkgs = list(conflict.pkgs)
            why = f"slot conflict in {conflict.atom}: " + ", ".join(str(p.cpv) for p in pkgs)
            dropped.extend((r, why) for r in self.roots(graph, pkgs[-1]))
        for blocker in getattr(dyn, "_unsatisfied_blockers_for_display", None) or ():
            for parent in dyn._blocker_parents.parent_nodes(blocker):
                why = f"{parent.cpv} is blocked by or blocks {blocker.atom}"
                dropped.extend((r, why) for r in self.roots(graph, parent))
        return missing, dropped

    @staticmethod
    def circular(graph):
        return getattr(graph._dynamic_config, "_circular_deps_for_display", None) is not None

    def bootstraps(self, args, opts, graph):
        """[(package, changed graph)]: USE changes that Portage suggests, one for each cycle.

        A bootstrap build of the package, with the flags changed, breaks the
        cycle; the package itself is then built as it is wanted.
        """
        from _emerge.resolver.circular_dependency import circular_dependency_handler

        out, changed = [], set()
        for _ in range(8):
            if graph is None or not self.circular(graph):
                break
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    handler = circular_dependency_handler(graph, graph._dynamic_config._circular_deps_for_display)
            except Exception:  # it is a display helper, and bootstraps are a luxury
                break
            best = None
            cycle = handler.shortest_cycle or ()
            for pos, child in enumerate(cycle):
                parent = cycle[pos - 1]
                for flags in (handler.solutions or {}).get(child, ()):
                    key = (len(flags), str(parent.cpv), sorted(flags))
                    if flags and parent.cpv not in changed and (best is None or key < best[0]):
                        best = (key, parent, flags)
            if best is None:
                break
            _, parent, flags = best
            changed.add(parent.cpv)
            atom = self.portage.dep.Atom("=" + str(parent.cpv))
            words = [f if on else "-" + f for f, on in sorted(flags)]
            for manager in self.use_managers():
                entry = manager._pusedict._normal.setdefault(atom.cp, {})
                entry[atom] = tuple(entry.get(atom, ())) + tuple(words)
            _, graph = self.resolve(args, opts)
            out.append((str(parent.cpv), parent.repo, str(parent.root)))
        return out, graph

    def use_managers(self):
        """Where package.use stands; every root's configuration may have its own."""
        found = [self.settings._use_manager]
        for tree in self.trees.values():
            for s in (tree["vartree"].settings, tree["root_config"].settings):
                if all(s._use_manager is not m for m in found):
                    found.append(s._use_manager)
        return found

    def roots(self, graph, node):
        """The requested atoms that lead to a node of the graph."""
        if node is None:
            return []
        digraph = graph._dynamic_config.digraph
        seen, todo, out = set(), [node], set()
        while todo:
            n = todo.pop()
            if id(n) in seen:
                continue
            seen.add(id(n))
            if not hasattr(n, "cpv"):
                arg = getattr(n, "arg", None)
                if arg and not str(arg).startswith("@"):
                    out.add(str(arg))
                continue
            parents = digraph.parent_nodes(n) if n in digraph else []
            for p in parents:
                if hasattr(p, "cpv"):
                    todo.append(p)
                    continue
                arg = str(getattr(p, "arg", ""))
                if arg.startswith("@"):
                    found = p.pset.findAtomForPackage(n) if getattr(p, "pset", None) else None
                    if found is not None:
                        out.add(str(found))
                elif arg:
                    out.add(arg)
        return sorted(out)

    def why_not(self, atom):
        """Why no ebuild satisfies an atom, in one line."""
        portage = self.portage
        try:
            bare = portage.dep.Atom(str(atom), allow_repo=True, allow_wildcard=True)
            every = self.portdb.xmatch("match-all", bare.without_use)
        except Exception:
            return "it is not a valid atom"
        if not every:
            have = self.portdb.cp_list(bare.cp)
            unread = [c for c in have if self.unreadable(c)]
            if unread:
                where = self.portdb.findname(unread[-1]) or unread[-1]
                return (f"{unread[-1]} cannot be read: {where} is not in its Manifest, or does not parse "
                        "(a repository without metadata/layout.conf wants full Manifests)")
            if have:
                return "no version of it satisfies this"
            return "there is no such package"
        cpv = every[-1]
        with contextlib.suppress(Exception):
            reasons = portage.getmaskingstatus(cpv, settings=self.settings, portdb=self.portdb)
            if reasons:
                return f"{cpv} is masked by: " + ", ".join(str(r) for r in reasons)
        if bare.use:
            return f"{cpv} has other USE flags than {bare.use}"
        return "no version of it can be used"

    def unreadable(self, cpv):
        """Whether Portage can make no metadata of an ebuild: to the resolver it is not there."""
        try:
            return not self.portdb.aux_get(str(cpv), ["EAPI"])
        except Exception:
            return True

    # --- facts --------------------------------------------------------------

    def variables(self, settings, containers):
        names = set()
        for c in containers:
            names.update(settings.configdict.get(c) or ())
        names.update(self.keyed)
        out = {}
        for k in names:
            v = settings.get(k)
            if isinstance(v, str) and v and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", k):
                out[k] = v
        return out

    def node(self, pkg):
        """Everything about one ebuild that decides what its build comes to."""
        portage = self.portage
        cpv, repo = str(pkg.cpv), pkg.repo
        path, tree = self.portdb.findname2(cpv, myrepo=repo)
        if not path:
            raise Problem("resolve", f"{cpv}::{repo} has no ebuild")
        directory = os.path.dirname(path)
        use = sorted(pkg.use.enabled)
        iuse = sorted(pkg.iuse.all)
        settings = self.scratch
        settings.setcpv(pkg)
        meta = pkg._metadata
        base_keys = set(portage.auxdbkeys) | {"PORTAGE_REPO_NAME", "USE", "repository", "A", "PORTAGE_USE",
                                               "CATEGORY", "PF", "IUSE_EFFECTIVE", "PKGUSE"}
        changed = {}
        for k, v in dict(settings.configdict["pkg"]).items():
            if k not in base_keys and not k.startswith(("EBUILD_", "_")) and isinstance(v, str):
                v = settings.get(k, v)
                if self.base_vars.get(k) != v and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", k):
                    changed[k] = v
        features = sorted(settings.features)
        return {
            "cpv": cpv,
            "slot": str(pkg.slot),
            "sub_slot": str(pkg.sub_slot),
            "repo": repo,
            "root": str(pkg.root),
            "eapi": str(pkg.eapi),
            "use": [f for f in use if f in pkg.iuse.all],
            "use_effective": [f for f in use if pkg.iuse.is_valid_flag(f)],
            "iuse": iuse,
            "iuse_effective": sorted(settings.get("IUSE_EFFECTIVE", "").split()),
            "keywords": meta.get("KEYWORDS", ""),
            "restrict": sorted(meta.get("RESTRICT", "").split()),
            "properties": sorted(meta.get("PROPERTIES", "").split()),
            "deps": self.deps(pkg),
            "vars": changed,
            "features": None if features == self.base_features else features,
            "ebuild": path,
            "files": os.path.join(directory, "files"),
            "distfiles": self.distfiles(pkg, directory, tree),
            "patches": self.patches(pkg),
            "bashrcs": self.bashrcs(pkg),
            "eclasses": self.eclasses(pkg),
            "installed": self.is_installed(pkg),
        }

    def deps(self, pkg):
        """The evaluated dependencies, := not yet bound, and the atoms that have a :=."""
        from portage.dep import Atom, paren_enclose, use_reduce

        out, operators = {}, []

        def visit(kind, struct):
            for x in struct:
                if isinstance(x, list):
                    visit(kind, x)
                elif isinstance(x, Atom) and x.slot_operator == "=" and not x.blocker:
                    operators.append([kind, str(x)])

        for kind in ("BDEPEND", "DEPEND", "IDEPEND", "PDEPEND", "RDEPEND"):
            struct = use_reduce(
                pkg._metadata.get(kind, ""), uselist=pkg.use.enabled, eapi=pkg.eapi, token_class=Atom
            )
            visit(kind, struct)
            text = paren_enclose(struct)
            if text:
                out[kind] = text
        pkg_ops = [{"kind": k, "atom": a} for k, a in operators]
        return {"text": out, "slot_ops": pkg_ops}

    def bind(self, doc, pkg, children):
        """Binds := to the highest child of the graph that the atom matches."""
        portage = self.portage
        for op in doc["deps"]["slot_ops"]:
            atom = portage.dep.Atom(op["atom"], eapi=pkg.eapi)
            best = None
            for child, index in children:
                if child.cp != atom.cp or not portage.dep.match_from_list(atom.without_use, [child]):
                    continue
                if best is None or portage.versions.vercmp(child.version, best[0].version) > 0:
                    best = (child, index)
            if best is not None:
                op["bound"] = str(atom.with_slot(f"{best[0].slot}/{best[0].sub_slot}="))
                op["to"] = best[1]

    def distfiles(self, pkg, directory, tree):
        # The resolver's own metadata has no SRC_URI.
        if not self.portdb.aux_get(str(pkg.cpv), ["SRC_URI"], mytree=tree)[0]:
            return []
        names = self.portdb.getFetchMap(str(pkg.cpv), useflags=pkg.use.enabled, mytree=tree)
        repo = self.portdb.repositories.get_repo_for_location(tree)
        digests = repo.load_manifest(directory, self.settings["DISTDIR"]).getTypeDigests("DIST")
        restricted = "fetch" in pkg._metadata.get("RESTRICT", "").split()
        out = []
        for name in sorted(names):
            d = digests.get(name, {})
            hashes = " ".join(f"{k}:{d[k]}" for k in sorted(d) if k != "size")
            # EAPI 8: a prefix exempts single files.
            free = any(str(u).startswith(("fetch+", "mirror+")) for u in names[name] or ())
            out.append({"name": name, "size": int(d.get("size", -1)), "hashes": hashes, "restricted": restricted and not free})
        return out

    def patches(self, pkg):
        base = os.path.join(self.settings["PORTAGE_CONFIGROOT"], "etc/portage/patches", pkg.cpv.split("/")[0])
        pn, pf = pkg.cp.split("/")[1], pkg.cpv.split("/")[1]
        plain = re.sub(r"-r[0-9]+$", "", pf)
        out = []
        for n in (plain + "-r0" if plain == pf else pf, plain, pf, pn):
            for suffix in ("", ":" + str(pkg.slot)):
                p = os.path.join(base, n + suffix)
                if os.path.isdir(p) and p not in out:
                    out.append(p)
        return out

    def bashrcs(self, pkg):
        conf = os.path.join(self.settings["PORTAGE_CONFIGROOT"], "etc/portage")
        cat, pf = pkg.cpv.split("/")
        pn = pkg.cp.split("/")[1]
        plain = re.sub(r"-r[0-9]+$", "", pf)
        paths = [os.path.join(p, "profile.bashrc") for p in self.settings.profiles]
        paths += [os.path.join(conf, "bashrc")]
        for n in (pn, f"{pn}:{pkg.slot}", plain, pf):
            paths.append(os.path.join(conf, "env", cat, n))
        for location, entries in (getattr(self.settings, "_pbashrcdict", None) or {}).items():
            for atom, files in (entries.get(pkg.cp) or {}).items():
                if self.portage.dep.match_from_list(atom, [pkg]):
                    root = getattr(location, "location", str(location))
                    paths += [os.path.join(root, "bashrc", f) for f in files]
        out = []
        for p in paths:
            if os.path.exists(p) and p not in out:
                out.append(p)
        return out

    def eclasses(self, pkg):
        repo = self.portdb.repositories[pkg.repo]
        out = []
        for name in sorted(set(pkg._metadata.get("INHERITED", "").split())):
            e = repo.eclass_db.eclasses.get(name)
            if e is not None:
                out.append({"name": name, "path": e.location})
        return out

    def is_installed(self, pkg):
        """Whether exactly this build configuration is installed here."""
        cpv = str(pkg.cpv)
        if not self.vardb.cpv_exists(cpv):
            return False
        use, iuse, slot, repo = self.vardb.aux_get(cpv, ["USE", "IUSE", "SLOT", "repository"])
        flags = {x.lstrip("+-") for x in iuse.split()}
        have = set(use.split()) & flags
        slots = slot.split("/") + slot.split("/")
        return (
            flags == set(pkg.iuse.all)
            and have == set(pkg.use.enabled) & flags
            and (slots[0], slots[1]) == (str(pkg.slot), str(pkg.sub_slot))
            and repo == pkg.repo
        )

    def prepare_facts(self):
        self.scratch = self.portage.config(clone=self.settings)
        self.base_vars = self.variables(self.settings, ("defaults", "conf"))
        self.base_features = sorted(self.settings.features)

    def environment(self):
        """What all packages share."""
        s = self.settings
        repos = []
        for r in self.portdb.repositories:
            if r.location and os.path.isdir(r.location):
                repos.append({
                    "name": r.name,
                    "path": r.location,
                    "masters": [m.name for m in (r.masters or ()) if m.name != r.name],
                    "priority": int(r.priority or 0),
                })
        return {
            "vars": self.base_vars,
            "features": self.base_features,
            "use_expand": sorted(set(s.get("USE_EXPAND", "").split())),
            "repos": sorted(repos, key=lambda r: r["name"]),
            "main_repo": self.portdb.repositories.mainRepo().name if self.portdb.repositories.mainRepo() else "",
            "eprefix": s["EPREFIX"],
            "eroot": s["EROOT"],
            "chost": s.get("CHOST", ""),
            "arch": s.get("ARCH", ""),
            "elibc": s.get("ELIBC", ""),
            "profile": self.profile(),
            "toolchain": self.toolchain(),
            "versions": self.versions(),
            "portage": version(self.portage),
            "distdir": s.get("DISTDIR", ""),
            "pkgdir": s.get("PKGDIR", ""),
        }

    def profile(self):
        """The profile as repository:path, never as a path of this machine."""
        p = os.path.realpath(self.settings.profile_path or "")
        for r in self.portdb.repositories:
            root = os.path.realpath(os.path.join(r.location or "", "profiles")) + os.sep
            if p.startswith(root):
                return f"{r.name}:{p[len(root):]}"
        return ""

    def toolchain(self):
        """Slots of the installed compilers; without packages, the compiler's own word."""
        out = {}
        for cp in ("sys-devel/gcc", "llvm-core/clang", "dev-lang/rust", "dev-lang/rust-bin", "dev-lang/go"):
            found = self.vardb.match(cp)
            if found:
                out[cp] = self.vardb._pkg_str(found[-1], None).slot
        if "sys-devel/gcc" not in out and "llvm-core/clang" not in out:
            # The configuration may be another machine's: what is no compiler is not run.
            cc = [w for w in shlex.split(self.settings.get("CC", "") or "cc") if not w.startswith("-")]
            if not cc or not all(COMPILER.fullmatch(w) and ".." not in w for w in cc):
                cc = ["cc"]
            with contextlib.suppress(OSError, subprocess.SubprocessError, IndexError):
                text = subprocess.run(cc + ["-dumpversion"], capture_output=True, text=True,
                                      timeout=10, stdin=subprocess.DEVNULL).stdout.strip()
                if re.fullmatch(r"[0-9][0-9.]*", text):
                    out["cc"] = text.split(".")[0]
        return out

    def versions(self):
        """The exact toolchain, for targets that are rebuilt whenever it changes."""
        out = {}
        for cp in ("sys-devel/gcc", "sys-devel/binutils", "sys-libs/glibc", "sys-libs/musl", "llvm-core/clang",
                   "dev-lang/rust", "dev-lang/rust-bin", "dev-lang/go"):
            found = self.vardb.match(cp)
            if found:
                out[cp] = str(found[-1])
        return out

    def header(self):
        """The header of a Packages index, as Portage itself writes it."""
        bintree = self.trees[self.root]["bintree"]
        index = bintree._new_pkgindex()
        bintree._update_pkgindex_header(index.header)
        return {k: v for k, v in index.header.items() if isinstance(v, str)}


def version(portage):
    v = str(portage.VERSION)
    if v == "HEAD":  # a checkout without its git directory
        with contextlib.suppress(OSError):
            with open(os.path.join(portage.const.PORTAGE_BASE_PATH, "meson.build")) as f:
                m = re.search(r"version\s*:\s*'([0-9.]+)'", f.read())
                if m:
                    v = m.group(1) + "+"
    return v


def globals_dir(portage):
    """Where make.globals stands: a Prefix of our own needs it too."""
    if portage._not_installed:
        return os.path.join(portage.const.PORTAGE_BASE_PATH, "cnf")
    return os.path.join(portage.const.EPREFIX + os.sep, portage.const.GLOBAL_CONFIG_PATH.lstrip(os.sep))


KINDS = ("buildtime", "runtime", "runtime_post", "buildtime_slot_op", "runtime_slot_op")


def graph_of(session, graph, nodes, index):
    """(order, edges): tasks in merge order and typed edges, as indices into nodes."""
    order, edges = [], []
    if session.circular(graph):
        sched = graph._dynamic_config.digraph
        tasks = [t for t in sched.order if hasattr(t, "cpv") and t.operation == "merge"]
    else:
        tasks = [t for t in graph.altlist() if hasattr(t, "cpv") and t.operation == "merge"]
        sched = graph.schedulerGraph().graph
    local = {}
    for t in tasks:
        if t.type_name != "ebuild":
            continue
        key = (str(t.cpv), t.repo, str(t.root))
        if key not in index:
            index[key] = len(nodes)
            nodes.append(session.node(t))
        local[id(t)] = index[key]
        order.append(index[key])
    by_node = {t: local[id(t)] for t in tasks if id(t) in local}
    for t in tasks:
        if t not in by_node or t not in sched.nodes:
            continue
        children = []
        for child, priorities in sched.nodes[t][0].items():
            if child not in by_node:
                continue
            kinds = sorted({k for p in priorities for k in KINDS if getattr(p, k, False)})
            if kinds:
                edges.append({"from": by_node[t], "to": by_node[child], "kinds": kinds})
                children.append((child, by_node[child]))
        session.bind(nodes[by_node[t]], t, children)
    return order, edges


def do_plan(session, request):
    session.keyed = request.get("keyed", [])
    options = request.get("options") or []
    session.load(None, [], {})
    defaults = shlex.split(session.settings.get("EMERGE_DEFAULT_OPTS", ""))
    _, want_opts, _ = session.main.parse_opts(defaults + options, silent=True)
    want_opts = strip_options(want_opts)
    want_opts["--autounmask"] = "n"
    want_opts["--quiet"] = True
    atoms = list(request["atoms"])
    config = session.load(None, atoms, want_opts)
    args, status = session.actions.expand_set_arguments(atoms, None, config.target_config)
    if status != os.EX_OK or args is None:
        raise Problem("missing", "there is no such package set: " + " ".join(a for a in atoms if a.startswith("@")))
    for a in args:
        if not a.startswith("@") and not session.actions.is_valid_package_atom(a, allow_repo=True):
            raise Problem("atom", f"{a!r} is not a valid package atom", a)
    malformed = []
    for name in (a[1:] for a in atoms if a.startswith("@")):
        for text in set_errors(session, config.target_config.sets, name):
            malformed.append({"atom": text, "reason": f"it stands in the set {name} and is not a package atom"})
    session.prepare_facts()
    tries = request.get("max_tries", 10)
    dropped, missing, nodes, index = [], malformed, [], {}
    left, want = session.plan(args, want_opts, tries, dropped, missing)
    need = None
    doc = {"want": [], "want_edges": [], "need": [], "need_edges": []}
    if want is not None:
        doc["want"], doc["want_edges"] = graph_of(session, want, nodes, index)
    began = time.process_time()
    need_opts = dict(want_opts)
    for k in ("--noreplace", "--update", "--deep", "--newuse", "--changed-use", "--onlydeps", "--selective"):
        need_opts.pop(k, None)
    need_opts["--emptytree"] = True
    need_opts["--with-bdeps"] = "y"
    if doc["want"] and not session.vardb.cpv_all():
        # Nothing is installed: what emerge would do is everything there is.
        doc["need"], doc["need_edges"] = doc["want"], doc["want_edges"]
        need, need_opts = want, want_opts
    elif doc["want"] and left:
        left, need = session.plan(left, need_opts, tries, dropped, missing)
        if need is not None:
            doc["need"], doc["need_edges"] = graph_of(session, need, nodes, index)
    if need is not None and session.circular(need):
        doc["bootstraps"] = bootstraps_of(session, left, need_opts, need, nodes, index, doc["need_edges"])
    doc["need_cpu_ms"] = int((time.process_time() - began) * 1000)
    doc.update(nodes=nodes, dropped=dropped, missing=missing, header=session.header(),
               env=session.environment())
    return doc


def set_errors(session, sets, name, seen=()):
    """Lines of a set, and of the sets in it, that are no atoms: Portage warns and goes on."""
    found = sets.get(name)
    if found is None or name in seen:
        return
    with contextlib.suppress(Exception):
        found.getAtoms()
    lines = []
    with contextlib.suppress(OSError, TypeError):
        # The world file stands behind the set "selected".
        with open(getattr(getattr(found, "_pkgset", found), "_filename", None), encoding="utf-8", errors="replace") as f:
            lines = [x.strip() for x in f]
    for text in lines:
        if text and text[0] not in "#@" and not session.portage.isvalidatom(text, allow_repo=True):
            yield text[:200]
    others = []
    with contextlib.suppress(Exception):
        others = [x[1:] for x in found.getNonAtoms() if x.startswith("@")]
    for other in others:
        yield from set_errors(session, sets, other, (*seen, name))


def bootstraps_of(session, args, opts, graph, nodes, index, edges):
    """Nodes of the packages that Portage would build with other flags to break a cycle."""
    changed, graph = session.bootstraps(args, opts, graph)
    out = []
    if not changed or graph is None:
        return out
    session.prepare_facts()
    digraph = graph._dynamic_config.digraph
    for t in digraph.order:
        if not hasattr(t, "cpv") or t.type_name != "ebuild" or t.operation != "merge":
            continue
        key = (str(t.cpv), t.repo, str(t.root))
        if key not in changed or key not in index:
            continue
        at = len(nodes)
        nodes.append(session.node(t))
        children = []
        for child, priorities in digraph.nodes[t][0].items():
            to = index.get((str(child.cpv), child.repo, str(child.root))) if hasattr(child, "cpv") else None
            kinds = sorted({k for p in priorities for k in KINDS if getattr(p, k, False)})
            if to is not None and kinds:
                edges.append({"from": at, "to": to, "kinds": kinds})
                children.append((child, to))
        session.bind(nodes[at], t, children)
        out.append({"node": at, "for": index[key]})
    return out


def do_seeds(session, request):
    """What is installed in the slots of the packages asked about."""
    portage = session.portage
    session.load(None, [], {})
    out = []
    for want in request["packages"]:
        planned = portage.versions._pkg_str(want["cpv"], slot=want["slot"])
        found = session.vardb.match(f"{planned.cp}:{want['slot']}")
        if not found:
            out.append({"cpv": ""})
            continue
        cpv = found[-1]
        slot, use, eapi, *deps = session.vardb.aux_get(cpv, ["SLOT", "USE", "EAPI", "RDEPEND", "IDEPEND"])
        bound = set()
        for text in deps:
            struct = portage.dep.use_reduce(text, uselist=use.split(), eapi=eapi, token_class=portage.dep.Atom, flat=True)
            bound.update(str(a.without_use) for a in struct
                         if isinstance(a, portage.dep.Atom) and a.slot_operator == "=" and a.sub_slot and not a.blocker)
        satisfies = []
        for text in want["atoms"]:
            atom = portage.dep.Atom(text)
            asked = bool(portage.dep.match_from_list(atom.without_use, [planned]))
            satisfies.append(not asked or cpv in session.vardb.match(atom))
        out.append({"cpv": str(cpv), "slot": slot, "bound": sorted(bound), "satisfies": satisfies})
    return {"seeds": out}


def lost_repositories(session):
    """Repositories of repos.conf whose place is not there: Portage goes on without them."""
    base = os.path.join(session.settings["PORTAGE_CONFIGROOT"], "etc/portage/repos.conf")
    files = [base]
    if os.path.isdir(base):
        files = sorted(os.path.join(d, f) for d, _, names in os.walk(base) for f in names if not f.startswith(".") and not f.endswith("~"))
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    out = []
    with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
        parser.read(files, encoding="utf-8")
        for name in parser.sections():
            place = parser[name].get("location", "").strip()
            if place and not os.path.isdir(place):
                out.append({"name": name, "path": place})
    return out


def do_target(session, request):
    """The configuration itself, as Portage evaluates it."""
    session.keyed = request.get("keyed", [])
    session.load(None, [], {})
    session.prepare_facts()
    s = session.settings
    conf = {k: v for k, v in s.configdict["conf"].items() if isinstance(v, str) and k != "PORTAGE_ARCHLIST"}
    _, defaults, _ = session.main.parse_opts(shlex.split(s.get("EMERGE_DEFAULT_OPTS", "")), silent=True)
    return {
        "conf": conf,
        "options": option_words(strip_options(defaults)),
        "lost": lost_repositories(session),
        "cpu_flags": sorted(x for x in s.get("USE", "").split() if x.startswith("cpu_flags_")),
        "cc": s.get("CC", ""),
        "config": s["PORTAGE_CONFIGROOT"],
        "eroot": s["EROOT"],
        "header": session.header(),
        "env": session.environment(),
    }


def do_facts(session, request):
    from _emerge.Package import Package

    session.keyed = request.get("keyed", [])
    session.load(None, [], {})
    session.prepare_facts()
    nodes = []
    rc = session.trees[session.root]["root_config"]
    for want in request["packages"]:
        keys = list(Package.metadata_keys)
        try:
            values = session.portdb.aux_get(want["cpv"], keys, myrepo=want["repo"])
        except KeyError:
            raise Problem("missing", f"{want['cpv']}::{want['repo']} is not in this machine's repositories")
        pkg = Package(built=False, cpv=session.portage.versions._pkg_str(want["cpv"]), installed=False,
                      metadata=dict(zip(keys, values)), root_config=rc, type_name="ebuild")
        nodes.append(session.node(pkg))
    return {"nodes": nodes, "env": session.environment()}


def do_system(session, request):
    """The installed packages of @system, Portage, and all they need to run, needed ones first."""
    from portage.dep import Atom, use_reduce

    config = session.load(None, [], {})
    atoms = sorted(str(a) for a in config.target_config.setconfig.getSetAtoms("system"))
    if not atoms:
        raise Problem("missing", "the profile of this machine names no packages in @system", "@system")
    order, seen, absent = [], set(), []

    def visit(atom, needed):
        found = session.vardb.match(atom)
        if not found and needed:
            absent.append(str(atom))
        for cpv in found:
            if str(cpv) in seen:
                continue
            seen.add(str(cpv))
            use, eapi, *deps = session.vardb.aux_get(str(cpv), ["USE", "EAPI", "RDEPEND", "IDEPEND", "PDEPEND"])
            later = []
            for i, text in enumerate(deps):
                flat = use_reduce(text, uselist=use.split(), eapi=eapi, token_class=Atom, flat=True)
                for x in flat:
                    if isinstance(x, Atom) and not x.blocker:
                        later.append(x) if i == 2 else visit(x.without_use, False)
            order.append(str(cpv))
            for x in later:
                visit(x.without_use, False)

    for a in atoms + ["sys-apps/portage"]:
        visit(Atom(a).without_use, True)
    return {"packages": order, "absent": absent}


def main():
    try:
        request = json.load(sys.stdin)
        session = Session()
        mode = request.get("mode")
        if mode == "probe":
            doc = {"python": sys.version.split()[0], "portage": version(session.portage),
                   "globals": globals_dir(session.portage)}
        elif mode == "plan":
            doc = do_plan(session, request)
        elif mode == "system":
            doc = do_system(session, request)
        elif mode == "facts":
            doc = do_facts(session, request)
        elif mode == "target":
            doc = do_target(session, request)
        elif mode == "seeds":
            doc = do_seeds(session, request)
        else:
            raise Problem("request", f"unknown mode {mode!r}")
        doc["ok"] = True
    except Problem as e:
        doc = {"ok": False, "kind": e.kind, "error": e.text, "atom": e.atom}
    except Exception as e:
        traceback.print_exc()
        doc = {"ok": False, "kind": "portage", "error": f"{type(e).__name__}: {e}"}
        if type(e).__name__ == "PackageSetNotFound":  # the world may name one, too
            name = str(e).strip("'")
            doc.update(kind="missing", error=f"there is no package set @{name} (it may be the world that names it)", atom=f"@{name}")
    doc["schema"] = SCHEMA
    with os.fdopen(answer_fd, "w", encoding="utf-8", errors="backslashreplace") as out:
        out.write(json.dumps(doc, sort_keys=True) + "\n")
    return 0 if doc["ok"] else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Portage's event loop threads have nothing left to say

package emergetest

import (
	"crypto/md5"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Lab is an ebuild repository that has what plans stumble over: subslots and
// their users, a pair of interpreter slots behind a USE_EXPAND variable, a
// plug-in after PDEPEND, a cycle that a USE flag opens and one that nothing
// does, a libc, an account, an eclass and user patches. It belongs beside the
// sample repository of package emerge, whose eclass it does not use.
//
// Each package installs /usr/share/lab/NAME with its version and what it saw of
// its build dependencies, so that a package that was built in the wrong root
// shows it.
var lab = map[string]string{
	"sw-lab/libc-2.40":    `slot 2.2`,
	"sw-lab/libc-2.41":    `slot 2.2`,
	"sw-lab/lib-1.0":      `slot 0/1; IUSE far`,
	"sw-lab/lib-2.0":      `slot 0/2; IUSE far`,
	"sw-lab/gen-1.0":      `slot 0`,
	"sw-lab/app-1.0":      `slot 0; DEPEND sw-lab/lib:=; RDEPEND sw-lab/lib:=; BDEPEND sw-lab/gen; IUSE extra`,
	"sw-lab/user-1.0":     `slot 0; DEPEND sw-lab/app sw-lab/lib:=; RDEPEND sw-lab/app sw-lab/lib:=`,
	"sw-lab/doc-1.0":      `slot 0; BDEPEND sw-lab/gen; IUSE +html`,
	"sw-lab/python-3.12":  `slot 3.12; PDEPEND sw-lab/pip`,
	"sw-lab/python-3.13":  `slot 3.13; PDEPEND sw-lab/pip`,
	"sw-lab/pip-1.0":      `slot 0; BDEPEND sw-lab/python:=; RDEPEND sw-lab/python:=`,
	"sw-lab/pymod-1.0":    `slot 0; IUSE lab_targets_py3_12 lab_targets_py3_13; REQUIRED_USE || ( lab_targets_py3_12 lab_targets_py3_13 ); RDEPEND lab_targets_py3_12? ( sw-lab/python:3.12 ) lab_targets_py3_13? ( sw-lab/python:3.13 ); BDEPEND lab_targets_py3_12? ( sw-lab/python:3.12 ) lab_targets_py3_13? ( sw-lab/python:3.13 )`,
	"sw-lab/loop-a-1.0":   `slot 0; IUSE +loop; DEPEND loop? ( sw-lab/loop-b )`,
	"sw-lab/loop-b-1.0":   `slot 0; DEPEND sw-lab/loop-a`,
	"sw-lab/loop-b-2.0":   `slot 0; DEPEND sw-lab/loop-a`,
	"sw-lab/knot-a-1.0":   `slot 0; IUSE +knot; DEPEND knot? ( sw-lab/knot-b )`,
	"sw-lab/knot-b-1.0":   `slot 0; DEPEND sw-lab/knot-a`,
	"sw-lab/tool-1.0":     `slot 0; DEPEND sw-lab/libc; RDEPEND >=sw-lab/libc-2.40; PDEPEND sw-lab/extras`,
	"sw-lab/extras-1.0":   `slot 0; BDEPEND sw-lab/tool`,
	"sw-lab/hard-a-1.0":   `slot 0; DEPEND sw-lab/hard-b`,
	"sw-lab/hard-b-1.0":   `slot 0; DEPEND sw-lab/hard-a`,
	"sw-lab/ring-1.0":     `slot 0; DEPEND sw-lab/loop-b sw-lab/lib:=`,
	"sw-lab/self-1.0":     `slot 1`,
	"sw-lab/self-2.0":     `slot 2; BDEPEND sw-lab/self:1`,
	"sw-lab/either-a-1.0": `slot 0`,
	"sw-lab/either-b-1.0": `slot 0`,
	"sw-lab/either-1.0":   `slot 0; DEPEND || ( sw-lab/either-a sw-lab/either-b ); RDEPEND || ( sw-lab/either-a sw-lab/either-b )`,
	"sw-lab/picky-1.0":    `slot 0; IUSE x y; REQUIRED_USE ^^ ( x y )`,
	"sw-lab/module-1.0":   `slot 0; INHERIT linux-mod-r1`,
	"sw-lab/live-9999":    `slot 0; PROPERTIES live`,
	"sw-lab/orphan-1.0":   `slot 0; RDEPEND sw-lab/nowhere`,
	"sw-lab/masked-1.0":   `slot 0; KEYWORDS -*`,
	"sw-lab/secret-1.0":   `slot 0; RESTRICT fetch; SRC_URI secret-1.0.tar`,
	"acct-user/lab-0":     `slot 0`,
	"sw-lab/owned-1.0":    `slot 0; DEPEND acct-user/lab; RDEPEND acct-user/lab`,
	"sw-lab/patched-1.0":  `slot 0; PATCHABLE yes`,
	"sw-lab/fails-1.0":    `slot 0; FAIL die`,
	"sw-lab/sour-1.0":     `slot 0; POSTINST die 'sour by nature'`,
	"sw-lab/hangs-1.0":    `slot 0; FAIL sleep 100000`,
}

// ChainWorld is the world file of a machine that asks for something of everything:
// subslots and their users, a cycle after PDEPEND, one that a flag opens, a package
// that needs its own older slot, a choice, an account, one that does not build, and
// two that no swarm builds.
const ChainWorld = "sw-lab/user\nsw-lab/python:3.13\nsw-lab/ring\nsw-lab/self:2\nsw-lab/either\nsw-lab/owned\nsw-lab/fails\nsw-lab/live\nsw-lab/module\n"

// labEclass installs what a package saw.
const labEclass = `# Copyright: Build Swarm. Licence: Apache-2.0
lab_src_install() {
	insinto /usr/share/lab
	{
		echo "${PN} ${PV} ${USE}" | sed 's/ *$//'
		local f
		for f in "${ESYSROOT}"/usr/share/lab/*; do
			[[ -f ${f} ]] && head -n 1 "${f}" | cut -d' ' -f1,2 | sed 's/^/  saw /'
		done
		[[ -f ${T}/patched ]] && cat "${T}/patched"
	} | newins - "${PN}${LAB_SUFFIX}"
}
EXPORT_FUNCTIONS src_install
`

const labModuleEclass = `# Copyright: Build Swarm. Licence: Apache-2.0
# Stands in for the eclass of kernel modules.
`

// WriteLab writes the repository "swarm-lab" to dir.
func WriteLab(dir string) error {
	files := map[string]string{
		"metadata/layout.conf": "masters =\nthin-manifests = true\ncache-formats = md5-dict\nprofile-formats = portage-2\n",
		"profiles/lab/parent":  "swarm-demo:default\n", "profiles/lab/eapi": "8\n", "profiles/lab/make.defaults": "USE_EXPAND=\"LAB_TARGETS\"\nLAB_TARGETS=\"py3_13\"\n",
		"profiles/repo_name": "swarm-lab\n", "profiles/eapi": "8\n", "profiles/categories": "sw-lab\nacct-user\n",
		"profiles/desc/lab_targets.desc": "py3_12 - with 3.12\npy3_13 - with 3.13\n",
		"eclass/lab.eclass":              labEclass, "eclass/linux-mod-r1.eclass": labModuleEclass,
	}
	for cpv, spec := range lab {
		cat, pf, _ := strings.Cut(cpv, "/")
		pn := pf[:strings.LastIndexByte(pf, '-')]
		files[fmt.Sprintf("%s/%s/%s.ebuild", cat, pn, pf)] = labEbuild(pn, spec)
		if strings.Contains(spec, "RESTRICT fetch") {
			files[fmt.Sprintf("%s/%s/Manifest", cat, pn)] = "DIST secret-1.0.tar 10240 BLAKE2B " + labBlake + " SHA512 " + labSHA512 + "\n"
		}
	}
	return writeFiles(dir, files)
}

// Of 10,240 zero bytes: an empty tar archive.
const (
	labBlake  = "41bb60c7fde935d44179cfa996875e3146386bde78af472f4a50ec1a871b937de42be526fc7ea8557a2ec967ba302d54f6bc29a0539362bdff8536c8e85c56ad"
	labSHA512 = "1e543b135acb1da2d9ce119c11d6fa9de2c9ca2e97e55fdf2481c2944779a3d6df4a7c74f87692072ada4d494bbc3018d7545b3c631dac1bfb787f81e0b76530"
)

func labEbuild(pn, spec string) string {
	var b strings.Builder
	b.WriteString("EAPI=8\n")
	inherit := "lab"
	vars := map[string]string{"KEYWORDS": "amd64 arm arm64 loong ppc64 riscv x86"}
	slot, fail, post, patchable := "0", "", "", false
	for _, part := range strings.Split(spec, "; ") {
		name, value, _ := strings.Cut(part, " ")
		switch name {
		case "slot":
			slot = value
		case "INHERIT":
			inherit = value + " lab"
		case "FAIL":
			fail = value
		case "POSTINST":
			post = value
		case "PATCHABLE":
			patchable = true
		default:
			vars[name] = value
		}
	}
	fmt.Fprintf(&b, "inherit %s\nDESCRIPTION=\"%s of the laboratory\"\nHOMEPAGE=\"https://github.com/build-swarm/swarm\"\nS=\"${WORKDIR}\"\nLICENSE=\"Apache-2.0\"\nSLOT=\"%s\"\n", inherit, pn, slot)
	for _, name := range []string{"KEYWORDS", "IUSE", "REQUIRED_USE", "RESTRICT", "PROPERTIES", "SRC_URI", "BDEPEND", "DEPEND", "RDEPEND", "PDEPEND"} {
		if v := vars[name]; v != "" {
			fmt.Fprintf(&b, "%s=\"%s\"\n", name, v)
		}
	}
	if main, _, _ := strings.Cut(slot, "/"); main != "0" {
		fmt.Fprintf(&b, "LAB_SUFFIX=\"-%s\"\n", main)
	}
	if patchable {
		b.WriteString("src_unpack() { echo plain > \"${WORKDIR}/text\" || die; }\nsrc_compile() { cp text \"${T}/patched\" || die; }\n")
	}
	if fail != "" {
		fmt.Fprintf(&b, "src_compile() { %s; }\n", fail)
	}
	if post != "" {
		fmt.Fprintf(&b, "pkg_postinst() { %s; }\n", post)
	}
	return b.String()
}

// WriteLarge writes a repository "swarm-large" of n packages to dir, with its
// metadata cache, so that planning them costs what it costs with ::gentoo: each
// needs up to four of those before it, one in five to build only, and one in
// seven through a subslot. The package "sw-large/all" needs all of them.
func WriteLarge(dir string, n int) error {
	files := map[string]string{
		"metadata/layout.conf": "masters =\nthin-manifests = true\ncache-formats = md5-dict\n",
		"profiles/repo_name":   "swarm-large\n", "profiles/eapi": "8\n", "profiles/categories": "sw-large\n",
	}
	add := func(pn, version, slot, iuse, bdepend, depend string) {
		text := fmt.Sprintf("EAPI=8\nDESCRIPTION=\"%s\"\nHOMEPAGE=\"https://github.com/build-swarm/swarm\"\nS=\"${WORKDIR}\"\nLICENSE=\"Apache-2.0\"\nSLOT=\"%s\"\nKEYWORDS=\"amd64 arm arm64 loong ppc64 riscv x86\"\nIUSE=\"%s\"\nBDEPEND=\"%s\"\nDEPEND=\"%s\"\nRDEPEND=\"%s\"\n", pn, slot, iuse, bdepend, depend, depend)
		files[fmt.Sprintf("sw-large/%s/%s-%s.ebuild", pn, pn, version)] = text
		var cache strings.Builder
		for _, l := range [][2]string{
			{"BDEPEND", bdepend}, {"DEFINED_PHASES", "-"}, {"DEPEND", depend}, {"DESCRIPTION", pn}, {"EAPI", "8"}, {"HOMEPAGE", "https://github.com/build-swarm/swarm"},
			{"IUSE", iuse}, {"KEYWORDS", "amd64 arm arm64 loong ppc64 riscv x86"}, {"LICENSE", "Apache-2.0"}, {"RDEPEND", depend}, {"SLOT", slot},
			{"_md5_", fmt.Sprintf("%x", md5.Sum([]byte(text)))},
		} {
			if l[1] != "" {
				fmt.Fprintf(&cache, "%s=%s\n", l[0], l[1])
			}
		}
		files[fmt.Sprintf("metadata/md5-cache/sw-large/%s-%s", pn, version)] = cache.String()
	}
	var all strings.Builder
	for i := range n {
		var build, run []string
		for k := 1; k <= 4 && k <= i; k++ {
			to := i - 1 - (k*k*7+i*3)%min(i, 60)
			atom := fmt.Sprintf("sw-large/p%d", to)
			if to%7 == 0 {
				atom += ":="
			}
			if (i+k)%5 == 0 {
				build = append(build, atom)
			} else {
				run = append(run, atom)
			}
		}
		pn := fmt.Sprintf("p%d", i)
		for _, v := range []string{"1.0", "1.1"} {
			add(pn, v, "0/"+v, "a +b c", strings.Join(build, " "), strings.Join(run, " "))
		}
		fmt.Fprintf(&all, "sw-large/%s ", pn)
	}
	add("all", "1.0", "0", "", "", strings.TrimSpace(all.String()))
	return writeFiles(dir, files)
}

func writeFiles(dir string, files map[string]string) error {
	var errs []error
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	}
	return errors.Join(errs...)
}

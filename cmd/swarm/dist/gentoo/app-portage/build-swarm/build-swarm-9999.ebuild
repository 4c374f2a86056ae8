# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

inherit git-r3 go-module shell-completion systemd

DESCRIPTION="Share Gentoo package builds between your own machines"
HOMEPAGE="https://github.com/build-swarm/swarm"
EGIT_REPO_URI="https://github.com/build-swarm/swarm.git"

LICENSE="Apache-2.0 BSD ISC MIT MPL-2.0"
SLOT="0"

RDEPEND="
	acct-group/swarm
	>=sys-apps/portage-3.0.77
"
BDEPEND=">=dev-lang/go-1.26"

src_unpack() {
	git-r3_src_unpack
	go-module_live_vendor
}

src_compile() {
	ego build -trimpath -o swarm ./cmd/swarm
	# Of the very commands that are installed.
	./swarm help --man swarm > swarm.1 || die
	./swarm help --man swarm.toml > swarm.toml.5 || die
	local shell
	for shell in bash zsh fish; do
		./swarm help --completion ${shell} > swarm.${shell} || die
	done
}

src_test() {
	ego test ./...
}

src_install() {
	dobin swarm
	doman swarm.1 swarm.toml.5
	newbashcomp swarm.bash swarm
	newzshcomp swarm.zsh _swarm
	newfishcomp swarm.fish swarm.fish
	newinitd cmd/swarm/dist/openrc/swarm.initd swarm
	newconfd cmd/swarm/dist/openrc/swarm.confd swarm
	systemd_dounit cmd/swarm/dist/systemd/swarm.service
	dodoc README.md cmd/swarm/dist/systemd/{nobuild,rootless}.conf
	keepdir /etc/swarm
}

pkg_postinst() {
	if [[ -n ${REPLACING_VERSIONS} ]]; then
		elog "Running builds go on when the daemon goes over to this version:"
		elog "    rc-service swarm reload     (or: systemctl reload swarm)"
	else
		elog "First: swarm init on one machine, swarm join on the others; then"
		elog "    rc-update add swarm default && rc-service swarm start"
		elog "    (or: systemctl enable --now swarm)"
	fi
}

EAPI=8

DESCRIPTION="A shell script that reports with tally and wordwrap"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"

RDEPEND="
	app-misc/tally
	app-misc/wordwrap
"

src_install() {
	newbin - tally-report <<-EOF
		#!/bin/sh
		# Counts the words of standard input.
		exec tally \$(wordwrap)
	EOF
}

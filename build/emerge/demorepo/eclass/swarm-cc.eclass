# @ECLASS: swarm-cc.eclass
# @SUPPORTED_EAPIS: 8
# @BLURB: compile small C programs and libraries without a build system

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI} is not supported" ;;
esac

S=${WORKDIR}

# @FUNCTION: swarm-cc_run
# @USAGE: [arguments of the C compiler]
# @DESCRIPTION: shows the command, runs it, dies when it fails
swarm-cc_run() {
	set -- "${CC:-cc}" ${CFLAGS} "$@" ${LDFLAGS}
	echo "$@"
	"$@" || die "the compiler failed"
}

# @FUNCTION: swarm-cc_flags
# @DESCRIPTION: prints where installed headers and libraries of this root are
swarm-cc_flags() {
	echo "-I${ESYSROOT}/usr/include -L${ESYSROOT}/usr/lib"
}

# What every recipe may use. POSIX sh; run with -eu and with nothing in the
# environment but what the builder sets: CC AR CFLAGS LDFLAGS LIBDIR JOBS ROOT
# (the packages this one needs, unpacked), D (the image), PV USE.

die() {
	echo "error: $*" >&2
	exit 1
}

use() {
	case " $USE " in
	*" $1 "*) return 0 ;;
	esac
	return 1
}

# compile FILE.c...: objects beside the sources, JOBS at a time. A batch is
# waited for as a whole, since sh cannot wait for whichever ends first.
compile() {
	pids= n=0
	for f; do
		echo "cc -c $f"
		"$CC" $CFLAGS -I. -I"$ROOT/usr/include" -c "$f" -o "${f%.c}.o" &
		pids="$pids $!" n=$((n + 1))
		if [ "$n" -ge "$JOBS" ]; then
			batch $pids
			pids= n=0
		fi
	done
	batch $pids
}

batch() {
	for pid; do
		wait "$pid" || die "compile failed"
	done
}

# link OUT ARG...: a program or, with -shared among ARG, a library.
link() {
	out=$1
	shift
	echo "cc -o $out"
	"$CC" $CFLAGS $LDFLAGS -o "$out" "$@" || die "link of $out failed"
}

# library NAME VERSION OBJECT...: libNAME.a, libNAME.so.VERSION and its link,
# installed by install_library.
library() {
	name=$1 version=$2
	shift 2
	echo "ar lib$name.a"
	"$AR" rcD "lib$name.a" "$@" || die "ar failed"
	link "lib$name.so.$version" -shared -Wl,-soname,"lib$name.so.$version" "$@"
	ln -s "lib$name.so.$version" "lib$name.so"
}

# run PROGRAM ARG...: with the libraries of the root, and of this build.
run() {
	LD_LIBRARY_PATH="$PWD:$ROOT/usr/$LIBDIR" "$@"
}

# install_into DIR MODE FILE...
install_into() {
	dir=$1 mode=$2
	shift 2
	mkdir -p "$D/$dir"
	for f; do
		cp -P "$f" "$D/$dir/"
		[ -L "$f" ] || chmod "$mode" "$D/$dir/${f##*/}"
	done
}

install_library() {
	install_into "usr/$LIBDIR" 0644 "lib$1.a"
	install_into "usr/$LIBDIR" 0755 "lib$1.so.$2" "lib$1.so"
}

// Package gpkg reads, verifies and writes Gentoo's binary package containers
// (GLEP 78, ".gpkg.tar") as Portage 3.0.82 writes them.
//
// Words. The container is the outer tar; its members stand in one directory
// named PF or PF-BUILD_ID: gpkg-1, metadata.tar.C, image.tar.C, Manifest, and
// beside each a .sig where the package is signed. C is the compression, one
// of zst, gz, bz2, xz or none. The image is what gets installed.
//
// Invariants. Open accepts a container only if its layout is the one above and
// nothing else: no second directory, unknown or repeated member, no byte after
// the end that is not zero. What Open reads (Manifest, gpkg-1, metadata) is
// checked against the Manifest at once; the image is checked by Verify, in one
// pass that hashes, unpacks and looks at every name, and that never holds more
// than a window of it in memory (measured: a process that verifies a container
// of 173 MiB, 381 MiB and 20,000 members unpacked, has 33 MiB resident and takes
// 1.6 s of CPU; about 3.4 times the two hashes alone). A package that passes Verify is one that
// Portage's own reader takes, and that names nothing outside its image.
//
// Everything in a container is hostile. Every size is bounded before it is
// believed: see the limits in limits.go. All that is wrong with a container is
// ErrDamaged with one line that says what; a package that is sound but written
// in a way this reader does not know (lz4, lzip, lzop, a zstd window above 128
// MiB) is ErrUnsupported.
//
// What it does not do: it checks no OpenPGP signature. Signed packages are
// read, Package.Signed says so, and who may be trusted is Portage's question
// on the consumer. It writes no signature, and it never changes a package that
// Portage wrote: an artifact is kept byte for byte.
//
// ContentDigest answers "did two builds make the same?", which the container's
// bytes cannot: file times, BUILD_TIME, BUILD_ID, the order of the two hashes
// in the Manifest and the source times inside .pyc files differ between two
// honest builds of one package. So the digest is taken over the unpacked
// content with these left out. Nothing is ever rewritten to be equal: setting
// all times of an image to one value makes Python ignore its .pyc files.
//
// xz is read by github.com/therootcompany/xz (a translation of XZ Embedded);
// it is single-threaded and about half as fast as xz itself.
package gpkg

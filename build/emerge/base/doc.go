// Package base keeps the root directories that builds start from.
//
// A base is immutable and named by the hash of its manifest (build.Base); its
// files are archives, blobs like any other, so that a drone that lacks a base
// fetches it from whoever holds it, and needs no Portage of its own: the base
// carries one.
//
// # On disk
//
//	DIR/names/NAME          what a name means here: its generations, newest last
//	DIR/DIGEST/manifest     the manifest, as it was hashed
//	DIR/DIGEST/root/        the archives, unpacked over one another
//	DIR/tmp-*               on its way in; removed at the next start
//
// (A host base has a manifest alone.) A directory takes its final name only when it is complete. Nothing writes
// into one afterwards: builds see it as the lower layer of an overlay.
//
// An update adds an archive; sixteen become one of the same files, which is named by
// these alone: whoever flattens a generation gets the same name. A base keeps the
// names of three generations, and of older ones that a target, a round or a pin
// still refers to (Prune); unpacked files that have neither name nor use go a day
// after they were opened last (Tidy).
//
// # Host bases
//
// A host base is the machine's own root. It is there for machines that have
// compilers and no Gentoo, and is used only where somebody asked for it by name:
// nothing keeps the owner from changing it under a running build, and two
// machines have the same one only while their programs and libraries agree by
// name and size (HostState). What is built on it is provisional. It takes root:
// an ordinary user's namespace cannot copy up files of ids that it does not
// have.
//
// # Archives
//
// A tar in PAX format compressed by zstd: names sorted, numeric owners, times in
// whole seconds (Python compares them), extended attributes of files, no devices,
// and nothing of /proc, /sys, /dev, /run, /tmp and of caches. An archive above
// another may take away what is below: a character device 0:0 removes a name, as
// overlayfs has it, and a directory with the attribute trusted.overlay.opaque
// empties one. Unpacking goes through os.Root, so that no name or link leads out
// of the directory, and within bounds that the manifest told.
package base

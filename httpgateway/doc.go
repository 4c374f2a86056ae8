// Package httpgateway serves releases over HTTP as a Portage binary package
// host: /TARGET/stable/Packages, Packages.gz and the packages under it.
//
// Words. A generation is one head of a channel, rendered: two indexes and the
// table from path to blob. A shelf is the directory that generations are added
// to; a chunk is a run of entries, of which a new generation writes those that
// changed (package binhost cuts them, by content alone). A gateway serves one generation of a channel at a
// time, whole, and moves to the next one when every entry of it has a live
// holder. What is not in this machine's store is streamed from its holders.
//
// Invariants.
//   - TIMESTAMP of a channel never goes back, and content never changes under
//     one TIMESTAMP: also after a restart, since a generation is on disk before
//     it is served, and also when the board forgets (the newest generation on
//     disk stays). Last-Modified is TIMESTAMP.
//   - Portage asks with If-Modified-Since = TIMESTAMP + 5 s. It gets 304 only if
//     our TIMESTAMP is not beyond the one it has; a plain comparison would hide
//     an index that came within 5 s of the last.
//   - A path names one blob for ever, so paths of old generations are served as
//     long as the blob can be had (of the last 32 generations).
//   - No short 200. What fails before the first byte is a 502 or 503 with one
//     plain line; what fails after it is a cut connection, which wget takes up
//     again with Range.
//   - A shelf's files only grow, and "head" names what of them is an index, so
//     what is being served never changes and a crash leaves nothing half.
//   - Nothing in a request becomes a path of the file system: targets are looked
//     up by the hash of their name, packages in a table.
//
// Why this and not that. Portage aborts with a traceback on a truncated
// Packages.gz and does not ask for Packages after a 5xx, so both files are
// written whole before the first request for them, and served from disk with
// sendfile (from memory costs 2.7 times the CPU per request). Every wrapper of
// http.ResponseWriter and net.Conn here passes ReadFrom on, or sendfile is
// lost (4 times the CPU). A blob without a live holder is waited for before
// the request fails, since emerge does not retry an HTTP error.
//
// A plain GET (all of a small package that lies here, no header that changes
// the answer, not the first of its connection) is answered before net/http sees
// it: see plainget.go. With net/http alone 64 KiB reached 0.77 of nginx in the
// median of six runs and 4 KiB 0.7, at 27 and 20 us of CPU a request where nginx
// takes 17 and 13; its headers, contexts, background reads and garbage are what
// the difference is. As plain GETs they take 17 and 11. Where net/http may hold
// bytes already, nothing is taken for one, so that no body passes for a request.
//
// The compressed index goes out as one file, seven sendfiles of half a MiB. The
// scheduler takes each for a call that blocks (sendcached_linux.go); not telling it
// of those out of memory took 960 us of CPU a request down to 870, where nginx takes
// 760 (medians of three runs of 15 pairs each, load 9).
//
// Measured on two cores that other work shared (load above 15), against the real
// store; metric x-nginx of BenchmarkGateway, 1 is as fast: 512 MiB file 1.2 to
// 1.3, plain index of 20,000 entries 1.1, compressed 1.06 to 1.1, 64 KiB file
// 1.1 to 1.2, 4 KiB file 1.0 to 1.3. Ten packages of 1 GiB streamed
// from elsewhere at once take 17 MiB, client included. A generation of 60,000
// entries (73 MB, 9 MB compressed) takes 0.8 s of CPU from nothing, so that a
// release of more than 4,000 is made beside the requests. One entry more takes
// 15 ms (1.7 %, BenchmarkIndex), of which 8 are to ask for the holders of all and
// 5 to write a header, a chunk and where all chunks lie; the catalog's decoding
// of the release is in neither. The compressed index is a gzip member per chunk,
// which costs 5 % of its size; Portage reads it as it reads one member.
//
// What it does not do: it changes nothing (GET and HEAD alone; control is a
// unix socket), it does not store what it streams, and it knows no peers: all
// of that is behind Catalog.
package httpgateway

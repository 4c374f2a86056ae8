// Package ui is the web page that every peer serves: the whole swarm at a
// glance, and from there to a package, its log, the releases and the storage.
//
// Words. A page is made of sections; a section is a piece of HTML with an id.
// Live means that sections that changed are sent again over server-sent events
// and put in their place.
//
// Invariants.
//   - It works without JavaScript: every page is whole HTML, filters are forms,
//     and without a script it reloads itself. The one script keeps sections up
//     to date and saves keystrokes.
//   - Nothing from outside: no font, image or script of anybody else; the
//     Content-Security-Policy forbids them, inline scripts and styles too.
//   - What peers, packages and logs say is text. html/template escapes it, and
//     every byte of a page passes [plainText], which shows control characters,
//     terminal escapes and bidirectional marks by name: no template can forget.
//   - It is read-only. An order needs the token that the daemon's unix socket
//     hands out, in the request's body: there is no cookie, so another site's
//     page, or another program's port on this machine, has nothing to ride on.
//     Requests that a browser says another site made are refused as well, and
//     the gateway refuses names that are not its own (DNS rebinding).
//   - Colour says nothing alone: each state has a glyph and a word, and the
//     colours (Okabe and Ito) are told apart by the colour-blind.
//
// Why this and not that. Server-rendered SVG in percent of its width needs no
// script and no measuring, and the same picture fits a phone. Sections rather
// than JSON: one way to make HTML, on the server, in one language. A snapshot
// is taken for all viewers at once and at a pace that its cost sets; a page
// that nobody looks at costs nothing.
//
// Measured on two cores that other work shared (BenchmarkPage, BenchmarkOpenPage;
// 3,000 jobs, 100 drones, the snapshot included): the first page takes 30 ms of
// CPU, the packages 27 ms; the whole round with all lanes and all peers, which
// somebody has to ask for, 71 ms and 820 kB. A page that is open while the board
// changes all the time costs 0.4 % of a core, and the snapshots half a percent.
//
// What it does not do: it decides nothing and knows no board; all it shows
// comes from Source.
package ui

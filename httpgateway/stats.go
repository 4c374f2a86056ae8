package httpgateway

import (
	"cmp"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// Counts of what a gateway answered since it was made. Requests for pages and
// the like are not among them.
type Counts struct {
	Index        uint64 `json:"index"`         // Packages, Packages.gz with content
	NotModified  uint64 `json:"not_modified"`  // 304: the client has it
	Local        uint64 `json:"local"`         // packages from this machine's store
	Streamed     uint64 `json:"streamed"`      // packages from other peers, while they were served
	Missing      uint64 `json:"missing"`       // 404: no such package in a release
	Unavailable  uint64 `json:"unavailable"`   // 5xx: in a release, and nobody here could give it
	Refused      uint64 `json:"refused"`       // 4xx: a wrong Host, method, body or range
	PackageBytes uint64 `json:"package_bytes"` // of packages, sent
	IndexBytes   uint64 `json:"index_bytes"`
}

// Miss is a package that was asked for and is in no release.
type Miss struct {
	CPV    string `json:"cpv"`
	Times  int    `json:"times"`
	LastMS int64  `json:"last_unix_ms"`
}

// maxMisses bounds what is remembered; the one asked for least goes.
const maxMisses = 256

type stats struct {
	index, notModified, local, streamed, missing, unavailable, refused, packageBytes, indexBytes atomic.Uint64

	mu     sync.Mutex
	misses map[string]*Miss
}

// Counts returns what was counted.
func (g *Gateway) Counts() Counts {
	s := &g.stats
	return Counts{Index: s.index.Load(), NotModified: s.notModified.Load(), Local: s.local.Load(), Streamed: s.streamed.Load(), Missing: s.missing.Load(),
		Unavailable: s.unavailable.Load(), Refused: s.refused.Load(), PackageBytes: s.packageBytes.Load(), IndexBytes: s.indexBytes.Load()}
}

// Misses lists packages that were asked for and are in no release, the most
// wanted first.
func (g *Gateway) Misses() []Miss {
	g.stats.mu.Lock()
	defer g.stats.mu.Unlock()
	out := make([]Miss, 0, len(g.stats.misses))
	for _, m := range g.stats.misses {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b Miss) int {
		return cmp.Or(cmp.Compare(b.Times, a.Times), cmp.Compare(b.LastMS, a.LastMS), cmp.Compare(a.CPV, b.CPV))
	})
	return out
}

// count adds one answer.
func (s *stats) count(r *http.Request, w *response) {
	_, rest, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	name, ours := strings.CutPrefix(rest, release.Stable+"/")
	switch {
	case w.status == http.StatusMisdirectedRequest || w.status == http.StatusMethodNotAllowed || w.status == http.StatusBadRequest:
		s.refused.Add(1)
		return
	case !ok || !ours:
		return
	}
	index := name == plainName || name == gzipName
	switch {
	case w.status == http.StatusNotModified:
		s.notModified.Add(1)
	case w.status == http.StatusNotFound:
		s.missing.Add(1)
	case w.status >= 500:
		s.unavailable.Add(1)
	case w.status >= 400:
		s.refused.Add(1)
	case index:
		s.index.Add(1)
		s.indexBytes.Add(uint64(w.bytes))
	case r.Method == http.MethodHead:
	default:
		if w.local {
			s.local.Add(1)
		} else {
			s.streamed.Add(1)
		}
		s.packageBytes.Add(uint64(w.bytes))
	}
}

// miss remembers a package that no release has. Only what reads as one counts:
// CATEGORY/PN/PF-BUILD_ID.gpkg.tar, or the older CATEGORY/PF form.
func (s *stats) miss(name string) {
	cpv, ok := packageOf(name)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.misses == nil {
		s.misses = map[string]*Miss{}
	}
	m := s.misses[cpv]
	if m == nil {
		if len(s.misses) >= maxMisses {
			s.forgetOne()
		}
		m = &Miss{CPV: cpv}
		s.misses[cpv] = m
	}
	m.Times++
	m.LastMS = time.Now().UnixMilli()
}

func (s *stats) forgetOne() {
	var least *Miss
	for _, m := range s.misses {
		if least == nil || m.Times < least.Times || m.Times == least.Times && m.LastMS < least.LastMS {
			least = m
		}
	}
	delete(s.misses, least.CPV)
}

// packageOf reads the package out of a path below a channel.
func packageOf(name string) (string, bool) {
	base, ok := strings.CutSuffix(name, ".gpkg.tar")
	if !ok {
		return "", false
	}
	parts := strings.Split(base, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return "", false
	}
	pf := path.Base(base)
	if len(parts) == 3 {
		i := strings.LastIndexByte(pf, '-')
		if i < 0 || strings.Trim(pf[i+1:], "0123456789") != "" {
			return "", false
		}
		pf = pf[:i]
	}
	cpv, err := build.ParseCPV(parts[0] + "/" + pf)
	if err != nil || len(parts) == 3 && cpv.Name != parts[1] {
		return "", false
	}
	return cpv.String(), true
}

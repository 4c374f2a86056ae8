package gpkg

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// BenchmarkVerify compares a whole verification (hash, unpack, look at every
// member, content digest) with the part that no reader can do without, in the
// same run: the Manifest's two hashes over the packed image.
func BenchmarkVerify(b *testing.B) {
	s := hello()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 8 {
		var body strings.Builder
		for body.Len() < 4<<20 {
			fmt.Fprintf(&body, "%d is code and text, mostly; %x\n", rnd.Uint32(), rnd.Uint32())
		}
		s.Image = append(s.Image, text(fmt.Sprintf("usr/share/%d", i), 0o644, body.String()))
	}
	data := pack(b, s)
	p, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		b.Fatal(err)
	}
	var whole, hashing time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		if err := p.Verify(noCtx); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		if err := p.image.verify(noCtx); err != nil {
			b.Fatal(err)
		}
		whole += middle.Sub(start)
		hashing += time.Since(middle)
	}
	b.ReportMetric(float64(whole)/float64(hashing), "x-hashing")
}

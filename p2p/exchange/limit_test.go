package exchange

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/cas/castest"
)

// The clock is the bubble's, so the pace is exact.
func TestALimitBoundsThePaceAndNothingElse(t *testing.T) {
	const size, limit = 8 << 20, 1 << 20
	for name, slow := range map[string]func(s *swarm) *Fetcher{
		"of what is fetched": func(s *swarm) *Fetcher { return s.f.Limited(limit) },
		"of what is served":  func(s *swarm) *Fetcher { s.served["a"].Limit(limit); return s.f },
		"of neither":         func(s *swarm) *Fetcher { return s.f.Limited(0) },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSwarm(t, "a")
			c := s.put(t, castest.Blob(size, 1))
			f := slow(s)
			into := castest.NewMemory()
			began := time.Now()
			if err := f.Fetch(t.Context(), c, []string{"a"}, into); err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			if name == "of neither" && took > time.Second {
				t.Errorf("without a limit %d MiB take %v", size>>20, took)
			} else if name != "of neither" && (took < size/limit*time.Second*9/10 || took > size/limit*time.Second*11/10) {
				t.Errorf("a limit %s: %d MiB at %d MiB/s take %v", name, size>>20, limit>>20, took)
			}
		})
	}
}

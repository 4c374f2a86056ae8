package castest_test

import (
	"testing"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/castest"
)

func TestMemoryKeepsTheStorePromises(t *testing.T) {
	castest.Run(t, func(*testing.T) cas.Store { return castest.NewMemory() })
}

// Command racelist prints the import paths of the packages that start
// goroutines, in their code or in their tests: what is tested with -race.
package main

import (
	"fmt"
	"os"

	"github.com/build-swarm/swarm/cmd/swarm/internal/archtest"
)

func main() {
	if err := list(); err != nil {
		fmt.Fprintln(os.Stderr, "racelist:", err)
		os.Exit(1)
	}
}

func list() error {
	root, err := archtest.Root()
	if err != nil {
		return err
	}
	t, err := archtest.Load(root)
	if err != nil {
		return err
	}
	for _, dir := range archtest.Concurrent(t) {
		fmt.Println(archtest.Module + "/" + dir)
	}
	return nil
}

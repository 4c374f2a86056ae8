// Command swarm shares Gentoo package builds between the machines of one
// person: `swarm run` is the daemon, everything else talks to it.
package main

import (
	"os"

	"github.com/build-swarm/swarm/cmd/swarm/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

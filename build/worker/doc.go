// Package worker carries one job from claim to report: root, build, verify,
// store, outcome. It is the only place where a builder's result becomes an
// artifact of the swarm.
package worker

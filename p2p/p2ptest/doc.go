// Package p2ptest is an in-memory swarm for tests: p2p.Network and gossip.Topic
// without sockets, with latency, loss, cuts and kills.
//
// It is a real implementation, not a mock: it passes the suites TestNetwork and
// TestTopic that the libp2p implementations pass. All waiting is on channels,
// timers and mutexes held for moments, so that it works inside a testing/synctest
// bubble, where latency costs no time.
//
//	net := p2ptest.NewNet(1)
//	a, b := net.Host(p2ptest.ID(1)), net.Host(p2ptest.ID(2)) // linked at once
//	net.SetLatency(20 * time.Millisecond)
//	net.Cut(a.Self(), b.Self())  // streams are reset, both see Peers change
//	net.Heal(a.Self(), b.Self())
//	b.Close()                    // a crash, for everybody else
//
// # What it does not do
//
// It has no bandwidth: a byte takes the link's latency, however many there are.
// Loss concerns gossip alone, since a stream is TCP. A lost message is decided per
// directed link by the net's seed, so the same traffic on a link loses the same
// messages whatever the scheduler does elsewhere.
package p2ptest

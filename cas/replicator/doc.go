// Package replicator carries out what package replication plans: it copies the
// blobs that this peer should hold, a few at a time, the most urgent first.
//
// A plan is made when somebody kicks (a receipt came, a peer left), and every
// half minute since graces end without an event; after a kick at the earliest a
// second after the last one, since planning reads the whole board. A copy that
// failed is tried again after a minute, then two, up to an hour; a store that is
// full pauses everything for a minute.
//
// Stored is called for each copy once it is durable: the caller publishes the
// receipt. It is not called for what was here already.
package replicator

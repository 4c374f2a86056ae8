// Package castest holds what every cas.Store promises, as tests (Run), and the
// store in memory that passes them (Memory), for tests of what is built on
// stores.
package castest

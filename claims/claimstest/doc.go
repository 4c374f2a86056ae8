// Package claimstest simulates swarms.
package claimstest

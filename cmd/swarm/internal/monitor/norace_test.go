//go:build !race

package monitor

const raced = false

//go:build race

package monitor

// raced: the detector finds bubbletea (v2.1.1) closing its reader while it
// reads; nothing of that is ours.
const raced = true

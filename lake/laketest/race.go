//go:build race

package laketest

// Race says whether the race detector is built in, under which everything
// takes ten times as long: what a test repeats for the sake of size, and not for
// other interleavings, it then repeats less.
const Race = true

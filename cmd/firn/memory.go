package main

import (
	"os"
	"runtime/debug"
)

const (
	// gcPercent lets the heap grow to three times what lives before the garbage
	// is looked for: most of what lives is a few large buffers, so the memory
	// that this costs is small, and the collector's CPU falls by half.
	gcPercent = 200
	// goMemory is where the collector works harder instead; the row index is
	// not on the heap.
	goMemory = 384 << 20
)

// paceGC sets the garbage collector for a mirror, unless the user did.
func paceGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(goMemory)
	}
}

//go:build unix && !linux

package index

import "os"

func allocate(file *os.File, size int64) error { return zeroFill(file, size) }

func populate([]byte) error { return nil }

func advise([]byte) {}

func retain([]byte) {}

func huge([]byte) {}

// kernelBootID is unknown here: only a clean close makes an index trusted.
func kernelBootID() string { return "" }

// memoryAvailable is unknown here: nothing is read in advance.
func memoryAvailable() int64 { return 0 }

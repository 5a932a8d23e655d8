//go:build unix && !linux

package index

import "os"

func allocate(file *os.File, size int64) error { return zeroFill(file, size) }

func populate([]byte) error { return nil }

func advise([]byte) {}

func huge([]byte) {}

// kernelBootID is unknown here: only a clean close makes an index trusted.
func kernelBootID() string { return "" }

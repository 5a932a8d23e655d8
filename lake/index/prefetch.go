//go:build amd64 || arm64

package index

// prefetch asks for p's cache line and does not wait for it.
//
//go:noescape
func prefetch(p *uint64)

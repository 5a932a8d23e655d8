package spool

import (
	"errors"
	"sync/atomic"
)

// ErrBudget is returned by Append when the spools together would exceed their
// Budget. The message is not taken; another try may succeed once a spool has
// been removed.
var ErrBudget = errors.New("the budget for parked changes is used up")

// memoryBytesMax is what all spools of a Budget together keep in memory before
// they write to disk early.
const memoryBytesMax = 64 << 20

// Budget bounds what all spools that share it hold, on disk and in memory
// together. It may be used by several goroutines.
type Budget struct {
	bytesMax  int64
	memoryMax int64
	used      atomic.Int64
	memory    atomic.Int64
}

// NewBudget allows bytesMax bytes of records, their headers included.
func NewBudget(bytesMax int64) *Budget {
	return &Budget{bytesMax: bytesMax, memoryMax: memoryBytesMax}
}

// Max is the limit in bytes.
func (b *Budget) Max() int64 { return b.bytesMax }

// Used is what the spools hold now, in bytes.
func (b *Budget) Used() int64 { return b.used.Load() }

// take reserves n bytes, or nothing when there is no room for them.
func (b *Budget) take(n int64) bool {
	for {
		used := b.used.Load()
		if used+n > b.bytesMax {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

func (b *Budget) give(n int64) { b.used.Add(-n) }

package lake

import (
	"errors"

	"github.com/RoaringBitmap/roaring/v2"

	"firn/lake/column"
)

var (
	// ErrRowsChanged: a rewrite's output does not hold the rows of its inputs, or
	// installing it would bring dead ones back.
	ErrRowsChanged = errors.New("a rewrite would change the table's rows")
	// ErrInputGone: a data file to rewrite is not live, or not yet.
	ErrInputGone = errors.New("it is not a live data file")
)

// RewriteInput is a live data file to rewrite.
type RewriteInput struct {
	Path string
	// Dead holds the positions not to carry over; nil: none. They must be dead
	// in the table by the time the rewrite is installed. The rewrite keeps the
	// bitmap, which nobody may alter.
	Dead *roaring.Bitmap
}

// Rewritten is a rewrite of data files that no snapshot shows yet. Its output
// has been uploaded, read back, and found to hold the rows that were carried
// over and no others. It belongs to a table, not to one of its snapshots: it
// may be installed in any later Change, however many there were meanwhile.
type Rewritten struct {
	// Output holds the carried rows; nil if there are none.
	Output *NewFile
	// Moved says where the rows of each input went, in the inputs' order.
	Moved []Moved
	// Sum is the checksum of the carried rows. Those of several rewrites can be
	// joined.
	Sum column.Sum
}

// Moved says where a rewrite put the rows of one data file. The rows that were
// carried over are counted through all inputs, those of From from Base on; that
// is also their order in To, unless they were sorted.
type Moved struct {
	From, To string          // paths of data files; To is empty if nothing was live in any input
	Rows     int64           // as written in From
	Dead     *roaring.Bitmap // rows of From that were not carried over; nil: none
	Base     uint32          // the number of the first that was
	// Order is the position in To of each row of the rewrite, by its number; nil:
	// the number itself. It is shared by all inputs.
	Order []uint32
}

// Live is how many rows of From were carried over.
func (m *Moved) Live() int64 {
	if m.Dead == nil {
		return m.Rows
	}
	return m.Rows - int64(m.Dead.GetCardinality())
}

// Position is where in To a row of From is; false if it was not carried over.
// It costs a walk over the bitmap's containers, one for each 65,536 rows.
func (m *Moved) Position(row uint32) (pos uint32, ok bool) {
	if int64(row) >= m.Rows {
		return 0, false
	}
	if m.Dead == nil {
		return m.position(m.Base + row), true
	}
	if m.Dead.Contains(row) {
		return 0, false
	}
	return m.position(m.Base + row - uint32(m.Dead.Rank(row))), true
}

// position in To of the row with a number.
func (m *Moved) position(n uint32) uint32 {
	if m.Order == nil {
		return n
	}
	return m.Order[n]
}

// Positions are where in To rows of From are, those that were carried over. The
// bitmap is the caller's.
func (m *Moved) Positions(rows *roaring.Bitmap) *roaring.Bitmap {
	out := roaring.New()
	if m.Dead == nil {
		for it := rows.Iterator(); it.HasNext(); {
			out.Add(m.position(m.Base + it.Next()))
		}
		return out
	}
	dead, before := m.Dead.Iterator(), uint32(0)
	for it := rows.Iterator(); it.HasNext(); {
		row := it.Next()
		for dead.HasNext() && dead.PeekNext() < row {
			dead.Next()
			before++
		}
		if !dead.HasNext() || dead.PeekNext() != row {
			out.Add(m.position(m.Base + row - before))
		}
	}
	return out
}

// All are the positions in To of all rows of From that were carried over. The
// bitmap is the caller's.
func (m *Moved) All() *roaring.Bitmap {
	out := roaring.New()
	first, end := uint64(m.Base), uint64(m.Base)+uint64(m.Live())
	if m.Order == nil {
		out.AddRange(first, end)
	} else {
		out.AddMany(m.Order[first:end])
	}
	return out
}

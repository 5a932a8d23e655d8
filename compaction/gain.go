package compaction

import (
	"cmp"
	"slices"
)

// What readers are taken to pay, in bytes that they could scan meanwhile.
const (
	// OpenBytes is for opening one more object: a round trip or two to the
	// store, tens of milliseconds at 100 MB/s.
	OpenBytes = 4 << 20
	// deleteBytes is for reading and applying a position delete.
	deleteBytes = 16
)

// Gain is what a rewrite saves each reader of the whole table.
type Gain struct {
	DataFiles int   // that needn't be opened
	Bytes     int64 // of dead rows, that needn't be read
	Deletes   int64 // needn't be applied
}

// Worth is the gain in bytes that a reader could scan meanwhile.
func (g Gain) Worth() int64 {
	return int64(g.DataFiles)*OpenBytes + g.Bytes + g.Deletes*deleteBytes
}

// Urgency is what a rewrite gains readers per byte that it writes, an object's
// overhead included. It compares rewrites of all tables: under a budget of
// bytes per second, the most urgent first gains the most.
func (w Rewrite) Urgency() float64 {
	return float64(w.Gain.Worth()) / float64(w.OutBytes+OpenBytes)
}

// ByUrgency orders rewrites of any tables, the most urgent first.
func ByUrgency(a, b Rewrite) int {
	return cmp.Or(
		cmp.Compare(b.Urgency(), a.Urgency()),
		slices.Compare(a.Inputs, b.Inputs),
	)
}

package wal

import "slices"

// Visible is which transactions a snapshot of the source sees, as
// pg_current_snapshot() tells it; their ids as the stream has them, modulo 2^32.
type Visible struct {
	Xmin       uint32 // all before it have ended
	Xmax       uint32 // none from it on has
	InProgress []uint32
}

// Sees says whether the snapshot has what the top-level transaction xid, known
// to have committed by now, has done. The zero Visible sees nothing.
func (v Visible) Sees(xid uint32) bool {
	switch {
	case v.Xmax == 0: // no transaction's number
		return false
	case int32(xid-v.Xmin) < 0:
		return true
	case int32(xid-v.Xmax) >= 0:
		return false
	}
	return !slices.Contains(v.InProgress, xid)
}

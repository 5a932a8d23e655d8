package lake

import (
	"fmt"

	"firn/lake/index"
	"firn/wal"
)

// keyOf is the index key of the row that a tuple names.
func (t *Table) keyOf(row wal.Tuple) (index.Key, error) {
	if t.key == nil {
		return index.Key{}, fmt.Errorf("%s has no replica identity: its rows can't be found again", t.Ident)
	}
	if len(row) != len(t.rows.wire) {
		return index.Key{}, fmt.Errorf("key of %s: tuple of %d columns, the relation has %d", t.Ident, len(row), len(t.rows.wire))
	}
	t.key.begin()
	for i, c := range t.keyWire {
		if err := t.key.value(i, row[c]); err != nil {
			return index.Key{}, fmt.Errorf("key of %s: %w", t.Ident, err)
		}
	}
	return t.key.sum(), nil
}

// find returns the live place of the row with key k.
func (t *Table) find(k index.Key) (index.Loc, bool) {
	if !t.whole {
		loc, ok := t.index.Get(k)
		return loc, ok && t.isLive(loc)
	}
	var found index.Loc
	ok := false
	t.index.All(k, func(l index.Loc) bool {
		if t.isLive(l) {
			found, ok = l, true
		}
		return !ok
	})
	return found, ok
}

// isLive says whether loc is a row of the present: in a batch or file that we
// hold, and not dead there (PROTOCOL §19).
func (t *Table) isLive(loc index.Loc) bool {
	f, pos, b := t.resolve(loc)
	if b != nil {
		return !b.isDead(loc.Pos)
	}
	return f != nil && t.files[f.no] == f && !f.isDead(pos)
}

// resolve finds a row's file and position, or its open batch. All nil: it is
// nowhere any more.
func (t *Table) resolve(loc index.Loc) (*dataFile, uint32, *batch) {
	if !loc.Virtual() {
		loc = t.follow(loc)
		return t.files[loc.File], loc.Pos, nil
	}
	b := t.batches[loc.File&^index.VirtualFile]
	if b == nil {
		return nil, 0, nil
	}
	if b == t.open {
		return nil, 0, b
	}
	if b.shares == nil || b.isDead(loc.Pos) {
		return nil, 0, nil // truncated away, or dead when it was flushed
	}
	f, pos := b.place(loc.Pos)
	return f, pos, nil
}

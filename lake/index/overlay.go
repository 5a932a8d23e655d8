package index

import "fmt"

// overlay is the changes of one epoch over what lies below it. Its tables have
// the seed of the segments' one, so they are in the same order.
type overlay struct {
	adds      *table // unique keys: all changes, wordRemoved for a key taken out
	removes   *table // only for Multi
	truncated bool   // nothing below counts
}

func (x *Index) newOverlay() *overlay {
	// The scratch frees what it gave; there is nobody to tell.
	swap := func(old *segment, _ []*segment) error { old.free(); return nil }
	o := &overlay{adds: x.newTable(x.scratch.alloc, swap, x.o.overlayLog)}
	if x.o.Multi {
		o.removes = x.newTable(x.scratch.alloc, swap, x.o.overlayLog)
	}
	return o
}

func (o *overlay) tables() []*table {
	if o.removes == nil {
		return []*table{o.adds}
	}
	return []*table{o.adds, o.removes}
}

func (o *overlay) free() {
	for _, t := range o.tables() {
		t.free()
	}
	o.truncated = false
}

// empty reports whether it changes nothing.
func (o *overlay) empty() bool {
	for _, t := range o.tables() {
		if t.live() > 0 {
			return false
		}
	}
	return !o.truncated
}

// clear makes it empty and keeps its memory for the next epoch, unless that was
// much more than this one needed.
func (o *overlay) clear(spilled bool) {
	for _, t := range o.tables() {
		var slots int
		for _, s := range t.all() {
			slots += len(s.slots) / s.words
		}
		if spilled || slots > 4096 && int64(slots) > 8*t.live() {
			t.free()
			continue
		}
		for _, s := range t.all() {
			clear(s.slots)
			s.live, s.used = 0, 0
		}
	}
	o.truncated = false
}

func (x *Index) keyed(k Key) (uint64, Key) {
	if x.o.Multi {
		k.Hi &^= levelMask
	}
	return x.base.hash(k), k
}

// Look makes a Get, Put or Remove of k that comes a little later faster: their
// time is mostly that of waiting for memory, which this asks for.
func (x *Index) Look(k Key) {
	h, _ := x.keyed(k)
	x.filling.adds.look(h)
	if x.delta != nil {
		x.delta.look(h)
	}
	x.base.look(h)
}

// Get returns where the row of a key is, changes not yet committed included; of
// a key with several rows any one.
func (x *Index) Get(k Key) (Loc, bool) {
	if x.o.Multi {
		var found Loc
		x.All(k, func(l Loc) bool { found = l; return false })
		return found, found.File != 0
	}
	h := x.base.hash(k)
	for _, o := range [...]*overlay{x.filling, x.committing} {
		if o == nil {
			continue
		}
		if w := o.adds.get(h, k); w != wordEmpty {
			return locOf(w), w != wordRemoved
		}
		if o.truncated {
			return Loc{}, false
		}
	}
	if x.delta != nil {
		if w := x.delta.get(h, k); w != wordEmpty {
			return locOf(w), w != wordRemoved
		}
	}
	w := x.base.get(h, k)
	return locOf(w), w != wordEmpty
}

// All calls fn with the location of each row of a key until fn returns false.
// fn may not change the index.
func (x *Index) All(k Key, fn func(Loc) bool) {
	if !x.o.Multi {
		if l, ok := x.Get(k); ok {
			fn(l)
		}
		return
	}
	h, k := x.keyed(k)
	above := make([]*overlay, 0, 2)
	visit := func(w uint64) bool {
		for _, o := range above {
			if o.removes.hasRow(h, k, w) || o.adds.hasRow(h, k, w) {
				return true // gone, or seen already
			}
		}
		return fn(locOf(w))
	}
	for _, o := range [...]*overlay{x.filling, x.committing} {
		if o == nil {
			continue
		}
		if !o.adds.rows(h, k, visit) || o.truncated {
			return
		}
		above = append(above, o)
	}
	x.base.rows(h, k, visit)
}

// Put says that a row of key k is at l: with unique keys, the only one. The
// change is in the filling overlay until Seal. An error (disk full, where the
// overlay is larger than OverlayMemory) leaves the index as it was.
func (x *Index) Put(k Key, l Loc) error {
	if err := x.usable(k); err != nil {
		return fmt.Errorf("put key %v: %w", k, err)
	}
	if l.File == 0 {
		return fmt.Errorf("put key %v: file number 0: %w", k, ErrFile)
	}
	h, k := x.keyed(k)
	var err error
	if x.o.Multi {
		if err = x.filling.adds.addRow(h, k, l.word()); err == nil {
			x.filling.removes.removeRow(h, k, l.word())
		}
	} else {
		_, err = x.filling.adds.put(h, k, l.word())
	}
	if err != nil {
		return fmt.Errorf("put key %v: %w", k, err)
	}
	return nil
}

// Remove takes the row of key k at l out; it is no error if there is none. With
// unique keys the zero Loc means wherever it is, and any other Loc is compared:
// a key that has moved on stays, so that a catch-up may report dead and new
// rows in any order. Errors are as with Put.
func (x *Index) Remove(k Key, l Loc) error {
	if err := x.usable(k); err != nil {
		return fmt.Errorf("remove key %v: %w", k, err)
	}
	var err error
	if x.o.Multi {
		err = x.removeRow(k, l)
	} else {
		if l != (Loc{}) {
			if now, ok := x.Get(k); !ok || now != l {
				return nil
			}
		}
		_, err = x.filling.adds.put(x.base.hash(k), k, wordRemoved)
	}
	if err != nil {
		return fmt.Errorf("remove key %v: %w", k, err)
	}
	return nil
}

func (x *Index) removeRow(k Key, l Loc) error {
	if l.File == 0 {
		return fmt.Errorf("file number 0: %w", ErrFile)
	}
	h, k := x.keyed(k)
	f := x.filling
	if l.Virtual() && f.adds.removeRow(h, k, l.word()) {
		return nil // born and died here; nothing below knows of it
	}
	if err := f.removes.addRow(h, k, l.word()); err != nil {
		return err
	}
	f.adds.removeRow(h, k, l.word())
	return nil
}

// Truncate takes all rows out, in the filling overlay like Put and Remove.
func (x *Index) Truncate() {
	for _, t := range x.filling.tables() {
		t.free()
	}
	x.filling.truncated = true
}

// Seal makes the filling overlay the committing one, which Merge takes. There
// can be one only ([ErrState]).
func (x *Index) Seal() error {
	if x.committing != nil {
		return fmt.Errorf("seal index overlay: one is committing: %w", ErrState)
	}
	x.committing = x.filling
	x.filling, x.spare = x.spare, nil
	if x.filling == nil {
		x.filling = x.newOverlay()
	}
	return nil
}

// Discard drops the changes of both overlays. After a Merge that failed, the
// index is then Applying.
func (x *Index) Discard() { x.newOverlays() }

func (x *Index) usable(k Key) error {
	if x.state.Phase == Untrusted {
		return fmt.Errorf("index is untrusted: %w", ErrState)
	}
	if k.Hi != 0 && !x.o.Wide {
		return fmt.Errorf("key of 128 bits in an index of 64: %w", ErrState)
	}
	return nil
}

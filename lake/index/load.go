package index

import "fmt"

// loadAhead is how many rows are looked at before the first of them is put in,
// so that their cache misses overlap.
const loadAhead = 32

// directRows is how many rows a load puts straight into the segments (256 MB of
// them, if keys are not wide); the rows of a larger one are spooled.
const directRows = 8 << 20

// loader puts rows into the segments of an index that has no commit yet.
type loader struct {
	x      *Index
	rows   [loadAhead]loadRow
	n      int
	direct int64  // rows that may still be put straight in
	spool  *spool // the others; nil: none yet
	failed error
}

type loadRow struct {
	hash uint64
	key  Key
	loc  Loc
}

// Load puts rows into the segments of an index that is Empty: the first load of
// a table, or a rebuild. About so many are expected, or an unknown number if that
// is 0; for what comes of them room is made at once. It may be called several
// times before CommitLoad, and nothing else may be in between. With unique keys
// a key given twice is [ErrDuplicate], perhaps not of put but of Load. Rows of a
// large load go to a deleted file in the index's folder first (16 or 24 bytes
// each), and at the end from there into the segments. After an error the index is
// as after Reset.
func (x *Index) Load(expected int64, fn func(put func(Key, Loc) error) error) error {
	if x.state.Phase != Empty {
		return fmt.Errorf("load index: index is %v: %w", x.state.Phase, ErrState)
	}
	x.loading = true
	l := &loader{x: x, direct: x.o.directRows}
	err := x.guard(func() error { return l.load(expected, fn) })
	if l.spool != nil {
		l.spool.close()
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("load index: %w", err)
	if reset := x.Reset(); reset != nil {
		return fmt.Errorf("%w; then %w", err, reset)
	}
	return err
}

func (l *loader) load(expected int64, fn func(put func(Key, Loc) error) error) error {
	base := l.x.base
	if expected > l.direct {
		l.direct = 0
	} else if expected > 0 && base.live() == 0 {
		// So that the segments need not grow by steps. What is too much stays
		// unused on disk.
		if err := base.reserve(expected); err != nil {
			return err
		}
	}
	if err := fn(l.put); err != nil {
		return err
	}
	if err := l.flush(); err != nil || l.spool == nil {
		return err
	}
	return l.drain()
}

// drain puts the spooled rows in, and with them, once more, those that went
// straight in: the segments have to be large enough for all from the start. In
// ones that have yet to grow, rows in the order of the hash pile up at the front,
// as a run that each next one walks along.
func (l *loader) drain() error {
	x, base := l.x, l.x.base
	err := base.each(func(k Key, w uint64) error {
		if !isLoc(w) {
			return nil // a key's level
		}
		h, k := x.keyed(k)
		return l.spool.add(h, k, w)
	})
	if err != nil {
		return err
	}
	base.free()
	if err := base.reserve(l.spool.rows); err != nil {
		return err
	}
	err = l.spool.each(func(k Key, w uint64) error { return l.add(base.hash(k), k, locOf(w)) })
	if err != nil {
		return err
	}
	return l.flush()
}

func (l *loader) put(k Key, loc Loc) error {
	if l.failed != nil {
		return l.failed
	}
	x := l.x
	if l.failed = x.usable(k); l.failed != nil {
		return l.failed
	}
	if loc.File == 0 || loc.Virtual() {
		l.failed = fmt.Errorf("key %v at %v: %w", k, loc, ErrFile)
		return l.failed
	}
	x.loaded.add(loc.File)
	h, k := x.keyed(k)
	if l.direct > 0 {
		l.direct--
		return l.add(h, k, loc)
	}
	if l.spool == nil {
		if l.spool, l.failed = newSpool(x.dir, x.words()); l.failed != nil {
			return l.failed
		}
	}
	l.failed = l.spool.add(h, k, loc.word())
	return l.failed
}

// add puts a row in, some rows later.
func (l *loader) add(h uint64, k Key, loc Loc) error {
	l.rows[l.n] = loadRow{hash: h, key: k, loc: loc}
	if l.n++; l.n == loadAhead {
		return l.flush()
	}
	return nil
}

func (l *loader) flush() error {
	rows := l.rows[:l.n]
	l.n = 0
	if l.failed != nil {
		return l.failed
	}
	t := l.x.base
	for i := range rows {
		t.look(rows[i].hash)
	}
	for i := range rows {
		r := &rows[i]
		if l.x.o.Multi {
			l.failed = t.addRow(r.hash, r.key, r.loc.word())
		} else {
			var before uint64
			before, l.failed = t.put(r.hash, r.key, r.loc.word())
			if l.failed == nil && before != wordEmpty {
				l.failed = fmt.Errorf("key %v at %v and %v: %w", r.key, locOf(before), r.loc, ErrDuplicate)
			}
		}
		if l.failed != nil {
			return l.failed
		}
	}
	return nil
}

// CommitLoad makes what Load put in, perhaps nothing, the index of commit n.
func (x *Index) CommitLoad(n uint64, snapshot int64, files []FileName) error {
	if x.state.Phase != Empty {
		return fmt.Errorf("commit index load: index is %v: %w", x.state.Phase, ErrState)
	}
	alive, err := x.check(files)
	if err != nil {
		return fmt.Errorf("commit index load: %w", err)
	}
	if no, ok := x.loaded.beyond(alive); ok {
		return fmt.Errorf("commit index load: rows are in file %d, which is not in the list: %w", no, ErrFile)
	}
	x.storeCounts()
	before := x.state
	x.state = State{Phase: At, N: n, Base: n, Snapshot: snapshot}
	for _, f := range files {
		x.names[f.No] = f.Path
	}
	if err := x.rewriteJournal(true); err != nil {
		x.state = before
		clear(x.names)
		return fmt.Errorf("commit index load: %w", err)
	}
	x.loading, x.loaded = false, nil
	return nil
}

package index

import "fmt"

// loadAhead is how many rows are looked at before the first of them is put in,
// so that their cache misses overlap.
const loadAhead = 32

// loader puts rows into the segments of an index that has no commit yet.
type loader struct {
	x      *Index
	rows   [loadAhead]loadRow
	n      int
	failed error
}

type loadRow struct {
	hash uint64
	key  Key
	loc  Loc
}

// Load puts rows straight into the segments of an index that is Empty: the
// first load of a table, or a rebuild. It may be called several times before
// CommitLoad, and nothing else may be in between. With unique keys a key given
// twice is [ErrDuplicate], of which put may tell a few rows late. After an error
// the index is as after Reset.
func (x *Index) Load(fn func(put func(Key, Loc) error) error) error {
	if x.state.Phase != Empty {
		return fmt.Errorf("load index: index is %v: %w", x.state.Phase, ErrState)
	}
	x.loading = true
	err := x.guard(func() error {
		l := &loader{x: x}
		if err := fn(l.put); err != nil {
			return err
		}
		return l.flush()
	})
	if err == nil {
		return nil
	}
	err = fmt.Errorf("load index: %w", err)
	if reset := x.Reset(); reset != nil {
		return fmt.Errorf("%w; then %w", err, reset)
	}
	return err
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

// Reserve makes room for a Load of about so many rows into an index that is
// Empty, so that it need not grow by steps. What is too much stays unused on
// disk.
func (x *Index) Reserve(rows int64) error {
	if x.state.Phase != Empty || x.base.live() > 0 {
		return fmt.Errorf("reserve index: index is %v: %w", x.state.Phase, ErrState)
	}
	if err := x.guard(func() error { return x.base.reserve(rows) }); err != nil {
		return fmt.Errorf("reserve index for %d rows: %w", rows, err)
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

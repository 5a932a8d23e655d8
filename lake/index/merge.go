package index

import (
	"fmt"
	"runtime/debug"
	"slices"
)

// Merge applies the committing overlay to the segments, after commit n was
// published, and then drops it. Without one it only moves the index on to n.
//
// files is the complete list of the table's live data files after n. A location
// may only name a file that is in it (else [ErrFile]); locations of files that
// are no longer in it are dead, and dropped at leisure. resolve gives the real
// location of a virtual one; false means that the row never came into a file,
// and the key is taken out.
//
// n may be any commit from State's N on. After an error Merge may be called
// again; the state is Applying meanwhile, also for the next Open. With unique
// keys Get stays right then; with Multi a row may be told twice, by its virtual
// and by its real location.
func (x *Index) Merge(n uint64, snapshot int64, files []FileName, resolve func(Loc) (Loc, bool)) error {
	if p := x.state.Phase; p != At && p != Applying {
		return fmt.Errorf("merge commit %d into index: index is %v: %w", n, p, ErrState)
	}
	if n < x.state.N {
		return fmt.Errorf("merge commit %d into index: it is at %d: %w", n, x.state.N, ErrState)
	}
	if err := x.guard(func() error { return x.merge(n, snapshot, files, resolve) }); err != nil {
		return fmt.Errorf("merge commit %d into index: %w", n, err)
	}
	return nil
}

func (x *Index) merge(n uint64, snapshot int64, files []FileName, resolve func(Loc) (Loc, bool)) error {
	alive, err := x.check(files)
	if err != nil {
		return err
	}
	if x.state.Phase == At && x.journal.long() {
		if err := x.rewriteJournal(true); err != nil {
			return err
		}
	}
	var added []FileName
	for _, f := range files {
		if _, ok := x.names[f.No]; !ok && !f.Partial {
			added = append(added, f)
		}
	}
	var removed []uint32
	for no := range x.names {
		if !alive.has(no) {
			removed = append(removed, no)
		}
	}
	if err := x.unclean(); err != nil {
		return err
	}
	if o := x.committing; o != nil && !o.empty() {
		pending := append(slices.Clone(x.pending), added...)
		if err := x.journal.append(recordBegin(n, x.nextFile, pending)); err != nil {
			return err
		}
		x.state = State{Phase: Applying, N: n, Base: x.state.Base, Snapshot: x.state.Snapshot}
		x.pending = pending
		if err := x.apply(o, alive, resolve); err != nil {
			return err
		}
	}
	x.storeCounts()
	if err := x.journal.append(recordCommit(n, snapshot, x.nextFile, removed, added)); err != nil {
		return err
	}
	x.state = State{Phase: At, N: n, Base: n, Snapshot: snapshot}
	x.pending = nil
	for _, no := range removed {
		delete(x.names, no)
	}
	for _, f := range added {
		x.names[f.No] = f.Path
	}
	if x.committing != nil {
		x.committing.clear(x.scratch.spilled > 0)
		x.spare, x.committing = x.committing, nil
	}
	return nil
}

// check refuses a file list that contradicts what numbers mean here, and moves
// the next number beyond it.
func (x *Index) check(files []FileName) (alive fileSet, err error) {
	known := make(map[uint32]string, len(x.pending))
	for _, f := range x.pending {
		known[f.No] = f.Path
	}
	for _, f := range files {
		if f.No == 0 || f.No >= VirtualFile || alive.has(f.No) {
			return nil, fmt.Errorf("file number %d of %s is out of range or twice in the list: %w", f.No, f.Path, ErrFile)
		}
		path, ok := x.names[f.No]
		if !ok {
			path, ok = known[f.No]
		}
		if ok && path != f.Path {
			return nil, fmt.Errorf("file number %d is %s, not %s: %w", f.No, path, f.Path, ErrFile)
		}
		alive.add(f.No)
		x.nextFile = max(x.nextFile, f.No+1)
	}
	return alive, nil
}

// apply brings the changes of o into the segments. Doing it twice is as good as
// doing it once.
func (x *Index) apply(o *overlay, alive fileSet, resolve func(Loc) (Loc, bool)) error {
	x.base.keep = func(w uint64) bool { return alive.has(locOf(w).File) }
	defer func() { x.base.keep = nil }()
	if o.truncated {
		if err := x.truncateBase(); err != nil {
			return err
		}
	}
	to := x.base
	if err := x.useDelta(o.adds.live()); err != nil {
		return err
	}
	if x.delta != nil {
		to = x.delta
	} else if err := x.base.prepare(o.adds.each); err != nil {
		return err
	}
	real := func(k Key, w uint64) (uint64, bool, error) {
		l := locOf(w)
		if l.Virtual() {
			if resolve == nil {
				return 0, false, fmt.Errorf("key %v is at %v, in memory, and there is no way to resolve it: %w", k, l, ErrFile)
			}
			var ok bool
			if l, ok = resolve(l); !ok {
				return 0, false, nil
			}
		}
		if !alive.has(l.File) {
			if x.filling.truncated {
				return 0, false, nil // and the file with it
			}
			return 0, false, fmt.Errorf("key %v is at %v, a file that is not in the list: %w", k, l, ErrFile)
		}
		return l.word(), true, nil
	}
	if x.o.Multi {
		return x.applyRows(o, real)
	}
	return o.adds.each(func(k Key, w uint64) error {
		h := x.base.hash(k)
		ok := w != wordRemoved
		if ok {
			var err error
			if w, ok, err = real(k, w); err != nil {
				return err
			}
		}
		if !ok && x.delta == nil {
			x.base.remove(h, k)
			return nil
		}
		if !ok {
			w = wordRemoved
		}
		_, err := to.put(h, k, w)
		return err
	})
}

func (x *Index) applyRows(o *overlay, real func(Key, uint64) (uint64, bool, error)) error {
	err := o.removes.each(func(k Key, w uint64) error {
		if isLoc(w) {
			h, k := x.keyed(k)
			x.base.removeRow(h, k, w)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return o.adds.each(func(k Key, w uint64) error {
		if !isLoc(w) {
			return nil
		}
		h, k := x.keyed(k)
		to, ok, err := real(k, w)
		if err != nil {
			return err
		}
		// A row that has died in the epoch after this one is known there by
		// where it was then.
		if to != w && x.filling.removes.hasRow(h, k, w) {
			if ok {
				if err := x.filling.removes.addRow(h, k, to); err != nil {
					return err
				}
			}
			// The old mark stays until this merge has ended: it may be called
			// again, and All looks the committing overlay's rows up by it.
		}
		if !ok {
			return nil
		}
		return x.base.addRow(h, k, to)
	})
}

// truncateBase drops all segments.
func (x *Index) truncateBase() error {
	all := x.segments()
	if all[0].id == 0 {
		return nil
	}
	if err := x.journal.append(recordSwap(all, nil)); err != nil {
		return err
	}
	for _, t := range x.stored() {
		t.free()
	}
	x.delta = nil
	return nil
}

// swapBase puts segments in an old one's place. Before the first commit there
// is nothing to keep, and CommitLoad names them all.
func (x *Index) swapBase(old *segment, repl []*segment) error {
	if x.state.Phase == Applying {
		var olds []*segment
		if old.id != 0 {
			olds = append(olds, old)
		}
		if err := x.journal.append(recordSwap(olds, repl)); err != nil {
			return err
		}
	}
	old.free()
	return nil
}

func (x *Index) storeCounts() {
	for _, s := range x.segments() {
		s.storeCount()
	}
}

// unclean takes back, on disk, the word that everything is on disk.
func (x *Index) unclean() error {
	if !x.clean {
		return nil
	}
	if err := x.journal.append(recordOpened(x.boot)); err != nil {
		return err
	}
	if err := x.journal.sync(); err != nil {
		return err
	}
	x.clean = false
	return nil
}

// rewriteJournal replaces the journal by one that is as short as can be.
func (x *Index) rewriteJournal(sync bool) error {
	j, err := writeJournal(x.lock, [][]byte{recordFull(x), recordOpened(x.boot)}, sync)
	if j != nil {
		if x.journal != nil {
			x.journal.close()
		}
		x.journal, x.clean = j, false
	}
	return err
}

// guard runs fn, which changes mapped memory, and turns a fault there (the disk
// is full or broken after all) into an error.
func (x *Index) guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		fault, ok := r.(interface {
			error
			Addr() uintptr
		})
		if !ok || !x.owns(fault.Addr()) {
			panic(r)
		}
		err = fmt.Errorf("access mapped memory: %w", fault)
	}()
	return fn()
}

func (x *Index) owns(addr uintptr) bool {
	tables := x.stored()
	for _, o := range []*overlay{x.filling, x.committing} {
		if o != nil {
			tables = append(tables, o.tables()...)
		}
	}
	for _, t := range tables {
		for _, s := range t.all() {
			if s.contains(addr) {
				return true
			}
		}
	}
	return false
}

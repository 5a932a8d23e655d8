package lake

import (
	"context"
	"fmt"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"firn/lake/index"
	"firn/lake/partition"
)

// flush gives the open batch's live rows their places in the data files that are
// being written, and hands them to the encoders. It waits while these are full.
func (t *Table) flush(ctx context.Context) error {
	b := t.open
	if b == nil {
		return nil
	}
	t.open = nil
	t.room.pending -= b.bytes
	t.touch()
	if err := t.fan.put(ctx, t.rows.take(), b); err != nil {
		return fmt.Errorf("write rows of %s: %w", t.Ident, err)
	}
	return nil
}

// beginFile opens a data file and its encoder.
func (t *Table) beginFile(of *partition.Place) (*dataFile, error) {
	enc, err := newEncoder(t.store, t.layout, of, t.room)
	if err != nil {
		return nil, fmt.Errorf("begin data file: %w", err)
	}
	f := &dataFile{no: t.nextFile(), path: enc.out.Path(), enc: enc}
	t.files[f.no] = f
	e := t.touch()
	e.added = append(e.added, f)
	t.spawn(enc.run)
	return f, nil
}

// nextFile numbers a file; an append table has no index, and needs no more
// than a number that is new in this session.
func (t *Table) nextFile() uint32 {
	if t.index != nil {
		return t.index.NextFile()
	}
	t.lastFile++
	return t.lastFile
}

// roll ends the data files that are being written: no batch follows, their
// uploads begin.
func (t *Table) roll() {
	if t.fan != nil {
		t.fan.endAll()
	}
}

// sealed is one table's part of a sealed epoch. It is the committing
// goroutine's until it has been published, except for table, which only the
// owner touches.
type sealed struct {
	table  *Table
	ident  Ident
	store  TableStore
	epoch  *tableEpoch
	layout *Layout // not nil: the schema or the layout property is part of the change
	dead   map[*dataFile]*roaring.Bitmap
	change *Change
	next   Prepared
	fresh  *TableState // its standing, if this is its first epoch since a load
	unsaid *TableState // with fresh: its standing before, if the head doesn't know that yet
	oid    uint32

	settled []*dataFile // see Table
	held    []chan struct{}
	reads   *Layout // by which the epoch's files can be read
}

// seal ends what the open epoch did to the table and begins the next; nil if
// there is nothing to publish. A table at rest may have to follow what the lake
// keeps.
func (t *Table) seal(ctx context.Context) (*sealed, error) {
	if t.epoch == nil {
		if !t.store.Outdated() {
			return nil, nil
		}
		t.touch()
	}
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	t.roll()
	s := &sealed{table: t, ident: t.Ident, store: t.store, epoch: t.epoch, dead: t.epoch.dead, fresh: t.fresh}
	if t.epoch.layout {
		s.layout = t.layout
	}
	t.epoch, t.fresh = nil, nil
	s.settled, s.held, s.reads = t.settled, t.held, t.layout
	t.settled, t.held, t.relocated = nil, nil, 0
	if t.index != nil {
		if err := t.index.Seal(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// build waits for the encoders and writes the Change down.
func (s *sealed) build(ctx context.Context, stamp Stamp) error {
	c := &Change{Stamp: stamp, Truncate: s.epoch.truncated, Dead: make(map[string]*roaring.Bitmap, len(s.dead))}
	c.Kind = s.epoch.kind
	if s.layout != nil {
		c.Schema, c.Partition = s.layout.Schema(), s.layout.Partition
		c.Properties = map[string]string{layoutProperty: s.layout.encode()}
	}
	c.Rewrites = s.epoch.rewrites
	c.Add = append(c.Add, s.epoch.preloaded...)
	for _, f := range s.epoch.added {
		n, err := f.enc.wait(ctx)
		if err != nil {
			return err
		}
		if n != nil {
			c.Add = append(c.Add, n)
		}
	}
	for f, d := range s.dead {
		c.Dead[f.path] = d
	}
	var err error
	if s.next, err = s.store.Prepare(ctx, c); err != nil {
		return fmt.Errorf("prepare snapshot of %s: %w", s.ident, err)
	}
	s.change = c
	return nil
}

// published makes the sealed epoch the table's base: the store adopts the
// snapshot, and the index moves what the epoch's overlay holds to its places. now
// is when its files landed.
func (t *Table) published(s *sealed, epoch uint64, now time.Time) error {
	t.store.Adopt(s.next)
	if t.abandoned {
		release(s.held)
		return nil
	}
	for _, f := range s.epoch.added {
		f.enc, f.born, f.worn = nil, now, now
		if f.rows == 0 || f.dead != nil && f.dead.GetCardinality() == uint64(f.rows) {
			delete(t.files, f.no)
		}
	}
	for f := range s.dead {
		f.worn = now
		if f.enc == nil && !f.partial && f.dead.GetCardinality() == uint64(f.rows) {
			delete(t.files, f.no)
		}
	}
	if t.index != nil {
		if err := t.merge(epoch, s.next.Move().SnapshotID, s.settled, s.held); err != nil {
			return err
		}
	}
	for _, id := range s.epoch.batches {
		delete(t.batches, id)
	}
	return nil
}

// merge moves the index on to an epoch. settled are the outputs of rewrites whose
// rows are all at their places with that, held those who wait for it.
func (t *Table) merge(epoch uint64, snapshot int64, settled []*dataFile, held []chan struct{}) error {
	t.forget(settled)
	err := t.index.Merge(epoch, snapshot, t.fileNames(), func(l index.Loc) (index.Loc, bool) {
		f, pos, b := t.resolve(l)
		if f == nil || b != nil || t.files[f.no] != f {
			return index.Loc{}, false
		}
		return index.Loc{File: f.no, Pos: pos}, true
	})
	if err != nil {
		return fmt.Errorf("merge index of %s: %w", t.Ident, err)
	}
	for _, f := range settled {
		if t.files[f.no] == f && f.dead != nil && f.dead.GetCardinality() == uint64(f.rows) {
			delete(t.files, f.no)
		}
	}
	release(held)
	return nil
}

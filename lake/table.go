package lake

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"firn/lake/index"
	"firn/wal"
)

// Table is the owner's picture of one mirrored table: what is live, where each
// row is, and what the open epoch has done to it so far. Only the owner's
// goroutine touches it, encoders excepted, which get what they need by value.
//
// A row's life: append puts it into the open batch (builders); flush gives the
// batch's live rows places in the current data file and hands it to that
// file's encoder; seal ends the file and turns all of it into a Change; after
// the publish, published makes the new places the index's own. A row that dies
// is marked in its batch while that is open, in its file's delete bitmap later.
type Table struct {
	Ident  Ident
	layout *Layout
	store  TableStore
	room   *encoding
	spawn  func(func(context.Context) error) // runs an encoder in the session's group

	index   *index.Index // nil: the table has no way to find rows (append)
	key     *rowKey      // nil: as index
	whole   bool         // the key is a hash over the whole row, and not unique
	keyWire []int        // the Relation's position of each key column

	files map[uint32]*dataFile // live, committing and open, by number

	// Of rewritten files; see compact.go.
	moved     map[uint32]*moved // by the number under which the index may still have their rows
	settled   []*dataFile       // outputs whose rows have all been found again, in the open overlay
	relocated int               // rows found again in the open overlay
	held      []chan struct{}   // who waits for it to be merged

	rows    *rowBuilder
	fan     *fan
	open    *batch
	batches map[uint32]*batch // of the open and the committing epoch
	nextID  uint32

	epoch *tableEpoch // of the open epoch; nil: nothing happened to the table
	live  int64       // rows alive

	unread    map[uint32]bool // files whose keys the index does not have, until catchUp
	fresh     *TableState     // the standing that its next epoch makes known
	lastFile  uint32          // highest file number, for a table without an index
	abandoned bool            // what it holds is no longer followed
}

// tableEpoch is what the open epoch has done to a table.
type tableEpoch struct {
	added     []*dataFile // files begun in this epoch, in order
	dead      map[*dataFile]*roaring.Bitmap
	truncated bool
	layout    bool // the schema or the layout property changed
	kind      string
	batches   []uint32
	preloaded []*NewFile // of a load, encoded elsewhere
	rewrites  []*Rewritten
	outputs   []*dataFile // of rewrites
	origins   [][]origin  // of the rows of each
}

func (t *Table) touch() *tableEpoch {
	if t.epoch == nil {
		t.epoch = &tableEpoch{dead: map[*dataFile]*roaring.Bitmap{}, kind: "stream"}
	}
	if t.epoch.kind == "rewrite" {
		t.epoch.kind = "stream"
	}
	return t.epoch
}

// use makes l the layout from here on. The open batch and file end: a data
// file has one schema.
func (t *Table) use(ctx context.Context, l *Layout) error {
	if err := t.flush(ctx); err != nil {
		return err
	}
	t.roll()
	r, err := newRowBuilder(t.room.mem, l)
	if err != nil {
		return fmt.Errorf("columns of %s: %w", t.Ident, err)
	}
	f, err := newFan(t.store, l, t.room, t.beginFile)
	if err != nil {
		r.release()
		return fmt.Errorf("partitions of %s: %w", t.Ident, err)
	}
	t.release()
	t.rows, t.layout, t.fan = r, l, f
	t.key = newRowKey(l)
	_, t.whole = l.indexed()
	return nil
}

// evolve goes on with a layout that the stream has moved to.
func (t *Table) evolve(ctx context.Context, l *Layout) error {
	t.touch().layout = true
	return t.use(ctx, l)
}

// annotate changes what the layout says besides columns and key.
func (t *Table) annotate(fn func(*Layout)) {
	l := *t.layout
	fn(&l)
	t.layout, t.rows.layout = &l, &l
	t.touch().layout = true
}

// wire says which column each of the Relation's is.
func (t *Table) wire(to []int) {
	t.rows.wire = to
	t.keyWire = t.keyWire[:0]
	if t.key == nil {
		return
	}
	for _, c := range t.key.cols {
		t.keyWire = append(t.keyWire, slices.Index(to, c))
	}
}

// release drops the builders. No row may follow.
func (t *Table) release() {
	if t.rows != nil {
		t.rows.release()
		t.rows = nil
	}
}

// abandon drops what the open epoch did to the table, and all that is known of
// it; its part of a committing epoch may still be published.
func (t *Table) abandon(log *slog.Logger) {
	if t.open != nil {
		t.room.pending -= t.open.bytes
		t.open = nil
	}
	if t.epoch != nil {
		t.roll()
	}
	t.abandoned = true
	release(t.held)
	t.held, t.settled = nil, nil
	t.close(log)
}

// close gives up the index and the builders. The index is a cache: trouble
// with it costs a rebuild and is only said.
func (t *Table) close(log *slog.Logger) {
	t.release()
	if t.index != nil {
		if err := t.index.Close(); err != nil {
			log.Warn("close row index", "table", t.Ident.String(), "err", err)
		}
		t.index = nil
	}
}

// insert appends a new row.
func (t *Table) insert(ctx context.Context, row wal.Tuple) error {
	if err := t.begin(); err != nil {
		return err
	}
	return t.place(ctx, row, index.Loc{}, "INSERT")
}

// update replaces a row. old is the K or O tuple, nil if the key is unchanged
// and the new row has it. What row leaves out as unchanged and old has (O every
// column, K a key that is stored out of line) is filled in.
func (t *Table) update(ctx context.Context, old, row wal.Tuple) error {
	by := row
	if old != nil {
		if len(old) != len(row) {
			return fmt.Errorf("update of %s: the old row has %d columns, the new one %d", t.Ident, len(old), len(row))
		}
		by = old
		for i := range row {
			if row[i].Kind == 'u' && (old[i].Kind == 't' || old[i].Kind == 'b') {
				row[i] = old[i]
			}
		}
	}
	k, err := t.keyOf(by)
	if err != nil {
		return err
	}
	loc, ok := t.find(k)
	if !ok {
		return t.contradiction("UPDATE", by)
	}
	if err := t.settle(ctx, row, loc); err != nil {
		return err
	}
	if err := t.begin(); err != nil {
		return err
	}
	if err := t.kill(loc); err != nil {
		return err
	}
	if err := t.index.Remove(k, loc); err != nil {
		return err
	}
	return t.place(ctx, row, loc, "UPDATE")
}

// delete removes the row that the K or O tuple names.
func (t *Table) delete(old wal.Tuple) error {
	k, err := t.keyOf(old)
	if err != nil {
		return err
	}
	loc, ok := t.find(k)
	if !ok {
		return t.contradiction("DELETE", old)
	}
	if err := t.index.Remove(k, loc); err != nil {
		return err
	}
	return t.kill(loc)
}

// truncate drops every row. Files that the open epoch began are abandoned: no
// snapshot will name them.
func (t *Table) truncate() {
	e := t.touch()
	if t.open != nil {
		t.rows.take().Release()
		t.room.pending -= t.open.bytes
		t.open = nil
	}
	t.roll()
	e.added, e.preloaded, e.rewrites, e.outputs, e.origins, e.truncated = nil, nil, nil, nil, nil, true
	t.settled = nil
	clear(e.dead)
	clear(t.files)
	clear(t.moved)
	t.live = 0
	if t.index != nil {
		t.index.Truncate()
	}
}

// kill marks a live row dead.
func (t *Table) kill(loc index.Loc) error {
	e := t.touch()
	f, pos, b := t.resolve(loc)
	if b != nil {
		b.kill(loc.Pos)
		t.live--
		return nil
	}
	if f == nil {
		return fmt.Errorf("delete row of %s: file %d is not live", t.Ident, loc.File)
	}
	if f.dead == nil {
		f.dead = roaring.New()
	}
	f.dead.Add(pos)
	d := e.dead[f]
	if d == nil {
		d = roaring.New()
		e.dead[f] = d
	}
	d.Add(pos)
	t.live--
	return nil
}

// begin makes sure that there is an open batch.
func (t *Table) begin() error {
	t.touch()
	if t.open == nil {
		t.nextID = (t.nextID + 1) &^ index.VirtualFile
		t.open = &batch{id: t.nextID}
		t.batches[t.nextID] = t.open
		t.epoch.batches = append(t.epoch.batches, t.nextID)
	}
	return nil
}

// place appends a row to the open batch and gives the index its place. was is
// where the old row stood, for values that were left out.
func (t *Table) place(ctx context.Context, row wal.Tuple, was index.Loc, op string) error {
	b, n := t.open, t.open.rows
	var k index.Key
	var keyErr error // said after the row's own, which tells the column
	if t.key != nil {
		if k, keyErr = t.keyOf(row); keyErr == nil {
			t.index.Look(k)
		}
	}
	size, err := t.rows.append(row, func(col int) error {
		if op == "INSERT" {
			return fmt.Errorf("the INSERT has no value")
		}
		return t.unchanged(ctx, b, n, col, was)
	})
	if err != nil {
		return &RowError{Table: t.Ident, Op: op, Key: t.showKey(row), Err: err}
	}
	b.rows++
	b.bytes += size
	t.rows.grown(b.rows)
	t.room.pending += size
	t.live++
	if keyErr != nil {
		return keyErr
	}
	if t.key != nil {
		if !t.whole {
			if loc, ok := t.index.Get(k); ok && t.isLive(loc) {
				return t.contradiction("INSERT", row)
			}
		}
		if err := t.index.Put(k, index.Loc{File: index.VirtualFile | b.id, Pos: uint32(n)}); err != nil {
			return err
		}
	}
	if b.rows >= batchRowsMax || b.bytes >= batchBytesMax {
		return t.flush(ctx)
	}
	return nil
}

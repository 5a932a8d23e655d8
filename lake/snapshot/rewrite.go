package snapshot

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"

	"firn/lake"
	columns "firn/lake/column"
)

// rewriter copies the live rows of data files into one, in the table's order or
// in theirs.
//
// What it proves: the sum of the rows that the output ought to hold is taken of
// the inputs as they are decoded, before anything is left out, gathered or
// encoded; that of the rows it does hold is taken of the object on the store,
// opened anew, footer included. Comparing what was given to the encoder would
// cost less, and miss what encoders and stores do wrong.
//
// Rejected: to keep what has just landed in memory, and merge it without reading
// it back. Decoding the inputs is a sixth of a rewrite's CPU, and only the first
// of the four or five rewrites of a row would be spared it.
type rewriter struct {
	t      *Table
	meta   *metadata // with the schema that is written
	fields []int
	sums   *columns.RowSums
	w      *fileWriter
	sorter *sorter // nil: rows stay in their order
	sum    columns.Sum
	rows   int64 // given to the writer, or held back
	held   []arrow.RecordBatch
	heldOf int64     // their rows
	heldB  int64     // and bytes
	mark   time.Time // when the work began that has not been paid for
}

// rewriteInput is what a data file was when its rewrite began.
type rewriteInput struct {
	lake.RewriteInput
	rows, bytes int64
	firstRowID  *int64 // v3
	sequence    int64
}

// Rewrite makes one data file of the live rows of inputs; see lake.TableStore.
// Memory holds the encoded columns of one row group of an input, those of one
// of the output and a few batches, however large the files are; to sort them,
// tens of megabytes and four bytes a row.
func (t *Table) Rewrite(ctx context.Context, inputs []lake.RewriteInput) (*lake.Rewritten, error) {
	out, err := t.rewrite(ctx, inputs)
	if err != nil {
		return nil, fmt.Errorf("rewrite %d data files of %s: %w", len(inputs), t.o.Ident, err)
	}
	return out, nil
}

func (t *Table) rewrite(ctx context.Context, inputs []lake.RewriteInput) (out *lake.Rewritten, err error) {
	w, from, err := t.newRewriter(inputs)
	if err != nil {
		return nil, err
	}
	defer func() {
		w.drop()
		if err != nil {
			t.o.Pending.remove(w.w.key) // nobody will publish it
		}
	}()
	out = &lake.Rewritten{}
	for _, in := range from {
		m := lake.Moved{From: in.Path, Rows: in.rows, Dead: in.Dead, Base: uint32(w.rows)}
		out.Moved = append(out.Moved, m)
		if w.rows+m.Live() > math.MaxUint32 {
			return nil, fmt.Errorf("the rows from %s on have no positions of 32 bits", in.Path)
		}
		if err := w.copy(ctx, in); err != nil {
			return nil, fmt.Errorf("copy %s: %w", in.Path, err)
		}
	}
	if w.sorter != nil {
		err := w.sorter.finish(ctx, func(rec arrow.RecordBatch) error { return errors.Join(w.encode(rec), w.pause(ctx)) })
		if err != nil {
			return nil, fmt.Errorf("sort: %w", err)
		}
		w.sorter.close()
		for i := range out.Moved {
			out.Moved[i].Order = w.sorter.order
		}
	}
	if err := w.flush(); err != nil {
		return nil, err
	}
	if out.Output, err = w.w.Close(ctx); err != nil || out.Output == nil {
		return out, err
	}
	select {
	case <-out.Output.Uploaded:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := out.Output.UploadErr(); err != nil {
		return nil, err
	}
	if err := w.prove(ctx, out.Output); err != nil {
		return nil, err
	}
	out.Sum = w.sum
	for i := range out.Moved {
		out.Moved[i].To = out.Output.Path
	}
	return out, nil
}

// newRewriter looks the inputs up and starts the output in their partition.
func (t *Table) newRewriter(inputs []lake.RewriteInput) (*rewriter, []rewriteInput, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(inputs) == 0 {
		return nil, nil, errors.New("there are none")
	}
	m := t.meta
	var first *dataFile
	var from []rewriteInput
	seen := map[string]bool{}
	for _, in := range inputs {
		f := t.byPath[in.Path]
		switch {
		case f == nil:
			return nil, nil, fmt.Errorf("%s: %w", in.Path, lake.ErrInputGone)
		case seen[in.Path]:
			return nil, nil, fmt.Errorf("%s is there twice", in.Path)
		case first != nil && f.partition != first.partition:
			return nil, nil, fmt.Errorf("%s and %s are of different partitions", first.path, f.path)
		case m.formatVersion >= 3 && !f.entry.rowIDAssigned:
			return nil, nil, fmt.Errorf("the rows of %s get their ids with the table's next commit, not before", f.path)
		}
		if in.Dead != nil {
			if err := checkPositions(f, in.Dead); err != nil {
				return nil, nil, err
			}
		}
		if first == nil {
			first = f
		}
		seen[in.Path] = true
		from = append(from, rewriteInput{RewriteInput: in, rows: f.rows, bytes: f.bytes,
			firstRowID: f.entry.file.FirstRowID(), sequence: f.entry.sequence})
	}
	if m.formatVersion >= 3 {
		// Rows take their ids along: as columns, which readers look for by
		// reserved field ids.
		m = m.clone()
		if err := m.setSchema(iceberg.SchemaWithRowLineage(m.schema())); err != nil {
			return nil, nil, err
		}
	}
	w := &rewriter{t: t, meta: m, mark: time.Now()}
	for _, f := range m.schema().Fields() {
		w.fields = append(w.fields, f.ID)
	}
	var err error
	if w.sums, err = columns.NewRowSums(m.schema().Fields()); err != nil {
		return nil, nil, err
	}
	spec, err := m.spec(first.entry.file.SpecID())
	if err != nil {
		return nil, nil, err
	}
	var rows int64
	for _, in := range from {
		rows += (&lake.Moved{Rows: in.rows, Dead: in.Dead}).Live()
	}
	sorts := m.sorts() && rows <= sortRowsMax
	if sorts {
		if w.sorter, err = newSorter(t.o.TempDir, t.o.SortBytes, m.sortOrder(), w.fields); err != nil {
			return nil, nil, err
		}
	}
	w.w, err = t.newFile(m, m.schema(), spec, first.entry.file.Partition())
	if err == nil && sorts {
		w.w.order = m.sortOrderID
	}
	return w, from, err
}

// copy reads one input.
func (w *rewriter) copy(ctx context.Context, in rewriteInput) error {
	read, carried := int64(0), w.sum.Rows
	err := w.t.read(ctx, w.meta, in.Path, in.bytes, w.fields, nil, func(first int64, rec arrow.RecordBatch) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		read += rec.NumRows()
		rec = w.identify(in, first, rec)
		defer rec.Release()
		hashes, err := w.sums.Hashes(rec)
		if err != nil {
			return err
		}
		for i, h := range hashes {
			if in.Dead == nil || !in.Dead.Contains(uint32(first)+uint32(i)) {
				w.sum.Add(h)
			}
		}
		live, err := liveRows(ctx, rec, first, in.Dead)
		if err != nil {
			return err
		}
		defer live.Release()
		if err := w.take(ctx, live); err != nil {
			return err
		}
		return w.pause(ctx)
	})
	if err != nil {
		return err
	}
	live := (&lake.Moved{Rows: in.rows, Dead: in.Dead}).Live()
	if carried = w.sum.Rows - carried; read != in.rows || carried != live {
		return fmt.Errorf("it has %d rows, %d of them live, where %d and %d are known of: %w", read, carried, in.rows, live, lake.ErrRowsChanged)
	}
	return nil
}

// identify gives the rows of a v3 table the ids and sequence numbers that they
// have by the file they are in, where it holds none. The result is the
// caller's.
func (w *rewriter) identify(in rewriteInput, first int64, rec arrow.RecordBatch) arrow.RecordBatch {
	if w.meta.formatVersion < 3 {
		rec.Retain()
		return rec
	}
	cols := append([]arrow.Array(nil), rec.Columns()...)
	n := len(cols)
	ids := fill(cols[n-2].(*array.Int64), func(i int) int64 { return *in.firstRowID + first + int64(i) })
	defer ids.Release()
	sequences := fill(cols[n-1].(*array.Int64), func(int) int64 { return in.sequence })
	defer sequences.Release()
	cols[n-2], cols[n-1] = ids, sequences
	return array.NewRecordBatch(rec.Schema(), cols, rec.NumRows())
}

// fill replaces NULLs. The result is the caller's.
func fill(a *array.Int64, value func(i int) int64) arrow.Array {
	if a.NullN() == 0 {
		a.Retain()
		return a
	}
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	b.Reserve(a.Len())
	for i := range a.Len() {
		if a.IsNull(i) {
			b.UnsafeAppend(value(i))
		} else {
			b.UnsafeAppend(a.Value(i))
		}
	}
	return b.NewArray()
}

// liveRows are those of a batch that are not in dead, which holds positions of
// the file. The result is the caller's.
func liveRows(ctx context.Context, rec arrow.RecordBatch, first int64, dead *roaring.Bitmap) (arrow.RecordBatch, error) {
	end := first + rec.NumRows()
	if dead == nil || !dead.IntersectsWithInterval(uint64(first), uint64(end)) {
		rec.Retain()
		return rec, nil
	}
	live := make([]int64, 0, rec.NumRows())
	it := dead.Iterator()
	it.AdvanceIfNeeded(uint32(first))
	for row := first; row < end; row++ {
		if it.HasNext() && int64(it.PeekNext()) == row {
			it.Next()
			continue
		}
		live = append(live, row-first)
	}
	cols := make([]arrow.Array, rec.NumCols())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, c := range rec.Columns() {
		var err error
		if cols[i], err = takeRows(ctx, c, live); err != nil {
			return nil, err
		}
	}
	return array.NewRecordBatch(rec.Schema(), cols, int64(len(live))), nil
}

// take takes live rows of an input.
func (w *rewriter) take(ctx context.Context, rec arrow.RecordBatch) error {
	if w.sorter == nil {
		return w.write(rec)
	}
	w.rows += rec.NumRows()
	return w.sorter.add(ctx, rec)
}

// write passes a batch on, a small one with others: the encoder chooses by the
// first batch how columns are encoded, and spends on each.
func (w *rewriter) write(rec arrow.RecordBatch) error {
	if rec.NumRows() == 0 {
		return nil
	}
	rec.Retain()
	w.held = append(w.held, rec)
	w.rows += rec.NumRows()
	w.heldOf += rec.NumRows()
	for _, c := range rec.Columns() {
		w.heldB += dataBytes(c.Data())
	}
	if w.heldOf < readBatchRows/2 && w.heldB < readBatchBytes/2 {
		return nil
	}
	return w.flush()
}

func dataBytes(d arrow.ArrayData) (n int64) {
	for _, b := range d.Buffers() {
		if b != nil {
			n += int64(b.Len())
		}
	}
	for _, c := range d.Children() {
		n += dataBytes(c)
	}
	return n
}

// flush writes what is held back.
func (w *rewriter) flush() error {
	defer w.release()
	switch len(w.held) {
	case 0:
		return nil
	case 1:
		return w.encode(w.held[0])
	}
	cols := make([]arrow.Array, w.held[0].NumCols())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	parts := make([]arrow.Array, len(w.held))
	for i := range cols {
		for j, rec := range w.held {
			parts[j] = rec.Column(i)
		}
		var err error
		if cols[i], err = array.Concatenate(parts, memory.DefaultAllocator); err != nil {
			return err
		}
	}
	rec := array.NewRecordBatch(w.held[0].Schema(), cols, w.heldOf)
	defer rec.Release()
	return w.encode(rec)
}

// rewriteGroupBytes ends a row group of wide rows earlier than ingest does: the
// encoder's buffers grow by doubling, and an input's row group lies beside them.
const rewriteGroupBytes = 12 << 20

func (w *rewriter) encode(rec arrow.RecordBatch) error {
	if err := w.w.Write(rec); err != nil {
		return err
	}
	if w.w.group > 0 && w.w.pq.RowGroupTotalCompressedBytes() >= rewriteGroupBytes {
		w.w.endGroup()
	}
	return nil
}

func (w *rewriter) release() {
	for _, rec := range w.held {
		rec.Release()
	}
	clear(w.held)
	w.held, w.heldOf, w.heldB = w.held[:0], 0, 0
}

// pause lets others work after each batch.
func (w *rewriter) pause(ctx context.Context) error {
	err := w.t.o.Pacer.Pause(ctx, time.Since(w.mark))
	w.mark = time.Now()
	return err
}

// drop gives up what was not closed.
func (w *rewriter) drop() {
	w.release()
	if w.sorter != nil {
		w.sorter.close()
	}
	w.w.Abort()
}

// prove reads the output back from the store.
func (w *rewriter) prove(ctx context.Context, n *lake.NewFile) error {
	w.t.o.Footers.drop(n.Path) // the writer's
	w.mark = time.Now()        // the upload was no work of ours
	var got columns.Sum
	err := w.t.read(ctx, w.meta, n.Path, n.Bytes, w.fields, nil, func(_ int64, rec arrow.RecordBatch) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		hashes, err := w.sums.Hashes(rec)
		for _, h := range hashes {
			got.Add(h)
		}
		if err != nil {
			return err
		}
		return w.pause(ctx)
	})
	switch {
	case err != nil:
		return fmt.Errorf("read back %s: %w", n.Path, err)
	case got != w.sum || got.Rows != n.Rows:
		return fmt.Errorf("%s has %d rows of checksum %s, its inputs have %d live ones of checksum %s: %w",
			n.Path, got.Rows, got.Checksum(), w.sum.Rows, w.sum.Checksum(), lake.ErrRowsChanged)
	}
	return nil
}

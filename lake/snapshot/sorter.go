package snapshot

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go/table"
)

const (
	// sortRowsMax is how many rows are sorted into one file: the place of each is
	// held in memory, in four bytes.
	sortRowsMax = 16 << 20
	// sortRuns is how many runs are merged at a time, sortBatchBytes how much is
	// read of each, unless one row is more: together sortMergeBytes.
	sortRuns       = 64
	sortBatchBytes = 256 << 10
	sortMergeBytes = 2 * sortRuns * sortBatchBytes
	// mergedRows and mergedBytes end a batch of what is given out.
	mergedRows  = 32 << 10
	mergedBytes = 4 << 20
)

// sorter puts rows in order, in memory that doesn't grow with them but for four
// bytes a row: sorted runs of them go to local disk, in files that have no name,
// and are merged. Rows that are equal stay in the order in which they came.
//
// Rejected: sorting the keys of all rows first and then moving each row to its
// place. It reads the inputs twice, and the keys alone may be too many.
type sorter struct {
	dir     string
	limit   int64 // of what is held
	columns []int // of the batches, by which they are sorted
	fields  []table.SortField

	rows  int64 // added
	held  []arrow.RecordBatch
	bytes int64
	keys  sortKeys // of the rows held
	runs  []*sortRun
	order []uint32 // places of rows, by the order in which they came
}

// newSorter sorts batches with the given fields' columns.
func newSorter(dir string, limit int64, by []table.SortField, fields []int) (*sorter, error) {
	s := &sorter{dir: dir, limit: limit, fields: by}
	for _, f := range by {
		c := slices.Index(fields, f.SourceID())
		if c < 0 {
			return nil, fmt.Errorf("sort by field %d: it is not there", f.SourceID())
		}
		s.columns = append(s.columns, c)
	}
	return s, nil
}

// add takes rows; the batch stays the caller's.
func (s *sorter) add(ctx context.Context, rec arrow.RecordBatch) error {
	if rec.NumRows() == 0 {
		return nil
	}
	if err := s.keys.add(rec, s.columns, s.fields); err != nil {
		return err
	}
	rec.Retain()
	s.held = append(s.held, rec)
	s.rows += rec.NumRows()
	for _, c := range rec.Columns() {
		s.bytes += dataBytes(c.Data())
	}
	if s.bytes+3*s.keys.bytes() < s.limit { // thrice: they grow by doubling
		return nil
	}
	run := &sortRun{}
	s.runs = append(s.runs, run)
	if err := run.begin(s.dir); err != nil {
		return err
	}
	if err := s.sorted(ctx, run.write); err != nil {
		return err
	}
	return run.end()
}

// finish gives the rows out in order. The batches are fn's until it returns.
func (s *sorter) finish(ctx context.Context, fn func(arrow.RecordBatch) error) error {
	s.order = make([]uint32, s.rows)
	place := uint32(0)
	give := func(rec arrow.RecordBatch) error {
		n := int(rec.NumCols()) - 1
		for _, number := range rec.Column(n).(*array.Uint32).Uint32Values() {
			s.order[number] = place
			place++
		}
		out := array.NewRecordBatch(withoutLast(rec.Schema()), rec.Columns()[:n], rec.NumRows())
		defer out.Release()
		return fn(out)
	}
	if len(s.runs) == 0 {
		return s.sorted(ctx, give)
	}
	if len(s.held) > 0 {
		run := &sortRun{}
		s.runs = append(s.runs, run)
		if err := run.begin(s.dir); err != nil {
			return err
		}
		if err := s.sorted(ctx, run.write); err != nil {
			return err
		}
		if err := run.end(); err != nil {
			return err
		}
	}
	s.keys = sortKeys{}
	for {
		fit := s.fit()
		if fit >= len(s.runs) {
			return s.merge(ctx, s.runs, give)
		}
		n := max(2, min(fit, len(s.runs)-fit+1))
		run := &sortRun{}
		if err := run.begin(s.dir); err != nil {
			return err
		}
		err := s.merge(ctx, s.runs[:n], run.write)
		if err == nil {
			err = run.end()
		}
		for _, r := range s.runs[:n] {
			r.close()
		}
		// Behind the others, though its rows came before theirs: the numbers of
		// rows, not the order of runs, decide between equals.
		s.runs = append(slices.Clone(s.runs[n:]), run)
		if err != nil {
			return err
		}
	}
}

// fit is how many of the first runs can be merged.
func (s *sorter) fit() int {
	var bytes int64
	for i, r := range s.runs {
		bytes += r.batch
		if i >= 2 && (i >= sortRuns || bytes > sortMergeBytes) {
			return i
		}
	}
	return len(s.runs)
}

// sorted gives out the rows held, in order and with their numbers as one more
// column, and lets go of them.
func (s *sorter) sorted(ctx context.Context, fn func(arrow.RecordBatch) error) error {
	defer s.drop()
	if len(s.held) == 0 {
		return nil
	}
	n := len(s.keys.first)
	type row struct {
		first uint64
		at    uint32
	}
	rows := make([]row, n)
	for i, f := range s.keys.first {
		rows[i] = row{f, uint32(i)}
	}
	slices.SortFunc(rows, func(a, b row) int {
		if c := cmp.Compare(a.first, b.first); c != 0 {
			return c
		}
		return cmp.Or(compareKeys(&s.keys, int(a.at), &s.keys, int(b.at)), cmp.Compare(a.at, b.at))
	})
	before := uint32(s.rows) - uint32(n)
	at, numbers := make([]uint32, n), make([]uint32, n)
	for i, r := range rows {
		at[i], numbers[i] = r.at, before+r.at
	}
	schema := s.held[0].Schema()
	cols := make([]arrow.Array, schema.NumFields(), schema.NumFields()+1)
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	indices := uint32Array(at)
	defer indices.Release()
	parts := make([]arrow.Array, len(s.held))
	for i := range cols {
		for j, rec := range s.held {
			parts[j] = rec.Column(i)
		}
		all, err := array.Concatenate(parts, memory.DefaultAllocator)
		if err != nil {
			return err
		}
		cols[i], err = take(ctx, all, indices)
		all.Release()
		if err != nil {
			return err
		}
	}
	cols = append(cols, uint32Array(numbers))
	rec := array.NewRecordBatch(withNumbers(schema), cols, int64(n))
	defer rec.Release()
	step := min(mergedRows, max(1, mergedBytes*int64(n)/max(1, s.bytes)))
	for off := int64(0); off < int64(n); off += step {
		part := rec.NewSlice(off, min(off+step, int64(n)))
		err := fn(part)
		part.Release()
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// drop lets go of the rows held.
func (s *sorter) drop() {
	for _, rec := range s.held {
		rec.Release()
	}
	clear(s.held)
	s.held, s.bytes = s.held[:0], 0
	s.keys.reset()
}

// close frees what is held, on disk too.
func (s *sorter) close() {
	s.drop()
	for _, r := range s.runs {
		r.close()
	}
	s.runs = nil
}

func uint32Array(v []uint32) arrow.Array {
	data := array.NewData(arrow.PrimitiveTypes.Uint32, len(v), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Uint32Traits.CastToBytes(v))}, nil, 0, 0)
	defer data.Release()
	return array.NewUint32Data(data)
}

// withNumbers is a schema with one more column, for the rows' numbers.
func withNumbers(s *arrow.Schema) *arrow.Schema {
	return arrow.NewSchema(append(s.Fields(), arrow.Field{Name: "", Type: arrow.PrimitiveTypes.Uint32}), nil)
}

func withoutLast(s *arrow.Schema) *arrow.Schema {
	return arrow.NewSchema(s.Fields()[:s.NumFields()-1], nil)
}

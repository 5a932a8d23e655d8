package snapshot

import (
	"bufio"
	"container/heap"
	"context"
	"errors"
	"io"
	"os"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// sortRun holds sorted rows, with their numbers as the last column, in a
// temporary file of Arrow batches. They are not compressed: LZ4 would take a tenth
// of a rewrite's CPU time, for a file that is soon gone.
type sortRun struct {
	file  *os.File
	buf   *bufio.Writer
	out   *ipc.Writer
	batch int64 // bytes in memory of its largest, keys included: at most as much again
}

// begin makes the file, which has no name and so is gone with the process.
func (r *sortRun) begin(dir string) (err error) {
	if r.file, err = os.CreateTemp(dir, "firn-*.run"); err != nil {
		return err
	}
	r.buf = bufio.NewWriterSize(r.file, 256<<10)
	return os.Remove(r.file.Name())
}

// write appends rows, in small batches: of each run one lies in memory when
// they are merged.
func (r *sortRun) write(rec arrow.RecordBatch) error {
	if r.out == nil {
		r.out = ipc.NewWriter(r.buf, ipc.WithSchema(rec.Schema()))
	}
	rows := rec.NumRows()
	step := max(1, sortBatchBytes*rows/max(1, slicedBytes(rec)))
	for off := int64(0); off < rows; off += step {
		part := rec.NewSlice(off, min(off+step, rows))
		r.batch = max(r.batch, 2*slicedBytes(part))
		err := r.out.Write(part)
		part.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// slicedBytes is about how much the rows of a batch take that may be a slice.
func slicedBytes(rec arrow.RecordBatch) (n int64) {
	for _, c := range rec.Columns() {
		d := c.Data()
		width := meanWidth(c)
		if t, ok := d.DataType().(arrow.FixedWidthDataType); ok {
			width = int64(t.BitWidth()+7) / 8
		}
		n += width * rec.NumRows()
	}
	return n
}

func (r *sortRun) end() error {
	err := errors.Join(r.out.Close(), r.buf.Flush())
	r.out, r.buf = nil, nil
	return err
}

// close frees the file.
func (r *sortRun) close() {
	if r.file != nil {
		_ = r.file.Close() // it has no name
		r.file = nil
	}
}

// sortCursor reads a run.
type sortCursor struct {
	in    *ipc.Reader
	piece *sortPiece
	keys  sortKeys // of its batch
	bytes int64    // a row's of it
}

// sortPiece is the rows [from, at) of a batch, which are to be given out next.
type sortPiece struct {
	rec      arrow.RecordBatch
	from, at int64
	next     uint32 // of them, among the rows of all pieces
}

// merge gives out the rows of runs in order, with their numbers.
func (s *sorter) merge(ctx context.Context, runs []*sortRun, fn func(arrow.RecordBatch) error) (err error) {
	m := &sortMerge{s: s}
	defer m.close()
	for _, r := range runs {
		if _, err := r.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		in, err := ipc.NewReader(bufio.NewReaderSize(r.file, 64<<10))
		if err != nil {
			return err
		}
		c := &sortCursor{in: in}
		m.cursors = append(m.cursors, c)
		if more, err := m.read(c); err != nil {
			return err
		} else if !more {
			m.cursors = m.cursors[:len(m.cursors)-1]
			in.Release()
		}
	}
	heap.Init(m)
	var bytes int64
	for len(m.cursors) > 0 {
		c := m.cursors[0]
		m.picks = append(m.picks, c.piece)
		bytes += c.bytes
		c.piece.at++
		more := true
		if c.piece.at == c.piece.rec.NumRows() {
			if more, err = m.read(c); err != nil {
				return err
			}
		}
		if more {
			heap.Fix(m, 0)
		} else {
			heap.Pop(m)
		}
		if len(m.picks) >= mergedRows || bytes >= mergedBytes {
			if err := m.flush(ctx, fn); err != nil {
				return err
			}
			bytes = 0
		}
	}
	return m.flush(ctx, fn)
}

// sortMerge is a merge under way: a heap of cursors by their next rows.
type sortMerge struct {
	s       *sorter
	cursors []*sortCursor
	pieces  []*sortPiece // that rows to be given out are of, and those of the cursors
	picks   []*sortPiece // whose row comes next, for each row to be given out
}

func (m *sortMerge) Len() int      { return len(m.cursors) }
func (m *sortMerge) Swap(i, j int) { m.cursors[i], m.cursors[j] = m.cursors[j], m.cursors[i] }
func (m *sortMerge) Push(any)      {}

func (m *sortMerge) Less(i, j int) bool {
	a, b := m.cursors[i], m.cursors[j]
	c := compareKeys(&a.keys, int(a.piece.at), &b.keys, int(b.piece.at))
	return c < 0 || c == 0 && a.piece.number() < b.piece.number()
}

func (m *sortMerge) Pop() any {
	last := len(m.cursors) - 1
	m.cursors[last].in.Release()
	m.cursors = m.cursors[:last]
	return nil
}

// number of the next row.
func (p *sortPiece) number() uint32 {
	return p.rec.Column(int(p.rec.NumCols()) - 1).(*array.Uint32).Value(int(p.at))
}

// read goes on to a run's next batch; false at its end.
func (m *sortMerge) read(c *sortCursor) (bool, error) {
	for c.in.Next() {
		rec := c.in.RecordBatch()
		if rec.NumRows() == 0 {
			continue
		}
		c.keys.reset()
		if err := c.keys.add(rec, m.s.columns, m.s.fields); err != nil {
			return false, err
		}
		c.bytes = max(1, slicedBytes(rec)/rec.NumRows())
		rec.Retain()
		c.piece = &sortPiece{rec: rec}
		m.pieces = append(m.pieces, c.piece)
		return true, nil
	}
	return false, c.in.Err()
}

// flush gives the picked rows out: copied together piece by piece, then picked.
func (m *sortMerge) flush(ctx context.Context, fn func(arrow.RecordBatch) error) error {
	if err := ctx.Err(); err != nil || len(m.picks) == 0 {
		return err
	}
	var used []*sortPiece
	before := uint32(0)
	for _, p := range m.pieces {
		if p.at > p.from {
			p.next = before
			before += uint32(p.at - p.from)
			used = append(used, p)
		}
	}
	at := make([]uint32, len(m.picks))
	for i, p := range m.picks {
		at[i] = p.next
		p.next++
	}
	indices := uint32Array(at)
	defer indices.Release()
	schema := used[0].rec.Schema()
	cols := make([]arrow.Array, schema.NumFields())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	parts := make([]arrow.Array, len(used))
	for i := range cols {
		for j, p := range used {
			parts[j] = array.NewSlice(p.rec.Column(i), p.from, p.at)
		}
		all, err := array.Concatenate(parts, memory.DefaultAllocator)
		for _, part := range parts {
			part.Release()
		}
		if err != nil {
			return err
		}
		cols[i], err = take(ctx, all, indices)
		all.Release()
		if err != nil {
			return err
		}
	}
	keep := m.pieces[:0]
	for _, p := range m.pieces {
		if p.from = p.at; p.at < p.rec.NumRows() {
			keep = append(keep, p)
		} else {
			p.rec.Release()
		}
	}
	clear(m.pieces[len(keep):])
	m.pieces = keep
	clear(m.picks)
	m.picks = m.picks[:0]
	rec := array.NewRecordBatch(schema, cols, int64(len(at)))
	defer rec.Release()
	return fn(rec)
}

func (m *sortMerge) close() {
	for _, c := range m.cursors {
		c.in.Release()
	}
	for _, p := range m.pieces {
		p.rec.Release()
	}
	m.cursors, m.pieces = nil, nil
}

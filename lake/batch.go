package lake

import (
	"fmt"
	"math/bits"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go/table"

	"firn/lake/column"
	"firn/lake/partition"
	"firn/wal"
)

const (
	batchRowsMax  = 64 << 10 // rows in a batch before it goes to the encoder
	batchBytesMax = 8 << 20  // wire bytes, the same
	// fixupBytes is what an unchanged TOAST value weighs until it is fetched,
	// which is portion by portion: the more of them are looked for together, the
	// fewer pages are read for the sake of one value.
	fixupBytes = 64
)

const _ = uint16(batchRowsMax - 1) // batch.order counts a batch's rows in 16 bits

// batch is a run of a table's new rows, in stream order. While it is open it
// grows in the table's builders and its dead rows are only marked; once
// flushed, the marked rows are left out and the others have a place in a file.
type batch struct {
	id     uint32
	rows   int
	bytes  int
	dead   []uint64 // bit per row that died before the flush; nil: none
	fixups []fixup  // by row

	rank   []uint32 // live rows before each word of dead; nil if dead is, or order is not
	shares []share  // nil until flushed
	// order, of a partitioned table, is where each live row is among the live
	// ones, sorted by share.
	order []uint16
}

// share is the rows of a batch that went to one file.
type share struct {
	file    *dataFile
	start   uint32 // position in file of the first of them
	first   uint32 // of them, in the batch's order
	missing []fixup
}

// fixup is a cell whose value Postgres did not send because it had not changed
// (TOAST): it stands in an older row of the same table.
type fixup struct {
	row  int
	col  int // index into Layout.Columns
	file *dataFile
	pos  uint32
	enc  *encoder // of file, while it is not yet part of a snapshot
}

// kill marks a row of an open batch; false if it was marked already.
func (b *batch) kill(row uint32) bool {
	w := int(row / 64)
	for len(b.dead) <= w {
		b.dead = append(b.dead, 0)
	}
	if b.dead[w]&(1<<(row%64)) != 0 {
		return false
	}
	b.dead[w] |= 1 << (row % 64)
	return true
}

func (b *batch) isDead(row uint32) bool {
	w := int(row / 64)
	return w < len(b.dead) && b.dead[w]&(1<<(row%64)) != 0
}

// flushed fixes the rows' places: the live ones in order, from start on. It
// returns their number.
func (b *batch) flushed(f *dataFile, start uint32) uint32 {
	b.shares = []share{{file: f, start: start}}
	if b.dead == nil {
		return uint32(b.rows)
	}
	b.rank = make([]uint32, len(b.dead)+1)
	var live uint32
	for w := range b.dead {
		b.rank[w] = live
		live += uint32(min(64, b.rows-64*w)) - uint32(bits.OnesCount64(b.dead[w]))
	}
	b.rank[len(b.dead)] = live
	return live + uint32(max(0, b.rows-64*len(b.dead)))
}

// scatter fixes the rows' order by partition. Their shares have no file yet.
func (b *batch) scatter(parts []partition.Part) {
	b.order = make([]uint16, b.rows)
	b.shares = make([]share, len(parts))
	next := 0
	for i := range parts {
		b.shares[i].first = uint32(next)
		for _, row := range parts[i].Rows {
			b.order[row] = uint16(next)
			next++
		}
	}
	for _, f := range b.fixups {
		if b.isDead(uint32(f.row)) {
			continue
		}
		n := uint32(b.order[f.row])
		s := b.share(n)
		f.row = int(n - s.first)
		s.missing = append(s.missing, f)
	}
}

// share is that of the n-th live row in order.
func (b *batch) share(n uint32) *share {
	return &b.shares[sort.Search(len(b.shares), func(i int) bool { return b.shares[i].first > n })-1]
}

// missing returns the fixups of a share's rows that were alive at the flush, in
// stream order; their rows are counted among those.
func (b *batch) missing(share int) []fixup {
	if b.order != nil {
		return b.shares[share].missing
	}
	var out []fixup
	for _, f := range b.fixups {
		if !b.isDead(uint32(f.row)) {
			f.row = int(b.position(uint32(f.row)))
			out = append(out, f)
		}
	}
	return out
}

// fixup returns that of a cell, if its value is not there.
func (b *batch) fixup(row, col int) (fixup, bool) {
	i := sort.Search(len(b.fixups), func(i int) bool { return b.fixups[i].row >= row })
	for ; i < len(b.fixups) && b.fixups[i].row == row; i++ {
		if b.fixups[i].col == col {
			return b.fixups[i], true
		}
	}
	return fixup{}, false
}

// place is the file and the position there of a row that was alive at the flush.
func (b *batch) place(row uint32) (*dataFile, uint32) {
	if b.order == nil {
		return b.shares[0].file, b.shares[0].start + b.position(row)
	}
	n := uint32(b.order[row])
	s := b.share(n)
	return s.file, s.start + n - s.first
}

// position counts the rows before one that were alive at the flush too.
func (b *batch) position(row uint32) uint32 {
	if b.dead == nil {
		return row
	}
	w := int(row / 64)
	if w >= len(b.dead) {
		return b.rank[len(b.dead)] + row - uint32(64*len(b.dead))
	}
	before := ^b.dead[w] & (1<<(row%64) - 1)
	return b.rank[w] + uint32(bits.OnesCount64(before))
}

// rowBuilder turns tuples into Arrow columns. It is the owner's.
type rowBuilder struct {
	layout  *Layout
	schema  *arrow.Schema
	columns []rowColumn
	cells   []column.Appender
	wire    []int // the current Relation's columns → layout columns

	last int // rows of the last batch
}

// rowColumn is where the values of one column go: a builder of Arrow's, or one of
// our own where these are strings.
type rowColumn struct {
	b     array.Builder
	s     *column.Strings
	bytes int // of the last batch's strings
}

func newRowBuilder(mem memory.Allocator, l *Layout) (*rowBuilder, error) {
	schema, err := table.SchemaToArrowSchema(l.Schema(), nil, true, false)
	if err != nil {
		return nil, fmt.Errorf("make Arrow schema: %w", err)
	}
	r := &rowBuilder{layout: l, schema: schema, cells: make([]column.Appender, len(l.Columns)), columns: make([]rowColumn, len(l.Columns))}
	for i := range l.Columns {
		codec, c := l.Columns[i].codec, &r.columns[i]
		if c.s = codec.Strings(); c.s != nil {
			r.cells[i] = codec.BindStrings(c.s)
		} else {
			c.b = array.NewBuilder(mem, schema.Field(i).Type)
			r.cells[i] = codec.Bind(c.b)
		}
	}
	return r, nil
}

// release drops what was appended. No row may follow.
func (r *rowBuilder) release() {
	for _, c := range r.columns {
		if c.b != nil {
			c.b.Release()
		}
	}
}

// append adds one row; toasted is called for each column whose value was left
// out as unchanged, and must append it or a NULL to be replaced. An error
// leaves the builder's columns uneven: no row may follow.
func (r *rowBuilder) append(row wal.Tuple, toasted func(col int) error) (size int, err error) {
	if len(row) != len(r.wire) {
		return 0, fmt.Errorf("append row: %d columns, the relation has %d", len(row), len(r.wire))
	}
	for i := range row {
		v := &row[i]
		col := r.wire[i]
		cell := r.cells[col]
		switch v.Kind {
		case 't':
			err = cell.Text(v.Data)
		case 'b':
			err = cell.Binary(v.Data)
		case 'n':
			cell.Null()
		case 'u':
			s, had := r.columns[col].s, 0
			if s != nil {
				had = s.DataLen()
			}
			err = toasted(col)
			size += fixupBytes
			if s != nil {
				size += s.DataLen() - had // it was copied
			}
		default:
			err = fmt.Errorf("column kind %q", v.Kind)
		}
		if err != nil {
			return 0, fmt.Errorf("column %s: %w", r.layout.Columns[col].Name, err)
		}
		size += len(v.Data) + 8
	}
	return size, nil
}

// copyable says whether copyCell works for the column.
func (r *rowBuilder) copyable(col int) bool { return r.columns[col].s != nil }

// copyCell appends an earlier cell of the same copyable column again.
func (r *rowBuilder) copyCell(col, row int) {
	s := r.columns[col].s
	if s.IsNull(row) {
		s.AppendNull()
	} else {
		s.Append(s.Value(row))
	}
}

// grown is told the number of rows so far. At an eighth of the last batch it
// makes room for as much as that had: builders that double again and again
// allocate twice as much, and room for all from the first row on would be a
// waste where a thousand tables have a few rows each.
func (r *rowBuilder) grown(rows int) {
	if rows != r.last/8 || rows == 0 {
		return
	}
	for _, c := range r.columns {
		if c.s != nil {
			c.s.Reserve(r.last-rows, max(0, c.bytes-c.s.DataLen()))
		} else {
			c.b.Reserve(r.last - rows)
		}
	}
}

// take ends the rows so far as a record, which the caller releases.
func (r *rowBuilder) take() arrow.RecordBatch {
	columns := make([]arrow.Array, len(r.columns))
	for i := range r.columns {
		c := &r.columns[i]
		if c.s != nil {
			r.last, c.bytes = c.s.Len(), c.s.DataLen()
			columns[i] = c.s.NewArray()
		} else {
			r.last = c.b.Len()
			columns[i] = c.b.NewArray()
		}
		defer columns[i].Release()
	}
	return array.NewRecordBatch(r.schema, columns, int64(r.last))
}

package audit

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/zeebo/xxh3"
)

// Counts of rows.
type Counts struct {
	Inserted int64 `json:"inserted"`
	Updated  int64 `json:"updated"`
	Deleted  int64 `json:"deleted"`
}

// Changes are some rows that differ in one way: inserted where Old is nil,
// deleted where New is nil, otherwise updated, row i of Old having become row i
// of New. The records are the receiver's until it returns.
type Changes struct{ Old, New arrow.RecordBatch }

// Rows gives every difference to fn, in no order that means anything. It can be
// called again.
func (d *Diff) Rows(ctx context.Context, fn func(Changes) error) (Counts, error) {
	var counts Counts
	emit := func(c Changes) error {
		switch {
		case c.Old == nil:
			counts.Inserted += c.New.NumRows()
		case c.New == nil:
			counts.Deleted += c.Old.NumRows()
		default:
			counts.Updated += c.New.NumRows()
		}
		return fn(c)
	}
	m := marker{d: d, schema: arrow.NewSchema(append(slices.Clone(d.schema.Fields()), marks...), nil), hasher: hasher{key: d.key}}
	p := &pile{mem: d.o.Allocator, schema: m.schema, dir: d.o.TempDir, limit: d.o.MemoryBytes,
		key: func(rec arrow.RecordBatch, row int) xxh3.Uint128 { return marksOf(rec).key(row) }}
	err := d.rows(ctx, func(old bool, rec arrow.RecordBatch) error {
		marked, err := m.mark(old, rec)
		if err != nil {
			return err
		}
		defer marked.Release()
		return p.add(ctx, marked)
	})
	if err != nil {
		_ = p.close() // unnamed files, of which nothing is needed any more
	} else {
		err = p.drain(ctx, func(rows batches) error {
			j := joiner{d: d, ctx: ctx, marked: m.schema, emit: emit}
			defer j.close()
			return j.join(rows)
		})
	}
	if err != nil {
		return counts, fmt.Errorf("diff %s: %w", d.Table, err)
	}
	return counts, nil
}

// marks are columns that rows have while they are compared: the hashes of all
// values and of the key, and the side that they come from.
var marks = []arrow.Field{
	{Name: "all_hi", Type: arrow.PrimitiveTypes.Uint64}, {Name: "all_lo", Type: arrow.PrimitiveTypes.Uint64},
	{Name: "key_hi", Type: arrow.PrimitiveTypes.Uint64}, {Name: "key_lo", Type: arrow.PrimitiveTypes.Uint64},
	{Name: "old", Type: arrow.FixedWidthTypes.Boolean},
}

type marked struct {
	hashes [4]*array.Uint64
	old    *array.Boolean
}

func marksOf(rec arrow.RecordBatch) marked {
	first := int(rec.NumCols()) - len(marks)
	var m marked
	for i := range m.hashes {
		m.hashes[i] = rec.Column(first + i).(*array.Uint64)
	}
	m.old = rec.Column(first + len(m.hashes)).(*array.Boolean)
	return m
}

func (m marked) all(i int) xxh3.Uint128 {
	return xxh3.Uint128{Hi: m.hashes[0].Value(i), Lo: m.hashes[1].Value(i)}
}

func (m marked) key(i int) xxh3.Uint128 {
	return xxh3.Uint128{Hi: m.hashes[2].Value(i), Lo: m.hashes[3].Value(i)}
}

// marker adds the marks.
type marker struct {
	d      *Diff
	schema *arrow.Schema
	hasher hasher
	row    [][]byte
	cells  [][]byte // scratch space of row
}

// mark returns a record that the caller releases.
func (m *marker) mark(old bool, rec arrow.RecordBatch) (arrow.RecordBatch, error) {
	n := int(rec.NumCols())
	if m.row == nil {
		m.row, m.cells = make([][]byte, n), make([][]byte, n)
	}
	b := array.NewRecordBuilder(m.d.o.Allocator, arrow.NewSchema(marks, nil))
	defer b.Release()
	b.Reserve(int(rec.NumRows()))
	var hashes [4]*array.Uint64Builder
	for i := range hashes {
		hashes[i] = b.Field(i).(*array.Uint64Builder)
	}
	for r := range int(rec.NumRows()) {
		for i, arr := range rec.Columns() {
			if m.row[i] = nil; arr.IsNull(r) {
				continue
			}
			var err error
			if m.cells[i], err = appendPlain(m.cells[i][:0], arr, r); err != nil {
				return nil, fmt.Errorf("column %s: %w", m.d.columns[i].name, err)
			}
			if m.row[i] = m.cells[i]; m.row[i] == nil {
				m.row[i] = []byte{} // an empty string is no NULL
			}
		}
		all, key := m.hasher.hash(m.row)
		for i, v := range []uint64{all.Hi, all.Lo, key.Hi, key.Lo} {
			hashes[i].UnsafeAppend(v)
		}
		b.Field(len(hashes)).(*array.BooleanBuilder).UnsafeAppend(old)
	}
	added := b.NewRecordBatch()
	defer added.Release()
	return array.NewRecordBatch(m.schema, slices.Concat(rec.Columns(), added.Columns()), rec.NumRows()), nil
}

// joiner joins the rows of some keys. Of the old side's rows come first.
type joiner struct {
	d      *Diff
	ctx    context.Context
	marked *arrow.Schema
	emit   func(Changes) error
	// surplus is how many more rows of the same values the old side has.
	surplus map[xxh3.Uint128]int32

	gone []arrow.RecordBatch // old rows of which the new side has none
	// The same once the last of them has come, as one record, each key's first
	// place in it that has not been paired, and after each place the next one
	// of its key.
	old   arrow.RecordBatch
	first map[xxh3.Uint128]int32
	next  []int32
}

func (j *joiner) join(rows batches) error {
	j.surplus = map[xxh3.Uint128]int32{}
	err := rows(func(rec arrow.RecordBatch) error {
		m := marksOf(rec)
		for i := range int(rec.NumRows()) {
			if h := m.all(i); m.old.Value(i) {
				j.surplus[h]++
			} else if n := j.surplus[h]; n == 1 {
				delete(j.surplus, h)
			} else {
				j.surplus[h] = n - 1
			}
		}
		return j.ctx.Err()
	})
	if err != nil {
		return err
	}
	if err := rows(j.record); err != nil {
		return err
	}
	if err := j.index(); err != nil || j.old == nil {
		return err
	}
	var deleted []int64
	for _, i := range j.first {
		for ; i >= 0; i = j.next[i] {
			deleted = append(deleted, int64(i))
		}
	}
	slices.Sort(deleted)
	return j.give(j.old, deleted, nil, nil)
}

// record takes one record of both sides' rows, and tells those apart that have
// no equal on the other side.
func (j *joiner) record(rec arrow.RecordBatch) error {
	m := marksOf(rec)
	var gone, come []int64
	for i := range int(rec.NumRows()) {
		h := m.all(i)
		switch n := j.surplus[h]; {
		case n > 0 && m.old.Value(i):
			j.surplus[h] = n - 1
			gone = append(gone, int64(i))
		case n < 0 && !m.old.Value(i):
			j.surplus[h] = n + 1
			come = append(come, int64(i))
		}
	}
	if len(j.d.key) == 0 {
		if err := j.give(rec, gone, nil, nil); err != nil {
			return err
		}
		return j.give(nil, nil, rec, come)
	}
	if len(gone) > 0 {
		part, err := pick(j.ctx, j.d.o.Allocator, rec, gone)
		if err != nil {
			return err
		}
		j.gone = append(j.gone, part)
	}
	if len(come) == 0 {
		return nil
	}
	if err := j.index(); err != nil {
		return err
	}
	var inserted, before, after []int64
	for _, i := range come {
		key := m.key(int(i))
		at, ok := j.first[key]
		if !ok || at < 0 {
			inserted = append(inserted, i)
			continue
		}
		j.first[key] = j.next[at]
		before, after = append(before, int64(at)), append(after, i)
	}
	if err := j.give(j.old, before, rec, after); err != nil {
		return err
	}
	return j.give(nil, nil, rec, inserted)
}

// index makes one record of the gone rows.
func (j *joiner) index() error {
	if len(j.gone) == 0 {
		return nil
	}
	var err error
	if j.old, err = concat(j.d.o.Allocator, j.marked, j.gone); err != nil {
		return err
	}
	release(j.gone)
	j.gone = nil
	m := marksOf(j.old)
	j.first, j.next = map[xxh3.Uint128]int32{}, make([]int32, j.old.NumRows())
	for i := len(j.next) - 1; i >= 0; i-- {
		key := m.key(i)
		j.next[i] = -1
		if at, ok := j.first[key]; ok {
			j.next[i] = at
		}
		j.first[key] = int32(i)
	}
	return nil
}

// give emits the chosen rows, a bounded number at a time.
func (j *joiner) give(old arrow.RecordBatch, oldRows []int64, new arrow.RecordBatch, newRows []int64) error {
	const atOnce = 16 << 10
	side := func(rec arrow.RecordBatch, rows []int64, from int) (arrow.RecordBatch, error) {
		if len(rows) == 0 {
			return nil, nil
		}
		part, err := pick(j.ctx, j.d.o.Allocator, rec, rows[from:min(len(rows), from+atOnce)])
		if err != nil {
			return nil, err
		}
		defer part.Release()
		return array.NewRecordBatch(j.d.schema, part.Columns()[:j.d.schema.NumFields()], part.NumRows()), nil
	}
	for from := 0; from < max(len(oldRows), len(newRows)); from += atOnce {
		var c Changes
		var err error
		if c.Old, err = side(old, oldRows, from); err == nil {
			c.New, err = side(new, newRows, from)
		}
		if err == nil {
			err = j.emit(c)
		}
		for _, rec := range []arrow.RecordBatch{c.Old, c.New} {
			if rec != nil {
				rec.Release()
			}
		}
		if err != nil {
			return err
		}
	}
	return j.ctx.Err()
}

func (j *joiner) close() {
	release(j.gone)
	if j.old != nil {
		j.old.Release()
	}
}

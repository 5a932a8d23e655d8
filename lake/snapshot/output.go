package snapshot

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// output gathers the pieces of scattered reads into batches.
type output struct {
	fn        func(int64, arrow.RecordBatch) error
	schema    *arrow.Schema
	positions bool
	rowsMax   int64 // gathered at most, if positions
	first     int64
	rows      int64
	pieces    int
	parts     [][]arrow.Array // by column
}

// add takes the columns over.
func (o *output) add(columns []arrow.Array, rows int64) error {
	if o.parts == nil {
		o.parts = make([][]arrow.Array, len(columns))
	}
	for i, c := range columns {
		o.parts[i] = append(o.parts[i], c)
		columns[i] = nil
	}
	o.rows += rows
	o.pieces++
	if o.positions && o.rows < o.rowsMax && o.pieces < gatherPieces {
		return nil
	}
	return o.flush()
}

func (o *output) flush() error {
	if o.rows == 0 {
		return nil
	}
	columns := make([]arrow.Array, len(o.parts))
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, parts := range o.parts {
		if len(parts) == 1 {
			columns[i] = parts[0]
			columns[i].Retain()
			continue
		}
		var err error
		if columns[i], err = array.Concatenate(parts, memory.DefaultAllocator); err != nil {
			return err
		}
	}
	rec := array.NewRecordBatch(o.schema, columns, o.rows)
	defer rec.Release()
	first := o.first
	o.first += o.rows
	o.release()
	return o.fn(first, rec)
}

func (o *output) release() {
	for _, parts := range o.parts {
		for _, a := range parts {
			a.Release()
		}
	}
	o.parts, o.rows, o.pieces = nil, 0, 0
}

// fit makes one array of the wanted type and rows of what was read.
func fit(ctx context.Context, chunks *arrow.Chunked, take []int64, typ arrow.DataType) (arrow.Array, error) {
	var a arrow.Array
	if parts := chunks.Chunks(); len(parts) == 1 {
		a = parts[0]
		a.Retain()
	} else {
		var err error
		if a, err = array.Concatenate(parts, memory.DefaultAllocator); err != nil {
			return nil, err
		}
	}
	steps := []func(arrow.Array) (arrow.Array, error){
		func(a arrow.Array) (arrow.Array, error) { return takeRows(ctx, a, take) },
		func(a arrow.Array) (arrow.Array, error) { return convert(ctx, a, typ) },
	}
	for _, step := range steps {
		next, err := step(a)
		a.Release()
		if err != nil {
			return nil, err
		}
		a = next
	}
	return a, nil
}

// takeRows picks rows; nil means all.
func takeRows(ctx context.Context, a arrow.Array, rows []int64) (arrow.Array, error) {
	if rows == nil {
		a.Retain()
		return a, nil
	}
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues(rows, nil)
	indices := b.NewArray()
	defer indices.Release()
	return take(ctx, a, indices)
}

// take picks rows by whole numbers.
func take(ctx context.Context, a, indices arrow.Array) (arrow.Array, error) {
	if ext, ok := a.(array.ExtensionArray); ok {
		storage, err := compute.TakeArray(ctx, ext.Storage(), indices)
		if err != nil {
			return nil, err
		}
		defer storage.Release()
		return array.NewExtensionArrayWithStorage(ext.ExtensionType(), storage), nil
	}
	return compute.TakeArray(ctx, a, indices)
}

// convert promotes an older file's type to the field's, and undoes what other
// writers' Arrow types add.
func convert(ctx context.Context, a arrow.Array, typ arrow.DataType) (arrow.Array, error) {
	if arrow.TypeEqual(a.DataType(), typ) {
		a.Retain()
		return a, nil
	}
	if ext, ok := typ.(arrow.ExtensionType); ok {
		if have, ok := a.(array.ExtensionArray); ok {
			a = have.Storage()
		}
		if !arrow.TypeEqual(a.DataType(), ext.StorageType()) {
			return nil, fmt.Errorf("it is %s, not %s", a.DataType(), typ)
		}
		return array.NewExtensionArrayWithStorage(ext, a), nil
	}
	return compute.CastArray(ctx, a, compute.SafeCastOptions(typ))
}

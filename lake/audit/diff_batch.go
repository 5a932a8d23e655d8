package audit

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// pick makes a record of some rows of rec, which the caller releases.
func pick(ctx context.Context, mem memory.Allocator, rec arrow.RecordBatch, rows []int64) (arrow.RecordBatch, error) {
	b := array.NewInt64Builder(mem)
	defer b.Release()
	b.AppendValues(rows, nil)
	indices := b.NewArray()
	defer indices.Release()
	columns := make([]arrow.Array, rec.NumCols())
	defer release(columns)
	for i, c := range rec.Columns() {
		var err error
		if columns[i], err = take(compute.WithAllocator(ctx, mem), c, indices); err != nil {
			return nil, err
		}
	}
	return array.NewRecordBatch(rec.Schema(), columns, int64(len(rows))), nil
}

func take(ctx context.Context, a, indices arrow.Array) (arrow.Array, error) {
	ext, ok := a.(array.ExtensionArray)
	if !ok {
		return compute.TakeArray(ctx, a, indices)
	}
	storage, err := compute.TakeArray(ctx, ext.Storage(), indices)
	if err != nil {
		return nil, err
	}
	defer storage.Release()
	return array.NewExtensionArrayWithStorage(ext.ExtensionType(), storage), nil
}

// concat makes one record of many, which the caller releases.
func concat(mem memory.Allocator, schema *arrow.Schema, recs []arrow.RecordBatch) (arrow.RecordBatch, error) {
	if len(recs) == 1 {
		recs[0].Retain()
		return recs[0], nil
	}
	var rows int64
	for _, r := range recs {
		rows += r.NumRows()
	}
	columns := make([]arrow.Array, schema.NumFields())
	defer release(columns)
	parts := make([]arrow.Array, len(recs))
	for i := range columns {
		for j, r := range recs {
			parts[j] = r.Column(i)
		}
		var err error
		if columns[i], err = array.Concatenate(parts, mem); err != nil {
			return nil, err
		}
	}
	return array.NewRecordBatch(schema, columns, rows), nil
}

func release[T interface{ Release() }](of []T) {
	for _, x := range of {
		if any(x) != nil {
			x.Release()
		}
	}
}

// sizeOf is the bytes of a record's buffers.
func sizeOf(rec arrow.RecordBatch) int64 {
	var n int64
	for _, c := range rec.Columns() {
		n += sizeOfData(c.Data())
	}
	return n
}

func sizeOfData(d arrow.ArrayData) int64 {
	var n int64
	for _, b := range d.Buffers() {
		if b != nil {
			n += int64(b.Len())
		}
	}
	for _, c := range d.Children() {
		n += sizeOfData(c)
	}
	return n
}

package audit

import (
	"context"
	"fmt"
	"slices"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"firn/lake/object"
	"firn/wal"
	"firn/wal/slot"
)

// reader calls fn with each row of one side, as plain forms, nil for NULL. A
// row is fn's until it returns.
type reader func(ctx context.Context, fn func(row [][]byte) error) error

// openLake reads an Iceberg table's metadata; what it names is read through the
// store.
func (v *verifier) openLake(ctx context.Context, metadata string) (*table.Table, error) {
	files := func(ctx context.Context) (iceio.IO, error) { return object.FileIO(ctx, v.Store), nil }
	t, err := table.NewFromLocation(ctx, nil, metadata, files, nil)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", metadata, err)
	}
	return t, nil
}

// lakeRows scans the columns of an Iceberg table.
func lakeRows(t *table.Table, columns []column) reader {
	return func(ctx context.Context, fn func(row [][]byte) error) error {
		if t.CurrentSnapshot() == nil {
			return nil // a table that nothing has been written to
		}
		names := make([]string, len(columns))
		for i, c := range columns {
			names[i] = c.name
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		schema, records, err := t.Scan(table.WithSelectedFields(names...)).ToArrowRecords(ctx)
		if err != nil {
			return fmt.Errorf("scan the lake's table: %w", err)
		}
		places := make([]int, len(columns))
		for i, name := range names {
			at := schema.FieldIndices(name)
			if len(at) != 1 {
				return fmt.Errorf("scan the lake's table: column %s came %d times", name, len(at))
			}
			places[i] = at[0]
		}
		row := make([][]byte, len(columns))
		cells := make([][]byte, len(columns)) // scratch space
		for rec, err := range records {
			if err != nil {
				return fmt.Errorf("scan the lake's table: %w", err)
			}
			for r := range int(rec.NumRows()) {
				for i, at := range places {
					row[i] = nil
					arr := rec.Column(at)
					if arr.IsNull(r) {
						continue
					}
					if cells[i], err = appendPlain(cells[i][:0], arr, r); err != nil {
						rec.Release()
						return fmt.Errorf("column %s: %w", columns[i].name, err)
					}
					row[i] = cells[i]
					if row[i] == nil {
						row[i] = []byte{} // an empty string is no NULL
					}
				}
				if err := fn(row); err != nil {
					rec.Release()
					return err
				}
			}
			rec.Release()
		}
		return ctx.Err()
	}
}

// postgresRows copies the columns of a table as the snapshot shows them.
func (v *verifier) postgresRows(sn *slot.Snapshot, t *wal.Table, columns []column) (reader, error) {
	cols := make([]slot.CopyColumn, len(columns))
	for i, c := range columns {
		expr, err := expression(quoteName(c.name), c.typ)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		cols[i] = slot.CopyColumn{Name: c.name, Expr: expr}
	}
	return func(ctx context.Context, fn func(row [][]byte) error) error {
		c, err := v.Source.Copier(ctx, sn, t, 1, 1)
		if err != nil {
			return err
		}
		defer c.Close()
		for _, part := range c.Ranges {
			if err := c.Copy(ctx, cols, part, fn); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// sameTable says whether a table has been left alone between two looks: its
// columns are the same, and no statement gave it (or its partitions) new files,
// which would show the snapshot an emptied or rewritten table.
func sameTable(a, b *wal.Table) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.OID == b.OID && a.FileNode == b.FileNode && a.Schema == b.Schema && a.Name == b.Name &&
		slices.EqualFunc(a.Columns, b.Columns, func(x, y wal.TableColumn) bool {
			return x.AttNum == y.AttNum && x.Name == y.Name && x.Type.OID == y.Type.OID && x.Type.Mod == y.Type.Mod && x.Generated == y.Generated
		}) &&
		slices.EqualFunc(a.Leaves, b.Leaves, func(x, y wal.Leaf) bool { return x.OID == y.OID && x.FileNode == y.FileNode })
}

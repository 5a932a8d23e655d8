package lake

import (
	"cmp"
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"firn/lake/index"
	"firn/wal"
)

// settle sees to it that values which row leaves out as unchanged can be had
// from the old row's place: out of the open batch if that kind of column can't
// be copied within it, out of a file that is still being written.
func (t *Table) settle(ctx context.Context, row wal.Tuple, was index.Loc) error {
	toasted, copyable := false, true
	for i := range row {
		if row[i].Kind == 'u' {
			toasted = true
			copyable = copyable && t.rows.copyable(t.rows.wire[i])
		}
	}
	if !toasted {
		return nil
	}
	f, _, b := t.resolve(was)
	if b != nil && !copyable {
		if err := t.flush(ctx); err != nil {
			return err
		}
		f, _, _ = t.resolve(was)
	}
	if f != nil && t.fan.isOpen(f) {
		t.fan.end(f)
	}
	return nil
}

// unchanged appends the value that column col had at was, or a NULL and a fixup.
func (t *Table) unchanged(ctx context.Context, b *batch, row, col int, was index.Loc) error {
	f, pos, src := t.resolve(was)
	if src != nil {
		if x, ok := src.fixup(int(was.Pos), col); ok {
			t.rows.cells[col].Null()
			x.row = row
			b.fixups = append(b.fixups, x)
			return nil
		}
		t.rows.copyCell(col, int(was.Pos))
		return nil
	}
	if f == nil {
		return fmt.Errorf("the unchanged value is nowhere")
	}
	x := fixup{row: row, col: col, file: f, pos: pos, enc: cmp.Or(f.enc, f.load)}
	if t.fan.partitions(col) {
		return t.fetch(ctx, x)
	}
	t.rows.cells[col].Null()
	b.fixups = append(b.fixups, x)
	return nil
}

// fetch appends the value of a column that partitions are made of: it is needed
// now. Only values of kilobytes come so.
func (t *Table) fetch(ctx context.Context, x fixup) error {
	if x.enc != nil {
		if err := x.enc.readable(ctx); err != nil {
			return fmt.Errorf("wait for %s: %w", x.file.path, err)
		}
	}
	found := false
	err := t.store.Read(ctx, x.file.path, t.layout.fields([]int{x.col}), []uint32{x.pos}, func(_ int64, rec arrow.RecordBatch) error {
		if rec.NumRows() == 0 || found {
			return nil
		}
		found = true
		return t.rows.cells[x.col].From(rec.Column(0), 0)
	})
	if err == nil && !found {
		err = fmt.Errorf("position %d is missing", x.pos)
	}
	if err != nil {
		return fmt.Errorf("read the unchanged value from %s: %w", x.file.path, err)
	}
	return nil
}

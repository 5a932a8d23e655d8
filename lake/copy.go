package lake

import (
	"context"
	"fmt"
	"sync"

	"github.com/apache/arrow-go/v18/arrow/array"
	"golang.org/x/sync/errgroup"

	"firn/lake/column"
	"firn/lake/index"
	"firn/lake/partition"
	"firn/wal"
)

// copyTable copies the table's parts side by side into files of the new
// layout, and their keys into the index.
func (s *session) copyTable(ctx context.Context, snap Snapshot, t *wal.Table, table *Table, p *progress, base uint64) ([]*NewFile, error) {
	if table.index != nil {
		if err := table.index.Reset(); err != nil {
			return nil, err
		}
	}
	text := make([]bool, len(t.Columns))
	for i, c := range t.Columns {
		if col := table.layout.attr(c.AttNum); col != nil {
			text[i] = !col.codec.Binary()
		}
	}
	var mu sync.Mutex // of the index, table.files and added
	var added []*dataFile
	parts, err := snap.Parts(ctx, t, s.o.LoadWorkers)
	if err != nil {
		return nil, err
	}
	copyAll := func(put func(index.Key, index.Loc) error) error {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(s.o.LoadWorkers)
		for _, part := range parts {
			g.Go(func() error {
				c := &copier{session: s, table: table, progress: p, mu: &mu, added: &added, put: put, key: newRowKey(table.layout)}
				return c.run(gctx, snap, t, part, text)
			})
		}
		return g.Wait()
	}
	if table.index != nil {
		err = table.index.Load(p.total.Load(), copyAll)
	} else {
		err = copyAll(func(index.Key, index.Loc) error { return nil })
	}
	if err != nil {
		return nil, err
	}
	s.o.Fail("in-load")
	var files []*NewFile
	for _, f := range added {
		n, err := f.enc.wait(ctx)
		if err != nil {
			return nil, err
		}
		if n != nil {
			files = append(files, n)
			table.live += n.Rows
		}
		f.enc, f.load = nil, f.enc // its upload may go on
	}
	if table.index != nil {
		if err := table.index.CommitLoad(base, 0, table.fileNames()); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// copier takes one part's rows.
type copier struct {
	session  *session
	table    *Table
	progress *progress
	key      *rowKey
	put      func(index.Key, index.Loc) error // under mu

	mu    *sync.Mutex
	added *[]*dataFile

	rows *rowBuilder
	fan  *fan
	open *batch
	keys []index.Key
}

func (c *copier) run(ctx context.Context, snap Snapshot, t *wal.Table, part Part, text []bool) error {
	var err error
	if c.rows, err = newRowBuilder(c.session.room.mem, c.table.layout); err != nil {
		return err
	}
	defer c.rows.release()
	c.open = &batch{}
	if c.fan, err = newFan(c.table.store, c.table.layout, c.session.room, c.begin); err != nil {
		return err
	}
	defer c.fan.endAll()
	if err := snap.Copy(ctx, t, part, text, func(row [][]byte) error { return c.take(ctx, row) }); err != nil {
		return err
	}
	return c.flush(ctx)
}

func (c *copier) take(ctx context.Context, row [][]byte) error {
	cols := c.table.layout.Columns
	if len(row) != len(cols) {
		return fmt.Errorf("COPY gave %d columns, the table has %d", len(row), len(cols))
	}
	size := 0
	for i, v := range row {
		if v == nil {
			c.rows.cells[i].Null()
		} else if err := c.rows.cells[i].Binary(v); err != nil {
			return &RowError{Table: c.table.Ident, Op: "COPY", Key: c.show(row), Err: fmt.Errorf("column %s: %w", cols[i].Name, err)}
		}
		size += len(v) + 8
	}
	if c.key != nil {
		c.key.begin()
		for i, k := range c.key.cols {
			if err := c.key.binary(i, row[k]); err != nil {
				return &RowError{Table: c.table.Ident, Op: "COPY", Key: c.show(row), Err: err}
			}
		}
		c.keys = append(c.keys, c.key.sum())
	}
	c.open.rows++
	c.open.bytes += size
	c.rows.grown(c.open.rows)
	if c.open.rows >= batchRowsMax || c.open.bytes >= batchBytesMax {
		return c.flush(ctx)
	}
	return nil
}

// show prints the key of a COPY row.
func (c *copier) show(row [][]byte) string {
	s := ""
	for i, k := range c.table.layout.key {
		if i > 0 {
			s += ", "
		}
		s += c.table.layout.Columns[k].Name + "=" + c.value(k, row[k])
	}
	return s
}

// flush hands the rows to the file's encoder and their keys to the index.
func (c *copier) flush(ctx context.Context) error {
	if c.open.rows == 0 {
		return nil
	}
	b := c.open
	if err := c.fan.put(ctx, c.rows.take(), b); err != nil {
		return err
	}
	if len(c.keys) > 0 {
		c.mu.Lock()
		for i, k := range c.keys {
			f, pos := b.place(uint32(i))
			if err := c.put(k, index.Loc{File: f.no, Pos: pos}); err != nil {
				c.mu.Unlock()
				return fmt.Errorf("index row %d: %w", i, err)
			}
		}
		c.mu.Unlock()
	}
	c.progress.rows.Add(int64(b.rows))
	c.progress.bytes.Add(int64(b.bytes))
	c.session.counters.RowsLoaded.Add(int64(b.rows))
	c.session.counters.BytesLoaded.Add(int64(b.bytes))
	c.open, c.keys = &batch{}, c.keys[:0]
	return nil
}

// begin opens a data file and its encoder.
func (c *copier) begin(of *partition.Place) (*dataFile, error) {
	enc, err := newEncoder(c.table.store, c.table.layout, of, c.session.room)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	f := &dataFile{no: c.table.nextFile(), path: enc.out.Path(), enc: enc}
	c.table.files[f.no] = f
	*c.added = append(*c.added, f)
	c.mu.Unlock()
	c.table.spawn(enc.run)
	return f, nil
}

// value prints one value of a COPY row as Postgres would.
func (c *copier) value(col int, data []byte) string {
	b := array.NewBuilder(c.session.room.mem, c.rows.schema.Field(col).Type)
	defer b.Release()
	if data == nil || c.table.layout.Columns[col].codec.Bind(b).Binary(data) != nil {
		return fmt.Sprintf("%q", data)
	}
	arr := b.NewArray()
	defer arr.Release()
	return column.Render(arr, 0)
}

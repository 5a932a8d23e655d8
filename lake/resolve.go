package lake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"golang.org/x/sync/errgroup"
)

const (
	// resolvedBytes is the unchanged TOAST values that an encoder fetches
	// together, as far as the last ones tell; four times that is refused.
	resolvedBytes = 16 << 20
	// resolvedValue is what the first are taken to weigh: Postgres stores values
	// out of line from about 2 kB on.
	resolvedValue = 4 << 10
	// resolversMax is how many encoders do so at a time.
	resolversMax = 2
)

// errTooMuch: a portion's values turned out to be much larger than those before.
var errTooMuch = errors.New("the unchanged values are too large to be fetched together")

// writeResolved writes rec, portion by portion, with the values in place that
// Postgres did not send.
func (e *encoder) writeResolved(ctx context.Context, rec arrow.RecordBatch, missing []fixup) (ended bool, err error) {
	for _, f := range missing { // before others are kept from resolving: they may be what is waited for
		if f.enc == nil {
			continue
		}
		if err := f.enc.readable(ctx); err != nil {
			return false, fmt.Errorf("wait for %s: %w", f.file.path, err)
		}
	}
	if err := e.room.resolving.Acquire(ctx, 1); err != nil {
		return false, err
	}
	defer e.room.resolving.Release(1)
	most := int(max(1, resolvedBytes/cmp.Or(e.valueBytes, resolvedValue)))
	for at, rows := int64(0), rec.NumRows(); at < rows; {
		n := wholeRows(missing, most)
		end := rows
		if n < len(missing) {
			end = int64(missing[n].row)
		}
		part, err := e.resolve(ctx, rec.NewSlice(at, end), int(at), missing[:n])
		if errors.Is(err, errTooMuch) {
			most = n / 2
			continue
		}
		if err != nil {
			return false, err
		}
		ended, err = e.write(ctx, part, end == rows)
		part.Release()
		if err != nil {
			return false, err
		}
		at, missing = end, missing[n:]
		most = int(max(1, resolvedBytes/e.valueBytes))
	}
	return ended, nil
}

// wholeRows is the number of fixups, most if it can be, with which no row is cut.
func wholeRows(missing []fixup, most int) int {
	if most >= len(missing) {
		return len(missing)
	}
	n := most
	for n > 0 && missing[n-1].row == missing[n].row {
		n--
	}
	if n > 0 {
		return n
	}
	for n = 1; n < len(missing) && missing[n].row == missing[0].row; n++ {
	}
	return n
}

// resolve takes rec over, whose first row is row first of the batch, and returns
// it with the missing values in place.
func (e *encoder) resolve(ctx context.Context, rec arrow.RecordBatch, first int, missing []fixup) (arrow.RecordBatch, error) {
	defer rec.Release()
	p := &patch{layout: e.layout, missing: missing, values: make([]fetched, len(missing))}
	defer p.release()
	order := make([]int, len(missing))
	for i, f := range missing {
		order[i] = i
		if !slices.Contains(p.cols, f.col) {
			p.cols = append(p.cols, f.col)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := missing[a], missing[b]
		return cmp.Or(cmp.Compare(x.file.no, y.file.no), cmp.Compare(x.pos, y.pos))
	})
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(resolversMax)
	for len(order) > 0 {
		n := 1
		for n < len(order) && missing[order[n]].file == missing[order[0]].file {
			n++
		}
		of := order[:n]
		g.Go(func() error { return p.fetch(gctx, e.store, of) })
		order = order[n:]
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("read unchanged values: %w", err)
	}
	e.valueBytes = p.bytes/int64(max(1, len(missing))) + 1
	return p.apply(rec, first, e.room.mem)
}

// patch holds fetched values until the columns are rebuilt with them.
type patch struct {
	layout  *Layout
	cols    []int // the columns concerned
	missing []fixup
	values  []fetched // of missing

	mu    sync.Mutex          // fetches of several files run at once
	keep  []arrow.RecordBatch // that values point into
	bytes int64               // of them
}

type fetched struct {
	from arrow.Array
	at   int
}

func (p *patch) release() {
	for _, r := range p.keep {
		r.Release()
	}
}

// hold keeps a record until release. Those of a single row have no limit.
func (p *patch) hold(rec arrow.RecordBatch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range rec.Columns() {
		p.bytes += int64(c.Data().SizeInBytes())
	}
	if p.bytes > 4*resolvedBytes && p.missing[0].row != p.missing[len(p.missing)-1].row {
		return errTooMuch
	}
	rec.Retain()
	p.keep = append(p.keep, rec)
	return nil
}

// fetch reads the cells of one file; of are indexes into missing, in the order
// of positions.
func (p *patch) fetch(ctx context.Context, store TableStore, of []int) error {
	var positions []uint32
	for _, m := range of {
		if pos := p.missing[m].pos; len(positions) == 0 || positions[len(positions)-1] != pos {
			positions = append(positions, pos)
		}
	}
	// The file may be older than columns that others are asked for.
	var cols []int
	for _, m := range of {
		if c := p.missing[m].col; !slices.Contains(cols, c) {
			cols = append(cols, c)
		}
	}
	path := p.missing[of[0]].file.path
	next, ordinal := 0, 0
	err := store.Read(ctx, path, p.layout.fields(cols), positions, func(first int64, rec arrow.RecordBatch) error {
		if err := p.hold(rec); err != nil {
			return err
		}
		for ; next < len(of); next++ {
			f := p.missing[of[next]]
			for positions[ordinal] != f.pos {
				ordinal++
			}
			if int64(ordinal) >= first+rec.NumRows() {
				return nil
			}
			p.values[of[next]] = fetched{rec.Column(slices.Index(cols, f.col)), int(int64(ordinal) - first)}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if next < len(of) {
		return fmt.Errorf("%s: position %d is missing", path, p.missing[of[next]].pos)
	}
	return nil
}

// apply returns rec, whose first row is row first of the batch, with the fetched
// cells in place.
func (p *patch) apply(rec arrow.RecordBatch, first int, mem memory.Allocator) (arrow.RecordBatch, error) {
	cols := make([]arrow.Array, rec.NumCols())
	for i := range cols {
		cols[i] = rec.Column(i)
		cols[i].Retain()
	}
	defer func() {
		for _, c := range cols {
			c.Release()
		}
	}()
	for _, c := range p.cols {
		b := array.NewBuilder(mem, cols[c].DataType())
		cell := p.layout.Columns[c].codec.Bind(b)
		b.Reserve(int(rec.NumRows()))
		var err error
		row := 0
		copyTo := func(end int) {
			for ; row < end && err == nil; row++ {
				err = cell.From(cols[c], row)
			}
		}
		for i, f := range p.missing {
			if f.col != c || err != nil {
				continue
			}
			if copyTo(f.row - first); err == nil {
				err = cell.From(p.values[i].from, p.values[i].at)
				row++
			}
		}
		copyTo(int(rec.NumRows()))
		if err != nil {
			b.Release()
			return nil, fmt.Errorf("put back unchanged values of column %s: %w", p.layout.Columns[c].Name, err)
		}
		cols[c].Release()
		cols[c] = b.NewArray()
		b.Release()
	}
	return array.NewRecordBatch(rec.Schema(), cols, rec.NumRows()), nil
}
